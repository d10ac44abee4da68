"""The first convolution on a CPU, with the BatchNorm and the pool that follow it, as one pass each way.

Images have one channel, so a convolution is nine products a number: too few for a matrix product, and less
work than to write the map and read it again. A pool that follows at once needs no map at all: forward it
keeps the largest of four, backward only those have a gradient. BatchNorm on such a map costs nothing
either: the mean and the variance of a linear function of the images' 3x3 windows follow from the mean and
the second moments of the windows, so that BatchNorm can be folded into the weights before they are applied.
"""

from typing import Any, TypeGuard

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slopesearch.nets.pooling import choose, memory_of, next_pool, room_for_pooled, track


class _Convolve(torch.autograd.Function):
    """Images with a border (N, H + 2, W + 2), taps (10, C) -> (N, C, H, W) or, pooled, (N, C, H/2, W/2)."""

    @staticmethod
    def forward(
        ctx: Any,
        images: Tensor,
        taps: Tensor,
        pooled: bool,
        activation: nn.Module | None,
        dtype: torch.dtype,
    ) -> Tensor:
        from slopesearch.nets import kernels

        shape = (len(images), taps.shape[1], images.shape[1] - 2, images.shape[2] - 2)
        weights = taps.detach().contiguous().numpy()
        if not pooled:
            y = torch.empty(shape, dtype=dtype, memory_format=torch.channels_last)
            kernels.convolve(images.numpy(), weights, memory_of(y))
            ctx.save_for_backward(images)
            return y
        y, winner = room_for_pooled(shape, dtype)
        kernels.convolve_and_pool(images.numpy(), weights, memory_of(y), memory_of(winner))
        if activation is not None:  # the smallest is the largest of what is negated, negated
            low, low_winner = room_for_pooled(shape, dtype)
            kernels.convolve_and_pool(images.numpy(), -weights, memory_of(low), memory_of(low_winner))
            choose(activation, (y, winner), (low.neg_(), low_winner))
        ctx.save_for_backward(images, winner)
        return y

    @staticmethod
    def backward(ctx: Any, *dys: Tensor) -> tuple[None, Tensor, None, None, None]:
        from slopesearch.nets import kernels

        images, *winner = ctx.saved_tensors
        dy = dys[0].contiguous(memory_format=torch.channels_last)
        dtaps = torch.empty((10, dy.shape[1]), dtype=torch.float64)
        if winner:
            kernels.convolve_and_pool_backward(
                images.numpy(), memory_of(dy), memory_of(winner[0]), dtaps.numpy()
            )
        else:
            kernels.convolve_backward(images.numpy(), memory_of(dy), dtaps.numpy())
        return None, dtaps.float(), None, None, None


class _Fold(torch.autograd.Function):
    """weight (C, 9), BatchNorm's weight and bias (C,) -> taps (10, C) that convolve and normalise at once.

    The statistics are those of these images, functions of the weights that the gradient goes through.
    """

    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, gamma: Tensor, beta: Tensor, norm: nn.BatchNorm2d, images: Tensor
    ) -> Tensor:
        w = weight.detach().double().numpy()
        from slopesearch.nets import kernels

        sums = np.empty((10, 10))
        kernels.moments(images.numpy(), sums)
        count = len(images) * (images.shape[1] - 2) * (images.shape[2] - 2)
        ctx.first, ctx.second = sums[:9, 9] / count, sums[:9, :9] / count
        mean = w @ ctx.first
        var = np.maximum(((w @ ctx.second) * w).sum(1) - mean**2, 0)
        track(norm, mean, var, count)
        inverse = 1 / np.sqrt(var + norm.eps)
        ctx.statistics = w, mean, inverse
        ctx.save_for_backward(gamma)
        scale = gamma.detach().numpy() * inverse
        taps = np.vstack([w.T * scale, beta.detach().numpy() - mean * scale])
        return torch.from_numpy(taps.astype(np.float32))

    @staticmethod
    def backward(ctx: Any, *dtaps: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        (w, mean, inverse), gamma = ctx.statistics, ctx.saved_tensors[0].numpy()
        dbeta = dtaps[0][9].double().numpy()
        dscaled = dtaps[0][:9].double().numpy().T
        dscale = (dscaled * w).sum(1) - dbeta * mean
        dvar = -0.5 * dscale * gamma * inverse**3
        dmean = -dbeta * gamma * inverse - 2 * mean * dvar
        dw = dscaled * (gamma * inverse)[:, None]
        dw += dmean[:, None] * ctx.first + (2 * dvar)[:, None] * (w @ ctx.second)
        dweight, dgamma, dbias = (torch.from_numpy(part).float() for part in (dw, dscale * inverse, dbeta))
        return dweight, dgamma, dbias, None, None


def map_dtype(x: Tensor) -> torch.dtype:
    """What a layer's map will be in, on a CPU."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype


def is_3x3(layer: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Whether it is torch's 3x3 convolution from map to map of one size, in float32."""
    return (
        type(layer) is nn.Conv2d
        and (layer.kernel_size, layer.padding, layer.padding_mode) == ((3, 3), (1, 1), "zeros")
        and (layer.stride, layer.dilation, layer.groups) == ((1, 1), (1, 1), 1)
        and layer.weight.dtype == torch.float32
    )


def starts(layer: nn.Module, x: Tensor) -> TypeGuard[nn.Conv2d]:
    """Whether `stem` can take the place of this first layer on x."""
    return (
        is_3x3(layer)
        and x.device.type == "cpu"
        and x.dim() == 4
        and x.shape[1] == layer.in_channels == 1
        and map_dtype(x) in (torch.float32, torch.bfloat16)
        and x.dtype == torch.float32
        and not x.requires_grad
        and x.shape[2] % 2 == x.shape[3] % 2 == 0
    )


def stem(conv: nn.Conv2d, rest: list[nn.Module], x: Tensor) -> Tensor:
    """What conv gives, and those of the layers after it that can be done with it; they are taken off `rest`.

    x (N, 1, H, W) -> (N, C, H, W) or, pooled, (N, C, H/2, W/2), channels-last. A pool that an activation
    stands before is done too where it may, and the activation is left.
    """
    images = F.pad(x[:, 0], (1, 1, 1, 1))
    weight = conv.weight.flatten(1)
    if conv.bias is None and rest and isinstance(rest[0], nn.BatchNorm2d):
        norm: Any = rest.pop(0)
        if norm.training:
            taps: Tensor = _Fold.apply(weight, norm.weight, norm.bias, norm, images)
        else:
            scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
            taps = torch.cat([weight.T * scale, (norm.bias - norm.running_mean * scale)[None]])
    else:
        bias = weight.new_zeros(len(weight)) if conv.bias is None else conv.bias
        taps = torch.cat([weight.T, bias[None]])
    pool, activation = next_pool(rest)
    if pool is not None:
        rest.remove(pool)
    y: Tensor = _Convolve.apply(images, taps, pool is not None, activation, map_dtype(x))
    return y
