"""What the page opens with: each question that the space asks, and how far it is answered, as a card."""

import shlex
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from math import exp
from typing import Any, Literal

from slopesearch.config import Range, TrialConfig
from slopesearch.evidence.answers import Answer, Contrast, answers_of, families_of
from slopesearch.evidence.families import runs_to_answer
from slopesearch.evidence.rates import APART, behind, level_rates, tuned_losses
from slopesearch.evidence.results import ConfirmedArm, confirmed_of, pick
from slopesearch.evidence.selection import believed
from slopesearch.evidence.statistics import ALPHA, FEWEST
from slopesearch.report.summary import Verdicts
from slopesearch.report.verdicts import effect, far_rates, label, to_settle, word
from slopesearch.search.records import StudyRecord
from slopesearch.training.devices import usable_cores
from slopesearch.wording import counted

QUESTIONS = {
    "activation": "Which activation?",
    "slope": "Which slope of leaky ReLU?",
    "learned": "Slope fixed or learned?",
    "norm": "Where does BatchNorm go?",
    "init": "Which init?",
    "lr": "Which learning rate?",
}
FIELDS = {  # of a config, that may differ between two sides of a question beside its learning rate
    "activation": {"activation", "negative_slope", "slope_mode", "slope_min", "slope_max", "slope_clamp"},
    "slope": {"negative_slope"},
    "learned": {"negative_slope", "slope_mode", "slope_min", "slope_max", "slope_clamp"},
    "norm": {"norm"},
    "init": {"init"},
}
CHOICES = ("activation", "negative_slope", "slope_mode", "slope_max", "norm", "init", "lr")
PLACES = {"none": "Nowhere", "before": "Before the activation", "after": "After the activation"}
SEEDS = 10  # what `compare` takes unless asked for others
MOST_LISTED = 2  # contrasts in a card, one by one
MOST_COUNTED = 3  # choices

State = Literal["settled", "partly", "open"]


@dataclass(frozen=True)
class Card:
    """A question, its answer in a few words, and what carries it; `chip` is the verdict on the whole.

    `command` is what would settle what is open, behind `python -m slopesearch`, and `cost` what that takes;
    both may be empty. `link` is the id of the section that shows the answer.
    """

    question: str
    answer: str
    evidence: str
    chip: str
    state: State
    command: str = ""
    cost: str = ""
    link: str = ""


def cards(study: StudyRecord, verdicts: Verdicts) -> list[Card]:
    """A card for each question that the space leaves open, or that was answered; for a declared comparison,
    which has no search, a card for each baseline.
    """
    answers = answers_of(verdicts.comparison)
    if study is verdicts.comparison:
        return [card for answer in answers.values() for card in _declared(answer)]
    confirmed = confirmed_of(verdicts.confirmation)
    begun = families_of(verdicts.comparison)
    winner = pick(confirmed).arm.config if confirmed else next((t.config for t in study.ranked()), None)
    on_cpu = all(trial.attributes.get("device") == "cpu" for trial in study.ranked())
    each = study.seconds(winner.norm if winner else None) if on_cpu else None
    found: list[Card] = []
    for question in QUESTIONS:
        if question in answers:
            found.append(_compared(answers[question], study, each))
        elif question == "lr" and _is_asked(study, question):
            found += _rates(study, verdicts, each)
        elif _is_asked(study, question):
            card = _from_confirmation(question, study, confirmed) or _from_search(question, study)
            found.append(_with_command(card, question, study, each, question in begun))
    return found


def _is_asked(study: StudyRecord, question: str) -> bool:
    """Whether the space leaves the choice open."""
    space = study.spec.space
    leaky = "leaky_relu" in space.activation or any(
        trial.config is not None and trial.config.negative_slope is not None for trial in study.trials
    )
    fields = {"slope": "negative_slope", "learned": "slope_mode"}
    axis: Any = getattr(space, fields.get(question, question))
    return (leaky or question not in fields) and (isinstance(axis, Range) or len(axis) > 1)


# --- from a comparison


def _declared(answer: Answer) -> Iterator[Card]:
    for other, contrasts in groupby(answer.contrasts, key=lambda contrast: contrast.other):
        asked = _level(other) or answer.family.asks
        yield Card(asked, *_told(answer, list(contrasts), other), link=_link(answer))


def _level(name: str) -> str:
    """The levels of the crossed factors in the name of a declared arm; nothing where none was crossed."""
    return name.rpartition(", ")[0]


def _compared(answer: Answer, study: StudyRecord, each: float | None) -> Card:
    """The answer around a winner: by its first baseline, and what the others leave open."""
    question = answer.family.question
    base = answer.contrasts[0].other
    own = [contrast for contrast in answer.contrasts if contrast.other == base]
    rest = [contrast for contrast in answer.contrasts if contrast.other != base]
    said, evidence, chip, state = _told(answer, own, base)
    if question == "learned" and state == "settled" and not _by_verdict(answer, own, "BETTER"):
        said = "Fixed: learning it gains nothing"
    still = _by_verdict(answer, rest, "NOT SETTLED")
    if rest:
        verb = (
            "not settled" if still else "no better" if not _by_verdict(answer, rest, "BETTER") else "better"
        )
        evidence += f" Against their means, fixed: {verb}."
    if still and state == "settled":
        chip, state = "partly settled", "partly"
    command, cost = _further(answer, study, each)
    return Card(QUESTIONS[question], said, evidence, chip, state, command, cost, _link(answer))


def _link(answer: Answer) -> str:
    return f"answer-{answer.family.question}"


def _by_verdict(answer: Answer, contrasts: Sequence[Contrast], *verdicts: str) -> list[Contrast]:
    """The contrasts with such a verdict, those that speak most for a change first."""
    metric = answer.family.metric
    found = [contrast for contrast in contrasts if contrast.by(metric).verdict in verdicts]
    return sorted(found, key=lambda contrast: contrast.by(metric).difference.mean)


def _told(answer: Answer, contrasts: Sequence[Contrast], base: str) -> tuple[str, str, str, State]:
    """What the contrasts with one baseline come to: answer, evidence, chip and state."""
    better = _by_verdict(answer, contrasts, "BETTER")
    same = _by_verdict(answer, contrasts, "EQUIVALENT", "NEGLIGIBLE")
    still = _by_verdict(answer, contrasts, "NOT SETTLED", "NO VERDICT")
    worse = _by_verdict(answer, contrasts, "WORSE")
    own = short(answer, base)
    if better:
        said = f"{_place(short(answer, better[0].one))} rather than {own}"
    elif len(still) == len(contrasts):
        others = f"one of {len(still)} others" if len(still) > MOST_LISTED else _either(answer, still)
        said = f"Open: {own} or {others}"
    elif still:
        said = f"{_place(own)}, or {_either(answer, still)}: open"
    else:
        said = f"{own} or {_either(answer, same)}" if same else _place(own)
    groups = [group for group in (better, same, still, worse) if group]
    if len(contrasts) <= MOST_LISTED:
        groups = [[contrast] for group in groups for contrast in group]
    told = "; ".join(_group(answer, group) for group in groups)
    evidence = f"Against {own}: {told}. {answer.seeds} seeds."
    if any(contrast in far_rates(answer) for contrast in contrasts):
        evidence += " Some of the learning rates are 4 times apart or more."
    if still and len(still) == len(contrasts):
        few = answer.seeds < FEWEST
        return said, evidence, f"no verdict below {FEWEST} seeds" if few else "not settled", "open"
    return said, evidence, "partly settled" if still else "settled", "partly" if still else "settled"


def _group(answer: Answer, group: Sequence[Contrast]) -> str:
    """Contrasts of one verdict in a few words: how many, and the one that comes nearest to being chosen."""
    metric = answer.family.metric
    found, name = group[0].by(metric), short(answer, group[0].one)
    if len(group) == 1:
        return f"{name} {word(found)}, {effect(found, metric)}"
    return f"{len(group)} {word(found)}, nearest {name}, {effect(found, metric)}"


def short(answer: Answer, name: str) -> str:
    """What a side is called beside the question: of slopes the number, of learned ones the bound."""
    called = label(answer, name)
    match answer.family.question:
        case "slope":
            return called.removeprefix("leaky_relu ")
        case "learned":
            return called.replace("learned, at most ", "up to ")
        case "arms":
            return called.rpartition(", ")[2]
    return called


def _place(name: str) -> str:
    """A placement of BatchNorm as an answer; any other name as it is."""
    return PLACES.get(name, name)


def _either(answer: Answer, contrasts: Sequence[Contrast]) -> str:
    """The other sides by name, or how many they are."""
    if len(contrasts) > MOST_LISTED:
        return f"{len(contrasts)} others"
    return " or ".join(short(answer, contrast.one) for contrast in contrasts)


def _further(answer: Answer, study: StudyRecord, each: float | None) -> tuple[str, str]:
    """What would settle what a comparison left open, and what it takes; nothing where no seeds would."""
    settling = to_settle(answer)
    if settling is None:
        return "", ""
    command = _command(study, answer.family.question, "--seeds", str(settling.seeds))
    return command, _minutes(each, settling.runs)


# --- from a confirmation


def _from_confirmation(question: str, study: StudyRecord, confirmed: Sequence[ConfirmedArm]) -> Card | None:
    """The pick against the best arm of each other choice; None where there is no such arm.

    Of activations any arms: each has its best one there. Else arms that differ in nothing else but the rate.
    """
    if not confirmed:
        return None
    best = pick(confirmed)
    rivals = _rivals(question, best, confirmed)
    if not rivals:
        return None
    near = next(iter(rivals.values()))[0]
    found = near.difference
    assert found is not None

    def choice(row: ConfirmedArm) -> str:
        return _choice(question, row.arm.config)

    level = [other for other, rows in rivals.items() if not all(map(_separated, rows))]
    said = _place(choice(best))
    if found.p_loss is None:
        said += ", on too few seeds to tell"
    elif level:
        rest = len(level) - MOST_LISTED
        named = level[:MOST_LISTED] + ([counted(rest, "other")] if rest > 0 else [])
        listed = " or ".join(filter(None, [", ".join(named[:-1]), named[-1]]))
        said += f"; {listed} not separated"
    fields = [name for name in CHOICES if name not in FIELDS[question]]
    others = [f for f in fields if getattr(best.arm.config, f) != getattr(near.arm.config, f)]
    differs = f", which differs in {' and '.join(others)} too" if others else ""
    p = "" if found.p_loss is None else f", p {found.p_loss:.2g}"
    evidence = (
        f"The pick minus {choice(near)}'s arm of the lowest loss{differs}: val_loss "
        f"{found.val_loss.mean:+.4f} [{found.val_loss.low:+.4f}, {found.val_loss.high:+.4f}]{p}. "
        f"{best.runs} seeds of confirm"
    )
    if found.p_loss is None:
        return Card(QUESTIONS[question], said, f"{evidence}.", f"no verdict below {FEWEST} seeds", "open")
    evidence += f"; ahead of {len(rivals) - len(level)} of {len(rivals)}."
    chip = "not separated" if level else "configs separated"
    return Card(QUESTIONS[question], said, evidence, chip, "open" if level else "partly")


def _rivals(
    question: str, best: ConfirmedArm, confirmed: Sequence[ConfirmedArm]
) -> dict[str, list[ConfirmedArm]]:
    """The arms of each other choice, best first; a choice is told from the pick where each of its arms is."""
    found = defaultdict[str, list[ConfirmedArm]](list)
    allowed = {*FIELDS[question], "lr"}
    for row in sorted(confirmed, key=lambda row: row.val_loss.mean):
        choice = _choice(question, row.arm.config)
        differing = {f for f in CHOICES if getattr(row.arm.config, f) != getattr(best.arm.config, f)}
        fits = question == "activation" or differing <= allowed
        is_other = choice != _choice(question, best.arm.config)
        if fits and is_other and row.difference is not None:
            found[choice].append(row)
    return found


def _choice(question: str, config: TrialConfig) -> str:
    """What a config chose, in words."""
    match question:
        case "slope":
            return "no slope" if config.negative_slope is None else f"{config.negative_slope:.3g}"
        case "learned":
            return {"learnable": "learned"}.get(str(config.slope_mode), str(config.slope_mode))
    return str(getattr(config, question))


def _separated(row: ConfirmedArm) -> bool:
    """Whether the pick and the arm were told apart, in the pick's favour: it has the lowest mean."""
    return row.difference is not None and row.difference.p_loss is not None and row.difference.p_loss < ALPHA


# --- from the search alone


def _from_search(question: str, study: StudyRecord) -> Card:
    """How many completed runs there are of each choice: no answer."""
    configs = [trial.config for trial in study.ranked() if trial.config is not None]
    if question in ("slope", "learned"):
        configs = [config for config in configs if config.negative_slope is not None]
    named = counted(len(configs), "completed run")
    if question == "slope":
        slopes = [config.negative_slope for config in configs if config.negative_slope is not None]
        told = f"{named} with a slope" + (f", {min(slopes):.2g} to {max(slopes):.2g}" if slopes else "")
    else:
        ran = Counter(_choice(question, config) for config in configs)
        most = ran.most_common(MOST_COUNTED)
        others = len(configs) - sum(number for _, number in most)
        each = [f"{choice} {number}" for choice, number in most] + ([f"others {others}"] if others else [])
        told = f"{named}: {', '.join(each)}" if each else named
    return Card(QUESTIONS[question], "Not settled by this search", f"{told}.", "not settled", "open")


def _with_command(card: Card, question: str, study: StudyRecord, each: float | None, begun: bool) -> Card:
    """The card with what answers the question; a comparison that has begun goes on with it."""
    if not study.ranked():  # there is no winner to compare around
        return card
    return replace(
        card,
        evidence=f"{card.evidence} A comparison has begun." if begun else card.evidence,
        command=_command(study, question),
        cost=_minutes(each, runs_to_answer(question, study.spec, SEEDS)),
    )


def _command(study: StudyRecord, question: str, *more: str) -> str:
    return shlex.join(["compare", study.name, "--only", question, *more])


def _minutes(each: float | None, runs: int) -> str:
    """What so many runs take on the cores of this machine, where one takes `each` seconds; their number where
    that is not known.
    """
    if each is None:
        return f"{runs:,} runs"
    minutes = max(1, round(runs * each / usable_cores() / 60))
    return f"about {minutes:,} min"


# --- the learning rate


def _rates(study: StudyRecord, verdicts: Verdicts, each: float | None) -> list[Card]:
    """The rate of the pick, and those that cannot be told from it: tuned around it, or of the best trials."""
    confirmed = confirmed_of(verdicts.confirmation)
    ranked = study.ranked()
    if not ranked or ranked[0].config is None:
        return []
    config = pick(confirmed).arm.config if confirmed else ranked[0].config
    losses = tuned_losses(config, verdicts.tuning)
    question, said = QUESTIONS["lr"], f"{config.lr:.2g}"
    if config.lr in losses and len(losses) > 1:
        near = level_rates(config.lr, losses)
        own = losses[config.lr]
        ahead = [rate for rate, by_seed in losses.items() if rate not in near and behind(by_seed, own) < 0]
        also = f"; {ahead[0]:.2g} did better" if ahead else ""
        evidence = (
            f"{min(near):.2g} to {max(near):.2g} cannot be told from it{also}: of {len(losses)} rates tried, "
            f"{min(losses):.2g} to {max(losses):.2g}, those whose loss is within "
            f"{100 * (exp(APART) - 1):.0f} %, the luck of a seed."
        )
        if all(len(by_seed) == 1 for by_seed in losses.values()):
            return [Card(question, said, evidence, "one run each", "partly")]
        evidence += " Two that ran on further seeds are compared on these."
        return [Card(question, said, evidence, "few runs each", "partly")]
    found = believed(study)
    tied = ranked[1 : 1 + (found.tied if found else 0)]
    rates = [trial.config.lr for trial in tied if trial.config is not None]
    # The cheapest question that has the winner as an arm.
    tuning = next((name for name in ("norm", "init", "activation") if _is_asked(study, name)), "")
    evidence = f"Not tuned; comparing {tuning} tunes it too." if tuning else "Not tuned."
    if rates:
        low, high = f"{min(rates):.2g}", f"{max(rates):.2g}"
        evidence += (
            f" {counted(len(rates), 'run')} level with the best had "
            f"{low if low == high else f'{low} to {high}'}, and other choices."
        )
    card = Card(question, said, evidence, "not tuned", "open")
    return [_with_command(card, tuning, study, each, False) if tuning else card]
