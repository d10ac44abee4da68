"""Storage URLs: which kinds are taken, and what may be shown of them."""

import re
import shlex

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from slopesearch.wording import RequestError

DEFAULT_URL = "sqlite:///studies/slopesearch.db"
SERVER_URL = "postgresql+psycopg://USER@HOST/DATABASE"
PSYCOPG = "postgresql+psycopg"
SERVER_NAMES = {"postgresql": PSYCOPG, "postgres": PSYCOPG, PSYCOPG: PSYCOPG}  # what people write for it
# Up to the last @, since what people call a password may hold any character that a URL should not.
_IN_NAME = re.compile(r"(^|=)([\w+.-]+:/{0,2}[^:/@?]*):.*@", re.DOTALL)
_IN_QUERY = re.compile(r"(?<=[?&])(?:ssl)?password=[^&]*&?")


def parsed_url(url: str) -> URL:
    """A storage URL in its parts, of a SQLite file or of a PostgreSQL database.

    Raises RequestError for every other kind; no sentence shows a password.
    """
    scheme, separator, rest = url.partition("://")
    server = SERVER_NAMES.get(scheme)
    try:
        parsed = make_url(f"{server}://{rest}" if server and separator else url)
        backend = parsed.get_backend_name()
        if backend == "sqlite":
            parsed.get_dialect().import_dbapi()
    except (NoSuchModuleError, ImportError) as error:  # the first is also an ArgumentError
        raise RequestError(
            f"the storage URL '{without_password(url)}' needs a driver that is not installed ({error}); "
            f"use a SQLite file like {DEFAULT_URL}"
        ) from None
    except (ArgumentError, ValueError):
        if "@" not in url:  # a path
            meant = _option(url.removeprefix("sqlite:"))
            raise RequestError(f"'{url}' is not a storage URL; did you mean --storage {meant}?") from None
        raise RequestError(
            f"'{re.sub('^.*@', '***@', url, flags=re.DOTALL)}' is not a storage URL; a SQLite file is named "
            f"like {DEFAULT_URL}, a PostgreSQL database like {SERVER_URL}"
        ) from None
    shown = without_password(url)
    if backend == "sqlite" and parsed.host:
        given = "/".join(filter(None, (parsed.host, parsed.database)))
        raise RequestError(f"'{shown}' names no file; did you mean --storage {_option(given)}?")
    if backend == "postgresql" and server is None:
        raise RequestError(
            f"PostgreSQL is reached through psycopg alone, given '{shown}'; write {PSYCOPG}://{shown.partition('://')[2]}"
        )
    if backend == "postgresql" and not parsed.database:
        raise RequestError(f"the storage URL '{shown}' names no database; write it like {SERVER_URL}")
    in_file = backend == "sqlite" and parsed.database and parsed.database != ":memory:"
    if backend != "postgresql" and not in_file:
        raise RequestError(
            "studies are stored in SQLite files and PostgreSQL databases, on no other server and not in "
            f"memory, given '{shown}'; name one like {DEFAULT_URL} or {SERVER_URL}"
        )
    if backend == "postgresql":
        read = make_url(without_password(f"{parsed.drivername}://{rest}"))
        if (read.username, read.host, read.database) != (parsed.username, parsed.host, parsed.database):
            raise RequestError(
                f"the storage URL of '{read.database}' holds an @ that does not stand before the host; write "
                "it as %40, or leave the password out, and give it in PGPASSWORD or ~/.pgpass"
            )
    return parsed


def without_password(url: str) -> str:
    """A URL, or an option with one, as it may be shown: without the passwords that it holds."""
    if "://" not in url and "@" not in url:
        return url
    return _IN_QUERY.sub("", _IN_NAME.sub(r"\1\2@", url)).rstrip("?&")


def _option(path: str) -> str:
    """The storage URL of a SQLite file, as a shell takes it; that of an absolute path has four slashes."""
    return shlex.quote(f"sqlite:///{path}")
