"""Draws that depend on seed, trial number and parameter alone."""

from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from optuna.trial import Trial

from slopesearch.search.sampler import SAMPLERS, SeededSampler
from slopesearch.search.store import Store


def suggest(trial: Trial, names: str = "abc") -> dict[str, object]:
    """A small conditional space, or only its first parameters."""
    kind = trial.suggest_categorical("a", ["x", "y"])
    if "b" in names:
        trial.suggest_float("b", 1e-4, 1, log=True)
    if "c" in names and kind == "x":
        trial.suggest_float("c", 0, 1)
    return trial.params


def score(params: dict[str, object]) -> float:
    return float(params["b"]) + float(params.get("c", 0.5))  # type: ignore[arg-type]


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[optuna.storages.RDBStorage]:
    with Store(f"sqlite:///{tmp_path}/x.db").open() as storage:
        yield storage


def run(storage: optuna.storages.RDBStorage, name: str, sampler: str, restart_every: int) -> list[object]:
    """40 trials in sessions of `restart_every`, each with a new sampler as a new process would have."""
    study = None
    for number in range(40):
        if study is None or number % restart_every == 0:
            study = optuna.create_study(
                storage=storage,
                study_name=name,
                sampler=SeededSampler(SAMPLERS[sampler], 5, []),
                load_if_exists=True,
            )
        trial = study.ask()
        if number % 7 == 3:  # killed between two suggestions, and taken up again
            suggest(trial, "a")
            study = optuna.load_study(
                study_name=name, storage=storage, sampler=SeededSampler(SAMPLERS[sampler], 5, [])
            )
            trial = Trial(study, study.trials[number]._trial_id)
        study.tell(trial, score(suggest(trial)))
    assert study is not None
    return [(trial.params, trial.value) for trial in study.trials]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_restarted_study_draws_what_one_process_would_have(
    storage: optuna.storages.RDBStorage, sampler: str
) -> None:
    whole = run(storage, "whole", sampler, restart_every=1000)
    assert run(storage, "pieces", sampler, restart_every=3) == whole
    assert len({str(row) for row in whole}) == 40


def test_another_seed_is_another_study(storage: optuna.storages.RDBStorage) -> None:
    params = []
    for seed in (0, 1):
        study = optuna.create_study(storage=storage, sampler=SeededSampler(SAMPLERS["random"], seed, []))
        params.append(suggest(study.ask()))
    assert params[0] != params[1]


def test_fixed_parameters_are_taken_and_the_rest_is_drawn(storage: optuna.storages.RDBStorage) -> None:
    sampler = SeededSampler(SAMPLERS["tpe"], 0, [{"a": "x", "b": 0.125, "c": 0.25}, {"a": "y"}])
    study = optuna.create_study(storage=storage, sampler=sampler)
    assert suggest(study.ask()) == {"a": "x", "b": 0.125, "c": 0.25}
    second = suggest(study.ask())
    assert second["a"] == "y"
    assert second["b"] != 0.125
