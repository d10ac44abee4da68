"""The options that commands share, and the text of an option as the value that it means."""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from slopesearch.config import Range, Space, StudySpec
from slopesearch.wording import RequestError, mistakes, parse_toml

RANGES = [name for name, field in Space.model_fields.items() if isinstance(field.default, Range)]

Storage = Annotated[
    str, typer.Option(metavar="URL", help="Where studies are kept: sqlite:///FILE, or a PostgreSQL database.")
]
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
    """KEY=VALUE as TOML; a bare word is a string.

    Raises RequestError where it is neither, and for two numbers that were meant as a range.
    """
    key, equals, value = text.partition("=")
    for candidate in (value, json.dumps(value)):
        try:
            if equals:
                parsed = parse_toml(f"{key} = {candidate}")
                _refuse_two_ends(parsed)
                return parsed
        except ValueError:
            continue
    raise RequestError(f"--set takes KEY=VALUE, like --set space.lr=0.001, given '{text}'")


def _refuse_two_ends(parsed: dict[str, Any]) -> None:
    """Raise RequestError for a rising pair of numbers where the default is a range: a list is a choice."""
    space = parsed.get("space")
    for name, value in (space if isinstance(space, dict) else {}).items():
        if name not in RANGES or not isinstance(value, list) or len(value) != 2:
            continue
        if not all(type(end) in (int, float) for end in value) or not value[0] < value[1]:
            continue
        low, high = value
        log = ", log = true" if low > 0 else ""
        raise RequestError(
            f"space.{name}=[{low}, {high}] is two choices; for a range write "
            f"--set 'space.{name}={{low = {low}, high = {high}{log}}}', for the two values alone the larger "
            f"one first: --set 'space.{name}=[{high}, {low}]'"
        )


def check_fields(asked: Mapping[str, Any]) -> None:
    """Raise RequestError for the keys, types and ranges that are wrong in a spec, without loading torch.

    Names are in registries that load it: where some are given, all mistakes are told at once, by `check`.
    """
    space = asked.get("space")
    names = {"dataset", "model", "sampler", "pruner"} & set(asked)
    if names or (isinstance(space, Mapping) and {"activation", "init"} & set(space)):
        return
    try:
        StudySpec.model_validate(asked)
    except ValidationError as error:
        raise RequestError(*mistakes(error, StudySpec)) from None
