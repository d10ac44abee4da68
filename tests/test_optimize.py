"""The loop, driven with fake metrics and with real training: totals, kills at every write, faults."""

import gc
import random
import signal
import tracemalloc
from collections.abc import Callable
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import optuna
import psutil  # type: ignore[import-untyped]
import psycopg
import pytest

from slopesearch.config import REPORTS, Report, TrialConfig
from slopesearch.search.events import Event, Noted, Progressed, Started, Told
from slopesearch.search.given import Given
from slopesearch.search.launchers import LAUNCHERS
from slopesearch.search.pruner import PRUNERS
from slopesearch.search.space import check
from slopesearch.search.sqlite import WalConnection
from slopesearch.seeds import derive
from slopesearch.wording import RequestError, StudyFailedError
from tests.conftest import Storages
from tests.harness import FakeLauncher, Harness, Killed, spec


@pytest.fixture(autouse=True)
def _fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LAUNCHERS, "fake", FakeLauncher)


@pytest.fixture
def harness(tmp_path: Path) -> Harness:
    return Harness(tmp_path / "x.db")


def test_trials_is_the_total(harness: Harness) -> None:
    assert harness(10).finished == 10
    assert len(harness.study().trials) == 10
    assert harness(10).finished == 10
    assert harness(4).finished == 10
    assert harness(25).finished == 25
    study = harness.study()
    assert [trial.number for trial in study.trials] == list(range(25))
    assert study.count("PRUNED") > 5
    assert study.count("COMPLETE") + study.count("PRUNED") == 25


@pytest.mark.parametrize("pruner", PRUNERS)
def test_extending_equals_asking_for_all_at_once(tmp_path: Path, pruner: str) -> None:
    whole, pieces = Harness(tmp_path / "whole.db"), Harness(tmp_path / "pieces.db")
    whole(45, spec(pruner=pruner))
    for total in (1, 17, 22, 45):
        pieces(total, spec(pruner=pruner))
    assert pieces.table() == whole.table()


def test_the_same_seed_gives_the_same_study_and_another_another(tmp_path: Path) -> None:
    tables = []
    for i, seed in enumerate((0, 0, 1)):
        harness = Harness(tmp_path / f"{i}.db")
        harness(30, spec(seed=seed))
        tables.append(harness.table())
    assert tables[0] == tables[1]
    assert tables[0] != tables[2]


def test_the_trials_are_let_go_with_the_study_and_wait_for_no_collector(harness: Harness) -> None:
    gc.collect()
    gc.disable()
    try:
        harness(30)
        assert sum(type(thing) is optuna.trial.FrozenTrial for thing in gc.get_objects()) == 0
    finally:
        gc.enable()


def killed_at(commit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Die instead of the n-th commit to the database."""
    count = 0

    def dying(commit_it: Callable[[Any], None]) -> Callable[[Any], None]:
        def counted(connection: Any) -> None:
            nonlocal count
            count += 1
            if count == commit:
                if isinstance(connection, psycopg.Connection):
                    connection.close()  # as the system does for a process that is gone
                raise Killed
            commit_it(connection)

        return counted

    for kind in (WalConnection, psycopg.Connection):
        monkeypatch.setattr(kind, "commit", dying(kind.commit))


@pytest.mark.parametrize(
    ("storages", "pruner"),
    [
        ("sqlite", "halving"),
        ("sqlite", "median"),
        pytest.param("postgresql", "halving", marks=pytest.mark.postgresql),
    ],
    indirect=["storages"],
)
def test_killed_at_any_write_a_resumed_study_equals_one_that_never_stopped(
    storages: Storages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pruner: str
) -> None:
    asked = spec(pruner=pruner)
    whole = Harness(tmp_path / "whole.db")
    whole(26, asked)
    pieces = Harness(storages.url())
    kills = 0
    # Primes, so that the kills fall on every kind of commit: making the study, asking, reporting, telling.
    for commit in (2, 3, 5, 7, 11, 13, 11, 13, 17, 11, 13, 17, 19, 11, 13, 17):
        with monkeypatch.context() as patch:
            killed_at(commit, patch)
            try:
                pieces(26, asked)
            except Killed:
                kills += 1
    pieces(26, asked)
    assert kills >= 10
    assert pieces.table() == whole.table()


def test_a_killed_study_that_really_trains_equals_one_that_never_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = spec(epochs=2, width=32)
    whole = Harness(tmp_path / "whole.db")
    whole(8, asked, launcher="inline")
    pieces = Harness(tmp_path / "pieces.db")
    for commit in (13, 19, 29):
        with monkeypatch.context() as patch:
            killed_at(commit, patch)
            with pytest.raises(Killed):
                pieces(8, asked, launcher="inline")
    pieces(8, asked, launcher="inline")
    assert pieces.table() == whole.table()


@pytest.mark.parametrize("workers", [2, 3, 8])
def test_slots_are_filled_and_the_total_is_met(harness: Harness, workers: int) -> None:
    harness(40, devices="cpu,cpu", workers=workers)
    started = [event for event in harness.events if isinstance(event, Started)]
    assert {event.slot for event in started} == set(range(workers))
    assert sorted(event.number for event in started) == list(range(40))
    assert harness.study().count("RUNNING") == 0


def test_no_more_workers_than_trials(harness: Harness) -> None:
    harness(3, workers=8)
    assert {event.slot for event in harness.events if isinstance(event, Started)} == {0, 1, 2}


def test_textbook_trials_run_to_their_end_but_take_part_in_the_race(harness: Harness) -> None:
    harness(30)
    study = harness.study()
    assert [trial.state for trial in study.trials[:5]] == ["COMPLETE"] * 5
    assert study.trials[0].config is not None
    assert study.trials[0].config.negative_slope == 0.01
    assert {len(trial.reports) for trial in study.trials[5:]} == {1, 3, 9}
    assert all(len(trial.reports) == 9 for trial in study.trials if trial.state == "COMPLETE")


def test_one_in_twenty_that_the_pruner_would_stop_runs_on_and_is_marked(harness: Harness) -> None:
    harness(60)
    study = harness.study()
    marked = [trial for trial in study.trials if "would_prune_at" in trial.attributes]
    assert marked
    for trial in marked:
        assert derive(study.spec.seed, "audit", trial.number) % 20 == 0
        assert (trial.state, len(trial.reports)) == ("COMPLETE", REPORTS)
        assert trial.attributes["would_prune_at"] in (1, 3)
    stopped = [trial.number for trial in study.trials if trial.state == "PRUNED"]
    assert all(derive(study.spec.seed, "audit", number) % 20 for number in stopped)


def test_what_is_stored_with_a_trial(harness: Harness) -> None:
    harness(2, spec(epochs=2), launcher="inline")
    trial = harness.study().trials[0]
    assert set(trial.attributes) == {
        *("config", "seed", "val_accuracy", "val_loss", "train_loss", "seconds", "images_per_second"),
        *("device", "arithmetic", "ended", "dead_fraction"),  # no attenuation over one hidden layer
    }
    assert trial.diagnostics is not None
    assert trial.diagnostics.dead_fraction == pytest.approx(trial.attributes["dead_fraction"], abs=1e-4)
    assert trial.value == trial.attributes["val_accuracy"] == trial.curve[-1].val_accuracy
    assert [report.val_accuracy for report in trial.curve] == list(trial.reports.values())
    assert list(trial.reports) == list(range(1, 10))
    assert (trial.attributes["device"], trial.ended) == ("cpu", "completed")
    assert trial.attributes["arithmetic"] == harness.study().spec.precision


def test_a_loss_is_minimised(harness: Harness) -> None:
    harness(20, spec(objective="val_loss"))
    ranked = harness.study().ranked()
    assert ranked[0].value == min(trial.value for trial in ranked if trial.value is not None)


def test_divergence_is_pruned_at_chance_and_the_sampler_learns(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    def report(self: FakeLauncher, config: TrialConfig, step: int) -> Report:
        diverged = config.lr > 3e-3
        accuracy = 0.1 if diverged else 0.9 + config.lr
        return Report(step=step, train_loss=1, val_loss=1, val_accuracy=accuracy, diverged=diverged)

    monkeypatch.setattr(FakeLauncher, "report", report)
    harness(70)
    trials = harness.study().trials
    diverged = [trial for trial in trials if trial.ended == "diverged"]
    assert diverged
    assert {(trial.state, trial.value) for trial in diverged} == {("PRUNED", 0.1)}
    share = [sum(t.ended == "diverged" for t in part) / len(part) for part in (trials[5:20], trials[35:])]
    assert share[1] < share[0]


def test_a_fault_is_retried_once(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(self: FakeLauncher, config: TrialConfig, attempt: int) -> str | None:
        return "Traceback\nOSError: gone" if attempt == 1 and config.activation == "prelu" else None

    monkeypatch.setattr(FakeLauncher, "fault", fault)
    harness(20, workers=2)
    study = harness.study()
    assert study.count("FAIL") == 0
    notes = [event.text for event in harness.events if isinstance(event, Noted)]
    assert any("trial 4 failed (OSError: gone); it runs again" in note for note in notes)
    assert sum(isinstance(e, Told) and e.number == 4 for e in harness.events) == 1


def test_a_fault_twice_is_left_as_fail_and_the_rest_goes_on(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault(self: FakeLauncher, config: TrialConfig, attempt: int) -> str | None:
        return "Traceback\nOSError: gone" if config.activation == "prelu" else None

    monkeypatch.setattr(FakeLauncher, "fault", fault)
    assert harness(20, spec(space={"init": "default"}), workers=2).finished == 20
    study = harness.study()
    failed = [trial for trial in study.trials if trial.state == "FAIL"]
    assert failed
    assert {trial.ended for trial in failed} == {"failed: OSError: gone"}
    assert "Traceback" in failed[0].attributes["traceback"]
    assert study.count("COMPLETE") + study.count("PRUNED") == 20


def test_fault_after_fault_stops_the_study(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeLauncher, "fault", lambda *args: "Traceback\nRuntimeError: broken")
    with pytest.raises(
        StudyFailedError, match="RuntimeError: broken\n3 faults in a row on every slot: a bug or"
    ):
        harness(20)
    assert harness.study().count("FAIL") == 2


def interrupt_at(number: int, times: int) -> Any:
    def listen(event: Event) -> None:
        if isinstance(event, Progressed) and event.number == number and event.report.step == 2:
            for _ in range(times):
                signal.raise_signal(signal.SIGINT)

    return listen


@pytest.mark.parametrize(("times", "left_running"), [(1, 0), (2, 2)])
def test_the_first_ctrl_c_lets_trials_finish_and_the_second_leaves_them(
    tmp_path: Path, times: int, left_running: int
) -> None:
    whole, harness = Harness(tmp_path / "whole.db"), Harness(tmp_path / "x.db")
    before = signal.getsignal(signal.SIGINT)
    outcome = harness(20, workers=2, listen=interrupt_at(2, times))
    assert outcome.interrupted
    assert outcome.finished < 20
    assert harness.study().count("RUNNING") == left_running
    assert signal.getsignal(signal.SIGINT) is before
    assert harness(20, workers=2).finished == 20
    assert harness.study().count("RUNNING") == 0
    whole(20, workers=2)
    assert [t.config for t in harness.study().trials[:20]] == [t.config for t in whole.study().trials[:20]]


def test_no_trial_begins_after_the_timeout(harness: Harness) -> None:
    outcome = harness(20, timeout=0.0)
    assert (outcome.finished, outcome.interrupted, outcome.begun) == (0, False, 0)
    assert harness(2).begun == 2
    assert harness(3).begun == 1


def notes(harness: Harness) -> list[str]:
    return [event.text for event in harness.events if isinstance(event, Noted)]


def test_a_study_from_a_file_has_the_files_name(harness: Harness) -> None:
    assert harness(2, source="deep").name == "deep-digits"
    assert harness(3, source="deep").finished == 3
    assert harness(2).name == "digits-mlp"
    assert harness(2, source="deep", name="mine").name == "mine"
    assert harness(3, source="wide", begin_from="digits-mlp").name == "wide-digits"
    assert notes(harness) == [
        "wide-digits begins with 2 of the 2 trials of 'digits-mlp'; --trials counts them"
    ]
    with pytest.raises(RequestError, match="name: a leading '-' would be read as an option"):
        harness(2, source="-deep")


def test_a_study_from_a_file_goes_on_under_the_name_that_it_had_before_files_named_studies(
    harness: Harness,
) -> None:
    harness(3, spec(epochs=5))
    outcome = harness(4, spec(epochs=5), source="deep")
    assert (outcome.name, outcome.finished) == ("digits-mlp", 4)
    assert notes(harness) == [
        "going on with the study 'digits-mlp', which asks the same; for one of this file's own add "
        "--name deep-digits"
    ]
    assert harness(2, spec(epochs=6), source="deep").name == "deep-digits"  # it asks something else
    with pytest.raises(RequestError, match="'deep-digits' was asked something else:\n  epochs: stored 6"):
        harness(5, spec(epochs=5), source="deep")
    assert harness(5, spec(epochs=5), name="digits-mlp", source="deep").finished == 5


@pytest.mark.parametrize("source", [None, "deep"])
def test_a_study_on_the_digits_for_lack_of_mnist_goes_on_without_a_download(
    harness: Harness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str | None
) -> None:
    asked, name = check({"model": "mlp"}), "digits-mlp" if source is None else "deep-digits"
    with monkeypatch.context() as patch:
        patch.setattr("slopesearch.training.data._download", lambda *_: "no route to host")
        harness(2, asked, folder=tmp_path, source=source)
    monkeypatch.setattr("slopesearch.training.data._download", pytest.fail)
    harness.events.clear()
    assert harness(3, asked, folder=tmp_path, source=source).name == name
    assert notes(harness) == [
        f"no MNIST in '{tmp_path}': going on with the study '{name}', on the bundled digits; for MNIST add "
        "--dataset mnist"
    ]
    for given, fields in ((), {"epochs": 3}), (by_hand({"lr": 0.5}), {}):
        with pytest.raises(RequestError):
            harness(4, check({"model": "mlp", **fields}), folder=tmp_path, source=source, given=given)
    with pytest.raises(RequestError, match="does not fit into the study"):
        harness(4, asked, folder=tmp_path, name="new", given=by_hand({"lr": 0.5}))
    with pytest.raises(pytest.fail.Exception):  # MNIST, which is asked for
        harness(3, check({"model": "mlp", "dataset": "mnist"}), folder=tmp_path, source=source)


def by_hand(choices: dict[str, Any]) -> list[Given]:
    return [Given("'mine.toml'", choices, {"dataset": "digits"})]


def test_resuming_takes_the_stored_fields_and_refuses_others(harness: Harness) -> None:
    harness(3, spec(epochs=5, space={"activation": "relu"}))
    harness(5, check({"model": "mlp"}), name="digits-mlp")
    assert harness.study().spec.epochs == 5
    with pytest.raises(RequestError, match="  epochs: stored 5, given 6"):
        harness(6, spec(epochs=6))
    with pytest.raises(RequestError, match="  model: stored mlp, given cnn"):
        harness(6, check({"model": "cnn"}), name="digits-mlp")
    assert len(harness.study().trials) == 5
    harness(2, spec(epochs=6), name="another")
    assert harness.study("another").spec.epochs == 6


def test_a_study_with_a_pruner_that_is_gone_is_read_but_not_gone_on_with(harness: Harness) -> None:
    harness(3)
    with harness.store.writing("digits-mlp") as storage:
        study = optuna.load_study(study_name="digits-mlp", storage=storage)
        study.set_user_attr("spec", {**study.user_attrs["spec"], "pruner": "hyperband"})
    assert harness.study().spec.pruner == "hyperband"
    with pytest.raises(RequestError, match="unknown pruner 'hyperband'; choose from halving, median, none"):
        harness(5)


def test_the_study_is_optunas_own(harness: Harness) -> None:
    harness(25)
    study = optuna.load_study(study_name="digits-mlp", storage=harness.store.url)
    assert study.best_value == harness.study().ranked()[0].value
    assert study.best_trial.number == harness.study().ranked()[0].number
    study._storage._backend.engine.dispose()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"trials": 0}, "trials: at least 1, given 0"),
        ({"name": ""}, "name: a study needs one that is not empty"),
        ({"workers": 0, "pack": -1}, "workers: at least 1, given 0\npack: at least 1, given -1"),
        ({"launcher": "slurm"}, "unknown launcher 'slurm'; choose from inline, process"),
        ({"devices": "cuda:9"}, "there is no device 'cuda:9' here"),
    ],
)
def test_a_wrong_request_writes_nothing(
    harness: Harness, tmp_path: Path, settings: Any, sentence: str
) -> None:
    with pytest.raises(RequestError) as error:
        harness(**{"trials": 5, **settings})
    assert str(error.value).startswith(sentence)
    assert list(tmp_path.iterdir()) == []


def test_a_request_that_does_not_fit_is_refused_before_a_download(
    harness: Harness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slopesearch.search.optimize.find", pytest.fail)
    for fields, sentence in (
        ({"train_size": 60_000}, "train_size: at most 50,000 for mnist"),
        ({"depth": 3}, "takes none, given 3"),
    ):
        with pytest.raises(RequestError, match=sentence):
            harness(5, check(fields))
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_after_the_last_trial_began_is_no_interruption(harness: Harness) -> None:
    assert not harness(3, listen=interrupt_at(2, 1)).interrupted


def test_a_clock_that_is_set_back_and_forward_by_a_day_changes_the_times_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, harness = Harness(tmp_path / "whole.db"), Harness(tmp_path / "x.db")
    whole(25, spec(sampler="random"), workers=3)
    draw = random.Random(0)

    class Clock(datetime):
        @classmethod
        def now(cls, zone: tzinfo | None = None) -> "Clock":
            return super().now(zone) + timedelta(days=draw.choice((-1, 0, 1)))

    for place in ("slopesearch.search.ledger", "optuna.storages._in_memory"):
        monkeypatch.setattr(f"{place}.datetime", Clock)
    harness(12, spec(sampler="random"), workers=3, timeout=3600.0, hang_timeout=3600.0)
    outcome = harness(25, spec(sampler="random"), workers=3, timeout=3600.0, hang_timeout=3600.0)
    assert not outcome.interrupted
    assert [row[:4] for row in harness.table()] == [row[:4] for row in whole.table()]
    study = optuna.load_study(study_name="digits-mlp", storage=harness.store.url)
    durations = [trial.duration for trial in study.get_trials() if trial.duration is not None]
    study._storage._backend.engine.dispose()  # type: ignore[attr-defined]
    assert min(durations) < timedelta(hours=-1)
    assert max(durations) > timedelta(hours=1)


def test_a_long_study_keeps_no_descriptor_little_memory_and_a_small_wal(harness: Harness) -> None:
    wal, process = Path(harness.store.url.removeprefix("sqlite:///") + "-wal"), psutil.Process()
    descriptors, sizes, memory = [process.num_fds()], [], []

    def listen(event: Event) -> None:
        if isinstance(event, Told) and event.number % 50 == 1:
            gc.collect()
            descriptors.append(process.num_fds())
            sizes.append(wal.stat().st_size)
            memory.append(tracemalloc.get_traced_memory()[0])

    tracemalloc.start()
    try:
        harness(310, spec(sampler="random"), listen=listen, workers=4)
    finally:
        tracemalloc.stop()
    descriptors.append(process.num_fds())
    assert descriptors[0] == descriptors[-1]
    assert len(set(descriptors[1:-1])) == 1
    assert sizes[0] < sizes[-1] < 2 * 1000 * 4096  # 12 MB are written; it begins anew after 1,000 pages
    assert (memory[-1] - memory[0]) / 300 < 10_000  # bytes a trial, for what sampler and pruner read of it
