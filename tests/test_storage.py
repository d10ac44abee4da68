"""The SQLite file: which are ours, one writer, what is read back."""

import json
import multiprocessing
import os
import sqlite3
import time
import tracemalloc
from pathlib import Path

import optuna
import pytest
from optuna.storages import RDBStorage

from slopesearch.search.space import check, resolve
from slopesearch.search.sqlite import check_database, database_path, only_writer, read_summaries
from slopesearch.search.store import (
    create_or_resume,
    database,
    fingerprint,
    read_spec,
    read_study,
    reading,
    refuse_mixing,
    stored_spec,
)
from slopesearch.search.turns import IN_A_TURN
from slopesearch.wording import RequestError
from tests import synthetic

SPEC = resolve(check({"dataset": "digits"}), "float32")


def make(path: Path, name: str = "study", data_hash: str = "images") -> None:
    with database(path) as storage:
        create_or_resume(
            storage, name, SPEC, data_hash, optuna.samplers.RandomSampler(), optuna.pruners.NopPruner()
        )


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("studies.db", "'studies.db' is not a storage URL; a SQLite file is named like sqlite:///"),
        ("postgresql://u@h/db", "server and in-memory storages are not supported, given 'postgresql"),
        ("sqlite+nothing:///x.db", "needs a driver that is not installed"),
        ("mongodb://u@h/db", "server and in-memory storages are not supported"),
        ("sqlite://", "are not supported, given 'sqlite://'; name one like sqlite:///"),
        ("sqlite:///:memory:", "studies are stored in SQLite files"),
    ],
)
def test_other_storages_are_refused(url: str, sentence: str) -> None:
    with pytest.raises(RequestError) as error:
        database_path(url)
    assert sentence in str(error.value)


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("dear diary " * 1000)
    with pytest.raises(RequestError, match="cannot be read as a SQLite file"):
        check_database(path)
    with pytest.raises(RequestError, match="cannot be read as a SQLite file"):
        check_database(tmp_path)
    assert path.read_text() == "dear diary " * 1000


def test_another_programs_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE songs (name TEXT)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(RequestError, match="of another program"):
        check_database(path)
    assert path.read_bytes() == before


def test_a_folder_that_does_not_exist_is_refused_but_for_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RequestError, match="the storage folder 'nowhere' does not exist"):
        check_database(Path("nowhere/x.db"))
    check_database(Path("studies/x.db"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a{b}.db", "per%20cent.db", "quote'd.db", "ünï.db"])
def test_odd_file_names_work(tmp_path: Path, name: str) -> None:
    make(tmp_path / name)
    assert (tmp_path / name).is_file()
    check_database(tmp_path / name)


def test_the_file_is_in_wal_mode(tmp_path: Path) -> None:
    with database(tmp_path / "x.db") as storage, storage.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 1  # NORMAL
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 60_000


def test_the_spec_comes_back_and_a_new_study_is_marked_last(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    make(path)
    with database(path) as storage:
        assert stored_spec(storage, "study") == SPEC
        assert stored_spec(storage, "another") is None
        attributes = optuna.load_study(study_name="study", storage=storage).user_attrs
        assert attributes["fingerprint"] == fingerprint(attributes["spec"], "images")
        assert set(attributes["versions"]) == {"python", "slopesearch", "optuna", "torch", "torchvision"}
        # Killed while it was being made: no fingerprint, no trials.
        optuna.create_study(study_name="half", storage=storage)
        assert stored_spec(storage, "half") is None


def test_a_study_of_somebody_else_is_refused(tmp_path: Path) -> None:
    with database(tmp_path / "x.db") as storage:
        study = optuna.create_study(study_name="theirs", storage=storage)
        study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
        with pytest.raises(RequestError, match="'theirs' was not made by slopesearch"):
            stored_spec(storage, "theirs")


def test_other_images_are_refused(tmp_path: Path) -> None:
    make(tmp_path / "x.db")
    make(tmp_path / "x.db")
    with pytest.raises(RequestError, match="images differ from those that the study 'study' began with"):
        make(tmp_path / "x.db", data_hash="other images")


def test_mixing_is_refused_field_by_field() -> None:
    refuse_mixing("s", SPEC, check({"epochs": 12}))
    with pytest.raises(RequestError) as error:
        refuse_mixing("s", SPEC, check({"epochs": 5, "seed": 1}))
    assert error.value.sentences[1:3] == ("  epochs: stored 12, given 5", "  seed: stored 0, given 1")
    assert "--name" in error.value.sentences[-1]


def hold(path: Path, ready: "multiprocessing.synchronize.Event") -> None:
    with only_writer(path, "study"):
        ready.set()
        time.sleep(60)


def test_a_second_writer_is_refused_by_name_and_a_dead_one_forgotten(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    holder = context.Process(target=hold, args=(tmp_path / "x.db", ready))
    holder.start()
    assert ready.wait(30)
    with (
        pytest.raises(RequestError, match=rf"written by process {holder.pid} on \S+, since 20"),
        only_writer(tmp_path / "x.db", "study"),
    ):
        pass
    with only_writer(tmp_path / "x.db", "another study"):
        pass
    holder.kill()
    holder.join()
    with only_writer(tmp_path / "x.db", "study"):
        held = json.loads(next(tmp_path.glob("*.json")).read_text())
        assert held["pid"] == os.getpid()


def test_summaries_count_states_and_know_the_direction(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with database(path) as storage:
        for direction in ("minimize", "maximize"):
            study = optuna.create_study(study_name=direction, storage=storage, direction=direction)
            for value in (1.0, 3.0, 2.0):
                study.tell(study.ask(), value)
            pruned = study.ask()
            pruned.report(100.0 if direction == "maximize" else -100.0, 1)
            study.tell(pruned, state=optuna.trial.TrialState.PRUNED)
            study.tell(study.ask(), state=optuna.trial.TrialState.FAIL)
            study.ask()
        optuna.create_study(study_name="empty", storage=storage)
    rows = [tuple(vars(row).values()) for row in read_summaries(f"sqlite:///{path}")]
    assert rows == [
        ("empty", 0, 0, 0, 0, None),
        ("maximize", 3, 1, 1, 1, 3.0),
        ("minimize", 3, 1, 1, 1, 1.0),
    ]


def test_reading_what_is_not_there_says_what_is(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'x.db'}"
    with pytest.raises(RequestError, match="there is no storage"):
        read_summaries(url)
    make(tmp_path / "x.db", "one")
    assert read_study(url, None).name == "one"
    make(tmp_path / "x.db", "two")
    with pytest.raises(RequestError, match="name a study; .* holds one, two"):
        read_study(url, None)
    with pytest.raises(RequestError, match="there is no study 'three'"):
        read_study(url, "three")


def test_an_empty_file_is_no_storage_to_read_but_one_to_fill(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    path.touch()
    with pytest.raises(RequestError, match="cannot be read as a storage of studies"):
        read_summaries(f"sqlite:///{path}")
    check_database(path)
    make(path)
    assert read_study(f"sqlite:///{path}", None).trials == []


def test_an_empty_study_of_the_other_direction_is_refused(tmp_path: Path) -> None:
    with database(tmp_path / "x.db") as storage:
        optuna.create_study(study_name="study", storage=storage)  # minimises
    with pytest.raises(RequestError, match="made to minimize where val_accuracy is to maximize"):
        make(tmp_path / "x.db")


def test_a_study_begun_in_the_meantime_is_not_mixed(tmp_path: Path) -> None:
    make(tmp_path / "x.db")
    other = SPEC.model_copy(update={"epochs": 5})
    with database(tmp_path / "x.db") as storage, pytest.raises(RequestError, match="with other fields"):
        create_or_resume(
            storage, "study", other, "images", optuna.samplers.RandomSampler(), optuna.pruners.NopPruner()
        )


def test_trials_read_in_turns_are_those_that_optuna_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some of which are finished between two reads, and two studies take turns in the file."""
    monkeypatch.setattr("slopesearch.search.turns.IN_A_TURN", 3)
    path = tmp_path / "x.db"
    make(path)
    with database(path) as storage:
        study = optuna.load_study(study_name="study", storage=storage)
        other = optuna.create_study(study_name="other", storage=storage)
        theirs = optuna.load_study(study_name="study", storage=f"sqlite:///{path}")
        running = []
        for number in range(11):
            trial = study.ask()
            other.ask()
            trial.suggest_float("lr", 1e-4, 1e-1, log=True)
            for name in ("val_loss", "curves", "layers"):
                trial.set_user_attr(name, [number])
            running.append(trial)
            if number % 4 == 3:
                study.tell(running.pop(1), number)
            mine, wanted = study.get_trials(deepcopy=False), theirs.get_trials()
            assert [t.number for t in mine] == list(range(number + 1))
            for one, reference in zip(mine, wanted, strict=True):
                kept = {name: value for name, value in reference.user_attrs.items() if name == "val_loss"}
                assert one.user_attrs == kept  # the main process holds no curves
                assert (one.state, one.value, one.params, one.distributions) == (
                    reference.state,
                    reference.value,
                    reference.params,
                    reference.distributions,
                )
    with reading(path) as storage:
        everything = list(storage.in_turns(storage.get_study_id_from_name("study")))
    assert everything == theirs.get_trials()
    assert everything[5].user_attrs["curves"] == [5]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of more than one turn, with trials of every state, beside another."""
    path = tmp_path_factory.mktemp("large") / "x.db"
    make(path, "other")
    synthetic.store(synthetic.study_of(5 * IN_A_TURN - 3), path)
    with database(path) as storage:
        for name in ("other", "digits-cnn"):
            running = optuna.load_study(study_name=name, storage=storage).ask()
            running.report(float("inf"), 1)
    return path


@pytest.mark.parametrize(("known", "above"), [(set(), -1), ({3, 5, 7}, 5), ({3}, IN_A_TURN), (set(), 10**6)])
def test_what_the_cache_asks_for_in_turns_is_what_optuna_reads_at_once(
    large: Path, known: set[int], above: int
) -> None:
    with reading(large) as storage:
        study_id = storage.get_study_id_from_name("digits-cnn")
        at_once = RDBStorage._get_trials(storage, study_id, None, known, above)
        assert storage._get_trials(study_id, None, known, above) == at_once
        assert [trial.number for trial in storage.in_turns(study_id)] == list(range(5 * IN_A_TURN - 2))
        with pytest.raises(KeyError):
            storage.get_all_trials(99)


def test_checking_a_study_before_it_is_resumed_holds_a_turn_of_its_trials(large: Path) -> None:
    read_spec(large, "digits-cnn")  # what is imported at first use
    tracemalloc.start()
    try:
        read_spec(large, "digits-cnn")
        peak = tracemalloc.get_traced_memory()[1]
        everything = read_study(f"sqlite:///{large}", "digits-cnn")
        kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert len(everything.trials) == 5 * IN_A_TURN - 2
    assert peak < 2 * kept  # read at once, five times as much
