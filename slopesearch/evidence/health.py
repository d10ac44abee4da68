"""health(study): what is doubtful about a study, each a sentence with what to do; without torch."""

import shlex
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from math import log, log10, sqrt
from operator import attrgetter
from statistics import fmean, median
from typing import Any, Literal

from slopesearch.config import Range, Space
from slopesearch.evidence.pruning import AUDITED_LEAST, audit, first_judged
from slopesearch.evidence.results import ConfirmedArm, pick
from slopesearch.evidence.selection import seed_noise
from slopesearch.evidence.statistics import ALPHA, binomial_cdf
from slopesearch.search.records import AUDITED, VERDICTS, StudyRecord, TrialRecord
from slopesearch.search.textbook import N_STARTUP, follows, textbook
from slopesearch.wording import counted

COMMAND = "python -m slopesearch"
PER_PARAMETER = 10  # finished trials for each parameter that is searched
COMPLETED = 3  # runs of a choice
EDGE = 0.05  # of a range, at either end
BY_CHANCE = 0.2  # a pruner without skill does as well in so many cases
DIVERGED_LEAST, DIVERGED_NOTED, DIVERGED_MANY = 5, 0.1, 0.25  # runs, and shares of them
FAILED_MANY = 0.05  # of all trials
WINDOW = 100  # trials that should have found something
TOP = 10  # runs whose spread says what more of them would bring


@dataclass(frozen=True)
class Health:
    """Something doubtful about a study, and what to do about it; a warning may change its answer.

    A text that says what to type ends with it, from COMMAND on.
    """

    grade: Literal["note", "warning"]
    text: str


@dataclass(frozen=True)
class Since:
    """What was done since the search, so that no doubt advises it again.

    `answered` are the questions that a comparison has answered. `where` is the option that names the storage
    on a command line.
    """

    confirmed: Sequence[ConfirmedArm] = ()
    answered: Collection[str] = ()
    where: str = ""

    def command(self, *words: str) -> str:
        """What to type."""
        return f"{COMMAND} {shlex.join(words)}{self.where}"


def health(
    study: StudyRecord,
    confirmed: Sequence[ConfirmedArm] = (),
    answered: Collection[str] = (),
    where: str = "",
) -> list[Health]:
    """What every check finds, warnings first; nothing for the studies of a verdict, which search nothing.

    The study is read for its ranking at least. For the others see `Since`.
    """
    if study.name.endswith(VERDICTS):
        return []
    since = Since(confirmed, answered, where)
    found = [one for check in CHECKS for one in check(study, since)]
    return sorted(found, key=lambda one: one.grade == "note")


def luck(study: StudyRecord) -> float:
    """How much the objectives of two runs like the best differ by their seeds alone, a standard deviation."""
    return sqrt(2) * seed_noise(study, study.best().value or 0.0)


def _finished(study: StudyRecord) -> list[TrialRecord]:
    return [trial for trial in study.trials if trial.state in ("COMPLETE", "PRUNED")]


def _lead(study: StudyRecord, one: float, other: float) -> float:
    """How much better a value of the objective is than another."""
    return one - other if study.spec.maximize else other - one


def _needed(study: StudyRecord) -> tuple[int, int]:
    """How many parameters are searched, and how many finished trials that takes."""
    axes = {name: getattr(study.spec.space, name) for name in Space.model_fields}
    free = [name for name, axis in axes.items() if isinstance(axis, Range) or len(axis) > 1]
    searched = sum(any(getattr(t.config, name, None) is not None for t in study.trials) for name in free)
    return searched, PER_PARAMETER * searched


def _is_long_enough(study: StudyRecord) -> bool:
    return bool(study.ranked()) and len(_finished(study)) >= _needed(study)[1]


def _anew(study: StudyRecord, since: Since, change: str) -> str:
    """What to type for a new study that begins with the trials of this one."""
    return since.command("optimize", "--from", study.name, "--name", f"{study.name}-2", "--set", change)


def _too_few(study: StudyRecord, since: Since) -> Iterator[Health]:
    finished, (searched, needed) = len(_finished(study)), _needed(study)
    if 0 < finished < needed:
        begun = "has hardly begun" if finished > N_STARTUP else "has not begun to learn from them"
        yield Health(
            "note" if finished > N_STARTUP else "warning",
            f"{counted(finished, 'finished trial')} for {searched} searched parameters, so the sampler "
            f"{begun}; go on to {needed} at least, {PER_PARAMETER} for each.",
        )


def _edges(study: StudyRecord, since: Since) -> Iterator[Health]:
    """The learning rate or fixed slope of the pick, or the best, at an end of a range that could be moved."""
    whose = "pick's" if since.confirmed else "best"
    best = study.best().config if _is_long_enough(study) else None
    if best is not None and since.confirmed:
        best = pick(since.confirmed).arm.config
    names = {"lr": "learning rate", "negative_slope": "slope"}
    for field, name in names.items():
        axis, value = getattr(study.spec.space, field), getattr(best, field, None)
        learned = field == "negative_slope" and best is not None and best.slope_mode == "learnable"
        if value is None or learned or not isinstance(axis, Range):
            continue
        wider = _wider(axis, value, 1.0 if field == "negative_slope" else None)
        if wider is not None:
            end = "lower" if wider.low < axis.low else "upper"
            table = f"{{low = {wider.low:.3g}, high = {wider.high:.3g}, log = {str(axis.log).lower()}}}"
            yield Health(
                "warning",
                f"The {whose} {name}, {value:.3g}, lies at the {end} end of its range, {axis.low:g} to "
                f"{axis.high:g}: better ones may lie beyond. Search there: "
                f"{_anew(study, since, f'space.{field}={table}')}",
            )


def _wider(axis: Range, value: float, most: float | None) -> Range | None:
    """The range moved out tenfold, or by its width, where the value is at an end; at most to `most`."""
    scale: Callable[[float], float] = log10 if axis.log else float
    width = scale(axis.high) - scale(axis.low)
    place = (scale(value) - scale(axis.low)) / width
    if place > 1 - EDGE:
        high = axis.high * 10 if axis.log else axis.high + width
        high = high if most is None else min(high, most)
        return Range(low=axis.low, high=high, log=axis.log) if high > axis.high else None
    if place < EDGE:
        low = axis.low / 10 if axis.log else max(axis.low - width, axis.low / 10)
        return Range(low=low, high=axis.high, log=axis.log) if low < axis.low else None
    return None


def _of_place(combined: Counter[tuple[Any, ...]], place: int) -> Counter[Any]:
    """How often each value stands at a place of tuples that were counted."""
    found = Counter[Any]()
    for values, number in combined.items():
        found[values[place]] += number
    return found


def _unanswered(study: StudyRecord, since: Since) -> Iterator[Health]:
    """The choices with too few completed runs; of a conditional one, where its condition held at all."""
    if not _is_long_enough(study):
        return
    lacking, asks, least = [], [], COMPLETED
    questions = {"slope_mode": "learned", "slope_max": "learned"}
    names = ("activation", "slope_mode", "slope_max", "norm", "init")
    chosen = attrgetter(*names)
    some, whole = (
        Counter(chosen(trial.config) for trial in trials if trial.config is not None)
        for trials in (study.trials, study.ranked())
    )
    for place, name in enumerate(names):
        axis: Any = getattr(study.spec.space, name)
        question = questions.get(name, name)
        drawn, ran = (_of_place(combined, place) for combined in (some, whole))
        unasked = isinstance(axis, Range) or drawn.total() == drawn[None] or question in since.answered
        choices = () if unasked else axis
        few = [f"{choice} ({ran[choice]})" for choice in choices if ran[choice] < COMPLETED]
        least = min([least, *(ran[choice] for choice in choices)])
        if few:
            lacking.append(f"{name} {', '.join(few)}")
            asks.append(question)
    if lacking:
        yield Health(
            "note" if least else "warning",
            f"Fewer than {COMPLETED} completed runs, so the study says nothing of: {'; '.join(lacking)}. "
            "Paired runs around the winner do: "
            + since.command("compare", study.name, "--only", ",".join(dict.fromkeys(asks))),
        )


def _pruner(study: StudyRecord, since: Since) -> Iterator[Health]:
    """A pruner whose audited runs, behind the first trials, ended like those that it let through."""
    first = first_judged(study)
    found = audit(study, first)
    runs, good = len(found.audited), sum(map(found.good, found.audited))
    if study.spec.pruner == "none" or runs < AUDITED_LEAST or len(found.passed) < AUDITED_LEAST:
        return
    best = study.best()
    too = f" The best trial, {best.number}, is one of those." if AUDITED in best.attributes else ""
    if binomial_cdf(good, runs, found.no_skill) > BY_CHANCE:  # at most so many, without skill
        yield Health(
            "warning",
            f"The pruner cannot be told from chance since trial {first}: of {runs} runs that it would "
            f"have stopped and that went to their end, {good} ({good / runs:.0%}) ended better than the "
            f"median of the {len(found.passed)} it let through; no skill would read {found.no_skill:.0%}."
            f"{too} Search without it: {_anew(study, since, 'pruner=none')}",
        )


def _textbook(study: StudyRecord, since: Since) -> Iterator[Health]:
    """A best trial that is a recipe of the textbook, or ahead of the best recipe by no more than luck.

    Once it was confirmed, a baseline that the pick cannot be told from.
    """
    if since.confirmed:
        yield from _baselines(since.confirmed)
        return
    recipes = textbook(study.spec)
    named = (
        (trial, name)
        for trial in study.ranked()
        for name, recipe in recipes.items()
        if trial.config is not None and follows(trial.config, recipe)
    )
    if not _is_long_enough(study) or (found := next(named, None)) is None:
        return
    trial, name = found
    best = study.best()
    lead = _lead(study, best.value or 0.0, trial.value or 0.0)
    recipe = f"the textbook's best, {name} (trial {trial.number}, {trial.value:.4f})"
    if lead <= 0:
        yield Health("warning", f"Nothing is better than {recipe}; take that, or widen the space.")
    elif lead <= luck(study):
        yield Health(
            "warning",
            f"The best trial is ahead of {recipe}, by {lead:.4f}, no more than luck, about "
            f"{luck(study):.4f}. Compare both on fresh seeds: {since.command('confirm', study.name)}",
        )


def _baselines(confirmed: Sequence[ConfirmedArm]) -> Iterator[Health]:
    for row in confirmed:
        found = row.difference
        if not row.arm.is_baseline or found is None or found.p_loss is None or found.p_loss < ALPHA:
            continue
        yield Health(
            "warning",
            f"On {row.runs} fresh seeds the pick cannot be told from {', '.join(row.arm.roles)}: val_loss "
            f"{found.val_loss.mean:+.4f} ± {found.val_loss.half:.4f} (family-wise p {found.p_loss:.2f}). "
            "Take the simpler of the two.",
        )


def _failures(study: StudyRecord, since: Since) -> Iterator[Health]:
    failed = [trial for trial in study.trials if trial.state == "FAIL"]
    if failed:
        last = failed[-1]
        yield Health(
            "warning" if len(failed) > FAILED_MANY * len(study.trials) else "note",
            f"{len(failed)} of {counted(len(study.trials), 'trial')} failed, the last {last.number} "
            f"({last.ended.removeprefix('failed: ')}). Its traceback: "
            + since.command("show", study.name, "--trial", str(last.number)),
        )


def _diverged(study: StudyRecord, since: Since) -> Iterator[Health]:
    finished = _finished(study)
    diverged = [trial for trial in finished if trial.ended == "diverged"]
    if len(diverged) < DIVERGED_LEAST or len(diverged) < DIVERGED_NOTED * len(finished):
        return
    share = len(diverged) / len(finished)
    typical = median(trial.config.lr for trial in diverged if trial.config is not None)
    yield Health(
        "warning" if share >= DIVERGED_MANY else "note",
        f"{len(diverged)} of {len(finished)} runs ({share:.0%}) diverged, half of them at learning rates "
        f"from {typical:.2g} on: end the range of space.lr below it.",
    )


def _found_nothing(study: StudyRecord, since: Since) -> Iterator[Health]:
    """The last WINDOW finished trials are ahead of those before them by no more than luck."""
    finished = _finished(study)
    last = {trial.number for trial in finished[-WINDOW:]}
    ranked = study.ranked()
    before = [trial for trial in ranked if trial.number not in last]
    if len(finished) < WINDOW + N_STARTUP or not before:
        return
    old, new = before[0].value or 0.0, ranked[0].value or 0.0
    if _lead(study, new, old) <= luck(study):
        yield Health(
            "note",
            f"The last {WINDOW} trials found nothing that luck, about {luck(study):.4f}, does not explain: "
            f"the best was {old:.4f} before them and is {new:.4f}. {WINDOW} more would be expected to gain "
            f"{_expected_gain(study, len(finished)):.4f}.{_instead(study, since)}",
        )


def _instead(study: StudyRecord, since: Since) -> str:
    """What brings more than further trials, where it has not been done."""
    if not since.confirmed:
        return f" Run the best few on fresh seeds instead: {since.command('confirm', study.name)}"
    if not since.answered:
        return f" Ask what in the pick mattered instead: {since.command('compare', study.name)}"
    return ""


def _expected_gain(study: StudyRecord, trials: int) -> float:
    """What WINDOW more trials add to the best of so many, were they drawn alike with an exponential tail.

    The best of n such draws grows as s log(n), where s is by how much the TOP draws exceed the next one. An
    objective has an end that this tail has not, so it is an upper guess.
    """
    values = [trial.value or 0.0 for trial in study.ranked()[: TOP + 1]]
    if len(values) < 2:
        return 0.0
    scale = _lead(study, fmean(values[:-1]), values[-1])
    return scale * log((trials + WINDOW) / trials)


CHECKS: tuple[Callable[[StudyRecord, Since], Iterator[Health]], ...] = (
    *(_too_few, _edges, _unanswered, _pruner, _textbook, _failures, _diverged, _found_nothing),
)
