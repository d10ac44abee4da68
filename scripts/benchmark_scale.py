"""What can one writer carry? The real loop on a real storage, with runs that are drawn instead of trained.

    python scripts/benchmark_scale.py --sampler random --workers 1 64 256 512 --seconds 0 5
    python scripts/benchmark_scale.py --sampler tpe --workers 64 --seconds 5 --stored 200 2000 10000
    python scripts/benchmark_scale.py --storage postgresql+psycopg://USER@HOST/DATABASE
    python scripts/benchmark_scale.py --regret --workers 1 8 64 256 --seeds 20

A run to its end takes `--seconds` on average, log-normal, and fails once in a while; a trial's values are
those of `benchmark_regret`'s objective, approached from below. For studies that hold `--stored` trials
already: trials a second and the share of their time that workers run, from when every worker has told one to
when the last begins; the milliseconds of the writer a trial and what they go to, and its statements and
commits. `--regret` gives, after `--trials` trials from the
first on, the best possible value minus the best found, mean and standard error over seeds.
"""

import argparse
import heapq
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial, wraps
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from benchmark_regret import OPTIMUM, objective
from rich.console import Console
from rich.table import Table
from sqlalchemy import event
from sqlalchemy.engine import Engine

from slopesearch.config import REPORTS, Report, StudySpec, TrialConfig, TrialResult
from slopesearch.search.events import Event, Told
from slopesearch.search.launchers import LAUNCHERS
from slopesearch.search.ledger import Ledger
from slopesearch.search.loop import Loop
from slopesearch.search.messages import Failed, Finished, Message, Reported
from slopesearch.search.optimize import optimize
from slopesearch.search.pruner import PRUNERS
from slopesearch.search.sampler import SAMPLERS, SeededSampler
from slopesearch.search.settings import Settings
from slopesearch.search.space import check, resolve, sample
from slopesearch.search.store import Store, create_or_resume
from slopesearch.training.data import content_hash

FOLDER = Path("unused")
SPREAD = 0.5  # of the logarithm of a run's seconds
FAULTS = 0.002  # of the runs
COUNTED = {"before_cursor_execute": "statements", "commit": "commits"}
PARTS = {  # what the writer's time goes to
    "ask": (Ledger, "ask"),
    "report": (Loop, "_report"),
    "judge": (Loop, "_judge"),
    "tell": (Ledger, "tell"),
    "commit": (Ledger, "commit"),
}
console = Console(width=140)


def report_of(config: TrialConfig, step: int) -> Report:
    accuracy = max(0.0, objective(config) - 0.3 * (1 - step / REPORTS))
    return Report(step=step, train_loss=1.0, val_loss=1 - accuracy, val_accuracy=accuracy)


def result_of(curve: Sequence[Report]) -> TrialResult:
    ended: Any = "completed" if len(curve) == REPORTS else "pruned"
    return TrialResult(ended=ended, curve=tuple(curve), seconds=1, images_per_second=1, device="none")


@dataclass
class Pack:
    """What a slot runs: its configs, their curves, which of them go on, and the seconds between reports."""

    configs: Sequence[TrialConfig]
    curves: list[list[Report]]
    running: list[int]
    pause: float
    fails: bool


class DrawnLauncher:
    """Slots whose runs are drawn: each speaks when its next report is due."""

    seconds = 0.0  # of a run to its end, their mean
    busy = 0.0  # s that slots have run in all

    def __init__(self, devices: list[str], folder: Path) -> None:
        self.devices = devices
        self._packs: dict[int, Pack] = {}
        self._due: list[tuple[float, int]] = []
        self._draw = random.Random(0)
        type(self).busy = 0.0

    def shares(self) -> list[int]:
        return [0 for _ in self.devices]

    def start(self, slot: int, configs: Sequence[TrialConfig]) -> None:
        pause = self.seconds * self._draw.lognormvariate(-(SPREAD**2) / 2, SPREAD) / REPORTS
        everyone = list(range(len(configs)))
        fails = self._draw.random() < FAULTS
        self._packs[slot] = Pack(configs, [[] for _ in configs], everyone, pause, fails)
        self._go_on(slot)

    def _go_on(self, slot: int) -> None:
        pause = self._packs[slot].pause
        type(self).busy += pause
        heapq.heappush(self._due, (time.monotonic() + pause, slot))

    def wait(self, timeout: float) -> tuple[int, Message] | None:
        now = time.monotonic()
        if not self._due or self._due[0][0] > now + timeout:
            time.sleep(timeout)
            return None
        due, slot = heapq.heappop(self._due)
        time.sleep(max(0.0, due - now))
        pack = self._packs[slot]
        if pack.fails:
            return slot, Failed(reason="a fault that was drawn")
        if not pack.running or len(pack.curves[pack.running[0]]) == REPORTS:
            return slot, Finished(results=tuple(map(result_of, pack.curves)))
        for i in pack.running:
            pack.curves[i].append(report_of(pack.configs[i], len(pack.curves[i]) + 1))
        return slot, Reported(reports={i: pack.curves[i][-1] for i in pack.running})

    def answer(self, slot: int, stop: Collection[int]) -> None:
        pack = self._packs[slot]
        pack.running = [i for i in pack.running if i not in stop]
        if pack.running and len(pack.curves[pack.running[0]]) < REPORTS:
            self._go_on(slot)
        else:
            heapq.heappush(self._due, (time.monotonic(), slot))  # its result is there at once

    def end(self, slot: int, reason: str) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Asked:
    """What is put to the writer."""

    workers: int
    pack: int
    sampler: str
    pruner: str
    seed: int = 0

    def spec(self) -> StudySpec:
        """What the study asks."""
        parts = {"sampler": self.sampler, "pruner": self.pruner, "seed": self.seed}
        return check({"dataset": "digits", **parts})


def fill(store: Store, name: str, asked: Asked, trials: int) -> None:
    """A study of so many trials, drawn at random, a third of them run to their end."""
    spec = resolve(asked.spec(), "float32")
    with store.writing(name) as storage:
        study_id = create_or_resume(storage, name, spec, content_hash("digits", FOLDER))
        ledger = Ledger(storage, study_id, spec, SeededSampler(SAMPLERS["random"], 0, []), PRUNERS["none"]())
        for number in range(trials):
            job = ledger.ask(partial(sample, spec))
            curve = [report_of(job.config, step) for step in range(1, (1, 3, REPORTS)[number % 3] + 1)]
            for report in curve:
                ledger.report(job, report.val_accuracy, report.step)
            ledger.tell(job, result_of(curve))
            ledger.commit()


@contextmanager
def measured() -> Iterator[Counter[str]]:
    """Counts statements and commits, and the seconds of each of PARTS, meanwhile."""
    counts: Counter[str] = Counter()
    heard = {name: partial(lambda key, *_: counts.update([key]), key) for name, key in COUNTED.items()}
    for name, count in heard.items():
        event.listen(Engine, name, count)
    whole = {part: getattr(owner, name) for part, (owner, name) in PARTS.items()}

    def timed(part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(call)
        def timing(*given: Any) -> Any:
            before = time.perf_counter()
            try:
                return call(*given)
            finally:
                counts[part] += time.perf_counter() - before  # type: ignore[assignment]

        return timing

    for part, (owner, name) in PARTS.items():
        setattr(owner, name, timed(part, whole[part]))
    try:
        yield counts
    finally:
        for part, (owner, name) in PARTS.items():
            setattr(owner, name, whole[part])
        for name, count in heard.items():
            event.remove(Engine, name, count)


def run(store: Store, name: str, trials: int, asked: Asked) -> tuple[float, float]:
    """So many more trials: how many a second, and the share of their time that workers run; without ramps."""
    marks: list[tuple[float, float]] = []

    def listen(heard: Event) -> None:
        if isinstance(heard, Told):
            marks.append((time.perf_counter(), DrawnLauncher.busy))

    workers, ramp = asked.workers, asked.workers * asked.pack
    settings = Settings(FOLDER, ",".join(["cpu"] * workers), pack=asked.pack, launcher="drawn")
    there = store.find(name, "ranking")
    total = trials + (len(there.trials) if there else 0)
    optimize(asked.spec(), trials=total, name=name, store=store, settings=settings, listen=listen)
    if len(marks) <= 2 * ramp:
        return float("nan"), float("nan")
    (first, before), (last, after) = marks[ramp - 1], marks[-ramp]
    return (len(marks) - 2 * ramp + 1) / (last - first), (after - before) / (last - first) / workers


def carry(given: argparse.Namespace, store: Store) -> None:
    """The table of what one writer carries."""
    table = Table("stored", "workers", "pack", "run, s", "trials/s", "busy", "ms a trial", *PARTS, box=None)
    for column in ("statements", "commits"):
        table.add_column(column)
    for stored in given.stored:
        for seconds in given.seconds:
            for pack in given.packs:
                for workers in given.workers:
                    name = f"{given.sampler}-{stored}-{seconds:g}-{pack}-{workers}"
                    asked = Asked(workers, pack, given.sampler, given.pruner)
                    fill(store, name, asked, stored)
                    DrawnLauncher.seconds = seconds
                    trials = max(given.trials, 4 * workers * pack)
                    with measured() as counts:
                        rate, busy = run(store, name, trials, asked)
                    used = 1000 * sum(counts[part] for part in PARTS) / trials
                    table.add_row(
                        *(str(stored), str(workers), str(pack), f"{seconds:g}", f"{rate:.1f}"),
                        f"{busy:.0%}",
                        f"{used:.1f}",
                        *(f"{1000 * counts[part] / trials:.1f}" for part in PARTS),
                        *(f"{counts[key] / trials:.1f}" for key in COUNTED.values()),
                    )
    console.print(table)


def regrets(given: argparse.Namespace, store: Store) -> None:
    """The table of what it costs a search that so many results are not known yet."""
    table = Table("workers", "pack", "mean regret", "standard error", "times the first", box=None)
    first = None
    for pack in given.packs:
        for workers in given.workers:
            found = []
            for seed in range(given.seeds):
                name = f"regret-{workers}-{pack}-{seed}"
                DrawnLauncher.seconds = 0.001 * workers  # as many results a second for any number of workers
                run(store, name, given.trials, Asked(workers, pack, given.sampler, given.pruner, seed))
                found.append(OPTIMUM - (store.read(name, "ranking").best().value or 0.0))
            first = first or fmean(found)
            error = stdev(found) / len(found) ** 0.5 if len(found) > 1 else float("nan")
            times = f"{fmean(found) / first:.2f}"
            table.add_row(str(workers), str(pack), f"{fmean(found):.5f}", f"{error:.5f}", times)
    console.print(f"{given.trials} trials, {given.seeds} seeds, {given.sampler}")
    console.print(table)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--storage", help="an empty one; a SQLite file in a temporary folder by default")
    parser.add_argument("--sampler", default="random", choices=list(SAMPLERS))
    parser.add_argument(
        "--pruner", default="halving", choices=list(PRUNERS), help="none: every run takes its time"
    )
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 8, 64, 256, 512])
    parser.add_argument("--packs", type=int, nargs="+", default=[1])
    parser.add_argument("--seconds", type=float, nargs="+", default=[0.0], help="of a run to its end")
    parser.add_argument("--stored", type=int, nargs="+", default=[200, 2000])
    parser.add_argument("--trials", type=int, default=200, help="more of them, four a worker at least")
    parser.add_argument("--regret", action="store_true")
    parser.add_argument("--seeds", type=int, default=20)
    given = parser.parse_args()
    LAUNCHERS["drawn"] = DrawnLauncher
    with tempfile.TemporaryDirectory() as folder:
        store = Store(given.storage or f"sqlite:///{folder}/x.db")
        (regrets if given.regret else carry)(given, store)


if __name__ == "__main__":
    main()
