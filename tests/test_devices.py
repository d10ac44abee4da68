"""Which devices get how many workers, and the check of the torch pair."""

import os
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from slopesearch.training.devices import (
    best_precision,
    checked_torch_pair,
    default_pack,
    resolve_devices,
    usable_cores,
)
from slopesearch.wording import RequestError


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


def test_a_pair_that_does_not_import_names_the_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    sentence = "torchvision::nms.*pip install torch torchvision"
    with pytest.raises(RequestError, match=sentence), checked_torch_pair():
        pass
    with pytest.raises(RequestError, match=sentence), checked_torch_pair():
        raise ImportError("undefined symbol")  # as torch itself may, in the block


def test_a_pair_that_imports_passes_and_ctrl_c_waits_for_nothing() -> None:
    with checked_torch_pair():
        pass
    with pytest.raises(KeyboardInterrupt), checked_torch_pair():
        raise KeyboardInterrupt


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
    assert best_precision(["cpu"]) in ("bf16", "float32")


def test_packs_are_for_gpus_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = SimpleNamespace(total_memory=2**33)  # 8 GiB
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda name: memory)
    assert default_pack(["cpu", "cpu"], 200) == 1
    assert default_pack(["cuda:0", "cpu"], 200) == 1
    assert default_pack(["cuda:0"], 200) == 4
    assert default_pack(["cuda:0", "cuda:1"], 200) == 2
    assert default_pack(["cuda:0"], 10) == 1
    assert default_pack(["cuda:0"], 10_000) == 16
    memory.total_memory = 2**29
    assert default_pack(["cuda:0"], 200) == 2
