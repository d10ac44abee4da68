"""A config as a TOML file, with where it comes from: written, and read back to an equal object."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from slopesearch.config import Objective, TrialConfig
from slopesearch.wording import RequestError, mistakes, read_toml, unknown
from slopesearch.files import write_aside
from slopesearch.nets.activations import ACTIVATIONS
from slopesearch.nets.initializers import INITS
from slopesearch.nets.models import MODELS, count_parameters
from slopesearch.search.records import StudyRecord
from slopesearch.evidence.statistics import Estimate, confirmed_of, pick
from slopesearch.training.data import DATASETS

MOST_PARAMETERS = 10**8  # 400 MB of weights, as much again twice for Adam: a typing error beyond


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Confirmation(_Table):
    """What fresh seeds gave: of `runs` runs, on the validation images."""

    runs: int
    val_accuracy: Estimate
    val_loss: Estimate


class Origin(_Table):
    """Where a config comes from. `searched` is the one value that the search saw, and too good.

    `trial` is None for a baseline that the search did not run.
    """

    study: str
    trial: int | None = None
    objective: Objective
    searched: float | None = None
    confirmed: Confirmation | None = None


class Exported(_Table):
    """A config file: the whole config, its origin, and the versions that the study was made with."""

    config: TrialConfig
    origin: Origin
    versions: dict[str, str] = Field(max_length=100)


def export(study: StudyRecord, confirmation: StudyRecord | None, number: int | None) -> Exported:
    """A trial of a study as a config file; without a number the confirmed best, else the best of the search.

    `confirmation` is the study that `confirm` made. Raises RequestError where there is no such trial.
    """
    confirmed = confirmed_of(confirmation)
    if number is None and confirmed:
        arm = pick(confirmed).arm
        number, config, searched = arm.trial, arm.config, arm.searched
    else:
        trial = study.trial(number) if number is not None else study.best()
        if trial.config is None:
            raise RequestError(
                f"trial {number} of the study '{study.name}' has no config yet; choose another"
            )
        number, config = trial.number, trial.config
        searched = trial.value if trial.state == "COMPLETE" else None
    of_it = [row for row in confirmed if row.arm.config == config]
    return Exported(
        config=config,
        origin=Origin(
            study=study.name,
            trial=number,
            objective=study.spec.objective,
            searched=searched,
            confirmed=Confirmation(**of_it[0].model_dump(include=set(Confirmation.model_fields)))
            if of_it
            else None,
        ),
        versions=study.attributes.get("versions", {}),
    )


_MAY_BE_NONE = ("depth", "width", "negative_slope", "slope_mode", "slope_min", "slope_max", "slope_clamp")

_HEAD = "# A network and its training, for `python -m slopesearch train FILE`; what is left out is none.\n"


def as_toml(exported: Exported) -> str:
    """The text of a config file."""
    return f"{_HEAD}\n{tomli_w.dumps(exported.model_dump(mode='json', exclude_none=True))}"


def write_export(exported: Exported, path: Path, force: bool) -> None:
    """Write a config file in one step. Raises RequestError where one is there already, unless forced."""
    if path.is_dir() or not path.parent.is_dir():
        wrong = "is a folder" if path.is_dir() else f"cannot be made: there is no folder '{path.parent}'"
        raise RequestError(f"'{path}' {wrong}; name a file with -o")
    if path.exists() and not force:
        raise RequestError(f"'{path}' is there already; name another with -o, or overwrite it with --force")
    write_aside(path, as_toml(exported).encode())


def read_export(path: Path) -> Exported:
    """A config file, read back. Nothing in it is executed.

    Raises RequestError, with every mistake at once, where it is no config that can be trained.
    """
    data = read_toml(path, "config file")
    table = data.get("config")
    if isinstance(table, Mapping):
        data["config"] = {**dict.fromkeys(_MAY_BE_NONE), **table}
    found: list[str] = []
    try:
        exported = Exported.model_validate(data)
    except ValidationError as error:
        found += mistakes(error, Exported)
    if isinstance(table, Mapping):
        found += _unknown_names(table)
    found = found or _misfits(exported.config)
    if found:
        raise RequestError(f"'{path}' is no config that can be trained:", *(f"  {line}" for line in found))
    return exported


def load_config(path: str | Path) -> TrialConfig:
    """The config in a file that `export` or `train` wrote. Raises RequestError, see `read_export`."""
    return read_export(Path(path)).config


def _unknown_names(table: Mapping[str, Any]) -> list[str]:
    registries: dict[str, Mapping[str, object]] = {
        "dataset": DATASETS,
        "model": MODELS,
        "activation": ACTIVATIONS,
        "init": INITS,
    }
    return [
        unknown(kind, table[kind], list(known))
        for kind, known in registries.items()
        if isinstance(table.get(kind), str) and table[kind] not in known
    ]


def _misfits(config: TrialConfig) -> list[str]:
    """What is wrong between fields that are right by themselves."""
    data, model = DATASETS[config.dataset], MODELS[config.model]
    learnable = config.slope_mode == "learnable"
    has_slope = ACTIVATIONS[config.activation].has_slope
    needed = {
        "depth": (model.depth is not None, f"model '{config.model}'"),
        "width": (model.width is not None, f"model '{config.model}'"),
        "negative_slope": (has_slope, f"activation '{config.activation}'"),
        "slope_mode": (has_slope, f"activation '{config.activation}'"),
        **dict.fromkeys(("slope_min", "slope_max", "slope_clamp"), (learnable, "a learnable slope")),
    }
    found = []
    for name, (wanted, what) in needed.items():
        given = getattr(config, name)
        if wanted and given is None:
            found.append(f"config.{name}: is missing; {what} needs it")
        elif given is not None and not wanted:
            owner = "a fixed slope or none" if what == "a learnable slope" else what
            found.append(f"config.{name}: {owner} takes none, given {given}")
    if learnable and (config.slope_max or 0) <= (config.slope_min or 0):
        found.append(f"config.slope_max: must lie above slope_min, given {config.slope_max}")
    most = data.train_max + (data.val_max if config.val_size == 0 else 0)
    if config.train_size > most:
        found.append(f"config.train_size: at most {most:,} for {config.dataset}, given {config.train_size:,}")
    if config.val_size > data.val_max:
        found.append(
            f"config.val_size: at most {data.val_max:,} for {config.dataset}, given {config.val_size:,}"
        )
    if config.evaluated_on != "validation":
        found.append(
            "config.evaluated_on: 'validation', or left out; the test set is for the end, "
            f"given '{config.evaluated_on}'"
        )
    if config.batch_size > config.train_size:
        found.append(f"config.batch_size: at most train_size, given {config.batch_size:,}")
    if not found and (count := count_parameters(config)) > MOST_PARAMETERS:
        found.append(
            f"config.width: a network of {count:,} parameters; at most {MOST_PARAMETERS:,} are built"
        )
    return found
