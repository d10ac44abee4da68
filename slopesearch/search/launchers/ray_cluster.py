"""The Ray cluster that workers run on: one that is named, or one of this machine alone.

Ray is imported inside the functions, since `connected` sets beforehand what Ray reads as it is imported.
"""

import logging
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from math import ceil
from typing import Any

from slopesearch.config import Precision
from slopesearch.search.launchers.ray_worker import Introduction, introduce, versions
from slopesearch.training.devices import WORKER_ENVIRONMENT, usable_cores
from slopesearch.wording import RequestError, short

REACH = 30.0  # s that a cluster has to answer; of itself Ray tries for minutes
OBJECT_STORE = 2**27  # bytes, on this machine alone, whose workers read the data folder
PATIENCE = 120.0  # s until the first worker has loaded torch, from a slow disk

# Ray's own ways to say where it is: of this machine, of a head node.
_ADDRESS = re.compile(r"auto|[\w.-]+:\d+|\[[0-9a-fA-F:]+\]:\d+")

# Whether a cluster can be reached is tried by another process, which can be ended.
_TRIAL = (
    "import sys, ray\n"
    "from ray._private.authentication import authentication_token_setup\n"
    "from ray._raylet import GcsClient\n"
    "try:\n"
    "    authentication_token_setup.ensure_token_if_auth_enabled(create_token_if_missing=False)\n"
    "    if sys.argv[1] != 'auto':\n"
    "        GcsClient(address=sys.argv[1])\n"  # which says at once that it is asked for a token
    "    ray.init(address=sys.argv[1], log_to_driver=False, logging_level='CRITICAL')\n"
    "except Exception as error:\n"
    "    print('', ' '.join(str(error).split()), sep='\\n')\n"
    "    sys.exit(2 if isinstance(error, ray.exceptions.AuthenticationError) else 1)\n"
)
_NEEDS_TOKEN = 2


@dataclass(frozen=True)
class Node:
    """A machine of the cluster that is alive."""

    id: str
    host: str
    cores: int
    gpus: int

    def places(self, kind: str) -> int:
        """How many whole cores ("cpu") or GPUs ("cuda") it lends to the cluster."""
        return self.gpus if kind == "cuda" else self.cores


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """In this block the process is a driver of the cluster at an address, or of one that ends with it.

    A connection that is there already is used, and left. A new cluster has the cores and GPUs of this machine
    and listens on 127.0.0.1 alone. Raises RequestError where no cluster is reached within REACH,
    or within twice that one that asks for a token.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray

    if ray.is_initialized():
        yield
        return
    if address is not None:
        _refuse_unreachable(address)
    with _quiet(), _named_cluster(address) if address is not None else _own_cluster():
        yield


@contextmanager
def _named_cluster(address: str) -> Iterator[None]:
    import ray

    with _signals_kept():
        ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL)
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _own_cluster() -> Iterator[None]:
    import ray
    from ray._private import ray_constants

    private: Any = ray_constants
    # Ray makes another address of 127.0.0.1, but on systems where it knows no clusters.
    clusters, private.ENABLE_RAY_CLUSTER = private.ENABLE_RAY_CLUSTER, False
    names = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")
    before = {name: os.environ.get(name) for name in names}
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)  # or Ray would keep one in the user's home
    folder = tempfile.mkdtemp(prefix="ray-")
    try:
        try:
            with _signals_kept():
                ray.init(
                    address="local",
                    num_cpus=usable_cores(),
                    object_store_memory=OBJECT_STORE,
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level=logging.CRITICAL,
                    _node_ip_address="127.0.0.1",
                    _temp_dir=folder,
                )
        except Exception as error:
            raise RequestError(
                f"a Ray cluster on this machine could not be started ({_one_line(error)}); use --launcher "
                "process, or name a cluster with --ray-address"
            ) from None
        yield
    finally:
        ray.shutdown()
        private.ENABLE_RAY_CLUSTER = clusters
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Print nothing of what raylets say of nodes and workers: it is said in our words, beside the display."""
    from ray._private import worker

    private: Any = worker
    private._worker_logs_enabled = False
    try:
        yield
    finally:
        private._worker_logs_enabled = True


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Put back, after what Ray does to them, the handlers of Ctrl-C and SIGTERM."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _refuse_unreachable(address: str) -> None:
    if not _ADDRESS.fullmatch(address):
        raise RequestError(
            "--ray-address: HOST:PORT of the head node, or auto for the cluster that this machine is part "
            f"of, given {short(address)}"
        )
    code, reason = _tried(address)
    if code == _NEEDS_TOKEN and _show_token():
        code, reason = _tried(address)
    advice = "run this command on a machine of that cluster"
    if code == _NEEDS_TOKEN:
        reason = "it takes no token that this user has"
        advice = (
            "name a copy of its first machine's ~/.ray/auth_token in RAY_AUTH_TOKEN_PATH, and set "
            "RAY_AUTH_MODE=token"
        )
    if code:
        raise RequestError(
            f"the Ray cluster at '{address}' cannot be reached ({reason}); check --ray-address, and {advice}"
        )


def _tried(address: str) -> tuple[int, str]:
    """0, or another number and the reason."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _TRIAL, address],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            timeout=REACH,
        )
    except subprocess.TimeoutExpired:
        return 1, f"no answer within {REACH:g} s"
    return done.returncode, (done.stdout.splitlines() or ["no reason given"])[-1].partition(". ")[0]


def _show_token() -> bool:
    """From now on show this user's token, which Ray itself does for a cluster at "auto" alone.

    False where there is none, or where the user has settled the matter.
    """
    from ray._private.authentication import authentication_token_setup
    from ray.exceptions import AuthenticationError

    private: Any = authentication_token_setup
    try:
        has_token = private.AuthenticationTokenLoader.instance().has_token(ignore_auth_mode=True)
    except AuthenticationError:  # a variable names a file that cannot be read
        return False
    if "RAY_AUTH_MODE" in os.environ or not has_token:
        return False
    private._enable_token_auth()
    return True


def _one_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def head_answers() -> bool:
    """Whether the head node can be reached; where it cannot, `nodes` waits a minute and ends the process."""
    import ray

    host, _, port = ray.get_runtime_context().gcs_address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=1).close()
    except OSError:
        return False
    return True


def nodes() -> list[Node]:
    """The machines that the cluster holds now."""
    import ray

    all_nodes: Any = ray.nodes

    return [
        Node(
            entry["NodeID"],
            entry["NodeManagerAddress"],
            int(entry["Resources"].get("CPU", 0)),
            int(entry["Resources"].get("GPU", 0)),
        )
        for entry in all_nodes()
        if entry["Alive"]
    ]


def sharing(there: Sequence[Node], kind: str, workers: int | None) -> int:
    """How many workers share a core or a GPU, so that there is a place for each of so many."""
    places = sum(node.places(kind) for node in there)
    return max(1, ceil((workers or 1) / max(1, places)))


def slots(devices: str, workers: int | None) -> list[str]:
    """The kind of each worker's device, "cpu" or "cuda", on the cluster as it is now.

    One for each GPU, or for each core where there is none; `workers` overrides the count. Raises RequestError
    where what is asked for is not there.
    """
    if devices not in ("auto", "cpu", "cuda"):
        raise RequestError(
            f"--launcher ray takes --devices auto, cpu or cuda, since its cluster gives out the devices; "
            f"given {short(devices)}"
        )
    there = nodes()
    kind = devices
    if devices == "auto":
        kind = "cuda" if any(node.gpus for node in there) else "cpu"
    places = sum(node.places(kind) for node in there)
    if not places:
        lacking = "GPU" if kind == "cuda" else "core"
        raise RequestError(
            f"the Ray cluster lends no {lacking} to anybody; start a node that does, say with "
            f"`ray start --num-{kind.replace('cuda', 'gpu')}s`"
        )
    return [kind] * (workers or places)


def best_precision(kind: str, asked: Precision | None) -> Precision:
    """bf16 where every worker is a core that multiplies bf16 itself, else float32, as of one machine.

    Every node that lends a device says so itself. Raises RequestError, naming those that cannot train with
    this machine, where versions differ, or in the precision that is asked for.
    """
    # What a GPU multiplies its worker says, when it introduces itself.
    needed: Precision = asked if kind == "cpu" and asked is not None else "float32"
    said = _introductions([node for node in nodes() if node.places(kind)], needed)
    return "bf16" if kind == "cpu" and all(one.multiplies_bf16 for one in said) else "float32"


def _introductions(there: Sequence[Node], precision: Precision) -> list[Introduction]:
    import ray

    calls = {remote(introduce, node, num_cpus=0, max_retries=0).remote(node.host): node for node in there}
    done, late = ray.wait(list(calls), num_returns=len(calls), timeout=PATIENCE)
    said: list[Introduction] = []
    found = [f"the node {calls[call].host} has not answered for {PATIENCE:g} s" for call in late]
    for call in done:
        try:
            one = ray.get(call)
        except ray.exceptions.RayError as error:
            if calls[call].id in {node.id for node in nodes()}:
                found.append(why_unable(calls[call].host, error))
            continue
        said.append(one)
        if (reason := misfit(one, precision)) is not None:
            found.append(reason)
    if found:
        raise RequestError(*dict.fromkeys(found))
    return said


def remote(what: Any, node: Node, **options: Any) -> Any:
    """A function or a class for Ray to run on one node, in the environment of a worker."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return _remote(what).options(
        runtime_env={"env_vars": WORKER_ENVIRONMENT},
        scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False),
        **options,
    )


@cache
def _remote(what: Any) -> Any:
    import ray

    return ray.remote(what)  # which each time sends it to the cluster anew


def misfit(one: Introduction, precision: Precision, pack: int | None = None) -> str | None:
    """Why a worker cannot take part in a study of this precision, or None where it can.

    `pack` is the size of packs that a person insists on.
    """
    if one.versions != versions():
        theirs, ours = (
            " and ".join(f"{k} {v}" for k, v in has.items()) for has in (one.versions, versions())
        )
        return f"the worker on {one.host} has {theirs}, this machine {ours}; install the same on every node"
    if precision == "bf16" and not one.multiplies_bf16:
        return (
            f"the worker on {one.host} does not multiply bf16 itself, in which this study trains; one with "
            "--set precision=float32 trains on every node"
        )
    if one.no_images is not None:
        return one.no_images
    if one.no_packs is not None and pack is not None:
        return (
            f"packs cannot be trusted on {one.device} of {one.host}: {one.no_packs}; with --pack 1 it can "
            "take part"
        )
    return None


def why_unable(host: str, error: Exception) -> str:
    """Why no worker runs on a node, by what Ray says of it."""
    last = (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()
    advice = "the logs of Ray on that node, under /tmp/ray, say more"
    if "ImportError" in last or "ModuleNotFoundError" in last:
        needed = " and ".join(f"{name} {version}" for name, version in versions().items())
        advice = f"install {needed} there, as on this machine"
    return f"the node {host} cannot run a worker ({last}); {advice}"
