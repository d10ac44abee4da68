"""A config and its origin as a TOML file: chosen from a study, written, and read back to an equal object."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import tomli_w
from pydantic import Field, ValidationError

from slopesearch.checks import size_misfits, unknown_names
from slopesearch.config import Noun, Objective, TrialConfig
from slopesearch.evidence.results import as_share, confirmed_of, pick
from slopesearch.evidence.statistics import Estimate
from slopesearch.files import refuse_special, write_aside
from slopesearch.nets.activations import ACTIVATIONS
from slopesearch.nets.initializers import INITS
from slopesearch.nets.models import MODELS, count_parameters
from slopesearch.search.given import OTHERS, Given, choices_of
from slopesearch.search.records import StudyRecord
from slopesearch.training.data import DATASETS
from slopesearch.wording import RequestError, mistakes, read_toml

MOST_PARAMETERS = 10**8  # 400 MB of weights and 800 MB for Adam: more is a typing error


class FreshRuns(Noun):
    """The means over a config's `runs` runs on fresh seeds, on the validation images; the loss in nats."""

    runs: int
    val_accuracy: Estimate
    val_loss: Estimate


class Origin(Noun):
    """Where a config comes from: the study, its trial, and its value there.

    `trial` is None for a baseline that the search did not run. `searched` is the trial's value of the
    objective, which is too good: the trial was chosen for it.
    """

    study: str
    trial: int | None = None
    objective: Objective
    searched: float | None = None
    confirmed: FreshRuns | None = None


class ConfigFile(Noun):
    """The content of a config file: the config, its origin, and the versions that the study was made with."""

    config: TrialConfig
    origin: Origin
    versions: dict[str, str] = Field(max_length=100)


def choose_export(study: StudyRecord, confirmation: StudyRecord | None, number: int | None) -> ConfigFile:
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
                f"trial {trial.number} of the study '{study.name}' has no config yet; choose another"
            )
        number, config = trial.number, trial.config
        searched = trial.value if trial.state == "COMPLETE" else None
    row = next((row for row in confirmed if row.arm.config == config), None)
    fresh = None
    if row is not None:
        accuracy = as_share(row.val_accuracy)
        fresh = FreshRuns(runs=row.runs, val_accuracy=accuracy, val_loss=row.val_loss)
    return ConfigFile(
        config=config,
        origin=Origin(
            study=study.name,
            trial=number,
            objective=study.spec.objective,
            searched=searched,
            confirmed=fresh,
        ),
        versions=study.attributes.get("versions", {}),
    )


_MAY_BE_NONE = ("depth", "width", "negative_slope", "slope_mode", "slope_min", "slope_max", "slope_clamp")

_KNOWN: dict[str, Iterable[str]] = {
    "dataset": DATASETS,
    "model": MODELS,
    "activation": ACTIVATIONS,
    "init": INITS,
}

_HEAD = (
    "# A network and its training, for `python -m slopesearch train FILE`; what is left out is none.\n"
    "# `train` takes all training images and its own epochs, unless --train-size and --epochs are given.\n"
)


def as_toml(content: ConfigFile) -> str:
    """The text of a config file."""
    return f"{_HEAD}\n{tomli_w.dumps(content.model_dump(mode='json', exclude_none=True))}"


def write_config_file(content: ConfigFile, path: Path, force: bool) -> None:
    """Write a config file in one step. Raises RequestError where one is there already, unless forced."""
    refuse_special(path)
    if not path.parent.is_dir():
        raise RequestError(
            f"'{path}' cannot be made: there is no folder '{path.parent}'; name a file with -o"
        )
    if path.exists() and not force:
        raise RequestError(f"'{path}' is there already; name another with -o, or overwrite it with --force")
    write_aside(path, as_toml(content).encode())


def read_config_file(path: Path) -> ConfigFile:
    """A config file, read back. Nothing in it is executed.

    Raises RequestError, with every mistake at once, where it is no config that can be trained.
    """
    data = read_toml(path, "config file")
    table = data.get("config")
    if isinstance(table, Mapping):
        data["config"] = {**dict.fromkeys(_MAY_BE_NONE), **table}
    found: list[str] = []
    try:
        content = ConfigFile.model_validate(data)
    except ValidationError as error:
        found += mistakes(error, ConfigFile)
    if isinstance(table, Mapping):
        found += unknown_names(table, _KNOWN)
    found = found or _misfits(content.config)
    if found:
        raise RequestError(f"'{path}' is no config that can be trained:", *(f"  {line}" for line in found))
    return content


def read_given(path: Path) -> Given:
    """A config to try: a config file, or one with the fields of the space alone.

    Raises RequestError where it is neither; whether it fits into a study shows when there is one.
    """
    data = read_toml(path, "config file")
    if "config" not in data:
        return Given(f"'{path}'", data)
    config = read_config_file(path).config
    return Given(f"'{path}'", choices_of(config), {name: getattr(config, name) for name in OTHERS})


def load_config(path: str | Path) -> TrialConfig:
    """The config in a file that `export` or `train` wrote. Raises RequestError, see `read_config_file`."""
    return read_config_file(Path(path)).config


def _misfits(config: TrialConfig) -> list[str]:
    """What is wrong between fields that are right by themselves."""
    found = [f"config.{line}" for line in size_misfits(config)]
    found += _slope_misfits(config)
    model = MODELS[config.model]
    found += [
        f"config.{name}: is missing; model '{config.model}' needs it"
        for name, given, default in (
            ("depth", config.depth, model.depth),
            ("width", config.width, model.width),
        )
        if given is None and default is not None
    ]
    if config.evaluated_on != "validation":
        found.append(
            "config.evaluated_on: 'validation', or left out; the test set is for the end, "
            f"given '{config.evaluated_on}'"
        )
    if not found and (count := count_parameters(config)) > MOST_PARAMETERS:
        found.append(
            f"config.width: a network of {count:,} parameters; at most {MOST_PARAMETERS:,} are built"
        )
    return found


def _slope_misfits(config: TrialConfig) -> list[str]:
    """Which slope fields the activation needs and lacks, or has and does not take."""
    learnable = config.slope_mode == "learnable"
    activation = f"activation '{config.activation}'"
    if ACTIVATIONS[config.activation].has_slope:
        wanted = {"negative_slope": activation, "slope_mode": activation}
    else:
        wanted = {}
    if learnable:
        wanted |= dict.fromkeys(("slope_min", "slope_max", "slope_clamp"), "a learnable slope")
    found = []
    for name in ("negative_slope", "slope_mode", "slope_min", "slope_max", "slope_clamp"):
        given = getattr(config, name)
        if name in wanted and given is None:
            found.append(f"config.{name}: is missing; {wanted[name]} needs it")
        elif name not in wanted and given is not None:
            owner = activation if name in ("negative_slope", "slope_mode") else "a fixed slope or none"
            found.append(f"config.{name}: {owner} takes none, given {given}")
    if learnable and (config.slope_max or 0) <= (config.slope_min or 0):
        found.append(f"config.slope_max: must lie above slope_min, given {config.slope_max}")
    return found
