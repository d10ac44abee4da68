"""Figures of the choices side by side: activations, and BatchNorm placements for each."""

from statistics import median

import plotly.graph_objects as go

from slopesearch.config import StudySpec
from slopesearch.report.style import (
    Plot,
    Rows,
    activations_of,
    adaptive,
    best_of,
    better_up,
    colour_of,
    completed,
    distance,
    few,
    figure,
    grouped,
    hover,
    objective_name,
    sampled,
    text,
    thinned,
)
from slopesearch.search.records import StudyRecord

# --- each activation at its own best learning rate


def activation_rows(study: StudyRecord) -> Rows:
    """The completed trials, with activation, learning rate and value."""
    return [
        {
            "trial": trial.number,
            "activation": trial.config.activation,
            "norm": trial.config.norm,
            "init": trial.config.init,
            "lr": trial.config.lr,
            "value": trial.value,
        }
        for trial in completed(study)
        if trial.config is not None
    ]


def draw_activations(rows: Rows, spec: StudySpec) -> go.Figure:
    """A line of marks per activation, the best on top; its best trial bears value and learning rate."""
    groups, shown = grouped(rows, "activation"), grouped(thinned(rows), "activation")
    order = sorted(groups, key=lambda name: distance(best_of(groups[name], spec)["value"], spec))
    drawn = figure(objective_name(spec), "", 110 + 44 * len(order))
    for activation in order:
        some, best = shown.get(activation, []), best_of(groups[activation], spec)
        colour = colour_of(activation, spec)
        drawn.add_scatter(
            x=[distance(row["value"], spec) for row in some],
            y=[text(activation)] * len(some),
            text=hover(some, "trial", "value", "lr", "norm", "init"),
            hoverinfo="text",
            mode="markers",
            marker={"color": colour, "size": 7, "opacity": 0.45},
            showlegend=False,
        )
        drawn.add_scatter(
            x=[distance(best["value"], spec)],
            y=[text(activation)],
            text=[f"{best['value']:.4f}, lr {best['lr']:.2g}"],
            mode="markers+text",
            textposition="top center",
            hoverinfo="skip",
            marker={"color": colour, "size": 13, "line": {"width": 1.5, "color": "rgba(128,128,128,0.9)"}},
            showlegend=False,
        )
    axis = better_up(spec, [row["value"] for row in rows])
    far, near = axis["range"]
    drawn.update_xaxes(axis | {"range": [far, near - 0.18 * abs(far - near)]})  # room for the text
    return drawn.update_yaxes(categoryorder="array", categoryarray=[text(n) for n in order[::-1]], title=None)


def say_activations(rows: Rows, spec: StudySpec) -> str:
    """The best trial of the best activation and of the last."""
    groups = grouped(rows, "activation")
    order = sorted(groups, key=lambda name: distance(best_of(groups[name], spec)["value"], spec))
    best = {name: best_of(groups[name], spec) for name in order}
    counts = ", ".join(f"{name} {len(groups[name])}" for name in order)
    told = f"Completed trials: {counts}. "
    if len(order) > 1:
        told += (
            f"{order[0]} reached {best[order[0]]['value']:.4f} at learning rate {best[order[0]]['lr']:.2g}, "
            f"{order[-1]} {best[order[-1]]['value']:.4f} at {best[order[-1]]['lr']:.2g}. "
        )
    told += "One run each, and an activation that was tried more often had more luck."
    return told + few(len(rows), 20) + sampled(rows, "the best of each") + adaptive(spec)


# --- BatchNorm placement x activation


def norm_rows(study: StudyRecord) -> Rows:
    """The best value and the number of completed trials for each activation and BatchNorm placement."""
    cells: dict[tuple[str, str], list[float]] = {}
    for row in activation_rows(study):
        cells.setdefault((row["activation"], row["norm"]), []).append(row["value"])
    better = max if study.spec.maximize else min
    return [
        {"activation": a, "norm": n, "trials": len(v), "best": better(v), "median": median(v)}
        for (a, n), v in cells.items()
    ]


def draw_norm(rows: Rows, spec: StudySpec) -> go.Figure:
    """A cell per pair: its best value and, in brackets, the number of its trials."""
    found = {row["activation"] for row in rows}
    activations = [name for name in activations_of(spec) if name in found]
    norms = [name for name in ("none", "before", "after") if name in {row["norm"] for row in rows}]
    cells = {(row["activation"], row["norm"]): row for row in rows}
    ranked = sorted({row["best"] for row in rows}, reverse=not spec.maximize)
    drawn = figure("BatchNorm", "", 120 + 40 * len(activations))
    grid = [[cells.get((a, n)) for n in norms] for a in activations]
    drawn.add_heatmap(
        x=norms,
        y=[text(name) for name in activations],
        z=[[None if cell is None else ranked.index(cell["best"]) for cell in line] for line in grid],
        text=[["" if c is None else f"{c['best']:.4f} ({c['trials']})" for c in line] for line in grid],
        texttemplate="%{text}",
        colorscale=[[0, "#dfe7ee"], [1, "#5aa1d8"]],
        textfont={"color": "#10202c"},
        showscale=False,
        hoverinfo="skip",
        xgap=3,
        ygap=3,
    )
    return drawn.update_yaxes(autorange="reversed", title=None, showgrid=False).update_xaxes(showgrid=False)


def say_norm(rows: Rows, spec: StudySpec) -> str:
    """For how many activations each placement is best."""
    wins: dict[str, int] = {}
    for some in grouped(rows, "activation").values():
        if len(some) > 1:
            winner = best_of(some, spec, "best")["norm"]
            wins[winner] = wins.get(winner, 0) + 1
    told = ", ".join(f"{norm} for {n}" for norm, n in sorted(wins.items(), key=lambda pair: -pair[1]))
    n = sum(row["trials"] for row in rows)
    thin = sum(row["trials"] < 3 for row in rows)
    return (
        f"The best value of each pair, from {n} completed trials (how many, in brackets); darker is better. "
        + (f"The placement with the best value: {told} of the activations with a choice. " if wins else "")
        + (f"{thin} of {len(rows)} cells rest on fewer than three trials." if thin else "")
        + adaptive(spec)
    )


PLOTS = {
    "activations": Plot(
        "Each activation at its own best learning rate",
        activation_rows,
        draw_activations,
        say_activations,
        "No trial has run to its end yet.",
    ),
    "norm": Plot(
        "BatchNorm placement and activation",
        norm_rows,
        draw_norm,
        say_norm,
        "No trial has run to its end yet.",
    ),
}
