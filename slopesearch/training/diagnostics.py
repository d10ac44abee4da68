"""What a trained network looks like inside: dead units, saturation, gradient flow, the size of updates."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from math import isfinite

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slopesearch.config import Diagnostics, TrialConfig
from slopesearch.nets.activations import ACTIVATIONS, LearnableLeakyReLU

MOST_LAYERS = 32  # of a deeper network so many are told of, evenly spaced
SATURATED = 0.05  # a derivative below this share of the one at 0


def as_numbers(tensors: Sequence[Tensor]) -> list[list[float]]:
    """The numbers of each tensor, of any shape, on one device, which is waited for once."""
    flat: list[float] = torch.cat([tensor.detach().double().flatten() for tensor in tensors]).tolist()
    ends = np.cumsum([0, *(tensor.numel() for tensor in tensors)])
    return [flat[start:end] for start, end in pairwise(ends)]


def told_layers(count: int) -> list[int]:
    """Which of `count` hidden layers are told of, from 1: all of them, or 32 evenly spaced ones."""
    return [int(i) for i in np.linspace(1, count, min(count, MOST_LAYERS)).round()]


def hidden_layers(model: nn.Sequential) -> dict[int, nn.Module]:
    """The activations that are told of, by the number of their hidden layer, from the input on."""
    activations = [module for name, module in model.named_children() if name.startswith("act")]
    return {i: activations[i - 1] for i in told_layers(len(activations))}


def slopes_of(model: nn.Sequential, raw: bool = False) -> tuple[float, ...]:
    """Each told layer's mean negative slope now, for activations that learn one.

    Effective, as the forward pass uses it; `raw` gives the parameter itself, which lies outside of the
    range where the forward pass clamps.
    """
    slopes = []
    for module in hidden_layers(model).values():
        if isinstance(module, LearnableLeakyReLU):
            slopes.append(module.slope if raw else module.effective_slope())
        elif isinstance(module, nn.PReLU):
            slopes.append(module.weight.mean())
    return tuple(as_numbers([torch.stack(slopes)])[0]) if slopes else ()


def hidden_weights(model: nn.Sequential) -> list[Tensor]:
    """A copy of the weights of the told layers, as they are before a step."""
    weights = [module.weight for module in model if isinstance(module, (nn.Linear, nn.Conv2d))]
    # The last one is the output layer's.
    return [weights[i - 1].detach().clone() for i in told_layers(len(weights) - 1)]


def update_ratios(before: Sequence[Tensor], after: Sequence[Tensor]) -> tuple[float, ...]:
    """rms(change in one step) / rms(weights) for each told layer, a number without unit.

    After A. Karpathy's "Building makemore" (part 3, 2022), which takes 1e-3 for healthy.
    """
    ratios = [
        (new - old).norm() / old.norm().clamp(min=1e-30) for old, new in zip(before, after, strict=True)
    ]
    return rounded(torch.stack(ratios).tolist())


def _derivative(activation: nn.Module, z: Tensor) -> Tensor:
    """phi'(z), of z's shape; by autograd, so that it holds for every activation."""
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        (derivative,) = torch.autograd.grad(activation.forward(z).sum(), z)
    return derivative


class _Units:
    """Which units of each layer have shown that they are alive, over all the images that were looked at.

    A unit is a neuron, or a channel at every position. Of what goes into its activation only the smallest
    and the largest are kept: phi' there and where z came nearest to 0 is enough for every phi whose
    derivative is 0 only on the outer sides.
    """

    def __init__(self, activations: Sequence[nn.Module]) -> None:
        self._activations = activations
        self._ends: list[tuple[Tensor, Tensor]] = []
        self.images = 0

    @torch.no_grad()
    def look(self, inputs: Sequence[Tensor]) -> None:
        """See what goes into each activation, (N, units) or (N, units, H, W), for N more images."""
        # torch reduces float32 four times as fast as bf16, with the conversion.
        wide = [z.float().transpose(0, 1).flatten(1) for z in inputs]
        ends = [(z.amin(1), z.amax(1)) for z in wide]
        if self._ends:
            ends = [
                (low.minimum(lowest), high.maximum(highest))
                for (low, high), (lowest, highest) in zip(ends, self._ends, strict=True)
            ]
        self._ends = ends
        self.images += len(inputs[0])

    def active(self) -> list[Tensor]:
        """For each layer (units,): which were above 0 for some image."""
        return [high > 0 for _, high in self._ends]

    def passing(self) -> list[Tensor]:
        """For each layer (units,): which had a derivative other than 0 for some image."""
        found = []
        for activation, (low, high) in zip(self._activations, self._ends, strict=True):
            places = torch.stack([low, high, torch.zeros_like(low).clamp(low, high)])
            found.append((_derivative(activation, places) != 0).any(0))
        return found

    def all_alive(self) -> Tensor:
        """Whether every unit has been active and had a derivative: no image can change that; shape ()."""
        return torch.cat([*self.active(), *self.passing()]).all()


@contextmanager
def _inputs_of(activations: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """The list of what goes into each of these layers while images pass through the network."""
    inputs: list[Tensor] = []
    hooks = [
        layer.register_forward_pre_hook(lambda _, given: inputs.append(given[0])) for layer in activations
    ]
    try:
        yield inputs
    finally:
        for hook in hooks:
            hook.remove()


def diagnose(
    model: nn.Sequential, config: TrialConfig, images: Tensor, labels: Tensor, further: Tensor | None = None
) -> Diagnostics | None:
    """What `Diagnostics` says of a network in evaluation mode, on images (N, 1, 28, 28) and labels (N,).

    The network as it is defined, not an accelerated one: z is what goes into the activation in the tutorial's
    order. `further` images are looked at for dead units alone, as long as there may be one. None where a
    gradient is not finite. A GPU is waited for once for each batch of images, and once at the end.
    """
    model.eval()
    layers = hidden_layers(model)
    activations = list(layers.values())
    autocast = torch.autocast(images.device.type, torch.bfloat16, enabled=config.precision == "bf16")
    with torch.enable_grad(), autocast, _inputs_of(activations) as inputs:
        loss = F.cross_entropy(model(images).float(), labels, reduction="sum")
    rms = torch.stack([g.double().square().mean().sqrt() for g in torch.autograd.grad(loss, inputs)])
    units = _Units(activations)
    units.look(inputs)
    gradients, (alive,) = as_numbers([rms, units.all_alive()])
    if not all(map(isfinite, gradients)):
        return None

    for batch in torch.split(further, len(images)) if further is not None and len(further) else ():
        if alive:
            break
        with torch.no_grad(), autocast, _inputs_of(activations) as more:
            model(batch)
        units.look(more)
        alive = float(units.all_alive())
    saturated = []
    if ACTIVATIONS[config.activation].bounded:
        for activation, z in zip(activations, inputs, strict=True):
            steepest = _derivative(activation, torch.zeros(1, device=z.device))
            saturated.append(_share(_derivative(activation, z) < SATURATED * steepest))
    passing = units.passing()
    shares = (
        [_share(~active) for active in units.active()],
        [_share(~passes) for passes in passing],
        [_share(z <= 0) for z in inputs],
        saturated,
    )
    # In one go: on a GPU each number that is read by itself is waited for.
    shared = [torch.stack(some) for some in shares if some]
    dead, *told = as_numbers([_share(~torch.cat(passing)), *shared])
    return Diagnostics(
        order="tutorial",
        images=units.images,
        layers=tuple(layers),
        never_active=rounded(told[0]),
        zero_gradient=rounded(told[1]),
        inactive=rounded(told[2]),
        saturated=rounded(told[3]) if saturated else (),
        gradient_rms=rounded(gradients),
        dead_fraction=dead[0],
        grad_attenuation=attenuation(list(layers), gradients),
    )


def _share(condition: Tensor) -> Tensor:
    return condition.float().mean()


def attenuation(layers: Sequence[int], rms: Sequence[float]) -> float | None:
    """The least-squares slope of log10(rms of the gradient) over the layers, in decades per layer.

    Above 0 the gradient shrinks on its way back to the input (it vanishes), below 0 it grows (it explodes).
    None for fewer than two layers, or where a gradient is 0. Layers of different kinds have gradients of
    different sizes for other reasons too: it compares networks of one shape.
    """
    if len(layers) < 2 or min(rms) <= 0:
        return None
    return float(np.polyfit(layers, np.log10(rms), 1)[0])


def rounded(values: Iterable[float]) -> tuple[float, ...]:
    """Four significant digits: they are stored with every trial."""
    return tuple(float(f"{value:.4g}") for value in values)
