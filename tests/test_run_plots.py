"""Figures of the runs: the curves and the costs are counted again here."""

from collections import Counter
from statistics import median

import pytest

from slopesearch.config import QUICK_VALIDATION, REPORTS
from slopesearch.report.plots import PLOTS
from slopesearch.report.run_plots import BAND, END, bands
from slopesearch.report.style import NORMS, colour_of, distance
from tests.synthetic import record, spec_of, study_of, study_with

STUDY = study_of(400)
LARGE = STUDY.spec.model_copy(update={"val_size": 5 * QUICK_VALIDATION})


def test_bands_hold_the_middle_half_of_completed_runs() -> None:
    rows = [{"trial": i, "report": step, "value": i * step} for i in range(9) for step in (1, 2)]
    assert bands(rows) == ({1: 2, 2: 4}, {1: 4, 2: 8}, {1: 6, 2: 12})
    drawn = PLOTS["curves"].draw(PLOTS["curves"].rows(STUDY), STUDY.spec)
    for name in STUDY.spec.space.activation:
        runs = [
            t.reports
            for t in STUDY.trials
            if t.state == "COMPLETE" and t.config and t.config.activation == name
        ]
        assert len(runs) >= BAND
        (line,) = [
            t
            for t in drawn.data
            if t.line.color == colour_of(name, STUDY.spec) and t.mode == "lines" and not t.fill
        ]
        middle = [median(run[step] for run in runs) for step in range(1, REPORTS + 1)]
        assert list(line.y) == pytest.approx([distance(value, STUDY.spec) for value in middle])
        assert any(title.text == f"{name} (n = {len(runs)})" for title in drawn.layout.annotations)


def test_few_runs_are_drawn_one_by_one() -> None:
    trials = [
        record(i, "COMPLETE", 0.9 + i / 100, activation="elu", reports={1: 0.5, REPORTS: 0.9 + i / 100})
        for i in range(BAND - 1)
    ]
    study = study_with(*trials, record(8, "PRUNED", 0.2, activation="elu"))
    drawn = PLOTS["curves"].draw(PLOTS["curves"].rows(study), study.spec)
    lines = [trace for trace in drawn.data if trace.line.color == colour_of("elu", study.spec)]
    assert len(lines) == BAND - 1
    assert not any(trace.fill for trace in drawn.data)


def test_the_last_report_stands_apart_where_it_saw_more_images() -> None:
    rows = PLOTS["curves"].rows(STUDY)
    joined, apart = PLOTS["curves"].draw(rows, STUDY.spec), PLOTS["curves"].draw(rows, LARGE)
    ends = {x for trace in joined.data for x in trace.x}
    assert ends == set(range(1, REPORTS + 1))
    for trace in apart.data:
        assert REPORTS not in trace.x
        assert set(trace.x) == {END} or END not in trace.x  # no line leads to it
    assert any(set(trace.x) == {END} for trace in apart.data)
    assert "last" in apart.layout.xaxis.ticktext
    assert "uses all 5,000 validation images and the others the first 1,000" in PLOTS["curves"].say(
        rows, LARGE
    )
    assert "stands apart" not in PLOTS["curves"].say(rows, STUDY.spec)


def test_the_best_run_and_its_place_are_counted_again() -> None:
    best = max((t for t in STUDY.trials if t.state == "COMPLETE"), key=lambda t: t.value or 0)
    first = [t.reports[1] for t in STUDY.trials if t.state in ("COMPLETE", "PRUNED")]
    place = 1 + sum(value > best.reports[1] for value in first)
    done = sum(t.state == "COMPLETE" for t in STUDY.trials)
    said = PLOTS["curves"].say(PLOTS["curves"].rows(STUDY), STUDY.spec)
    assert f"Of {len(first)} runs {done} completed" in said
    assert best.config
    assert (
        f"The best, trial {best.number} ({best.config.activation}), began at {best.reports[1]:.4f}, place "
        f"{place} of {len(first)} runs at report 1, and ended at {best.value:.4f}." in said
    )
    pruned = study_with(record(0, "PRUNED", 0.2))
    assert "none of which" in PLOTS["curves"].say(PLOTS["curves"].rows(pruned), pruned.spec)
    drawn = PLOTS["curves"].draw(PLOTS["curves"].rows(pruned), pruned.spec)
    assert drawn.data[0].y == (distance(0.5, pruned.spec),)  # at its first report


def test_each_median_of_the_costs_has_its_own_number() -> None:
    ran = [t for t in STUDY.trials if t.state in ("COMPLETE", "PRUNED")]
    whole = [t.attributes["seconds"] for t in ran if t.state == "COMPLETE"]
    rate = median(t.attributes["images_per_second"] for t in ran)
    said = PLOTS["speed"].say(PLOTS["speed"].rows(STUDY), STUDY.spec)
    assert f"cpu: {rate:,.0f} images a second in training (n = {len(ran)})" in said
    assert f"{median(whole):.1f} s for a run to its end (n = {len(whole)})" in said
    minutes = sum(t.attributes["seconds"] for t in ran) / 60
    assert f"All {len(ran)} runs together: {minutes:.1f} minutes" in said
    assert len(whole) < len(ran)
    assert spec_of().val_size <= QUICK_VALIDATION


def test_each_box_of_the_costs_says_how_many_runs_it_holds() -> None:
    rows = PLOTS["speed"].rows(STUDY)
    counts = Counter(row["norm"] for row in rows)
    drawn = [(set(box.y), len(box.x)) for box in PLOTS["speed"].draw(rows, STUDY.spec).data]
    assert drawn == [({f"norm {norm} (n {counts[norm]})"}, counts[norm]) for norm in NORMS if norm in counts]
