"""The rows of a study: what Optuna would read, as much as is asked for, and each trial checked by itself."""

import gc
import json
import sqlite3
from contextlib import closing
from math import inf
from pathlib import Path

import optuna
import pytest

from slopesearch.config import REPORTS
from slopesearch.evidence.health import health
from slopesearch.evidence.pruning import first_judged, judged
from slopesearch.evidence.selection import believed
from slopesearch.report.answers_panel import cards
from slopesearch.report.dashboard import ATTACHED
from slopesearch.report.page import tables_of
from slopesearch.report.summary import NO_VERDICTS
from slopesearch.search.records import BULKY, GIVEN, TAKEN, UnreadableError
from slopesearch.search.rows import (
    AT_ONCE,
    Extent,
    TrialRows,
    _holds,
    collector_at_rest,
    params_of,
    read_rows,
    record_of,
    reports_of,
)
from slopesearch.search.sqlite import SqliteFile
from slopesearch.search.store import Store
from slopesearch.wording import RequestError
from tests import synthetic
from tests.conftest import Storages, make_config

STUDY = synthetic.study_of(12)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of twelve trials, its eighth failed and its last unfinished, beside another study."""
    path = tmp_path_factory.mktemp("rows") / "x.db"
    synthetic.store(synthetic.study_of(12, "other", seed=1), path)
    synthetic.store(STUDY, path)
    with SqliteFile(path).writing() as storage:
        running = optuna.load_study(study_name=STUDY.name, storage=storage).ask()
        running.report(0.5, 1)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
    return path


@pytest.mark.parametrize("at_once", [3, AT_ONCE])
def test_the_rows_are_those_that_optuna_reads(
    storages: Storages, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr("slopesearch.search.rows.AT_ONCE", at_once)
    synthetic.store(synthetic.study_of(12, "other", seed=1), storages.url())
    synthetic.store(STUDY, storages.url())
    kept_in, optunas = Store(storages.url())._kept_in, optuna.storages.RDBStorage(storages.url())
    stored = optuna.load_study(study_name=STUDY.name, storage=optunas)
    stored.ask().report(0.5, 1)
    rows = kept_in.read(lambda reader: list(read_rows(reader, stored._study_id, "whole")))
    trials = stored.get_trials()
    optunas.engine.dispose()
    found = [(record_of(row, STUDY.spec, "whole"), params_of(row)) for row in rows]
    for (record, params), trial in zip(found, trials, strict=True):
        assert (record.number, record.state, record.value) == (trial.number, trial.state.name, trial.value)
        flat = {name: value for name, value in trial.user_attrs.items() if name not in BULKY}
        assert (record.reports, record.attributes) == (trial.intermediate_values, flat)
        curves, layers = (trial.user_attrs.get(name) for name in BULKY)
        assert [json.loads(report.model_dump_json()) for report in record.curve] == (curves or [])
        assert layers == (record.diagnostics and json.loads(record.diagnostics.model_dump_json()))
        assert params == trial.params


@pytest.mark.parametrize("extent", ["ranking", "dashboard", "flat", "page"])
def test_no_more_is_read_than_is_asked_for(path: Path, extent: Extent) -> None:
    store = Store(f"sqlite:///{path}")
    record = store.read(STUDY.name, extent)
    whole = store.whole(record, record.trials)
    assert store.whole(record, []) == []
    for trial, all_of_it in zip(record.trials, whole, strict=True):
        same = ("number", "state", "value", "config")
        assert all(getattr(trial, name) == getattr(all_of_it, name) for name in same)
        assert trial.reports == ({} if extent in ("ranking", "dashboard") else all_of_it.reports)
        named = ["ended", "val_loss", "would_prune_at", "pruned_by"]
        named += ["seconds", "device"] if extent == "dashboard" else []
        is_drawn = extent in ("dashboard", "page")
        draws_curve = is_drawn and trial.state == "COMPLETE" and all_of_it.curve[-1].slopes
        assert trial.curve == (all_of_it.curve if draws_curve else ())
        assert trial.diagnostics == (all_of_it.diagnostics if is_drawn else None)
        wanted = {key: value for key, value in all_of_it.attributes.items() if key != "config"}
        some = {key: wanted[key] for key in named if key in wanted}
        assert trial.attributes == (some if extent in ("ranking", "dashboard") else wanted)


@pytest.mark.parametrize("extent", ["ranking", "dashboard", "page"])
def test_what_is_concluded_does_not_depend_on_how_much_is_read(extent: Extent, tmp_path: Path) -> None:
    made = synthetic.study_of(80, "begun", plan="cover")
    for trial in made.trials[:20]:
        trial.attributes[TAKEN] = f"old, trial {trial.number}"
    made.trials[40].attributes[GIVEN] = True
    synthetic.store(made, tmp_path / "x.db")
    store = Store(f"sqlite:///{tmp_path / 'x.db'}")
    whole, some = store.read(made.name), store.read(made.name, extent)
    assert first_judged(whole) == first_judged(some) > first_judged(synthetic.study_of(80, plan="cover"))
    assert [t.number for t in judged(whole)] == [t.number for t in judged(some)] != []
    assert health(whole) == health(some)
    assert believed(whole) == believed(some)
    if extent != "ranking":
        assert tables_of(whole, ATTACHED) == tables_of(some, ATTACHED)
        assert cards(whole, NO_VERDICTS) == cards(some, NO_VERDICTS)


def _learns(config: object) -> bool:
    return (
        getattr(config, "slope_mode", None) == "learnable" or getattr(config, "activation", None) == "prelu"
    )


def test_a_page_has_the_curve_of_a_learned_slope(path: Path) -> None:
    trials = Store(f"sqlite:///{path}").read("other", "page").trials
    assert any(len(trial.curve) == REPORTS for trial in trials)


def test_texts_that_are_json_only_together_are_none(path: Path) -> None:
    with SqliteFile(path).reading() as connection:
        rows = next(read_rows(connection, 2, "whole"))
    rows.attributes = [("one", "[1"), ("two", "2]"), ("three", "3"), *rows.attributes]
    with pytest.raises(UnreadableError, match=r"its 'one' is '\[1', which is no JSON"):
        record_of(rows, STUDY.spec, "whole")


HUGE = '{"attributes": {"low": 1, "high": ' + 400 * "9" + "}}"
EDITS = {
    "trial_values SET value = 'abc'": "its value is 'abc' ('FINITE'), which is no val_accuracy",
    "trial_values SET value = 1.5": "its value is 1.5",
    "trial_values SET value_type = 'INF_POS'": "('INF_POS'), which is no val_accuracy",
    "trial_values SET objective = 1": "it has values of another objective",
    "trial_values SET trial_id = -1": "it is complete and has no value",
    "trial_intermediate_values SET intermediate_value = NULL": "its report 1 is None",
    "trial_intermediate_values SET step = step + 9": "it has a report 10; there are 1 to 9",
    "trial_params SET param_value = -1": "its parameter 'activation' is -1.0",
    "trial_params SET param_value = 0.5 WHERE param_name = 'lr'": "its parameter 'lr' is 0.5",
    "trial_params SET param_value = 0.02 WHERE param_name = 'lr'": "its config was changed: 'lr' is",
    "trial_params SET param_name = 'abc' WHERE param_name = 'lr'": "its config was changed: 'abc' is None",
    "trial_params SET distribution_json = '{}'": "it has the distribution '{}'",
    f"trial_params SET distribution_json = '{HUGE}'": "it has the distribution '",
    "trial_user_attributes SET value_json = '\"abc\"' WHERE key = 'seconds'": "its seconds is 'abc'",
    "trial_user_attributes SET value_json = '1e400' WHERE key = 'val_loss'": "its val_loss is inf",
    "trial_user_attributes SET value_json = NULL WHERE key = 'device'": "its 'device' is None, which is no",
    "trial_user_attributes SET key = 'other' WHERE key = 'seconds'": "it has no seconds",
    f"trial_user_attributes SET value_json = '{'9' * 400}' WHERE key = 'seconds'": "its seconds is 9999",
    "trial_user_attributes SET value_json = x'5b5d' WHERE key = 'curves'": "its 'curves' is b'[]', which",
    "trial_user_attributes SET value_json = x'5b5d' WHERE key = 'layers'": "its 'layers' is b'[]', which",
    "trial_user_attributes SET value_json = '[{}]' WHERE key = 'curves'": "its curve.0.step cannot be read (",
    "trial_user_attributes SET key = NULL WHERE key = 'seconds'": "it has no seconds",
    "trial_user_attributes SET key = 'other' WHERE key = 'config'": "it has no config",
    "trial_user_attributes SET value_json = '[1]' WHERE key = 'layers'": "its diagnostics cannot be read",
    "trials SET state = 'abc'": "its state is 'abc'",
    "trials SET datetime_complete = 'abc'": "one of its times is 'abc'",
    "trials SET number = -1": "its number is -1",
    "trials SET number = 0": "another trial has its number",
}


@pytest.mark.parametrize("edit", EDITS)
def test_a_trial_that_was_edited_is_named_and_the_others_are_read(
    edit: str, path: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "x.db"
    copy.write_bytes(path.read_bytes())
    statement, _, condition = edit.partition(" WHERE ")
    with closing(sqlite3.connect(copy)) as connection, connection:
        last = "SELECT max(trial_id) FROM trials WHERE study_id = 2 AND state = 'COMPLETE'"
        connection.execute(f"UPDATE {statement} WHERE trial_id = ({last}){condition and f' AND {condition}'}")
    record = Store(f"sqlite:///{copy}").read(STUDY.name, "page")
    assert EDITS[edit] in " ".join(record.unreadable.values())
    assert len(record.trials) == 12


def test_a_report_that_is_infinite_is_none_where_no_bound_holds() -> None:
    spec = synthetic.spec_of(objective="val_loss")
    rows = TrialRows(1, 0, "RUNNING", (None, None), reports=[(1, 2.5, "FINITE"), (2, inf, "FINITE")])
    with pytest.raises(UnreadableError, match="its report 2 is inf"):
        reports_of(rows, spec)
    rows.reports.pop()
    assert reports_of(rows, spec) == {1: 2.5}


@pytest.mark.parametrize(("chosen", "is_held"), [(0.3, True), (0.4, True), (0.2, False)])
def test_a_start_that_is_drawn_at_its_bound_or_above_begins_at_the_bound(
    chosen: float, is_held: bool
) -> None:
    config = make_config(slope_mode="learnable", negative_slope=0.3, slope_max=0.3)
    assert _holds(config, "negative_slope", chosen) is is_held


def test_a_study_of_which_no_trial_can_be_read_is_refused(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "x.db"
    copy.write_bytes(path.read_bytes())
    with closing(sqlite3.connect(copy)) as connection, connection:
        connection.execute("UPDATE trials SET state = 'abc'")
    with pytest.raises(RequestError, match="'digits-cnn' was changed: 13 of its trials cannot be read"):
        Store(f"sqlite:///{copy}").read(STUDY.name)


@pytest.mark.parametrize("was_on", [True, False])
def test_the_collector_rests_and_is_afterwards_as_it_was(was_on: bool) -> None:
    try:
        if not was_on:
            gc.disable()
        with collector_at_rest():
            assert not gc.isenabled()
        assert gc.isenabled() == was_on
    finally:
        gc.enable()


def test_a_trial_that_is_gone_is_named(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "x.db"
    copy.write_bytes(path.read_bytes())
    with closing(sqlite3.connect(copy)) as connection, connection:
        connection.execute("DELETE FROM trials WHERE study_id = 2 AND number IN (0, 3, 4, 5)")
        connection.execute("UPDATE trials SET number = 9000000000000000000 WHERE study_id = 2 AND number = 7")
    assert list(Store(f"sqlite:///{copy}").read(STUDY.name).unreadable) == [
        "trial 0",
        "trials 3 to 5",
        "trial 7",
        "trials 13 to 8999999999999999999",
    ]
