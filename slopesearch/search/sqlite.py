"""What is SQLite's alone: the file, its checks, its locks, its connections.

Nothing but SQLite opens the file: closing any other descriptor of it would drop every POSIX lock that this
process holds on it, SQLite's among them, and another process could then remove the live WAL.
"""

import hashlib
import json
import os
import socket
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from filelock import FileLock, Timeout
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import SQLAlchemyError

from slopesearch.search.mounts import network_mount
from slopesearch.search.rescue import Place, refuse_leftovers
from slopesearch.search.rows import Reader
from slopesearch.search.urls import DEFAULT_URL, SERVER_URL
from slopesearch.wording import RequestError, StudyFailedError, short

if TYPE_CHECKING:
    from slopesearch.search.storages import Storage

T = TypeVar("T")
DEFAULT_FOLDER = Path(str(make_url(DEFAULT_URL).database)).parent
BUSY_TIMEOUT = 60  # s to wait for another process that holds the file
LOOK = 0.2  # s to wait for a lock: a reader that looks whether it is held holds it for a moment
SCHEMA = "v3.2.0.a"  # of the tables that Optuna 5 makes
TABLES = {  # Optuna's; a view of such a name could not be written to
    *("version_info", "studies", "study_directions", "study_user_attributes", "study_system_attributes"),
    *("trials", "trial_params", "trial_values", "trial_intermediate_values"),
    *("trial_user_attributes", "trial_system_attributes"),
}


class WalConnection(sqlite3.Connection):
    """Readers go on while a study is written. (A listener would miss the connections pooled before it.)"""

    place: Place  # given by who opens it

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.execute("PRAGMA journal_mode=WAL")
        self.execute("PRAGMA synchronous=NORMAL")

    def commit(self) -> None:
        """Commit. Raises StudyFailedError where the file is no longer where it was, see `Place`."""
        super().commit()
        self.place.committed(self)


class SqliteFile:
    """A SQLite file that holds studies, on a disk of this machine."""

    IS_NUMBER = "typeof(value) = 'real'"  # SQL; any column takes a text

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def name(self) -> str:
        """What sentences call it."""
        return str(self.path)

    def is_empty(self) -> bool:
        """Whether it has yet to be made."""
        return not self.path.exists() or not self.path.stat().st_size

    def check(self) -> None:
        """Raise RequestError unless the file is one of Optuna's, or can be made. Writes nothing."""
        path = self.path
        if not path.exists():
            if path.parent != DEFAULT_FOLDER and not path.parent.is_dir():
                raise RequestError(f"the storage folder '{path.parent}' does not exist; create it first")
            refuse_leftovers(path.resolve())
            return
        try:
            with closing(self.read_only()) as connection:
                named = dict(connection.execute("SELECT name, type FROM sqlite_master"))
        except (sqlite3.Error, OSError) as error:
            raise RequestError(
                f"'{path}' cannot be read as a SQLite file ({error}); name another with --storage"
            ) from None
        if named and any(named.get(table) != "table" for table in TABLES):
            raise RequestError(
                f"'{path}' is a SQLite file of another program (it has no Optuna tables); "
                "name another with --storage"
            )

    def check_there(self) -> None:
        """Raise RequestError unless the file is there and one of Optuna's."""
        if not self.path.exists():
            raise RequestError(
                f"there is no storage '{self.path}' yet; `python -m slopesearch optimize` makes it, "
                "or name another with --storage"
            )
        self.check()

    def check_writable(self) -> None:
        """Raise RequestError unless the file is whole, and it and its folder can really be written to.

        By trying: what the permissions say does not hold for root, nor on a disk that went read-only.
        """
        self._refuse_network()
        folder = self.path.parent if self.path.parent.exists() else self.path.parent.parent
        try:
            tempfile.TemporaryFile(dir=folder).close()  # SQLite makes its -wal and -shm there
        except OSError as error:
            raise _unwritable(folder, str(error.strerror)) from None
        if not self.path.exists():
            return
        try:
            with closing(self.read_only()) as connection:
                (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
                (page,) = connection.execute("PRAGMA page_size").fetchone()
        except sqlite3.Error as error:
            found, page = str(error), 1
        path = self.path.resolve()
        size, wal = path.stat().st_size, path.with_name(f"{path.name}-wal")
        # SQLite fills the rest with zeros; with a -wal it may be what a crash left, which the -wal mends.
        if found == "ok" and size % page and not (wal.exists() and wal.stat().st_size):
            found = f"its {size:,} bytes end within a page of {page:,}"
        if found != "ok":
            raise RequestError(
                f"'{self.path}' is damaged ({found}); put a copy of it in its place, "
                "or name another with --storage"
            )
        try:
            with closing(self._connect("mode=rw")) as connection:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            raise _unwritable(self.path, str(error)) from None

    def _refuse_network(self) -> None:
        """Raise RequestError where other machines may have the file open too, see `network_mount`.

        SQLite's locks and the memory that its processes share do not reach from one machine to another.
        """
        found = network_mount(self.path.resolve().parent)
        if found is not None:
            kind, point = found
            raise RequestError(
                f"'{self.path}' is on a network file system ({kind}, mounted at '{point}'), where SQLite "
                "cannot keep two machines from writing at once; name a file on a disk of this machine, or a "
                f"PostgreSQL database, which any machine may use: --storage {SERVER_URL}"
            )

    def read_only(self) -> sqlite3.Connection:
        """A connection that cannot change the file.

        In WAL mode even a reader needs a -shm beside the file. Where the folder does not allow that, and no
        -wal is waiting there, the file is complete and may be read as a file that nobody writes.
        """
        path = self.path.resolve()
        alone = not os.access(path.parent, os.W_OK) and not path.with_name(f"{path.name}-wal").exists()
        return self._connect(f"mode=ro{'&immutable=1' if alone else ''}")

    def _connect(self, query: str) -> sqlite3.Connection:
        return sqlite3.connect(self._uri(query), uri=True, timeout=BUSY_TIMEOUT)

    def _connect_to_write(self, place: Place) -> WalConnection:
        place.check()
        connection = sqlite3.connect(
            self._uri("mode=rw"),
            uri=True,
            timeout=BUSY_TIMEOUT,
            factory=WalConnection,
            check_same_thread=False,  # a pool hands it from thread to thread
        )
        connection.place = place
        place.note()
        return connection

    def _uri(self, query: str) -> str:
        return f"{self.path.resolve().as_uri()}?{query}"

    def read(self, ask: Callable[[Reader], T]) -> T:
        """What a function finds in the file, see `reading`."""
        with self.reading() as connection:
            return ask(connection)

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection to a file that is there, which sees one moment of it: not a byte of it changes.

        Raises RequestError where its tables are not those that Optuna makes, or are damaged.
        """
        try:
            with closing(self.read_only()) as connection:
                connection.execute("BEGIN")
                found = [row[0] for row in connection.execute("SELECT version_num FROM alembic_version")]
                if found != [SCHEMA]:
                    raise RequestError(
                        f"'{self.path}' cannot be opened: its tables are of version {short(found)}, not "
                        f"'{SCHEMA}'; was it made by another version of Optuna?"
                    )
                yield connection
        except sqlite3.ProgrammingError:  # a fault of ours
            raise
        except sqlite3.Error as error:
            raise RequestError(
                f"'{self.path}' cannot be read as a storage of studies ({error}); put a copy of it in its "
                "place, or name another with --storage"
            ) from None

    @contextmanager
    def writing(self, study: str | None = None) -> Iterator["Storage"]:
        """Optuna's storage on the file, to write to, in WAL mode; the file is made where it is missing.

        Who writes a study holds its lock meanwhile, see `lock`. Raises RequestError where the file is on a
        network file system, or its schema is not that of the installed Optuna; StudyFailedError where the
        file cannot be written: locked for longer than BUSY_TIMEOUT, on a full or broken disk, or deleted,
        renamed or replaced meanwhile, see `Place`.
        """
        self._refuse_network()
        with nullcontext() if study is None else self.lock(study), self._written() as storage:
            yield storage

    @contextmanager
    def _written(self) -> Iterator["Storage"]:
        from optuna.exceptions import StorageInternalError

        place = Place(self.path)
        try:
            with FileLock(self._beside(".lock"), timeout=2 * BUSY_TIMEOUT):  # its holder may be waiting too
                self._make()
            connect = partial(self._connect_to_write, place)
            with closing_storage(self.path, engine_kwargs={"creator": connect}) as storage:
                yield storage
        except (SQLAlchemyError, StorageInternalError, Timeout) as error:
            cause = _root(error)
            if isinstance(cause, sqlite3.ProgrammingError) or not isinstance(cause, sqlite3.Error | Timeout):
                raise  # a fault of ours
            if type(cause) is sqlite3.DatabaseError:  # a subclass says nothing of what the file holds
                raise StudyFailedError(
                    f"'{self.path}' was damaged while it was written ({cause}): another program has written "
                    "to it, or the disk fails; put a copy in its place, without a -wal beside it, or name "
                    "another storage with --storage"
                ) from None
            raise StudyFailedError(
                f"'{self.path}' cannot be written ({_cause(error)}); what was finished is stored: make space "
                "on the disk, or end what holds the file, and the same command goes on from there"
            ) from None

    def _beside(self, suffix: str) -> Path:
        """A hidden file beside the real file, the same for every name that the file goes by."""
        path = self.path.resolve()
        return path.with_name(f".{path.name}{suffix}")

    def _make(self) -> None:
        """Make the tables aside, then rename: a kill in between leaves no half-made file of that name."""
        if self.path.exists() and self.path.stat().st_size:
            return
        aside = self._beside(".new")
        for leftover in (aside, aside.with_name(f"{aside.name}-journal")):
            leftover.unlink(missing_ok=True)
        with closing_storage(aside):
            pass
        aside.replace(self.path.resolve())

    @contextmanager
    def lock(self, study_name: str, doing: str = "written") -> Iterator[None]:
        """Hold a study's lock, which the system lets go when the process dies; one for each thing to be done.

        Raises RequestError, naming the holder, where another process is doing this with the study.
        """
        self.path.parent.mkdir(exist_ok=True)  # the default folder; any other has been found there
        lock, holder = self._lock_files(study_name, doing)
        try:
            lock.acquire(timeout=LOOK)
        except Timeout:
            try:
                who = "process {pid} on {host}, since {since}".format(**json.loads(holder.read_text()))
            except (OSError, ValueError, KeyError):
                who = "another process"
            raise taken(study_name, doing, who) from None
        since = datetime.now().isoformat(sep=" ", timespec="seconds")
        with suppress(OSError):  # on a full disk the lock holds without a name
            holder.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since}))
        try:
            yield
        finally:
            holder.unlink(missing_ok=True)
            lock.release()

    def _lock_files(self, study_name: str, doing: str) -> tuple[FileLock, Path]:
        """The lock of a study for one thing to be done, and the file that names who holds it."""
        key = study_name if doing == "written" else f"{study_name}\n{doing}"  # no name has a second line
        digest = hashlib.sha256(key.encode()).hexdigest()[:12]
        return FileLock(self._beside(f".{digest}.lock")), self._beside(f".{digest}.lock.json")

    def is_written(self, study_name: str) -> bool:
        """Whether a process writes the study now, as far as a reader may know."""
        lock, holder = self._lock_files(study_name, "written")
        if not holder.exists():  # it is there while the lock is held, and after a kill
            return False
        try:
            with lock.acquire(timeout=0):
                return False
        except (Timeout, OSError):  # held; or not for this user to open, who believes what is written there
            return True


def taken(study: str, doing: str, who: str) -> RequestError:
    """What refuses a second process, naming the first."""
    return RequestError(
        f"the study '{study}' is being {doing} by {who}; let it finish or stop it, or start another study "
        "with --name"
    )


def _unwritable(path: Path, reason: str) -> RequestError:
    return RequestError(f"'{path}' cannot be written to ({reason}); choose another place with --storage")


def _root(error: BaseException) -> BaseException:
    """What is at the end of a chain of wrappers."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _cause(error: BaseException) -> str:
    """What SQLite said."""
    return str(_root(error)).splitlines()[0]


@contextmanager
def closing_storage(path: Path, **settings: Any) -> Iterator["Storage"]:
    """Optuna's storage on a file; no connection is left open at the end.

    Raises RequestError where the file's schema is not that of the installed Optuna.
    """
    from slopesearch.search.storages import Storage

    url = URL.create("sqlite", database=str(path)).render_as_string()
    url = url.replace("{", "{{").replace("}", "}}")  # Optuna formats its URLs
    try:
        storage = Storage(url, **settings)
    except RuntimeError as error:
        raise RequestError(f"'{path}' cannot be opened: {error}") from None
    try:
        yield storage
    finally:
        storage.remove_session()
        storage.engine.dispose()
