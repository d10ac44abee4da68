"""Figures of the runs: learning curves, speed per device."""

from statistics import median, quantiles
from typing import Any

import plotly.graph_objects as go

from slopesearch.config import QUICK_VALIDATION, REPORTS, StudySpec
from slopesearch.report.style import (
    ACCENT,
    NORMS,
    Plot,
    Rows,
    activations_of,
    better_up,
    colour_of,
    distance,
    few,
    figure,
    grouped,
    lacking,
    panels,
    sampled,
    text,
    thinned,
    translucent,
)
from slopesearch.search.records import StudyRecord
from slopesearch.wording import counted

# --- learning curves


def curve_rows(study: StudyRecord) -> Rows:
    """A row per report of every trial."""
    ranked = {trial.number: place for place, trial in enumerate(study.ranked(), start=1)}
    return [
        {
            "trial": trial.number,
            "ended": trial.ended,
            "rank": ranked.get(trial.number),
            "activation": trial.config.activation,
            "report": step,
            "value": value,
        }
        for trial in study.trials
        if trial.config is not None and trial.state in ("COMPLETE", "PRUNED")
        for step, value in sorted(trial.reports.items())
    ]


BAND = 4  # runs from which a middle half is drawn; fewer are drawn one by one
END = REPORTS + 1  # where the last report stands, apart from the others
Curve = dict[int, float]  # values of the objective by report


def is_apart(spec: StudySpec) -> bool:
    """Whether the last report was made on more images than the others."""
    return (spec.val_size or 0) > QUICK_VALIDATION


def bands(rows: Rows) -> tuple[Curve, Curve, Curve]:
    """The lower quartile, the median and the upper quartile of runs, report by report."""
    found = {
        step: quantiles([row["value"] for row in some], n=4, method="inclusive")
        for step, some in sorted(grouped(rows, "report").items())
    }
    low, middle, high = ({step: ends[k] for step, ends in found.items()} for k in range(3))
    return low, middle, high


def draw_curves(rows: Rows, spec: StudySpec) -> go.Figure:
    """A panel per activation: the median and the middle half of its completed runs, and the best run of all.

    Where no run was completed, all are drawn. The last report stands apart where it saw more images.
    """
    done = [row for row in rows if row["ended"] == "completed"]
    groups = grouped(done or rows, "activation")
    names = [name for name in activations_of(spec) if name in groups]
    runs_of = {name: grouped(groups[name], "trial") for name in names}
    titles = [f"{name} (n = {len(runs)})" for name, runs in runs_of.items()]
    height = 130 + 150 * -(-len(names) // 2)
    columns = 2 if len(names) > 1 else 1
    drawn = panels(titles, "report", spec.objective[4:], height, columns)
    best = {row["report"]: row["value"] for row in done if row["rank"] == 1}
    seen = list(best.values())
    for place, activation in enumerate(names):
        cell, colour = (place // 2 + 1, place % 2 + 1), colour_of(activation, spec)
        runs = runs_of[activation]
        curves = [{row["report"]: row["value"] for row in run} for run in runs.values()]
        if len(runs) >= BAND:
            low, middle, high = bands(groups[activation])
            seen += [*low.values(), *high.values()]
            _add_band(drawn, low, high, cell, colour, spec)
            curves = [middle]
        for curve in curves:
            seen += curve.values()
            _add_curve(drawn, curve, cell, {"color": colour, "width": 2.5}, spec)
        name = "the best run of all" if place == 0 else ""
        _add_curve(drawn, best, cell, {"color": ACCENT, "width": 1.5, "dash": "dot"}, spec, name)
    ticks = {1: "1", 3: "3", 5: "5", 7: "7"} | ({END: "last"} if is_apart(spec) else {REPORTS: "9"})
    drawn.update_xaxes(tickvals=list(ticks), ticktext=list(ticks.values()), range=[0.6, END + 0.4])
    return drawn.update_yaxes(better_up(spec, seen))


def _split(curve: Curve, spec: StudySpec) -> tuple[Curve, float | None]:
    """Distances by report, without the last one where it stands apart; and that one."""
    at = {step: distance(value, spec) for step, value in sorted(curve.items())}
    return at, at.pop(REPORTS, None) if is_apart(spec) else None


def _add_curve(
    drawn: go.Figure,
    curve: Curve,
    cell: tuple[int, int],
    line: dict[str, Any],
    spec: StudySpec,
    name: str = "",
) -> None:
    """A line over the reports, in the legend if it has a name; a last report that stands apart is a mark."""
    at, last = _split(curve, spec)
    where = {"row": cell[0], "col": cell[1], "hoverinfo": "skip"}
    mode = "lines" if len(at) > 1 else "markers"  # a run that was stopped at its first report
    drawn.add_scatter(
        x=list(at), y=list(at.values()), mode=mode, line=line, name=name, showlegend=bool(name), **where
    )
    if last is not None:
        mark = {"color": line["color"], "size": 8, "symbol": "diamond-open" if "dash" in line else "circle"}
        drawn.add_scatter(x=[END], y=[last], mode="markers", marker=mark, showlegend=False, **where)


def _add_band(
    drawn: go.Figure, low: Curve, high: Curve, cell: tuple[int, int], colour: str, spec: StudySpec
) -> None:
    """The area between two curves; at a last report that stands apart a bar."""
    (lower, low_end), (upper, high_end) = _split(low, spec), _split(high, spec)
    where = {"row": cell[0], "col": cell[1], "hoverinfo": "skip", "showlegend": False, "mode": "lines"}
    drawn.add_scatter(
        x=[*lower, *reversed(upper)],
        y=[*lower.values(), *reversed(upper.values())],
        line={"width": 0},
        fill="toself",
        fillcolor=translucent(colour),
        **where,
    )
    if low_end is not None and high_end is not None:
        drawn.add_scatter(x=[END, END], y=[low_end, high_end], line={"color": colour, "width": 2}, **where)


def say_curves(rows: Rows, spec: StudySpec) -> str:
    """How fast the best trial learned, what the bands are, and why the last report stands apart."""
    trials = grouped(rows, "trial")
    done = [row for row in rows if row["ended"] == "completed"]
    best = [row for row in done if row["rank"] == 1]
    if not best:
        return f"{counted(len(trials), 'run')}, none of which has gone to its end."
    told = (
        f"Of {counted(len(trials), 'run')} {len(grouped(done, 'trial'))} completed: the median of each "
        f"activation and the middle half of its runs (each run where there are under {BAND})."
        f"{lacking(done, 'activation', spec)}"
    )
    if is_apart(spec):
        told += (
            f" The last report uses all {spec.val_size:,} validation images and the others the first "
            f"{QUICK_VALIDATION:,}, so it stands apart: a step there is no change of the network."
        )
    first = best[0]
    rivals = sorted((row["value"] for row in rows if row["report"] == first["report"]), reverse=spec.maximize)
    return told + (
        f" The best, trial {first['trial']} ({first['activation']}), began at {first['value']:.4f}, place "
        f"{rivals.index(first['value']) + 1} of {len(rivals)} runs at report {first['report']}, and ended at "
        f"{best[-1]['value']:.4f}."
    )


# --- speed


def speed_rows(study: StudyRecord) -> Rows:
    """The device, seconds and images a second of each finished trial."""
    return [
        {
            "trial": trial.number,
            "ended": trial.ended,
            "device": trial.attributes["device"],
            "activation": trial.config.activation,
            "norm": trial.config.norm,
            "seconds": trial.attributes["seconds"],
            "images_per_second": trial.attributes["images_per_second"],
        }
        for trial in study.trials
        if trial.config is not None and {"device", "seconds", "images_per_second"} <= set(trial.attributes)
    ]


def draw_speed(rows: Rows, spec: StudySpec) -> go.Figure:
    """The spread of training rates per device and BatchNorm placement, which changes the work of a step."""
    rows = thinned(rows)
    devices = grouped(rows, "device")
    lines = [
        (text(f"{device}, " if len(devices) > 1 else "") + f"norm {norm}", norm, by_norm[norm])
        for device, some in devices.items()
        for by_norm in [grouped(some, "norm")]
        for norm in NORMS
        if norm in by_norm
    ]
    drawn = figure("training images per second", "", 110 + 60 * len(lines))
    for name, norm, some in lines:
        drawn.add_box(
            x=[row["images_per_second"] for row in some],
            y=[f"{name} (n {len(some)})"] * len(some),
            orientation="h",
            showlegend=False,
            fillcolor="rgba(0,0,0,0)",
            marker={"color": ACCENT, "size": 4, "symbol": NORMS[norm], "opacity": 0.7},
            line={"width": 1.5},
            boxpoints="all" if len(some) <= 500 else "outliers",
            jitter=0.5,
            pointpos=0,
            hoverinfo="x",
        )
    return drawn.update_xaxes(rangemode="tozero").update_yaxes(autorange="reversed", title=None)


def say_speed(rows: Rows, spec: StudySpec) -> str:
    """The seconds of a whole run and the images a second, per device; each median with its own number."""
    told = []
    for device, some in grouped(rows, "device").items():
        whole = [row["seconds"] for row in some if row["ended"] == "completed"]
        rate = median(row["images_per_second"] for row in some)
        took = f", {median(whole):.1f} s for a run to its end (n = {len(whole)})" if whole else ""
        told.append(f"{device}: {rate:,.0f} images a second in training (n = {len(some)}){took}")
    total = sum(row["seconds"] for row in rows)
    return (
        f"Medians. {'; '.join(told)}. All {len(rows)} runs together: {total / 60:.1f} minutes of device time."
        f"{few(len(rows), 5)} Runs of one placement may differ in other choices and in the machine's load."
        f"{sampled(rows)}"
    )


PLOTS = {
    "curves": Plot(
        "Learning curves", curve_rows, draw_curves, say_curves, "No trial has reported anything yet."
    ),
    "speed": Plot("What a run costs", speed_rows, draw_speed, say_speed, "No trial has finished yet."),
}
