"""How fast is it? Images a second against the loop that people copy, and the overhead of a trial.

    SLOPESEARCH_DATA=data python scripts/benchmark.py

Rounds are interleaved and medians reported, since machines are shared and clocks move. Rates are of training
alone, without validation, on both sides.
"""

import argparse
import os
import platform
import statistics
import tempfile
import time
from datetime import date
from pathlib import Path

import optuna
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.utils.data import DataLoader, Subset
from torchvision import datasets, transforms

from slopesearch.config import Precision, TrialConfig
from slopesearch.search.events import Event, Started, Told
from slopesearch.search.launchers import ProcessLauncher
from slopesearch.search.optimize import optimize
from slopesearch.search.space import check
from slopesearch.search.worker import Failed, Finished, Reported
from slopesearch.training.devices import best_precision, resolve_devices

DEFAULT_THREADS = torch.get_num_threads()  # before anything sets it


def copied_loop(folder: Path, norm: str, images: int) -> float:
    """Images a second of the usual Optuna objective: DataLoader, float32, torch's default threads."""

    def block(channels_in: int, channels: int) -> list[nn.Module]:
        before = [nn.BatchNorm2d(channels)] if norm == "before" else []
        conv = nn.Conv2d(channels_in, channels, 3, padding=1)
        return [conv, *before, nn.LeakyReLU(0.01), nn.MaxPool2d(2)]

    def objective(trial: optuna.Trial) -> float:
        lr = trial.suggest_float("lr", 1e-4, 3e-2, log=True)
        transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))])
        mnist = datasets.MNIST(folder, train=True, transform=transform)
        loader = DataLoader(Subset(mnist, range(images)), batch_size=128, shuffle=True, drop_last=True)
        before = [nn.BatchNorm1d(128)] if norm == "before" else []
        head = [nn.Linear(64 * 7 * 7, 128), *before, nn.LeakyReLU(0.01), nn.Linear(128, 10)]
        model = nn.Sequential(*block(1, 32), *block(32, 64), nn.Flatten(), *head)
        optimizer = torch.optim.Adam(model.parameters(), lr=lr)
        started, done = time.perf_counter(), 0
        for x, y in loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            done += len(y)
        return done / (time.perf_counter() - started)

    torch.set_num_threads(DEFAULT_THREADS)
    study = optuna.create_study()
    study.optimize(objective, n_trials=1)
    torch.set_num_threads(1)
    return study.best_value


def config_of(norm: str, precision: Precision) -> TrialConfig:
    """The tutorial's CNN, as the default study trains it."""
    return TrialConfig(
        dataset="mnist",
        split_seed=0,
        train_size=10_000,
        val_size=5_000,
        batch_size=128,
        epochs=3,
        model="cnn",
        depth=None,
        width=None,
        order_seed=0,
        precision=precision,
        warmup=0.05,
        activation="leaky_relu",
        negative_slope=0.01,
        slope_mode="fixed",
        slope_min=None,
        slope_max=None,
        slope_clamp=None,
        norm=norm,  # type: ignore[arg-type]
        init="default",
        init_seed=0,
        lr=1e-3,
        weight_decay=0.0,
    )


def workers_rate(launcher: ProcessLauncher, config: TrialConfig, slots: int) -> float:
    """Training images a second of the first `slots` workers together, each at one whole trial."""
    rates: list[float] = []
    for slot in range(slots):
        launcher.start(slot, [config])
    while len(rates) < slots:
        received = launcher.wait(600)
        if received is None or isinstance(received[1], Failed):
            raise RuntimeError(f"a worker failed: {received}")
        slot, message = received
        if isinstance(message, Reported):
            launcher.answer(slot, [])
        elif isinstance(message, Finished):
            rates.append(message.results[0].images_per_second)
    return sum(rates)


def overhead(trials: int) -> float:
    """Seconds a trial outside training: ask, report, prune, tell, process traffic; one worker."""
    times: list[float] = []
    training = 0.0

    def listen(event: Event) -> None:
        nonlocal training
        if isinstance(event, (Started, Told)):
            times.append(time.perf_counter())
        if (
            isinstance(event, Told) and event.result is not None and len(times) > 2
        ):  # the first loads the data
            training += event.result.seconds

    spec = check({"dataset": "digits", "model": "mlp", "epochs": 2})
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/x.db"
        optimize(spec, trials=trials, folder=Path(folder), url=url, devices="cpu", workers=1, listen=listen)
    return (times[-1] - times[1] - training) / (trials - 1)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("SLOPESEARCH_DATA", "data")))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=200, help="of the overhead study")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)

    devices = resolve_devices("auto", None)
    fast = best_precision(devices)
    rates: dict[tuple[str, str], list[float]] = {}
    launcher = ProcessLauncher(devices, arguments.data)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    try:
        for precision in {fast, "float32"}:  # imports, data, first kernels
            workers_rate(launcher, config_of("none", precision), len(devices))
        for _ in range(arguments.rounds):
            for norm in ("none", "before"):
                measured = {
                    f"copied loop, {DEFAULT_THREADS} threads": copied_loop(arguments.data, norm, 10_000),
                    f"one worker, {fast}": workers_rate(launcher, config_of(norm, fast), 1),
                    f"{len(devices)} workers, {fast}": workers_rate(
                        launcher, config_of(norm, fast), len(devices)
                    ),
                    f"{len(devices)} workers, float32": workers_rate(
                        launcher, config_of(norm, "float32"), len(devices)
                    ),
                }
                for name, rate in measured.items():
                    rates.setdefault((norm, name), []).append(rate)
    finally:
        launcher.close()

    console = Console()
    table = Table("BatchNorm", "what", "images/s", "spread", "times the copied loop", box=None)
    for (norm, name), values in rates.items():
        base = next(other for key, other in rates.items() if key[0] == norm)
        ratio = statistics.median(value / slow for value, slow in zip(values, base, strict=True))
        spread = f"{min(values):,.0f} to {max(values):,.0f}"
        table.add_row(norm, name, f"{statistics.median(values):,.0f}", spread, f"{ratio:.1f}")
    console.print(
        f"{date.today()}, {platform.processor() or platform.machine()}, devices {', '.join(devices)}, torch "
        f"{torch.__version__}; medians of {arguments.rounds} interleaved rounds; load before: {load:.1f}"
    )
    console.print(table)
    console.print(f"overhead outside training: {1000 * overhead(arguments.trials):.0f} ms a trial", end=" ")
    console.print(f"(mean of {arguments.trials} trials, one worker)")


if __name__ == "__main__":
    main()
