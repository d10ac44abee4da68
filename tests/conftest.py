"""Shared by the tests: small configs, the bundled digits, and the command line as a real process."""

import gc
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import joblib
import pytest
import torch

from slopesearch.cli.main import main
from slopesearch.config import TrialConfig, TrialResult
from slopesearch.training.data import Data, load
from slopesearch.training.engine import Run, train
from tests import server

if TYPE_CHECKING:
    from tests.ray_nodes import Nodes

torch.set_num_threads(1)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell lets what it starts behind an & ignore Ctrl-C, which all processes of the tests would inherit.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One process of tests more than cores: a third of the time each waits for others that start or end."""
    return int(joblib.cpu_count()) + 1


def pytest_collection_finish() -> None:
    """Spare the garbage collector what is there to stay; it took a seventh of the tests' time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU, or a database server, where there is none; and begin with the longest files."""
    longest = ["test_ray.py", "test_cli.py", "test_launchers.py"]  # or one process would wait for them
    items.sort(key=lambda item: longest.index(item.path.name) if item.path.name in longest else len(longest))
    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
        if item.get_closest_marker("postgresql") and not server.is_there():
            item.add_marker(pytest.mark.skip(reason="no PostgreSQL server; apt-get install postgresql"))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say how many tests ran on a PostgreSQL server and a Ray cluster: without them they are skipped."""
    for marker, place in (("postgresql", "a PostgreSQL server"), ("ray", "a Ray cluster")):
        ran, skipped = (
            sum(marker in report.keywords for report in terminalreporter.stats.get(outcome, []))
            for outcome in ("passed", "skipped")
        )
        if ran or skipped:
            terminalreporter.write_line(f"on {place}: {ran} tests passed, {skipped} skipped")


@pytest.fixture(scope="session", autouse=True)
def _schema_is_looked_up_once() -> Iterator[None]:
    """Optuna reads the whole history of its schema whenever a storage is opened: 50 ms of 70."""
    from optuna.storages._rdb.storage import _VersionManager

    look_up: Any = _VersionManager._create_alembic_script
    history: list[Any] = []

    def known(manager: _VersionManager) -> Any:
        if not history:
            history.append(look_up(manager))
        return history[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_VersionManager, "_create_alembic_script", known)
        yield


@pytest.fixture(scope="session")
def postgresql() -> Iterator[server.Server]:
    """A PostgreSQL server, started at first need and stopped at the end."""
    with closing(server.Server()) as running:
        yield running


@dataclass
class Storages:
    """Storages of one kind, made for a test by a name."""

    folder: Path
    server: server.Server | None
    _databases: dict[str, str] = field(default_factory=dict)

    def url(self, name: str = "x", empty: bool = False) -> str:
        """The URL of a storage; without studies at first, and without tables where it is to be empty."""
        if self.server is None:
            return f"sqlite:///{self.folder / name}.db"
        if name not in self._databases:
            self._databases[name] = self.server.create(*(["template1"] if empty else []))
        return self.server.url(self._databases[name])

    def execute(self, url: str, statement: str) -> None:
        """Change a storage as no program of ours does."""
        if self.server is not None:
            self.server.execute(url, statement)
            return
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection, connection:
            connection.execute(statement)

    def close(self) -> None:
        """Remove the databases; the folder of files is pytest's."""
        if self.server is not None:
            for name in self._databases.values():
                self.server.drop(name)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def storages(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storages]:
    """New storages: the same test runs on SQLite and on PostgreSQL."""
    running = request.getfixturevalue("postgresql") if request.param == "postgresql" else None
    with closing(Storages(tmp_path, running)) as made:
        yield made


@pytest.fixture(scope="module")
def nodes() -> "Iterator[Nodes]":
    """A Ray cluster of two nodes on this machine, to which the tests marked ray are connected."""
    from tests.ray_nodes import Nodes

    with closing(Nodes()) as started:
        from slopesearch.search.launchers.ray_cluster import connected

        with connected(started.address):
            yield started


@pytest.fixture(autouse=True)
def _no_traffic(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever would leave this machine is sent to a port of it where nothing listens."""
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")


def make_config(**changes: Any) -> TrialConfig:
    """A small MLP on digits, with some fields changed; activations without a slope lose theirs."""
    fields: dict[str, Any] = {
        "dataset": "digits",
        "split_seed": 0,
        "train_size": 512,
        "val_size": 397,
        "batch_size": 64,
        "epochs": 3,
        "model": "mlp",
        "depth": 1,
        "width": 32,
        "order_seed": 1,
        "precision": "float32",
        "warmup": 0.05,
        "activation": "leaky_relu",
        "negative_slope": 0.01,
        "slope_mode": "fixed",
        "slope_min": None,
        "slope_max": None,
        "slope_clamp": None,
        "norm": "none",
        "init": "kaiming_normal",
        "init_seed": 2,
        "lr": 1e-3,
        "weight_decay": 0.0,
    }
    if changes.get("activation", "leaky_relu") != "leaky_relu":
        fields |= {"negative_slope": None, "slope_mode": None}
    if changes.get("slope_mode") == "learnable":
        fields |= {"slope_min": 1e-3, "slope_max": 0.1, "slope_clamp": "project"}
    if changes.get("model") == "cnn":
        fields |= {"depth": None, "width": None}
    return TrialConfig(**{**fields, **changes})


def drain(run: Run) -> list[TrialResult]:
    """Let a run that has begun go to its end, without pruning."""
    while True:
        try:
            run.send(())
        except StopIteration as end:
            results: list[TrialResult] = end.value
            return results


def run_to_end(config: TrialConfig, data: Data) -> TrialResult:
    """Train one config without pruning."""
    run = train([config], data, torch.device("cpu"))
    next(run)
    return drain(run)[0]


@pytest.fixture(scope="session")
def digits() -> Data:
    """The bundled digits, as a small config uses them."""
    return load("digits", Path("unused"), split_seed=0, train_size=512, val_size=397)


@pytest.fixture(scope="session")
def mnist_folder() -> Path:
    """The folder with the real MNIST, or a skip."""
    named = os.environ.get("SLOPESEARCH_DATA")
    if not named or not Path(named, "MNIST", "raw", "train-images-idx3-ubyte").is_file():
        pytest.skip("SLOPESEARCH_DATA names no folder that holds MNIST")
    return Path(named)


CommandLine = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def slopesearch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    """`python -m slopesearch …` as a real process in an empty folder, without MNIST or its variable."""
    monkeypatch.delenv("SLOPESEARCH_DATA", raising=False)

    def run(*arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "slopesearch", *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    return run


@dataclass(frozen=True)
class Ran:
    """What a command in this process printed, and its exit code."""

    code: int
    out: str
    err: str


InProcess = Callable[..., Ran]


@pytest.fixture
def command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> InProcess:
    """`python -m slopesearch …` in this process, which has torch loaded already, in the same empty folder."""
    monkeypatch.delenv("SLOPESEARCH_DATA", raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Ran:
        monkeypatch.setattr(sys, "argv", ["slopesearch", *arguments])
        with pytest.raises(SystemExit) as stopped:
            main()
        printed = capsys.readouterr()
        code = stopped.value.code
        return Ran(code if isinstance(code, int) else 0, printed.out, printed.err)

    return run


# A study that takes a second a trial: a tiny MLP on the digits, one worker, this process.
QUICK = ("--dataset", "digits", "--model", "mlp", "--epochs", "2", "--launcher", "inline")
