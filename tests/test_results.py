"""The results of a confirmation, from runs to what is stored and back."""

from typing import Any

import numpy as np
import pytest

from slopesearch.config import ResolvedSpec
from slopesearch.evidence.arms import TUTORIAL, Arm, paired
from slopesearch.evidence.results import (
    ConfirmedArm,
    as_share,
    compare_with_pick,
    confirm_arm,
    confirmed_of,
    fixed_against_learned,
    pick,
)
from slopesearch.evidence.statistics import estimate, flip_p
from slopesearch.search.records import StudyRecord, TrialRecord
from slopesearch.search.space import check, resolve
from slopesearch.wording import RequestError
from tests.conftest import make_config

SPEC: ResolvedSpec = resolve(check({"dataset": "digits"}), "float32")


def test_shrinkage_is_what_the_search_saw_too_well() -> None:
    def run(accuracy: float, loss: float, ended: str = "completed") -> TrialRecord:
        return TrialRecord(0, "", 0, None, {}, {"val_accuracy": accuracy, "val_loss": loss, "ended": ended})

    arm = Arm(roles=("top 1",), config=make_config(), trial=3, searched=0.95)
    runs = [run(0.9, 0.4), run(0.94, 0.3), run(0.1, 2.3, "diverged")]
    row = confirm_arm(arm, runs[:2], "val_accuracy")
    assert (row.runs, row.diverged) == (2, 0)
    assert (row.val_accuracy.mean, row.val_loss.mean, row.shrinkage) == pytest.approx((0.92, 0.35, 0.03))
    assert confirm_arm(arm, runs, "val_accuracy").diverged == 1
    loss = confirm_arm(arm.model_copy(update={"searched": 0.30}), runs[:2], "val_loss")
    assert loss.shrinkage == pytest.approx(0.05)
    pruned = confirm_arm(arm.model_copy(update={"searched": None}), runs[:2], "val_loss")
    assert pruned.shrinkage is None
    worse = confirm_arm(arm, runs, "val_accuracy")
    assert pick([worse, row]) == row
    stored = StudyRecord("x/confirm", SPEC, [], {"confirmed": [row.model_dump(mode="json")]})
    assert confirmed_of(stored) == [row]
    assert confirmed_of(None) == confirmed_of(StudyRecord("x", SPEC, [])) == []
    for rows in ([{"arm": 3}], 7, [None]):
        with pytest.raises(RequestError, match="what is stored as 'confirmed' of a confirmation"):
            confirmed_of(StudyRecord("x/confirm", SPEC, [], {"confirmed": rows}))


def confirmed(losses: list[float], *roles: str, **changes: Any) -> ConfirmedArm:
    arm = Arm(roles=roles, config=make_config(**changes))
    runs = [
        TrialRecord(
            i, "COMPLETE", 0, paired(arm.config, 0, i), {}, {"val_accuracy": 1 - loss, "val_loss": loss}
        )
        for i, loss in enumerate(losses)
    ]
    return confirm_arm(arm, runs, "val_loss")


def test_the_pick_is_compared_with_every_other_arm_seed_by_seed() -> None:
    rows = [
        confirmed([0.1, 0.2], "top 1"),
        confirmed([0.5, 0.4], TUTORIAL, lr=0.5),
        confirmed([1, 1], lr=0.1),
    ]
    assert rows[1].losses == (0.5, 0.4)
    assert rows[1].accuracies == (0.5, 0.6)
    best, baseline, other = compare_with_pick(rows)
    assert best.difference is None
    assert other.difference is not None
    assert other.difference.val_loss == estimate([-0.9, -0.8])
    assert baseline.difference is not None
    assert baseline.difference.val_loss.mean == pytest.approx(-0.3)
    assert baseline.difference.val_accuracy.mean == pytest.approx(0.3)
    assert (baseline.difference.p_loss, baseline.difference.p_accuracy) == (None, None)  # of two seeds
    assert compare_with_pick(rows[:1]) == rows[:1]


def test_all_arms_are_one_family() -> None:
    draws = np.random.default_rng(0).normal(1, 0.01, (3, 8))
    rows = [confirmed((draws[k] + k / 20).tolist(), str(k), lr=0.1 + k) for k in range(3)]
    _, *others = compare_with_pick(rows)
    p = [row.difference.p_loss for row in others if row.difference]
    assert p == pytest.approx(flip_p(np.array([draws[0] - draws[k] - k / 20 for k in (1, 2)]).T))


def test_what_an_earlier_version_stored_is_read() -> None:
    row = compare_with_pick([confirmed([0.1, 0.2], "top 1"), confirmed([0.5, 0.4], TUTORIAL, lr=0.5)])[1]
    stored = row.model_dump(
        mode="json", exclude={"losses": True, "accuracies": True, "difference": {"p_loss"}}
    )
    assert confirmed_of(StudyRecord("x/confirm", SPEC, [], {"confirmed": [stored]}))[0].difference


def test_a_difference_of_losses_is_judged_by_its_p_and_without_one_by_its_interval() -> None:
    draws = np.random.default_rng(1).normal(0.1, 0.001, 8)
    near, far = draws + np.resize([0.001, -0.001], 8), draws + 0.05
    rows = [confirmed(list(losses), lr=0.1 + k) for k, losses in enumerate((draws - 1e-5, near, far))]
    assert [row.difference.verdict for row in compare_with_pick(rows) if row.difference] == [
        "not separated",
        "separated",
    ]
    few = [
        confirmed(losses, lr=0.1 + k) for k, losses in enumerate(([0.1, 0.2], [0.3, 0.401], [0.11, 0.201]))
    ]
    assert [row.difference.verdict for row in compare_with_pick(few) if row.difference] == [
        "no verdict",
        "not separated",
    ]


def test_the_best_fixed_slope_stands_against_the_best_learned_one() -> None:
    learned = {"slope_mode": "learnable", "slope_min": 1e-3, "slope_max": 0.1, "slope_clamp": "project"}
    rows = [
        confirmed([0.1, 0.12], activation="relu"),
        confirmed([0.2, 0.25], lr=0.2),
        confirmed([0.5, 0.6], lr=0.3),
        confirmed([0.3, 0.33], lr=0.4, **learned),
    ]
    better, other = fixed_against_learned(compare_with_pick(rows))
    assert (better.arm, other.arm) == (rows[1].arm, rows[3].arm)
    assert better.difference is None
    assert other.difference is not None
    assert other.difference.val_loss == estimate([0.2 - 0.3, 0.25 - 0.33])
    assert fixed_against_learned(rows[:3]) == []
    old = [row.model_copy(update={"losses": ()}) for row in rows]  # of an earlier version
    assert fixed_against_learned(old) == []


def test_an_interval_of_an_accuracy_ends_where_accuracies_do() -> None:
    assert as_share(found := estimate([0.99, 1.0])).model_dump() == {**found.model_dump(), "high": 1.0}
    assert as_share(found := estimate([0.0, 0.01])).model_dump() == {**found.model_dump(), "low": 0.0}
    assert as_share(found := estimate([0.4, 0.41])) == found
