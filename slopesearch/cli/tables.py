"""Stored studies as tables for people and JSON for programs; without torch."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import zip_longest
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from slopesearch.config import Report, TrialConfig
from slopesearch.evidence.results import ConfirmedArm, Opening, confirmed_of, openings_of, pick
from slopesearch.evidence.statistics import Estimate
from slopesearch.report.summary import NOT_COMPARABLE, TOP, textbook_rows
from slopesearch.search.records import StudyRecord, StudySummary, TrialRecord
from slopesearch.wording import describe, printable

LINES = "\n\t"  # the control characters that a traceback needs


def say(console: Console, text: str) -> None:
    """Print text as data: no markup, emoji code or control character takes effect, no line is wrapped."""
    text = printable(text, keep=LINES)
    console.print(text, markup=False, highlight=False, emoji=False, soft_wrap=True)


def _cell(value: object) -> Text:
    text = "-" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)
    return Text(printable(text))


def _table(*headers: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for header in headers:
        table.add_column(header)
    return table


def summaries_table(console: Console, summaries: list[StudySummary]) -> None:
    """Print a line per study."""
    table = _table("study", "complete", "pruned", "running", "failed", "best")
    for row in summaries:
        table.add_row(*map(_cell, asdict(row).values()))
    console.print(table if summaries else "no studies yet; `python -m slopesearch optimize` makes one")


def study_table(console: Console, study: StudyRecord) -> None:
    """Print the best config, the top five, and the winner's lead over the textbook; or the confirmation."""
    if confirmed := confirmed_of(study):
        confirmation_table(console, confirmed, openings_of(study))
        return
    complete, pruned, failed = (study.count(state) for state in ("COMPLETE", "PRUNED", "FAIL"))
    running = study.count("RUNNING")
    unfinished = f", {running} unfinished" if running else ""
    say(
        console,
        f"\n{printable(study.name)}: {complete + pruned} trials, {pruned} of them pruned, "
        f"{failed} failed{unfinished} ({study.spec.dataset}, {study.spec.model})",
    )
    for sentence in study.left_out():
        say(console, f"left out: {sentence}")
    ranked = study.ranked()
    if not ranked or ranked[0].config is None or ranked[0].value is None:
        say(console, "no trial has run to its end yet")
        return
    best, value = ranked[0].config, ranked[0].value
    say(console, f"best: trial {ranked[0].number}, {study.spec.objective} {value:.4f}")
    for name in ("activation", "negative_slope", "slope_mode", "slope_max", "norm", "init", "lr"):
        chosen = getattr(best, name)
        if chosen is not None:
            say(
                console,
                f"  {name:<15} {chosen:.4g}" if isinstance(chosen, float) else f"  {name:<15} {chosen}",
            )

    console.print()
    top = _table("top", study.spec.objective, "config")
    for trial in ranked[:TOP]:
        top.add_row(_cell(trial.number), _cell(trial.value), _cell(trial.config and describe(trial.config)))
    console.print(top)

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
    say(console, "The intervals are over seeds, on the same validation images that chose the configs.")
    say(console, f"pick: {numbers[best.arm.config]}, the lowest mean loss")
    for row in confirmed:
        if row.difference is not None:
            loss, accuracy = _cells(row.difference.val_loss)[0], _cells(row.difference.val_accuracy)[0]
            number = numbers[row.arm.config]
            say(console, f"pick minus {number}, seed by seed: val_loss {loss}, val_accuracy {accuracy}")
    if not openings:
        return
    opening = openings[-1]
    console.print()
    _tested_table(console, opening, numbers)
    times = "once, on" if len(openings) == 1 else f"{len(openings)} times, last on"
    say(console, f"The test set was opened {times} {opening.opened}; {opening.seeds} runs each.")
    if opening.arms[0].config != best.arm.config:
        say(console, "The pick has changed since; --open-test-again tests the new one.")


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


def confirmation_json(confirmed: Sequence[ConfirmedArm], openings: Sequence[Opening]) -> str:
    """A confirmation for programs; the last of the `openings` is the valid test."""
    return json.dumps(
        {
            "confirmed": [row.model_dump(mode="json") for row in confirmed],
            "pick": pick(confirmed).model_dump(mode="json"),
            "openings": [row.model_dump(mode="json") for row in openings],
        },
        indent=2,
    )


def replay_table(console: Console, stored: Sequence[Report], new: Sequence[Report]) -> None:
    """Print both curves, side by side."""
    table = _table("report", "train_loss", "again", "val_loss", "again", "val_accuracy", "again")
    for old, here in zip_longest(stored, new):
        cells: list[object] = [(old or here).step]
        for name in ("train_loss", "val_loss", "val_accuracy"):
            cells += [getattr(old, name, None), getattr(here, name, None)]
        table.add_row(*map(_cell, cells))
    console.print(table)


def study_json(study: StudyRecord, top: Sequence[TrialRecord]) -> str:
    """A study for programs; `top` are its best trials, whole."""
    if confirmed := confirmed_of(study):
        return confirmation_json(confirmed, openings_of(study))
    return json.dumps(
        {
            "name": study.name,
            "spec": study.spec.model_dump(mode="json"),
            "complete": study.count("COMPLETE"),
            "pruned": study.count("PRUNED"),
            "running": study.count("RUNNING"),
            "failed": study.count("FAIL"),
            "top": [_trial_data(trial) for trial in top],
            "textbook": textbook_rows(study),
            "unreadable": study.unreadable,
        },
        indent=2,
    )


def _trial_data(trial: TrialRecord) -> dict[str, Any]:
    return {"number": trial.number, "state": trial.state, "value": trial.value, **trial.attributes}


def trial_json(trial: TrialRecord) -> str:
    """A trial for programs."""
    return json.dumps(_trial_data(trial), indent=2)


def trial_view(console: Console, trial: TrialRecord) -> None:
    """Print a stored trial: its config, its cost, its diagnostics in short, its curve, its traceback."""
    value = "" if trial.value is None else f", {trial.value:.4f}"
    say(console, f"trial {trial.number}: {trial.ended}{value}")
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
