"""Store(url): every study of one storage, read without torch, written by one process at a time."""

import hashlib
import json
import platform
import shlex
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slopesearch.config import ResolvedSpec, StudySpec
from slopesearch.search.records import (
    CONFIRM,
    TEST,
    VERDICTS,
    StudyRecord,
    StudySummary,
    TrialRecord,
    UnreadableError,
)
from slopesearch.search.rows import Extent, collector_at_rest, parsed, read_rows, record_of
from slopesearch.search.sqlite import DEFAULT_URL, SqliteFile
from slopesearch.wording import RequestError, differences, printable, short

if TYPE_CHECKING:
    from optuna.storages import RDBStorage

DIRECTIONS = ("MINIMIZE", "MAXIMIZE")
LONGEST_NAME = 500  # characters of a study's name; Optuna's column holds 512


class Store:
    """The studies behind a storage URL; nothing is opened before it is asked for.

    Raises RequestError, as every method does, for a storage that is no SQLite file of ours.
    """

    def __init__(self, url: str = DEFAULT_URL) -> None:
        self.url = url
        self._file = SqliteFile(url)

    @property
    def option(self) -> str:
        """What names this storage on a command line; nothing for the default."""
        return "" if self.url == DEFAULT_URL else f" --storage {shlex.quote(self.url)}"

    @property
    def path(self) -> str:
        """The file that the studies are in."""
        return str(self._file.path)

    def summaries(self) -> list[StudySummary]:
        """A line of `list` for every study, by name; without loading Optuna."""
        return self._file.summaries()

    def read(self, name: str | None = None, extent: Extent = "whole") -> StudyRecord:
        """A study with its trials, as much of each as is asked for; those that cannot be read are named.

        `name` may be left out where the storage holds one search. Raises RequestError where there is no such
        study, or none of its trials can be read.
        """
        self._file.check_there()
        with self._file.reading() as connection:
            ids = _studies(connection)
            searches = [study for study in ids if not study.endswith(VERDICTS)]
            if name is None and len(searches) == 1:
                name = searches[0]
            if name is None or name not in ids:
                asked = f"there is no study '{name}'" if name else "name a study"
                raise RequestError(f"{asked}; the storage '{self.url}' holds {', '.join(ids) or 'none yet'}")
            record = _record_of(connection, name, extent)
            if record is None:
                raise RequestError(f"the study '{name}' was not made by slopesearch, or holds nothing yet")
            return replace(record, is_written=self._file.is_written(name))

    def read_search(self, name: str | None = None, extent: Extent = "whole") -> StudyRecord:
        """A study that is a search, see `read`. Raises RequestError for the studies of its verdict."""
        record = self.read(name, extent)
        if record.name.endswith(VERDICTS):
            search = record.name.rpartition("/")[0]
            raise RequestError(
                f"'{record.name}' is no search; name '{search}', the search that it belongs to"
            )
        return record

    def find(self, name: str, extent: Extent = "whole") -> StudyRecord | None:
        """A study, see `read`, or None where there is none of the name, or nothing in it yet."""
        if self._is_empty():
            return None
        self._file.check_there()
        with self._file.reading() as connection:
            return _record_of(connection, name, extent)

    def whole(self, study: StudyRecord, trials: Sequence[TrialRecord]) -> list[TrialRecord]:
        """Some trials of a study, with all that is stored of them. Raises RequestError, see `StudyRecord`."""
        numbers = [trial.number for trial in trials]
        with self._file.reading() as connection:
            found = _record_of(connection, study.name, "whole", numbers)
        if found is None:
            raise RequestError(f"the study '{study.name}' is no longer there; run again")
        return [found.trial(number) for number in numbers]

    def spec_of(self, name: str) -> ResolvedSpec | None:
        """The spec of a study, or None where there is no such study yet, or no storage."""
        if self._is_empty():
            return None
        with self._file.reading() as connection:
            found = _begun(connection, name)
        return found[1].spec if found else None

    def _is_empty(self) -> bool:
        return not self._file.path.exists() or not self._file.path.stat().st_size

    def check_writable(self) -> None:
        """Raise RequestError unless studies can be written here. Writes nothing."""
        self._file.check()
        self._file.check_writable()

    @contextmanager
    def open(self) -> Iterator["RDBStorage"]:
        """Optuna's storage to write to, made where it is missing, see `SqliteFile.writing`.

        Who writes a study uses `writing`; this is for what belongs to no single study, like a dashboard.
        """
        with self._file.writing() as storage:
            yield storage

    @contextmanager
    def writing(self, name: str) -> Iterator["RDBStorage"]:
        """Optuna's storage to write one study to, as its only writer.

        Raises RequestError, naming the holder, where another process is writing the study, and
        StudyFailedError where the storage cannot be written.
        """
        with self._file.lock(name), self._file.writing() as storage:
            yield storage

    @contextmanager
    def holding(self, name: str, doing: str) -> Iterator[None]:
        """Hold a name while it is being "confirmed" or "compared", which takes more than one study.

        Raises RequestError, naming the holder, where another process is doing the same.
        """
        with self._file.lock(name, doing):
            yield

    def parts(self, name: str) -> list[StudySummary]:
        """A study and those of its verdict. Raises RequestError where there is no study of the name."""
        found = {summary.name: summary for summary in self.summaries()}
        if name not in found:
            holds = ", ".join(found) or "none yet"
            raise RequestError(f"there is no study '{name}'; the storage '{self.url}' holds {holds}")
        return [found[part] for part in (name, *(name + end for end in VERDICTS)) if part in found]

    def delete(self, name: str, is_sure: Callable[[Sequence[StudySummary]], bool]) -> bool:
        """Delete a study and those of its verdict, where `is_sure` says so of them; whether it was done.

        Nobody can begin to write them meanwhile. Raises RequestError, naming the holder, where another
        process is writing, confirming or comparing one of them.
        """
        from slopesearch.search.copies import delete_studies

        parts = self.parts(name)
        with ExitStack() as held:
            for doing in ("confirmed", "compared"):
                held.enter_context(self._file.lock(name, doing))
            for part in (name, *(name + end for end in VERDICTS)):
                held.enter_context(self._file.lock(part))
            if not is_sure(parts):
                return False
            with self._file.writing() as storage:
                delete_studies(storage, [part.name for part in parts])
            return True

    def copy(self, name: str, path: Path) -> list[StudySummary]:
        """Copy a study and those of its verdict to a new SQLite file, see `copy_studies`; what was copied."""
        from slopesearch.search.copies import copy_studies

        parts = self.parts(name)
        copy_studies(self._file, [part.name for part in parts], path)
        return parts

    def set_attributes(self, name: str, attributes: Mapping[str, Any]) -> None:
        """Store attributes of a study. Raises RequestError where it is gone, or another process writes it."""
        self._file.check_there()
        with self.writing(name) as storage:
            try:
                study_id = storage.get_study_id_from_name(name)
            except KeyError:
                raise RequestError(
                    f"the study '{name}' is no longer in '{self.url}': another program has deleted it, or "
                    "put another file there; put it back, and type the same command again"
                ) from None
            for key, value in attributes.items():
                storage.set_study_user_attr(study_id, key, value)


def check_name(name: str) -> None:
    """Raise RequestError unless a study may be called so: no path, terminal or shell may trip over it."""
    if not name.strip():
        raise RequestError("name: a study needs one that is not empty; leave it out for DATASET-MODEL")
    if len(name) > LONGEST_NAME:
        raise RequestError(f"name: at most {LONGEST_NAME} characters, given {len(name):,}; shorten it")
    if printable(name) != name:
        raise RequestError(f"name: control characters cannot be part of one, given '{printable(name)}'")
    if name.endswith(VERDICTS):
        command = "confirm" if name.endswith((CONFIRM, TEST)) else "compare"
        raise RequestError(f"name: '{name}' is what `{command}` would call its own study; choose another")
    if name.startswith("-"):
        raise RequestError(f"name: a leading '-' would be read as an option, given '{name}'")


def _studies(connection: sqlite3.Connection) -> dict[str, int]:
    """The id of each study, by name."""
    rows = connection.execute("SELECT study_name, study_id FROM studies ORDER BY study_id")
    return {str(name): study_id for name, study_id in rows}


def _attributes_of(connection: sqlite3.Connection, name: str, study_id: int) -> dict[str, Any]:
    """The user attributes of a study. Raises RequestError where one cannot be read, nor its direction."""
    directions = "SELECT direction, objective FROM study_directions WHERE study_id = ?"
    found: dict[str, Any] = {}
    try:
        if [row[1] for row in connection.execute(directions, (study_id,)) if row[0] in DIRECTIONS] != [0]:
            raise UnreadableError("it has no direction, or several")
        for table in ("study_system_attributes", "study_user_attributes"):  # Optuna reads the first
            query = f"SELECT key, value_json FROM {table} WHERE study_id = ?"
            found = {key: parsed(key, text) for key, text in connection.execute(query, (study_id,))}
            if not all(isinstance(key, str) for key in found):
                raise UnreadableError("one of its attributes has no name")
        for key in ("versions", "spec"):
            if not isinstance(found.get(key, {}), dict):
                raise UnreadableError(f"its {key} are {short(found[key])}")
    except UnreadableError as error:
        raise RequestError(
            f"the study '{name}' cannot be read: {error}; put a copy of the storage in its place, "
            "or choose another study"
        ) from None
    return found


def _parse_spec(name: str, stored: Any) -> ResolvedSpec:
    try:
        return ResolvedSpec.model_validate_json(json.dumps(stored))
    except ValueError as error:
        raise RequestError(
            f"the stored spec of study '{name}' cannot be read ({str(error).splitlines()[0]}); was it made "
            "by a newer slopesearch? start another study with --name"
        ) from None


def _begun(connection: sqlite3.Connection, name: str) -> tuple[int, StudyRecord] | None:
    """The id of a study, and the study without its trials; None where there is no such study yet.

    Or where it was killed while being made. Raises RequestError where a study of the name is not one of ours.
    """
    study_id = _studies(connection).get(name)
    if study_id is None:
        return None
    attributes = _attributes_of(connection, name, study_id)
    if "fingerprint" not in attributes:  # it is written last
        if connection.execute("SELECT 1 FROM trials WHERE study_id = ?", (study_id,)).fetchone():
            raise RequestError(f"the study '{name}' was not made by slopesearch; choose another with --name")
        return None
    return study_id, StudyRecord(name, _parse_spec(name, attributes.get("spec")), [], attributes)


def _record_of(
    connection: sqlite3.Connection, name: str, extent: Extent, numbers: list[int] | None = None
) -> StudyRecord | None:
    """A study with its trials, or those of the numbers; None as `_begun`.

    Raises RequestError where none of the trials can be read.
    """
    begun = _begun(connection, name)
    if begun is None:
        return None
    study_id, study = begun
    there: set[int] = set()
    with collector_at_rest():
        for rows in read_rows(connection, study_id, extent, numbers):
            try:
                record = record_of(rows, study.spec, extent)
                if record.number in there:
                    raise UnreadableError("another trial has its number")
                study.trials.append(record)
            except UnreadableError as error:
                study.unreadable[rows.name] = str(error)
            if isinstance(rows.number, int):
                there.add(rows.number)
    study.trials.sort(key=lambda trial: trial.number)
    if numbers is None:
        study.unreadable.update(_gaps(there))
    if study.unreadable and not study.trials:
        study.refuse_unreadable()
    return study


def _gaps(numbers: set[int]) -> Iterator[tuple[str, str]]:
    """The numbers below the highest that no trial has, as a name and what is wrong."""
    expected = 0
    for number in sorted(numbers):
        if number > expected:
            name = f"trial {expected}" if number == expected + 1 else f"trials {expected} to {number - 1}"
            yield name, "not there"
        expected = number + 1


def create_or_resume(
    storage: "RDBStorage", name: str, spec: ResolvedSpec, data_hash: str, deterministic: bool = False
) -> int:
    """The storage's id of the study to write to, with its spec, versions and fingerprint as user attributes.

    Raises RequestError where the study that is there has another direction, spec or images, or began as a
    deterministic one and would not go on as such.
    """
    from optuna.study import StudyDirection

    direction = StudyDirection.MAXIMIZE if spec.maximize else StudyDirection.MINIMIZE
    try:
        study_id = storage.get_study_id_from_name(name)
    except KeyError:
        study_id = storage.create_new_study([direction], name)
    directions = storage.get_study_directions(study_id)
    if directions != [direction]:
        raise RequestError(
            f"an empty study '{name}' is there, made to {directions[0].name.lower()} where "
            f"{spec.objective} is to {direction.name.lower()}; start another study with --name"
        )
    stored = storage.get_study_user_attrs(study_id)
    if "fingerprint" not in stored:
        asked = json.loads(spec.model_dump_json())
        # What the dashboard writes at its axes, under the key that Study.set_metric_names uses.
        storage.set_study_system_attr(study_id, "study:metric_names", [spec.objective])
        storage.set_study_user_attr(study_id, "spec", asked)
        storage.set_study_user_attr(study_id, "versions", versions())
        storage.set_study_user_attr(study_id, "data_sha256", data_hash)
        if deterministic:
            storage.set_study_user_attr(study_id, "deterministic", True)
        storage.set_study_user_attr(study_id, "fingerprint", fingerprint(asked, data_hash))
    elif _parse_spec(name, stored["spec"]) != spec:
        raise RequestError(
            f"another process has just begun the study '{name}' with other fields; run again to see them"
        )
    else:
        refuse_other_images(name, spec, stored, data_hash)
    if stored.get("deterministic") and not deterministic:
        raise RequestError(
            f"the study '{name}' is deterministic, and without --deterministic it would be so no longer: add "
            f"that to go on with it, or start another study: add --name {shlex.quote(name + '-2')}"
        )
    return study_id


def fingerprint(spec: dict[str, Any], data_hash: str) -> str:
    """One hash for what was asked and the images it is asked of."""
    return hashlib.sha256((json.dumps(spec, sort_keys=True) + data_hash).encode()).hexdigest()


def versions() -> dict[str, str]:
    """Of Python and the packages that a run depends on, here."""
    packages = ("slopesearch", "optuna", "torch", "torchvision")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


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


def refuse_other_images(name: str, spec: StudySpec, attributes: Mapping[str, Any], data_hash: str) -> None:
    """Raise RequestError where the images are not those that the study began with."""
    if fingerprint(attributes["spec"], data_hash) != attributes["fingerprint"]:
        raise RequestError(
            f"the {spec.dataset} images differ from those that the study '{name}' began with:",
            f"  SHA-256: stored {attributes.get('data_sha256')}, given {data_hash}",
            f"to extend it, name the folder that holds the first ones with --data; to start another study, "
            f"add --name {shlex.quote(name + '-2')}",
        )
