"""What optuna-dashboard finds: notes on the search and on its verdict, and importances without an error."""

import json
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna_dashboard import get_note

from slopesearch.evidence.results import pick
from slopesearch.report.dashboard import annotate, annotate_all
from slopesearch.search.launchers import LAUNCHERS
from slopesearch.search.records import VERDICTS, StudyRecord
from slopesearch.search.store import Store
from tests.conftest import InProcess
from tests.harness import FakeLauncher, Harness
from tests.synthetic import store, study_of
from tests.test_answers_panel import ARMS, compared
from tests.test_browser import free_port
from tests.test_made_before import HERE, INLINE, MADE
from tests.test_verdicts import answer_of, side_of


def note_of(place: Store, name: str) -> str:
    with place.open() as storage:
        return str(get_note(optuna.load_study(study_name=name, storage=storage)))


@pytest.fixture
def verdict(tmp_path: Path) -> Store:
    """A search with a confirmation and a comparison."""
    path = tmp_path / "x.db"
    search = study_of(30)
    store(search, path)
    store(study_of(4, name="digits-cnn/confirm"), path)
    store(study_of(4, name="digits-cnn/compare"), path)
    place = Store(f"sqlite:///{path}")
    number = next(t.number for t in search.trials if t.number not in (search.best().number, 0))
    arms = [row.model_copy(update={"arm": row.arm.model_copy(update={"trial": number})}) for row in ARMS[:1]]
    confirmed = [row.model_dump(mode="json") for row in [*arms, *ARMS[1:]]]
    place.set_attributes("digits-cnn/confirm", {"confirmed": confirmed})
    found = answer_of(side_of("default", 1, 0.01, 0), side_of("lsuv", 1.2, 0.01, 1), question="init")
    place.set_attributes("digits-cnn/compare", compared(found).attributes)
    return place


def test_the_note_opens_with_the_finding_and_names_what_is_left_to_run(
    verdict: Store, tmp_path: Path
) -> None:
    annotate_all(verdict, "digits-cnn")
    note = note_of(verdict, "digits-cnn")
    best = pick(ARMS)
    config = "gelu, BatchNorm before it, kaiming_normal init, lr 0.01"
    assert note.startswith(f"The pick: {config}. Validation accuracy {best.val_accuracy.mean:.4f} (")
    assert "- **Which init?** default (settled). Against default: lsuv worse, loss +" in note
    assert "confirm digits-cnn" not in note
    assert "slopesearch compare" not in note
    assert "optimize --name digits-cnn --trials" in note
    fresh = tmp_path / "y.db"
    store(study_of(30), fresh)
    alone = Store(f"sqlite:///{fresh}")
    annotate_all(alone, "digits-cnn")
    note = note_of(alone, "digits-cnn")
    assert note.startswith("The best trial so far, ")
    assert "slopesearch confirm digits-cnn --storage" in note
    assert "slopesearch compare digits-cnn --storage" in note


def test_the_best_trial_and_the_pick_have_a_note_each(verdict: Store) -> None:
    study = verdict.read("digits-cnn", "dashboard")
    annotate(verdict, study)
    number = verdict.read("digits-cnn").attributes["noted_trials"][1]
    with verdict.open() as storage:
        stored = optuna.load_study(study_name="digits-cnn", storage=storage)
        notes = {t.number: get_note(optuna.trial.Trial(stored, t._trial_id)) for t in stored.trials}
    told = {n: note for n, note in notes.items() if note}
    assert set(told) == {study.best().number, number}
    assert told[study.best().number].startswith("**The best trial of the search.**")
    assert "so far" not in told[study.best().number]
    assert told[number].startswith("**The confirmed pick.**\n\nThe pick: gelu")


def test_studies_of_a_verdict_say_that_their_trials_are_seeds(verdict: Store) -> None:
    annotate_all(verdict, "digits-cnn")
    for part, words in (("confirm", "The pick: gelu"), ("compare", "- **Which init?** default (settled)")):
        note = note_of(verdict, f"digits-cnn/{part}")
        assert note.startswith(words)
        assert "Its 4 trials are seeds, not candidates" in note
        assert f"python -m slopesearch show digits-cnn/{part} --storage" in note


@contextmanager
def dashboard(url: str, log: Path) -> Iterator[str]:
    """The real server on a storage; its address."""
    port = free_port()
    command = [sys.executable, "-m", "slopesearch", "dashboard", "--port", str(port), "--storage", url]
    with log.open("w") as out:
        server = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
        try:
            address = f"http://127.0.0.1:{port}"
            deadline = time.monotonic() + 60
            while True:
                try:
                    urllib.request.urlopen(f"{address}/api/meta", timeout=10).close()
                    break
                except OSError:
                    assert time.monotonic() < deadline
                    time.sleep(0.2)
            yield address
        finally:
            server.terminate()
            server.wait(10)


def fetched(address: str) -> Any:
    with urllib.request.urlopen(address, timeout=30) as answer:
        return json.load(answer)


def test_a_server_that_is_asked_all_the_while_stops_no_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LAUNCHERS, "fake", FakeLauncher)
    harness = Harness(tmp_path / "x.db")
    harness(2)
    seen: list[int] = []
    ended = threading.Event()
    with dashboard(harness.store.url, tmp_path / "log") as address:

        def ask() -> None:
            while not ended.is_set() or not seen or seen[-1] < 60:
                seen.append(len(fetched(f"{address}/api/studies/1?after=0")["trials"]))

        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        harness(60, workers=4)
        ended.set()
        asking.join(60)  # it keeps what it has read for some seconds
        assert not asking.is_alive()
    assert seen == sorted(seen)
    assert harness.study().count("COMPLETE") + harness.study().count("PRUNED") == 60


def test_a_verdict_has_importances_and_parameters(command_line: InProcess, tmp_path: Path) -> None:
    """Version 0.1.0 stored no parameters of planned runs, on which the dashboard's server fails."""
    path = tmp_path / "before.db"
    connection = sqlite3.connect(path)
    connection.executescript((MADE / "studies.sql").read_text())
    connection.close()
    done = command_line("confirm", "digits-mlp", "--top", "1", "--seeds", "2", *INLINE)
    assert done.code == 0, done.err
    place = Store(HERE[1])
    known: dict[str, StudyRecord] = {s.name: place.read(s.name) for s in place.summaries()}
    with dashboard(f"sqlite:///{path}", tmp_path / "log") as address:
        studies = fetched(f"{address}/api/studies")["study_summaries"]
        assert {study["study_name"] for study in studies} == set(known)
        for study in studies:
            number = study["study_id"]
            (importances,) = fetched(f"{address}/api/studies/{number}/param_importances")["param_importances"]
            assert importances
            if not study["study_name"].endswith(VERDICTS):
                continue
            trials = fetched(f"{address}/api/studies/{number}?after=0")["trials"]
            for trial in trials:
                config = known[study["study_name"]].trial(trial["number"]).config
                assert config is not None
                shown = {one["name"]: one["param_external_value"] for one in trial["params"]}
                assert shown["activation"] == config.activation
                assert float(shown["lr"]) == config.lr
    assert '" 500 ' not in (tmp_path / "log").read_text()
