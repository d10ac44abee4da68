"""Store(url): every study of one storage, read without torch, written by one process at a time."""

import hashlib
import json
import platform
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slopesearch.config import ResolvedSpec, StudySpec
from slopesearch.search.reading import begun_study, ids_of, parse_spec, record_of_study, summaries_of
from slopesearch.search.records import CONFIRM, TEST, VERDICTS, StudyRecord, StudySummary, TrialRecord
from slopesearch.search.rows import Extent, Reader
from slopesearch.search.sqlite import SqliteFile
from slopesearch.search.urls import DEFAULT_URL, parsed_url, without_password
from slopesearch.wording import RequestError, differences, printable

if TYPE_CHECKING:  # they load Optuna, and what not everybody has
    from slopesearch.search.postgresql import PostgresDatabase
    from slopesearch.search.storages import Storage

LONGEST_NAME = 500  # characters of a study's name; Optuna's column holds 512


class Store:
    """The studies behind a storage URL; nothing is opened before it is asked for.

    `url` is shown without a password. Raises RequestError, as every method does, for a storage that is no
    SQLite file or PostgreSQL database of ours.
    """

    def __init__(self, url: str = DEFAULT_URL) -> None:
        self._kept_in = _opened(url)
        self.url = without_password(url)

    @property
    def option(self) -> str:
        """What names this storage on a command line, without a password; nothing for the default."""
        return "" if self.url == DEFAULT_URL else f" --storage {shlex.quote(self.url)}"

    @property
    def path(self) -> str:
        """The file that the studies are in, or the URL of the database."""
        return self._kept_in.name

    def summaries(self) -> list[StudySummary]:
        """A line of `list` for every study, by name; without loading Optuna."""
        self._kept_in.check_there()
        found = self._kept_in.read(partial(summaries_of, is_number=self._kept_in.IS_NUMBER))
        return [
            replace(summary, running=0, waiting=summary.running)
            if summary.running and not self._kept_in.is_written(summary.name)
            else summary
            for summary in found
        ]

    def read(self, name: str | None = None, extent: Extent = "whole") -> StudyRecord:
        """A study with its trials, as much of each as is asked for; those that cannot be read are named.

        `name` may be left out where the storage holds one search. Raises RequestError where there is no such
        study, or none of its trials can be read.
        """

        def found(reader: Reader) -> StudyRecord:
            ids = ids_of(reader)
            searches = [study for study in ids if not study.endswith(VERDICTS)]
            chosen = searches[0] if name is None and len(searches) == 1 else name
            if chosen is None or chosen not in ids:
                asked = f"there is no study '{chosen}'" if chosen else "name a study"
                raise RequestError(f"{asked}; the storage '{self.url}' holds {', '.join(ids) or 'none yet'}")
            record = record_of_study(reader, chosen, extent)
            if record is None:
                raise RequestError(f"the study '{chosen}' was not made by slopesearch, or holds nothing yet")
            return replace(record, is_written=self._kept_in.is_written(chosen))

        self._kept_in.check_there()
        return self._kept_in.read(found)

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
        if self._kept_in.is_empty():
            return None
        self._kept_in.check_there()
        return self._kept_in.read(partial(record_of_study, name=name, extent=extent))

    def whole(self, study: StudyRecord, trials: Sequence[TrialRecord]) -> list[TrialRecord]:
        """Some trials of a study, with all that is stored of them. Raises RequestError, see `StudyRecord`."""
        numbers = [trial.number for trial in trials]
        if not numbers:
            return []
        asked = partial(record_of_study, name=study.name, extent="whole", numbers=numbers)
        found = self._kept_in.read(asked)
        if found is None:
            raise RequestError(f"the study '{study.name}' is no longer there; run again")
        return [found.trial(number) for number in numbers]

    def spec_of(self, name: str) -> ResolvedSpec | None:
        """The spec of a study, or None where there is no such study yet, or no storage."""
        if self._kept_in.is_empty():
            return None
        found = self._kept_in.read(partial(begun_study, name=name))
        return found[1].spec if found else None

    def check_writable(self) -> None:
        """Raise RequestError unless studies can be written here. Writes nothing."""
        self._kept_in.check()
        self._kept_in.check_writable()

    @contextmanager
    def open(self) -> Iterator["Storage"]:
        """Optuna's storage to write to, made where it is missing.

        Who writes a study uses `writing`; this is for what belongs to no single study, like a dashboard.
        """
        with self._kept_in.writing() as storage:
            yield storage

    @contextmanager
    def writing(self, name: str) -> Iterator["Storage"]:
        """Optuna's storage to write one study to, as its only writer.

        Raises RequestError, naming the holder, where another process is writing the study, and
        StudyFailedError where the storage cannot be written.
        """
        with self._kept_in.writing(name) as storage:
            yield storage

    @contextmanager
    def holding(self, name: str, doing: str) -> Iterator[None]:
        """Hold a name while it is being "confirmed" or "compared", which takes more than one study.

        Raises RequestError, naming the holder, where another process is doing the same.
        """
        with self._kept_in.lock(name, doing):
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
                held.enter_context(self._kept_in.lock(name, doing))
            for part in (name, *(name + end for end in VERDICTS)):
                held.enter_context(self._kept_in.lock(part))
            if not is_sure(parts):
                return False
            with self._kept_in.writing() as storage:
                delete_studies(storage, [part.name for part in parts])
            return True

    def copy(self, name: str, path: Path) -> list[StudySummary]:
        """Copy a study and those of its verdict to a new SQLite file, see `copy_studies`; what was copied."""
        from slopesearch.search.copies import copy_studies

        parts = self.parts(name)
        copy_studies(self._kept_in.reading(), [part.name for part in parts], path)
        return parts

    def set_attributes(self, name: str, attributes: Mapping[str, Any]) -> None:
        """Store attributes of a study. Raises RequestError where it is gone, or another process writes it."""
        self._kept_in.check_there()
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


def _opened(url: str) -> "SqliteFile | PostgresDatabase":
    """What keeps the studies of a URL."""
    parsed = parsed_url(url)
    if parsed.get_backend_name() == "sqlite":
        return SqliteFile(Path(str(parsed.database)))
    try:
        from slopesearch.search.postgresql import PostgresDatabase
    except ImportError as error:
        raise RequestError(
            f"a PostgreSQL database is reached through psycopg, which is not installed ({error}); "
            'install it: pip install -e ".[postgresql]" in the folder of slopesearch'
        ) from None
    return PostgresDatabase(parsed, without_password(url))


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


def create_or_resume(
    storage: "Storage", name: str, spec: ResolvedSpec, data_hash: str, deterministic: bool = False
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
    elif parse_spec(name, stored["spec"]) != spec:
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
