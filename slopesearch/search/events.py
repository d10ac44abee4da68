"""What the loop tells whoever listens: a display, a script, a test."""

from collections.abc import Callable
from dataclasses import dataclass

from slopesearch.config import Report, TrialConfig, TrialResult
from slopesearch.search.records import Stop, StudyRecord


@dataclass(frozen=True)
class Began:
    """The loop is about to start: what is to be done, on what."""

    study: StudyRecord  # as it was before
    devices: list[str]
    target: int
    storage: str  # the file, or the URL of the database


@dataclass(frozen=True)
class Arrived:
    """There is a slot more, the next one: a worker has joined."""

    device: str


@dataclass(frozen=True)
class Started:
    """A slot began a trial, alone or in a pack with others."""

    slot: int
    number: int
    config: TrialConfig


@dataclass(frozen=True)
class Progressed:
    """A trial was validated."""

    slot: int
    number: int
    report: Report


@dataclass(frozen=True)
class Told:
    """A trial is over. `state` is COMPLETE, PRUNED or FAIL; `value` the objective, None after a fault.

    `stop` is why the pruner stopped it.
    """

    slot: int
    number: int
    state: str
    value: float | None
    config: TrialConfig
    result: TrialResult | None
    stop: Stop | None = None


@dataclass(frozen=True)
class Noted:
    """Something that a person should know."""

    text: str


Event = Began | Arrived | Started | Progressed | Told | Noted
Listener = Callable[[Event], None]
