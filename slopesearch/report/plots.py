"""PLOTS: every figure of the report, in the order in which questions come up; and their tables as CSV."""

import csv
from pathlib import Path

from slopesearch.report import choice_plots, network_plots, run_plots, search_plots, shape_plots, slope_plots
from slopesearch.report.style import Plot, Rows
from slopesearch.search.records import StudyRecord

_ALL = (
    search_plots.PLOTS
    | slope_plots.PLOTS
    | choice_plots.PLOTS
    | network_plots.PLOTS
    | run_plots.PLOTS
    | shape_plots.PLOTS
)

_ORDER = (
    *("activations", "slope", "learned_slopes", "norm", "history", "curves"),
    *("dead", "gradients", "audit", "speed", "shapes"),
)
# What these say of groups holds of the search's own draws.
COMPARING = ("activations", "slope", "learned_slopes", "norm", "curves", "dead", "gradients")
# A figure that the order does not name stands at the end, so that none is lost.
PLOTS: dict[str, Plot] = {name: _ALL[name] for name in dict.fromkeys((*_ORDER, *_ALL))}


def trial_rows(study: StudyRecord) -> Rows:
    """A row per trial with its state, value, results and parameters; None where a condition did not hold."""
    parameters = ("activation", "slope_mode", "negative_slope", "slope_max", "norm", "init", "lr")
    results = (
        *("val_accuracy", "val_loss", "train_loss", "seconds", "images_per_second", "device"),
        *("dead_fraction", "grad_attenuation", "would_prune_at", "given_by_hand"),
    )
    return [
        {
            "trial": trial.number,
            "state": trial.state,
            "ended": trial.ended,
            "value": trial.value,
            "reports": len(trial.reports),
            **{name: getattr(trial.config, name, None) for name in parameters},
            **{name: trial.attributes.get(name) for name in results},
            "diagnostics_order": trial.diagnostics and trial.diagnostics.order,  # None: not comparable
        }
        for trial in study.trials
    ]


def write_tables(study: StudyRecord, tables: dict[str, Rows], folder: Path) -> list[Path]:
    """Write `trials.csv` and a CSV file per figure that has rows; the paths. Existing files are overwritten.

    The folder is made where it is missing. Raises OSError where it cannot be written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, rows in {"trials": trial_rows(study), **tables}.items():
        if rows:
            path = folder / f"{name}.csv"
            with path.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
            written.append(path)
    return written
