"""fit(): one config trained for long, epoch by epoch, with a checkpoint after each."""

import io
import pickle
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import nn

from slopesearch.config import TrialConfig
from slopesearch.files import write_aside
from slopesearch.training.data import Data
from slopesearch.training.engine import Alone, Member, batches_of, lr_factor, total_steps
from slopesearch.training.validation import evaluate
from slopesearch.wording import RequestError, StudyFailedError


@dataclass(frozen=True)
class Epoch:
    """One epoch of a learning curve; losses in nats, None where no validation images are held out."""

    epoch: int  # from 1
    train_loss: float
    val_loss: float | None
    val_accuracy: float | None
    seconds: float  # of training, without validation


class Fit:
    """A config in training on one device: the steps of the engine, an epoch at a time.

    A checkpoint holds the weights, the optimizer's state and the curve. Batches depend on the order seed and
    the epoch alone, so on the CPU a run that goes on from one gives the same bits as one that never stopped.
    """

    def __init__(self, config: TrialConfig, data: Data, device: torch.device) -> None:
        self.config = config
        self.curve: list[Epoch] = []
        self._member = Member(config, data, device)
        self._trainer = Alone([self._member], device)
        self._data, self._device = data, device
        self._steps = total_steps(config.train_size, config.batch_size, 1)

    @property
    def model(self) -> nn.Sequential:
        """The network as it is now."""
        return self._member.model

    def epochs(self, stepped: Callable[[int], None]) -> Iterator[Epoch]:
        """Train the epochs that are left, one for each that is asked for; `stepped` is told the steps so far.

        Raises StudyFailedError where the training loss is no longer a number.
        """
        total = self._steps * self.config.epochs
        done = self._steps * len(self.curve)
        batches = islice(batches_of(self._data, self.config, self._device), done, None)
        for number in range(len(self.curve) + 1, self.config.epochs + 1):
            started = time.perf_counter()
            for step in range(done, done + self._steps):
                index = next(batches)
                factor = lr_factor(step, total, self.config.warmup)
                self._trainer.step(self._data.train_images[index], self._data.train_labels[index], factor)
                stepped(step + 1)
            done += self._steps
            train_loss = self._trainer.losses()[0] / self._steps  # waits for the device
            seconds = time.perf_counter() - started
            if not isfinite(train_loss):
                raise StudyFailedError(
                    f"the training loss is no longer a number in epoch {number}; "
                    f"lower lr, which is {self.config.lr:g}, in the config file"
                )
            val_loss, val_accuracy = self._validate()
            self.curve.append(Epoch(number, train_loss, val_loss, val_accuracy, seconds))
            yield self.curve[-1]

    def _validate(self) -> tuple[float, float] | tuple[None, None]:
        if not len(self._data.val_labels):
            return None, None
        return evaluate(self._member.fast, self.config, self._data.val_images, self._data.val_labels)

    def save(self, path: Path, data_hash: str) -> None:
        """Write a checkpoint, aside and then renamed; `data_hash` tells its images from others."""
        content = io.BytesIO()
        # torch's format and not safetensors: Adam's moments have to keep their memory layout.
        torch.save(
            {
                "model": self.model.state_dict(),
                "optimizer": self._trainer.optimizer.state_dict(),
                "curve": [asdict(row) for row in self.curve],
                "data_hash": data_hash,
            },
            content,
        )
        write_aside(path, content.getvalue())

    def restore(self, path: Path, data_hash: str) -> None:
        """Go on from a checkpoint. Raises RequestError where it is damaged or of another config or data.

        One of version 0.1.0 does not say of which images it is.
        """
        try:
            # weights_only: tensors and plain values are read, and nothing in the file is executed.
            state: dict[str, Any] = torch.load(path, map_location=self._device, weights_only=True)
            if not isinstance(state, dict):
                raise ValueError("it holds no run")
            stored = state.get("data_hash", data_hash)
            self.curve = [Epoch(**row) for row in state["curve"]]
            self.model.load_state_dict(state["model"])
            self._trainer.optimizer.load_state_dict(state["optimizer"])
            if any(
                {"step", "exp_avg", "exp_avg_sq"} - set(moments)
                for moments in state["optimizer"]["state"].values()
            ):
                raise ValueError("its optimizer lacks a moment")
        except (RuntimeError, ValueError, TypeError, KeyError, EOFError, pickle.UnpicklingError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise RequestError(
                f"the checkpoint '{path}' cannot be read ({reason}); "
                "delete the folder that holds it and train again"
            ) from None
        if stored != data_hash:
            raise RequestError(
                f"the {self.config.dataset} images differ from those that '{path}' began with:",
                f"  SHA-256: stored {stored}, given {data_hash}",
                "name the folder that holds the first ones with --data, or another run folder with -o",
            )
