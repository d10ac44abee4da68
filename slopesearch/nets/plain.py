"""A trained model in torch's own layers alone, and as the code that builds it."""

from collections import OrderedDict

from torch import nn

from slopesearch.nets.activations import LearnableLeakyReLU, PReLU


def as_torch(model: nn.Sequential) -> nn.Sequential:
    """The same function in layers that torch has itself, for those who load it without this package.

    A learned slope becomes a PReLU with one weight; everything that torch has is shared, not copied.
    """
    return nn.Sequential(OrderedDict((name, _as_torch(layer)) for name, layer in model.named_children()))


def _as_torch(layer: nn.Module) -> nn.Module:
    if isinstance(layer, LearnableLeakyReLU):
        prelu = nn.PReLU(1)
        nn.init.constant_(prelu.weight, layer.effective_slope().item())
        return prelu
    if isinstance(layer, PReLU):
        prelu = nn.PReLU(layer.num_parameters)
        prelu.weight = layer.weight
        return prelu
    return layer


def as_code(model: nn.Sequential) -> str:
    """Python that builds a model of torch's own layers, under the names of its state_dict."""
    # torch's repr of a layer is the call that makes it. From 2.15 on it names BatchNorm's bias, which older
    # versions do not take and which is there by default.
    layers = [
        f'    ("{name}", nn.{repr(layer).replace(", bias=True", "")}),'
        for name, layer in model.named_children()
    ]
    return "\n".join(["nn.Sequential(OrderedDict([", *layers, "]))"])
