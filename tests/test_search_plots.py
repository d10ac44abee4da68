"""Figures of the search: rows and sentences against made-up studies whose answer is known."""

import pytest

from slopesearch.report.plots import PLOTS
from slopesearch.search.records import TrialRecord
from tests.conftest import make_config
from tests.synthetic import record, spec_of, study_of, study_with

STUDY = study_of(400)


def test_history_counts_only_completed_trials_for_the_best() -> None:
    study = study_with(
        record(5, "COMPLETE", 0.8),
        record(6, "PRUNED", 0.9),
        record(7, "COMPLETE", 0.7),
        record(8, "RUNNING", None),
    )
    rows = PLOTS["history"].rows(study)
    assert [(row["trial"], row["best"]) for row in rows] == [(5, 0.8), (6, 0.8), (7, 0.8)]
    loss = study_with(record(5, "COMPLETE", 0.8), record(6, "COMPLETE", 0.7), objective="val_loss")
    assert [row["best"] for row in PLOTS["history"].rows(loss)] == [0.8, 0.7]
    assert "The best of 2 completed trials, 0.8000, is trial 5; 2 trials" in PLOTS["history"].say(
        rows, study.spec
    )


def test_the_textbooks_trials_are_marked() -> None:
    rows = PLOTS["history"].rows(STUDY)
    assert [row["trial"] for row in rows if row["recipe"]] == [0, 1, 2, 3, 4]


def test_where_runs_ended_and_what_was_saved() -> None:
    study = study_with(
        record(0, "COMPLETE", 0.8),
        record(1, "PRUNED", 0.5),
        record(2, "PRUNED", 0.5),
        record(3, "RUNNING", None),
    )
    rows = PLOTS["ended"].rows(study)
    assert [tuple(row.values()) for row in rows] == [(1, "pruned", 2), (9, "completed", 1)]
    assert "3 runs took 41%" in PLOTS["ended"].say(rows, study.spec)  # 11 of 27 reports
    others = study_with(
        *study.trials,
        record(4, "PRUNED", 0.1, attributes={"ended": "diverged"}),
        TrialRecord(5, "FAIL", None, make_config(), {}, {"ended": "failed: x"}),
    )
    said = PLOTS["ended"].say(PLOTS["ended"].rows(others), study.spec)
    assert "1 diverged" in said
    assert "3 runs took 41%" in said  # what diverged or failed was not pruned
    unpruned = study_with(*study.trials, pruner="none")
    assert "no pruner" in PLOTS["ended"].say(rows, unpruned.spec)


def test_wrong_stops_are_told_with_interval_and_number() -> None:
    through = [record(60 + i, "COMPLETE", 0.90 + i / 1000) for i in range(11)]  # median 0.905
    audited = [
        record(80 + i, "COMPLETE", value, attributes={"would_prune_at": 1})
        for i, value in enumerate((0.95, 0.8, 0.7, 0.6))
    ]
    recipe = {"activation": "relu", "norm": "none", "init": "kaiming_normal", "lr": 1e-3}
    book = record(0, "COMPLETE", 0.999, **recipe)  # the textbook's are judged by nobody
    study = study_with(book, *through, *audited)
    rows = PLOTS["audit"].rows(study)
    said = PLOTS["audit"].say(rows, study.spec)
    # Wilson's interval of 1 in 4: 4.6 to 69.9 %.
    assert "Of 4 such runs, 0 of them diverged, 1 ended better than the median of the 11" in said
    assert "wrong in 25% (95 % interval 5% to 70%)" in said
    assert "too few" in said
    assert "not known" in PLOTS["audit"].say(PLOTS["audit"].rows(study_with(book, *through)), study.spec)
    assert "no pruner" in PLOTS["audit"].say(rows, spec_of(pruner="none"))


def test_stopping_what_diverges_is_right() -> None:
    through = [record(60 + i, "COMPLETE", 0.90 + i / 1000) for i in range(11)]
    diverged = [
        record(30, "PRUNED", 0.1, attributes={"would_prune_at": 1, "ended": "diverged"}),
        record(31, "PRUNED", 0.1, attributes={"ended": "diverged"}),  # the pruner would have let it go on
        record(32, "PRUNED", 0.1),
    ]
    better = record(40, "COMPLETE", 0.95, attributes={"would_prune_at": 1})
    study = study_with(*through, *diverged, better)
    rows = PLOTS["audit"].rows(study)
    assert {row["trial"] for row in rows} == {*range(60, 71), 30, 40}
    said = PLOTS["audit"].say(rows, study.spec)
    assert "Of 2 such runs, 1 of them diverged, 1 ended better than the median of the 11" in said
    assert "wrong in 50%" in said


def test_early_and_late_ranks_are_correlated() -> None:
    trials = [
        record(i, "COMPLETE", 0.9 + i / 100, reports={1: 0.5 - i / 100, 9: 0.9 + i / 100}) for i in range(6)
    ]
    study = study_with(*trials)
    rows = PLOTS["audit"].rows(study)
    assert "at -1.00 (Spearman, n = 6)" in PLOTS["audit"].say(rows, study.spec)
    assert "the pruner chose them" in PLOTS["audit"].say(rows, study.spec)
    assert "the pruner chose" not in PLOTS["audit"].say(rows, spec_of(pruner="none"))


def test_importances_stay_inside_their_branch() -> None:
    rows = PLOTS["importances"].rows(STUDY)
    branches = {row["branch"]: {r["parameter"] for r in rows if r["branch"] == row["branch"]} for row in rows}
    assert branches["all trials"] == {"activation", "norm", "init", "lr"}
    assert branches["leaky_relu"] == {"norm", "init", "lr", "slope_mode", "negative_slope"}
    for branch in branches:
        some = [row for row in rows if row["branch"] == branch]
        assert sum(row["importance"] for row in some) == pytest.approx(1)
    counts = {row["branch"]: row["trials"] for row in rows}
    complete = [trial.config for trial in STUDY.trials if trial.state == "COMPLETE"]
    assert counts["all trials"] == len(complete)
    assert counts["leaky_relu"] == sum(c.activation == "leaky_relu" for c in complete if c)
    top = max(
        (row for row in rows if row["branch"] == "all trials"), key=lambda row: float(row["importance"])
    )
    assert top["parameter"] == "lr"  # as it was made up


def test_values_that_are_all_equal_rank_nothing() -> None:
    tied = [record(i, "COMPLETE", 0.9, lr=1e-3 * (i + 1)) for i in range(12)]
    assert PLOTS["importances"].rows(study_with(*tied)) == []
    assert PLOTS["importances"].rows(study_with(*tied, record(12, "COMPLETE", 0.95)))
