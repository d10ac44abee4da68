"""The answers of a comparison: on a terminal of 80 columns, and as JSON; without torch."""

import json
from collections.abc import Iterable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from slopesearch.evidence.answers import Answer
from slopesearch.evidence.literature import literature
from slopesearch.evidence.statistics import RULE
from slopesearch.report.verdicts import columns, heading, sentences, table
from slopesearch.wording import printable


def answers_view(console: Console, answers: Iterable[Answer]) -> None:
    """Print the answers that a comparison has given."""
    answers = list(answers)
    for answer in answers:
        answer_view(console, answer)
    closing(console, answers)


def answer_view(console: Console, answer: Answer) -> None:
    """Print one answer: the question, its arms, and the sentences."""
    console.print()
    _wrapped(console, heading(answer))
    console.print()
    rows = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for i, header in enumerate(columns(answer)):
        rows.add_column(header, no_wrap=i > 0)
    for row in table(answer):
        rows.add_row(*(Text(printable(cell)) for cell in row))
    console.print(rows)
    console.print()
    for sentence in sentences(answer):
        _wrapped(console, sentence)


def closing(console: Console, answers: Iterable[Answer]) -> None:
    """Print what the literature says, and the rule of the verdicts."""
    console.print()
    for line in (*literature({answer.family.question: answer for answer in answers}), RULE):
        _wrapped(console, line)


def answers_json(answers: Iterable[Answer]) -> str:
    """Answers for programs."""
    return json.dumps([answer.model_dump(mode="json") for answer in answers], indent=2)


def _wrapped(console: Console, text: str) -> None:
    console.print(Text(printable(text, keep="\n")))
