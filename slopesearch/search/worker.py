"""A worker: reads configs, trains them, streams its reports.

It speaks one JSON message a line: a Work comes in, then a Reported goes out and an Answer comes in at every
report, and a Finished or a Failed goes out at the end. `worker_main.py` starts it, and ends it with its
parent.
"""

import logging
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import TextIO

import torch

from slopesearch.config import EvaluatedOn, Report, TrialConfig
from slopesearch.search.messages import Answer, Failed, Finished, FromWorker, Reported, Said, Work
from slopesearch.training.data import Data, load
from slopesearch.training.devices import prepare
from slopesearch.training.engine import Run, train


@lru_cache(maxsize=1)
def _data(
    name: str,
    folder: Path,
    split_seed: int,
    train_size: int,
    val_size: int,
    evaluated_on: EvaluatedOn,
    device: torch.device,
) -> Data:
    return load(name, folder, split_seed, train_size, val_size, evaluated_on).to(device)


def begin(configs: Sequence[TrialConfig], folder: Path, device: torch.device) -> Run:
    """Train configs of one pack key, see `engine.train`; the data are loaded once and kept on the device."""
    config = configs[0]
    sizes = config.train_size, config.val_size
    data = _data(config.dataset, folder, config.split_seed, *sizes, config.evaluated_on, device)
    return (yield from train(configs, data, device))


def advance(step: Callable[[], dict[int, Report]]) -> FromWorker:
    """Train to the next report and say what came of it; every exception becomes a Failed."""
    try:
        return Reported(reports=step())
    except StopIteration as end:
        return Finished(results=tuple(end.value))
    except Exception as error:
        return Failed(reason=traceback.format_exc(), out_of_memory=_is_out_of_memory(error))


def _is_out_of_memory(error: Exception) -> bool:
    # On the CPU, and inside cuBLAS, torch raises a plain RuntimeError.
    words = ("DefaultCPUAllocator", "ALLOC_FAILED", "out of memory")
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in words)
    )


def serve(readline: Callable[[], str], outbox: TextIO, folder: Path, device: torch.device) -> None:
    """Answer Work, line by line, for as long as there is a parent."""
    while True:
        work = Work.model_validate_json(readline())
        run = begin(work.configs, folder, device)
        message = advance(partial(next, run))
        while True:
            outbox.write(message.model_dump_json() + "\n")
            outbox.flush()
            if not isinstance(message, Reported):
                break
            answer = Answer.model_validate_json(readline())
            message = advance(partial(run.send, answer.stop))


class _Sayer(logging.Handler):
    """Sends what is logged to the parent, which tells a person."""

    def __init__(self, outbox: TextIO) -> None:
        super().__init__()
        self._outbox = outbox

    def emit(self, record: logging.LogRecord) -> None:
        # In one write, so that a message of another thread does not come in between.
        self._outbox.write(Said(text=record.getMessage()).model_dump_json() + "\n")
        self._outbox.flush()  # what takes long is said before it


def main(readline: Callable[[], str]) -> None:
    """Serve the lines that come in, on standard output."""
    device = torch.device(sys.argv[1])
    prepare(device)
    # A private copy of standard output for messages; whatever else prints goes to standard error.
    outbox = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    logger = logging.getLogger("slopesearch")
    logger.setLevel(logging.INFO)
    logger.addHandler(_Sayer(outbox))
    serve(readline, outbox, Path(sys.argv[2]), device)
