"""The answers of a comparison on the page: sentences, a table, and the differences as a forest plot."""

from typing import Any

import plotly.graph_objects as go

from slopesearch.evidence.answers import Answer
from slopesearch.evidence.literature import literature
from slopesearch.evidence.statistics import RULE
from slopesearch.report.style import ACCENT, FADED, WARNING, figure, for_script, text
from slopesearch.report.verdicts import columns, heading, in_unit, label, sentences, table

_COLOURS = {"BETTER": "#009E73", "WORSE": WARNING, "EQUIVALENT": ACCENT, "NEGLIGIBLE": ACCENT}


def section(answer: Answer) -> dict[str, Any]:
    """What the page shows of an answer: its title, its rule, a figure as JSON, rows, sentences."""
    title, rule = heading(answer).split("\n")
    return {
        "id": f"answer-{answer.family.question}",
        "title": title,
        "rule": rule,
        "json": for_script(forest(answer)),
        "header": columns(answer),
        "rows": table(answer),
        "sentences": sentences(answer),
    }


def remarks(answers: dict[str, Answer]) -> list[str]:
    """What stands below the answers: what the literature says, and the rule of the verdicts."""
    return [*literature(answers), RULE] if answers else []


def forest(answer: Answer) -> go.Figure:
    """The difference of each contrast with its 95 % interval; the band of the smallest effect behind them."""
    metric = answer.family.metric
    smallest = answer.family.smallest(metric)
    baselines = {contrast.other for contrast in answer.contrasts}
    title = "loss, %" if metric == "val_loss" else "error, points"
    title += f", minus {text(label(answer, *baselines))}" if len(baselines) == 1 else ", difference"
    drawn = figure(title, "", height=120 + 38 * len(answer.contrasts))
    drawn.add_vrect(
        in_unit(-smallest, metric), in_unit(smallest, metric), fillcolor=FADED, line_width=0, layer="below"
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
            name += f"<br>minus {text(label(answer, contrast.other))}"
        drawn.add_scatter(
            x=[mean],
            y=[name],
            error_x={"type": "data", "symmetric": False, "array": [high - mean], "arrayminus": [mean - low]},
            marker={"color": _COLOURS.get(found.verdict, "#888888"), "size": 10},
            hovertext=[text(found.verdict.lower())],
            showlegend=False,
        )
    drawn.update_yaxes(autorange="reversed")
    return drawn
