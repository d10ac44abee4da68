"""confirm(): the best few of a search on fresh seeds, paired; then the test set, once."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import datetime
from statistics import mean

from slopesearch.config import TrialConfig
from slopesearch.evidence.arms import HE, TUNED, TUTORIAL, Arm, all_arms, baselines, choose_arms, paired
from slopesearch.evidence.families import Side
from slopesearch.evidence.planned import Display, Plan, Planned, finished
from slopesearch.evidence.questions import rates_around
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
from slopesearch.evidence.statistics import FEWEST
from slopesearch.evidence.tuning import runs_to_tune, tune, tuning_spec
from slopesearch.search.loop import counting
from slopesearch.search.records import CONFIRM, TEST, TUNE, StudyRecord
from slopesearch.search.settings import Settings
from slopesearch.search.store import Store, refuse_other_images
from slopesearch.training.data import content_hash, find
from slopesearch.wording import RequestError, counted

TOP, SEEDS = 5, 10  # configs of a search, and runs of each, unless it is said otherwise


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
    top: int | None = None,
    seeds: int | None = None,
    open_again: bool = False,
    note: Callable[[str], None] = lambda text: None,
    display: Display = lambda plan: nullcontext(lambda event: None),
) -> Verdict:
    """Run the best few of a search, the best of each activation and the baselines on fresh seeds.

    The best five on ten seeds, or as many as the confirmation that is there, unless `top` and `seeds` say
    otherwise; so one that has ended is given back without a run, unless the search has gone on. The
    baselines stand as people use them, and with their learning rate tuned (NAME/tune). The runs are a
    study `NAME/confirm` beside the search, without pruning; asked again it goes on with them, and runs
    what has become one of the best since. When all are there, the arm with the lowest mean loss is
    picked, and it and the baselines are trained on the same seeds again and tested (`NAME/test`). The
    test set is not opened a second time unless `open_again`; of two calls at a time the second is
    refused. `note` is told what it will cost, and what is begun; `display` makes a listener for each plan
    of runs.
    Raises RequestError where the request is wrong, and StudyFailedError where run after run fails, or the
    storage cannot be written.
    """
    store, settings = store or Store(), settings or Settings()
    found = [
        f"{field}: at least {least}, given {given}"
        for field, given, least in (("top", top, 1), ("seeds", seeds, 2))
        if given is not None and given < least
    ]
    if found:
        raise RequestError(*found)
    with settings.connected():
        settings.slots()
        search = store.read_search(name, "flat")
        search.refuse_unreadable()
        store.check_writable()
        find(search.spec.dataset, settings.folder, note)
        data_hash = content_hash(search.spec.dataset, settings.folder)
        refuse_other_images(search.name, search.spec, search.attributes, data_hash)
        planned = Planned(search.name, search.spec, store, settings, data_hash, display)
        tuning = replace(planned, spec=tuning_spec(search.spec))
        confirmation = _Confirmation(search, planned, tuning, note)
        # The locks of its studies are let go in between, where Ctrl-C counts as it does in their runs.
        with store.holding(search.name, "confirmed"), counting(planned.interrupts, most=1):
            for part, of in ((CONFIRM, planned), (TEST, planned), (TUNE, tuning)):
                of.refuse_another(part)
            return confirmation.run(top, seeds, open_again)


@dataclass(frozen=True)
class _Confirmation:
    """One call of `confirm`, when its request has been found right."""

    search: StudyRecord
    planned: Planned
    tuning: Planned  # of the baselines' learning rates, in the study that `compare` tunes in
    note: Callable[[str], None]

    def run(self, top: int | None, seeds: int | None, open_again: bool) -> Verdict:
        before = self.planned.record(CONFIRM)
        earlier = [row.arm for row in confirmed_of(before)]
        top = top or max((arm.place for arm in earlier), default=0) or TOP
        had = max((row.runs for row in confirmed_of(before)), default=0)
        seeds = max(seeds or had or SEEDS, had)
        known = _tuned_before(confirmed_of(before)) or self._tuned(stored_only=True)
        arms = all_arms(choose_arms(self.search, top, known), earlier)
        self._say_cost(arms, seeds, known is None, _is_tested(openings_of(before)) and not open_again)
        tuned = known or self._tuned()
        if tuned is None:
            return Verdict(self.search, [], [], interrupted=True)
        arms = all_arms(choose_arms(self.search, top, tuned), earlier)
        if not self.planned.run(CONFIRM, self._named("confirm", arms, seeds)):
            return Verdict(self.search, [], [], interrupted=True)
        after = self.planned.record(CONFIRM)
        objective = self.search.spec.objective
        confirmed = [confirm_arm(arm, finished(after, self._plan([arm], seeds)), objective) for arm in arms]
        confirmed = compare_with_pick(sorted(confirmed, key=lambda row: row.val_loss.mean))
        self._keep(confirmed=[row.model_dump(mode="json") for row in confirmed])
        openings, interrupted = self._test(openings_of(after), confirmed, seeds, open_again)
        return Verdict(self.search, confirmed, openings, interrupted)

    def _tuned(self, stored_only: bool = False) -> dict[str, TrialConfig] | None:
        """The baselines at the best of the rates around the winner's, by name; None before that is done."""
        sides, contrasts = self._sides()
        found = tune(sides, contrasts, self.tuning, "val_loss", "confirm", stored_only)
        return None if found is None else {one.side.name: one.side.config for one in found}

    def _sides(self) -> tuple[list[Side], list[tuple[str, str]]]:
        """The baselines, to be tuned; the pick meets both, which so share a rate as if contrasted."""
        winner = self.search.best().config
        assert winner is not None
        rates = rates_around(winner.lr)
        found = baselines(self.search)
        sides = [Side(name=name, config=config, rates=rates) for name, config in found.items()]
        return sides, [(TUTORIAL, HE)]

    def _test(
        self, openings: list[Opening], confirmed: list[ConfirmedArm], seeds: int, open_again: bool
    ) -> tuple[list[Opening], bool]:
        """Open the test set, unless it has been; or go on with an opening that was interrupted.

        The finished openings, and whether this one was interrupted.
        """
        finished_before = _is_tested(openings)
        if finished_before and not open_again:
            return openings, False
        if self.planned.interrupts.count:  # what is opened once is not opened by who has asked to stop
            return [opening for opening in openings if opening.tested], True
        if finished_before or not openings:
            winner = pick(confirmed).arm
            arms = [winner, *(row.arm for row in confirmed if row.arm.is_baseline and row.arm != winner)]
            now = datetime.now().isoformat(sep=" ", timespec="seconds")
            openings = [*openings, Opening(opened=now, arms=tuple(arms), seeds=seeds)]
            self._keep(openings=[opening.model_dump(mode="json") for opening in openings])
        *before, opening = openings
        self.note(f"opening the test set for {len(opening.arms)} configs: the pick and the baselines")
        plan = self._named("test set", opening.arms, opening.seeds, TEST)
        if not self.planned.run(TEST, plan):
            there = self.planned.record(TEST)
            if there is None or plan.runs.keys().isdisjoint(trial.config for trial in there.trials):
                self._keep(openings=[one.model_dump(mode="json") for one in before])  # nobody has looked
            return before, True
        runs = self.planned.record(TEST)
        tested = []
        for arm in opening.arms:
            accuracy, loss = estimate_runs(finished(runs, self._plan([arm], opening.seeds, TEST)))
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

    def _named(self, title: str, arms: Sequence[Arm], seeds: int, part: str = CONFIRM) -> Plan:
        """The same runs with the words for them: an arm is called by the first of its roles."""
        names = [arm.roles[0] for arm in arms]
        return Plan.over_seeds(title, names, seeds, self._plan(arms, seeds, part))

    def _keep(self, **attributes: object) -> None:
        self.planned.store.set_attributes(self.search.name + CONFIRM, attributes)

    def _say_cost(self, arms: list[Arm], seeds: int, to_tune: bool, opened: bool) -> None:
        spec, plan = self.search.spec, self._plan(arms, seeds)
        tuned = len(TUNED) if to_tune else 0
        least, likely = runs_to_tune(*self._sides(), self.tuning) if to_tune else (0, 0)
        runs = len(plan) + tuned * seeds
        left = runs - len(finished(self.planned.record(CONFIRM), plan))
        tests, most = (0, 0) if opened else self._tests_left(seeds)
        parts = [f"{counted(least, 'run')} or more to tune the baselines' learning rates"] if to_tune else []
        parts.append(f"{left} of {runs} runs to do")
        if most:
            parts.append(f"then {tests} of {most} on the test set")
        todo = likely + left + tests
        each = mean(self.search.seconds(arm.config.norm) or 0.0 for arm in arms)
        minutes = todo * each / len(self.planned.settings.slots()) / 60
        few = f"; verdicts take {FEWEST} seeds, so there will be none" if seeds < FEWEST else ""
        self.note(
            f"{self.search.name}: {len(arms) + tuned} configs on {seeds} fresh seeds: {', '.join(parts)}; "
            f"about {todo * spec.train_size * spec.epochs:,} training images, about {minutes:.1f} min{few}"
        )

    def _tests_left(self, seeds: int) -> tuple[int, int]:
        """How many runs an opening of the test set still takes, and in all; before it is opened, at most."""
        openings = openings_of(self.planned.record(CONFIRM))
        if not openings or openings[-1].tested:
            most = (1 + 2 * len(TUNED)) * seeds
            return most, most
        plan = self._plan(openings[-1].arms, openings[-1].seeds, TEST)
        return len(plan) - len(finished(self.planned.record(TEST), plan)), len(plan)


def _tuned_before(confirmed: Sequence[ConfirmedArm]) -> dict[str, TrialConfig] | None:
    """The tuned baselines of a confirmation, by name, whatever rule chose their rates; None without them."""
    called = {role: row.arm.config for row in confirmed for role in row.arm.roles}
    found = {name: called[role] for name, role in TUNED.items() if role in called}
    return found if len(found) == len(TUNED) else None


def _is_tested(openings: list[Opening]) -> bool:
    """Whether the test set was opened, and the last opening came to its end."""
    return bool(openings) and bool(openings[-1].tested)
