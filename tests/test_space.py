"""What is sampled, under which condition, and which trials come first."""

from typing import Any

import optuna
import pytest

from slopesearch.config import ResolvedSpec, TrialConfig
from slopesearch.nets.activations import ACTIVATIONS
from slopesearch.nets.initializers import INITS
from slopesearch.search.cover import first_trials
from slopesearch.search.sampler import SAMPLERS, SeededSampler
from slopesearch.search.space import check, resolve, sample, within_bound
from slopesearch.search.textbook import TEXTBOOK, textbook
from slopesearch.training.data import Data
from tests.conftest import make_config, run_to_end


def spec_of(**fields: Any) -> ResolvedSpec:
    return resolve(check({"dataset": "digits", **fields}), "float32")


def draw(spec: ResolvedSpec, count: int, first: bool = False) -> list[tuple[TrialConfig, dict[str, Any]]]:
    sampler = SeededSampler(SAMPLERS["random"], spec.seed, first_trials(spec) if first else [])
    study = optuna.create_study(sampler=sampler)
    drawn = []
    for _ in range(count):
        trial = study.ask()
        drawn.append((sample(spec, trial), trial.params))
    return drawn


def test_the_whole_space_is_drawn_and_its_conditions_hold() -> None:
    drawn = draw(spec_of(), 600)
    assert {config.activation for config, _ in drawn} == set(ACTIVATIONS)
    assert {config.init for config, _ in drawn} == set(INITS)
    assert {config.norm for config, _ in drawn} == {"none", "before", "after"}
    assert {config.slope_max for config, _ in drawn} == {None, 0.1, 0.3, 1.0}
    for config, params in drawn:
        leaky = config.activation == "leaky_relu"
        learnable = config.slope_mode == "learnable"
        assert ("negative_slope" in params) == ("slope_mode" in params) == leaky
        assert ("slope_max" in params) == learnable
        assert (config.negative_slope is None) == (config.slope_mode is None) == (not leaky)
        assert (config.slope_min, config.slope_clamp) == ((1e-3, "project") if learnable else (None, None))
        assert 1e-4 <= config.lr <= 3e-2
        shown = {name: getattr(config, name) for name in params}
        if learnable:  # it starts at its bound where it was drawn above it, and the config says so
            assert config.negative_slope == min(params["negative_slope"], params["slope_max"])
            shown["negative_slope"] = params["negative_slope"]
        assert shown == params
        if leaky:
            assert 1e-3 <= params["negative_slope"] <= 0.5

    above = [params for _, params in drawn if params.get("negative_slope", 0) > params.get("slope_max", 1)]
    assert len(above) >= 5


def test_a_start_above_its_bound_is_the_same_run_as_one_at_the_bound(digits: Data) -> None:
    stored = make_config(slope_mode="learnable", negative_slope=0.4, slope_max=0.1)
    ours = within_bound(stored)
    assert ours == stored.model_copy(update={"negative_slope": 0.1})
    assert run_to_end(ours, digits).curve == run_to_end(stored, digits).curve
    for config in (ours, make_config(negative_slope=0.4), make_config(activation="relu")):
        assert within_bound(config) is config


def test_a_fixed_parameter_is_no_parameter_of_the_study() -> None:
    spec = spec_of(space={"activation": "leaky_relu", "slope_mode": "fixed", "norm": "none", "lr": 1e-3})
    for config, params in draw(spec, 20):
        assert set(params) == {"negative_slope", "init"}
        assert (config.activation, config.norm, config.lr) == ("leaky_relu", "none", 1e-3)


def test_every_trial_of_a_study_shares_its_luck_and_seeds_differ() -> None:
    seeds = {(config.init_seed, config.order_seed) for config, _ in draw(spec_of(), 5)}
    assert len(seeds) == 1
    assert seeds != {(config.init_seed, config.order_seed) for config, _ in draw(spec_of(seed=1), 5)}


@pytest.mark.parametrize(
    ("space", "held"),
    [
        ({"activation": "relu"}, ["ReLU with He init"]),
        ({"norm": ["none", "after"]}, [name for name in TEXTBOOK if "BatchNorm" not in name]),
        ({"lr": {"low": 2e-3, "high": 1e-2}}, []),
        ({"lr": [1e-3, 1e-2]}, list(TEXTBOOK)),
        ({"slope_max": [0.3, 1.0]}, [name for name in TEXTBOOK if "learnable" not in name]),
        ({"negative_slope": 0.2, "activation": ["leaky_relu", "prelu"]}, ["PReLU from 0.25"]),
    ],
)
def test_a_recipe_outside_the_space_is_left_out(space: dict[str, Any], held: list[str]) -> None:
    spec = spec_of(space=space)
    assert list(textbook(spec)) == held
    first = first_trials(spec)
    assert len(first) >= 20
    draw(spec, len(first), first=True)  # every value is one that the space holds
