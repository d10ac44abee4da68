"""The five questions around a winner: what in it matters? Each a family of its own."""

from collections.abc import Callable, Sequence

from slopesearch.config import ResolvedSpec, TrialConfig, values_of
from slopesearch.evidence.families import SLOPES, STEPS, Family, Side
from slopesearch.nets.activations import ACTIVATIONS
from slopesearch.nets.initializers import INITS

LEAKY = 0.01  # the slope that slopes and learnable ones are compared with


def rates_around(rate: float) -> tuple[float, ...]:
    """The learning rates to try first, the given one among them."""
    return tuple(rate * 2.0**step for step in STEPS)


def with_slope(config: TrialConfig, slope: float, slope_max: float | None, spec: ResolvedSpec) -> TrialConfig:
    """The config with leaky ReLU in the place of its activation; learnable from `slope` where there is a
    `slope_max`.
    """
    learnable = slope_max is not None
    return config.model_copy(
        update={
            "activation": "leaky_relu",
            "negative_slope": slope,
            "slope_mode": "learnable" if learnable else "fixed",
            "slope_min": spec.slope_min if learnable else None,
            "slope_max": slope_max,
            "slope_clamp": spec.slope_clamp if learnable else None,
        }
    )


def with_activation(config: TrialConfig, activation: str, spec: ResolvedSpec) -> TrialConfig:
    """The config with another activation in the place of its own; a slope is LEAKY, fixed."""
    if ACTIVATIONS[activation].has_slope:
        return with_slope(config, LEAKY, None, spec)
    without = dict.fromkeys(("negative_slope", "slope_mode", "slope_min", "slope_max", "slope_clamp"))
    return config.model_copy(update={**without, "activation": activation})


def name_of(config: TrialConfig) -> str:
    """An activation in a few words, with its slope."""
    words = [config.activation]
    if config.negative_slope is not None:
        words.append(f"{config.negative_slope:.3g}")
    if config.slope_mode == "learnable":
        return f"{' '.join(words)} learned, at most {config.slope_max:g}"
    return " ".join(words)


def _against(baseline: str, sides: Sequence[Side]) -> tuple[tuple[str, str], ...]:
    return tuple((side.name, baseline) for side in sides if side.name != baseline)


def _side(name: str, config: TrialConfig, mean_of: str | None = None) -> Side:
    return Side(name=name, config=config, rates=rates_around(config.lr), mean_of=mean_of)


def _slope(winner: TrialConfig, spec: ResolvedSpec) -> Family:
    slopes = sorted((LEAKY, *SLOPES))
    sides = [_side(f"leaky_relu {slope:.3g}", with_slope(winner, slope, None, spec)) for slope in slopes]
    return Family(
        question="slope",
        asks="which slope does leaky ReLU take in the winner's place?",
        sides=tuple(sides),
        contrasts=_against(f"leaky_relu {LEAKY:g}", sides),
    )


def _learned(winner: TrialConfig, spec: ResolvedSpec) -> Family:
    fixed = _side(f"fixed {LEAKY:g}", with_slope(winner, LEAKY, None, spec))
    highest = [value for value in values_of(spec.space.slope_max) if value > spec.slope_min]
    learned = [_side(f"learned, at most {top:g}", with_slope(winner, LEAKY, top, spec)) for top in highest]
    twins = [_side(f"mean of {side.name}", fixed.config, mean_of=side.name) for side in learned]
    pairs = tuple((side.name, twin.name) for side, twin in zip(learned, twins, strict=True))
    return Family(
        question="learned",
        asks="is a learnable slope better than 0.01, or than its own mean, fixed?",
        sides=(fixed, *learned, *twins),
        contrasts=(*_against(fixed.name, learned), *pairs),
    )


def _norm(winner: TrialConfig, spec: ResolvedSpec) -> Family:
    sides = [_side(norm, winner.model_copy(update={"norm": norm})) for norm in ("none", "before", "after")]
    return Family(
        question="norm",
        asks="where does BatchNorm go, before the activation, after it, or nowhere?",
        sides=tuple(sides),
        contrasts=_against(winner.norm, sides),
    )


def _init(winner: TrialConfig, spec: ResolvedSpec) -> Family:
    sides = [_side(init, winner.model_copy(update={"init": init})) for init in INITS]
    return Family(
        question="init",
        asks="which init in the winner's place?",
        sides=tuple(sides),
        contrasts=_against(winner.init, sides),
    )


def _activation(winner: TrialConfig, spec: ResolvedSpec) -> Family:
    own = _side(name_of(winner), winner)
    others = [with_activation(winner, name, spec) for name in ACTIVATIONS if name != winner.activation]
    sides = [own, *(_side(name_of(config), config) for config in others)]
    return Family(
        question="activation",
        asks="which activation in the winner's place?",
        sides=tuple(sides),
        contrasts=_against(own.name, sides),
    )


# In the order in which they are answered: the cheap ones first.
QUESTIONS: dict[str, Callable[[TrialConfig, ResolvedSpec], Family]] = {
    "slope": _slope,
    "learned": _learned,
    "norm": _norm,
    "init": _init,
    "activation": _activation,
}


def around(winner: TrialConfig, spec: ResolvedSpec, questions: Sequence[str]) -> list[Family]:
    """The families of these questions around a winner, in the order of QUESTIONS."""
    return [make(winner, spec) for question, make in QUESTIONS.items() if question in questions]
