"""confirm(): the best few of a search on fresh seeds, paired; then the test set, once."""

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from statistics import median

from optuna.trial import Trial, TrialState

from slopesearch.config import TrialConfig
from slopesearch.evidence.arms import Arm, all_arms, choose_arms, paired
from slopesearch.evidence.results import (
    ConfirmedArm,
    Opening,
    TestedArm,
    compare_with_pick,
    confirm_arm,
    confirmed_of,
    estimate_runs,
    openings_of,
    pick,
)
from slopesearch.search.events import Listener
from slopesearch.search.optimize import run_study
from slopesearch.search.records import CONFIRM, TEST, StudyRecord, TrialRecord
from slopesearch.search.settings import Settings
from slopesearch.search.store import Store, refuse_other_images
from slopesearch.training.data import content_hash, find
from slopesearch.wording import RequestError

Display = Callable[[], AbstractContextManager[Listener]]

FINISHED = ("COMPLETE", "PRUNED")


@dataclass(frozen=True)
class Verdict:
    """What `confirm` found: every arm on fresh seeds, and each opening of the test set, the last one valid.

    Both are empty where it was interrupted before.
    """

    study: StudyRecord
    confirmed: list[ConfirmedArm]
    openings: list[Opening]
    interrupted: bool


def confirm(
    name: str | None,
    *,
    store: Store | None = None,
    settings: Settings | None = None,
    top: int = 5,
    seeds: int = 10,
    open_again: bool = False,
    note: Callable[[str], None] = lambda text: None,
    display: Display = lambda: nullcontext(lambda event: None),
) -> Verdict:
    """Run the best few of a search, the best of each activation and two baselines on fresh seeds.

    The runs are a study `NAME/confirm` beside the search, without pruning; asked again it goes on with them,
    and runs what has become one of the best since. When all are there, the arm with the lowest mean loss is
    picked, and it and the baselines are trained on the same seeds again and tested (`NAME/test`). The test
    set is not opened a second time unless `open_again`; of two calls at a time the second is refused. `note`
    is told what it will cost, and what is begun; `display` makes a listener for each of the two studies.
    Raises RequestError where the request is wrong, and StudyFailedError where run after run fails, or the
    storage cannot be written.
    """
    store, settings = store or Store(), settings or Settings()
    found = [
        f"{field}: at least {least}, given {given}"
        for field, given, least in (("top", top, 1), ("seeds", seeds, 2))
        if given < least
    ]
    if found:
        raise RequestError(*found)
    workers = len(settings.slots())
    search = store.read_search(name, "flat")
    search.refuse_unreadable()
    store.check_writable()
    find(search.spec.dataset, settings.folder, note)
    data_hash = content_hash(search.spec.dataset, settings.folder)
    refuse_other_images(search.name, search.spec, search.attributes, data_hash)
    confirmation = _Confirmation(search, store, settings, workers, data_hash, note, display)
    with store.holding(search.name, "confirmed"):  # the locks of its studies are let go in between
        return confirmation.run(top, seeds, open_again)


@dataclass(frozen=True)
class _Confirmation:
    """One call of `confirm`, when its request has been found right."""

    search: StudyRecord
    store: Store
    settings: Settings
    workers: int
    data_hash: str
    note: Callable[[str], None]
    display: Display

    def run(self, top: int, seeds: int, open_again: bool) -> Verdict:
        before = self._part(CONFIRM)
        earlier = confirmed_of(before)
        arms = all_arms(choose_arms(self.search, top), [row.arm for row in earlier])
        seeds = max([seeds, *(row.runs for row in earlier)])
        plan = self._plan(arms, seeds)
        self._say_cost(arms, seeds, plan, before, _is_tested(openings_of(before)) and not open_again)
        if not self._run_plan(CONFIRM, plan):
            return Verdict(self.search, [], [], interrupted=True)
        after = self._part(CONFIRM)
        runs = {arm.config: _of(after, self._plan([arm], seeds)) for arm in arms}
        confirmed = [confirm_arm(arm, runs[arm.config], self.search.spec.objective) for arm in arms]
        confirmed = compare_with_pick(sorted(confirmed, key=lambda row: row.val_loss.mean), runs)
        self._keep(confirmed=[row.model_dump(mode="json") for row in confirmed])
        openings, interrupted = self._test(openings_of(after), confirmed, seeds, open_again)
        return Verdict(self.search, confirmed, openings, interrupted)

    def _test(
        self, openings: list[Opening], confirmed: list[ConfirmedArm], seeds: int, open_again: bool
    ) -> tuple[list[Opening], bool]:
        """Open the test set, unless it has been; or go on with an opening that was interrupted."""
        finished = _is_tested(openings)
        if finished and not open_again:
            return openings, False
        if finished or not openings:
            winner = pick(confirmed).arm
            arms = [winner, *(row.arm for row in confirmed if row.arm.is_baseline and row.arm != winner)]
            now = datetime.now().isoformat(sep=" ", timespec="seconds")
            openings = [*openings, Opening(opened=now, arms=tuple(arms), seeds=seeds)]
            self._keep(openings=[opening.model_dump(mode="json") for opening in openings])
        *before, opening = openings
        self.note(f"opening the test set for {len(opening.arms)} configs: the pick and the baselines")
        if not self._run_plan(TEST, self._plan(opening.arms, opening.seeds, TEST)):
            return before, True
        runs = self._part(TEST)
        tested = []
        for arm in opening.arms:
            accuracy, loss = estimate_runs(_of(runs, self._plan([arm], opening.seeds, TEST)))
            tested.append(TestedArm(arm=arm, runs=opening.seeds, accuracy=accuracy, loss=loss))
        openings = [*before, opening.model_copy(update={"tested": tuple(tested)})]
        self._keep(openings=[row.model_dump(mode="json") for row in openings])
        return openings, False

    def _plan(self, arms: Sequence[Arm], seeds: int, part: str = CONFIRM) -> list[TrialConfig]:
        """Every run, seed by seed, so that the configs of one seed can share a pack."""
        evaluated_on = {"evaluated_on": "test" if part == TEST else "validation"}
        return [
            paired(arm.config, self.search.spec.seed, seed).model_copy(update=evaluated_on)
            for seed in range(seeds)
            for arm in arms
        ]

    def _run_plan(self, part: str, plan: list[TrialConfig]) -> bool:
        """Run what is left of a plan; whether all of its runs are finished then.

        The study may hold trials that are no longer in the plan: finished trials, and interrupted trials,
        which are finished first.
        """
        spec = self.search.spec.model_copy(update={"sampler": "random", "pruner": "none"})
        before = self._part(part)
        if before is not None and before.spec != spec:
            raise RequestError(
                f"the study '{before.name}' belongs to another search of the name '{self.search.name}'; run "
                "this search in another storage, or under another name"
            )
        with self.display() as listen:
            outcome = run_study(
                self.search.name + part,
                spec,
                _Plan(plan, before),
                trials=_others(before, plan) + len(plan),
                store=self.store,
                settings=self.settings,
                data_hash=self.data_hash,
                listen=listen,
            )
        whole = len(_of(self._part(part), plan)) == len(plan)
        return whole and outcome.finished >= outcome.target

    def _part(self, part: str) -> StudyRecord | None:
        found = self.store.find(self.search.name + part, "flat")
        if found is not None:
            found.refuse_unreadable()
        return found

    def _keep(self, **attributes: object) -> None:
        self.store.set_attributes(self.search.name + CONFIRM, attributes)

    def _say_cost(
        self, arms: list[Arm], seeds: int, plan: list[TrialConfig], before: StudyRecord | None, opened: bool
    ) -> None:
        spec = self.search.spec
        left = len(plan) - len(_of(before, plan))
        tests = 0 if opened else 3 * seeds
        images = (left + tests) * spec.train_size * spec.epochs
        each = median(
            float(trial.attributes["seconds"]) for trial in self.search.trials if trial.state == "COMPLETE"
        )
        minutes = (left + tests) * each / self.workers / 60
        self.note(
            f"{self.search.name}: {len(arms)} configs on {seeds} fresh seeds: {left} runs to do of "
            f"{len(plan)}, then {tests} at most for the test set; {images:,} training images, "
            f"about {minutes:.1f} min"
        )


class _Plan:
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


def _of(record: StudyRecord | None, plan: Sequence[TrialConfig]) -> list[TrialRecord]:
    """The finished trials of a plan."""
    wanted = set(plan)
    trials = record.trials if record else []
    return [trial for trial in trials if trial.state in FINISHED and trial.config in wanted]


def _others(record: StudyRecord | None, plan: Sequence[TrialConfig]) -> int:
    """How many trials are not of the plan and are finished, or will be: the loop goes on with those."""
    wanted = set(plan)
    trials = record.trials if record else []
    return sum(
        trial.state in (*FINISHED, "RUNNING") and trial.config is not None and trial.config not in wanted
        for trial in trials
    )


def _is_tested(openings: list[Opening]) -> bool:
    """Whether the test set was opened, and the last opening came to its end."""
    return bool(openings) and bool(openings[-1].tested)
