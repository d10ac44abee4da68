"""train(): the one training path, from configs to reports, nine per run."""

import time
from collections.abc import Collection, Generator, Sequence
from math import isfinite, log

import torch
import torch.nn.functional as F
from torch import Tensor

from slopesearch.config import QUICK_VALIDATION, REPORTS, Ended, Report, TrialConfig, TrialResult
from slopesearch.nets.activations import LearnableLeakyReLU
from slopesearch.nets.cpu import accelerate
from slopesearch.nets.models import build_model
from slopesearch.nets.packed import PackedModel
from slopesearch.seeds import derive
from slopesearch.training.data import Data
from slopesearch.training.devices import arithmetic
from slopesearch.training.diagnostics import diagnose, hidden_weights
from slopesearch.training.optimizers import PackedAdamW, SingleAdamW
from slopesearch.training.validation import Seen, autocast, hidden_weights_of_pack, see, see_pack

DIAGNOSED = 250  # validation images behind gradients and means; dead units are looked for on all
QUICK_DIAGNOSED = 128  # where the run was stopped early

# Yields {member: its report} for the members still running, is sent the members to stop, returns all results.
Run = Generator[dict[int, Report], Collection[int], list[TrialResult]]


def total_steps(train_size: int, batch_size: int, epochs: int) -> int:
    """Optimizer steps of a run; the images that do not fill an epoch's last batch wait for the next epoch."""
    return train_size // batch_size * epochs


def report_steps(total: int) -> list[int]:
    """The optimizer steps after which a run reports: evenly spaced, the last one at the end."""
    return [round(total * i / REPORTS) for i in range(1, REPORTS + 1)]


def lr_factor(step: int, total: int, warmup: float) -> float:
    """What the learning rate is multiplied by at a step (from 0): linear warm-up, then linear to zero."""
    rising = (step + 1) / max(1, round(total * warmup))
    falling = (total - step) / max(1, total - round(total * warmup))
    return min(1.0, rising, falling)


class Member:
    """One run: its network, its curve, and what it cost.

    `model` is the network as it is defined, `fast` the same function on the same parameters: the first is
    looked at inside, the second trains and is validated. In a pack neither trains; see `Pack`.
    """

    def __init__(self, config: TrialConfig, data: Data, device: torch.device) -> None:
        started = time.perf_counter()
        images = data.train_images[: config.batch_size].cpu()
        self.config = config
        # One layout through the whole net. On a GPU it is the packs', which split maps by channels.
        layout = torch.channels_last if device.type == "cpu" else torch.contiguous_format
        self.model = build_model(config, images).to(device).to(memory_format=layout)
        self.fast = accelerate(self.model)
        self.curve: list[Report] = []
        self.steps = 0
        self.train_seconds = 0.0
        self.seconds = time.perf_counter() - started  # of the whole run: building, training, validation

    def report(self, step: int, train_loss: float, seen: Seen, classes: int) -> Report:
        """What is told of a network; a run that has diverged reports chance level, as the design says."""
        chance = log(classes)
        if not (isfinite(train_loss) and isfinite(seen.val_loss)) or train_loss > 10 * chance:
            report = Report(
                step=step,
                train_loss=chance,
                val_loss=chance,
                val_accuracy=1 / classes,
                diverged=True,
            )
        else:
            report = Report(step=step, train_loss=train_loss, **seen._asdict())
        self.curve.append(report)
        return report

    def result(self, data: Data, device: torch.device) -> TrialResult:
        """What the run gave; its network is looked at inside, a run that was stopped early only briefly."""
        started = time.perf_counter()
        ended: Ended = "completed" if self.curve[-1].step == REPORTS else "pruned"
        diagnostics = None
        if self.curve[-1].diverged:
            ended = "diverged"
        else:
            count = DIAGNOSED if ended == "completed" else QUICK_DIAGNOSED
            images, labels = data.val_images[:count], data.val_labels[:count]
            further = data.val_images[count:] if ended == "completed" else None
            diagnostics = diagnose(self.model, self.config, images, labels, further)
        return TrialResult(
            ended=ended,
            curve=tuple(self.curve),
            seconds=self.seconds + time.perf_counter() - started,
            images_per_second=self.steps * self.config.batch_size / self.train_seconds,
            device=str(device),
            arithmetic=arithmetic(self.config.precision, device),
            diagnostics=diagnostics,
        )


class Alone:
    """Trains one member with its own network and torch's update: what a pack is tested against."""

    def __init__(self, members: Sequence[Member], device: torch.device) -> None:
        (self.member,) = members
        config, self.model = self.member.config, self.member.model
        self.slopes = [layer for layer in self.model if isinstance(layer, LearnableLeakyReLU)]
        self.optimizer = SingleAdamW(self.model.parameters(), config.lr, config.weight_decay)
        self._loss_sum = torch.zeros((), device=device)  # since the last report; kept there, so no waiting
        self._before: list[Tensor] = []  # the hidden weights before the last step to a report

    def step(self, x: Tensor, y: Tensor, factor: float) -> None:
        """One optimizer step on a batch: x (B, 1, 28, 28), y (B,)."""
        if not self.member.model.training:
            self.member.fast.train()
        with autocast(self.member.config, x.device):
            loss = F.cross_entropy(self.member.fast(x), y)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.update(factor)
        for slope in self.slopes:
            slope.project()
        self._loss_sum += loss.detach()

    def remember(self) -> None:
        """Keep the weights as they are before a step, whose size a report tells."""
        self._before = hidden_weights(self.model)

    def look(self, images: Tensor, labels: Tensor) -> list[Seen]:
        """What there is to see of each member's network as it is now, validated on these images."""
        return [see(self.model, self.member.fast, self.member.config, self._before, images, labels)]

    def settle(self) -> None:
        """The member's own model is the one that trains."""

    def losses(self) -> list[float]:
        """The sum of the training losses since the last call."""
        total = float(self._loss_sum)
        self._loss_sum.zero_()
        return [total]

    def keep(self, kept: Sequence[int]) -> "Alone":
        """Go on with these members."""
        return self


class Pack:
    """Trains several members as one batched model; their own models are brought up to date by `settle`."""

    def __init__(self, members: Sequence[Member], device: torch.device) -> None:
        self.members, self.device = members, device
        self.model = PackedModel([member.model for member in members]).to(device)
        configs = [member.config for member in members]
        self.optimizer = PackedAdamW(self.model, [c.lr for c in configs], [c.weight_decay for c in configs])
        self._loss_sum = torch.zeros(len(members), device=device)
        self._before: list[Tensor] = []

    def step(self, x: Tensor, y: Tensor, factor: float) -> None:
        """One optimizer step of every member on a batch: x (B, 1, 28, 28), y (B,)."""
        if not self.model.training:
            self.model.train()
        with autocast(self.members[0].config, x.device):
            logits = self.model(x)  # (B, K, classes)
            labels = y.repeat_interleave(len(self.members))
            each = F.cross_entropy(logits.flatten(0, 1), labels, reduction="none")
        losses = each.view(len(y), -1).mean(0)
        self.optimizer.zero_grad()
        losses.sum().backward()  # type: ignore[no-untyped-call]  # no weight is shared: each gets its own
        self.optimizer.step(factor)
        self.model.project()
        self._loss_sum += losses.detach()

    def remember(self) -> None:
        """As `Alone.remember`."""
        self._before = hidden_weights_of_pack(self.model)

    def look(self, images: Tensor, labels: Tensor) -> list[Seen]:
        """As `Alone.look`, from the batched model itself: the members' own models are out of date."""
        return see_pack(self.model, self.members[0].config, self._before, images, labels)

    def settle(self) -> None:
        """Bring the members' own models up to date."""
        for k in range(len(self.members)):
            self.model.unpack(k)

    def losses(self) -> list[float]:
        """The sums of the members' training losses since the last call."""
        totals: list[float] = self._loss_sum.tolist()
        self._loss_sum.zero_()
        return totals

    def keep(self, kept: Sequence[int]) -> "Pack":
        """A pack of these members alone, which goes on where this one is."""
        if len(kept) == len(self.members):
            return self
        self.settle()
        smaller = Pack([self.members[k] for k in kept], self.device)
        smaller.optimizer.take_over(self.optimizer, kept)
        return smaller


def train(configs: Sequence[TrialConfig], data: Data, device: torch.device) -> Run:
    """Train configs of one `pack_key()` on the same batches; members stop when they are told or diverge.

    A generator: each `next` or `send(members to stop)` trains to the next report and yields the reports of
    the members still running. Its return value holds the result of every member, in the order of `configs`.
    One config trains as the plain model, several as one batched model, which gives each member what it gives
    alone, to rounding. On a CPU the same configs, seed and thread count give bit-equal results.

    Raises ValueError where the configs may not be trained together.
    """
    if len({config.pack_key() for config in configs}) != 1:
        raise ValueError("configs of different pack keys cannot be trained together")
    shared = configs[0]
    members = [Member(config, data, device) for config in configs]
    running = list(range(len(members)))  # places in `members`, as the team holds them
    team = Alone(members, device) if len(members) == 1 else Pack(members, device)
    total = total_steps(shared.train_size, shared.batch_size, shared.epochs)
    batches = batches_of(data, shared, device)
    done = 0
    for number, last in enumerate(report_steps(total), start=1):
        started = time.perf_counter()
        for step in range(done, last):
            index = next(batches)
            x, y = data.train_images[index], data.train_labels[index]
            if step == last - 1:
                team.remember()
            team.step(x, y, lr_factor(step, total, shared.warmup))
        losses = team.losses()  # waits for a device that is still at work, so that the clock does too
        trained = time.perf_counter()
        reports = {
            i: members[i].report(number, loss / (last - done), seen, data.classes)
            for i, loss, seen in zip(running, losses, team.look(*validated_at(number, data)), strict=True)
        }
        for i in running:
            members[i].steps = last
            members[i].train_seconds += (trained - started) / len(running)
            members[i].seconds += (time.perf_counter() - started) / len(running)
        done = last
        stop = (yield reports) or ()  # `next` stops no member
        kept = [k for k, i in enumerate(running) if i not in stop and not members[i].curve[-1].diverged]
        if not kept:
            break
        team = team.keep(kept)
        running = [running[k] for k in kept]
    team.settle()
    return [member.result(data, device) for member in members]


def validated_at(number: int, data: Data) -> tuple[Tensor, Tensor]:
    """The images and labels that a report is of: all of them at the last, the first ones before."""
    count = len(data.val_labels) if number == REPORTS else QUICK_VALIDATION
    return data.val_images[:count], data.val_labels[:count]


def batches_of(data: Data, config: TrialConfig, device: torch.device) -> Generator[Tensor, None, None]:
    """Indices (B,) of each batch: every epoch is a fresh permutation, from the order seed alone."""
    epoch = 0
    while True:
        generator = torch.Generator().manual_seed(derive(config.order_seed, "order", epoch))
        order = torch.randperm(config.train_size, generator=generator).to(device)
        for start in range(0, config.train_size - config.batch_size + 1, config.batch_size):
            yield order[start : start + config.batch_size]
        epoch += 1
