"""Figures of the negative slope: its value, beside the learning rate, fixed or learned, paths of learning."""

from math import log10
from statistics import median

import plotly.graph_objects as go

from slopesearch.config import REPORTS, StudySpec
from slopesearch.report.style import (
    FADED,
    SEQUENCE,
    Plot,
    Rows,
    adaptive,
    best_of,
    better_up,
    completed,
    distance,
    few,
    figure,
    grouped,
    hover,
    log_axis,
    objective_name,
    sampled,
    thinned,
)
from slopesearch.search.records import StudyRecord

TUTORIAL_SLOPES = (0.01, 0.1, 0.2)


# --- the slope


def slope_rows(study: StudyRecord) -> Rows:
    """The completed trials of leaky ReLU: slope (the start value of a learnable one), mode and value."""
    return [
        {
            "trial": trial.number,
            "negative_slope": trial.config.negative_slope,
            "slope_mode": trial.config.slope_mode,
            "slope_max": trial.config.slope_max,
            "norm": trial.config.norm,
            "lr": trial.config.lr,
            "value": trial.value,
        }
        for trial in completed(study)
        if trial.config is not None and trial.config.negative_slope is not None
    ]


def draw_slope(rows: Rows, spec: StudySpec) -> go.Figure:
    """The values over the slopes, with the tutorial's slopes marked."""
    rows = thinned(rows, [best_of(rows, spec)["trial"]])
    drawn = figure("negative slope", objective_name(spec))
    colours = {"none": "#5E6B73", "before": "#0072B2", "after": "#E69F00"}
    for norm, some in grouped(rows, "norm").items():
        drawn.add_scatter(
            x=[row["negative_slope"] for row in some],
            y=[distance(row["value"], spec) for row in some],
            text=hover(some, "trial", "negative_slope", "slope_mode", "norm", "lr", "value"),
            hoverinfo="text",
            mode="markers",
            name=f"norm {norm}",
            marker={
                "color": colours[norm],
                "size": 8,
                "symbol": ["circle" if row["slope_mode"] == "fixed" else "circle-open" for row in some],
                "line": {"width": 1.5, "color": colours[norm]},
            },
        )
    slopes = [row["negative_slope"] for row in rows]
    is_log = min(slopes) > 0  # a space may hold the slope 0
    for slope in TUTORIAL_SLOPES:
        drawn.add_vline(x=slope, line={"dash": "dot", "width": 1, "color": FADED})
        # On a logarithmic axis plotly takes the exponent for an annotation, but the number for a line.
        x = log10(slope) if is_log else slope
        drawn.add_annotation(
            x=x, y=1, yref="paper", text=f"{slope:g}", showarrow=False, xshift=-14, yshift=-8
        )
    drawn.update_xaxes(log_axis([*slopes, *TUTORIAL_SLOPES]) if is_log else {})
    return drawn.update_yaxes(better_up(spec, [row["value"] for row in rows]))


def say_slope(rows: Rows, spec: StudySpec) -> str:
    """The range of the best quarter's slopes."""
    best = sorted(rows, key=lambda row: float(row["value"]), reverse=spec.maximize)[: max(1, len(rows) // 4)]
    low, high = (end(row["negative_slope"] for row in best) for end in (min, max))
    told = (
        f"{len(rows)} completed trials of leaky ReLU, {sum(r['slope_mode'] == 'fixed' for r in rows)} with a "
        f"fixed slope; hollow marks are learnable ones at their start. "
    )
    if len(rows) >= 8:
        told += f"The best quarter has slopes from {low:.2g} to {high:.2g}, the best one "
        told += f"{best[0]['negative_slope']:.2g}. "
    told += "Dotted: the tutorial's 0.01, 0.1 and 0.2." + few(len(rows), 20)
    return told + sampled(rows, "the best") + adaptive(spec)


# --- learning rate x slope


def draw_lr_slope(rows: Rows, spec: StudySpec) -> go.Figure:
    """The trials of leaky ReLU by learning rate and slope, coloured by the rank of their value."""
    rows = thinned(rows, [best_of(rows, spec)["trial"]])
    drawn = figure("learning rate", "negative slope", 420)
    gaps = [distance(row["value"], spec) for row in rows]
    places = sorted(range(len(rows)), key=lambda i: gaps[i])
    ranks = {i: place / max(1, len(rows) - 1) for place, i in enumerate(places)}
    ticks = [0, 0.25, 0.5, 0.75, 1] if len(rows) >= 5 else [0, 1]
    values = [rows[places[round((1 - tick) * (len(rows) - 1))]]["value"] for tick in ticks]
    drawn.add_scatter(
        x=[row["lr"] for row in rows],
        y=[row["negative_slope"] for row in rows],
        text=hover(rows, "trial", "lr", "negative_slope", "slope_mode", "norm", "value"),
        hoverinfo="text",
        mode="markers",
        marker={
            "color": [1 - ranks[i] for i in range(len(rows))],
            "colorscale": [[0, "#E8B36B"], [0.5, "#8FA8B8"], [1, "#0B63B0"]],  # seen on white and on black
            "cmin": 0,
            "cmax": 1,
            "size": 11,
            "line": {"width": 1, "color": "rgba(128,128,128,0.8)"},
            "colorbar": {
                "tickvals": ticks,
                "ticktext": [f"{value:.4f}" for value in values],
                "thickness": 12,
                "outlinewidth": 0,
            },
        },
    )
    slopes = [row["negative_slope"] for row in rows]
    drawn.update_yaxes(log_axis(slopes) if min(slopes) > 0 else {})
    return drawn.update_xaxes(log_axis([row["lr"] for row in rows]))


def say_lr_slope(rows: Rows, spec: StudySpec) -> str:
    """The range of the best quarter's learning rates."""
    best = sorted(rows, key=lambda row: float(row["value"]), reverse=spec.maximize)[: max(1, len(rows) // 4)]
    rates = [row["lr"] for row in best]
    told = f"{len(rows)} completed trials of leaky ReLU, coloured by their rank (blue is best). "
    if len(rows) >= 8:
        told += f"The best quarter has learning rates from {min(rates):.2g} to {max(rates):.2g}. "
    return told.rstrip() + few(len(rows), 20) + sampled(rows, "the best") + adaptive(spec)


# --- fixed against learnable


def draw_mode(rows: Rows, spec: StudySpec) -> go.Figure:
    """The spread of values for a fixed slope, and for a learnable slope up to each bound."""
    drawn = figure(objective_name(spec), "", 330)
    groups = _by_mode(rows)
    for name, colour in zip(sorted(groups), SEQUENCE, strict=False):
        some = thinned(groups[name], [best_of(groups[name], spec)["trial"]])
        drawn.add_box(
            x=[distance(row["value"], spec) for row in some],
            name=f"{name} ({len(groups[name])})",
            orientation="h",
            boxpoints="all",
            jitter=0.4,
            pointpos=0,
            marker={"color": colour, "size": 5},
            line={"width": 1.5},
            text=hover(some, "trial", "value", "negative_slope", "lr", "norm"),
            hoverinfo="text",
            showlegend=False,
        )
    return drawn.update_xaxes(better_up(spec, [row["value"] for row in rows])).update_yaxes(title=None)


def _by_mode(rows: Rows) -> dict[str, Rows]:
    return grouped([row | {"group": _mode(row)} for row in rows], "group")


def _mode(row: dict[str, object]) -> str:
    return "fixed" if row["slope_mode"] == "fixed" else f"learnable to {row['slope_max']:g}"


def say_mode(rows: Rows, spec: StudySpec) -> str:
    """The best and the median value of each mode."""
    told = []
    for mode, some in sorted(grouped(rows, "slope_mode").items()):
        values = [row["value"] for row in some]
        best = best_of(some, spec)["value"]
        told.append(f"{mode}: best {best:.4f}, median {median(values):.4f}, n = {len(values)}")
    least = min(len(some) for some in grouped(rows, "slope_mode").values())
    only = " Only one of the two has completed trials." if len(told) == 1 else few(least, 10)
    most = max(_by_mode(rows).values(), key=len)
    return f"{'; '.join(told)}.{only}{sampled(most, 'the best of each box')}{adaptive(spec)}"


# --- the paths of learned slopes


def path_rows(study: StudyRecord) -> Rows:
    """Every learned slope at every report, per layer, of the completed trials; step 0 is the start."""
    rows: Rows = []
    for trial in completed(study):
        config, curve = trial.config, trial.curve
        if config is None or not curve or not curve[-1].slopes:
            continue
        start, low, high = config.negative_slope or 0, config.slope_min or 0, config.slope_max or 1
        start = 0.25 if config.activation == "prelu" else min(max(start, low), high)
        inside = trial.diagnostics  # of a deep network it names the layers that are reported
        layers = inside.layers if inside else range(1, len(curve[-1].slopes) + 1)
        points = [(0, [start] * len(layers), [start] * len(layers))]
        points += [(report.step, list(report.slopes), list(report.raw_slopes)) for report in curve]
        rows += [
            {
                "trial": trial.number,
                "activation": config.activation,
                "layer": layer,
                "report": step,
                "slope": slope,
                "raw_slope": raw[i] if raw else None,
            }
            for step, slopes, raw in points
            for i, (layer, slope) in enumerate(zip(layers, slopes, strict=True))
        ]
    return rows


MOST_PATHS = 40  # trials in the figure; the table holds every trial


def draw_paths(rows: Rows, spec: StudySpec) -> go.Figure:
    """A line per trial and layer in the layer's colour, for the first trials; PReLU's lines are dotted."""
    shown = {trial for trial, _ in list(grouped(rows, "trial").items())[:MOST_PATHS]}
    drawn = figure("report", "negative slope", 420)
    for layer, some in grouped([row for row in rows if row["trial"] in shown], "layer").items():
        colour = SEQUENCE[(layer - 1) % len(SEQUENCE)]
        for activation, dash in (("leaky_relu", "solid"), ("prelu", "dot")):
            chosen = [row for row in some if row["activation"] == activation]
            x: list[int | None] = []
            y: list[float | None] = []
            for path in grouped(chosen, "trial").values():
                x += [*(row["report"] for row in path), None]
                y += [*(row["slope"] for row in path), None]
            if chosen:
                drawn.add_scatter(
                    x=x,
                    y=y,
                    mode="lines",
                    line={"color": colour, "width": 1.5, "dash": dash},
                    opacity=0.7,
                    name=f"layer {layer}" + (" (prelu)" if activation == "prelu" else ""),
                    hoverinfo="y",
                )
    return drawn.update_xaxes(dtick=1, range=[-0.2, REPORTS + 0.2])


def say_paths(rows: Rows, spec: StudySpec) -> str:
    """The median of each layer's slopes at the end."""
    trials = len(grouped(rows, "trial"))
    told = []
    for activation, some in grouped([r for r in rows if r["report"] == REPORTS], "activation").items():
        layers = sorted(grouped(some, "layer").items())[:6]
        ends = ", ".join(f"{median(row['slope'] for row in ends):.3g}" for _, ends in layers)
        told.append(f"{activation} (n = {len(grouped(some, 'trial'))}) {ends}")
    clamped = sum(row["raw_slope"] is not None and row["raw_slope"] != row["slope"] for row in rows)
    return (
        f"{trials} completed trials with a learned slope (PReLU's, dotted, is the mean over channels). "
        f"Medians at the end, from the first layer on: {'; '.join(told)}."
        + (f" The first {MOST_PATHS} are drawn." if trials > MOST_PATHS else "")
        + (
            f" At {clamped} points the parameter lay outside its range; its bound was used."
            if clamped
            else ""
        )
        + few(trials, 5)
        + adaptive(spec)
    )


_NO_LEAKY = "No trial of leaky ReLU has run to its end in this study."

PLOTS = {
    "slope": Plot("The negative slope", slope_rows, draw_slope, say_slope, _NO_LEAKY),
    "lr_slope": Plot("Learning rate and slope", slope_rows, draw_lr_slope, say_lr_slope, _NO_LEAKY),
    "slope_mode": Plot("Fixed or learned slope", slope_rows, draw_mode, say_mode, _NO_LEAKY),
    "slope_paths": Plot(
        "The paths of learned slopes",
        path_rows,
        draw_paths,
        say_paths,
        "No trial with a learned slope has run to its end in this study.",
    ),
}
