"""How `optimize` ends: the answer, its rivals, the textbook, doubts and what to type next, on one screen."""

import shlex
from collections.abc import Sequence
from textwrap import wrap

from rich.console import Console

from slopesearch.cli.tables import counts_sentence, found_sentences, say
from slopesearch.evidence.answers import answers_of
from slopesearch.evidence.health import Health, health
from slopesearch.evidence.results import confirmed_of
from slopesearch.report.summary import textbook_rows
from slopesearch.search.records import COMPARE, CONFIRM, StudyRecord
from slopesearch.search.store import Store
from slopesearch.wording import counted, describe, fixed_choices, printable

SCREEN = 24  # lines of a terminal; the last is the shell's
RIVALS = 3


def ending(console: Console, store: Store, study: StudyRecord, notes: Sequence[str] = ()) -> None:
    """Print what a search has come to; what does not fit on the screen, `show` has.

    `notes`: sentences that stand behind the result, such as why the search has ended early.
    """
    confirmed = confirmed_of(store.find(study.name + CONFIRM, "ranking"))
    width = min(console.width, 100)
    found = ["", *_wrapped(counts_sentence(study), width)]
    for depth, sentence in found_sentences(study, confirmed):
        found += _wrapped(sentence, width, "  " * depth)
    # A confirmation has baselines and runners-up of its own.
    textbook, rivals = ([], []) if confirmed else (_textbook(study, width), _rivals(study, width))
    end = [line for note in notes for line in _wrapped(note, width)]
    end += ["", "Next:", *(f"  {line}" for line in next_commands(store, study))]
    room = SCREEN - 1 - len(found) - len(textbook) - len(end)
    doubts = _doubts(store, study, width, room - len(rivals[:1]))
    rivals = rivals[: max(1, room - len(doubts))]
    for line in [*found, *rivals, *textbook, *doubts, *end]:
        say(console, line)


def next_commands(store: Store, study: StudyRecord) -> list[str]:
    """The three commands that a person would type now, with what each is for."""
    name, where = shlex.quote(study.name), store.option
    command = "python -m slopesearch"
    confirmed = bool(confirmed_of(store.find(study.name + CONFIRM, "ranking")))
    compared = bool(answers_of(store.find(study.name + COMPARE, "ranking")))
    known = {
        "is it real": (confirmed, f"{command} confirm {name}{where}"),
        "what mattered": (compared, f"{command} compare {name}{where}"),
        "as one page": (False, f"{command} report {name}{where}"),
        "to train with": (not study.ranked(), f"{command} export {name} -o best.toml{where}"),
        "look again": (False, f"{command} show {name}{where}"),
    }
    left = [f"{what:<15}{typed}" for what, (done, typed) in known.items() if not done]
    return left[:3] if study.ranked() else [left[-1]]


def _wrapped(text: str, width: int, indent: str = "") -> list[str]:
    """Lines of a sentence, none wider than the terminal unless one word is; no word is broken."""
    return wrap(
        printable(text),
        width,
        initial_indent=indent,
        subsequent_indent=indent + "  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _rivals(study: StudyRecord, width: int) -> list[str]:
    """The next best trials, one on a line, which is cut where it is too long: `show` has them whole."""
    fixed = fixed_choices(study.spec)
    lines = (
        f"    {trial.number:<5}{trial.value:.4f}  {describe(trial.config, fixed)}"
        for trial in study.ranked()[1 : 1 + RIVALS]
        if trial.config is not None
    )
    return [line if len(line) <= width else f"{line[: width - 2]} …" for line in lines]


def _textbook(study: StudyRecord, width: int) -> list[str]:
    rows = textbook_rows(study)
    told = "; ".join(f"{row['recipe']} {row['value']:.4f}" for row in rows)
    return _wrapped(f"textbook, one run each: {told}.", width) if rows else []


def _doubts(store: Store, study: StudyRecord, width: int, room: int) -> list[str]:
    """As many of the doubts as there is room for, the first one at least, and where the others are."""
    found = [_doubt(doubt, width) for doubt in health(study)]
    shown: list[str] = []
    for number, lines in enumerate(found):
        rest = len(found) - number - 1
        if number and len(shown) + len(lines) + bool(rest) > room:
            more = f"{counted(rest + 1, 'doubt')} more: python -m slopesearch show {shlex.quote(study.name)}"
            return [*shown, more + store.option]
        shown += lines
    return shown


def _doubt(doubt: Health, width: int) -> list[str]:
    return _wrapped(f"{doubt.grade}: {doubt.text}", width)
