"""The commands that run the trials of a study: optimize and confirm."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from slopesearch.cli.ending import ending, next_commands, verdict
from slopesearch.cli.json_views import confirmation_json
from slopesearch.cli.live import display_on, doing, note
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
    check_fields,
    data_folder,
    parse_seconds,
    parse_set,
)
from slopesearch.cli.shipped import study_file
from slopesearch.cli.tables import confirmation_table, say, with_command
from slopesearch.cli.verdict_tables import confirmation_of, is_finished
from slopesearch.evidence.health import COMMAND
from slopesearch.evidence.results import ConfirmedArm, Opening, confirmed_of, openings_of
from slopesearch.search.records import StudyRecord
from slopesearch.search.rows import collector_at_rest
from slopesearch.search.store import Store
from slopesearch.search.urls import DEFAULT_URL, without_password
from slopesearch.wording import RequestError, read_toml

if TYPE_CHECKING:  # it loads torch
    from slopesearch.search.optimize import Outcome


def optimize_study(
    study: Annotated[
        Path | None,
        typer.Argument(
            metavar="[STUDY]",
            help="A study file: the question; or the name of one that python -m slopesearch studies lists.",
        ),
    ] = None,
    trials: Annotated[int, typer.Option(help="How many finished trials the study shall hold in all.")] = 200,
    name: Annotated[
        str | None,
        typer.Option(help="Name of the study; FILE-DATASET, or DATASET-MODEL without a file, by default."),
    ] = None,
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
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Any field of a study file, like space.norm=before; "
            "a range: 'space.lr={low = 0.0001, high = 0.01, log = true}'.",
        ),
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
    # What can be refused without torch, which takes seconds to load, is refused before it.
    file = None if study is None else _asking(study, storage)
    names = {"dataset": dataset, "model": model}
    sizes = {"epochs": epochs, "train_size": train_size, "val_size": val_size, "seed": seed}
    asked = _asked(file, {**names, **sizes}, sets or [])
    if "arms" in asked:
        raise RequestError(
            f"'{study}' declares arms to compare; type: "
            f"python -m slopesearch compare {shlex.quote(str(study))}"
        )
    check_fields(asked)
    seconds = None if timeout is None else parse_seconds(timeout, "timeout")
    silence, folder, store = parse_seconds(hang_timeout, "hang-timeout"), data_folder(data), Store(storage)
    for path in tries or []:
        read_toml(path, "config file")
    if begin_from is not None:
        store.read_search(begin_from, "ranking")
    store.check_writable()

    from slopesearch.training.devices import checked_torch_pair

    console = Console()
    with doing(console, "loading torch"), checked_torch_pair():
        from slopesearch.runs.export import read_given
        from slopesearch.search.optimize import optimize
        from slopesearch.search.settings import Settings
        from slopesearch.search.space import check

    spec = check(asked)
    settings = Settings(
        folder=folder,
        devices=devices,
        workers=workers,
        pack=pack,
        launcher=launcher,
        timeout=seconds,
        hang_timeout=silence,
        deterministic=deterministic,
        ray_address=ray_address,
    )
    given = [read_given(path) for path in tries or []]
    with display_on(console) as listen:
        outcome = optimize(
            spec,
            trials=trials,
            name=name,
            source=None if file is None else file.stem,
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


def _asking(study: Path, storage: str) -> Path:
    """The study file that was named, or a refusal, which knows what to type for a study of that name."""
    try:
        return study_file(study)
    except RequestError as error:
        store = Store(storage)
        if study.suffix == ".toml" or store.spec_of(str(study)) is None:
            raise
        again = f"{COMMAND} optimize --name {shlex.quote(str(study))}{store.option}"
        raise RequestError(
            *error.sentences, f"a study '{study}' is there; to go on with it: {again}"
        ) from None


@collector_at_rest()
def _show_outcome(console: Console, store: Store, outcome: "Outcome") -> None:
    """Annotate the study for the dashboard, and print it as it is now, with the next commands."""
    from slopesearch.report.dashboard import INSTALLED, annotate

    record = store.read(outcome.name, "dashboard" if INSTALLED else "ranking")
    with suppress(RequestError):  # another process has begun to write the study, and will annotate it
        annotate(store, record)
    ending(console, store, record, _why_ended(outcome))


def _why_ended(outcome: "Outcome") -> list[str]:
    if outcome.space is not None:
        return [
            f"The space is used up: it holds {outcome.space} configs, and each has a trial. A wider space "
            f"is another study: change the space, and add --name {shlex.quote(outcome.name + '-2')}."
        ]
    done = f"{outcome.finished} of {outcome.target} trials are done"
    if outcome.finished < outcome.target and not outcome.begun and not outcome.interrupted:
        again = _without_timeout(sys.argv[1:])
        return [
            f"The time of --timeout was over before a trial began, and {done}; give it more, or none: {again}"
        ]
    if outcome.finished < outcome.target:
        again = shlex.join(["python", "-m", "slopesearch", *map(without_password, sys.argv[1:])])
        return [f"{done}; to go on: {again}"]
    return [f"More trials: the same command with --trials {2 * outcome.finished}."]


def _without_timeout(words: Sequence[str]) -> str:
    """The command of these words, but for its time limit, as a shell takes it."""
    kept = [
        without_password(word)
        for before, word in zip(("", *words), words, strict=False)
        if "--timeout" not in (before, word) and not word.startswith("--timeout=")
    ]
    return shlex.join(["python", "-m", "slopesearch", *kept])


def confirm_study(
    name: StudyName = None,
    top: Annotated[
        int | None,
        typer.Option(
            help="How many of the best trials; 5, or as many as before, by default. The best of each "
            "activation and the textbook's recipes come with them."
        ),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(help="Runs of each config, on fresh seeds; 10, or as many as before, by default."),
    ] = None,
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
    """Run the best few of a study again on fresh seeds, then open the test set, once; or print what is there.

    A confirmation that is finished is printed, and nothing runs, unless --top or --seeds is given.
    """
    store = Store(storage)
    search = store.read_search(name, "ranking")  # or a refusal, before torch is loaded
    there = confirmation_of(store, search.name)
    if top is None and seeds is None and not open_again and is_finished(there):
        _print_confirmation(store, search, confirmed_of(there), openings_of(there), as_json)
        return
    folder = data_folder(data)
    from slopesearch.training.devices import checked_torch_pair

    progress = Console(stderr=as_json)
    with doing(progress, "loading torch"), checked_torch_pair():
        from slopesearch.evidence.confirm import confirm
        from slopesearch.report.dashboard import annotate_all
        from slopesearch.search.settings import Settings

    found = confirm(
        search.name,
        store=store,
        settings=Settings(folder, devices, workers, pack, launcher, ray_address=ray_address),
        top=top,
        seeds=seeds,
        open_again=open_again,
        note=lambda text: note(progress, text),
        display=lambda plan: display_on(progress, plan),
    )
    if found.confirmed:
        annotate_all(store, search.name)
        _print_confirmation(store, search, found.confirmed, found.openings, as_json)
    if found.interrupted:
        say(progress, "the confirmation is not done; the same command goes on with it")
        raise typer.Exit(130)


def _print_confirmation(
    store: Store,
    search: StudyRecord,
    confirmed: Sequence[ConfirmedArm],
    openings: Sequence[Opening],
    as_json: bool,
) -> None:
    if as_json:
        print(confirmation_json(confirmed, openings))
        return
    console, best = Console(), search.best()
    confirmation_table(console, confirmed, openings)
    if best.config not in [row.arm.config for row in confirmed]:
        command = f"{COMMAND} confirm {shlex.quote(search.name)} --top 1{store.option}"
        said = (
            f"The search's best is trial {best.number} by now, which is not among these; to run it: {command}"
        )
        for line in with_command(said, console.width):
            say(console, line)
    say(console, "\n  ".join(["\nNext:", *next_commands(store, search, *verdict(store, search.name))]))
