"""The studies of a storage as they are read: SQL that SQLite and PostgreSQL both know; without Optuna."""

import json
from collections.abc import Iterator
from typing import Any

from slopesearch.config import ResolvedSpec
from slopesearch.search.records import VERDICTS, StudyRecord, StudySummary, UnreadableError
from slopesearch.search.rows import Extent, Reader, collector_at_rest, parsed, read_rows, record_of
from slopesearch.wording import RequestError, short

DIRECTIONS = ("MINIMIZE", "MAXIMIZE")
# Of Optuna's tables; its own API reads every trial whole, which takes over 2 s for 2,000 trials.
_SUMMARIES = """
    SELECT CAST(studies.study_name AS TEXT),
           count(*) FILTER (WHERE state = 'COMPLETE'), count(*) FILTER (WHERE state = 'PRUNED'),
           count(*) FILTER (WHERE state = 'RUNNING'), count(*) FILTER (WHERE state = 'FAIL'),
           (SELECT CASE WHEN count(*) = 1 THEN max(direction) END FROM study_directions
            WHERE study_directions.study_id = studies.study_id),
           min(value) FILTER (WHERE state = 'COMPLETE'), max(value) FILTER (WHERE state = 'COMPLETE')
    FROM studies
    LEFT JOIN trials ON trials.study_id = studies.study_id
    LEFT JOIN trial_values ON trial_values.trial_id = trials.trial_id AND objective = 0
                              AND {is_number} AND abs(value) < 1e300
    GROUP BY studies.study_id, studies.study_name
"""


def summaries_of(reader: Reader, is_number: str) -> list[StudySummary]:
    """Every study, by name; `is_number` is the SQL that says whether a value is one.

    Trials that no process runs any more count as running. One with two objectives, which is not ours, has no
    best value, nor has a study of a verdict, whose trials are seeds.
    """
    found = []
    for name, complete, pruned, running, failed, direction, least, most in reader.execute(
        _SUMMARIES.format(is_number=is_number)
    ):
        best = {"MINIMIZE": least, "MAXIMIZE": most}.get(direction)
        value = None if name.endswith(VERDICTS) else best
        found.append(StudySummary(name, complete, pruned, running, 0, failed, value))
    return sorted(found, key=lambda summary: summary.name)


def ids_of(reader: Reader) -> dict[str, int]:
    """The id of each study, by name."""
    rows = reader.execute("SELECT study_name, study_id FROM studies ORDER BY study_id")
    return {str(name): study_id for name, study_id in rows}


def _attributes_of(reader: Reader, name: str, study_id: int) -> dict[str, Any]:
    """The user attributes of a study. Raises RequestError where one cannot be read, nor its direction."""
    directions = "SELECT direction, objective FROM study_directions WHERE study_id = ?"
    found: dict[str, Any] = {}
    try:
        if [row[1] for row in reader.execute(directions, (study_id,)) if row[0] in DIRECTIONS] != [0]:
            raise UnreadableError("it has no direction, or several")
        for table in ("study_system_attributes", "study_user_attributes"):  # Optuna reads the first
            query = f"SELECT key, value_json FROM {table} WHERE study_id = ?"
            found = {key: parsed(key, text) for key, text in reader.execute(query, (study_id,))}
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


def parse_spec(name: str, stored: Any) -> ResolvedSpec:
    try:
        return ResolvedSpec.model_validate_json(json.dumps(stored))
    except ValueError as error:
        raise RequestError(
            f"the stored spec of study '{name}' cannot be read ({str(error).splitlines()[0]}); was it made "
            "by a newer slopesearch? start another study with --name"
        ) from None


def begun_study(reader: Reader, name: str) -> tuple[int, StudyRecord] | None:
    """The id of a study, and the study without its trials; None where there is no such study yet.

    Or where it was killed while being made. Raises RequestError where a study of the name is not one of ours.
    """
    study_id = ids_of(reader).get(name)
    if study_id is None:
        return None
    attributes = _attributes_of(reader, name, study_id)
    if "fingerprint" not in attributes:  # it is written last
        if reader.execute("SELECT 1 FROM trials WHERE study_id = ?", (study_id,)).fetchone():
            raise RequestError(f"the study '{name}' was not made by slopesearch; choose another with --name")
        return None
    return study_id, StudyRecord(name, parse_spec(name, attributes.get("spec")), [], attributes)


def record_of_study(
    reader: Reader, name: str, extent: Extent, numbers: list[int] | None = None
) -> StudyRecord | None:
    """A study with its trials, or those of the numbers; None as `begun_study`.

    Raises RequestError where none of all the trials can be read.
    """
    begun = begun_study(reader, name)
    if begun is None:
        return None
    study_id, study = begun
    there: set[int] = set()
    with collector_at_rest():
        for rows in read_rows(reader, study_id, extent, numbers):
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
        if not study.trials:
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
