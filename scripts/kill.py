"""What does kill -9 cost? A study that is killed at random moments, against a study left alone.

    python scripts/kill.py --kills 50 --trials 600 --seed 0

One worker trains small MLPs on the bundled digits. The main process or its worker is killed while it
starts, draws, trains or tells, and the same command goes on. The exit code is 1 where a trial was lost, run
twice or left unfinished, a worker was left behind, or the two studies differ.
"""

import argparse
import os
import platform
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import psutil  # type: ignore[import-untyped]
from rich.console import Console
from rich.table import Table

from slopesearch.config import REPORTS
from slopesearch.search.sqlite import SqliteFile
from slopesearch.search.store import Store

ORPHAN = 10  # s for which a worker may outlive its main process
STUCK = 300  # s without progress, after which the study counts as hung
POLL = 0.01  # s between two looks at the output
Rows = dict[int, tuple[str, float]]


class Run:
    """A call of `optimize` as a process, with its output in a file."""

    def __init__(self, database: Path, trials: int) -> None:
        self.log = database.with_suffix(".log")
        budget = ["--dataset", "digits", "--model", "mlp", "--epochs", "2", "--devices", "cpu"]
        command = [sys.executable, "-m", "slopesearch", "optimize", *budget, "--workers", "1"]
        with self.log.open("w") as out:
            self.process = psutil.Popen(
                [*command, "--pack", "1", "--trials", str(trials), "--storage", f"sqlite:///{database}"],
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None

    def lines(self, start: str) -> int:
        """How many lines of the output begin with `start`."""
        return sum(line.startswith(start) for line in self.log.read_text().splitlines())

    def wait_for(self, start: str, count: int) -> bool:
        """Wait for `count` such lines; False where the process ends before."""
        deadline = time.monotonic() + STUCK
        while self.lines(start) < count:
            if self.ended:
                return False
            if time.monotonic() > deadline:
                raise SystemExit(f"nothing happened for {STUCK} s:\n{self.log.read_text()}")
            time.sleep(POLL)
        return True


@dataclass
class Findings:
    """The kills by victim and stage, and every fault that was found."""

    kills: Counter[tuple[str, str]] = field(default_factory=Counter)
    longest_orphan: float = 0.0
    checks: int = 0
    wrong: list[str] = field(default_factory=list)


def told(database: Path) -> Rows:
    """State and value of every finished trial, by number."""
    query = """SELECT number, state, value FROM trials LEFT JOIN trial_values USING (trial_id)
               WHERE state != 'RUNNING'"""
    try:
        with closing(SqliteFile(database).read_only()) as connection:
            return {number: (state, value) for number, state, value in connection.execute(query)}
    except sqlite3.OperationalError:  # the tables are not made yet
        return {}


def stage(run: Run, database: Path) -> str:
    """The stage of the study at this moment, in words."""
    query = """
        SELECT (SELECT count(*) FROM trial_user_attributes AS a
                WHERE a.trial_id = t.trial_id AND a.key = 'config'),
               (SELECT count(*) FROM trial_intermediate_values AS r WHERE r.trial_id = t.trial_id)
        FROM trials AS t WHERE state = 'RUNNING'
    """
    if not run.lines("digits-mlp: to "):
        return "starting"
    with closing(SqliteFile(database).read_only()) as connection:
        row = connection.execute(query).fetchone()
    if row is None:
        return "between trials"
    drawn, reports = row
    if not drawn:
        return "drawing"
    if reports == REPORTS:
        return "telling"
    return "training, reported" if reports else "training, not yet reported"


def check(database: Path, before: Rows, found: Findings) -> Rows:
    """The finished trials now; a fault where the file is damaged, or a told trial is gone or changed."""
    if not database.exists():
        return before
    with closing(sqlite3.connect(database)) as connection:
        (answer,) = connection.execute("PRAGMA integrity_check").fetchone()
    now = told(database)
    found.checks += 1
    if answer != "ok":
        found.wrong.append(f"integrity_check: {answer}")
    found.wrong += [f"trial {n} was {row}, is {now.get(n)}" for n, row in before.items() if now.get(n) != row]
    return now


def kill(run: Run, victim: str, database: Path, found: Findings) -> None:
    """Kill the main process or its worker, and watch that no worker outlives its main process."""
    workers = run.process.children(recursive=True)
    if victim == "worker" and workers:
        found.kills[victim, stage(run, database)] += 1
        workers[0].kill()
        return
    run.process.send_signal(signal.SIGSTOP)  # the stage that is read is that of the kill
    found.kills["main", stage(run, database)] += 1
    run.process.kill()
    run.process.wait()
    started = time.monotonic()
    _, alive = psutil.wait_procs(workers, timeout=ORPHAN)
    found.longest_orphan = max(found.longest_orphan, time.monotonic() - started)
    if alive:
        found.wrong.append(f"{len(alive)} workers were alive {ORPHAN} s after their main process was killed")


def study_left_alone(database: Path, trials: int) -> tuple[float, float]:
    """Run the study to its end: the seconds until a call tells its first trial, and of each further trial.

    A first call for one trial is not timed: a cold disk and loops that are not compiled yet take many times
    as long as later starts, and moments drawn from that pace would come after the study's end.
    """
    if Run(database, 1).process.wait(STUCK) != 0:
        raise SystemExit(database.with_suffix(".log").read_text())
    started = time.monotonic()
    run = Run(database, trials)
    run.wait_for("[", 1)
    first = time.monotonic() - started
    if run.process.wait(STUCK * trials) != 0:
        raise SystemExit(run.log.read_text())
    return first, (time.monotonic() - started - first) / max(1, trials - 2)


def killed_study(database: Path, arguments: argparse.Namespace, pace: tuple[float, float]) -> Findings:
    """Run the study and kill it again and again; `pace` holds the times of the study left alone."""
    found, rng = Findings(), random.Random(arguments.seed)
    rows: Rows = {}
    run = Run(database, arguments.trials)
    spared = 0  # a trial is told between two kills of workers: one whose worker dies twice is left as FAIL
    while sum(found.kills.values()) < arguments.kills:
        victim = rng.choice(["main", "worker"])
        if victim == "main" and rng.random() < 0.4:
            landed = not run.ended
            time.sleep(rng.uniform(0, pace[0]))
        else:
            wanted = max(run.lines("[") + rng.choice([0, 0, 1]), spared if victim == "worker" else 0)
            landed = run.wait_for("digits-mlp: to ", 1) and run.wait_for("[", wanted)
            time.sleep(rng.uniform(0, pace[1]))
        if not landed or run.ended:
            break  # the study has ended before its last kill; the table says how many there were
        kill(run, victim, database, found)
        spared = run.lines("[") + 1
        if run.ended:
            rows, spared = check(database, rows, found), 0
            run = Run(database, arguments.trials)
    if run.process.wait(STUCK) != 0:
        found.wrong.append(f"the last call failed:\n{run.log.read_text()[-2000:]}")
    check(database, rows, found)
    return found


def compare(database: Path, whole: Path, trials: int) -> list[str]:
    """A sentence for each trial that is missing, superfluous, unfinished or different."""
    one, other = (Store(f"sqlite:///{path}").read().trials for path in (database, whole))
    wrong = []
    if [trial.number for trial in one] != list(range(trials)):
        wrong.append(f"{trials} trials were asked for, there are {len(one)}")
    wrong += [f"trial {t.number} is {t.state}" for t in one if t.state not in ("COMPLETE", "PRUNED")]
    for killed, left_alone in zip(one, other, strict=False):
        for name in ("state", "value", "config", "reports", "ended", "curve"):
            a, b = getattr(killed, name), getattr(left_alone, name)
            if a != b:
                wrong.append(f"trial {killed.number}: {name} is {a}, in the study left alone {b}")
    return wrong


def main() -> None:
    """Run both studies, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--trials", type=int, default=600, help="trials of the study in all")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments and the victims")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        whole, database = Path(folder, "whole.db"), Path(folder, "killed.db")
        pace = study_left_alone(whole, arguments.trials)
        found = killed_study(database, arguments, pace)
        found.wrong += compare(database, whole, arguments.trials)
    table = Table("killed", "while", "times", box=None)
    for (victim, when), count in sorted(found.kills.items()):
        table.add_row(victim, when, str(count))
    console = Console()
    console.print(
        f"{date.today()}, {platform.processor() or platform.machine()}, seed {arguments.seed}: "
        f"{sum(found.kills.values())} kills, {arguments.trials} trials; "
        f"{pace[0]:.1f} s to start, {pace[1]:.2f} s a trial"
    )
    console.print(table)
    console.print(
        f"integrity_check ran {found.checks} times; longest life of a worker after its main process: "
        f"{found.longest_orphan:.1f} s"
    )
    for line in found.wrong:
        console.print(f"wrong: {line}", markup=False)
    if found.wrong or not found.kills:
        sys.exit(1)
    console.print("every told trial is there once, none is stuck, all equal those of the study left alone")


if __name__ == "__main__":
    main()
