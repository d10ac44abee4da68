"""SAMPLERS and PRUNERS by name, every draw seeded by (study seed, trial number, parameter)."""

import copy
import warnings
from collections.abc import Callable, Container, Mapping, Sequence
from functools import cache, partial
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from slopesearch.config import REPORTS
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


class HalvingPruner(BasePruner):
    """Asynchronous successive halving (Li et al. 2020, ASHA): at each rung only the best third goes on.

    The same verdicts as Optuna's SuccessiveHalvingPruner(min_resource=1, reduction_factor=3), which marks a
    trial in the storage while it judges it: killed between verdict and tell, the trial would be let through
    when it runs again. This one reads the reports alone, so asking twice gives one answer.

    `shares` has a bracket each: trials of bracket b are not judged at the first b rungs, and only against
    their own bracket. More than one bracket makes it Hyperband (Li et al. 2018), run asynchronously.
    """

    factor = 3

    def __init__(self, shares: Sequence[int] = (1,)) -> None:
        self._brackets = [bracket for bracket, share in enumerate(shares) for _ in range(share)]

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether the trial, at its last report, is outside the best third of all that reached that rung."""
        step, bracket = trial.last_step, self.bracket(trial.number)
        if step is None or step not in self.rungs()[bracket:]:
            return False
        rivals = [
            other.intermediate_values[step]
            for other in study.get_trials(deepcopy=False)
            if step in other.intermediate_values
            and other.number != trial.number
            and self.bracket(other.number) == bracket
        ]
        value = trial.intermediate_values[step]
        if study.direction.name == "MAXIMIZE":
            better = sum(rival > value for rival in rivals)
        else:
            better = sum(rival < value for rival in rivals)
        return better >= max(1, (len(rivals) + 1) // self.factor)

    def bracket(self, number: int) -> int:
        """The bracket of a trial, dealt out by its number in the proportions of the shares."""
        if len(self._brackets) == 1:  # hashing 10,000 rivals takes 15 ms a verdict
            return self._brackets[0]
        return self._brackets[derive(0, "bracket", number) % len(self._brackets)]

    def rungs(self) -> list[int]:
        """The report steps at which trials are judged: 1, 3 and 9."""
        return [self.factor**i for i in range(REPORTS) if self.factor**i <= REPORTS]


PRUNERS: dict[str, Callable[[], BasePruner]] = {
    "halving": HalvingPruner,
    "median": partial(MedianPruner, n_startup_trials=20, n_warmup_steps=REPORTS // 3, n_min_trials=5),
    # Li et al. 2018, algorithm 1, for R = 9 and factor 3: 9, 5 and 3 runs start in the three brackets.
    "hyperband": partial(HalvingPruner, (9, 5, 3)),
    "none": NopPruner,
}
