"""What do the commands cost on a study of thousands of trials? Every command is a process of its own.

    python scripts/benchmark_commands.py --trials 2500 10000 50000

The trials are copies of a real study of digits and MLPs, with values, learning rates and slopes of their own.
For `list`, `show`, `report` and three more trials by `optimize`: CPU and wall seconds and the peak MiB of
memory of the largest process; for the report also the megabytes of its page.
"""

import argparse
import json
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from math import exp, log
from pathlib import Path
from time import perf_counter
from typing import Any

NAME, COPIED = "scale", 48
STUDY = ("--name", NAME, "--devices", "cpu", "--workers", "1", "--trials")
TABLES = ("trial_params", "trial_values", "trial_intermediate_values", "trial_user_attributes")


def fill(path: Path, trials: int) -> None:
    """A study of so many finished trials."""
    quick = ("--dataset", "digits", "--model", "mlp", "--epochs", "2", "--storage", f"sqlite:///{path}")
    measure(path.parent, "optimize", *STUDY, str(COPIED), *quick)
    draw = random.Random(0)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.row_factory = sqlite3.Row
        templates = [
            (trial, {t: _rows(connection, t, trial["trial_id"]) for t in TABLES})
            for trial in connection.execute("SELECT * FROM trials ORDER BY number").fetchall()
        ]
        for number in range(len(templates), trials):
            trial, tables = templates[number % len(templates)]
            _insert(connection, "trials", [{**trial, "trial_id": number + 1, "number": number}])
            for table, rows in zip(tables, _varied(tables, draw), strict=True):
                _insert(connection, table, [{**row, "trial_id": number + 1} for row in rows])


def _rows(connection: sqlite3.Connection, table: str, trial_id: int) -> list[dict[str, Any]]:
    """The rows of a trial, without the table's own key, which is its first column."""
    found = connection.execute(f"SELECT * FROM {table} WHERE trial_id = ?", [trial_id])
    return [dict(list(dict(row).items())[1:]) for row in found]


def _insert(connection: sqlite3.Connection, table: str, rows: list[dict[str, Any]]) -> None:
    for row in rows:
        marks = ", ".join("?" * len(row))
        connection.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})", list(row.values()))


def _varied(tables: dict[str, list[dict[str, Any]]], draw: random.Random) -> list[list[dict[str, Any]]]:
    """The rows of another trial: its numbers drawn again, in its config too; values up to 10 % worse."""
    worse, drawn = 1 - draw.random() / 10, {}
    params, values, reports, attributes = ([dict(row) for row in tables[table]] for table in TABLES)
    for row in params:
        distribution = json.loads(row["distribution_json"])["attributes"]
        if "low" in distribution:
            row["param_value"] = exp(draw.uniform(log(distribution["low"]), log(distribution["high"])))
            drawn[row["param_name"]] = row["param_value"]
    for row in values:
        row["value"] *= worse
    for row in reports:
        row["intermediate_value"] *= worse
    for row in attributes:
        stored = json.loads(row["value_json"])
        if row["key"] == "config":
            row["value_json"] = json.dumps({**stored, **drawn})
        elif row["key"] in ("val_accuracy", "seconds", "images_per_second"):
            row["value_json"] = json.dumps(stored * worse)
    return [params, values, reports, attributes]


def measure(folder: Path, *arguments: str) -> tuple[float, float, float]:
    """CPU seconds, wall seconds and peak MiB of a command."""
    before = perf_counter()
    command = [sys.executable, "-m", "slopesearch", *arguments]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return used.ru_utime + used.ru_stime, perf_counter() - before, used.ru_maxrss / 1024


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", default=[2_500, 10_000, 50_000])
    for trials in parser.parse_args().trials:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            fill(folder / "x.db", trials)
            more = ["optimize", *STUDY, str(trials + 3)]
            for words in (["list"], ["show", NAME], ["report", NAME], more):
                cpu, wall, peak = measure(folder, *words, "--storage", "sqlite:///x.db")
                page = folder / "report.html"
                size = f", {page.stat().st_size / 1e6:.1f} MB" if words[0] == "report" else ""
                print(
                    f"{trials:6} trials, {words[0]:8} {cpu:6.1f} s CPU {wall:6.1f} s {peak:6.0f} MiB{size}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
