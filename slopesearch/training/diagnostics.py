"""What a trained network looks like inside: dead units, saturation, gradient flow, the size of updates."""

from collections.abc import Iterable, Sequence
from math import isfinite

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slopesearch.config import Diagnostics, TrialConfig
from slopesearch.nets.activations import ACTIVATIONS, LearnableLeakyReLU

MOST_LAYERS = 32  # of a deeper network so many are told of, evenly spaced
SATURATED = 0.05  # a derivative below this share of the one at 0


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
            slopes.append((module.slope if raw else module.effective_slope()).item())
        elif isinstance(module, nn.PReLU):
            slopes.append(module.weight.mean().item())
    return tuple(slopes)


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
    return _rounded(torch.stack(ratios).tolist())


def _derivative(activation: nn.Module, z: Tensor) -> Tensor:
    """phi'(z), of z's shape; by autograd, so that it holds for every activation."""
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        (derivative,) = torch.autograd.grad(activation.forward(z).sum(), z)
    return derivative


class UnitWatch:
    """Inside this context, each image that passes through the network is looked at for units that are alive.

    A unit is a neuron, or a channel at every position. Of what goes into its activation only the smallest
    and the largest are kept: `alive` takes phi' there and where z came nearest to 0, which is enough for
    every phi whose derivative is 0 only on the outer sides.
    """

    def __init__(self, model: nn.Sequential) -> None:
        self.layers = hidden_layers(model)
        self.images = 0
        self._ends: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def __enter__(self) -> "UnitWatch":
        self._hooks = [layer.register_forward_pre_hook(self._look) for layer in self.layers.values()]
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    @torch.no_grad()
    def _look(self, layer: nn.Module, inputs: tuple[Tensor]) -> None:
        (z,) = inputs
        if layer is next(iter(self.layers.values())):
            self.images += len(z)
        dims = [0, *range(2, z.dim())]
        # torch reduces float32 four times as fast as bf16, with the conversion.
        low, high = z.float().amin(dims), z.float().amax(dims)
        if layer in self._ends:
            low, high = low.minimum(self._ends[layer][0]), high.maximum(self._ends[layer][1])
        self._ends[layer] = low.to(z.dtype), high.to(z.dtype)

    def alive(self) -> list[tuple[Tensor, Tensor]]:
        """For each layer (units,): which were above 0 for some image, which had a derivative for some."""
        found = []
        for layer in self.layers.values():
            low, high = self._ends[layer]
            places = torch.stack([low, high, torch.zeros_like(low).clamp(low, high)])
            found.append((high > 0, (_derivative(layer, places) != 0).any(0)))
        return found


def diagnose(
    model: nn.Sequential,
    config: TrialConfig,
    images: Tensor,
    labels: Tensor,
    watch: UnitWatch | None = None,
) -> Diagnostics | None:
    """What `Diagnostics` says of a network in evaluation mode, on images (N, 1, 28, 28) and labels (N,).

    `watch` has seen more images, those of the last validation: dead units are then the ones that are dead on
    all of them. None where a gradient is not finite.
    """
    model.eval()
    kept: list[Tensor] = []
    layers = hidden_layers(model)
    hooks = [
        layer.register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0])) for layer in layers.values()
    ]
    autocast = torch.autocast(images.device.type, torch.bfloat16, enabled=config.precision == "bf16")
    with torch.enable_grad(), autocast, UnitWatch(model) as short:
        loss = F.cross_entropy(model(images).float(), labels, reduction="sum")
    for hook in hooks:
        hook.remove()
    gradients = [g.double().square().mean().sqrt().item() for g in torch.autograd.grad(loss, kept)]
    if not all(map(isfinite, gradients)):
        return None

    watch = watch or short
    with autocast:  # as in the forward pass, where PReLU's weight meets its input in one precision
        alive = watch.alive()
        saturated = []
        if ACTIVATIONS[config.activation].bounded:
            for layer, z in zip(layers.values(), kept, strict=True):
                steepest = _derivative(layer, torch.zeros(1, device=z.device))
                saturated.append(_share(_derivative(layer, z) < SATURATED * steepest))
    dead = torch.cat([~passes for _, passes in alive])
    return Diagnostics(
        images=watch.images,
        layers=tuple(layers),
        never_active=_rounded(_share(~active) for active, _ in alive),
        zero_gradient=_rounded(_share(~passes) for _, passes in alive),
        inactive=_rounded(_share(z <= 0) for z in kept),
        saturated=_rounded(saturated),
        gradient_rms=_rounded(gradients),
        dead_fraction=_share(dead),
        grad_attenuation=attenuation(list(layers), gradients),
    )


def _share(condition: Tensor) -> float:
    return condition.float().mean().item()


def attenuation(layers: Sequence[int], rms: Sequence[float]) -> float | None:
    """The least-squares slope of log10(rms of the gradient) over the layers, in decades per layer.

    Above 0 the gradient shrinks on its way back to the input (it vanishes), below 0 it grows (it explodes).
    None for fewer than two layers, or where a gradient is 0. Layers of different kinds have gradients of
    different sizes for other reasons too: it compares networks of one shape.
    """
    if len(layers) < 2 or min(rms) <= 0:
        return None
    return float(np.polyfit(layers, np.log10(rms), 1)[0])


def _rounded(values: Iterable[float]) -> tuple[float, ...]:
    """Four significant digits: they are stored with every trial."""
    return tuple(float(f"{value:.4g}") for value in values)
