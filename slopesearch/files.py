"""Files that are whole or not there: written aside, then renamed."""

import os
import secrets
import sqlite3
from contextlib import closing
from pathlib import Path
from stat import S_IMODE

from slopesearch.wording import RequestError


def write_aside(path: Path, content: bytes) -> None:
    """Write a file in one step, over one that is there; what is killed half-way leaves the old one.

    The file keeps the permissions of the one that it replaces; those of a new one are what the user's umask
    leaves. A link is followed and stays. Raises RequestError where a database is there, or what is no file.
    """
    refuse_special(path)
    target = Path(os.path.realpath(path))
    aside = target.with_name(f".{target.name[:50]}-{secrets.token_hex(4)}")
    try:
        with aside.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            aside.chmod(S_IMODE(target.stat().st_mode))
        aside.replace(target)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def refuse_special(path: Path) -> None:
    """Raise RequestError where a path names what nothing replaces: a folder, a device, a pipe, a database."""
    if path.is_dir():
        raise RequestError(f"'{path}' is a folder; name a file with -o")
    if path.exists() and not path.is_file():
        raise RequestError(
            f"'{path}' is no regular file, and only such a file is replaced; name a file with -o"
        )
    if path.exists() and _is_database(path):
        raise RequestError(f"'{path}' is a database, which nothing replaces; name another file with -o")


def _is_database(path: Path) -> bool:
    """Whether a file is SQLite's, which alone opens it: any other `close` would drop the locks on it."""
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?immutable=1", uri=True)) as connection:
            found: tuple[int] = connection.execute("PRAGMA page_count").fetchone()
            return found[0] > 0
    except sqlite3.Error as error:
        return error.sqlite_errorcode not in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CANTOPEN)
