"""The recipes that people use, which every study begins with."""

from collections.abc import Sequence
from typing import Any

from slopesearch.config import Range, ResolvedSpec, TrialConfig

Params = dict[str, str | float]

N_STARTUP = 20  # finished trials before the sampler takes over
MOST = 50  # runs of the recipes and the cover behind them, whatever the space asks for

_TUTORIAL: Params = {
    "activation": "leaky_relu",
    "slope_mode": "fixed",
    "negative_slope": 0.01,
    "norm": "none",
    "init": "default",
    "lr": 1e-3,
}

# Each a point of the space: the winner is compared with them.
TEXTBOOK: dict[str, Params] = {
    "the tutorial's recipe": _TUTORIAL,
    "the same, BatchNorm before": {**_TUTORIAL, "norm": "before"},
    "its learnable slope, up to 0.1": {**_TUTORIAL, "slope_mode": "learnable", "slope_max": 0.1},
    "ReLU with He init": {"activation": "relu", "norm": "none", "init": "kaiming_normal", "lr": 1e-3},
    "PReLU from 0.25": {"activation": "prelu", "norm": "none", "init": "default", "lr": 1e-3},
}


def textbook(spec: ResolvedSpec) -> dict[str, Params]:
    """The textbook's recipes that the space holds; they are trials 0, 1, … of a study, in this order."""
    return {
        name: recipe
        for name, recipe in TEXTBOOK.items()
        if all(_holds(getattr(spec.space, parameter), value) for parameter, value in recipe.items())
    }


def follows(config: TrialConfig, recipe: Params) -> bool:
    """Whether a config is a recipe, on whatever data and budget."""
    if config.lr != recipe.get("lr", config.lr):  # which tells nearly every config from a recipe at once
        return False
    return all(getattr(config, name) == value for name, value in recipe.items())


def _holds(axis: Range | Sequence[Any], value: str | float) -> bool:
    if isinstance(axis, Range):
        return isinstance(value, float) and axis.low <= value <= axis.high
    return value in axis
