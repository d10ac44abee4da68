"""Shared by the tests: small configs, the bundled digits, and the command line as a real process."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from slopesearch.cli.main import main
from slopesearch.config import TrialConfig, TrialResult
from slopesearch.training.data import Data, load
from slopesearch.training.engine import Run, train

if TYPE_CHECKING:
    from tests.ray_nodes import Nodes

torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep what needs a Ray cluster in one process, which starts it; skip what needs a GPU without one."""
    for item in items:
        if item.get_closest_marker("ray"):
            item.add_marker(pytest.mark.xdist_group("ray"))
            item.user_properties.append(("cluster", "ray"))  # which the report of its run keeps
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say how many tests ran on a Ray cluster, so that none is skipped unseen."""
    passed = [report for report in terminalreporter.getreports("passed") if report.when == "call"]
    ran = sum(("cluster", "ray") in map(tuple, report.user_properties) for report in passed)
    terminalreporter.write_line(f"ray tests: {ran} passed")


@pytest.fixture(scope="session")
def nodes() -> "Iterator[Nodes]":
    """A Ray cluster of two nodes on this machine, for the tests marked ray."""
    from tests.ray_nodes import Nodes

    started = Nodes()
    yield started
    started.close()


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
