"""The tutorial's networks, where BatchNorm goes, and what narrow ReLU nets do."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from slopesearch.nets.activations import ACTIVATIONS
from slopesearch.nets.models import build_model
from slopesearch.nets.pooling import MaxPool2x2
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


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("norm", ["none", "before", "after"])
def test_pooling_first_changes_nothing(activation: str, norm: str) -> None:
    """The order in the model against conv, norm, activation, pool as the tutorial writes it.

    In double precision: two numbers of a window that are equal in single precision may win by turns.
    """
    model = build_model(make_config(model="cnn", activation=activation, norm=norm), IMAGES).double()
    images = IMAGES.double()
    layers = dict(model.named_children())
    order = ["linear", "norm", "act"] if norm == "before" else ["linear", "act", "norm"]

    def tutorial(x: torch.Tensor) -> torch.Tensor:
        for i in (1, 2, 3):
            for kind in [*order, "pool"]:
                name = f"{kind}{i}"
                x = layers[name](x) if name in layers else x
            x = x.flatten(1) if i == 2 else x
        return layers["out"](x)  # type: ignore[no-any-return]

    torch.testing.assert_close(model(images), tutorial(images))
    grads = torch.autograd.grad(model(images).pow(2).sum(), list(model.parameters()))
    want = torch.autograd.grad(tutorial(images).pow(2).sum(), list(model.parameters()))
    torch.testing.assert_close(grads, want)


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
        {"init_seed": 9},
    ):
        assert not torch.equal(build_model(make_config(model="cnn", **change), IMAGES)(IMAGES), base)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(3, 4, 8, 6), (2, 32, 28, 28), (1, 1, 2, 2), (5, 3, 4, 4)])
def test_the_compiled_max_pool_is_torchs_bit_for_bit(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    """Values, which of equal ones gets the gradient, -0 and infinities; rounding makes ties common."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).round(decimals=1).to(dtype)
    x.view(-1)[:4] = torch.tensor([0.0, -0.0, float("inf"), float("-inf")], dtype=dtype)
    x = x.to(memory_format=torch.channels_last).requires_grad_()
    dy = torch.randn(MaxPool2x2()(x).shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    got, want = MaxPool2x2()(x), F.max_pool2d(x, 2)
    assert torch.equal(got, want)
    (dx,), (want_dx,) = torch.autograd.grad(got, x, dy), torch.autograd.grad(want, x, dy)
    assert torch.equal(dx, want_dx)
    assert dx.dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_compiled_max_pool_passes_nan_on(dtype: torch.dtype, sign: float) -> None:
    for place in range(4):
        x = torch.tensor([3.0, float("inf"), 2.0, 4.0], dtype=dtype).view(1, 1, 2, 2)
        x.view(-1)[place] = sign * float("nan")
        assert MaxPool2x2()(x.to(memory_format=torch.channels_last)).isnan().all()
