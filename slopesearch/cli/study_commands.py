"""The commands that read the studies of a storage: list, show, report and dashboard; without torch."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from slopesearch.cli.answer_views import answers_json, answers_view
from slopesearch.cli.json_views import study_json, trial_json
from slopesearch.cli.options import Json, Storage, StudyName
from slopesearch.cli.tables import (
    say,
    study_table,
    summaries_table,
    trial_view,
    wrapped,
)
from slopesearch.cli.verdict_tables import answered_of, confirmation_of
from slopesearch.evidence.answers import answers_of
from slopesearch.evidence.pruning import why_stopped
from slopesearch.evidence.results import confirmed_of, pick
from slopesearch.files import refuse_special
from slopesearch.report.summary import TOP, Verdicts, verdicts_of
from slopesearch.search.records import COMPARE, CONFIRM, VERDICTS, StudySummary
from slopesearch.search.rows import collector_at_rest
from slopesearch.search.store import Store
from slopesearch.search.urls import DEFAULT_URL
from slopesearch.wording import RequestError, counted, printable


def list_studies(
    storage: Storage = DEFAULT_URL,
    as_json: Json = False,
    delete: Annotated[
        str | None, typer.Option(metavar="NAME", help="Delete a study and its verdict, after a question.")
    ] = None,
    copy: Annotated[
        tuple[str, Path] | None,
        typer.Option(metavar="NAME FILE.db", help="Copy a study and its verdict to a new file."),
    ] = None,
) -> None:
    """List the studies of a storage; or delete one, or copy one."""
    if delete is not None and copy is not None:
        raise RequestError("--delete and --copy are two things; name one of them")
    if delete is not None:
        _delete(Store(storage), delete)
        return
    if copy is not None:
        copied = Store(storage).copy(*copy)
        say(Console(), f"{copy[1]}: {', '.join(map(_counted, copied))}")
        return
    store = Store(storage)
    summaries = store.summaries()
    confirmed = {}
    for name in (
        summary.name.removesuffix(CONFIRM) for summary in summaries if summary.name.endswith(CONFIRM)
    ):
        found = confirmation_of(store, name)
        if found is not None and (arms := confirmed_of(found)):
            best = pick(arms)
            confirmed[name] = (best.val_accuracy if found.spec.maximize else best.val_loss).mean
    if as_json:
        rows = [{**vars(summary), "confirmed": confirmed.get(summary.name)} for summary in summaries]
        print(json.dumps(rows, indent=2))
    else:
        summaries_table(Console(), summaries, confirmed)


def _delete(store: Store, name: str) -> None:
    def is_sure(parts: Sequence[StudySummary]) -> bool:
        return typer.confirm(printable(f"delete {' and '.join(map(_counted, parts))} for good?"))

    done = store.delete(name, is_sure)
    say(Console(), f"{name} is deleted" if done else "nothing was deleted")


def _counted(study: StudySummary) -> str:
    trials = study.complete + study.pruned + study.running + study.waiting + study.failed
    return f"{study.name} ({counted(trials, 'trial')})"


@collector_at_rest()
def show_study(
    name: StudyName = None,
    trial: Annotated[int | None, typer.Option(help="Number of one trial to show.")] = None,
    storage: Storage = DEFAULT_URL,
    as_json: Json = False,
) -> None:
    """Show a study, its best configs and their lead over the textbook; or one trial."""
    store = Store(storage)
    record = store.read(name, "ranking")
    answers = answers_of(record).values()
    if trial is None and answers:
        print(answers_json(answers)) if as_json else answers_view(Console(), answers)
    elif trial is not None:
        (whole,) = store.whole(record, [record.trial(trial)])
        why = why_stopped(record, whole)
        print(trial_json(whole, why)) if as_json else trial_view(Console(), whole, why)
    else:
        is_search = not record.name.endswith(VERDICTS)
        confirmation = confirmation_of(store, record.name) if is_search else None
        answered = answered_of(store, record.name) if is_search else {}
        if as_json:
            top = store.whole(record, record.ranked()[:TOP])
            print(study_json(record, top, confirmation, answered, store.option))
            return
        study_table(Console(), record, confirmation, answered, store.option)
        if record.name.endswith(COMPARE):
            wrapped(Console(), "No question is answered yet: the same `compare` command goes on.")


@collector_at_rest()
def report_study(
    name: StudyName = None,
    out: Annotated[Path, typer.Option("-o", "--out", help="The page to write.")] = Path("report.html"),
    data_out: Annotated[
        Path | None, typer.Option(help="Folder for the tables behind the page, as CSV.")
    ] = None,
    storage: Storage = DEFAULT_URL,
) -> None:
    """Write what a study found as one HTML page that needs no network."""
    from slopesearch.report.page import tables_of, write_page
    from slopesearch.report.plots import write_tables
    from slopesearch.report.verdicts import contrast_rows, run_rows

    if out.is_dir() or not out.absolute().parent.is_dir():
        raise RequestError(f"-o takes a file in a folder that exists, like report.html, given '{out}'")
    refuse_special(out)  # now, not when the page is made
    if data_out is not None and data_out.exists() and not data_out.is_dir():
        raise RequestError(f"--data-out takes a folder, which may be new, given the file '{data_out}'")
    store = Store(storage)
    search = name.rpartition("/")[0] if name is not None and name.endswith(VERDICTS) else None
    declared = search is not None and str(name).endswith(COMPARE) and store.find(search, "ranking") is None
    if search is not None and not declared:
        raise RequestError(
            f"'{name}' is the verdict of a search and stands on the search's page; name the search: "
            f"python -m slopesearch report {shlex.quote(search)}{store.option}"
        )
    record = store.read(name, "page")
    verdicts = Verdicts(comparison=record) if declared else verdicts_of(store, record.name)
    tables = {} if declared else tables_of(record)  # the figures of a search
    write_page(record, tables, out, verdicts, store.option)
    answers = answers_of(verdicts.comparison)
    tables |= {"compare": contrast_rows(answers), "compare_runs": run_rows(answers)}
    console = Console()
    for sentence in record.left_out():
        say(console, f"left out: {sentence}")
    say(console, f"{out}: {len(record.trials)} trials of {record.name}, {out.stat().st_size / 1e6:.1f} MB")
    if data_out is not None:
        written = write_tables(record, tables, data_out)
        say(console, f"{data_out}: {len(written)} tables")


def serve_dashboard(
    storage: Storage = DEFAULT_URL,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port to listen on.")] = 8080,
) -> None:
    """Run optuna-dashboard on a storage; a study may go on meanwhile. First: pip install optuna-dashboard."""
    from slopesearch.report.dashboard import serve

    serve(Store(storage), host, port)
