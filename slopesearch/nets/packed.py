"""PackedModel: K networks of one architecture as one network; unpack(k) gives a member back.

A weight layer is one operation for all members: a grouped convolution or a batched matrix product, and a
plain one on the images, which all members share. What stands between two weight layers may differ
(activation, BatchNorm). Members with layers of the same names stand side by side in a section, where one
BatchNorm serves them all and equal activations share an operation; what every member ends with, like a pool,
is done once for all. A training step of 64 CNNs of 27 kinds is 298 operations, of 16 of 16 kinds 196; with
layers of their own for each kind it was 865 and 472 (`tests/test_pack_cost.py` counts them).

`torch.func.vmap` over the plain model is shorter, and slower: a step of the CNN takes 86 against 83 ms a
member without BatchNorm and 151 against 84 with it before, four members, 141 against 128 and 298 against 136
with sixteen (float32, one thread of a Zen 4, medians of 7, 2026-11-24, with the pool before the activation;
GPU not measured). Alone it takes 27
and 37 there, so a CPU gets no packs.

Shapes: K members, G of them in a run, B images, C channels or features of one member. Between layers, maps
are (B, K*C, H, W) and features (B, K*C), member by member, contiguous. Every packed parameter has a leading K
or G.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from math import inf
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slopesearch.nets.activations import LearnableLeakyReLU, PReLU, leaky


def _stack(layers: Sequence[Any], name: str) -> Tensor:
    """A tensor of each layer, of that name, on a leading axis of their own; contiguous, whatever they are."""
    return torch.stack([getattr(layer, name).detach() for layer in layers]).contiguous()


class _Weight(nn.Module):
    """weight (K, C_out, ...) and bias (K_b, C_out) of those K_b members whose layer has one, or None."""

    bias: nn.Parameter | None

    def __init__(self, layers: Sequence[Any], shared_input: bool) -> None:
        super().__init__()
        self.shared_input = shared_input
        self.weight = nn.Parameter(_stack(layers, "weight"))
        self.biased = [row for row, layer in enumerate(layers) if layer.bias is not None]
        self.bias = (
            nn.Parameter(_stack([layers[row] for row in self.biased], "bias")) if self.biased else None
        )
        self.register_buffer("rows", torch.tensor(self.biased))

    def biases(self) -> Tensor | None:
        """(K, C_out), zero for members without; None where nobody has one."""
        if self.bias is None or len(self.bias) == len(self.weight):
            return self.bias
        zeros = self.bias.new_zeros(len(self.weight), self.bias.shape[1])
        return zeros.index_copy(0, self.get_buffer("rows"), self.bias)


class _Linear(_Weight):
    """weight (K, C_out, C_in): (B, C_in) or (B, K*C_in) -> (B, K*C_out)."""

    def forward(self, x: Tensor) -> Tensor:
        bias = self.biases()
        if self.shared_input:
            return F.linear(x, self.weight.flatten(0, 1), None if bias is None else bias.flatten())
        by_member = x.view(len(x), len(self.weight), -1).transpose(0, 1)  # (K, B, C_in)
        weights = self.weight.transpose(1, 2)
        y = by_member @ weights if bias is None else torch.baddbmm(bias[:, None], by_member, weights)
        return y.transpose(0, 1).flatten(1)


class _Conv2d(_Weight):
    """weight (K, C_out, C_in, kh, kw): (B, C_in or K*C_in, H, W) -> (B, K*C_out, H, W)."""

    def __init__(self, layers: Sequence[Any], shared_input: bool) -> None:
        super().__init__(layers, shared_input)
        (self.padding,) = {layer.padding for layer in layers}

    def forward(self, x: Tensor) -> Tensor:
        bias, groups = self.biases(), 1 if self.shared_input else len(self.weight)
        flat = None if bias is None else bias.flatten()
        return F.conv2d(x, self.weight.flatten(0, 1), flat, padding=self.padding, groups=groups)


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
    """Leaky ReLU with a learned slope per member (G,) or per member and channel (G, C)."""
    return leaky(x.view(len(x), slope.numel(), -1), slope).view_as(x)


class _LeakyReLU(nn.Module):
    """A fixed slope (G,) per member; in float64 as in torch's layer, whose maps do not become wider by it.

    Nothing learns, so there is no gradient of the slopes to compute, as there is in PReLU's backward.
    """

    slope: Tensor
    one: Tensor

    def __init__(self, layers: Sequence[nn.LeakyReLU]) -> None:
        super().__init__()
        slopes = [layer.negative_slope for layer in layers]
        self.register_buffer("slope", torch.tensor(slopes, dtype=torch.float64))
        self.register_buffer("one", torch.ones(()))  # there, since a number would be written there each time

    def forward(self, x: Tensor) -> Tensor:
        by_member = x.view(len(x), len(self.slope), -1)
        slope = self.slope.to(torch.promote_types(x.dtype, torch.float32))[:, None]
        return (by_member * torch.where(by_member > 0, self.one, slope)).to(x.dtype).view_as(x)


def _fixed_leaky(layers: Sequence[nn.LeakyReLU]) -> nn.Module:
    one_slope = len({layer.negative_slope for layer in layers}) == 1
    return nn.LeakyReLU(layers[0].negative_slope) if one_slope else _LeakyReLU(layers)


class _LearnableLeakyReLU(nn.Module):
    """A learnable slope (G,) per member, each with its own bounds and clamp; see `LearnableLeakyReLU`."""

    def __init__(self, layers: Sequence[LearnableLeakyReLU]) -> None:
        super().__init__()
        self.slope = nn.Parameter(_stack(layers, "slope"))
        for clamp in ("project", "forward"):
            # A member that clamps at the other moment has no bounds at this one.
            lows = [layer.slope_min if layer.clamp == clamp else -inf for layer in layers]
            highs = [layer.slope_max if layer.clamp == clamp else inf for layer in layers]
            self.register_buffer(f"{clamp}_low", self.slope.new_tensor(lows))
            self.register_buffer(f"{clamp}_high", self.slope.new_tensor(highs))
        self.clamps_forward = any(layer.clamp == "forward" for layer in layers)

    def effective_slope(self) -> Tensor:
        """The slopes that the forward pass uses, (G,)."""
        if not self.clamps_forward:
            return self.slope
        return self.slope.clamp(self.get_buffer("forward_low"), self.get_buffer("forward_high"))

    def slopes(self) -> tuple[Tensor, Tensor]:
        """Each member's slope as the forward pass uses it, and the parameter behind it: (G,), (G,)."""
        return self.effective_slope(), self.slope

    def forward(self, x: Tensor) -> Tensor:
        return _leaky(x, self.effective_slope())


class _PReLU(nn.Module):
    """weight (G, C): a slope per channel."""

    def __init__(self, layers: Sequence[nn.PReLU]) -> None:
        super().__init__()
        self.weight = nn.Parameter(_stack(layers, "weight"))

    def slopes(self) -> tuple[Tensor, Tensor]:
        """Each member's mean slope, twice, as nothing bounds it: (G,), (G,)."""
        return (self.weight.mean(1),) * 2

    def forward(self, x: Tensor) -> Tensor:
        return _leaky(x, self.weight)


_WEIGHTS: dict[type[nn.Module], Callable[[Sequence[Any], bool], _Weight]] = {
    nn.Linear: _Linear,
    nn.Conv2d: _Conv2d,
}
# Layers with something of their own for each member. Any other layer has none and serves the whole group.
_PACKED: dict[type[nn.Module], Callable[[Sequence[Any]], nn.Module]] = {
    nn.BatchNorm1d: _BatchNorm,
    nn.BatchNorm2d: _BatchNorm,
    nn.LeakyReLU: _fixed_leaky,
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


def _kind(layer: nn.Module) -> str:
    """What members that share an operation have in common: the layer's type, and settings that serve all."""
    return type(layer).__name__ if type(layer) in _PACKED else repr(layer)


class _Home(NamedTuple):
    """Where a tensor of a member lives: a row of a tensor of a packed layer."""

    layer: nn.Module
    name: str
    row: int

    @property
    def tensor(self) -> Tensor:
        tensor: Tensor = getattr(self.layer, self.name)
        return tensor


def _stretches(layers: dict[str, nn.Module]) -> list[dict[str, nn.Module]]:
    """What follows each weight of a member, up to the next one, by name."""
    found: list[dict[str, nn.Module]] = [{}]
    for name, layer in layers.items():
        if type(layer) in _WEIGHTS:
            found.append({})
        else:
            found[-1][name] = layer
    return found[1:]


def _split(x: Tensor, counts: Sequence[int]) -> Sequence[Tensor]:
    """(B, K*C, ...) as parts of so many members."""
    width = x.shape[1] // sum(counts)
    return torch.split(x, [count * width for count in counts], dim=1) if len(counts) > 1 else [x]


def _join(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat(list(parts), dim=1) if len(parts) > 1 else parts[0]


class _Section(nn.Module):
    """The layers of members whose layers have the same names; at each place, one for each run of equal ones.

    (B, K*C, ...) of its members -> the parts of the result, run by run.
    """

    def __init__(self, places: Sequence[Sequence[tuple[int, nn.Module]]]) -> None:
        super().__init__()
        self.counts = [[count for count, _ in runs] for runs in places]  # members of each run
        self.places: Any = nn.ModuleList([nn.ModuleList([layer for _, layer in runs]) for runs in places])

    def forward(self, x: Tensor) -> list[Tensor]:
        parts = [x]
        for counts, layers in zip(self.counts, self.places, strict=True):
            slices = _split(_join(parts), counts)
            parts = [layer(part) for layer, part in zip(layers, slices, strict=True)]
        return parts


class _Between(nn.Module):
    """What stands between two weights, sections and then a tail that all members share: (B, K*C, ...)."""

    def __init__(self, sections: Sequence[tuple[int, _Section]], tail: Sequence[nn.Module]) -> None:
        super().__init__()
        self.counts = [count for count, _ in sections]
        self.sections = nn.ModuleList([section for _, section in sections])
        self.tail = nn.Sequential(*tail)

    def forward(self, x: Tensor) -> Tensor:
        slices = _split(x, self.counts)
        parts = [part for section, own in zip(self.sections, slices, strict=True) for part in section(own)]
        y: Tensor = self.tail(_join(parts))
        return y


class PackedModel(nn.Module):
    """K models as one: images (B, 1, 28, 28), the same for all -> logits (B, K, classes).

    `homes[k]` says, for each parameter and buffer of model k by its name there, where it lives here. The
    models that were packed stay as they are until `unpack` writes the values of now into one.
    """

    def __init__(self, models: Sequence[nn.Sequential]) -> None:
        super().__init__()
        self.models = models
        self.homes: list[dict[str, _Home]] = [{} for _ in models]
        # The layers that learn a slope, from the first on, with their name there and their members.
        self.learned: list[tuple[str, list[int], _LearnableLeakyReLU | _PReLU]] = []
        layers = [dict(model.named_children()) for model in models]
        # Sorted, so that the members of a section and of a run stand side by side.
        self.order = sorted(
            range(len(models)), key=lambda k: (list(layers[k]), list(map(_kind, layers[k].values())), k)
        )
        place = [self.order.index(k) for k in range(len(models))]
        self.register_buffer("place", torch.tensor(place))  # a list would be copied there at every step
        weights = [name for name, layer in layers[0].items() if type(layer) in _WEIGHTS]
        before_first = list(layers[0])[: list(layers[0]).index(weights[0])]
        self.head = nn.Sequential(*(_pack_layers([layers[0][name]]) for name in before_first))
        self.weights = nn.ModuleList()
        self.between = nn.ModuleList()  # after each weight
        stretches = [_stretches(layers[k]) for k in self.order]
        for number, name in enumerate(weights):
            self.weights.append(self._weight(name, shared_input=number == 0))
            self.between.append(self._between([own[number] for own in stretches]))

    def _weight(self, name: str, shared_input: bool) -> nn.Module:
        layers: list[Any] = [self.models[k].get_submodule(name) for k in self.order]
        packed = _WEIGHTS[type(layers[0])](layers, shared_input)
        for row, k in enumerate(self.order):
            self.homes[k][f"{name}.weight"] = _Home(packed, "weight", row)
        for row, place in enumerate(packed.biased):
            self.homes[self.order[place]][f"{name}.bias"] = _Home(packed, "bias", row)
        return packed

    def _between(self, stretches: Sequence[dict[str, nn.Module]]) -> nn.Module:
        """The layers of all members from a weight up to the next one; of each member, in order, by name."""
        tail: list[nn.Module] = []
        while all(stretches):
            last = [list(stretch.values())[-1] for stretch in stretches]
            if type(last[0]) in _PACKED or len(set(map(repr, last))) > 1:
                break
            tail.insert(0, _pack_layers(last))
            for stretch in stretches:
                stretch.popitem()
        sections = []
        for names, alike in groupby(zip(self.order, stretches, strict=True), key=lambda pair: list(pair[1])):
            members, some = zip(*alike, strict=True)
            places = [self._runs(name, members, [stretch[name] for stretch in some]) for name in names]
            sections.append((len(members), _Section(places)))
        return _Between(sections, tail)

    def _runs(
        self, name: str, members: Sequence[int], layers: Sequence[nn.Module]
    ) -> list[tuple[int, nn.Module]]:
        """The layers of one name in a section, equal neighbours packed, each with its number of members."""
        runs = []
        for _, run in groupby(zip(members, layers, strict=True), key=lambda pair: _kind(pair[1])):
            some, alike = map(list, zip(*run, strict=True))
            packed = _pack_layers(alike)
            runs.append((len(some), packed))
            for row, k in enumerate(some):
                for tensor, _ in [*alike[0].named_parameters(), *alike[0].named_buffers()]:
                    self.homes[k][f"{name}.{tensor}"] = _Home(packed, tensor, row)
            if isinstance(packed, _LearnableLeakyReLU | _PReLU):
                self.learned.append((name, some, packed))
        return runs

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, 1, 28, 28) -> logits (B, K, classes), members in the order of the models."""
        x = self.head(x)
        for weight, between in zip(self.weights, self.between, strict=True):
            x = between(weight(x))
        return x.view(len(x), len(self.models), -1).index_select(1, self.get_buffer("place"))

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
        """Bring the slopes that are projected back into their ranges; after each optimizer step."""
        layers = [layer for _, _, layer in self.learned if isinstance(layer, _LearnableLeakyReLU)]
        if layers:
            slopes: Any = [layer.slope for layer in layers]
            bounds: Any = [
                (layer.get_buffer("project_low"), layer.get_buffer("project_high")) for layer in layers
            ]
            torch._foreach_maximum_(slopes, [low for low, _ in bounds])
            torch._foreach_minimum_(slopes, [high for _, high in bounds])

    @torch.no_grad()
    def unpack(self, k: int) -> nn.Sequential:
        """Model k, with its parameters and buffers as they are now."""
        for name, tensor in [*self.models[k].named_parameters(), *self.models[k].named_buffers()]:
            home = self.homes[k][name]
            tensor.copy_(home.tensor[home.row])
        return self.models[k]
