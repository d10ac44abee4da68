"""What runs on the nodes of a Ray cluster: a worker as an actor, around the same `begin` and `advance`."""

import logging
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

import slopesearch
from slopesearch.config import Noun, Precision, TrialConfig
from slopesearch.search.messages import Failed, FromWorker, Reported, Said
from slopesearch.search.worker import advance, begin
from slopesearch.training.data import files_of, is_there, keep_files, whole_hash
from slopesearch.training.devices import multiplies_bf16, prepare
from slopesearch.training.engine import Run
from slopesearch.training.parity import why_no_packs
from slopesearch.wording import RequestError


class Introduction(Noun):
    """What a worker says of itself when it starts; `memory` is its share of a GPU's, in bytes.

    A worker that lacks the images is to be asked again with them, and says no more before.
    """

    host: str
    device: str
    multiplies_bf16: bool
    versions: dict[str, str]
    memory: int = 0
    no_packs: str | None = None  # why packs cannot be trusted on its card
    lacks_images: bool = False
    no_images: str | None = None  # why it cannot have them


@dataclass(frozen=True)
class Images:
    """The images that a study uses: where they are on the driver's machine, and their `whole_hash`."""

    dataset: str
    folder: Path
    hash: str

    def files(self) -> dict[str, bytes]:
        """The files of the data set, for a node that lacks them."""
        return files_of(self.dataset, self.folder)


def versions() -> dict[str, str]:
    """Of what has to be the same everywhere; torch's without the kind of build."""
    return {"slopesearch": slopesearch.__version__, "torch": torch.__version__.partition("+")[0]}


def introduce(host: str) -> Introduction:
    """What can be said of a node without a GPU of it."""
    return Introduction(host=host, device="cpu", multiplies_bf16=multiplies_bf16(), versions=versions())


class RayWorker:
    """Trains as a worker process does; each call answers with what the worker has to say.

    Ray ends it with its driver, since it is not detached.
    """

    def __init__(self, host: str, kind: str) -> None:
        self._host = host
        self._device = torch.device("cuda:0" if kind == "cuda" else "cpu")  # Ray shows it one GPU
        prepare(self._device)
        self._run: Run | None = None
        self._folder: Path | None = None  # that holds the images
        self._said: list[Said] = []
        logger = logging.getLogger("slopesearch")
        logger.setLevel(logging.INFO)
        logger.addHandler(_Sayer(self._said))

    def introduce(
        self, precision: Precision, packs: bool, sharing: int, images: Images, parcel: Sequence[Any]
    ) -> Introduction:
        """What the worker is, and whether it has the images; where packs are wanted of a GPU, it tries that.

        `parcel` holds at most one reference to the files of the data set in Ray's object store.
        """
        said = introduce(self._host)
        try:
            self._folder = _folder_with(images, parcel)
        except (RequestError, OSError) as error:
            return said.model_copy(update={"no_images": self._why_no(images, error)})
        if self._folder is None:
            return said.model_copy(update={"lacks_images": True})
        if self._device.type == "cpu":
            return said
        card = os.environ.get("CUDA_VISIBLE_DEVICES", "0")
        return said.model_copy(
            update={
                "device": f"cuda:{card}",
                "multiplies_bf16": torch.cuda.is_bf16_supported(including_emulation=False),
                "memory": torch.cuda.get_device_properties(self._device).total_memory // sharing,
                "no_packs": why_no_packs(str(self._device), precision) if packs else None,
            }
        )

    def start(self, configs: Sequence[TrialConfig]) -> tuple[FromWorker, ...]:
        """Train to the first report, on the images that the worker had when it introduced itself."""
        if self._folder is None:
            return self._say(Failed(reason=f"the images of the study are no longer on {self._host}"))
        self._run = begin(configs, self._folder, self._device)
        return self._say(advance(partial(next, self._run)))

    def answer(self, stop: Sequence[int]) -> tuple[FromWorker, ...]:
        """Train to the next report, without the members to stop."""
        assert self._run is not None
        return self._say(advance(partial(self._run.send, stop)))

    def give_up(self) -> tuple[FromWorker, ...]:
        """What comes of a call that may not have arrived, if the worker can be reached again."""
        return self._say(Failed(reason=f"the connection to the worker on {self._host} was lost for a while"))

    def _say(self, message: FromWorker) -> tuple[FromWorker, ...]:
        if not isinstance(message, Reported):
            self._run = None
        said = (*self._said, message)
        self._said.clear()
        return said

    def _why_no(self, images: Images, error: RequestError | OSError) -> str:
        if isinstance(error, RequestError):
            return f"{error} (on {self._host})"
        return (
            f"the images of {images.dataset} cannot be kept on {self._host} ({error.strerror}: "
            f"'{copy_of(images).parent}'); name a folder there that holds them in SLOPESEARCH_DATA"
        )


def _folder_with(images: Images, parcel: Sequence[Any]) -> Path | None:
    """A folder with the very images of the study: of the driver's name, the node's own, or a copy.

    None where there is none and nothing came in the parcel, which is unpacked once on a node, and again where
    the system has cleared a part of the copy.
    """
    own = os.environ.get("SLOPESEARCH_DATA")
    copy = copy_of(images)
    for folder in (images.folder, *([Path(own)] if own else []), copy):
        if _holds(folder, images):
            return folder
    if not parcel:
        return None
    import ray

    copy.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with FileLock(f"{copy}.lock"):
        if not _holds(copy, images) and (files := ray.get(parcel[0])):
            keep_files(files, images.dataset, copy)
    if not _holds(copy, images):
        raise RequestError(
            f"the images of {images.dataset} are read as others there than here; install the same "
            "scikit-learn and torchvision there"
        )
    return copy


def copy_of(images: Images) -> Path:
    """The folder of a node for a copy of the images, for every worker there, until the system clears it."""
    return Path(tempfile.gettempdir(), f"slopesearch-{os.getuid()}", images.hash[:16])


def _holds(folder: Path, images: Images) -> bool:
    try:
        return is_there(images.dataset, folder) and whole_hash(images.dataset, folder) == images.hash
    except (RequestError, OSError):  # damaged, or another's
        return False


class _Sayer(logging.Handler):
    """Keeps what is logged for the next answer."""

    def __init__(self, said: list[Said]) -> None:
        super().__init__()
        self._said = said

    def emit(self, record: logging.LogRecord) -> None:
        self._said.append(Said(text=record.getMessage()))
