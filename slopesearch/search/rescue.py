"""A database that is deleted, renamed or replaced while it is written: noticed, and saved aside."""

import sqlite3
import tempfile
from contextlib import closing, suppress
from datetime import datetime
from itertools import count
from pathlib import Path

from sqlalchemy.engine import URL

from slopesearch.wording import RequestError, StudyFailedError

FILES = ("", "-wal", "-shm")  # of a database in WAL mode; SQLite opens the last two by these names
WAIT = 1000  # ms for the processes that read the file, when its last write has been saved already


def refuse_leftovers(path: Path) -> None:
    """Raise RequestError where a file that is gone has left changes, which a new file would take over."""
    for left in (path.with_name(f"{path.name}{suffix}") for suffix in ("-wal", "-journal")):
        if left.exists() and left.stat().st_size:
            raise RequestError(
                f"'{left}' holds the last changes of '{path.name}', which was deleted or renamed; give both "
                "one name again, or delete it, or name another storage with --storage"
            )


class Place:
    """The path of a database that is written, and which files lay there when it was opened.

    A process goes on writing to a file that has lost its name, and nobody finds again what it writes. Looking
    at the name is harmless; opening the file would drop the POSIX locks that SQLite holds on it. A file that
    is overwritten in place remains the same file, and is not noticed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self._opened: dict[str, tuple[int, int] | None] = {}
        self._lost: StudyFailedError | None = None

    def note(self) -> None:
        """Take down which files these are, once the first connection has opened them."""
        self._opened = self._opened or {suffix: self._identity(suffix) for suffix in FILES}

    def check(self) -> None:
        """Raise sqlite3.OperationalError where another connection would open another file."""
        if self._opened and self._is_other(""):
            raise sqlite3.OperationalError("it was deleted, renamed or replaced")

    def committed(self, connection: sqlite3.Connection) -> None:
        """Look, after a commit, whether it went to where the path leads.

        Raises StudyFailedError where it did not, after saving all that the connection's file holds.
        """
        if self._lost is None and self._is_other(""):
            self._lost = StudyFailedError(self._rescue(connection))
        if self._lost is not None:
            raise self._lost

    def _rescue(self, connection: sqlite3.Connection) -> str:
        fate = "replaced by another file" if self.path.exists() else "deleted or renamed"
        said = f"'{self.path}' was {fate} while it was written"
        try:
            saved = self._save(connection)
        except (sqlite3.Error, OSError) as error:
            return f"{said}; what it held could not be saved elsewhere ({error})"
        self._leave(connection)
        url = URL.create("sqlite", database=str(saved)).render_as_string()
        return f"{said}; all that it held is saved, and --storage '{url}' goes on from there"

    def _save(self, connection: sqlite3.Connection) -> Path:
        """Copy the database to a new file beside it, or to where temporary files go, and give its path."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)  # the whole folder may be gone
            return self._back_up(connection, self.path.parent)
        except (sqlite3.Error, OSError):
            return self._back_up(connection, Path(tempfile.gettempdir()))

    def _back_up(self, connection: sqlite3.Connection, folder: Path) -> Path:
        saved = self._free_name(folder)
        try:
            with closing(sqlite3.connect(saved)) as target:
                connection.backup(target)
        except sqlite3.Error:
            saved.unlink()
            raise
        return saved

    def _free_name(self, folder: Path) -> Path:
        """The path of a new, empty file; another process or thread may be saving the same database."""
        now = datetime.now().strftime("%Y%m%d-%H%M%S")
        for n in count(1):
            path = folder / f"{self.path.stem}.saved-{now}{'' if n == 1 else f'-{n}'}.db"
            with suppress(FileExistsError):
                path.touch(exist_ok=False)
                return path
        raise AssertionError("the count has no end")

    def _leave(self, connection: sqlite3.Connection) -> None:
        """Leave nothing under the old name that would mix with a file that is, or will be, called so.

        SQLite takes any -wal beside a file for the file's own, and would write the pages of this database
        into the other. So the -wal is emptied into its own file, which makes a renamed file whole too; and
        its name is taken away, with that of the -shm, which other processes may hold open for long.
        """
        with suppress(sqlite3.Error):
            connection.execute(f"PRAGMA busy_timeout={WAIT}")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        for suffix in FILES[1:]:
            if not self._is_other(suffix):
                with suppress(OSError):
                    self._named(suffix).unlink()

    def _is_other(self, suffix: str) -> bool:
        return self._identity(suffix) != self._opened[suffix]

    def _identity(self, suffix: str) -> tuple[int, int] | None:
        try:
            found = self._named(suffix).stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def _named(self, suffix: str) -> Path:
        return self.path.with_name(self.path.name + suffix)
