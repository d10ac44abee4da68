"""Stored studies as tables for people; without torch."""

import shlex
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from textwrap import wrap

from rich.console import Console
from rich.table import Table
from rich.text import Text

from slopesearch.cli.verdict_tables import (
    compared_sentence,
    confirmed_sentences,
    mean_rows,
    separation_sentences,
)
from slopesearch.config import Report, TrialConfig
from slopesearch.evidence.answers import NO_ANSWERS, Answer
from slopesearch.evidence.health import COMMAND, health
from slopesearch.evidence.results import ConfirmedArm, Opening, confirmed_of, openings_of, pick
from slopesearch.evidence.selection import Believed, believed, sentences
from slopesearch.evidence.statistics import Estimate
from slopesearch.report.summary import NOT_COMPARABLE, TOP, textbook_rows
from slopesearch.search.records import (
    COMPARE,
    CONFIRM,
    TAKEN,
    TEST,
    VERDICTS,
    StudyRecord,
    StudySummary,
    TrialRecord,
)
from slopesearch.wording import counted, describe, fixed_choices, printable

LINES = "\n\t"  # the control characters that a traceback needs


def say(console: Console, text: str) -> None:
    """Print text as data: no markup, emoji code or control character takes effect, no line is wrapped."""
    text = printable(text, keep=LINES)
    console.print(text, markup=False, highlight=False, emoji=False, soft_wrap=True)


def wrapped(console: Console, text: str, indent: str = "") -> None:
    """Print text as data, see `say`, wrapped to the width of the console, see `wrap_words`."""
    for line in wrap_words(text, console.width, indent):
        say(console, line)


def to_stderr(text: str, indent: str = "") -> None:
    """Print text as data where errors go; on a terminal wrapped, see `with_command`."""
    console = Console(stderr=True)
    for line in with_command(text, console.width, indent) if console.is_terminal else [indent + text]:
        say(console, line)


def _cell(value: object) -> Text:
    text = "-" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)
    return Text(printable(text))


def _table(*headers: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for header in headers:
        table.add_column(header)
    return table


def summaries_table(
    console: Console, summaries: Sequence[StudySummary], confirmed: Mapping[str, float]
) -> None:
    """Print a line per study; `confirmed` has the mean objective of a search's pick on fresh seeds."""
    table = _table("study", "complete", "pruned", "unfinished", "failed", "best", "confirmed")
    for row in summaries:
        unfinished = (
            f"{row.waiting} waiting" if row.waiting else f"{row.running} running" if row.running else 0
        )
        ended = row.complete, row.pruned, unfinished, row.failed, row.best, confirmed.get(row.name)
        table.add_row(*map(_cell, (row.name, *ended)))
    console.print(table if summaries else "no studies yet; python -m slopesearch optimize makes one")
    if any(row.waiting for row in summaries):
        say(console, "waiting: to be run again, since the process that ran them has ended")


def study_table(
    console: Console,
    study: StudyRecord,
    confirmation: StudyRecord | None = None,
    answered: Mapping[str, Answer] = NO_ANSWERS,
    where: str = "",
) -> None:
    """Print the best config, the top five, the lead over the textbook, and doubts; or the confirmation.

    Of a search that was confirmed, see `confirmation`, the pick stands in the place of the best. `answered`
    is what a comparison has answered, by question; `where` is the option that names the storage on a command
    line.
    """
    if confirmed := confirmed_of(study):
        confirmation_table(console, confirmed, openings_of(study))
        return
    if study.name.endswith(VERDICTS):
        _means_table(console, study)
        return
    _found_table(console, study, confirmed_of(confirmation), answered)
    if confirmed_of(confirmation):
        say(console, f"Every arm: python -m slopesearch show {shlex.quote(study.name + CONFIRM)}{where}")
    if answered:
        compared = shlex.quote(study.name + COMPARE)
        say(console, f"What was compared: python -m slopesearch show {compared}{where}")
    doubts = health(study, confirmed_of(confirmation), answered, where)
    if doubts:
        console.print()
    for doubt in doubts:
        for line in with_command(f"{doubt.grade}: {doubt.text}", console.width):
            say(console, line)


def with_command(text: str, width: int, indent: str = "") -> list[str]:
    """The lines of a text, the command that ends it on a line of its own, which is not wrapped."""
    words, command, rest = text.partition(f" {COMMAND}")
    lines = wrap_words(words, width, indent)
    return [*lines, f"{indent} {printable(command + rest)}"] if command else lines


def wrap_words(text: str, width: int, indent: str = "") -> list[str]:
    """Lines of a text, the later ones indented by two; none is wider than the terminal unless one word is."""
    return wrap(
        printable(text),
        width,
        initial_indent=indent,
        subsequent_indent=indent + "  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _means_table(console: Console, study: StudyRecord) -> None:
    rows = mean_rows(study)
    say(console, f"\n{printable(study.name)}: {len(study.trials)} runs of {len(rows)} configs on seeds")
    images = TEST[1:] if study.name.endswith(TEST) else "val"
    table = _table("config", "runs", f"mean {study.spec.objective.replace('val', images)}")
    for row in rows:
        table.add_row(*map(_cell, row))
    console.print(table)


def counts_sentence(study: StudyRecord) -> str:
    """How many trials a search holds, and how they ended."""
    complete, pruned, failed = (study.count(state) for state in ("COMPLETE", "PRUNED", "FAIL"))
    unfinished = f", {study.running} running" if study.running else ""
    unfinished = f", {study.waiting} waiting to be run again" if study.waiting else unfinished
    return (
        f"{study.name}: {complete + pruned} trials, {pruned} of them pruned, {failed} failed{unfinished} "
        f"({study.spec.dataset}, {study.spec.model})"
    )


def found_sentences(
    study: StudyRecord,
    confirmed: Sequence[ConfirmedArm],
    belief: Believed | None,
    answered: Mapping[str, Answer] = NO_ANSWERS,
) -> list[tuple[int, str]]:
    """What a search has found, or what was confirmed of it: sentences, with the depth of their indent."""
    ranked = study.ranked()
    if not ranked or ranked[0].config is None or ranked[0].value is None:
        return [(0, "no trial has run to its end yet")]
    if confirmed:
        first, *rest = confirmed_sentences(study, confirmed)
        return [(0, first), *((1, sentence) for sentence in rest)]
    best, spec = ranked[0], study.spec
    told = [
        (0, f"best: trial {best.number}, {spec.objective} {ranked[0].value:.4f}"),
        (1, describe(ranked[0].config, fixed_choices(spec))),
    ]
    if compared := compared_sentence(ranked[0].config, answered):
        told.append((1, compared))
    if belief is not None:
        told.append((1, sentences(belief)[0]))
        image = f"; one of the {spec.val_size:,} validation images is {1 / (spec.val_size or 1):.4f}"
        rivals = (
            f"{counted(belief.tied, 'more trial')} cannot be told from it by one run each"
            if belief.tied
            else "No other trial comes so near that one run each could not tell them apart"
        )
        seeds = "all ran on the same init seed and batch order"
        told.append((1, f"{rivals}; {seeds}{image if spec.maximize else ''}."))
    return told


def _found_table(
    console: Console,
    study: StudyRecord,
    confirmed: Sequence[ConfirmedArm],
    answered: Mapping[str, Answer],
) -> None:
    console.print()
    wrapped(console, counts_sentence(study))
    for sentence in study.left_out():
        say(console, f"left out: {sentence}")
    for depth, sentence in found_sentences(study, confirmed, believed(study), answered):
        wrapped(console, sentence, indent="  " * depth)
    if not study.ranked():
        return
    fixed = fixed_choices(study.spec)
    console.print()
    top = _table("top", study.spec.objective, "config")
    for trial in study.ranked()[:TOP]:
        config = trial.config and describe(trial.config, fixed)
        top.add_row(_cell(trial.number), _cell(trial.value), _cell(config))
    console.print(top)
    if not confirmed:
        _textbook_table(console, study)


def _textbook_table(console: Console, study: StudyRecord) -> None:
    rows = textbook_rows(study)
    if rows:
        console.print()
        table = _table("textbook recipe", "trial", study.spec.objective, "winner ahead by")
        for row in rows:
            table.add_row(_cell(row["recipe"]), _cell(row["trial"]), _cell(row["value"]), _cell(row["lead"]))
        console.print(table)
        say(console, "One run each; the winner is the luckiest of many, so expect less of its lead.")


def confirmation_table(
    console: Console, confirmed: Sequence[ConfirmedArm], openings: Sequence[Opening]
) -> None:
    """Print every arm on fresh seeds, best first; then the last test of the pick and the baselines."""
    numbers = {row.arm.config: number for number, row in enumerate(confirmed, start=1)}
    _confirmed_table(console, confirmed, numbers)
    best = pick(confirmed)
    diverged = sum(row.diverged for row in confirmed)
    say(
        console,
        f"Means of {best.runs} fresh seeds, ± 95 %; shrinkage: how much better the search saw it.",
    )
    if diverged:
        say(console, f"{diverged} runs diverged and count as chance.")
    wrapped(console, "The intervals are over seeds, on the same validation images that chose the configs.")
    say(console, f"pick: {numbers[best.arm.config]}, the lowest mean loss")
    _differences_table(console, confirmed, numbers)
    if not openings:
        wrapped(console, "The test set has not been opened yet; the same `confirm` goes on with it.")
        return
    opening = openings[-1]
    console.print()
    _tested_table(console, opening, numbers)
    times = "once, on" if len(openings) == 1 else f"{len(openings)} times, last on"
    say(console, f"The test set was opened {times} {opening.opened}; {opening.seeds} runs each.")
    if opening.arms[0].config != best.arm.config:
        say(console, "The pick has changed since; --open-test-again tests the new one.")
    elif opening.tested:
        tested = opening.tested[0].accuracy
        said = f"pick: {describe(best.arm.config)}, test accuracy {tested.mean:.4f} ± {tested.half:.4f}"
        console.print()
        wrapped(console, said)


def _confirmed_table(
    console: Console, confirmed: Sequence[ConfirmedArm], numbers: Mapping[TrialConfig, int]
) -> None:
    names = _table("", "config", "why")
    table = _table("", "val_loss", "sd", "val_accuracy", "sd", "searched", "shrinkage")
    for row in confirmed:
        number = _cell(numbers[row.arm.config])
        names.add_row(number, _cell(describe(row.arm.config)), _cell(", ".join(row.arm.roles)))
        cells = (*_cells(row.val_loss), *_cells(row.val_accuracy), row.arm.searched, row.shrinkage)
        table.add_row(number, *map(_cell, cells))
    console.print(names)
    console.print()
    console.print(table)


def _differences_table(
    console: Console, confirmed: Sequence[ConfirmedArm], numbers: Mapping[TrialConfig, int]
) -> None:
    table = _table("pick minus", "val_loss", "p", "", "val_accuracy", "p")
    for row in confirmed:
        if row.difference is not None:
            found = row.difference
            loss = _cells(found.val_loss)[0], found.p_loss, found.verdict
            cells = (*loss, _cells(found.val_accuracy)[0], found.p_accuracy)
            table.add_row(_cell(numbers[row.arm.config]), *map(_cell, cells))
    if table.row_count:
        console.print()
        console.print(table)
        say(console, "Seed by seed, ± 95 %; p is family-wise (max-T of sign flips), from six seeds on.")
        say(console, "The pick was chosen by these runs, so its lead is a little flattered.")
        for sentence in separation_sentences(confirmed, numbers):
            wrapped(console, sentence)


def _tested_table(console: Console, opening: Opening, numbers: Mapping[TrialConfig, int]) -> None:
    table = _table("", "test_accuracy", "sd", "test_loss", "sd", "why")
    for place, tested in enumerate(opening.tested):
        why = ", ".join([*(["the pick"] if place == 0 else []), *tested.arm.roles])
        numbered = (numbers.get(tested.arm.config), *_cells(tested.accuracy), *_cells(tested.loss), why)
        table.add_row(*map(_cell, numbered))
    console.print(table)


def _cells(estimate: Estimate) -> tuple[str, float]:
    """Mean with its interval, and standard deviation."""
    return f"{estimate.mean:.4f} ± {(estimate.high - estimate.low) / 2:.4f}", estimate.sd


def replay_table(console: Console, stored: Sequence[Report], new: Sequence[Report]) -> None:
    """Print both curves, side by side."""
    table = _table("report", "train_loss", "again", "val_loss", "again", "val_accuracy", "again")
    for old, here in zip_longest(stored, new):
        cells: list[object] = [(old or here).step]
        for name in ("train_loss", "val_loss", "val_accuracy"):
            cells += [getattr(old, name, None), getattr(here, name, None)]
        table.add_row(*map(_cell, cells))
    console.print(table)


def trial_view(console: Console, trial: TrialRecord, why: Sequence[str] = ()) -> None:
    """Print a stored trial: why it was stopped, its config, cost, diagnostics in short, curve, traceback."""
    value = "" if trial.value is None else f", {trial.value:.4f}"
    say(console, f"trial {trial.number}: {trial.ended}{value}")
    if trial.is_given:
        say(console, "given by hand; comparisons leave it out")
    if TAKEN in trial.attributes:
        say(console, f"taken over from {trial.attributes[TAKEN]}")
    for sentence in why:
        wrapped(console, sentence)
    if trial.config is not None:
        for name, chosen in trial.config:
            if chosen is not None:
                say(console, f"  {name:<17} {chosen}")
    for name in ("seconds", "images_per_second", "device", "arithmetic"):
        if name in trial.attributes:
            say(console, f"  {name:<17} {trial.attributes[name]}")
    inside = trial.diagnostics
    if inside is not None:
        say(console, f"  {'dead_fraction':<17} {inside.dead_fraction:.4f}")
        if inside.grad_attenuation is not None:
            say(console, f"  {'grad_attenuation':<17} {inside.grad_attenuation:.4f} decades per layer")
        if inside.order is None:
            say(console, f"  the diagnostics were {NOT_COMPARABLE}")
    if trial.curve:
        table = _table("report", "train_loss", "val_loss", "val_accuracy", "slopes")
        for row in trial.curve:
            slopes = " ".join(f"{slope:.4f}" for slope in row.slopes) or "-"
            table.add_row(
                _cell(row.step), _cell(row.train_loss), _cell(row.val_loss), _cell(row.val_accuracy), slopes
            )
        console.print(table)
    if "traceback" in trial.attributes:
        say(console, str(trial.attributes["traceback"]))
