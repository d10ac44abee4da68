"""BatchNorm followed by 2x2 max-pooling as one operation, for training on a CPU.

Normalising a channel is a rising or a falling line, so the pool can come first: its winners are the largest
numbers of a window where the channel's weight is positive, the smallest where it is negative. One pass over
the map takes the sums and the winners; what is left of BatchNorm's work forward is on a quarter of the
numbers, and backward is one pass more.
"""

from typing import Any

import numpy as np
import torch
from numba import types
from numba.extending import intrinsic, overload
from torch import Tensor, nn

from slopesearch.nets.pooling import MaxPool2x2, compiled, memory_of

_MAPS = ("float32[:,:,:,::1]", "int16[:,:,:,::1]")  # bf16 numbers travel as the int16 of their bits


@intrinsic
def _float_of_bits(typingctx, bits):
    def codegen(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], context.get_value_type(types.float32))

    return types.float32(types.int32), codegen


@intrinsic
def _bits_of_float(typingctx, value):
    def codegen(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], context.get_value_type(types.int32))

    return types.int32(types.float32), codegen


def _load(value):
    """A number of the map as float32."""


def _store(value, like):
    """A float32 as a number of a map: itself, or rounded to the nearest bf16."""


@overload(_load)
def _load_of(value):
    if isinstance(value, types.Float):
        return lambda value: value
    return lambda value: _float_of_bits(np.int32(value) << 16)  # type: ignore[call-arg]


@overload(_store)
def _store_of(value, like):
    if isinstance(like, types.Float):
        return lambda value, like: value

    def bf16(value, like):
        bits: Any = _bits_of_float(value)  # type: ignore[call-arg]
        return np.int16((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16)

    return bf16


@compiled([f"void({m}, {m}, uint8[:,:,:,::1], float32[::1], float64[:,::1])" for m in _MAPS])
def _pool_and_sum(x, y, winner, sign, sums):
    """x (N, 2H, 2W, C) -> y (N, H, W, C), the winner of each window by sign * x, and where it was, 0 to 3.

    `sums` (2, C) is set to the sums of x and of its square over all but the channels.
    """
    channels = x.shape[3]
    sums[:] = 0
    first, second = np.empty(channels, np.float32), np.empty(channels, np.float32)
    for n in range(y.shape[0]):
        first[:] = 0
        second[:] = 0
        for i in range(y.shape[1]):
            for j in range(y.shape[2]):
                x0, x1 = x[n, 2 * i, 2 * j], x[n, 2 * i, 2 * j + 1]
                x2, x3 = x[n, 2 * i + 1, 2 * j], x[n, 2 * i + 1, 2 * j + 1]
                out, which = y[n, i, j], winner[n, i, j]
                for c in range(channels):
                    a, b = _load(x0[c]), _load(x1[c])
                    d, e = _load(x2[c]), _load(x3[c])
                    first[c] += (a + b) + (d + e)
                    second[c] += (a * a + b * b) + (d * d + e * e)
                    best, index = a * sign[c], np.uint8(0)
                    if b * sign[c] > best:
                        best, index = b * sign[c], np.uint8(1)
                    if d * sign[c] > best:
                        best, index = d * sign[c], np.uint8(2)
                    if e * sign[c] > best:
                        best, index = e * sign[c], np.uint8(3)
                    out[c] = _store(best * sign[c], x0[c])
                    which[c] = index
        for c in range(channels):  # an image at a time, so that single precision is enough above
            sums[0, c] += first[c]
            sums[1, c] += second[c]


@compiled([f"void({m}, {m}, float32[:,:,:,::1], uint8[:,:,:,::1], float32[:,::1])" for m in _MAPS])
def _scatter(dx, x, g, winner, line):
    """dx = line[0] + line[1] * x, and g (N, H, W, C) more where it was the winner."""
    for n in range(g.shape[0]):
        for i in range(g.shape[1]):
            for j in range(g.shape[2]):
                source, which = g[n, i, j], winner[n, i, j]
                for k in range(4):
                    target = dx[n, 2 * i + k // 2, 2 * j + k % 2]
                    value = x[n, 2 * i + k // 2, 2 * j + k % 2]
                    for c in range(source.shape[0]):
                        more = source[c] if which[c] == k else np.float32(0)
                        target[c] = _store(line[0, c] + line[1, c] * _load(value[c]) + more, value[c])


class _NormPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, norm: nn.BatchNorm2d) -> Tensor:
        n, c, h, w = x.shape
        pooled = torch.empty((n, c, h // 2, w // 2), dtype=x.dtype, memory_format=torch.channels_last)
        winner = torch.empty((n, h // 2, w // 2, c), dtype=torch.uint8)
        sums = torch.empty((2, c), dtype=torch.float64)
        sign = torch.where(weight.detach() < 0, -1.0, 1.0)
        _pool_and_sum(memory_of(x.detach()), memory_of(pooled), winner.numpy(), sign.numpy(), sums.numpy())
        count = n * h * w
        mean = sums[0] / count
        var = (sums[1] / count - mean**2).clamp(min=0)
        _track(norm, mean, var * count / (count - 1))
        inverse = (var + norm.eps).rsqrt()
        ctx.count = count
        ctx.save_for_backward(x, pooled, winner, weight, mean, inverse)
        scale, start, middle = (part.float().view(1, -1, 1, 1) for part in (weight * inverse, bias, mean))
        return torch.addcmul(start, pooled - middle, scale).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *dys: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, pooled, winner, weight, mean, inverse = ctx.saved_tensors
        dy = dys[0].float().contiguous(memory_format=torch.channels_last)
        dbias = dy.sum((0, 2, 3))
        dweight = ((dy * pooled).sum((0, 2, 3)) - mean * dbias) * inverse
        # dx = weight * inverse * (dy at the winners - (dbias + normalised x * dweight) / count)
        slope = -weight * inverse**2 * dweight / ctx.count
        shift = -weight * inverse * dbias / ctx.count - slope * mean
        line = torch.stack([shift, slope]).float()
        g = dy * (weight * inverse).float().view(1, -1, 1, 1)
        dx = torch.empty_like(x, memory_format=torch.channels_last)
        _scatter(memory_of(dx), memory_of(x), memory_of(g), winner.numpy(), line.numpy())
        return dx, dweight.float(), dbias, None


@torch.no_grad()
def _track(norm: nn.BatchNorm2d, mean: Tensor, var: Tensor) -> None:
    """What BatchNorm remembers for validation."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    assert norm.momentum is not None
    norm.num_batches_tracked += 1
    norm.running_mean.lerp_(mean.float(), norm.momentum)
    norm.running_var.lerp_(var.float(), norm.momentum)


def norm_pool(norm: nn.Module, x: Tensor) -> Tensor:
    """pool(norm(x)) in training, to rounding: (N, C, H, W) channels-last on a CPU -> (N, C, H/2, W/2)."""
    y: Tensor = _NormPool.apply(x, norm.weight, norm.bias, norm)
    return y


def _fuses(layer: nn.Module, following: nn.Module, x: Tensor) -> bool:
    pair = isinstance(layer, nn.BatchNorm2d) and isinstance(following, MaxPool2x2)
    return pair and following.compiles(x) and layer.weight.dtype == torch.float32  # type: ignore[operator]


class Net(nn.Sequential):
    """An nn.Sequential that trains faster on a CPU: BatchNorm and the pool after it run as one."""

    def forward(self, x: Tensor) -> Tensor:
        """What the layers give, one after the other."""
        layers = list(self)
        while layers:
            layer = layers.pop(0)
            if self.training and layers and _fuses(layer, layers[0], x):
                layers.pop(0)
                x = norm_pool(layer, x)
            else:
                x = layer(x)
        return x
