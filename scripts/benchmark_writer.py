"""What does the one process that writes a study cost? Nothing is trained: workers answer at once.

    python scripts/benchmark_writer.py --rounds 5

For a study that holds so many trials: the ms that asking, reporting, pruning and telling take a trial, with
the draws of TPE and with random ones, which cost next to nothing; its statements and commits; and the trials
a second with 64 workers. Medians over rounds.
"""

import argparse
import shutil
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine

from slopesearch.config import REPORTS, Report, TrialConfig, TrialResult
from slopesearch.search import sqlite
from slopesearch.search.events import Began, Event, Told
from slopesearch.search.launchers import LAUNCHERS
from slopesearch.search.ledger import Ledger
from slopesearch.search.messages import Finished, Message, Reported
from slopesearch.search.optimize import optimize
from slopesearch.search.pruner import PRUNERS
from slopesearch.search.sampler import SAMPLERS, SeededSampler
from slopesearch.search.settings import Settings
from slopesearch.search.space import check, resolve, sample
from slopesearch.search.store import Store, create_or_resume
from slopesearch.seeds import derive
from slopesearch.training.data import content_hash

FOLDER, NAME, MORE = Path("unused"), "writer", 40


def report_of(config: TrialConfig, step: int) -> Report:
    accuracy = derive(0, config.model_dump_json()) / 2**32 * (0.7 + 0.3 * step / REPORTS)
    return Report(step=step, train_loss=1.0, val_loss=1 - accuracy, val_accuracy=accuracy)


def result_of(curve: list[Report]) -> TrialResult:
    ended: Any = "completed" if len(curve) == REPORTS else "pruned"
    return TrialResult(ended=ended, curve=tuple(curve), seconds=0, images_per_second=1, device="none")


class AnsweringLauncher:
    def __init__(self, devices: list[str], folder: Path) -> None:
        self.devices = devices
        self.runs: dict[int, tuple[TrialConfig, list[Report]]] = {}
        self.ready: list[tuple[int, bool]] = []  # slots, and whether their trial is stopped

    def start(self, slot: int, configs: Sequence[TrialConfig]) -> None:
        self.runs[slot] = configs[0], []
        self.ready.append((slot, False))

    def wait(self, timeout: float) -> tuple[int, Message] | None:
        if not self.ready:
            return None
        slot, stopped = self.ready.pop(0)
        config, curve = self.runs[slot]
        if stopped or len(curve) == REPORTS:
            return slot, Finished(results=(result_of(curve),))
        curve.append(report_of(config, len(curve) + 1))
        return slot, Reported(reports={0: curve[-1]})

    def answer(self, slot: int, stop: Collection[int]) -> None:
        self.ready.append((slot, bool(stop)))

    def end(self, slot: int, reason: str) -> None: ...

    def close(self) -> None: ...


def fill(path: Path, sampler: str, trials: int) -> None:
    """A study of so many trials, drawn at random, a third of them run to their end."""
    spec = resolve(check({"dataset": "digits", "sampler": sampler}), "float32")
    with Store(f"sqlite:///{path}").writing(NAME) as storage:
        study_id = create_or_resume(storage, NAME, spec, content_hash("digits", FOLDER))
        ledger = Ledger(storage, study_id, spec, SeededSampler(SAMPLERS["random"], 0, []), PRUNERS["none"]())
        for number in range(trials):
            job = ledger.ask(partial(sample, spec))
            curve = [report_of(job.config, step) for step in range(1, (1, 3, REPORTS)[number % 3] + 1)]
            for report in curve:
                ledger.report(job, report.val_accuracy, report.step)
            ledger.tell(job, result_of(curve))
            ledger.commit()


def seconds_a_trial(path: Path, trials: int, workers: int) -> float:
    """Of so many trials after those that are stored, in a copy of the file."""
    times: list[float] = []

    def listen(event: Event) -> None:
        if isinstance(event, (Began, Told)):
            times.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        store = Store(f"sqlite:///{shutil.copy(path, folder)}")
        settings = Settings(FOLDER, "cpu", workers, launcher="answering")
        stored = len(store.read(NAME).trials)
        optimize(check({}), trials=stored + trials, name=NAME, store=store, settings=settings, listen=listen)
    return (times[-1] - times[0]) / trials


def writes_a_trial(path: Path) -> str:
    """The statements and the commits of a trial."""
    counts: Counter[str] = Counter()

    class Traced(sqlite.WalConnection):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.set_trace_callback(lambda text: counts.update(["commits"] if text == "COMMIT" else []))

    def execute(*_: object) -> None:
        counts["statements"] += 1

    plain, sqlite.WalConnection = sqlite.WalConnection, Traced  # type: ignore[misc]
    event.listen(Engine, "before_cursor_execute", execute)
    seconds_a_trial(path, MORE, 1)
    start = counts.copy()
    seconds_a_trial(path, 2 * MORE, 1)
    event.remove(Engine, "before_cursor_execute", execute)
    sqlite.WalConnection = plain  # type: ignore[misc]
    return ", ".join(f"{(counts[name] - 2 * start[name]) / MORE:.1f} {name}" for name in counts)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--stored", type=int, nargs="+", default=[200, 2000])
    arguments = parser.parse_args()
    LAUNCHERS["answering"] = AnsweringLauncher
    with tempfile.TemporaryDirectory() as folder:
        for stored in arguments.stored:
            for sampler in ("tpe", "random"):
                path = Path(folder, f"{sampler}{stored}.db")
                fill(path, sampler, stored)
                alone = [1000 * seconds_a_trial(path, MORE, 1) for _ in range(arguments.rounds)]
                many = [1 / seconds_a_trial(path, 2 * 64, 64) for _ in range(arguments.rounds)]
                print(
                    f"{stored} stored, {sampler}: {statistics.median(alone):.1f} ms a trial "
                    f"({min(alone):.1f} to {max(alone):.1f}), {writes_a_trial(path)}; 64 workers: "
                    f"{statistics.median(many):.1f} trials/s ({min(many):.1f} to {max(many):.1f})",
                    flush=True,
                )


if __name__ == "__main__":
    main()
