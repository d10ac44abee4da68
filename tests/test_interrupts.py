"""Ctrl-C at any moment of the start ends a command with 130 and not a word; real processes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from slopesearch.interrupts import exits_at_once
from tests import synthetic


@pytest.mark.parametrize(
    ("command", "module"),
    [
        ("optimize", "slopesearch.interrupts"),
        ("optimize", "typer"),
        ("optimize", "torch.nn"),
        ("optimize", "optuna"),
        ("show", "slopesearch.cli.tables"),
        ("report", "plotly"),
    ],
)
def test_ctrl_c_while_modules_are_loaded(command: str, module: str, tmp_path: Path) -> None:
    """Python says of each module when it is loaded; the signal comes as it says it of this one."""
    (tmp_path / "studies").mkdir()
    synthetic.store(synthetic.study_of(3), tmp_path / "studies" / "slopesearch.db")
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "slopesearch", command],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    with process:
        assert process.stderr is not None
        next(line for line in process.stderr if line.rpartition("|")[2].strip() == module)
        process.send_signal(signal.SIGINT)
        said = [line for line in process.stderr if not line.startswith("import time:")]
    assert said == []
    assert process.returncode in (130, -signal.SIGINT)  # a shell makes 130 of both


def test_what_handles_ctrl_c_already_is_left_alone() -> None:
    before = signal.getsignal(signal.SIGINT)
    try:
        for handler in (signal.SIG_IGN, lambda number, frame: None):
            signal.signal(signal.SIGINT, handler)
            with exits_at_once():
                assert signal.getsignal(signal.SIGINT) is handler
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with exits_at_once():
            assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


LOST = """
import os
import signal
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    pass
raise SystemExit(7)
"""


def test_ctrl_c_is_not_lost_in_a_module_that_catches_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "typer.py").write_text(LOST)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    command = [sys.executable, "-m", "slopesearch", "list"]
    assert subprocess.run(command, capture_output=True, text=True).returncode == 130
