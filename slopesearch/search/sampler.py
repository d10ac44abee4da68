"""SAMPLERS and PRUNERS by name, every draw seeded by (study seed, trial number, parameter)."""

import copy
import warnings
from collections.abc import Callable, Container, Mapping, Sequence
from functools import cache
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from slopesearch.search.textbook import N_STARTUP
from slopesearch.seeds import derive


def _tpe(seed: int) -> BaseSampler:
    # group=True: without it conditional parameters, the slope above all, fall to independent sampling.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return TPESampler(
            seed=seed, n_startup_trials=N_STARTUP, multivariate=True, group=True, constant_liar=True
        )


SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {
    "tpe": _tpe,
    "random": lambda seed: RandomSampler(seed),
}


def snapshot(study: Study, before: int | None = None) -> Study:
    """The study as it is now, its trials read once, at first use; those from number `before` on left out.

    With constant_liar TPE reads the storage again for each group of parameters, 3 ms each time, although
    nothing changes there while one trial is drawn: this process is the only writer. A pruner that judges
    the members of a pack one after the other reads as often.
    """

    @cache
    def trials() -> list[FrozenTrial]:
        return study.get_trials(deepcopy=False)[:before]

    def get_trials(
        deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        return [trial for trial in trials() if states is None or trial.state in states]

    still = copy.copy(study)
    still._get_trials = get_trials  # type: ignore[method-assign]
    return still


class SeededSampler(BaseSampler):
    """A sampler whose draws depend on (seed, trial number, parameter) and the finished trials alone.

    Optuna's own samplers carry a random state that a new process starts afresh, so that a resumed study
    repeats its start-up draws; and after a kill between two suggestions the stored parameters are not drawn
    again, which shifts the stream. Here each draw gets a sampler of its own, made from its own seed.

    `first[n]` fixes parameters of trial n: the textbook's trials and the start-up cover.
    """

    def __init__(
        self, make: Callable[[int], BaseSampler], seed: int, first: Sequence[Mapping[str, Any]]
    ) -> None:
        self._make, self._seed, self._first = make, seed, first
        self._relative = make(seed)
        self._study: Study | None = None

    def _fixed(self, trial: FrozenTrial) -> Mapping[str, Any]:
        return self._first[trial.number] if trial.number < len(self._first) else {}

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The parameters that are drawn together; called once per trial, before `sample_relative`."""
        self._relative = self._make(derive(self._seed, "sampler", trial.number, "relative"))
        self._study = snapshot(study)
        space = self._relative.infer_relative_search_space(self._study, trial)
        return {name: dist for name, dist in space.items() if name not in self._fixed(trial)}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Draw them; then let the snapshot go, which holds every trial and would outlive the study."""
        study, self._study = self._study or study, None
        return self._relative.sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Draw one parameter by itself, or take the value that is fixed for this trial."""
        if param_name in self._fixed(trial):
            return self._fixed(trial)[param_name]
        sampler = self._make(derive(self._seed, "sampler", trial.number, param_name))
        return sampler.sample_independent(study, trial, param_name, param_distribution)
