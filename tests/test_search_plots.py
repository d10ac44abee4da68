"""Figures of the search: rows and sentences against studies whose numbers are counted again here."""

import pytest

from slopesearch.config import REPORTS
from slopesearch.evidence.pruning import audit
from slopesearch.report.plots import PLOTS
from slopesearch.report.style import distance
from slopesearch.search.records import AUDITED
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
    said = PLOTS["history"].say(rows, study.spec)
    assert "The best of 2 completed trials, 0.8000, is trial 5; 2 finished trials since then" in said


def test_bests_that_are_equal_are_told() -> None:
    study = study_with(*(record(i, "COMPLETE", value) for i, value in enumerate((0.7, 0.9, 0.9, 0.8, 0.9))))
    said = PLOTS["history"].say(PLOTS["history"].rows(study), study.spec)
    assert "0.9000, is trial 1, which 2 others equalled; 3 finished trials since then did not beat it" in said


def test_the_textbooks_trials_are_marked() -> None:
    rows = PLOTS["history"].rows(STUDY)
    assert [row["trial"] for row in rows if row["recipe"]] == [0, 1, 2, 3, 4]


def test_a_value_before_the_end_is_not_on_the_axis_of_final_values() -> None:
    drawn = PLOTS["history"].draw(PLOTS["history"].rows(STUDY), STUDY.spec)
    final = {distance(t.value or 0, STUDY.spec) for t in STUDY.trials if t.state == "COMPLETE"}
    assert {y for trace in drawn.data if trace.yaxis == "y" for y in trace.y} == final
    strip = {
        trace.name: dict(zip(trace.x, trace.y, strict=True)) for trace in drawn.data if trace.yaxis == "y2"
    }
    for name in ("pruned", "diverged"):
        ended = {t.number: max(t.reports) for t in STUDY.trials if t.state == "PRUNED" and t.ended == name}
        assert ended
        assert strip.pop(name) == ended
    assert not strip
    highest = max(final)
    assert 10 ** drawn.layout.yaxis.range[0] < 1.2 * highest  # no room for what was pruned


def test_a_history_without_one_of_its_parts_has_no_empty_axes() -> None:
    whole, stopped = record(0, "COMPLETE", 0.8), record(1, "PRUNED", 0.5)
    for trials, axes in (((whole,), {"y"}), ((stopped,), {"y"}), ((whole, stopped), {"y", "y2"})):
        study = study_with(*trials)
        drawn = PLOTS["history"].draw(PLOTS["history"].rows(study), study.spec)
        assert {trace.yaxis for trace in drawn.data} == axes
        assert ("yaxis2" in drawn.layout) == ("y2" in axes)


def test_how_many_were_stopped_and_what_was_saved() -> None:
    rows = PLOTS["history"].rows(STUDY)
    pruned = sum(t.state == "PRUNED" and t.ended == "pruned" for t in STUDY.trials)
    diverged = sum(t.state == "PRUNED" and t.ended == "diverged" for t in STUDY.trials)
    finished = sum(t.state in ("PRUNED", "COMPLETE") for t in STUDY.trials)
    spent = whole = 0
    for trial in STUDY.trials:
        if trial.state in ("PRUNED", "COMPLETE") and trial.ended != "diverged":
            spent, whole = spent + max(trial.reports), whole + REPORTS
    said = PLOTS["history"].say(rows, STUDY.spec)
    assert f"Of {finished} finished trials {pruned} were pruned and {diverged} diverged" in said
    assert f"Completed and pruned, {finished - diverged} trials took {spent / whole:.0%} of" in said
    assert "has no pruner" in PLOTS["history"].say(rows, spec_of(pruner="none"))


def test_wrong_stops_are_told_with_interval_and_number_beside_no_skill() -> None:
    through = [record(60 + i, "COMPLETE", 0.90 + i / 1000) for i in range(11)]  # median 0.905, 5 above it
    audited = [
        record(80 + i, "COMPLETE", value, attributes={"would_prune_at": 1})
        for i, value in enumerate((0.95, 0.8, 0.7, 0.6))
    ]
    recipe = {"activation": "relu", "norm": "none", "init": "kaiming_normal", "lr": 1e-3}
    book = record(0, "COMPLETE", 0.93, **recipe)  # the textbook's are judged by nobody
    study = study_with(book, *through, *audited)
    rows = PLOTS["audit"].rows(study)
    said = PLOTS["audit"].say(rows, study.spec)
    # Wilson's interval of 1 in 4: 4.6 to 69.9 %.
    assert "Of 4 that went on, 0 diverged, and 1 ended better than the median of the 11 let through" in said
    assert "wrong in 25% (95 % interval 5% to 70%, n = 4); a pruner without skill would read 45%" in said
    assert audit(study).no_skill == pytest.approx(5 / 11)
    assert "too few" in said
    assert "The best trial of all, 80, is one of them" in said
    assert "not known" in PLOTS["audit"].say(PLOTS["audit"].rows(study_with(book, *through)), study.spec)
    assert "no pruner" in PLOTS["audit"].say(rows, spec_of(pruner="none"))
    better = study_with(record(1, "COMPLETE", 0.96, **recipe), *through, *audited)
    assert "is one of them" not in PLOTS["audit"].say(PLOTS["audit"].rows(better), study.spec)


def test_the_audit_of_a_whole_study_is_counted_again() -> None:
    exempt = {row["trial"] for row in PLOTS["audit"].rows(STUDY) if row["exempt"]}
    ran = [
        t for t in STUDY.trials if t.state == "COMPLETE" and t.number not in exempt and t.value is not None
    ]
    passed = sorted(t.value or 0 for t in ran if AUDITED not in t.attributes)
    middle = (passed[(len(passed) - 1) // 2] + passed[len(passed) // 2]) / 2
    ends = [t.value or 0 for t in ran if AUDITED in t.attributes]
    said = PLOTS["audit"].say(PLOTS["audit"].rows(STUDY), STUDY.spec)
    assert f"Of {len(ends)} that went on, 0 diverged, and {sum(end > middle for end in ends)} ended" in said
    assert f"the median of the {len(passed)} let through" in said
    assert f"would read {sum(value > middle for value in passed) / len(passed):.0%}" in said


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
    assert "Of 2 that went on, 1 diverged, and 1 ended better than the median of the 11 let through" in said
    assert "wrong in 50%" in said


def test_early_and_late_ranks_are_correlated() -> None:
    trials = [
        record(i, "COMPLETE", 0.9 + i / 100, reports={1: 0.5 - i / 100, 9: 0.9 + i / 100}) for i in range(6)
    ]
    diverged = record(9, "PRUNED", 0.1, attributes={"would_prune_at": 1, "ended": "diverged"})
    study = study_with(*trials, diverged)
    rows = PLOTS["audit"].rows(study)
    assert "(Spearman): -1.00 after report 1 (n = 6)." in PLOTS["audit"].say(rows, study.spec)
    assert "The pruner chose" in PLOTS["audit"].say(rows, study.spec)
    assert "The pruner chose" not in PLOTS["audit"].say(rows, spec_of(pruner="none"))
