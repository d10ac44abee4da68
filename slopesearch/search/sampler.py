"""SAMPLERS by name, every draw seeded by (study seed, trial number, parameter)."""

import copy
import heapq
import warnings
from collections.abc import Callable, Container, Mapping
from functools import cache
from math import inf
from typing import Any, Protocol

from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from slopesearch.search.textbook import N_STARTUP
from slopesearch.seeds import derive

MOST = 1000  # finished trials that a draw looks at; TPE's time grows with them
BEST = 25  # of them the best, as many as TPE fits its good density to at most


def _tpe(seed: int) -> BaseSampler:
    # group=True: without it conditional parameters, the slope above all, fall to independent sampling.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return TPESampler(
            seed=seed,
            n_startup_trials=N_STARTUP,
            multivariate=True,
            group=True,
            constant_liar=True,
        )


SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {
    "tpe": _tpe,
    "random": lambda seed: RandomSampler(seed),
}


class First(Protocol):
    """What is fixed of the trials 0 to len - 1: a list, or a `Schedule`."""

    def __len__(self) -> int: ...
    def __getitem__(self, number: int, /) -> Mapping[str, Any]: ...


class SeededSampler(BaseSampler):
    """A sampler whose draws depend on (seed, trial number, parameter) and the trials of the study alone.

    Optuna's own samplers carry a random state that a new process starts afresh, so that a resumed study
    repeats its start-up draws; and after a kill between two suggestions the stored parameters are not drawn
    again, which shifts the stream. Here each draw gets a sampler of its own, made from its own seed.

    `first[n]` fixes parameters of trial n: the textbook's trials and the start-up cover. `size`, of a
    space in which a config may come twice, says how many configs hold some choices: where all of them have
    run, a choice gives way to another. Each parameter is then drawn by itself. Of a study of more than MOST
    finished trials a draw looks at some, see `_thinned`.
    """

    def __init__(
        self,
        make: Callable[[int], BaseSampler],
        seed: int,
        first: First,
        size: Callable[[Mapping[str, Any]], float] | None = None,
    ) -> None:
        self._make, self._seed, self._first, self._size = make, seed, first, size
        self._relative = make(seed)

    def _fixed(self, trial: FrozenTrial) -> Mapping[str, Any]:
        return self._first[trial.number] if trial.number < len(self._first) else {}

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The parameters that are drawn together; called once per trial, before `sample_relative`."""
        if self._size is not None:
            return {}
        self._relative = self._make(derive(self._seed, "sampler", trial.number, "relative"))
        space = self._relative.infer_relative_search_space(_thinned(study), trial)
        return {name: dist for name, dist in space.items() if name not in self._fixed(trial)}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Draw them."""
        return self._relative.sample_relative(_thinned(study), trial, search_space) if search_space else {}

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
        value = sampler.sample_independent(_thinned(study), trial, param_name, param_distribution)
        if not self._is_spent(study, trial, {**trial.params, param_name: value}):
            return value
        assert isinstance(param_distribution, CategoricalDistribution)  # of a range nothing is ever spent
        left = [
            choice
            for choice in param_distribution.choices
            if not self._is_spent(study, trial, {**trial.params, param_name: choice})
        ]
        return left[derive(self._seed, "sampler", trial.number, param_name, "left") % len(left)]

    def _is_spent(self, study: Study, trial: FrozenTrial, chosen: Mapping[str, Any]) -> bool:
        """Whether every config that holds these choices is another trial's already."""
        if self._size is None or (size := self._size(chosen)) == inf:
            return False
        others = (other for other in study.get_trials(deepcopy=False) if other.number != trial.number)
        return sum(chosen.items() <= other.params.items() for other in others) >= size


def _thinned(study: Study) -> Study:
    """The study with MOST of its finished trials, spread evenly over it, the BEST ones and the running ones.

    TPE compares the density of the best trials with that of all others, and an even part of these has the
    same density. It asks for trials by a private name of Optuna's.
    """

    @cache
    def some() -> list[FrozenTrial]:
        trials = study.get_trials(deepcopy=False)
        finished = [trial for trial in trials if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]
        if len(finished) <= MOST:
            return trials
        sign = -1 if study.direction == StudyDirection.MAXIMIZE else 1
        complete = (trial for trial in finished if trial.state == TrialState.COMPLETE)
        best = heapq.nsmallest(BEST, complete, key=lambda trial: sign * (trial.value or 0.0))
        kept = {finished[i * len(finished) // MOST].number for i in range(MOST)} | {t.number for t in best}
        return [trial for trial in trials if trial.number in kept or not trial.state.is_finished()]

    def get_trials(
        deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        return [trial for trial in some() if states is None or trial.state in states]

    fewer = copy.copy(study)
    fewer._get_trials = get_trials  # type: ignore[method-assign]
    return fewer
