"""Studies whose runs are planned beforehand: through the one loop, resumed where they were left."""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace

from optuna.trial import Trial, TrialState

from slopesearch.config import ResolvedSpec, TrialConfig
from slopesearch.search.events import Listener
from slopesearch.search.loop import Interrupts
from slopesearch.search.optimize import run_study
from slopesearch.search.records import StudyRecord, TrialRecord
from slopesearch.search.settings import Settings
from slopesearch.search.store import Store, refuse_other_images
from slopesearch.wording import RequestError, counted, differences

FINISHED = ("COMPLETE", "PRUNED")


@dataclass(frozen=True)
class Plan:
    """Runs to be made, in their order, and what a person calls them.

    `title` says what they are for, `shape` how they come about, such as "12 arms x 10 seeds"; of each run
    there is the name of its arm, and what sets it apart from the arm's other runs, such as "seed 3 of 10".
    `done` of them were finished before.
    """

    title: str
    shape: str
    runs: Mapping[TrialConfig, tuple[str, str]]
    done: int = 0

    @classmethod
    def over_seeds(
        cls, title: str, arms: Sequence[str], seeds: int, configs: Iterable[TrialConfig]
    ) -> "Plan":
        """The plan of configs that come seed by seed, in each of them arm by arm; arms that are equal once.

        Raises ValueError where there is not one config for each arm and seed.
        """
        words = [(arm, f"seed {seed} of {seeds}") for seed in range(1, seeds + 1) for arm in arms]
        runs: dict[TrialConfig, tuple[str, str]] = {}
        for config, called in zip(configs, words, strict=True):
            runs.setdefault(config, called)
        return cls(title, f"{counted(len(runs) // seeds, 'arm')} x {counted(seeds, 'seed')}", runs)


Display = Callable[[Plan], AbstractContextManager[Listener]]


@dataclass(frozen=True)
class Planned:
    """The studies NAME/part of one name: each holds planned runs, without pruning, asked of `spec`.

    Once a person has asked to stop, see `interrupts`, no plan begins.
    """

    name: str
    spec: ResolvedSpec
    store: Store
    settings: Settings
    data_hash: str
    display: Display
    interrupts: Interrupts = field(default_factory=Interrupts)

    def record(self, part: str) -> StudyRecord | None:
        """The study of a part as it is stored. Raises RequestError where a trial cannot be read."""
        found = self.store.find(self.name + part, "flat")
        if found is not None:
            found.refuse_unreadable()
        return found

    def begin(self, part: str) -> None:
        """Make the study of a part, unless it is there, so that something can be stored with it."""
        self.refuse_another(part)
        self._run(part, [], lambda event: None)

    def run(self, part: str, plan: Plan) -> bool:
        """Run what is left of a plan; whether all of its runs are finished then.

        The study may hold trials that are not in the plan: finished trials, and interrupted trials, which
        are finished first. Raises RequestError where it was asked something else.
        """
        self.refuse_another(part)
        configs = list(plan.runs)
        done = len(finished(self.record(part), configs))
        if done == len(configs):
            return True
        if self.interrupts.count:
            return False
        with self.display(replace(plan, done=done)) as listen:
            whole = self._run(part, configs, listen)
        return whole and len(finished(self.record(part), configs)) == len(configs)

    def _run(self, part: str, plan: Sequence[TrialConfig], listen: Listener) -> bool:
        before = self.record(part)
        outcome = run_study(
            self.name + part,
            self._spec(),
            _Handout(plan, before),
            trials=_others(before, plan) + len(plan) if plan else 0,
            store=self.store,
            settings=self.settings,
            data_hash=self.data_hash,
            listen=listen,
            interrupts=self.interrupts,
        )
        return outcome.finished >= outcome.target

    def _spec(self) -> ResolvedSpec:
        return self.spec.model_copy(update={"sampler": "random", "pruner": "none"})

    def refuse_another(self, part: str) -> None:
        """Raise RequestError where the study of a part was asked something else, or of other images."""
        before = self.record(part)
        if before is None:
            return
        if before.spec != self._spec():
            raise RequestError(
                f"the study '{before.name}' belongs to another search of the name '{self.name}'; run "
                "this one in another storage, or under another name:",
                *(f"  {line}" for line in differences(before.spec, self._spec())),
            )
        refuse_other_images(before.name, before.spec, before.attributes, self.data_hash)


class _Handout:
    """Hands out the configs of a plan that no trial has yet, in order; then those of trials that fail.

    A trial left as FAIL was counted as a trial that would be finished, so another takes its place.
    """

    def __init__(self, plan: Sequence[TrialConfig], before: StudyRecord | None) -> None:
        trials = before.trials if before else []
        taken = {trial.config for trial in trials if trial.state != "FAIL"}
        self._left = deque(config for config in plan if config not in taken)
        self._handed_out = {  # by trial number
            trial.number: trial.config for trial in trials if trial.state == "RUNNING" and trial.config
        }

    def __call__(self, trial: Trial) -> TrialConfig:
        """The config of a new trial."""
        if not self._left:
            states = [other.state for other in trial.study.get_trials(deepcopy=False)]
            gone = [n for n in self._handed_out if states[n] == TrialState.FAIL]
            self._left.extend(self._handed_out.pop(number) for number in gone)
        config = self._handed_out[trial.number] = self._left.popleft()
        return config


def finished(record: StudyRecord | None, plan: Sequence[TrialConfig]) -> list[TrialRecord]:
    """The finished trials of a plan, in the order of the plan."""
    trials = record.trials if record else []
    found = {trial.config: trial for trial in trials if trial.state in FINISHED}
    return [found[config] for config in plan if config in found]


def _others(record: StudyRecord | None, plan: Sequence[TrialConfig]) -> int:
    """How many trials are not of the plan and are finished, or will be: the loop goes on with those."""
    wanted = set(plan)
    trials = record.trials if record else []
    return sum(
        trial.state in (*FINISHED, "RUNNING") and trial.config is not None and trial.config not in wanted
        for trial in trials
    )
