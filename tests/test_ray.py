"""Studies on a Ray cluster: nodes that die and join, its driver's end, Ctrl-C, data; real processes."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import psutil  # type: ignore[import-untyped]
import pytest

from slopesearch.search.events import Arrived, Began, Event, Noted, Progressed, Started, Told
from slopesearch.search.launchers import ray_cluster
from slopesearch.search.launchers.ray_cluster import best_precision, misfit, slots
from slopesearch.search.launchers.ray_worker import Images, Introduction, RayWorker, versions
from slopesearch.search.messages import Reported, Said
from slopesearch.search.store import Store
from slopesearch.training.data import files_of, is_there, whole_hash
from slopesearch.wording import RequestError
from tests.conftest import InProcess, make_config
from tests.harness import Harness, spec
from tests.ray_nodes import SOON, VARIABLES, Nodes, eventually
from tests.server import Server
from tests.test_data import write_idx

pytestmark = pytest.mark.ray
Heard = TypeVar("Heard", bound=Event)


@pytest.fixture(scope="module", autouse=True)
def _sent_as_it_is(nodes: Nodes) -> Iterator[None]:
    """What a test has run on a node goes there by value: to import this module there would take seconds."""
    from ray import cloudpickle

    pickling: Any = cloudpickle
    pickling.register_pickle_by_value(sys.modules[__name__])
    yield
    pickling.unregister_pickle_by_value(sys.modules[__name__])


@pytest.fixture
def two_nodes(nodes: Nodes) -> Iterator[Nodes]:
    """A head and a second node before the test, and after it, whatever it did to them."""
    yield nodes
    nodes.replace_second()


def launched(kind: str = "cpu", folder: Path = Path("unused"), **asked: Any) -> Any:
    """A launcher on the cluster that the test is connected to."""
    from slopesearch.search.launchers.ray import RayLauncher

    return RayLauncher(kind, folder, **{"dataset": "digits", "precision": "float32", **asked})


# Nodes


class Unlucky:
    """Listens to a study: SIGKILL for the second node's raylet and worker in the middle of a run there.

    When that has been noticed another node joins. Until its worker is there, the runs take longer.
    """

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes
        self.slot = -1  # of the second node
        self.events: list[Event] = []
        self.number: int | None = None  # the trial that ran there
        self._joined = False

    def find_slot(self, launcher: Any) -> None:
        by_slot = [member.node.id for member in launcher._members]
        self.slot = by_slot.index(self._nodes.second.node_id)

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        match event:
            case Progressed() if self.number is None and (event.slot, event.report.step) == (self.slot, 4):
                self._nodes.kill(self._nodes.second)
                self.number = event.number
            case Progressed() if self.number is not None and not self.of(Arrived):
                time.sleep(2)  # meanwhile the new node's worker loads torch
            case Noted() if "has left" in event.text and not self._joined:
                self._nodes.add()
                self._joined = True

    def of(self, kind: type[Heard]) -> list[Heard]:
        return [event for event in self.events if isinstance(event, kind)]


def test_a_study_of_which_one_node_is_killed_and_another_joins_is_complete_and_nothing_is_told_twice(
    two_nodes: Nodes, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    named = os.environ.get("SLOPESEARCH_DATA")
    real = named is not None and Path(named, "MNIST", "raw", "train-images-idx3-ubyte").is_file()
    budget: dict[str, Any] = {"dataset": "mnist", "train_size": 2000, "val_size": 500} if real else {}
    harness, heard = Harness(tmp_path / "x.db"), Unlucky(two_nodes)
    with pytest.MonkeyPatch.context() as patch:
        from slopesearch.search.launchers.ray import RayLauncher

        await_workers = RayLauncher._await_workers

        def watched(self: RayLauncher, is_left: Callable[[], bool]) -> None:
            await_workers(self, is_left)
            heard.find_slot(self)

        patch.setattr(RayLauncher, "_await_workers", watched)
        folder = Path(named) if real and named else Path("unused")
        asked = spec(model="mlp", width=32, **budget)
        settings: dict[str, Any] = {"launcher": "ray", "workers": None, "folder": folder}
        assert harness(20, asked, listen=heard, **settings).finished == 20
    study = harness.study()
    assert study.spec.dataset == ("mnist" if real else "digits")
    assert [trial.number for trial in study.trials] == list(range(20))
    assert {trial.state for trial in study.trials} <= {"COMPLETE", "PRUNED"}
    assert all(list(trial.reports) == list(range(1, len(trial.reports) + 1)) for trial in study.trials)
    assert sorted(told.number for told in heard.of(Told)) == list(range(20))
    started = [(event.slot, event.number) for event in heard.of(Started)]
    first, second = [slot for slot, number in started if number == heard.number]
    assert first == heard.slot != second
    assert len(started) == 21  # nothing else ran twice
    place = started.index((first, heard.number or 0))
    assert first not in [slot for slot, _ in started[place + 1 :]]
    assert 2 in [slot for slot, _ in started]  # the node that joined
    said = f"the node 127.0.0.1 has left the Ray cluster; trial {heard.number} runs again"
    assert said in [note.text for note in heard.of(Noted)]
    assert len(heard.of(Arrived)) == 1
    assert capfd.readouterr() == ("", "")  # Ray has its own words on it, which spoil a display


@pytest.mark.postgresql
def test_a_study_on_ray_and_postgresql_is_that_of_one_process_on_sqlite(
    nodes: Nodes, postgresql: Server, tmp_path: Path
) -> None:
    asked = spec(epochs=2, width=16)
    alone = Harness(tmp_path / "x.db")
    alone(8, asked, deterministic=True, launcher="inline")
    database = postgresql.create("template1")
    try:
        team = Harness(postgresql.url(database))
        on: dict[str, Any] = {"launcher": "ray", "workers": None, "ray_address": nodes.address}
        team(8, asked, deterministic=True, **on)
        assert team.table() == alone.table()
    finally:
        postgresql.drop(database)
    began = next(event for event in team.events if isinstance(event, Began))
    assert began.devices == ["cpu@127.0.0.1"] * 2
    assert began.storage.startswith("postgresql+psycopg://")


def test_more_workers_than_cores_share_them_and_no_more_train_than_are_of_use(nodes: Nodes) -> None:
    launcher = launched(workers=3, most=3)
    try:
        assert eventually(lambda: launcher.wait(0) is None and len(launcher.devices) == 3)
        assert len(nodes.workers()) == 3
        launcher.wait(1.2)  # another look at the nodes
        assert len(nodes.workers()) == 3
    finally:
        launcher.close()
    assert eventually(lambda: not nodes.workers())


@pytest.fixture
def temporary(tmp_path: Path) -> Iterator[Path]:
    """The test's folder by a name that is short enough for the names of sockets in it."""
    short = Path("/tmp", f"rt-{os.getpid()}")
    short.symlink_to(tmp_path)
    yield short
    short.unlink()


HEAD = (
    "import ray\n"
    "ray.init(address='local', num_cpus=1, include_dashboard=False, _node_ip_address='127.0.0.1')\n"
    "print(ray.get_runtime_context().gcs_address, flush=True)\n"
    "input()\n"
)
DRIVER = (
    "import sys, ray\n"
    "from slopesearch.search.launchers import ray_cluster\n"
    f"ray_cluster.REACH = {SOON}\n"
    "with ray_cluster.connected(sys.argv[1]):\n"
    "    print(len(ray_cluster.nodes()))\n"
)


def test_a_cluster_that_asks_for_a_token_is_shown_the_users(tmp_path: Path, temporary: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH_")}
    environment |= {**VARIABLES, "HOME": str(tmp_path), "TMPDIR": str(temporary)}

    def process(*words: str) -> "subprocess.Popen[str]":
        pipes: Any = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        return subprocess.Popen([sys.executable, "-c", *words], text=True, env=environment, **pipes)

    with process(HEAD) as head:
        assert head.stdout is not None
        address = head.stdout.readline().strip()
        assert (tmp_path / ".ray" / "auth_token").is_file()
        with process(DRIVER, address) as driver:
            assert driver.communicate() == ("1\n", "")
        environment["HOME"] = str(temporary / "nobody")
        with process(DRIVER, address) as driver:
            assert (
                "(it takes no token that this user has); check --ray-address, and name a copy"
                in (driver.communicate()[1])
            )
        head.communicate()


def test_a_cluster_whose_cores_are_all_taken_is_said_so(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    monkeypatch.setattr(ray_cluster, "PATIENCE", 2.0)
    busy: Any = ray.remote(Busy)
    others = [busy.options(num_cpus=1).remote() for _ in range(2)]
    ray.get([other.is_there.remote() for other in others])
    with pytest.raises(RequestError, match="no worker has started .* other work has all of its cores"):
        launched(most=2)
    assert launched(most=2, is_left=lambda: True).devices == []
    assert eventually(lambda: not nodes.workers())


class Busy:
    """Another's actor."""

    def is_there(self) -> bool:
        return True


class OnGpu:
    """In the place of a worker: Ray gives it a GPU that is not there."""

    def __init__(self, host: str, kind: str) -> None:
        self._host = host

    def introduce(self, precision: str, packs: bool, sharing: int, *images: Any) -> Introduction:
        card = f"cuda:{os.environ['CUDA_VISIBLE_DEVICES']}"
        share = 2**33 // sharing
        return Introduction(
            host=self._host, device=card, multiplies_bf16=True, versions=versions(), memory=share
        )


def test_workers_share_the_gpus_of_the_nodes_that_have_some(
    two_nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    from slopesearch.search.launchers import ray as ray_launcher

    monkeypatch.setattr(ray_launcher, "RayWorker", OnGpu)
    two_nodes.add(num_gpus=2)
    assert slots("auto", None) == ["cuda"] * 2
    launcher = launched("cuda", workers=3, most=3)
    try:
        assert eventually(lambda: launcher.wait(0) is None and len(launcher.devices) == 3)
        assert sorted(launcher.devices) == [f"cuda:{card}@127.0.0.1" for card in (0, 0, 1)]
        assert launcher.shares() == [2**32] * 3
    finally:
        launcher.close()


def lacking(host: str) -> Introduction:
    raise ModuleNotFoundError("No module named 'slopesearch'")


def die(attempts: Path) -> None:
    with attempts.open("a") as file:
        file.write("x")
    os._exit(1)


def test_a_node_that_cannot_take_part_is_refused_and_a_worker_left_out(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from slopesearch.search.launchers import ray as ray_launcher

    with monkeypatch.context() as patch:
        patch.setattr(ray_cluster, "versions", lambda: {"slopesearch": "9.9"})
        with pytest.raises(RequestError, match="worker on 127.0.0.1 has slopesearch .*, this machine slo"):
            best_precision("cpu", None)
        with pytest.raises(RequestError, match="worker on 127.0.0.1 has slopesearch .*, this machine slo"):
            launched(most=2)
    with monkeypatch.context() as patch:
        patch.setattr(ray_cluster, "introduce", lacking)
        with pytest.raises(RequestError, match=r"cannot run a worker \(.*No module named 'slop.* install"):
            best_precision("cpu", None)
        patch.setattr(ray_cluster, "introduce", lambda host: die(tmp_path / "attempts"))
        with pytest.raises(RequestError, match="cannot run a worker .* the logs of Ray on that node"):
            best_precision("cpu", None)
        assert (tmp_path / "attempts").read_text() == "xx"  # one on each node: Ray tries nothing again
    reasons: list[str | None] = ["one of them is odd", None]
    monkeypatch.setattr(ray_launcher, "misfit", lambda *said: reasons.pop(0))
    launcher = launched(most=2)
    try:
        assert launcher.devices == ["cpu@127.0.0.1"]
        assert launcher.wait(0) == (-1, Said(text="one of them is odd; it is left out"))
        launcher.wait(1.2)  # another look at the nodes
        assert eventually(lambda: len(nodes.workers()) == 1)
    finally:
        launcher.close()


# The driver


def command(*words: str) -> list[str]:
    return [sys.executable, "-u", "-m", "slopesearch", "optimize", *words]


def driver(folder: Path, *words: str, **variables: str) -> "subprocess.Popen[str]":
    """`optimize` in a process group of its own, as from a terminal."""
    return subprocess.Popen(
        command(*words),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
        env={**os.environ, **variables},
    )


LONG = ("--dataset", "digits", "--model", "mlp", "--epochs", "4000", "--launcher", "ray")


@pytest.mark.parametrize("whose", ["another's", "its own"])
def test_a_driver_that_is_killed_leaves_no_worker_and_a_cluster_that_is_not_its_own(
    whose: str, nodes: Nodes, tmp_path: Path, temporary: Path
) -> None:
    address = ("--ray-address", nodes.address) if whose == "another's" else ("--workers", "1")
    process = driver(tmp_path, *LONG, *address, TMPDIR=str(temporary))
    with process:
        try:
            assert process.stdout is not None
            assert any(line.startswith("digits-mlp: to 200 trials") for line in process.stdout)
            family = [
                one
                for one in psutil.Process(process.pid).children(recursive=True)
                if not one.name().endswith("Agent")  # two helpers of Ray's, which take another minute
            ]
            if whose == "another's":
                assert eventually(lambda: nodes.training() == 2)
                family = nodes.workers()
            assert any("ray::RayWorker" in " ".join(one.cmdline()) for one in family)
        finally:
            process.kill()
    assert eventually(lambda: not any(map(lives, family)))
    assert nodes.alive() == 2


def test_a_cluster_of_its_own_is_loopback_alone_lets_trials_finish_on_ctrl_c_and_ends_with_the_command(
    tmp_path: Path, temporary: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    words = ("--dataset", "digits", "--model", "mlp", "--epochs", "40", "--launcher", "ray", "--workers", "1")
    process = driver(tmp_path, *words, "--storage", "sqlite:///x.db", TMPDIR=str(temporary), HOME=str(home))
    family: list[psutil.Process] = []
    try:
        with process:
            assert process.stdout is not None
            assert process.stderr is not None
            first = next(line for line in process.stdout if line.startswith("[1/"))
            family = psutil.Process(process.pid).children(recursive=True)
            listening = [
                connection.laddr.ip.removeprefix("::ffff:")
                for one in [psutil.Process(process.pid), *family]
                for connection in sockets_of(one)
                if connection.status == psutil.CONN_LISTEN
            ]
            os.killpg(process.pid, signal.SIGINT)
            output, errors = first + process.stdout.read(), process.stderr.read()
    finally:
        for one in filter(lives, family if process.poll() is None else []):
            one.kill()
        process.kill()
    assert len(listening) > 4
    assert set(listening) == {"127.0.0.1"}
    assert process.returncode == 130
    assert errors == ""
    assert "stopping: the running trials finish first" in output
    assert "ray" not in output.replace("--launcher ray", "").lower()
    study = Store(f"sqlite:///{tmp_path}/x.db").read(None)
    assert study.count("RUNNING") == study.count("FAIL") == 0
    assert len(study.trials) >= 2
    assert eventually(lambda: not any(map(lives, family)), 20)
    assert not list(tmp_path.glob("ray-*"))
    assert not list(home.glob(".ray*"))


def lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def sockets_of(process: psutil.Process) -> list[Any]:
    try:
        return list(process.net_connections())
    except psutil.NoSuchProcess:
        return []


def test_the_second_ctrl_c_leaves_what_runs_and_the_next_call_goes_on(nodes: Nodes, tmp_path: Path) -> None:
    words = (*LONG, "--ray-address", nodes.address, "--storage", "sqlite:///x.db", "--trials", "2")
    process = driver(tmp_path, *words)
    with process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            assert any(line.startswith("starting 2 workers") for line in process.stdout)
            assert eventually(lambda: nodes.training() == 2)
            os.killpg(process.pid, signal.SIGINT)
            assert next(process.stdout).startswith("stopping: the running trials finish first")
            os.killpg(process.pid, signal.SIGINT)
            output, errors = process.stdout.read(), process.stderr.read()
        finally:
            process.wait(60)
            process.kill()
    assert (process.returncode, errors) == (130, "")
    assert "0 of 2 trials are done; to go on" in output
    assert eventually(lambda: not nodes.workers())
    assert Store(f"sqlite:///{tmp_path}/x.db").read(None).count("RUNNING") > 0


# Data


def test_images_that_a_node_lacks_reach_it_once_and_are_mended_there(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    from slopesearch.search.launchers import ray as ray_launcher

    write_idx(tmp_path)
    hidden = tmp_path.with_name("hidden")  # for the nodes, the folder of the driver is not there
    sent: list[dict[str, bytes]] = []
    put = ray.put

    def sending(files: dict[str, bytes]) -> Any:
        sent.append(files)
        return put(files)

    monkeypatch.setattr(ray, "put", sending)
    monkeypatch.setattr(Images, "files", lambda self: files_of(self.dataset, tmp_path))
    monkeypatch.setattr(ray_launcher, "Images", lambda dataset, folder, hash: Images(dataset, hidden, hash))
    config = make_config(dataset="fashion-mnist", train_size=1280, val_size=100, epochs=1)

    def run(workers: int) -> None:
        launcher = launched("cpu", tmp_path, dataset="fashion-mnist", most=workers)
        try:
            assert eventually(lambda: launcher.wait(0) is None and len(launcher.devices) == workers)
            for slot in range(workers):
                launcher.start(slot, [config])
            first = [launcher.wait(SOON) for _ in range(workers)]
            assert [type(received[1]) for received in first if received] == [Reported] * workers, first
        finally:
            launcher.close()
        assert eventually(lambda: not nodes.workers())

    def copies() -> list[list[Path]]:
        return [list(folder.glob("slopesearch-*/*[!.lock]")) for folder in nodes.folders()]

    run(2)
    assert len(sent) == 1
    assert [len(found) for found in copies()] == [1, 1]
    for (copy,) in copies():
        assert whole_hash("fashion-mnist", copy) == whole_hash("fashion-mnist", tmp_path)
        next(copy.rglob("t10k-labels*")).unlink()  # as a system that clears what is old
    run(1)
    assert len(sent) == 2
    assert sorted(is_there("fashion-mnist", copy) for (copy,) in copies()) == [False, True]


def test_a_node_that_reads_other_images_or_cannot_keep_them_has_no_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_idx(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    worker = RayWorker("10.0.0.1", "cpu")

    def introduced(images: Images, *parcel: str) -> Introduction:
        return worker.introduce("float32", False, 1, images, parcel)

    monkeypatch.setattr("ray.get", lambda reference: {})
    other = introduced(Images("digits", tmp_path, "f" * 64), "no files")
    assert misfit(other, "float32") == (
        "the images of digits are read as others there than here; install the same scikit-learn and "
        "torchvision there (on 10.0.0.1)"
    )
    here = Images("fashion-mnist", tmp_path, whole_hash("fashion-mnist", tmp_path))
    assert not introduced(here).lacks_images
    away = Images("fashion-mnist", tmp_path / "away", here.hash)
    assert introduced(away).lacks_images
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / f"slopesearch-{os.getuid()}").write_bytes(b"")
    full = misfit(introduced(away, "files"), "float32")
    assert full is not None
    assert full.startswith("the images of fashion-mnist cannot be kept on 10.0.0.1 (File exists: '")
    assert full.endswith("'); name a folder there that holds them in SLOPESEARCH_DATA")


# Evidence


ARMS = """
dataset = "digits"
model = "mlp"
width = 8
epochs = 2
train_size = 640
baseline = "none"
space = { activation = "relu", init = "default", lr = 0.01 }  # its rate is given, so that nothing is tuned
arms = { none = { norm = "none" }, before = { norm = "before" } }
"""


def test_a_comparison_on_ray_says_what_it_says_in_one_process(
    nodes: Nodes, command_line: InProcess, tmp_path: Path
) -> None:
    (tmp_path / "arms.toml").write_text(ARMS)
    asked = ("compare", "arms.toml", "--seeds", "3", "--json")
    on_ray = ("--launcher", "ray", "--ray-address", nodes.address, "--storage", "sqlite:///ray.db")
    here, there = (command_line(*asked, *where) for where in (("--launcher", "inline"), on_ray))
    assert (here.code, there.code) == (0, 0), (here.err, there.err)
    (question,) = json.loads(here.out)
    assert [contrast["one"] for contrast in question["contrasts"]] == ["before"]
    assert [question] == json.loads(there.out)
