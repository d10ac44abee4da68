"""The learning rate of each side, tuned on the search's own validation images; NAME/tune."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log
from statistics import fmean, median
from typing import TypeVar

from slopesearch.config import ResolvedSpec, TrialConfig
from slopesearch.evidence.answers import LEAST_LOSS
from slopesearch.evidence.arms import paired
from slopesearch.evidence.families import RUNOFF_SEEDS, Metric, Side
from slopesearch.evidence.planned import Plan, Planned, finished
from slopesearch.search.records import TUNE, TrialRecord
from slopesearch.training.data import DATASETS
from slopesearch.wording import counted

WIDENINGS, WIDER = 3, 2  # how often rates are added beyond the edge where the best of them lies, and how many
LEARNED_DIGITS = 3  # of a learned mean, as the fixed slope that it is compared with
Key = TypeVar("Key")


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


@dataclass(frozen=True)
class _Swept:
    """A side, the rates that were tried once each, and how bad each was."""

    side: Side
    rates: tuple[float, ...]
    measured: tuple[float, ...]

    @property
    def best(self) -> float:
        return best_rate(self.rates, self.measured)

    def wider(self, shared: float | None) -> tuple[float, ...] | None:
        """More rates, where the best or the shared one lies at the edge of them; else None."""
        if len(self.rates) == 1:
            return None
        found = [widened(self.rates, rate, len(self.side.rates)) for rate in (self.best, shared) if rate]
        return next((rates for rates in found if rates is not None), None)

    def rivals(self, shared: float | None) -> tuple[float, ...]:
        """The rates to run off, the shared one first, which keeps a tie; none where there is but one."""
        return (shared, self.best) if shared in self.rates and shared not in (None, self.best) else ()


def tune(
    sides: Sequence[Side],
    contrasts: Sequence[tuple[str, str]],
    planned: Planned,
    metric: Metric,
    title: str,
    stored_only: bool = False,
) -> list[Tuned] | None:
    """Tune every side, those that have another's learned slope at the end; None where it was interrupted.

    Or where runs are missing and those that are stored shall do.

    Each begins with its own rates, a run each, all on one seed. A best rate at the edge adds WIDER rates
    beyond it, WIDENINGS times at most, and so does a shared one, lest an arm be moved to an edge. One run a
    rate picks a lucky one easily, and then the arms would differ in their rates more than in what is asked:
    so a side whose best rate is not the one that is best for all that it is contrasted with, directly or
    through others, runs both on RUNOFF_SEEDS fresh seeds, and keeps its own where that is better on their
    mean. `title` says what for, on a display.
    """
    tuner = _Tuner(planned, metric, title, stored_only, groups_of(contrasts))
    swept = tuner.sweep([side for side in sides if side.mean_of is None])
    if swept is None:
        return None
    shared = tuner.shared(swept)
    tuned = tuner.run_off(swept, shared)
    later = [side for side in sides if side.mean_of is not None]
    if tuned is None or not later:
        return tuned
    done = {one.side.name: one for one in tuned}
    fixed = [_with_learned_slope(side, done[str(side.mean_of)], planned) for side in later]
    swept = tuner.sweep(fixed, shared)
    tuned = None if swept is None else tuner.run_off(swept, shared)
    if tuned is None:
        return None
    done |= {one.side.name: one for one in tuned}
    return [done[side.name] for side in sides]


def runs_to_tune(
    sides: Sequence[Side], contrasts: Sequence[tuple[str, str]], planned: Planned
) -> tuple[int, int]:
    """How many runs sides that are not all tuned still take: at least, and likely.

    At least those of the rates that come first. Where a best one lies at the edge, or two arms want different
    ones, there are more, which is not to be known before; likely half of the arms that have others to share a
    rate with are run off, on two rates.
    """
    several = [side for side in sides if len(side.rates) > 1]
    later = [side for side in several if side.mean_of is not None]
    plans = [plan_of(side, side.rates, planned) for side in several if side not in later]
    plan = list({config for plan in plans for config in plan})
    left = len(plan) - len(finished(planned.record(TUNE), plan)) + sum(len(side.rates) for side in later)
    least = max(1, left)
    sharing = [len(group & {side.name for side in several}) for group in groups_of(contrasts)]
    return least, least + RUNOFF_SEEDS * sum(size for size in sharing if size > 1)


def groups_of(contrasts: Sequence[tuple[str, str]]) -> list[frozenset[str]]:
    """The names of the sides that are contrasted with each other, directly or through others."""
    groups: list[frozenset[str]] = []
    for pair in contrasts:
        touched = [group for group in groups if group & set(pair)]
        merged = frozenset(pair).union(*touched)
        groups = [*(group for group in groups if group not in touched), merged]
    return groups


def plan_of(side: Side, rates: Sequence[float], planned: Planned, seed: int = 0) -> list[TrialConfig]:
    """The runs that tune a side over some rates, on one seed; none where it has one rate alone."""
    size = tuning_size(side.config.dataset, planned.spec.val_size)
    config = paired(side.config, planned.spec.seed, seed, "tune").model_copy(update={"val_size": size})
    return [config.model_copy(update={"lr": rate}) for rate in rates if len(side.rates) > 1]


@dataclass(frozen=True)
class _Tuner:
    """Makes the runs of `tune`, or finds them stored; its methods return None where one is missing."""

    planned: Planned
    metric: Metric
    title: str
    stored_only: bool
    groups: Sequence[frozenset[str]]

    def sweep(self, sides: Sequence[Side], shared: Mapping[str, float] | None = None) -> list[_Swept] | None:
        """Each rate of each side once, and further ones where the best or the shared one lies at the edge.

        What is shared follows from these sides, unless others have told it.
        """
        rates = {side.name: side.rates for side in sides}
        while True:
            plans = {side.name: plan_of(side, rates[side.name], self.planned) for side in sides}
            if not self._make(_sweep_plan(self.title, plans)):
                return None
            measured = self._measured(plans)
            swept = [_Swept(side, rates[side.name], tuple(measured[side.name])) for side in sides]
            common = self.shared(swept) if shared is None else shared
            more = {one.side.name: one.wider(common.get(one.side.name)) for one in swept}
            wider = {name: found for name, found in more.items() if found is not None}
            if not wider:
                return swept
            rates |= wider

    def shared(self, swept: Sequence[_Swept]) -> dict[str, float]:
        """The rate that is best for each group together, by the names of its sides; where there is one."""
        found = {
            group: shared_rate([(one.rates, one.measured) for one in swept if one.side.name in group])
            for group in self.groups
        }
        return {name: rate for group, rate in found.items() if rate is not None for name in group}

    def run_off(self, swept: Sequence[_Swept], shared: Mapping[str, float]) -> list[Tuned] | None:
        """Each side with the better of its own best rate and the shared one, if it tried that."""
        rivals = {one.side.name: one.rivals(shared.get(one.side.name)) for one in swept}
        plans = {
            (one.side.name, rate): [
                config
                for seed in range(1, RUNOFF_SEEDS + 1)
                for config in plan_of(one.side, [rate], self.planned, seed)
            ]
            for one in swept
            for rate in rivals[one.side.name]
        }
        if not self._make(_runoff_plan(self.title, plans)):
            return None
        means = {key: fmean(found) for key, found in self._measured(plans).items()}
        tuned = []
        for one in swept:
            name = one.side.name
            rate = min(rivals[name], key=lambda rate: means[name, rate], default=one.best)
            config = one.side.config.model_copy(update={"lr": rate})
            at_edge = len(one.rates) > 1 and rate in (one.rates[0], one.rates[-1])
            tuned.append(Tuned(one.side.model_copy(update={"config": config}), one.rates, at_edge))
        return tuned

    def _make(self, plan: Plan) -> bool:
        if not plan.runs:
            return True
        there = len(finished(self.planned.record(TUNE), list(plan.runs))) == len(plan.runs)
        return there or (not self.stored_only and self.planned.run(TUNE, plan))

    def _measured(self, plans: Mapping[Key, Sequence[TrialConfig]]) -> dict[Key, list[float]]:
        """How bad each run of each plan is; the study is read once, and not for nothing."""
        record = self.planned.record(TUNE) if any(plans.values()) else None
        return {
            key: [_badness(run, self.metric) for run in finished(record, plan)] for key, plan in plans.items()
        }


def _sweep_plan(title: str, plans: Mapping[str, Sequence[TrialConfig]]) -> Plan:
    """The runs that tune each side, by name, with the words for them; runs that sides share once."""
    runs: dict[TrialConfig, tuple[str, str]] = {}
    for name, plan in plans.items():
        for config in plan:
            runs.setdefault(config, (name, f"lr {config.lr:.2g}"))
    sizes = Counter(name for name, _ in runs.values())
    fewest, most = min(sizes.values(), default=0), max(sizes.values(), default=0)
    rates = f"{most}" if fewest == most else f"{fewest} to {most}"
    return Plan(f"{title}, learning rates", f"{counted(len(sizes), 'arm')} x {rates} rates", runs)


def _runoff_plan(title: str, plans: Mapping[tuple[str, float], Sequence[TrialConfig]]) -> Plan:
    """The runs of each arm's two rates, all of a seed together, with the words for them; equal arms once."""
    runs: dict[TrialConfig, tuple[str, str]] = {}
    for seed in range(RUNOFF_SEEDS):
        for (name, rate), plan in plans.items():
            runs.setdefault(plan[seed], (name, f"lr {rate:.2g}, seed {seed + 1} of {RUNOFF_SEEDS}"))
    arms = len({name for name, _ in runs.values()})
    shape = f"{counted(arms, 'arm')} x 2 rates x {RUNOFF_SEEDS} seeds"
    return Plan(f"{title}, disputed rates", shape, runs)


def widened(rates: tuple[float, ...], best: float, first: int) -> tuple[float, ...] | None:
    """More rates, beyond the edge where the best one lies; None where it lies within, or they are enough.

    `first` is how many there were at first. The rates are evenly spaced in their logarithm.
    """
    if best not in (rates[0], rates[-1]) or len(rates) >= first + WIDENINGS * WIDER:
        return None
    step = rates[1] / rates[0]
    if best == rates[0]:
        return (*(best / step**i for i in range(WIDER, 0, -1)), *rates)
    return (*rates, *(best * step**i for i in range(1, WIDER + 1)))


def shared_rate(swept: Sequence[tuple[Sequence[float], Sequence[float]]]) -> float | None:
    """The rate that is best for several sides together, by the median of how bad each found it.

    Each comes with its rates and its measurements; None where fewer than two share a rate. It is as much a
    matter of luck as the best rate of one, since all ran on one seed and its images; but it is the same luck
    for all of them, which favours none.
    """
    tried = [dict(zip(rates, measured, strict=True)) for rates, measured in swept if len(rates) > 1]
    if len(tried) < 2:
        return None
    rates = sorted(set.intersection(*map(set, tried)))
    return best_rate(rates, [median(one[rate] for one in tried) for rate in rates]) if rates else None


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
