"""Open, resume, read and write a study through Optuna's storage."""

import hashlib
import json
import platform
import shlex
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock, Timeout
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from sqlalchemy.exc import SQLAlchemyError

from slopesearch.config import StudySpec, TrialConfig, TrialResult
from slopesearch.search.records import VERDICTS, StudyRecord, TrialRecord
from slopesearch.search.sqlite import BUSY_TIMEOUT, existing_database, only_writer, read_only
from slopesearch.search.turns import BULKY, Storage, WalConnection, close_storage, open_storage
from slopesearch.wording import RequestError, StudyFailedError, differences

optuna.logging.set_verbosity(optuna.logging.WARNING)


@contextmanager
def database(path: Path) -> Iterator[RDBStorage]:
    """Optuna's storage on the file, to write to, in WAL mode; made where it is missing, closed at the end.

    Who writes a study holds its trials for as long as it runs, so without what is BULKY in them.
    Raises RequestError where the file's schema is not that of the installed Optuna, StudyFailedError where
    the file cannot be written: locked for longer than BUSY_TIMEOUT, or on a full or broken disk.
    """
    connect = {"factory": WalConnection, "timeout": BUSY_TIMEOUT}
    try:
        lock = path.resolve().with_name(f".{path.resolve().name}.lock")  # a file under two names is one
        with FileLock(lock, timeout=2 * BUSY_TIMEOUT):  # who holds it may wait for the file himself
            _make(path)
            storage = open_storage(path, engine_kwargs={"connect_args": connect})
            storage.leave_out = BULKY
        try:
            yield storage
        finally:
            close_storage(storage)
    except (SQLAlchemyError, StorageInternalError, Timeout) as error:
        raise StudyFailedError(
            f"'{path}' cannot be written ({_cause(error)}); what was finished is stored: make space on the "
            "disk, or end what holds the file, and the same command goes on from there"
        ) from None


def _make(path: Path) -> None:
    """Make the tables aside, then rename: killed in between, nothing half-made goes by the file's name."""
    if path.exists() and path.stat().st_size:
        return
    aside = path.with_name(f".{path.name}.new")
    for leftover in (aside, aside.with_name(f"{aside.name}-journal")):
        leftover.unlink(missing_ok=True)
    close_storage(open_storage(aside))
    aside.replace(path.resolve())


def _cause(error: BaseException) -> str:
    """What SQLite said, at the end of a chain of wrappers."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).splitlines()[0]


@contextmanager
def reading(path: Path) -> Iterator[Storage]:
    """Optuna's storage on a file that is there, to read from: not a byte of it changes.

    Raises RequestError where what is read is not what Optuna has written.
    """
    # In a file that was edited, its JSON, its enums or its numbers may be anything.
    wrong = (SQLAlchemyError, StorageInternalError, ValueError, TypeError, LookupError, RecursionError)
    settings = {"creator": partial(read_only, path)}
    try:
        storage = open_storage(path, engine_kwargs=settings, skip_table_creation=True)
        try:
            yield storage
        finally:
            close_storage(storage)
    except wrong as error:
        raise RequestError(
            f"'{path}' cannot be read as a storage of studies ({type(error).__name__}: {_cause(error)}); put "
            "a copy of it in its place, or name another with --storage"
        ) from None


def fingerprint(spec: dict[str, Any], data_hash: str) -> str:
    """One hash for what was asked and the images it is asked of."""
    return hashlib.sha256((json.dumps(spec, sort_keys=True) + data_hash).encode()).hexdigest()


def stored_spec(storage: RDBStorage, name: str) -> StudySpec | None:
    """The spec of a study, or None where there is no such study yet (or it was killed while being made).

    Raises RequestError where a study of that name is not one of ours.
    """
    try:
        study = optuna.load_study(study_name=name, storage=storage)
    except KeyError:
        return None
    attributes = study.user_attrs
    if "fingerprint" not in attributes:  # it is written last
        if study.get_trials(deepcopy=False):
            raise RequestError(f"the study '{name}' was not made by slopesearch; choose another with --name")
        return None
    return _parse_spec(name, attributes["spec"])


def read_spec(path: Path, name: str) -> StudySpec | None:
    """The spec of a study in a file that may not be there yet, see `stored_spec`.

    Its trials are read too, so that one that was tampered with is refused before anything is written.
    """
    if not path.exists() or not path.stat().st_size:
        return None
    with reading(path) as storage:
        spec = stored_spec(storage, name)
        if spec is not None:
            for _ in _records(storage, name):
                pass
        return spec


def _parse_spec(name: str, stored: Any) -> StudySpec:
    try:
        return StudySpec.model_validate_json(json.dumps(stored))
    except ValueError as error:
        raise RequestError(
            f"the stored spec of study '{name}' cannot be read ({str(error).splitlines()[0]}); was it made "
            "by a newer slopesearch? start another study with --name"
        ) from None


def refuse_mixing(name: str, stored: StudySpec, given: StudySpec) -> None:
    """Raise RequestError, field by field, where a field that was given differs from the stored spec."""
    found = differences(stored, given)
    if found:
        raise RequestError(
            f"the study '{name}' was asked something else:",
            *(f"  {line}" for line in found),
            f"to extend it, leave these out and type --name {shlex.quote(name)} --trials N; "
            f"to start another study, add --name {shlex.quote(name + '-2')}",
        )


def create_or_resume(
    storage: RDBStorage,
    name: str,
    spec: StudySpec,
    data_hash: str,
    sampler: optuna.samplers.BaseSampler,
    pruner: optuna.pruners.BasePruner,
) -> optuna.Study:
    """The study to write to, with its spec, versions and fingerprint as user attributes.

    Raises RequestError where the study that is there has another direction, spec or images.
    """
    direction = "MAXIMIZE" if spec.maximize else "MINIMIZE"
    study = optuna.create_study(
        storage=storage,
        study_name=name,
        direction=StudyDirection[direction],
        sampler=sampler,
        pruner=pruner,
        load_if_exists=True,
    )
    asked = json.loads(spec.model_dump_json())
    stored = study.user_attrs
    if [kind.name for kind in study.directions] != [direction]:
        raise RequestError(
            f"an empty study '{name}' is there, made to {study.directions[0].name.lower()} where "
            f"{spec.objective} is to {direction.lower()}; start another study with --name"
        )
    if "fingerprint" not in stored:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            study.set_metric_names([spec.objective])  # what the dashboard's axes say
        study.set_user_attr("spec", asked)
        study.set_user_attr("versions", versions())
        study.set_user_attr("data_sha256", data_hash)
        study.set_user_attr("fingerprint", fingerprint(asked, data_hash))
    elif _parse_spec(name, stored["spec"]) != spec:
        raise RequestError(
            f"another process has just begun the study '{name}' with other fields; run again to see them"
        )
    else:
        refuse_other_images(name, spec, stored, data_hash)
    return study


def refuse_other_images(name: str, spec: StudySpec, attributes: Mapping[str, Any], data_hash: str) -> None:
    """Raise RequestError where the images are not those that the study began with."""
    if fingerprint(attributes["spec"], data_hash) != attributes["fingerprint"]:
        raise RequestError(
            f"the {spec.dataset} images differ from those that the study '{name}' began with:",
            f"  SHA-256: stored {attributes.get('data_sha256')}, given {data_hash}",
            f"to extend it, name the folder that holds the first ones with --data; to start another study, "
            f"add --name {shlex.quote(name + '-2')}",
        )


def versions() -> dict[str, str]:
    """Of Python and the packages that a run depends on, here."""
    packages = ("slopesearch", "optuna", "torch", "torchvision")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def set_result(trial: optuna.Trial, result: TrialResult) -> None:
    """Store what a run gave: flat attributes that read well as columns, one for its curve, one per layer."""
    final, inside = result.final, result.diagnostics
    values = {
        "val_accuracy": final.val_accuracy,
        "val_loss": final.val_loss,
        "train_loss": final.train_loss,
        "seconds": round(result.seconds, 3),
        "images_per_second": round(result.images_per_second, 1),
        "device": result.device,
        "ended": result.ended,
        "curves": [json.loads(report.model_dump_json()) for report in result.curve],
    }
    if inside is not None:
        values |= {
            "dead_fraction": round(inside.dead_fraction, 4),
            "layers": json.loads(inside.model_dump_json()),
        }
        if inside.grad_attenuation is not None:
            values["grad_attenuation"] = round(inside.grad_attenuation, 4)
    for name, value in values.items():
        trial.set_user_attr(name, value)


def _record(trial: FrozenTrial) -> TrialRecord:
    config = trial.user_attrs.get("config")
    try:
        parsed = TrialConfig.model_validate_json(json.dumps(config)) if config else None
    except ValueError as error:
        raise RequestError(
            f"the stored config of trial {trial.number} cannot be read ({str(error).splitlines()[0]}); "
            "was it made by another version of slopesearch?"
        ) from None
    stored = parsed.model_dump() if parsed else {}
    for name, value in trial.params.items():
        if stored.get(name, value) != value:
            raise RequestError(
                f"the config of trial {trial.number} was changed: its {name} is {stored[name]!r} where "
                f"{value!r} was drawn; put a copy of the storage in its place, or choose another study"
            )
    return TrialRecord(
        number=trial.number,
        state=trial.state.name,
        value=trial.value,
        config=parsed,
        reports=dict(trial.intermediate_values),
        attributes=trial.user_attrs,
    )


def read_trials(study: optuna.Study) -> list[TrialRecord]:
    """Every trial of a study that is being written, by number, without what is BULKY."""
    return [_record(trial) for trial in study.get_trials(deepcopy=False)]


def _records(storage: Storage, name: str) -> Iterator[TrialRecord]:
    """Every trial of a study that is only read, by number, with all that is stored of it."""
    return map(_record, storage.in_turns(storage.get_study_id_from_name(name)))


def read_study(url: str, name: str | None) -> StudyRecord:
    """A study with all its trials; `name` may be left out where the storage holds one search.

    Raises RequestError where there is no such study.
    """
    with reading(existing_database(url)) as storage:
        names = [study.study_name for study in storage.get_all_studies()]
        searches = [study for study in names if not study.endswith(VERDICTS)]
        if name is None and len(searches) == 1:
            name = searches[0]
        if name is None or name not in names:
            asked = f"there is no study '{name}'" if name else "name a study"
            raise RequestError(f"{asked}; the storage '{url}' holds {', '.join(names) or 'none yet'}")
        spec = stored_spec(storage, name)
        if spec is None:
            raise RequestError(f"the study '{name}' was not made by slopesearch, or holds nothing yet")
        study = optuna.load_study(study_name=name, storage=storage)
        return StudyRecord(name, spec, list(_records(storage, name)), study.user_attrs)


def read_search(url: str, name: str | None) -> StudyRecord:
    """A study that is a search, see `read_study`; not one of its verdict's. Raises RequestError for those."""
    record = read_study(url, name)
    if record.name.endswith(VERDICTS):
        search = record.name.rpartition("/")[0]
        raise RequestError(f"'{record.name}' is no search; name '{search}', the search that it belongs to")
    return record


def find_study(url: str, name: str) -> StudyRecord | None:
    """A study with all its trials, or None where there is none of the name, or nothing in it yet."""
    with reading(existing_database(url)) as storage:
        spec = stored_spec(storage, name)
        if spec is None:
            return None
        study = optuna.load_study(study_name=name, storage=storage)
        return StudyRecord(name, spec, list(_records(storage, name)), study.user_attrs)


def set_attributes(path: Path, name: str, attributes: dict[str, Any]) -> None:
    """Store attributes of a study. Raises RequestError where another process is writing it."""
    with only_writer(path, name), database(path) as storage:
        study = optuna.load_study(study_name=name, storage=storage)
        for key, value in attributes.items():
            study.set_user_attr(key, value)
