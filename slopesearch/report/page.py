"""The report: one self-contained HTML page of a stored study, made without torch or a network."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from slopesearch.config import Range, StudySpec
from slopesearch.evidence.answers import answers_of
from slopesearch.evidence.health import health
from slopesearch.evidence.results import confirmed_of, openings_of, pick
from slopesearch.evidence.selection import believed, sentences
from slopesearch.evidence.statistics import Estimate
from slopesearch.files import write_aside
from slopesearch.report.forest import remarks, section
from slopesearch.report.plots import COMPARING, PLOTS
from slopesearch.report.style import Rows, completed, few, for_script, objective_name
from slopesearch.report.summary import TOP, textbook_rows
from slopesearch.search.records import StudyRecord
from slopesearch.search.rows import collector_at_rest
from slopesearch.wording import counted, describe


def tables_of(study: StudyRecord, names: Iterable[str] = PLOTS) -> dict[str, Rows]:
    """The rows behind figures, by name; those that compare know nothing of what a person gave."""
    sampled = study.sampled()
    with collector_at_rest():
        return {name: PLOTS[name].rows(sampled if name in COMPARING else study) for name in names}


def write_page(
    study: StudyRecord,
    tables: dict[str, Rows],
    path: Path,
    confirmation: StudyRecord | None = None,
    comparison: StudyRecord | None = None,
) -> None:
    """Write the page in one step. Raises OSError where the folder cannot be written to."""
    write_aside(path, page(study, tables, confirmation, comparison).encode())


def page(
    study: StudyRecord,
    tables: dict[str, Rows],
    confirmation: StudyRecord | None = None,
    comparison: StudyRecord | None = None,
) -> str:
    """The page as HTML; `confirmation` and `comparison` are the studies that the commands made of it.

    A comparison of declared arms has no search: it is the study itself, without tables. All text of the
    study is escaped, on the page and inside its scripts.
    """
    with collector_at_rest():
        figures = [_figure(name, tables[name], study.spec) for name in PLOTS if name in tables]
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
    )
    found = [_confirmed_table(confirmation), _tested_table(confirmation)]
    if study is not comparison:
        found += [_top_table(study), _textbook_table(study)]
    return environment.get_template("page.html").render(
        study=study,
        counts=counts(study),
        left_out=study.left_out(),
        asked=asked(study),
        belief=[] if study is comparison else [*picked(confirmation), *belief(study)],
        answers=[section(answer) for answer in answers_of(comparison).values()],
        remarks=remarks(answers_of(comparison)),
        doubts=[] if study is comparison else health(study),
        tables=[table for table in found if table["rows"]],
        figures=figures,
        plotly=Markup(get_plotlyjs()),
    )


def _figure(name: str, rows: Rows, spec: StudySpec) -> dict[str, Any]:
    plot = PLOTS[name]
    if not rows:
        return {"id": name, "title": plot.title, "sentence": plot.missing, "json": ""}
    return {
        "id": name,
        "title": plot.title,
        "sentence": plot.say(rows, spec),
        "json": for_script(plot.draw(rows, spec)),
    }


def counts(study: StudyRecord) -> str:
    """The number of trials by how they ended, in a sentence."""
    names = {"COMPLETE": "completed", "PRUNED": "stopped early", "FAIL": "failed", "RUNNING": "unfinished"}
    found = {state: study.count(state) for state in names}
    told = ", ".join(f"{found[state]} {name}" for state, name in names.items() if found[state])
    given = sum(trial.is_given for trial in study.trials)
    apart = f" {given} of them given by hand, and left out where groups are compared." if given else ""
    return f"{len(study.trials)} trials: {told}.{apart}" if told else "This study holds no trial yet."


def asked(study: StudyRecord) -> list[tuple[str, str]]:
    """The question of a study, its data, devices and versions, as pairs of a name and a value."""
    spec = study.spec
    size = f", depth {spec.depth}, width {spec.width}" if spec.depth else ""
    devices = sorted({str(t.attributes["device"]) for t in study.trials if "device" in t.attributes})
    versions = ", ".join(f"{name} {number}" for name, number in study.attributes.get("versions", {}).items())
    sha = str(study.attributes.get("data_sha256", ""))
    space = [(f"space: {name}", _axis(axis)) for name, axis in spec.space]
    return [
        (
            "data",
            f"{spec.dataset}: {spec.train_size or 0:,} images to train, {spec.val_size or 0:,} to validate"
            + (f"; SHA-256 {sha[:16]}…" if sha else ""),
        ),
        ("network", f"{spec.model}{size}"),
        ("budget", f"{counted(spec.epochs, 'epoch')}, batch {spec.batch_size}, {spec.precision}"),
        ("objective", f"{objective_name(spec)}, {'high' if spec.maximize else 'low'} is good"),
        (
            "search",
            f"sampler {spec.sampler}, pruner {spec.pruner}, seed {spec.seed}, split seed {spec.split_seed}",
        ),
        *space,
        ("devices", f"{', '.join(devices)}; the machine is not stored" if devices else "none yet"),
        ("versions", versions or "not stored"),
    ]


def _axis(axis: Range | tuple[Any, ...] | None) -> str:
    if isinstance(axis, Range):
        return f"{axis.low:g} to {axis.high:g}{', log' if axis.log else ''}"
    return ", ".join(map(str, axis or ()))


def belief(study: StudyRecord) -> list[str]:
    """The best config in a sentence, and the reasons to expect less of it, in one sentence each."""
    ranked, spec = completed(study), study.spec
    if not ranked:
        return ["No trial has run to its end yet, so there is no best config."]
    best = study.ranked()[0]
    assert best.config is not None
    assert best.value is not None
    told = [
        f"Trial {best.number}: {describe(best.config)}. {objective_name(spec).capitalize()} {best.value:.4f}."
    ]
    told += sentences(believed(study))
    told.append(
        f"It is the best of {len(ranked)} single runs that were chosen and ranked by the same images; "
        f"fresh seeds are what `confirm` runs.{few(len(ranked), 10)}"
    )
    return told


def picked(confirmation: StudyRecord | None) -> list[str]:
    """The pick of the confirmation in a sentence; nothing without one."""
    confirmed = confirmed_of(confirmation)
    if not confirmed:
        return []
    best = pick(confirmed)
    return [
        f"The pick of `confirm`: {describe(best.arm.config)}. Validation accuracy "
        f"{_interval(best.val_accuracy)} on {best.runs} fresh seeds (mean, 95 %)."
    ]


def _confirmed_table(confirmation: StudyRecord | None) -> dict[str, Any]:
    """The table of the confirmed arms, best first."""
    rows = [
        (
            ", ".join(row.arm.roles),
            describe(row.arm.config),
            row.runs,
            _interval(row.val_accuracy),
            _interval(row.val_loss),
            "-" if row.arm.searched is None else f"{row.arm.searched:.4f}",
            "-" if row.shrinkage is None else f"{row.shrinkage:+.4f}",
        )
        for row in confirmed_of(confirmation)
    ]
    measured = ("val_accuracy (95 %)", "val_loss (95 %)", "searched", "shrinkage")
    return {
        "caption": "On fresh seeds, the pick first: means of the runs",
        "header": ("role", "config", "runs", *measured),
        "rows": rows,
        "note": "The intervals cover fresh seeds on the same validation images that chose the configs, so "
        "the mean of the pick is still a little optimistic.",
    }


def _tested_table(confirmation: StudyRecord | None) -> dict[str, Any]:
    """The table of the last opening of the test set; the pick of that time comes first."""
    openings = openings_of(confirmation)
    times = "once" if len(openings) == 1 else f"{len(openings)} times, here the last"
    rows = [
        (
            ", ".join([*(["the pick"] if place == 0 else []), *tested.arm.roles]),
            describe(tested.arm.config),
            tested.runs,
            _interval(tested.accuracy),
        )
        for place, tested in enumerate(openings[-1].tested if openings else ())
    ]
    header = ("role", "config", "runs", "test_accuracy (95 %)")
    return {"caption": f"On the test set, opened {times}", "header": header, "rows": rows}


def _interval(estimate: Estimate) -> str:
    return f"{estimate.mean:.4f} ({estimate.low:.4f}–{estimate.high:.4f})"


def _top_table(study: StudyRecord) -> dict[str, Any]:
    rows = [
        (trial.number, f"{trial.value:.4f}", describe(trial.config))
        for trial in study.ranked()[:TOP]
        if trial.value is not None and trial.config is not None
    ]
    return {"caption": "The best trials", "header": ("trial", study.spec.objective, "config"), "rows": rows}


def _textbook_table(study: StudyRecord) -> dict[str, Any]:
    return {
        "caption": "The recipes that people use, one run each",
        "header": ("recipe", "trial", study.spec.objective, "best ahead by"),
        "rows": [
            (row["recipe"], row["trial"], f"{row['value']:.4f}", f"{row['lead']:.4f}")
            for row in textbook_rows(study)
        ],
    }
