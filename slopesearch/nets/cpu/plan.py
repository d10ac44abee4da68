"""From layers to steps: which of them a CPU does as one, decided once for a model and a shape.

A 2x2 max-pool moves before the activation that it follows where that gives the same: max(phi(x)) is
phi(max(x)) for a phi that never falls, and the larger of phi(max(x)) and phi(min(x)) for one that never
rises before it falls. The activation then works on a quarter of the numbers, and the pool goes with the
layer before it.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from slopesearch.nets.activations import LearnableLeakyReLU, PReLU
from slopesearch.nets.cpu import loops, steps
from slopesearch.nets.cpu.stem import stem

Step = Callable[[Tensor], Tensor]

# Elementwise, without parameters, and slower to compute than to look up.
_SMOOTH = (nn.ELU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid)


def _prelu(x: Tensor, layer: PReLU) -> Tensor:
    return steps.bend(x, layer.weight)


def _learnable(x: Tensor, layer: LearnableLeakyReLU) -> Tensor:
    return steps.bend(x, layer.effective_slope())


def _activation(layer: nn.Module, dtype: torch.dtype) -> Step:
    """A layer between products as a step on a map in `dtype`, faster where it is a known activation."""
    if type(layer) is PReLU:
        return partial(_prelu, layer=layer)
    if type(layer) is LearnableLeakyReLU:
        return partial(_learnable, layer=layer)
    if type(layer) in _SMOOTH and dtype == torch.bfloat16 and not getattr(layer, "inplace", False):
        values, slopes = steps.tables_of(layer)
        return partial(steps.look_up, values=values, slopes=slopes)
    return layer


def _never_falls(layer: nn.Module) -> bool:
    if type(layer) is nn.LeakyReLU:
        return layer.negative_slope >= 0
    if type(layer) is LearnableLeakyReLU:  # `project` keeps the slope there
        return layer.slope_min >= 0
    if type(layer) is nn.ELU:
        return layer.alpha >= 0
    return type(layer) in (nn.ReLU, nn.Tanh, nn.Sigmoid)


def _falls_then_rises(layer: nn.Module) -> bool:
    return type(layer) in (nn.GELU, nn.SiLU, PReLU)  # PReLU's slopes may become negative


def is_3x3(layer: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Whether it is torch's 3x3 convolution from map to map of one size, in float32."""
    return (
        type(layer) is nn.Conv2d
        and (layer.kernel_size, layer.padding, layer.padding_mode) == ((3, 3), (1, 1), "zeros")
        and (layer.stride, layer.dilation, layer.groups) == ((1, 1), (1, 1), 1)
        and layer.weight.dtype == torch.float32
    )


def is_2x2_pool(layer: nn.Module) -> bool:
    """Whether it is torch's MaxPool2d(2)."""
    return type(layer) is nn.MaxPool2d and (
        layer.kernel_size,
        layer.stride,
        layer.padding,
        layer.dilation,
        layer.ceil_mode,
        layer.return_indices,
    ) == (2, 2, 0, 1, False, False)


def _is_norm(layer: nn.Module) -> TypeGuard[nn.BatchNorm2d]:
    """Whether it is a BatchNorm with all that it may have; the plain layer does any other."""
    return (
        type(layer) is nn.BatchNorm2d
        and layer.affine
        and layer.track_running_stats
        and layer.momentum is not None
        and layer.weight.dtype == torch.float32
    )


class _Layers:
    """The layers that are left, taken from the front."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        self.left = list(layers)

    def take(self) -> nn.Module:
        return self.left.pop(0)

    def take_if(self, fits: Callable[[Any], bool]) -> Any:
        """The next layer, taken where there is one that fits."""
        return self.left.pop(0) if self.left and fits(self.left[0]) else None

    def take_pool(self, x: Tensor, dtype: torch.dtype) -> tuple[bool, steps.Phi]:
        """Whether a 2x2 pool was taken that may be done next, on a map in `dtype`, and what phi it needs."""
        if x.shape[2] % 2 or x.shape[3] % 2 or not self.left:
            return False, None
        if is_2x2_pool(self.left[0]):
            self.left.pop(0)
            return True, None
        if len(self.left) < 2 or not is_2x2_pool(self.left[1]) or getattr(self.left[0], "inplace", False):
            return False, None
        if _never_falls(self.left[0]):
            self.left.pop(1)
            return True, None
        if _falls_then_rises(self.left[0]):
            self.left.pop(1)
            return True, _activation(self.left[0], dtype)
        return False, None


def plan(layers: Sequence[nn.Module], x: Tensor, dtype: torch.dtype) -> tuple[list[Step], Tensor]:
    """The steps of a model for images like x (N, C, H, W), and what they give; maps are in `dtype`.

    They are found while they run: what a step can do depends on the shape that the one before it gives.
    """
    left, found = _Layers(layers), list[Step]()
    while left.left:
        step = _stem(left, x, dtype) if not found else None
        step = step or _next(left, x, dtype)
        found.append(step)
        x = step(x)
    return found, x


def _stem(left: _Layers, x: Tensor, dtype: torch.dtype) -> Step | None:
    first, before = left.left[0], list(left.left)
    if not is_3x3(first) or x.dim() != 4 or x.requires_grad or not x.shape[1] == first.in_channels == 1:
        return None
    left.take()
    norm = left.take_if(_is_norm) if first.bias is None else None
    pools, phi = left.take_pool(x, dtype)
    if not pools:
        left.left = before
        return None
    return partial(stem, layer=first, norm=norm, phi=phi, dtype=dtype)


def _next(left: _Layers, x: Tensor, dtype: torch.dtype) -> Step:
    layer = left.take()
    if type(layer) is nn.Linear and layer.weight.dtype == torch.float32:
        return partial(steps.linear, layer=layer, dtype=dtype)
    if x.dim() != 4:
        return layer
    if is_3x3(layer):
        return _convolution(left, layer, x, dtype)
    if _is_map(x):
        if _is_norm(layer) and layer.training:
            pools, phi = left.take_pool(x, x.dtype)
            return partial(steps.norm_pool, norm=layer, phi=phi) if pools else layer
        left.left.insert(0, layer)
        pools, phi = left.take_pool(x, x.dtype)
        if pools:
            return partial(steps.pool, phi=phi)
        left.take()
        if not isinstance(layer, nn.Flatten):
            return _activation(layer, x.dtype)
    if type(layer) is nn.Flatten and (layer.start_dim, layer.end_dim) == (1, -1):
        return steps.flatten
    return layer


def _convolution(left: _Layers, layer: nn.Conv2d, x: Tensor, dtype: torch.dtype) -> Step:
    norm = left.take_if(lambda after: _is_norm(after) and not after.training)
    if norm is not None:
        return partial(steps.conv_norm, layer=layer, norm=norm, dtype=dtype)
    # With AMX the full backward should be faster than a quarter of it without; judged by the two rates alone.
    amx = dtype == torch.bfloat16 and torch.cpu._is_amx_tile_supported()
    if layer.in_channels % loops.BLOCK == 0 and not amx and _is_map(x):
        pools, phi = left.take_pool(x, dtype)
        if pools:
            return partial(steps.pooled_conv, layer=layer, phi=phi, dtype=dtype)
    return partial(steps.conv, layer=layer, dtype=dtype)


def _is_map(x: Tensor) -> bool:
    return x.dtype in (torch.float32, torch.bfloat16) and x.is_contiguous(memory_format=torch.channels_last)
