"""The tutorial's two pictures, which need no trial: the shapes of the activations, and of slopes."""

from collections.abc import Callable
from math import erf, exp, sqrt, tanh

import plotly.graph_objects as go

from slopesearch.config import StudySpec
from slopesearch.report.slope_plots import TUTORIAL_SLOPES, begins
from slopesearch.report.style import Plot, Rows, activations_of, colour_of, grouped, panels, text
from slopesearch.search.records import StudyRecord
from slopesearch.wording import counted

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
    """phi(z) from -4 to 3 of each searched activation, and of leaky ReLU with the slopes worth a look.

    Of the activations leaky ReLU has slope 0.1, and PReLU its start of 0.25. The slopes are the tutorial's
    and the best of this study.
    """
    activations: Rows = [
        {"picture": "activations", "activation": name, "negative_slope": None, "z": z, "phi": SHAPES[name](z)}
        for name in activations_of(study.spec)
        if name in SHAPES
        for z in _GRID
    ]
    best = next(
        (begins(t.config) for t in study.ranked() if t.config and t.config.negative_slope is not None), None
    )
    slopes = dict.fromkeys((0.0, *TUTORIAL_SLOPES, *([] if best is None else [best])))
    return activations + [
        {
            "picture": "slopes" if slope != best else "best slope",
            "activation": "leaky_relu" if slope else "relu",
            "negative_slope": slope,
            "z": z,
            "phi": z if z > 0 else slope * z,
        }
        for slope in slopes
        for z in (-4, 0, 1.5)
    ]


def draw_shapes(rows: Rows, spec: StudySpec) -> go.Figure:
    """A panel with a line per activation, and one with a line per slope, the best slope's dotted."""
    drawn = panels(["activations", "slopes of leaky_relu"], "z", "φ(z)", 350, columns=2)
    pictures = grouped(rows, "picture")
    for activation, some in grouped(pictures.get("activations", []), "activation").items():
        drawn.add_scatter(
            x=[row["z"] for row in some],
            y=[row["phi"] for row in some],
            mode="lines",
            name=text(activation),
            line={"color": colour_of(activation, spec), "width": 2},
            row=1,
            col=1,
        )
    slopes = [row for picture in ("slopes", "best slope") for row in pictures.get(picture, [])]
    for some in grouped(slopes, "negative_slope").values():
        is_best = some[0]["picture"] == "best slope"
        drawn.add_scatter(
            x=[row["z"] for row in some],
            y=[row["phi"] for row in some],
            mode="lines",
            showlegend=False,
            hoverinfo="skip",
            line={
                "color": colour_of(some[0]["activation"], spec),
                "width": 3.5 if is_best else 1.5,
                "dash": "dot" if is_best else None,
            },
            row=1,
            col=2,
        )
    for label, height in _labels([row["negative_slope"] for row in slopes]).items():
        drawn.add_annotation(
            x=-4,
            y=height,
            text=label,
            showarrow=False,
            xanchor="left",
            yanchor="top" if height else "bottom",
            font={"size": 10},
            row=1,
            col=2,
        )
    drawn.update_xaxes(range=[-4.2, 3], col=1)
    drawn.update_xaxes(matches=None, range=[-4.2, 1], tickvals=[-4, -2, 0], col=2)
    drawn.update_yaxes(range=[-1.25, 3], col=1)
    return drawn.update_yaxes(matches=None, range=[-1, 0.5], showticklabels=True, side="right", col=2)


def _labels(slopes: list[float]) -> dict[str, float]:
    """What stands beside the left ends of the lines, at z = -4, and how high: near ends share a label."""
    labels: dict[str, float] = {}
    label, last = "", -1.0
    for slope in sorted(set(slopes)):
        is_near = bool(label) and slope - last < 0.03
        height = labels.pop(label) if is_near else -4 * slope
        label = f"{label}, {slope:.2g}" if is_near else f"{slope:.2g}"
        labels[label], last = height, slope
    return labels


def say_shapes(rows: Rows, spec: StudySpec) -> str:
    """Which activations are drawn, and which are not; the slope of the best leaky ReLU."""
    pictures = grouped(rows, "picture")
    names = list(grouped(pictures.get("activations", []), "activation"))
    told = f"{counted(len(names), 'activation')} of this study"
    unknown = [name for name in activations_of(spec) if name not in names]
    told += f" (the shape of {', '.join(unknown)} is not known here)" if unknown else ""
    notes = {"leaky_relu": "leaky_relu with slope 0.1", "prelu": "prelu where it starts, at 0.25"}
    drawn = [note for name, note in notes.items() if name in names]
    told += f": {', '.join(drawn)}." if drawn else "."
    told += " Beside them the tutorial's slopes and ReLU's 0"
    best = [row["negative_slope"] for row in pictures.get("best slope", [])]
    if not best:
        return f"{told}; no trial of leaky ReLU has run to its end."
    return f"{told}, and dotted the slope that the best trial of leaky ReLU began with, {best[0]:.2g}."


PLOTS = {
    "shapes": Plot("The activations, and slopes", shape_rows, draw_shapes, say_shapes, ""),
}
