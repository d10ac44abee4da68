"""pack(models): K networks of one architecture as one network; unpack(k) gives a member back.

A weight layer is one operation for all members: a grouped convolution or a batched matrix product, and a
plain one on the images, which all members share. What stands between two weight layers may differ
(activation, BatchNorm): members with equal layers stand side by side, and each group runs its own layers on
its slice.

`torch.func.vmap` over the plain model is shorter, and slower: a step of the CNN takes 86 against 83 ms a
member without BatchNorm and 151 against 84 with it before, four members, 141 against 128 and 298 against 136
with sixteen (float32, one thread of a Zen 4, medians of 7, 2026-11-24, with the pool before the activation;
GPU not measured). Alone it takes 27
and 37 there, so a CPU gets no packs.

Shapes: K members, G of them in a group, B images, C channels or features of one member. Between layers, maps
are (B, K*C, H, W) and features (B, K*C), member by member. Every packed parameter has a leading K or G.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slopesearch.nets.activations import LearnableLeakyReLU, PReLU, leaky


def _stack(layers: Sequence[Any], name: str) -> Tensor:
    """A tensor of each layer, of that name, on a leading axis of their own."""
    return torch.stack([getattr(layer, name).detach() for layer in layers])


class _Linear(nn.Module):
    """weight (K, C_out, C_in), without the bias: (B, C_in) or (B, K*C_in) -> (B, K*C_out)."""

    def __init__(self, layers: Sequence[Any], shared_input: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(_stack(layers, "weight"))
        self.shared_input = shared_input

    def forward(self, x: Tensor) -> Tensor:
        if self.shared_input:
            return F.linear(x, self.weight.flatten(0, 1))
        by_member = x.view(len(x), len(self.weight), -1)
        y: Tensor = torch.einsum("bki,koi->bko", by_member, self.weight)
        return y.flatten(1)


class _Conv2d(nn.Module):
    """weight (K, C_out, C_in, kh, kw), without the bias: (B, C_in or K*C_in, H, W) -> (B, K*C_out, H, W)."""

    def __init__(self, layers: Sequence[Any], shared_input: bool) -> None:
        super().__init__()
        (self.padding,) = {layer.padding for layer in layers}
        self.weight = nn.Parameter(_stack(layers, "weight"))
        self.groups = 1 if shared_input else len(layers)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight.flatten(0, 1), padding=self.padding, groups=self.groups)


class _Bias(nn.Module):
    """bias (G, C) of a weight layer."""

    def __init__(self, layers: Sequence[Any]) -> None:
        super().__init__()
        self.bias = nn.Parameter(_stack(layers, "bias"))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bias.view(1, -1, *[1] * (x.dim() - 2)).to(x.dtype)


class _BatchNorm(nn.Module):
    """weight, bias, running_mean and running_var (G, C): statistics are per channel, so members are apart."""

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, layers: Sequence[Any]) -> None:
        super().__init__()
        ((self.momentum, self.eps),) = {(layer.momentum, layer.eps) for layer in layers}
        self.weight = nn.Parameter(_stack(layers, "weight"))
        self.bias = nn.Parameter(_stack(layers, "bias"))
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(name, _stack(layers, name))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.num_batches_tracked.add_(1)
        parts = (self.running_mean, self.running_var, self.weight, self.bias)
        mean, var, weight, bias = (part.flatten() for part in parts)
        return F.batch_norm(x, mean, var, weight, bias, self.training, self.momentum, self.eps)


def _leaky(x: Tensor, slope: Tensor) -> Tensor:
    """Leaky ReLU with a slope per member (G,) or per member and channel (G, C)."""
    if slope.dim() == 1:
        slope = slope[:, None].expand(-1, x.shape[1] // len(slope))
    return leaky(x, slope.flatten())


class _LeakyReLU(nn.Module):
    """A fixed slope (G,) per member; in float64 as in torch's layer, whose maps do not become wider by it."""

    slope: Tensor

    def __init__(self, layers: Sequence[nn.LeakyReLU]) -> None:
        super().__init__()
        slopes = [layer.negative_slope for layer in layers]
        self.register_buffer("slope", torch.tensor(slopes, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return _leaky(x, self.slope.to(torch.promote_types(x.dtype, torch.float32)))


class _LearnableLeakyReLU(nn.Module):
    """A learnable slope (G,) per member, each with its own bounds and clamp; see `LearnableLeakyReLU`."""

    low: Tensor
    high: Tensor
    forward_clamp: Tensor

    def __init__(self, layers: Sequence[LearnableLeakyReLU]) -> None:
        super().__init__()
        self.slope = nn.Parameter(_stack(layers, "slope"))
        self.register_buffer("low", self.slope.new_tensor([layer.slope_min for layer in layers]))
        self.register_buffer("high", self.slope.new_tensor([layer.slope_max for layer in layers]))
        self.register_buffer("forward_clamp", torch.tensor([layer.clamp == "forward" for layer in layers]))

    def forward(self, x: Tensor) -> Tensor:
        clamped = self.slope.clamp(self.low, self.high)
        return _leaky(x, torch.where(self.forward_clamp, clamped, self.slope))

    @torch.no_grad()
    def project(self) -> None:
        """Bring the slopes that are projected back into their ranges; after each optimizer step."""
        clamped = self.slope.clamp(self.low, self.high)
        self.slope.copy_(torch.where(self.forward_clamp, self.slope, clamped))


class _PReLU(nn.Module):
    """weight (G, C): a slope per channel."""

    def __init__(self, layers: Sequence[nn.PReLU]) -> None:
        super().__init__()
        self.weight = nn.Parameter(_stack(layers, "weight"))

    def forward(self, x: Tensor) -> Tensor:
        return _leaky(x, self.weight)


_WEIGHTS: dict[type[nn.Module], Callable[[Sequence[Any], bool], nn.Module]] = {
    nn.Linear: _Linear,
    nn.Conv2d: _Conv2d,
}
# Layers with something of their own for each member. Any other layer has none and serves the whole group.
_PACKED: dict[type[nn.Module], Callable[[Sequence[Any]], nn.Module]] = {
    nn.BatchNorm1d: _BatchNorm,
    nn.BatchNorm2d: _BatchNorm,
    nn.LeakyReLU: _LeakyReLU,
    LearnableLeakyReLU: _LearnableLeakyReLU,
    nn.PReLU: _PReLU,
    PReLU: _PReLU,
}


def _pack_layers(layers: Sequence[nn.Module]) -> nn.Module:
    first = layers[0]
    if type(first) in _PACKED:
        return _PACKED[type(first)](layers)
    if any(True for _ in first.parameters()) or any(True for _ in first.buffers()):
        raise TypeError(f"cannot pack a layer of type {type(first).__name__}; it needs an entry in _PACKED")
    return first


def _structure(model: nn.Sequential) -> tuple[tuple[str, str], ...]:
    """What members of a group have in common: the layers, and the settings of those that serve the group."""
    return tuple(
        (name, type(layer).__name__ if type(layer) in _PACKED else repr(layer))
        for name, layer in model.named_children()
    )


class _Home(NamedTuple):
    """Where a tensor of a member lives: a row of a tensor of a packed layer."""

    layer: nn.Module
    name: str
    row: int

    @property
    def tensor(self) -> Tensor:
        tensor: Tensor = getattr(self.layer, self.name)
        return tensor


class PackedModel(nn.Module):
    """K models as one: images (B, 1, 28, 28), the same for all -> logits (B, K, classes).

    `homes[k]` says, for each parameter and buffer of model k by its name there, where it lives here. The
    models that were packed stay as they are until `unpack` writes the values of now into one.
    """

    def __init__(self, models: Sequence[nn.Sequential]) -> None:
        super().__init__()
        # Sorted, so that the members of a group stand side by side.
        self.order = sorted(range(len(models)), key=lambda k: (_structure(models[k]), k))
        self.models = models
        self.homes: list[dict[str, _Home]] = [{} for _ in models]
        grouped = groupby(self.order, key=lambda k: _structure(models[k]))
        self.groups = [list(members) for _, members in grouped]
        self.place = [self.order.index(k) for k in range(len(models))]
        weights = [name for name, layer in models[0].named_children() if type(layer) in _WEIGHTS]
        self.head = nn.Sequential()  # what comes before the first weight, on the images
        self.weights = nn.ModuleList()
        self.between: Any = nn.ModuleList()  # after each weight: a Sequential for each group
        for name, layer in models[0].named_children():
            if name == weights[0]:
                break
            self.head.append(_pack_layers([layer]))
        for number, name in enumerate(weights):
            self._add_weight(name, shared_input=number == 0)
            end = weights[number + 1] if name != weights[-1] else None
            self.between.append(nn.ModuleList([self._between(group, name, end) for group in self.groups]))

    def _add_weight(self, name: str, shared_input: bool) -> None:
        layers = [self.models[k].get_submodule(name) for k in self.order]
        packed = _WEIGHTS[type(layers[0])](layers, shared_input)
        self.weights.append(packed)
        for row, k in enumerate(self.order):
            self.homes[k][f"{name}.weight"] = _Home(packed, "weight", row)

    def _between(self, group: list[int], weight: str, end: str | None) -> nn.Sequential:
        """The layers of a group from a weight's bias, if it has one, up to the next weight."""
        names = [name for name, _ in self.models[group[0]].named_children()]
        stretch = nn.Sequential()
        layers = [self.models[k].get_submodule(weight) for k in group]
        if layers[0].bias is not None:
            stretch.append(_Bias(layers))
            for row, k in enumerate(group):
                self.homes[k][f"{weight}.bias"] = _Home(stretch[-1], "bias", row)
        for name in names[names.index(weight) + 1 : names.index(end) if end else None]:
            layers = [self.models[k].get_submodule(name) for k in group]
            packed = _pack_layers(layers)
            stretch.append(packed)
            for row, k in enumerate(group):
                for tensor, _ in [*layers[0].named_parameters(), *layers[0].named_buffers()]:
                    self.homes[k][f"{name}.{tensor}"] = _Home(packed, tensor, row)
        return stretch

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, 1, 28, 28) -> logits (B, K, classes), members in the order of the models."""
        x = self.head(x)
        for weight, stretches in zip(self.weights, self.between, strict=True):
            x = weight(x)
            width = x.shape[1] // len(self.order)
            slices = torch.split(x, [len(group) * width for group in self.groups], dim=1)
            done = [stretch(part) for stretch, part in zip(stretches, slices, strict=True)]
            x = torch.cat(done, dim=1) if len(done) > 1 else done[0]
        return x.view(len(x), len(self.order), -1)[:, self.place]

    def members_of(self) -> Iterator[tuple[nn.Parameter, list[int]]]:
        """Each packed parameter with the member that each of its rows belongs to."""
        rows: dict[int, tuple[Tensor, dict[int, int]]] = {}
        for k, homes in enumerate(self.homes):
            for home in homes.values():
                rows.setdefault(id(home.tensor), (home.tensor, {}))[1][home.row] = k
        for tensor, members in rows.values():
            if isinstance(tensor, nn.Parameter):
                yield tensor, [members[row] for row in range(len(members))]

    @torch.no_grad()
    def project(self) -> None:
        """Bring learnable slopes back into their ranges; to be called after each optimizer step."""
        for layer in self.modules():
            if isinstance(layer, _LearnableLeakyReLU):
                layer.project()

    @torch.no_grad()
    def unpack(self, k: int) -> nn.Sequential:
        """Model k, with its parameters and buffers as they are now."""
        for name, tensor in [*self.models[k].named_parameters(), *self.models[k].named_buffers()]:
            home = self.homes[k][name]
            tensor.copy_(home.tensor[home.row])
        return self.models[k]
