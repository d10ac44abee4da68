"""A study's rows as they are stored, each checked and made into a record; without Optuna and torch.

In SQL on Optuna's tables, the same for SQLite and PostgreSQL. Optuna's own API makes an object of every row,
keeps all of them, and stops at the first damaged one: 27 s and 785 MiB for `show` of 50,000 trials.
"""

import gc
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from itertools import groupby
from math import inf, isfinite
from operator import itemgetter
from sys import float_info, intern
from typing import Any, Literal, Protocol

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from slopesearch.config import REPORTS, Diagnostics, Report, ResolvedSpec, TrialConfig
from slopesearch.search.records import (
    AUDITED,
    BULKY,
    GIVEN,
    STOPPED,
    TAKEN,
    TrialRecord,
    UnreadableError,
    as_written,
    check_attributes,
    lighter,
    missing_attribute,
)
from slopesearch.wording import mistakes, short

AT_ONCE = 500  # trials that are read at a time

# How much of each trial is read: what ranks it (number, state, value, config and the parameters that it is
# checked against, why it ended and was stopped, where it comes from); the same without parameters, and what
# the dashboard's notes and figures need, of a study that was just written; the reports, config, loss,
# seconds, AUDITED and where it comes from, and all of a trial that is not over; the reports and the flat
# attributes; also the bulky ones that a page draws; all.
Extent = Literal["ranking", "dashboard", "loop", "flat", "page", "whole"]

_RUNS = "state IN ('RUNNING', 'WAITING')"
_FLAT = f"key NOT IN {BULKY}"
_DRAWN = "key = 'layers' OR (key = 'curves' AND state = 'COMPLETE')"
_RANKING = f"key IN ('config', 'ended', 'val_loss', '{AUDITED}', '{STOPPED}', '{GIVEN}', '{TAKEN}')"
_KEYS: dict[Extent, str] = {
    "ranking": _RANKING,
    "dashboard": f"({_RANKING} OR key IN ('seconds', 'device') OR {_DRAWN})",
    "loop": f"(key IN ('config', 'val_loss', 'seconds', '{AUDITED}', '{GIVEN}', '{TAKEN}') OR {_RUNS})",
    "flat": _FLAT,
    "page": f"({_FLAT} OR {_DRAWN})",
    "whole": "TRUE",
}
_STATES = ("RUNNING", "COMPLETE", "PRUNED", "FAIL", "WAITING")


class Reader(Protocol):
    """A connection that reads: SQLite's own, or the one to a server that takes the same marks."""

    def execute(self, query: str, values: Sequence[Any] = (), /) -> Any:
        """The rows of a query, an iterator with `fetchone` and `fetchall`; a ? stands for each value."""


@dataclass(slots=True)
class TrialRows:
    """The rows of one trial, as they are."""

    id: int
    number: Any
    state: Any
    times: tuple[Any, Any]
    values: list[tuple[Any, ...]] = field(default_factory=list)  # objective, value, kind
    params: list[tuple[Any, ...]] = field(default_factory=list)  # name, value, distribution
    reports: list[tuple[Any, ...]] = field(default_factory=list)  # step, value, kind
    attributes: list[tuple[Any, ...]] = field(default_factory=list)  # key, JSON
    notes: list[tuple[Any, ...]] = field(default_factory=list)  # likewise, of the system attributes

    @property
    def name(self) -> str:
        """What a sentence calls the trial."""
        return f"trial {self.number}" if isinstance(self.number, int) else f"the trial of id {self.id}"


def read_rows(
    reader: Reader, study_id: int, extent: Extent, numbers: list[int] | None = None
) -> Iterator[TrialRows]:
    """The rows of every trial of a study, or of the trials of these numbers, in the order of their ids.

    AT_ONCE of them are held at a time.
    """
    chosen = "" if numbers is None else f"AND number IN ({', '.join(map(str, numbers))})"
    query = f"""SELECT trial_id, number, state, datetime_start, datetime_complete FROM trials
                WHERE study_id = ? {chosen} ORDER BY trial_id"""
    trials = reader.execute(query, (study_id,)).fetchall()
    keys = f"AND {_KEYS[extent]}"
    parts = {
        "values": ("objective, value, value_type", "trial_values", ""),
        "attributes": ("key, value_json", "trial_user_attributes", keys),
    }
    if extent != "dashboard":
        parts["params"] = ("param_name, param_value, distribution_json", "trial_params", "")
    if extent not in ("ranking", "dashboard"):
        columns = "step, intermediate_value, intermediate_value_type"
        parts["reports"] = (columns, "trial_intermediate_values", "")
    if extent in ("loop", "whole"):
        runs = f"AND {_RUNS}" if extent == "loop" else ""
        parts["notes"] = ("key, value_json", "trial_system_attributes", runs)
    for start in range(0, len(trials), AT_ONCE):
        some = {row[0]: TrialRows(row[0], row[1], row[2], row[3:]) for row in trials[start : start + AT_ONCE]}
        ends = (study_id, min(some), max(some))
        for part, (columns, table, condition) in parts.items():
            found = reader.execute(
                f"""SELECT trials.trial_id, {columns} FROM trials CROSS JOIN {table}
                    WHERE {table}.trial_id = trials.trial_id AND study_id = ?
                    AND trials.trial_id BETWEEN ? AND ? {chosen} {condition}
                    ORDER BY trials.trial_id, {columns.partition(",")[0]}""",
                ends,
            )
            for trial_id, its in groupby(found, key=itemgetter(0)):
                setattr(some[trial_id], part, [row[1:] for row in its])
        yield from some.values()


@contextmanager
def collector_at_rest() -> Iterator[None]:
    """Python does not look for cycles meanwhile: among many new objects that takes half of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _holds(config: TrialConfig, name: str, chosen: Any) -> bool:
    """Whether a config has a drawn value; a start that is drawn above `slope_max` begins there."""
    held = getattr(config, name, None)
    if name == "negative_slope" and config.slope_max is not None and held == config.slope_max:
        return isinstance(chosen, float) and chosen >= held
    return bool(held == chosen)


def record_of(rows: TrialRows, spec: ResolvedSpec, extent: Extent) -> TrialRecord:
    """A trial as it was stored. Raises UnreadableError where it is not as it was written."""
    if type(rows.number) is not int or rows.number < 0:
        raise UnreadableError(f"its number is {short(rows.number)}")
    if rows.state not in _STATES:
        raise UnreadableError(f"its state is {short(rows.state)}")
    for time in rows.times:
        if time is not None and not _is_time(time):
            raise UnreadableError(f"one of its times is {short(time)}")
    finished = rows.state in ("COMPLETE", "PRUNED")
    texts = dict(rows.attributes)
    config = _config_of(texts.get("config", "null"))
    if finished and config is None:
        raise UnreadableError("it has no config")
    for name, chosen in params_of(rows).items():
        if config is not None and not _holds(config, name, chosen):
            raise UnreadableError(
                f"its config was changed: {short(name)} is {short(getattr(config, name, None))} "
                f"where {short(chosen)} was drawn"
            )
    value = value_of(rows, spec)
    if rows.state == "COMPLETE" and value is None:
        raise UnreadableError("it is complete and has no value")
    bulk = {key: texts.pop(key) for key in BULKY if key in texts}
    if extent not in ("loop", "whole"):
        texts.pop("config", None)  # the record has it
    attributes = _parsed_each(texts)
    check_attributes(attributes)
    for key, text in rows.notes:
        if not isinstance(key, str):
            raise UnreadableError(f"one of its system attributes is named {short(key)}")
        parsed(key, text)
    if extent in ("flat", "page", "whole") and finished and (missing := missing_attribute(attributes)):
        raise UnreadableError(f"it has no {missing}")
    curve, diagnostics = _bulk_of(bulk, extent in ("loop", "whole") or _learns(config))
    return TrialRecord(
        rows.number, rows.state, value, config, reports_of(rows, spec), attributes, curve, diagnostics
    )


_CURVE = TypeAdapter(tuple[Report, ...])


def _bulk_of(texts: dict[str, Any], with_curve: bool) -> tuple[tuple[Report, ...], Diagnostics | None]:
    """The BULKY attributes; by way of dicts and lists they would take twice the time."""
    curve: tuple[Report, ...] = ()
    diagnostics = None
    if with_curve and "curves" in texts:
        curve = as_written("curve", _CURVE.validate_json, _text_of("curves", texts))
        for report in curve:
            lighter(report)
    if "layers" in texts:
        text = _text_of("layers", texts)
        diagnostics = lighter(as_written("diagnostics", Diagnostics.model_validate_json, text))
    return curve, diagnostics


def _text_of(key: str, texts: dict[str, Any]) -> str:
    text = texts[key]
    if not isinstance(text, str):
        raise UnreadableError(f"its {short(key)} is {short(text)}, which is no JSON")
    return text


def parsed(name: Any, text: Any) -> Any:
    """What a JSON text holds. Raises UnreadableError where it is none."""
    try:
        return json.loads(_text(text))
    except (ValueError, RecursionError):
        raise UnreadableError(f"its {short(name)} is {short(text)}, which is no JSON") from None


def _parsed_each(texts: dict[Any, Any]) -> dict[Any, Any]:
    """What JSON texts hold, by key; pydantic's parser takes a seventh of the time of Python's own (n = 9)."""
    try:
        # Of 50,000 trials each name is there 50,000 times, unless they share it.
        return {intern(key): from_json(_text(text), cache_strings="keys") for key, text in texts.items()}
    except (ValueError, TypeError):  # Python's own takes more, such as half a surrogate pair
        return {key: parsed(key, text) for key, text in texts.items()}


def _is_time(value: Any) -> bool:
    if isinstance(value, datetime):  # SQLite has no type for it
        return True
    try:
        datetime.fromisoformat(_text(value))
    except ValueError:
        return False
    return True


def _text(value: Any) -> str:
    if not isinstance(value, str):  # json would decode bytes
        raise ValueError
    return value


def _config_of(text: Any) -> TrialConfig | None:
    try:
        config = None if text == "null" else TrialConfig.model_validate_json(_text(text))
    except ValidationError as error:
        raise UnreadableError(
            f"its config cannot be read ({mistakes(error, TrialConfig)[0]}); was it made by another version "
            "of slopesearch?"
        ) from None
    except ValueError:
        raise UnreadableError(f"its config is {short(text)}, which is no JSON") from None
    return None if config is None else lighter(config)


def _learns(config: TrialConfig | None) -> bool:
    return config is not None and (config.slope_mode == "learnable" or config.activation == "prelu")


def params_of(rows: TrialRows) -> dict[str, Any]:
    """The parameters that were drawn, by name. Raises UnreadableError where one is outside its range."""
    found = {}
    for name, value, distribution in rows.params:
        choices, low, high = _range_of(distribution)
        if not isinstance(name, str):
            raise UnreadableError(f"it has a parameter of the name {short(name)}")
        if not isinstance(value, (int, float)) or not low <= value <= high:
            raise UnreadableError(f"its parameter {short(name)} is {short(value)}")
        found[name] = value if choices is None else choices[int(value)]
    return found


@lru_cache(1000)
def _range_of(distribution: Any) -> tuple[list[Any] | None, float, float]:
    """The choices of a distribution, if it has any, and the ends of the numbers that are stored for it."""
    try:
        attributes = json.loads(_text(distribution))["attributes"]
        if "choices" in attributes:
            return list(attributes["choices"]), 0, len(attributes["choices"]) - 1
        return None, float(attributes["low"]), float(attributes["high"])
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError):
        raise UnreadableError(f"it has the distribution {short(distribution)}") from None


def value_of(rows: TrialRows, spec: ResolvedSpec) -> float | None:
    """The objective, where there is one. Raises UnreadableError where it is no number that can be one."""
    if not rows.values:
        return None
    if len(rows.values) > 1 or rows.values[0][0] != 0:
        raise UnreadableError("it has values of another objective")
    return _objective("value", rows.values[0][1], rows.values[0][2], spec)


def reports_of(rows: TrialRows, spec: ResolvedSpec) -> dict[int, float]:
    """The objective by report step. Raises UnreadableError where one is no number that can be one."""
    most = 1 if spec.maximize else float_info.max
    found = {
        step: value
        for step, value, kind in rows.reports
        if type(step) is int and type(value) is float and kind == "FINITE"
        if 1 <= step <= REPORTS and 0 <= value <= most
    }
    if len(found) < len(rows.reports):  # one of them is odd, or wrong
        found = {}
        for step, value, kind in rows.reports:
            if type(step) is not int or not 1 <= step <= REPORTS:
                raise UnreadableError(f"it has a report {short(step)}; there are 1 to {REPORTS}")
            found[step] = _objective(f"report {step}", value, kind, spec)
    return found


def _objective(name: str, value: Any, kind: Any, spec: ResolvedSpec) -> float:
    is_number = kind == "FINITE" and isinstance(value, (int, float)) and isfinite(value)
    if not is_number or not 0 <= value <= (1 if spec.maximize else inf):
        raise UnreadableError(f"its {name} is {short(value)} ({short(kind)}), which is no {spec.objective}")
    return float(value)
