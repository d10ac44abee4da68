"""PRUNERS by name: which trials are stopped at a report; and the Referee, who says when they are asked."""

import copy
from collections.abc import Callable, Container
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol, runtime_checkable

from optuna.pruners import BasePruner, MedianPruner, NopPruner
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from slopesearch.config import REPORTS, Report, ResolvedSpec
from slopesearch.search.records import AUDITED, Stop
from slopesearch.seeds import derive

AUDIT = 20  # one in 20 of the trials that the pruner would stop runs on, which tells how often it is wrong


@runtime_checkable
class Rule(Protocol):
    """A pruner that says why."""

    def why(self, study: Study, trial: FrozenTrial) -> Stop | None:
        """Why the trial is stopped at its last report; None where it goes on."""


def reason(pruner: BasePruner, study: Study, trial: FrozenTrial) -> Stop | None:
    """Why a pruner stops a trial at its last report; None where it goes on. Optuna's own name no cut."""
    if isinstance(pruner, Rule):
        return pruner.why(study, trial)
    return standing(study, trial)[0] if pruner.prune(study, trial) else None


def standing(study: Study, trial: FrozenTrial) -> tuple[Stop, list[float]]:
    """A trial's place among all that have come to its last report, and the others' values, best first."""
    step, upwards = trial.last_step, study.direction.name == "MAXIMIZE"
    assert step is not None
    value = trial.intermediate_values[step]
    rivals = [
        other.intermediate_values[step]
        for other in study.get_trials(deepcopy=False)
        if step in other.intermediate_values and other.number != trial.number
    ]
    rivals.sort(reverse=upwards)
    better = sum(rival > value if upwards else rival < value for rival in rivals)
    return Stop(report=step, value=value, place=better + 1, of=len(rivals) + 1), rivals


class HalvingPruner(BasePruner):
    """Asynchronous successive halving (Li et al. 2020, ASHA): at each rung only the best third goes on.

    The same verdicts as Optuna's SuccessiveHalvingPruner(min_resource=1, reduction_factor=3), which marks a
    trial in the storage while it judges it: killed between verdict and tell, the trial would be let through
    when it runs again. This one reads the reports alone, so asking twice gives one answer.
    """

    factor = 3
    rungs = (1, 3)  # report steps; the next would be the last report, at which there is nothing to save

    def why(self, study: Study, trial: FrozenTrial) -> Stop | None:
        """Why it is stopped, where it is outside the best third of all that reached the rung."""
        if trial.last_step not in self.rungs:
            return None
        found, rivals = standing(study, trial)
        kept = self._kept(found.of)
        return found.model_copy(update={"cut": rivals[kept - 1]}) if found.place > kept else None

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether the trial is stopped at its last report."""
        return self.why(study, trial) is not None

    def behind(self, study: Study, step: int) -> set[int]:
        """The numbers of the trials that are outside the best third at a rung before a step."""
        upwards, trials = study.direction.name == "MAXIMIZE", study.get_trials(deepcopy=False)
        numbers: set[int] = set()
        for rung in (rung for rung in self.rungs if rung < step):
            values = {t.number: t.intermediate_values[rung] for t in trials if rung in t.intermediate_values}
            cut = sorted(values.values(), reverse=upwards)[: self._kept(len(values))][-1]
            numbers |= {number for number, v in values.items() if (v < cut if upwards else v > cut)}
        return numbers

    def _kept(self, trials: int) -> int:
        return max(1, trials // self.factor)


PRUNERS: dict[str, Callable[[], BasePruner]] = {
    "halving": HalvingPruner,
    "median": partial(MedianPruner, n_startup_trials=20, n_warmup_steps=REPORTS // 3, n_min_trials=5),
    "none": NopPruner,
}

Call = Literal["go on", "stop", "audit"]


@dataclass(frozen=True)
class Referee:
    """What becomes of a trial at a report: the pruner's rule, and when it does not hold.

    Trials that are `exempt`, such as the textbook's, run to their end, see `Schedule`. One trial in
    AUDIT that the pruner would stop goes on too. Both compete with the others no longer where they would have
    been stopped: many of a cover are bad, and the best third of them and of what passed is nearly all of
    what passed (a default study on MNIST trained as long as 120 whole runs, without them 110). In a study of
    version 0.1.0, of the plan "walk", the few that are exempt compete to their end. `batch`, of a
    deterministic study, is the number of trials that are asked for at a time: a trial is judged against those
    of earlier batches alone.
    """

    pruner: BasePruner
    spec: ResolvedSpec
    exempt: Callable[[int], bool]
    batch: int | None = None

    def call(self, study: Study, trial: FrozenTrial, report: Report) -> tuple[Call, Stop | None]:
        """Whether a trial goes on after a report, which the study holds by now; and why not.

        "audit" is for a trial that goes on although the pruner would have stopped it.
        """
        if report.step == REPORTS or report.diverged or self.exempt(trial.number):
            return "go on", None
        if report.step != trial.last_step:  # it runs again, and the pruner would judge the last step
            return "go on", None
        before = None if self.batch is None else trial.number - trial.number % self.batch
        earlier = _of(study, study.get_trials(deepcopy=False)[:before])
        found = reason(self.pruner, self._race(earlier, report.step), trial)
        if found is None:
            return "go on", None
        return ("audit" if derive(self.spec.seed, "audit", trial.number) % AUDIT == 0 else "stop"), found

    def _race(self, study: Study, step: int) -> Study:
        """The study without the trials that the pruner would have stopped before a step."""
        behind: set[int] = set()
        if isinstance(self.pruner, HalvingPruner) and self.spec.plan == "cover":
            behind = self.pruner.behind(study, step)

        def races(trial: FrozenTrial) -> bool:
            if trial.user_attrs.get(AUDITED, step) < step:
                return False
            return not (trial.number in behind and self.exempt(trial.number))

        return _of(study, list(filter(races, study.get_trials(deepcopy=False))))


def _of(study: Study, trials: list[FrozenTrial]) -> Study:
    """The study as if it held these trials alone."""

    def get_trials(deepcopy: bool = True, states: Container[TrialState] | None = None) -> list[FrozenTrial]:
        return [trial for trial in trials if states is None or trial.state in states]

    shorter = copy.copy(study)
    shorter.get_trials = get_trials  # type: ignore[method-assign]
    return shorter
