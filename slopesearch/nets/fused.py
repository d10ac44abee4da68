"""BatchNorm followed by 2x2 max-pooling as one operation, for training on a CPU.

Normalising a channel is a rising or a falling line, so the pool can come first: its winners are the largest
numbers of a window where the channel's weight is positive, the smallest where it is negative. One pass over
the map takes the sums and the winners; what is left of BatchNorm's work forward is on a quarter of the
numbers, and backward is one pass more.
"""

from typing import Any

import torch
from torch import Tensor, nn

from slopesearch.nets.pooling import MaxPool2x2, memory_of


class _NormPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, norm: nn.BatchNorm2d) -> Tensor:
        n, c, h, w = x.shape
        pooled = torch.empty((n, c, h // 2, w // 2), dtype=x.dtype, memory_format=torch.channels_last)
        winner = torch.empty((n, h // 2, w // 2, c), dtype=torch.uint8)
        sums = torch.empty((2, c), dtype=torch.float64)
        sign = torch.where(weight.detach() < 0, -1.0, 1.0)
        from slopesearch.nets import kernels

        kernels.pool_and_sum(
            memory_of(x.detach()), memory_of(pooled), winner.numpy(), sign.numpy(), sums.numpy()
        )
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
        from slopesearch.nets import kernels

        kernels.scatter(memory_of(dx), memory_of(x), memory_of(g), winner.numpy(), line.numpy())
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
