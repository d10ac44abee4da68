"""What a plan consists of: layers that a CPU does as one, each a function from map to map with its gradient.

Maps are (N, C, H, W), channels-last, float32 or bf16; parameters are float32 and their slopes, means and
variances are used as they are, while the weights of a product are rounded to the map's precision.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from slopesearch.nets.cpu import loops


def _bits(x: Tensor) -> Any:
    """The numpy array of a tensor, of bf16 its bits as int16."""
    x = x.detach()
    return (x.view(torch.int16) if x.dtype == torch.bfloat16 else x).numpy()


def memory_of(x: Tensor) -> Any:
    """The memory of a channels-last (N, C, H, W) map as a numpy array (N, H, W, C)."""
    return _bits(x.permute(0, 2, 3, 1))


def _rows(x: Tensor) -> Any:
    """The same memory as (N*H*W, C). Raises RuntimeError where the map is not channels-last."""
    return _bits(x.permute(0, 2, 3, 1).view(-1, x.shape[1]))


def _flat(x: Tensor) -> Any:
    """The same memory as (N*H*W*C,)."""
    return _bits(x.permute(0, 2, 3, 1).view(-1))


def new_map(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Room for a channels-last map (N, C, H, W)."""
    return torch.empty(tuple(shape), dtype=dtype, memory_format=torch.channels_last)


def channels_last(x: Tensor) -> Tensor:
    """The same map with its channels last in memory; itself where they are."""
    return x.contiguous(memory_format=torch.channels_last)


# --- pools

# An activation phi that a pool has moved before. None: phi never falls, so the winner of a window stays its
# winner. Else phi never rises before it falls: its largest value over a window is at one of the two ends.
Phi = Callable[[Tensor], Tensor] | None


class Windows:
    """The ends of each 2x2 window of a map (N, C, H, W) and where they are: (N, C, H/2, W/2) each."""

    def __init__(self, shape: Sequence[int], dtype: torch.dtype, both: bool) -> None:
        n, c, h, w = shape
        half = n, c, h // 2, w // 2
        self.high, self.winner = new_map(half, dtype), new_map(half, torch.uint8)
        # Allocated even where only `high` is wanted: given one array twice, the loop would not vectorise.
        self.low, self.low_winner = new_map(half, dtype), new_map(half, torch.uint8)
        self.pool = loops.pool_ends if both else loops.pool_high
        self.convolve_and_pool = loops.convolve_and_pool_ends if both else loops.convolve_and_pool_high

    def memory(self) -> Iterator[Any]:
        """As the two loops fill it."""
        return map(memory_of, (self.high, self.winner, self.low, self.low_winner))

    def choose(self, phi_high: Tensor, phi_low: Tensor) -> None:
        """Leave in `high` the end of which phi makes more, and in `winner` its place."""
        values = map(channels_last, (phi_high, phi_low))
        loops.take_larger(*map(_flat, (*values, self.high, self.low, self.winner, self.low_winner)))


def _pooled(x: Tensor, phi: Phi) -> tuple[Tensor, Tensor]:
    """The end of each window of which phi makes more, and where it was."""
    windows, sums = Windows(x.shape, x.dtype, phi is not None), np.empty((2, x.shape[1]))
    ones, zeros = np.ones(x.shape[1], np.float32), np.zeros(x.shape[1], np.float32)
    windows.pool(memory_of(x), ones, zeros, *windows.memory(), sums)
    if phi is not None:
        windows.choose(phi(windows.high), phi(windows.low))
    return windows.high, windows.winner


class _Pool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, phi: Phi) -> Tensor:
        y, winner = _pooled(x, phi)
        ctx.shape = x.shape
        ctx.save_for_backward(winner)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *dys: Tensor) -> tuple[Tensor, None]:
        zeros = new_map(ctx.shape, dys[0].dtype).zero_()  # not the map, since 0 times infinity is no 0
        affine = np.zeros((4, ctx.shape[1]), np.float32)
        affine[3] = 1
        return _scattered(zeros, affine, dys[0], ctx.saved_tensors[0]), None


def _scattered(x: Tensor, affine: Any, dy: Tensor, winner: Tensor) -> Tensor:
    dx = new_map(x.shape, x.dtype)
    loops.scatter(memory_of(x), affine, memory_of(channels_last(dy)), memory_of(winner), memory_of(dx))
    return dx


def pool(x: Tensor, phi: Phi) -> Tensor:
    """2x2 max-pooling: (N, C, 2H, 2W) -> (N, C, H, W), of each window the end of which phi makes more."""
    y: Tensor = _Pool.apply(channels_last(x), phi)
    return y


# --- BatchNorm before a pool

# Normalising a channel is a rising or a falling line, so the pool can come first: its winners are the largest
# numbers of a window where the channel's weight is positive, the smallest where it is negative. One pass over
# the map takes the sums and the winners; the rest is on a quarter of the numbers, and one pass backward.


class _NormPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, norm: nn.BatchNorm2d, phi: Phi) -> Tensor:
        gamma, beta, sums = weight.detach().numpy(), bias.detach().numpy(), np.empty((2, x.shape[1]))
        sign = np.where(gamma < 0, np.float32(-1), np.float32(1))
        # Subtracted first, or E[x^2] - E[x]^2 would cancel at large means. Any number near the mean will do.
        pivot = x[0, :, 0, 0].detach().float().numpy()
        windows = Windows(x.shape, x.dtype, phi is not None)
        windows.pool(memory_of(x), sign, pivot, *windows.memory(), sums)
        count = x.numel() // x.shape[1]
        with np.errstate(invalid="ignore", over="ignore"):  # a run that diverges
            shift, square = sums / count
            mean, var = pivot + shift, np.maximum(square - shift**2, 0)
            inverse = 1 / np.sqrt(var + norm.eps)
        track(norm, mean, var, count)
        affine = np.stack([beta, gamma * inverse, mean]).astype(np.float32)
        if phi is not None:
            windows.choose(phi(_scaled(windows.high, affine)), phi(_scaled(windows.low, affine)))
        ctx.statistics = count, mean.astype(np.float32), inverse
        ctx.save_for_backward(x, windows.high, windows.winner, weight)
        return _scaled(windows.high, affine)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *dys: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        (x, pooled, winner, weight), (count, mean, inverse) = ctx.saved_tensors, ctx.statistics
        dy, sums = channels_last(dys[0]), np.empty((2, x.shape[1]))
        loops.sum_gradients(_rows(pooled), mean, _rows(dy), sums)
        dbias, dweight = sums[0], sums[1] * inverse
        # dx = weight * inverse * (dy at the winners - (dbias + normalised x * dweight) / count)
        factor = weight.numpy() * inverse
        affine = [-factor * dbias / count, -factor * inverse * dweight / count, mean, factor]
        dx = _scattered(x, np.stack(affine).astype(np.float32), dy, winner)
        return dx, torch.from_numpy(dweight).float(), torch.from_numpy(dbias).float(), None, None


def _scaled(x: Tensor, affine: Any) -> Tensor:
    y = torch.empty_like(x)
    loops.scale(_rows(x), affine, _rows(y))
    return y


def track(norm: Any, mean: Any, var: Any, count: int) -> None:
    """What BatchNorm remembers for validation: mean and biased variance, numpy (C,), of `count` numbers."""
    norm.num_batches_tracked.add_(1)
    for remembered, value in ((norm.running_mean, mean), (norm.running_var, var * (count / (count - 1)))):
        memory = remembered.numpy()  # torch takes 0.1 ms a step longer for as much
        memory += norm.momentum * (value - memory)


def norm_pool(x: Tensor, norm: nn.BatchNorm2d, phi: Phi) -> Tensor:
    """pool(norm(x)) in training: (N, C, 2H, 2W) -> (N, C, H, W)."""
    y: Tensor = _NormPool.apply(channels_last(x), norm.weight, norm.bias, norm, phi)
    return y


# --- other products


def affine_of(norm: Any) -> tuple[Tensor, Tensor]:
    """(factor, shift) of BatchNorm in evaluation, (C,) each."""
    factor = norm.weight * (norm.running_var + norm.eps).rsqrt()
    return factor, norm.bias - norm.running_mean * factor


def conv(x: Tensor, layer: nn.Conv2d, dtype: torch.dtype) -> Tensor:
    """A 3x3 convolution: (N, C, H, W) -> (N, K, H, W)."""
    y = F.conv2d(x.to(dtype), layer.weight.to(dtype), _rounded(layer.bias, dtype), padding=1)
    return channels_last(y)


def _rounded(bias: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if bias is None else bias.to(dtype)


def conv_norm(x: Tensor, layer: nn.Conv2d, norm: nn.BatchNorm2d, dtype: torch.dtype) -> Tensor:
    """norm(conv(x)) in evaluation, as one convolution."""
    factor, shift = affine_of(norm)
    weight = layer.weight * factor.view(-1, 1, 1, 1)
    bias = shift if layer.bias is None else shift + layer.bias * factor
    return channels_last(F.conv2d(x.to(dtype), weight.to(dtype), bias.to(dtype), padding=1))


class _PooledConv(torch.autograd.Function):
    """x (N, C, H, W), weight (K, C, 3, 3), bias (K,) -> (N, K, H/2, W/2); C is a multiple of 32.

    Only the winners of the pool have a gradient, one of four numbers, so both gradients are sums over those.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, phi: Phi) -> Tensor:
        y = channels_last(F.conv2d(x, weight.to(x.dtype), _rounded(bias, x.dtype), padding=1))
        y, winner = _pooled(y, phi)
        ctx.save_for_backward(x, winner, weight)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *dys: Tensor) -> tuple[Tensor, Tensor, Tensor | None, None]:
        x, winner, weight = ctx.saved_tensors
        dy, channels, blocks = channels_last(dys[0]), len(weight), x.shape[1] // loops.BLOCK
        # Made by torch, which aligns memory to 64 bytes, a vector; numba does not.
        room = torch.zeros(x.shape[2] + 2, x.shape[3] + 2, loops.BLOCK)
        dw = torch.empty(blocks, channels * 9 * loops.BLOCK)
        loops.gradient_of_weights(memory_of(x), memory_of(dy), memory_of(winner), room.numpy(), dw.numpy())
        dw = dw.view(blocks, channels, 3, 3, loops.BLOCK).permute(1, 0, 4, 2, 3).flatten(1, 2)

        w = weight.to(x.dtype).float().permute(2, 0, 3, 1).unflatten(3, (blocks, -1))
        w, dx = w.movedim(3, 0).reshape(blocks, 3, -1), new_map(x.shape, x.dtype)
        loops.gradient_of_maps(memory_of(dy), memory_of(winner), w.numpy(), room.numpy(), memory_of(dx))
        dbias = dy.sum((0, 2, 3), dtype=torch.float32) if ctx.needs_input_grad[2] else None
        return dx, dw, dbias, None


def pooled_conv(x: Tensor, layer: nn.Conv2d, phi: Phi, dtype: torch.dtype) -> Tensor:
    """pool(conv(x)): (N, C, 2H, 2W) -> (N, K, H, W), C a multiple of 32."""
    y: Tensor = _PooledConv.apply(channels_last(x.to(dtype)), layer.weight, layer.bias, phi)
    return y


def linear(x: Tensor, layer: nn.Linear, dtype: torch.dtype) -> Tensor:
    """(N, C) -> (N, K)."""
    return F.linear(x.to(dtype), layer.weight.to(dtype), _rounded(layer.bias, dtype))


# --- what stands between


class _Bend(torch.autograd.Function):
    """Leaky ReLU of a map with learned slopes (C,); the products for their gradient are summed in float32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: Tensor) -> Tensor:
        y = torch.empty_like(x)
        loops.bend(_rows(x), slope.detach().numpy(), _rows(y))
        ctx.save_for_backward(x, slope)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *dys: Tensor) -> tuple[Tensor, Tensor]:
        x, slope = ctx.saved_tensors
        dx, dslope = torch.empty_like(x), np.empty(len(slope))
        loops.bend_backward(_rows(x), slope.numpy(), _rows(channels_last(dys[0])), _rows(dx), dslope)
        return dx, torch.from_numpy(dslope).float()


def bend(x: Tensor, slope: Tensor) -> Tensor:
    """Leaky ReLU of a map with one learned slope () or one for each channel (C,)."""
    y: Tensor = _Bend.apply(channels_last(x), slope.expand(x.shape[1]).contiguous())
    return y


class _LookUp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, values: Tensor, slopes: Tensor) -> Tensor:
        y = torch.empty_like(x)
        loops.look_up(_flat(x), _bits(values), _flat(y))
        ctx.save_for_backward(x, slopes)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *dys: Tensor) -> tuple[Tensor, None, None]:
        x, slopes = ctx.saved_tensors
        dx, dy = torch.empty_like(x), channels_last(dys[0])
        loops.look_up_backward(_flat(x), slopes.numpy(), _flat(dy), _flat(dx))
        return dx, None, None


def look_up(x: Tensor, values: Tensor, slopes: Tensor) -> Tensor:
    """An activation of a bf16 map by its tables, see `tables_of`."""
    y: Tensor = _LookUp.apply(channels_last(x), values, slopes)
    return y


def tables_of(activation: nn.Module) -> tuple[Tensor, Tensor]:
    """phi(z), bf16, and phi'(z), float32, of every z that bf16 holds, by its bits.

    The activation is elementwise and has no parameters. The tables hold torch's own numbers, and looking
    them up takes a third of the time that torch takes to compute them.
    """
    z = torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
    with torch.inference_mode(False), torch.enable_grad():
        wide = z.float().requires_grad_()
        (slopes,) = torch.autograd.grad(activation(wide.clone()).sum(), wide)
        # As a map: torch's gelu gives other bits for a flat tensor.
        values = activation(channels_last(z.view(16, 16, 16, 16).clone())).contiguous().view(-1)
    return values, slopes


class _Flatten(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.shape = x.shape
        return x.clone(memory_format=torch.contiguous_format).flatten(1)

    @staticmethod
    def backward(ctx: Any, *dys: Tensor) -> tuple[Tensor]:
        # A gradient of another layout than the map's takes the layers before it ten times as long as this.
        return (channels_last(dys[0].view(ctx.shape)),)


flatten: Callable[[Tensor], Tensor] = _Flatten.apply
