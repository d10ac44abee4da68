"""The commands that run the trials of a study: optimize and confirm."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from slopesearch.cli.options import (
    DataFolder,
    Devices,
    Json,
    Launcher,
    Pack,
    RayAddress,
    Storage,
    StudyName,
    Workers,
    data_folder,
    parse_seconds,
    parse_set,
)
from slopesearch.cli.tables import confirmation_json, confirmation_table, say, study_table
from slopesearch.cli.verdict_tables import confirmation_of
from slopesearch.search.sqlite import DEFAULT_URL
from slopesearch.search.store import Store
from slopesearch.wording import RequestError, read_toml

if TYPE_CHECKING:  # it loads torch
    from slopesearch.search.optimize import Outcome


def optimize_study(
    study: Annotated[
        Path | None, typer.Argument(metavar="[STUDY.toml]", help="A study file: the question.")
    ] = None,
    trials: Annotated[int, typer.Option(help="How many finished trials the study shall hold in all.")] = 200,
    name: Annotated[str | None, typer.Option(help="Name of the study; DATASET-MODEL by default.")] = None,
    storage: Storage = DEFAULT_URL,
    data: DataFolder = None,
    dataset: Annotated[str | None, typer.Option(help="auto, mnist, fashion-mnist, kmnist or digits.")] = None,
    model: Annotated[str | None, typer.Option(help="cnn or mlp.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs of each run.")] = None,
    train_size: Annotated[int | None, typer.Option(help="Number of training images.")] = None,
    val_size: Annotated[int | None, typer.Option(help="Number of validation images.")] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of the sampler, the init and the batch order.")
    ] = None,
    devices: Devices = "auto",
    workers: Workers = None,
    pack: Pack = None,
    launcher: Launcher = "process",
    ray_address: RayAddress = None,
    timeout: Annotated[str | None, typer.Option(help="Begin no trial after this time: 90s, 30m, 2h.")] = None,
    hang_timeout: Annotated[str, typer.Option(help="End a worker that is silent for so long: 30m.")] = "30m",
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="The same trials on any number of workers.")
    ] = False,
    sets: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any field of a study file.")
    ] = None,
    tries: Annotated[
        list[Path] | None,
        typer.Option("--try", metavar="FILE", help="A config to run next: exported, or the space's fields."),
    ] = None,
    begin_from: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="STUDY", help="Begin a new study with the trials of this one that fit."
        ),
    ] = None,
) -> None:
    """Run a study, or go on with it until it holds --trials finished trials."""
    from slopesearch.training.devices import checked_torch_pair

    with checked_torch_pair():
        from slopesearch.cli.live import display_on
        from slopesearch.runs.export import read_given
        from slopesearch.search.optimize import optimize
        from slopesearch.search.settings import Settings
        from slopesearch.search.space import check

    names = {"dataset": dataset, "model": model}
    sizes = {"epochs": epochs, "train_size": train_size, "val_size": val_size, "seed": seed}
    spec = check(_asked(study, {**names, **sizes}, sets or []))
    console, store = Console(), Store(storage)
    settings = Settings(
        folder=data_folder(data),
        devices=devices,
        workers=workers,
        pack=pack,
        launcher=launcher,
        timeout=None if timeout is None else parse_seconds(timeout, "timeout"),
        hang_timeout=parse_seconds(hang_timeout, "hang-timeout"),
        deterministic=deterministic,
        ray_address=ray_address,
    )
    given = [read_given(path) for path in tries or []]
    with display_on(console) as listen:
        outcome = optimize(
            spec,
            trials=trials,
            name=name,
            given=given,
            begin_from=begin_from,
            store=store,
            settings=settings,
            listen=listen,
        )
    _show_outcome(console, store, outcome)
    if outcome.interrupted:
        raise typer.Exit(130)


def _asked(file: Path | None, flags: Mapping[str, object], sets: Sequence[str]) -> dict[str, Any]:
    """The fields of a spec that are given: those of the file, of the flags over them, and of --set over both.

    A field of the space leaves the others of the space as they are.
    """
    asked = read_toml(file) if file else {}
    asked |= {key: value for key, value in flags.items() if value is not None}
    for text in sets:
        for key, value in parse_set(text).items():
            if key == "space" and isinstance(value, dict) and isinstance(asked.get(key), dict):
                asked[key] |= value
            else:
                asked[key] = value
    return asked


def _show_outcome(console: Console, store: Store, outcome: "Outcome") -> None:
    """Print the study as it is now, annotate it for the dashboard, and name the next commands."""
    from slopesearch.report.dashboard import INSTALLED, annotate

    record = store.read(outcome.name, "page" if INSTALLED else "ranking")
    study_table(console, record, confirmation_of(store, record.name), store.option)
    with suppress(RequestError):  # another process has begun to write the study, and will annotate it
        annotate(store, record)
    if outcome.space is not None:
        say(
            console,
            f"\nThe space is used up: it holds {outcome.space} configs, and each has a trial. A wider space "
            f"is another study: change the space, and add --name {shlex.quote(outcome.name + '-2')}.",
        )
    elif outcome.finished < outcome.target:
        same = " ".join(map(shlex.quote, ["python", "-m", "slopesearch", *sys.argv[1:]]))
        say(console, f"\n{outcome.finished} of {outcome.target} trials are done; to go on: {same}")
    _print_next(console, store, outcome)


def _print_next(console: Console, store: Store, outcome: "Outcome") -> None:
    command, name, where = "python -m slopesearch", shlex.quote(outcome.name), store.option
    lines = [
        f"look again        {command} show {name}{where}",
        f"one trial         {command} show {name} --trial N{where}",
        f"as one page       {command} report {name}{where}",
        f"confirm           {command} confirm {name}{where}",
        f"what mattered     {command} compare {name}{where}",
        f"in a browser      pip install optuna-dashboard && {command} dashboard{where}",
    ]
    if outcome.finished >= outcome.target and outcome.space is None:
        lines.insert(2, f"more trials       the same command with --trials {2 * outcome.finished}")
    say(console, "\n  ".join(["\nNext:", *lines]))


def confirm_study(
    name: StudyName = None,
    top: Annotated[int, typer.Option(help="How many of the best trials.")] = 5,
    seeds: Annotated[int, typer.Option(help="Runs of each config, on seeds that the search never saw.")] = 10,
    storage: Storage = DEFAULT_URL,
    data: DataFolder = None,
    devices: Devices = "auto",
    workers: Workers = None,
    pack: Pack = None,
    launcher: Launcher = "process",
    ray_address: RayAddress = None,
    open_again: Annotated[
        bool, typer.Option("--open-test-again", help="Open the test set again, for the present pick.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Run the best few of a study again on fresh seeds, then open the test set, once."""
    from slopesearch.training.devices import checked_torch_pair

    with checked_torch_pair():
        from slopesearch.cli.live import display_on
        from slopesearch.evidence.confirm import confirm
        from slopesearch.search.settings import Settings

    progress = Console(stderr=as_json)
    found = confirm(
        name,
        store=Store(storage),
        settings=Settings(data_folder(data), devices, workers, pack, launcher, ray_address=ray_address),
        top=top,
        seeds=seeds,
        open_again=open_again,
        note=lambda text: say(progress, text),
        display=lambda: display_on(progress),
    )
    if found.confirmed and as_json:
        print(confirmation_json(found.confirmed, found.openings))
    elif found.confirmed:
        confirmation_table(Console(), found.confirmed, found.openings)
        where = f"{shlex.quote(found.study.name)}{Store(storage).option}"
        say(progress, f"\nNext:\n  what mattered     python -m slopesearch compare {where}")
    if found.interrupted:
        say(progress, "the confirmation is not done; the same command goes on with it")
        raise typer.Exit(130)
