"""What the audited runs say of the pruner: how often it is wrong, and why a trial was stopped."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import median

from slopesearch.search.records import AUDITED, TAKEN, StudyRecord, TrialRecord
from slopesearch.search.textbook import MOST, N_STARTUP, follows, textbook

AUDITED_LEAST = 10  # audited runs, below which they are too few to go by
NEAR = 0.15  # of all places: what counts as a place like another
FEWEST_NEAR = 3  # audited runs of such a place, below which all of the report are taken


@dataclass(frozen=True)
class Audit:
    """The runs that went to their end although the pruner would have stopped them; and those let through.

    A run that diverged behind the pruner's verdict is among the first, since stopping it was right.
    """

    audited: Sequence[TrialRecord]
    passed: Sequence[float]  # the final values of the others
    maximize: bool

    @cached_property
    def typical(self) -> float:
        """The median of the runs that were let through."""
        return median(self.passed)

    def good(self, trial: TrialRecord) -> bool:
        """Whether a run ended better than the median of those let through."""
        return trial.ended != "diverged" and trial.value is not None and self._better(trial.value)

    @cached_property
    def no_skill(self) -> float:
        """The share of good runs among those let through: as large among the others, had it no skill."""
        return sum(map(self._better, self.passed)) / len(self.passed)

    def _better(self, value: float) -> bool:
        return value > self.typical if self.maximize else value < self.typical


def first_judged(study: StudyRecord) -> int:
    """From which number on no trial is one of the first; those of a cover run to their end.

    Another study's trials, and those given by hand, put off the first ones. How many a cover has is known
    where networks are, which load torch; here it ends with the first trial that was, or would have been,
    stopped, and at the latest with MOST.
    """
    first = MOST if study.spec.plan == "cover" else N_STARTUP
    for trial in study.trials:
        if trial.number >= first:
            break
        if _is_outside(trial):
            first += 1
        elif study.spec.plan == "cover" and (trial.ended == "pruned" or AUDITED in trial.attributes):
            return trial.number
    return first


def judged(study: StudyRecord) -> list[TrialRecord]:
    """The trials that the pruner was asked about, as far as is known: not the first ones, nor those given."""
    recipes, first = list(textbook(study.spec).values()), first_judged(study)
    rates = {recipe["lr"] for recipe in recipes}  # nearly every config has another one

    def was(trial: TrialRecord) -> bool:
        if _is_outside(trial):
            return False
        if AUDITED in trial.attributes:
            return True
        config = trial.config
        is_recipe = config is not None and config.lr in rates and any(follows(config, r) for r in recipes)
        return trial.number >= first and not is_recipe

    return [trial for trial in study.trials if was(trial)]


def _is_outside(trial: TrialRecord) -> bool:
    return TAKEN in trial.attributes or trial.is_given


def audit(study: StudyRecord, first: int = 0) -> Audit:
    """The audit of a study from a trial's number on."""
    asked = [trial for trial in judged(study) if trial.number >= first]
    ended = [t for t in asked if t.value is not None and (t.state == "COMPLETE" or t.ended == "diverged")]
    audited = [trial for trial in ended if AUDITED in trial.attributes]
    passed = [
        t.value
        for t in ended
        if t.value is not None and AUDITED not in t.attributes and t.ended != "diverged"
    ]
    return Audit(audited, passed, study.spec.maximize)


def why_stopped(study: StudyRecord, trial: TrialRecord) -> list[str]:
    """Why a trial of a study was stopped, or would have been; nothing where the pruner let it through.

    And how the audited trials of such a place fared. The study is read for its ranking at least.
    """
    taken_from = trial.attributes.get(TAKEN)  # its study, and its number there
    pruner = f"The pruner of {taken_from}" if taken_from else f"The pruner '{study.spec.pruner}'"
    if trial.ended == "diverged" and AUDITED not in trial.attributes:
        return ["It ended by itself: its loss diverged."]
    if AUDITED in trial.attributes:
        where = trial.stop.words if trial.stop else f"at report {trial.attributes[AUDITED]}"
        told = f"{pruner} would have stopped it {where}."
        return [
            f"{told} It ran on, as one in twenty such runs does, to show how often the pruner is wrong.",
            *_how_it_fared(audit(study), trial),
        ]
    if trial.state != "PRUNED":
        return []
    if trial.stop is None:
        last = f" at report {max(trial.reports)}" if trial.reports else ""
        return [f"{pruner} stopped it{last}; the version that ran it did not store its place or the cut."]
    told = f"{pruner} stopped it {trial.stop.words}."
    return [told, _how_such_fared(audit(study), trial)]


def _how_it_fared(found: Audit, trial: TrialRecord) -> list[str]:
    if not found.passed or trial.value is None:
        return []
    ended = "better" if found.good(trial) else "no better"
    return [f"It ended {ended} than the median of the {len(found.passed)} let through, {found.typical:.4f}."]


def _how_such_fared(found: Audit, trial: TrialRecord) -> str:
    stop = trial.stop
    assert stop is not None
    same = [other for other in found.audited if other.attributes[AUDITED] == stop.report]
    if not same or not found.passed:
        return f"No run to be stopped at report {stop.report} has gone to its end yet."
    place = stop.place / stop.of
    near = [other for other in same if other.stop and abs(other.stop.place / other.stop.of - place) <= NEAR]
    if len(near) >= FEWEST_NEAR:
        which, some = "from a place like its own ", near
    else:
        which, some = "", same
    good = sum(map(found.good, some))
    return (
        f"Of {len(some)} runs to be stopped {which}at report {stop.report} that went to their end instead, "
        f"{good} ended better than the median of the {len(found.passed)} let through; a pruner without skill "
        f"would read {found.no_skill:.0%}."
    )
