"""What is PostgreSQL's alone: the database behind a URL, its checks, its connections, its locks."""

import re
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError

from slopesearch.search.advisory import AdvisoryLock, is_held
from slopesearch.search.rows import Reader
from slopesearch.search.sqlite import SCHEMA, TABLES
from slopesearch.search.waiting import ServerReader, patiently, said
from slopesearch.wording import RequestError, StudyFailedError, short

if TYPE_CHECKING:
    from slopesearch.search.storages import Storage

T = TypeVar("T")
ELSEWHERE = "or name another storage with --storage"
# A cut is noticed on both sides: by this one within 20 s, by the server within 25, which frees the locks.
CONNECTION: dict[str, Any] = {
    **{"connect_timeout": 10, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 2},
    **{"tcp_user_timeout": 20_000, "application_name": "slopesearch", "client_encoding": "utf8"},
}
SESSION = b"""
    SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3;
    SET lock_timeout = '60s'; SET datestyle = 'ISO'
"""
# The tables and views where ours are or would be, but for those of extensions.
_RELATIONS = b"""
    SELECT relname, relkind::text FROM pg_class
    WHERE relnamespace = to_regnamespace(quote_ident(current_schema()))
      AND relkind IN ('r', 'p', 'v', 'm', 'f')
      AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = pg_class.oid AND deptype = 'e')
"""
_MAY_NOT = b"""
    SELECT wanted, relname FROM pg_class,
         unnest(CASE relkind WHEN 'S' THEN ARRAY['USAGE']
                             ELSE ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE'] END) AS wanted
    WHERE relnamespace = to_regnamespace(quote_ident(current_schema()))
      AND CASE WHEN relkind = 'r' AND relname = ANY(%s) THEN NOT has_table_privilege(pg_class.oid, wanted)
               WHEN relkind = 'S' AND relname LIKE ANY(%s)
               THEN NOT has_sequence_privilege(pg_class.oid, wanted)
               ELSE FALSE END
    ORDER BY 2, 1 LIMIT 1
"""
_MAKERS_TURN = (
    7_307_489_302_120_556_399  # the key of an advisory lock: one process at a time makes the tables
)
_LET_IN = re.compile(r"authentication failed|no password supplied|pg_hba\.conf|role .* does not exist")


class PostgresDatabase:
    """A PostgreSQL database that holds studies, for any number of machines.

    `name` is its URL without a password. A server that has answered once is waited for when it is away:
    while it starts again, or the network is cut.
    """

    IS_NUMBER = "TRUE"  # SQL; the column takes nothing else

    def __init__(self, url: URL, name: str) -> None:
        self.name = name
        dialect: Any = url.get_dialect()
        self._parameters = {**CONNECTION, **dialect().create_connect_args(url)[1]}
        self._has_answered = self._is_whole = False
        self._held: list[AdvisoryLock] = []

    def connect(self, autocommit: bool = False, **settings: Any) -> psycopg.Connection[Any]:
        """A connection. Raises psycopg.OperationalError where there is none to be had."""
        connection = psycopg.connect(**{**self._parameters, **settings, "autocommit": True})
        try:
            connection.execute(SESSION)
            connection.autocommit = autocommit
        except psycopg.Error:
            connection.close()
            raise
        self._has_answered = True
        return connection

    def _answered(self, attempt: Callable[[], T]) -> T:
        """What an attempt to connect gives. Raises RequestError that says what keeps the server from it."""
        try:
            return patiently(attempt) if self._has_answered else attempt()
        except (psycopg.Error, UnicodeError) as error:
            raise RequestError(self._why_not(error)) from None

    def _why_not(self, error: Exception) -> str:
        """What kept us from connecting; libpq tells it in words alone, which may be in another language."""
        reason = said(error)
        server = f"the PostgreSQL server of '{self.name}'"
        if _LET_IN.search(reason):
            return (
                f"{server} does not let this user in ({reason}); check the name, and the password in "
                "PGPASSWORD or ~/.pgpass"
            )
        if re.search("database .* does not exist", reason):
            return f"{server} has no such database ({reason}); make it with createdb, {ELSEWHERE}"
        return f"{server} cannot be reached ({reason}); check host and port, and that it runs, {ELSEWHERE}"

    def is_empty(self) -> bool:
        """Whether its tables have yet to be made, or their maker was killed before the last."""
        return not self._is_whole and "alembic_version" not in self._relations()

    def _relations(self) -> dict[str, str]:
        """The kind of each table and view, by name."""
        with closing(self._answered(partial(self.connect, autocommit=True))) as connection:
            return dict(connection.execute(_RELATIONS).fetchall())

    def check(self) -> None:
        """Raise RequestError unless the tables are Optuna's, or can be made. Writes nothing."""
        if self._is_whole:
            return
        named = self._relations()
        if named and any(named.get(table) != "r" for table in TABLES):
            raise RequestError(
                f"'{self.name}' is a database of another program (its tables are not Optuna's); make one for "
                f"the studies with createdb, {ELSEWHERE}"
            )
        if "alembic_version" in named:
            with self.reading():
                self._is_whole = True

    def check_there(self) -> None:
        """Raise RequestError unless the tables are there, and Optuna's."""
        self.check()
        if self.is_empty():
            raise RequestError(
                f"there is no storage in '{self.name}' yet; `python -m slopesearch optimize` makes it, "
                f"{ELSEWHERE}"
            )

    def check_writable(self) -> None:
        """Raise RequestError unless the user may write every table, or make them. Writes nothing."""
        with closing(self._answered(partial(self.connect, autocommit=True))) as connection:
            user, only_read, schema, may_make = (
                connection.execute(
                    "SELECT current_user, current_setting('transaction_read_only'), current_schema(), "
                    "has_schema_privilege(current_schema(), 'CREATE')"
                ).fetchone()
                or (None,) * 4
            )
            sequences = [f"{table}%" for table in TABLES]
            missing = connection.execute(_MAY_NOT, (list(TABLES), sequences)).fetchone()
        if only_read == "on":
            reason = "the server takes no changes: it is a standby, or set to read only"
        elif self.is_empty() and not may_make:
            reason = f"the user '{user}' may not make tables in the schema '{schema}': GRANT CREATE ON SCHEMA"
        elif missing is not None:
            reason = f"the user '{user}' lacks {missing[0]} on '{missing[1]}': GRANT it"
        else:
            return
        raise RequestError(f"'{self.name}' cannot be written to ({reason}); ask its owner, {ELSEWHERE}")

    def read(self, ask: Callable[[Reader], T]) -> T:
        """What a function finds in the database, see `reading`; asked again where the connection is lost."""

        def once() -> T:
            with self._transaction() as reader:
                return ask(reader)

        with self._told():
            return patiently(once)

    @contextmanager
    def reading(self) -> Iterator[Reader]:
        """What reads one moment of the database, and changes nothing.

        Raises RequestError where its tables are not those that Optuna makes, or the connection is lost.
        """
        with self._told(), self._transaction() as reader:
            yield reader

    @contextmanager
    def _transaction(self) -> Iterator[Reader]:
        with closing(self._answered(self.connect)) as connection:
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            connection.read_only = True
            reader = ServerReader(connection)
            found = [row[0] for row in reader.execute("SELECT version_num FROM alembic_version")]
            if found != [SCHEMA]:
                raise RequestError(
                    f"'{self.name}' cannot be opened: its tables are of version {short(found)}, not "
                    f"'{SCHEMA}'; was it made by another version of Optuna?"
                )
            yield reader

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except psycopg.ProgrammingError as error:
            if not isinstance(error, psycopg.errors.UndefinedTable | psycopg.errors.InsufficientPrivilege):
                raise  # a fault of ours
            raise self._unreadable(error) from None
        except psycopg.Error as error:
            raise self._unreadable(error) from None

    def _unreadable(self, error: psycopg.Error) -> RequestError:
        return RequestError(
            f"'{self.name}' cannot be read as a storage of studies ({said(error)}); run again, {ELSEWHERE}"
        )

    @contextmanager
    def writing(self, study: str | None = None) -> Iterator["Storage"]:
        """Optuna's storage on the database, to write to; its tables are made where they are missing.

        Who writes a study holds its lock meanwhile, see `lock`. Raises StudyFailedError where the database
        cannot be written: away for longer than PATIENCE, or locked by another program for as long.
        """
        with nullcontext() if study is None else self.lock(study), self._written() as storage:
            yield storage

    @contextmanager
    def _written(self) -> Iterator["Storage"]:
        from optuna.exceptions import StorageInternalError

        from slopesearch.search.shared import SharedStorage

        opened = partial(SharedStorage, self.connect, self._keep)
        try:
            if not self._is_whole:
                patiently(partial(self._make, opened))
            storage = patiently(partial(opened, skip_table_creation=True))
            try:
                yield storage
            finally:
                storage.remove_session()
                storage.engine.dispose()
        except (SQLAlchemyError, StorageInternalError, psycopg.Error) as error:
            raise StudyFailedError(
                f"'{self.name}' cannot be written ({said(error)}); what was finished is stored: see to the "
                "server or the network, and the same command goes on from there"
            ) from None
        except RuntimeError as error:  # Optuna's, of a schema that it does not know
            raise RequestError(f"'{self.name}' cannot be opened: {error}") from None

    def _make(self, opened: Callable[[], "Storage"]) -> None:
        """Make the tables, or what is missing where their maker was killed."""
        with closing(self.connect(autocommit=True)) as connection:
            connection.execute("SELECT pg_advisory_lock(%s)", (_MAKERS_TURN,))
            is_there = connection.execute("SELECT to_regclass('alembic_version')").fetchall()[0][0]
            if is_there is None or not connection.execute("SELECT FROM alembic_version").fetchall():
                storage = opened()
                storage.remove_session()
                storage.engine.dispose()
        self._is_whole = True

    @contextmanager
    def lock(self, study_name: str, doing: str = "written") -> Iterator[None]:
        """Hold a study's lock, see `AdvisoryLock`; one for each thing to be done.

        Raises RequestError, naming the holder, where another process is doing this with the study.
        """
        lock = AdvisoryLock(self.connect, study_name, doing)
        self._answered(lock.take)
        self._held.append(lock)
        try:
            yield
        finally:
            self._held.remove(lock)
            lock.let_go()

    def is_written(self, study_name: str) -> bool:
        """Whether a process writes the study now."""
        with self._told(), closing(self._answered(partial(self.connect, autocommit=True))) as connection:
            return is_held(connection, study_name)

    def _keep(self) -> None:
        """Make sure of every lock, see `AdvisoryLock.keep`."""
        for lock in self._held:
            lock.keep()
