"""What does the one process that writes a study cost? Nothing is trained: workers answer at once.

    python scripts/benchmark_writer.py --rounds 5

For a study that holds so many trials: the ms that asking, reporting, pruning and telling take a trial, with
the draws of TPE and with random ones, which cost next to nothing; its statements and commits; and the trials
a second with 64 workers. Medians over rounds.
"""

import argparse
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine

from slopesearch.config import REPORTS, Report, TrialConfig, TrialResult
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

FOLDER, NAME = Path("unused"), "writer"
COUNTED = ("before_cursor_execute", "commit")


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

    def shares(self) -> list[int]:
        return [0 for _ in self.devices]

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


def measure(path: Path, trials: int, workers: int) -> list[float]:
    """Seconds, statements and commits of each of so many trials after those stored, in a copy of the file."""
    counts: Counter[str] = Counter()
    marks: list[tuple[float, int, int]] = []

    def listen(event: Event) -> None:
        if isinstance(event, (Began, Told)):
            marks.append((time.perf_counter(), counts["before_cursor_execute"], counts["commit"]))

    heard = {name: partial(lambda name, *_: counts.update([name]), name) for name in COUNTED}
    for name, count in heard.items():
        event.listen(Engine, name, count)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(f"sqlite:///{shutil.copy(path, folder)}")
        settings = Settings(FOLDER, "cpu", workers, launcher="answering")
        total = len(store.read(NAME).trials) + trials
        optimize(check({}), trials=total, name=NAME, store=store, settings=settings, listen=listen)
    for name, count in heard.items():
        event.remove(Engine, name, count)
    return [(end - start) / trials for start, end in zip(marks[0], marks[-1], strict=True)]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = range(parser.parse_args().rounds)
    LAUNCHERS["answering"] = AnsweringLauncher
    with tempfile.TemporaryDirectory() as folder:
        for stored in (200, 2000):
            for sampler in ("tpe", "random"):
                path = Path(folder, f"{sampler}{stored}.db")
                fill(path, sampler, stored)
                seconds, statements, commits = map(
                    median, zip(*(measure(path, 40, 1) for _ in rounds), strict=True)
                )
                rate = 1 / median(measure(path, 128, 64)[0] for _ in rounds)
                print(
                    f"{stored} stored, {sampler}: {1000 * seconds:.1f} ms, {statements:.1f} statements and "
                    f"{commits:.1f} commits a trial; {rate:.0f} trials/s with 64 workers",
                    flush=True,
                )


if __name__ == "__main__":
    main()
