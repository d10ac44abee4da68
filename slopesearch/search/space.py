"""From what is asked to what is run: check(data), resolve(spec), sample(spec, trial)."""

from collections.abc import Mapping, Sequence
from typing import Any

from optuna.trial import Trial
from pydantic import ValidationError

from slopesearch.checks import size_misfits, unknown_names
from slopesearch.config import REPORTS, Precision, Range, StudySpec, TrialConfig, values_of
from slopesearch.nets.activations import ACTIVATIONS
from slopesearch.nets.initializers import INITS
from slopesearch.nets.models import MODELS
from slopesearch.search.pruner import PRUNERS
from slopesearch.search.sampler import SAMPLERS
from slopesearch.seeds import derive
from slopesearch.training.data import DATASETS
from slopesearch.training.engine import total_steps
from slopesearch.wording import RequestError, mistakes


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


def resolve(spec: StudySpec, precision: Precision) -> StudySpec:
    """The spec with every default filled in, as it is stored. The data set must be a real one, not "auto".

    Raises RequestError where the parts do not fit together, all such mistakes at once.
    """
    data, model = DATASETS[spec.dataset], MODELS[spec.model]
    space = spec.space.model_copy(
        update={
            "activation": spec.space.activation or tuple(ACTIVATIONS),
            "init": spec.space.init or tuple(INITS),
        }
    )
    full = spec.model_copy(
        update={
            "depth": spec.depth or model.depth,
            "width": spec.width or model.width,
            "epochs": spec.epochs or data.epochs,
            "train_size": spec.train_size or data.train_size,
            "val_size": spec.val_size or data.val_size,
            "precision": spec.precision or precision,
            "space": space,
        }
    )
    found = _misfits(full)
    if found:
        raise RequestError(*found)
    return full


def _misfits(spec: StudySpec) -> list[str]:
    """What is wrong between fields that are right by themselves."""
    found = size_misfits(spec)
    train_size, epochs = spec.train_size or 0, spec.epochs or 0
    steps = total_steps(train_size, spec.batch_size, epochs)
    if spec.batch_size <= train_size and steps < REPORTS:
        found.append(
            f"epochs: a run of {steps} steps is too short for its {REPORTS} reports, "
            f"given {epochs} epochs of {train_size:,} images; raise one of them"
        )
    if "learnable" in spec.space.slope_mode and min(values_of(spec.space.slope_max)) <= spec.slope_min:
        found.append(
            f"space.slope_max: must lie above slope_min, which is {spec.slope_min}, "
            f"given {min(values_of(spec.space.slope_max))}"
        )
    return found


def _suggest(trial: Trial, name: str, axis: Range | Sequence[Any] | None) -> Any:
    """One draw, or the only value of a fixed axis, which the study need not know of."""
    if isinstance(axis, Range):
        return trial.suggest_float(name, axis.low, axis.high, log=axis.log)
    if not axis:
        raise ValueError(f"the spec leaves {name} open; resolve it first")
    return axis[0] if len(axis) == 1 else trial.suggest_categorical(name, axis)


def sample(spec: StudySpec, trial: Trial) -> TrialConfig:
    """Draw every parameter of a trial, the conditional ones only where their condition holds."""
    space = spec.space
    activation = _suggest(trial, "activation", space.activation)
    mode = slope = slope_max = None
    if ACTIVATIONS[activation].has_slope:
        mode = _suggest(trial, "slope_mode", space.slope_mode)
        slope = _suggest(trial, "negative_slope", space.negative_slope)
        slope_max = _suggest(trial, "slope_max", space.slope_max) if mode == "learnable" else None
    return TrialConfig(
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
