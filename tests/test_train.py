"""Training for long: a folder that is whole, resumed to the bit, and usable with torch alone."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from slopesearch.nets.activations import ACTIVATIONS
from slopesearch.nets.models import build_model
from slopesearch.nets.plain import as_code, as_torch
from slopesearch.runs.export import ConfigFile, Origin, read_config_file, write_config_file
from slopesearch.runs.predict import predict_images
from slopesearch.runs.train import for_training, open_run, train_run
from slopesearch.training.data import Data, load_test
from slopesearch.training.fit import Epoch, Fit
from slopesearch.training.validation import evaluate
from slopesearch.wording import RequestError, StudyFailedError
from tests.conftest import InProcess, make_config
from tests.test_data import write_idx

CPU = torch.device("cpu")
UNUSED = Path("unused")  # the digits need no folder


def exported(**changes: Any) -> ConfigFile:
    origin = Origin(study="digits-mlp", trial=3, objective="val_accuracy", searched=0.95)
    return ConfigFile(config=make_config(**changes), origin=origin, versions={})


def train_in(run: Path, asked: ConfigFile, folder: Path = UNUSED) -> dict[str, Any]:
    rows: list[Epoch] = []
    with open_run(run, asked):
        return train_run(asked, run, folder, CPU, lambda steps: None, rows.append)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_run_that_goes_on_from_a_checkpoint_equals_one_that_never_stopped(
    digits: Data, tmp_path: Path, precision: str
) -> None:
    config = make_config(
        model="cnn" if precision == "float32" else "mlp",
        norm="before",
        slope_mode="learnable",
        precision=precision,
        train_size=256,
        init="lsuv",
    )

    def curve(fit: Fit) -> list[tuple[object, ...]]:
        return [(row.epoch, row.train_loss, row.val_loss, row.val_accuracy) for row in fit.curve]

    whole = Fit(config, digits, CPU)
    for _ in whole.epochs(lambda steps: None):
        pass
    first = Fit(config, digits, CPU)
    next(first.epochs(lambda steps: None))
    first.save(tmp_path / "checkpoint.pt", "hash")
    second = Fit(config, digits, CPU)
    second.restore(tmp_path / "checkpoint.pt", "hash")
    steps: list[int] = []
    for _ in second.epochs(steps.append):
        pass
    assert steps == [5, 6, 7, 8, 9, 10, 11, 12]
    assert curve(second) == curve(whole)
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, second.model.state_dict()[name]), name


def test_a_long_run_trains_with_the_steps_of_the_search(digits: Data) -> None:
    """At the end of equal budgets the weights validate as the engine's last report says."""
    from tests.conftest import run_to_end

    config = make_config(epochs=2)
    fit = Fit(config, digits, CPU)
    *_, last = fit.epochs(lambda steps: None)
    report = run_to_end(config, digits).final
    assert (last.val_loss, last.val_accuracy) == (report.val_loss, report.val_accuracy)


def test_a_finished_run_is_whole(tmp_path: Path) -> None:
    run, asked = tmp_path / "runs" / "x", for_training(exported(), 2, None, None, hold_out=True)
    metrics = train_in(run, asked)
    assert {path.name for path in run.iterdir()} == {
        *(
            "config.toml",
            "weights.safetensors",
            "metrics.json",
            "curve.csv",
            "curve.svg",
            "README.md",
            ".lock",
        )
    }
    assert read_config_file(run / "config.toml") == asked
    assert (asked.config.train_size, asked.config.val_size, asked.config.epochs) == (1000, 397, 2)
    assert metrics == json.loads((run / "metrics.json").read_text())
    assert not [value for value in metrics.values() if isinstance(value, (list, dict))]  # flat
    model = build_model(asked.config).eval()
    model.load_state_dict(load_file(run / "weights.safetensors"))
    tested = evaluate(model, asked.config, *load_test("digits", UNUSED))
    assert (metrics["test_loss"], metrics["test_accuracy"]) == pytest.approx(tested, rel=1e-4)
    assert metrics["test_accuracy"] > 0.5
    assert metrics["images_per_second"] * metrics["seconds"] == pytest.approx(2 * 15 * 64, rel=0.2)
    assert metrics["searched"] == 0.95
    lines = (run / "curve.csv").read_text().splitlines()
    assert [line.partition(",")[0] for line in lines] == ["epoch", "1", "2"]
    assert f",{metrics['val_loss']},{metrics['val_accuracy']}," in lines[2]
    text = "".join(ElementTree.parse(run / "curve.svg").getroot().itertext())
    assert "loss, by epoch" in text
    assert "accuracy, by epoch" in text


def test_with_all_images_nothing_is_held_out(tmp_path: Path) -> None:
    asked = for_training(exported(), 1, None, None, hold_out=False)
    metrics = train_in(tmp_path / "x", asked)
    assert (metrics["train_size"], metrics["val_accuracy"]) == (1397, None)
    assert (tmp_path / "x" / "curve.csv").read_text().splitlines()[1].count(",,") == 1
    assert "<circle" in (tmp_path / "x" / "curve.svg").read_text()  # a line through one point is not seen


def test_what_is_asked_of_a_long_run() -> None:
    config = for_training(exported(epochs=3), None, None, None, hold_out=True).config
    assert (config.epochs, config.init_seed, config.order_seed) == (10, 2, 1)
    assert for_training(exported(epochs=30), None, None, None, hold_out=True).config.epochs == 90
    tested = for_training(exported(evaluated_on="test"), None, None, None, hold_out=True)
    assert tested.config.evaluated_on == "validation"
    seeded = for_training(exported(), None, 5, 200, hold_out=True).config
    assert (seeded.train_size, seeded.init_seed != 2, seeded.order_seed != 1) == (200, True, True)
    with pytest.raises(RequestError) as error:
        for_training(exported(), 0, -1, 1001, hold_out=True)
    assert error.value.sentences == (
        "epochs: from 1 to 10,000, given 0",
        "seed: from 0 to 4,294,967,295, given -1",
        "train-size: from 64 to 1,000, given 1,001",
    )


def test_a_folder_of_another_run_is_refused_and_ones_own_is_done(tmp_path: Path) -> None:
    run, asked = tmp_path / "x", for_training(exported(), 2, None, None, hold_out=True)
    metrics = train_in(run, asked)
    before = {path.name: path.stat().st_mtime_ns for path in run.iterdir() if path.name != ".lock"}
    assert train_in(run, asked) == metrics  # finished: nothing is trained, the test set stays closed
    assert {path.name: path.stat().st_mtime_ns for path in run.iterdir() if path.name != ".lock"} == before
    origin = asked.origin.model_copy(update={"searched": 0.9})
    assert train_in(run, asked.model_copy(update={"origin": origin})) == metrics  # exported again
    for damaged in ("[]", "", '{"test_accuracy": 0.9}'):
        (run / "metrics.json").write_text(damaged)
        with pytest.raises(RequestError, match=r"metrics\.json' is damaged"):
            train_in(run, asked)
    for epochs in (1, 3):
        with pytest.raises(
            RequestError, match=f"holds another run:\n  epochs: stored 2, given {epochs}\n.* with it$"
        ):
            train_in(run, for_training(exported(), epochs, None, None, hold_out=True))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("mine")
    with pytest.raises(RequestError, match="is there already and is no run folder"):
        train_in(tmp_path / "other", asked)
    with pytest.raises(RequestError, match="is there already and is no run folder"):
        train_in(tmp_path / "other" / "mine.txt", asked)
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["mine.txt"]


def test_of_a_run_without_an_epoch_it_is_said_that_it_can_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, asked = tmp_path / "x", for_training(exported(), 5, None, None, hold_out=True)
    monkeypatch.setattr(Fit, "epochs", lambda fit, stepped: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        train_in(run, asked)
    with pytest.raises(RequestError, match="of which no epoch was finished:\n(.|\n)*; or delete the folder$"):
        train_in(run, for_training(exported(), 1, None, None, hold_out=True))
    assert read_config_file(run / "config.toml") == asked
    (run / "mine.txt").touch()
    with pytest.raises(RequestError, match="holds another run:\n(.|\n)* with it$"):
        train_in(run, for_training(exported(), 1, None, None, hold_out=True))


def test_a_run_does_not_go_on_with_other_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = write_idx(tmp_path)
    path = raw / "train-images-idx3-ubyte"
    first = path.read_bytes()
    asked = for_training(exported(dataset="fashion-mnist"), 2, None, 64, hold_out=True)
    save = Fit.save

    def stop_after_saving(fit: Fit, path: Path, data_hash: str) -> None:
        save(fit, path, data_hash)
        raise KeyboardInterrupt

    monkeypatch.setattr(Fit, "save", stop_after_saving)
    with pytest.raises(KeyboardInterrupt):
        train_in(tmp_path / "x", asked, tmp_path)
    monkeypatch.undo()
    path.write_bytes(first[:-1] + bytes([first[-1] ^ 1]))
    said = r"the fashion-mnist images differ from .*:\n  SHA-256: stored (\w{64}), given (?!\1)\w{64}\n"
    with pytest.raises(RequestError, match=said):
        train_in(tmp_path / "x", asked, tmp_path)
    path.write_bytes(first)
    assert train_in(tmp_path / "x", asked, tmp_path)["epochs"] == 2


def test_ctrl_c_stops_and_says_how_to_go_on(
    command_line: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = 0  # epochs that are saved
    save = Fit.save

    def interrupt(fit: Fit, path: Path, data_hash: str) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        save(fit, path, data_hash)

    write_config_file(exported(), tmp_path / "best.toml", force=False)
    monkeypatch.setattr(Fit, "save", interrupt)
    said = []
    for epochs in (0, 1):
        left = epochs
        stopped = command_line("train", "best.toml", "--device", "cpu")
        assert stopped.code == 130
        said.append(stopped.out.splitlines()[-1])
    assert said == [
        "stopped; the same command begins again: no epoch was done",
        "stopped; the same command goes on from the last epoch",
    ]


HOLD = """
import sys
from filelock import FileLock
with FileLock(sys.argv[1]):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_two_processes_do_not_train_in_one_folder(tmp_path: Path) -> None:
    """Who comes second to a folder in which nothing is written yet writes nothing."""
    asked = for_training(exported(), 2, None, None, hold_out=True)
    run = tmp_path / "x"
    run.mkdir()
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run / ".lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"locked\n"
        with pytest.raises(RequestError, match="another process is training in"), open_run(run, asked):
            pass
        assert [path.name for path in run.iterdir()] == [".lock"]
        holder.communicate()
    with open_run(run, asked):
        assert read_config_file(run / "config.toml") == asked


@pytest.mark.parametrize("content", [b"", b"half a checkpoint", b"\x80\x02cos\nsystem\n."])
def test_a_checkpoint_that_is_none_is_refused_and_never_executed(
    digits: Data, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(content)
    with pytest.raises(RequestError, match=r"the checkpoint '.*checkpoint\.pt' cannot be read"):
        Fit(make_config(), digits, CPU).restore(tmp_path / "checkpoint.pt", "hash")


def test_a_checkpoint_of_something_else_is_refused(digits: Data, tmp_path: Path) -> None:
    for content in ([1], torch.zeros(2)):
        torch.save(content, tmp_path / "checkpoint.pt")
        with pytest.raises(RequestError, match="cannot be read .it holds no run"):
            Fit(make_config(), digits, CPU).restore(tmp_path / "checkpoint.pt", "hash")


def test_a_checkpoint_of_another_network_is_refused(digits: Data, tmp_path: Path) -> None:
    Fit(make_config(), digits, CPU).save(tmp_path / "checkpoint.pt", "hash")
    with pytest.raises(RequestError, match="cannot be read"):
        Fit(make_config(width=16), digits, CPU).restore(tmp_path / "checkpoint.pt", "hash")


def test_a_checkpoint_without_a_moment_is_refused(digits: Data, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    Fit(make_config(), digits, CPU).save(path, "hash")
    state = torch.load(path)
    del state["optimizer"]["state"][0]["exp_avg"]
    torch.save(state, path)
    with pytest.raises(RequestError, match="its optimizer lacks a moment"):
        Fit(make_config(), digits, CPU).restore(path, "hash")


def test_a_run_that_diverges_says_so(digits: Data) -> None:
    broken = Data(
        torch.full_like(digits.train_images, float("nan")),
        digits.train_labels,
        digits.val_images,
        digits.val_labels,
    )
    with pytest.raises(StudyFailedError, match="no longer a number in epoch 1; lower lr, which is 0.001"):
        list(Fit(make_config(), broken, CPU).epochs(lambda steps: None))


@pytest.mark.parametrize("norm", ["none", "before", "after"])
@pytest.mark.parametrize("activation", [*ACTIVATIONS, "learnable"])
@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_a_model_in_torchs_own_layers_is_the_same_function(model: str, activation: str, norm: str) -> None:
    changes = {"slope_mode": "learnable"} if activation == "learnable" else {"activation": activation}
    ours = build_model(make_config(model=model, norm=norm, depth=2 if model == "mlp" else None, **changes))
    x = torch.randn(8, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    for _ in range(3):
        ours(x)  # moves BatchNorm's statistics
    plain = as_torch(ours)
    assert {type(layer).__module__.partition(".")[0] for layer in plain} == {"torch"}
    built = eval(as_code(plain), {"nn": torch.nn, "OrderedDict": __import__("collections").OrderedDict})
    built.load_state_dict(plain.state_dict())
    assert torch.allclose(built.eval()(x), ours.eval()(x), rtol=1e-4, atol=1e-5)


def write_digit(path: Path, digits: Data, index: int) -> int:
    """A validation image as an image file; its label."""
    pixels = (digits.val_images[index, 0] * 0.3247 + 0.305) * 255
    Image.fromarray(pixels.round().clamp(0, 255).to(torch.uint8).numpy()).save(path)
    return int(digits.val_labels[index])


def test_the_readmes_lines_run_with_torch_alone(digits: Data, tmp_path: Path) -> None:
    run = tmp_path / "x"
    train_in(run, for_training(exported(slope_mode="learnable", norm="before"), 3, None, None, hold_out=True))
    write_digit(run / "digit.png", digits, 0)
    (block,) = re.findall(r"```python\n(.*?)```", (run / "README.md").read_text(), re.DOTALL)
    assert "slopesearch" not in block
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys\nsys.modules['numpy'] = None\n{block}"],
        cwd=run,
        capture_output=True,
        text=True,
        check=True,
    )
    (ours,) = predict_images(run, [run / "digit.png"])
    assert int(done.stdout) == ours.digit


def test_kill_9_in_the_middle_and_the_same_command_gives_the_same_weights(
    command_line: InProcess, tmp_path: Path
) -> None:
    write_config_file(exported(norm="before", slope_mode="learnable"), tmp_path / "best.toml", force=False)
    arguments = ("train", "best.toml", "--epochs", "60", "--device", "cpu", "-o")
    command = [sys.executable, "-u", "-m", "slopesearch", *arguments, "killed"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    next(line for line in process.stdout if line.startswith("[7/60]"))
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not (tmp_path / "killed" / "metrics.json").exists()

    again, whole = command_line(*arguments, "killed"), command_line(*arguments, "whole")
    assert (again.code, whole.code) == (0, 0), again.err + whole.err
    assert "test accuracy 0." in whole.out
    first, second = (load_file(tmp_path / run / "weights.safetensors") for run in ("whole", "killed"))
    assert all(torch.equal(first[name], second[name]) for name in first)

    def lines(text: str) -> list[str]:
        return [line.rpartition("  ")[0] for line in text.splitlines() if line.startswith("[")]

    assert len(lines(whole.out)) == 60
    assert lines(again.out) == lines(whole.out)
    assert whole.out.endswith("Next:\n  to try it  python -m slopesearch predict whole IMAGE\n")
    stored = command_line(*arguments, "whole")
    assert "it was trained and tested before, which is stored" in stored.out
    assert lines(stored.out) == []
    assert stored.out.partition("test accuracy")[2] == whole.out.partition("test accuracy")[2]
