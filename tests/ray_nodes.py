"""A Ray cluster of several nodes on this machine, each with its own processes, on 127.0.0.1 alone."""

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]

# Ray reads them as it is imported. Without the first it makes another address of 127.0.0.1; without the last
# its workers run at niceness 15, and other tests on the same cores leave them next to nothing.
VARIABLES = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
}
SOON = 180.0  # s in which a process has loaded torch, on a busy machine
# A node that is killed is seen dead after about 2 s; by itself Ray takes 16.
HEALTH = {
    "health_check_initial_delay_ms": 500,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 500,
    "health_check_failure_threshold": 4,
}
NODE = {
    "num_cpus": 1,
    "node_ip_address": "127.0.0.1",
    "object_store_memory": 80 * 2**20,
    "include_dashboard": False,
}


class Nodes:
    """A head node and a second node, of a core each, started when they are first needed."""

    def __init__(self) -> None:
        os.environ.update(VARIABLES)
        from ray.cluster_utils import Cluster

        self._folder = Path(tempfile.mkdtemp(prefix="rt-", dir="/tmp"))  # short, for the names of sockets
        self._temporary: list[Path] = []  # of each node that ever was
        before = {name: os.environ.pop(name, None) for name in ("RAY_TMPDIR", "SLOPESEARCH_DATA")}
        os.environ["RAY_TMPDIR"] = str(self._folder)
        (self._folder / "ray").mkdir()
        try:
            self._cluster: Any = self._with_temporary(
                lambda: Cluster(initialize_head=True, head_node_args={**NODE, "_system_config": HEALTH})
            )
            self.second = self.add()
        finally:
            del os.environ["RAY_TMPDIR"]
            os.environ.update({name: value for name, value in before.items() if value is not None})

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def folders(self) -> list[Path]:
        """The folders for temporary files of the head and of the node that came last."""
        return [self._temporary[0], self._temporary[-1]]

    def add(self, **more: Any) -> Any:
        """Let a node join, with more than a core; it is there when this returns."""
        return self._with_temporary(lambda: self._cluster.add_node(**NODE, **more))

    def alive(self) -> int:
        """How many nodes have a raylet that runs."""
        return sum(self.processes(node)[0].is_running() for node in self._cluster.list_all_nodes())

    def _with_temporary(self, start: Callable[[], Any]) -> Any:
        self._temporary.append(Path(tempfile.mkdtemp(dir=self._folder)))
        before = {name: os.environ.pop(name, None) for name in ("TMPDIR", "SLOPESEARCH_DATA")}
        os.environ["TMPDIR"] = str(self._temporary[-1])
        try:
            return start()
        finally:
            del os.environ["TMPDIR"]
            os.environ.update({name: value for name, value in before.items() if value is not None})

    def processes(self, node: Any) -> list[psutil.Process]:
        """A node's raylet and all that it started."""
        raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
        return [raylet, *raylet.children(recursive=True)]

    def kill(self, node: Any) -> None:
        """End all processes of a node at once, with SIGKILL."""
        for process in self.processes(node):
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def replace_second(self) -> None:
        """After the second node was killed, or where a third has joined: a head and one more, again."""
        for node in list(self._cluster.worker_nodes):
            self.kill_quietly(node)
            self._cluster.remove_node(node, allow_graceful=False)
        self.second = self.add()

    def kill_quietly(self, node: Any) -> None:
        with suppress(psutil.NoSuchProcess):
            self.kill(node)

    def workers(self) -> list[psutil.Process]:
        """The processes that train, on every node."""
        found = []
        for node in self._cluster.list_all_nodes():
            with suppress(psutil.NoSuchProcess):
                found += [p for p in self.processes(node) if _title(p).startswith("ray::RayWorker")]
        return found

    def training(self) -> int:
        """How many of them train now, which Ray adds to their titles."""
        return sum("ray::RayWorker." in _title(process) for process in self.workers())

    def close(self) -> None:
        self._cluster.shutdown()
        shutil.rmtree(self._folder, ignore_errors=True)


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def eventually(holds: Callable[[], bool], seconds: float = SOON) -> bool:
    """Whether something holds, now or within so many seconds."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True
