"""A file is written whole, where and as its owner wants it, and over nothing but a file."""

import os
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from stat import S_IMODE, S_ISFIFO

import pytest

from slopesearch.files import write_aside
from slopesearch.wording import RequestError


def mode(path: Path) -> int:
    return S_IMODE(path.stat().st_mode)


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@pytest.mark.parametrize(("mask", "expected"), [(0o077, 0o600), (0o002, 0o664), (0o022, 0o644)])
def test_a_new_file_has_the_permissions_that_the_umask_leaves(
    tmp_path: Path, mask: int, expected: int
) -> None:
    with umask(mask):
        write_aside(tmp_path / "x", b"new")
    assert mode(tmp_path / "x") == expected


def test_a_file_that_is_replaced_keeps_its_permissions(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"old")
    (tmp_path / "x").chmod(0o640)
    write_aside(tmp_path / "x", b"new")
    assert ((tmp_path / "x").read_bytes(), mode(tmp_path / "x")) == (b"new", 0o640)


def test_a_link_stays_and_its_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    for name in ("there", "not yet"):
        link, target = tmp_path / f"link to {name}", tmp_path / "elsewhere" / name
        link.symlink_to(target)
        if name == "there":
            target.write_bytes(b"old")
        write_aside(link, b"new")
        assert link.is_symlink()
        assert target.read_bytes() == b"new"


def test_nothing_but_a_file_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path may not be long
    os.mkfifo("pipe")
    Path("folder").mkdir()
    Path("link").symlink_to("pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        for name, wrong in {
            "pipe": "is no regular file",
            "socket": "is no regular file",
            "link": "is no regular file",
            os.devnull: "is no regular file",
            "folder": "is a folder",
        }.items():
            with pytest.raises(RequestError, match=f"'{name}' {wrong}.*; name a file with -o"):
                write_aside(Path(name), b"new")
    assert S_ISFIFO(Path("pipe").stat().st_mode)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "link", "pipe", "socket"]


def test_no_database_is_replaced(tmp_path: Path) -> None:
    """Whatever it is called; an empty file, which SQLite would take for one, is."""
    path, link = tmp_path / "studies", tmp_path / "link.html"
    link.symlink_to(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        with connection:
            connection.execute("CREATE TABLE told (number INTEGER)")
        connection.execute("INSERT INTO told VALUES (1)")  # a writer in this process keeps its lock
        for name in (path, link):
            with pytest.raises(RequestError, match=f"'{name}' is a database, which nothing replaces"):
                write_aside(name, b"new")
        with (
            closing(sqlite3.connect(path, timeout=0)) as other,
            pytest.raises(sqlite3.OperationalError, match="locked"),
        ):
            other.execute("BEGIN IMMEDIATE")
        connection.commit()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT * FROM told").fetchall() == [(1,)]
    (tmp_path / "empty").touch()
    write_aside(tmp_path / "empty", b"new")
    assert (tmp_path / "empty").read_bytes() == b"new"


@pytest.mark.parametrize("name", ["é" * 120, "x" * 250])
def test_a_long_name_works(tmp_path: Path, name: str) -> None:
    write_aside(tmp_path / name, b"new")
    assert (tmp_path / name).read_bytes() == b"new"
