"""What does an activation cost? Each against ReLU: forward, with backward, and in a whole training step.

    python scripts/benchmark_activations.py                           about 3 min

Rounds are interleaved; a number is the median over the rounds of the ratio to ReLU in the same round. A CPU
uses one thread, as a worker does. The step is that of the CNN, batch 128, without BatchNorm; there an
activation that never falls runs after the pool, on a quarter of the numbers.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import optuna
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from slopesearch.config import TrialConfig
from slopesearch.nets.activations import ACTIVATIONS
from slopesearch.search.space import check, resolve, sample
from slopesearch.training.data import Data
from slopesearch.training.devices import WORKER_ENVIRONMENT, best_precision, prepare, resolve_devices
from slopesearch.training.engine import Alone, Member

SIZES = [(128, 128), (128, 64, 14, 14), (128, 32, 28, 28)]
CALLS = 10  # calls in a row of one measurement


def configs(precision: str) -> dict[str, TrialConfig]:
    """A config for every activation, and one for the learnable slope."""
    kinds: dict[str, dict[str, Any]] = {name: {"activation": name} for name in ACTIVATIONS}
    kinds["leaky_relu, learnable"] = {"activation": "leaky_relu", "slope_mode": "learnable", "slope_max": 0.1}
    fixed = {"slope_mode": "fixed", "negative_slope": 0.01, "norm": "none", "init": "default", "lr": 1e-3}
    found = {}
    for name, kind in kinds.items():
        spec = check({"dataset": "mnist", "precision": precision, "space": {**fixed, **kind}})
        trial = optuna.trial.FixedTrial({})
        found[name] = sample(resolve(spec, "float32"), trial)
    return found


def seconds(call: Callable[[], object], device: torch.device) -> float:
    """Seconds of one call, measured over several in a row."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    for _ in range(CALLS):
        call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (time.perf_counter() - started) / CALLS


def layer_calls(config: TrialConfig, x: Tensor) -> tuple[Callable[[], object], Callable[[], object]]:
    """The forward pass, and forward with backward, of an activation on x, as calls without arguments."""
    layer = ACTIVATIONS[config.activation].make(config, x.shape[1]).to(x.device)
    dy = torch.ones_like(x)
    x = x.detach().requires_grad_()
    autocast = torch.autocast(x.device.type, torch.bfloat16, enabled=x.dtype == torch.bfloat16)

    def forward() -> None:
        with torch.no_grad(), autocast:
            layer(x)

    def both() -> None:
        with autocast:
            y = layer(x)
        y.backward(dy)

    return forward, both


def step_call(config: TrialConfig, device: torch.device) -> Callable[[], object]:
    """A training step of the CNN."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(config.batch_size, 1, 28, 28, generator=generator).to(device)
    labels = torch.arange(config.batch_size, device=device) % 10
    team = Alone([Member(config, Data(images, labels, images, labels), device)], device)
    return lambda: team.step(images, labels, 0.0)


def main() -> None:
    """Measure, print, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", choices=["float32", "bf16"])
    parser.add_argument("--json", type=Path, default=Path("benchmark-activations.json"))
    arguments = parser.parse_args()
    device = torch.device(resolve_devices(arguments.device, 1)[0])
    prepare(device)
    precision = arguments.precision or best_precision([arguments.device])
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32

    calls: dict[tuple[str, str], Callable[[], object]] = {}
    for name, config in configs(precision).items():
        for size in SIZES:
            x = torch.randn(size, generator=torch.Generator().manual_seed(0)).to(device, dtype)
            if x.dim() == 4:
                x = x.contiguous(memory_format=torch.channels_last)
            forward, both = layer_calls(config, x)
            shape = "x".join(map(str, size))
            calls |= {(name, f"{shape} fwd"): forward, (name, f"{shape} fwd+bwd"): both}
        calls[name, "step"] = step_call(config, device)

    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    times: dict[tuple[str, str], list[float]] = {key: [] for key in calls}
    for call in calls.values():
        seconds(call, device)
    for _ in range(arguments.rounds):
        for key, call in calls.items():
            times[key].append(seconds(call, device))

    columns = list(dict.fromkeys(column for _, column in calls))
    ratios: dict[str, dict[str, float]] = {}
    for name, column in calls:
        pairs = zip(times[name, column], times["relu", column], strict=True)
        ratios.setdefault(name, {})[column] = statistics.median(mine / relu for mine, relu in pairs)
    console = Console(width=max(120, Console().width))
    facts = {
        "date": str(date.today()),
        "machine": platform.processor() or platform.machine(),
        "device": str(device),
        "precision": precision,
        "torch": torch.__version__,
        "rounds": arguments.rounds,
        "load_before": load,
    }
    console.print(", ".join(f"{name} {value}" for name, value in facts.items()))
    table = Table("times ReLU", *columns, box=None)
    relu = [f"{1e3 * statistics.median(times['relu', column]):.3g} ms" for column in columns]
    table.add_row("relu", *relu)
    for name, row in ratios.items():
        if name != "relu":
            table.add_row(name, *(f"{row[column]:.2f}" for column in columns))
    console.print(table)
    raw = {f"{name}: {column}": values for (name, column), values in times.items()}
    arguments.json.write_text(json.dumps({**facts, "ratios": ratios, "seconds": raw}, indent=2))
    console.print(f"written to {arguments.json}")


if __name__ == "__main__":
    if any(os.environ.get(name) != value for name, value in WORKER_ENVIRONMENT.items()):
        # malloc reads its settings once, at the start
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **WORKER_ENVIRONMENT})
    main()
