"""What doctor finds on machines that there are not, and what its command prints and ends with."""

import shutil
import subprocess
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from slopesearch.training import devices, doctor
from slopesearch.training.parity import Parity
from slopesearch.wording import RequestError
from tests.conftest import InProcess

RIGHT = Parity(alone=3e-5, pack=4e-6, allowed=1e-3)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing trains, and torchvision is not tried."""
    monkeypatch.setattr(devices, "checked_torch_pair", lambda afresh: nullcontext())
    monkeypatch.setattr(doctor, "parity", lambda device, precision: RIGHT)
    monkeypatch.setattr(doctor, "rate", lambda device, precision, count: 1000.0 * count)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    card = SimpleNamespace(name="NVIDIA Fake", total_memory=2**33, major=9, minor=0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)


def found() -> dict[str, doctor.Finding]:
    """The last finding of each name: of several devices, the last one's."""
    return {finding.name: finding for finding in doctor.examine()}


def test_a_machine_without_a_gpu_is_sound() -> None:
    findings = found()
    assert list(findings) == ["driver", "kernels", "workers", "cpu", "  numbers", "  images/s", "pack"]
    assert findings["  images/s"].value == "1,000 alone, 4,000 in a pack of 4"
    assert findings["pack"].value == (
        "1 trial at a time on a device, in a study of 200: on a CPU packs gain nothing"
    )
    assert not any(finding.wrong or finding.fatal for finding in findings.values())


@pytest.mark.usefixtures("two_gpus")
def test_each_gpu_is_examined_and_the_cpu_too() -> None:
    findings = list(doctor.examine())
    names = [finding.name for finding in findings if finding.name in ("cuda:0", "cuda:1", "cpu")]
    assert names == ["cuda:0", "cuda:1", "cpu"]
    assert "NVIDIA Fake, 8 GiB, compute capability 9.0" in findings[3].value
    assert "32 differ by 3e-05 from plain layers on the CPU, and in a pack by 4e-06" in findings[4].value
    assert findings[5].value.endswith("64,000 in a pack of 64")
    assert findings[-1].value == (
        "2 trials at a time on a device, in a study of 200: a search of 200 trials takes 50 rounds"
    )


@pytest.mark.usefixtures("two_gpus")
def test_a_gpu_whose_packs_are_wrong_gets_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def parity(device: torch.device, precision: str) -> Parity:
        return Parity(3e-5, 0.2, 1e-3) if device.index == 1 else RIGHT

    monkeypatch.setattr(doctor, "parity", parity)
    wrong = [finding for finding in doctor.examine() if finding.wrong]
    assert [finding.fatal for finding in wrong] == [True]
    assert wrong[0].wrong is not None
    assert wrong[0].wrong.startswith("packs on cuda:1 give wrong numbers: losses are off by 0.2")
    assert found()["pack"].value == (
        "1 trial at a time on a device, in a study of 200: packs give other numbers here"
    )


@pytest.mark.usefixtures("two_gpus")
def test_a_gpu_that_fails_is_told_of_and_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    def parity(device: torch.device, precision: str) -> Parity:
        if device.type == "cuda":
            raise RuntimeError("CUDA error: no kernel image is available for execution on the device\nmore")
        return RIGHT

    monkeypatch.setattr(doctor, "parity", parity)
    findings = list(doctor.examine())
    said = [finding.wrong for finding in findings if finding.fatal]
    reason = "cannot train: CUDA error: no kernel image is available for execution on the device"
    assert said == [f"cuda:0 {reason}", f"cuda:1 {reason}"]
    assert [finding.name for finding in findings].count("  images/s") == 1


@pytest.mark.usefixtures("two_gpus")
def test_what_does_not_fit_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    def rate(device: torch.device, precision: str, count: int) -> float:
        if count > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return 1.0

    monkeypatch.setattr(doctor, "rate", rate)
    told = next(finding.value for finding in doctor.examine() if finding.name == "  images/s")
    assert told == "1 alone, 1 in a pack of 4, a pack of 16 does not fit into the memory that is free"


def test_a_driver_without_a_gpu_for_torch_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: "nvidia-smi")
    monkeypatch.setattr(subprocess, "run", lambda *ask, **how: SimpleNamespace(stdout="550.54\n"))
    monkeypatch.setattr(torch.version, "cuda", None)
    driver = found()["driver"]
    assert driver.value.startswith("NVIDIA 550.54; torch ")
    assert driver.wrong is not None
    assert "built for the CPU alone" in driver.wrong
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert "torch sees no GPU" in str(found()["driver"].wrong)


def test_kernels_that_are_off_are_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "kernels_compile", lambda: False)
    assert "half the speed" in str(found()["kernels"].wrong)
    monkeypatch.setenv("SLOPESEARCH_KERNELS", "off")
    assert found()["kernels"] == doctor.Finding("kernels", "off, as SLOPESEARCH_KERNELS says")


def test_doctor_fits_80_columns_and_ends_with_0_where_numbers_are_right(command_line: InProcess) -> None:
    ran = command_line("doctor")
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert max(map(len, lines)) <= 80
    names = [line[:10].strip() for line in lines if line[:10].strip()]
    assert names[:6] == ["system", "packages", "storage", "torch pair", "data", "driver"]
    assert lines[-1] == "Nothing is wrong."
    assert not Path("studies").exists()  # nothing was written


def test_doctor_says_each_thing_that_is_wrong(command_line: InProcess, tmp_path: Path) -> None:
    (tmp_path / "x.db").write_text("no database")
    ran = command_line("doctor", "--storage", f"sqlite:///{tmp_path}/x.db", "--data", f"{tmp_path}/nowhere")
    assert ran.code == 0  # training would be right
    text = " ".join(ran.out.split())
    assert "wrong: no study can be written: " in text
    assert "cannot be read as a SQLite file" in text
    assert "wrong: the data folder" in text
    assert max(map(len, ran.out.splitlines())) <= 80


def test_doctor_ends_with_1_where_numbers_are_wrong(
    command_line: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "parity", lambda device, precision: Parity(0.03, 0.0, 1e-3))
    ran = command_line("doctor")
    assert ran.code == 1
    assert "wrong: training on cpu gives wrong numbers: losses are off by 0.03" in ran.out


def test_doctor_goes_on_without_a_torch_pair_and_ends_with_1(
    command_line: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(afresh: bool) -> None:
        raise RequestError("torch and torchvision do not work together")

    monkeypatch.setattr(devices, "checked_torch_pair", broken)
    ran = command_line("doctor")
    assert ran.code == 1
    assert "torch pair broken" in ran.out
    assert "wrong: torch and torchvision do not work together" in ran.out
