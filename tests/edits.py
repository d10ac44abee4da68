"""A database with one field changed: every column of every table, every key of an attribute, nasty values."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

VALUES: dict[str, object] = {
    "NULL": None,
    "text": "abc",
    "negative": -1,
    "infinite": 1e400,
    "list": "[1]",
    "object": "{}",
    "blob": b"\x00\xff",
    "long": "9" * 100_000,
}


@dataclass(frozen=True)
class Edit:
    """One field of one row."""

    table: str
    column: str
    rowid: int
    value: str  # a name in VALUES

    def __str__(self) -> str:
        return f"{self.table}.{self.column} of row {self.rowid}: {self.value}"

    def apply(self, path: Path) -> bool:
        """Change the file, in place and without a journal; whether its columns allow the change."""
        with closing(sqlite3.connect(path)) as connection:
            try:
                with connection:
                    statement = f"UPDATE {self.table} SET {self.column} = ? WHERE rowid = ?"
                    connection.execute(statement, (VALUES[self.value], self.rowid))
            except sqlite3.IntegrityError:
                return False
        return True


def loosen(path: Path) -> None:
    """Let every column hold anything, and the file be without a WAL."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
        connection.execute("PRAGMA writable_schema=ON")
        with connection:
            connection.execute("UPDATE sqlite_master SET sql = replace(sql, ' NOT NULL', '')")


def edits(path: Path) -> list[Edit]:
    """Every edit of a trial of each state, and of the study; of rows of one kind, such as reports, one."""
    with closing(sqlite3.connect(path)) as connection:
        last = connection.execute("SELECT max(trial_id) FROM trials GROUP BY state").fetchall()
        trials = ", ".join(str(row[0]) for row in last)
        return [
            Edit(table, column, rowid, value)
            for table in _names(connection)
            for column, rowids in _fields(connection, table, trials)
            for rowid in rowids
            for value in VALUES
        ]


def _names(connection: sqlite3.Connection) -> list[str]:
    query = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%' ORDER BY name"
    return [row[0] for row in connection.execute(query)]


def _fields(connection: sqlite3.Connection, table: str, trials: str) -> Iterator[tuple[str, list[int]]]:
    columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
    several = {"key", "value_json", "param_name", "param_value", "distribution_json"}
    of_trials = f"WHERE trial_id IN ({trials})" if "trial_id" in columns else ""
    each = f"SELECT rowid FROM {table} {of_trials} ORDER BY rowid"
    first = f"SELECT min(rowid) FROM {table} {of_trials} {'GROUP BY trial_id' if of_trials else ''}"
    for column in columns:
        found = [row[0] for row in connection.execute(each if column in several else first)]
        yield column, [rowid for rowid in found if rowid is not None]
