"""What is stored of a study and its trials, and how it is read back; without torch and without Optuna."""

import json
from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import inf
from statistics import median
from sys import float_info
from typing import Any, TypeVar

from pydantic import Field, ValidationError

from slopesearch.config import REPORTS, Diagnostics, Noun, Report, ResolvedSpec, TrialConfig, TrialResult
from slopesearch.wording import RequestError, short

MOST_NAMED = 5  # trials that cannot be read, in a message
# Behind the name of a search: the studies of its verdict, and those in which its choices are compared.
CONFIRM, TEST, TUNE, COMPARE = "/confirm", "/test", "/tune", "/compare"
VERDICTS = (CONFIRM, TEST, TUNE, COMPARE)
AUDITED = "would_prune_at"  # the first report step at which a trial that ran on would have been stopped
STOPPED = "pruned_by"  # why the pruner stopped a trial, or would have stopped one that ran on: a Stop
GIVEN = "given_by_hand"  # true of a trial whose config a person gave: no sample, so no part of a comparison
BEGUN = (
    "begun_from"  # of a study: the study that its first trials were taken from, how many, and what was not
)
TAKEN = "taken_from"  # the study and the trial that a trial was taken over from
BULKY = ("curves", "layers")  # 5 of the 13 kB that a trial takes in memory; few readers need them

_MOST = float_info.max  # an integer may be larger, and then it is no float

# What a number may be among the attributes of a trial: both ends included.
_NUMBERS = {
    "val_accuracy": (0, 1),
    "val_loss": (0, _MOST),
    "train_loss": (0, _MOST),
    "seconds": (0, _MOST),
    "images_per_second": (0, _MOST),
    "dead_fraction": (0, 1),
    "grad_attenuation": (-_MOST, _MOST),
    AUDITED: (1, REPORTS),
}
_TEXTS = ("device", "arithmetic", "ended", "traceback", TAKEN)
_ALWAYS = ("ended", "val_accuracy", "val_loss", "seconds", "images_per_second", "device")


class UnreadableError(ValueError):
    """A trial is not as it was written: what is wrong with it."""


class Stop(Noun):
    """Why a pruner stops a trial: the report, its value there, its place among how many, and the cut.

    Place 1 is the best of the `of` trials that competed there, itself among them. A trial at the `cut` or
    better would have gone on; None where the rule draws no such line.
    """

    report: int = Field(ge=1, le=REPORTS)
    value: float
    place: int = Field(ge=1)
    of: int = Field(ge=1)
    cut: float | None = None

    @property
    def words(self) -> str:
        """The record as a part of a sentence."""
        cut = "" if self.cut is None else f", needed {self.cut:.4f}"
        return f"at report {self.report}: {self.value:.4f}, place {self.place} of {self.of}{cut}"


def attributes_of(result: TrialResult) -> dict[str, Any]:
    """What a trial stores of its run: flat attributes that read well as columns, and the two BULKY ones."""
    final, inside = result.final, result.diagnostics
    values: dict[str, Any] = {
        "val_accuracy": final.val_accuracy,
        "val_loss": final.val_loss,
        "train_loss": final.train_loss,
        "seconds": round(result.seconds, 3),
        "images_per_second": round(result.images_per_second, 1),
        "device": result.device,
        "ended": result.ended,
        "curves": [json.loads(report.model_dump_json()) for report in result.curve],
    }
    if result.arithmetic is not None:
        values["arithmetic"] = result.arithmetic
    if inside is not None:
        values["dead_fraction"] = round(inside.dead_fraction, 4)
        values["layers"] = json.loads(inside.model_dump_json())
        if inside.grad_attenuation is not None:
            values["grad_attenuation"] = round(inside.grad_attenuation, 4)
    return values


def check_attributes(attributes: Mapping[Any, Any]) -> None:
    """Raise UnreadableError where an attribute of a trial cannot have its value."""
    for name, value in attributes.items():
        if name in _NUMBERS:
            low, high = _NUMBERS[name]
            wrong = type(value) not in (int, float) or not low <= value <= high
        elif name in _TEXTS:
            wrong = not isinstance(value, str)
        elif name == STOPPED:
            wrong = False
            as_written(name, Stop.model_validate, value)
        else:
            wrong = name == GIVEN and value is not True
        if wrong:
            raise UnreadableError(f"its {name} is {short(value)}")
        if not isinstance(name, str):
            raise UnreadableError(f"it has an attribute of the name {short(name)}")


def missing_attribute(attributes: Mapping[str, Any]) -> str | None:
    """The first attribute that every finished trial has and these lack, if any."""
    return next((name for name in _ALWAYS if name not in attributes), None)


AnyNoun = TypeVar("AnyNoun", bound=Noun)
Parsed = TypeVar("Parsed")
_GIVEN: dict[frozenset[str], set[str]] = {}  # the sets that nouns share


def lighter(noun: AnyNoun) -> AnyNoun:
    """The noun itself, with a set of the fields it was given that equal ones share.

    A set of its own takes .7 to 2 kB, as much as the rest of a noun: 100 MiB of a study of 50,000 trials.
    """
    given = noun.model_fields_set
    object.__setattr__(noun, "__pydantic_fields_set__", _GIVEN.setdefault(frozenset(given), given))
    return noun


def as_written(name: str, parse: Callable[[Any], Parsed], stored: Any) -> Parsed:
    """What is stored of a trial under a name, parsed. Raises UnreadableError where it was tampered with."""
    try:
        return parse(stored)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join([name, *map(str, first["loc"])])
        raise UnreadableError(
            f"its {where} cannot be read ({first['msg']}); was it made by another version of slopesearch?"
        ) from None


@dataclass(frozen=True, slots=True)
class TrialRecord:
    """A stored trial, read back. `value` is the objective; `reports` holds it by report step, 1 to 9.

    `curve` is every report of the run, once it has ended. `diagnostics` is what the network looked like
    inside; None for runs that diverged, and in older studies. A trial that was interrupted before it was told
    has state "RUNNING" and runs again.
    """

    number: int
    state: str
    value: float | None
    config: TrialConfig | None
    reports: dict[int, float]
    attributes: dict[str, Any]  # all but the BULKY ones, which are the last two fields
    curve: tuple[Report, ...] = ()
    diagnostics: Diagnostics | None = None

    @property
    def ended(self) -> str:
        """Why its run ended: completed, pruned, diverged or failed: …; "running" while it has not ended."""
        return str(self.attributes.get("ended", "running"))

    def bulk(self) -> dict[str, Any]:
        """The BULKY attributes as they were stored."""
        curves = [json.loads(report.model_dump_json()) for report in self.curve]
        layers = self.diagnostics and json.loads(self.diagnostics.model_dump_json())
        return ({"curves": curves} if curves else {}) | ({"layers": layers} if layers else {})

    @property
    def val_loss(self) -> float:
        """The final validation loss; infinite where none is stored."""
        return float(self.attributes.get("val_loss", inf))

    @property
    def is_given(self) -> bool:
        """Whether a person gave its config."""
        return GIVEN in self.attributes

    @property
    def stop(self) -> Stop | None:
        """Why the pruner stopped it, or would have; None where it did neither, or did not store it yet."""
        stored = self.attributes.get(STOPPED)
        return None if stored is None else Stop.model_validate(stored)


@dataclass(frozen=True)
class StudySummary:
    """A line of `list`. What is unfinished is `running` while a process writes the study, else `waiting`."""

    name: str
    complete: int
    pruned: int
    running: int
    waiting: int  # to be run again
    failed: int
    best: float | None


@dataclass(frozen=True)
class StudyRecord:
    """A stored study, read back: what was asked, every trial, and what else is stored of it."""

    name: str
    spec: ResolvedSpec
    trials: list[TrialRecord]  # by number
    attributes: dict[str, Any] = field(default_factory=dict)  # of the study, such as its versions
    unreadable: dict[str, str] = field(default_factory=dict)  # what is wrong with the others, by their name
    is_written: bool = False  # whether a process wrote the study when it was read

    def find(self, number: int) -> TrialRecord | None:
        """The trial of a number, or None where there is none that can be read."""
        at = bisect_left(self.trials, number, key=lambda trial: trial.number)
        found = at < len(self.trials) and self.trials[at].number == number
        return self.trials[at] if found else None

    def trial(self, number: int) -> TrialRecord:
        """The trial of a number. Raises RequestError where there is none, or it cannot be read."""
        found, name = self.find(number), f"trial {number}"
        if found is not None:
            return found
        if name in self.unreadable:
            raise RequestError(
                f"{name} of the study '{self.name}' cannot be read: {self.unreadable[name]}; put a copy of "
                "the storage in its place, or choose another trial"
            )
        count = len(self.trials) + len(self.unreadable)
        raise RequestError(f"the study '{self.name}' has {count} trials, numbered from 0; given {number}")

    def left_out(self) -> list[str]:
        """A sentence for each trial that cannot be read, at most MOST_NAMED of them and one for the rest."""
        named = [f"{name} cannot be read: {reason}" for name, reason in self.unreadable.items()]
        rest = len(named) - MOST_NAMED
        return named[:MOST_NAMED] + ([f"{rest} more trials cannot be read"] if rest > 0 else [])

    def refuse_unreadable(self) -> None:
        """Raise RequestError where a trial cannot be read."""
        if self.unreadable:
            raise RequestError(
                f"the study '{self.name}' was changed: {len(self.unreadable)} of its trials cannot be read:",
                *(f"  {sentence}" for sentence in self.left_out()),
                "put a copy of the storage in its place, or choose another study",
            )

    def best(self) -> TrialRecord:
        """The best completed trial. Raises RequestError where none has run to its end."""
        ranked = self.ranked()
        if not ranked:
            raise RequestError(f"no trial of the study '{self.name}' has run to its end yet; run it first")
        return ranked[0]

    def ranked(self) -> list[TrialRecord]:
        """The completed trials, best first; of equal ones that of the lower loss, then the earlier.

        Accuracies are counts of images, so that many are equal. On digits, 113 whole runs, the loss of the
        first of the equals on a fresh seed is 0.0074 ± 0.0012 above that of the one with the lowest loss (of
        0.0451); on MNIST hardly any are equal (docs/search.md).
        """
        return list(self._ranking)

    @cached_property
    def _ranking(self) -> list[TrialRecord]:
        sign = -1 if self.spec.maximize else 1
        complete = [trial for trial in self.trials if trial.state == "COMPLETE"]
        return sorted(complete, key=lambda t: (sign * (t.value or 0.0), t.val_loss, t.number))

    def seconds(self, norm: str | None = None) -> float | None:
        """What a whole run took, in s, the median; None without one.

        `norm` asks for the runs of one placement of BatchNorm, where there are some: a default study on MNIST
        took 5.2 s without, 5.0 before, 8.2 after the activation (11, 29, 63 runs, 2 cores, 2026-11-29).
        """
        times = [
            (trial.config is not None and trial.config.norm == norm, float(trial.attributes["seconds"]))
            for trial in self.trials
            if trial.state == "COMPLETE" and "seconds" in trial.attributes
        ]
        alike = [seconds for is_alike, seconds in times if is_alike]
        return median(alike or [seconds for _, seconds in times]) if times else None

    def sampled(self) -> "StudyRecord":
        """The study without the trials that a person gave: what may be compared."""
        return replace(self, trials=[trial for trial in self.trials if not trial.is_given])

    def count(self, state: str) -> int:
        """How many trials are in a state."""
        return sum(trial.state == state for trial in self.trials)

    @property
    def running(self) -> int:
        """How many trials run now."""
        return self.count("RUNNING") if self.is_written else 0

    @property
    def waiting(self) -> int:
        """How many trials a process left unfinished when it ended; they run again."""
        return 0 if self.is_written else self.count("RUNNING")
