"""The answer to one question: made from its runs, stored with the comparison, read back without torch."""

import json
from collections.abc import Iterable, Mapping, Sequence
from math import log
from typing import TypeVar

import numpy as np
from pydantic import TypeAdapter

from slopesearch.config import Noun, TrialConfig
from slopesearch.evidence.families import Family, Metric
from slopesearch.evidence.statistics import FEWEST, Array, Estimate, Judgement, estimate, judge
from slopesearch.search.records import StudyRecord, TrialRecord
from slopesearch.wording import RequestError

Stored = TypeVar("Stored", bound=Noun)

LEAST_LOSS = 1e-12  # nats; the logarithm of a loss of zero is not a number


class SideRuns(Noun):
    """The runs of a side, with the learning rate that was tuned for it; lists go by seed.

    `rates` were tried; `at_edge`: the best lies at their edge, so a better one may lie beyond. A run that
    diverged counts as chance. Losses in nats, errors as shares.
    """

    name: str
    config: TrialConfig
    rates: tuple[float, ...]
    at_edge: bool
    diverged: int
    losses: tuple[float, ...]
    errors: tuple[float, ...]
    loss: Estimate
    error: Estimate


class Contrast(Noun):
    """One side minus another, seed by seed: the log of the loss, and the error.

    `correlation` of the log losses over seeds, None where one of them does not vary. Above 0 pairing helps.
    """

    one: str
    other: str
    val_loss: Judgement
    val_error: Judgement
    correlation: float | None

    def by(self, metric: Metric) -> Judgement:
        """The judgement by a metric."""
        return self.val_loss if metric == "val_loss" else self.val_error


class Answer(Noun):
    """What the runs of a family say. `looks`: at how many seeds it was judged, in turn, now at the last."""

    family: Family
    looks: tuple[int, ...]
    sides: tuple[SideRuns, ...]
    contrasts: tuple[Contrast, ...]

    @property
    def seeds(self) -> int:
        """How many runs each side has."""
        return self.looks[-1]

    @property
    def look(self) -> int:
        """Which look the last one is; one at fewer seeds than a verdict takes tested nothing."""
        return look_of(self.looks)

    def side(self, name: str) -> SideRuns:
        """The runs of a side."""
        return next(side for side in self.sides if side.name == name)


NO_ANSWERS: Mapping[str, Answer] = {}


def own_runs(config: TrialConfig, answers: Iterable[Answer]) -> SideRuns | None:
    """The most runs that a comparison has of a config, at the rate tuned for it; None without any."""
    alike = (
        side
        for answer in answers
        for side in answer.sides
        if side.config.model_copy(update={"lr": config.lr}) == config
    )
    return max(alike, key=lambda side: len(side.losses), default=None)


def look_of(looks: Sequence[int]) -> int:
    """The number of the last look, of those at these numbers of seeds."""
    return max(1, sum(seeds >= FEWEST for seeds in looks))


def runs_of(
    name: str, config: TrialConfig, rates: Sequence[float], at_edge: bool, runs: Sequence[TrialRecord]
) -> SideRuns:
    """The runs of a side, two at least, seed by seed."""
    losses = tuple(float(run.attributes["val_loss"]) for run in runs)
    errors = tuple(1 - float(run.attributes["val_accuracy"]) for run in runs)
    return SideRuns(
        name=name,
        config=config,
        rates=tuple(rates),
        at_edge=at_edge,
        diverged=sum(run.ended == "diverged" for run in runs),
        losses=losses,
        errors=errors,
        loss=estimate(losses),
        error=estimate(errors),
    )


def answer(family: Family, sides: Sequence[SideRuns], looks: Sequence[int]) -> Answer:
    """The judgement of every contrast of a family, `looks` with the present one at the end."""
    found = {side.name: side for side in sides}
    values: dict[Metric, dict[str, list[float]]] = {
        "val_loss": {n: [log(max(loss, LEAST_LOSS)) for loss in side.losses] for n, side in found.items()},
        "val_error": {name: list(side.errors) for name, side in found.items()},
    }
    judged = {
        metric: judge(_differences(of, family.contrasts), family.smallest(metric), look_of(looks))
        for metric, of in values.items()
    }
    rows = zip(family.contrasts, judged["val_loss"], judged["val_error"], strict=True)
    logs = values["val_loss"]
    contrasts = [
        Contrast(one=a, other=b, val_loss=loss, val_error=error, correlation=_correlation(logs[a], logs[b]))
        for (a, b), loss, error in rows
    ]
    return Answer(family=family, looks=tuple(looks), sides=tuple(sides), contrasts=tuple(contrasts))


def _differences(values: Mapping[str, list[float]], contrasts: Sequence[tuple[str, str]]) -> Array:
    return np.array([np.subtract(values[one], values[other]) for one, other in contrasts]).T


def _correlation(ones: Sequence[float], others: Sequence[float]) -> float | None:
    if min(np.std(ones), np.std(others)) < 1e-12:
        return None
    return float(np.corrcoef(ones, others)[0, 1])


def families_of(comparison: StudyRecord | None) -> dict[str, Family]:
    """The families that a comparison has begun, by question."""
    return _stored(comparison, "families", Family)


def answers_of(comparison: StudyRecord | None) -> dict[str, Answer]:
    """The answers that a comparison has given, by question."""
    return _stored(comparison, "answers", Answer)


def _stored(record: StudyRecord | None, name: str, noun: type[Stored]) -> dict[str, Stored]:
    rows = record.attributes.get(name, {}) if record else {}
    try:
        return TypeAdapter(dict[str, noun]).validate_json(json.dumps(rows))  # type: ignore[valid-type]
    except ValueError as error:
        raise RequestError(
            f"what is stored as '{name}' of a comparison cannot be read ({str(error).splitlines()[0]}); "
            "was it made by another version of slopesearch?"
        ) from None
