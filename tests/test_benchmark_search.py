"""The rules of scripts/benchmark_search.py on arrays, against the package's pruners on studies."""

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from slopesearch.config import REPORTS
from slopesearch.search.pruner import PRUNERS

SCRIPTS = Path(__file__).parent.parent / "scripts"


@pytest.fixture
def rules(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module("search_rules")


def curves(seed: int, runs: int = 80) -> np.ndarray:
    """Log losses of runs that keep their order in part; ties happen. [R, 9]"""
    generator = np.random.default_rng(seed)
    quality = generator.normal(size=(runs, 1))
    return np.round(quality - 0.3 * np.arange(REPORTS) + generator.normal(size=(runs, REPORTS)) / 2, 1)


@pytest.mark.parametrize("name", ["halving", "median"])
@pytest.mark.parametrize("seed", range(3))
def test_a_rule_on_arrays_gives_the_pruners_verdicts(rules: ModuleType, name: str, seed: int) -> None:
    rule = rules.PRESENT if name == "halving" else rules.median()
    study = optuna.create_study(direction="minimize", pruner=PRUNERS[name]())
    arrays, stopped = rules.ArrayStudy(80), 0
    for row in curves(seed):
        trial = study.ask()
        reports = REPORTS
        for step in range(1, REPORTS):
            trial.report(row[step - 1], step)
            verdict = trial.should_prune()
            assert verdict == (step in rule.steps and rule.stops(arrays, row, step))
            if verdict:
                reports = step
                break
        stopped += reports < REPORTS
        whole = reports == REPORTS
        study.tell(trial, row[-1] if whole else None, TrialState.COMPLETE if whole else TrialState.PRUNED)
        arrays.add(row, reports, whole)
    assert 10 < stopped < 80


def test_the_spread_rule_lets_equals_run_on(rules: ModuleType) -> None:
    """Runs that differ by luck alone: halving stops two thirds of them, a rule that learns hardly any."""
    generator = np.random.default_rng(0)
    equals, stopped = rules.ArrayStudy(200), 0
    rule = rules.spread(1.0)
    for row in generator.normal(size=(200, REPORTS)):
        stops = any(rule.stops(equals, row, step) for step in rule.steps)
        stopped += stops
        equals.add(row, REPORTS, completed=True)
    assert stopped < 10
    worse = np.full(REPORTS, 3.0)
    telling = rules.ArrayStudy(20)
    for place in range(20):
        telling.add(np.full(REPORTS, place / 20) + generator.normal(size=REPORTS) / 100, REPORTS, True)
    assert rule.stops(telling, worse, 1)


def test_a_replay_spends_its_budget_and_audits_run_on(rules: ModuleType) -> None:
    badness = curves(0)
    length = np.full(len(badness), REPORTS)
    length[::7] = 4  # those diverged
    pool = rules.Curves(None, [], [], {"loss": badness}, length)
    luck = np.arange(len(badness)) % 2.0  # every other run is audited
    order, budget = range(len(badness)), 30 * REPORTS
    everything = rules.replay(pool, order, rules.NONE, "loss", 0, budget, luck)
    assert [one.spent for one in everything] == list(np.cumsum(length[: len(everything)]))
    assert budget - REPORTS < everything[-1].spent <= budget
    for one in rules.replay(pool, order, rules.PRESENT, "loss", 5, budget, luck):
        stopped_short = one.stopped and luck[one.run] == 1
        assert one.completed == (length[one.run] == REPORTS and not stopped_short)
        assert not (one.stopped and one.run < 5)
