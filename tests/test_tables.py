"""The tables that a person reads, at 80 columns."""

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from slopesearch.cli.json_views import study_json
from slopesearch.cli.tables import (
    study_table,
    summaries_table,
    trial_view,
)
from slopesearch.config import Diagnostics, Report, ResolvedSpec, TrialConfig
from slopesearch.report.summary import NOT_COMPARABLE, textbook_rows
from slopesearch.search.records import StudyRecord, StudySummary, TrialRecord
from slopesearch.search.space import check, resolve
from slopesearch.search.textbook import TEXTBOOK
from tests.conftest import make_config
from tests.synthetic import as_recipe

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


RECIPES = [as_recipe(make_config(), recipe) for recipe in TEXTBOOK.values()]
STUDY = StudyRecord(
    "digits-cnn",
    SPEC,
    [
        trial(0, "COMPLETE", 0.95, RECIPES[0]),
        trial(1, "COMPLETE", 0.97, RECIPES[1]),
        trial(2, "RUNNING", None, RECIPES[2]),
        trial(3, "FAIL", None, RECIPES[3]),
        trial(4, "PRUNED", 0.99, RECIPES[4]),
        trial(5, "COMPLETE", 0.98, LONGEST),
        trial(6, "COMPLETE", 0.98),
    ],
)


def test_ranking_counts_completed_trials_and_breaks_ties_by_loss_and_number() -> None:
    assert [t.number for t in STUDY.ranked()] == [5, 6, 1, 0]
    lower = replace(STUDY.trial(6), attributes={"val_loss": 0.04})
    more = replace(STUDY.trial(1), number=7, attributes={"val_loss": 0.01})
    equals = replace(STUDY, trials=[*STUDY.trials[:-1], lower, more])
    assert [t.number for t in equals.ranked()] == [6, 5, 7, 1, 0]
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
        "5 trials, 1 of them pruned, 1 failed, 1 waiting to be run again",
        "best: trial 5",
        "0.9800",
    ):
        assert words in text
    assert "learned from 0.0123 (at most 0.1)" in text
    assert max(map(len, text.splitlines())) <= 82


def test_what_is_unfinished_runs_while_a_process_writes_the_study_and_waits_otherwise() -> None:
    for is_written, words, more in ((True, "1 running", ""), (False, "1 waiting", " to be run again")):
        study = replace(STUDY, is_written=is_written)
        assert f"1 failed, {words}{more} (digits" in " ".join(render(study_table, study).split())
        row = StudySummary("digits-cnn", 4, 1, study.running, study.waiting, 1, 0.98)
        assert words in render(summaries_table, [row], {})
        shown = json.loads(study_json(study, []))
        assert (shown["running"], shown["waiting"]) == (int(is_written), int(not is_written))


@pytest.mark.parametrize("trials", [[], STUDY.trials[2:4]])
def test_a_study_without_a_finished_trial_says_so(trials: list[TrialRecord]) -> None:
    record = StudyRecord("digits-cnn", SPEC, trials)
    assert "no trial has run to its end yet" in render(study_table, record)
    assert '"top": []' in study_json(record, [])


def test_names_are_data_not_markup() -> None:
    name = "[b]x[/b] :smile: <i>"
    assert name in render(summaries_table, [StudySummary(name, 1, 2, 0, 0, 0, 0.5)], {})
    assert name in render(study_table, StudyRecord(name, SPEC, STUDY.trials))


def test_a_trial_shows_its_config_and_curve() -> None:
    curve = (Report(step=1, train_loss=1.5, val_loss=1.25, val_accuracy=0.5, slopes=(0.01, 0.02)),)
    record = TrialRecord(
        3,
        "PRUNED",
        0.5,
        LONGEST,
        {1: 0.5},
        {"ended": "pruned"},
        curve,
    )
    inside = Diagnostics(
        images=9,
        layers=(1, 2),
        never_active=(0.5, 0.5),
        zero_gradient=(0.5, 0.5),
        inactive=(0.5, 0.5),
        gradient_rms=(0.1, 0.2),
        dead_fraction=0.25,
        grad_attenuation=0.5,
        order="tutorial",
    )
    for order, remark in (("tutorial", False), (None, True)):
        seen = inside.model_copy(update={"order": order})
        text = render(trial_view, replace(record, diagnostics=seen))
        assert "dead_fraction     0.2500\n  grad_attenuation  0.5000" in text
        assert (NOT_COMPARABLE in text) == remark
    for words in ("trial 3: pruned, 0.5000", "slope_max         0.1", "1.2500", "0.0100 0.0200"):
        assert words in text
