"""The report: one self-contained HTML page of a stored study, made without torch or a network."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from slopesearch.config import Range, StudySpec
from slopesearch.evidence.answers import Answer, answers_of
from slopesearch.evidence.health import COMMAND, Health, health
from slopesearch.evidence.results import ConfirmedArm, confirmed_of, openings_of, pick
from slopesearch.evidence.statistics import ALPHA, FEWEST, Estimate
from slopesearch.files import write_aside
from slopesearch.report.answers_panel import QUESTIONS, Card, cards
from slopesearch.report.findings import around, belief, counts, headline, interval, lead, slope_words
from slopesearch.report.forest import arm_names, confirmed_forest, differences_forest, remarks, section
from slopesearch.report.plots import COMPARING, PLOTS
from slopesearch.report.style import Rows, adaptive, for_script, objective_name
from slopesearch.report.summary import NO_VERDICTS, TOP, Verdicts, textbook_rows
from slopesearch.search.records import StudyRecord
from slopesearch.training.devices import usable_cores
from slopesearch.wording import counted, describe

WILD = 5  # times the usual standard deviation between seeds: more than chance gives an arm of four seeds


def tables_of(study: StudyRecord, names: Iterable[str] = PLOTS) -> dict[str, Rows]:
    """The rows behind figures, by name; those that compare know nothing of what a person gave."""
    sampled = study.sampled()
    return {name: PLOTS[name].rows(sampled if name in COMPARING else study) for name in names}


def write_page(
    study: StudyRecord, tables: dict[str, Rows], path: Path, verdicts: Verdicts = NO_VERDICTS, where: str = ""
) -> None:
    """Write the page in one step. Raises OSError where the folder cannot be written to."""
    write_aside(path, page(study, tables, verdicts, where).encode())


def page(
    study: StudyRecord, tables: dict[str, Rows], verdicts: Verdicts = NO_VERDICTS, where: str = ""
) -> str:
    """The page as HTML; `where` is the option that names the storage on a command line.

    A comparison of declared arms has no search: it is the study itself, without tables. All text of the
    study is escaped, on the page and inside its scripts.
    """
    figures = [_figure(name, tables[name], study.spec) for name in PLOTS if name in tables]
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_unbroken,
    )
    is_search = study is not verdicts.comparison
    answers = answers_of(verdicts.comparison)
    confirmed = confirmed_of(verdicts.confirmation)
    found = cards(study, verdicts)
    return environment.get_template("page.html").render(
        study=study,
        headline=headline(study, verdicts),
        left_out=study.left_out(),
        lead=lead(study, verdicts) if is_search else " ".join(one.family.asks for one in answers.values()),
        cards=found,
        legend=_legend(found, answers, confirmed),
        where=where.strip(),
        cores=counted(usable_cores(), "core"),
        confirmed=_confirmed_section(confirmed, verdicts.confirmation, study.spec),
        answers=[section(answer) for answer in sorted(answers.values(), key=_place)],
        around=around(answers, confirmed) if is_search else "",
        remarks=remarks(answers),
        belief=belief(study, verdicts) if is_search else [],
        doubts=[_doubt(one) for one in health(study, confirmed, answers, where)] if is_search else [],
        searched=[table for table in _searched_tables(study, confirmed) if table["rows"]]
        if is_search
        else [],
        counts=counts(study),
        caution=adaptive(study.spec).strip() if figures else "",
        figures=figures,
        asked=asked(study),
        plotly=Markup(get_plotlyjs()),
    )


def _unbroken(value: object) -> object:
    """Text in which no line ends between a number and its per cent sign or its error."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return re.sub(r"(?<=\d) ?%", "\N{NO-BREAK SPACE}%", value).replace(
        " ± ", "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}"
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


def _legend(
    found: Sequence[Card], answers: dict[str, Answer], confirmed: Sequence[ConfirmedArm]
) -> list[str]:
    """What the numbers in the cards are, in as few sentences as do."""
    told = []
    if answers:
        smallest = {f"{100 * (a.family.smallest_loss - 1):.3g} %" for a in answers.values()}
        told.append(
            "Effects are differences on paired seeds with 95 % intervals. Settled: tested to be at least "
            f"{' or '.join(sorted(smallest))} of the loss, or tested to be less."
        )
    if confirmed and any("of confirm" in card.evidence for card in found):
        told.append(
            "The arms of a confirmation differ in more than one choice, and the pick was chosen by these "
            "runs, which flatters it: they compare configs, not choices. Their p counts all arms."
        )
    return told


def _place(answer: Answer) -> int:
    """The place of an answer on the page: that of its question."""
    question = answer.family.question
    return list(QUESTIONS).index(question) if question in QUESTIONS else len(QUESTIONS)


def _doubt(doubt: Health) -> dict[str, str]:
    """A doubt with its command apart."""
    words, command, rest = doubt.text.partition(COMMAND)
    return {"grade": doubt.grade, "text": words, "command": command + rest}


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


def _spoilt(confirmed: Sequence[ConfirmedArm]) -> str:
    """A sentence on arms of which a seed or two went wrong, where there are some."""
    usual = median(row.val_loss.sd for row in confirmed)
    wild = [
        name
        for name, row in zip(arm_names(confirmed), confirmed, strict=True)
        if row.val_loss.sd > WILD * usual
    ]
    if not wild:
        return ""
    return (
        f" The loss of {', '.join(wild)} differs between seeds over {WILD} times as much as is usual here: "
        "one seed may have spoilt the mean."
    )


def _confirmed_section(
    confirmed: Sequence[ConfirmedArm], confirmation: StudyRecord | None, spec: StudySpec
) -> dict[str, Any]:
    """The forest of a confirmation, the pick's differences, and their tables; empty without one."""
    if not confirmed:
        return {}
    differences = differences_forest(confirmed)
    rivals = [row for row in confirmed if row.difference is not None]
    level = [
        name
        for name, row in zip(arm_names(confirmed), confirmed, strict=True)
        if row.difference is not None and (row.difference.p_loss is None or row.difference.p_loss >= ALPHA)
    ]
    told = ""
    if rivals and any(row.difference is not None and row.difference.p_loss is None for row in rivals):
        told = f"A verdict takes {FEWEST} seeds: these are intervals."
    elif rivals:
        told = f"The pick is told apart from {len(rivals) - len(level)} of {len(rivals)} other arms"
        told += f", not from {', '.join(level)}." if level else "."
    if rivals:
        told += (
            f" First {objective_name(spec)} in all runs; then the loss of the pick minus that of each arm, "
        )
        told += f"seed by seed, on a scale that is logarithmic far from zero.{_spoilt(confirmed)}"
    return {
        "seeds": pick(confirmed).runs,
        "sentence": told,
        "forest": for_script(confirmed_forest(confirmed, spec)),
        "differences": "" if differences is None else for_script(differences),
        "tables": [
            *(_confirmed_table(confirmed), _configs_table(confirmed)),
            *([tested] if (tested := _tested_table(confirmation))["rows"] else []),
        ],
    }


def _confirmed_table(confirmed: Sequence[ConfirmedArm]) -> dict[str, Any]:
    """The table of the confirmed arms, best first; a column for p where there are seeds enough."""
    has_p = any(row.difference is not None and row.difference.p_loss is not None for row in confirmed)
    rows: list[tuple[object, ...]] = []
    for place, row in enumerate(confirmed, start=1):
        apart = row.difference
        p = "" if apart is None or apart.p_loss is None else f"{apart.p_loss:.3f}"
        rows.append(
            (
                *(place, ", ".join(row.arm.roles), _about(row.val_accuracy), _about(row.val_loss)),
                "" if apart is None else _about(apart.val_loss, "+"),
                *((p,) if has_p else ()),
                "" if row.arm.searched is None else f"{row.arm.searched:.4f}",
                "" if row.shrinkage is None else f"{row.shrinkage:+.4f}",
            )
        )
    compared = ("pick minus this", *(("p",) if has_p else ()), "searched", "shrinkage")
    tested = "p is family-wise (max-T of sign flips over all arms). " if has_p else ""
    return {
        "caption": f"Each arm on {pick(confirmed).runs} fresh seeds, the pick first",
        "header": ("", "why it is here", "val_accuracy ± 95 %", "val_loss ± 95 %", *compared),
        "rows": rows,
        "note": f"Pick minus this: of val_loss, seed by seed. {tested}The pick was chosen by these runs, so "
        "its lead is a little flattered.",
    }


def _configs_table(confirmed: Sequence[ConfirmedArm]) -> dict[str, Any]:
    """What the confirmed arms are, by their numbers in the other table."""
    configs = [row.arm.config for row in confirmed]
    rows = [
        (place, config.activation, slope_words(config), config.norm, config.init, f"{config.lr:.3g}")
        for place, config in enumerate(configs, start=1)
    ]
    header = ("", "activation", "slope", "norm", "init", "lr")
    return {"caption": "Their configs", "header": header, "rows": rows}


def _tested_table(confirmation: StudyRecord | None) -> dict[str, Any]:
    """The table of the last opening of the test set; the pick of that time comes first."""
    openings = openings_of(confirmation)
    times = "once" if len(openings) == 1 else f"{len(openings)} times, here the last"
    rows = [
        (
            describe(tested.arm.config),
            tested.runs,
            interval(tested.accuracy, is_share=True),
            ", ".join([*(["the pick"] if place == 0 else []), *tested.arm.roles]),
        )
        for place, tested in enumerate(openings[-1].tested if openings else ())
    ]
    header = ("config", "runs", "test_accuracy (95 %)", "why it is here")
    return {"caption": f"On the test set, opened {times}", "header": header, "rows": rows}


def _about(found: Estimate, sign: str = "") -> str:
    return f"{found.mean:{sign}.4f} ± {found.half:.4f}"


def _searched_tables(study: StudyRecord, confirmed: Sequence[ConfirmedArm]) -> list[dict[str, Any]]:
    """What the search ranks first; the textbook's recipes too, where fresh seeds have not said better."""
    return [_top_table(study), *([] if confirmed else [_textbook_table(study)])]


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
