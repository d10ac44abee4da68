"""train(): the one training path, from configs to reports, nine per run."""

import time
from collections.abc import Collection, Generator, Sequence
from contextlib import nullcontext
from math import isfinite, log

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slopesearch.config import REPORTS, Ended, Report, TrialConfig, TrialResult
from slopesearch.nets.activations import LearnableLeakyReLU
from slopesearch.nets.models import build_model
from slopesearch.seeds import derive
from slopesearch.training.data import Data
from slopesearch.training.diagnostics import UnitWatch, diagnose, hidden_weights, slopes_of, update_ratios

QUICK_VALIDATION = 1000  # images for all reports but the last: 5,000 cost 30 % of an epoch
VALIDATION_BATCH = 500
DIAGNOSED = 500  # validation images behind gradients and means; dead units are looked for on all
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


class _Member:
    """One run of a pack: its network, its optimizer, its curve."""

    def __init__(self, config: TrialConfig, data: Data, device: torch.device) -> None:
        started = time.perf_counter()
        images = data.train_images[: config.batch_size].cpu()
        self.config = config
        self.model = build_model(config, images).to(device).to(memory_format=torch.channels_last)
        self.slopes = [m for m in self.model if isinstance(m, LearnableLeakyReLU)]
        self.optimizer = torch.optim.AdamW(self._parameter_groups(), lr=config.lr, fused=True)
        self.loss_sum = torch.zeros((), device=device)  # since the last report; kept there, so no waiting
        self.curve: list[Report] = []
        self.weights_before: list[Tensor] = []  # of the hidden layers, before the last step to a report
        self.watch: UnitWatch | None = None  # of the last validation
        self.steps = 0
        self.train_seconds = 0.0
        self.seconds = time.perf_counter() - started  # of the whole run: building, training, validation

    def _parameter_groups(self) -> list[dict[str, object]]:
        """Weights decay; slopes, BatchNorm and biases, which have fewer than two dimensions, do not."""
        parameters = list(self.model.parameters())
        return [
            {"params": [p for p in parameters if p.dim() > 1], "weight_decay": self.config.weight_decay},
            {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
        ]

    def step(self, x: Tensor, y: Tensor, factor: float) -> None:
        """One optimizer step on a batch: x (B, 1, 28, 28), y (B,)."""
        self.model.train()
        with _autocast(self.config, x.device):
            loss = F.cross_entropy(self.model(x), y)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.lr * factor
        self.optimizer.step()
        for slope in self.slopes:
            slope.project()
        self.loss_sum += loss.detach()
        self.steps += 1

    def report(self, step: int, steps_since: int, data: Data) -> Report:
        """Validate; a run that has diverged reports chance level instead, as the design says."""
        train_loss = float(self.loss_sum) / steps_since
        self.loss_sum.zero_()
        count = len(data.val_labels) if step == REPORTS else QUICK_VALIDATION
        images, labels = data.val_images[:count], data.val_labels[:count]
        if step == REPORTS:
            self.watch = UnitWatch(self.model)
        with self.watch or nullcontext():
            val_loss, val_accuracy = evaluate(self.model, self.config, images, labels)
        chance = log(data.classes)
        if not (isfinite(train_loss) and isfinite(val_loss)) or train_loss > 10 * chance:
            report = Report(
                step=step,
                train_loss=chance,
                val_loss=chance,
                val_accuracy=1 / data.classes,
                diverged=True,
            )
        else:
            report = Report(
                step=step,
                train_loss=train_loss,
                val_loss=val_loss,
                val_accuracy=val_accuracy,
                slopes=slopes_of(self.model),
                raw_slopes=slopes_of(self.model, raw=True),
                update_ratios=update_ratios(self.weights_before, hidden_weights(self.model)),
            )
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
            diagnostics = diagnose(self.model, self.config, images, labels, self.watch)
        return TrialResult(
            ended=ended,
            curve=tuple(self.curve),
            seconds=self.seconds + time.perf_counter() - started,
            images_per_second=self.steps * self.config.batch_size / self.train_seconds,
            device=str(device),
            diagnostics=diagnostics,
        )


def _autocast(config: TrialConfig, device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16")


@torch.no_grad()
def evaluate(model: nn.Module, config: TrialConfig, images: Tensor, labels: Tensor) -> tuple[float, float]:
    """(mean cross-entropy in nats, accuracy) over images (N, 1, 28, 28) and labels (N,)."""
    model.eval()
    loss = torch.zeros((), device=images.device, dtype=torch.float64)
    correct = torch.zeros((), device=images.device, dtype=torch.int64)
    for start in range(0, len(labels), VALIDATION_BATCH):
        x, y = images[start : start + VALIDATION_BATCH], labels[start : start + VALIDATION_BATCH]
        with _autocast(config, x.device):
            logits = model(x).float()
        loss += F.cross_entropy(logits, y, reduction="sum")
        correct += (logits.argmax(1) == y).sum()
    return float(loss) / len(labels), int(correct) / len(labels)


def train(configs: Sequence[TrialConfig], data: Data, device: torch.device) -> Run:
    """Train configs of one `pack_key()` on the same batches; members stop when they are told or diverge.

    A generator: each `next` or `send(members to stop)` trains to the next report and yields the reports of
    the members still running. Its return value holds the result of every member, in the order of `configs`.
    On a CPU the same config, seed and thread count give bit-equal results.

    Raises ValueError where the configs may not be trained together.
    """
    if len({config.pack_key() for config in configs}) != 1:
        raise ValueError("configs of different pack keys cannot be trained together")
    shared = configs[0]
    members = [_Member(config, data, device) for config in configs]
    running = dict(enumerate(members))
    total = total_steps(shared.train_size, shared.batch_size, shared.epochs)
    report_at = report_steps(total)
    batches = _batches(data, shared, device)
    done = 0
    for number, last in enumerate(report_at, start=1):
        started = time.perf_counter()
        for step in range(done, last):
            index = next(batches)
            x, y = data.train_images[index], data.train_labels[index]
            factor = lr_factor(step, total, shared.warmup)
            for member in running.values():
                if step == last - 1:
                    member.weights_before = hidden_weights(member.model)
                member.step(x, y, factor)
        if device.type == "cuda":
            torch.cuda.synchronize(device)  # or the clock stops before the work does
        trained = time.perf_counter()
        reports = {i: member.report(number, last - done, data) for i, member in running.items()}
        for member in running.values():
            member.train_seconds += (trained - started) / len(running)
            member.seconds += (time.perf_counter() - started) / len(running)
        done = last
        stop = yield reports
        running = {i: m for i, m in running.items() if i not in stop and not m.curve[-1].diverged}
        if not running:
            break
    return [member.result(data, device) for member in members]


def _batches(data: Data, config: TrialConfig, device: torch.device) -> Generator[Tensor, None, None]:
    """Indices (B,) of each batch: every epoch is a fresh permutation, from the order seed alone."""
    epoch = 0
    while True:
        generator = torch.Generator().manual_seed(derive(config.order_seed, "order", epoch))
        order = torch.randperm(config.train_size, generator=generator).to(device)
        for start in range(0, config.train_size - config.batch_size + 1, config.batch_size):
            yield order[start : start + config.batch_size]
        epoch += 1
