"""Figures of the search itself: its history, and how rightly it pruned."""

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from slopesearch.config import REPORTS, StudySpec
from slopesearch.evidence.pruning import AUDITED_LEAST, audit, judged
from slopesearch.evidence.statistics import rank_correlation, wilson
from slopesearch.report.style import (
    ACCENT,
    Plot,
    Rows,
    best_of,
    better_up,
    distance,
    few,
    figure,
    hover,
    in_style,
    objective_name,
    sampled,
    thinned,
)
from slopesearch.report.summary import recipe_trials
from slopesearch.search.records import AUDITED, StudyRecord
from slopesearch.wording import counted

# --- history


def history_rows(study: StudyRecord) -> Rows:
    """A row per finished trial: its value at its last report, and the best completed value so far.

    `recipe` is the name of the textbook recipe that it is, if any.
    """
    recipes = {trial.number: recipe for recipe, trial in recipe_trials(study).items()}
    better = max if study.spec.maximize else min
    best, rows = None, []
    for trial in study.trials:
        if trial.value is None or trial.state not in ("COMPLETE", "PRUNED"):
            continue
        if trial.state == "COMPLETE":
            best = trial.value if best is None else better(best, trial.value)
        rows.append(
            {
                "trial": trial.number,
                "ended": trial.ended,
                "report": max(trial.reports, default=0),
                "value": trial.value,
                "best": best,
                "recipe": recipes.get(trial.number, ""),
            }
        )
    return rows


def draw_history(rows: Rows, spec: StudySpec) -> go.Figure:
    """The completed trials with the best so far; below, in a strip, after which report the others stopped.

    A value after a part of the training has no place on the axis of final values.
    """
    pairs = zip([{}, *rows], rows, strict=False)
    records = [row["trial"] for before, row in pairs if row["best"] != before.get("best")]
    recipes = [row["trial"] for row in rows if row["recipe"]]
    rows = thinned(rows, [*records, *recipes, rows[-1]["trial"]])
    done = [row for row in rows if row["ended"] == "completed"]
    lines = bool(done) + (len(done) < len(rows))
    heights = [0.76, 0.24] if lines == 2 else None
    drawn = make_subplots(rows=lines, cols=1, shared_xaxes=True, row_heights=heights, vertical_spacing=0.05)
    in_style(drawn, 440 if done else 220)
    kinds = {
        "completed": ([row for row in done if not row["recipe"]], "circle", 6),
        "textbook recipe": ([row for row in done if row["recipe"]], "diamond-open", 11),
        "pruned": ([row for row in rows if row["ended"] == "pruned"], "line-ns-open", 7),
        "diverged": ([row for row in rows if row["ended"] == "diverged"], "x-thin-open", 7),
    }
    for name, (some, symbol, size) in kinds.items():
        above = name in ("completed", "textbook recipe")
        if not some:
            continue
        drawn.add_scatter(
            x=[row["trial"] for row in some],
            y=[distance(row["value"], spec) if above else row["report"] for row in some],
            text=hover(some, "trial", "value", "ended", "report", "recipe"),
            hoverinfo="text",
            mode="markers",
            name=name,
            marker={"color": ACCENT, "symbol": symbol, "size": size, "line": {"width": 1.5, "color": ACCENT}},
            row=1 if above else lines,
            col=1,
        )
    strip = {"title": {"text": "stopped at"}, "tickvals": [1, 3, 6, 9], "range": [0.2, REPORTS + 0.8]}
    drawn.update_yaxes(strip, row=lines)
    drawn.update_xaxes(title={"text": "trial"}, row=lines)
    if not done:
        return drawn
    line = [row for row in rows if row["best"] is not None]
    drawn.add_scatter(
        x=[row["trial"] for row in line],
        y=[distance(row["best"], spec) for row in line],
        mode="lines",
        name="best so far",
        line={"color": ACCENT, "shape": "hv", "width": 1.5},
        hoverinfo="skip",
        row=1,
        col=1,
    )
    values = {"title": {"text": objective_name(spec)}, "automargin": True}
    return drawn.update_yaxes(better_up(spec, [row["value"] for row in done]) | values, row=1)


def say_history(rows: Rows, spec: StudySpec) -> str:
    """When the best trial was found, what did not beat it, and the share of the training that was spent."""
    done = [row for row in rows if row["ended"] == "completed"]
    if not done:
        return f"Trials that have finished: {len(rows)}; none has run to its end."
    best = best_of(done, spec)
    later = sum(row["trial"] > best["trial"] for row in rows)
    equal = sum(row["value"] == best["value"] for row in done) - 1
    tied = f", which {counted(equal, 'other')} equalled" if equal else ""
    return (
        f"The best of {counted(len(done), 'completed trial')}, {best['value']:.4f}, is trial "
        f"{best['trial']}{tied}; {counted(later, 'finished trial')} since then did not beat it. "
        f"{_stopped(rows, spec)}"
        f"{few(len(rows), 20)}{sampled(rows, 'recipes and each best so far')}"
    )


def _stopped(rows: Rows, spec: StudySpec) -> str:
    """How many trials were stopped, and how much of the full training was spent; no diverged run counts."""
    count = {name: sum(row["ended"] == name for row in rows) for name in ("pruned", "diverged")}
    told = f"Of {counted(len(rows), 'finished trial')} {count['pruned']} were pruned and "
    told += f"{count['diverged']} diverged"
    told += f"; the strip shows after which of {REPORTS} reports." if any(count.values()) else "."
    if spec.pruner == "none":
        return f"{told} This study has no pruner."
    kept = [row["report"] for row in rows if row["ended"] in ("completed", "pruned")]
    return (
        f"{told} Completed and pruned, {counted(len(kept), 'trial')} took "
        f"{sum(kept) / (REPORTS * len(kept)):.0%} of the training that all would have taken without pruning."
    )


# --- how often pruning was wrong


def audit_rows(study: StudyRecord) -> Rows:
    """Every run that went on to its end: its early values, its final value, where the pruner would stop it.

    A run that diverged counts where the pruner would have stopped it, since that was right. `good` is whether
    a run that the pruner was asked about ended better than `typical`, the median of those that it let
    through; `no_skill` is the share of good ones among those.
    """
    asked, found = {trial.number for trial in judged(study)}, audit(study)
    return [
        {
            "trial": trial.number,
            "first_report": trial.reports.get(1),
            "third_report": trial.reports.get(3),
            "final": trial.value,
            "ended": trial.ended,
            "would_prune_at": trial.attributes.get(AUDITED),
            "exempt": trial.number not in asked,
            "good": found.good(trial) if trial.number in asked and found.passed else None,
            "typical": found.typical if found.passed else None,
            "no_skill": found.no_skill if found.passed else None,
        }
        for trial in study.trials
        if trial.value is not None and 1 in trial.reports
        if trial.state == "COMPLETE" or (trial.ended == "diverged" and AUDITED in trial.attributes)
    ]


def draw_audit(rows: Rows, spec: StudySpec) -> go.Figure:
    """The final values over the first; the audited runs stand out."""
    typical = rows[0]["typical"]
    rows = thinned(rows)
    drawn = figure("after the first of 9 reports", f"final {objective_name(spec)}")
    kinds = {
        "never asked about": ([row for row in rows if row["exempt"]], "circle", 4),
        "let through": (
            [row for row in rows if not row["exempt"] and row["would_prune_at"] is None],
            "circle-open",
            7,
        ),
        "would have been stopped": ([row for row in rows if row["would_prune_at"] is not None], "x", 13),
    }
    for name, (some, symbol, size) in kinds.items():
        drawn.add_scatter(
            x=[distance(row["first_report"], spec) for row in some],
            y=[distance(row["final"], spec) for row in some],
            text=hover(some, "trial", "first_report", "final", "ended", "would_prune_at"),
            hoverinfo="text",
            mode="markers",
            name=name,
            marker={"color": ACCENT, "symbol": symbol, "size": size},
        )
    if typical is not None:
        drawn.add_hline(y=distance(typical, spec), line={"color": ACCENT, "width": 1, "dash": "dot"})
    drawn.update_xaxes(better_up(spec, [row["first_report"] for row in rows]))
    return drawn.update_yaxes(better_up(spec, [row["final"] for row in rows]))


def say_audit(rows: Rows, spec: StudySpec) -> str:
    """The rate of wrong stops with its 95 % interval (Wilson), and that of no skill; early ranks and late."""
    ranks = _ranks(rows)
    if spec.pruner == "none":
        return f"This study has no pruner, so no run was stopped.{ranks}{sampled(rows)}"
    asked = [row for row in rows if not row["exempt"]]
    audited = [row for row in asked if row["would_prune_at"] is not None]
    passed = len(asked) - len(audited)
    told = (
        "The pruner is not asked about the first runs, the recipes and the configs that were given. A run "
        "that it would stop goes on to its end with a chance of one in twenty. "
    )
    if not audited or not passed:
        told += "No such run has ended yet, so how often pruning is wrong is not known."
    else:
        wrong = sum(row["good"] for row in audited)
        low, high = wilson(wrong, len(audited))
        told += (
            f"Of {len(audited)} that went on, {sum(row['ended'] == 'diverged' for row in audited)} "
            f"diverged, and {wrong} ended better than the median of the {passed} let through (dotted): "
            f"wrong in {wrong / len(audited):.0%} (95 % interval {low:.0%} to {high:.0%}, "
            f"n = {len(audited)}); a pruner without skill would read {audited[0]['no_skill']:.0%}, "
            f"the share of the {passed} that are better than their median, and not on it."
            f"{few(len(audited), AUDITED_LEAST)}"
        )
        best = best_of([row for row in rows if row["ended"] != "diverged"], spec, "final")
        if best in audited:
            told += (
                f" The best trial of all, {best['trial']}, is one of them: the pruner would have stopped it."
            )
    told += ranks
    if ranks:
        told += " The pruner chose which runs went to their end, which hides agreement."
    return told + sampled(rows)


def _ranks(rows: Rows) -> str:
    """How well the ranks after reports 1 and 3 agree with the final ones, over the runs that have both."""
    told = []
    for step, name in ((1, "first"), (3, "third")):
        known = [row for row in rows if row[f"{name}_report"] is not None and row["ended"] != "diverged"]
        early, final = [row[f"{name}_report"] for row in known], [row["final"] for row in known]
        if len(known) >= 5 and len(set(early)) > 1 and len(set(final)) > 1:
            rho = rank_correlation(early, final)
            told.append(f"{rho:.2f} after report {step} (n = {len(known)})")
    return f" Rank correlation with the final values (Spearman): {', '.join(told)}." if told else ""


PLOTS = {
    "history": Plot(
        "Every trial, and the best so far",
        history_rows,
        draw_history,
        say_history,
        "No trial has finished yet.",
    ),
    "audit": Plot(
        "How often pruning is wrong",
        audit_rows,
        draw_audit,
        say_audit,
        "No trial has run to its end yet, so pruning cannot be judged.",
    ),
}
