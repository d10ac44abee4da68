"""What a worker does in its process: it prepares for its device, loads once, and tells its faults apart."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from slopesearch.config import Report
from slopesearch.search import worker
from slopesearch.search.messages import Failed, Said
from slopesearch.training.data import Data, load
from tests.conftest import make_config

FOLDER = Path("unused")


def test_a_worker_makes_its_gpu_the_current_one_and_multiplies_as_it_says() -> None:
    program = (
        "import sys, torch\n"
        "from slopesearch.search import worker\n"
        "torch.cuda.set_device = lambda device: print('current:', device, file=sys.stderr)\n"
        "def serve(readline, outbox, folder, device):\n"
        "    outbox.write(f'{device} {torch.backends.cuda.matmul.fp32_precision}')\n"
        "    outbox.flush()\n"
        "worker.serve = serve\n"
        "worker.main(input)\n"
    )
    command = [sys.executable, "-c", program, "cuda:1", "unused"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("cuda:1 ieee", "current: cuda:1\n")


def test_a_worker_says_what_takes_long_before_it_has_a_report() -> None:
    """So it has to leave the process at once."""
    program = (
        "import logging, os\n"
        "from slopesearch.search import worker\n"
        "def serve(readline, outbox, folder, device):\n"
        "    logging.getLogger('slopesearch').info('compiling')\n"
        "    os._exit(0)\n"
        "worker.serve = serve\n"
        "worker.main(input)\n"
    )
    command = [sys.executable, "-c", program, "cpu", "unused"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert Said.model_validate_json(done.stdout).text == "compiling"


def test_a_worker_loads_its_images_once(monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[str] = []

    def counted(name: str, *asked: Any) -> Data:
        loads.append(name)
        return load(name, *asked)

    worker._data.cache_clear()
    monkeypatch.setattr(worker, "load", counted)
    runs: list[dict[str, Any]] = [{}, {"lr": 0.1}, {"activation": "tanh", "order_seed": 7}]
    for changes in runs:
        next(worker.begin([make_config(**changes)], FOLDER, torch.device("cpu")))
    assert loads == ["digits"]


@pytest.mark.parametrize(
    ("error", "is_lack_of_memory"),
    [
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (RuntimeError("CUDA error: device-side assert triggered"), False),
        (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling cublasSgemm"), False),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
    ],
)
def test_a_gpu_that_is_lost_is_not_taken_for_one_that_is_full(
    error: Exception, is_lack_of_memory: bool
) -> None:
    """After the first kind every call of the process fails; its launcher replaces what reports one."""

    def step() -> dict[int, Report]:
        raise error

    message = worker.advance(step)
    assert isinstance(message, Failed)
    assert message.out_of_memory == is_lack_of_memory
