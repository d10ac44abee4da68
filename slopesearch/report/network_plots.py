"""Figures of the networks: dead units, gradients per layer, the shapes of the activations and of slopes."""

from collections.abc import Callable
from math import erf, exp, sqrt, tanh
from statistics import median

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from slopesearch.config import Diagnostics, StudySpec, TrialConfig
from slopesearch.report.style import (
    FADED,
    SEQUENCE,
    Plot,
    Rows,
    activations_of,
    adaptive,
    colour_of,
    completed,
    few,
    figure,
    grouped,
    hover,
    log_axis,
    sampled,
    symbol_of,
    text,
    thinned,
)
from slopesearch.report.summary import NOT_COMPARABLE
from slopesearch.search.records import StudyRecord, TrialRecord

Diagnosed = tuple[TrialRecord, TrialConfig, Diagnostics]


def diagnosed(study: StudyRecord) -> list[Diagnosed]:
    """The completed trials that have comparable diagnostics, with their config and these.

    Where any were made in the tutorial's order, those alone; else the ones of an earlier version.
    """
    found = [
        (trial, trial.config, inside)
        for trial in completed(study)
        if trial.config is not None and (inside := trial.diagnostics) is not None
    ]
    return [one for one in found if one[2].order == "tutorial"] or found


def caution(rows: Rows) -> str:
    """A sentence for a figure of diagnostics that an earlier version made; else nothing."""
    is_earlier = rows[0].get("order", "tutorial") is None
    return f" These numbers were {NOT_COMPARABLE}." if is_earlier else ""


# --- dead units


def dead_rows(study: StudyRecord) -> Rows:
    """The shares of dead, never active and inactive units of each completed trial, as means over its layers.

    Each layer counts alike, however many units it has (`dead_fraction` of a trial counts units).
    """
    return [
        {
            "trial": trial.number,
            "order": inside.order,
            "activation": config.activation,
            "negative_slope": config.negative_slope,
            "lr": config.lr,
            "norm": config.norm,
            "zero_gradient": sum(inside.zero_gradient) / len(inside.layers),
            "never_active": sum(inside.never_active) / len(inside.layers),
            "inactive": sum(inside.inactive) / len(inside.layers),
            "saturated": sum(inside.saturated) / len(inside.layers) if inside.saturated else None,
            "value": trial.value,
        }
        for trial, config, inside in diagnosed(study)
    ]


def draw_dead(rows: Rows, spec: StudySpec) -> go.Figure:
    """Zero-gradient share over learning rate; below, never active share over slope for leaky ReLU."""
    rows = thinned(rows)
    leaky = [row for row in rows if row["negative_slope"]]
    drawn = make_subplots(rows=2 if leaky else 1, cols=1, vertical_spacing=0.2)
    drawn.update_layout(figure("", "").layout)
    drawn.update_layout(template="none", height=620 if leaky else 380)
    groups = grouped(rows, "activation")
    for activation in (name for name in activations_of(spec) if name in groups):
        some = groups[activation]
        drawn.add_scatter(
            x=[row["lr"] for row in some],
            y=[row["zero_gradient"] for row in some],
            text=hover(some, "trial", "activation", "lr", "norm", "zero_gradient", "value"),
            hoverinfo="text",
            mode="markers",
            name=text(activation),
            marker={
                "color": colour_of(activation, spec),
                "symbol": symbol_of(activation, spec),
                "size": 8,
                "opacity": 0.8,
            },
            cliponaxis=False,
            row=1,
            col=1,
        )
    drawn.update_xaxes(log_axis([row["lr"] for row in rows]) | {"title": {"text": "learning rate"}}, row=1)
    drawn.update_yaxes(title={"text": "units without gradient"}, tickformat=".0%", rangemode="tozero", row=1)
    if leaky:
        drawn.add_scatter(
            x=[row["negative_slope"] for row in leaky],
            y=[row["never_active"] for row in leaky],
            text=hover(leaky, "trial", "negative_slope", "lr", "norm", "never_active", "value"),
            hoverinfo="text",
            mode="markers",
            showlegend=False,
            cliponaxis=False,
            marker={"color": colour_of("leaky_relu", spec), "symbol": "square", "size": 8, "opacity": 0.8},
            row=2,
            col=1,
        )
        slopes = log_axis([row["negative_slope"] for row in leaky])
        drawn.update_xaxes(slopes | {"title": {"text": "negative slope of leaky_relu"}}, row=2)
        drawn.update_yaxes(title={"text": "never active units"}, tickformat=".0%", rangemode="tozero", row=2)
    return drawn


def say_dead(rows: Rows, spec: StudySpec) -> str:
    """The largest and the median share of each activation, and what holds by construction."""
    told = [
        (name, median(row["zero_gradient"] for row in some), max(row["zero_gradient"] for row in some))
        for name, some in grouped(rows, "activation").items()
    ]
    some_dead = sorted((t for t in told if t[2] >= 0.001), key=lambda t: -t[2])
    words = "; ".join(f"{name} up to {most:.0%} (median {middle:.0%})" for name, middle, most in some_dead)
    return (
        f"{len(rows)} completed trials; units whose derivative is zero for every validation image, so that "
        f"they cannot learn, means over layers: {words or 'none in any activation'}. For leaky ReLU (above "
        "slope 0) this is 0 by construction: its units can be never active (above zero for no image), but "
        f"they still pass a gradient.{few(len(rows), 10)}{sampled(rows)}{adaptive(spec)}"
        f"{caution(rows)}"
    )


# --- gradients


def gradient_rows(study: StudyRecord) -> Rows:
    """The root mean square of the gradient at each layer of each completed trial."""
    return [
        {
            "trial": trial.number,
            "order": inside.order,
            "activation": config.activation,
            "norm": config.norm,
            "layer": layer,
            "gradient_rms": rms,
            "attenuation": inside.grad_attenuation,
        }
        for trial, config, inside in diagnosed(study)
        for layer, rms in zip(inside.layers, inside.gradient_rms, strict=True)
    ]


def draw_gradients(rows: Rows, spec: StudySpec) -> go.Figure:
    """A line per activation: the median over its trials at each layer, without gradients of zero."""
    drawn = figure("hidden layer, from the input on", "rms of the gradient", 420)
    groups = grouped([row for row in rows if row["gradient_rms"] > 0], "activation")
    for activation in (name for name in activations_of(spec) if name in groups):
        layers = dict(sorted(grouped(groups[activation], "layer").items()))
        trials = len(grouped(groups[activation], "trial"))
        colour, marker = colour_of(activation, spec), symbol_of(activation, spec)
        drawn.add_scatter(
            x=list(layers),
            y=[median(row["gradient_rms"] for row in some) for some in layers.values()],
            mode="lines+markers",
            name=f"{text(activation)} ({trials})",
            line={"color": colour, "width": 2},
            marker={"symbol": marker, "size": 8, "color": colour},
            hovertemplate="layer %{x}: %{y:.2e}<extra>" + text(activation) + "</extra>",
        )
    drawn.update_xaxes(dtick=1 if max(row["layer"] for row in rows) <= 12 else None)
    return drawn.update_yaxes(log_axis(row["gradient_rms"] for row in rows))


def say_gradients(rows: Rows, spec: StudySpec) -> str:
    """The activations whose gradient shrinks the most and the least towards the input."""
    per_trial = {row["trial"]: row for row in rows}
    known = [row for row in per_trial.values() if row["attenuation"] is not None]
    zero = sum(row["gradient_rms"] <= 0 for row in rows)
    told = f"Medians over {len(per_trial)} completed trials (their number in brackets). "
    if zero:
        told += f"{zero} of the {len(rows)} gradients, one per trial and layer, are zero and left out. "
    middle = {
        name: median(row["attenuation"] for row in some)
        for name, some in grouped(known, "activation").items()
    }
    if middle:
        most, least = max(middle, key=lambda n: middle[n]), min(middle, key=lambda n: middle[n])
        told += (
            f"On the way back to the input the gradient changes by a factor of "
            f"{10 ** -middle[most]:.2g} per layer for {most}"
            + (f" and {10 ** -middle[least]:.2g} for {least}" if most != least else "")
            + f" (medians, n = {len(known)}). "
        )
        if spec.model == "cnn":
            told += "Convolutions and the linear layer differ in size, so compare lines, not layers."
    elif len(grouped(rows, "layer")) > 1:
        told += "No trial has a gradient at every layer, so there is no attenuation to tell."
    else:
        told += "One hidden layer has no attenuation."
    return told.rstrip() + few(len(known) or len(per_trial), 10) + adaptive(spec) + caution(rows)


# --- the tutorial's two pictures, which need no trial

# The functions of slopesearch.nets.activations in plain numbers; a test holds the two together.
SHAPES: dict[str, Callable[[float], float]] = {
    "relu": lambda z: max(z, 0.0),
    "leaky_relu": lambda z: z if z > 0 else 0.1 * z,
    "prelu": lambda z: z if z > 0 else 0.25 * z,
    "elu": lambda z: z if z > 0 else exp(z) - 1,
    "gelu": lambda z: z * (1 + erf(z / sqrt(2))) / 2,
    "silu": lambda z: z / (1 + exp(-z)),
    "tanh": tanh,
    "sigmoid": lambda z: 1 / (1 + exp(-z)),
}
_GRID = [i / 10 for i in range(-40, 31)]


def shape_rows(study: StudyRecord) -> Rows:
    """phi(z) of each searched activation from -4 to 3; leaky ReLU has slope 0.1, PReLU its start of 0.25."""
    return [
        {"activation": name, "z": z, "phi": SHAPES[name](z)}
        for name in activations_of(study.spec)
        if name in SHAPES
        for z in _GRID
    ]


def draw_shapes(rows: Rows, spec: StudySpec) -> go.Figure:
    """A line per activation."""
    drawn = figure("z", "φ(z)", 400)
    for activation, some in grouped(rows, "activation").items():
        drawn.add_scatter(
            x=[row["z"] for row in some],
            y=[row["phi"] for row in some],
            mode="lines",
            name=text(activation),
            line={"color": colour_of(activation, spec), "width": 2},
        )
    return drawn.update_yaxes(range=[-1.2, 3])


def say_shapes(rows: Rows, spec: StudySpec) -> str:
    """Which activations are drawn, and which are not."""
    names = list(grouped(rows, "activation"))
    told = f"The {len(names)} activations of this study" if len(names) > 1 else "The activation of this study"
    unknown = [name for name in activations_of(spec) if name not in names]
    told += f" whose shape is known here (not {', '.join(unknown)})" if unknown else ""
    notes = {"leaky_relu": "leaky_relu with slope 0.1", "prelu": "prelu where it starts, at 0.25"}
    drawn = [note for name, note in notes.items() if name in names]
    return told + (f": {', '.join(drawn)}." if drawn else ".")


def slope_shape_rows(study: StudyRecord) -> Rows:
    """Leaky ReLU with the tutorial's slopes, with ReLU's 0, and with the best slope of this study."""
    slopes = {"ReLU, 0": 0.0, "0.01": 0.01, "0.1": 0.1, "0.2": 0.2}
    best = next((t.config for t in study.ranked() if t.config and t.config.negative_slope is not None), None)
    if best is not None and best.negative_slope is not None:
        slopes[f"this study's best, {best.negative_slope:.2g}"] = best.negative_slope
    return [
        {"slope": name, "z": z, "phi": z if z > 0 else s * z}
        for name, s in slopes.items()
        for z in (-4, 0, 1.5)
    ]


def draw_slope_shapes(rows: Rows, spec: StudySpec) -> go.Figure:
    """A line per slope."""
    drawn = figure("z", "φ(z)", 360)
    colours = (FADED, *SEQUENCE[1:4], "#D55E00")
    for (slope, some), colour in zip(grouped(rows, "slope").items(), colours, strict=False):
        drawn.add_scatter(
            x=[row["z"] for row in some],
            y=[row["phi"] for row in some],
            mode="lines",
            name=slope,
            line={
                "color": colour,
                "width": 3 if "best" in slope else 2,
                "dash": "dot" if "best" in slope else None,
            },
        )
    return drawn


def say_slope_shapes(rows: Rows, spec: StudySpec) -> str:
    """The slope of the study's best leaky ReLU, beside the tutorial's slopes."""
    best = [name for name in grouped(rows, "slope") if "best" in name]
    if not best:
        return "The tutorial's slopes beside ReLU; no trial of leaky ReLU has run to its end in this study."
    found = best[0].split()[-1]
    return f"The tutorial's slopes beside ReLU, and the slope of the best leaky ReLU here ({found}, one run)."


_NO_DIAGNOSTICS = "No completed trial of this study has diagnostics."

PLOTS = {
    "dead": Plot("Dead units", dead_rows, draw_dead, say_dead, _NO_DIAGNOSTICS),
    "gradients": Plot(
        "The gradient, layer by layer", gradient_rows, draw_gradients, say_gradients, _NO_DIAGNOSTICS
    ),
    "shapes": Plot(
        "The activations",
        shape_rows,
        draw_shapes,
        say_shapes,
        "The shapes of these activations are not known here.",
    ),
    "slope_shapes": Plot("Slopes", slope_shape_rows, draw_slope_shapes, say_slope_shapes, ""),
}
