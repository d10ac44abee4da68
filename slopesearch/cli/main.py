"""The command line: parse, call, print."""

import io
import json
import re
import shlex
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from slopesearch.cli import models as cli_models
from slopesearch.cli.options import (
    DataFolder,
    Devices,
    Json,
    Launcher,
    Pack,
    Storage,
    StudyName,
    Workers,
    data_folder,
)
from slopesearch.cli.tables import (
    LINES,
    say,
    study_json,
    study_table,
    summaries_table,
    trial_json,
    trial_view,
)
from slopesearch.search.sqlite import DEFAULT_URL
from slopesearch.search.store import Store
from slopesearch.wording import RequestError, StudyFailedError, parse_toml, printable, read_toml

app = typer.Typer(
    help="Search activation, slope, BatchNorm placement, init and learning rate on MNIST.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def optimize(
    study: Annotated[Path | None, typer.Argument(metavar="[STUDY.toml]", help="What to ask.")] = None,
    trials: Annotated[int, typer.Option(help="How many finished trials the study shall hold in all.")] = 200,
    name: Annotated[str | None, typer.Option(help="Of the study; DATASET-MODEL by default.")] = None,
    storage: Storage = DEFAULT_URL,
    data: DataFolder = None,
    dataset: Annotated[str | None, typer.Option(help="auto, mnist, fashion-mnist, kmnist or digits.")] = None,
    model: Annotated[str | None, typer.Option(help="cnn or mlp.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Of each run.")] = None,
    train_size: Annotated[int | None, typer.Option(help="Training images.")] = None,
    val_size: Annotated[int | None, typer.Option(help="Validation images.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of sampler, init and batch order.")] = None,
    devices: Devices = "auto",
    workers: Workers = None,
    pack: Pack = None,
    launcher: Launcher = "process",
    timeout: Annotated[str | None, typer.Option(help="Begin no trial after: 90s, 30m, 2h.")] = None,
    hang_timeout: Annotated[str, typer.Option(help="End a worker that is silent for so long.")] = "30m",
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="The same trials on any number of workers.")
    ] = False,
    sets: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any field of a study file.")
    ] = None,
) -> None:
    """Run a study, or go on with it until it holds --trials finished trials."""
    from slopesearch.training.devices import checked_torch_pair

    with checked_torch_pair():
        from slopesearch.cli.live import Lines, LiveDisplay
        from slopesearch.search.optimize import optimize as run
        from slopesearch.search.settings import Settings
        from slopesearch.search.space import check

    flags = {
        "dataset": dataset,
        "model": model,
        "epochs": epochs,
        "train_size": train_size,
        "val_size": val_size,
        "seed": seed,
    }
    asked = read_toml(study) if study else {}
    asked |= {key: value for key, value in flags.items() if value is not None}
    for text in sets or []:
        _merge(asked, _parse_set(text))
    spec, store, console = check(asked), Store(storage), Console()
    settings = Settings(
        folder=data_folder(data),
        devices=devices,
        workers=workers,
        pack=pack,
        launcher=launcher,
        timeout=None if timeout is None else _seconds(timeout, "timeout"),
        hang_timeout=_seconds(hang_timeout, "hang-timeout"),
        deterministic=deterministic,
    )
    with LiveDisplay(console) if console.is_terminal else Lines(console) as listen:
        outcome = run(spec, trials=trials, name=name, store=store, settings=settings, listen=listen)
    record = store.read(outcome.name)
    study_table(console, record)
    from slopesearch.report.dashboard import annotate

    with suppress(RequestError):  # somebody has begun to write it again, and will do this
        annotate(store, record)
    again = " ".join(map(shlex.quote, ["python", "-m", "slopesearch", *sys.argv[1:]]))
    if outcome.finished < outcome.target:
        say(console, f"\n{outcome.finished} of {outcome.target} trials are done; to go on: {again}")
    _print_next(console, store, outcome.name, outcome.finished, outcome.target)
    if outcome.interrupted:
        raise typer.Exit(130)


def _print_next(console: Console, store: Store, name: str, finished: int, target: int) -> None:
    where, command = store.option, "python -m slopesearch"
    lines = [
        f"look again        {command} show {shlex.quote(name)}{where}",
        f"one trial         {command} show {shlex.quote(name)} --trial N{where}",
        f"as one page       {command} report {shlex.quote(name)}{where}",
        f"confirm           {command} confirm {shlex.quote(name)}{where}",
        f"in a browser      pip install optuna-dashboard && {command} dashboard{where}",
    ]
    if finished >= target:
        lines.insert(2, f"more trials       the same command with --trials {2 * finished}")
    say(console, "\n  ".join(["\nNext:", *lines]))


def _seconds(text: str, option: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", text.strip())
    if match is None or float(match[1]) == 0:
        raise RequestError(f"{option}: a number with s, m or h behind it, like 30m, given '{text}'")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


def _parse_set(text: str) -> dict[str, Any]:
    """KEY=VALUE as TOML; a bare word is a string."""
    key, equals, value = text.partition("=")
    for candidate in (value, json.dumps(value)):
        try:
            if equals:
                return parse_toml(f"{key} = {candidate}")
        except ValueError:
            continue
    raise RequestError(f"--set takes KEY=VALUE, like --set space.lr=0.001, given '{text}'")


def _merge(into: dict[str, Any], new: dict[str, Any]) -> None:
    """Overwrite what is new; tables are merged."""
    for key, value in new.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict) and key == "space":
            into[key] |= value
        else:
            into[key] = value


@app.command("list")
def list_studies(storage: Storage = DEFAULT_URL, as_json: Json = False) -> None:
    """The studies of a storage."""
    summaries = Store(storage).summaries()
    if as_json:
        print(json.dumps([vars(summary) for summary in summaries], indent=2))
    else:
        summaries_table(Console(), summaries)


@app.command()
def show(
    name: StudyName = None,
    trial: Annotated[int | None, typer.Option(help="One trial, by its number.")] = None,
    storage: Storage = DEFAULT_URL,
    as_json: Json = False,
) -> None:
    """One study: its best configs, and how far ahead of the textbook they are. Or one trial."""
    record = Store(storage).read(name)
    if trial is None:
        print(study_json(record)) if as_json else study_table(Console(), record)
        return
    if as_json:
        print(trial_json(record.trial(trial)))
    else:
        trial_view(Console(), record.trial(trial))


@app.command()
def report(
    name: Annotated[str | None, typer.Argument(help="May be left out where there is one study.")] = None,
    out: Annotated[Path, typer.Option("-o", "--out", help="The page to write.")] = Path("report.html"),
    data_out: Annotated[
        Path | None, typer.Option(help="Folder for the tables behind the page, as CSV.")
    ] = None,
    storage: Storage = DEFAULT_URL,
) -> None:
    """Write what a study found as one HTML page that needs no network."""
    from slopesearch.report.page import tables_of, write_page
    from slopesearch.report.plots import write_tables
    from slopesearch.search.records import CONFIRM, VERDICTS

    if out.is_dir() or not out.absolute().parent.is_dir():
        raise RequestError(f"-o takes a file in a folder that exists, like report.html, given '{out}'")
    if data_out is not None and data_out.exists() and not data_out.is_dir():
        raise RequestError(f"--data-out takes a folder, which may be new, given the file '{data_out}'")
    if name is not None and name.endswith(VERDICTS):
        raise RequestError(
            f"'{name}' is the verdict of a search and stands on the search's page; name the search: "
            f"python -m slopesearch report {shlex.quote(name.rpartition('/')[0])}"
        )
    store = Store(storage)
    record = store.read(name)
    tables = tables_of(record)
    write_page(record, tables, out, store.find(record.name + CONFIRM))
    console = Console()
    say(console, f"{out}: {len(record.trials)} trials of {record.name}, {out.stat().st_size / 1e6:.1f} MB")
    if data_out is not None:
        written = write_tables(record, tables, data_out)
        say(console, f"{data_out}: {len(written)} tables")


@app.command()
def dashboard(
    storage: Storage = DEFAULT_URL,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port to listen on.")] = 8080,
) -> None:
    """Run optuna-dashboard on a storage; a study may go on meanwhile."""
    from slopesearch.report.dashboard import serve

    serve(Store(storage), host, port)


for command in cli_models.COMMANDS:
    app.command()(command)


def main() -> None:
    """Run the command line; exit 2 where the request was wrong, 1 where the work failed."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name may hold what the terminal cannot show
    try:
        app(prog_name="python -m slopesearch")
    except RequestError as error:
        print("error: " + "\n       ".join(map(printable, error.sentences)), file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.filename is None:  # a fault of the machine, not of a path that was given
            raise
        path = printable(str(error.filename))
        print(f"error: '{path}': {error.strerror}; check the path and its permissions", file=sys.stderr)
        sys.exit(2)
    except StudyFailedError as error:
        print(f"error: {printable(str(error), keep=LINES)}", file=sys.stderr)
        sys.exit(1)
