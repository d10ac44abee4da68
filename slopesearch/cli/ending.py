"""How `optimize` ends: the answer, its rivals, the textbook, doubts and what to type next, on one screen."""

import shlex
from collections.abc import Collection, Sequence
from math import ceil

from rich.console import Console

from slopesearch.cli.tables import counts_sentence, found_sentences, say, with_command, wrap_words
from slopesearch.cli.verdict_tables import answered_of, confirmation_of, unanswered
from slopesearch.evidence.answers import Answer
from slopesearch.evidence.health import COMMAND, Health, health
from slopesearch.evidence.results import ConfirmedArm, confirmed_of
from slopesearch.evidence.selection import Believed, believed
from slopesearch.report.summary import textbook_rows
from slopesearch.search.records import StudyRecord
from slopesearch.search.store import Store
from slopesearch.wording import counted, describe, fixed_choices

SCREEN = 24  # lines of a terminal; the last is the shell's
RIVALS = 3


def ending(console: Console, store: Store, study: StudyRecord, notes: Sequence[str] = ()) -> None:
    """Print what a search has come to; what does not fit on the screen, `show` has.

    `notes`: sentences that stand behind the result, such as why the search has ended early.
    """
    confirmed, answered = verdict(store, study.name)
    width, belief = min(console.width, 100), believed(study)
    found = ["", *wrap_words(counts_sentence(study), width)]
    for depth, sentence in found_sentences(study, confirmed, belief, answered):
        found += wrap_words(sentence, width, "  " * depth)
    # A confirmation has baselines and runners-up of its own.
    textbook, rivals = ([], []) if confirmed else (_textbook(study, width), _rivals(study, belief, width))
    end = [line for note in notes for line in with_command(note, width)]
    end += ["", "Next:", *(f"  {line}" for line in next_commands(store, study, confirmed, answered))]
    room = SCREEN - 1 - len(found) - len(textbook) - _rows(end, console.width)
    found_doubtful = health(study, confirmed, answered, store.option)
    doubts = _doubts(store, study, found_doubtful, width, room - len(rivals[:2]))
    rivals = rivals[: max(2, room - _rows(doubts, console.width))]
    for line in [*found, *rivals, *textbook, *doubts, *end]:
        say(console, line)


def _rows(lines: Sequence[str], width: int) -> int:
    """How many rows of a terminal lines take: a command that is wider than it takes several."""
    return sum(max(1, ceil(len(line) / width)) for line in lines)


def verdict(store: Store, search: str) -> tuple[list[ConfirmedArm], dict[str, Answer]]:
    """The confirmed arms of a search, and what a comparison has answered, by question."""
    return confirmed_of(confirmation_of(store, search)), answered_of(store, search)


def next_commands(
    store: Store, study: StudyRecord, confirmed: Sequence[ConfirmedArm], answered: Collection[str]
) -> list[str]:
    """The three commands that a person would type now, with what each is for."""
    name, where = shlex.quote(study.name), store.option
    known = {
        "is it real": (bool(confirmed), f"{COMMAND} confirm {name}{where}"),
        "what mattered": (not unanswered(answered), f"{COMMAND} compare {name}{where}"),
        "as one page": (False, f"{COMMAND} report {name}{where}"),
        "to train with": (not study.ranked(), f"{COMMAND} export {name} -o best.toml{where}"),
        "look again": (False, f"{COMMAND} show {name}{where}"),
    }
    left = [f"{what:<15}{typed}" for what, (done, typed) in known.items() if not done]
    return left[:3] if study.ranked() else [left[-1]]


def _rivals(study: StudyRecord, belief: Believed | None, width: int) -> list[str]:
    """The next best of the trials that cannot be told from the best, a line each below a line that says so;
    `show` has them whole.
    """
    fixed = fixed_choices(study.spec)
    lines = [
        f"    {trial.number:<5}{trial.value:.4f}  {describe(trial.config, fixed)}"
        for trial in study.ranked()[1 : 1 + min(RIVALS, belief.tied if belief else 0)]
        if trial.config is not None
    ]
    lead = ["  The next:"] if lines else []
    return lead + [line if len(line) <= width else f"{line[: width - 2]} …" for line in lines]


def _textbook(study: StudyRecord, width: int) -> list[str]:
    rows = textbook_rows(study)
    told = "; ".join(f"{row['recipe']} ({row['value']:.4f})" for row in rows)
    return wrap_words(f"textbook, one run each: {told}.", width) if rows else []


def _doubts(store: Store, study: StudyRecord, doubts: Sequence[Health], width: int, room: int) -> list[str]:
    """As many of the doubts as there is room for, and where the others are."""
    shown: list[str] = []
    all_of_them = f"{COMMAND} show {shlex.quote(study.name)}{store.option}"
    for number, doubt in enumerate(doubts):
        lines, rest = with_command(f"{doubt.grade}: {doubt.text}", width), len(doubts) - number - 1
        last = f"{counted(rest, 'doubt')} more: {all_of_them}" if rest else ""
        if _rows([*shown, *lines, *filter(None, [last])], width) > room:
            return [*shown, f"{counted(rest + 1, 'doubt')}{' more' if shown else ''}: {all_of_them}"]
        shown += lines
    return shown
