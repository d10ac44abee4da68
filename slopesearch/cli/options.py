"""What several commands of the command line share."""

import os
from pathlib import Path
from typing import Annotated

import typer

from slopesearch.wording import RequestError

Storage = Annotated[str, typer.Option(metavar="URL", help="Where studies are kept.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
DataFolder = Annotated[Path | None, typer.Option(help="Data folder; $SLOPESEARCH_DATA or data/ by default.")]
Devices = Annotated[str, typer.Option(help="auto, cpu, cuda, or a list: cuda:0,cuda:2.")]
Workers = Annotated[int | None, typer.Option(help="Processes in all; one per GPU, or per core without one.")]
Pack = Annotated[
    int | None, typer.Option(help="Trials trained together on a device; 1 on a CPU, more on a GPU.")
]
Launcher = Annotated[str, typer.Option(help="process, or inline: train in this one.")]
StudyName = Annotated[str | None, typer.Argument(help="May be left out where there is one study.")]


def data_folder(given: Path | None) -> Path:
    """The folder that is named, by option or variable, or data/. Raises RequestError where it is missing."""
    named = given or (Path(os.environ["SLOPESEARCH_DATA"]) if os.environ.get("SLOPESEARCH_DATA") else None)
    if named is not None and not named.is_dir():
        raise RequestError(f"the data folder '{named}' does not exist; create it, or leave it out for data/")
    return named or Path("data")
