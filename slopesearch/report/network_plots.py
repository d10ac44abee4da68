"""Figures of the networks: dead units, gradients per layer."""

from statistics import median

import plotly.graph_objects as go

from slopesearch.config import Diagnostics, StudySpec, TrialConfig
from slopesearch.report.style import (
    NORMS,
    Plot,
    Rows,
    activations_of,
    colour_of,
    completed,
    few,
    grouped,
    hover,
    log_axis,
    panels,
    sampled,
    symbol_of,
    text,
    thinned,
)
from slopesearch.report.summary import NOT_COMPARABLE
from slopesearch.search.records import StudyRecord, TrialRecord
from slopesearch.wording import counted

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

MEANT = 0.001  # the share of a layer's units from which dead ones are told
NEVER_DEAD = ("leaky_relu", "prelu")  # their derivative is nowhere zero, but for a slope of 0


def dead_rows(study: StudyRecord) -> Rows:
    """The shares of dead, never active and inactive units of each layer of each completed trial."""
    return [
        {
            "trial": trial.number,
            "order": inside.order,
            "activation": config.activation,
            "negative_slope": config.negative_slope,
            "lr": config.lr,
            "norm": config.norm,
            "layer": layer,
            "zero_gradient": inside.zero_gradient[i],
            "never_active": inside.never_active[i],
            "inactive": inside.inactive[i],
            "saturated": inside.saturated[i] if inside.saturated else None,
            "value": trial.value,
        }
        for trial, config, inside in diagnosed(study)
        for i, layer in enumerate(inside.layers)
    ]


def _dying(rows: Rows) -> dict[str, Rows]:
    """The rows of the activations of which a unit has died, and those of ReLU, whose units can."""
    return {
        name: some
        for name, some in grouped(rows, "activation").items()
        if name == "relu" or max(row["zero_gradient"] for row in some) >= MEANT
    }


def _silent(rows: Rows) -> dict[str, Rows]:
    """The rows of the activations whose units can be never active and still pass a gradient."""
    return {name: some for name, some in grouped(rows, "activation").items() if name in NEVER_DEAD}


def draw_dead(rows: Rows, spec: StudySpec) -> go.Figure:
    """A mark per run and layer: the share of units without gradient, and below that of never active ones.

    Activations stand side by side at each layer, the runs of one by learning rate, with a bar at the median.
    """
    shown = {row["trial"] for row in thinned(rows)}
    lines = [
        (words, name, found)
        for words, name, found in (
            ("without gradient", "zero_gradient", _dying(rows)),
            ("never active", "never_active", _silent(rows)),
        )
        if found
    ]
    titles = [f"units {words}" for words, _, _ in lines] or ["units without gradient"]
    drawn = panels(titles, "layer, from the input on", "share", 120 + 210 * len(titles), columns=1)
    drawn.update_yaxes(matches=None)
    for line, (_, name, found) in enumerate(lines, start=1):
        names = [activation for activation in activations_of(spec) if activation in found]
        for place, activation in enumerate(names):
            offset = 0.8 * ((place + 0.5) / len(names) - 0.5)
            at = (offset, 0.6 / len(names))
            _add_bars(drawn, found[activation], name, at, line, spec)
            if some := [row for row in found[activation] if row["trial"] in shown]:
                _add_marks(drawn, some, name, at, line, spec)
    layers = sorted({row["layer"] for row in rows})
    drawn.update_xaxes(tickvals=layers if len(layers) <= 12 else None)
    return drawn.update_yaxes(tickformat=".0%", rangemode="tozero")


def _add_marks(
    drawn: go.Figure, some: Rows, name: str, at: tuple[float, float], line: int, spec: StudySpec
) -> None:
    """The marks of one activation around each layer: `at` is an offset and a width."""
    (offset, width), activation = at, some[0]["activation"]
    rates = {row["trial"]: row["lr"] for row in some}
    order = {trial: i for i, trial in enumerate(sorted(rates, key=rates.__getitem__))}
    drawn.add_scatter(
        x=[row["layer"] + offset + width * ((order[row["trial"]] + 0.5) / len(order) - 0.5) for row in some],
        y=[row[name] for row in some],
        text=hover(some, "trial", "activation", "layer", name, "lr", "norm", "negative_slope", "value"),
        hoverinfo="text",
        mode="markers",
        name=text(activation),
        marker={
            "color": colour_of(activation, spec),
            "symbol": symbol_of(activation, spec),
            "size": 7,
            "opacity": 0.7,
        },
        cliponaxis=False,
        row=line,
        col=1,
    )


def _add_bars(
    drawn: go.Figure, some: Rows, name: str, at: tuple[float, float], line: int, spec: StudySpec
) -> None:
    """A bar at the median of one activation in each layer: `at` is an offset and a width."""
    offset, width = at
    x: list[float | None] = []
    y: list[float | None] = []
    for layer, in_it in grouped(some, "layer").items():
        middle = median(row[name] for row in in_it)
        x += [layer + offset - width / 2, layer + offset + width / 2, None]
        y += [middle, middle, None]
    drawn.add_scatter(
        x=x,
        y=y,
        mode="lines",
        line={"color": colour_of(some[0]["activation"], spec), "width": 2.5},
        hoverinfo="skip",
        showlegend=False,
        cliponaxis=False,
        row=line,
        col=1,
    )


def say_dead(rows: Rows, spec: StudySpec) -> str:
    """The layer with the most dead units of each activation, and what holds by construction."""
    died = [
        _worst(name, some, "zero_gradient")
        for name, some in _dying(rows).items()
        if max(row["zero_gradient"] for row in some) >= MEANT
    ]
    without = [
        f"{name} (n = {len(grouped(some, 'trial'))})"
        for name, some in grouped(rows, "activation").items()
        if name not in NEVER_DEAD and max(row["zero_gradient"] for row in some) < MEANT
    ]
    found = died + ([f"none in {', '.join(without)}"] if without else [])
    told = "A dead unit has derivative zero for every validation image, so it cannot learn."
    told += f" Dead: {'; '.join(found)}." if found else ""
    silent = [_worst(name, some, "never_active") for name, some in _silent(rows).items()]
    if silent:
        told += (
            " Leaky ReLU and PReLU (above slope 0) have no dead units; never active, above zero for no "
            f"image, are: {'; '.join(silent)}."
        )
    told += " The medians are of each run's worst layer." if died or silent else ""
    return told + few(len(grouped(rows, "trial")), 10) + sampled(rows) + caution(rows)


def _worst(activation: str, some: Rows, name: str) -> str:
    """The run and layer with the largest share, and the median of each run's largest share."""
    worst = max(some, key=lambda row: float(row[name]))
    largest = [max(row[name] for row in run) for run in grouped(some, "trial").values()]
    middle = median(largest)
    share = "under 1%" if 0 < middle < 0.005 else f"{middle:.0%}"
    return (
        f"{activation} up to {worst[name]:.0%} of layer {worst['layer']} (trial {worst['trial']}; median of "
        f"{counted(len(largest), 'run')} {share})"
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
    """A panel per placement of BatchNorm, in it a line per activation: medians, without gradients of zero."""
    by_norm = grouped([row for row in rows if row["gradient_rms"] > 0], "norm")
    norms = [norm for norm in NORMS if norm in by_norm] or ["none"]
    drawn = panels([f"norm {norm}" for norm in norms], "layer", "rms of the gradient", 420, len(norms))
    seen: list[float] = []
    for column, norm in enumerate(norms, start=1):
        groups = grouped(by_norm.get(norm, []), "activation")
        for activation in (name for name in activations_of(spec) if name in groups):
            layers = dict(sorted(grouped(groups[activation], "layer").items()))
            trials = len(grouped(groups[activation], "trial"))
            middle = [median(row["gradient_rms"] for row in some) for some in layers.values()]
            seen += middle
            colour = colour_of(activation, spec)
            drawn.add_scatter(
                x=list(layers),
                y=middle,
                mode="lines+markers",
                showlegend=False,
                line={"color": colour, "width": 2, "dash": "solid" if trials >= ENOUGH else "dot"},
                marker={"symbol": symbol_of(activation, spec), "size": 8, "color": colour},
                hovertemplate=f"layer %{{x}}: %{{y:.2e}}<extra>{text(activation)}, n = {trials}</extra>",
                row=1,
                col=column,
            )
    for activation in (name for name in activations_of(spec) if name in grouped(rows, "activation")):
        drawn.add_scatter(  # of the legend alone
            x=[None],
            y=[None],
            mode="lines+markers",
            name=text(activation),
            line={"color": colour_of(activation, spec), "width": 2},
            marker={"symbol": symbol_of(activation, spec), "size": 8},
        )
    drawn.update_xaxes(dtick=1 if max(row["layer"] for row in rows) <= 4 else None)
    return drawn.update_yaxes(log_axis(seen))


ENOUGH = 3  # runs of an activation and norm, for its gradient to be compared


def say_gradients(rows: Rows, spec: StudySpec) -> str:
    """Within each placement of BatchNorm, the activations whose gradient shrinks the most and the least."""
    per_trial = {row["trial"]: row for row in rows}
    known = [row for row in per_trial.values() if row["attenuation"] is not None]
    zero = sum(row["gradient_rms"] <= 0 for row in rows)
    told = (
        f"Medians over {counted(len(per_trial), 'completed trial')}, dotted where there are under {ENOUGH}. "
    )
    if zero:
        told += f"{zero} of the {len(rows)} gradients, one per trial and layer, are zero and left out. "
    if known:
        by_norm = grouped(known, "norm")
        told += "The factor by which the gradient changes per layer on the way back to the input: "
        told += "; ".join(_within(norm, by_norm[norm]) for norm in NORMS if norm in by_norm) + "."
        if spec.model == "cnn":
            told += " Convolutions and the linear layer differ in size, so compare lines, not layers."
    elif len(grouped(rows, "layer")) > 1:
        told += "No trial has a gradient at every layer, so there is no attenuation to tell."
    else:
        told += "One hidden layer has no attenuation."
    return told + few(len(known) or len(per_trial), 10) + caution(rows)


def _within(norm: str, rows: Rows) -> str:
    """The smallest and the largest median factor among the activations with ENOUGH runs of one placement."""
    groups = {
        name: [10 ** -row["attenuation"] for row in some]
        for name, some in grouped(rows, "activation").items()
    }
    middle = {name: median(some) for name, some in groups.items() if len(some) >= ENOUGH}
    if not middle:
        return f"norm {norm}, under {ENOUGH} runs of each activation, too few to compare"
    order = sorted(middle, key=middle.__getitem__)
    ends = [
        f"{middle[name]:.2g} for {name} (n = {len(groups[name])})"
        for name in dict.fromkeys((order[0], order[-1]))
    ]
    rest = f" and under {ENOUGH} runs of each other activation" if len(middle) < 2 <= len(groups) else ""
    return f"norm {norm}, {' to '.join(ends)}{rest}"


_NO_DIAGNOSTICS = "No completed trial of this study has diagnostics."

PLOTS = {
    "dead": Plot("Dead units", dead_rows, draw_dead, say_dead, _NO_DIAGNOSTICS),
    "gradients": Plot(
        "The gradient, layer by layer", gradient_rows, draw_gradients, say_gradients, _NO_DIAGNOSTICS
    ),
}
