"""Why a trial was stopped, in sentences, and how the audited trials of such a place fared."""

import json
from dataclasses import replace
from pathlib import Path
from statistics import median

import pytest

from slopesearch.cli.json_views import trial_json
from slopesearch.cli.tables import trial_view
from slopesearch.evidence import pruning
from slopesearch.evidence.pruning import audit, first_judged, why_stopped
from slopesearch.search.launchers import LAUNCHERS
from slopesearch.search.records import Stop, StudyRecord, TrialRecord
from slopesearch.search.textbook import TEXTBOOK
from tests.conftest import InProcess, make_config
from tests.harness import FakeLauncher, Harness
from tests.synthetic import as_recipe, record, study_with
from tests.test_tables import render


def stop(place: int, report: int = 1) -> dict[str, object]:
    return Stop(report=report, value=0.8, place=place, of=100, cut=0.9).model_dump()


def audited(number: int, value: float, place: int, report: int = 1) -> TrialRecord:
    attributes = {"would_prune_at": report, "pruned_by": stop(place, report)}
    return record(number, "COMPLETE", value, attributes=attributes)


def pruned(number: int, place: int) -> TrialRecord:
    return record(number, "PRUNED", 0.8, attributes={"pruned_by": stop(place)})


# The recipes, a config by hand, four that were let through, five audited, three of places from 50 to 60.
RECIPES = [
    replace(record(number, "COMPLETE", 0.5), config=as_recipe(make_config(), recipe))
    for number, recipe in enumerate(TEXTBOOK.values())
]
PASSED = [record(number, "COMPLETE", value) for number, value in enumerate((0.8, 0.9, 0.9, 0.95), start=51)]
BY_HAND = record(20, "COMPLETE", 0.99, attributes={"given_by_hand": True})
AUDITED = [
    audited(9, 0.99, 50),
    audited(10, 0.85, 55),
    audited(11, 0.91, 60),
    audited(12, 0.99, 95),
    audited(13, 0.99, 50, report=3),
]


def study(*more: TrialRecord) -> StudyRecord:
    return study_with(*RECIPES, *PASSED, *AUDITED, *more, BY_HAND)


def test_the_recipes_take_no_part_and_ties_are_not_better() -> None:
    found = audit(study())
    assert (list(found.passed), found.typical) == ([0.8, 0.9, 0.9, 0.95], 0.9)
    assert [found.good(trial) for trial in found.audited] == [True, False, True, True, True]
    assert found.no_skill == 0.25
    assert len(audit(study(), first=12).audited) == 2
    early = study_with(*PASSED[:2], *RECIPES, record(5, "COMPLETE", 0.99))
    assert list(audit(early).passed) == [0.8, 0.9]
    old = study_with(record(19, "COMPLETE", 0.6), record(20, "COMPLETE", 0.7), plan="walk")
    assert list(audit(old).passed) == [0.7]
    loss = study_with(*PASSED, *AUDITED, objective="val_loss")
    assert [audit(loss).good(trial) for trial in AUDITED] == [False, True, False, False, False]


def test_trials_that_came_before_put_off_the_first_ones() -> None:
    """Twenty of another study, and one by hand: the first 50, of which a cover is, end with number 70."""
    taken = [record(n, "COMPLETE", 0.9, attributes={"taken_from": f"old, trial {n}"}) for n in range(20)]
    by_hand = record(30, "COMPLETE", 0.9, attributes={"given_by_hand": True})
    own = [record(n, "COMPLETE", n / 100) for n in (69, 70, 71)]
    assert list(audit(study_with(*taken, by_hand, *own)).passed) == [0.71]


@pytest.mark.parametrize("attributes", [{"ended": "pruned"}, {"would_prune_at": 1}])
def test_the_first_ones_end_at_the_latest_with_the_first_that_is_stopped(
    attributes: dict[str, object],
) -> None:
    diverged = record(8, "PRUNED", 0.1, attributes={"ended": "diverged"})
    stopped = record(34, "PRUNED", 0.2, attributes=attributes)
    own = [record(n, "COMPLETE", n / 100) for n in (7, 33, 35, 60)]
    assert first_judged(study_with(*own[:1], diverged, own[1], stopped, *own[2:], plan="cover")) == 34
    assert list(audit(study_with(*own[:1], diverged, own[1], stopped, *own[2:])).passed) == [0.35, 0.6]


def test_the_median_is_taken_once_however_many_runs_are_held_against_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []

    def counted(values: list[float]) -> float:
        asked.append(len(values))
        return median(values)

    monkeypatch.setattr(pruning, "median", counted)
    found = audit(study())
    assert (found.no_skill, sum(map(found.good, found.audited))) == (0.25, 4)
    assert asked == [4]


def test_a_diverged_run_was_stopped_rightly() -> None:
    attributes = {"would_prune_at": 1, "ended": "diverged"}
    diverged = record(14, "PRUNED", 0.99, attributes=attributes)
    found = audit(study(diverged))
    assert found.audited[-1] == diverged
    assert not found.good(diverged)


def test_a_pruned_trial_says_where_it_stood_and_how_its_like_fared() -> None:
    assert why_stopped(study(), pruned(14, place=55)) == [
        "The pruner 'halving' stopped it at report 1: 0.8000, place 55 of 100, needed 0.9000.",
        "Of 3 runs to be stopped from a place like its own at report 1 that went to their end instead, 2 "
        "ended better than the median of the 4 let through; a pruner without skill would read 25%.",
    ]
    few = why_stopped(study(), pruned(14, place=95))[1]  # one of its like: all of the report
    assert few.startswith(
        "Of 4 runs to be stopped at report 1 that went to their end instead, 3 ended better"
    )
    assert why_stopped(study_with(*PASSED), pruned(9, place=55))[1] == (
        "No run to be stopped at report 1 has gone to its end yet."
    )


def test_an_audited_trial_says_where_it_would_have_been_stopped() -> None:
    assert why_stopped(study(), AUDITED[0]) == [
        "The pruner 'halving' would have stopped it at report 1: 0.8000, place 50 of 100, needed 0.9000. "
        "It ran on, as one in twenty such runs does, to show how often the pruner is wrong.",
        "It ended better than the median of the 4 let through, 0.9000.",
    ]
    assert why_stopped(study(), AUDITED[1])[1].startswith("It ended no better than the median")


@pytest.mark.parametrize(
    ("trial", "sentence"),
    [
        (
            record(14, "PRUNED", 0.8, reports={1: 0.7, 2: 0.75, 3: 0.8}),
            "The pruner 'halving' stopped it at report 3; the version that ran it did not store its place or "
            "the cut.",
        ),
        (
            record(14, "COMPLETE", 0.8, attributes={"would_prune_at": 3}),
            "The pruner 'halving' would have stopped it at report 3. It ran on, as one in twenty such runs "
            "does, to show how often the pruner is wrong.",
        ),
        (
            record(14, "PRUNED", 0.1, attributes={"ended": "diverged"}),
            "It ended by itself: its loss diverged.",
        ),
    ],
)
def test_a_trial_without_the_numbers_gets_a_sentence_without_them(trial: TrialRecord, sentence: str) -> None:
    assert why_stopped(study(), trial)[0] == sentence


def test_a_trial_that_was_let_through_gives_no_reason() -> None:
    assert why_stopped(study(), PASSED[1]) == []
    assert why_stopped(study(), record(14, "RUNNING", None)) == []


def test_the_reason_stands_first_within_80_columns_and_in_json() -> None:
    trial = replace(pruned(14, place=55), reports={1: 0.8})
    why = why_stopped(study(), trial)
    text = render(trial_view, trial, why)
    assert (
        text.splitlines()[1] == "The pruner 'halving' stopped it at report 1: 0.8000, place 55 of 100, needed"
    )
    assert max(map(len, text.splitlines())) <= 80
    told = json.loads(trial_json(trial, why))
    assert (told["why"], told["pruned_by"]) == (why, stop(55))


def test_every_stopped_trial_of_a_study_stores_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command_line: InProcess
) -> None:
    monkeypatch.setitem(LAUNCHERS, "fake", FakeLauncher)
    harness = Harness(tmp_path / "x.db")
    harness(70)
    found = harness.study()
    judged = [t for t in found.trials if t.state == "PRUNED" or "would_prune_at" in t.attributes]
    assert any(trial.state == "COMPLETE" for trial in judged)
    assert len(judged) > 20
    for trial in judged:
        assert trial.stop is not None
        assert trial.stop.value == trial.reports[trial.stop.report] < (trial.stop.cut or 0)
        assert trial.stop.report == trial.attributes.get("would_prune_at", len(trial.reports))
        assert trial.stop.of // 3 < trial.stop.place <= trial.stop.of
    assert all(trial.stop is None for trial in found.trials if trial not in judged)
    number = next(trial.number for trial in reversed(judged) if trial.state == "PRUNED")
    shown = command_line("show", "--trial", str(number), "--storage", harness.store.url)
    assert found.trial(number).stop.words in shown.out  # type: ignore[union-attr]
    assert "went to their end instead" in shown.out
