"""Every command on a PostgreSQL database, as on a SQLite file; and a password that is shown nowhere."""

import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from slopesearch.cli.doctor_command import _storage
from slopesearch.cli.main import app
from slopesearch.search.launchers import LAUNCHERS
from slopesearch.search.store import Store
from slopesearch.wording import RequestError
from tests import synthetic
from tests.conftest import QUICK, InProcess
from tests.harness import FakeLauncher
from tests.running import FAKE
from tests.server import LOCKED, PREPARED, Server
from tests.test_hostile import NAMES

pytestmark = pytest.mark.postgresql
SECRET = "s3same"


@pytest.fixture(scope="module")
def with_password(postgresql: Server) -> Iterator[str]:
    """The URL of a database, its user and its password."""
    with closing(postgresql.connect("postgres")) as connection:
        connection.execute(f"CREATE ROLE {LOCKED} SUPERUSER LOGIN PASSWORD '{SECRET}'")
    name = postgresql.create(PREPARED)
    yield postgresql.url(name, LOCKED).replace("@", f":{SECRET}@")
    postgresql.drop(name)
    with closing(postgresql.connect("postgres")) as connection:
        connection.execute(f"DROP ROLE {LOCKED}")


@pytest.fixture
def url(postgresql: Server) -> Iterator[str]:
    """The URL of a database."""
    name = postgresql.create()
    yield postgresql.url(name)
    postgresql.drop(name)


WRITING = [
    "optimize --trials 9 --set sampler=random --set space.activation=relu --set space.init=default",
    "confirm digits-mlp --top 1 --seeds 2 --launcher fake --workers 1 --devices cpu",
    "compare digits-mlp --only norm --seeds 2 --launcher fake --workers 1 --devices cpu",
    "optimize --trials 10",
    "report digits-mlp --data-out tables",
    "export digits-mlp -o best.toml --force",
    "list --copy digits-mlp copy.db",
]
READING = [
    *("list", "list --json", "show digits-mlp", "show digits-mlp --json", "show digits-mlp --trial 3"),
    "show digits-mlp/compare",
]


def test_every_command_writes_and_says_the_same_as_on_sqlite_and_no_password(
    command_line: InProcess,
    with_password: str,
    postgresql: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(LAUNCHERS, "fake", FakeLauncher)
    shown = with_password.replace(f":{SECRET}@", "@")

    def run(words: str, *more: str) -> str:
        done = command_line(*words.split(), *more, "--storage", with_password)
        assert done.code == 0, (words, done.err)
        assert SECRET not in done.out + done.err
        assert done.err.startswith("the commands that are printed leave out the password of the storage; PG")
        return done.out

    for words in WRITING:
        out = run(words, *(FAKE if words.startswith("optimize") else ()))
        assert f"report digits-mlp --storage {shown}\n" in out or not words.startswith("optimize")
    for words in READING:
        in_file = command_line(*words.split(), "--storage", "sqlite:///copy.db")
        assert in_file.code == 0
        assert in_file.err == ""
        assert run(words).replace(shown, "sqlite:///copy.db") == in_file.out
    assert Store("sqlite:///copy.db").read("digits-mlp") == Store(with_password).read("digits-mlp")
    stopped = run("optimize --trials 40 --timeout 0.001", *FAKE)
    assert " ".join(stopped.split()).count("10 of 40 trials are done; give it more, or none: python -m") == 1
    assert f"--storage {shown}\n" in stopped
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path
    with closing(postgresql.connect(with_password.rpartition("/")[2])) as connection:
        for (table,) in connection.execute("SELECT relname FROM pg_stat_user_tables").fetchall():
            assert SECRET not in str(connection.execute(f"SELECT * FROM {table}".encode()).fetchall())
    delete = ["list", "--delete", "digits-mlp", "--storage", with_password]
    assert "digits-mlp is deleted" in CliRunner().invoke(app, delete, input="y\n").output
    assert Store(with_password).summaries() == []


def test_a_wrong_password_and_none_are_told_without_it(
    with_password: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "none"))
    monkeypatch.delenv("PGPASSWORD", raising=False)
    shown = with_password.replace(f":{SECRET}@", "@")
    for url, reason in (
        (with_password.replace(SECRET, "wr0ng"), "password authentication failed"),
        (shown, "no password supplied"),
    ):
        with pytest.raises(
            RequestError, match=f"{reason}.*check the name, and the password in PGPASSWORD"
        ) as error:
            Store(url).check_writable()
        assert "wr0ng" not in str(error.value)
        _, value, fault = _storage(url)
        assert value == shown
        assert "wr0ng" not in str(fault)
    monkeypatch.setenv("PGPASSWORD", SECRET)
    Store(shown).check_writable()
    assert _storage(with_password) == ("storage", f"{shown} can be written", None)


def test_no_list_of_processes_shows_the_password(with_password: str, tmp_path: Path) -> None:
    """A real study and its workers, from when it says where it is stored; then it is killed."""
    words = [*QUICK[:-2], "--name", "listed", "--workers", "1", "--trials", "500", "--storage", with_password]
    command = [sys.executable, "-u", "-m", "slopesearch", "optimize", *words]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, cwd=tmp_path, text=True, **streams) as study:  # type: ignore[call-overload]
        lines = []
        for line in study.stdout:
            lines.append(line)
            if line.startswith("["):
                break
        listed = {path.parent.name: _command_of(path) for path in Path("/proc").glob("[0-9]*/cmdline")}
        study.kill()
        lines += study.stdout.readlines()
    shown = with_password.replace(f":{SECRET}@", "@")
    assert shown in listed[str(study.pid)].split("\0")
    assert sum("worker_main" in words for words in listed.values()) >= 1
    assert [words for words in listed.values() if SECRET in words] == []
    assert SECRET not in "".join(lines)
    assert any(f"stored in {shown}" in line for line in lines)


def _command_of(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:  # it has ended
        return ""


def test_any_text_is_a_name(url: str, tmp_path: Path) -> None:
    store = Store(url)
    for number, name in enumerate(NAMES.values()):
        synthetic.store(synthetic.study_of(3, name, seed=number), url)
    assert [row.name for row in store.summaries()] == sorted(NAMES.values())
    for number, name in enumerate(NAMES.values()):
        assert store.read(name).trials[2].config == synthetic.study_of(3, name, seed=number).trials[2].config
        with store.writing(name), pytest.raises(RequestError, match="is being written by process"):
            store.set_attributes(name, {"a": 1})
        store.copy(name, tmp_path / f"{number}.db")
        assert Store(f"sqlite:///{tmp_path}/{number}.db").read(name) == store.read(name)
        assert store.delete(name, lambda parts: True)
    assert store.summaries() == []


def test_the_dashboard_reads_and_annotates_while_a_study_is_written(url: str, tmp_path: Path) -> None:
    synthetic.store(synthetic.study_of(30, "read"), url)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "slopesearch", "dashboard", "--storage", url, "--port", str(port)]
    with (
        Store(url).writing("written") as storage,
        subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL) as dashboard,
    ):
        try:
            deadline = time.monotonic() + 60
            while True:
                try:
                    address = f"http://127.0.0.1:{port}/api/studies"
                    with urllib.request.urlopen(address, timeout=10) as answer:
                        studies = json.load(answer)["study_summaries"]
                    break
                except OSError:
                    assert time.monotonic() < deadline
                    assert dashboard.poll() is None
                    time.sleep(0.2)
        finally:
            dashboard.terminate()
        assert [study["study_name"] for study in studies] == ["read"]
        notes = storage.get_study_system_attrs(storage.get_study_id_from_name("read"))
    for kind in ("note_str", "plot_data:slopesearch-norm"):
        assert any(key.startswith(f"dashboard:{kind}") for key in notes)
