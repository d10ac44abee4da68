"""Draws that depend on seed, trial number and parameter alone."""

from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from optuna.samplers._tpe import sampler as tpe
from optuna.trial import FrozenTrial, Trial

from slopesearch.search import sampler
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
    fixed = SeededSampler(SAMPLERS["tpe"], 0, [{"a": "x", "b": 0.125, "c": 0.25}, {"a": "y"}])
    study = optuna.create_study(storage=storage, sampler=fixed)
    assert suggest(study.ask()) == {"a": "x", "b": 0.125, "c": 0.25}
    second = suggest(study.ask())
    assert second["a"] == "y"
    assert second["b"] != 0.125


def test_of_a_long_study_tpe_sees_the_best_the_running_and_an_even_part_of_the_others(
    storage: optuna.storages.RDBStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampler, "MOST", 30)
    monkeypatch.setattr(sampler, "BEST", 4)
    split, seen = tpe._split_trials, []

    def watched(study: optuna.Study, trials: list[FrozenTrial], n_below: int) -> object:
        seen.append([trial.number for trial in trials])
        return split(study, trials, n_below)

    monkeypatch.setattr(tpe, "_split_trials", watched)
    drawn = SeededSampler(SAMPLERS["tpe"], 0, [])
    study = optuna.create_study(storage=storage, sampler=drawn, direction="maximize")
    for number in range(120):
        trial = study.ask()
        suggest(trial)
        study.tell(trial, 1.0 if number in (7, 53, 61, 118) else 0.5)
        if number == 29:
            assert seen[-1] == list(range(29))  # a short study is seen whole
    running = study.ask()
    seen.clear()
    suggest(study.ask())
    assert len(set(map(tuple, seen))) == 1  # of every group of parameters
    (numbers,) = set(map(tuple, seen))
    assert {7, 53, 61, 118, running.number} <= set(numbers)
    assert 30 < len(numbers) <= 35
    thirds = [sum(low <= number < low + 40 for number in numbers) for low in (0, 40, 80)]
    assert min(thirds) >= 10
