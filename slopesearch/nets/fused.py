"""BatchNorm followed by 2x2 max-pooling as one operation, for training on a CPU.

Normalising a channel is a rising or a falling line, so the pool can come first: its winners are the largest
numbers of a window where the channel's weight is positive, the smallest where it is negative. One pass over
the map takes the sums and the winners; what is left of BatchNorm's work forward is on a quarter of the
numbers, and backward is one pass more.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from slopesearch.nets.pooled_conv import pooled_conv, pools_at_once
from slopesearch.nets.pooling import choose, compiles, memory_of, next_pool, room_for_pooled, track
from slopesearch.nets.stem import starts, stem


class _NormPool(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, norm: nn.BatchNorm2d, activation: nn.Module | None
    ) -> Tensor:
        from slopesearch.nets import kernels

        gamma, beta, sums = weight.detach().numpy(), bias.detach().numpy(), np.empty((2, x.shape[1]))
        sign = np.where(gamma < 0, np.float32(-1), np.float32(1))
        pooled, winner = room_for_pooled(x.shape, x.dtype)
        kernels.pool_and_sum(memory_of(x.detach()), memory_of(pooled), memory_of(winner), sign, sums)
        count = x.numel() // x.shape[1]
        mean, square = sums / count
        var = np.maximum(square - mean**2, 0)
        track(norm, mean, var, count)
        inverse = 1 / np.sqrt(var + norm.eps)
        line = np.stack([beta, gamma * inverse, mean]).astype(np.float32)
        y = torch.empty_like(pooled)
        kernels.scale(memory_of(pooled), memory_of(y), line)
        if activation is not None:
            low, low_winner = room_for_pooled(x.shape, x.dtype)
            kernels.pool_and_sum(memory_of(x.detach()), memory_of(low), memory_of(low_winner), -sign, sums)
            y_low = torch.empty_like(y)
            kernels.scale(memory_of(low), memory_of(y_low), line)
            choose(activation, (pooled, winner), (low, low_winner), (y, y_low))
            kernels.scale(memory_of(pooled), memory_of(y), line)
        ctx.statistics = count, mean, inverse
        ctx.save_for_backward(x, pooled, winner, weight)
        return y

    @staticmethod
    def backward(ctx: Any, *dys: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        from slopesearch.nets import kernels

        (x, pooled, winner, weight), (count, mean, inverse) = ctx.saved_tensors, ctx.statistics
        dy = dys[0].contiguous(memory_format=torch.channels_last)
        dx, sums = torch.empty_like(x, memory_format=torch.channels_last), np.empty((2, x.shape[1]))
        kernels.sum_gradients(memory_of(pooled), memory_of(dy), sums)
        dbias, dweight = sums[0], (sums[1] - mean * sums[0]) * inverse
        # dx = weight * inverse * (dy at the winners - (dbias + normalised x * dweight) / count)
        scale = weight.numpy() * inverse
        slope = -scale * inverse * dweight / count
        line = np.stack([-scale * dbias / count - slope * mean, slope, scale]).astype(np.float32)
        kernels.scatter(memory_of(dx), memory_of(x), memory_of(dy), memory_of(winner), line)
        return dx, torch.from_numpy(dweight).float(), torch.from_numpy(dbias).float(), None, None


def norm_pool(norm: nn.Module, x: Tensor, activation: nn.Module | None = None) -> Tensor:
    """pool(norm(x)) in training, to rounding: (N, C, H, W) channels-last on a CPU -> (N, C, H/2, W/2).

    With an activation, that end of each window of norm(x) of which it makes more.
    """
    y: Tensor = _NormPool.apply(x, norm.weight, norm.bias, norm, activation)
    return y


def _norms(layer: nn.Module, x: Tensor) -> bool:
    """Whether `norm_pool` can take the place of this layer and the pool that follows, on x."""
    return (
        isinstance(layer, nn.BatchNorm2d)
        and layer.training
        and layer.weight.dtype == torch.float32
        and compiles(x)
    )


class Net(nn.Sequential):
    """An nn.Sequential that does several layers as one on a CPU, where that is faster.

    Layers that are done as one are not called, so their hooks do not run; activations always are. One without
    hooks may see but one number of each window of a pool that follows.
    """

    def forward(self, x: Tensor) -> Tensor:
        """What the layers give, one after the other."""
        first, *layers = self
        x = stem(first, layers, x) if starts(first, x) else first(x)
        while layers:
            layer = layers.pop(0)
            pool, activation = next_pool(layers)
            if pool is not None and _norms(layer, x):
                layers.remove(pool)
                x = norm_pool(layer, x, activation)
                continue
            if pool is not None and pools_at_once(layer, x):
                layers.remove(pool)
                x = pooled_conv(layer, x, activation)
                continue
            pool, activation = next_pool([layer, *layers])
            if pool is not None and activation is not None and compiles(x):
                layers.remove(pool)
                x = pool.end(x, activation)
            elif (
                isinstance(layer, nn.Flatten) and x.requires_grad and x.dim() == 4 and x.device.type == "cpu"
            ):
                # The gradient comes back channel by channel; the layers before it work on channels-last
                # maps, where a mixture of both takes torch ten times as long as this copy.
                x.register_hook(_channels_last)  # type: ignore[no-untyped-call]
            x = layer(x)
        return x


def _channels_last(gradient: Tensor) -> Tensor:
    return gradient.contiguous(memory_format=torch.channels_last)
