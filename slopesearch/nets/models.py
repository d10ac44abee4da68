"""MODELS: a TrialConfig becomes a plain nn.Sequential, initialised, in float32 on the CPU."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from slopesearch.config import TrialConfig
from slopesearch.nets.activations import ACTIVATIONS, gain_of
from slopesearch.nets.initializers import initialize, scale_to_unit_variance

CLASSES = 10
PIXELS = 28 * 28

Layers = OrderedDict[str, nn.Module]


@dataclass(frozen=True)
class Model:
    """How to build a network, and which sizes it takes (with their defaults; None: it takes none)."""

    build: Callable[[TrialConfig], Layers]
    depth: int | None = None
    width: int | None = None


def _block(
    config: TrialConfig, i: int, linear: nn.Module, norm: nn.Module, pools: bool, channels: int
) -> Layers:
    """The layers around one hidden weight, as the tutorial writes them: linear, norm, activation, pool.

    BatchNorm before the activation makes the bias of `linear` redundant; the caller leaves it out.
    """
    activation = ACTIVATIONS[config.activation].make(config, channels)
    layers: Layers = OrderedDict({f"linear{i}": linear})
    if config.norm == "before":
        layers[f"norm{i}"] = norm
    layers[f"act{i}"] = activation
    if config.norm == "after":
        layers[f"norm{i}"] = norm
    if pools:
        layers[f"pool{i}"] = nn.MaxPool2d(2)
    return layers


def _mlp(config: TrialConfig) -> Layers:
    """Linear layers of equal width: 784-128-10 (101,770 parameters) at depth 1 and width 128."""
    if config.depth is None or config.width is None:
        raise ValueError(f"an mlp needs depth and width, given {config.depth} and {config.width}")
    layers: Layers = OrderedDict({"flatten": nn.Flatten()})
    fan_in = PIXELS
    for i in range(1, config.depth + 1):
        linear = nn.Linear(fan_in, config.width, bias=config.norm != "before")
        layers |= _block(config, i, linear, nn.BatchNorm1d(config.width), False, config.width)
        fan_in = config.width
    layers["out"] = nn.Linear(fan_in, CLASSES)
    return layers


def _cnn(config: TrialConfig) -> Layers:
    """Two 3x3 convolutions of 32 and 64 channels, each max-pooled by 2, then 128 units.

    421,642 parameters without BatchNorm.
    """
    layers: Layers = OrderedDict()
    fan_in = 1
    for i, channels in enumerate((32, 64), start=1):
        conv = nn.Conv2d(fan_in, channels, 3, padding=1, bias=config.norm != "before")
        layers |= _block(config, i, conv, nn.BatchNorm2d(channels), True, channels)
        fan_in = channels
    layers["flatten"] = nn.Flatten()
    linear = nn.Linear(64 * 7 * 7, 128, bias=config.norm != "before")
    layers |= _block(config, 3, linear, nn.BatchNorm1d(128), False, 128)
    layers["out"] = nn.Linear(128, CLASSES)
    return layers


MODELS: dict[str, Model] = {
    "mlp": Model(_mlp, depth=1, width=128),
    "cnn": Model(_cnn),
}


def count_parameters(config: TrialConfig) -> int:
    """How many numbers the network of a config has to learn; nothing is allocated."""
    with torch.device("meta"):
        layers = MODELS[config.model].build(config)
    return sum(parameter.numel() for layer in layers.values() for parameter in layer.parameters())


def build_model(config: TrialConfig, images: Tensor | None = None) -> nn.Sequential:
    """The network of a config, initialised.

    `images` (N, 1, 28, 28), float32 on the CPU: training images, which "lsuv" scales its weights on; without
    them they stay orthonormal. The forward pass takes images (N, 1, 28, 28) and returns logits (N, 10).
    """
    model = nn.Sequential(MODELS[config.model].build(config))
    gain = gain_of(config)
    # No activation follows the output layer, so that its theory has a gain of 1.
    output_gain = 1.0 if config.output_gain == "one" else gain
    initialize(model, config.init, gain, output_gain, config.init_seed)
    if config.init == "lsuv" and images is not None:
        scale_to_unit_variance(model, images)
    return model
