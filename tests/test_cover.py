"""The first trials: which they are, that every choice has its runs, and that no config comes twice."""

from collections import Counter
from itertools import product
from math import inf
from pathlib import Path
from typing import Any

import optuna
import pytest

from slopesearch.config import ResolvedSpec
from slopesearch.nets.activations import ACTIVATIONS
from slopesearch.nets.initializers import INITS
from slopesearch.search.cover import LEAST, first_trials, size, unstopped
from slopesearch.search.launchers import LAUNCHERS
from slopesearch.search.sampler import SAMPLERS, SeededSampler
from slopesearch.search.space import check, resolve, sample
from slopesearch.search.textbook import MOST, N_STARTUP, TEXTBOOK
from tests.harness import FakeLauncher, Harness, spec

SPACES: dict[str, dict[str, Any]] = {
    "default": {},
    "one activation": {"activation": "leaky_relu"},
    "no slope": {"activation": ["relu", "gelu"]},
    "fixed slopes": {"slope_mode": "fixed", "negative_slope": [0.01, 0.1, 0.3]},
    "a range of bounds": {"slope_max": {"low": 0.1, "high": 1.0}},
    "choices of the rate": {"lr": [1e-4, 1e-3, 1e-2]},
}
FEW: dict[str, Any] = {
    "activation": ["relu", "leaky_relu"],
    "negative_slope": 0.1,
    "slope_max": [0.3, 1.0],
    "norm": "none",
}


@pytest.fixture
def harness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Harness:
    monkeypatch.setitem(LAUNCHERS, "fake", FakeLauncher)
    return Harness(tmp_path / "x.db")


def spec_of(seed: int = 0, **space: Any) -> ResolvedSpec:
    return resolve(check({"dataset": "digits", "seed": seed, "space": space}), "float32")


def counts(rows: list[dict[str, Any]], name: str) -> Counter[Any]:
    return Counter(row[name] for row in rows if name in row)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_every_choice_has_a_run_by_trial_20_and_three_in_the_end(space: dict[str, Any], seed: int) -> None:
    asked = spec_of(seed, **space)
    first = first_trials(asked)
    assert N_STARTUP <= len(first) <= MOST
    assert unstopped(asked) == len(first)
    for name in ("activation", "norm", "init", "slope_mode", "slope_max"):
        axis = getattr(asked.space, name)
        applies = {
            "slope_mode": "leaky_relu" in asked.space.activation,
            "slope_max": "leaky_relu" in asked.space.activation and "learnable" in asked.space.slope_mode,
        }
        if isinstance(axis, tuple) and applies.get(name, True):
            assert set(counts(first[:N_STARTUP], name)) == set(axis)
            assert min(counts(first, name)[choice] for choice in axis) >= LEAST


def test_the_default_cover_is_balanced_over_activation_norm_and_rate() -> None:
    asked = spec_of()
    first = first_trials(asked)
    assert first[: len(TEXTBOOK)] == list(TEXTBOOK.values())
    assert len(first) == 33
    assert set(counts(first, "activation")) == set(ACTIVATIONS)
    assert set(counts(first, "init")) == set(INITS)
    assert set(counts(first, "norm").values()) == {11}
    for activation in ("elu", "gelu", "silu", "tanh", "sigmoid"):
        rows = [row for row in first if row["activation"] == activation]
        assert sorted(str(row["norm"]) for row in rows) == ["after", "before", "none"]
        rates = sorted(float(row["lr"]) for row in rows)
        assert rates[2] / rates[0] > 10  # of a range of 300: never three low ones
    assert all(1e-4 <= float(row["lr"]) <= 3e-2 for row in first)
    assert first != first_trials(spec_of(1))
    assert first == first_trials(spec_of())


def test_a_study_made_before_walks_as_it_did() -> None:
    first = first_trials(spec_of().model_copy(update={"plan": "walk"}))
    cover = first[len(TEXTBOOK) :]
    assert [row["activation"] for row in cover[:8]] == list(ACTIVATIONS)
    assert [set(row) for row in cover] == [{"activation", "norm"}] * 15
    assert unstopped(spec_of().model_copy(update={"plan": "walk"})) == len(TEXTBOOK)


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_the_size_of_a_space_is_the_number_of_its_configs(space: dict[str, Any]) -> None:
    numbers: dict[str, Any] = {"negative_slope": [0.01, 0.2], "slope_max": [0.3, 1.0], "lr": [1e-3, 1e-2]}
    asked = spec_of(**{**space, **numbers}).space
    ways = 0
    for activation in asked.activation:
        modes = asked.slope_mode if activation == "leaky_relu" else ("",)
        slopes = {"": 1, "fixed": 2, "learnable": 4}
        ways += sum(slopes[mode] for mode in modes) * len(asked.norm) * len(asked.init) * 2
    assert size(asked, {}) == ways
    assert size(spec_of(**space).space, {}) == inf if "lr" not in space else True
    assert size(asked, {"activation": asked.activation[0], "lr": 1e-3}) <= ways / 2


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_no_config_comes_twice_until_a_space_is_used_up(sampler: str) -> None:
    asked = spec_of(**FEW, init=["default", "lsuv"], lr=[1e-3, 1e-2])
    count = int(size(asked.space, {}))
    assert count == (1 + 3) * 2 * 2
    seeded = SeededSampler(SAMPLERS[sampler], 0, [], lambda chosen: size(asked.space, chosen))
    study = optuna.create_study(sampler=seeded)
    configs = set()
    for number in range(count):
        trial = study.ask()
        configs.add(sample(asked, trial))
        study.tell(trial, 1 / (1 + number))
    assert len(configs) == count


def test_a_study_runs_each_config_of_its_space_once_and_says_so(harness: Harness) -> None:
    asked = spec(plan="cover", space={**FEW, "init": "default", "lr": [1e-3, 1e-2]})
    outcome = harness(50, asked, workers=3)
    assert (outcome.finished, outcome.space, outcome.interrupted) == (8, 8, False)
    trials = harness.study().trials
    assert len({trial.config for trial in trials}) == len(trials) == 8
    assert harness(60, asked).space == 8
    assert len(harness.study().trials) == 8


def test_all_configs_of_a_space_are_planned_where_it_is_small() -> None:
    asked = spec_of(**FEW, init="default", lr=[1e-3, 1e-2])
    first = first_trials(asked)
    rows = {tuple(sorted(row.items())) for row in first}
    assert len(rows) == len(first) == size(asked.space, {}) == 8
    assert {(row["activation"], row["lr"]) for row in first} == set(
        product(["relu", "leaky_relu"], [1e-3, 1e-2])
    )
