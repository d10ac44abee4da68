"""Steering from the command line: files to try, a study to begin from, kills, wrong requests."""

import json
from pathlib import Path

import pytest

from slopesearch.runs.export import read_given
from slopesearch.search.given import Given
from slopesearch.search.launchers import LAUNCHERS
from slopesearch.wording import RequestError
from tests.conftest import CommandLine, InProcess
from tests.harness import FakeLauncher, Harness
from tests.running import FAKE, Running
from tests.test_given import given_of

MINE = 'activation = "relu"\nnorm = "none"\ninit = "orthogonal"\nlr = {lr}\n'


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Two configs with the fields of the space."""
    for name, lr in (("a", 0.002), ("b", 0.004)):
        (tmp_path / f"{name}.toml").write_text(MINE.format(lr=lr))
    return ["--try", str(tmp_path / "a.toml"), "--try", str(tmp_path / "b.toml")]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LAUNCHERS, "fake", FakeLauncher)


@pytest.mark.usefixtures("fake")
def test_exported_configs_and_files_with_the_fields_of_the_space_are_tried(
    command_line: InProcess, files: list[str], tmp_path: Path
) -> None:
    assert command_line("optimize", *FAKE, "--name", "one", "--seed", "5", "--trials", "4").code == 0
    assert command_line("export", "one", "--trial", "2", "-o", "learned.toml").code == 0
    done = command_line("optimize", *FAKE, "--trials", "5", *files, "--try", "learned.toml")
    assert done.code == 0, done.err
    assert f"'{tmp_path / 'a.toml'}' runs next: relu norm none orthogonal lr 0.002" in done.out
    assert (
        "'learned.toml' runs next: leaky_relu learned from 0.01 (at most 0.1) norm none default lr 0.001"
        in done.out
    )
    harness = Harness(tmp_path / "studies" / "slopesearch.db")
    study = harness.study("digits-mlp")
    assert given_of(harness, "digits-mlp") == [(0, 0.002), (1, 0.004), (2, 0.001)]
    configs = [trial.config for trial in study.trials]
    assert len({config.init_seed for config in configs if config}) == 1  # not those that it was exported with
    shown = command_line("show", "digits-mlp", "--trial", "0")
    assert shown.out.splitlines()[1] == "given by hand; comparisons leave it out"
    assert (
        json.loads(command_line("show", "digits-mlp", "--trial", "0", "--json").out)["given_by_hand"] is True
    )


@pytest.mark.usefixtures("fake")
def test_a_study_begins_from_another(command_line: InProcess) -> None:
    command_line("optimize", *FAKE, "--name", "old", "--trials", "12")
    wider = ("--set", "space.lr={low = 1e-5, high = 0.1, log = true}", *FAKE[4:])
    done = command_line("optimize", "--from", "old", "--name", "new", "--trials", "14", *wider)
    assert done.code == 0, done.err
    assert "new begins with 12 of the 12 trials of 'old'; --trials counts them" in done.out
    assert "new: 14 trials," in done.out
    assert "taken over from old, trial 3" in command_line("show", "new", "--trial", "3").out


@pytest.mark.usefixtures("fake")
def test_a_config_that_does_not_fit_is_refused_with_each_field(
    command_line: InProcess, tmp_path: Path
) -> None:
    command_line("optimize", *FAKE, "--name", "s", "--trials", "2")
    command_line("export", "s", "-o", "digits.toml")
    other = (tmp_path / "digits.toml").read_text().replace('dataset = "digits"', 'dataset = "kmnist"')
    (tmp_path / "kmnist.toml").write_text(other)
    (tmp_path / "mine.toml").write_text(MINE.format(lr=3.0) + "slope_max = 0.1\n")
    words = ("optimize", *FAKE, "--name", "s", "--trials", "4")
    done = command_line(*words, "--try", "kmnist.toml", "--try", "mine.toml")
    assert done.code == 2
    assert done.err.splitlines() == [
        "error: what is given does not fit into the study 's':",
        "         'kmnist.toml': dataset: the study has digits, given kmnist",
        "         'mine.toml': slope_max: there is none for such a config, given 0.1",
        "         'mine.toml': lr: the space holds 0.0001 to 0.03 (log), given 3.0",
    ]
    assert json.loads(command_line("list", "--json").out)[0]["complete"] == 2


def test_killed_after_it_was_accepted_a_config_runs_once(files: list[str], tmp_path: Path) -> None:
    """kill -9 with the first of two told, then the same command, or one that no longer names them."""
    for name in ("again", "plain"):
        harness = Harness(tmp_path / f"{name}.db")
        words = ("optimize", *FAKE, "--trials", "6", "--storage", harness.store.url)
        with Running(*words, *files) as running:
            running.tell(1)
        assert len(given_of(harness)) in (1, 2)
        with Running(*words, *(files if name == "again" else ())) as running:
            assert running.end()[0] == 0
        assert given_of(harness) == [(0, 0.002), (1, 0.004)]
        assert [trial.state in ("COMPLETE", "PRUNED") for trial in harness.study().trials] == [True] * 6


def test_a_study_that_runs_takes_nothing_by_hand(
    files: list[str], tmp_path: Path, slopesearch: CommandLine
) -> None:
    words = ("optimize", *FAKE[:4], "--trials", "9", "--storage", f"sqlite:///{tmp_path / 'x.db'}")
    with Running(*words, *FAKE[4:]) as running:
        running.tell(1)
        done = slopesearch(*words, *files)
        assert done.returncode == 2
        assert "the study 'digits-mlp' is being written by process" in done.stderr


def test_a_file_to_try_is_read_whole_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text(MINE.format(lr=0.01))
    given = read_given(path)
    assert given == Given(
        f"'{path}'", {"activation": "relu", "norm": "none", "init": "orthogonal", "lr": 0.01}
    )
    for content, sentence in (
        ("lr = ", "is not valid TOML"),
        ("config = 3", "is no config that can be trained"),
    ):
        path.write_text(content)
        with pytest.raises(RequestError, match=sentence):
            read_given(path)
