"""The study files that ship with the package: found by their name from any folder, and listed."""

import re
from pathlib import Path

from rich.console import Console

import slopesearch
from slopesearch.cli.tables import say, wrapped
from slopesearch.wording import RequestError

FOLDER = Path("studies")  # where a study file is looked for by its name, before the package is asked


def shipped() -> dict[str, Path]:
    """The study files by name; beside the package in a checkout, in it where it is installed."""
    package = Path(slopesearch.__file__).parent
    folder = next(place for place in (package / FOLDER, package.parent / FOLDER) if place.is_dir())
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def study_file(given: Path) -> Path:
    """The study file of a path, or of a name: NAME or studies/NAME.toml, here or else in the package.

    Raises RequestError, with the names that ship, where there is none.
    """
    for path in (given, FOLDER / f"{given}.toml"):
        if path.exists() and not path.is_dir():
            return path
    name, ours = given.stem if given == FOLDER / f"{given.stem}.toml" else str(given), shipped()
    if name not in ours:
        raise RequestError(
            f"there is no study file '{given}'; check the path, or name one that ships with the package: "
            f"{', '.join(ours)} (python -m slopesearch studies says what they ask)"
        )
    return ours[name]


def list_shipped() -> None:
    """List the study files that ship with the package: their questions, their cost, what to type."""
    console = Console()
    for name, path in shipped().items():
        first, second = path.read_text(encoding="utf-8").splitlines()[:2]
        question, cost = re.split(r"\s{2,}", first.removeprefix("# "), maxsplit=1)
        say(console, f"{name}  ({cost})")
        wrapped(console, question, indent="  ")
        say(console, f"  {second.removeprefix('#').strip()}")
    wrapped(
        console, "Each is a TOML file to copy and change; a file of the same path in your folder comes first."
    )
