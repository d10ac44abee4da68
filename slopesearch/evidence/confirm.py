"""confirm(): the best few of a search on fresh seeds, paired; then the test set, once."""

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
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
from slopesearch.search import store
from slopesearch.search.events import Listener
from slopesearch.search.optimize import Machine, run_study
from slopesearch.search.records import CONFIRM, TEST, StudyRecord, TrialRecord
from slopesearch.search.sqlite import DEFAULT_URL, check_writable, existing_database
from slopesearch.training.data import content_hash, find
from slopesearch.wording import RequestError

Display = Callable[[], AbstractContextManager[Listener]]

MOST_SEEDS = 1000  # a typing error beyond


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
    folder: Path,
    machine: Machine,
    top: int = 5,
    seeds: int = 10,
    url: str = DEFAULT_URL,
    open_again: bool = False,
    note: Callable[[str], None] = lambda text: None,
    display: Display = lambda: nullcontext(lambda event: None),
) -> Verdict:
    """Run the best few of a search, the best of each activation and two baselines on fresh seeds.

    The runs are a study `NAME/confirm` beside the search, without pruning; asked again it goes on with them,
    and runs what has become one of the best since. When all are there, the one with the lowest mean loss is
    picked, and it and the baselines are trained on the same seeds again and tested (`NAME/test`). The test
    set is not opened a second time unless `open_again`. `note` is told what it will cost, and what is begun;
    `display` makes a listener for each of the two studies. Raises RequestError where the request is wrong.
    """
    found = [
        f"{field}: from {low} to {MOST_SEEDS}, given {given}"
        for field, given, low in (("top", top, 1), ("seeds", seeds, 2))
        if not low <= given <= MOST_SEEDS
    ]
    if found:
        raise RequestError(*found)
    path = existing_database(url)
    search = store.read_search(url, name)
    check_writable(path)
    find(search.spec.dataset, folder, note)
    data_hash = content_hash(search.spec.dataset, folder)
    store.refuse_other_images(search.name, search.spec, search.attributes, data_hash)
    call = _Confirmation(search, path, url, folder, machine, data_hash, note, display)
    return call.run(top, seeds, open_again)


@dataclass(frozen=True)
class _Confirmation:
    """One call of `confirm`, when its request has been found right."""

    search: StudyRecord
    path: Path
    url: str
    folder: Path
    machine: Machine
    data_hash: str
    note: Callable[[str], None]
    display: Display

    def run(self, top: int, seeds: int, open_again: bool) -> Verdict:
        before = self._stored(CONFIRM)
        earlier = confirmed_of(before)
        arms = all_arms(choose_arms(self.search, top), [row.arm for row in earlier])
        seeds = max([seeds, *(row.runs for row in earlier)])
        plan = self._plan(arms, seeds)
        self._say_cost(arms, seeds, plan, before, _is_tested(openings_of(before)) and not open_again)
        if not self._run(CONFIRM, plan):
            return Verdict(self.search, [], [], interrupted=True)
        after = self._stored(CONFIRM)
        runs = {arm.config: _of(after, self._plan([arm], seeds)) for arm in arms}
        confirmed = [confirm_arm(arm, runs[arm.config], self.search.spec.objective) for arm in arms]
        confirmed = compare_with_pick(sorted(confirmed, key=lambda row: row.val_loss.mean), runs)
        self._store(confirmed=[row.model_dump(mode="json") for row in confirmed])
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
            self._store(openings=[opening.model_dump(mode="json") for opening in openings])
        *before, opening = openings
        self.note(f"opening the test set for {len(opening.arms)} configs: the pick and the baselines")
        if not self._run(TEST, self._plan(opening.arms, opening.seeds, TEST)):
            return before, True
        runs = self._stored(TEST)
        tested = []
        for arm in opening.arms:
            accuracy, loss = estimate_runs(_of(runs, self._plan([arm], opening.seeds, TEST)))
            tested.append(TestedArm(arm=arm, runs=opening.seeds, accuracy=accuracy, loss=loss))
        openings = [*before, opening.model_copy(update={"tested": tuple(tested)})]
        self._store(openings=[row.model_dump(mode="json") for row in openings])
        return openings, False

    def _plan(self, arms: Sequence[Arm], seeds: int, part: str = CONFIRM) -> list[TrialConfig]:
        """Every run, seed by seed, so that the configs of one seed can share a pack."""
        evaluated_on = {"evaluated_on": "test" if part == TEST else "validation"}
        return [
            paired(arm.config, self.search.spec.seed, seed).model_copy(update=evaluated_on)
            for seed in range(seeds)
            for arm in arms
        ]

    def _run(self, part: str, plan: list[TrialConfig]) -> bool:
        """Run what is left of a plan; whether all of it is there now, or it was interrupted.

        The study may hold runs that are no longer in the plan: finished ones, and ones that were interrupted
        and will be finished first.
        """
        spec = self.search.spec.model_copy(update={"sampler": "random", "pruner": "none"})
        before = self._stored(part)
        if before is not None and before.spec != spec:
            raise RequestError(
                f"the study '{before.name}' belongs to another search of the name '{self.search.name}'; run "
                "this search in another storage, or under another name"
            )
        with self.display() as listen:
            outcome = run_study(
                self.search.name + part,
                spec,
                partial(_next_of, [config.model_dump(mode="json") for config in plan]),
                trials=_others(before, plan) + len(plan),
                path=self.path,
                folder=self.folder,
                data_hash=self.data_hash,
                machine=self.machine,
                listen=listen,
            )
        whole = len(_of(self._stored(part), plan)) == len(plan)
        return whole and outcome.finished >= outcome.target

    def _stored(self, part: str) -> StudyRecord | None:
        return store.find_study(self.url, self.search.name + part)

    def _store(self, **attributes: object) -> None:
        store.set_attributes(self.path, self.search.name + CONFIRM, attributes)

    def _say_cost(
        self, arms: list[Arm], seeds: int, plan: list[TrialConfig], before: StudyRecord | None, opened: bool
    ) -> None:
        spec = self.search.spec
        left = len(plan) - len(_of(before, plan))
        tests = 0 if opened else 3 * seeds
        images = (left + tests) * (spec.train_size or 0) * (spec.epochs or 0)
        each = median(
            float(trial.attributes["seconds"]) for trial in self.search.trials if trial.state == "COMPLETE"
        )
        minutes = (left + tests) * each / len(self.machine.slots) / 60
        self.note(
            f"{self.search.name}: {len(arms)} configs on {seeds} fresh seeds: {left} runs to do of "
            f"{len(plan)}, then {tests} at most for the test set; {images:,} training images, "
            f"about {minutes:.1f} min"
        )


def _next_of(plan: list[dict[str, object]], trial: Trial) -> TrialConfig:
    """The config of a trial that is found again, or the first of the plan that no other trial has.

    When the plan is through, one that has failed: it was counted as one that would be finished.
    """
    stored = trial.user_attrs.get("config")
    if stored is None:
        trials = trial.study.get_trials(deepcopy=False)
        failed = [other.user_attrs["config"] for other in trials if other.state == TrialState.FAIL]
        taken = [other.user_attrs.get("config") for other in trials if other.state != TrialState.FAIL]
        stored = next(config for config in [*plan, *failed] if config not in taken)
    return TrialConfig.model_validate_json(json.dumps(stored))


def _of(record: StudyRecord | None, plan: list[TrialConfig]) -> list[TrialRecord]:
    """The finished runs of a plan."""
    wanted = set(plan)
    trials = record.trials if record else []
    return [trial for trial in trials if trial.state in ("COMPLETE", "PRUNED") and trial.config in wanted]


def _others(record: StudyRecord | None, plan: list[TrialConfig]) -> int:
    """How many runs are not of the plan and are finished, or will be: the loop goes on with those."""
    wanted = set(plan)
    trials = record.trials if record else []
    return sum(
        trial.state in ("COMPLETE", "PRUNED", "RUNNING")
        and trial.config is not None
        and trial.config not in wanted
        for trial in trials
    )


def _is_tested(openings: list[Opening]) -> bool:
    """Whether the last opening of the test set was not interrupted."""
    return bool(openings) and bool(openings[-1].tested)
