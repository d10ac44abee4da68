"""How fast is it? Images a second against the loop that people copy, and against what the device could do.

    SLOPESEARCH_DATA=data python scripts/benchmark.py                 about 6 min on 2 cores
    SLOPESEARCH_DATA=data python scripts/benchmark.py --study         the default study too, 200 trials

Rounds are interleaved, and a ratio is the median of the rounds' ratios, since machines are shared and clocks
move. Rates are of training alone, without validation, on both sides.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import optuna
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset
from torch.utils.flop_counter import FlopCounterMode
from torchvision import datasets, transforms

from slopesearch.config import Precision, TrialConfig
from slopesearch.nets.models import build_model
from slopesearch.nets.plain import as_torch
from slopesearch.search.events import Event, Started, Told
from slopesearch.search.launchers.process import ProcessLauncher
from slopesearch.search.messages import Failed, Finished, Reported
from slopesearch.search.optimize import optimize
from slopesearch.search.settings import Settings
from slopesearch.search.space import check, resolve, sample
from slopesearch.search.store import Store
from slopesearch.training.devices import (
    best_precision,
    float32_products,
    prepare,
    resolve_devices,
    usable_cores,
)

DEFAULT_THREADS = torch.get_num_threads()  # before anything sets it
BATCH_SIZE = 128
IMAGES = 10_000
TRIAL_IMAGES = 3 * (IMAGES // BATCH_SIZE) * BATCH_SIZE  # of an unpruned trial of the default study
PACKS = (1, 4, 16, 64)
GPU_PRECISIONS: tuple[Precision, ...] = ("float32", "bf16")
BUSY = 0.25  # share of the cores at work before the start, from which the numbers mean little


def copied_loop(folder: Path, norm: str, threads: int) -> float:
    """Images a second of the usual Optuna objective: DataLoader, float32, on the GPU if there is one.

    The rate is that of a study's second trial, since the first also pays for what torch does only once.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def block(channels_in: int, channels: int) -> list[nn.Module]:
        before = [nn.BatchNorm2d(channels)] if norm == "before" else []
        conv = nn.Conv2d(channels_in, channels, 3, padding=1)
        return [conv, *before, nn.LeakyReLU(0.01), nn.MaxPool2d(2)]

    def objective(trial: optuna.Trial) -> float:
        lr = trial.suggest_float("lr", 1e-4, 3e-2, log=True)
        transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))])
        mnist = datasets.MNIST(folder, train=True, transform=transform)
        loader = DataLoader(Subset(mnist, range(IMAGES)), batch_size=BATCH_SIZE, shuffle=True, drop_last=True)
        before = [nn.BatchNorm1d(128)] if norm == "before" else []
        head = [nn.Linear(64 * 7 * 7, 128), *before, nn.LeakyReLU(0.01), nn.Linear(128, 10)]
        model = nn.Sequential(*block(1, 32), *block(32, 64), nn.Flatten(), *head).to(device)
        optimizer = torch.optim.Adam(model.parameters(), lr=lr)
        started, done = time.perf_counter(), 0
        for x, y in loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x.to(device)), y.to(device))
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            done += len(y)
        loss.item()  # waits for a GPU
        return done / (time.perf_counter() - started)

    torch.set_num_threads(threads)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study()
    study.optimize(objective, n_trials=2)
    rate = study.trials[-1].value
    assert rate is not None
    return rate


def in_a_new_process(measure: Callable[[], float]) -> float:
    """The measured value in a fresh process, since earlier work decides how memory is reused."""
    with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as pool:
        return pool.submit(measure).result()


def config_of(norm: str, precision: Precision) -> TrialConfig:
    """The config of the tutorial's CNN for one epoch of the default study."""
    space = {"activation": "leaky_relu", "slope_mode": "fixed", "negative_slope": 0.01, "init": "default"}
    asked = {"dataset": "mnist", "epochs": 1, "val_size": 1000, "space": {**space, "norm": norm, "lr": 1e-3}}
    return sample(resolve(check(asked), precision), optuna.trial.FixedTrial({}))


def mixed_configs(norm: str, precision: Precision, count: int) -> list[TrialConfig]:
    """So many draws from the default space with this norm: what a study trains as one pack."""
    asked = {"dataset": "mnist", "epochs": 1, "val_size": 1000, "space": {"norm": norm}}
    spec = resolve(check(asked), precision)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return [sample(spec, study.ask()) for _ in range(count)]


def workers_rate(launcher: ProcessLauncher, configs: list[TrialConfig], slots: int) -> float:
    """Training images a second of the first `slots` workers together, each with one pack of these configs."""
    rate, done = 0.0, 0
    for slot in range(slots):
        launcher.start(slot, configs)
    while done < slots:
        received = launcher.wait(600)
        if received is None or isinstance(received[1], Failed):
            raise RuntimeError(f"a worker failed: {received}")
        slot, message = received
        if isinstance(message, Reported):
            launcher.answer(slot, [])
        elif isinstance(message, Finished):
            # A member's rate counts its share of the pack's time, so their mean is the pack's rate.
            rate += statistics.mean(result.images_per_second for result in message.results)
            done += 1
    return rate


def bound(device: torch.device, arithmetic: str, threads: int) -> float:
    """Images a second if training were nothing but its matrix products, at the rate of a large product.

    `arithmetic` is float32, bf16 or, on a GPU, tf32: what torch rounds the operands of float32 convolutions
    to there unless it is told not to. The products are those of torch's own layers. The package leaves some
    out of a pooled convolution's backward, so its share of the bound may exceed 1.
    """
    prepare(device)
    if arithmetic == "tf32":
        for products in float32_products():
            products.fp32_precision = "tf32"
    config = config_of("none", "float32")
    images = torch.zeros(BATCH_SIZE, 1, 28, 28)
    model = as_torch(build_model(config, images))
    with FlopCounterMode(display=False) as counter:
        loss = model(images).sum()
        loss.backward()
    size = 8192 if device.type == "cuda" else 1024
    dtype = torch.bfloat16 if arithmetic == "bf16" else torch.float32
    a = torch.ones(size, size, device=device, dtype=dtype)
    # The same product as a 1x1 convolution, which on some CPUs a faster library computes.
    rows = a.view(1, size, size // 32, 32).contiguous(memory_format=torch.channels_last)
    kernels = a[..., None, None]
    ways: list[Callable[[], Tensor]] = [lambda: a @ a, lambda: F.conv2d(rows, kernels)]
    torch.set_num_threads(threads)
    times: list[list[float]] = [[], []]
    for _ in range(20):
        for way, taken in zip(ways, times, strict=True):
            started = time.perf_counter()
            way().flatten()[0].item()  # waits for a GPU
            taken.append(time.perf_counter() - started)
    torch.set_num_threads(1)
    rate = 2 * size**3 / min(map(statistics.median, times))
    images_a_flop: float = BATCH_SIZE / counter.get_total_flops()
    return rate * images_a_flop


def overhead(trials: int) -> float:
    """Seconds a trial that are not training (ask, report, prune, tell, process traffic), with one worker."""
    times: list[float] = []
    training = 0.0

    def listen(event: Event) -> None:
        nonlocal training
        if isinstance(event, (Started, Told)):
            times.append(time.perf_counter())
        if isinstance(event, Told) and event.result is not None and len(times) > 2:
            training += event.result.seconds  # the first trial is left out: it loads the data

    spec = check({"dataset": "digits", "model": "mlp", "epochs": 2})
    with tempfile.TemporaryDirectory() as folder:
        store, settings = Store(f"sqlite:///{folder}/x.db"), Settings(Path(folder), "cpu", workers=1)
        optimize(spec, trials=trials, store=store, settings=settings, listen=listen)
    return (times[-1] - times[1] - training) / (trials - 1)


def default_study(folder: Path, trials: int, deterministic: bool) -> dict[str, float]:
    """Seconds from command to result for the default study, and its best value."""
    with tempfile.TemporaryDirectory() as place:
        best: list[float] = []

        def listen(event: Event) -> None:
            if isinstance(event, Told) and event.state == "COMPLETE" and event.value is not None:
                best.append(event.value)

        started = time.perf_counter()
        optimize(
            check({"dataset": "mnist"}),
            trials=trials,
            store=Store(f"sqlite:///{place}/x.db"),
            settings=Settings(folder, deterministic=deterministic),
            listen=listen,
        )
        return {"seconds": time.perf_counter() - started, "best": max(best), "trials": trials}


def contenders(
    launcher: ProcessLauncher, devices: list[str], fast: Precision, folder: Path, norm: str
) -> dict[str, Callable[[], float]]:
    """The measurements of a round by name; the others are compared with the first."""
    count = len(devices)
    precisions: list[Precision] = list(dict.fromkeys((fast, "float32")))
    found: dict[str, Callable[[], float]] = {
        f"copied loop, {threads} threads": partial(
            in_a_new_process, partial(copied_loop, folder, norm, threads)
        )
        for threads in sorted({DEFAULT_THREADS, *(2**i for i in range(8) if 2**i <= usable_cores())})
    }
    default = f"copied loop, {DEFAULT_THREADS} threads"
    found = {default: found.pop(default), **found}
    if devices[0].startswith("cuda"):
        for precision in GPU_PRECISIONS:
            for pack in PACKS:
                configs = mixed_configs(norm, precision, pack)
                found[f"pack of {pack}, {precision}"] = partial(workers_rate, launcher, configs, 1)
        return found
    for precision in precisions:
        configs = [config_of(norm, precision)]
        found[f"one worker, {precision}"] = partial(workers_rate, launcher, configs, 1)
        found[f"{count} workers, {precision}"] = partial(workers_rate, launcher, configs, count)
    return found


def main() -> None:
    """Measure, print, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("SLOPESEARCH_DATA", "data")))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=200, help="trials of the overhead study and of --study")
    parser.add_argument("--study", action="store_true", help="run the default study too")
    parser.add_argument("--deterministic", action="store_true", help="run it with --deterministic as well")
    parser.add_argument("--json", type=Path, default=Path("benchmark.json"))
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    console = Console()

    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    devices = resolve_devices("auto", None)
    fast = best_precision(devices)
    facts: dict[str, Any] = {
        "date": str(date.today()),
        "machine": platform.processor() or platform.machine(),
        "devices": devices,
        "torch": torch.__version__,
        "rounds": arguments.rounds,
        "load_before": load,
    }
    console.print(", ".join(f"{name} {value}" for name, value in facts.items()))
    if load > BUSY * usable_cores():
        console.print("[bold]The machine was busy before the start: read the ratios, not the rates.[/bold]")

    device = torch.device(devices[0])
    on_gpu = device.type == "cuda"
    precisions: list[Precision] = list(GPU_PRECISIONS if on_gpu else dict.fromkeys((fast, "float32")))
    products = [*precisions, "tf32"] if on_gpu else precisions
    bounds = {arithmetic: bound(device, arithmetic, len(devices)) for arithmetic in products}
    rates: dict[tuple[str, str], list[float]] = {}
    launcher = ProcessLauncher(devices, arguments.data)
    try:
        for precision in precisions:  # imports, data, first kernels
            workers_rate(launcher, [config_of("none", precision)], len(devices))
        for _ in range(arguments.rounds):
            for norm in ("none", "before"):
                for name, measure in contenders(launcher, devices, fast, arguments.data, norm).items():
                    rates.setdefault((norm, name), []).append(measure())
    finally:
        launcher.close()

    rows = []
    table = Table(
        "norm", "what", "images/s", "spread", "x copied", "trials/min", "bound", box=None, padding=(0, 1)
    )
    for (norm, name), values in rates.items():
        base = next(other for key, other in rates.items() if key[0] == norm)
        ratio = statistics.median(value / slow for value, slow in zip(values, base, strict=True))
        median = statistics.median(values)
        # The copied loop leaves convolutions to torch, as those who copy it do.
        share = (
            median / bounds[("tf32" if on_gpu else "float32") if "copied" in name else name.split(", ")[1]]
        )
        rows.append({"norm": norm, "what": name, "rates": values, "ratio": ratio, "share_of_bound": share})
        spread = f"{min(values):,.0f}-{max(values):,.0f}"
        numbers = (f"{ratio:.1f}", f"{60 * median / TRIAL_IMAGES:.1f}", f"{share:.0%}")
        table.add_row(norm, name, f"{median:,.0f}", spread, *numbers)
    console.print(table)
    console.print(
        f"bound: {' and '.join(f'{rate:,.0f} images/s in {name}' for name, rate in bounds.items())}, "
        f"from a matrix product on {len(devices)} x {device.type}; trials are whole ones, not pruned"
    )
    facts |= {"bounds": bounds, "rows": rows, "overhead_seconds": overhead(arguments.trials)}
    console.print(f"overhead outside training: {1000 * facts['overhead_seconds']:.0f} ms a trial")
    for deterministic in [False] * arguments.study + [True] * arguments.deterministic:
        name = "deterministic study" if deterministic else "default study"
        facts[name] = default_study(arguments.data, arguments.trials, deterministic)
        console.print(f"{name}: {facts[name]}")
    arguments.json.write_text(json.dumps(facts, indent=2))
    console.print(f"written to {arguments.json}")


if __name__ == "__main__":
    main()
