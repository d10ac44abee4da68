"""Figures of the search itself: its history, where runs ended, how rightly it pruned, importances."""

import warnings
from statistics import median
from typing import Any

import optuna
import plotly.graph_objects as go
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState
from scipy.stats import binomtest, spearmanr

from slopesearch.config import REPORTS, Range, StudySpec
from slopesearch.evidence.pruning import judged
from slopesearch.report.style import (
    ACCENT,
    FADED,
    SEQUENCE,
    WARNING,
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
    objective_name,
    sampled,
    thinned,
)
from slopesearch.report.summary import recipe_trials
from slopesearch.search.ledger import Over
from slopesearch.search.records import StudyRecord

# --- history


def history_rows(study: StudyRecord) -> Rows:
    """A row per finished trial: its value, the best value so far, the name of its textbook recipe if any."""
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
                "value": trial.value,
                "best": best,
                "recipe": recipes.get(trial.number, ""),
            }
        )
    return rows


def draw_history(rows: Rows, spec: StudySpec) -> go.Figure:
    """The values over the trial numbers, and the best so far as a line."""
    pairs = zip([{}, *rows], rows, strict=False)
    records = [row["trial"] for before, row in pairs if row["best"] != before.get("best")]
    recipes = [row["trial"] for row in rows if row["recipe"]]
    rows = thinned(rows, [*records, *recipes, rows[-1]["trial"]])
    drawn = figure("trial", objective_name(spec))
    kinds = {
        "pruned or diverged": ([r for r in rows if r["ended"] != "completed"], FADED, "circle", 5),
        "completed": (
            [r for r in rows if r["ended"] == "completed" and not r["recipe"]],
            ACCENT,
            "circle",
            7,
        ),
        "textbook recipe": ([r for r in rows if r["recipe"]], WARNING, "diamond", 10),
    }
    for name, (some, colour, symbol, size) in kinds.items():
        drawn.add_scatter(
            x=[row["trial"] for row in some],
            y=[distance(row["value"], spec) for row in some],
            text=hover(some, "trial", "value", "ended", "recipe"),
            hoverinfo="text",
            mode="markers",
            name=name,
            marker={"color": colour, "symbol": symbol, "size": size},
        )
    line = [row for row in rows if row["best"] is not None]
    drawn.add_scatter(
        x=[row["trial"] for row in line],
        y=[distance(row["best"], spec) for row in line],
        mode="lines",
        name="best so far",
        line={"color": ACCENT, "shape": "hv", "width": 1.5},
        hoverinfo="skip",
    )
    return drawn.update_yaxes(better_up(spec, [row["value"] for row in rows]))


def say_history(rows: Rows, spec: StudySpec) -> str:
    """When the best trial was found, and how many trials since then did not beat it."""
    done = [row for row in rows if row["ended"] == "completed"]
    if not done:
        return f"Trials that have finished: {len(rows)}; none has run to its end."
    best = best_of(done, spec)
    later = rows[-1]["trial"] - best["trial"]
    return (
        f"The best of {len(done)} completed trials, {best['value']:.4f}, is trial {best['trial']}; "
        f"{later} trials since then did not beat it. "
        f"{len(rows) - len(done)} of {len(rows)} finished trials were stopped early."
        f"{few(len(rows), 20)}{sampled(rows, 'recipes and each best so far')}"
    )


# --- where runs ended


def ended_rows(study: StudyRecord) -> Rows:
    """The number of runs that ended after each report, by how they ended."""
    counts: dict[tuple[int, str], int] = {}
    for trial in study.trials:
        if trial.state == "RUNNING":
            continue
        ended = "failed" if trial.state == "FAIL" else trial.ended
        key = (max(trial.reports, default=0), ended)
        counts[key] = counts.get(key, 0) + 1
    return [{"report": step, "ended": ended, "trials": n} for (step, ended), n in sorted(counts.items())]


def draw_ended(rows: Rows, spec: StudySpec) -> go.Figure:
    """Bars of runs over the reports, stacked by how they ended."""
    drawn = figure("report after which the run ended, of 9", "trials", 320)
    colours = {"completed": ACCENT, "pruned": "#9AA5AD", "diverged": WARNING, "failed": "#B2182B"}
    for ended, colour in colours.items():
        some = [row for row in rows if row["ended"] == ended]
        if some:
            drawn.add_bar(
                x=[row["report"] for row in some],
                y=[row["trials"] for row in some],
                name=ended,
                marker={"color": colour},
            )
    return drawn.update_layout(barmode="stack", bargap=0.35).update_xaxes(
        dtick=1, range=[-0.6, REPORTS + 0.6]
    )


def say_ended(rows: Rows, spec: StudySpec) -> str:
    """The share of their training that pruned and completed runs took; no diverged or failed run counts."""
    of = {ended: sum(row["trials"] for row in some) for ended, some in grouped(rows, "ended").items()}
    told = ", ".join(f"{count} {ended}" for ended, count in of.items())
    judged = [row for row in rows if row["ended"] in ("completed", "pruned")]
    n = sum(row["trials"] for row in judged)
    if spec.pruner == "none":
        return f"{told}. This study has no pruner."
    if not n:
        return f"{told}."
    spent = sum(row["report"] * row["trials"] for row in judged) / (REPORTS * n)
    return (
        f"{told}. Completed and pruned, {n} runs took {spent:.0%} of the training that they would have taken "
        "without pruning."
    )


# --- how often pruning was wrong


def audit_rows(study: StudyRecord) -> Rows:
    """Every run that went on to its end: its early values, its final value, where the pruner would stop it.

    A run that diverged counts where the pruner would have stopped it, since that was right.
    """
    asked = {trial.number for trial in judged(study)}
    return [
        {
            "trial": trial.number,
            "first_report": trial.reports.get(1),
            "third_report": trial.reports.get(3),
            "final": trial.value,
            "ended": trial.ended,
            "would_prune_at": trial.attributes.get("would_prune_at"),
            "exempt": trial.number not in asked,
        }
        for trial in study.trials
        if trial.value is not None and 1 in trial.reports
        if trial.state == "COMPLETE" or (trial.ended == "diverged" and "would_prune_at" in trial.attributes)
    ]


def draw_audit(rows: Rows, spec: StudySpec) -> go.Figure:
    """The final values over the first; the audited runs stand out."""
    rows = thinned(rows)
    drawn = figure("after the first of 9 reports", f"final {objective_name(spec)}")
    kinds = {
        "let through": ([r for r in rows if r["would_prune_at"] is None], ACCENT, "circle", 7),
        "would have been stopped": ([r for r in rows if r["would_prune_at"] is not None], WARNING, "x", 10),
    }
    for name, (some, colour, symbol, size) in kinds.items():
        drawn.add_scatter(
            x=[distance(row["first_report"], spec) for row in some],
            y=[distance(row["final"], spec) for row in some],
            text=hover(some, "trial", "first_report", "final", "ended", "would_prune_at"),
            hoverinfo="text",
            mode="markers",
            name=name,
            marker={"color": colour, "symbol": symbol, "size": size},
        )
    drawn.update_xaxes(better_up(spec, [row["first_report"] for row in rows]))
    return drawn.update_yaxes(better_up(spec, [row["final"] for row in rows]))


def say_audit(rows: Rows, spec: StudySpec) -> str:
    """The rate of wrong stops with its 95 % interval (Wilson); how early values rank the final ones."""
    ranks = [_correlation(rows, step, name) for step, name in ((1, "first"), (3, "third"))]
    if spec.pruner == "none":
        return "This study has no pruner, so no run was stopped." + "".join(ranks) + sampled(rows)
    judged = [row for row in rows if not row["exempt"]]
    audited = [row for row in judged if row["would_prune_at"] is not None]
    passed = [row["final"] for row in judged if row["would_prune_at"] is None]
    told = "One in twenty runs that the pruner would stop goes on to its end. "
    if not audited or not passed:
        told += "No such run has ended yet, so how often pruning is wrong is not known."
    else:
        typical = median(passed)
        ends = [row["final"] for row in audited if row["ended"] != "diverged"]
        wrong = sum(end > typical if spec.maximize else end < typical for end in ends)
        low, high = binomtest(wrong, len(audited)).proportion_ci(method="wilson")
        told += (
            f"Of {len(audited)} such runs, {len(audited) - len(ends)} of them diverged, {wrong} ended better "
            f"than the median of the {len(passed)} that it let through: wrong in {wrong / len(audited):.0%} "
            f"(95 % interval {low:.0%} to {high:.0%})."
            f"{few(len(audited), 10)}"
        )
    told += "".join(ranks)
    if any(ranks):
        told += " Only runs that went to their end are ranked: the pruner chose them, which hides agreement."
    return told + sampled(rows)


def _correlation(rows: Rows, step: int, name: str) -> str:
    known = [row for row in rows if row[f"{name}_report"] is not None and row["ended"] != "diverged"]
    pairs = [(row[f"{name}_report"], row["final"]) for row in known]
    early, final = {pair[0] for pair in pairs}, {pair[1] for pair in pairs}
    if len(pairs) < 5 or len(early) < 2 or len(final) < 2:
        return ""
    rho = spearmanr([pair[0] for pair in pairs], [pair[1] for pair in pairs]).statistic
    return f" Report {step} ranks the final values at {rho:.2f} (Spearman, n = {len(pairs)})."


# --- importances


def distribution_of(axis: Range | tuple[Any, ...]) -> BaseDistribution:
    """An axis of the space as Optuna's distribution."""
    if isinstance(axis, Range):
        return FloatDistribution(axis.low, axis.high, log=axis.log)
    return CategoricalDistribution(axis)


def importance_rows(study: StudyRecord) -> Rows:
    """PED-ANOVA importances (Watanabe et al. 2023), of each parameter within the branch that has it.

    A branch holds the trials that share a condition; its importances sum to 1 and are not comparable with
    those of another branch. A branch whose values are all equal has none.
    """
    trials = completed(study)
    always, slope = ["activation", "norm", "init", "lr"], ["slope_mode", "negative_slope"]
    branches = {
        "all trials": (trials, always),
        "leaky_relu": ([t for t in trials if t.config and t.config.slope_mode], [*always[1:], *slope]),
        "learnable slope": (
            [t for t in trials if t.config and t.config.slope_mode == "learnable"],
            [*always[1:], "negative_slope", "slope_max"],
        ),
    }
    rows: Rows = []
    for branch, (some, names) in branches.items():
        axes = {name: getattr(study.spec.space, name) for name in names}
        searched = {name: axis for name, axis in axes.items() if isinstance(axis, Range) or len(axis) > 1}
        if len(some) < 10 or len(searched) < 2 or len({trial.value for trial in some}) < 2:
            continue
        rows += [
            {"branch": branch, "parameter": name, "importance": share, "trials": len(some)}
            for name, share in _importances(study.spec, some, searched).items()
        ]
    return rows


def _importances(spec: StudySpec, trials: list[Any], axes: dict[str, Any]) -> dict[str, float]:
    from optuna.importance import get_param_importances  # it loads scikit-learn, which takes a second

    within = optuna.create_study(direction="maximize" if spec.maximize else "minimize")
    distributions = {name: distribution_of(axis) for name, axis in axes.items()}
    within.add_trials(
        [
            Over(
                TrialState.COMPLETE,
                trial.value,
                {name: getattr(trial.config, name) for name in axes},
                distributions,
                {},
                {},
            )
            for trial in trials
        ]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return get_param_importances(within)


def draw_importances(rows: Rows, spec: StudySpec) -> go.Figure:
    """A bar per parameter, branch below branch."""
    drawn = figure("share of the importance within the branch", "", 130 + 26 * len(rows))
    order = []
    for (branch, some), colour in zip(grouped(rows, "branch").items(), SEQUENCE, strict=False):
        some = sorted(some, key=lambda row: -float(row["importance"]))
        labels = [row["parameter"] + ("" if branch == "all trials" else f" ({branch})") for row in some]
        order += labels
        drawn.add_bar(
            x=[row["importance"] for row in some],
            y=labels,
            orientation="h",
            name=f"{branch}, n = {some[0]['trials']}",
            text=[f"{row['importance']:.0%}" for row in some],
            textposition="outside",
            cliponaxis=False,
            marker={"color": colour},
            hoverinfo="skip",
        )
    drawn.update_xaxes(tickformat=".0%", range=[0, 1.15 * max(row["importance"] for row in rows)])
    return drawn.update_yaxes(categoryorder="array", categoryarray=order[::-1], title=None)


def say_importances(rows: Rows, spec: StudySpec) -> str:
    """The most important parameter of each branch."""
    told = []
    for branch, some in grouped(rows, "branch").items():
        top = max(some, key=lambda row: float(row["importance"]))
        told.append(f"{top['parameter']} in {branch} ({top['importance']:.0%}, n = {top['trials']})")
    n = min(row["trials"] for row in rows)
    return (
        "What decides whether a completed trial is among the best tenth (PED-ANOVA), above all: "
        f"{'; '.join(told)}. Each branch sums to 100 % by itself.{few(n, 50)}{adaptive(spec)}"
    )


PLOTS = {
    "history": Plot(
        "Every trial, and the best so far",
        history_rows,
        draw_history,
        say_history,
        "No trial has finished yet.",
    ),
    "ended": Plot("Where runs ended", ended_rows, draw_ended, say_ended, "No trial has ended yet."),
    "importances": Plot(
        "Which choice matters most",
        importance_rows,
        draw_importances,
        say_importances,
        "Nothing to rank: that takes 10 trials that have run to their end, not all with one value, and two "
        "parameters to search.",
    ),
    "audit": Plot(
        "How often pruning is wrong",
        audit_rows,
        draw_audit,
        say_audit,
        "No trial has run to its end yet, so pruning cannot be judged.",
    ),
}
