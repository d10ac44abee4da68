"""A SQLite file on a network file system is refused; a made-up table of mounts says which that is."""

from pathlib import Path

import optuna
import pytest

from slopesearch.search import mounts
from slopesearch.search.mounts import network_mount
from slopesearch.search.sqlite import SqliteFile
from slopesearch.search.store import Store
from slopesearch.wording import RequestError
from tests import synthetic

LINES = """\
21 1 254:0 / / rw,relatime - ext4 /dev/vda rw
22 21 0:21 / /proc rw - proc proc rw
31 21 0:40 / /home rw,relatime shared:5 - autofs systemd-1 rw
32 31 0:41 / /home rw,relatime shared:6 - nfs4 server:/export/home rw
33 32 0:42 / /home/anna/scratch rw - xfs /dev/sdb rw
34 21 0:43 / /mnt/two\\040words rw - fuse.sshfs anna@there: rw
35 21 0:44 / /lustre rw - lustre 10.0.0.1@tcp:/fs rw
36 21 0:45 / /host rw - 9p hostshare rw
37 21 0:46 / /vm rw - virtiofs share rw
38 21 0:47 / /layers rw - overlay overlay rw
39 21 0:48 / /desk rw - fuse.gvfsd-fuse gvfsd rw
40 21 0:49 / /share rw - cifs //server/share rw
41 40 254:0 /local /share rw - ext4 /dev/vda rw
42 21 0:50 / /mnt/homework rw - tmpfs tmpfs rw
"""


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A table that may be added to."""
    path = tmp_path / "mountinfo"
    path.write_text(LINES)
    monkeypatch.setattr(mounts, "TABLE", path)
    return path


@pytest.mark.parametrize(
    ("folder", "kind", "point"),
    [
        ("/home/anna/studies", "nfs4", "/home"),
        ("/home", "nfs4", "/home"),
        ("/mnt/two words/a", "fuse.sshfs", "/mnt/two words"),
        ("/lustre/project", "lustre", "/lustre"),
        ("/home/anna/scratch/studies", None, None),
        ("/homework", None, None),
        ("/mnt/homework", None, None),
        ("/host/x", None, None),
        ("/vm", None, None),
        ("/layers", None, None),
        ("/desk", None, None),
        ("/share/x", None, None),  # another file system is mounted over it
        ("/", None, None),
    ],
)
@pytest.mark.usefixtures("table")
def test_the_mount_that_holds_a_folder_tells(folder: str, kind: str | None, point: str | None) -> None:
    assert network_mount(Path(folder)) == (None if kind is None else (kind, Path(str(point))))


def test_where_there_is_no_table_nothing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mounts, "TABLE", tmp_path / "none")
    assert network_mount(Path("/home")) is None


def test_this_machine_has_a_table_that_is_read() -> None:
    assert network_mount(Path("/proc")) is None


def test_a_file_on_a_network_is_not_written_and_may_be_read_and_copied(table: Path, tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "link").symlink_to("far")
    synthetic.store(synthetic.study_of(3), tmp_path / "far" / "x.db")
    with table.open("a") as lines:
        lines.write(f"50 21 0:60 / {tmp_path}/far rw - nfs server:/far rw\n")
    before = (tmp_path / "far" / "x.db").read_bytes()
    for path in ("far/x.db", "far/new.db", "link/x.db"):
        store = Store(f"sqlite:///{tmp_path}/{path}")
        for write in (store.check_writable, SqliteFile(tmp_path / path).writing().__enter__):
            with pytest.raises(RequestError) as error:
                write()
            assert str(error.value) == (
                f"'{tmp_path}/{path}' is on a network file system (nfs, mounted at '{tmp_path}/far'), where "
                "SQLite cannot keep two machines from writing at once; name a file on a disk of this "
                "machine, or a PostgreSQL database, which any machine may use: "
                "--storage postgresql+psycopg://USER@HOST/DATABASE"
            )
    assert (tmp_path / "far" / "x.db").read_bytes() == before
    assert not (tmp_path / "far" / "new.db").exists()
    far = Store(f"sqlite:///{tmp_path}/far/x.db")
    assert [row.name for row in far.summaries()] == ["digits-cnn"]
    far.copy("digits-cnn", tmp_path / "near.db")
    near = Store(f"sqlite:///{tmp_path}/near.db")
    assert near.read() == far.read()
    with near.open() as storage:
        assert len(optuna.load_study(study_name="digits-cnn", storage=storage).get_trials()) == 3
