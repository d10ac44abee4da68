"""ACTIVATIONS: every activation that can be searched, one complete entry each; the learnable slope."""

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slopesearch.config import TrialConfig

PRELU_START = 0.25  # torch's default: one slope per channel from here


@dataclass(frozen=True)
class Activation:
    """What the package has to know of an activation.

    `gain(slope)` is 1/sqrt(E[phi(z)^2]) for standard normal z: a weight of variance gain^2/fan_in keeps the
    second moment from layer to layer (He et al. 2015, eq. 10, for any phi). `monotone` (non-decreasing)
    allows max-pooling before it: the same result for a quarter of the work. `quasiconvex` (it never rises
    before it falls, so its largest value over an interval is at one of the ends) allows pooling both ends
    first. `bounded` on both sides: it can saturate.
    """

    make: Callable[[TrialConfig, int], nn.Module]  # (config, channels)
    gain: Callable[[float], float]
    monotone: bool
    quasiconvex: bool = False  # needs to be said only where it is not monotone
    has_slope: bool = False
    bounded: bool = False


class _LeakyReLU(torch.autograd.Function):
    """leaky_relu(x, slope) with one learnable slope; d/dslope = sum of x * dy where x < 0.

    `F.prelu` with one shared weight does the same more slowly: backward 24 against 9 ms in bf16, 20 against
    7 ms in float32, on (128, 32, 28, 28), channels-last, one thread (AMD EPYC, medians of 15, 2026-11-23).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        ctx.slope = float(slope)
        return F.leaky_relu(x, ctx.slope)

    @staticmethod
    def backward(ctx: Any, *dys: Tensor) -> tuple[Tensor, Tensor]:
        (x,), (dy,) = ctx.saved_tensors, dys
        dx = torch.ops.aten.leaky_relu_backward(dy, x, ctx.slope, False)
        # The product of two bf16 numbers is summed in float32.
        exact = torch.promote_types(x.dtype, torch.float32)
        dslope = torch.sum(x.clamp(max=0) * dy, dtype=exact)
        return dx, dslope


class _PReLU(torch.autograd.Function):
    """prelu(x, slope) with a slope per channel; d/dslope = sum of x * dy where x <= 0.

    torch's backward does the same more slowly: a step of the CNN with the norm after the activation takes
    53 against 33 ms (bf16, one thread of a Zen 4, medians of 50, n = 2, 2026-11-24).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(x, slope)
        return torch.prelu(x, slope.to(x.dtype))

    @staticmethod
    def backward(ctx: Any, *dys: Tensor) -> tuple[Tensor, Tensor]:
        (x, slope), (dy,) = ctx.saved_tensors, dys
        straight = torch.ops.aten.leaky_relu_backward(dy, x, 0.0, False)  # dy where x > 0
        bent = dy - straight
        dx = torch.addcmul(straight, bent, slope.to(x.dtype).view(-1, *[1] * (x.dim() - 2)))
        # The product of two bf16 numbers is summed in float32.
        exact = torch.promote_types(x.dtype, torch.float32)
        dslope = torch.sum(x * bent, dim=(0, *range(2, x.dim())), dtype=exact)
        return dx, dslope


class PReLU(nn.PReLU):
    """torch's, with a faster backward on a CPU."""

    def forward(self, x: Tensor) -> Tensor:
        """x where x > 0, the channel's slope times x elsewhere: (N, C) or (N, C, H, W)."""
        y: Tensor = _PReLU.apply(x, self.weight) if x.device.type == "cpu" else super().forward(x)
        return y


class LearnableLeakyReLU(nn.Module):
    """Leaky ReLU whose slope is trained, one for the layer, kept within [slope_min, slope_max].

    "project": `project()` after each optimizer step clamps the parameter in place; its gradient is exact
    at the bound, so it can come back. "forward": the forward pass clamps, so outside the range the
    gradient is zero and the parameter sticks there.
    """

    def __init__(self, start: float, slope_min: float, slope_max: float, clamp: str) -> None:
        super().__init__()
        self.slope_min, self.slope_max, self.clamp = slope_min, slope_max, clamp
        self.slope = nn.Parameter(torch.tensor(min(max(start, slope_min), slope_max)))

    def effective_slope(self) -> Tensor:
        """The slope that the forward pass uses, shape ()."""
        return self.slope.clamp(self.slope_min, self.slope_max) if self.clamp == "forward" else self.slope

    def forward(self, x: Tensor) -> Tensor:
        """x where x > 0, slope * x elsewhere; any shape."""
        y: Tensor = _LeakyReLU.apply(x, self.effective_slope())
        return y

    @torch.no_grad()
    def project(self) -> None:
        """Bring the parameter back into its range; to be called after each optimizer step."""
        if self.clamp == "project":
            self.slope.clamp_(self.slope_min, self.slope_max)


def _leaky_relu(config: TrialConfig, channels: int) -> nn.Module:
    if config.negative_slope is None:
        raise ValueError("leaky_relu needs a negative_slope, given None")
    if config.slope_mode != "learnable":
        return nn.LeakyReLU(config.negative_slope)
    if config.slope_min is None or config.slope_max is None or config.slope_clamp is None:
        raise ValueError("a learnable slope needs slope_min, slope_max and slope_clamp")
    return LearnableLeakyReLU(config.negative_slope, config.slope_min, config.slope_max, config.slope_clamp)


def _leaky_gain(slope: float) -> float:
    return sqrt(2 / (1 + slope**2))


ACTIVATIONS: dict[str, Activation] = {
    "relu": Activation(lambda config, channels: nn.ReLU(), lambda slope: sqrt(2), monotone=True),
    "leaky_relu": Activation(_leaky_relu, _leaky_gain, monotone=True, has_slope=True),
    # Nothing keeps a PReLU slope above zero, so it may stop being monotone while it trains.
    "prelu": Activation(
        lambda config, channels: PReLU(channels, PRELU_START),
        lambda slope: _leaky_gain(PRELU_START),
        monotone=False,
        quasiconvex=True,
    ),
    "elu": Activation(lambda config, channels: nn.ELU(), lambda slope: 1.24520, monotone=True),
    "gelu": Activation(
        lambda config, channels: nn.GELU(), lambda slope: 1.53353, monotone=False, quasiconvex=True
    ),
    "silu": Activation(
        lambda config, channels: nn.SiLU(), lambda slope: 1.67653, monotone=False, quasiconvex=True
    ),
    "tanh": Activation(
        lambda config, channels: nn.Tanh(), lambda slope: 1.59254, monotone=True, bounded=True
    ),
    "sigmoid": Activation(
        lambda config, channels: nn.Sigmoid(), lambda slope: 1.84623, monotone=True, bounded=True
    ),
}


def gain_of(config: TrialConfig) -> float:
    """The gain of a config's activation with the slope that it starts from."""
    start = config.negative_slope or 0.0
    if config.slope_mode == "learnable" and config.slope_min is not None and config.slope_max is not None:
        start = min(max(start, config.slope_min), config.slope_max)
    return ACTIVATIONS[config.activation].gain(start)
