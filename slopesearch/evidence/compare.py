"""compare(): what in a winner mattered, or declared arms, on paired fresh seeds; a question at a time."""

import shlex
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from slopesearch.config import TrialConfig
from slopesearch.evidence.answers import Answer, answer, answers_of, families_of, runs_of
from slopesearch.evidence.arms import paired
from slopesearch.evidence.declared import declared
from slopesearch.evidence.families import Family, changes, seeds_for
from slopesearch.evidence.planned import Display, Plan, Planned, finished
from slopesearch.evidence.questions import QUESTIONS, around
from slopesearch.evidence.results import confirmed_of, pick
from slopesearch.evidence.tuning import Tuned, runs_to_tune, tune, tuning_spec
from slopesearch.search.loop import counting
from slopesearch.search.records import COMPARE, CONFIRM, TUNE, StudyRecord
from slopesearch.search.settings import Settings
from slopesearch.search.store import Store, check_name, refuse_other_images
from slopesearch.training.data import content_hash, find
from slopesearch.wording import RequestError, counted, unknown


@dataclass(frozen=True)
class Compared:
    """What `compare` found: the name of its study, and the answers it came to, in order."""

    name: str
    answers: list[Answer]
    interrupted: bool


def compare(
    asked: str | Path | None,
    *,
    store: Store | None = None,
    settings: Settings | None = None,
    seeds: int = 10,
    only: Sequence[str] = (),
    name: str | None = None,
    note: Callable[[str], None] = lambda text: None,
    display: Display = lambda plan: nullcontext(lambda event: None),
    tell: Callable[[Answer], None] = lambda answer: None,
) -> Compared:
    """Answer the questions around the winner of a search, or that of a study file with arms.

    `asked` is the name of a search, which may be left out where there is one, or the path of a file; `only`
    some of QUESTIONS. Each arm's learning rate is tuned (NAME/tune), then all arms of a question run on the
    same fresh seeds (NAME/compare), and `tell` gets the answer; asked again it goes on with what is there,
    and gives an answer that is there. NAME is that of the search or of the file, unless there is a `name`.
    `note` is told what it will cost; `display` makes a listener for each plan of runs.
    Raises RequestError where the request is wrong, before anything is written, and StudyFailedError where run
    after run fails, or the storage cannot be written.
    """
    store, settings = store or Store(), settings or Settings()
    found = [f"seeds: at least 2, given {seeds}"] if seeds < 2 else []
    found += [unknown("question", one, list(QUESTIONS)) for one in only if one not in QUESTIONS]
    if isinstance(asked, Path) and only:
        found.append("only: a study file with arms asks one question of its own; leave --only out")
    if found:
        raise RequestError(*found)
    with settings.connected():
        settings.slots()
        if name is not None:
            check_name(name)
        store.check_writable()
        if isinstance(asked, Path):
            name, spec, families = declared(asked, name, settings, store, note)
            each, where = None, ""
        else:
            search = store.read_search(asked, "flat")
            search.refuse_unreadable()
            name, spec = name or search.name, search.spec
            if name != search.name and store.find(name, "ranking") is not None:
                raise RequestError(
                    f"name: '{name}' is another study of this storage, whose page and copies would take the "
                    "comparison for theirs; choose a name that no study has"
                )
            winner, where = _winner(search, store)
            each = search.seconds(winner.norm)
            find(spec.dataset, settings.folder, note)
            families = around(winner, spec, only or list(QUESTIONS))
        data_hash = content_hash(spec.dataset, settings.folder)
        if not isinstance(asked, Path):
            refuse_other_images(search.name, search.spec, search.attributes, data_hash)
        planned = Planned(name, tuning_spec(spec), store, settings, data_hash, display)
        comparison = _Comparison(planned, families, seeds, note, each)
        with store.holding(name, "compared"), counting(planned.interrupts, most=1):
            comparison.refuse_changed()
            asks = f"{where}{counted(len(families), 'question')}" if where else families[0].asks
            note(f"{name}: {asks}")
            return comparison.run(tell)


def _winner(search: StudyRecord, store: Store) -> tuple[TrialConfig, str]:
    """The confirmed pick of a search, or its best trial, and which of them it is.

    Raises RequestError where no trial has run to its end.
    """
    best = search.best()
    confirmed = confirmed_of(store.find(search.name + CONFIRM, "ranking"))
    if confirmed:
        return pick(confirmed).arm.config, "around the confirmed pick, "
    assert best.config is not None
    return best.config, f"around trial {best.number}, the best of the search, "


@dataclass(frozen=True)
class _Comparison:
    """One call of `compare`, when its request has been found right."""

    planned: Planned
    families: Sequence[Family]
    seeds: int
    note: Callable[[str], None]
    each: float | None  # s a run takes, where that is known

    def refuse_changed(self) -> None:
        """Raise RequestError where what is asked is not what the stored comparison began with."""
        for part in (TUNE, COMPARE):
            self.planned.refuse_another(part)
        stored = families_of(self.planned.record(COMPARE))
        found = [
            f"  {family.question}: {line}"
            for family in self.families
            if family.question in stored
            for line in changes(stored[family.question], family)
        ]
        if found:
            name = shlex.quote(f"{self.planned.name}-again")
            raise RequestError(
                f"the comparison '{self.planned.name}{COMPARE}' was begun with another family, and its rules "
                "were fixed before its runs:",
                *found,
                f"another family is another comparison: add --name {name}",
            )

    def run(self, tell: Callable[[Answer], None]) -> Compared:
        seeds = {family.question: self._seeds(family) for family in self.families}
        for family in self.families:
            self._say_cost(family, seeds[family.question])
        if self.planned.interrupts.count:  # before its families are fixed
            return Compared(self.planned.name + COMPARE, [], interrupted=True)
        self.planned.begin(COMPARE)
        stored = families_of(self.planned.record(COMPARE))
        stored |= {family.question: family for family in self.families}
        self._keep(families={name: family.model_dump(mode="json") for name, family in stored.items()})
        answers: list[Answer] = []
        for family in self.families:
            found = self._answer(family, seeds[family.question])
            if found is None:
                return Compared(self.planned.name + COMPARE, answers, interrupted=True)
            answers.append(found)
            tell(found)
        return Compared(self.planned.name + COMPARE, answers, interrupted=False)

    def _seeds(self, family: Family) -> int:
        """At least as many as the question was answered with before."""
        before = answers_of(self.planned.record(COMPARE)).get(family.question)
        return max(seeds_for(family.question, self.seeds), before.seeds if before else 0)

    def _answer(self, family: Family, seeds: int) -> Answer | None:
        """The answer to one question, stored; None where its runs were interrupted.

        One that is there stands, unless there are to be more seeds.
        """
        before = answers_of(self.planned.record(COMPARE)).get(family.question)
        if before is not None and before.seeds == seeds:
            return before
        tuned = self._tuned(family)
        if tuned is None:
            return None
        if self.each is None:
            tuning = self.planned.record(TUNE)
            each = (tuning and tuning.seconds()) or 0.0
            self.note(f"tuned; to compare takes about {self._minutes(len(tuned) * seeds, each):.1f} min")
        names = [one.side.name for one in tuned]
        plan = Plan.over_seeds(f"compare {family.question}", names, seeds, self._plan(tuned, seeds))
        if not self.planned.run(COMPARE, plan):
            return None
        record = self.planned.record(COMPARE)
        sides = [
            runs_of(
                one.side.name,
                one.side.config,
                one.rates,
                one.at_edge,
                finished(record, self._plan([one], seeds)),
            )
            for one in tuned
        ]
        found = answer(family, sides, (*(before.looks if before else ()), seeds))
        stored = answers_of(record) | {family.question: found}
        self._keep(answers={name: one.model_dump(mode="json") for name, one in stored.items()})
        return found

    def _tuned(self, family: Family, stored_only: bool = False) -> list[Tuned] | None:
        """Each side at its learning rate; at that of the answer where there is one.

        More seeds extend the arms that an answer is on, whatever rule chose their rates in its day.
        """
        before = answers_of(self.planned.record(COMPARE)).get(family.question)
        if before is None:
            title = f"compare {family.question}"
            return tune(family.sides, family.contrasts, self.planned, family.metric, title, stored_only)
        return [
            Tuned(family.side(one.name).model_copy(update={"config": one.config}), one.rates, one.at_edge)
            for one in before.sides
        ]

    def _plan(self, tuned: Sequence[Tuned], seeds: int) -> list[TrialConfig]:
        """Every run, seed by seed, so that the arms of one seed can share a pack; the same arm twice, too."""
        judged = {"evaluated_on": "rest", "val_size": self.planned.spec.val_size}
        return [
            paired(one.side.config, self.planned.spec.seed, seed, "compare").model_copy(update=judged)
            for seed in range(seeds)
            for one in tuned
        ]

    def _keep(self, **attributes: object) -> None:
        self.planned.store.set_attributes(self.planned.name + COMPARE, attributes)

    def _say_cost(self, family: Family, seeds: int) -> None:
        """Say what is left to do; runs that questions share count twice."""
        tuned = self._tuned(family, stored_only=True)
        if tuned is None:
            least, likely = runs_to_tune(family.sides, family.contrasts, self.planned)
            tuning, runs = f"{counted(least, 'run')} or more", len(family.sides) * seeds
        else:
            plan = list(dict.fromkeys(self._plan(tuned, seeds)))
            tuning, likely = "0 runs", 0
            runs = len(plan) - len(finished(self.planned.record(COMPARE), plan))
        spent = "" if self.each is None else f", about {self._minutes(likely + runs, self.each):.1f} min"
        self.note(
            f"  {family.question}: {counted(len(family.sides), 'arm')} on {counted(seeds, 'seed')}: "
            f"{tuning} to tune and {runs} to compare{spent}"
        )

    def _minutes(self, runs: int, each: float) -> float:
        return runs * each / len(self.planned.settings.slots()) / 60
