"""PRUNERS by name: which trials are stopped at a report; and the Referee, who says when they are asked."""

import copy
from collections.abc import Callable, Container, Sequence
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

    def behind(self, trials: Sequence[FrozenTrial], step: int, upwards: bool) -> set[int]:
        """The numbers of the trials that are outside the best third of these at a rung before a step."""
        numbers: set[int] = set()
        for rung in (rung for rung in self.rungs if rung < step):
            values = {t.number: t.intermediate_values[rung] for t in trials if rung in t.intermediate_values}
            if values:
                cut = sorted(values.values(), reverse=upwards)[self._kept(len(values)) - 1]
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

    Trials that are `exempt`, such as the textbook's and the cover's, run to their end, see `Schedule`. So
    does one trial in AUDIT that the pruner would stop, which competes with no other behind that report. Under
    halving an exempt trial does not either, behind a report at which its place among all that have come there
    by now is outside the best third: many of a cover are bad, and beside them nearly all that passed passes
    again (a default study on MNIST cost 120 whole runs so, and costs 111, see docs/search.md). In a study of
    version 0.1.0, of the plan "walk", they compete to their end.

    `batch`, of a deterministic study, is the number of trials that are asked for at a time: a trial is judged
    against those of earlier batches alone.
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
        found = reason(self.pruner, self._race(study, report.step, before), trial)
        if found is None:
            return "go on", None
        return ("audit" if derive(self.spec.seed, "audit", trial.number) % AUDIT == 0 else "stop"), found

    def _race(self, study: Study, step: int, before: int | None) -> Study:
        """The study as if it held the trials alone that compete at a step, up to the trial of a number."""

        def get_trials(
            deepcopy: bool = True, states: Container[TrialState] | None = None
        ) -> list[FrozenTrial]:
            trials = study.get_trials(deepcopy=False)[:before]
            out = {trial.number for trial in trials if trial.user_attrs.get(AUDITED, step) < step}
            if isinstance(self.pruner, HalvingPruner) and self.spec.plan == "cover":
                upwards = study.direction.name == "MAXIMIZE"
                out |= set(filter(self.exempt, self.pruner.behind(trials, step, upwards)))
            return [t for t in trials if (states is None or t.state in states) and t.number not in out]

        shorter = copy.copy(study)
        shorter.get_trials = get_trials  # type: ignore[method-assign]
        return shorter
