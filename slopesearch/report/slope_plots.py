"""Figures of the negative slope: its value beside the learning rate, and what learned slopes become."""

from statistics import median

import plotly.graph_objects as go

from slopesearch.config import REPORTS, StudySpec, TrialConfig
from slopesearch.report.style import (
    ACCENT,
    NORMS,
    Plot,
    Row,
    Rows,
    best_of,
    better_up,
    colour_of,
    completed,
    distance,
    few,
    grouped,
    hover,
    log_axis,
    objective_name,
    panels,
    sampled,
    some_layers,
    text,
    thinned,
)
from slopesearch.search.records import StudyRecord
from slopesearch.wording import counted

TUTORIAL_SLOPES = (0.01, 0.1, 0.2)


def begins(config: TrialConfig) -> float | None:
    """The slope that a run of leaky ReLU begins with: a learnable one within its bounds; None for others."""
    start = config.negative_slope
    if start is None or config.slope_min is None or config.slope_max is None:
        return start
    return min(max(start, config.slope_min), config.slope_max)


# --- the slope, and the learning rate beside it


def slope_rows(study: StudyRecord) -> Rows:
    """The completed trials of leaky ReLU: the slope that they begin with, mode, learning rate and value."""
    return [
        {
            "trial": trial.number,
            "slope": begins(trial.config),
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
    """The values over the slopes, with the tutorial's slopes marked, and over the learning rates."""
    rows = thinned(rows, [best_of(rows, spec)["trial"]])
    drawn = panels(["", ""], "", objective_name(spec), 400, columns=2)
    drawn.update_xaxes(matches=None)  # they share the values alone
    colour = colour_of("leaky_relu", spec)
    for column, name in enumerate(("slope", "lr"), start=1):
        for norm, some in grouped(rows, "norm").items():
            open_or_not = ["" if row["slope_mode"] == "fixed" else "-open" for row in some]
            drawn.add_scatter(
                x=[row[name] for row in some],
                y=[distance(row["value"], spec) for row in some],
                text=hover(some, "trial", "value", "slope", "slope_mode", "slope_max", "norm", "lr"),
                hoverinfo="text",
                mode="markers",
                showlegend=False,
                marker={
                    "color": colour,
                    "size": 9,
                    "symbol": [NORMS[norm] + suffix for suffix in open_or_not],
                    "line": {"width": 1.5, "color": colour},
                },
                row=1,
                col=column,
            )
    for norm in (norm for norm in NORMS if norm in grouped(rows, "norm")):  # of the legend alone
        drawn.add_scatter(
            x=[None],
            y=[None],
            mode="markers",
            name=f"norm {norm}",
            marker={"color": ACCENT, "symbol": NORMS[norm]},
        )
    slopes = [row["slope"] for row in rows]
    for slope in TUTORIAL_SLOPES:
        drawn.add_vline(x=slope, line={"dash": "dot", "width": 1, "color": ACCENT}, row=1, col=1)
    if min(slopes) > 0:  # a space may hold the slope 0
        drawn.update_xaxes(log_axis([*slopes, *TUTORIAL_SLOPES], is_small=True), col=1)
    drawn.update_xaxes(title={"text": "negative slope"}, col=1)
    drawn.update_xaxes(log_axis([row["lr"] for row in rows], is_small=True), col=2)
    drawn.update_xaxes(title={"text": "learning rate"}, col=2)
    return drawn.update_yaxes(better_up(spec, [row["value"] for row in rows]))


def say_slope(rows: Rows, spec: StudySpec) -> str:
    """The best trial, and the ranges of the best quarter's slopes and learning rates."""
    order = sorted(rows, key=lambda row: float(row["value"]), reverse=spec.maximize)
    best = order[0]
    fixed = sum(row["slope_mode"] == "fixed" for row in rows)
    told = (
        f"{counted(len(rows), 'completed trial')} of leaky ReLU: {fixed} with a fixed slope, "
        f"{len(rows) - fixed} with a learnable one (hollow, at the slope that it begins with). The best, "
        f"trial {best['trial']}, reached {best['value']:.4f} with slope {best['slope']:.2g} and learning "
        f"rate {best['lr']:.2g}."
    )
    if len(rows) >= 8:
        quarter = order[: len(rows) // 4]
        ends = [
            f"{min(row[name] for row in quarter):.2g} to {max(row[name] for row in quarter):.2g}"
            for name in ("slope", "lr")
        ]
        told += (
            f" The best quarter, {len(quarter)} trials, has slopes from {ends[0]} and learning rates from "
            f"{ends[1]}."
        )
    told += " Dotted: the tutorial's slopes 0.01, 0.1 and 0.2."
    return told + few(len(rows), 20) + sampled(rows, "the best")


# --- learned slopes: their paths, and their fixed twins


def _twins(study: StudyRecord) -> dict[tuple[object, ...], Row]:
    """The completed trials with a fixed slope, by everything that a learnable one may share with them."""
    return {
        _but_for_learning(trial.config): {"trial": trial.number, "value": trial.value}
        for trial in reversed(completed(study))  # of equal ones the first
        if trial.config is not None and trial.config.slope_mode == "fixed"
    }


def _but_for_learning(config: TrialConfig) -> tuple[object, ...]:
    """A config without what makes its slope fixed or learned; the slope is the one that it begins with."""
    learning = {"slope_mode", "slope_min", "slope_max", "slope_clamp", "negative_slope"}
    return (begins(config), *config.model_dump(exclude=learning).values())


def path_rows(study: StudyRecord) -> Rows:
    """Every learned slope at every report, per layer, of the completed trials; step 0 is the start.

    `fixed_twin` is the trial that differs in nothing but that its slope is fixed, where there is one.
    """
    twins = _twins(study)
    rows: Rows = []
    for trial in completed(study):
        config, curve = trial.config, trial.curve
        if config is None or not curve or not curve[-1].slopes:
            continue
        start = 0.25 if config.activation == "prelu" else begins(config)
        twin = twins.get(_but_for_learning(config), {})
        inside = trial.diagnostics  # of a deep network it names the layers that are reported
        layers = inside.layers if inside else range(1, len(curve[-1].slopes) + 1)
        points = [(0, [start] * len(layers), [start] * len(layers))]
        points += [(report.step, list(report.slopes), list(report.raw_slopes)) for report in curve]
        rows += [
            {
                "trial": trial.number,
                "activation": config.activation,
                "value": trial.value,
                "fixed_twin": twin.get("trial"),
                "fixed_value": twin.get("value"),
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
    """A panel per layer: a line per trial, for the first ones, and the median over all trials."""
    shown = {trial for trial, _ in list(grouped(rows, "trial").items())[:MOST_PATHS]}
    by_layer = grouped(rows, "layer")
    layers = some_layers(by_layer)
    drawn = panels([f"layer {layer}" for layer in layers], "report", "slope", 380, columns=len(layers))
    for column, layer in enumerate(layers, start=1):
        for activation, some in sorted(grouped(by_layer[layer], "activation").items()):
            x: list[int | None] = []
            y: list[float | None] = []
            for path in grouped([row for row in some if row["trial"] in shown], "trial").values():
                x += [*(row["report"] for row in path), None]
                y += [*(row["slope"] for row in path), None]
            colour = colour_of(activation, spec)
            dash = "dot" if activation == "prelu" else "solid"
            drawn.add_scatter(
                x=x,
                y=y,
                mode="lines",
                line={"color": colour, "width": 1, "dash": dash},
                opacity=0.75,
                showlegend=False,
                hoverinfo="skip",
                row=1,
                col=column,
            )
            middle = {
                step: median(row["slope"] for row in at) for step, at in grouped(some, "report").items()
            }
            drawn.add_scatter(
                x=list(middle),
                y=list(middle.values()),
                mode="lines",
                line={"color": colour, "width": 3.5, "dash": dash},
                name=f"{text(activation)} ({len(grouped(some, 'trial'))})",
                showlegend=column == 1,
                hoverinfo="y",
                row=1,
                col=column,
            )
    ends = [row["slope"] for row in rows if row["layer"] in layers]
    room = 0.05 * (max(ends) - min(ends)) + 0.01
    drawn.update_yaxes(range=[min(ends) - room, max(ends) + room])
    return drawn.update_xaxes(tickvals=[0, 4, 8], range=[-0.3, REPORTS + 0.3])


def say_paths(rows: Rows, spec: StudySpec) -> str:
    """The median of each layer's slopes at the end, and how learned slopes did beside their fixed twins."""
    trials = len(grouped(rows, "trial"))
    told = f"{counted(trials, 'completed trial')} with a learned slope"
    told += "; PReLU's is the mean over its channels." if "prelu" in grouped(rows, "activation") else "."
    ended = grouped([row for row in rows if row["report"] == REPORTS], "activation")
    for activation, some in sorted(ended.items()):
        by_layer = grouped(some, "layer")
        ends = ", ".join(
            f"{median(r['slope'] for r in by_layer[layer]):.3g}" for layer in some_layers(by_layer)
        )
        told += (
            f" {activation} ended at {ends} in layers {', '.join(map(str, some_layers(by_layer)))} (medians, "
            f"n = {len(grouped(some, 'trial'))})."
        )
    clamped = sum(row["raw_slope"] is not None and row["raw_slope"] != row["slope"] for row in rows)
    if clamped:
        told += f" The parameter lay outside its range, whose bound was used, at {counted(clamped, 'point')}."
    told += (
        f" The first {MOST_PATHS} trials are drawn, the medians are of all." if trials > MOST_PATHS else ""
    )
    return told + _against_twins(rows, spec) + few(trials, 5)


def _against_twins(rows: Rows, spec: StudySpec) -> str:
    """How often a learned slope beat the fixed one in pairs of runs that differ in nothing else."""
    pairs = [some[0] for some in grouped(rows, "trial").values() if some[0]["fixed_twin"] is not None]
    ask = "which is better, compare with --only learned says, on seeds of its own."
    if not pairs:
        return f" No two runs differ in nothing but fixed or learned; {ask}"
    gains = [distance(row["fixed_value"], spec) - distance(row["value"], spec) for row in pairs]
    better, worse = sum(gain > 0 for gain in gains), sum(gain < 0 for gain in gains)
    return (
        f" Runs that differ in nothing but fixed or learned: {counted(len(pairs), 'pair')}; learned ended "
        f"better in {better}, fixed in {worse}, equal in {len(pairs) - better - worse}. These are single "
        f"runs; {ask}"
    )


PLOTS = {
    "slope": Plot(
        "The negative slope and the learning rate",
        slope_rows,
        draw_slope,
        say_slope,
        "No trial of leaky ReLU has run to its end in this study.",
    ),
    "learned_slopes": Plot(
        "Learned slopes",
        path_rows,
        draw_paths,
        say_paths,
        "No trial with a learned slope has run to its end in this study.",
    ),
}
