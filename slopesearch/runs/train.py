"""A run folder: one config trained for long, tested once, and stored as files that torch alone can use."""

import csv
import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, astuple, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import leather
import torch
from filelock import FileLock, Timeout
from safetensors.torch import save
from torch import nn

from slopesearch.config import TrialConfig
from slopesearch.files import write_aside
from slopesearch.nets.models import count_parameters
from slopesearch.nets.plain import as_code, as_torch
from slopesearch.runs.export import ConfigFile, as_toml, read_config_file
from slopesearch.seeds import derive
from slopesearch.training.data import DATASETS, content_hash, load_for, load_test
from slopesearch.training.engine import total_steps
from slopesearch.training.fit import Epoch, Fit
from slopesearch.training.validation import evaluate
from slopesearch.wording import RequestError, counted

CONFIG, WEIGHTS = "config.toml", "weights.safetensors"
CHECKPOINT = "checkpoint.pt"  # of an unfinished run alone
METRICS, CURVE, PICTURE, README, LOCK = "metrics.json", "curve.csv", "curve.svg", "README.md", ".lock"


def for_training(
    asked: ConfigFile, epochs: int | None, seed: int | None, train_size: int | None, hold_out: bool
) -> ConfigFile:
    """The config to train for long: on the full training set and for more epochs, unless they are given.

    The default is three times the epochs of the search, 10 at least. `hold_out` keeps the validation images
    out of training. Raises RequestError, with every mistake at once, for numbers out of their range.
    """
    config = asked.config
    data = DATASETS[config.dataset]
    most = data.train_max if hold_out else data.train_max + data.val_max
    found = [
        f"{name}: from {low:,} to {high:,}, given {given:,}"
        for name, given, low, high in (
            ("epochs", epochs, 1, 10_000),
            ("seed", seed, 0, 2**32 - 1),
            ("train-size", train_size, config.batch_size, most),
        )
        if given is not None and not low <= given <= high
    ]
    if found:
        raise RequestError(*found)
    changes: dict[str, Any] = {
        "epochs": epochs or max(10, 3 * config.epochs),
        "train_size": train_size or most,
        "val_size": data.val_max if hold_out else 0,
        "evaluated_on": "validation",
    }
    if seed is not None:
        changes |= {name: derive(seed, "train", name) for name in ("init_seed", "order_seed")}
    return asked.model_copy(update={"config": config.model_copy(update=changes)})


@contextmanager
def open_run(run: Path, asked: ConfigFile) -> Iterator[None]:
    """Make the folder of a run, or open the one that exists, for one process at a time.

    Raises RequestError where the folder belongs to another run, or another process trains in it.
    """
    if not run.exists():
        run.mkdir(parents=True)
    elif not run.is_dir() or (
        {path.name for path in run.iterdir()} - {LOCK} and not (run / CONFIG).is_file()
    ):
        raise RequestError(f"'{run}' is there already and is no run folder; name another with -o")
    lock = FileLock(run / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise RequestError(
            f"another process is training in '{run}'; let it finish, or name another -o"
        ) from None
    try:
        if not (run / CONFIG).is_file():
            write_aside(run / CONFIG, as_toml(asked).encode())
        _refuse_another(run, asked.config)
        yield
    finally:
        lock.release()


def _refuse_another(run: Path, config: TrialConfig) -> None:
    lines = [
        f"  {name}: stored {old}, given {getattr(config, name)}"
        for name, old in read_config_file(run / CONFIG).config  # the origins may differ
        if old != getattr(config, name)
    ]
    if lines:
        # No more than a run leaves that was stopped in its first epoch, and nothing of the user's.
        is_empty = {path.name for path in run.iterdir()} == {CONFIG, LOCK}
        raise RequestError(
            f"'{run}' holds another run{', of which no epoch was finished' if is_empty else ''}:",
            *lines,
            "name another folder with -o, or give the stored values to go on with it"
            + ("; or delete the folder" if is_empty else ""),
        )


def train_run(
    asked: ConfigFile,
    run: Path,
    folder: Path,
    device: torch.device,
    stepped: Callable[[int], None],
    told: Callable[[Epoch], None],
) -> dict[str, Any]:
    """Train the config in its opened folder, from its checkpoint where there is one; the metrics of the run.

    `stepped` is told the number of steps so far, `told` each epoch, the stored ones first. The test set is
    opened once, after the last epoch. A finished run is not trained again: its stored metrics are returned.
    Raises RequestError where these are damaged, or where the run began with other images.
    """
    if (run / METRICS).is_file():
        return _stored_metrics(run / METRICS)
    data_hash = content_hash(asked.config.dataset, folder)
    fit = Fit(asked.config, load_for(asked.config, folder).to(device), device)
    if (run / CHECKPOINT).is_file():
        fit.restore(run / CHECKPOINT, data_hash)
        for row in fit.curve:
            told(row)
    for row in fit.epochs(stepped):
        fit.save(run / CHECKPOINT, data_hash)
        told(row)
    images, labels = load_test(asked.config.dataset, folder)
    tested = evaluate(fit.model, asked.config, images.to(device), labels.to(device))
    metrics = _metrics(asked, fit, tested, device)
    _write(run, asked, fit, metrics)
    return metrics


def _stored_metrics(path: Path) -> dict[str, Any]:
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        metrics = None
    if not isinstance(metrics, dict) or not {"test_accuracy", "test_loss"} <= set(metrics):
        raise RequestError(f"'{path}' is damaged; delete the folder that holds it and train again")
    return metrics


def _metrics(
    asked: ConfigFile, fit: Fit, tested: tuple[float, float], device: torch.device
) -> dict[str, Any]:
    config, origin, last = asked.config, asked.origin, fit.curve[-1]
    seconds = sum(row.seconds for row in fit.curve)
    steps = total_steps(config.train_size, config.batch_size, config.epochs)
    return {
        "test_accuracy": tested[1],
        "test_loss": tested[0],
        "val_accuracy": last.val_accuracy,
        "val_loss": last.val_loss,
        "train_loss": last.train_loss,
        "confirmed_val_accuracy": origin.confirmed and origin.confirmed.val_accuracy.mean,
        "searched": origin.searched,
        "objective": origin.objective,
        "study": origin.study,
        "trial": origin.trial,
        "dataset": config.dataset,
        "train_size": config.train_size,
        "epochs": config.epochs,
        "parameters": count_parameters(config),
        "precision": config.precision,
        "device": str(device),
        "seconds": round(seconds, 3),
        "images_per_second": round(steps * config.batch_size / seconds, 1),
        "torch": version("torch"),
        "slopesearch": version("slopesearch"),
    }


def _write(run: Path, asked: ConfigFile, fit: Fit, metrics: dict[str, Any]) -> None:
    """Write the files of a finished run; the metrics come last, since they say that it is finished."""
    model = as_torch(fit.model.cpu())
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    write_aside(run / WEIGHTS, save(weights))
    write_aside(run / CURVE, curve_table(fit.curve).encode())
    write_aside(run / PICTURE, curve_picture(fit.curve).encode())
    write_aside(run / README, readme(asked, model, metrics).encode())
    write_aside(run / METRICS, json.dumps(metrics, indent=2).encode() + b"\n")
    (run / CHECKPOINT).unlink(missing_ok=True)


def curve_table(curve: list[Epoch]) -> str:
    """The learning curve as CSV, one line per epoch."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow([field.name for field in fields(Epoch)])
    rows.writerows(astuple(row) for row in curve)
    return text.getvalue()


def curve_picture(curve: list[Epoch]) -> str:
    """The learning curve as SVG: the losses in nats and the validation accuracy, over the epochs."""
    rows = [asdict(row) for row in curve]
    grid = leather.Grid()
    for title, names in (("loss", ("train_loss", "val_loss")), ("accuracy", ("val_accuracy",))):
        lines = {
            name: [(row["epoch"], row[name]) for row in rows] for name in names if rows[0][name] is not None
        }
        if not lines:
            continue
        chart = leather.Chart(f"{title}, by epoch")
        for name, points in lines.items():
            chart.add_line(points, name=name)
            if len(points) == 1:
                chart.add_dots(points)
        grid.add_one(chart)
    return str(grid.to_svg())


def readme(asked: ConfigFile, model: nn.Sequential, metrics: dict[str, Any]) -> str:
    """The README of a run folder: its files, and how to use the model with torch alone.

    It quotes no text of the study, which may hold anything.
    """
    config, data = asked.config, DATASETS[asked.config.dataset]
    return f"""\
# {config.model} with {config.activation}, trained on {config.dataset}

{config.train_size:,} images, {counted(config.epochs, "epoch")}; {metrics["parameters"]:,} parameters.
Test accuracy {metrics["test_accuracy"]:.4f}, loss {metrics["test_loss"]:.4f}.

`{CONFIG}` holds the whole config and its origin, `{METRICS}` the results, `{CURVE}` and `{PICTURE}` the
learning curve, `{WEIGHTS}` the state_dict of the model below.

    python -m slopesearch predict . IMAGE...

With torch, safetensors and Pillow alone, in this folder, for a white digit on black:

```python
from collections import OrderedDict

import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

model = {as_code(model)}
model.load_state_dict(load_file("{WEIGHTS}"))
image = Image.open("digit.png").convert("L").resize((28, 28))
pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(1, 1, 28, 28)
x = (pixels / 255 - {data.mean}) / {data.std}
print(model.eval()(x).argmax().item())
```

Made with torch {metrics["torch"]}.
"""
