"""The SQLite file: which are ours, whether it can be written, who writes, how it is read."""

import json
import multiprocessing
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

import optuna
import pytest
from sqlalchemy import TextClause, text
from sqlalchemy.exc import SQLAlchemyError

from slopesearch.search.launchers import LAUNCHERS
from slopesearch.search.sqlite import SCHEMA, SqliteFile
from slopesearch.search.store import Store
from slopesearch.wording import RequestError, StudyFailedError
from tests.harness import FakeLauncher, Harness, spec
from tests.running import Running

QUICK = spec(sampler="random")


def file(path: Path) -> SqliteFile:
    return SqliteFile(path)


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("dear diary " * 1000)
    with pytest.raises(RequestError, match="cannot be read as a SQLite file"):
        file(path).check()
    with pytest.raises(RequestError, match="cannot be read as a SQLite file"):
        file(tmp_path).check()
    assert path.read_text() == "dear diary " * 1000


def test_another_programs_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE songs (name TEXT)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(RequestError, match="of another program"):
        file(path).check()
    assert path.read_bytes() == before


def test_a_folder_that_does_not_exist_is_refused_but_for_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RequestError, match="the storage folder 'nowhere' does not exist"):
        file(Path("nowhere/x.db")).check()
    file(Path("studies/x.db")).check()
    assert list(tmp_path.iterdir()) == []


def test_the_file_is_in_wal_mode(tmp_path: Path) -> None:
    with file(tmp_path / "x.db").writing() as storage, storage.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 1  # NORMAL
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 60_000


def hold(path: Path, ready: "multiprocessing.synchronize.Event") -> None:
    with file(path).lock("study"):
        ready.set()
        time.sleep(60)


def test_a_second_writer_is_refused_by_name_and_a_dead_one_forgotten(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    holder = context.Process(target=hold, args=(tmp_path / "x.db", ready))
    holder.start()
    assert ready.wait(120)
    with (
        pytest.raises(RequestError, match=rf"written by process {holder.pid} on \S+, since 20"),
        file(tmp_path / "x.db").lock("study"),
    ):
        pass
    with file(tmp_path / "x.db").lock("another study"):
        pass
    assert [file(tmp_path / "x.db").is_written(name) for name in ("study", "another study")] == [True, False]
    holder.kill()
    holder.join()
    assert list(tmp_path.glob("*.json"))  # it was killed and left its name
    assert not file(tmp_path / "x.db").is_written("study")
    with file(tmp_path / "x.db").lock("study"):
        held = json.loads(next(tmp_path.glob("*.json")).read_text())
        assert held["pid"] == os.getpid()


@pytest.mark.parametrize("content", ["", '{"pid": 7}'])
def test_a_writer_whose_note_was_damaged_is_another_process(tmp_path: Path, content: str) -> None:
    with file(tmp_path / "x.db").lock("study"):
        next(tmp_path.glob("*.json")).write_text(content)
        with (
            pytest.raises(RequestError, match="'study' is being written by another process; let it"),
            file(tmp_path / "x.db").lock("study"),
        ):
            pass


def test_summaries_count_states_and_know_the_direction(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with file(path).writing() as storage:
        for direction in ("minimize", "maximize"):
            study = optuna.create_study(study_name=direction, storage=storage, direction=direction)
            for value in (1.0, 3.0, 2.0):
                study.tell(study.ask(), value)
            pruned = study.ask()
            pruned.report(100.0 if direction == "maximize" else -100.0, 1)
            study.tell(pruned, state=optuna.trial.TrialState.PRUNED)
            for _ in range(2):
                study.tell(study.ask(), state=optuna.trial.TrialState.FAIL)
            for _ in range(4):
                study.ask()
        optuna.create_study(study_name="empty", storage=storage)
    rows = [tuple(vars(row).values()) for row in Store(f"sqlite:///{path}").summaries()]
    assert rows == [
        ("empty", 0, 0, 0, 0, 0, None),
        ("maximize", 3, 1, 0, 4, 2, 3.0),
        ("minimize", 3, 1, 0, 4, 2, 1.0),
    ]
    with file(path).lock("maximize"):  # by a process that writes it
        found = {row.name: (row.running, row.waiting) for row in Store(f"sqlite:///{path}").summaries()}
    assert found == {"empty": (0, 0), "maximize": (4, 0), "minimize": (0, 4)}


def test_a_foreign_study_with_two_objectives_is_listed_once(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with file(path).writing() as storage:
        study = optuna.create_study(study_name="two", storage=storage, directions=["minimize", "maximize"])
        for value in (1.0, 2.0, 3.0):
            study.tell(study.ask(), [value, value])
        study.ask()
    rows = [tuple(vars(row).values()) for row in Store(f"sqlite:///{path}").summaries()]
    assert rows == [("two", 3, 0, 0, 1, 0, None)]


def test_a_storage_may_be_a_link_to_another_disk(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    shm = Path("/dev/shm")
    other = Path(tempfile.mkdtemp(dir=shm)) if shm.is_dir() else tmp_path_factory.mktemp("other")
    (tmp_path / "x.db").symlink_to(other / "y.db")
    try:
        file(tmp_path / "x.db").check_writable()
        with file(tmp_path / "x.db").lock("s"), file(tmp_path / "x.db").writing() as storage:
            optuna.create_study(study_name="s", storage=storage)
            with pytest.raises(RequestError, match="being written by"), file(other / "y.db").lock("s"):
                pass
        assert [row.name for row in Store(f"sqlite:///{other}/y.db").summaries()] == ["s"]
        assert [path.name for path in tmp_path.iterdir()] == ["x.db"]
        assert (tmp_path / "x.db").is_symlink()
    finally:
        shutil.rmtree(other)


def test_a_study_is_written_and_confirmed_under_two_locks(tmp_path: Path) -> None:
    storage = file(tmp_path / "x.db")
    with storage.lock("s"), storage.lock("s", "confirmed"):
        for doing in ("written", "confirmed"):
            with pytest.raises(RequestError, match=f"'s' is being {doing} by "), storage.lock("s", doing):
                pass


def test_what_cannot_be_written_is_found_by_trying_and_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.db"
    with file(path).writing():
        pass
    before = path.read_bytes()
    file(path).check_writable()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        monkeypatch.setattr("slopesearch.search.sqlite.BUSY_TIMEOUT", 0.1)
        with pytest.raises(RequestError, match=r"x.db' cannot be written to \(database is locked\)"):
            file(path).check_writable()
    path.chmod(0o444)
    if os.geteuid():
        with pytest.raises(RequestError, match="attempt to write a readonly database"):
            file(path).check_writable()
    assert path.read_bytes() == before


def overwrite_while_it_is_written(path: Path) -> None:
    with file(path).writing() as storage:
        optuna.create_study(study_name="one", storage=storage)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("UPDATE studies SET study_name = 'two'")  # the writer will read the pages again
            other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        with path.open("r+b") as content:
            content.seek(4096)
            content.write(bytes(path.stat().st_size - 4096))
        optuna.create_study(study_name="three", storage=storage)


def test_a_file_that_is_overwritten_is_said_to_be_damaged(tmp_path: Path) -> None:
    with pytest.raises(StudyFailedError, match="was damaged while it was written .*malformed"):
        overwrite_while_it_is_written(tmp_path / "x.db")


@pytest.mark.parametrize("table", ["trials", "trial_params"])
def test_a_file_with_a_view_in_place_of_a_table_is_refused(table: str, tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with file(path).writing():
        pass
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"ALTER TABLE {table} RENAME TO moved")
        connection.execute(f"CREATE VIEW {table} AS SELECT * FROM moved")
    with pytest.raises(RequestError, match="of another program .it has no Optuna tables"):
        file(path).check()


@pytest.mark.parametrize("names", [["one"], ["one", "two"]], ids=["notebook", "two threads"])
def test_a_reader_outside_costs_a_killed_process_no_trial_of_the_studies_that_it_has_open(
    names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its locks, another process that only reads would remove the live -wal when it ends."""
    monkeypatch.setitem(LAUNCHERS, "fake", FakeLauncher)
    path = tmp_path / "x.db"
    harness = Harness(path)
    for name in names:
        harness(2, QUICK, name=name)
    with Running("notebook", str(path), *names) as study:
        study.tell(6)
        with closing(sqlite3.connect(path)) as reader:
            assert reader.execute("SELECT count(*) FROM studies").fetchone() == (len(names),)
        study.tell(9)
        study.process.kill()
    finished = sum(harness.study(name).count(state) for name in names for state in ("COMPLETE", "PRUNED"))
    assert finished == 2 * len(names) + 15


@pytest.mark.parametrize("killed", [False, True])
def test_a_study_that_another_process_writes_meanwhile_stays_whole(
    killed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LAUNCHERS, "fake", FakeLauncher)
    harness = Harness(tmp_path / "x.db")
    harness(2, QUICK, name="one")
    with Running("notebook", str(tmp_path / "x.db"), "one") as study:
        study.tell(6)
        harness(12, QUICK, name="another")
        if killed:
            study.tell(3)
            study.process.kill()
        else:
            assert study.end()[0] == 0
    for name, trials in (("one", 2 + 6 + 3 if killed else 20), ("another", 12)):
        assert sum(harness.study(name).count(state) for state in ("COMPLETE", "PRUNED")) == trials


DASHBOARD = """
import optuna, sys
study = optuna.load_study(study_name="digits-mlp", storage=sys.argv[1])
most, polls = 0, 0
while most < 200:
    polls += 1
    trials = study.get_trials()
    if polls == 1:
        print("polling", flush=True)
    assert [trial.number for trial in trials] == list(range(len(trials)))
    over = sum(trial.state.is_finished() for trial in trials)
    assert over >= most
    most = over
print(polls)
"""


def test_a_dashboard_that_polls_all_the_while_sees_every_trial_and_stops_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LAUNCHERS, "fake", FakeLauncher)
    harness = Harness(tmp_path / "x.db")
    harness(2, QUICK)
    command = [sys.executable, "-W", "ignore", "-c", DASHBOARD, harness.store.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as dashboard:
        assert dashboard.stdout is not None
        assert dashboard.stdout.readline() == "polling\n"  # a slow machine would be done before it begins
        harness(200, QUICK, workers=4)
        polls, errors = dashboard.communicate(timeout=120)
    assert dashboard.returncode == 0, errors
    assert int(polls) > 1
    assert harness.study().count("COMPLETE") + harness.study().count("PRUNED") == 200


def test_the_schema_that_is_read_is_the_one_that_the_installed_optuna_writes(tmp_path: Path) -> None:
    with file(tmp_path / "x.db").writing() as storage:
        assert storage.get_head_version() == SCHEMA


@pytest.mark.parametrize("fault", [KeyError("ours"), ValueError("ours"), sqlite3.ProgrammingError("ours")])
def test_a_fault_of_ours_is_not_told_as_a_damaged_file(tmp_path: Path, fault: Exception) -> None:
    path = tmp_path / "x.db"
    with file(path).writing():
        pass
    with pytest.raises(type(fault), match="ours"), file(path).reading():
        raise fault
    with (
        pytest.raises(RequestError, match=r"cannot be read as a storage of studies \(no such table: songs\)"),
        file(path).reading() as connection,
    ):
        connection.execute("SELECT * FROM songs")


@pytest.mark.parametrize("wrong", [text("SELECT :number"), text("SELECT ?")])
def test_a_fault_of_ours_is_not_told_as_a_full_disk(tmp_path: Path, wrong: TextClause) -> None:
    """Caught by SQLAlchemy, which is not given a value; and by SQLite, which is given too few."""
    with (
        pytest.raises(SQLAlchemyError),
        file(tmp_path / "x.db").writing() as storage,
        storage.engine.connect() as connection,
    ):
        connection.execute(wrong)


WATCHED = """
import os
import shlex
import sys

def watch(event, arguments):
    names = [str(argument).rstrip("'") for argument in arguments]
    if event in ("open", "shutil.copyfile") and any(name.endswith("x.db") for name in names):
        print("OPENED", event, arguments, file=sys.stderr)

sys.addaudithook(watch)  # SQLite opens its files below Python, which this does not hear
from slopesearch.cli.main import main
for line in sys.stdin:
    sys.argv = ["slopesearch", *shlex.split(line), "--storage", "sqlite:///x.db"]
    try:
        main()
    except SystemExit as ended:
        assert not ended.code, line
open("x.db").close()
"""


def test_nothing_but_sqlite_opens_a_database(tmp_path: Path) -> None:
    """Any other `close` of the file would drop this process's locks on it."""
    commands = """\
        optimize --dataset digits --model mlp --epochs 2 --trials 3 --launcher inline --devices cpu
        optimize --dataset digits --model mlp --epochs 2 --trials 4 --launcher inline --devices cpu
        list --copy digits-mlp copy-of-x.db
        list
        show
        report
        export
        confirm --top 1 --seeds 2 --launcher inline --devices cpu
        show
    """
    done = subprocess.run(
        [sys.executable, "-c", WATCHED],
        input="\n".join(line.strip() for line in commands.splitlines() if line.strip()),
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("OPENED") == 1, done.stderr  # by the last line, which shows that it is heard


def test_what_is_read_belongs_to_one_moment(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with file(path).writing() as storage:
        study = optuna.create_study(study_name="s", storage=storage)
        study.add_trial(optuna.trial.create_trial(value=1.0))
        with file(path).reading() as connection:
            count = "SELECT count(*) FROM trials"
            assert connection.execute(count).fetchone() == (1,)
            study.add_trial(optuna.trial.create_trial(value=2.0))
            assert connection.execute(count).fetchone() == (1,)


def test_what_waits_in_the_wal_is_read_where_the_folder_takes_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(sqlite3.connect(tmp_path / "x.db")) as writer:
        writer.execute("PRAGMA journal_mode=WAL")
        writer.execute("CREATE TABLE a (b)")
        monkeypatch.setattr("slopesearch.search.sqlite.os.access", lambda path, mode: False)
        with closing(SqliteFile(tmp_path / "x.db").read_only()) as reader:
            assert reader.execute("SELECT name FROM sqlite_master").fetchall() == [("a",)]
