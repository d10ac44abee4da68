"""The learning rate of each side, tuned on one seed and the search's own validation images; NAME/tune."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log
from statistics import fmean

from slopesearch.config import ResolvedSpec, TrialConfig
from slopesearch.evidence.answers import LEAST_LOSS
from slopesearch.evidence.arms import paired
from slopesearch.evidence.families import Metric, Side
from slopesearch.evidence.planned import Plan, Planned, finished
from slopesearch.search.records import TUNE, TrialRecord
from slopesearch.training.data import DATASETS
from slopesearch.wording import counted

WIDENINGS = 2  # of the learning rates to try, as many again beyond the edge where the best of them lies
LEARNED_DIGITS = 3  # of a learned mean, as the fixed slope that it is compared with


@dataclass(frozen=True)
class Tuned:
    """A side with its learning rate: all that were tried, and whether the best lies at an edge of them.

    In `side.config` the rate is the best one, and a slope that was to be learned is there.
    """

    side: Side
    rates: tuple[float, ...]
    at_edge: bool


def tuning_size(dataset: str, val_size: int) -> int:
    """How many held-out images are for tuning: the search's own, but half of all at most.

    On the others the arms are compared; a search on digits validates on all of them, which leaves none.
    """
    return min(val_size, DATASETS[dataset].val_max // 2)


def tuning_spec(spec: ResolvedSpec) -> ResolvedSpec:
    """What NAME/tune and NAME/compare are asked: the search's spec, on the images for tuning, by the loss."""
    size = tuning_size(spec.dataset, spec.val_size)
    return spec.model_copy(update={"val_size": size, "objective": "val_loss"})


def tune(
    sides: Sequence[Side], planned: Planned, metric: Metric, title: str, stored_only: bool = False
) -> list[Tuned] | None:
    """Tune every side, those that have another's learned slope at the end; None where it was interrupted.

    Or where runs are missing and those that are stored shall do.

    Each tries the same number of rates, on the same seed. A best rate at the edge widens them by as many
    again, WIDENINGS times at most. `title` says what for, on a display.
    """
    first = _tune([side for side in sides if side.mean_of is None], planned, metric, title, stored_only)
    if first is None:
        return None
    done = {tuned.side.name: tuned for tuned in first}
    rest = [_with_learned_slope(side, done[side.mean_of], planned) for side in sides if side.mean_of]
    second = _tune(rest, planned, metric, title, stored_only)
    if second is None:
        return None
    done |= {tuned.side.name: tuned for tuned in second}
    return [done[side.name] for side in sides]


def plan_of(side: Side, rates: Sequence[float], planned: Planned) -> list[TrialConfig]:
    """The runs that tune a side over some rates; none where it has one rate alone."""
    size = tuning_size(side.config.dataset, planned.spec.val_size)
    config = paired(side.config, planned.spec.seed, 0, "tune").model_copy(update={"val_size": size})
    return [config.model_copy(update={"lr": rate}) for rate in rates if len(side.rates) > 1]


def _tune(
    sides: Sequence[Side], planned: Planned, metric: Metric, title: str, stored_only: bool
) -> list[Tuned] | None:
    rates = {side.name: side.rates for side in sides}
    while True:
        plans = {side.name: plan_of(side, rates[side.name], planned) for side in sides}
        plan = _named(title, plans)
        there = len(finished(planned.record(TUNE), list(plan.runs))) == len(plan.runs)
        if not there and (stored_only or not planned.run(TUNE, plan)):
            return None
        record = planned.record(TUNE)
        tuned, wider = [], {}
        for side in sides:
            runs = finished(record, plans[side.name])
            best = best_rate(rates[side.name], [_badness(run, metric) for run in runs])
            more = widened(rates[side.name], best, len(side.rates))
            if more is not None:
                wider[side.name] = more
            at_edge = len(side.rates) > 1 and best in (rates[side.name][0], rates[side.name][-1])
            chosen = side.model_copy(update={"config": side.config.model_copy(update={"lr": best})})
            tuned.append(Tuned(chosen, rates[side.name], at_edge))
        if not wider:
            return tuned
        rates |= wider


def _named(title: str, plans: Mapping[str, Sequence[TrialConfig]]) -> Plan:
    """The runs that tune each side, by name, with the words for them; runs that sides share once."""
    runs: dict[TrialConfig, tuple[str, str]] = {}
    for name, plan in plans.items():
        for config in plan:
            runs.setdefault(config, (name, f"lr {config.lr:.2g}"))
    sizes = [len(plan) for plan in plans.values() if plan]
    fewest, most = min(sizes, default=0), max(sizes, default=0)
    rates = f"{most}" if fewest == most else f"{fewest} to {most}"
    return Plan(f"{title}, learning rates", f"{counted(len(sizes), 'arm')} x {rates} rates", runs)


def widened(rates: tuple[float, ...], best: float, first: int) -> tuple[float, ...] | None:
    """More rates, `first` of them beyond the edge where the best one lies; None where there is no need.

    Or where they have been widened WIDENINGS times. They are evenly spaced in their logarithm.
    """
    if first == 1 or best not in (rates[0], rates[-1]) or len(rates) >= first * (1 + WIDENINGS):
        return None
    step = rates[1] / rates[0]
    if best == rates[0]:
        return (*(best / step**i for i in range(first, 0, -1)), *rates)
    return (*rates, *(best * step**i for i in range(1, first + 1)))


def best_rate(rates: Sequence[float], measured: Sequence[float]) -> float:
    """The rate that is best together with its neighbours: the lowest mean of three, at an edge of two.

    One run each is measured, on one seed, and the lowest alone is often a lucky one: on the digits the loss
    of 198 images is flat from 0.006 to 0.1.
    """
    near = [measured[max(0, i - 1) : i + 2] for i in range(len(measured))]
    means = [fmean(values) for values in near]
    return rates[means.index(min(means))] if means else rates[0]


def _badness(run: TrialRecord, metric: Metric) -> float:
    """What is to be small: the log of the loss, or the error. A run that diverged counts as chance."""
    if metric == "val_loss":
        return log(max(float(run.attributes["val_loss"]), LEAST_LOSS))
    return 1 - float(run.attributes["val_accuracy"])


def _with_learned_slope(side: Side, learner: Tuned, planned: Planned) -> Side:
    """The side with the mean, over layers, of the slopes that the other's tuned run ended with."""
    record = planned.record(TUNE)
    assert record is not None
    runs = finished(record, plan_of(learner.side, [learner.side.config.lr], planned))
    slopes = planned.store.whole(record, runs)[0].curve[-1].slopes if runs else ()
    if not slopes:  # the run diverged: the slope is where it began
        return side
    mean = float(f"{fmean(slopes):.{LEARNED_DIGITS}g}")
    return side.model_copy(update={"config": side.config.model_copy(update={"negative_slope": mean})})
