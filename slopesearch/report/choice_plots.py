"""Figures of the choices side by side: activations, and BatchNorm placements for each."""

from collections import Counter
from math import log10
from statistics import median

import plotly.graph_objects as go

from slopesearch.config import StudySpec
from slopesearch.report.style import (
    ACCENT,
    NORMS,
    Plot,
    Rows,
    best_of,
    better_up,
    colour_of,
    completed,
    distance,
    few,
    figure,
    grouped,
    hover,
    lacking,
    objective_name,
    sampled,
    text,
    thinned,
)
from slopesearch.search.records import StudyRecord


def choice_rows(study: StudyRecord) -> Rows:
    """The completed trials, with activation, norm, init, learning rate and value."""
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


def _best_first(groups: dict[str, Rows], spec: StudySpec) -> list[str]:
    """The names of groups, the one with the best trial first."""
    return sorted(groups, key=lambda name: distance(best_of(groups[name], spec)["value"], spec))


def _leaders(groups: dict[str, Rows], spec: StudySpec) -> list[str]:
    """The groups whose best trial is the best of all: more than one where they tie."""
    best = {name: best_of(some, spec)["value"] for name, some in groups.items()}
    top = (max if spec.maximize else min)(best.values())
    return [name for name, value in best.items() if value == top]


# --- activations


def draw_activations(rows: Rows, spec: StudySpec) -> go.Figure:
    """A line of marks per activation, the best on top; its best trial bears value and learning rate."""
    groups, shown = grouped(rows, "activation"), grouped(thinned(rows), "activation")
    order = _best_first(groups, spec)
    drawn = figure(objective_name(spec), "", 110 + 44 * len(order))
    axis = better_up(spec, [row["value"] for row in rows])
    far, near = axis["range"]
    for activation in order:
        some, best = shown.get(activation, []), best_of(groups[activation], spec)
        colour = colour_of(activation, spec)
        is_far = log10(distance(best["value"], spec)) > far - 0.25 * (far - near)  # its text begins there
        drawn.add_scatter(
            x=[distance(row["value"], spec) for row in some],
            y=[text(activation)] * len(some),
            text=hover(some, "trial", "value", "lr", "norm", "init"),
            hoverinfo="text",
            mode="markers",
            marker={"color": colour, "size": 7, "opacity": 0.75},
            showlegend=False,
        )
        drawn.add_scatter(
            x=[distance(best["value"], spec)],
            y=[text(activation)],
            text=[f"{best['value']:.4f}, lr {best['lr']:.2g}"],
            mode="markers+text",
            textposition="top right" if is_far else "top center",
            hoverinfo="skip",
            marker={"color": colour, "size": 12},
            showlegend=False,
        )
    drawn.update_xaxes(axis | {"range": [far, near - 0.18 * abs(far - near)]})  # room for the text
    names = [text(name) for name in order[::-1]]
    room = [-0.5, len(names) - 0.25]  # for the text of the first
    return drawn.update_yaxes(categoryorder="array", categoryarray=names, range=room, title=None)


def say_activations(rows: Rows, spec: StudySpec) -> str:
    """The best trial of the best activations and of the last; what no completed trial has."""
    groups = grouped(rows, "activation")
    order = _best_first(groups, spec)
    counts = ", ".join(f"{name} {len(groups[name])}" for name in order)
    told = f"Completed trials: {counts}.{lacking(rows, 'activation', spec)}{lacking(rows, 'init', spec)} "
    leaders = _leaders(groups, spec)
    if len(leaders) > 1:
        top = best_of(groups[leaders[0]], spec)["value"]
        told += f"The best trials of {' and '.join(sorted(leaders))} are equal, {top:.4f}. "
    elif len(order) > 1:
        first, last = (best_of(groups[name], spec) for name in (order[0], order[-1]))
        told += (
            f"The best trial of {order[0]} reached {first['value']:.4f} (learning rate {first['lr']:.2g}), "
            f"that of {order[-1]} {last['value']:.4f} ({last['lr']:.2g}). "
        )
    told += "Each mark is one run, and the best of many runs is luckier than the best of few."
    return told + few(len(rows), 20) + sampled(rows, "the best of each")


# --- BatchNorm placement and activation


def draw_norm(rows: Rows, spec: StudySpec) -> go.Figure:
    """Three lines of marks per activation, one for each placement, with a bar at the median and their number.

    No interval: the runs of a line differ in learning rate and init too.
    """
    order = _best_first(grouped(rows, "activation"), spec)[::-1]
    whole = grouped([row | {"pair": (row["activation"], row["norm"])} for row in rows], "pair")
    shown = grouped([row | {"pair": (row["activation"], row["norm"])} for row in thinned(rows)], "pair")
    norms = [norm for norm in NORMS if any(found == norm for _, found in whole)]
    middle = (len(norms) - 1) / 2
    height = {pair: order.index(pair[0]) + 0.27 * (middle - norms.index(pair[1])) for pair in whole}
    drawn = figure(objective_name(spec), "", 130 + 58 * len(order))
    axis = better_up(spec, [row["value"] for row in rows])
    far, near = axis["range"]
    edge = near - 0.07 * abs(far - near)
    for pair, some in whole.items():
        activation, norm = pair
        marks, colour = shown.get(pair, []), colour_of(activation, spec)
        drawn.add_scatter(
            x=[distance(row["value"], spec) for row in marks],
            y=[height[pair]] * len(marks),
            text=hover(marks, "trial", "activation", "norm", "value", "lr", "init"),
            hoverinfo="text",
            mode="markers",
            marker={"color": colour, "symbol": NORMS[norm], "size": 7, "opacity": 0.75},
            showlegend=False,
        )
        drawn.add_scatter(
            x=[distance(median(row["value"] for row in some), spec), 10**edge],
            y=[height[pair]] * 2,
            text=["", f"n {len(some)}"],
            textfont={"size": 10},
            mode="markers+text",
            marker={
                "color": colour,
                "symbol": "line-ns-open",
                "size": [13, 0],
                "line": {"width": 2.5, "color": colour},
            },
            hoverinfo="skip",
            showlegend=False,
        )
    for norm in norms:  # of the legend alone
        mark = {"color": ACCENT, "symbol": NORMS[norm]}
        drawn.add_scatter(x=[None], y=[None], mode="markers", name=f"norm {norm}", marker=mark)
    drawn.update_xaxes(axis | {"range": [far, edge - 0.05 * abs(far - near)]})
    return drawn.update_yaxes(
        tickvals=list(range(len(order))),
        ticktext=[text(name) for name in order],
        range=[-0.55, len(order) - 0.45],
        showgrid=False,
        zeroline=False,
        title=None,
    )


def say_norm(rows: Rows, spec: StudySpec) -> str:
    """For how many activations each placement has the best trial, ties apart, and with how many trials."""
    wins, ties, choices = Counter[str](), [], 0
    for activation, some in grouped(rows, "activation").items():
        by_norm = grouped(some, "norm")
        if len(by_norm) < 2:
            continue
        choices += 1
        leaders = _leaders(by_norm, spec)
        if len(leaders) == 1:
            wins[leaders[0]] += 1
        else:
            tied = [norm for norm in NORMS if norm in leaders]
            ties.append(f"{activation} ({' and '.join(tied)}, {best_of(some, spec)['value']:.4f})")
    had = Counter(row["norm"] for row in rows)
    told = f"Completed trials with norm {', '.join(f'{norm} {had[norm]}' for norm in NORMS if had[norm])}."
    told += lacking(rows, "norm", spec)
    if choices:
        best = [f"norm {norm} for {n}" for norm, n in wins.most_common()]
        best += [f"a tie for {len(ties)}: {', '.join(ties)}"] if ties else []
        told += f" Of {choices} activations with a choice, the best trial has {', '.join(best)}."
    pairs = Counter((row["activation"], row["norm"]) for row in rows)
    thin = sum(n < 3 for n in pairs.values())
    told += f" {thin} of {len(pairs)} pairs rest on fewer than three trials." if thin else ""
    told += " Bars are medians; no interval is drawn, since the runs of a pair differ in more than luck."
    return told + sampled(rows)


PLOTS = {
    "activations": Plot(
        "The completed trials of each activation",
        choice_rows,
        draw_activations,
        say_activations,
        "No trial has run to its end yet.",
    ),
    "norm": Plot(
        "BatchNorm placement and activation",
        choice_rows,
        draw_norm,
        say_norm,
        "No trial has run to its end yet.",
    ),
}
