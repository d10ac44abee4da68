"""2x2 max-pooling for channels-last maps on a CPU, compiled; torch's everywhere else.

torch's CPU kernels write 64-bit indices forward and zero the whole map before they scatter backward. Here
an index is a byte and the map is written once. A training step of the CNN takes 33 instead of 38 ms without
BatchNorm, 42 instead of 46 with it before and 43 instead of 51 with it after the activation (bf16, batch
128, two workers at once, one thread each; AMD EPYC, medians of 22, 2026-11-23).
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def bits_of(x: Tensor) -> Any:
    """The numpy array of a tensor, of bf16 its bits as int16."""
    return (x.view(torch.int16) if x.dtype == torch.bfloat16 else x).numpy()


def memory_of(x: Tensor) -> Any:
    """The memory of a channels-last (N, C, H, W) map as a numpy array (N, H, W, C)."""
    return bits_of(x.permute(0, 2, 3, 1))


def room_for_pooled(shape: Sequence[int], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Two empty maps for the pool of one of this shape (N, C, H, W): its numbers and its winners, 0 to 3."""
    n, c, h, w = shape
    size, order = (n, c, h // 2, w // 2), torch.channels_last
    y = torch.empty(size, dtype=dtype, memory_format=order)
    return y, torch.empty(size, dtype=torch.uint8, memory_format=order)


def choose(
    activation: nn.Module,
    high: tuple[Tensor, Tensor],
    low: tuple[Tensor, Tensor],
    ends: Sequence[Tensor] = (),
) -> None:
    """Of the two ends of each window, maps and their winners, leave in `high` that of which phi makes more.

    `ends` are what goes into the activation where that is not the maps. NaN is more than any number.
    """
    from slopesearch.nets import kernels

    ends = ends or (high[0], low[0])
    values = [activation.forward(x).to(x.dtype) for x in ends]  # not by a call: hooks shall see one map
    values = [y.contiguous(memory_format=torch.channels_last) for y in values]
    tensors = (*values, high[0], low[0], high[1], low[1])
    kernels.take_lower(*(memory_of(x.detach()) for x in tensors))


def compiles(x: Tensor) -> bool:
    """Whether the compiled kernels apply to x."""
    return (
        x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.bfloat16)
        and x.is_contiguous(memory_format=torch.channels_last)
        and x.shape[2] % 2 == 0
        and x.shape[3] % 2 == 0
    )


def pooled(x: Tensor, activation: nn.Module | None) -> tuple[Tensor, Tensor]:
    """The largest number of each window and where it was, 0 to 3; or the end that the activation chooses.

    (N, C, H, W) -> twice (N, C, H/2, W/2).
    """
    from slopesearch.nets import kernels

    y, winner = room_for_pooled(x.shape, x.dtype)
    kernels.pool(memory_of(x.detach()), memory_of(y), memory_of(winner), 0)
    if activation is not None:
        low, low_winner = room_for_pooled(x.shape, x.dtype)
        kernels.pool(memory_of(x.detach()), memory_of(low), memory_of(low_winner), 1)
        choose(activation, (y, winner), (low, low_winner))
    return y, winner


class _MaxPool2x2(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, activation: nn.Module | None) -> Tensor:
        y, winner = pooled(x, activation)
        ctx.save_for_backward(winner)
        return y

    @staticmethod
    def backward(ctx: Any, *dys: Tensor) -> tuple[Tensor, None]:
        from slopesearch.nets import kernels

        (winner,), (dy,) = ctx.saved_tensors, dys
        n, c, h, w = winner.shape
        dx = torch.empty((n, c, 2 * h, 2 * w), dtype=dy.dtype, memory_format=torch.channels_last)
        dy = dy.contiguous(memory_format=torch.channels_last)
        kernels.unpool(memory_of(dx), memory_of(dy), memory_of(winner))
        return dx, None


class MaxPool2x2(nn.MaxPool2d):
    """torch's MaxPool2d(2), with the compiled kernels where they apply.

    `after_quasiconvex`: the layer before it is an activation phi whose largest value over an interval is at
    one of its ends. Then max(phi(window)) is the larger of phi(max(window)) and phi(min(window)), and phi has
    a gradient there alone: `end` can come first, and phi works on a quarter of the numbers.
    """

    def __init__(self, after_quasiconvex: bool = False) -> None:
        super().__init__(2)
        self.after_quasiconvex = after_quasiconvex

    def forward(self, x: Tensor) -> Tensor:
        """The maximum of each 2x2 window: (N, C, H, W) -> (N, C, H/2, W/2)."""
        if not compiles(x):
            return F.max_pool2d(x, 2)
        y: Tensor = _MaxPool2x2.apply(x, None)
        return y

    def end(self, x: Tensor, activation: nn.Module) -> Tensor:
        """The end of each 2x2 window of which the activation makes more, before the activation."""
        y: Tensor = _MaxPool2x2.apply(x, activation)
        return y


def next_pool(layers: Sequence[nn.Module]) -> tuple[MaxPool2x2 | None, nn.Module | None]:
    """The pool that may be done next, if one may, and the activation before it that will be done after it."""
    if layers and isinstance(layers[0], MaxPool2x2):
        return layers[0], None
    if len(layers) < 2 or not isinstance(layers[1], MaxPool2x2) or not layers[1].after_quasiconvex:
        return None, None
    # One that works in place would spoil the map that it is tried on; one that is watched sees the whole map.
    if getattr(layers[0], "inplace", False) or layers[0]._forward_pre_hooks or layers[0]._forward_hooks:
        return None, None
    return layers[1], layers[0]


@torch.no_grad()
def track(norm: Any, mean: Any, var: Any, count: int) -> None:
    """What BatchNorm remembers for validation: mean and biased variance, numpy (C,), of `count` numbers."""
    norm.num_batches_tracked += 1
    norm.running_mean.lerp_(torch.from_numpy(mean).float(), norm.momentum)
    norm.running_var.lerp_(torch.from_numpy(var * (count / (count - 1))).float(), norm.momentum)
