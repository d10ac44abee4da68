"""Is a device believed where it trains as it should, and not where it does not; is it asked once."""

import itertools
import json
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from slopesearch.nets import packed
from slopesearch.search.events import Event, Noted
from slopesearch.search.launchers import LAUNCHERS
from slopesearch.training import parity as module
from slopesearch.training.parity import mixed_configs, parity, rate, why_no_packs
from tests.harness import FakeLauncher, Harness

CPU = torch.device("cpu")


def test_this_cpu_trains_packs_and_single_runs_with_the_same_numbers() -> None:
    found = parity(CPU, "float32")
    assert found.is_right
    assert found.alone_is_right
    assert 0 < found.pack < found.allowed == 1e-3


def test_a_pack_with_a_wrong_slope_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    leaky = [c for c in mixed_configs(9, "float32", batch_size=16) if c.slope_mode == "fixed"]
    monkeypatch.setattr(module, "mixed_configs", lambda *asked, **named: leaky * 2)
    assert parity(CPU, "float32").is_right
    monkeypatch.setitem(
        packed._PACKED, torch.nn.LeakyReLU, lambda layers: torch.nn.LeakyReLU(0.12)
    )  # not 0.1
    found = parity(CPU, "float32")
    assert found.alone_is_right
    assert not found.is_right


def test_single_runs_that_are_wrong_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = mixed_configs(2, "float32", batch_size=16)
    monkeypatch.setattr(module, "mixed_configs", lambda *asked, **named: kinds)
    monkeypatch.setattr(
        "slopesearch.training.engine.accelerate",
        lambda model: torch.nn.Sequential(model, torch.nn.Hardtanh(-0.01, 0.01)),
    )
    found = parity(CPU, "float32")
    assert not found.alone_is_right
    assert not found.is_right


def test_the_rate_is_of_the_steps_that_were_made(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(perf_counter=itertools.count().__next__)  # s, each time it is looked at
    monkeypatch.setattr(module, "time", clock)
    assert rate(CPU, "float32", 1, seconds=2) == 3 * 128 / 2


def test_the_pack_that_is_checked_and_timed_is_of_every_kind() -> None:
    configs = mixed_configs(64, "float32", batch_size=8)
    kinds = {(config.activation, config.slope_mode, config.norm) for config in configs}
    assert len(kinds) == 27
    assert len({config.pack_key() for config in configs}) == 1
    assert rate(CPU, "float32", 1, seconds=0) > 0


class Card:
    """A GPU whose check is asked for in a process; what it answers, and how often."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
        self.asked: list[list[str]] = []
        self.answer: dict[str, float] = {"alone": 1e-5, "pack": 1e-5, "allowed": 1e-3}
        self.code = 0
        self.name = "NVIDIA Fake"
        monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: self.name)
        monkeypatch.setattr(subprocess, "run", self.run)

    def run(self, command: list[str], **settings: Any) -> SimpleNamespace:
        self.asked.append(command[-2:])
        if self.code < 0:
            raise subprocess.TimeoutExpired(command, 300)
        return SimpleNamespace(
            returncode=self.code, stdout=json.dumps(self.answer), stderr="Traceback\nRuntimeError: no kernel"
        )


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Card:
    return Card(monkeypatch, tmp_path / "cache")


def test_a_card_that_is_right_is_asked_once_for_each_kind_precision_and_version(
    card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    for device in ("cuda:0", "cuda:1"):
        assert why_no_packs(device, "float32") is None
    assert card.asked == [["cuda:0", "float32"]]
    assert why_no_packs("cuda:0", "bf16") is None
    card.name = "NVIDIA Other"
    assert why_no_packs("cuda:1", "float32") is None
    assert card.asked[1:] == [["cuda:0", "bf16"], ["cuda:1", "float32"]]
    monkeypatch.setattr(torch, "__version__", "99.0")
    assert why_no_packs("cuda:1", "float32") is None
    assert len(card.asked) == 4


@pytest.mark.parametrize(
    ("changes", "code", "reason"),
    [
        ({"pack": 0.2}, 0, "the losses of a pack are off by 0.2 from those of runs alone"),
        ({"alone": float("nan")}, 0, "those by nan from the CPU's, where 0.001 is allowed"),
        ({}, 1, "its check failed (RuntimeError: no kernel)"),
        ({}, -1, "its check was not done after 300 s"),
    ],
)
def test_a_card_that_is_wrong_is_asked_again(
    card: Card, changes: dict[str, float], code: int, reason: str
) -> None:
    card.answer |= changes
    card.code = code
    for _ in range(2):
        assert reason in str(why_no_packs("cuda:0", "float32"))
    assert len(card.asked) == 2


def test_a_cache_that_cannot_be_read_or_written_asks_again(card: Card, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    for _ in range(2):
        assert why_no_packs("cuda:0", "float32") is None
    assert len(card.asked) == 2


@pytest.mark.parametrize(("pack", "most"), [(0.2, 1), (1e-5, 4)])
def test_optimize_trains_packs_only_on_a_card_that_is_right(
    card: Card, pack: float, most: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    sizes: list[int] = []

    class Counting(FakeLauncher):
        def start(self, slot: int, configs: Any) -> None:
            sizes.append(len(configs))
            super().start(slot, configs)

    monkeypatch.setitem(LAUNCHERS, "fake", Counting)
    card.answer["pack"] = pack
    events: list[Event] = []
    harness = Harness(tmp_path / "x.db")
    harness(8, listen=events.append, devices="cuda:0,cuda:1", workers=None, pack=4)
    assert max(sizes) == most
    notes = [event.text for event in events if isinstance(event, Noted)]
    assert any("trials train one at a time, since packs cannot be trusted on cuda:0" in n for n in notes) == (
        most == 1
    )
    asked = len(card.asked)
    harness(10, devices="cpu", pack=4)  # on a CPU nothing is asked
    harness(12, devices="cuda:0", pack=1)
    assert len(card.asked) == asked


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_this_gpu_trains_packs_and_single_runs_with_the_same_numbers(precision: Any) -> None:
    assert parity(torch.device("cuda:0"), precision).is_right
