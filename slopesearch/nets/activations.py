"""ACTIVATIONS: every activation that can be searched, one complete entry each; the learnable slope."""

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slopesearch.config import TrialConfig

PRELU_START = 0.25  # torch's default: one slope per channel from here


@dataclass(frozen=True)
class Activation:
    """What the package has to know of an activation phi.

    `gain(slope)` is 1/sqrt(E[phi(z)^2]) for standard normal z: a weight of variance gain^2/fan_in keeps the
    second moment from layer to layer (He et al. 2015, eq. 10, for any phi). `bounded` on both sides: it can
    saturate.
    """

    make: Callable[[TrialConfig, int], nn.Module]  # (config, channels)
    gain: Callable[[float], float]
    has_slope: bool = False
    bounded: bool = False


def leaky(x: Tensor, slope: Tensor) -> Tensor:
    """x where x > 0, slope * x elsewhere: x (N, C) or (N, C, H, W), slope () or one per channel (C,).

    A bf16 map meets the slope in float32: rounded to bf16, as autocast would, it would move in steps of half
    a percent, while fixed slopes are not rounded.
    """
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    with torch.autocast(x.device.type, enabled=False):
        return F.prelu(wide, slope.to(wide.dtype).reshape(-1)).to(x.dtype)


class PReLU(nn.PReLU):
    """torch's, one slope per channel, but under autocast too the slopes are used as they are; see `leaky`."""

    def forward(self, x: Tensor) -> Tensor:
        """x where x > 0, the channel's slope times x elsewhere: (N, C) or (N, C, H, W)."""
        return leaky(x, self.weight)


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
        return leaky(x, self.effective_slope())

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
    "relu": Activation(lambda config, channels: nn.ReLU(), lambda slope: sqrt(2)),
    "leaky_relu": Activation(_leaky_relu, _leaky_gain, has_slope=True),
    "prelu": Activation(
        lambda config, channels: PReLU(channels, PRELU_START), lambda slope: _leaky_gain(PRELU_START)
    ),
    "elu": Activation(lambda config, channels: nn.ELU(), lambda slope: 1.24520),
    "gelu": Activation(lambda config, channels: nn.GELU(), lambda slope: 1.53353),
    "silu": Activation(lambda config, channels: nn.SiLU(), lambda slope: 1.67653),
    "tanh": Activation(lambda config, channels: nn.Tanh(), lambda slope: 1.59254, bounded=True),
    "sigmoid": Activation(lambda config, channels: nn.Sigmoid(), lambda slope: 1.84623, bounded=True),
}


def gain_of(config: TrialConfig) -> float:
    """The gain of a config's activation with the slope that it starts from."""
    start = config.negative_slope or 0.0
    if config.slope_mode == "learnable" and config.slope_min is not None and config.slope_max is not None:
        start = min(max(start, config.slope_min), config.slope_max)
    return ACTIVATIONS[config.activation].gain(start)
