"""What a person reads: tables and the live display, at 80 columns."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from slopesearch.cli.live import Lines, LiveDisplay
from slopesearch.cli.tables import (
    describe,
    study_json,
    study_table,
    summaries_table,
    textbook_rows,
    trial_view,
)
from slopesearch.config import Report, ResolvedSpec, TrialConfig, TrialResult
from slopesearch.search.events import Began, Event, Noted, Progressed, Started, Told
from slopesearch.search.records import StudyRecord, StudySummary, TrialRecord
from slopesearch.search.space import check, resolve
from tests.conftest import make_config

SPEC: ResolvedSpec = resolve(check({"dataset": "digits"}), "float32")
LONGEST = make_config(slope_mode="learnable", negative_slope=0.012345, norm="before", init="kaiming_uniform")


def trial(number: int, state: str, value: float | None, config: TrialConfig | None = None) -> TrialRecord:
    return TrialRecord(
        number, state, value, config or make_config(), {}, {"ended": state.lower(), "seconds": 1.5}
    )


def render(draw: object, *arguments: object, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    draw(console, *arguments)  # type: ignore[operator]
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


STUDY = StudyRecord(
    "digits-cnn",
    SPEC,
    [
        trial(0, "COMPLETE", 0.95),
        trial(1, "COMPLETE", 0.97),
        trial(2, "RUNNING", None),
        trial(3, "FAIL", None),
        trial(4, "PRUNED", 0.99),
        trial(5, "COMPLETE", 0.98, LONGEST),
        trial(6, "COMPLETE", 0.98),
    ],
)


def test_ranking_counts_completed_trials_and_breaks_ties_by_number() -> None:
    assert [t.number for t in STUDY.ranked()] == [5, 6, 1, 0]
    loss = StudyRecord("x", SPEC.model_copy(update={"objective": "val_loss"}), STUDY.trials)
    assert [t.number for t in loss.ranked()] == [0, 1, 5, 6]


def test_the_winners_lead_over_the_textbook_is_told() -> None:
    rows = [(row["recipe"], row["trial"], round(row["lead"], 4)) for row in textbook_rows(STUDY)]
    assert rows == [
        ("the tutorial's recipe", 0, 0.03),
        ("the same, BatchNorm before", 1, 0.01),
        ("PReLU from 0.25", 4, -0.01),
    ]


def test_a_study_reads_well_at_80_columns() -> None:
    text = render(study_table, STUDY)
    for words in (
        "5 trials, 1 of them pruned, 1 failed, 1 unfinished",
        "best: trial 5",
        "0.9800",
    ):
        assert words in text
    assert "learned to 0.1 norm before kaiming_uniform" in text
    assert max(map(len, text.splitlines())) <= 82


@pytest.mark.parametrize("trials", [[], STUDY.trials[2:4]])
def test_a_study_without_a_finished_trial_says_so(trials: list[TrialRecord]) -> None:
    record = StudyRecord("digits-cnn", SPEC, trials)
    assert "no trial has run to its end yet" in render(study_table, record)
    assert '"top": []' in study_json(record)


def test_names_are_data_not_markup() -> None:
    name = "[red]x[/red] :smile: <script>"
    assert name in render(summaries_table, [StudySummary(name, 1, 2, 0, 0, 0.5)])
    assert name in render(study_table, StudyRecord(name, SPEC, STUDY.trials))


def test_a_trial_shows_its_config_and_curve() -> None:
    curve = [Report(step=1, train_loss=1.5, val_loss=1.25, val_accuracy=0.5, slopes=(0.01, 0.02))]
    record = TrialRecord(
        3,
        "PRUNED",
        0.5,
        LONGEST,
        {1: 0.5},
        {"ended": "pruned", "curves": [row.model_dump() for row in curve]},
    )
    text = render(trial_view, record)
    for words in ("trial 3: pruned, 0.5000", "slope_max         0.1", "1.2500", "0.0100 0.0200"):
        assert words in text


def test_describe_names_what_was_searched() -> None:
    assert describe(LONGEST) == "leaky_relu 0.0123 learned to 0.1 norm before kaiming_uniform lr 0.001"
    assert describe(make_config(activation="elu")) == "elu norm none kaiming_normal lr 0.001"


def events() -> list[Event]:
    report = Report(step=4, train_loss=1, val_loss=1, val_accuracy=0.91)
    result = TrialResult(ended="completed", curve=(report,), seconds=1, images_per_second=1, device="cpu")
    return [
        Began(StudyRecord("digits-cnn", SPEC, STUDY.trials[:2]), ["cpu", "cpu"], 10),
        Started(0, 2, LONGEST),
        Started(1, 3, make_config()),
        Progressed(0, 2, report),
        Noted("trial 3 failed (gone); it runs again"),
        Told(1, 3, "FAIL", None, make_config(), None),
        Told(0, 2, "COMPLETE", 0.99, LONGEST, result),
        Started(0, 4, LONGEST),
        Progressed(0, 4, report),
    ]


def test_lines_are_one_per_finished_trial() -> None:
    console = Console(file=io.StringIO(), width=80)
    with Lines(console) as listen:
        for event in events():
            listen(event)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert len(lines) == 4
    assert lines[0].startswith("digits-cnn: to 10 trials, 2 there already")
    assert lines[3] == f"[3/10, best 0.9900] trial 2 completed 0.9900  {describe(LONGEST)}"


def test_the_live_display_shows_everything_within_80_columns(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None, height=24)
    display = LiveDisplay(console)
    with display:
        for event in events():
            display(event)
        picture = render(lambda console: console.print(display._draw()))
    for words in (
        "3/10",
        "0 pruned",
        "1 failed",
        "trials/min",
        "left",
        "best 0.9900, #2: leaky_relu",
        "#4 0.910",
        "idle",
    ):
        assert words in picture, picture
    assert max(map(len, picture.splitlines())) <= 80
