"""The command that says what mattered: compare."""

import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from slopesearch.cli.answer_views import answer_view, answers_json, closing
from slopesearch.cli.live import display_on, doing, note
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
from slopesearch.cli.shipped import shipped, study_file
from slopesearch.cli.tables import say
from slopesearch.cli.verdict_tables import answered_of, unanswered
from slopesearch.evidence.answers import Answer
from slopesearch.evidence.health import COMMAND
from slopesearch.report.verdicts import to_settle
from slopesearch.search.records import COMPARE
from slopesearch.search.store import Store
from slopesearch.search.urls import DEFAULT_URL
from slopesearch.wording import RequestError

if TYPE_CHECKING:  # it loads torch
    from slopesearch.evidence.compare import Compared


def _search(store: Store, asked: str | None) -> str:
    """The name of a search of the storage, or a refusal, before torch is loaded."""
    try:
        return store.read_search(asked, "ranking").name
    except RequestError as error:
        if asked is None or store.spec_of(asked) is not None:
            raise
        declared = ", ".join(name for name in shipped() if name.startswith("compare-"))
        raise RequestError(
            *error.sentences, f"the study files with arms that ship with the package: {declared}"
        ) from None


def _next_commands(
    store: Store, found: "Compared", asked: str, search: str | None, name: str | None
) -> list[str]:
    """What a person would type after a comparison of what was `asked`, which has a page if it is a search."""
    told, where = [], store.option
    unsettled = [(more, one.family.question) for one in found.answers if (more := to_settle(one))]
    if unsettled and not found.interrupted:  # else the same command goes on
        (seeds, _), question = min(unsettled, key=lambda pair: pair[0].runs)
        only = f" --only {question}" if search else ""
        named = f" --name {shlex.quote(name)}" if name else ""
        told.append(
            f"to settle    {COMMAND} compare {shlex.quote(asked)}{only} --seeds {seeds}{named}{where}"
        )
    if search and name in (None, search):
        if not found.interrupted and unanswered(answered_of(store, search)):
            told.append(f"the others   {COMMAND} compare {shlex.quote(search)}{where}")
        told.append(f"as one page  {COMMAND} report {shlex.quote(search)}{where}")
    return [*told, f"look again   {COMMAND} show {shlex.quote(found.name)}{where}"]


def compare_arms(
    asked: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME | STUDY]",
            help="A search, around whose winner; or a study file with arms, or the name of one that ships.",
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
    store, folder = Store(storage), data_folder(data)
    if asked is not None and asked.endswith(".toml"):
        wanted: Path | str | None = study_file(Path(asked))
    elif asked in shipped() and store.spec_of(asked) is None:
        wanted = shipped()[asked]
    else:
        wanted = _search(store, asked)

    from slopesearch.training.devices import checked_torch_pair

    progress, console = Console(stderr=as_json), Console()
    with doing(progress, "loading torch"), checked_torch_pair():
        from slopesearch.evidence.compare import compare
        from slopesearch.report.dashboard import annotate_all
        from slopesearch.search.settings import Settings

    begun = time.monotonic()

    def tell(answer: Answer) -> None:
        nonlocal begun
        if not as_json:
            answer_view(console, answer)
            say(console, f"({(time.monotonic() - begun) / 60:.1f} min)")
        begun = time.monotonic()

    found = compare(
        wanted,
        store=store,
        settings=Settings(folder, devices, workers, pack, launcher, ray_address=ray_address),
        seeds=seeds,
        only=[] if only is None else [one.strip() for one in only.split(",")],
        name=name,
        note=lambda text: note(progress, text),
        display=lambda plan: display_on(progress, plan),
        tell=tell,
    )
    if found.answers:
        annotate_all(store, found.name.removesuffix(COMPARE))
    if as_json:
        print(answers_json(found.answers))
    elif found.answers:
        closing(console, found.answers)
        search = wanted if isinstance(wanted, str) else None
        commands = _next_commands(store, found, asked or search or "", search, name)
        say(console, "\n  ".join(["\nNext:", *commands]))
    if found.interrupted:
        say(progress, "the comparison is not done; the same command goes on with it")
        raise typer.Exit(130)
