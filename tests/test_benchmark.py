"""What the benchmark trains is what a study does."""

import importlib
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parent.parent / "scripts"


def test_the_packs_of_the_benchmark_are_mixed_as_those_of_a_study_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(SCRIPTS)
    benchmark = importlib.import_module("benchmark")
    configs = benchmark.mixed_configs("before", "float32", max(benchmark.PACKS))
    assert len({config.pack_key() for config in configs}) == 1
    assert {config.norm for config in configs} == {"before"}
    assert len({config.activation for config in configs}) == 8
    assert len({config.slope_mode for config in configs}) == 3  # fixed, learnable and none
    assert configs[:4] == benchmark.mixed_configs("before", "float32", 4)
