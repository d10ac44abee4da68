"""A PostgreSQL server that is away for a while: what tells it, how it is waited for, how it is read."""

import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import psycopg

T = TypeVar("T")
PATIENCE = 60.0  # s that a server may be away: it starts again, or the network is cut
PAUSE = 0.2  # s between two tries
Connect = Callable[..., psycopg.Connection[Any]]


def is_lost(error: BaseException | None) -> bool:
    """Whether an error, or one that it comes from, says that a connection is gone or cannot be had."""
    while error is not None:
        if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
            # Class 57P: the server ends or starts. Without a code it is libpq's own word.
            return error.sqlstate is None or error.sqlstate.startswith(("08", "57P"))
        error = error.__cause__
    return False


def patiently(attempt: Callable[[], T]) -> T:
    """What an attempt gives; made again, for PATIENCE s from the first that failed, while the server is away.

    Raises what the last attempt raised.
    """
    deadline = None
    while True:
        try:
            return attempt()
        except Exception as error:
            deadline = deadline or time.monotonic() + PATIENCE
            if not is_lost(error) or time.monotonic() > deadline:
                raise
        time.sleep(PAUSE)


def said(error: BaseException) -> str:
    """What the server or libpq said, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line.removeprefix("- ") for line in lines if line.startswith("- ")), "".join(lines[:1]))


class ServerReader:
    """A connection to a server that reads as SQLite's own does: a ? stands for each value."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def execute(self, query: str, values: Sequence[Any] = (), /) -> psycopg.Cursor[Any]:
        """The rows of a query."""
        return self._connection.execute(query.replace("?", "%s").encode(), values)

    def close(self) -> None:
        """End the connection."""
        self._connection.close()


class WaitingReader:
    """Reads what nobody else writes: each query alone, on another connection where one is lost."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._reader: ServerReader | None = None

    def execute(self, query: str, values: Sequence[Any] = (), /) -> psycopg.Cursor[Any]:
        """The rows of a query, see `patiently`."""

        def attempt() -> psycopg.Cursor[Any]:
            self._reader = self._reader or ServerReader(self._connect(autocommit=True))
            try:
                return self._reader.execute(query, values)
            except psycopg.Error:
                self.close()
                raise

        return patiently(attempt)

    def close(self) -> None:
        """End the connection."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None
