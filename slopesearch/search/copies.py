"""A study whole, with the studies of its verdict: deleted in one commit, or copied to a file of its own."""

import os
import secrets
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from optuna.storages._rdb.models import BaseModel
from sqlalchemy import Connection, Table, delete, select
from sqlalchemy.exc import SQLAlchemyError

from slopesearch.search.rescue import refuse_leftovers
from slopesearch.search.rows import Reader
from slopesearch.search.sqlite import closing_storage
from slopesearch.search.storages import Storage
from slopesearch.wording import RequestError

TABLES: list[Table] = list(BaseModel.metadata.sorted_tables)  # Optuna's, each behind those that it refers to
TRIALS = BaseModel.metadata.tables["trials"]
AT_ONCE = 500  # trials whose rows are in memory


def delete_studies(storage: Storage, names: Sequence[str]) -> None:
    """Delete studies with all that belongs to them, all of them or none."""
    ids = [storage.get_study_id_from_name(name) for name in names]
    trials = select(TRIALS.c.trial_id).where(TRIALS.c.study_id.in_(ids))

    def write(connection: Connection) -> None:
        for table in reversed(TABLES):
            if "study_id" in table.c:
                connection.execute(delete(table).where(table.c.study_id.in_(ids)))
            elif "trial_id" in table.c:
                connection.execute(delete(table).where(table.c.trial_id.in_(trials)))

    storage.transact(write)


def refuse_target(path: Path) -> None:
    """Raise RequestError unless a new file can be made at a path."""
    if os.path.lexists(path):
        raise RequestError(f"'{path}' is there already; name a new file")
    if not path.parent.is_dir():
        raise RequestError(f"'{path}' cannot be made: there is no folder '{path.parent}'; create it first")
    refuse_leftovers(path)


def copy_studies(source: AbstractContextManager[Reader], names: Sequence[str], path: Path) -> None:
    """Copy studies, as they are at one moment, to a new SQLite file: written aside, then renamed.

    `source` opens what reads the storage at one moment.

    Raises RequestError where the file is there already or cannot be written.
    """
    refuse_target(path)
    aside = path.with_name(f".{path.name[:50]}-{secrets.token_hex(4)}")
    try:
        with closing_storage(aside):
            pass
        with source as reader, closing(sqlite3.connect(aside)) as target:
            for into, rows in _rows(reader, names):
                with _told_of(path):
                    target.executemany(into, rows)
            with _told_of(path):
                target.commit()
        refuse_target(path)  # it may have come meanwhile
        aside.rename(path)
    except SQLAlchemyError as error:
        raise _unwritable(path, error) from None
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def _told_of(path: Path) -> Iterator[None]:
    """Raise RequestError where SQLite cannot write; the file that is read has sentences of its own."""
    try:
        yield
    except sqlite3.Error as error:
        raise _unwritable(path, error) from None


def _unwritable(path: Path, error: Exception) -> RequestError:
    return RequestError(f"'{path}' cannot be written ({str(error).splitlines()[0]}); name another file")


def _rows(reader: Reader, names: Sequence[str]) -> Iterator[tuple[str, list[Any]]]:
    """Rows that belong to studies, some at a time, each with the statement that writes them."""
    marks = ", ".join("?" * len(names))
    studies = f"SELECT study_id FROM studies WHERE study_name IN ({marks})"
    query = f"SELECT trial_id FROM trials WHERE study_id IN ({studies}) ORDER BY trial_id"
    trials = [row[0] for row in reader.execute(query, names)]
    for table in TABLES:
        columns = ", ".join(column.name for column in table.c)
        query = f"SELECT {columns} FROM {table.name} WHERE"
        into = f"INSERT INTO {table.name} ({columns}) VALUES ({', '.join('?' * len(table.c))})"
        if "trial_id" in table.c:
            for start in range(0, len(trials), AT_ONCE):
                some = trials[start : start + AT_ONCE]
                marks = ", ".join("?" * len(some))
                yield into, _as_sqlite(reader.execute(f"{query} trial_id IN ({marks})", some))
        elif "study_id" in table.c:
            yield into, _as_sqlite(reader.execute(f"{query} study_id IN ({studies})", names))


def _as_sqlite(rows: Iterable[Sequence[Any]]) -> list[Any]:
    """Rows with their times as SQLAlchemy writes them to SQLite."""
    return [
        [value.isoformat(" ", "microseconds") if isinstance(value, datetime) else value for value in row]
        for row in rows
    ]
