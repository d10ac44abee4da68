"""Studies in a PostgreSQL database: who is let in, who writes, what a server that goes away costs."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import optuna
import psutil  # type: ignore[import-untyped]
import psycopg
import pytest
from sqlalchemy import Connection, text

from slopesearch.search import waiting
from slopesearch.search.events import Event, Told
from slopesearch.search.launchers import LAUNCHERS
from slopesearch.search.sqlite import SCHEMA
from slopesearch.search.store import Store, create_or_resume
from slopesearch.wording import RequestError, StudyFailedError
from tests import synthetic
from tests.conftest import QUICK
from tests.harness import FakeLauncher, Harness, spec
from tests.running import FAKE, Running
from tests.server import USER, Server

pytestmark = pytest.mark.postgresql
RANDOM = spec(sampler="random")


@pytest.fixture(autouse=True)
def _fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LAUNCHERS, "fake", FakeLauncher)


@pytest.fixture
def new(postgresql: Server) -> Iterator[Callable[..., str]]:
    """Makes a database, and gives its name."""
    made: list[str] = []

    def create(*template: str) -> str:
        made.append(postgresql.create(*template))
        return made[-1]

    yield create
    for name in made:
        postgresql.drop(name)


@pytest.fixture
def url(postgresql: Server, new: Callable[..., str]) -> str:
    """The URL of a database with Optuna's tables."""
    return postgresql.url(new())


def refused(url: str) -> str:
    """The sentence that refuses to write."""
    with pytest.raises(RequestError) as error:
        Store(url).check_writable()
    return str(error.value)


# Who is let in


def test_what_keeps_a_study_from_being_written_is_said_in_a_sentence(
    postgresql: Server, new: Callable[..., str]
) -> None:
    nobody = "postgresql://tester@127.0.0.1:9/studies"
    assert re.fullmatch(
        rf"the PostgreSQL server of '{nobody}' cannot be reached \(.*refused.*\); "
        "check host and port, and that it runs, or name another storage with --storage",
        refused(nobody),
    )
    assert 'has no such database (connection failed: connection to server at "127.0.0.1", port ' in refused(
        postgresql.url("nowhere")
    )
    assert 'role "stranger" does not exist); check the name, and the password in PGPASSWORD or' in refused(
        postgresql.url("postgres", "stranger")
    )
    theirs = postgresql.url(new("template1"))
    postgresql.execute(theirs, "CREATE TABLE songs (name TEXT)")
    assert refused(theirs).startswith(f"'{theirs}' is a database of another program (its tables are not Opt")
    with pytest.raises(RequestError, match="of another program"):
        Store(theirs).summaries()
    newer = postgresql.url(new())
    postgresql.execute(newer, "UPDATE alembic_version SET version_num = 'v9.9.9'")
    assert f"its tables are of version ['v9.9.9'], not '{SCHEMA}'" in refused(newer)


def test_a_user_without_the_rights_is_told_which(postgresql: Server, new: Callable[..., str]) -> None:
    ours, empty = postgresql.url(new()), postgresql.url(new("template1"))
    postgresql.execute(ours, "DROP ROLE IF EXISTS reader")
    postgresql.execute(ours, "CREATE ROLE reader LOGIN")
    theirs = ours.replace(USER, "reader")
    assert "(permission denied for table alembic_version); run again, or name another" in refused(theirs)
    for rights in ("SELECT ON ALL TABLES", "USAGE ON ALL SEQUENCES"):
        postgresql.execute(ours, f"GRANT {rights} IN SCHEMA public TO reader")
    synthetic.store(synthetic.study_of(3), ours)
    assert [row.name for row in Store(theirs).summaries()] == ["digits-cnn"]
    assert "(the user 'reader' lacks DELETE on 'studies': GRANT it); ask its owner" in refused(theirs)
    postgresql.execute(ours, "GRANT ALL ON ALL TABLES IN SCHEMA public TO reader")
    Store(theirs).check_writable()
    assert "'reader' may not make tables in the schema 'public': GRANT CREATE" in refused(
        empty.replace(USER, "reader")
    )
    postgresql.execute(ours, f"ALTER ROLE {USER} SET default_transaction_read_only = on")
    assert "the server takes no changes" in refused(ours)
    postgresql.execute(ours, "SET default_transaction_read_only = off")
    with closing(postgresql.connect("postgres")) as connection:
        connection.execute("SET default_transaction_read_only = off")
        connection.execute(f"ALTER ROLE {USER} RESET default_transaction_read_only")
        connection.execute("DROP OWNED BY reader")
    postgresql.execute(ours, "DROP OWNED BY reader")
    postgresql.execute(ours, "DROP ROLE reader")


def test_an_extension_in_an_empty_database_is_no_other_program(
    postgresql: Server, new: Callable[..., str]
) -> None:
    url = postgresql.url(new("template1"))
    postgresql.execute(url, "CREATE EXTENSION pg_buffercache")  # it has a view
    Store(url).check_writable()
    with Store(url).open() as storage:
        optuna.create_study(study_name="s", storage=storage)
    assert [row.name for row in Store(url).summaries()] == ["s"]


def test_processes_that_begin_one_database_at_once_make_it_once_and_a_killed_one_half(
    postgresql: Server, new: Callable[..., str]
) -> None:
    url = postgresql.url(new("template1"))
    optuna.storages.RDBStorage(url).engine.dispose()
    postgresql.execute(url, "DROP TABLE alembic_version")  # killed before the last step
    assert Store(url).find("s") is None
    names, faults = ["one", "two", "three"], []

    def make(name: str) -> None:
        try:
            with Store(url).open() as storage:
                optuna.create_study(study_name=name, storage=storage)
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=make, args=[name]) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert {row.name for row in Store(url).summaries()} == set(names)
    assert postgresql.execute(url, "SELECT version_num FROM alembic_version") == [(SCHEMA,)]


# Who writes


def test_a_second_writer_is_refused_by_process_host_and_time_and_a_dead_one_forgotten(
    url: str, tmp_path: Path
) -> None:
    with Running("optimize", *FAKE, "--trials", "8", "--storage", url) as running:
        running.tell(2)
        since = r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d"
        sentence = rf"written by process {running.process.pid} on \S+, since {since}; let"
        with pytest.raises(RequestError, match=sentence), Store(url).writing("digits-mlp"):
            pass
        with Store(url).writing("another"), Store(url).holding("digits-mlp", "confirmed"):
            pass
        running.process.kill()
        running.process.wait()
    harness = Harness(url)
    assert harness.study().count("RUNNING") == 1
    assert harness(8, spec(plan="cover")).finished == 8
    whole = Harness(tmp_path / "whole.db")
    whole(8, spec(plan="cover"))
    assert harness.table() == whole.table()


def test_a_writer_on_another_host_is_named_also_to_users_who_may_not_look_at_others(
    postgresql: Server, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    postgresql.execute(url, "CREATE ROLE colleague LOGIN")
    with monkeypatch.context() as patch:
        patch.setattr("socket.gethostname", lambda: "gpu-17.example.org")
        held = Store(url).holding("s", "written")
        held.__enter__()
    with (
        pytest.raises(RequestError, match=rf"by process {os.getpid()} on gpu-17.example.org, since 20"),
        Store(url.replace(USER, "colleague")).holding("s", "written"),
    ):
        pass
    held.__exit__(None, None, None)
    with Store(url).holding("s", "written"):  # at once
        pass
    postgresql.execute(url, "DROP ROLE colleague")


def test_a_lock_of_some_other_program_is_held_by_another_process(postgresql: Server, url: str) -> None:
    with (
        Store(url).holding("s", "written"),
        closing(postgresql.connect(url.rpartition("/")[2])) as other,
    ):
        (key,) = other.execute(
            "SELECT (classid::bigint << 32) | objid::bigint FROM pg_locks WHERE locktype = 'advisory'"
        ).fetchall()[0]
    with closing(postgresql.connect(url.rpartition("/")[2])) as other:
        other.execute("SELECT pg_advisory_lock(%s)", [key])
        with pytest.raises(RequestError, match="by another process; let it"), Store(url).writing("s"):
            pass


# What a server that goes away costs


def at(number: int, do: Callable[[], Any]) -> Callable[[Event], None]:
    """A listener that does something once, when a trial has been told."""

    def listen(event: Event) -> None:
        if isinstance(event, Told) and event.number == number:
            do()

    return listen


def test_a_network_that_is_cut_delays_and_loses_nothing(postgresql: Server, url: str, tmp_path: Path) -> None:
    whole, harness, cuts = Harness(tmp_path / "whole.db"), Harness(url), []
    whole(20)

    def listen(event: Event) -> None:
        if isinstance(event, Told) and event.number % 4 == 1:
            cuts.append(postgresql.cut(url))

    assert harness(20, listen=listen).finished == 20
    assert harness.table() == whole.table()
    assert all(cut >= 2 for cut in cuts)  # the lock's connection, and the other
    assert len(cuts) == 5


@pytest.mark.parametrize("commit", range(3, 40, 9))
@pytest.mark.parametrize("was_made", [True, False], ids=["made", "lost"])
def test_a_commit_whose_answer_is_lost_is_made_once(
    was_made: bool, commit: int, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, harness = Harness(tmp_path / "whole.db"), Harness(url)
    whole(4, RANDOM)
    commit_it, count = psycopg.Connection.commit, 0

    def cut(connection: psycopg.Connection[Any]) -> None:
        nonlocal count
        count += 1
        if count == commit and was_made:
            commit_it(connection)
        if count == commit:
            connection.close()
            raise psycopg.OperationalError("server closed the connection unexpectedly")
        commit_it(connection)

    monkeypatch.setattr(psycopg.Connection, "commit", cut)
    assert harness(4, RANDOM).finished == 4
    assert count > commit
    assert harness.table() == whole.table()


def test_trials_that_are_taken_over_come_once_where_the_answer_is_lost(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness, commit_it, cuts = Harness(url), psycopg.Connection.commit, 0
    harness(6, RANDOM, name="old")

    def cut(connection: psycopg.Connection[Any]) -> None:
        nonlocal cuts
        taken = connection.execute("SELECT FROM study_user_attributes WHERE key = 'begun_from'").fetchall()
        commit_it(connection)
        if taken and not cuts:
            cuts += 1
            connection.close()
            raise psycopg.OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr(psycopg.Connection, "commit", cut)
    assert harness(8, RANDOM, name="new", begin_from="old").finished == 8
    assert cuts == 1
    trials = harness.study("new").trials
    assert ["taken_from" in trial.attributes for trial in trials] == [True] * 6 + [False] * 2


def test_a_writer_that_was_cut_off_stops_where_another_holds_the_study(postgresql: Server, url: str) -> None:
    harness, held = Harness(url), Store(url).holding("digits-mlp", "written")

    def lose() -> None:
        postgresql.cut(url)
        held.__enter__()

    with pytest.raises(
        StudyFailedError,
        match=rf"was lost, and now the study 'digits-mlp' is being written by process {os.getpid()} on",
    ):
        harness(9, RANDOM, listen=at(3, lose))
    held.__exit__(None, None, None)
    assert harness(9, RANDOM).finished == 9


def test_a_writer_that_was_cut_off_stops_where_another_has_written_the_study_meanwhile(
    postgresql: Server, url: str
) -> None:
    harness = Harness(url)

    def lose() -> None:
        postgresql.cut(url)
        assert Harness(url)(7, RANDOM).finished == 7

    with pytest.raises(StudyFailedError, match="another program has changed the study 'digits-mlp' while it"):
        harness(9, RANDOM, listen=at(3, lose))
    assert [trial.number for trial in harness.study().trials] == list(range(7))
    assert harness.study().count("RUNNING") == 0


def test_what_a_writer_that_was_cut_off_has_under_way_is_over_before_another_reads(url: str) -> None:
    """Its transaction holds the turn; the next writer waits for it, and finds what it wrote."""
    store, order = Store(url), []
    with store.writing("s") as storage:
        study_id = create_or_resume(storage, "s", synthetic.spec_of(), "images")
        with storage.taking_over(study_id):
            pass

        def take_over() -> None:
            with Store(url).open() as other, other.taking_over(study_id) as reader:
                order.append(reader.execute("SELECT study_name FROM studies").fetchall())

        thread = threading.Thread(target=take_over)

        def write(connection: Connection) -> None:
            connection.execute(text("UPDATE studies SET study_name = 'written'"))
            thread.start()
            thread.join(0.5)
            assert order == []

        storage.transact(write)
        thread.join()
        assert order == [[("written",)]]
        with pytest.raises(StudyFailedError, match="another program has changed the study 's'"):
            storage.transact(lambda connection: pytest.fail("it is another's turn"))


def test_a_lost_connection_that_the_server_still_holds_is_ended(url: str) -> None:
    """As after a cut that the server has not noticed: the lock is ours, on a connection that is gone."""
    store = Store(url)
    with store.writing("s"):
        (lock,) = store._kept_in._held  # type: ignore[union-attr]
        first = lock._connection
        assert first is not None
        kept = os.dup(first.fileno())  # so that the server is not told
        os.dup2(os.open(os.devnull, os.O_RDWR), first.fileno())
        lock.keep()
        os.close(kept)
        assert lock._connection is not first
        with pytest.raises(RequestError, match="is being written by"), Store(url).writing("s"):
            pass
    with Store(url).writing("s"):
        pass


def test_a_server_that_stays_away_stops_the_study_with_a_sentence(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server()
    try:
        monkeypatch.setattr(waiting, "PATIENCE", 1.0)
        harness = Harness(server.url(server.create()))
        with pytest.raises(
            StudyFailedError, match=r"cannot be written \(connection.*; what was finished is stored"
        ):
            harness(9, RANDOM, listen=at(3, server.stop))
        monkeypatch.setattr(waiting, "PATIENCE", 1e6)
        with pytest.raises(RequestError, match="cannot be reached"):
            Store(harness.store.url).read()  # asked anew, it does not wait
        server.start()
        assert harness(9, RANDOM).finished == 9
        assert [trial.number for trial in harness.study().trials] == list(range(9))
    finally:
        server.close()


def test_a_server_that_starts_again_in_the_middle_of_a_study_costs_no_trial(
    postgresql: Server, tmp_path: Path
) -> None:
    """Real processes, study and workers; the server is stopped as by a crash, twice, and then held still."""
    server = Server()
    try:
        url = server.url(server.create("template1"))
        words = [*QUICK[:-2], "--workers", "2", "--trials", "10", "--storage", url]
        command = [sys.executable, "-u", "-m", "slopesearch", "optimize", *words]
        told: list[int] = []
        with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as study:
            assert study.stdout is not None
            for line in study.stdout:
                if line.startswith("["):
                    told.append(int(line.split("trial ")[1].split()[0]))
                    if len(told) in (2, 5):
                        server.stop()
                        time.sleep(2)
                        server.start()
                    elif len(told) == 7:
                        everything = [server.process.pid, *_children(server.process.pid)]
                        for process in everything:
                            os.kill(process, signal.SIGSTOP)
                        time.sleep(2)
                        for process in everything:
                            os.kill(process, signal.SIGCONT)
        assert study.returncode == 0
        trials = Store(url).read().trials
        assert [(trial.number, trial.state in ("COMPLETE", "PRUNED")) for trial in trials] == [
            (number, True) for number in range(10)
        ]
        assert sorted(told) == list(range(10))
    finally:
        server.close()


def _children(process: int) -> list[int]:
    return [child.pid for child in psutil.Process(process).children(recursive=True)]
