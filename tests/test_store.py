"""The studies of a storage: made, marked, refused, read back."""

import sqlite3
import tracemalloc
from contextlib import closing
from pathlib import Path

import optuna
import pytest
from sqlalchemy.engine import URL

from slopesearch.search.records import COMPARE, CONFIRM, TEST, TUNE
from slopesearch.search.space import check, resolve
from slopesearch.search.store import Store, check_name, create_or_resume, fingerprint, refuse_mixing
from slopesearch.wording import RequestError
from tests import synthetic
from tests.conftest import Storages

SPEC = resolve(check({"dataset": "digits"}), "float32")


def make(url: str, name: str = "study", data_hash: str = "images") -> None:
    with Store(url).writing(name) as storage:
        create_or_resume(storage, name, SPEC, data_hash)


@pytest.mark.parametrize("name", ["a{b}.db", "per%20cent.db", "quote'd.db", "ünï.db"])
def test_odd_file_names_work(tmp_path: Path, name: str) -> None:
    url = URL.create("sqlite", database=str(tmp_path / name)).render_as_string()
    make(url)
    assert (tmp_path / name).is_file()
    Store(url).check_writable()


def test_the_spec_comes_back_and_a_new_study_is_marked_last(storages: Storages) -> None:
    url = storages.url()
    make(url)
    assert Store(url).spec_of("study") == SPEC
    assert Store(url).spec_of("another") is None
    with Store(url).open() as storage:
        attributes = optuna.load_study(study_name="study", storage=storage).user_attrs
        assert attributes["fingerprint"] == fingerprint(attributes["spec"], "images")
        assert set(attributes["versions"]) == {"python", "slopesearch", "optuna", "torch", "torchvision"}
        # Killed while it was being made: no fingerprint, no trials.
        optuna.create_study(study_name="half", storage=storage)
        assert Store(url).spec_of("half") is None


def test_a_study_of_somebody_else_is_refused(storages: Storages) -> None:
    with Store(storages.url()).open() as storage:
        study = optuna.create_study(study_name="theirs", storage=storage)
        study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    with pytest.raises(RequestError, match="'theirs' was not made by slopesearch"):
        Store(storages.url()).spec_of("theirs")


def test_other_images_are_refused(storages: Storages) -> None:
    make(storages.url())
    make(storages.url())
    with pytest.raises(RequestError, match="images differ from those that the study 'study' began with"):
        make(storages.url(), data_hash="other images")


def test_mixing_is_refused_field_by_field() -> None:
    refuse_mixing("s", SPEC, check({"epochs": 12}))
    with pytest.raises(RequestError) as error:
        refuse_mixing("s", SPEC, check({"epochs": 5, "seed": 1}))
    assert error.value.sentences[1:3] == ("  epochs: stored 12, given 5", "  seed: stored 0, given 1")
    assert "--name" in error.value.sentences[-1]


@pytest.mark.parametrize(
    ("end", "command"), [(CONFIRM, "confirm"), (TEST, "confirm"), (COMPARE, "compare"), (TUNE, "compare")]
)
def test_a_name_that_a_command_would_give_is_refused_and_no_other(end: str, command: str) -> None:
    with pytest.raises(RequestError, match=f"'s{end}' is what `{command}` would call its own study; choose"):
        check_name(f"s{end}")
    check_name(f"s{end}-2")


def test_a_trial_is_found_by_its_number_alone() -> None:
    study = synthetic.study_with(*(synthetic.record(n, "COMPLETE", 0.9) for n in (0, 2, 5)))
    assert [found and found.number for found in map(study.find, range(7))] == [
        0,
        None,
        2,
        None,
        None,
        5,
        None,
    ]
    assert study.trial(2) is study.trials[1]
    with pytest.raises(RequestError, match="has 3 trials, numbered from 0; given 1"):
        study.trial(1)


def test_reading_what_is_not_there_says_what_is(storages: Storages) -> None:
    url = storages.url(empty=True)
    ours = Store(url)
    with pytest.raises(RequestError, match="there is no storage"):
        ours.summaries()
    assert (ours.find("one"), ours.spec_of("one")) == (None, None)
    ours.check_writable()
    make(url, "one")
    assert ours.read().name == "one"
    make(url, "two")
    with pytest.raises(RequestError, match="name a study; .* holds one, two"):
        ours.read()
    with pytest.raises(RequestError, match="there is no study 'three'"):
        ours.read("three")


def test_an_empty_file_is_no_storage_to_read_but_one_to_fill(tmp_path: Path) -> None:
    path, url = tmp_path / "x.db", f"sqlite:///{tmp_path}/x.db"
    path.touch()
    with pytest.raises(RequestError, match="cannot be read as a storage of studies"):
        Store(url).summaries()
    Store(url).check_writable()
    make(url)
    assert Store(url).read().trials == []


def test_a_study_is_not_looked_for_in_a_file_of_another_program(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "x.db")) as connection:
        connection.execute("CREATE TABLE books (title TEXT)")
    with pytest.raises(RequestError, match="x.db' is a SQLite file of another program"):
        Store(f"sqlite:///{tmp_path}/x.db").find("study")


def test_an_empty_study_of_the_other_direction_is_refused(storages: Storages) -> None:
    with Store(storages.url()).open() as storage:
        optuna.create_study(study_name="study", storage=storage)  # minimises
    with pytest.raises(RequestError, match="made to minimize where val_accuracy is to maximize"):
        make(storages.url())


def test_a_study_begun_in_the_meantime_is_not_mixed(storages: Storages) -> None:
    make(storages.url())
    other = SPEC.model_copy(update={"epochs": 5})
    with Store(storages.url()).open() as storage, pytest.raises(RequestError, match="with other fields"):
        create_or_resume(storage, "study", other, "images")


def test_what_a_command_line_has_to_say_of_a_storage() -> None:
    assert Store().option == ""
    assert Store("sqlite:///a b.db").option == " --storage 'sqlite:///a b.db'"


def test_attributes_are_stored_over_those_of_the_same_names(storages: Storages) -> None:
    make(storages.url())
    ours = Store(storages.url())
    for value in ({"n": 1}, [2]):
        ours.set_attributes("study", {"confirmed": value})
    assert ours.read().attributes["confirmed"] == [2]
    with (
        ours.writing("study"),
        pytest.raises(RequestError, match="'study' is being written by"),
    ):
        ours.set_attributes("study", {"confirmed": 3})
    with pytest.raises(RequestError, match="the study 'another' is no longer in '(sqlite|postgresql)"):
        ours.set_attributes("another", {"confirmed": 3})
    with pytest.raises(RequestError, match="there is no storage"):
        Store(storages.url("gone", empty=True)).set_attributes("study", {"confirmed": 3})
    with pytest.raises(RequestError, match="there is no storage"):
        Store(storages.url("gone")).summaries()


def test_a_study_of_an_earlier_version_with_a_pruner_that_is_gone_is_read(storages: Storages) -> None:
    with Store(storages.url()).writing("old") as storage:
        create_or_resume(storage, "old", SPEC.model_copy(update={"pruner": "hyperband"}), "images")
    assert Store(storages.url()).read().spec.pruner == "hyperband"


def test_checking_a_study_before_it_is_resumed_holds_few_of_its_trials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slopesearch.search.rows.AT_ONCE", 10)
    ours = Store(f"sqlite:///{tmp_path}/x.db")
    synthetic.store(synthetic.study_of(100), ours.url)
    ours.spec_of("digits-cnn")  # what is imported at first use
    tracemalloc.start()
    try:
        ours.spec_of("digits-cnn")
        peak = tracemalloc.get_traced_memory()[1]
        everything = ours.read("digits-cnn")
        kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert len(everything.trials) == 100
    assert 3 * peak < kept


def test_a_deterministic_study_goes_on_as_such_alone(storages: Storages) -> None:
    spec = synthetic.spec_of()
    with Store(storages.url()).open() as storage:
        create_or_resume(storage, "s", spec, "images", deterministic=True)
        create_or_resume(storage, "s", spec, "images", deterministic=True)
        with pytest.raises(RequestError) as error:
            create_or_resume(storage, "s", spec, "images")
        assert str(error.value) == (
            "the study 's' is deterministic, and without --deterministic it would be so no longer: add that "
            "to go on with it, or start another study: add --name s-2"
        )
        create_or_resume(storage, "free", spec, "images")
        create_or_resume(storage, "free", spec, "images", deterministic=True)  # as those made before the mark
        create_or_resume(storage, "free", spec, "images")
