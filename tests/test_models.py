"""The tutorial's networks, where BatchNorm goes, and what narrow ReLU nets do."""

import pytest
import torch
from torch import nn

from slopesearch.nets.activations import ACTIVATIONS, LearnableLeakyReLU, PReLU
from slopesearch.nets.models import build_model
from tests.conftest import make_config

IMAGES = torch.randn(16, 1, 28, 28, generator=torch.Generator().manual_seed(0))


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_parameter_counts_are_the_tutorials() -> None:
    assert count(build_model(make_config(width=128), IMAGES)) == 101_770
    assert count(build_model(make_config(model="cnn"), IMAGES)) == 421_642


@pytest.mark.parametrize("model", ["mlp", "cnn"])
@pytest.mark.parametrize(("norm", "per_channel"), [("before", 1), ("after", 2)])
def test_batchnorm_before_drops_the_redundant_bias(model: str, norm: str, per_channel: int) -> None:
    channels = 32 if model == "mlp" else 32 + 64 + 128
    plain = count(build_model(make_config(model=model), IMAGES))
    assert count(build_model(make_config(model=model, norm=norm), IMAGES)) == plain + per_channel * channels


@pytest.mark.parametrize("model", ["mlp", "cnn"])
@pytest.mark.parametrize("norm", ["none", "before", "after"])
def test_norm_stands_where_it_is_asked_for(model: str, norm: str) -> None:
    names = list(dict(build_model(make_config(model=model, norm=norm), IMAGES).named_children()))
    for i in (1, 2, 3) if model == "cnn" else (1,):
        assert (f"norm{i}" in names) == (norm != "none")
        if norm != "none":
            assert (names.index(f"norm{i}") < names.index(f"act{i}")) == (norm == "before")
    assert names[-1] == "out"  # no BatchNorm on the output layer


@pytest.mark.parametrize("depth", [1, 3, 10])
def test_depth_counts_hidden_layers(depth: int) -> None:
    model = build_model(make_config(depth=depth, width=16), IMAGES)
    assert sum(isinstance(layer, nn.Linear) for layer in model) == depth + 1
    assert model(IMAGES).shape == (16, 10)


ORDERS = {
    "none": ["linear", "act", "pool"],
    "before": ["linear", "norm", "act", "pool"],
    "after": ["linear", "act", "norm", "pool"],
}


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("norm", ORDERS)
def test_the_layers_stand_in_the_tutorials_order(activation: str, norm: str) -> None:
    order = ORDERS[norm]
    cnn = build_model(make_config(model="cnn", activation=activation, norm=norm))
    wanted = [f"{kind}{i}" for i in (1, 2) for kind in order]
    wanted += ["flatten", *[f"{kind}3" for kind in order[:-1]], "out"]
    assert [name for name, _ in cnn.named_children()] == wanted
    mlp = build_model(make_config(depth=2, activation=activation, norm=norm))
    wanted = ["flatten", *[f"{kind}{i}" for i in (1, 2) for kind in order[:-1]], "out"]
    assert [name for name, _ in mlp.named_children()] == wanted


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("norm", ORDERS)
@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_the_layers_are_torchs_own(model: str, norm: str, activation: str) -> None:
    """But for the learned slopes: nothing in a definition is there for speed."""
    net = build_model(make_config(model=model, activation=activation, norm=norm))
    assert type(net) is nn.Sequential
    for layer in net:
        assert type(layer).__module__.startswith("torch.nn.modules") or type(layer) is PReLU
    for parameter in net.parameters():
        assert parameter.dtype == torch.float32
        assert parameter.is_contiguous()
    learned = build_model(make_config(model=model, norm=norm, slope_mode="learnable"))
    assert {type(layer) for name, layer in learned.named_children() if name.startswith("act")} == {
        LearnableLeakyReLU
    }


@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_batchnorm_before_makes_the_weights_scale_irrelevant(model: str) -> None:
    net = build_model(make_config(model=model, norm="before"), IMAGES).train()
    before = net(IMAGES)
    with torch.no_grad():
        net.get_parameter("linear1.weight").mul_(7.0)
    torch.testing.assert_close(net(IMAGES), before, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("width", "depth"), [(2, 5), (3, 10), (4, 10)])
def test_share_of_narrow_relu_nets_with_a_dead_layer(width: int, depth: int) -> None:
    """At one input, with symmetric weights and no bias: 1 - (1 - 2^-N)^H (Lu et al. 2020, theorem 3.2).

    A layer is dead when all its N units are off, each with probability 1/2. 2,000 nets: the share is within
    four standard errors.
    """
    nets, dead = 2000, 0
    x = IMAGES[:1]
    for seed in range(nets):
        model = build_model(make_config(activation="relu", depth=depth, width=width, init_seed=seed), x)
        with torch.no_grad():
            y = x
            for layer in model:
                y = layer(y)
                if isinstance(layer, nn.ReLU) and not bool((y > 0).any()):
                    dead += 1
                    break
    expected = 1 - (1 - 2.0**-width) ** depth
    assert dead / nets == pytest.approx(expected, abs=4 * (expected * (1 - expected) / nets) ** 0.5)


def test_every_choice_reaches_the_network() -> None:
    base = build_model(make_config(model="cnn"), IMAGES)(IMAGES)
    for change in (
        {"activation": "elu"},
        {"negative_slope": 0.3},
        {"norm": "before"},
        {"norm": "after"},
        {"init": "orthogonal"},
        {"output_gain": "one"},
        {"init_seed": 9},
    ):
        assert not torch.equal(build_model(make_config(model="cnn", **change), IMAGES)(IMAGES), base)
