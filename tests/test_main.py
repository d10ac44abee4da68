"""The program as a whole: its commands, and how it ends."""

import runpy

import pytest

from slopesearch.cli import main as command_line
from slopesearch.cli.main import COMMANDS


def test_ctrl_c_while_modules_are_loaded_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command_line, "main", interrupted)
    with pytest.raises(SystemExit) as stopped:
        runpy.run_module("slopesearch", run_name="__main__")
    assert stopped.value.code == 130


def test_every_command_says_what_it_does() -> None:
    for name, command in COMMANDS.items():
        assert command.__doc__, name
