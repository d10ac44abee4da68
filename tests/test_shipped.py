"""Study files by name: here, else in the package; and the list of them."""

from pathlib import Path

import pytest

from slopesearch.cli.shipped import shipped, study_file
from slopesearch.wording import RequestError
from tests.conftest import InProcess
from tests.synthetic import store, study_of


def test_a_file_of_the_folder_comes_before_one_that_ships(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ours = shipped()["deep-mlp"]
    assert study_file(Path("deep-mlp")) == study_file(Path("studies/deep-mlp.toml")) == ours
    Path("deep-mlp").mkdir()  # a folder is no study file
    assert study_file(Path("deep-mlp")) == ours
    Path("studies").mkdir()
    local = Path("studies/deep-mlp.toml")
    local.touch()
    assert study_file(Path("deep-mlp")) == study_file(local) == local
    Path("mine.toml").touch()
    assert study_file(Path("mine.toml")) == Path("mine.toml")


@pytest.mark.parametrize("name", ["depp-mlp", "deep-mlp.toml", "elsewhere/deep-mlp.toml"])
def test_a_name_that_is_none_is_answered_with_those_that_there_are(name: str) -> None:
    with pytest.raises(RequestError) as refused:
        study_file(Path(name))
    assert str(refused.value).startswith(f"there is no study file '{name}'; check the path, or name one that")
    assert ": compare-norm, compare-slope, deep-mlp, default (python -m" in str(refused.value)


def test_the_list_has_question_cost_and_command_of_each(command_line: InProcess) -> None:
    text = " ".join(command_line("studies").out.split())
    for path in shipped().values():
        first, second = path.read_text().splitlines()[:2]
        question, _, cost = first.removeprefix("# ").partition("   ")
        command = second.removeprefix("#").strip()
        assert f"{path.stem} ({cost}) {question} {command}" in text


def test_a_study_with_arms_is_for_compare(command_line: InProcess, tmp_path: Path) -> None:
    done = command_line("optimize", "compare-norm")
    assert (done.code, done.err) == (
        2,
        "error: 'compare-norm' declares arms to compare; type: python -m slopesearch compare compare-norm\n",
    )
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_no_study_is_answered_with_the_studies_with_arms_too(command_line: InProcess) -> None:
    done = command_line("compare", "compare-slop")
    assert done.code == 2
    assert "the study files with arms that ship with the package: compare-norm, compare-slope\n" in done.err


def test_the_name_of_a_study_for_that_of_a_file_is_answered_with_the_command(
    command_line: InProcess, tmp_path: Path
) -> None:
    store(study_of(3, "digits-cnn"), tmp_path / "studies" / "slopesearch.db")
    done = command_line("optimize", "digits-cnn")
    assert done.code == 2
    assert "to go on with it: python -m slopesearch optimize --name digits-cnn\n" in done.err
