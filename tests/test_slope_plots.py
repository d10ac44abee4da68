"""Figures of the negative slope."""

from statistics import median
from typing import Any

import pytest

from slopesearch.config import Report
from slopesearch.report.plots import PLOTS
from slopesearch.search.records import TrialRecord
from tests.synthetic import record, spec_of, study_of, study_with

STUDY = study_of(400)


def curve(*slopes: float, raw: tuple[float, ...] = (), step: int = 1) -> tuple[Report, ...]:
    last = Report(step=step, train_loss=1, val_loss=1, val_accuracy=0.5, slopes=slopes)
    return (last.model_copy(update={"raw_slopes": raw or slopes}),)


def test_slope_rows_hold_leaky_relu_alone() -> None:
    rows = PLOTS["slope"].rows(STUDY)
    assert rows
    numbers = {row["trial"] for row in rows}
    assert numbers == {
        t.number
        for t in STUDY.trials
        if t.state == "COMPLETE" and t.config and t.config.activation == "leaky_relu"
    }
    assert all((row["slope_max"] is None) == (row["slope_mode"] == "fixed") for row in rows)


def test_a_slope_stands_where_it_begins() -> None:
    starts = {0.5: 0.1, 0.05: 0.05, 0.0: 1e-3}  # slope_max is 0.1, and slope_min 0.001
    study = study_with(
        record(0, "COMPLETE", 0.9, negative_slope=0.5),  # fixed: no bound holds
        *(
            record(i, "COMPLETE", 0.8, slope_mode="learnable", negative_slope=start)
            for i, start in enumerate(starts, start=1)
        ),
    )
    rows = PLOTS["slope"].rows(study)
    assert [row["slope"] for row in rows] == [0.5, *starts.values()]
    drawn = PLOTS["slope"].draw(rows, study.spec)
    assert drawn.data[0].x == (0.5, *starts.values())
    assert [symbol.endswith("-open") for symbol in drawn.data[0].marker.symbol] == [False, True, True, True]


def test_the_sentence_on_slopes_is_counted_again() -> None:
    found = []
    for trial in STUDY.trials:
        config = trial.config
        if trial.state != "COMPLETE" or config is None or config.negative_slope is None:
            continue
        slope = config.negative_slope
        if config.slope_mode == "learnable":
            slope = max(1e-3, min(slope, config.slope_max or 0))
        found.append((-(trial.value or 0), trial.number, slope, config.lr, config.slope_mode))
    found.sort()
    said = PLOTS["slope"].say(PLOTS["slope"].rows(STUDY), STUDY.spec)
    fixed = sum(mode == "fixed" for *_, mode in found)
    learnable = len(found) - fixed
    assert f"{len(found)} completed trials of leaky ReLU: {fixed} with a fixed slope, {learnable}" in said
    value, number, slope, lr, _ = found[0]
    assert f"trial {number}, reached {-value:.4f} with slope {slope:.2g} and learning rate {lr:.2g}." in said
    quarter = found[: len(found) // 4]
    slopes, rates = [row[2] for row in quarter], [row[3] for row in quarter]
    assert (
        f"The best quarter, {len(quarter)} trials, has slopes from {min(slopes):.2g} to {max(slopes):.2g} "
        f"and learning rates from {min(rates):.2g} to {max(rates):.2g}." in said
    )


def test_the_tutorials_slopes_stand_where_the_axis_has_them() -> None:
    some = [record(i, "COMPLETE", 0.8, negative_slope=slope) for i, slope in enumerate((0.0, 0.3))]
    for trials, kind in ((some, None), (some[1:], "log")):
        drawn = PLOTS["slope"].draw(PLOTS["slope"].rows(study_with(*trials)), spec_of())
        assert [line.x0 for line in drawn.layout.shapes] == [0.01, 0.1, 0.2]
        assert {line.xref for line in drawn.layout.shapes} == {"x"}
        assert drawn.layout.xaxis.type == kind


def test_paths_begin_where_the_slope_begins_and_tell_raw_from_effective() -> None:
    study = study_with(
        record(
            0,
            "COMPLETE",
            0.8,
            slope_mode="learnable",
            negative_slope=0.5,
            curve=curve(0.02, 0.1, raw=(0.02, 0.3)),
        )
    )
    rows = PLOTS["learned_slopes"].rows(study)
    assert [(r["layer"], r["report"], r["slope"], r["raw_slope"]) for r in rows] == [
        (1, 0, 0.1, 0.1),  # a start above slope_max begins there
        (2, 0, 0.1, 0.1),
        (1, 1, 0.02, 0.02),
        (2, 1, 0.1, 0.3),
    ]
    said = PLOTS["learned_slopes"].say([*rows, rows[0] | {"report": 9}], study.spec)
    assert "outside its range, whose bound was used, at 1 point." in said


def test_a_learned_path_begins_within_its_range() -> None:
    low = record(0, "COMPLETE", 0.8, slope_mode="learnable", negative_slope=0.0, curve=curve(0.02))
    assert PLOTS["learned_slopes"].rows(study_with(low))[0]["slope"] == 1e-3  # slope_min


def test_medians_of_learned_slopes_are_those_of_each_layer() -> None:
    trials = [
        record(i, "COMPLETE", 0.8, slope_mode="learnable", curve=curve(slope, slope / 2, step=9))
        for i, slope in enumerate((0.01, 0.03, 0.08))
    ]
    study = study_with(*trials)
    said = PLOTS["learned_slopes"].say(PLOTS["learned_slopes"].rows(study), study.spec)
    middle = median((0.01, 0.03, 0.08))
    assert f"leaky_relu ended at {middle:.3g}, {middle / 2:.3g} in layers 1, 2 (medians, n = 3)." in said


def learned(number: int, value: float, **fields: Any) -> TrialRecord:
    given = {"slope_mode": "learnable", "negative_slope": 0.01, "curve": curve(0.02), **fields}
    return record(number, "COMPLETE", value, **given)


@pytest.mark.parametrize(
    "other",
    [{"norm": "before"}, {"lr": 2e-3}, {"init": "lsuv"}, {"negative_slope": 0.02}, {"activation": "elu"}],
    ids=str,
)
def test_runs_that_differ_in_more_are_no_twins(other: dict[str, Any]) -> None:
    study = study_with(record(0, "COMPLETE", 0.9, **other), learned(1, 0.8))
    said = PLOTS["learned_slopes"].say(PLOTS["learned_slopes"].rows(study), study.spec)
    assert "No two runs differ in nothing but fixed or learned" in said
    assert "which is better, compare with --only learned says, on seeds of its own." in said
    assert "better in" not in said


def test_twins_alone_say_whether_learning_ended_better() -> None:
    study = study_with(
        record(0, "COMPLETE", 0.90),  # fixed at 0.01, with a twin for each bound
        learned(1, 0.91),
        learned(2, 0.89, slope_max=0.3),
        learned(3, 0.90, slope_max=1.0),
        record(4, "COMPLETE", 0.99, norm="before"),  # tuned, and a twin of nothing
        record(5, "COMPLETE", 0.85, negative_slope=0.1),
        learned(6, 0.86, negative_slope=0.5),  # begins at its bound, 0.1
        record(7, "PRUNED", 0.5, negative_slope=0.02),
        learned(8, 0.95, negative_slope=0.02),
    )
    rows = PLOTS["learned_slopes"].rows(study)
    twins = {row["trial"]: row["fixed_twin"] for row in rows}
    assert twins == {1: 0, 2: 0, 3: 0, 6: 5, 8: None}
    said = PLOTS["learned_slopes"].say(rows, study.spec)
    assert "4 pairs; learned ended better in 2, fixed in 1, equal in 1." in said
    assert "which is better, compare with --only learned says, on seeds of its own." in said
    loss = study_with(*study.trials, objective="val_loss")
    assert "learned ended better in 1, fixed in 2, equal in 1." in PLOTS["learned_slopes"].say(
        rows, loss.spec
    )
