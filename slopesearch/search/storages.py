"""Optuna's storage, as this package writes to it: whole transactions, each by the only writer of a study."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from optuna.storages import RDBStorage
from sqlalchemy import Connection

from slopesearch.search.rows import Reader
from slopesearch.wording import StudyFailedError


def was_changed(study: str) -> StudyFailedError:
    """What stops the writer of a study that is no longer as it left it."""
    return StudyFailedError(
        f"another program has changed the study '{study}' while it ran: its trials were added to, changed or "
        "deleted; nothing more is stored. Let no other program write it, and type the same command again"
    )


class Storage(RDBStorage):
    """One in a SQLite file, where whoever holds the lock of a study goes on holding it until it ends."""

    @contextmanager
    def taking_over(self, study_id: int) -> Iterator[Reader]:
        """What reads a study; from here on `transact` writes it as nobody else can."""
        with self.engine.connect() as connection:
            opened: Any = connection.connection.driver_connection
            yield opened

    def transact(self, write: Callable[[Connection], None]) -> None:
        """Have a function write, all of it or nothing. It is called again where a try was lost."""
        with self.engine.begin() as connection:
            write(connection)
