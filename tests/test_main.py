"""The program as a whole: its commands, and how it ends."""

import fcntl
import os
import pty
import runpy
import subprocess
import sys
import termios
import time
from contextlib import suppress
from pathlib import Path

import pytest

from slopesearch.cli import main as command_line
from slopesearch.cli import streams
from slopesearch.cli.main import COMMANDS
from slopesearch.search.store import Store
from slopesearch.wording import RequestError
from tests.running import FAKE, ROOT


def test_ctrl_c_outside_of_a_command_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command_line, "main", interrupted)
    monkeypatch.setattr(streams, "outlive_the_audience", lambda: None)  # the streams here are pytest's
    with pytest.raises(SystemExit) as stopped:
        runpy.run_module("slopesearch", run_name="__main__")
    assert stopped.value.code == 130


def test_every_command_says_what_it_does() -> None:
    for name, command in COMMANDS.items():
        assert command.__doc__, name


def told_and_running(store: Store) -> tuple[int, int]:
    try:
        rows = store.summaries()
    except RequestError:  # there is no such file yet
        return 0, 0
    return sum(row.complete + row.pruned for row in rows), sum(row.running + row.waiting for row in rows)


@pytest.mark.parametrize(
    ("before", "code", "trials"), [((), 130, 4), (("nohup",), 0, 9)], ids=["plain", "nohup"]
)
def test_a_study_ends_with_its_terminal_or_outlives_it(
    before: tuple[str, ...], code: int, trials: int, tmp_path: Path
) -> None:
    """A terminal is lost when its other side is closed, as with a window or a connection."""
    store = Store(f"sqlite:///{tmp_path}/x.db")
    program = [*before, sys.executable, "-m", "tests.running", "optimize", *FAKE, "--trials", "9"]
    ours, theirs = pty.openpty()
    os.set_blocking(ours, False)
    with subprocess.Popen(
        [*program, "--storage", store.url],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(1, termios.TIOCSCTTY, 0),
    ) as study:
        os.close(theirs)
        assert study.stdin is not None
        study.stdin.write(b"\n" * 3)
        study.stdin.flush()
        while told_and_running(store) != (3, 1):  # the fourth waits
            assert study.poll() is None
            with suppress(OSError):
                os.read(ours, 2**16)
            time.sleep(0.05)
        os.close(ours)
        study.stdin.close()
        assert study.wait(120) == code
    assert told_and_running(store) == (trials, 0)
