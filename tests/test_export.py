"""Config files: what is written is read back equal; what is wrong in one gets a sentence."""

import os
import tomllib
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from slopesearch import load_config
from slopesearch.config import TrialConfig
from slopesearch.evidence.arms import Arm
from slopesearch.evidence.results import ConfirmedArm, confirm_arm
from slopesearch.evidence.statistics import estimate
from slopesearch.nets.activations import ACTIVATIONS
from slopesearch.runs.export import (
    ConfigFile,
    FreshRuns,
    Origin,
    as_toml,
    choose_export,
    read_config_file,
    write_config_file,
)
from slopesearch.search.records import StudyRecord, TrialRecord
from slopesearch.search.space import check, resolve
from slopesearch.wording import RequestError
from tests.conftest import make_config

NAME = 'a study\'s "name" <script> ] [ \\ \x1b[31m \n = 3 🙂'


def make_exported(config: TrialConfig | None = None) -> ConfigFile:
    """A config file with everything in it."""
    confirmed = FreshRuns(runs=3, val_accuracy=estimate([0.9, 0.91, 0.92]), val_loss=estimate([0.1, 0.2]))
    origin = Origin(study=NAME, trial=7, objective="val_accuracy", searched=0.95, confirmed=confirmed)
    return ConfigFile(config=config or make_config(), origin=origin, versions={"torch": "2.15.0"})


def trial(number: int, value: float | None, state: str = "COMPLETE", **changes: Any) -> TrialRecord:
    return TrialRecord(number, state, value, make_config(**changes), {}, {"ended": state.lower()})


STUDY = StudyRecord(
    NAME,
    resolve(check({"dataset": "digits"}), "float32"),
    [
        trial(0, 0.90),
        trial(1, 0.95, activation="elu", lr=1 / 3e2),
        trial(2, 0.99, "PRUNED", activation="tanh"),
    ],
    {"versions": {"torch": "2.0"}},
)


def confirmation() -> StudyRecord:
    rows = []
    for record, losses in zip(STUDY.trials, ((0.1, 0.2), (0.3, 0.4)), strict=False):
        assert record.config is not None
        arm = Arm(roles=("top",), config=record.config, trial=record.number, searched=record.value)
        runs = [
            TrialRecord(0, "COMPLETE", 0.9, None, {}, {"val_accuracy": 0.9, "val_loss": loss})
            for loss in losses
        ]
        rows.append(confirm_arm(arm, runs, "val_accuracy").model_dump(mode="json"))
    return StudyRecord(f"{NAME}/confirm", STUDY.spec, [], {"confirmed": rows})


@pytest.mark.parametrize("mode", ["fixed", "learnable"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_what_is_written_is_read_back_equal(tmp_path: Path, model: str, activation: str, mode: str) -> None:
    if mode == "learnable" and not ACTIVATIONS[activation].has_slope:
        mode = "fixed"
    slope = {"slope_mode": mode} if ACTIVATIONS[activation].has_slope else {}
    exported = make_exported(make_config(model=model, activation=activation, lr=1 / 3e5, **slope))
    write_config_file(exported, tmp_path / "x.toml", force=False)
    assert read_config_file(tmp_path / "x.toml") == exported
    assert load_config(tmp_path / "x.toml") == exported.config
    assert [path.name for path in tmp_path.iterdir()] == ["x.toml"]  # nothing left aside


def test_the_best_of_the_search_and_a_trial_by_its_number() -> None:
    best = choose_export(STUDY, None, None)
    assert (best.origin.trial, best.origin.searched, best.origin.confirmed) == (1, 0.95, None)
    assert best.config == STUDY.trials[1].config
    assert best.versions == {"torch": "2.0"}
    pruned = choose_export(STUDY, None, 2)
    assert (pruned.origin.trial, pruned.origin.searched) == (2, None)  # it never ran to its end
    with pytest.raises(RequestError, match="has 3 trials, numbered from 0; given 3"):
        choose_export(STUDY, None, 3)
    with pytest.raises(RequestError, match="no trial of the study .* has run to its end yet"):
        choose_export(StudyRecord("x", STUDY.spec, []), None, None)


def test_the_confirmed_best_comes_before_the_luckiest() -> None:
    picked = choose_export(STUDY, confirmation(), None)
    assert (picked.origin.trial, picked.origin.searched) == (0, 0.90)
    assert picked.origin.confirmed is not None
    assert picked.origin.confirmed.runs == 2
    assert picked.origin.confirmed.val_loss == estimate([0.1, 0.2])
    by_number = choose_export(STUDY, confirmation(), 1)
    assert by_number.origin.confirmed is not None
    assert by_number.origin.confirmed.val_loss.mean == pytest.approx(0.35)
    assert choose_export(STUDY, confirmation(), 2).origin.confirmed is None


def test_a_file_that_is_there_is_not_overwritten_unless_forced(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text("mine")
    with pytest.raises(
        RequestError, match="is there already; name another with -o, or overwrite it with --f"
    ):
        write_config_file(make_exported(), path, force=False)
    assert path.read_text() == "mine"
    write_config_file(make_exported(), path, force=True)
    assert read_config_file(path) == make_exported()
    with pytest.raises(RequestError, match="is a folder"):
        write_config_file(make_exported(), tmp_path, force=True)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(RequestError, match="pipe' is no regular file, and only such a file is replaced"):
        write_config_file(make_exported(), tmp_path / "pipe", force=True)
    with pytest.raises(RequestError, match="there is no folder"):
        write_config_file(make_exported(), tmp_path / "no" / "x.toml", force=True)


def refused(tmp_path: Path, content: bytes) -> tuple[str, ...]:
    path = tmp_path / "x.toml"
    path.write_bytes(content)
    with pytest.raises(RequestError) as error:
        read_config_file(path)
    return error.value.sentences


def changed(**changes: Any) -> bytes:
    """A config file with some fields of its config changed; None takes one out."""
    data = tomllib.loads(as_toml(make_exported()))
    data["config"] |= changes
    data["config"] = {key: value for key, value in data["config"].items() if value is not None}
    return tomli_w.dumps(data).encode()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"lr": "fast"}, "config.lr: input should be a valid number, given 'fast'"),
        ({"lr": float("inf")}, "config.lr: input should be a finite number, given inf"),
        ({"lr": 0.0}, "config.lr: input should be greater than 0, given 0.0"),
        ({"lr": None}, "config.lr: is missing"),
        ({"lrr": 0.1}, "unknown key 'config.lrr'; choose from dataset, split_seed,"),
        ({"epochs": 10**30}, "config.epochs: input should be less than or equal to 10000, given 1000000"),
        ({"train_size": True}, "config.train_size: input should be a valid integer, given True"),
        ({"model": "__import__('os')"}, "unknown model \"__import__('os')\"; choose from mlp, cnn"),
        ({"dataset": "../../etc"}, "unknown dataset '../../etc'; choose from mnist"),
        ({"activation": "rellu"}, "unknown activation 'rellu'; choose from relu"),
        ({"init": ["he"]}, "config.init: input should be a valid string, given ['he']"),
        ({"depth": None}, "config.depth: is missing; model 'mlp' needs it"),
        ({"model": "cnn"}, "config.depth: model 'cnn' takes none, given 1"),
        ({"negative_slope": None}, "config.negative_slope: is missing; activation 'leaky_relu' needs it"),
        ({"activation": "relu"}, "config.negative_slope: activation 'relu' takes none, given 0.01"),
        ({"slope_max": 0.1}, "config.slope_max: a fixed slope or none takes none, given 0.1"),
        ({"slope_mode": "learnable"}, "config.slope_min: is missing; a learnable slope needs it"),
        (
            {"slope_mode": "learnable", "slope_min": 0.1, "slope_max": 0.1, "slope_clamp": "project"},
            "config.slope_max: must lie above slope_min, given 0.1",
        ),
        ({"train_size": 5000}, "config.train_size: at most 1,000 for digits, given 5,000"),
        (
            {"evaluated_on": "test"},
            "config.evaluated_on: 'validation', or left out; the test set is for the end",
        ),
        ({"batch_size": 4096}, "config.batch_size: at most train_size, which is 512, given 4,096"),
        ({"depth": 1000, "width": 65536}, "config.width: a network of 4,290,"),
    ],
)
def test_a_mistake_in_a_config_file_gets_a_sentence(
    tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    first, *found = refused(tmp_path, changed(**changes))
    assert first.endswith("x.toml' is no config that can be trained:")
    assert any(line.startswith(f"  {sentence}") for line in found), found


def test_all_mistakes_of_a_config_file_are_told_at_once(tmp_path: Path) -> None:
    assert len(refused(tmp_path, changed(lr=-1, model="resnet", epochs=0, hidden=3, norm="batch"))) == 6


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"\xff\xfe\x00", "is not UTF-8 text"),
        (b"config = ", "is not valid TOML"),
        (b"", "config: is missing"),
        pytest.param(b"x = " + b"[" * 5000, "is not valid TOML: it is nested too deeply", id="nested"),
        (b"config = 3\norigin = []\nversions = 'x'", "config: input should be a valid dictionary"),
        (b"[config]\n[config.lr]\nx = 1", "config.lr: input should be a valid number"),
    ],
)
def test_a_file_that_is_no_config_is_refused(tmp_path: Path, content: bytes, sentence: str) -> None:
    assert sentence in "\n".join(refused(tmp_path, content))


def test_a_file_of_50_mb_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "x.toml").open("wb") as file:
        file.truncate(50 * 2**20)
    with pytest.raises(RequestError, match="is no config file: it has more than"):
        load_config(tmp_path / "x.toml")


def test_a_missing_file_is_named() -> None:
    with pytest.raises(RequestError, match="there is no config file 'nowhere.toml'"):
        load_config("nowhere.toml")


def test_no_end_of_an_accuracys_interval_is_above_one() -> None:
    arm = Arm(roles=("top 1",), config=make_config(), trial=1, searched=0.95)
    row = ConfirmedArm(
        arm=arm,
        runs=2,
        diverged=0,
        val_accuracy=estimate([0.9975, 1.0]),
        val_loss=estimate([0.1, 0.2]),
        shrinkage=None,
    )
    assert row.val_accuracy.high > 1
    found = StudyRecord(f"{NAME}/confirm", STUDY.spec, [], {"confirmed": [row.model_dump(mode="json")]})
    fresh = choose_export(STUDY, found, None).origin.confirmed
    assert fresh is not None
    assert (fresh.val_accuracy.high, fresh.val_accuracy.mean) == (1.0, row.val_accuracy.mean)
