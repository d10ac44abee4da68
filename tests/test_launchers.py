"""What every launcher gives, on this machine and on a Ray cluster; and what happens when a worker dies."""

import io
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from slopesearch.config import REPORTS, TrialConfig, TrialResult
from slopesearch.search.launchers import Launcher
from slopesearch.search.launchers.inline import InlineLauncher
from slopesearch.search.launchers.process import ProcessLauncher
from slopesearch.search.messages import Failed, Finished, Reported
from slopesearch.training.data import Data
from slopesearch.training.devices import WORKER_ENVIRONMENT
from tests.conftest import make_config, run_to_end
from tests.ray_nodes import SOON, Nodes, eventually

FOLDER = Path("unused")


def finish(launcher: Launcher, configs: dict[int, TrialConfig], stop_at: int = 99) -> dict[int, TrialResult]:
    """Run one config on each slot; stop each at a report."""
    for slot, config in configs.items():
        launcher.start(slot, [config])
    results: dict[int, TrialResult] = {}
    while len(results) < len(configs):
        received = launcher.wait(SOON)
        assert received is not None, "nothing came"
        slot, message = received
        if isinstance(message, Reported):
            launcher.answer(slot, [0] if message.reports[0].step == stop_at else [])
        elif isinstance(message, Finished):
            (results[slot],) = message.results
        elif isinstance(message, Failed):
            pytest.fail(message.reason)
    return results


class Launched:
    """Launchers of one kind, with so many slots, which are closed after the test; and their processes."""

    def __init__(self, kind: str, nodes: Nodes | None) -> None:
        self.kind, self._nodes = kind, nodes
        self.launchers: list[Launcher] = []

    def __call__(self, slots: int = 1) -> Launcher:
        launcher: Launcher
        if self._nodes is not None:
            from slopesearch.search.launchers.ray import RayLauncher

            launcher = RayLauncher("cpu", FOLDER, dataset="digits", precision="float32", most=slots)
        elif self.kind == "process":
            launcher = ProcessLauncher(["cpu"] * slots, FOLDER)
        else:
            launcher = InlineLauncher(["cpu"], FOLDER)
        self.launchers.append(launcher)
        return launcher

    def close(self) -> None:
        for launcher in self.launchers:
            launcher.close()

    def processes(self) -> list[psutil.Process]:
        """Of the workers that live."""
        if self._nodes is not None:
            return self._nodes.workers()
        return [
            psutil.Process(worker.process.pid)
            for launcher in self.launchers
            if isinstance(launcher, ProcessLauncher)
            for worker in launcher._workers
            if worker.process.poll() is None
        ]


RAY = pytest.param("ray", marks=pytest.mark.ray)


@pytest.fixture
def launch(request: pytest.FixtureRequest) -> Iterator[Launched]:
    """A maker of launchers of the kind that the test is parametrised with."""
    nodes = request.getfixturevalue("nodes") if request.param == "ray" else None
    with closing(Launched(request.param, nodes)) as launched:
        yield launched


EVERYWHERE = pytest.mark.parametrize("launch", ["inline", "process", RAY], indirect=True)
ELSEWHERE = pytest.mark.parametrize("launch", ["process", RAY], indirect=True)  # in another process


@EVERYWHERE
def test_every_launcher_gives_what_the_engine_gives_bit_for_bit(launch: Launched, digits: Data) -> None:
    configs = [make_config(), make_config(activation="tanh", norm="before")]
    want = [run_to_end(config, digits) for config in configs]
    launcher = launch()
    assert launcher.shares() == [0]
    got = [finish(launcher, {0: config})[0] for config in configs]
    again = finish(launcher, {0: configs[0]}, stop_at=2)
    assert [result.curve for result in got] == [result.curve for result in want]
    assert len(got[0].curve) == REPORTS
    assert again[0].ended == "pruned"
    assert again[0].curve == want[0].curve[:2]


@ELSEWHERE
def test_slots_train_at_once_and_are_gone_after_the_close(launch: Launched) -> None:
    launcher = launch(2)
    configs = [make_config(), make_config(activation="tanh", norm="before")]
    together = finish(launcher, dict(enumerate(configs)))
    alone = [finish(launcher, {1: config})[1] for config in configs]
    assert [together[slot].curve for slot in (0, 1)] == [result.curve for result in alone]
    assert len(launch.processes()) == 2
    launcher.start(0, [make_config(width=2048, depth=4, epochs=10_000)])  # days until its first report
    assert launcher.wait(0.2) is None
    launcher.close()
    assert eventually(lambda: not launch.processes())


def test_what_is_printed_in_a_worker_comes_not_between_its_messages() -> None:
    program = (
        "import os\n"
        "from slopesearch.search import worker\n"
        "def serve(readline, outbox, folder, device):\n"
        "    print('printed', flush=True)\n"
        "    os.write(1, b'written by a library')\n"
        "    outbox.write('message')\n"
        "    outbox.flush()\n"
        "worker.serve = serve\n"
        "worker.main(input)\n"
    )
    command = [sys.executable, "-c", program, "cpu", "unused"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "message"
    assert "printed" in done.stderr
    assert "written by a library" in done.stderr


def test_each_worker_is_pinned_to_the_device_of_its_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several on one GPU too, and one that takes a dead one's place. The processes are fake."""
    started: list[str] = []

    class Process:
        returncode = 0

        def __init__(self, command: list[str], **settings: object) -> None:
            started.append(command[-2])
            self.stdin, self.stdout = io.StringIO(), io.StringIO()

        def wait(self, timeout: float | None = None) -> int:
            return 0

        def poll(self) -> int:
            return 0

        def kill(self) -> None:
            pass

        terminate = kill

    monkeypatch.setattr(subprocess, "Popen", Process)
    devices = ["cuda:0", "cuda:1", "cuda:0"]
    launcher = ProcessLauncher(devices, FOLDER)
    launcher.start(1, [make_config()])
    launcher.close()
    assert started == [*devices, "cuda:1"]


def test_all_workers_are_asked_to_end_before_one_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    class Process:
        def __init__(self, command: list[str], **settings: object) -> None:
            self.stdin, self.stdout = io.StringIO(), io.StringIO()

        def wait(self, timeout: float | None = None) -> int:
            if timeout is not None:
                said.append("wait")
            return 0

        def kill(self) -> None:
            pass

        def terminate(self) -> None:
            said.append("ask")

    monkeypatch.setattr(subprocess, "Popen", Process)
    ProcessLauncher(["cpu"] * 3, FOLDER).close()
    assert said.count("wait") == 3
    assert said[:4] == ["ask"] * 4


@ELSEWHERE
def test_a_worker_that_dies_or_is_stuck_is_told_of_and_replaced(launch: Launched) -> None:
    launcher = launch()

    def reports() -> None:
        received = launcher.wait(SOON)
        assert received is not None
        assert isinstance(received[1], Reported)

    launcher.start(0, [make_config()])
    reports()
    (process,) = launch.processes()
    process.kill()
    launcher.answer(0, [])
    received = launcher.wait(SOON)
    assert received is not None
    assert isinstance(received[1], Failed)
    assert re.search("died with exit code -9$|the worker on 127.0.0.1 died$", received[1].reason)
    assert finish(launcher, {0: make_config()})[0].ended == "completed"
    # One that dies while it is idle costs no more than a failed run.
    (process,) = launch.processes()
    process.kill()
    process.wait()
    launcher.start(0, [make_config()])
    received = launcher.wait(SOON)
    assert received is not None
    if isinstance(received[1], Failed):
        launcher.start(0, [make_config()])
        reports()
    # One that is stuck, as in a driver that never returns, is ended.
    (process,) = launch.processes()
    process.suspend()
    launcher.answer(0, [])
    launcher.end(0, "no message for a week")
    assert launcher.wait(SOON) == (0, Failed(reason="no message for a week"))
    process.kill()  # its core is free again
    assert finish(launcher, {0: make_config()})[0].ended == "completed"


@EVERYWHERE
def test_an_exception_comes_back_as_its_traceback(launch: Launched) -> None:
    launcher = launch()
    before = {process.pid for process in launch.processes()}
    launcher.start(0, [make_config(init="nothing")])
    received = launcher.wait(SOON)
    assert received is not None
    assert isinstance(received[1], Failed)
    assert "Traceback" in received[1].reason
    assert "KeyError: 'nothing'" in received[1].reason
    assert finish(launcher, {0: make_config()})[0].ended == "completed"
    assert not before & {process.pid for process in launch.processes()}  # no fault is carried on


def test_a_worker_that_cannot_be_killed_is_told_of_and_does_not_hang_the_exit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As a process that sleeps in a driver: no signal reaches it, and its pipes stay open."""
    monkeypatch.setattr("slopesearch.search.launchers.process.GOODBYE", 0.2)
    monkeypatch.setattr("slopesearch.search.launchers.process.KILL", 0.2)
    launcher = ProcessLauncher(["cpu"], FOLDER)
    process = launcher._workers[0].process
    finish(launcher, {0: make_config()})
    launcher.start(0, [make_config(width=2048, depth=4, epochs=10_000)])
    with monkeypatch.context() as patch:
        patch.setattr(process, "kill", lambda: None)
        patch.setattr(process, "terminate", lambda: None)
        os.kill(process.pid, signal.SIGSTOP)
        launcher.end(0, "no message for a week")
        assert launcher.wait(SOON) == (0, Failed(reason="no message for a week"))
        started = time.monotonic()
        launcher.close()
        assert time.monotonic() - started < 5
    process.kill()
    launcher.close()


STUCK = """
import os, signal, sys
from pathlib import Path
from slopesearch.search.launchers import process
process.GOODBYE = process.KILL = 0.2
launcher = process.ProcessLauncher(["cpu"], Path("unused"))
worker = launcher._workers[0].process
worker.kill = worker.terminate = lambda: None
os.kill(worker.pid, signal.SIGSTOP)
launcher.close()
print(worker.pid)
"""


def test_a_process_with_a_worker_that_cannot_be_killed_exits() -> None:
    done = subprocess.run([sys.executable, "-c", STUCK], capture_output=True, text=True, timeout=60)
    os.kill(int(done.stdout), signal.SIGKILL)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("when", ["it loads", "it trains"])
def test_a_worker_whose_parent_is_gone_ends_by_itself(when: str) -> None:
    launcher = ProcessLauncher(["cpu"], FOLDER)
    worker = launcher._workers[0]
    if when == "it trains":
        finish(launcher, {0: make_config()})
        launcher.start(0, [make_config(width=2048, depth=4, epochs=10_000)])  # days until its first report
        assert launcher.wait(1) is None
    assert worker.process.stdin is not None
    worker.process.stdin.close()  # what the system does with a killed parent's pipes
    deadline = time.monotonic() + 20
    while worker.process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert worker.process.poll() is not None
    launcher.close()


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of another process's memory is Linux's")
@ELSEWHERE
def test_what_does_not_fit_into_memory_is_said_to_and_the_worker_goes_on(launch: Launched) -> None:
    launcher = launch()
    wide = [make_config(width=2048, depth=2, init_seed=i) for i in range(8)]  # about 90 MB each to train
    finish(launcher, {0: make_config()})
    (process,) = launch.processes()
    limit = process.memory_info().vms + 400 * 2**20
    resource.prlimit(process.pid, resource.RLIMIT_AS, (limit, limit))
    launcher.start(0, wide)
    received = launcher.wait(SOON)
    assert received is not None
    assert isinstance(received[1], Failed)
    assert received[1].out_of_memory, received[1].reason
    assert launch.processes() == [process]
    assert finish(launcher, {0: wide[0]})[0].ended == "completed"


@ELSEWHERE
def test_workers_are_single_threaded_and_keep_out_of_the_terminals_group(launch: Launched) -> None:
    launcher = launch()
    finish(launcher, {0: make_config()})
    (process,) = launch.processes()
    assert WORKER_ENVIRONMENT.items() <= process.environ().items()  # as the process began
    assert os.getpgid(process.pid) != os.getpgid(0)


@pytest.mark.gpu
def test_a_gpu_worker_trains_on_its_device() -> None:
    launcher = ProcessLauncher(["cuda:0", "cuda:0"], FOLDER)
    try:
        results = finish(launcher, {0: make_config(), 1: make_config(norm="before")})
    finally:
        launcher.close()
    assert {result.device for result in results.values()} == {"cuda:0"}
    assert all(result.ended == "completed" for result in results.values())
