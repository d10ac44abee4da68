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

import slopesearch
from slopesearch.cli import main as command_line
from slopesearch.cli import streams
from slopesearch.cli.main import COMMANDS
from slopesearch.search.store import Store
from slopesearch.wording import RequestError
from tests import synthetic
from tests.conftest import InProcess
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


def test_the_version_is_printed(command_line: InProcess) -> None:
    assert command_line("--version").out == f"slopesearch {slopesearch.__version__}\n"


def test_a_shell_completes_commands_options_and_is_told_how(tmp_path: Path) -> None:
    """The script names the command that pip installs, whose answers it asks for."""
    program = [sys.executable, "-m", "slopesearch", "--show-completion", "bash"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    script = subprocess.run(program, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert script.returncode == 0, script.stderr
    assert script.stdout.rstrip().endswith(" slopesearch")
    assert "_SLOPESEARCH_COMPLETE=complete_bash" in script.stdout
    command = tmp_path / "slopesearch"
    command.write_text("import sys\nfrom slopesearch.__main__ import main\nmain()\n")
    for words, expected in (("slopesearch opt", "optimize"), ("slopesearch show --tri", "--trial")):
        asked = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
        done = subprocess.run(
            [sys.executable, str(command)],
            capture_output=True,
            text=True,
            env={**environment, **asked, "_SLOPESEARCH_COMPLETE": "complete_bash"},
        )
        assert done.stdout.split() == [expected], done.stderr


REFUSED = [  # of a storage that holds a study of four trials
    "optimize --set foo=3",
    "optimize --set init=he",
    "optimize --set epochs=0",
    "optimize --set space.lr=[0.0001,0.1]",
    "optimize --timeout soon",
    "optimize nowhere.toml",
    "optimize compare-norm",
    "optimize --data nowhere",
    "optimize --storage x.db",
    "optimize --storage sqlite:///nowhere/x.db",
    "optimize --try nowhere.toml",
    "optimize --from nothing",
    "confirm nothing",
    "compare nothing",
    "compare nowhere.toml",
    "train nowhere.toml",
    "predict nowhere x.png",
    "replay nothing --trial 0",
    "replay --trial 99",
]


@pytest.mark.parametrize("words", REFUSED)
def test_a_request_that_is_wrong_without_torch_is_refused_before_it_is_loaded(
    words: str, tmp_path: Path
) -> None:
    (tmp_path / "studies").mkdir()
    synthetic.store(synthetic.study_of(4), tmp_path / "studies" / "slopesearch.db")
    program = (
        "import sys\n"
        "from slopesearch.cli.main import main\n"
        "try:\n    main()\n"
        "finally:\n    print('torch' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *words.split()],
        capture_output=True,
        text=True,
        env={name: value for name, value in os.environ.items() if name != "SLOPESEARCH_DATA"}
        | {"PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
    )
    assert (done.returncode, done.stdout) == (2, "False\n"), done.stderr
    assert done.stderr.startswith("error: ")
