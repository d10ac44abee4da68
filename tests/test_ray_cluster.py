"""What is asked of a Ray cluster before anything runs there: refusals, how many workers, which precision."""

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from slopesearch.search import settings as settings_module
from slopesearch.search.launchers import ray_cluster, ray_worker
from slopesearch.search.launchers.ray_cluster import Node, best_precision, misfit, sharing, slots
from slopesearch.search.launchers.ray_worker import Images, Introduction, introduce, versions
from slopesearch.search.messages import Failed, Reported, Said
from slopesearch.search.settings import Settings
from slopesearch.training.data import whole_hash
from slopesearch.wording import RequestError, StudyFailedError
from tests.conftest import InProcess
from tests.ray_nodes import VARIABLES

UNREACHABLE = "127.0.0.1:1"
RAY = ("--launcher", "ray")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("--ray-address", UNREACHABLE),
            "--ray-address goes with --launcher ray alone, given --launcher process",
        ),
        (
            (*RAY, "--ray-address", "ray://head:1"),
            "--ray-address: HOST:PORT of the head node, or auto for the cluster that this machine is part "
            "of, given 'ray://head:1'",
        ),
        (
            (*RAY, "--ray-address", UNREACHABLE),
            "the Ray cluster at '127.0.0.1:1' cannot be reached (no answer within 3 s); check --ray-address",
        ),
        (("--launcher", "rat"), "unknown launcher 'rat'; choose from inline, process, ray"),
    ],
)
def test_a_wrong_request_is_refused_with_a_sentence(
    words: tuple[str, ...], said: str, command_line: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(ray_cluster, "REACH", 3.0)
    done = command_line("optimize", "--dataset", "digits", "--model", "mlp", *words)
    assert (done.code, done.out.removeprefix("loading torch\n")) == (2, "")
    assert said in done.err
    assert not list(Path.cwd().glob("**/*.db"))


def test_what_ray_says_of_a_cluster_that_is_not_there_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    said = "Could not find any running Ray instance. Please specify the one to connect to."
    monkeypatch.setattr(ray_cluster, "_TRIAL", f"import sys; print({said!r}); sys.exit(1)")
    with pytest.raises(
        RequestError,
        match=r"at 'auto' cannot be reached \(Could not find any running Ray instance\); check --ray-address",
    ):
        ray_cluster._refuse_unreachable("auto")


def test_without_ray_a_person_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings_module, "find_spec", lambda name: None)
    with pytest.raises(RequestError, match="--launcher ray needs Ray, which is not installed: run `pip inst"):
        Settings(launcher="ray").connected()


def cluster_of(monkeypatch: pytest.MonkeyPatch, *there: tuple[int, int]) -> list[Node]:
    """Nodes with so many cores and GPUs."""
    found = [Node(str(i), f"10.0.0.{i}", cores, gpus) for i, (cores, gpus) in enumerate(there)]
    monkeypatch.setattr(ray_cluster, "nodes", lambda: found)
    return found


def test_the_cluster_gives_out_the_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    there = cluster_of(monkeypatch, (0, 0), (3, 0), (1, 0))
    assert slots("auto", None) == slots("cpu", None) == ["cpu"] * 4
    assert slots("cpu", 6) == ["cpu"] * 6
    assert [sharing(there, "cpu", workers) for workers in (None, 1, 4, 5, 8, 9)] == [1, 1, 1, 2, 2, 3]
    with pytest.raises(RequestError, match="the Ray cluster lends no GPU to anybody; .* --num-gpus"):
        slots("cuda", None)
    there = cluster_of(monkeypatch, (64, 2), (8, 0), (64, 1))
    assert slots("auto", None) == slots("cuda", None) == ["cuda"] * 3
    assert slots("cpu", 2) == ["cpu"] * 2
    assert sharing(there, "cuda", 6) == 2
    with pytest.raises(RequestError, match="takes --devices auto, cpu or cuda, .* given 'cuda:0,cuda:1'"):
        slots("cuda:0,cuda:1", None)


def said_by(host: str, **fields: Any) -> Introduction:
    whole = {"device": "cpu", "multiplies_bf16": True, "versions": versions(), **fields}
    return Introduction(host=host, **whole)


@pytest.mark.parametrize(
    ("kind", "fast", "precision"),
    [
        ("cpu", (True, True), "bf16"),
        ("cpu", (True, False), "float32"),
        ("cuda", (True, True), "float32"),
    ],
)
def test_a_studys_precision_is_what_every_node_multiplies_itself(
    kind: str, fast: tuple[bool, ...], precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = cluster_of(monkeypatch, (4, 1), (4, 1), (0, 0))
    asked: list[Node] = []
    needed: list[str] = []

    def introductions(asking: list[Node], precision: str) -> list[Introduction]:
        asked.extend(asking)
        needed.append(precision)
        return [said_by(node.host, multiplies_bf16=one) for node, one in zip(asking, fast, strict=True)]

    monkeypatch.setattr(ray_cluster, "_introductions", introductions)
    assert best_precision(kind, None) == precision
    assert asked == there[:2]
    assert needed == ["float32"]
    best_precision(kind, "bf16")
    assert needed[1:] == ["bf16" if kind == "cpu" else "float32"]  # a GPU's worker is asked, not its node


def test_a_worker_that_cannot_take_part_is_told_apart() -> None:
    assert misfit(said_by("a"), "bf16") is None
    assert misfit(said_by("a", multiplies_bf16=False), "float32") is None
    slow = misfit(said_by("a", multiplies_bf16=False), "bf16")
    assert slow is not None
    assert slow.startswith(
        "the worker on a does not multiply bf16 itself, in which this study trains; one with"
    )
    other = misfit(said_by("a", versions={"slopesearch": "0.0.1", "torch": "2.9.0"}), "float32")
    assert other is not None
    assert other.startswith(
        "the worker on a has slopesearch 0.0.1 and torch 2.9.0, this machine slopesearch "
    )
    assert other.endswith("; install the same on every node")
    unsound = said_by("a", device="cuda:3", no_packs="its check failed")
    assert misfit(unsound, "float32") is None  # it trains one at a time
    card = misfit(unsound, "float32", 8)
    assert card == "packs cannot be trusted on cuda:3 of a: its check failed; with --pack 1 it can take part"


def test_a_worker_says_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", "2.99.1+cu128")
    assert introduce("10.0.0.1").versions["torch"] == "2.99.1"  # the build differs between a GPU and a CPU
    monkeypatch.setattr(ray_worker, "multiplies_bf16", lambda: False)
    assert not introduce("10.0.0.1").multiplies_bf16


def test_a_worker_on_a_gpu_says_its_share_of_it_and_whether_packs_can_be_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Card:
        total_memory = 2**33

    asked: list[str] = []

    def why(device: str, precision: str) -> str:
        asked.append(f"{device} {precision}")
        return "its check failed"

    monkeypatch.setattr(ray_worker, "prepare", lambda device: None)
    monkeypatch.setattr(ray_worker, "why_no_packs", why)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: Card)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    worker = ray_worker.RayWorker("10.0.0.1", "cuda")
    images = Images("digits", tmp_path, whole_hash("digits", tmp_path))
    said = worker.introduce("float32", True, 2, images, [])
    assert (said.device, said.memory, said.multiplies_bf16) == ("cuda:3", 2**32, False)
    assert said.no_packs == "its check failed"
    assert worker.introduce("float32", False, 1, images, []).no_packs is None
    assert asked == ["cuda:0 float32"]


@pytest.fixture
def unconnected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A maker of launchers of which no worker has come, on 8 cores on each of two nodes."""
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    from slopesearch.search.launchers.ray import RayLauncher

    cluster_of(monkeypatch, (8, 0), (8, 0))
    monkeypatch.setattr(ray_cluster, "head_answers", lambda: True)
    monkeypatch.setattr(RayLauncher, "_await_workers", lambda self, is_left: None)
    monkeypatch.setattr(RayLauncher, "_employ", lambda self, member: object())

    def make(**asked: Any) -> RayLauncher:
        return RayLauncher("cpu", tmp_path, **{"dataset": "digits", "precision": "float32", **asked})

    return make


def test_workers_are_spread_evenly_over_the_nodes(unconnected: Any) -> None:
    launcher = unconnected(workers=20, most=20)
    launcher._look_around()
    assert Counter(member.node.id for member in launcher._hired.values()) == {"0": 10, "1": 10}
    launcher = unconnected(workers=20, most=4)
    launcher._look_around()
    assert Counter(member.node.id for member in launcher._hired.values()) == {"0": 2, "1": 2}


def test_a_worker_that_is_ended_while_its_report_is_unread_has_failed(unconnected: Any) -> None:
    from slopesearch.search.launchers.ray import _Member

    launcher = unconnected(most=2)
    launcher._look_around()
    launcher._members = [_Member(Node("0", "10.0.0.0", 8, 0))]
    launcher._ready.extend([(-1, Said(text="a word")), (0, Reported(reports={}))])
    launcher.end(0, "no message for a week")
    assert [launcher.wait(0) for _ in range(2)] == [
        (-1, Said(text="a word")),
        (0, Failed(reason="no message for a week")),
    ]
    launcher.end(0, "no message for a week")  # it is idle
    assert not launcher._ready


def test_a_head_node_that_is_silent_stops_the_study_with_a_sentence(
    unconnected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Silent for so long from the first look that found it so, and not from the last that did not."""
    clock = SimpleNamespace(now=0.0, answers=True)
    monkeypatch.setattr("time.monotonic", lambda: clock.now)
    monkeypatch.setattr(ray_cluster, "head_answers", lambda: clock.answers)
    launcher = unconnected(most=2)
    for now, answers in ((3600, False), (3620, False), (3622, True), (3624, False), (3644, False)):
        clock.now, clock.answers = float(now), answers
        launcher._look_around()
    clock.now = 3646.0
    with pytest.raises(StudyFailedError, match="head node .* has not answered for 20 s; .* start the clust"):
        launcher._look_around()
