"""A study with the shape of a real one, made up in no time: every branch, and every way to end."""

import random
from math import log10
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from slopesearch.config import REPORTS, Diagnostics, Range, Report, ResolvedSpec, TrialConfig
from slopesearch.search.records import StudyRecord, TrialRecord
from slopesearch.search.space import check, resolve
from slopesearch.search.store import Store, create_or_resume
from slopesearch.search.textbook import Params, textbook
from tests.conftest import make_config

LAYERS = 3


def spec_of(**fields: Any) -> ResolvedSpec:
    """A full spec on digits."""
    return resolve(check({"dataset": "digits", **fields}), "float32")


def config_of(spec: ResolvedSpec, draw: random.Random) -> TrialConfig:
    """A random point of the space."""
    space = spec.space
    activation = draw.choice(space.activation)
    leaky = activation == "leaky_relu"
    mode = draw.choice(space.slope_mode) if leaky else None
    learnable = mode == "learnable"
    shared = {"dataset", "split_seed", "train_size", "val_size", "batch_size", "epochs", "model", "depth"}
    return TrialConfig(
        **spec.model_dump(include=shared | {"width", "precision", "warmup", "weight_decay"}),
        order_seed=0,
        init_seed=0,
        activation=activation,
        negative_slope=10 ** draw.uniform(-3, log10(0.5)) if leaky else None,
        slope_mode=mode,
        slope_min=spec.slope_min if learnable else None,
        slope_max=draw.choice((0.1, 0.3, 1.0)) if learnable else None,
        slope_clamp=spec.slope_clamp if learnable else None,
        norm=draw.choice(space.norm),
        init=draw.choice(space.init),
        lr=10 ** draw.uniform(-4, -1.6),
    )


def as_recipe(config: TrialConfig, recipe: Params) -> TrialConfig:
    """The config with the choices of a recipe."""
    without = dict.fromkeys(("negative_slope", "slope_mode", "slope_min", "slope_max", "slope_clamp"))
    learnable = recipe.get("slope_mode") == "learnable"
    bounds = {"slope_min": 1e-3, "slope_clamp": "project"} if learnable else {}
    return config.model_copy(update={**without, **recipe, **bounds})


def trial_of(number: int, spec: ResolvedSpec, draw: random.Random) -> TrialRecord:
    """A trial whose accuracy depends on learning rate and norm; a third of them go to their end."""
    config = config_of(spec, draw)
    recipes = list(textbook(spec).values())
    if number < len(recipes):
        config = as_recipe(config, recipes[number])
    top = 0.99 - 0.05 * abs(log10(config.lr) + 2.7) - 0.01 * (config.norm == "none") - draw.random() * 0.01
    last = draw.choice((1, 3, REPORTS))
    diverged = last == 3 and draw.random() < 0.2
    slopes = (0.1, 0.2, 0.3) if config.slope_mode == "learnable" or config.activation == "prelu" else ()
    curve = [
        Report(
            step=step,
            train_loss=2.3 / step,
            val_loss=(3.0 - top) / step,
            val_accuracy=0.1 if diverged and step == last else top * (1 - 0.3 / step**2),
            slopes=slopes,
            raw_slopes=slopes,
            update_ratios=(1e-3,) * LAYERS,
            diverged=diverged and step == last,
        )
        for step in range(1, last + 1)
    ]
    dead = draw.random() * 0.3 if config.activation == "relu" else 0.0
    inside = Diagnostics(
        images=397,
        layers=tuple(range(1, LAYERS + 1)),
        never_active=(dead,) * LAYERS,
        zero_gradient=(dead,) * LAYERS,
        inactive=(0.5,) * LAYERS,
        gradient_rms=(1e-3, 3e-3, 1e-2),
        dead_fraction=dead,
        grad_attenuation=0.5,
        order="tutorial",
    )
    attributes = {
        "config": config.model_dump(mode="json"),
        "ended": "diverged" if diverged else "completed" if last == REPORTS else "pruned",
        "val_accuracy": curve[-1].val_accuracy,
        "val_loss": curve[-1].val_loss,
        "seconds": 1.0 + last,
        "images_per_second": 4000.0 + draw.random() * 500,
        "device": "cpu",
        "dead_fraction": dead,
        "grad_attenuation": 0.5,
    }
    if last == REPORTS and draw.random() < 0.2:
        attributes["would_prune_at"] = 1
    values = {report.step: getattr(report, spec.objective) for report in curve}
    state = "COMPLETE" if last == REPORTS else "PRUNED"
    return TrialRecord(number, state, values[last], config, values, attributes, tuple(curve), inside)


def study_of(trials: int, name: str = "digits-cnn", seed: int = 0, **fields: Any) -> StudyRecord:
    """A study of so many trials; the eighth of twelve failed."""
    spec, draw = spec_of(**fields), random.Random(seed)
    records = [trial_of(number, spec, draw) for number in range(trials)]
    for number in range(7, trials, 12):
        config = records[number].config
        records[number] = TrialRecord(number, "FAIL", None, config, {}, {"ended": "failed: gone"})
    return StudyRecord(name, spec, records)


def distribution_of(axis: Range | tuple[Any, ...]) -> BaseDistribution:
    """An axis of the space as Optuna's distribution."""
    if isinstance(axis, Range):
        return FloatDistribution(axis.low, axis.high, log=axis.log)
    return CategoricalDistribution(axis)


def store(study: StudyRecord, where: Path | str) -> None:
    """Write it as a real study, to a SQLite file or to what a URL names."""
    with Store(where if isinstance(where, str) else f"sqlite:///{where}").writing(study.name) as storage:
        create_or_resume(storage, study.name, study.spec, "images")
        made = optuna.load_study(study_name=study.name, storage=storage)
        for trial in study.trials:
            given = {n: getattr(trial.config, n) for n in type(study.spec.space).model_fields}
            params = {name: value for name, value in given.items() if value is not None}
            made.add_trial(
                optuna.trial.create_trial(
                    state=optuna.trial.TrialState[trial.state],
                    value=trial.value,
                    params=params,
                    distributions={n: distribution_of(getattr(study.spec.space, n)) for n in params},
                    user_attrs=trial.attributes | trial.bulk(),
                    intermediate_values=trial.reports,
                )
            )


def record(number: int, state: str, value: float | None, **fields: object) -> TrialRecord:
    """A trial that stores as little as possible; what else it has may be given."""
    attributes = dict(fields.pop("attributes", {}))  # type: ignore[call-overload]
    bulk = [fields.pop("curve", ()), fields.pop("diagnostics", None)]
    ended = {"COMPLETE": "completed", "PRUNED": "pruned"}.get(state, "running")
    reports = fields.pop("reports", {1: 0.5, REPORTS: value} if state == "COMPLETE" else {1: 0.5})
    config = make_config(**fields)
    return TrialRecord(number, state, value, config, reports, {"ended": ended, **attributes}, *bulk)  # type: ignore[arg-type]


def study_with(*trials: TrialRecord, **fields: object) -> StudyRecord:
    """A study of the given trials; `fields` are those of its spec."""
    return StudyRecord("s", spec_of(**fields), list(trials))
