"""A stored trial trained again gives its stored bits."""

from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from slopesearch.config import Report
from slopesearch.runs.replay import largest_difference, replay_trial, what_differs
from slopesearch.search.optimize import optimize
from slopesearch.search.records import StudyRecord, TrialRecord
from slopesearch.search.settings import Settings
from slopesearch.search.space import check
from slopesearch.search.store import Store
from slopesearch.wording import RequestError
from tests.conftest import InProcess, make_config

CPU = torch.device("cpu")
FOLDER = Path("unused")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Real trials, some of them pruned; inline, which gives a worker's numbers (see test_launchers)."""
    url = f"sqlite:///{tmp_path_factory.mktemp('studies')}/slopesearch.db"
    spec = check({"dataset": "digits", "model": "mlp", "epochs": 2, "plan": "walk"})
    optimize(spec, trials=12, store=Store(url), settings=Settings(FOLDER, "cpu", launcher="inline"))
    return url


@pytest.fixture
def study(url: str) -> StudyRecord:
    return Store(url).read()


def test_a_stored_trial_is_bit_equal_here(study: StudyRecord) -> None:
    pruned = next(trial for trial in study.trials if trial.state == "PRUNED")
    for trial in (study.trials[2], pruned):
        assert replay_trial(trial, FOLDER, CPU) == trial.curve
        assert largest_difference(trial.curve, trial.curve) == 0
        assert what_differs(study, trial, CPU) == []


def test_what_differs_is_named(study: StudyRecord) -> None:
    attributes = {"versions": {**study.attributes["versions"], "torch": "2.11.0"}}
    older = StudyRecord(study.name, study.spec, study.trials, attributes)
    differs = what_differs(older, study.trials[0], torch.device("cuda:0"))
    assert differs == [f"torch: stored 2.11.0, here {version('torch')}", "device: stored cpu, here cuda:0"]


def test_the_difference_is_the_largest_of_all_numbers() -> None:
    report = Report(step=1, train_loss=1.0, val_loss=2.0, val_accuracy=0.5, slopes=(0.1,))
    other = report.model_copy(update={"val_loss": 2.5, "slopes": (0.9,)})
    assert largest_difference([report, report], [report, other]) == pytest.approx(0.8)
    assert largest_difference([report], []) == float("inf")
    for changes, difference in (
        ({"slopes": (0.1, 0.2)}, float("inf")),  # as a study of another version may hold it
        ({"raw_slopes": (0.0,)}, float("inf")),
        ({"diverged": True}, 1.0),
    ):
        assert largest_difference([report], [report.model_copy(update=changes)]) == difference
    full = report.model_copy(update={"update_ratios": (0.5,)})
    assert largest_difference([full], [full.model_copy(update={"update_ratios": (0.25,)})]) == 0.25


def test_a_trial_without_a_curve_cannot_be_replayed() -> None:
    record = TrialRecord(4, "RUNNING", None, make_config(), {}, {})
    with pytest.raises(RequestError, match=r"trial 4 \(running\) has no stored curve"):
        replay_trial(record, FOLDER, CPU)


def test_replay_and_export_on_the_command_line(url: str, command_line: InProcess, tmp_path: Path) -> None:
    here = ("--storage", url)
    done = command_line("replay", "--trial", "1", "--device", "cpu", *here)
    assert done.code == 0, done.err
    assert "again" in done.out
    assert done.out.splitlines()[-1] == "bit-equal"
    assert "has 12 trials, numbered from 0; given 99" in command_line("replay", "--trial", "99", *here).err

    done = command_line("export", "digits-mlp", *here)
    assert done.code == 0, done.err
    assert done.err.startswith("warning: not confirmed;")
    assert "best.toml: trial " in done.out
    done = command_line("export", "--trial", "0", *here)
    assert (done.code, "is there already" in done.err) == (2, True)
    assert command_line("export", "--trial", "0", "--force", *here).err == ""
    assert "trial = 0\n" in (tmp_path / "best.toml").read_text()
