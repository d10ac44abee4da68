"""A database that is deleted, renamed or replaced while it is written: noticed, and nothing is lost."""

import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from sqlalchemy.exc import OperationalError

from slopesearch.search.launchers import LAUNCHERS
from slopesearch.search.sqlite import SqliteFile
from slopesearch.search.store import Store
from slopesearch.wording import RequestError, StudyFailedError
from tests.harness import FakeLauncher, Harness, spec
from tests.running import FAKE, Running

RANDOM = spec(sampler="random")


def told(path: Path, name: str = "digits-mlp") -> int:
    """How many trials of a study are over, as `list` reads them; the file must be whole."""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    (row,) = (row for row in Store(f"sqlite:///{path}").summaries() if row.name == name)
    return row.complete + row.pruned


def delete(path: Path) -> None:
    path.unlink()


def rename(path: Path) -> None:
    path.rename(path.with_name("renamed.db"))


def replace(path: Path) -> None:
    path.with_name("other.db").rename(path)


@pytest.mark.parametrize(
    ("move", "fate"),
    [
        (delete, "deleted or renamed"),
        (rename, "deleted or renamed"),
        (replace, "replaced by another file"),
    ],
)
def test_a_study_whose_database_is_moved_away_stops_at_once_and_is_saved_whole(
    move: Callable[[Path], None], fate: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LAUNCHERS, "fake", FakeLauncher)
    path, other = tmp_path / "x.db", tmp_path / "other.db"
    Harness(path)(2, RANDOM)
    Harness(other)(3, RANDOM, name="other")
    content = other.read_bytes()
    with Running("optimize", *FAKE, "--trials", "20", "--storage", f"sqlite:///{path}") as study:
        study.tell(5)
        move(path)
        code, output, errors = study.end()
    (saved,) = tmp_path.glob("x.saved-*")
    assert not list(tmp_path.glob("x.db-*"))
    assert (code, output) == (1, "")
    assert errors == (
        f"error: '{path}' was {fate} while it was written; all that it held is saved, and "
        f"--storage 'sqlite:///{saved}' goes on from there\n"
    )
    assert told(saved) == 2 + 5
    if move is rename:
        assert told(tmp_path / "renamed.db") == 2 + 5
    if move is replace:
        assert path.read_bytes() == content
        assert told(path, "other") == 3
    assert Harness(saved)(9, RANDOM).finished == 9


def write(storage: RDBStorage, name: str) -> None:
    storage.create_new_study([StudyDirection.MAXIMIZE], name)


def names(path: Path) -> list[str]:
    return [row.name for row in Store(f"sqlite:///{path}").summaries()]


def test_every_writer_of_a_file_saves_what_it_has_written_and_saves_it_once(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    file = SqliteFile(path)
    said = []
    with file.writing() as one, file.writing() as another:
        write(one, "one")
        write(another, "another")
        path.unlink()
        for storage, name in ((one, "late"), (another, "later"), (one, "latest")):
            with pytest.raises(StudyFailedError, match="deleted or renamed") as error:
                write(storage, name)
            said.append(str(error.value))
    saved = [Path(re.findall("sqlite:///([^']+)", text)[0]) for text in said]
    assert saved[0] == saved[2]
    assert sorted(tmp_path.iterdir()) == sorted({*saved, tmp_path / ".x.db.lock"})
    assert [names(path) for path in saved[:2]] == [
        ["another", "late", "one"],
        ["another", "late", "later", "one"],
    ]


def lose(folder: Path, move: Callable[[Path], None]) -> str:
    """What a writer says whose file is moved away by `move`."""
    path = folder / "x.db"
    with SqliteFile(path).writing() as storage:
        write(storage, "one")
        move(path)
        with pytest.raises(StudyFailedError) as error:
            write(storage, "late")
    return str(error.value)


def test_a_deleted_folder_is_made_again(tmp_path: Path) -> None:
    folder = tmp_path / "studies"
    folder.mkdir()
    lose(folder, lambda path: shutil.rmtree(path.parent))
    (saved,) = folder.iterdir()
    assert names(saved) == ["late", "one"]


def test_where_its_folder_takes_no_file_it_is_saved_with_the_temporary_files_or_said_to_be_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def put_a_file_there(path: Path) -> None:
        shutil.rmtree(path.parent)
        path.parent.touch()

    for folder in ("one", "two", "temporary"):
        (tmp_path / folder).mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    said = lose(tmp_path / "one", put_a_file_there)
    (saved,) = (tmp_path / "temporary").iterdir()
    assert str(saved) in said
    assert names(saved) == ["late", "one"]
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    said = lose(tmp_path / "two", put_a_file_there)
    assert "what it held could not be saved elsewhere ([Errno 2] No such file" in said


DASHBOARD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
for _ in range(2):
    print(*connection.execute("SELECT count(*) FROM studies").fetchone(), flush=True)
    sys.stdin.readline()
"""


def test_a_replacement_is_not_mixed_with_the_file_that_a_dashboard_still_has_open(tmp_path: Path) -> None:
    path, other = tmp_path / "x.db", tmp_path / "other.db"
    many = [f"{n:0500}" for n in range(60)]  # a file of another size
    with SqliteFile(other).writing() as storage:
        for name in many:
            write(storage, name)
    with SqliteFile(path).writing() as storage:
        write(storage, "before")
    command = [sys.executable, "-c", DASHBOARD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as dashboard:
        assert dashboard.stdin is not None
        assert dashboard.stdout is not None
        assert dashboard.stdout.readline() == "1\n"
        lose(tmp_path, replace)
        with SqliteFile(path).writing() as storage:
            write(storage, "another")
        assert names(path) == [*many, "another"]
        dashboard.stdin.close()
        assert dashboard.stdout.readline() == "3\n"  # it goes on with the file that it has opened


def test_the_wal_that_a_replacement_brings_along_stays(tmp_path: Path) -> None:
    def replace_with_all_its_files(path: Path) -> None:
        for suffix in ("", "-wal", "-shm"):
            path.with_name(f"other.db{suffix}").rename(path.with_name(f"x.db{suffix}"))

    with closing(sqlite3.connect(tmp_path / "other.db")) as other:  # killed, it leaves them all behind
        other.execute("PRAGMA journal_mode=WAL")
        other.execute("CREATE TABLE songs (name TEXT)")
        lose(tmp_path, replace_with_all_its_files)
        with closing(sqlite3.connect(tmp_path / "x.db")) as connection:
            assert connection.execute("SELECT count(*) FROM songs").fetchone() == (0,)


def test_no_further_connection_opens_the_replacement(tmp_path: Path) -> None:
    path, other = tmp_path / "x.db", tmp_path / "other.db"
    with SqliteFile(other).writing() as storage:
        write(storage, "other")
    content = other.read_bytes()
    with SqliteFile(path).writing() as storage:
        storage.engine.dispose()
        replace(path)
        with pytest.raises(OperationalError, match="it was deleted, renamed or replaced"):
            storage.engine.connect()
    assert path.read_bytes() == content


@pytest.mark.parametrize("suffix", ["-wal", "-journal"])
def test_what_a_file_left_behind_that_is_gone_gets_into_no_new_file(suffix: str, tmp_path: Path) -> None:
    file, left = SqliteFile(tmp_path / "x.db"), tmp_path / f"x.db{suffix}"
    left.write_bytes(b"pages")
    with pytest.raises(RequestError, match=f"x.db{suffix}' holds the last changes of 'x.db', which was "):
        file.check()
    left.write_bytes(b"")
    file.check()
