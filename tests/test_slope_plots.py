"""Figures of the negative slope."""

import pytest

from slopesearch.report.plots import PLOTS
from tests.synthetic import record, spec_of, study_of, study_with

STUDY = study_of(400)


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


def test_paths_begin_where_the_slope_begins_and_tell_raw_from_effective() -> None:
    curve = [
        {
            "step": 1,
            "train_loss": 1,
            "val_loss": 1,
            "val_accuracy": 0.5,
            "slopes": [0.02, 0.1],
            "raw_slopes": [0.02, 0.3],
        }
    ]
    study = study_with(
        record(0, "COMPLETE", 0.8, slope_mode="learnable", negative_slope=0.5, attributes={"curves": curve})
    )
    rows = PLOTS["slope_paths"].rows(study)
    assert [(r["layer"], r["report"], r["slope"], r["raw_slope"]) for r in rows] == [
        (1, 0, 0.1, 0.1),  # a start above slope_max begins there
        (2, 0, 0.1, 0.1),
        (1, 1, 0.02, 0.02),
        (2, 1, 0.1, 0.3),
    ]
    assert "At 1 points the parameter lay outside" in PLOTS["slope_paths"].say(
        [*rows, rows[0] | {"report": 9}], study.spec
    )


def test_a_learned_path_begins_within_its_range() -> None:
    curve = [
        {
            "step": 1,
            "train_loss": 1,
            "val_loss": 1,
            "val_accuracy": 0.5,
            "slopes": [0.02],
            "raw_slopes": [0.02],
        }
    ]
    low = record(0, "COMPLETE", 0.8, slope_mode="learnable", negative_slope=0.0, attributes={"curves": curve})
    assert PLOTS["slope_paths"].rows(study_with(low))[0]["slope"] == 1e-3  # slope_min


def test_the_tutorials_slopes_stand_where_the_axis_has_them() -> None:
    spec = spec_of()
    some = [record(i, "COMPLETE", 0.8, negative_slope=slope) for i, slope in enumerate((0.0, 0.3))]
    for trials, places in ((some, [0.01, 0.1, 0.2]), (some[1:], [-2, -1, -0.699])):
        drawn = PLOTS["slope"].draw(PLOTS["slope"].rows(study_with(*trials)), spec)
        assert [mark.x for mark in drawn.layout.annotations] == pytest.approx(places, abs=1e-3)
