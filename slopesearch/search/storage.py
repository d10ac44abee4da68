"""Open, resume, read and write a study in a SQLite file; one writer at a time."""

import hashlib
import json
import os
import platform
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock, Timeout
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from slopesearch.config import Report, RequestError, StudySpec, TrialConfig, TrialResult, differences

DEFAULT_URL = "sqlite:///studies/slopesearch.db"
BUSY_TIMEOUT = 60  # s to wait for another process that holds the file

optuna.logging.set_verbosity(optuna.logging.WARNING)


class _WalConnection(sqlite3.Connection):
    """Readers go on while the study is written. (A listener would miss the connections pooled before it.)"""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.execute("PRAGMA journal_mode=WAL")
        self.execute("PRAGMA synchronous=NORMAL")


@dataclass(frozen=True)
class TrialRecord:
    """A stored trial, read back without torch. `value` is the objective; `ended` says why it ended.

    A trial that was interrupted before it was told has state "RUNNING" and runs again.
    """

    number: int
    state: str
    value: float | None
    config: TrialConfig | None
    reports: dict[int, float]
    attributes: dict[str, Any]

    @property
    def ended(self) -> str:
        """completed, pruned, diverged or failed: …; running while it has not."""
        return str(self.attributes.get("ended", "running"))

    @property
    def curve(self) -> tuple[Report, ...]:
        """Every report of the run, for a finished trial."""
        return tuple(Report.model_validate_json(json.dumps(row)) for row in self.attributes.get("curves", []))


@dataclass(frozen=True)
class StudySummary:
    """A line of `list`."""

    name: str
    complete: int
    pruned: int
    running: int
    failed: int
    best: float | None


@dataclass(frozen=True)
class StudyRecord:
    """A stored study, read back: what was asked, and every trial."""

    name: str
    spec: StudySpec
    trials: list[TrialRecord]

    def ranked(self) -> list[TrialRecord]:
        """The completed trials, best first; of equal ones the earlier first."""
        sign = -1 if self.spec.maximize else 1
        complete = [trial for trial in self.trials if trial.state == "COMPLETE"]
        return sorted(complete, key=lambda trial: (sign * (trial.value or 0.0), trial.number))

    def count(self, state: str) -> int:
        """How many trials are in a state."""
        return sum(trial.state == state for trial in self.trials)


def database_path(url: str) -> Path:
    """The file behind a storage URL. Raises RequestError for any other kind of storage."""
    try:
        parsed = make_url(url)
        parsed.get_dialect().import_dbapi()
    except (ArgumentError, ValueError):
        raise RequestError(
            f"'{url}' is not a storage URL; a SQLite file is named like {DEFAULT_URL}"
        ) from None
    except (NoSuchModuleError, ImportError) as error:
        raise RequestError(
            f"the storage URL '{url}' needs a driver that is not installed ({error}); "
            f"install it, or use a SQLite file like {DEFAULT_URL}"
        ) from None
    if parsed.get_backend_name() != "sqlite" or not parsed.database or parsed.database == ":memory:":
        raise RequestError(f"studies are stored in SQLite files, given '{url}'; name one like {DEFAULT_URL}")
    return Path(parsed.database)


def check_database(path: Path) -> None:
    """Raise RequestError unless the file is one of Optuna's, or can be made. Writes nothing."""
    if not path.exists():
        default = database_path(DEFAULT_URL).parent
        if path.parent != default and not path.parent.is_dir():
            raise RequestError(f"the storage folder '{path.parent}' does not exist; create it first")
        if path.parent.is_dir() and not os.access(path.parent, os.W_OK):
            raise RequestError(f"the storage folder '{path.parent}' cannot be written to; choose another")
        return
    try:
        with closing(_read_only(path)) as connection:
            tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
    except (sqlite3.Error, OSError) as error:
        raise RequestError(
            f"'{path}' cannot be read as a SQLite file ({error}); name another with --storage"
        ) from None
    if tables and not {"studies", "trials", "version_info"} <= tables:
        raise RequestError(
            f"'{path}' is a SQLite file of another program (it has no Optuna tables); "
            "name another with --storage"
        )


def _read_only(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=BUSY_TIMEOUT)


@contextmanager
def database(path: Path) -> Iterator[RDBStorage]:
    """Optuna's storage on the file, in WAL mode; made where it is missing, closed at the end.

    Raises RequestError where the file's schema is not that of the installed Optuna.
    """
    url = f"sqlite:///{path}".replace("{", "{{").replace("}", "}}")  # Optuna formats its URLs
    connect = {"factory": _WalConnection, "timeout": BUSY_TIMEOUT}
    try:
        storage = RDBStorage(url, engine_kwargs={"connect_args": connect})
    except RuntimeError as error:
        raise RequestError(f"'{path}' cannot be opened: {error}") from None
    try:
        yield storage
    finally:
        storage.remove_session()
        storage.engine.dispose()


@contextmanager
def only_writer(path: Path, study_name: str) -> Iterator[None]:
    """Hold the study's lock, which the system lets go when the process dies.

    Raises RequestError, naming the holder, where another process is writing the study.
    """
    digest = hashlib.sha256(study_name.encode()).hexdigest()[:12]
    lock = FileLock(path.with_name(f".{path.name}.{digest}.lock"))
    holder = path.with_name(f".{path.name}.{digest}.lock.json")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        try:
            who = "process {pid} on {host}, since {since}".format(**json.loads(holder.read_text()))
        except (OSError, ValueError, KeyError):
            who = "another process"
        raise RequestError(
            f"the study '{study_name}' is being written by {who}; let it finish or stop it, "
            "or start another study with --name"
        ) from None
    since = datetime.now().isoformat(sep=" ", timespec="seconds")
    holder.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since}))
    try:
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


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
            "leave these out to go on with it, or start another study with --name",
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

    Raises RequestError where the images are not those that the study began with.
    """
    study = optuna.create_study(
        storage=storage,
        study_name=name,
        direction="maximize" if spec.maximize else "minimize",
        sampler=sampler,
        pruner=pruner,
        load_if_exists=True,
    )
    asked = json.loads(spec.model_dump_json())
    mark = fingerprint(asked, data_hash)
    stored = study.user_attrs
    if "fingerprint" not in stored:
        study.set_user_attr("spec", asked)
        study.set_user_attr("versions", _versions())
        study.set_user_attr("fingerprint", mark)
    elif fingerprint(stored["spec"], data_hash) != stored["fingerprint"]:
        raise RequestError(
            f"the {spec.dataset} images differ from those that the study '{name}' began with; name the "
            "folder that holds the first ones with --data, or start another study with --name"
        )
    return study


def _versions() -> dict[str, str]:
    packages = ("slopesearch", "optuna", "torch", "torchvision")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def set_result(trial: optuna.Trial, result: TrialResult) -> None:
    """Store what a run gave: flat attributes that read well as columns, and its curve as one."""
    final = result.final
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
    for name, value in values.items():
        trial.set_user_attr(name, value)


def _record(trial: FrozenTrial) -> TrialRecord:
    config = trial.user_attrs.get("config")
    return TrialRecord(
        number=trial.number,
        state=trial.state.name,
        value=trial.value,
        config=TrialConfig.model_validate_json(json.dumps(config)) if config else None,
        reports=dict(trial.intermediate_values),
        attributes=trial.user_attrs,
    )


def _existing(url: str) -> Path:
    path = database_path(url)
    if not path.exists():
        raise RequestError(
            f"there is no storage '{path}' yet; `python -m slopesearch optimize` makes it, "
            "or name another with --storage"
        )
    check_database(path)
    return path


def read_trials(study: optuna.Study) -> list[TrialRecord]:
    """Every trial of a study, by number."""
    return [_record(trial) for trial in study.get_trials(deepcopy=False)]


def read_study(url: str, name: str | None) -> StudyRecord:
    """A study with all its trials; `name` may be left out where the storage holds one.

    Raises RequestError where there is no such study.
    """
    with database(_existing(url)) as storage:
        names = [study.study_name for study in storage.get_all_studies()]
        if name is None and len(names) == 1:
            name = names[0]
        if name is None or name not in names:
            asked = f"there is no study '{name}'" if name else "name a study"
            raise RequestError(f"{asked}; the storage '{url}' holds {', '.join(names) or 'none yet'}")
        spec = stored_spec(storage, name)
        if spec is None:
            raise RequestError(f"the study '{name}' was not made by slopesearch, or holds nothing yet")
        return StudyRecord(name, spec, read_trials(optuna.load_study(study_name=name, storage=storage)))


def read_summaries(url: str) -> list[StudySummary]:
    """Every study of a storage, by name.

    In SQL on Optuna's tables: its own API reads every trial whole, which takes over 2 s for 2,000 of them.
    """
    query = """
        SELECT study_name,
               sum(state = 'COMPLETE'), sum(state = 'PRUNED'), sum(state = 'RUNNING'), sum(state = 'FAIL'),
               CASE direction WHEN 'MAXIMIZE' THEN max(iif(state = 'COMPLETE', value, NULL))
                              ELSE min(iif(state = 'COMPLETE', value, NULL)) END
        FROM studies
        JOIN study_directions USING (study_id)
        LEFT JOIN trials USING (study_id)
        LEFT JOIN trial_values USING (trial_id)
        GROUP BY study_id ORDER BY study_name
    """
    with closing(_read_only(_existing(url))) as connection:
        rows = connection.execute(query).fetchall()
    return [StudySummary(row[0], row[1] or 0, row[2] or 0, row[3] or 0, row[4] or 0, row[5]) for row in rows]
