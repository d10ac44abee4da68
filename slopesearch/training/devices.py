"""Which devices there are, how many workers they get, and in what precision they train."""

import hashlib
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from slopesearch.config import Precision
from slopesearch.interrupts import exits_at_once
from slopesearch.remembered import remember, remembered
from slopesearch.wording import RequestError, StudyFailedError

if TYPE_CHECKING:
    import torch


_is_sound = threading.Event()  # set once the pair was tried and imports
# The pair is tried by a process that lives no longer than this one: the system closes the pipe between them.
# -P: no module of the current folder.
_TRIAL = [
    *(sys.executable, "-P", "-c"),
    "import os, threading\n"
    "threading.Thread(target=lambda: (os.read(0, 1), os._exit(0)), daemon=True).start()\n"
    "import torch, torchvision\n",
]


@contextmanager
def checked_torch_pair(afresh: bool = False) -> Iterator[None]:
    """Raise RequestError, naming the fix, unless torch and torchvision are a pair that imports together.

    Torch needs a folder for temporary files, so that is looked for first. The pair is tried in a process of
    its own, beside the imports in the `with` block, since torchvision takes 160 MB and 2 s; a pair that was
    sound is not tried again until one of the two is installed anew, or `afresh`. Ctrl-C ends everything at
    once meanwhile. Raises StudyFailedError where there is too little memory to try.
    """
    try:
        tempfile.gettempdir()
    except OSError as error:
        raise RequestError(
            f"there is no folder for temporary files ({error.strerror}); make one, and name it in TMPDIR"
        ) from None
    installed = _installed()
    is_known = not afresh and (_is_sound.is_set() or installed in remembered("pairs"))
    with exits_at_once(), nullcontext() if is_known else _trial() as trial:
        try:
            yield
        except Exception as error:
            if _is_starved(str(error)) or isinstance(error, MemoryError):
                raise _starved(str(error)) from None
            # A pair that was sound may have lost another library since, as CUDA's.
            with nullcontext(trial) if trial is not None else _trial() as tried:
                _judge(tried, installed)
            raise
        if trial is not None:
            _judge(trial, installed)


def _trial() -> "subprocess.Popen[str]":
    return subprocess.Popen(
        _TRIAL, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def _installed() -> str:
    """What changes when torch or torchvision is installed anew: where they are, and pip's records of them."""
    found = hashlib.sha256()
    for name in ("torch", "torchvision"):
        spec = find_spec(name)
        found.update(str(spec and spec.origin).encode())
        with suppress(PackageNotFoundError):  # it was built in its own folder
            found.update((distribution(name).read_text("RECORD") or "").encode())
    return found.hexdigest()


def _judge(trial: "subprocess.Popen[str]", installed: str) -> None:
    assert trial.stderr is not None
    errors = trial.stderr.read().strip()
    code = trial.wait()
    if code == 0:
        _is_sound.set()
        remember("pairs", installed)
        return
    reason = (errors or f"exit code {code}").splitlines()[-1]
    if _is_starved(errors):
        raise _starved(reason)
    if code < 0:
        raise _starved(f"signal {-code}")
    raise RequestError(
        f"torch and torchvision do not work together ({reason}); the usual reason is that they come "
        "from different builds, say torch for the CPU beside torchvision for CUDA: run `pip uninstall "
        "-y torch torchvision`, then install both in one command, `pip install torch torchvision`, or "
        "the one that the selector on pytorch.org gives for your machine"
    ) from None


# As C++, Python and the system's loader say it, which adds the reason to the last where it is another one.
_SHORT_OF_MEMORY = re.compile(
    r"std::bad_alloc|MemoryError|Cannot allocate memory|failed to map segment from shared object$",
    re.MULTILINE,
)


def _is_starved(errors: str) -> bool:
    return _SHORT_OF_MEMORY.search(errors) is not None


def _starved(reason: str) -> StudyFailedError:
    return StudyFailedError(
        f"torch and torchvision could not be loaded ({reason}); the usual reason is that memory ran short: "
        "end what uses it, or raise the limit on it, and type the same command again"
    )


def resolve_devices(devices: str, workers: int | None) -> list[str]:
    """One device name per worker: "auto", "cpu", "cuda" or a list like "cuda:0,cuda:2" or "cpu,cpu".

    A CUDA device gets one worker, the CPU alone one per core that this process may use. `workers` overrides
    the count: the devices are dealt out in turn. Raises RequestError for a device that is not there.
    """
    import torch

    visible = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    if devices == "auto":
        names = visible or ["cpu"]
    elif devices == "cuda":
        names = visible
    else:
        names = [name.strip() for name in devices.split(",")]
    absent = [name for name in names if name not in {"cpu", *visible}]
    if absent or not names:
        there = ", ".join(["cpu", *visible])
        raise RequestError(
            f"there is no device '{absent[0] if absent else devices}' here; choose from auto, {there}"
        )
    if workers is None:
        workers = usable_cores() if names == ["cpu"] else len(names)
    return [names[i % len(names)] for i in range(workers)]


def one_device(name: str) -> "torch.device":
    """A device by its name; "auto" takes the first GPU, else the CPU, where torch then uses one thread.

    One thread, because more are slower for nets of this size, and the same command then gives the same bits
    on any number of cores. Raises RequestError for a device that is not there.
    """
    import torch

    device = torch.device(resolve_devices(name, 1)[0])
    prepare(device)
    return device


def prepare(device: "torch.device") -> None:
    """Set what torch keeps for the whole process, before anything trains on a device.

    "float32" is float32 on a GPU too, in convolutions as in matrix products: by itself torch rounds what goes
    into the first to TF32, ten bits, and not what goes into the second. Who wants tensor cores asks for bf16.
    Shapes stay as they are for a whole run, so that cuDNN may try its algorithms and keep the fastest.
    """
    import torch

    if device.type == "cpu":
        torch.set_num_threads(1)
        return
    torch.cuda.set_device(device)  # or what names no device would take room on the first GPU
    for products in float32_products():
        products.fp32_precision = "ieee"
    torch.backends.cudnn.benchmark = True


def float32_products() -> list[Any]:
    """Where torch keeps how it multiplies float32 on a GPU: in convolutions, in matrix products."""
    import torch

    cudnn: Any = torch.backends.cudnn  # whose types leave `conv` out
    return [cudnn.conv, torch.backends.cuda.matmul]


def arithmetic(precision: Precision, device: "torch.device") -> str:
    """What goes into products in a run of this precision: it, or tf32 where torch is set to that."""
    rounds = any(products.fp32_precision == "tf32" for products in float32_products())
    return "tf32" if precision == "float32" and device.type == "cuda" and rounds else precision


def usable_cores() -> int:
    """The cores that this process may use: CPU affinity and cgroup limits count."""
    import joblib  # loaded here, so that the commands that only read start at once

    return int(joblib.cpu_count())


def best_precision(devices: list[str]) -> Precision:
    """bf16 where every worker is a CPU core that multiplies bf16 itself (AMX or AVX512-BF16), else float32.

    On an AMD EPYC (Zen 4, AVX512-BF16 without AMX) bf16 took a training step of the CNN, one thread,
    channels-last, from 49 to 30 ms without BatchNorm and from 54 to 37 ms with it (medians of 7, 2026-11-23).
    """
    return "bf16" if set(devices) == {"cpu"} and multiplies_bf16() else "float32"


def multiplies_bf16() -> bool:
    """Whether the cores of this machine multiply bf16 themselves."""
    import torch

    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()


MEMBER_BYTES = 2**28  # of GPU memory for one member of a pack; a pack that does not fit is halved
# Packs in a study at least, so that the sampler learns between them. Regret after 200 trials, mean of 100
# seeds, against asking for one at a time: packs of 4 1.14, 6 1.30, 8 1.29, 12 1.59, 16 1.73, each with an
# error of about 0.15 (scripts/benchmark_regret.py, 2026-11-24).
ROUNDS = 50
MOST_MEMBERS = 16


def gpu_shares(devices: list[str]) -> list[int]:
    """Each worker's share of its GPU's memory in bytes; 0 on a CPU."""
    import torch

    return [
        torch.cuda.get_device_properties(name).total_memory // devices.count(name)
        if name.startswith("cuda")
        else 0
        for name in devices
    ]


def default_pack(shares: list[int], trials: int) -> tuple[int, str]:
    """How many trials train together on each worker, by `gpu_shares`, and why: 1 unless each has a GPU.

    On a CPU packing gains nothing. On GPUs few enough that the search stays sequential, 4 of 200 trials, and
    that workers which share a card fit into it.
    """
    if not shares or not all(shares):
        return 1, "on a CPU packs gain nothing"
    return min(
        (MOST_MEMBERS, "larger ones cost the search too much"),
        (max(1, min(shares) // MEMBER_BYTES), f"a worker's share of memory is {min(shares) / 2**30:.1f} GiB"),
        (max(1, trials // (ROUNDS * len(shares))), f"a search of {trials:,} trials takes {ROUNDS} rounds"),
    )


# glibc's malloc hands large blocks back to the kernel, which then zeroes fresh pages at every step. Kept, a
# training step of the CNN with BatchNorm takes 36 instead of 43 ms, without it 29 instead of 31 (bf16, two
# workers at once, medians of 6, AMD EPYC, 2026-11-23). Other C libraries ignore the names.
WORKER_ENVIRONMENT = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**40),
    "MALLOC_TOP_PAD_": str(2**26),
    "OMP_NUM_THREADS": "1",
}


def worker_environment() -> dict[str, str]:
    """The environment for a worker process: this one's, with malloc and thread settings of a worker."""
    return {**os.environ, **WORKER_ENVIRONMENT}
