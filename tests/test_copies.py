"""A study deleted or copied whole, with the studies of its verdict and nothing else."""

import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import optuna
import pytest
from typer.testing import CliRunner

from slopesearch.cli.main import app
from slopesearch.search.launchers import LAUNCHERS
from slopesearch.search.store import Store
from slopesearch.wording import RequestError
from tests import synthetic
from tests.conftest import CommandLine, Storages
from tests.harness import FakeLauncher, Harness
from tests.running import FAKE, Running

OWN = ["s", "s/confirm", "s/test", "s/tune", "s/compare"]
NAMES = (*OWN, "s-2", "other")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search with its verdict, and others whose names begin alike."""
    found = tmp_path_factory.mktemp("copies") / "x.db"
    for seed, name in enumerate(NAMES):
        synthetic.store(synthetic.study_of(12, name, seed=seed), found)
    with closing(sqlite3.connect(found)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return found


@pytest.fixture
def path(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(made, tmp_path / "x.db"))


def url(path: Path) -> str:
    return f"sqlite:///{path}"


def rows(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """Every row of every table."""
    with closing(sqlite3.connect(path)) as connection:
        names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: sorted(connection.execute(f"SELECT * FROM {name}"), key=repr) for name in names}


def contents(folder: Path) -> dict[Path, bytes]:
    """Every file, but for what readers and writers of the storage leave beside it."""
    beside = ("x.db-wal", "x.db-shm")
    return {
        found: found.read_bytes()
        for found in folder.iterdir()
        if found.exists() and found.name not in beside and not found.name.startswith(".x.db")
    }


def names_in(path: Path) -> list[str]:
    return [summary.name for summary in Store(url(path)).summaries()]


def test_a_copy_is_one_whole_file_with_the_study_and_its_verdict(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "colleague.db"
    before = path.read_bytes()
    assert [part.name for part in Store(url(path)).copy("s", target)] == OWN
    assert sorted(names_in(target)) == sorted(OWN)
    for name in names_in(target):
        assert Store(url(target)).read(name) == Store(url(path)).read(name)
    with closing(sqlite3.connect(target)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert len(optuna.load_study(study_name="s", storage=url(target)).get_trials()) == 12
    assert contents(tmp_path) == {path: before, target: target.read_bytes()}  # no -wal, nothing half-made


def test_a_copied_study_goes_on(storages: Storages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LAUNCHERS, "fake", FakeLauncher)
    monkeypatch.setattr("slopesearch.search.copies.AT_ONCE", 7)
    one, other = Harness(storages.url()), Harness(tmp_path / "other.db")
    one(20)
    one.store.copy("digits-mlp", tmp_path / "other.db")
    assert other.study() == one.study()
    copied = optuna.load_study(study_name="digits-mlp", storage=url(tmp_path / "other.db")).get_trials()
    assert all(trial.duration is not None for trial in copied)  # times are read as what they are
    assert other(26).finished == one(26).finished == 26
    assert other.table() == one.table()


def test_all_rows_of_the_others_stay_when_a_study_is_deleted(path: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept.db"
    for seed, name in enumerate(NAMES):
        if not name.startswith("s/") and name != "s":
            synthetic.store(synthetic.study_of(12, name, seed=seed), kept)
    asked: list[list[str]] = []

    def is_sure(parts: object) -> bool:
        asked.append([part.name for part in parts])  # type: ignore[attr-defined]
        return len(asked) > 1

    store = Store(url(path))
    assert not store.delete("s", is_sure)
    assert sorted(names_in(path)) == sorted(NAMES)
    assert store.delete("s", is_sure)
    assert asked == [OWN] * 2
    assert names_in(path) == names_in(kept) == ["other", "s-2"]
    for name in names_in(path):
        assert store.read(name) == Store(url(kept)).read(name)
    left, wanted = rows(path), rows(kept)
    assert {table: len(found) for table, found in left.items()} == {t: len(f) for t, f in wanted.items()}


def test_a_study_is_deleted_from_a_storage_of_any_kind(storages: Storages) -> None:
    for name in ("s", "s/confirm", "other"):
        synthetic.store(synthetic.study_of(12, name), storages.url())
    store = Store(storages.url())
    before = store.read("other")
    with store.holding("s", "confirmed"), pytest.raises(RequestError, match="'s' is being confirmed by"):
        Store(storages.url()).delete("s", lambda parts: True)
    assert store.delete("s", lambda parts: True)
    assert [summary.name for summary in store.summaries()] == ["other"]
    assert store.read("other") == before


def test_the_question_is_asked_and_no_means_no(path: Path) -> None:
    words = ["list", "--delete", "s", "--storage", url(path)]
    answer = CliRunner().invoke(app, words, input="n\n")
    parts = " and ".join(f"{name} (12 trials)" for name in OWN)
    assert f"delete {parts} for good?" in answer.output
    assert (answer.exit_code, "nothing was deleted" in answer.output) == (0, True)
    assert CliRunner().invoke(app, words, input="").exit_code == 1  # nobody is there to ask
    assert sorted(names_in(path)) == sorted(NAMES)
    assert "s is deleted" in CliRunner().invoke(app, words, input="y\n").output
    assert names_in(path) == ["other", "s-2"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--delete", "none"], "there is no study 'none'; the storage"),
        (["--copy", "none", "new.db"], "there is no study 'none'; the storage"),
        (["--copy", "s", "x.db"], "'x.db' is there already; name a new file"),
        (["--copy", "s", "link.db"], "'link.db' is there already; name a new file"),
        (["--copy", "s", "nowhere/new.db"], "'nowhere/new.db' cannot be made: there is no folder 'nowhere'"),
        (["--copy", "s", "left.db"], "left.db-wal' holds the last changes of 'left.db'"),
        (["--copy", "s", "a.db", "--delete", "s"], "--delete and --copy are two things; name one of them"),
    ],
)
def test_a_wrong_request_is_refused_and_changes_nothing(
    path: Path, tmp_path: Path, slopesearch: CommandLine, words: list[str], sentence: str
) -> None:
    (tmp_path / "link.db").symlink_to("gone.db")
    (tmp_path / "left.db-wal").write_text("changes")
    before = contents(tmp_path)
    done = slopesearch("list", *words, "--storage", "sqlite:///x.db")
    assert (done.returncode, sentence in done.stderr) == (2, True), done.stderr
    assert contents(tmp_path) == before


def test_a_copy_that_cannot_be_written_leaves_nothing(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nowhere(*_: object) -> Iterator[tuple[str, list[object]]]:
        yield "INSERT INTO nowhere VALUES (?)", [(1,)]

    monkeypatch.setattr("slopesearch.search.copies._rows", nowhere)
    with pytest.raises(RequestError, match=r"new.db' cannot be written \(no such table: nowhere\)"):
        Store(url(path)).copy("s", tmp_path / "new.db")
    assert not [found for found in tmp_path.iterdir() if "new.db" in found.name]


def test_a_study_that_runs_is_not_deleted_and_is_copied_as_it_is(
    tmp_path: Path, slopesearch: CommandLine
) -> None:
    storage = ("--storage", url(tmp_path / "x.db"))
    with Running("optimize", *FAKE, "--trials", "8", *storage) as running:
        running.tell(5)
        done = slopesearch("list", "--delete", "digits-mlp", *storage)
        assert done.returncode == 2
        assert "the study 'digits-mlp' is being written by process" in done.stderr
        assert slopesearch("list", "--copy", "digits-mlp", "copy.db", *storage).returncode == 0
        (row,) = json.loads(slopesearch("list", "--json", "--storage", "sqlite:///copy.db").stdout)
        assert row["complete"] + row["pruned"] == 5
        assert running.end()[0] == 0
    (row,) = json.loads(slopesearch("list", "--json", *storage).stdout)
    assert row["complete"] + row["pruned"] == 8
