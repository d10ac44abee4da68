"""SAMPLERS by name, every draw seeded by (study seed, trial number, parameter)."""

import warnings
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial

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


class First(Protocol):
    """What is fixed of the trials 0 to len - 1: a list, or a `Plan`."""

    def __len__(self) -> int: ...
    def __getitem__(self, number: int, /) -> Mapping[str, Any]: ...


class SeededSampler(BaseSampler):
    """A sampler whose draws depend on (seed, trial number, parameter) and the trials of the study alone.

    Optuna's own samplers carry a random state that a new process starts afresh, so that a resumed study
    repeats its start-up draws; and after a kill between two suggestions the stored parameters are not drawn
    again, which shifts the stream. Here each draw gets a sampler of its own, made from its own seed.

    `first[n]` fixes parameters of trial n: the textbook's trials and the start-up cover.
    """

    def __init__(self, make: Callable[[int], BaseSampler], seed: int, first: First) -> None:
        self._make, self._seed, self._first = make, seed, first
        self._relative = make(seed)

    def _fixed(self, trial: FrozenTrial) -> Mapping[str, Any]:
        return self._first[trial.number] if trial.number < len(self._first) else {}

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The parameters that are drawn together; called once per trial, before `sample_relative`."""
        self._relative = self._make(derive(self._seed, "sampler", trial.number, "relative"))
        space = self._relative.infer_relative_search_space(study, trial)
        return {name: dist for name, dist in space.items() if name not in self._fixed(trial)}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Draw them."""
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
