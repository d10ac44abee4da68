"""INITS: fill the weights of a model, each from its own seed and the activation's gain."""

from collections.abc import Callable
from math import sqrt

import torch
from torch import Tensor, nn

from slopesearch.seeds import derive

# (weight of shape (out, in) or (out, in, kh, kw), the activation's gain, generator) -> filled in place
Fill = Callable[[Tensor, float, torch.Generator], object]


def fans(weight: Tensor) -> tuple[int, int]:
    """(fan_in, fan_out) of a linear or convolution weight: connections per unit, receptive field counted."""
    field = weight[0, 0].numel()
    return weight.shape[1] * field, weight.shape[0] * field


def _normal(weight: Tensor, std: float, generator: torch.Generator) -> None:
    weight.normal_(generator=generator).mul_(std)


def _uniform(weight: Tensor, bound: float, generator: torch.Generator) -> None:
    weight.uniform_(-1, 1, generator=generator).mul_(bound)


def _torch_default(weight: Tensor, gain: float, generator: torch.Generator) -> None:
    # torch's Linear and Conv2d: kaiming_uniform(a=sqrt(5)), which is U(-1/sqrt(fan_in), 1/sqrt(fan_in)).
    _uniform(weight, 1 / sqrt(fans(weight)[0]), generator)


INITS: dict[str, Fill] = {
    "default": _torch_default,
    # He et al. 2015: variance gain^2 / fan_in.
    "kaiming_normal": lambda w, gain, g: _normal(w, gain / sqrt(fans(w)[0]), g),
    "kaiming_uniform": lambda w, gain, g: _uniform(w, gain * sqrt(3 / fans(w)[0]), g),
    # Glorot and Bengio 2010: variance gain^2 * 2 / (fan_in + fan_out).
    "xavier_normal": lambda w, gain, g: _normal(w, gain * sqrt(2 / sum(fans(w))), g),
    "xavier_uniform": lambda w, gain, g: _uniform(w, gain * sqrt(6 / sum(fans(w))), g),
    # Saxe et al. 2014.
    "orthogonal": lambda w, gain, g: nn.init.orthogonal_(w, gain, generator=g),
    # Mishkin and Matas 2016: orthonormal first, then scaled on data by `scale_to_unit_variance`.
    "lsuv": lambda w, gain, g: nn.init.orthogonal_(w, 1.0, generator=g),
}


@torch.no_grad()
def initialize(model: nn.Sequential, init: str, gain: float, output_gain: float, seed: int) -> None:
    """Fill every Linear and Conv2d of the model; each layer draws from its own seed.

    So two models of one seed share their draws, whatever their gains: `gain` for the hidden layers, before
    an activation, `output_gain` for the last one. Biases are zero, but torch's own U(-1/sqrt(fan_in),
    1/sqrt(fan_in)) for "default". BatchNorm and slopes keep torch's start.
    """
    weighted = [(name, m) for name, m in model.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    for name, layer in weighted:
        generator = torch.Generator().manual_seed(derive(seed, name, "weight"))
        INITS[init](layer.weight, output_gain if layer is weighted[-1][1] else gain, generator)
        if layer.bias is not None and init == "default":
            generator = torch.Generator().manual_seed(derive(seed, name, "bias"))
            _uniform(layer.bias, 1 / sqrt(fans(layer.weight)[0]), generator)
        elif layer.bias is not None:
            layer.bias.zero_()


@torch.no_grad()
def scale_to_unit_variance(model: nn.Sequential, images: Tensor) -> None:
    """LSUV (Mishkin and Matas 2016, algorithm 1): scale each weight until its layer's output has variance 1.

    `images` (N, 1, H, W) is a batch of training images. A layer without bias is linear in its weight, so
    one division per layer is exact and no iteration is needed. BatchNorm's running statistics are reset.
    """
    model.train()
    x = images
    for layer in model:
        x = layer(x)
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            std = x.std()
            if std > 0:  # else every unit before it is dead on this batch, and no scale helps
                layer.weight /= std
                x = x / std
        elif isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            layer.reset_running_stats()
