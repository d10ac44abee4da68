"""A PostgreSQL server of the tests' own: in a temporary folder, on 127.0.0.1 and a port of its own."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg

from slopesearch.search.store import Store

BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name))[-1:]
USER, LOCKED = "tester", "locked"  # users: whom the server trusts; and whom it asks for a password
PREPARED = "prepared"  # a database with Optuna's tables, copied for each test


def is_there() -> bool:
    """Whether Debian's server is installed."""
    return any((path / "postgres").is_file() for path in BINARIES)


class Server:
    """A server whose user it trusts."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="slopesearch-"))
        self.port = _free_port()
        self._databases = 0
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:  # the server refuses to run as root
            names = {entry.pw_name for entry in pwd.getpwall()}
            account = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
            os.chown(self.folder, account.pw_uid, account.pw_gid)
            self._as = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        data, quick = str(self.folder / "data"), ("--no-sync", "--encoding=UTF8", "--locale=C")
        self._run("initdb", "-D", data, "-U", USER, "-A", "trust", *quick)
        rules = self.folder / "data" / "pg_hba.conf"
        rules.write_text(f"host all {LOCKED} 127.0.0.1/32 scram-sha-256\n{rules.read_text()}")
        self.process = self.start()
        with closing(self.connect("postgres")) as connection:
            connection.execute(f"CREATE DATABASE {PREPARED}")
        with Store(self.url(PREPARED)).open():
            pass

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(BINARIES[0] / program), *arguments]
        subprocess.run(command, check=True, cwd=self.folder, stdout=subprocess.DEVNULL, **self._as)

    def start(self) -> "subprocess.Popen[bytes]":
        """Start it, and wait until it answers."""
        settings = {"listen_addresses": "127.0.0.1", "unix_socket_directories": str(self.folder)}
        settings |= {"fsync": "off", "full_page_writes": "off", "max_connections": "50"}
        words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [BINARIES[0] / "postgres", "-D", self.folder / "data", "-p", str(self.port), *words],
                cwd=self.folder,
                stdout=log,
                stderr=log,
                **self._as,
            )
        deadline = time.monotonic() + 60
        while True:
            assert self.process.poll() is None, (self.folder / "log").read_text()
            try:
                self.connect("postgres").close()
                return self.process
            except psycopg.OperationalError:
                assert time.monotonic() < deadline
                time.sleep(0.05)

    def stop(self) -> None:
        """Stop it at once: SIGQUIT, after which it recovers as from a crash."""
        self.process.send_signal(signal.SIGQUIT)
        self.process.wait(60)

    def close(self) -> None:
        """Stop it, and remove all that it has."""
        self.stop()
        shutil.rmtree(self.folder)

    def url(self, database: str, user: str = USER) -> str:
        """The storage URL of a database."""
        return f"postgresql+psycopg://{user}@127.0.0.1:{self.port}/{database}"

    def create(self, template: str = PREPARED) -> str:
        """A new database; with Optuna's tables, unless it is made from another template."""
        self._databases += 1
        name = f"test{self._databases}"
        with closing(self.connect("postgres")) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    def drop(self, name: str) -> None:
        """Remove a database, whoever still uses it."""
        with closing(self.connect("postgres")) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def connect(self, database: str) -> psycopg.Connection[Any]:
        """A connection, each statement a transaction."""
        return psycopg.connect(
            host="127.0.0.1", port=self.port, dbname=database, user=USER, autocommit=True, connect_timeout=5
        )

    def execute(self, url: str, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run SQL in the database of a URL, without a look at foreign keys; its rows, if it has any."""
        with closing(self.connect(url.rpartition("/")[2])) as connection:
            connection.execute("SET session_replication_role = replica")
            cursor = connection.execute(statement.encode(), values or None)
            return cursor.fetchall() if cursor.description else []

    def cut(self, url: str) -> int:
        """End every connection to the database of a URL, as a cut network does; how many they were."""
        ends = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s"
        return len(self.execute(url.rpartition("/")[0] + "/postgres", ends, [url.rpartition("/")[2]]))


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
