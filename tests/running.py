"""Studies in a process of their own, which train nothing, a trial at a time.

`python -m tests.running optimize …` is the command line. `python -m tests.running notebook PATH NAME…` has
each study open through Optuna while `optimize` goes on with it, all of them at once, each in a thread.
"""

import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import optuna

from slopesearch.cli.main import main
from slopesearch.config import TrialConfig
from slopesearch.search.events import Event, Told
from slopesearch.search.launchers import LAUNCHERS
from tests.harness import FakeLauncher, Harness

ROOT = Path(__file__).parents[1]
FAKE = ("--dataset", "digits", "--model", "mlp", "--launcher", "fake", "--devices", "cpu", "--workers", "1")


class Running:
    """Such a process, seen from outside: `tell` lets it tell so many more trials, and then it waits.

    It is killed at the end of the block.
    """

    def __init__(self, *words: str, before: Sequence[str] = ()) -> None:
        self.process = subprocess.Popen(
            [*before, sys.executable, "-u", "-m", "tests.running", *words],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def tell(self, trials: int) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        for _ in range(trials):
            self.process.stdin.write("\n")
            self.process.stdin.flush()
            next(line for line in self.process.stdout if line.startswith("["))

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def end(self) -> tuple[int, str, str]:
        """Let it go on to its end: the exit code, the rest of its output, its errors."""
        output, errors = self.process.communicate(timeout=120)
        return self.process.returncode, output, errors


class Stepping(FakeLauncher):
    """Before each trial it waits for a line on standard input, as long as that is open."""

    LOCK = threading.Lock()

    def start(self, slot: int, configs: Sequence[TrialConfig]) -> None:
        with self.LOCK:
            sys.stdin.readline()
        super().start(slot, configs)


def notebook(path: Path, names: Sequence[str]) -> None:
    """Go on with studies that are there, to 20 trials each."""

    def listen(event: Event) -> None:
        if isinstance(event, Told):
            print("[", flush=True)

    opened = [optuna.load_study(study_name=name, storage=f"sqlite:///{path}") for name in names]
    assert all(study.trials for study in opened)
    threads = [
        threading.Thread(target=Harness(path), args=(20, None, name), kwargs={"listen": listen})
        for name in names
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    LAUNCHERS["fake"] = Stepping
    if sys.argv[1] == "notebook":
        notebook(Path(sys.argv[2]), sys.argv[3:])
    else:
        main()
