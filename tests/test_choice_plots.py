"""Figures of the choices side by side."""

from slopesearch.report.plots import PLOTS
from tests.synthetic import record, study_with


def test_norm_cells_hold_the_best_and_the_count() -> None:
    study = study_with(
        record(0, "COMPLETE", 0.8, activation="elu"),
        record(1, "COMPLETE", 0.9, activation="elu"),
        record(2, "COMPLETE", 0.7, activation="elu", norm="after"),
    )
    rows = PLOTS["norm"].rows(study)
    assert [(r["norm"], r["trials"], r["best"]) for r in rows] == [("none", 2, 0.9), ("after", 1, 0.7)]
    assert "2 of 2 cells rest on fewer than three trials" in PLOTS["norm"].say(rows, study.spec)
