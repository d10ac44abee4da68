"""The options that commands share, and the text of an option as the value that it means."""

import json
import os
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from slopesearch.wording import RequestError, parse_toml

Storage = Annotated[str, typer.Option(metavar="URL", help="Where studies are kept.")]
StudyName = Annotated[str | None, typer.Argument(help="May be left out where there is one study.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
DataFolder = Annotated[Path | None, typer.Option(help="Data folder; $SLOPESEARCH_DATA or data/ by default.")]
Devices = Annotated[str, typer.Option(help="auto, cpu, cuda, or a list: cuda:0,cuda:2.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, or one of several: cuda:1.")]
Workers = Annotated[int | None, typer.Option(help="Processes in all; one per GPU, or per core without one.")]
Pack = Annotated[
    int | None, typer.Option(help="Trials trained together on a device; 1 on a CPU, more on a GPU.")
]
Launcher = Annotated[str, typer.Option(help="process; inline: train in this one; ray: on a Ray cluster.")]
RayAddress = Annotated[
    str | None,
    typer.Option(metavar="HOST:PORT", help="The Ray cluster, auto for this machine's; a new one by default."),
]


def data_folder(given: Path | None) -> Path:
    """The folder of the option, the variable, or data/. Raises RequestError where a named one is missing."""
    variable = os.environ.get("SLOPESEARCH_DATA")
    named = given or (Path(variable) if variable else None)
    if named is not None and not named.is_dir():
        raise RequestError(f"the data folder '{named}' does not exist; create it, or leave it out for data/")
    return named or Path("data")


def parse_seconds(text: str, option: str) -> float:
    """A duration like 90s, 30m or 2h in seconds. Raises RequestError for other text, and for zero."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", text.strip())
    if match is None or float(match[1]) == 0:
        raise RequestError(f"{option}: a number with s, m or h behind it, like 30m, given '{text}'")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


def parse_set(text: str) -> dict[str, Any]:
    """KEY=VALUE as TOML; a bare word is a string. Raises RequestError where it is neither."""
    key, equals, value = text.partition("=")
    for candidate in (value, json.dumps(value)):
        try:
            if equals:
                return parse_toml(f"{key} = {candidate}")
        except ValueError:
            continue
    raise RequestError(f"--set takes KEY=VALUE, like --set space.lr=0.001, given '{text}'")
