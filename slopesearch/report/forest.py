"""Intervals of runs on fresh seeds, drawn: the arms of a confirmation, and the contrasts of a comparison."""

from collections.abc import Sequence
from math import asinh
from statistics import median
from typing import Any

import plotly.graph_objects as go

from slopesearch.config import StudySpec
from slopesearch.evidence.answers import Answer
from slopesearch.evidence.arms import HE, TUTORIAL
from slopesearch.evidence.literature import literature
from slopesearch.evidence.results import ConfirmedArm
from slopesearch.evidence.statistics import RULE, Estimate
from slopesearch.report.style import (
    FADED,
    better_up,
    colour_of,
    distance,
    figure,
    for_script,
    objective_name,
    text,
)
from slopesearch.report.verdicts import columns, heading, in_unit, label, sentences, table, word

INK = "ink"  # the `meta` of a trace that the page paints in the colour of its text
ROW = 26  # pixels of an arm
TICKS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)  # of a difference of losses, nats


def section(answer: Answer) -> dict[str, Any]:
    """What the page shows of an answer: its title, its rule, a figure as JSON, rows, sentences."""
    rule = heading(answer).split("\n")[1]
    asks = answer.family.asks
    return {
        "id": f"answer-{answer.family.question}",
        "title": asks[:1].upper() + asks[1:],
        "rule": rule,
        "json": for_script(forest(answer)),
        "caption": "Each arm below what it is compared with",
        "header": columns(answer),
        "rows": table(answer),
        "sentences": sentences(answer),
    }


def remarks(answers: dict[str, Answer]) -> list[str]:
    """What stands below the answers: what the literature says, and the rule of the verdicts."""
    return [*literature(answers), RULE] if answers else []


def forest(answer: Answer) -> go.Figure:
    """The difference of each contrast with its 95 % interval; the band of the smallest effect behind them.

    The verdict stands under the name. All are of one colour: on the page a colour is an activation.
    """
    metric = answer.family.metric
    smallest = answer.family.smallest(metric)
    baselines = {contrast.other for contrast in answer.contrasts}
    against = f" against {text(label(answer, *baselines))}" if len(baselines) == 1 else " difference"
    title = f"{'loss' if metric == 'val_loss' else 'error'}{against}, "
    title += "%" if metric == "val_loss" else "points"
    drawn = figure(title, "", height=100 + 42 * len(answer.contrasts))
    drawn.add_vrect(
        in_unit(-smallest, metric),
        in_unit(smallest, metric),
        fillcolor=FADED,
        opacity=0.5,
        line_width=0,
        layer="below",
    )
    drawn.add_vline(0, line_color=FADED)
    for contrast in answer.contrasts:
        found = contrast.by(metric)
        mean, low, high = (
            in_unit(end, metric)
            for end in (found.difference.mean, found.difference.low, found.difference.high)
        )
        name = text(label(answer, contrast.one))
        if len(baselines) > 1:
            name += f" minus {text(label(answer, contrast.other))}"
        drawn.add_scatter(
            x=[mean],
            y=[f"{name}<br><i>{text(word(found))}</i>"],
            error_x={"type": "data", "symmetric": False, "array": [high - mean], "arrayminus": [mean - low]},
            marker={"size": 9},
            meta=INK,
            hovertext=[text(word(found))],
            showlegend=False,
        )
    drawn.update_yaxes(range=[len(answer.contrasts) - 0.5, -0.5])
    return drawn


def arm_names(confirmed: Sequence[ConfirmedArm]) -> list[str]:
    """What each arm is called in a figure: its place, and its activation or the recipe that it is."""
    names = []
    for place, row in enumerate(confirmed, start=1):
        recipe = next((role for role in row.arm.roles if role.startswith((TUTORIAL, HE))), None)
        if recipe is not None:
            tuned = ", lr tuned" if "tuned" in recipe else ""
            recipe = ("tutorial" if recipe.startswith(TUTORIAL) else "ReLU, He") + tuned
        names.append(f"{place} {text(recipe or row.arm.config.activation)}")
    return names


def confirmed_forest(confirmed: Sequence[ConfirmedArm], spec: StudySpec) -> go.Figure:
    """The objective of each arm on fresh seeds: mean, 95 % interval, every seed, and what the search saw."""
    accuracy = spec.maximize
    drawn = figure(objective_name(spec), "", height=110 + ROW * len(confirmed))
    values: list[float] = []
    legend = {"seeds": "seeds", "mean": "mean, 95 %", "search": "in the search"}
    for name, row in zip(arm_names(confirmed), confirmed, strict=True):
        seeds = row.accuracies if accuracy else row.losses
        found = row.val_accuracy if accuracy else row.val_loss
        searched = row.arm.searched
        colour = colour_of(row.arm.config.activation, spec)
        mean, ends = distance(found.mean, spec), sorted(distance(x, spec) for x in (found.low, found.high))
        error = {
            "type": "data",
            "symmetric": False,
            "array": [ends[1] - mean],
            "arrayminus": [mean - ends[0]],
        }
        marks: list[tuple[str, Sequence[float], dict[str, Any], dict[str, Any] | None]] = [
            ("seeds", seeds, {"size": 5, "opacity": 0.5}, None),
            ("mean", [found.mean], {"size": 9}, error),
            ("search", [] if searched is None else [searched], {"size": 9, "symbol": "diamond-open"}, None),
        ]
        for part, numbers, marker, bar in marks:
            if not numbers:
                continue
            values += [*numbers, found.low, found.high]
            drawn.add_scatter(
                x=[distance(value, spec) for value in numbers],
                y=[name] * len(numbers),
                mode="markers",
                marker={"color": colour, **marker},
                error_x=bar and {**bar, "color": colour, "thickness": 2, "width": 0},
                hovertext=[f"{legend[part]}: {value:.4f}" for value in numbers],
                hoverinfo="text",
                name=legend[part],
                showlegend=name.startswith("1 "),
                legendgroup=part,
            )
    drawn.update_xaxes(better_up(spec, values))
    drawn.update_yaxes(autorange="reversed", type="category")
    return drawn


def differences_forest(confirmed: Sequence[ConfirmedArm]) -> go.Figure | None:
    """The loss of the pick minus that of each other arm, seed by seed, with its 95 % interval; None without.

    Arms near the pick and far from it are on one scale: linear around zero, logarithmic far from it.
    """
    rows = [
        (name, row.difference.val_loss, row.difference)
        for name, row in zip(arm_names(confirmed), confirmed, strict=True)
        if row.difference is not None
    ]
    if not rows:
        return None
    bend = max(median(found.half for _, found, _ in rows), 1e-6)

    def place(value: float) -> float:
        return asinh(value / bend)

    drawn = figure("pick minus arm, val_loss (nats)", "", height=110 + ROW * len(confirmed))
    drawn.add_vline(0, line_color=FADED)
    drawn.add_scatter(
        x=[0],
        y=arm_names(confirmed)[:1],
        mode="markers",
        marker={"size": 9, "symbol": "diamond"},
        meta=INK,
        name="the pick",
    )
    kinds = {"separated": "circle", "not separated": "circle-open", "no verdict": "square-open"}
    for kind, symbol in kinds.items():
        chosen = [row for row in rows if row[2].verdict == kind]
        if not chosen:
            continue
        drawn.add_scatter(
            x=[place(found.mean) for _, found, _ in chosen],
            y=[name for name, _, _ in chosen],
            mode="markers",
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [place(found.high) - place(found.mean) for _, found, _ in chosen],
                "arrayminus": [place(found.mean) - place(found.low) for _, found, _ in chosen],
                "thickness": 2,
                "width": 0,
            },
            marker={"size": 9, "symbol": symbol, "line": {"width": 2}},
            meta=INK,
            name=kind,
            hovertext=[_difference(found, judged.p_loss) for _, found, judged in chosen],
            hoverinfo="text",
        )
    furthest = max(abs(end) for _, found, _ in rows for end in (found.low, found.high))
    ticks = [tick for tick in TICKS if bend < tick < 1.5 * furthest]
    ticks = [*(-tick for tick in reversed(ticks)), 0.0, *ticks]
    drawn.update_xaxes(tickvals=[place(tick) for tick in ticks], ticktext=[f"{tick:g}" for tick in ticks])
    drawn.update_yaxes(
        autorange="reversed", type="category", categoryorder="array", categoryarray=arm_names(confirmed)
    )
    return drawn


def _difference(found: Estimate, p: float | None) -> str:
    tested = "" if p is None else f", p {p:.2g}"
    return f"{found.mean:+.4f} [{found.low:+.4f}, {found.high:+.4f}]{tested}"
