"""The SQLite file behind a storage URL: which it is, whether it is ours, who writes, what is in it."""

import hashlib
import json
import os
import socket
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from slopesearch.search.records import VERDICTS, StudySummary
from slopesearch.wording import RequestError, printable

DEFAULT_URL = "sqlite:///studies/slopesearch.db"
BUSY_TIMEOUT = 60  # s to wait for another process that holds the file
LONGEST_NAME = 500  # characters of a study's name; Optuna's column holds 512


def check_name(name: str) -> None:
    """Raise RequestError unless a study may be called so: no path, terminal or shell may trip over it."""
    if not name.strip():
        raise RequestError("name: a study needs one that is not empty; leave it out for DATASET-MODEL")
    if len(name) > LONGEST_NAME:
        raise RequestError(f"name: at most {LONGEST_NAME} characters, given {len(name):,}; shorten it")
    if printable(name) != name:
        raise RequestError(f"name: control characters cannot be part of one, given '{printable(name)}'")
    if name.endswith(VERDICTS):
        raise RequestError(f"name: '{name}' is what `confirm` would call its own study; choose another")
    if name.startswith("-"):
        raise RequestError(f"name: a leading '-' would be read as an option, given '{name}'")


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
        with closing(read_only(path)) as connection:
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
    """Raise RequestError unless the file is whole, and it and its folder can really be written to.

    By trying: what the permissions say does not hold for root, nor on a disk that went read-only.
    """
    folder = path.parent if path.parent.exists() else path.parent.parent
    try:
        needed = folder
        tempfile.TemporaryFile(dir=folder).close()  # SQLite makes its -wal and -shm there
        if path.exists():
            needed = path
            path.open("r+b").close()
    except OSError as error:
        raise RequestError(
            f"'{needed}' cannot be written to ({error.strerror}); choose another place with --storage"
        ) from None
    if path.exists():
        _check_whole(path)


def _check_whole(path: Path) -> None:
    try:
        with closing(read_only(path)) as connection:
            (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.Error as error:
        found = str(error)
    if found != "ok":
        raise RequestError(
            f"'{path}' is damaged ({found}); put a copy of it in its place, or name another with --storage"
        )


def read_only(path: Path) -> sqlite3.Connection:
    """A connection that cannot change the file.

    In WAL mode even a reader needs a -shm beside the file. Where the folder does not allow that, and no -wal
    is waiting there, the file is complete and may be read as one that nobody writes.
    """
    path = path.resolve()
    alone = not os.access(path.parent, os.W_OK) and not path.with_name(f"{path.name}-wal").exists()
    uri = f"{path.as_uri()}?mode=ro{'&immutable=1' if alone else ''}"
    return sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT)


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
    path = path.resolve()  # a file under two names is one file
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
    with suppress(OSError):  # on a full disk the lock holds without a name
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
        SELECT CAST(study_name AS TEXT),
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
        with closing(read_only(path)) as connection:
            rows = connection.execute(query).fetchall()
    except sqlite3.Error as error:
        raise RequestError(f"'{path}' cannot be read as a storage of studies: {error}") from None
    return [StudySummary(row[0], row[1] or 0, row[2] or 0, row[3] or 0, row[4] or 0, row[5]) for row in rows]
