"""The results of a confirmation, from runs to what is stored and back."""

import pytest

from slopesearch.config import ResolvedSpec
from slopesearch.evidence.arms import TUTORIAL, Arm, paired
from slopesearch.evidence.results import ConfirmedArm, compare_with_pick, confirm_arm, confirmed_of, pick
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


def test_the_pick_is_compared_with_each_baseline_seed_by_seed() -> None:
    def confirmed(
        losses: list[float], *roles: str, **changes: float
    ) -> tuple[ConfirmedArm, list[TrialRecord]]:
        arm = Arm(roles=roles, config=make_config(**changes))
        runs = [
            TrialRecord(
                i, "COMPLETE", 0, paired(arm.config, 0, i), {}, {"val_accuracy": 1 - loss, "val_loss": loss}
            )
            for i, loss in enumerate(losses)
        ]
        return confirm_arm(arm, runs, "val_loss"), runs

    rows = [
        confirmed([0.1, 0.2], "top 1"),
        confirmed([0.5, 0.4], TUTORIAL, lr=0.5),
        confirmed([1, 1], "x", lr=0.1),
    ]
    runs = {row.arm.config: made for row, made in rows}
    best, baseline, other = compare_with_pick([row for row, _ in rows], runs)
    assert (best.difference, other.difference) == (None, None)
    assert baseline.difference is not None
    assert baseline.difference.val_loss.mean == pytest.approx(-0.3)
    assert baseline.difference.val_accuracy.mean == pytest.approx(0.3)
