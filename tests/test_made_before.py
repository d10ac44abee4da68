"""Studies, run folders and config files of version 0.1.0, before diagnostics had an order, still serve.

`made_before/` holds them as text: a database as SQL (without the curves of the confirmation's runs), weights
and a checkpoint as JSON whose numbers are exact. The tests turn them back into the files that were written.
"""

import json
import shutil
import sqlite3
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from slopesearch.search.space import check, resolve
from slopesearch.search.store import Store
from tests.conftest import InProcess

MADE = Path(__file__).parent / "made_before"
HERE = ("--storage", "sqlite:///before.db")
INLINE = (*HERE, "--launcher", "inline", "--devices", "cpu", "--workers", "1")


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Two searches, six trials of an MLP and two of a CNN; the first confirmed, its test set opened."""
    path = tmp_path / "before.db"
    connection = sqlite3.connect(path)
    connection.executescript((MADE / "studies.sql").read_text())
    connection.close()
    return path


def tensors(data: Any) -> Any:
    """Parsed JSON with its tensors as tensors, and the integer keys of an optimizer's state as integers."""
    if isinstance(data, list):
        return [tensors(item) for item in data]
    if not isinstance(data, dict):
        return data
    if data.keys() == {"dtype", "shape", "values"}:
        return torch.tensor(data["values"], dtype=getattr(torch, data["dtype"])).reshape(data["shape"])
    return {int(key) if key.isdigit() else key: tensors(value) for key, value in data.items()}


def run_folder(name: str, tmp_path: Path) -> Path:
    """A run folder with its weights and its checkpoint in their own formats."""
    run = tmp_path / name
    shutil.copytree(MADE / name, run)
    for text in run.glob("*.json"):
        if text.stem == "weights":
            save_file(tensors(json.loads(text.read_text())), text.with_suffix(".safetensors"))
            text.unlink()
        if text.stem == "checkpoint":
            torch.save(tensors(json.loads(text.read_text())), text.with_suffix(".pt"))
            text.unlink()
    return run


def counts(command_line: InProcess) -> dict[str, tuple[int, int]]:
    """How many trials of each study are complete and pruned, as `list` says."""
    rows = json.loads(command_line("list", "--json", *HERE).out)
    return {row["name"]: (row["complete"], row["pruned"]) for row in rows}


@pytest.mark.usefixtures("database")
def test_a_study_is_listed_shown_and_reported(command_line: InProcess, tmp_path: Path) -> None:
    assert counts(command_line) == {
        "digits-mlp": (4, 2),
        "digits-mlp/confirm": (6, 0),
        "digits-mlp/test": (6, 0),
        "digits-cnn": (2, 0),
    }
    assert (
        "confirmed: leaky_relu learned from 0.186 (at most 1)"
        in command_line("show", "digits-mlp", *HERE).out
    )
    assert "opened once, on 2026-11-24" in command_line("show", "digits-mlp/confirm", *HERE).out
    learned = command_line("show", "digits-mlp", "--trial", "4", *HERE)
    assert learned.code == 0, learned.err
    assert "slope_mode        learnable" in learned.out
    assert "the diagnostics were made by an earlier version" in learned.out
    assert "pruned" in command_line("show", "digits-mlp", "--trial", "5", *HERE).out
    for name in ("digits-mlp", "digits-cnn"):
        told = command_line("report", name, "-o", f"{name}.html", "--data-out", name, *HERE)
        assert told.code == 0, told.err
        page = (tmp_path / f"{name}.html").read_text()
        assert "The gradient, layer by layer" in page
        assert page.count("made by an earlier version, which looked behind the pool") == 2
        assert (tmp_path / name / "dead.csv").is_file()


@pytest.mark.usefixtures("database")
def test_a_trial_is_exported_as_it_was_and_replayed(command_line: InProcess, tmp_path: Path) -> None:
    done = command_line("export", "digits-mlp", "-o", "now.toml", *HERE)
    assert done.code == 0, done.err
    now, before = (tomllib.loads(path.read_text()) for path in (tmp_path / "now.toml", MADE / "best.toml"))
    accuracy = before["origin"]["confirmed"]["val_accuracy"]
    assert accuracy["low"] < 0  # as it was written then, of two seeds
    accuracy |= {"low": 0.0, "high": min(accuracy["high"], 1.0)}
    assert (now["origin"], now["versions"]) == (before["origin"], before["versions"])
    assert now["config"].items() >= before["config"].items()
    for name, trial in (("digits-mlp", "4"), ("digits-mlp", "5"), ("digits-cnn", "0")):
        done = command_line("replay", name, "--trial", trial, "--device", "cpu", *HERE)
        assert done.code == 0, done.err


@pytest.mark.usefixtures("database")
def test_a_confirmation_prints_what_it_has(command_line: InProcess) -> None:
    done = command_line("confirm", "digits-mlp", "--top", "1", "--seeds", "2", *INLINE)
    assert done.code == 0, done.err
    assert "pick: 1, the lowest mean loss" in done.out
    assert "opened once, on 2026-11-24" in done.out
    found = counts(command_line)
    assert found["digits-mlp/confirm"] == (6 + 2 * 2, 0)  # the baselines with their rates tuned are new
    assert found["digits-mlp/test"] == (6, 0)  # and were not tested: the set is not opened again


@pytest.mark.usefixtures("database")
def test_a_study_is_extended_by_a_trial(command_line: InProcess) -> None:
    done = command_line("optimize", "--name", "digits-mlp", "--trials", "7", *INLINE)
    assert done.code == 0, done.err
    assert "to 7 trials, 6 of them finished already" in done.out
    assert sum(counts(command_line)["digits-mlp"]) == 7


@pytest.mark.usefixtures("database")
def test_its_new_trials_keep_the_output_gain_of_the_old_ones(command_line: InProcess) -> None:
    """Or trials of two recipes would be compared under one name; new studies have another gain."""
    store = Store(HERE[1])
    stored = store.read("digits-mlp")
    assert stored.spec.output_gain == "hidden"
    assert {trial.config.output_gain for trial in stored.trials if trial.config} == {"hidden"}
    command_line("optimize", "--name", "digits-mlp", "--trials", "7", *INLINE)
    last = store.read("digits-mlp").trials[-1].config
    assert last is not None
    assert last.output_gain == "hidden"
    assert resolve(check({"dataset": "digits"}), "float32").output_gain == "one"


def test_a_config_file_trains(command_line: InProcess, tmp_path: Path) -> None:
    shutil.copy(MADE / "best.toml", tmp_path)
    done = command_line("train", "best.toml", "--epochs", "1", "--train-size", "64", "--device", "cpu")
    assert done.code == 0, done.err
    assert "test accuracy" in done.out


def test_a_finished_run_predicts_and_tells_its_metrics(command_line: InProcess, tmp_path: Path) -> None:
    run_folder("finished", tmp_path)
    Image.new("L", (28, 28), 128).save(tmp_path / "grey.png")
    done = command_line("predict", "finished", "grey.png")
    assert done.code == 0, done.err
    digit, probability = done.out.removeprefix("grey.png: ").split()
    assert digit == "9"  # as version 0.1.0 said
    assert float(probability) == pytest.approx(0.1593, abs=2e-4)
    again = ("--epochs", "2", "--train-size", "256", "--device", "cpu", "-o", "finished")
    done = command_line("train", "finished/config.toml", *again)
    assert done.code == 0, done.err
    assert "test accuracy 0.1775, loss 2.2842" in done.out


def test_an_unfinished_run_goes_on_from_its_checkpoint(command_line: InProcess, tmp_path: Path) -> None:
    run = run_folder("unfinished", tmp_path)
    again = ("--epochs", "3", "--train-size", "256", "--device", "cpu", "-o", "unfinished")
    done = command_line("train", "unfinished/config.toml", *again)
    assert done.code == 0, done.err
    lines = (run / "curve.csv").read_text().splitlines()[1:]
    losses = [tuple(float(number) for number in line.split(",")[1:3]) for line in lines]
    # What version 0.1.0 gave when it was not stopped.
    assert losses[0] == (2.3437881469726562, 2.2930675285589186)
    expected = [(2.2540, 2.2540), (2.2442, 2.2419)]
    for found, wanted in zip(losses[1:], expected, strict=True):
        assert found == pytest.approx(wanted, rel=1e-3)
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["epochs"] == 3
    assert not (run / "checkpoint.pt").exists()
