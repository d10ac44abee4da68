"""Splits, the bundled digits, real MNIST, and files that are missing or damaged."""

import os
import struct
import subprocess
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torchvision import datasets

from slopesearch.training import data
from slopesearch.training.data import DATASETS, content_hash, find, is_there, load, stratified_permutation
from slopesearch.wording import RequestError


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every download process fails at once; the list holds what was started."""
    started: list[Any] = []

    def fail(command: list[str], **settings: Any) -> subprocess.CompletedProcess[str]:
        started.append((command, settings))
        return subprocess.CompletedProcess(command, 1, "", "Traceback\n  a line\nURLError: no route to host")

    monkeypatch.setattr(subprocess, "run", fail)
    return started


def write_idx(folder: Path, class_name: str = "FashionMNIST") -> Path:
    """Four whole IDX files of the right shape, every image and label zero but for a few."""
    raw = folder / class_name / "raw"
    raw.mkdir(parents=True)
    for part, count in (("train", 60_000), ("t10k", 10_000)):
        images = np.zeros((count, 28, 28), np.uint8)
        images[:, 3, 4] = 1 + np.arange(count) % 255
        header = struct.pack(">BBBB3I", 0, 0, 8, 3, count, 28, 28)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        labels = (np.arange(count) % 10).astype(np.uint8)
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(
            struct.pack(">BBBBI", 0, 0, 8, 1, count) + labels.tobytes()
        )
    return raw


def test_every_stretch_of_a_stratified_permutation_holds_the_classes_in_equal_shares() -> None:
    labels = np.repeat(np.arange(10), 500)
    order = stratified_permutation(labels, seed=0)
    assert sorted(order) == list(range(5000))
    for start in (0, 1234, 4000):
        counts = np.bincount(labels[order[start : start + 1000]], minlength=10)
        assert counts.min() >= 99
        assert counts.max() <= 101
    assert np.array_equal(order, stratified_permutation(labels, seed=0))
    assert not np.array_equal(order, stratified_permutation(labels, seed=1))


def test_smaller_sizes_are_prefixes_of_larger_ones() -> None:
    small, large = (load("digits", Path("unused"), 0, train, val) for train, val in ((100, 50), (1000, 397)))
    assert torch.equal(small.train_images, large.train_images[:100])
    assert torch.equal(small.val_labels, large.val_labels[:50])


def test_the_rest_are_the_held_out_images_that_validation_leaves() -> None:
    whole, first = (load("digits", Path("unused"), 0, 100, size) for size in (397, 198))
    rest = load("digits", Path("unused"), 0, 100, 198, "rest")
    assert torch.equal(torch.cat([first.val_images, rest.val_images]), whole.val_images)
    assert torch.equal(torch.cat([first.val_labels, rest.val_labels]), whole.val_labels)
    assert rest.val_labels.bincount().min() >= 15  # the split is stratified
    assert torch.equal(rest.train_images, whole.train_images)


@pytest.mark.parametrize("spec", [find_spec("sklearn"), ModuleSpec("sklearn", None, origin="/x/y.py"), None])
def test_the_digits_are_those_of_scikit_learn(
    spec: ModuleSpec | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sklearn.datasets import load_digits

    theirs = load_digits()
    small = torch.from_numpy(theirs.images).float()[:, None] / 16
    large = (F.interpolate(small, size=(28, 28), mode="bilinear")[:, 0] * 255).round().byte()
    order = torch.from_numpy(stratified_permutation(theirs.target, seed=0))
    monkeypatch.setattr(data, "find_spec", lambda name: spec)
    images, labels = (
        torch.cat(parts) for parts in zip(*(_read(test) for test in (False, True)), strict=True)
    )
    assert torch.equal(images, large[order])
    assert torch.equal(labels, torch.from_numpy(theirs.target)[order])


def _read(test: bool) -> tuple[torch.Tensor, torch.Tensor]:
    return DATASETS["digits"].read(Path("unused"), test)


def test_digits_splits_are_disjoint_and_normalised() -> None:
    digits = load("digits", Path("unused"), 3, 1000, 397)
    train = {image.numpy().tobytes() for image in digits.train_images}
    val = {image.numpy().tobytes() for image in digits.val_images}
    assert len(train & val) <= 2  # twins among the 1,797 originals
    assert digits.classes == len(set(digits.train_labels.tolist())) == 10
    assert digits.train_images.shape == (1000, 1, 28, 28)
    # The mean and std are those of the split seed 0.
    assert digits.train_images.mean().item() == pytest.approx(0, abs=0.02)
    assert digits.train_images.std().item() == pytest.approx(1, abs=0.02)
    ends = (0 - 0.3050) / 0.3247, (1 - 0.3050) / 0.3247
    assert (digits.train_images.min().item(), digits.train_images.max().item()) == pytest.approx(ends)


def test_mnist_is_split_and_normalised(mnist_folder: Path) -> None:
    mnist = load("mnist", mnist_folder, 0, 50_000, 10_000)
    assert mnist.train_images.shape == (50_000, 1, 28, 28)
    assert mnist.val_images.shape == (10_000, 1, 28, 28)
    assert mnist.train_images.mean().item() == pytest.approx(0, abs=0.01)
    assert mnist.train_images.std().item() == pytest.approx(1, abs=0.01)
    assert mnist.val_labels.bincount().min() > 850


def test_fashion_mnist_is_read_by_name(tmp_path: Path) -> None:
    write_idx(tmp_path)
    fashion = load("fashion-mnist", tmp_path, 0, 100, 100)
    assert fashion.train_images.shape == (100, 1, 28, 28)
    assert fashion.train_labels.bincount(minlength=10).tolist() == [10] * 10


def test_content_hash_tells_data_apart_by_content(tmp_path: Path) -> None:
    raw = write_idx(tmp_path)
    before = content_hash("fashion-mnist", tmp_path)
    path = raw / "train-images-idx3-ubyte"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert content_hash("fashion-mnist", tmp_path) != before


@pytest.mark.parametrize(
    ("name", "damage", "fault"),
    [
        ("train-images-idx3-ubyte", lambda content: content[: len(content) // 2], "bytes where a whole one"),
        ("t10k-labels-idx1-ubyte", lambda content: b"", "0 bytes"),
        ("train-images-idx3-ubyte", lambda content: b"\x1f\x8b" + content[2:], "header is 1f8b"),
        ("train-labels-idx1-ubyte", lambda content: content[:-1] + b"\x0a", "a label of 10"),
        ("t10k-images-idx3-ubyte", lambda content: content[:-784] + bytes(784), "its last image is blank"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, name: str, damage: Any, fault: str) -> None:
    raw = write_idx(tmp_path)
    (raw / name).write_bytes(damage((raw / name).read_bytes()))
    with pytest.raises(RequestError, match=name) as error:
        load("fashion-mnist", tmp_path, 0, 100, 100)
    assert fault in str(error.value)
    assert "delete" in str(error.value)


def test_an_mnist_of_the_right_size_and_wrong_content_is_refused(tmp_path: Path) -> None:
    write_idx(tmp_path, "MNIST")
    with pytest.raises(RequestError, match="train-images-idx3-ubyte' is damaged: its SHA-256"):
        load("mnist", tmp_path, 0, 100, 100)


def test_half_a_download_is_an_error_even_for_auto(tmp_path: Path, no_network: list[Any]) -> None:
    raw = write_idx(tmp_path, "MNIST")
    (raw / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(RequestError, match="raw/t10k-labels-idx1-ubyte is missing"):
        find("auto", tmp_path, pytest.fail)
    assert no_network == []


def test_auto_takes_mnist_from_the_folder(mnist_folder: Path) -> None:
    assert find("auto", mnist_folder, pytest.fail) == "mnist"


def test_auto_without_network_warns_once_and_takes_digits(tmp_path: Path, no_network: list[Any]) -> None:
    warnings: list[str] = []
    assert find("auto", tmp_path / "data", warnings.append) == "digits"
    assert len(warnings) == 2
    assert warnings[0].startswith("downloading mnist into")
    assert "no route to host" in warnings[1]
    ((command, settings),) = no_network
    assert "socket.setdefaulttimeout(5)" in command[2]
    assert settings["timeout"] <= 120
    assert list(tmp_path.iterdir()) == []  # nothing half-made


@pytest.mark.parametrize(
    ("last", "reason"),
    [
        (
            "urllib.error.URLError: <urlopen error [Errno -3] Temporary failure in name resolution>",
            "Temporary ",
        ),
        ("urllib.error.URLError: <urlopen error timed out>", "timed out"),
        ("RuntimeError: Error downloading train-images-idx3-ubyte.gz", "Error downloading train-images"),
        ("urllib.error.HTTPError: HTTP Error 404: Not Found", "HTTP Error 404: Not Found"),
        ("", "no reason given"),
    ],
)
def test_the_reason_of_a_failed_download_is_told_in_plain_words(
    last: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = subprocess.CompletedProcess([], 1, "", f"{last}\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    warnings: list[str] = []
    find("auto", tmp_path / "data", warnings.append)
    assert f"and no download ({reason}" in warnings[1]


def test_a_named_data_set_that_cannot_be_had_is_an_error(tmp_path: Path, no_network: list[Any]) -> None:
    with pytest.raises(RequestError, match="holds no kmnist.*no route to host.*--dataset digits"):
        find("kmnist", tmp_path, print)
    with pytest.raises(RequestError, match="lacks train-images-idx3-ubyte"):
        load("kmnist", tmp_path, 0, 10, 10)


def test_a_download_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "DOWNLOAD_TIMEOUT", 0.01)
    warnings: list[str] = []
    assert find("auto", tmp_path / "data", warnings.append) == "digits"
    assert "not done after 0.01 s" in warnings[1]
    assert list(tmp_path.iterdir()) == []


def test_a_download_is_checked_and_moved_into_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(command: list[str], **settings: Any) -> subprocess.CompletedProcess[str]:
        write_idx(Path(command[4]), command[3])
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", download)
    assert find("fashion-mnist", tmp_path / "data", print) == "fashion-mnist"
    assert is_there("fashion-mnist", tmp_path / "data")
    assert find("kmnist", tmp_path / "data", print) == "kmnist"  # beside the other
    assert is_there("fashion-mnist", tmp_path / "data")
    assert os.listdir(tmp_path) == ["data"]  # noqa: PTH208


@pytest.mark.parametrize("name", DATASETS)
def test_default_budgets_fit_their_data_set(name: str) -> None:
    entry = DATASETS[name]
    assert entry.train_size <= entry.train_max
    assert entry.val_size <= entry.val_max


def test_default_budgets_are_those_of_the_docs() -> None:
    page = " ".join((Path(__file__).parent.parent / "docs" / "studies.md").read_text().split())
    mnist, digits = DATASETS["mnist"], DATASETS["digits"]
    for words in (
        f"{mnist.epochs} epochs of {mnist.train_size:,} images with",
        f"at the end on all {mnist.val_size:,}. On digits",
        f"it takes {digits.epochs} epochs of {digits.train_size:,} images and validates on all "
        f"{digits.val_size}.",
    ):
        assert words in page


@pytest.mark.parametrize("test", [False, True])
def test_the_files_are_read_as_torchvision_reads_them(tmp_path: Path, test: bool) -> None:
    write_idx(tmp_path)
    theirs = datasets.FashionMNIST(tmp_path, train=not test, download=False)
    images, labels = DATASETS["fashion-mnist"].read(tmp_path, test)
    assert (images.dtype, labels.dtype) == (theirs.data.dtype, theirs.targets.dtype)
    assert torch.equal(images, theirs.data)
    assert torch.equal(labels, theirs.targets)


def test_a_download_that_another_process_was_faster_with_is_taken_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(command: list[str], **settings: Any) -> subprocess.CompletedProcess[str]:
        write_idx(Path(command[4]), command[3])
        theirs = tmp_path / "data" / command[3] / "raw"
        theirs.mkdir(parents=True)
        for name in data._FILES:
            (theirs / name).touch()
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", download)
    assert find("fashion-mnist", tmp_path / "data", print) == "fashion-mnist"


def test_a_download_into_a_folder_that_cannot_be_made_says_why(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="could not be downloaded .*No such file or directory: .*nowhere"):
        find("kmnist", tmp_path / "nowhere" / "data", print)


def test_a_damaged_download_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(command: list[str], **settings: Any) -> subprocess.CompletedProcess[str]:
        raw = write_idx(Path(command[4]), command[3])
        (raw / "t10k-images-idx3-ubyte").write_bytes(b"half")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", download)
    with pytest.raises(RequestError, match="could not be downloaded .what came was damaged"):
        find("fashion-mnist", tmp_path / "data", print)
    assert not is_there("fashion-mnist", tmp_path / "data")
