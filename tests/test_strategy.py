"""Seeded draws, and the pruner against Optuna's own."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import optuna
import pytest
from optuna.pruners import SuccessiveHalvingPruner
from optuna.trial import Trial, TrialState

from slopesearch.search.pruner import PRUNERS, HalvingPruner
from slopesearch.search.sampler import SAMPLERS, SeededSampler
from slopesearch.search.store import database


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
    with database(tmp_path / "x.db") as storage:
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


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
@pytest.mark.parametrize("seed", range(3))
def test_halving_gives_optunas_verdicts(direction: Literal["maximize", "minimize"], seed: int) -> None:
    """Eight trials run at a time, in a random order, as with eight workers."""
    generator = random.Random(seed)
    ours = optuna.create_study(direction=direction, pruner=HalvingPruner())
    theirs = optuna.create_study(
        direction=direction, pruner=SuccessiveHalvingPruner(min_resource=1, reduction_factor=3)
    )
    running: list[tuple[Trial, Trial, int]] = []
    verdicts = []
    for _ in range(600):
        if len(running) < 8:
            running.append((ours.ask(), theirs.ask(), 0))
        mine, other, step = running.pop(generator.randrange(len(running)))
        value = round(generator.random(), 2)  # ties happen
        for trial in (mine, other):
            trial.report(value, step + 1)
        if step + 1 == 9:
            ours.tell(mine, value)
            theirs.tell(other, value)
            continue
        verdict = mine.should_prune()
        assert verdict == other.should_prune()
        assert verdict == mine.should_prune()  # asked again, it says the same
        verdicts.append(verdict)
        if verdict:
            ours.tell(mine, state=TrialState.PRUNED)
            theirs.tell(other, state=TrialState.PRUNED)
        else:
            running.append((mine, other, step + 1))
    assert 20 < sum(verdicts) < len(verdicts)


def test_halving_has_its_rungs_at_1_3_and_9() -> None:
    assert HalvingPruner().rungs() == [1, 3, 9]


def test_hyperband_deals_out_brackets_and_judges_within_them() -> None:
    pruner = HalvingPruner((9, 5, 3))
    brackets = [pruner.bracket(number) for number in range(1700)]
    assert [brackets.count(b) / 100 for b in range(3)] == pytest.approx([9, 5, 3], rel=0.2)
    study = optuna.create_study(direction="maximize", pruner=pruner)
    judged_at: dict[int, set[int]] = {0: set(), 1: set(), 2: set()}
    for number in range(120):
        trial = study.ask()
        for step in range(1, 9):
            trial.report(-number * step, step)
            if trial.should_prune():
                judged_at[pruner.bracket(number)].add(step)
                break
        study.tell(trial, state=TrialState.PRUNED)
    assert judged_at == {0: {1}, 1: {3}, 2: set()}


@pytest.mark.parametrize("name", PRUNERS)
def test_every_pruner_lets_the_best_through(name: str) -> None:
    study = optuna.create_study(direction="maximize", pruner=PRUNERS[name]())
    pruned = 0
    for number in range(40):
        trial = study.ask()
        for step in range(1, 10):
            trial.report(step * number, step)
            if step < 9 and trial.should_prune():
                pruned += 1
                study.tell(trial, state=TrialState.PRUNED)
                break
        else:
            study.tell(trial, 9 * number)
    assert pruned == 0  # each is better than all before it


@pytest.mark.parametrize(("name", "step"), [("halving", 1), ("halving", 3), ("median", 3), ("hyperband", 3)])
def test_pruners_stop_a_bad_trial(name: str, step: int) -> None:
    study = optuna.create_study(direction="maximize", pruner=PRUNERS[name]())
    for number in range(60):
        trial = study.ask()
        for s in range(1, 10):
            trial.report(100.0, s)
        study.tell(trial, float(number))
    stopped = 0
    for _ in range(10):  # hyperband deals trials out to three brackets, of which not all judge at step 3
        trial = study.ask()
        trial.report(-1.0, step)
        stopped += trial.should_prune()
        study.tell(trial, state=TrialState.PRUNED)
    assert stopped > 0
    assert name == "hyperband" or stopped == 10
