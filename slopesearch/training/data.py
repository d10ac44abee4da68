"""Data sets by name: found or downloaded, checked, split once, held as tensors on one device."""

import hashlib
import re
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from math import prod
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from slopesearch.config import EvaluatedOn, TrialConfig
from slopesearch.seeds import derive
from slopesearch.wording import RequestError

SIDE = 28  # pixels, both ways
CONNECT_TIMEOUT = 5  # s without an answer before a mirror is given up
DOWNLOAD_TIMEOUT = 120  # s for the four files, about 11 MB, in all

_FILES = {  # name: images or labels in it, as torchvision lays them out
    "train-images-idx3-ubyte": 60_000,
    "train-labels-idx1-ubyte": 60_000,
    "t10k-images-idx3-ubyte": 10_000,
    "t10k-labels-idx1-ubyte": 10_000,
}

_IMAGES_HEADER, _LABELS_HEADER = 16, 8  # bytes before the first image, the first label; see `check_files`

_MNIST_SHA256 = {  # of the published files, uncompressed
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


@dataclass(frozen=True)
class DataSet:
    """A data set: how to read it, how it is split, and the budget that suits it.

    `read(folder, test)` gives images (N, 28, 28) uint8 and labels (N,) int64: those that training and
    validation share, or the test set. The last `val_max` of the stratified permutation of the former are for
    validation. `mean` and `std` are those of the training pixels, scaled to [0, 1].
    """

    read: Callable[[Path, bool], tuple[Tensor, Tensor]]
    train_max: int
    val_max: int
    mean: float
    std: float
    epochs: int
    train_size: int
    val_size: int
    folder: str | None = None  # of its files in the data folder; None: it needs none


@dataclass(frozen=True)
class Data:
    """A data set on its device: images (N, 1, 28, 28) float32, normalised; labels (N,) int64."""

    train_images: Tensor
    train_labels: Tensor
    val_images: Tensor
    val_labels: Tensor
    classes: int = 10

    def to(self, device: torch.device) -> "Data":
        """The same data on another device."""
        return Data(
            self.train_images.to(device),
            self.train_labels.to(device),
            self.val_images.to(device),
            self.val_labels.to(device),
            self.classes,
        )


def _mnist_like(class_name: str) -> Callable[[Path, bool], tuple[Tensor, Tensor]]:
    def read(folder: Path, test: bool) -> tuple[Tensor, Tensor]:
        # torchvision reads the same files, and takes 160 MB and a second in every process to be imported.
        raw = folder / class_name / "raw"
        check_files(raw, _MNIST_SHA256 if class_name == "MNIST" else {})
        part = "t10k" if test else "train"
        images = np.fromfile(raw / f"{part}-images-idx3-ubyte", np.uint8, offset=_IMAGES_HEADER)
        labels = np.fromfile(raw / f"{part}-labels-idx1-ubyte", np.uint8, offset=_LABELS_HEADER)
        return torch.from_numpy(images).view(-1, SIDE, SIDE), torch.from_numpy(labels).long()

    return read


def _digits(folder: Path, test: bool) -> tuple[Tensor, Tensor]:
    """scikit-learn's 1,797 handwritten digits, 8x8, resized to 28x28; the last 400 are the test set."""
    # `load_digits` reads the same file, and takes 2 s in every process to be imported.
    spec = find_spec("sklearn")
    package = Path(spec.origin if spec and spec.origin else "/nowhere").parent
    file = package / "datasets" / "data" / "digits.csv.gz"
    if file.is_file():
        rows = np.loadtxt(file, delimiter=",")
    else:
        from sklearn.datasets import load_digits

        rows = np.column_stack(load_digits(return_X_y=True))
    pixels, labels = rows[:, :-1].reshape(-1, 1, 8, 8), rows[:, -1].astype(np.int64)
    small = torch.from_numpy(pixels).float() / 16
    images = F.interpolate(small, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
    # Fixed, not seeded by the study: the test set is the same for every study.
    order = torch.from_numpy(stratified_permutation(labels, seed=0))
    order = order[1397:] if test else order[:1397]
    return (images[order, 0] * 255).round().to(torch.uint8), torch.from_numpy(labels)[order]


def _mnist_entry(class_name: str, mean: float, std: float) -> DataSet:
    budget = {"epochs": 3, "train_size": 10_000, "val_size": 5_000}
    read = _mnist_like(class_name)
    return DataSet(read, 50_000, 10_000, mean, std, folder=class_name, **budget)


DATASETS: dict[str, DataSet] = {
    "mnist": _mnist_entry("MNIST", 0.1307, 0.3081),
    "fashion-mnist": _mnist_entry("FashionMNIST", 0.2860, 0.3530),
    "kmnist": _mnist_entry("KMNIST", 0.1918, 0.3483),
    "digits": DataSet(_digits, 1000, 397, 0.3050, 0.3247, epochs=12, train_size=1000, val_size=397),
}


def stratified_permutation(labels: np.ndarray, seed: int) -> np.ndarray:
    """A permutation of range(len(labels)) in which every stretch holds the classes in about equal shares.

    Each class is shuffled by itself and spread evenly over [0, 1); the merged order is the permutation.
    """
    position = np.empty(len(labels))
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        generator = np.random.default_rng(derive(seed, "split", int(label)))
        position[generator.permutation(members)] = (np.arange(len(members)) + generator.random()) / len(
            members
        )
    return np.argsort(position, kind="stable")


def load(
    name: str,
    folder: Path,
    split_seed: int,
    train_size: int,
    val_size: int,
    evaluated_on: EvaluatedOn = "validation",
) -> Data:
    """The training and validation images of a data set, normalised, on the CPU.

    Evaluated on "rest", the held-out images that `val_size` leaves stand in the place of the validation
    images; on "test", the test set does. Raises RequestError where the folder lacks the data set, or a file
    of it is damaged.
    """
    entry = DATASETS[name]
    images, labels = _read(entry, name, folder)
    order = torch.from_numpy(stratified_permutation(labels.numpy(), split_seed))
    train, kept = order[:train_size], order[len(order) - entry.val_max :]
    val = kept[val_size:] if evaluated_on == "rest" else kept[:val_size]
    held_out = _normalised(images[val], entry), labels[val]
    if evaluated_on == "test":
        held_out = load_test(name, folder)
    return Data(_normalised(images[train], entry), labels[train], *held_out)


def load_for(config: TrialConfig, folder: Path) -> Data:
    """What a config trains on and is evaluated on; see `load`."""
    sizes = config.train_size, config.val_size
    return load(config.dataset, folder, config.split_seed, *sizes, config.evaluated_on)


def load_test(name: str, folder: Path) -> tuple[Tensor, Tensor]:
    """The test images (N, 1, 28, 28), normalised, and labels (N,), on the CPU; for the verdict alone.

    Raises RequestError as `load` does.
    """
    images, labels = _read(DATASETS[name], name, folder, test=True)
    return _normalised(images, DATASETS[name]), labels


def _normalised(images: Tensor, entry: DataSet) -> Tensor:
    return ((images.float() / 255 - entry.mean) / entry.std)[:, None]


def content_hash(name: str, folder: Path) -> str:
    """A SHA-256 over every image and label that `load` may use, for the study's fingerprint."""
    images, labels = _read(DATASETS[name], name, folder)
    return hashlib.sha256(images.numpy().tobytes() + labels.numpy().tobytes()).hexdigest()


def whole_hash(name: str, folder: Path) -> str:
    """A SHA-256 over every image and label of a data set, with those of the test set."""
    sets = (_read(DATASETS[name], name, folder, test) for test in (False, True))
    return hashlib.sha256(b"".join(part.numpy().tobytes() for one in sets for part in one)).hexdigest()


def _read(entry: DataSet, name: str, folder: Path, test: bool = False) -> tuple[Tensor, Tensor]:
    if entry.folder and not is_there(name, folder):
        raise RequestError(
            f"the data folder '{folder}' holds no {name}: '{folder / entry.folder / 'raw'}' lacks "
            f"{_missing(entry, folder)[0]}; name another folder with --data or SLOPESEARCH_DATA, "
            "or use the bundled digits with --dataset digits"
        )
    return entry.read(folder, test)


def _missing(entry: DataSet, folder: Path) -> list[str]:
    raw = folder / str(entry.folder) / "raw"
    return [name for name in _FILES if not (raw / name).is_file()]


def is_there(name: str, folder: Path) -> bool:
    """Whether every file of the data set is in the folder (or none is needed)."""
    return DATASETS[name].folder is None or not _missing(DATASETS[name], folder)


def files_of(name: str, folder: Path) -> dict[str, bytes]:
    """The files of a data set in the data folder, by their names; none of a data set that needs none."""
    own = DATASETS[name].folder
    return {} if own is None else {file: (folder / own / "raw" / file).read_bytes() for file in _FILES}


def keep_files(files: Mapping[str, bytes], name: str, folder: Path) -> None:
    """Make a data folder of the files of a data set, whole, in the place of what is there."""
    folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(dir=folder.parent) as aside:
        raw = Path(aside, "new", str(DATASETS[name].folder), "raw")
        raw.mkdir(parents=True)
        for file, content in files.items():
            (raw / file).write_bytes(content)
        if folder.exists():
            folder.rename(Path(aside, "old"))
        Path(aside, "new").rename(folder)


def check_files(raw: Path, sha256: Mapping[str, str]) -> None:
    """Raise RequestError, naming the file, unless all four IDX files are whole.

    The format: two zero bytes, the type (8: unsigned byte), the number of dimensions, then each dimension
    as a big-endian 32-bit integer, then the bytes. Where a hash is known, every byte is checked.
    """
    for name, count in _FILES.items():
        path = raw / name
        shape = (count, SIDE, SIDE) if "images" in name else (count,)
        header = struct.pack(f">BBBB{len(shape)}I", 0, 0, 8, len(shape), *shape)
        expected = len(header) + prod(shape)
        content = path.read_bytes()
        if len(content) != expected:
            fault = f"{len(content):,} bytes where a whole one has {expected:,}"
        elif not content.startswith(header):
            fault = f"its header is {content[: len(header)].hex()}, not {header.hex()}"
        elif "images" in name and not any(content[-SIDE * SIDE :]):
            fault = "its last image is blank, as if it had been half written"
        elif "labels" in name and max(content[len(header) :]) > 9:
            fault = f"a label of {max(content[len(header) :])} where the largest is 9"
        elif name in sha256 and hashlib.sha256(content).hexdigest() != sha256[name]:
            fault = "its SHA-256 is not that of the published file"
        else:
            continue
        raise RequestError(
            f"the data file '{path}' is damaged: {fault}; delete the folder '{raw}' and run again to "
            "download it"
        )


def candidates(dataset: str, folder: Path) -> list[str]:
    """What a data set's name may stand for here: "auto" for MNIST, or the digits while MNIST is not there."""
    if dataset != "auto":
        return [dataset]
    return ["mnist"] if is_there("mnist", folder) else ["mnist", "digits"]


def find(dataset: str, folder: Path, note: Callable[[str], None]) -> str:
    """The data set to use: the one that is named, downloaded where it is missing; "auto" is resolved.

    "auto" takes MNIST from the folder, else downloads it, else takes the bundled digits; `note` is told.
    Raises RequestError where a named one can be neither found nor downloaded.
    """
    name = "mnist" if dataset == "auto" else dataset
    if is_there(name, folder):
        return name
    entry = DATASETS[name]
    if (folder / str(entry.folder)).exists():
        raise RequestError(
            f"the data folder '{folder / str(entry.folder)}' is incomplete: raw/{_missing(entry, folder)[0]} "
            "is missing; delete that folder and run again to download it"
        )
    note(f"downloading {name} into '{folder}'")
    failure = _download(name, folder)
    if failure is None:
        return name
    if dataset == "auto":
        note(
            f"no MNIST in '{folder}' and no download ({failure}): using scikit-learn's bundled digits; "
            "for MNIST name its folder with --data or SLOPESEARCH_DATA"
        )
        return "digits"
    raise RequestError(
        f"the data folder '{folder}' holds no {name}, and it could not be downloaded ({failure}); name a "
        "folder that holds it with --data or SLOPESEARCH_DATA, or use the bundled digits with "
        "--dataset digits"
    )


def _in_plain_words(errors: str) -> str:
    """The reason at the end of a traceback, without the names of classes and numbers around it."""
    last = (errors.strip() or "no reason given").splitlines()[-1]
    inner = re.search(r"<urlopen error (?:\[[^]]*\] )?(.*)>$", last)
    return inner[1] if inner else re.sub(r"^[\w.]+: ", "", last)


def _download(name: str, folder: Path) -> str | None:
    """Download through torchvision into a new folder and move it into place; the reason where it failed."""
    class_name = str(DATASETS[name].folder)
    program = (
        "import socket, sys; from torchvision import datasets; "
        f"socket.setdefaulttimeout({CONNECT_TIMEOUT}); "
        "getattr(datasets, sys.argv[1])(sys.argv[2], download=True)"
    )
    try:
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".download-") as aside:
            # Another process, because urllib has no limit for a whole download and a process can be ended.
            done = subprocess.run(
                [sys.executable, "-c", program, class_name, aside],
                capture_output=True,
                text=True,
                timeout=DOWNLOAD_TIMEOUT,
            )
            if done.returncode != 0:
                return _in_plain_words(done.stderr)
            check_files(Path(aside, class_name, "raw"), {})
            folder.mkdir(exist_ok=True)
            Path(aside, class_name).rename(folder / class_name)
    except subprocess.TimeoutExpired:
        return f"not done after {DOWNLOAD_TIMEOUT} s"
    except RequestError:
        return "what came was damaged"
    except OSError as error:
        # Another process may have been faster.
        return None if is_there(name, folder) else str(error)
    return None
