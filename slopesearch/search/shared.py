"""Optuna's storage in a PostgreSQL database that may be away for a while, and that others may write to."""

import json
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any

from optuna.exceptions import DuplicatedStudyError
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.study import StudyDirection
from sqlalchemy import Connection, select, update

from slopesearch.search.rows import Reader
from slopesearch.search.storages import Storage, was_changed
from slopesearch.search.urls import PSYCOPG
from slopesearch.search.waiting import Connect, WaitingReader, patiently

TURN = "slopesearch:turn"  # a study's system attribute: who writes it, and how many commits that has made
NOTES = models.StudySystemAttributeModel.__table__


@dataclass
class Turn:
    """Who writes a study, and after how many commits; each commit moves it on, and nobody else can.

    A writer that was cut off, while another took its place, finds another turn, even where it holds its lock
    again. A commit whose answer was lost is found made, or not.
    """

    study: str
    study_id: int
    writer: str
    commits: int = 0

    def text(self, commits: int) -> str:
        """What is stored of it after so many commits."""
        return json.dumps([self.writer, commits])

    def move_on(self, connection: Connection) -> bool:
        """Whether the next commit is still to be made. Raises StudyFailedError where it is another's turn."""
        here = NOTES.c.study_id == self.study_id, NOTES.c.key == TURN
        now, then = self.text(self.commits), self.text(self.commits + 1)
        moved = update(NOTES).where(*here, NOTES.c.value_json == now).values(value_json=then)
        if connection.execute(moved).rowcount == 1:
            return True
        if connection.execute(select(NOTES.c.value_json).where(*here)).scalar() == then:
            return False
        raise was_changed(self.study)


class SharedStorage(Storage):
    """One in a PostgreSQL database. Whatever it does waits for a server that is away, see `patiently`.

    `keep` makes sure, before each change, that the locks are held that allow it.
    """

    def __init__(self, connect: Connect, keep: Callable[[], None], **settings: Any) -> None:
        self._connect, self.keep = connect, keep
        self._turn: Turn | None = None
        try:
            super().__init__(f"{PSYCOPG}://", {"creator": connect}, **settings)
        except BaseException:
            self.engine.dispose()  # it looks at the tables, and may not know them
            raise

    @contextmanager
    def taking_over(self, study_id: int) -> Iterator[Reader]:
        """What reads a study; from here on `transact` writes it as nobody else can.

        A writer that is still in the middle of a commit comes to its end before this begins.
        """
        turn = Turn(self.get_study_name_from_id(study_id), study_id, secrets.token_hex(8))
        self.set_study_system_attr(study_id, TURN, json.loads(turn.text(0)))
        self._turn = turn
        with closing(WaitingReader(self._connect)) as reader:
            yield reader

    def transact(self, write: Callable[[Connection], None]) -> None:
        """Have a function write, all of it or nothing; once, however often it is called.

        Before `taking_over` the function itself has to see whether a try, whose answer was lost, did it.
        Raises StudyFailedError where another process has written the study, or holds its lock.
        """

        def attempt() -> None:
            self.keep()
            with self.engine.begin() as connection:
                if self._turn is None or self._turn.move_on(connection):
                    write(connection)

        patiently(attempt)
        if self._turn is not None:
            self._turn.commits += 1

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        """Make a study; a try whose answer was lost may have made it."""
        tries = 0

        def attempt() -> int:
            nonlocal tries
            tries += 1
            self.keep()
            try:
                return int(Storage.create_new_study(self, directions, study_name))
            except DuplicatedStudyError:
                if tries == 1 or study_name is None:
                    raise
                return int(self.get_study_id_from_name(study_name))

        return patiently(attempt)


def _patient(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method that may be called twice, which waits for the server."""

    @wraps(method)
    def patient(self: SharedStorage, *arguments: Any, **named: Any) -> Any:
        def attempt() -> Any:
            if method.__name__.startswith("set_"):
                self.keep()
            return method(self, *arguments, **named)

        return patiently(attempt)

    return patient


for _name in dir(RDBStorage):
    if _name.startswith(("get_", "set_study_", "set_trial_user_attr", "set_trial_system_attr")):
        setattr(SharedStorage, _name, _patient(getattr(RDBStorage, _name)))
