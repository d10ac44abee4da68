"""The learning rates of arms: swept once each, widened at an edge, and run off where arms differ."""

import shutil
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from math import log
from pathlib import Path

import pytest

from slopesearch.config import Report, TrialConfig
from slopesearch.evidence.families import RUNOFF_SEEDS, Metric, Side
from slopesearch.evidence.planned import Plan, Planned
from slopesearch.evidence.questions import rates_around
from slopesearch.evidence.tuning import (
    Tuned,
    _badness,
    best_rate,
    groups_of,
    runs_to_tune,
    shared_rate,
    tune,
    tuning_spec,
    widened,
)
from slopesearch.search.launchers import LAUNCHERS
from slopesearch.search.records import StudyRecord
from slopesearch.search.settings import Settings
from slopesearch.search.space import resolve
from slopesearch.search.store import Store
from slopesearch.seeds import derive
from tests import synthetic
from tests.conftest import make_config
from tests.harness import FOLDER, FakeLauncher, spec

BEST = 0.01  # the rate that every arm but one wants
RATES = rates_around(BEST)
Contrasts = Sequence[tuple[str, str]]
FIRST_SEED = derive(0, "tune", 0, "init")


class Valleys(FakeLauncher):
    """The log of the loss is a parabola over the log of the rate, around BEST; around 4 BEST with no norm.

    On the first seed the arm whose slope is 0.1 is lucky at the highest rates.
    """

    def report(self, config: TrialConfig, step: int) -> Report:
        best = 4 * BEST if config.norm == "none" else BEST
        loss = 0.1 * 2.0 ** (0.1 * log(config.lr / best, 2) ** 2)
        if config.negative_slope == 0.1 and config.init_seed == FIRST_SEED and config.lr > 1.5 * BEST:
            loss /= 4
        return Report(step=step, train_loss=1.0, val_loss=loss, val_accuracy=0.9)


@pytest.fixture(autouse=True)
def _fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LAUNCHERS, "fake", Valleys)


def side(slope: float, norm: str = "before") -> Side:
    config = make_config(negative_slope=slope, norm=norm, lr=BEST, split_seed=0)
    return Side(name=f"{norm} {slope}", config=config, rates=RATES)


class Tuner:
    """Calls of `tune` on a file, with the plans that were run; all sides are contrasted with the first."""

    def __init__(self, path: Path) -> None:
        self.path, self.plans = path, list[Plan]()

    def __call__(
        self, *sides: Side, stored_only: bool = False, contrasts: Contrasts | None = None
    ) -> list[Tuned] | None:
        self.plans.clear()
        pairs = [(one.name, sides[0].name) for one in sides[1:]] if contrasts is None else contrasts
        return tune(sides, pairs, self.planned(), "val_loss", "compare slope", stored_only)

    def planned(self) -> Planned:

        def display(plan: Plan) -> "nullcontext[Callable[[object], None]]":
            self.plans.append(plan)
            return nullcontext(lambda event: None)

        store, settings = Store(f"sqlite:///{self.path}"), Settings(FOLDER, "cpu", 2, launcher="fake")
        asked = tuning_spec(resolve(spec(space={"norm": ["none", "before"]}), "float32"))
        return Planned("x", asked, store, settings, "the images", display)


@pytest.fixture
def tuner(tmp_path: Path) -> Tuner:
    return Tuner(tmp_path / "x.db")


def test_a_rate_that_was_lucky_once_loses_to_the_one_that_is_best_for_all(tuner: Tuner) -> None:
    tuned = tuner(side(0.01), side(0.1), side(0.2))
    assert tuned is not None
    assert [one.side.config.lr for one in tuned] == [BEST] * 3
    assert not any(one.at_edge for one in tuned)
    *sweeps, runoff = tuner.plans
    assert len(sweeps[0].runs) == 18
    assert (runoff.title, runoff.shape) == (
        "compare slope, disputed rates",
        f"1 arm x 2 rates x {RUNOFF_SEEDS} seeds",
    )
    assert {name for name, _ in runoff.runs.values()} == {"before 0.1"}
    pairs = [(config.lr, config.init_seed) for config in runoff.runs]
    swept = {config.init_seed for config in sweeps[0].runs}
    lucky = max(config.lr for config in runoff.runs)
    assert lucky > 2 * BEST
    assert set(pairs) == {
        (rate, derive(0, "tune", seed, "init"))
        for rate in (BEST, lucky)
        for seed in range(1, RUNOFF_SEEDS + 1)
    }
    assert not swept & {seed for _, seed in pairs}
    assert [called.split(", ")[1] for _, called in runoff.runs.values()] == [
        f"seed {seed} of {RUNOFF_SEEDS}" for seed in (1, 1, 2, 2, 3, 3)
    ]


def test_an_arm_that_wants_another_rate_keeps_it(tuner: Tuner) -> None:
    tuned = tuner(side(0.01), side(0.2), side(0.01, "none"))
    assert tuned is not None
    assert [one.side.config.lr for one in tuned] == [BEST, BEST, 4 * BEST]
    assert len(tuner.plans[-1].runs) == 2 * RUNOFF_SEEDS


def test_arms_that_agree_and_arms_with_one_rate_are_not_run_off(tuner: Tuner) -> None:
    given = side(0.2).model_copy(update={"rates": (0.3,)})
    tuned = tuner(side(0.01), side(0.3), given)
    assert tuned is not None
    assert [one.side.config.lr for one in tuned] == [BEST, BEST, 0.3]
    assert [plan.title for plan in tuner.plans] == ["compare slope, learning rates"]


def test_a_rate_is_shared_by_the_sides_that_are_contrasted_with_each_other(tuner: Tuner) -> None:
    sides = side(0.01), side(0.2), side(0.01, "none"), side(0.2, "none")
    tuned = tuner(*sides, contrasts=[("before 0.2", "before 0.01"), ("none 0.2", "none 0.01")])
    assert tuned is not None
    assert [one.side.config.lr for one in tuned] == [BEST, BEST, 4 * BEST, 4 * BEST]
    assert {plan.title for plan in tuner.plans} == {"compare slope, learning rates"}  # each pair agrees
    assert groups_of([("a", "b"), ("c", "d"), ("e", "d"), ("f", "g"), ("g", "c")]) == [
        *({"a", "b"}, {"c", "d", "e", "f", "g"})
    ]


def test_an_arm_meets_no_shared_rate_at_the_edge_of_its_own(tuner: Tuner) -> None:
    tuned = tuner(side(0.01, "none"), side(0.2, "none"), side(0.01))
    assert tuned is not None
    assert RATES[-1] == 4 * BEST  # that two of them want
    assert [max(one.rates) for one in tuned] == [16 * BEST] * 3
    assert [one.side.config.lr for one in tuned] == [4 * BEST, 4 * BEST, BEST]


def test_arms_that_are_equal_are_run_off_once_and_counted_so(tuner: Tuner) -> None:
    lucky = side(0.1)
    sides = side(0.01), side(0.2), side(0.3), lucky, lucky.model_copy(update={"name": "its twin"})
    tuned = tuner(*sides)
    assert tuned is not None
    assert [one.side.config.lr for one in tuned] == [BEST] * 5
    assert tuner.plans[-1].shape == f"1 arm x 2 rates x {RUNOFF_SEEDS} seeds"
    assert len(tuner.plans[-1].runs) == 2 * RUNOFF_SEEDS
    assert tuner.plans[0].shape == "4 arms x 6 rates"


def test_the_study_is_read_no_more_than_there_is_to_be_found(
    tuner: Tuner, monkeypatch: pytest.MonkeyPatch
) -> None:
    sides = side(0.01), side(0.2)
    tuner(*sides)
    read, reads = Planned.record, list[str]()

    def counted(self: Planned, part: str) -> StudyRecord | None:
        reads.append(part)
        return read(self, part)

    monkeypatch.setattr(Planned, "record", counted)
    assert tuner(*sides, stored_only=True)
    assert len(reads) == 2  # whether the runs are there, and how they ended
    assert tuner(side(0.01).model_copy(update={"rates": (0.3,)}), stored_only=True)
    assert len(reads) == 2


def test_the_cost_counts_a_runoff_only_where_a_rate_is_shared(tuner: Tuner) -> None:
    planned, several = tuner.planned(), [side(0.01), side(0.2)]
    one_rate = side(0.3).model_copy(update={"rates": (0.3,)})
    pair = [("before 0.2", "before 0.01")]
    assert runs_to_tune(several, pair, planned) == (12, 12 + 2 * RUNOFF_SEEDS)
    assert runs_to_tune([side(0.01), one_rate], [("before 0.01", "before 0.3")], planned) == (6, 6)
    tuner(*several)
    assert runs_to_tune([*several, side(0.3)], pair, planned) == (6, 6 + 2 * RUNOFF_SEEDS)
    assert runs_to_tune(several, pair, planned)[0] == 1  # asked where something is missing


@pytest.mark.parametrize(("far", "end"), [(2.0**-10, 0), (2.0**10, -1)])
def test_a_rate_that_is_best_at_the_last_edge_is_marked(tuner: Tuner, far: float, end: int) -> None:
    distant = side(0.01).model_copy(update={"rates": tuple(rate / far for rate in RATES)})
    tuned = tuner(distant)
    assert tuned is not None
    assert tuned[0].at_edge
    assert tuned[0].side.config.lr == tuned[0].rates[end]


@pytest.mark.parametrize(("metric", "badness"), [("val_loss", log(0.2)), ("val_error", 0.25)])
def test_a_run_is_as_bad_as_its_log_loss_or_its_error(metric: Metric, badness: float) -> None:
    run = synthetic.record(0, "COMPLETE", 0.75, attributes={"val_loss": 0.2, "val_accuracy": 0.75})
    assert _badness(run, metric) == pytest.approx(badness)


def test_what_is_stored_is_found_again_and_what_is_missing_is_said(tuner: Tuner) -> None:
    sides = side(0.01), side(0.1), side(0.2)
    first = tuner(*sides)
    assert (tuner(*sides), tuner.plans) == (first, [])
    assert tuner(*sides, stored_only=True) == first
    shutil.move(tuner.path, tuner.path.with_name("y.db"))
    assert tuner(*sides, stored_only=True) is None
    assert tuner.plans == []


def test_the_shared_rate_is_the_one_that_most_arms_do_well_at() -> None:
    rates = (1.0, 2.0, 4.0, 8.0)
    assert shared_rate([(rates, (4, 1, 2, 4)), (rates, (4, 1, 2, 5)), (rates, (9, 9, 9, 0))]) == 2.0
    wider = (*rates, 16.0, 32.0)
    assert shared_rate([(rates, (4, 3, 2, 1)), (wider, (4, 3, 2, 1, 0, 0))]) == 8.0
    assert shared_rate([(rates, (4, 3, 2, 1))]) is None
    assert shared_rate([(rates, (4, 3, 2, 1)), ((1.0,), ())]) is None
    assert shared_rate([((1.0, 2.0), (1, 2)), ((3.0, 4.0), (1, 2))]) is None


def test_the_best_rate_is_best_with_its_neighbours() -> None:
    rates = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
    assert best_rate(rates, [9, 2, 1, 2, 9, 0]) == 4.0  # the last was lucky, or on the way down
    assert best_rate(rates, [1, 2, 3, 4, 5, 6]) == 1.0
    assert best_rate(rates, [6, 5, 4, 3, 2, 1]) == 32.0
    assert best_rate((3.0,), []) == 3.0


def test_rates_are_widened_by_two_where_the_best_lies_at_the_edge_three_times_at_most() -> None:
    rates = (1.0, 2.0, 4.0)
    assert widened(rates, 2.0, 3) is None
    once = widened(rates, 4.0, 3)
    assert once == (1.0, 2.0, 4.0, 8.0, 16.0)
    assert widened(rates, 1.0, 3) == (0.25, 0.5, 1.0, 2.0, 4.0)
    assert widened(once, 4.0, 3) is None
    twice = widened(once, 1.0, 3)
    assert twice == (0.25, 0.5, *once)
    thrice = widened(twice, 16.0, 3)
    assert thrice == (*twice, 32.0, 64.0)
    assert widened(thrice, 64.0, 3) is None  # flagged
