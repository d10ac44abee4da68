"""Who stops reading what is printed stops nothing; real processes, real pipes."""

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import synthetic
from tests.conftest import QUICK, CommandLine


@pytest.mark.parametrize("flags", [[], ["-u"]], ids=["buffered", "unbuffered"])
def test_a_study_goes_on_when_nobody_reads_its_lines(
    flags: list[str], tmp_path: Path, slopesearch: CommandLine
) -> None:
    command = [sys.executable, *flags, "-m", "slopesearch", "optimize", *QUICK, "--trials", "4"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    if flags:
        assert process.stdout.readline() == b"loading torch\n"
        assert process.stdout.readline().startswith(b"digits-mlp: ")
    process.stdout.close()
    assert (process.stderr.read(), process.wait(120)) == (b"", 0)
    process.stderr.close()
    (row,) = json.loads(slopesearch("list", "--json").stdout)
    assert (row["complete"] + row["pruned"], row["running"] + row["waiting"]) == (4, 0)


@pytest.mark.parametrize("command", [["show"], ["show", "--json"], ["list"], ["--help"]], ids=" ".join)
@pytest.mark.parametrize("closed", ["stdout", "both"])
def test_reading_commands_end_without_a_word(command: list[str], closed: str, tmp_path: Path) -> None:
    (tmp_path / "studies").mkdir()
    synthetic.store(synthetic.study_of(3), tmp_path / "studies" / "slopesearch.db")
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "slopesearch", *command],
        cwd=tmp_path,
        stdout=write,
        stderr=subprocess.PIPE if closed == "stdout" else write,
        timeout=60,
    )
    os.close(write)
    assert (done.returncode, done.stderr or b"") == (0, b"")


def test_a_wrong_request_that_nobody_hears_is_wrong(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "slopesearch", "show"]
    assert subprocess.run(command, cwd=tmp_path, stdout=write, stderr=write, timeout=60).returncode == 2
    os.close(write)


def test_a_study_goes_on_when_its_terminal_is_gone(tmp_path: Path, slopesearch: CommandLine) -> None:
    """As with nohup: the signal that comes with it is ignored."""
    ours, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "slopesearch", "optimize", *QUICK, "--trials", "4"],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=terminal,
        stderr=terminal,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    os.close(terminal)
    assert os.read(ours, 10)
    os.close(ours)
    assert process.wait(120) == 0
    (row,) = json.loads(slopesearch("list", "--json").stdout)
    assert (row["complete"] + row["pruned"], row["running"] + row["waiting"]) == (4, 0)


def test_a_full_disk_is_not_taken_for_a_lost_audience(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no device that is always full")
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "slopesearch", "--help"]
        assert subprocess.run(command, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE).returncode != 0
