"""Optuna's SQLite storage as it is used here: readers go on while it is written, trials come in turns."""

import gc
import sqlite3
import sys
from collections.abc import Container, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import URL

from slopesearch.wording import RequestError

IN_A_TURN = 100  # trials that are read at a time
BULKY = ("curves", "layers")  # 5 of the 13 kB that a trial takes in memory; who writes does not ask for them


class WalConnection(sqlite3.Connection):
    """Readers go on while the study is written. (A listener would miss the connections pooled before it.)"""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.execute("PRAGMA journal_mode=WAL")
        self.execute("PRAGMA synchronous=NORMAL")


class Storage(RDBStorage):
    """Optuna's, which reads the trials of a study some at a time, and can leave user attributes out.

    Optuna makes an object of each row, 23 a trial, and keeps all of them until the last trial is built; and
    Python looks for cycles among them all the while. Reading 10,000 trials of the CNN took 12 s and, with
    the trials, 700 MiB; in turns it takes 5 s, and 32 MiB where none is kept (Zen 4, n = 1, 2026-11-24).
    """

    leave_out: tuple[str, ...] = ()

    def in_turns(self, study_id: int) -> Iterator[FrozenTrial]:
        """Every trial of a study, by number; none is kept."""
        return self._read(study_id, None, self._ids(study_id, -1))

    def _ids(self, study_id: int, above: int) -> list[int]:
        query = "SELECT trial_id FROM trials WHERE study_id = ? AND trial_id > ? ORDER BY trial_id"
        with self.engine.connect() as connection:
            return list(connection.exec_driver_sql(query, (study_id, above)).scalars())

    def _read(
        self, study_id: int, states: Container[TrialState] | None, ids: list[int]
    ) -> Iterator[FrozenTrial]:
        for start in range(0, len(ids), IN_A_TURN):
            with _collector_at_rest():  # these, and none above the highest possible
                turn = super()._get_trials(study_id, states, set(ids[start : start + IN_A_TURN]), sys.maxsize)
            for trial in turn:
                for name in self.leave_out:
                    trial.user_attrs.pop(name, None)
            yield from turn

    def _get_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
    ) -> list[FrozenTrial]:
        """What Optuna's cache asks for: these trials, and all above.

        Raises KeyError where there is no such study.
        """
        these = sorted(number for number in included_trial_ids if number <= trial_id_greater_than)
        ids = [*these, *self._ids(study_id, trial_id_greater_than)]
        if not ids:  # Optuna knows whether there is such a study
            return super()._get_trials(study_id, states, set(), trial_id_greater_than)
        return list(self._read(study_id, states, ids))


@contextmanager
def _collector_at_rest() -> Iterator[None]:
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def open_storage(path: Path, **settings: Any) -> Storage:
    """Optuna's storage on the file. Raises RequestError where its schema is not the installed Optuna's."""
    url = URL.create("sqlite", database=str(path)).render_as_string()
    url = url.replace("{", "{{").replace("}", "}}")  # Optuna formats its URLs
    try:
        return Storage(url, **settings)
    except RuntimeError as error:
        raise RequestError(f"'{path}' cannot be opened: {error}") from None


def close_storage(storage: RDBStorage) -> None:
    """Leave no connection open."""
    storage.remove_session()
    storage.engine.dispose()
