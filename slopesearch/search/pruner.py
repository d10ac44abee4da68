"""PRUNERS by name: which trials are stopped at a report."""

from collections.abc import Callable, Sequence
from functools import partial

from optuna.pruners import BasePruner, MedianPruner, NopPruner
from optuna.study import Study
from optuna.trial import FrozenTrial

from slopesearch.config import REPORTS
from slopesearch.seeds import derive


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
