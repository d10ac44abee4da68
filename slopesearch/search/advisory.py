"""The lock of a study in a PostgreSQL database: an advisory lock, on a connection of its own."""

import hashlib
import os
import socket
import time
from contextlib import suppress
from datetime import datetime
from typing import Any

import psycopg

from slopesearch.search.sqlite import taken
from slopesearch.search.waiting import Connect, is_lost
from slopesearch.wording import StudyFailedError

LONGEST_HOST = 32  # characters, of the 63 that PostgreSQL keeps of an application's name
WAIT = 5.0  # s for a connection of ours that was lost to be ended by the server
_HOLDER = """
    SELECT pid, application_name FROM pg_locks JOIN pg_stat_activity USING (pid)
    WHERE locktype = 'advisory' AND granted AND objsubid = 1 AND pg_locks.database =
          (SELECT oid FROM pg_database WHERE datname = current_database())
      AND classid::bigint = (%(key)s::bigint >> 32) & 4294967295
      AND objid::bigint = %(key)s::bigint & 4294967295
"""


def is_held(connection: psycopg.Connection[Any], study: str) -> bool:
    """Whether a process writes the study now."""
    return connection.execute(_HOLDER, {"key": _key(study, "written")}).fetchone() is not None


def _key(study: str, doing: str) -> int:
    digest = hashlib.sha256(f"{doing}\n{study}".encode()).digest()
    return int.from_bytes(digest[:8], signed=True)


class AdvisoryLock:
    """A lock that the server lets go when the connection ends: with its process, its machine, its network.

    Who holds it, and since when, other processes read in the name that the connection goes by.
    """

    def __init__(self, connect: Connect, study: str, doing: str) -> None:
        self._connect, self._study, self._doing = connect, study, doing
        self._key = _key(study, doing)
        host = socket.gethostname().encode("ascii", "replace").decode()[:LONGEST_HOST]
        self._name = f"slopesearch {os.getpid()} {int(time.time())} {host}"
        self._connection: psycopg.Connection[Any] | None = None
        self._pid = 0  # of the server's process for the connection

    def take(self) -> None:
        """Take the lock. Raises RequestError, naming the holder, where another process has it."""
        holder = self._try()
        if holder is not None:
            raise taken(self._study, self._doing, holder)

    def keep(self) -> None:
        """Make sure that the lock is held, and take it again where its connection was lost.

        Raises StudyFailedError where another process has it by now, psycopg.Error where the server is away.
        """
        try:
            if self._connection is not None:
                self._connection.execute("SELECT 1")
                return
        except psycopg.Error as error:
            if not is_lost(error):
                raise
            self._drop()
        holder = self._try()
        if holder is not None:
            raise StudyFailedError(
                f"the connection to the database was lost, and now the study '{self._study}' is being "
                f"{self._doing} by {holder}; nothing more is stored. Let it finish, then type the same "
                "command again"
            )

    def let_go(self) -> None:
        """Let the lock go, at once: the server may take a moment to notice the end of a connection."""
        if self._connection is not None:
            with suppress(psycopg.Error):
                self._connection.execute("SELECT pg_advisory_unlock(%s)", (self._key,))
            self._drop()

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _try(self) -> str | None:
        """Take the lock; or who holds it. A lost connection of ours may hold it still, and is ended."""
        connection = self._connect(application_name=self._name, autocommit=True)
        try:
            deadline = time.monotonic() + WAIT
            while not connection.execute("SELECT pg_try_advisory_lock(%s)", (self._key,)).fetchall()[0][0]:
                pid, name = connection.execute(_HOLDER, {"key": self._key}).fetchone() or (0, "")
                ours = (pid, name) == (self._pid, self._name)
                if (pid and not ours) or time.monotonic() > deadline:
                    connection.close()
                    return _who(str(name))
                if ours:
                    connection.execute("SELECT pg_terminate_backend(%s)", (pid,))
                time.sleep(0.05)
        except BaseException:
            connection.close()
            raise
        self._connection, self._pid = connection, connection.info.backend_pid
        return None


def _who(name: str) -> str:
    """The process that a connection's name tells of."""
    try:
        program, pid, since, host = name.split(" ")
        began = datetime.fromtimestamp(int(since)).isoformat(sep=" ", timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return "another process"
    return f"process {pid} on {host}, since {began}" if program == "slopesearch" else "another process"
