"""Figures of the runs: learning curves, the best value to expect of k trials, speed per device."""

from statistics import median

import numpy as np
import plotly.graph_objects as go

from slopesearch.config import REPORTS, StudySpec
from slopesearch.report.style import (
    ACCENT,
    FADED,
    Plot,
    Rows,
    activations_of,
    adaptive,
    better_up,
    colour_of,
    distance,
    few,
    figure,
    grouped,
    log_axis,
    objective_name,
    sampled,
    text,
    thinned,
)
from slopesearch.search.records import StudyRecord

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


def _lines(rows: Rows, spec: StudySpec) -> tuple[list[int | None], list[float | None]]:
    """The lines of all trials as one trace with gaps, since thousands of traces take a browser seconds."""
    x: list[int | None] = []
    y: list[float | None] = []
    for some in grouped(rows, "trial").values():
        x += [*(row["report"] for row in some), None]
        y += [*(distance(row["value"], spec) for row in some), None]
    return x, y


def draw_curves(rows: Rows, spec: StudySpec) -> go.Figure:
    """Pruned runs faded, completed ones in their activation's colour, the best one on top."""
    rows = thinned(rows, [row["trial"] for row in rows if row["rank"] == 1])
    drawn = figure("report", objective_name(spec), 420)
    stopped = [row for row in rows if row["ended"] != "completed"]
    x, y = _lines(stopped, spec)
    drawn.add_scatter(
        x=x,
        y=y,
        mode="lines+markers",
        name="stopped early",
        hoverinfo="skip",
        line={"color": FADED, "width": 0.7},
        marker={"size": 3, "color": FADED},
    )
    done = grouped([row for row in rows if row["ended"] == "completed"], "activation")
    for activation in (name for name in activations_of(spec) if name in done):
        x, y = _lines(done[activation], spec)
        drawn.add_scatter(
            x=x,
            y=y,
            mode="lines",
            name=text(activation),
            hoverinfo="skip",
            opacity=0.75,
            line={"color": colour_of(activation, spec), "width": 1.3},
        )
    best = [row for row in rows if row["rank"] == 1]
    x, y = _lines(best, spec)
    drawn.add_scatter(
        x=x,
        y=y,
        mode="lines+markers",
        name="the best",
        hoverinfo="skip",
        line={"color": ACCENT, "width": 3},
        marker={"size": 6, "color": ACCENT},
    )
    drawn.update_xaxes(dtick=1, range=[0.7, REPORTS + 0.3])
    return drawn.update_yaxes(better_up(spec, [row["value"] for row in rows]))


def say_curves(rows: Rows, spec: StudySpec) -> str:
    """How fast the best trial learned."""
    trials = len(grouped(rows, "trial"))
    best = [row for row in rows if row["rank"] == 1]
    told = (
        f"{trials} runs, each validated up to {REPORTS} times (the last time on more images)."
        f"{sampled(rows, 'the best')} "
    )
    if not best:
        return told + "No run has gone to its end."
    place = {row["report"]: row["value"] for row in best}
    rivals = sorted((row["value"] for row in rows if row["report"] == 1), reverse=spec.maximize)
    first = best[0]
    return told + (
        f"The best, trial {first['trial']}, began at {place.get(1, first['value']):.4f}, place "
        f"{rivals.index(first['value']) + 1} of {len(rivals)} at the first report, and ended at "
        f"{best[-1]['value']:.4f}."
    )


# --- the best to expect after k trials


def expected_best_rows(study: StudyRecord) -> Rows:
    """For each activation, the best value to expect of k of its trials, drawn from the trials of the study.

    Dodge et al. 2019, "Show your work", eq. 8: the mean of the maximum of k draws with replacement. A pruned
    trial counts with its last value, which is mostly worse than its final value would be; a diverged trial
    counts as chance.
    """
    values: dict[str, list[float]] = {}
    for trial in study.trials:
        if trial.state in ("COMPLETE", "PRUNED") and trial.value is not None and trial.config is not None:
            values.setdefault(trial.config.activation, []).append(trial.value)
    return [
        {"activation": name, "trials": len(found), "k": k, "expected_best": best}
        for name, found in ((name, sorted(found)) for name, found in values.items())
        for k in _counts(len(found))
        for best in [expected_best(found, k, study.spec.maximize)]
    ]


def _counts(n: int) -> list[int]:
    """The numbers 1 to 20, then at most 40 even steps to n, since a line shows no more."""
    return sorted({*range(1, min(n, 20) + 1), *(round(n * i / 40) for i in range(1, 41) if n * i / 40 >= 20)})


def expected_best(values: list[float], k: int, maximize: bool) -> float:
    """The mean of the best of k draws from the values, with replacement."""
    ordered, n = sorted(values, reverse=not maximize), len(values)
    return float(np.diff((np.arange(n + 1) / n) ** k) @ ordered)


def draw_expected_best(rows: Rows, spec: StudySpec) -> go.Figure:
    """A line per activation."""
    drawn = figure("trials of that activation, k", f"expected best {objective_name(spec)}")
    groups = grouped(rows, "activation")
    for activation in (name for name in activations_of(spec) if name in groups):
        some = groups[activation]
        drawn.add_scatter(
            x=[row["k"] for row in some],
            y=[distance(row["expected_best"], spec) for row in some],
            mode="lines+markers" if len(some) == 1 else "lines",
            name=f"{text(activation)} ({some[0]['trials']})",
            line={"color": colour_of(activation, spec), "width": 2},
            hovertemplate="k = %{x}<extra>" + text(activation) + "</extra>",
        )
    drawn.update_xaxes(log_axis(row["k"] for row in rows))
    return drawn.update_yaxes(better_up(spec, [row["expected_best"] for row in rows]))


def say_expected_best(rows: Rows, spec: StudySpec) -> str:
    """Which activations lead and trail at five trials each."""
    groups = grouped(rows, "activation")
    shared = [name for name, some in groups.items() if some[0]["trials"] >= 5]
    told = f"{sum(some[0]['trials'] for some in groups.values())} trials of {len(groups)} activations. "
    if len(shared) > 1:
        at_five = {n: next(r["expected_best"] for r in groups[n] if r["k"] == 5) for n in shared}
        order = sorted(shared, key=lambda name: at_five[name], reverse=spec.maximize)
        told += (
            f"With five trials each, {order[0]} is expected to reach {at_five[order[0]]:.4f} and {order[-1]} "
            f"{at_five[order[-1]]:.4f}."
        )
    rare = [name for name, some in groups.items() if some[0]["trials"] < 5]
    told += f" Too few to go by: {', '.join(rare)}." if rare else ""
    return told + adaptive(spec)


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
    groups = grouped(rows, "device")
    drawn = figure("training images per second", "", 140 + 90 * len(groups))
    colours = {"none": "#5E6B73", "before": ACCENT, "after": "#C2702E"}
    for norm, some in grouped(rows, "norm").items():
        drawn.add_box(
            x=[row["images_per_second"] for row in some],
            y=[text(row["device"]) for row in some],
            orientation="h",
            name=f"norm {norm}",
            marker={"color": colours[norm], "size": 3},
            line={"width": 1.5},
            boxpoints="all" if len(some) <= 500 else "outliers",
            jitter=0.5,
            pointpos=0,
            hoverinfo="x",
        )
    return drawn.update_layout(boxmode="group").update_xaxes(rangemode="tozero")


def say_speed(rows: Rows, spec: StudySpec) -> str:
    """The seconds of a whole run and the images a second, per device."""
    told = []
    for device, some in grouped(rows, "device").items():
        whole = [row["seconds"] for row in some if row["ended"] == "completed"]
        rate = median(row["images_per_second"] for row in some)
        took = f", {median(whole):.1f} s for a run to its end" if whole else ""
        told.append(f"{device}: {rate:,.0f} images a second in training{took} (medians, n = {len(some)})")
    total = sum(row["seconds"] for row in rows)
    return (
        f"{'; '.join(told)}. All runs together: {total / 60:.1f} minutes of device time."
        f"{few(len(rows), 5)}{sampled(rows)}"
    )


PLOTS = {
    "curves": Plot(
        "Learning curves", curve_rows, draw_curves, say_curves, "No trial has reported anything yet."
    ),
    "expected_best": Plot(
        "The best to expect after k trials",
        expected_best_rows,
        draw_expected_best,
        say_expected_best,
        "No trial has finished yet.",
    ),
    "speed": Plot("What a run costs", speed_rows, draw_speed, say_speed, "No trial has finished yet."),
}
