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

from slopesearch.nets.cpu import loops


def _bits(x: Tensor) -> Any:
    """The numpy array of a tensor, of bf16 its bits as int16."""
    x = x.detach()
    return (x.view(torch.int16) if x.dtype == torch.bfloat16 else x).numpy()


def _memory(x: Tensor) -> Any:
    """The memory of a channels-last (N, C, H, W) map as a numpy array (N, H, W, C)."""
    return _bits(x.permute(0, 2, 3, 1))


def _rows(x: Tensor) -> Any:
    """The same memory as (N*H*W, C)."""
    return _memory(x).reshape(-1, x.shape[1])


def _map(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    return torch.empty(tuple(shape), dtype=dtype, memory_format=torch.channels_last)


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


# --- pools

# What an activation makes of a map, where a pool has moved before it. None: it never falls, so the winner of
# a window stays its winner. Else it never rises before it falls: its largest value is at one of the two ends.
Ends = Callable[[Tensor], Tensor] | None


class _Windows:
    """The ends of each 2x2 window of a map (N, C, H, W) and where they are: (N, C, H/2, W/2) each."""

    def __init__(self, shape: Sequence[int], dtype: torch.dtype, both: bool) -> None:
        n, c, h, w = shape
        half = n, c, h // 2, w // 2
        self.high, self.winner = _map(half, dtype), _map(half, torch.uint8)
        # Made for one end too: with an array given twice the compiled loop takes its slow way.
        self.low, self.low_winner = _map(half, dtype), _map(half, torch.uint8)
        self.pool = loops.pool_ends if both else loops.pool_high
        self.convolve_and_pool = loops.convolve_and_pool_ends if both else loops.convolve_and_pool_high

    def memory(self) -> Iterator[Any]:
        """As the two loops fill it."""
        return map(_memory, (self.high, self.winner, self.low, self.low_winner))

    def choose(self, of_high: Tensor, of_low: Tensor) -> None:
        """Leave in `high` the end of which the activation makes more, and in `winner` its place."""
        values = map(_channels_last, (of_high, of_low))
        loops.take_larger(*map(_rows, (*values, self.high, self.low, self.winner, self.low_winner)))


def _pooled(x: Tensor, ends: Ends) -> tuple[Tensor, Tensor]:
    """The end of each window that the activation makes the most of, and where it was."""
    windows, sums = _Windows(x.shape, x.dtype, ends is not None), np.empty((2, x.shape[1]))
    ones, zeros = np.ones(x.shape[1], np.float32), np.zeros(x.shape[1], np.float32)
    windows.pool(_memory(x), ones, zeros, *windows.memory(), sums)
    if ends is not None:
        windows.choose(ends(windows.high), ends(windows.low))
    return windows.high, windows.winner


class _Pool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, ends: Ends) -> Tensor:
        y, winner = _pooled(x, ends)
        ctx.save_for_backward(x, winner)
        return y

    @staticmethod
    def backward(ctx: Any, *dys: Tensor) -> tuple[Tensor, None]:
        x, winner = ctx.saved_tensors
        line = np.zeros((4, x.shape[1]), np.float32)
        line[3] = 1
        return _scattered(torch.zeros_like(x), line, dys[0], winner), None  # 0 times infinity is no 0


def _scattered(x: Tensor, line: Any, dy: Tensor, winner: Tensor) -> Tensor:
    dx = _map(x.shape, x.dtype)
    loops.scatter(_memory(x), line, _memory(_channels_last(dy)), _memory(winner), _memory(dx))
    return dx


def pool(x: Tensor, ends: Ends) -> Tensor:
    """2x2 max-pooling: (N, C, 2H, 2W) -> (N, C, H, W), of each window the end that the activation needs."""
    y: Tensor = _Pool.apply(x, ends)
    return y


# --- BatchNorm before a pool

# Normalising a channel is a rising or a falling line, so the pool can come first: its winners are the largest
# numbers of a window where the channel's weight is positive, the smallest where it is negative. One pass over
# the map takes the sums and the winners; the rest is on a quarter of the numbers, and one pass backward.


class _NormPool(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, norm: nn.BatchNorm2d, ends: Ends
    ) -> Tensor:
        gamma, beta, sums = weight.detach().numpy(), bias.detach().numpy(), np.empty((2, x.shape[1]))
        sign = np.where(gamma < 0, np.float32(-1), np.float32(1))
        pivot = x[0, :, 0, 0].detach().float().numpy()  # or E[x^2] - E[x]^2 would cancel at large means
        windows = _Windows(x.shape, x.dtype, ends is not None)
        windows.pool(_memory(x), sign, pivot, *windows.memory(), sums)
        count = x.numel() // x.shape[1]
        shift, square = sums / count
        mean, var = pivot + shift, np.maximum(square - shift**2, 0)
        _track(norm, mean, var, count)
        inverse = 1 / np.sqrt(var + norm.eps)
        line = np.stack([beta, gamma * inverse, mean]).astype(np.float32)
        if ends is not None:
            windows.choose(ends(_scaled(windows.high, line)), ends(_scaled(windows.low, line)))
        ctx.statistics = count, mean.astype(np.float32), inverse
        ctx.save_for_backward(x, windows.high, windows.winner, weight)
        return _scaled(windows.high, line)

    @staticmethod
    def backward(ctx: Any, *dys: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        (x, pooled, winner, weight), (count, mean, inverse) = ctx.saved_tensors, ctx.statistics
        dy, sums = _channels_last(dys[0]), np.empty((2, x.shape[1]))
        loops.sum_gradients(_rows(pooled), mean, _rows(dy), sums)
        dbias, dweight = sums[0], sums[1] * inverse
        # dx = weight * inverse * (dy at the winners - (dbias + normalised x * dweight) / count)
        factor = weight.numpy() * inverse
        line = [-factor * dbias / count, -factor * inverse * dweight / count, mean, factor]
        dx = _scattered(x, np.stack(line).astype(np.float32), dy, winner)
        return dx, torch.from_numpy(dweight).float(), torch.from_numpy(dbias).float(), None, None


def _scaled(x: Tensor, line: Any) -> Tensor:
    y = torch.empty_like(x)
    loops.scale(_rows(x), line, _rows(y))
    return y


@torch.no_grad()
def _track(norm: Any, mean: Any, var: Any, count: int) -> None:
    """What BatchNorm remembers for validation: mean and biased variance, numpy (C,), of `count` numbers."""
    norm.num_batches_tracked += 1
    norm.running_mean.lerp_(torch.from_numpy(mean).float(), norm.momentum)
    norm.running_var.lerp_(torch.from_numpy(var * (count / (count - 1))).float(), norm.momentum)


def norm_pool(x: Tensor, norm: nn.BatchNorm2d, ends: Ends) -> Tensor:
    """pool(norm(x)) in training: (N, C, 2H, 2W) -> (N, C, H, W)."""
    y: Tensor = _NormPool.apply(x, norm.weight, norm.bias, norm, ends)
    return y


# --- the first convolution

# Images have one channel, so a convolution is nine products a number: too few for a matrix product, and less
# work than to write the map and read it again. A pool that follows needs no map at all: forward it keeps the
# largest of four, backward only those have a gradient. BatchNorm on such a map costs nothing either: the mean
# and the variance of a linear function of the images' 3x3 windows follow from the mean and the second moments
# of the windows, so BatchNorm is folded into the weights before they are applied.


class _ConvolveAndPool(torch.autograd.Function):
    """Images with a border (N, H + 2, W + 2), taps (10, C) -> (N, C, H/2, W/2)."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, taps: Tensor, dtype: torch.dtype, ends: Ends) -> Tensor:
        shape = len(images), taps.shape[1], images.shape[1] - 2, images.shape[2] - 2
        windows = _Windows(shape, dtype, ends is not None)
        windows.convolve_and_pool(images.numpy(), taps.detach().contiguous().numpy(), *windows.memory())
        if ends is not None:
            windows.choose(ends(windows.high), ends(windows.low))
        ctx.save_for_backward(images, windows.winner)
        return windows.high

    @staticmethod
    def backward(ctx: Any, *dys: Tensor) -> tuple[None, Tensor, None, None]:
        images, winner = ctx.saved_tensors
        dy, dtaps = _channels_last(dys[0]), np.empty((10, dys[0].shape[1]))
        loops.convolve_and_pool_backward(images.numpy(), _memory(dy), _memory(winner), dtaps)
        return None, torch.from_numpy(dtaps).float(), None, None


class _Fold(torch.autograd.Function):
    """weight (C, 9), BatchNorm's weight and bias (C,) -> taps (10, C) that convolve and normalise at once.

    The statistics are those of these images, functions of the weights that the gradient goes through.
    """

    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, gamma: Tensor, beta: Tensor, norm: nn.BatchNorm2d, images: Tensor
    ) -> Tensor:
        w = weight.detach().double().numpy()
        sums = np.zeros((9, 10))
        loops.moments(images.numpy(), sums)
        count = len(images) * (images.shape[1] - 2) * (images.shape[2] - 2)
        upper = np.triu(sums[:, :9]) / count
        ctx.first, ctx.second = sums[:, 9] / count, upper + np.triu(upper, 1).T
        mean = w @ ctx.first
        var = np.maximum(((w @ ctx.second) * w).sum(1) - mean**2, 0)
        _track(norm, mean, var, count)
        inverse = 1 / np.sqrt(var + norm.eps)
        ctx.statistics = w, mean, inverse
        ctx.save_for_backward(gamma)
        factor = gamma.detach().numpy() * inverse
        taps = np.vstack([w.T * factor, beta.detach().numpy() - mean * factor])
        return torch.from_numpy(taps.astype(np.float32))

    @staticmethod
    def backward(ctx: Any, *dtaps: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        (w, mean, inverse), gamma = ctx.statistics, ctx.saved_tensors[0].numpy()
        dbeta = dtaps[0][9].double().numpy()
        dscaled = dtaps[0][:9].double().numpy().T
        dfactor = (dscaled * w).sum(1) - dbeta * mean
        dvar = -0.5 * dfactor * gamma * inverse**3
        dmean = -dbeta * gamma * inverse - 2 * mean * dvar
        dw = dscaled * (gamma * inverse)[:, None]
        dw += dmean[:, None] * ctx.first + (2 * dvar)[:, None] * (w @ ctx.second)
        dweight, dgamma, dbias = (torch.from_numpy(part).float() for part in (dw, dfactor * inverse, dbeta))
        return dweight, dgamma, dbias, None, None


def stem(x: Tensor, layer: nn.Conv2d, norm: nn.BatchNorm2d | None, ends: Ends, dtype: torch.dtype) -> Tensor:
    """pool(norm(conv(x))), with or without a norm: images (N, 1, 2H, 2W) -> a map (N, C, H, W)."""
    images = F.pad(x[:, 0], (1, 1, 1, 1))
    weight = layer.weight.flatten(1)
    if norm is None:
        bias = weight.new_zeros(len(weight)) if layer.bias is None else layer.bias
        taps = torch.cat([weight.T, bias[None]])
    elif norm.training:
        taps = _Fold.apply(weight, norm.weight, norm.bias, norm, images)
    else:
        factor, shift = _line_of(norm)
        taps = torch.cat([weight.T * factor, shift[None]])
    y: Tensor = _ConvolveAndPool.apply(images, taps, dtype, ends)
    return y


def _line_of(norm: Any) -> tuple[Tensor, Tensor]:
    """(factor, shift) of BatchNorm in evaluation, (C,) each."""
    factor = norm.weight * (norm.running_var + norm.eps).rsqrt()
    return factor, norm.bias - norm.running_mean * factor


# --- other products


def conv(x: Tensor, layer: nn.Conv2d, dtype: torch.dtype) -> Tensor:
    """A 3x3 convolution: (N, C, H, W) -> (N, K, H, W)."""
    y = F.conv2d(x.to(dtype), layer.weight.to(dtype), _rounded(layer.bias, dtype), padding=1)
    return _channels_last(y)


def _rounded(bias: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if bias is None else bias.to(dtype)


def conv_norm(x: Tensor, layer: nn.Conv2d, norm: nn.BatchNorm2d, dtype: torch.dtype) -> Tensor:
    """norm(conv(x)) in evaluation, as one convolution."""
    factor, shift = _line_of(norm)
    weight = layer.weight * factor.view(-1, 1, 1, 1)
    bias = shift if layer.bias is None else shift + layer.bias * factor
    return _channels_last(F.conv2d(x.to(dtype), weight.to(dtype), bias.to(dtype), padding=1))


class _PooledConv(torch.autograd.Function):
    """x (N, C, H, W), weight (K, C, 3, 3), bias (K,) -> (N, K, H/2, W/2); C is a multiple of 32.

    Only the winners of the pool have a gradient, one of four numbers, so both gradients are sums over those.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, ends: Ends) -> Tensor:
        y = _channels_last(F.conv2d(x, weight.to(x.dtype), _rounded(bias, x.dtype), padding=1))
        y, winner = _pooled(y, ends)
        ctx.save_for_backward(x, winner, weight)
        return y

    @staticmethod
    def backward(ctx: Any, *dys: Tensor) -> tuple[Tensor, Tensor, Tensor | None, None]:
        x, winner, weight = ctx.saved_tensors
        dy, channels, blocks = _channels_last(dys[0]), len(weight), x.shape[1] // loops.BLOCK
        # Made by torch, which aligns memory to 64 bytes, a vector; numba does not.
        room = torch.zeros(x.shape[2] + 2, x.shape[3] + 2, loops.BLOCK)
        dw = torch.empty(blocks, channels * 9 * loops.BLOCK)
        loops.gradient_of_weights(_memory(x), _memory(dy), _memory(winner), room.numpy(), dw.numpy())
        dw = dw.view(blocks, channels, 3, 3, loops.BLOCK).permute(1, 0, 4, 2, 3).flatten(1, 2)

        w = weight.to(x.dtype).float().permute(2, 0, 3, 1).unflatten(3, (blocks, -1))
        w, dx = w.movedim(3, 0).reshape(blocks, 3, -1), _map(x.shape, x.dtype)
        loops.gradient_of_maps(_memory(dy), _memory(winner), w.numpy(), room.numpy(), _memory(dx))
        dbias = dy.sum((0, 2, 3), dtype=torch.float32) if ctx.needs_input_grad[2] else None
        return dx, dw, dbias, None


def pooled_conv(x: Tensor, layer: nn.Conv2d, ends: Ends, dtype: torch.dtype) -> Tensor:
    """pool(conv(x)): (N, C, 2H, 2W) -> (N, K, H, W), C a multiple of 32."""
    y: Tensor = _PooledConv.apply(x.to(dtype), layer.weight, layer.bias, ends)
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
    def backward(ctx: Any, *dys: Tensor) -> tuple[Tensor, Tensor]:
        x, slope = ctx.saved_tensors
        dx, dslope = torch.empty_like(x), np.empty(len(slope))
        loops.bend_backward(_rows(x), slope.numpy(), _rows(_channels_last(dys[0])), _rows(dx), dslope)
        return dx, torch.from_numpy(dslope).float()


def bend(x: Tensor, slope: Tensor) -> Tensor:
    """Leaky ReLU of a map with one learned slope () or one for each channel (C,)."""
    y: Tensor = _Bend.apply(x, slope.expand(x.shape[1]).contiguous())
    return y


class _LookUp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, values: Tensor, slopes: Tensor) -> Tensor:
        y = torch.empty_like(x)
        loops.look_up(_memory(x).ravel(), _bits(values), _memory(y).ravel())
        ctx.save_for_backward(x, slopes)
        return y

    @staticmethod
    def backward(ctx: Any, *dys: Tensor) -> tuple[Tensor, None, None]:
        x, slopes = ctx.saved_tensors
        dx, dy = torch.empty_like(x), _channels_last(dys[0])
        loops.look_up_backward(_memory(x).ravel(), slopes.numpy(), _memory(dy).ravel(), _memory(dx).ravel())
        return dx, None, None


def look_up(x: Tensor, values: Tensor, slopes: Tensor) -> Tensor:
    """An activation of a bf16 map by its tables, see `tables_of`."""
    y: Tensor = _LookUp.apply(x, values, slopes)
    return y


def tables_of(activation: nn.Module) -> tuple[Tensor, Tensor]:
    """phi(z), bf16, and phi'(z), float32, of every z that bf16 holds, by its bits.

    Of an elementwise activation without parameters: torch's own numbers, at a third of torch's time.
    """
    bits = torch.arange(2**16, dtype=torch.int32).to(torch.int16)
    z = bits.view(torch.bfloat16)
    with torch.no_grad():  # of a map, since torch's gelu of a flat tensor is another
        values = activation(_channels_last(z.view(16, 16, 16, 16).clone())).contiguous().view(-1)
    with torch.enable_grad():
        wide = z.float().requires_grad_()
        (slopes,) = torch.autograd.grad(activation(wide.clone()).sum(), wide)
    return values, slopes


class _Flatten(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.shape = x.shape
        return x.flatten(1)

    @staticmethod
    def backward(ctx: Any, *dys: Tensor) -> tuple[Tensor]:
        # A gradient of another layout than the map's takes the layers before it ten times as long as this.
        return (_channels_last(dys[0].view(ctx.shape)),)


flatten: Callable[[Tensor], Tensor] = _Flatten.apply
