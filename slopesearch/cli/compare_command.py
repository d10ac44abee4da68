"""The command that says what mattered: compare."""

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from slopesearch.cli.answer_views import answer_view, answers_json, closing
from slopesearch.cli.options import (
    DataFolder,
    Devices,
    Json,
    Launcher,
    Pack,
    RayAddress,
    Storage,
    Workers,
    data_folder,
)
from slopesearch.cli.tables import say
from slopesearch.evidence.answers import Answer
from slopesearch.search.sqlite import DEFAULT_URL
from slopesearch.search.store import Store


def compare_arms(
    asked: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME | STUDY.toml]", help="A search, around whose winner; or a study file with arms."
        ),
    ] = None,
    seeds: Annotated[
        int,
        typer.Option(help="Runs of each arm, on seeds that nothing else saw; activations take three times."),
    ] = 10,
    only: Annotated[
        str | None, typer.Option(help="Some of the questions: slope,learned,norm,init,activation.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the comparison; that of the search or file by default.")
    ] = None,
    storage: Storage = DEFAULT_URL,
    data: DataFolder = None,
    devices: Devices = "auto",
    workers: Workers = None,
    pack: Pack = None,
    launcher: Launcher = "process",
    ray_address: RayAddress = None,
    as_json: Json = False,
) -> None:
    """What in the winner mattered: each choice swapped, on paired seeds, with a verdict; or declared arms."""
    from slopesearch.training.devices import checked_torch_pair

    with checked_torch_pair():
        from slopesearch.cli.live import display_on
        from slopesearch.evidence.compare import compare
        from slopesearch.search.settings import Settings

    progress, console = Console(stderr=as_json), Console()
    begun = time.monotonic()

    def tell(answer: Answer) -> None:
        nonlocal begun
        if not as_json:
            answer_view(console, answer)
            say(console, f"({(time.monotonic() - begun) / 60:.1f} min)")
        begun = time.monotonic()

    store = Store(storage)
    found = compare(
        Path(asked) if asked is not None and asked.endswith(".toml") else asked,
        store=store,
        settings=Settings(data_folder(data), devices, workers, pack, launcher, ray_address=ray_address),
        seeds=seeds,
        only=[] if only is None else [one.strip() for one in only.split(",")],
        name=name,
        note=lambda text: say(progress, text),
        display=lambda: display_on(progress),
        tell=tell,
    )
    if as_json:
        print(answers_json(found.answers))
    elif found.answers:
        closing(console, found.answers)
    if found.interrupted:
        say(progress, "the comparison is not done; the same command goes on with it")
        raise typer.Exit(130)
