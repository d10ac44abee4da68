"""The commands from a stored trial to a trained model: export, train, predict and replay."""

import shlex
from contextlib import nullcontext
from math import inf
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from slopesearch.cli.live import FitDisplay, doing
from slopesearch.cli.options import DataFolder, Device, Storage, StudyName, data_folder
from slopesearch.cli.tables import replay_table, say, to_stderr, wrapped
from slopesearch.evidence.health import COMMAND
from slopesearch.search.store import Store
from slopesearch.search.urls import DEFAULT_URL
from slopesearch.wording import RequestError, counted, describe, printable, read_toml


def export_config(
    name: StudyName = None,
    trial: Annotated[
        int | None,
        typer.Option(help="Number of the trial; else the confirmed best, or the best of the search."),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The config file.")] = Path("best.toml"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that is there.")] = False,
    storage: Storage = DEFAULT_URL,
) -> None:
    """Write the config of a trial as a file to train from."""
    from slopesearch.runs.export import choose_export, write_config_file
    from slopesearch.search.records import CONFIRM

    store = Store(storage)
    study = store.read_search(name, "ranking")
    written = choose_export(study, store.find(study.name + CONFIRM, "ranking"), trial)
    write_config_file(written, out, force)
    if trial is None:
        for sentence in study.left_out():
            to_stderr(f"warning: left out: {sentence}")
    if trial is None and written.origin.confirmed is None:
        to_stderr(
            "warning: not confirmed; this is the best of the search, the luckiest of many runs; to run the "
            f"best few again on fresh seeds: {COMMAND} confirm {shlex.quote(study.name)}{store.option}"
        )
    source = "a baseline" if written.origin.trial is None else f"trial {written.origin.trial}"
    console = Console()
    say(console, f"{out}: {source} of {study.name}: {describe(written.config)}")
    say(console, f"\nNext:\n  {COMMAND} train {shlex.quote(str(out))}")


def train_config(
    file: Annotated[Path, typer.Argument(help="A config file, as export writes it.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The run's folder; runs/FILE by default.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Three times the epochs of the search, at least 10, by default.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of init and batch order; the search's by default.")
    ] = None,
    train_size: Annotated[int | None, typer.Option(help="Training images; all by default.")] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Train on the validation images too, and validate on none.")
    ] = False,
    data: DataFolder = None,
    device: Device = "auto",
) -> None:
    """Train a config for long, or go on from its last epoch; test it once, at the end."""
    read_toml(file, "config file")  # or a refusal, before torch is loaded
    folder, console = data_folder(data), Console()

    from slopesearch.training.devices import checked_torch_pair

    with doing(console, "loading torch"), checked_torch_pair():
        from slopesearch.runs.export import read_config_file
        from slopesearch.runs.train import (
            CHECKPOINT,
            METRICS,
            PICTURE,
            README,
            for_training,
            open_run,
            train_run,
        )
        from slopesearch.training.data import find
        from slopesearch.training.devices import one_device

    asked = for_training(read_config_file(file), epochs, seed, train_size, not everything)
    config = asked.config
    where = one_device(device)
    find(config.dataset, folder, lambda text: say(console, text))
    run = out or Path("runs") / file.stem
    with open_run(run, asked):
        say(
            console,
            f"{run}: {config.dataset}, {config.model}, {counted(config.epochs, 'epoch')} of "
            f"{config.train_size:,} images; {config.precision} on {where}: {describe(config)}",
        )
        display = FitDisplay(console, config)
        is_done = (run / METRICS).is_file()
        if is_done:
            say(console, "it was trained and tested before, which is stored")
        try:
            with nullcontext() if is_done else display:
                metrics = train_run(asked, run, folder, where, display.stepped, display.told)
        except KeyboardInterrupt:
            there = (run / CHECKPOINT).is_file()
            where_to = "goes on from the last epoch" if there else "begins again: no epoch was done"
            say(console, f"stopped; the same command {where_to}")
            raise typer.Exit(130) from None
    say(console, f"test accuracy {metrics['test_accuracy']:.4f}, loss {metrics['test_loss']:.4f}")
    wrapped(console, f"{run}/ holds {METRICS}, {PICTURE} and the rest; {README} says how to use the model")
    say(console, f"\nNext:\n  to try it  {COMMAND} predict {shlex.quote(str(run))} IMAGE")


def predict_digits(
    run: Annotated[Path, typer.Argument(help="A folder that train has finished.")],
    images: Annotated[list[Path], typer.Argument(help="Image files, a digit in each.")],
    invert: Annotated[
        bool, typer.Option("--invert", help="The images are ink on paper; else white on black.")
    ] = False,
) -> None:
    """Print the digit in each image, and its probability."""
    if not run.is_dir():  # refused before torch is loaded
        raise RequestError(
            f"there is no folder '{run}'; name one that python -m slopesearch train has finished"
        )

    from slopesearch.runs.predict import predict_images

    predictions = predict_images(run, images, invert)
    for row in predictions:
        if row.error is None:
            print(f"{printable(str(row.path))}: {row.digit}  {row.probability:.4f}")
            if row.odd is not None:
                to_stderr(f"warning: '{row.path}' was read, but is odd: {row.odd}")
        else:
            to_stderr(f"error: '{row.path}' cannot be read: {row.error}")
    wrong = [row.path for row in predictions if row.other_way]
    if wrong:
        taken, looks, remedy = "white on black", "ink on paper", "add --invert"
        if invert:
            taken, looks, remedy = looks, taken, "leave --invert out"
        those = (
            f"'{wrong[0]}' looks"
            if len(wrong) == 1
            else f"{len(wrong)} of {len(images)} images, '{wrong[0]}' first, look"
        )
        sentence = f"warning: {those} like {looks}, and the images were read as {taken}; for {looks} {remedy}"
        to_stderr(sentence)
    if any(row.error for row in predictions):
        raise typer.Exit(2)


def replay_stored(
    trial: Annotated[int, typer.Option(help="Number of the trial.")],
    name: StudyName = None,
    storage: Storage = DEFAULT_URL,
    data: DataFolder = None,
    device: Device = "auto",
) -> None:
    """Train the config of a stored trial again, and compare the curves."""
    store, console = Store(storage), Console()
    study = store.read_search(name, "ranking")
    (stored,) = store.whole(study, [study.trial(trial)])

    from slopesearch.training.devices import checked_torch_pair

    with checked_torch_pair():
        from slopesearch.runs.replay import largest_difference, replay_trial, what_differs
        from slopesearch.training.devices import one_device

    where = one_device(device)
    curve = replay_trial(stored, data_folder(data), where)
    replay_table(console, stored.curve, curve)
    if stored.curve == curve:
        say(console, "bit-equal")
        return
    worst = largest_difference(stored.curve, curve)
    how = f"the curves differ by up to {worst:.2g}" if worst < inf else "one curve lacks numbers of the other"
    say(console, f"not equal: {how}; what differs between then and now:")
    unknown = "nothing that is stored; another processor, or other trials in the pack, would explain it"
    for line in what_differs(study, stored, where) or [unknown]:
        say(console, f"  {line}")
