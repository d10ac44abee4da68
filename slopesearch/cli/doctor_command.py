"""The command that looks at the machine: doctor."""

import platform
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from slopesearch.cli.options import DataFolder, Storage, data_folder
from slopesearch.search.store import Store
from slopesearch.search.urls import DEFAULT_URL, without_password
from slopesearch.wording import RequestError, StudyFailedError, printable

WIDTH = 80  # at most, so that a bug report reads well
PACKAGES = ("slopesearch", "torch", "torchvision", "optuna", "numba", "numpy")


def examine_machine(storage: Storage = DEFAULT_URL, data: DataFolder = None) -> None:
    """Say what this machine can do, and whether it does it right: the first thing to run, and to report."""
    from slopesearch.training.devices import checked_torch_pair

    console = Console(width=min(WIDTH, Console().width))
    wrong: list[str] = []

    def tell(name: str, value: str, fault: str | None = None) -> None:
        row = Table.grid(padding=(0, 1))
        row.add_column(width=10, no_wrap=True)
        row.add_column()
        row.add_row(Text(printable(name)), Text(printable(value)))
        console.print(row)
        if fault is not None:
            wrong.append(fault)

    for line in (_system(), _packages(), _storage(storage)):
        tell(*line)
    fatal = False
    try:
        with checked_torch_pair(afresh=True):
            from slopesearch.training.doctor import examine
        tell("torch pair", "torch and torchvision work together")
        tell(*_data(data))
        for finding in examine():
            tell(finding.name, finding.value, finding.wrong)
            fatal = fatal or finding.fatal
    except (RequestError, StudyFailedError) as error:
        tell("torch pair", "broken", str(error))
        fatal = True
    console.print()
    for sentence in wrong:
        console.print(Text(f"wrong: {printable(sentence)}"))
    if not wrong:
        console.print("Nothing is wrong.")
    if fatal:
        raise typer.Exit(1)


Line = tuple[str, str, str | None]  # its name, what there is, and a sentence where that is wrong


def _system() -> Line:
    return "system", f"{platform.platform()}, Python {platform.python_version()}", None


def _packages() -> Line:
    found, missing = [], []
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    fault = f"{sys.executable} lacks {', '.join(missing)}; run `pip install -e .`" if missing else None
    return "packages", ", ".join(found), fault


def _storage(url: str) -> Line:
    try:
        Store(url).check_writable()
    except (RequestError, OSError) as error:
        return "storage", without_password(url), f"no study can be written: {error}"
    return "storage", f"{without_password(url)} can be written", None


def _data(given: Path | None) -> Line:
    """The data folder, or the one that it would be made in, by trying."""
    from slopesearch.training.data import DATASETS, is_there

    try:
        folder = data_folder(given)
        tempfile.TemporaryFile(dir=folder if folder.exists() else folder.absolute().parent).close()
    except RequestError as error:
        return "data", str(given or "$SLOPESEARCH_DATA"), str(error)
    except OSError as error:
        fault = f"nothing can be downloaded into the data folder '{folder}' ({error.strerror})"
        return "data", str(folder), fault
    there = ", ".join(name for name in DATASETS if is_there(name, folder))
    return "data", f"'{folder}' can be written; without a download there are {there}", None
