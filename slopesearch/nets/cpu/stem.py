"""The first convolution with the BatchNorm and the pool that follow it, as one pass each way.

Images have one channel, so a convolution is nine products a number: too few for a matrix product, and less
work than to write the map and read it again. A pool that follows needs no map at all: forward it keeps the
largest of four, backward only those have a gradient. BatchNorm on such a map costs nothing either: the mean
and the variance of a linear function of the images' 3x3 windows follow from the mean and the second moments
of the windows, so BatchNorm is folded into the weights before they are applied.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from slopesearch.nets.cpu import loops
from slopesearch.nets.cpu.steps import Phi, Windows, affine_of, channels_last, memory_of, track


class _ConvolveAndPool(torch.autograd.Function):
    """Images with a border (N, H + 2, W + 2), taps (10, C) -> (N, C, H/2, W/2)."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, taps: Tensor, dtype: torch.dtype, phi: Phi) -> Tensor:
        shape = len(images), taps.shape[1], images.shape[1] - 2, images.shape[2] - 2
        windows = Windows(shape, dtype, phi is not None)
        windows.convolve_and_pool(images.numpy(), taps.detach().contiguous().numpy(), *windows.memory())
        if phi is not None:
            windows.choose(phi(windows.high), phi(windows.low))
        ctx.save_for_backward(images, windows.winner)
        return windows.high

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *dys: Tensor) -> tuple[None, Tensor, None, None]:
        images, winner = ctx.saved_tensors
        dy, dtaps = channels_last(dys[0]), np.empty((10, dys[0].shape[1]))
        loops.convolve_and_pool_backward(images.numpy(), memory_of(dy), memory_of(winner), dtaps)
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
        with np.errstate(invalid="ignore", over="ignore"):
            mean = w @ ctx.first
            var = np.maximum(((w @ ctx.second) * w).sum(1) - mean**2, 0)
            inverse = 1 / np.sqrt(var + norm.eps)
        track(norm, mean, var, count)
        ctx.statistics = w, mean, inverse
        ctx.save_for_backward(gamma)
        factor = gamma.detach().numpy() * inverse
        taps = np.vstack([w.T * factor, beta.detach().numpy() - mean * factor])
        return torch.from_numpy(taps.astype(np.float32))

    @staticmethod
    @once_differentiable
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


def stem(x: Tensor, layer: nn.Conv2d, norm: nn.BatchNorm2d | None, phi: Phi, dtype: torch.dtype) -> Tensor:
    """pool(norm(conv(x))), with or without a norm: images (N, 1, 2H, 2W) -> a map (N, C, H, W)."""
    images = F.pad(x[:, 0], (1, 1, 1, 1))
    weight = layer.weight.flatten(1)
    if norm is None:
        bias = weight.new_zeros(len(weight)) if layer.bias is None else layer.bias
        taps = torch.cat([weight.T, bias[None]])
    elif norm.training:
        taps = _Fold.apply(weight, norm.weight, norm.bias, norm, images)
    else:
        factor, shift = affine_of(norm)
        taps = torch.cat([weight.T * factor, shift[None]])
    y: Tensor = _ConvolveAndPool.apply(images, taps, dtype, phi)
    return y
