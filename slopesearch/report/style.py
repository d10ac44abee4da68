"""The parts that figures share: the noun Plot, a colour per activation, an axis on which higher is better."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from math import log10
from typing import Any

import plotly.graph_objects as go
from markupsafe import Markup
from plotly.subplots import make_subplots

from slopesearch.config import StudySpec
from slopesearch.search.records import StudyRecord, TrialRecord
from slopesearch.wording import counted

Row = dict[str, Any]  # a line of a CSV file: text, numbers and None
Rows = list[Row]


@dataclass(frozen=True)
class Plot:
    """A figure: records -> rows -> figure, and a sentence that says what the rows show.

    `missing` stands in the figure's place where there are no rows.
    """

    title: str
    rows: Callable[[StudyRecord], Rows]
    draw: Callable[[Rows, StudySpec], go.Figure]
    say: Callable[[Rows, StudySpec], str]
    missing: str


# A colour is an activation, on the whole page. These were chosen as far apart as eight can be, for people who
# are colour-blind too, among those with a contrast of 3 to 1 on the white page and on the dark one.
COLOURS = {
    "relu": "#435CE6",
    "leaky_relu": "#D42515",
    "prelu": "#CC7200",
    "elu": "#02A05E",
    "gelu": "#2692E1",
    "silu": "#DC53C2",
    "tanh": "#4E7541",
    "sigmoid": "#984B9F",
}
SPARE = ("#7A5CC4", "#B3446C", "#2A8F9C", "#A0522D")  # for activations that the palette does not name
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "triangle-down", "pentagon")
ACCENT = "#747D87"  # the ink of all else, told apart by symbol, fill and place; over 4 to 1 on either page
WARNING = "#CC3355"  # of a verdict that is bad news
FADED = "rgba(128,128,128,0.45)"  # of bands alone: a line or a mark in it is too faint
NORMS = {"none": "circle", "before": "square", "after": "triangle-up"}  # the symbol of each placement

MOST_LAYERS = 4  # panels side by side, which a phone can still show

_TICKS = ((1, 2, 5), (1, 1.5, 2, 3, 5, 7), (1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8, 9))
_NAMES = {"val_accuracy": "validation accuracy", "val_loss": "validation loss (nats)"}


def activations_of(spec: StudySpec) -> list[str]:
    """The activations of a study in the palette's order, and then the others in the study's order."""
    searched = spec.space.activation or ()
    return [name for name in COLOURS if name in searched] + [n for n in searched if n not in COLOURS]


def colour_of(activation: str, spec: StudySpec) -> str:
    """The activation's own colour."""
    if activation in COLOURS:
        return COLOURS[activation]
    added = [name for name in activations_of(spec) if name not in COLOURS]
    return SPARE[added.index(activation) % len(SPARE)] if activation in added else "#888888"


def symbol_of(activation: str, spec: StudySpec) -> str:
    """The activation's own marker, for readers who cannot tell the colours apart."""
    known = [*COLOURS, *(name for name in activations_of(spec) if name not in COLOURS)]
    return SYMBOLS[known.index(activation) % len(SYMBOLS)] if activation in known else "circle"


def translucent(colour: str) -> str:
    """A colour, #rrggbb, as the fill of a band."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.28)"


def objective_name(spec: StudySpec) -> str:
    """The objective in words."""
    return _NAMES[spec.objective]


def text(value: object) -> str:
    """Text from a study for a figure: plotly reads a little HTML, so it is escaped."""
    return escape(str(value))


def distance(value: float, spec: StudySpec) -> float:
    """How far a value is from perfect, above 0: the loss in nats, or 1 - accuracy, half an image at least."""
    if spec.maximize:
        return max(1 - value, 0.5 / (spec.val_size or 1000))
    return max(value, 1e-9)


def figure(x_title: str, y_title: str, height: int = 380) -> go.Figure:
    """An empty figure in the report's style; the page sets the colours of its text and grid."""
    return go.Figure(
        layout={
            "template": "none",
            "height": height,
            "margin": {"l": 64, "r": 16, "t": 16, "b": 56},
            "xaxis": {"title": {"text": x_title}, "automargin": True},
            "yaxis": {"title": {"text": y_title}, "automargin": True},
            "legend": {"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0},
            "hovermode": "closest",
        }
    )


def in_style(drawn: go.Figure, height: int) -> go.Figure:
    """A figure of several axes in the report's style."""
    drawn.update_layout(figure("", "", height).layout)
    drawn.layout.template = "none"  # an update would leave plotly's own in it, 7 kB with a page of its own
    return drawn


def panels(titles: Sequence[str], x_title: str, y_title: str, height: int, columns: int) -> go.Figure:
    """A grid of small figures on one scale, with a title each; the legend stands above the titles."""
    lines, empty = -(-len(titles) // columns), -len(titles) % columns
    drawn = make_subplots(
        rows=lines,
        cols=columns,
        specs=[[{}] * columns] * (lines - 1) + [[{}] * (columns - empty) + [None] * empty],
        subplot_titles=[text(title) for title in titles],
        shared_xaxes="all",
        shared_yaxes="all",
        horizontal_spacing=0.08 / columns,
        vertical_spacing=36 / (height - 100) if lines > 1 else 0.0,
    )
    in_style(drawn, height)
    if any(titles):
        drawn.update_layout(margin={"t": 44}, legend={"y": 1 + 30 / (height - 100)})
    drawn.update_annotations(font={"size": 12})
    for column in range(1, columns + 1):
        last = lines - (column > columns - empty)
        drawn.update_xaxes(title={"text": x_title}, showticklabels=True, row=last, col=column)
    drawn.update_yaxes(automargin=True)
    drawn.update_yaxes(title={"text": y_title}, col=1)
    return drawn


def for_script(drawn: go.Figure) -> Markup:
    """A figure as JSON that cannot end the script element around it."""
    json: str = drawn.to_json()
    return Markup(json.replace("<", "\\u003c"))


def better_up(spec: StudySpec, values: Iterable[float]) -> dict[str, Any]:
    """An axis of distances from perfect, logarithmic and reversed: higher is better, and 0.98 and 0.99 are
    as far apart as 0.8 and 0.9. Its ticks are the objective's own values.
    """
    gaps = [distance(value, spec) for value in values]
    low, high = log10(min(gaps)) - 0.05, log10(max(gaps)) + 0.05
    ticks = _ticks(10**low, 10**high)
    names = [f"{1 - tick if spec.maximize else tick:.5g}" for tick in ticks]
    return {"type": "log", "range": [high, low], "tickvals": ticks, "ticktext": names}


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers on a logarithmic axis: 1, 2 and 5 of each decade, more where these are under three."""
    ticks: list[float] = []
    for digits in _TICKS:
        ticks = [d * 10.0**e for e in range(-9, 7) for d in digits if low <= d * 10.0**e <= high]
        if len(ticks) >= 3:
            break
    decades = [10.0**e for e in range(-9, 7) if low <= 10.0**e <= high]
    return ticks if len(ticks) <= 6 else decades if len(decades) >= 3 else ticks[::2]


def some_layers(layers: Iterable[int]) -> list[int]:
    """At most MOST_LAYERS of the layers, evenly spaced, the first and the last among them."""
    found = sorted(layers)
    if len(found) <= MOST_LAYERS:
        return found
    return [found[round(i * (len(found) - 1) / (MOST_LAYERS - 1))] for i in range(MOST_LAYERS)]


def log_axis(values: Iterable[float], is_small: bool = False) -> dict[str, Any]:
    """A logarithmic axis around the values, with round ticks; of a small panel the decades, or two."""
    found = [value for value in values if value > 0]
    if not found:
        return {}
    low, high = min(found) / 1.25, max(found) * 1.25
    decades = [10.0**e for e in range(-9, 7) if low <= 10.0**e <= high]
    ticks = _ticks(low, high)
    if is_small:
        ticks = decades if len(decades) >= 2 else [*ticks[:1], *ticks[1:][-1:]]
    names = [f"{tick:g}" for tick in ticks]
    return {"type": "log", "range": [log10(low), log10(high)], "tickvals": ticks, "ticktext": names}


def completed(study: StudyRecord) -> list[TrialRecord]:
    """The trials that ran to their end, with a value and a config."""
    return [t for t in study.trials if t.state == "COMPLETE" and t.value is not None and t.config is not None]


def best_of(rows: Rows, spec: StudySpec, key: str = "value") -> Row:
    """The row with the best value."""
    return (max if spec.maximize else min)(rows, key=lambda row: float(row[key]))


def grouped(rows: Rows, key: str) -> dict[Any, Rows]:
    """The rows by the value of a column, in order of appearance."""
    groups = defaultdict[Any, Rows](list)
    for row in rows:
        groups[row[key]].append(row)
    return dict(groups)


MOST_DRAWN = 1500  # trials of a figure: more are a blot, and a point takes 150 bytes of the page


def thinned(rows: Rows, kept: Iterable[Any] = ()) -> Rows:
    """The rows of at most MOST_DRAWN trials, evenly spaced among all, and those of the trials `kept`."""
    trials = list(dict.fromkeys(row["trial"] for row in rows))
    if len(trials) <= MOST_DRAWN:
        return rows
    chosen = {trials[len(trials) * i // MOST_DRAWN] for i in range(MOST_DRAWN)} | set(kept)
    return [row for row in rows if row["trial"] in chosen]


def sampled(rows: Rows, kept: str = "") -> str:
    """Which trials are drawn, where `thinned` leaves some out; else nothing."""
    trials = len({row["trial"] for row in rows})
    if trials <= MOST_DRAWN:
        return ""
    return f" Drawn are {MOST_DRAWN:,} of the {trials:,} trials, evenly spaced{kept and f', and {kept}'}."


def hover(rows: Rows, *columns: str) -> list[str]:
    """The text under the pointer for each row: the named columns with their values."""
    return ["<br>".join(f"{c} {_short(row[c])}" for c in columns if row[c] is not None) for row in rows]


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else text(value)


def few(n: int, enough: int) -> str:
    """A caution where fewer than `enough` trials are behind a figure; else nothing."""
    return f" Only {counted(n, 'trial')}: too few to go by." if n < enough else ""


def lacking(rows: Rows, key: str, spec: StudySpec) -> str:
    """Which choices of a parameter no row has, in a sentence; nothing where each has one."""
    found = {row[key] for row in rows}
    absent = [str(choice) for choice in getattr(spec.space, key) or () if choice not in found]
    return f" The search completed no trial with {key} {_either(absent)}." if absent else ""


def _either(names: Sequence[str]) -> str:
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def adaptive(spec: StudySpec) -> str:
    """What holds of every figure of groups, where the trials were not drawn at random; else nothing."""
    if spec.sampler == "random":
        return ""
    return "The sampler chose these trials: figures of groups say where to look, they do not compare."
