"""The results of a confirmation: made from its runs, stored with its study, read back."""

import json
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from pydantic import TypeAdapter

from slopesearch.config import Noun
from slopesearch.evidence.arms import Arm
from slopesearch.evidence.statistics import ALPHA, FEWEST, Estimate, estimate, flip_p
from slopesearch.search.records import StudyRecord, TrialRecord
from slopesearch.wording import RequestError

Stored = TypeVar("Stored", bound=Noun)


class Difference(Noun):
    """The pick minus another arm, seed by seed; the loss in nats.

    The p are family-wise over all arms (max-T of sign flips), None below FEWEST seeds. The pick was chosen by
    the same runs, which flatters it.
    """

    val_accuracy: Estimate
    val_loss: Estimate
    p_accuracy: float | None = None  # the defaults here and below are for what was stored before the fields
    p_loss: float | None = None

    @property
    def verdict(self) -> str:
        """Whether the losses differ: by the family-wise p; without one an interval around zero says no."""
        if self.p_loss is not None:
            return "separated" if self.p_loss < ALPHA else "not separated"
        return "not separated" if self.val_loss.low <= 0 <= self.val_loss.high else "no verdict"


class ConfirmedArm(Noun):
    """The results of an arm on fresh seeds, on the validation images; a run that diverged counts as chance.

    `runs` and `diverged` count runs. `shrinkage` is how much better the search's value was than the confirmed
    mean of the objective, None where the search has no value. `difference` is that of the pick, None for the
    pick itself. `losses` and `accuracies` go by seed.
    """

    arm: Arm
    runs: int
    diverged: int
    val_accuracy: Estimate
    val_loss: Estimate
    shrinkage: float | None
    difference: Difference | None = None
    losses: tuple[float, ...] = ()
    accuracies: tuple[float, ...] = ()


class TestedArm(Noun):
    """The results of an arm on the test set, trained on the seeds that it was confirmed on."""

    __test__ = False  # pytest collects classes by their name

    arm: Arm
    runs: int
    accuracy: Estimate
    loss: Estimate


class Opening(Noun):
    """One opening of the test set: when, for which arms (the pick first), on how many seeds; its results.

    Stored before the set is opened; `tested` is empty until every run is there.
    """

    opened: str
    arms: tuple[Arm, ...]
    seeds: int
    tested: tuple[TestedArm, ...] = ()


def estimate_runs(runs: Sequence[TrialRecord]) -> tuple[Estimate, Estimate]:
    """The estimates of accuracy and loss over finished runs of one config, two at least."""
    accuracies = [float(run.attributes["val_accuracy"]) for run in runs]
    return estimate(accuracies), estimate([float(run.attributes["val_loss"]) for run in runs])


def confirm_arm(arm: Arm, runs: Sequence[TrialRecord], objective: str) -> ConfirmedArm:
    """The results of an arm over its finished runs, seed by seed, two at least."""
    accuracy, loss = estimate_runs(runs)
    mean, sign = (accuracy.mean, 1) if objective == "val_accuracy" else (loss.mean, -1)
    return ConfirmedArm(
        arm=arm,
        runs=len(runs),
        diverged=sum(run.ended == "diverged" for run in runs),
        val_accuracy=accuracy,
        val_loss=loss,
        shrinkage=None if arm.searched is None else sign * (arm.searched - mean),
        losses=tuple(float(run.attributes["val_loss"]) for run in runs),
        accuracies=tuple(float(run.attributes["val_accuracy"]) for run in runs),
    )


def pick(confirmed: Sequence[ConfirmedArm]) -> ConfirmedArm:
    """The arm with the lowest confirmed mean loss."""
    return min(confirmed, key=lambda row: row.val_loss.mean)


def compare_with_pick(confirmed: Sequence[ConfirmedArm]) -> list[ConfirmedArm]:
    """The same arms, of as many seeds each, with the pick's difference from every other one."""
    best = pick(confirmed)
    others = [row for row in confirmed if row is not best]
    if not others:
        return list(confirmed)
    losses = np.array([np.subtract(best.losses, row.losses) for row in others]).T
    accuracies = np.array([np.subtract(best.accuracies, row.accuracies) for row in others]).T
    p_losses, p_accuracies = (
        [*map(float, flip_p(of))] if len(of) >= FEWEST else [None] * len(others)
        for of in (losses, accuracies)
    )
    found = {
        row.arm.config: Difference(
            val_accuracy=estimate(accuracies[:, k].tolist()),
            val_loss=estimate(losses[:, k].tolist()),
            p_accuracy=p_accuracies[k],
            p_loss=p_losses[k],
        )
        for k, row in enumerate(others)
    }
    return [row.model_copy(update={"difference": found.get(row.arm.config)}) for row in confirmed]


def fixed_against_learned(confirmed: Sequence[ConfirmedArm]) -> list[ConfirmedArm]:
    """The best arm of leaky ReLU with a fixed slope and the best with a learnable one, the better first.

    The other has the difference of these two; its p are those of one contrast alone. Empty where there are
    not both, or where an earlier version stored no values by seed.
    """
    best: dict[str, ConfirmedArm] = {}
    for row in sorted(confirmed, key=lambda row: row.val_loss.mean):
        if row.arm.config.slope_mode is not None and row.losses:
            best.setdefault(row.arm.config.slope_mode, row.model_copy(update={"difference": None}))
    return compare_with_pick(list(best.values())) if len(best) == 2 else []


def as_share(found: Estimate) -> Estimate:
    """The estimate of an accuracy with its interval where an accuracy can lie, from 0 to 1."""
    return found.model_copy(update={"low": max(found.low, 0.0), "high": min(found.high, 1.0)})


def confirmed_of(confirmation: StudyRecord | None) -> list[ConfirmedArm]:
    """The confirmed arms that are stored with a confirmation, best first; none before it has ended."""
    return _stored(confirmation, "confirmed", ConfirmedArm)


def openings_of(confirmation: StudyRecord | None) -> list[Opening]:
    """Every opening of the test set that is stored; the last is the valid one."""
    return _stored(confirmation, "openings", Opening)


def _stored(record: StudyRecord | None, name: str, noun: type[Stored]) -> list[Stored]:
    rows = record.attributes.get(name, []) if record else []
    try:
        return TypeAdapter(list[noun]).validate_json(json.dumps(rows))  # type: ignore[valid-type]
    except ValueError as error:
        raise RequestError(
            f"what is stored as '{name}' of a confirmation cannot be read ({str(error).splitlines()[0]}); "
            "was it made by another version of slopesearch?"
        ) from None
