"""Which devices get how many workers, and the check of the torch pair."""

import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest
import torch

from slopesearch.training import devices as devices_module
from slopesearch.training.devices import (
    arithmetic,
    best_precision,
    checked_torch_pair,
    default_pack,
    gpu_shares,
    prepare,
    resolve_devices,
    usable_cores,
)
from slopesearch.wording import RequestError, StudyFailedError


@pytest.fixture
def three_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)


@pytest.mark.usefixtures("three_gpus")
@pytest.mark.parametrize(
    ("devices", "workers", "slots"),
    [
        ("auto", None, ["cuda:0", "cuda:1", "cuda:2"]),
        ("cuda", None, ["cuda:0", "cuda:1", "cuda:2"]),
        ("auto", 5, ["cuda:0", "cuda:1", "cuda:2", "cuda:0", "cuda:1"]),
        ("auto", 1, ["cuda:0"]),
        ("cuda:0,cuda:2", None, ["cuda:0", "cuda:2"]),
        ("cuda:0,cuda:0", None, ["cuda:0", "cuda:0"]),  # two workers on one card
        ("cuda:2, cpu", None, ["cuda:2", "cpu"]),
    ],
)
def test_every_visible_gpu_gets_a_worker(devices: str, workers: int | None, slots: list[str]) -> None:
    assert resolve_devices(devices, workers) == slots


@pytest.mark.usefixtures("no_gpu")
def test_without_a_gpu_every_usable_core_gets_a_worker() -> None:
    assert resolve_devices("auto", None) == ["cpu"] * usable_cores()
    assert resolve_devices("cpu", 7) == ["cpu"] * 7
    assert resolve_devices("cpu,cpu", None) == ["cpu", "cpu"]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no CPU affinity on this system")
def test_affinity_counts() -> None:
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("devices", ["cuda", "cuda:0", "cpu,cuda:1", "tpu", ""])
def test_a_device_that_is_not_there_is_refused(devices: str) -> None:
    with pytest.raises(RequestError, match="there is no device '.*' here; choose from auto, cpu"):
        resolve_devices(devices, None)


@pytest.fixture
def untried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forgets that the pair is sound; what is tried is two empty modules in the test's folder."""
    monkeypatch.setattr(devices_module, "_is_sound", threading.Event())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("torch", "torchvision"):
        (tmp_path / f"{name}.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


class Reinstalled:
    """What pip knows of a package."""

    def read_text(self, name: str) -> str:
        assert name == "RECORD"
        return "torch/version.py,sha256=another,1"


@pytest.mark.usefixtures("untried")
def test_a_sound_pair_is_tried_again_where_it_was_installed_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    trials: list[object] = []
    trial = devices_module._trial

    def counted() -> "subprocess.Popen[str]":
        trials.append(found := trial())
        return found

    monkeypatch.setattr(devices_module, "_trial", counted)

    def tried(afresh: bool = False) -> int:
        with checked_torch_pair(afresh):
            pass
        return len(trials)

    assert [tried(), tried(), tried(afresh=True)] == [1, 1, 2]
    monkeypatch.setattr(devices_module, "_is_sound", threading.Event())  # as in another process
    assert tried() == 2
    monkeypatch.setattr(devices_module, "distribution", lambda name: Reinstalled())
    assert tried() == 3
    with pytest.raises(StudyFailedError, match="memory ran short"), checked_torch_pair():
        raise MemoryError  # which is named all the same


@pytest.mark.usefixtures("untried")
def test_a_pair_that_was_sound_and_has_lost_a_library_names_the_fix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with checked_torch_pair():
        pass
    monkeypatch.setattr(devices_module, "_is_sound", threading.Event())  # as in another process
    lost = "libcudnn.so.9: cannot open shared object file"
    (tmp_path / "torchvision.py").write_text(f"raise ImportError('{lost}')")
    with checked_torch_pair():
        pass  # what is remembered is not tried
    with pytest.raises(RequestError, match=rf"{lost}\); .*pip install torch"), checked_torch_pair():
        raise ImportError(lost)


@pytest.mark.usefixtures("untried")
def test_a_pair_that_does_not_import_names_the_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    sentence = "torchvision::nms.*pip install torch torchvision"
    with pytest.raises(RequestError, match=sentence), checked_torch_pair():
        pass
    with pytest.raises(RequestError, match=sentence), checked_torch_pair():
        raise ImportError("undefined symbol")  # as torch itself may, in the block


@pytest.mark.usefixtures("untried")
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "signal 9"),  # as the system does when memory is short
        ("print('what(): std::bad_alloc', file=sys.stderr); os.abort()", "std::bad_alloc"),
        ("raise MemoryError", "MemoryError"),
        ("raise ImportError('x.so: cannot open: Cannot allocate memory')", "Cannot allocate memory"),
        ("raise ImportError('x.so: failed to map segment from shared object')", "failed to map segment"),
    ],
)
def test_a_lack_of_memory_is_no_verdict_on_the_pair(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, reason: str
) -> None:
    (tmp_path / "torchvision.py").write_text(f"import os, signal, sys\n{fault}")
    with (
        pytest.raises(StudyFailedError, match=f"{reason}.* that memory ran short: end"),
        checked_torch_pair(),
    ):
        pass


@pytest.mark.usefixtures("untried")
def test_a_lack_of_memory_in_the_block_is_named_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (MemoryError(), ImportError("x.so: failed to map segment from shared object")):
        with pytest.raises(StudyFailedError, match="memory ran short"), checked_torch_pair():
            raise error
    reason = "x.so: failed to map segment from shared object: Operation not permitted"
    with pytest.raises(ImportError), checked_torch_pair():
        raise ImportError(reason)
    monkeypatch.setattr(devices_module, "_is_sound", threading.Event())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))
    (tmp_path / "torchvision.py").write_text(f"raise ImportError('{reason}')")
    with pytest.raises(RequestError, match="Operation not permitted.*pip install"), checked_torch_pair():
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not hold to this limit")
def test_a_command_with_too_little_memory_says_so(tmp_path: Path) -> None:
    limit = 600 * 2**20  # torch's libraries alone are larger
    done = subprocess.run(
        [sys.executable, "-m", "slopesearch", "optimize", "--dataset", "digits"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "torch and torchvision could not be loaded (" in done.stderr
    assert "memory ran short" in done.stderr


def test_the_installed_pair_passes() -> None:
    with checked_torch_pair(afresh=True):
        pass


PARENT = """
import os, sys, time
from slopesearch.training.devices import checked_torch_pair
with checked_torch_pair():
    print(os.getpid(), flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_the_trial_of_the_pair_ends_with_its_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """The pair takes minutes to load here, and the signal goes to the parent alone."""
    (tmp_path / "torchvision.py").write_text("import time; time.sleep(600)")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        (trial,) = psutil.Process(parent.pid).children()
        assert trial.is_running()
        parent.send_signal(number)
        assert parent.wait(20) == (130 if number == signal.SIGINT else -number)
        assert psutil.wait_procs([trial], timeout=20)[1] == []


def test_without_a_folder_for_temporary_files_the_pair_is_not_blamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(tmp_path / "nowhere")])
    with (
        pytest.raises(RequestError, match="no folder for temporary files .*nowhere.* name it in TMPDIR"),
        checked_torch_pair(),
    ):
        pass


def test_gpus_train_in_float32_until_bf16_is_measured_there() -> None:
    assert best_precision(["cuda:0"]) == "float32"
    assert best_precision(["cpu", "cuda:0"]) == "float32"


@pytest.mark.parametrize(
    ("amx", "avx512", "precision"),
    [(True, False, "bf16"), (False, True, "bf16"), (False, False, "float32")],
)
def test_a_cpu_trains_in_bf16_where_it_multiplies_that_itself(
    monkeypatch: pytest.MonkeyPatch, amx: bool, avx512: bool, precision: str
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    assert best_precision(["cpu", "cpu"]) == precision
    assert best_precision(["cpu", "cuda:0"]) == "float32"


def test_packs_are_for_gpus_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = SimpleNamespace(total_memory=2**33)  # 8 GiB
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda name: memory)

    def pack(devices: list[str], trials: int) -> int:
        return default_pack(gpu_shares(devices), trials)[0]

    assert default_pack(gpu_shares(["cpu", "cpu"]), 200) == (1, "on a CPU packs gain nothing")
    assert pack(["cuda:0", "cpu"], 200) == 1
    assert default_pack(gpu_shares(["cuda:0"]), 200) == (4, "a search of 200 trials takes 50 rounds")
    assert pack(["cuda:0", "cuda:1"], 200) == 2
    assert pack(["cuda:0"], 10) == 1
    assert default_pack(gpu_shares(["cuda:0"]), 10_000) == (16, "larger ones cost the search too much")
    memory.total_memory = 2**29 + 2**27  # for two members and a half
    assert default_pack(gpu_shares(["cuda:0"]), 200) == (2, "a worker's share of memory is 0.6 GiB")


def test_workers_on_one_card_share_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    cards = {"cuda:0": 2**33, "cuda:1": 2**32}  # 8 and 4 GiB
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda name: SimpleNamespace(total_memory=cards[name])
    )
    assert default_pack(gpu_shares(["cuda:1"]), 10**6)[0] == 16
    assert default_pack(gpu_shares(["cuda:1", "cuda:1"]), 10**6)[0] == 8
    assert default_pack(gpu_shares(["cuda:0", "cuda:0", "cuda:1"]), 10**6)[0] == 16
    assert default_pack(gpu_shares(["cuda:0", "cuda:1", "cuda:1"]), 10**6)[0] == 8


@pytest.fixture
def settings_of_torch() -> Iterator[list[Any]]:
    """Where torch keeps how it multiplies float32 on a GPU; put back afterwards, with what `prepare` sets."""
    cudnn: Any = torch.backends.cudnn
    products = [cudnn.conv, torch.backends.cuda.matmul]
    kept = [place.fp32_precision for place in products]
    yield products
    for place, precision in zip(products, kept, strict=True):
        place.fp32_precision = precision
    torch.backends.cudnn.benchmark = False


def test_float32_is_float32_on_a_gpu_and_the_device_is_the_current_one(
    monkeypatch: pytest.MonkeyPatch, settings_of_torch: list[Any]
) -> None:
    pinned: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "set_device", pinned.append)
    device = torch.device("cuda:1")
    assert arithmetic("float32", device) == "tf32"  # torch's own way, in convolutions
    assert arithmetic("float32", torch.device("cpu")) == "float32"
    prepare(device)
    assert pinned == [device]
    assert [products.fp32_precision for products in settings_of_torch] == ["ieee", "ieee"]
    assert torch.backends.cudnn.benchmark
    assert arithmetic("float32", device) == "float32"
    assert arithmetic("bf16", device) == "bf16"
