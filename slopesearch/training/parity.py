"""Does training on a device give the right numbers, alone and in a pack? Asked once per kind of card.

`python -m slopesearch.training.parity DEVICE PRECISION` prints the answer as JSON: a process of its own keeps
no memory of a card, and a card that it loses is lost to nobody else.
"""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from math import isfinite

import torch

from slopesearch.config import Precision, TrialConfig
from slopesearch.nets.activations import ACTIVATIONS
from slopesearch.remembered import remember, remembered
from slopesearch.training.data import Data
from slopesearch.training.devices import prepare, worker_environment
from slopesearch.training.engine import Alone, Member, Pack

STEPS = 5
# The largest relative difference of a member's training loss over the steps. It grows with the steps, since
# Adam makes a whole step of a gradient that is 0 but for rounding. On a CPU it is 3e-5 and 2e-3 after five.
ALLOWED: dict[Precision, float] = {"float32": 1e-3, "bf16": 3e-2}
PATIENCE = 300.0  # s for the check of a card, which takes a few


@dataclass(frozen=True)
class Parity:
    """How far losses are off: of runs alone from torch's layers on the CPU, of a pack from the runs alone."""

    alone: float
    pack: float
    allowed: float

    @property
    def alone_is_right(self) -> bool:
        """Whether the device trains single runs as the CPU does."""
        return self.alone <= self.allowed

    @property
    def is_right(self) -> bool:
        """Whether the device trains single runs, and packs, as it should."""
        return self.alone_is_right and self.pack <= self.allowed


def mixed_configs(count: int, precision: Precision, batch_size: int) -> list[TrialConfig]:
    """The tutorial's CNN in so many kinds: every activation and the learnable slope, every norm in turn."""
    kinds = [*ACTIVATIONS, "learnable"]
    configs = []
    for i in range(count):
        name = kinds[i % len(kinds)]
        learns = name == "learnable"
        activation = "leaky_relu" if learns else name
        slopes = {"negative_slope": 0.1, "slope_mode": "fixed"} if ACTIVATIONS[activation].has_slope else {}
        if learns:
            slopes = {**slopes, "slope_mode": "learnable", "slope_clamp": "project"}
        fields = {
            **dict.fromkeys(TrialConfig.model_fields),
            **{"dataset": "none", "split_seed": 0, "train_size": 1, "val_size": 0, "epochs": 1},
            **{"model": "cnn", "evaluated_on": "validation", "output_gain": "one", "init": "default"},
            **{"order_seed": 0, "init_seed": i, "warmup": 0.0, "lr": 1e-3, "weight_decay": 0.0},
            **{"precision": precision, "batch_size": batch_size, "activation": activation},
            **{"norm": ("none", "before", "after")[(i + i // len(kinds)) % 3], **slopes},
            **({"slope_min": 1e-3, "slope_max": 0.3} if learns else {}),
        }
        configs.append(TrialConfig.model_validate(fields))
    return configs


def _noise(batch_size: int, device: torch.device) -> Data:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch_size * STEPS, 1, 28, 28, generator=generator).to(device)
    labels = torch.arange(batch_size * STEPS, device=device) % 10
    return Data(images, labels, images, labels)


def _losses(
    configs: Sequence[TrialConfig], device: torch.device, together: bool, plain: bool = False
) -> list[float]:
    """Each config's sum of the training losses of a few steps; `plain` trains torch's own layers."""
    data = _noise(configs[0].batch_size, device)
    members = [Member(config, data, device) for config in configs]
    for member in members if plain else ():
        member.fast = member.model
    teams = [Pack(members, device)] if together else [Alone([member], device) for member in members]
    for team in teams:
        for x, y in zip(data.train_images.chunk(STEPS), data.train_labels.chunk(STEPS), strict=True):
            team.step(x, y, 1.0)
    return [loss for team in teams for loss in team.losses()]


def _difference(found: Sequence[float], expected: Sequence[float]) -> float:
    pairs = zip(found, expected, strict=True)
    return max(abs(a - b) / abs(b) if isfinite(a) and b else float("inf") for a, b in pairs)


def parity(device: torch.device, precision: Precision) -> Parity:
    """Train a pack of every kind on the device, its members alone there, and alone on the CPU."""
    prepare(device)
    configs = mixed_configs(len(ACTIVATIONS) + 1, precision, batch_size=16)
    expected = _losses(configs, torch.device("cpu"), together=False, plain=True)
    alone = _losses(configs, device, together=False)
    pack = _losses(configs, device, together=True)
    return Parity(_difference(alone, expected), _difference(pack, alone), ALLOWED[precision])


def rate(device: torch.device, precision: Precision, count: int, seconds: float = 0.5) -> float:
    """Training images a second of a mixed pack of so many, batch 128, over at least so many seconds."""
    configs = mixed_configs(count, precision, batch_size=128)
    data = _noise(128, device)
    members = [Member(config, data, device) for config in configs]
    team = Pack(members, device) if count > 1 else Alone(members, device)
    x, y = data.train_images[:128], data.train_labels[:128]
    for _ in range(2):  # what is made or tried out once
        team.step(x, y, 1.0)
    team.losses()  # waits for the device
    started, done = time.perf_counter(), 0
    while (passed := time.perf_counter() - started) < seconds or not done:
        for _ in range(3):
            team.step(x, y, 1.0)
        team.losses()
        done += 3
    return done * 128 * count / passed


def why_no_packs(device: str, precision: Precision) -> str | None:
    """Why a GPU must not train packs, or None where it may; a card that was right once is not asked again.

    Cards are told apart by their name, and asked again by another version of torch or slopesearch.
    """
    versions = f"torch {torch.__version__}, slopesearch {version('slopesearch')}"
    key = f"{torch.cuda.get_device_name(device)}, {versions}, {precision}"
    if key in remembered("packs"):
        return None
    try:
        done = subprocess.run(
            [sys.executable, "-m", "slopesearch.training.parity", device, precision],
            capture_output=True,
            text=True,
            env=worker_environment(),
            timeout=PATIENCE,
            start_new_session=True,  # Ctrl-C is this process's to handle
        )
    except subprocess.TimeoutExpired:
        return f"its check was not done after {PATIENCE:g} s"
    if done.returncode != 0:
        return f"its check failed ({(done.stderr.strip() or 'no reason given').splitlines()[-1]})"
    found = Parity(**json.loads(done.stdout))
    if not found.is_right:
        return (
            f"the losses of a pack are off by {found.pack:.1g} from those of runs alone, and those by "
            f"{found.alone:.1g} from the CPU's, where {found.allowed:g} is allowed"
        )
    remember("packs", key)
    return None


if __name__ == "__main__":
    print(json.dumps(asdict(parity(torch.device(sys.argv[1]), sys.argv[2]))))  # type: ignore[arg-type]
