"""What runs on the nodes of a Ray cluster: a worker as an actor, around the same `begin` and `advance`."""

import logging
import os
import tempfile
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

import slopesearch
from slopesearch.config import Noun, Precision, TrialConfig
from slopesearch.search.messages import Failed, FromWorker, Reported, Said
from slopesearch.search.worker import advance, begin
from slopesearch.training.data import content_hash, files_of, is_there, keep_files
from slopesearch.training.devices import multiplies_bf16, prepare
from slopesearch.training.engine import Run
from slopesearch.training.parity import why_no_packs
from slopesearch.wording import RequestError


class Introduction(Noun):
    """What a worker says of itself when it starts; `memory` is its share of a GPU's, in bytes."""

    host: str
    device: str
    multiplies_bf16: bool
    versions: dict[str, str]
    memory: int = 0
    no_packs: str | None = None  # why packs cannot be trusted on its card


@dataclass(frozen=True)
class Images:
    """The images that a study uses: where they are on the driver's machine, and what they are."""

    dataset: str
    folder: Path
    content_hash: str

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
        self._folders: dict[str, Path] = {}  # that hold images, by their content hash
        self._said: list[Said] = []
        logging.getLogger("slopesearch").addHandler(_Sayer(self._said))

    def introduce(self, precision: Precision, packs: bool, sharing: int) -> Introduction:
        """What the worker is; where packs are wanted of a GPU, its card is tried first."""
        said = introduce(self._host)
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

    def start(
        self, configs: Sequence[TrialConfig], images: Images, parcel: Sequence[Any]
    ) -> tuple[FromWorker, ...] | None:
        """Train to the first report; None where the images are neither here nor in the parcel.

        `parcel` holds at most one reference to the files of the data set in Ray's object store.
        """
        try:
            folder = self._folder(images, parcel)
        except Exception:
            return self._say(Failed(reason=traceback.format_exc()))
        if folder is None:
            return None
        self._run = begin(configs, folder, self._device)
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

    def _folder(self, images: Images, parcel: Sequence[Any]) -> Path | None:
        """A folder with the very images of the study: of the driver's name, the node's own, or a copy."""
        wanted = images.content_hash
        if wanted in self._folders:
            return self._folders[wanted]
        copy = copy_of(images)
        own = os.environ.get("SLOPESEARCH_DATA")
        folders = [images.folder, *([Path(own)] if own else []), copy]
        if parcel and not any(_holds(folder, images) for folder in folders):
            import ray

            keep_files(ray.get(parcel[0]), images.dataset, copy)
            if not _holds(copy, images):
                raise RuntimeError(f"the images of {images.dataset} are others on {self._host} than here")
        for folder in folders:
            if _holds(folder, images):
                self._folders[wanted] = folder
                return folder
        return None


def copy_of(images: Images) -> Path:
    """The folder of a node for a copy of the images, for every worker there, until the system clears it."""
    return Path(tempfile.gettempdir(), f"slopesearch-{os.getuid()}", images.content_hash[:16])


def _holds(folder: Path, images: Images) -> bool:
    try:
        return (
            is_there(images.dataset, folder) and content_hash(images.dataset, folder) == images.content_hash
        )
    except (RequestError, OSError):  # damaged, or another's
        return False


class _Sayer(logging.Handler):
    """Keeps what is logged for the next answer."""

    def __init__(self, said: list[Said]) -> None:
        super().__init__()
        self._said = said

    def emit(self, record: logging.LogRecord) -> None:
        self._said.append(Said(text=record.getMessage()))
