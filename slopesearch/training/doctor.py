"""What this machine can train on, and whether it does it right: findings, each with what is wrong with it."""

import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from slopesearch.nets.cpu import kernels_compile
from slopesearch.training.devices import (
    arithmetic,
    best_precision,
    default_pack,
    gpu_shares,
    resolve_devices,
    usable_cores,
)
from slopesearch.training.parity import Parity, parity, rate
from slopesearch.wording import counted

PACKS = {"cpu": (1, 4), "cuda": (1, 4, 16, 64)}
TRIALS = 200  # of the study whose pack is told: the default


@dataclass(frozen=True)
class Finding:
    """A line of the report; `wrong` is a sentence, and `fatal` where training gives no or wrong numbers."""

    name: str
    value: str
    wrong: str | None = None
    fatal: bool = False


def examine() -> Iterator[Finding]:
    """The findings on this machine's devices, one after the other as they come; a few seconds for each."""
    yield _driver()
    yield _kernels()
    devices = resolve_devices("auto", None)
    precision = best_precision(devices)
    told = ", ".join(f"{devices.count(name)} on {name}" for name in dict.fromkeys(devices))
    yield Finding("workers", f"{told}, in {precision}")
    sound = True
    for name in dict.fromkeys([*devices, "cpu"]):
        device = torch.device(name)
        yield Finding(name, _describe(device))
        found = _numbers(device)
        yield found
        if not found.fatal:
            yield _speed(device)
        sound = sound and not (found.fatal and name in devices)
    pack, why = default_pack(gpu_shares(devices), TRIALS)
    if pack > 1 and not sound:
        pack, why = 1, "packs give other numbers here"
    yield Finding("pack", f"{counted(pack, 'trial')} at a time on a device, in a study of {TRIALS}: {why}")


def _driver() -> Finding:
    built = f"torch {torch.__version__} is built for {_built_for()}"
    program = shutil.which("nvidia-smi")
    if program is None:
        return Finding("driver", f"no NVIDIA driver was found; {built}")
    ask = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        told = subprocess.run(ask, capture_output=True, text=True, timeout=30).stdout.split()
    except (OSError, subprocess.TimeoutExpired):
        told = []
    value = f"NVIDIA {told[0]}; {built}" if told else f"nvidia-smi does not answer; {built}"
    if torch.cuda.device_count():
        return Finding("driver", value)
    if torch.version.cuda is None:
        wrong = (
            "torch is built for the CPU alone; for the GPU install torch and torchvision of one CUDA build"
        )
    else:
        wrong = "torch sees no GPU; the driver may be too old for it, or CUDA_VISIBLE_DEVICES hides the GPUs"
    return Finding("driver", value, wrong)


def _built_for() -> str:
    return f"CUDA {torch.version.cuda}" if torch.version.cuda else "the CPU"


def _kernels() -> Finding:
    if os.environ.get("SLOPESEARCH_KERNELS", "").strip().lower() == "off":
        return Finding("kernels", "off, as SLOPESEARCH_KERNELS says")
    if kernels_compile():
        return Finding("kernels", "on: the fast CPU loops compile")
    wrong = "the fast CPU loops do not compile here; training works without them, at about half the speed"
    return Finding("kernels", "off", wrong)


def _describe(device: torch.device) -> str:
    if device.type == "cpu":
        return f"{counted(usable_cores(), 'usable core')}, {platform.processor() or platform.machine()}"
    card, cudnn = torch.cuda.get_device_properties(device), torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    capability = f"compute capability {card.major}.{card.minor}"
    return f"{card.name}, {card.total_memory / 2**30:.0f} GiB, {capability}, cuDNN {cudnn}"


def _numbers(device: torch.device) -> Finding:
    """Whether single runs and a mixed pack train as they should, in the device's default precision."""
    precision = best_precision([device.type])
    try:
        found = parity(device, precision)
    except RuntimeError as error:  # torch's own, of a driver or a card that fails
        reason = str(error).strip().splitlines()[0]
        return Finding("  numbers", "none", f"{device} cannot train: {reason}", fatal=True)
    value = (
        f"losses in {arithmetic(precision, device)} differ by {found.alone:.0e} from plain layers on the "
        f"CPU, and in a pack by {found.pack:.0e} from runs alone ({found.allowed:g} is allowed)"
    )
    return Finding("  numbers", value, _wrong_numbers(device, found), fatal=not found.is_right)


def _wrong_numbers(device: torch.device, found: Parity) -> str | None:
    if not found.alone_is_right:
        return (
            f"training on {device} gives wrong numbers: losses are off by {found.alone:.1g} from those of "
            "plain layers on the CPU; believe no study from it, and try another version of torch or driver"
        )
    if not found.is_right:
        return (
            f"packs on {device} give wrong numbers: losses are off by {found.pack:.1g} from those of runs "
            "alone; `optimize` trains one trial at a time there"
        )
    return None


def _speed(device: torch.device) -> Finding:
    """Images a second of mixed packs; a pack that does not fit is left out, and so are larger ones."""
    precision = best_precision([device.type])
    told = []
    for count in PACKS[device.type]:
        try:
            speed = rate(device, precision, count)
        except torch.OutOfMemoryError:
            told.append(f"a pack of {count} does not fit into the memory that is free")
            break
        told.append(f"{speed:,.0f} {'alone' if count == 1 else f'in a pack of {count}'}")
    return Finding("  images/s", ", ".join(told))
