"""The SQLite file behind a storage URL: which it is, whether it is ours, who writes, what is in it."""

import hashlib
import json
import os
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from slopesearch.config import RequestError
from slopesearch.search.records import StudySummary

DEFAULT_URL = "sqlite:///studies/slopesearch.db"
BUSY_TIMEOUT = 60  # s to wait for another process that holds the file


def database_path(url: str) -> Path:
    """The file behind a storage URL. Raises RequestError for any other kind of storage."""
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
        if backend == "sqlite":
            parsed.get_dialect().import_dbapi()
    except (NoSuchModuleError, ImportError) as error:  # the first is also an ArgumentError
        raise RequestError(
            f"the storage URL '{url}' needs a driver that is not installed ({error}); "
            f"use a SQLite file like {DEFAULT_URL}"
        ) from None
    except (ArgumentError, ValueError):
        raise RequestError(
            f"'{url}' is not a storage URL; a SQLite file is named like {DEFAULT_URL}"
        ) from None
    if backend != "sqlite" or not parsed.database or parsed.database == ":memory:":
        raise RequestError(
            f"studies are stored in SQLite files, server and in-memory storages are not supported, given "
            f"'{url}'; name one like {DEFAULT_URL}"
        )
    return Path(parsed.database)


def check_database(path: Path) -> None:
    """Raise RequestError unless the file is one of Optuna's, or can be made. Writes nothing."""
    if not path.exists():
        default = database_path(DEFAULT_URL).parent
        if path.parent != default and not path.parent.is_dir():
            raise RequestError(f"the storage folder '{path.parent}' does not exist; create it first")
        return
    try:
        with closing(_read_only(path)) as connection:
            tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
    except (sqlite3.Error, OSError) as error:
        raise RequestError(
            f"'{path}' cannot be read as a SQLite file ({error}); name another with --storage"
        ) from None
    if tables and not {"studies", "trials", "version_info"} <= tables:
        raise RequestError(
            f"'{path}' is a SQLite file of another program (it has no Optuna tables); "
            "name another with --storage"
        )


def check_writable(path: Path) -> None:
    """Raise RequestError unless the file and its folder, or the one to make it in, can be written to."""
    folder = path.parent if path.parent.exists() else path.parent.parent
    for needed in (path, folder) if path.exists() else (folder,):
        if not os.access(needed, os.W_OK):
            raise RequestError(f"'{needed}' cannot be written to; choose another place with --storage")
    if not folder.is_dir():
        raise RequestError(f"'{folder}' is not a folder; choose another place with --storage")


def _read_only(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=BUSY_TIMEOUT)


def existing_database(url: str) -> Path:
    """The file behind a storage URL that is to be read. Raises RequestError where there is none."""
    path = database_path(url)
    if not path.exists():
        raise RequestError(
            f"there is no storage '{path}' yet; `python -m slopesearch optimize` makes it, "
            "or name another with --storage"
        )
    check_database(path)
    return path


@contextmanager
def only_writer(path: Path, study_name: str) -> Iterator[None]:
    """Hold the study's lock, which the system lets go when the process dies.

    Raises RequestError, naming the holder, where another process is writing the study.
    """
    digest = hashlib.sha256(study_name.encode()).hexdigest()[:12]
    lock = FileLock(path.with_name(f".{path.name}.{digest}.lock"))
    holder = path.with_name(f".{path.name}.{digest}.lock.json")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        try:
            who = "process {pid} on {host}, since {since}".format(**json.loads(holder.read_text()))
        except (OSError, ValueError, KeyError):
            who = "another process"
        raise RequestError(
            f"the study '{study_name}' is being written by {who}; let it finish or stop it, "
            "or start another study with --name"
        ) from None
    since = datetime.now().isoformat(sep=" ", timespec="seconds")
    holder.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since}))
    try:
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def read_summaries(url: str) -> list[StudySummary]:
    """Every study of a storage, by name.

    In SQL on Optuna's tables: its own API reads every trial whole, which takes over 2 s for 2,000 of them.
    """
    query = """
        SELECT study_name,
               sum(state = 'COMPLETE'), sum(state = 'PRUNED'), sum(state = 'RUNNING'), sum(state = 'FAIL'),
               CASE direction WHEN 'MAXIMIZE' THEN max(iif(state = 'COMPLETE', value, NULL))
                              ELSE min(iif(state = 'COMPLETE', value, NULL)) END
        FROM studies
        JOIN study_directions USING (study_id)
        LEFT JOIN trials USING (study_id)
        LEFT JOIN trial_values USING (trial_id)
        GROUP BY study_id ORDER BY study_name
    """
    path = existing_database(url)
    try:
        with closing(_read_only(path)) as connection:
            rows = connection.execute(query).fetchall()
    except sqlite3.Error as error:
        raise RequestError(f"'{path}' cannot be read as a storage of studies: {error}") from None
    return [StudySummary(row[0], row[1] or 0, row[2] or 0, row[3] or 0, row[4] or 0, row[5]) for row in rows]
