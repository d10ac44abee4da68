"""How `optimize` ends: on one screen, the best on it, with commands that can be typed as they stand."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from slopesearch.cli.ending import SCREEN, ending, next_commands
from slopesearch.config import ResolvedSpec
from slopesearch.evidence.selection import believed
from slopesearch.search.records import StudyRecord
from slopesearch.search.store import Store
from slopesearch.wording import describe
from tests.conftest import make_config
from tests.synthetic import record, study_with

LEARNED = {
    "activation": "leaky_relu",
    "negative_slope": 0.0123,
    "slope_mode": "learnable",
    "slope_min": 1e-3,
    "slope_max": 0.1,
    "slope_clamp": "project",
    "norm": "before",
    "init": "kaiming_uniform",
}
COMMANDS = ("confirm", "compare", "report", "export", "show")


def lines_of(study: StudyRecord, tmp_path: Path, name: str = "x.db") -> list[str]:
    out = io.StringIO()
    store = Store(f"sqlite:///{tmp_path / name}")
    ending(Console(file=out, width=80), store, study, ["More trials: the same command with --trials 400."])
    return out.getvalue().splitlines()


def busy(name: str = "s") -> StudyRecord:
    """A study about which there is a lot to say: long configs, recipes, ties, doubts of every kind."""
    recipes = [
        record(n, "COMPLETE", 0.9 + n / 1000, lr=1e-3, norm=norm) for n, norm in enumerate(("none", "before"))
    ]
    tied = [record(n, "COMPLETE", 0.9876, lr=2.9e-2, **LEARNED) for n in range(2, 80)]
    failed = [record(n, "FAIL", None, attributes={"ended": "failed: it broke"}) for n in range(80, 100)]
    diverged = [record(n, "PRUNED", 0.1, attributes={"ended": "diverged"}) for n in range(100, 200)]
    found = study_with(*recipes, *tied, *failed, *diverged)
    return StudyRecord(name, found.spec, found.trials)


def test_the_ending_fits_on_a_screen_with_the_best_on_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = lines_of(busy(), Path())
    assert len(lines) < SCREEN
    text = "\n".join(lines)
    assert "best: trial 2, val_accuracy 0.9876" in text
    assert "  77 more trials cannot be told from it by one run each; all ran on the same" in text
    assert "More trials: the same command with --trials 400." in text
    assert "doubts more: python -m slopesearch show s" in text


def test_the_ending_fits_where_commands_are_wider_than_the_screen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = lines_of(busy(), Path("a-folder-with-a-long-name"), "and-a-database-with-one-too.db")
    assert sum(len(line) > 80 for line in lines) >= 3
    assert sum(max(1, -(-len(line) // 80)) for line in lines) < SCREEN
    assert "best: trial 2, val_accuracy 0.9876" in lines
    assert any(line.startswith("5 doubts: python -m slopesearch show s ") for line in lines)


def test_a_command_in_a_note_is_not_wrapped(tmp_path: Path) -> None:
    command = f"python -m slopesearch optimize --name s --storage sqlite:///{'x' * 40}/y.db --timeout 1m"
    out = io.StringIO()
    notes = [f"3 of 200 trials are done; to go on: {command}"]
    store = Store(f"sqlite:///{tmp_path / 'x.db'}")
    ending(Console(file=out, width=80), store, busy(), notes)
    assert f"  {command}" in out.getvalue().splitlines()


def test_an_image_is_worth_so_much(tmp_path: Path) -> None:
    found = busy()
    assert found.spec.val_size == 397
    text = " ".join(" ".join(lines_of(found, tmp_path)).split())
    assert "one of the 397 validation images is 0.0025" in text


@pytest.mark.parametrize(
    "name", ["s", "a name with blanks and a length that no terminal of 80 columns has room for"]
)
def test_no_line_is_cut_but_those_that_are_typed(tmp_path: Path, name: str) -> None:
    study = busy(name)
    folder = tmp_path / ("a-folder-with-a-name" * 4)
    folder.mkdir()
    lines = lines_of(study, folder)
    store = Store(f"sqlite:///{folder / 'x.db'}")
    for command in next_commands(store, study, [], []):
        assert f"  {command}" in lines
    typed = [line for line in lines if "python -m slopesearch" in line]
    assert len(typed) >= 3
    assert all(len(line) <= 80 for line in lines if line not in typed)


def test_a_choice_that_the_space_fixes_is_not_repeated(tmp_path: Path) -> None:
    space = {"activation": ["leaky_relu"], "norm": ["none"], "init": ["kaiming_normal"]}
    fixed = {"activation": "leaky_relu", "norm": "none", "init": "kaiming_normal", "negative_slope": 0.2}
    trials = [record(n, "COMPLETE", 0.9 + n / 1000, lr=0.01, **fixed) for n in range(4)]
    lines = lines_of(study_with(*trials, space=space), tmp_path)
    assert "  slope 0.2 lr 0.01" in lines
    assert "    2    0.9020  slope 0.2 lr 0.01" in lines
    assert not any("kaiming" in line or "norm none" in line for line in lines if "textbook" not in line)


def test_the_next_commands_are_those_that_have_not_run(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'x.db'}")
    assert [line.split("slopesearch ")[1].split()[0] for line in next_commands(store, busy(), [], [])] == [
        *COMMANDS[:3]
    ]
    for answered, there in (
        (["slope", "norm"], True),
        (["slope", "learned", "norm", "init", "activation"], False),
    ):
        typed = next_commands(store, busy(), [], answered)
        assert any("slopesearch compare s" in line for line in typed) == there
    none = study_with(record(0, "FAIL", None))
    assert [line.split("slopesearch ")[1].split()[0] for line in next_commands(store, none, [], [])] == [
        "show"
    ]


def test_words_for_a_learned_slope_say_where_it_starts() -> None:
    learned = make_config(**LEARNED)
    assert describe(learned).startswith("leaky_relu learned from 0.0123 (at most 0.1) norm before")
    above = learned.model_copy(update={"negative_slope": 0.4})
    assert describe(above).startswith("leaky_relu learned from 0.1 (at most 0.1)")


def test_what_is_believed_is_what_is_said(tmp_path: Path) -> None:
    study = busy()
    found = believed(study)
    assert found is not None
    assert isinstance(study.spec, ResolvedSpec)
    text = " ".join(" ".join(lines_of(study, tmp_path)).split())
    assert f"expect {found.value:.4f} ({found.low:.4f} to {found.high:.4f})" in text


def test_only_trials_that_cannot_be_told_from_the_best_stand_below_it(tmp_path: Path) -> None:
    values = (0.99, 0.985, 0.5, 0.4)
    study = study_with(*(record(n, "COMPLETE", value, lr=0.01 + n / 1000) for n, value in enumerate(values)))
    lines = lines_of(study, tmp_path)
    assert any("1 more trial cannot be told" in line for line in lines)
    told = [line.split()[0] for line in lines if line.startswith("    ")]
    assert [word for word in told if word.isdigit()] == ["1"]
    assert lines.index("  The next:") == next(n for n, line in enumerate(lines) if line[:6] == "    1 ") - 1


def test_a_best_that_stands_apart_is_said_to(tmp_path: Path) -> None:
    study = study_with(record(0, "COMPLETE", 0.99, lr=0.01), record(1, "COMPLETE", 0.5, lr=0.02))
    text = " ".join(" ".join(lines_of(study, tmp_path)).split())
    assert "No other trial comes so near that one run each could not tell them apart; all ran on" in text
    assert "more trial" not in text
    assert "The next:" not in text


def test_a_verdict_that_cannot_be_read_does_not_stop_the_ending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, edited = busy(), {"confirmed": [1], "families": [1]}
    monkeypatch.setattr(Store, "find", lambda self, name, extent: StudyRecord(name, study.spec, [], edited))
    lines = lines_of(study, tmp_path)
    assert "best: trial 2, val_accuracy 0.9876" in lines
    assert any(line.startswith("  is it real") for line in lines)
