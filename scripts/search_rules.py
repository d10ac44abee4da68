"""What benchmark_search.py is made of: stored curves, the rules that stop a run, and a study of arrays.

A run is a row of nine badnesses, lower is better: the log of the validation loss, or of the error.
"""

import json
from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr

from slopesearch.config import REPORTS, Report, ResolvedSpec, TrialConfig
from slopesearch.search.pruner import AUDIT
from slopesearch.search.store import Store

Array = NDArray[np.float64]
Metric = Literal["loss", "accuracy"]
METRICS: tuple[Metric, ...] = ("loss", "accuracy")
LEAST = 8  # completed runs before a rule that learns from them speaks
HALF_AN_IMAGE = 0.5e-3  # added to every error, of 1,000 images or fewer, so that none has a log of zero


@dataclass(frozen=True)
class Curves:
    """Runs that no pruner stopped: R runs, nine reports, a badness for each metric.

    `length` is the number of reports that a run cost, fewer than nine where it diverged; what it did not
    reach repeats its last report, which is chance level.
    """

    spec: ResolvedSpec
    numbers: list[int]  # the trial of each run, in its study
    configs: list[TrialConfig]
    badness: dict[Metric, Array]  # [R, 9]
    length: NDArray[np.int64]  # [R]

    @property
    def completed(self) -> NDArray[np.bool_]:
        """Which runs came to their end. [R]"""
        return np.asarray(self.length == REPORTS)


def badness_of(curves: Sequence[Sequence[Report]]) -> dict[Metric, Array]:
    """The badness of curves by each metric, see `Curves`. [R, 9]"""
    whole = [[*curve, *[curve[-1]] * (REPORTS - len(curve))] for curve in curves]
    loss = np.array([[max(report.val_loss, 1e-6) for report in curve] for curve in whole])
    error = np.array([[1 - report.val_accuracy for report in curve] for curve in whole])
    return {"loss": np.log(loss), "accuracy": np.log(error + HALF_AN_IMAGE)}


def read_curves(url: str, name: str | None) -> Curves:
    """The runs of a study without pruning that have ended by now. Raises SystemExit where there are none."""
    study = Store(url).read_search(name)
    runs = [(trial, trial.curve) for trial in study.trials if trial.state in ("COMPLETE", "PRUNED")]
    if study.spec.pruner != "none" or not runs:
        raise SystemExit(f"the study '{study.name}' was pruned or is empty; the curves have to be whole")
    return Curves(
        spec=study.spec,
        numbers=[trial.number for trial, _ in runs],
        configs=[trial.config for trial, _ in runs if trial.config is not None],
        badness=badness_of([curve for _, curve in runs]),
        length=np.array([len(curve) for _, curve in runs]),
    )


def read_lines(path: Path) -> list[dict[str, Any]]:
    """What `add_line` has written; none where there is no file yet, and not what a kill has torn."""
    rows = []
    for line in path.read_text().splitlines() if path.exists() else []:
        with suppress(json.JSONDecodeError):
            rows.append(json.loads(line))
    return rows


def add_line(path: Path, row: dict[str, Any]) -> None:
    """Write a row at the end of a file, on a line of its own even behind a torn one."""
    with path.open("a") as file:
        file.write(f"\n{json.dumps(row)}\n")


def read_twins(path: Path) -> dict[int, tuple[Report, ...]]:
    """The curves of the same configs on a fresh seed, by trial number."""
    return {
        int(row["number"]): tuple(Report.model_validate(report, strict=False) for report in row["curve"])
        for row in read_lines(path)
    }


class ArrayStudy:
    """What a pruner knows: the reports of every run so far, and which of them came to their end."""

    def __init__(self, most: int) -> None:
        self._reached: list[list[float]] = [[] for _ in range(REPORTS)]
        self._whole = np.empty((most, REPORTS))
        self._count = 0  # of whole runs

    def add(self, row: Array, raced: int, completed: bool) -> None:
        """Take in a run that has ended, and competes at its first `raced` reports."""
        for reached, value in zip(self._reached, row[:raced].tolist(), strict=False):
            insort(reached, value)
        if completed:
            self._whole[self._count] = row
            self._count += 1

    def rivals(self, step: int) -> list[float]:
        """The badness of every run that reached a report, the best first."""
        return self._reached[step - 1]

    def whole(self) -> Array:
        """The runs that came to their end. [C, 9]"""
        return self._whole[: self._count]


@dataclass(frozen=True)
class Rule:
    """When a run is stopped: asked at its `steps` alone, with the run's badness up to that report."""

    name: str
    steps: tuple[int, ...] = ()
    stops: Callable[[ArrayStudy, Array, int], bool] = lambda study, row, step: False


def passing(rivals: int, factor: int) -> int:
    """How many of the rivals and the run itself go on at a rung of successive halving."""
    return max(1, (rivals + 1) // factor)


def halving(factor: int, steps: tuple[int, ...]) -> Rule:
    """As HalvingPruner: stopped where as many rivals are better as may go on."""

    def stops(study: ArrayStudy, row: Array, step: int) -> bool:
        rivals = study.rivals(step)
        return bisect_left(rivals, row[step - 1]) >= passing(len(rivals), factor)

    return Rule(f"halving by {factor} at {','.join(map(str, steps))}", steps, stops)


def median() -> Rule:
    """As Optuna's MedianPruner with the package's settings: 20 completed runs, from report 3 on."""

    def stops(study: ArrayStudy, row: Array, step: int) -> bool:
        whole = study.whole()
        return len(whole) >= 20 and bool(row[:step].min() > np.median(whole[:, step - 1]))

    return Rule("median", tuple(range(REPORTS // 3, REPORTS)), stops)


@dataclass(frozen=True)
class Line:
    """The final badness of completed runs on that at a rung, by least squares; `spread` is what it leaves."""

    slope: float
    middle: tuple[float, float]
    spread: float
    count: int
    square: float  # the sum of squared distances of the rung's values from their mean

    @classmethod
    def fit(cls, at_rung: Array, at_end: Array) -> "Line":
        """Fit to C runs."""
        x, y = at_rung - at_rung.mean(), at_end - at_end.mean()
        square = float(x @ x)
        slope = max(0.0, float(x @ y) / square) if square > 0 else 0.0
        rest = y - slope * x
        spread = float(np.sqrt(rest @ rest / (len(x) - 2)))
        return cls(slope, (float(at_rung.mean()), float(at_end.mean())), spread, len(x), square)

    def predict(self, value: float) -> tuple[float, float]:
        """The final badness that a value at the rung speaks for, and the standard error of a new run."""
        away = value - self.middle[0]
        share = 1 + 1 / self.count + (away**2 / self.square if self.square > 0 else 0.0)
        return self.middle[1] + self.slope * away, self.spread * float(np.sqrt(share))


def spread(k: float, near: bool = False, steps: tuple[int, ...] = (1, 3)) -> Rule:
    """Stopped where it lies further behind the best third than k spreads between the rung and the end.

    `near`: the line is fitted to the half of the completed runs, LEAST at least, that are nearest to the cut.
    """

    def stops(study: ArrayStudy, row: Array, step: int) -> bool:
        whole, rivals = study.whole(), study.rivals(step)
        if len(whole) < LEAST:
            return False
        cut = rivals[passing(len(rivals), 3) - 1]
        at_rung, at_end = whole[:, step - 1], whole[:, -1]
        if near:
            nearest = np.argsort(np.abs(at_rung - cut), kind="stable")[: max(LEAST, len(whole) // 2)]
            at_rung, at_end = at_rung[nearest], at_end[nearest]
        line = Line.fit(at_rung, at_end)
        return line.slope * (float(row[step - 1]) - cut) > k * line.spread

    where = "" if steps == (1, 3) else f" at {steps[0]}-{steps[-1]}"
    return Rule(f"spread {k:g}{' near' if near else ''}{where}", steps, stops)


def chance(below: float, share: float, steps: tuple[int, ...]) -> Rule:
    """Stopped where it ends among the best `share` of the completed with less than a chance of `below`.

    A share of 0 is the best of them.
    """

    def stops(study: ArrayStudy, row: Array, step: int) -> bool:
        whole = study.whole()
        if len(whole) < LEAST:
            return False
        end, error = Line.fit(whole[:, step - 1], whole[:, -1]).predict(float(row[step - 1]))
        target = float(np.quantile(whole[:, -1], share))
        if error == 0:
            return end > target
        return float(stdtr(len(whole) - 2, (target - end) / error)) < below

    what = "the best" if share == 0 else f"the best {share:.0%}"
    return Rule(f"chance of {what} < {below:.0%} at {steps[0]}-{steps[-1]}", steps, stops)


PRESENT = halving(3, (1, 3))
NONE = Rule("none")
EVERY = tuple(range(1, REPORTS))
RULES = [
    *(NONE, PRESENT, halving(3, (3,)), halving(2, (1, 2, 4)), halving(2, (1, 2)), median()),
    *(halving(factor, (2,)) for factor in (2, 3, 4)),
    *(spread(k) for k in (0.5, 1.0, 1.5, 2.0)),
    *(spread(k, near=True) for k in (0.5, 1.0)),
    *(spread(k, steps=EVERY) for k in (1.0, 1.5)),
    *(chance(below, 0.0, (1, 3)) for below in (0.05, 0.1)),
    *(chance(below, 1 / 3, (1, 3)) for below in (0.05, 0.2)),
]


@dataclass(frozen=True)
class Ended:
    """A run of a simulated study.

    `spent`: the reports trained when it had ended. `stopped`: whether the rule spoke, though an audited run
    goes on.
    """

    run: int
    spent: int
    completed: bool
    stopped: bool


def judge(
    rule: Rule, study: ArrayStudy, row: Array, length: int, exempt: bool, audited: bool
) -> tuple[int, int]:
    """How many reports a run gets, and up to which it competes: all, or the first at which the rule spoke.

    An exempt run is judged when it comes, where the Referee asks each time how it stands by then.
    """
    for step in rule.steps:
        if step < length and rule.stops(study, row, step):
            return (length if audited or exempt else step), step
    return length, length


def replay(
    curves: Curves, order: Iterable[int], rule: Rule, metric: Metric, exempt: int, budget: int, luck: Array
) -> list[Ended]:
    """One study on stored curves: runs in an order, until `budget` reports are trained.

    A run that the budget cuts off does not count. `luck`: a number in [0, 1) for each run; a run below
    1/AUDIT goes on although the rule would stop it.
    """
    order = list(order)
    study, spent, ended = ArrayStudy(len(order)), 0, []
    for place, run in enumerate(order):
        row, length = curves.badness[metric][run], int(curves.length[run])
        reports, raced = judge(rule, study, row, length, place < exempt, luck[run] < 1 / AUDIT)
        spent += reports
        if spent > budget:
            break
        completed = reports == REPORTS
        study.add(row, raced, completed)
        ended.append(Ended(run, spent, completed, raced < length and place >= exempt))
    return ended
