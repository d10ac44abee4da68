"""From what is asked to what is run: check(data), resolve(spec), sample(spec, trial)."""

from collections.abc import Mapping, Sequence
from typing import Any

from optuna.trial import BaseTrial
from pydantic import ValidationError

from slopesearch.checks import size_misfits, unknown_names
from slopesearch.config import (
    REPORTS,
    Precision,
    Range,
    ResolvedSpace,
    ResolvedSpec,
    StudySpec,
    TrialConfig,
    values_of,
)
from slopesearch.nets.activations import ACTIVATIONS
from slopesearch.nets.initializers import INITS
from slopesearch.nets.models import MODELS
from slopesearch.search.pruner import PRUNERS
from slopesearch.search.sampler import SAMPLERS
from slopesearch.seeds import derive
from slopesearch.training.data import DATASETS
from slopesearch.training.engine import total_steps
from slopesearch.wording import RequestError, counted, mistakes


def check(data: Mapping[str, Any]) -> StudySpec:
    """A spec from plain data, as a study file or the command line gives it.

    Raises RequestError with every mistake, of types, ranges and names, at once.
    """
    found = []
    try:
        spec = StudySpec.model_validate(data)
    except ValidationError as error:
        found += mistakes(error, StudySpec)
    space = data.get("space")
    space = space if isinstance(space, Mapping) else {}
    found += unknown_names(
        {name: data.get(name) for name in ("dataset", "model", "sampler", "pruner")}
        | {name: space.get(name) for name in ("activation", "init")},
        {
            "dataset": ["auto", *DATASETS],
            "model": MODELS,
            "sampler": SAMPLERS,
            "pruner": PRUNERS,
            "activation": ACTIVATIONS,
            "init": INITS,
        },
    )
    if found:
        raise RequestError(*found)
    return spec


def resolve(spec: StudySpec, precision: Precision) -> ResolvedSpec:
    """The spec with every default filled in, as it is stored; `precision` is that of the machine.

    The data set "auto" stands for MNIST, which it tries first. Raises RequestError where the parts do not
    fit together, all such mistakes at once.
    """
    dataset = "mnist" if spec.dataset == "auto" else spec.dataset
    data, model = DATASETS[dataset], MODELS[spec.model]
    given = {name: value for name, value in spec if value is not None}
    space = {name: value for name, value in spec.space if value is not None}
    full = ResolvedSpec(
        **{
            "depth": model.depth,
            "width": model.width,
            "epochs": data.epochs,
            "train_size": data.train_size,
            "val_size": data.val_size,
            "precision": precision,
            **given,
            "dataset": dataset,
            "space": ResolvedSpace(**{"activation": tuple(ACTIVATIONS), "init": tuple(INITS), **space}),
        }
    )
    found = _misfits(full)
    if found:
        raise RequestError(*found)
    return full


def _misfits(spec: ResolvedSpec) -> list[str]:
    """What is wrong between fields that are right by themselves."""
    found = size_misfits(spec)
    steps = total_steps(spec.train_size, spec.batch_size, spec.epochs)
    if spec.batch_size <= spec.train_size and steps < REPORTS:
        found.append(
            f"epochs: a run of {steps} steps is too short for its {REPORTS} reports, "
            f"given {counted(spec.epochs, 'epoch')} of {spec.train_size:,} images; raise one of them"
        )
    if "learnable" in spec.space.slope_mode and min(values_of(spec.space.slope_max)) <= spec.slope_min:
        found.append(
            f"space.slope_max: must lie above slope_min, which is {spec.slope_min}, "
            f"given {min(values_of(spec.space.slope_max))}"
        )
    return found


def _suggest(trial: BaseTrial, name: str, axis: Range | Sequence[Any]) -> Any:
    """One draw, or the only value of a fixed parameter, which the study need not know of."""
    if isinstance(axis, Range):
        return trial.suggest_float(name, axis.low, axis.high, log=axis.log)
    return axis[0] if len(axis) == 1 else trial.suggest_categorical(name, axis)


def within_bound(config: TrialConfig) -> TrialConfig:
    """The config with the slope that it really starts from: a start above `slope_max` begins there.

    The run is the same. Version 0.1.0 stored such configs as they were drawn.
    """
    start, bound = config.negative_slope, config.slope_max
    if start is None or bound is None or start <= bound:
        return config
    return config.model_copy(update={"negative_slope": bound})


def sample(spec: ResolvedSpec, trial: BaseTrial) -> TrialConfig:
    """Draw every parameter of a trial, the conditional ones only where their condition holds.

    The slope of the config is the one that the run starts from, see `within_bound`, whatever is drawn: a
    range that depends on another draw would leave TPE no space in common.
    """
    space = spec.space
    activation = _suggest(trial, "activation", space.activation)
    mode = slope = slope_max = None
    if ACTIVATIONS[activation].has_slope:
        mode = _suggest(trial, "slope_mode", space.slope_mode)
        slope = _suggest(trial, "negative_slope", space.negative_slope)
        slope_max = _suggest(trial, "slope_max", space.slope_max) if mode == "learnable" else None
    config = TrialConfig(
        **spec.model_dump(
            include={"dataset", "split_seed", "train_size", "val_size", "batch_size", "epochs"}
            | {"model", "depth", "width", "precision", "warmup", "weight_decay", "output_gain"}
        ),
        order_seed=derive(spec.seed, "order"),
        init_seed=derive(spec.seed, "init"),
        activation=activation,
        negative_slope=slope,
        slope_mode=mode,
        slope_min=spec.slope_min if mode == "learnable" else None,
        slope_max=slope_max,
        slope_clamp=spec.slope_clamp if mode == "learnable" else None,
        norm=_suggest(trial, "norm", space.norm),
        init=_suggest(trial, "init", space.init),
        lr=_suggest(trial, "lr", space.lr),
    )
    return within_bound(config)
