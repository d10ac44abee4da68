"""Faults, injected for real: kills, locks, full disks, read-only folders, hangs, memory, mixed questions."""

import os
import re
import resource
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from slopesearch.config import TrialConfig
from slopesearch.search import sqlite, worker
from slopesearch.search.events import Event, Noted, Progressed, Started, Told
from slopesearch.search.launchers import LAUNCHERS
from slopesearch.search.messages import Failed, Message
from slopesearch.search.optimize import optimize
from slopesearch.search.settings import Settings
from slopesearch.search.space import check
from slopesearch.search.sqlite import WalConnection
from slopesearch.search.store import Store
from slopesearch.training.data import Data
from slopesearch.wording import RequestError, StudyFailedError
from tests.conftest import QUICK
from tests.harness import FakeLauncher, Harness, spec
from tests.test_data import write_idx

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LAUNCHERS, "fake", FakeLauncher)


@pytest.fixture
def harness(tmp_path: Path) -> Harness:
    return Harness(tmp_path / "x.db")


def test_a_study_killed_at_random_moments_equals_one_that_was_left_alone() -> None:
    """kill -9 of the main process or its worker; the script checks the file after every kill."""
    script = [sys.executable, str(ROOT / "scripts" / "kill.py")]
    command = [*script, "--kills", "1", "--trials", "7", "--seed", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 kills, 7 trials" in done.stdout


def test_two_processes_may_begin_one_file_at_once(tmp_path: Path) -> None:
    (tmp_path / ".x.db.new").write_bytes(b"left by one that was killed")
    program = (
        "import sys, optuna; from slopesearch.search.store import Store\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "with Store('sqlite:///x.db').open() as storage:\n"
        "    optuna.create_study(study_name=sys.argv[1], storage=storage)"
    )
    makers = [
        subprocess.Popen(
            [sys.executable, "-c", program, name], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for name in ("one", "two")
    ]
    for maker in makers:
        assert maker.stdout is not None
        assert maker.stdout.readline() == b"ready\n"
    for maker in makers:
        maker.communicate(b"go\n", timeout=60)
    assert [maker.returncode for maker in makers] == [0, 0]
    names = [summary.name for summary in Store(f"sqlite:///{tmp_path}/x.db").summaries()]
    assert names == ["one", "two"]
    assert not (tmp_path / ".x.db.new").exists()


def test_a_second_writer_is_refused_another_study_is_not_and_a_dead_one_does_not_block(
    tmp_path: Path, harness: Harness
) -> None:
    command = [sys.executable, "-u", "-m", "slopesearch", "optimize", *QUICK, "--trials", "900"]
    holder = subprocess.Popen(
        [*command, "--storage", harness.store.url], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    next(line for line in holder.stdout if line.startswith("[1/"))
    with pytest.raises(RequestError, match=rf"'digits-mlp' is being written by process {holder.pid} on "):
        harness(900, spec(epochs=2, plan="cover"))
    assert harness(7, name="another").finished == 7
    told = next(line for line in holder.stdout if line.startswith("["))  # it has gone on meanwhile
    holder.kill()
    holder.wait()
    holder.stdout.close()
    done = harness.study("digits-mlp").count("COMPLETE") + harness.study("digits-mlp").count("PRUNED")
    assert done >= int(told[1 : told.index("/")])
    assert harness(done + 1, spec(epochs=2, plan="cover"), name="digits-mlp").finished == done + 1
    assert harness.study("digits-mlp").count("RUNNING") == 0


@contextmanager
def locked(path: Path, seconds: float) -> Iterator[None]:
    """Another process holds the file's write lock, for so long or as long as the block."""
    program = (
        "import sqlite3, sys, time; c = sqlite3.connect(sys.argv[1], isolation_level=None); "
        "c.execute('BEGIN IMMEDIATE'); print('held', flush=True); time.sleep(float(sys.argv[2]))"
    )
    command = [sys.executable, "-c", program, str(path), str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        try:
            yield
        finally:
            holder.kill()


def at_report(number: int, step: int, do: Any) -> Any:
    """A listener that does something once, in the middle of a trial."""

    def listen(event: Event) -> None:
        if isinstance(event, Progressed) and (event.number, event.report.step) == (number, step):
            do()

    return listen


def test_a_locked_file_delays_and_loses_nothing(tmp_path: Path, harness: Harness) -> None:
    whole = Harness(tmp_path / "whole.db")
    whole(8)
    lock = locked(tmp_path / "x.db", 3)
    started = time.monotonic()
    assert harness(8, listen=at_report(3, 4, lock.__enter__)).finished == 8
    assert time.monotonic() - started > 2.5
    lock.__exit__(None, None, None)
    assert harness.table() == whole.table()


@pytest.mark.parametrize(
    ("fault", "said"), [("lock", "database is locked"), ("full", "database or disk is full")]
)
def test_a_file_that_cannot_be_written_stops_the_study_which_goes_on_afterwards(
    fault: str, said: str, tmp_path: Path, harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Harness(tmp_path / "whole.db")
    whole(8)
    lock = locked(tmp_path / "x.db", 600)
    with monkeypatch.context() as patch:
        patch.setattr(sqlite, "BUSY_TIMEOUT", 0.2)
        if fault == "full":

            class Full(WalConnection):
                def __init__(self, *args: Any, **kwargs: Any) -> None:
                    super().__init__(*args, **kwargs)
                    self.execute("PRAGMA max_page_count = 1")  # that is: no page more than there are

            patch.setattr(sqlite, "WalConnection", Full)
        listen = at_report(3, 4, lock.__enter__ if fault == "lock" else lambda: None)
        with pytest.raises(StudyFailedError, match=rf"x.db' cannot be written \({said}\); what was finished"):
            harness(8, listen=listen)
    if fault == "lock":
        lock.__exit__(None, None, None)
    assert harness(8).finished == 8
    assert harness.table() == whole.table()


def test_a_disk_that_takes_no_more_stops_the_study_with_a_sentence(tmp_path: Path, harness: Harness) -> None:
    """As a process, with the system's own limit on the size of a file."""
    command = [sys.executable, "-m", "slopesearch", "optimize", *QUICK, "--trials", "300"]
    done = subprocess.run(
        [*command, "--storage", harness.store.url],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000)),
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert re.search(r"error: '.*x\.db' cannot be written \(disk I/O error\); what was finished", done.stderr)
    told = len(re.findall(r"^\[", done.stdout, re.MULTILINE))
    with closing(sqlite3.connect(tmp_path / "x.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert harness(told + 3, spec(epochs=2, plan="cover")).finished == told + 3
    assert told > 0


@contextmanager
def read_only_folder(folder: Path) -> Iterator[None]:
    """The permissions of root do not end at a mode: for root, the file system's own flag."""
    mode = folder.stat().st_mode
    folder.chmod(0o555)
    flagged = False
    if os.geteuid() == 0:
        flagged = (
            shutil.which("chattr") is not None and not subprocess.run(["chattr", "+i", folder]).returncode
        )
    try:
        if os.geteuid() == 0 and not flagged:
            pytest.skip("root may write everywhere, and this file system knows no immutable folders")
        yield
    finally:
        if flagged:
            subprocess.run(["chattr", "-i", folder], check=True)
        folder.chmod(mode)


def test_a_read_only_folder_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    harness = Harness(tmp_path / "folder" / "x.db")
    (tmp_path / "folder").mkdir()
    with (
        read_only_folder(tmp_path / "folder"),
        pytest.raises(RequestError, match="folder' cannot be written"),
    ):
        harness(3)
    harness(3)
    before = {path.name: path.read_bytes() for path in (tmp_path / "folder").iterdir()}
    harness.events.clear()
    with read_only_folder(tmp_path / "folder"):
        assert len(harness.study().trials) == 3  # which may be read
        with pytest.raises(RequestError, match="cannot be written to .*; choose another place"):
            harness(5)
    assert harness.events == []
    assert {path.name: path.read_bytes() for path in (tmp_path / "folder").iterdir()} == before


@pytest.mark.parametrize("fault", ["nan", "lr"])
def test_what_diverges_is_pruned_at_chance_level(
    fault: str, harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    if fault == "nan":
        load = worker._data

        def spoiled(*arguments: Any) -> Data:
            data = load(*arguments)
            images = torch.full_like(data.train_images, float("nan"))
            return Data(images, data.train_labels, data.val_images, data.val_labels)

        monkeypatch.setattr(worker, "_data", spoiled)
    rate = {"lr": 1e6} if fault == "lr" else {}
    harness(2, spec(epochs=2, space={"activation": "relu", "norm": "none", **rate}), launcher="inline")
    rows = [(t.state, t.value, t.ended, t.reports) for t in harness.study().trials]
    assert [row[:3] for row in rows] == [("PRUNED", 0.1, "diverged")] * 2
    assert all(set(reports.values()) == {0.1} for *_, reports in rows)


class Hanging(FakeLauncher):
    """A slot falls silent at its first trial with this activation, until it is ended."""

    def __init__(self, devices: list[str], folder: Path) -> None:
        super().__init__(devices, folder)
        self.reasons: list[tuple[int, str]] = []

    def hangs(self, config: TrialConfig) -> bool:
        return config.activation == "prelu" and self.attempts[config] == 1

    def wait(self, timeout: float) -> tuple[int, Message] | None:
        if self.reasons:
            slot, reason = self.reasons.pop()
            del self.packs[slot]
            return slot, Failed(reason=reason)
        self.order = [s for s in self.order if not any(map(self.hangs, self.packs[s].configs))]
        if not self.order:
            time.sleep(0.01)
            return None
        return super().wait(timeout)

    def end(self, slot: int, reason: str) -> None:
        assert slot not in self.order  # it was silent
        self.reasons.append((slot, reason))


@pytest.mark.parametrize("workers", [1, 3])
def test_a_worker_that_hangs_is_ended_and_its_trial_runs_again_once(
    workers: int, harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LAUNCHERS, "hanging", Hanging)
    assert harness(12, launcher="hanging", workers=workers, hang_timeout=0.1).finished == 12
    study = harness.study()
    assert (len(study.trials), study.count("FAIL")) == (12, 0)
    notes = [event.text for event in harness.events if isinstance(event, Noted)]
    assert any(
        "trial 4 failed (the worker was ended: no message for 0.1 s); it runs again" in n for n in notes
    )
    assert sum(isinstance(event, Started) and event.number == 4 for event in harness.events) == 2


def test_a_worker_that_always_hangs_stops_the_study(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LAUNCHERS, "hanging", Hanging)
    monkeypatch.setattr(Hanging, "hangs", lambda self, config: True)
    with pytest.raises(StudyFailedError, match="no message for 0.05 s\n3 faults in a row"):
        harness(20, launcher="hanging", pack=16, hang_timeout=0.05)
    assert sum(isinstance(event, Started) for event in harness.events) <= 16 + 8 + 4 + 2 + 4 + 2 + 1


class Cramped(FakeLauncher):
    """Memory for so many at once."""

    room = 5

    def wait(self, timeout: float) -> tuple[int, Message] | None:
        slot = self.order[0]
        if len(self.packs[slot].configs) <= self.room:
            return super().wait(timeout)
        del self.packs[self.order.pop(0)]
        return slot, Failed(reason="Traceback\nOutOfMemoryError: tried", out_of_memory=True)


@pytest.mark.parametrize(("room", "sizes"), [(5, [16, 8, 4, 4, 8, 4, 4, 4, 4, 4]), (1, None)])
def test_what_does_not_fit_into_memory_is_halved(
    room: int, sizes: list[int] | None, harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Cramped, "room", room)
    given: list[int] = []

    class Counted(Cramped):
        def start(self, slot: int, configs: Sequence[TrialConfig]) -> None:
            given.append(len(configs))
            super().start(slot, configs)

    monkeypatch.setitem(LAUNCHERS, "cramped", Counted)
    assert harness(28, launcher="cramped", pack=16).finished == 28
    assert harness.study().count("FAIL") == 0
    assert sorted(event.number for event in harness.events if isinstance(event, Told)) == list(range(28))
    assert sizes in (None, given)


def test_what_does_not_fit_alone_is_a_fail_with_its_reason(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LAUNCHERS, "cramped", Cramped)
    monkeypatch.setattr(Cramped, "room", 0)
    with pytest.raises(StudyFailedError, match="OutOfMemoryError: tried\n3 faults in a row"):
        harness(28, launcher="cramped", pack=2)
    trials = harness.study().trials
    assert [trial.ended for trial in trials if trial.state == "FAIL"] == [
        "failed: OutOfMemoryError: tried"
    ] * 2


ASKED = {"epochs": 4, "train_size": 500, "val_size": 300, "space": {"lr": {"low": 1e-3, "high": 1e-2}}}


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"dataset": "mnist"}, "dataset: stored digits, given mnist"),
        ({"split_seed": 1}, "split_seed: stored 0, given 1"),
        ({"train_size": 600}, "train_size: stored 500, given 600"),
        ({"val_size": 200}, "val_size: stored 300, given 200"),
        ({"epochs": 3}, "epochs: stored 4, given 3"),
        ({"batch_size": 64}, "batch_size: stored 128, given 64"),
        ({"model": "cnn"}, "model: stored mlp, given cnn"),
        ({"objective": "val_loss"}, "objective: stored val_accuracy, given val_loss"),
        ({"slope_clamp": "forward"}, "slope_clamp: stored project, given forward"),
        ({"slope_min": 0.01}, "slope_min: stored 0.001, given 0.01"),
        ({"pruner": "none"}, "pruner: stored halving, given none"),
        ({"seed": 3}, "seed: stored 0, given 3"),
        ({"space": {"lr": 1e-3}}, "space.lr: stored 0.001 to 0.01, given 0.001"),
        ({"space": {"norm": "none"}}, "space.norm: stored none, before, after, given none"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_another_question_under_the_same_name_is_refused(
    fields: dict[str, Any], line: str, harness: Harness, asked: Path
) -> None:
    shutil.copy(asked, harness.store.url.removeprefix("sqlite:///"))
    with pytest.raises(RequestError) as error:
        harness(5, check({**ASKED, **fields}), name="it's")
    assert error.value.sentences == (
        "the study 'it's' was asked something else:",
        f"  {line}",
        "to extend it, leave these out and type --name 'it'\"'\"'s' --trials N; "
        "to start another study, add --name 'it'\"'\"'s-2'",
    )
    assert len(harness.study().trials) == 2


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of two trials."""
    path = tmp_path_factory.mktemp("asked") / "x.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(LAUNCHERS, "fake", FakeLauncher)
        Harness(path)(2, spec(**ASKED), name="it's")
    return path


def test_what_is_harmless_extends_it(harness: Harness, asked: Path) -> None:
    shutil.copy(asked, harness.store.url.removeprefix("sqlite:///"))
    settings: dict[str, Any] = {
        "workers": 3,
        "devices": "cpu,cpu",
        "timeout": 60.0,
        "pack": 2,
        "hang_timeout": 60.0,
    }
    assert harness(7, check({}), name="it's", **settings).finished == 7


def test_other_images_under_the_same_name_are_refused_and_the_same_elsewhere_are_not(
    tmp_path: Path,
) -> None:
    def run(folder: str, trials: int) -> None:
        settings = Settings(tmp_path / folder, "cpu", launcher="fake")
        optimize(question, trials=trials, store=Store(f"sqlite:///{tmp_path}/x.db"), settings=settings)

    question = check({"dataset": "fashion-mnist", "model": "mlp"})
    write_idx(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "moved")
    shutil.move(tmp_path / "one", tmp_path / "other")
    run("moved", 1)
    labels = tmp_path / "other" / "FashionMNIST" / "raw" / "train-labels-idx1-ubyte"
    content = bytearray(labels.read_bytes())
    content[-1] = 0
    labels.write_bytes(content)
    with pytest.raises(
        RequestError, match=r"SHA-256: stored (\w{64}), given (?!\1)\w{64}\nto extend it, name"
    ):
        run("other", 2)
    run("moved", 2)
