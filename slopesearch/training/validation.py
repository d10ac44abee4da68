"""What a report says of networks as they are now: of one, or of a pack, which is read in one go."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slopesearch.config import TrialConfig
from slopesearch.nets.packed import PackedModel
from slopesearch.training.diagnostics import as_numbers, hidden_weights, rounded, slopes_of, told_layers
from slopesearch.training.diagnostics import update_ratios as ratios_of

VALIDATION_BATCH = 250


class Seen(NamedTuple):
    """The part of a `Report` that comes from looking at a network."""

    val_loss: float
    val_accuracy: float
    slopes: tuple[float, ...]
    raw_slopes: tuple[float, ...]
    update_ratios: tuple[float, ...]


def autocast(config: TrialConfig, device: torch.device) -> torch.autocast:
    """The precision that a config trains and is validated in."""
    return torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16")


def _batches(
    model: nn.Module, config: TrialConfig, images: Tensor, labels: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    """The logits of each batch in evaluation mode, float32, with its labels."""
    model.eval()
    for start in range(0, len(labels), VALIDATION_BATCH):
        with autocast(config, images.device):
            logits = model(images[start : start + VALIDATION_BATCH]).float()
        yield logits, labels[start : start + VALIDATION_BATCH]


@torch.no_grad()
def evaluate(model: nn.Module, config: TrialConfig, images: Tensor, labels: Tensor) -> tuple[float, float]:
    """(mean cross-entropy in nats, accuracy) over images (N, 1, 28, 28) and labels (N,)."""
    loss = torch.zeros((), device=images.device, dtype=torch.float64)
    correct = torch.zeros((), device=images.device, dtype=torch.int64)
    for logits, y in _batches(model, config, images, labels):
        loss += F.cross_entropy(logits, y, reduction="sum")
        correct += (logits.argmax(1) == y).sum()
    ((total, right),) = as_numbers([torch.stack([loss, correct])])
    return total / len(labels), right / len(labels)


@torch.no_grad()
def _evaluate_pack(model: PackedModel, config: TrialConfig, images: Tensor, labels: Tensor) -> Tensor:
    """(2, K): the sums of each member's cross-entropy and right answers; see `evaluate`."""
    sums = torch.zeros(2, len(model.models), device=images.device, dtype=torch.float64)
    for logits, y in _batches(model, config, images, labels):  # (B, K, classes)
        each = F.cross_entropy(logits.transpose(1, 2), y[:, None].expand(logits.shape[:2]), reduction="none")
        sums += torch.stack([each.sum(0), (logits.argmax(2) == y[:, None]).sum(0)])
    return sums


def see(
    model: nn.Sequential,
    fast: nn.Module,
    config: TrialConfig,
    before: Sequence[Tensor],
    images: Tensor,
    labels: Tensor,
) -> Seen:
    """What is seen of one network: `fast` does what `model` does; `before` are its hidden weights of then."""
    val_loss, val_accuracy = evaluate(fast, config, images, labels)
    ratios = ratios_of(before, hidden_weights(model))
    return Seen(val_loss, val_accuracy, slopes_of(model), slopes_of(model, raw=True), ratios)


def hidden_weights_of_pack(model: PackedModel) -> list[Tensor]:
    """A copy of the weights of the told layers (K, ...), as they are before a step; see `hidden_weights`."""
    weights = [layer.get_parameter("weight") for layer in model.weights]
    return [weights[i - 1].detach().clone() for i in told_layers(len(weights) - 1)]


def see_pack(
    model: PackedModel, config: TrialConfig, before: Sequence[Tensor], images: Tensor, labels: Tensor
) -> list[Seen]:
    """What is seen of each member of a pack, as of one network; the device is waited for once."""
    sums = _evaluate_pack(model, config, images, labels)
    ratios = [_ratios(old, new) for old, new in zip(before, hidden_weights_of_pack(model), strict=True)]
    told = {f"act{i}" for i in told_layers(len(model.weights) - 1)}
    learned = [(members, layer.slopes()) for name, members, layer in model.learned if name in told]
    numbers = as_numbers([*sums, *ratios, *(kind for _, kinds in learned for kind in kinds)])
    losses, right = numbers[:2]
    of_ratios, of_slopes = numbers[2 : 2 + len(ratios)], numbers[2 + len(ratios) :]
    slopes: list[tuple[list[float], list[float]]] = [([], []) for _ in model.models]  # effective, raw
    for place, (members, _) in enumerate(learned):
        for kind in (0, 1):
            for k, slope in zip(members, of_slopes[2 * place + kind], strict=True):
                slopes[k][kind].append(slope)
    return [
        Seen(
            losses[k] / len(labels),
            right[k] / len(labels),
            tuple(slopes[k][0]),
            tuple(slopes[k][1]),
            rounded(ratio[model.order.index(k)] for ratio in of_ratios),
        )
        for k in range(len(model.models))
    ]


def _ratios(old: Tensor, new: Tensor) -> Tensor:
    """The update ratio of each member, (K,); see `update_ratios`."""
    changed, size = (torch.linalg.vector_norm(w.flatten(1), dim=1) for w in (new - old, old))
    ratio: Tensor = changed / size.clamp(min=1e-30)
    return ratio
