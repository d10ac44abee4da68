"""The command line as a user meets it: real processes in an empty folder, and sentences for what is wrong."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from slopesearch.cli.main import main
from tests.conftest import QUICK, CommandLine

DEFAULT_URL = "sqlite:///studies/slopesearch.db"


def test_a_study_from_one_command_to_the_dashboard(slopesearch: CommandLine, tmp_path: Path) -> None:
    """The main job on worker processes, then every reader of what it leaves."""
    budget = ("--dataset", "digits", "--model", "mlp", "--epochs", "3")
    first = slopesearch("optimize", *budget, "--trials", "7", "--devices", "cpu,cpu")
    assert first.returncode == 0, first.stderr
    assert "workers: 2 on cpu" in first.stdout
    assert len(re.findall(r"^\[\d+/7", first.stdout, re.MULTILINE)) == 7
    for words in (
        "digits-mlp: 7 trials",
        "best: trial",
        "the tutorial's recipe",
        "textbook, one run each",
        "Next:",
    ):
        assert words in first.stdout
    assert {path.name for path in (tmp_path / "studies").iterdir()} >= {"slopesearch.db"}

    # Asked for more, it goes on; the fields of the first call are remembered.
    second = slopesearch("optimize", "--dataset", "digits", "--model", "mlp", "--trials", "9")
    assert second.returncode == 0, second.stderr
    assert "to 9 trials, 7 of them finished already;" in second.stdout
    assert len(re.findall(r"^\[\d+/9", second.stdout, re.MULTILINE)) == 2

    (row,) = json.loads(slopesearch("list", "--json").stdout)
    assert (row["name"], row["complete"] + row["pruned"], row["failed"]) == ("digits-mlp", 9, 0)
    shown = json.loads(slopesearch("show", "--json").stdout)
    assert shown["top"][0]["value"] == row["best"]
    assert len(shown["textbook"]) == 5
    assert "report  train_loss" in slopesearch("show", "--trial", "0").stdout

    def optuna(*arguments: str) -> str:
        command = [str(Path(sys.executable).with_name("optuna")), *arguments, "--storage", DEFAULT_URL]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout

    assert "digits-mlp" in optuna("studies", "-f", "json")
    best = json.loads(optuna("best-trial", "--study-name", "digits-mlp", "-f", "json"))
    assert best["number"] == shown["top"][0]["number"]
    assert dashboard_studies(tmp_path) == ["digits-mlp"]

    told = slopesearch("report", "--data-out", "tables")
    assert told.returncode == 0, told.stderr
    assert re.match(r"report\.html: 9 trials of digits-mlp, \d\.\d MB", told.stdout)
    assert "the tutorial&#39;s recipe" in (tmp_path / "report.html").read_text()
    assert len((tmp_path / "tables" / "trials.csv").read_text().splitlines()) == 10


def dashboard_studies(folder: Path) -> list[str]:
    """What optuna-dashboard, a real server, says of the storage."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(Path(sys.executable).with_name("optuna-dashboard")), DEFAULT_URL]
    server = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port)],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/studies", timeout=10) as answer:
                    studies = json.load(answer)["study_summaries"]
                return [study["study_name"] for study in studies]
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
    finally:
        server.terminate()
        server.wait(10)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_the_running_trials_finish(
    tmp_path: Path, number: signal.Signals, slopesearch: CommandLine
) -> None:
    command = [sys.executable, "-u", "-m", "slopesearch", "optimize", *QUICK, "--trials", "500"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("[3/"):
            break
    process.send_signal(number)
    rest = process.stdout.read()
    process.stdout.close()
    assert process.wait(60) == 130
    assert "the running trials finish first" in rest
    assert re.search(r"\d of 500 trials are done; to go on:\s+python -m slopesearch optimize --dataset", rest)
    (row,) = json.loads(slopesearch("list", "--json").stdout)
    assert (row["running"], row["waiting"] <= 1) == (0, True)  # one may have been drawn and not begun
    assert row["complete"] + row["pruned"] >= 3


def test_auto_without_mnist_and_network_runs_on_digits_with_one_warning(
    slopesearch: CommandLine, tmp_path: Path
) -> None:
    small = ("--model", "mlp", "--epochs", "2", "--trials", "1", "--launcher", "inline")
    done = slopesearch("optimize", *small)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("using scikit-learn's bundled digits") == 1
    assert "digits-mlp: to 1 trial;" in done.stdout
    assert "; stored in studies/slopesearch.db\n" in done.stdout
    (warning,) = (line for line in done.stdout.splitlines() if "digits;" in line and "MNIST" in line)
    assert warning == (
        "no MNIST in 'data' and no download (Connection refused): using scikit-learn's bundled digits; "
        "for MNIST name its folder with --data or SLOPESEARCH_DATA"
    )
    assert {path.name for path in tmp_path.iterdir()} == {"studies"}  # nothing half-downloaded


# What is wrong, and what the sentence must say; each is one call in this process.
WRONG = [
    (["optimize", "--trials", "0"], "trials: at least 1, given 0"),
    (["optimize", "nowhere.toml"], "there is no study file 'nowhere.toml'"),
    (["optimize", "bad.toml"], "unknown key 'epoch'"),
    (["optimize", "bad.toml"], "space.lr: low must be below high"),
    (["optimize", "bad.toml"], "unknown activation 'rellu'; choose from relu, leaky_relu"),
    (["optimize", "bad.toml"], "space.negative_slope: a slope lies in [0, 1], given -0.1"),
    (["optimize", "--model", "resnet"], "unknown model 'resnet'; choose from mlp, cnn"),
    (["optimize", "--dataset", "cifar"], "unknown dataset 'cifar'; choose from auto, mnist"),
    (["optimize", "--set", "init=he"], "unknown key 'init'; it is a part of the space: space.init"),
    (["optimize", "--set", "space.init=he"], "unknown init 'he'"),
    (["optimize", "--set", "epochs"], "--set takes KEY=VALUE, like --set space.lr=0.001, given 'epochs'"),
    (["optimize", "--timeout", "soon"], "timeout: a number with s, m or h behind it, like 30m, given 'soon'"),
    (
        ["optimize", "--hang-timeout", "soon"],
        "hang-timeout: a number with s, m or h behind it, like 30m, given",
    ),
    (["optimize", "--devices", "cuda:7"], "there is no device 'cuda:7' here; choose from auto, cpu"),
    (["optimize", "--launcher", "rocket"], "unknown launcher 'rocket'; choose from inline, process, ray"),
    (["optimize", "--data", "nowhere"], "the data folder 'nowhere' does not exist"),
    (["optimize", "--storage", "sqlite:///nowhere/x.db"], "the storage folder 'nowhere' does not exist"),
    (["optimize", "--storage", "sqlite:///bad.toml"], "'bad.toml' cannot be read as a SQLite file"),
    (["optimize", "--storage", "mysql://u:pw@host/db"], "in memory, given 'mysql://u@host/db'; name one"),
    (["optimize", "--storage", "sqlite+x:///x.db"], "needs a driver that is not installed"),
    (["optimize", "--set", "space.lr={ range = [1, 2] }"], "unknown key 'space.lr.range'"),
    (["optimize", "--set", "space=3"], "space: "),
    (["optimize", "--storage", f"sqlite:///{'x' * 300}.db"], "File name too long"),
    (
        ["optimize", "--storage", "here/my x.db"],
        "'here/my x.db' is not a storage URL; did you mean --storage 'sqlite:///here/my x.db'?",
    ),
    (["list", "--storage", "/tmp/x.db"], "did you mean --storage sqlite:////tmp/x.db?"),
    (["list", "--storage", "sqlite:/tmp/x.db"], "did you mean --storage sqlite:////tmp/x.db?"),
    (["list", "--storage", "sqlite://x.db"], "names no file; did you mean --storage sqlite:///x.db?"),
    (["list", "--storage", "sqlite://here/x.db"], "did you mean --storage sqlite:///here/x.db?"),
    (["optimize", "--try", "nowhere.toml"], "there is no config file 'nowhere.toml'"),
    (["optimize", "--try", "bad.toml"], "'bad.toml': unknown key 'epoch'"),
    (["optimize", "--from", "old"], "there is no storage 'studies/slopesearch.db' yet"),
    (["list", "--delete", "s"], "there is no storage 'studies/slopesearch.db' yet"),
    (["list", "--copy", "s", "new.db"], "there is no storage 'studies/slopesearch.db' yet"),
    (["list"], "there is no storage 'studies/slopesearch.db' yet; `python -m slopesearch optimize` makes it"),
    (["show", "mnist-cnn"], "there is no storage"),
    (["show", "--trial", "x"], "Invalid value for '--trial'"),
    (["report"], "there is no storage 'studies/slopesearch.db' yet"),
    (
        ["report", "-o", "nowhere/report.html"],
        "a file in a folder that exists, like report.html, given 'nowh",
    ),
    (["report", "-o", "."], "-o takes a file in a folder that exists, like report.html, given '.'"),
    (["report", "--data-out", "bad.toml"], "takes a folder, which may be new, given the file 'bad.toml'"),
    (["dashboard"], "there is no storage 'studies/slopesearch.db' yet"),
    (["optimise"], "No such command 'optimise'"),
]


@pytest.mark.parametrize(("arguments", "sentence"), WRONG)
def test_a_wrong_request_gets_a_sentence_exit_2_and_writes_nothing(
    arguments: list[str],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SLOPESEARCH_DATA", raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "bad.toml").write_text(
        'epoch = 3\n[space]\nactivation = "rellu"\nlr = { low = 1.0, high = 0.1 }\nnegative_slope = -0.1\n'
    )
    if arguments[0] == "optimize" and "--dataset" not in arguments:
        arguments = [*arguments, "--dataset", "digits"]
    monkeypatch.setattr(sys, "argv", ["slopesearch", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    errors = capsys.readouterr().err
    assert stopped.value.code == 2
    assert sentence in errors
    assert "Traceback" not in errors
    assert [path.name for path in tmp_path.iterdir()] == ["bad.toml"]


def test_a_wrong_request_as_a_process(slopesearch: CommandLine, tmp_path: Path) -> None:
    done = slopesearch("optimize", "--model", "resnet", "--set", "seed=-1")
    assert (done.returncode, done.stdout) == (2, "loading torch\n")
    assert done.stderr.splitlines()[0].startswith("error: ")
    assert len(done.stderr.splitlines()) == 2  # both mistakes
    assert list(tmp_path.iterdir()) == []


def test_a_data_folder_without_mnist_is_an_error_for_mnist(slopesearch: CommandLine, tmp_path: Path) -> None:
    """The folder is a half-made MNIST, so no download is tried."""
    (tmp_path / "half" / "MNIST" / "raw").mkdir(parents=True)
    done = slopesearch("optimize", "--dataset", "mnist", "--data", "half")
    assert done.returncode == 2
    assert "raw/train-images-idx3-ubyte is missing" in done.stderr
    assert not (tmp_path / "studies").exists()


def test_a_killed_worker_is_replaced_and_a_killed_study_leaves_no_worker_behind(
    slopesearch: CommandLine, tmp_path: Path
) -> None:
    # A CNN, so that its workers are at work, and not idle, when they are killed.
    budget = ("--dataset", "digits", "--model", "cnn", "--epochs", "2", "--devices", "cpu,cpu")
    command = [sys.executable, "-u", "-m", "slopesearch", "optimize", *budget, "--trials", "400"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    lines = iter(process.stdout)
    next(line for line in lines if line.startswith("[2/"))
    first, second = psutil.Process(process.pid).children()
    first.kill()
    again = next(line for line in lines if "it runs again" in line)
    assert "the worker process died with exit code -9" in again
    next(line for line in lines if line.startswith("[3/"))
    workers = psutil.Process(process.pid).children()
    assert second in workers
    assert len(workers) == 2
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    gone, alive = psutil.wait_procs(workers, timeout=20)
    assert (len(gone), alive) == (2, [])

    # Two signals at once leave the running trials for the next call, which runs them.
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if re.match(r"\[\d+/400", line):
            break
    process.send_signal(signal.SIGINT)
    time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert "to go on: python -m slopesearch optimize" in " ".join(process.stdout.read().split())
    process.stdout.close()
    assert process.wait(60) == 130
    (row,) = json.loads(slopesearch("list", "--json").stdout)
    total = row["complete"] + row["pruned"] + row["waiting"]
    assert slopesearch("optimize", *budget, "--trials", str(total)).returncode == 0
    (row,) = json.loads(slopesearch("list", "--json").stdout)
    assert (row["complete"] + row["pruned"], row["waiting"], row["failed"]) == (total, 0, 0)


def test_a_timeout_that_began_nothing_does_not_advise_the_same_again(slopesearch: CommandLine) -> None:
    name = "x[a][/b] :smile: 'quoted' " + "long " * 20
    words = ["optimize", *QUICK, "--trials", "3", "--name", name]
    done = slopesearch(*words, "--timeout", "0.001")
    assert done.returncode == 0, done.stderr
    told = "The time of --timeout was over before a trial began, and 0 of 3 trials are done; give it more, or"
    assert told in " ".join(done.stdout.split())
    (command,) = (line for line in done.stdout.splitlines() if "python -m slopesearch optimize" in line)
    assert shlex.split(command) == ["python", "-m", "slopesearch", *words]  # it can be pasted
    assert "to go on" not in done.stdout
    assert "pip install" not in done.stdout  # of a dashboard that is there
