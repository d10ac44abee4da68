"""Scales of the inits, shared draws, LSUV."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from slopesearch.nets.activations import ACTIVATIONS, gain_of
from slopesearch.nets.initializers import INITS, fans, initialize
from slopesearch.nets.models import build_model
from tests.conftest import make_config

IMAGES = torch.randn(64, 1, 28, 28, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("init", "variance"),
    [
        ("default", lambda gain, fan_in, fan_out: 1 / (3 * fan_in)),
        ("kaiming_normal", lambda gain, fan_in, fan_out: gain**2 / fan_in),
        ("kaiming_uniform", lambda gain, fan_in, fan_out: gain**2 / fan_in),
        ("xavier_normal", lambda gain, fan_in, fan_out: 2 * gain**2 / (fan_in + fan_out)),
        ("xavier_uniform", lambda gain, fan_in, fan_out: 2 * gain**2 / (fan_in + fan_out)),
        ("orthogonal", lambda gain, fan_in, fan_out: gain**2 / max(fan_in, fan_out)),
        ("lsuv", lambda gain, fan_in, fan_out: 1 / max(fan_in, fan_out)),
    ],
)
@pytest.mark.parametrize("layer", [nn.Linear(300, 200), nn.Conv2d(32, 64, 3)])
def test_variance_is_the_papers(init: str, variance, layer: nn.Module) -> None:  # type: ignore[no-untyped-def]
    weight = layer.weight
    assert isinstance(weight, torch.Tensor)
    with torch.no_grad():
        INITS[init](weight, 1.3, torch.Generator().manual_seed(0))
    fan_in, fan_out = fans(weight)
    # Orthogonal kernels are orthogonal as (out, in * kh * kw) matrices.
    out = weight.shape[0] if init in ("orthogonal", "lsuv") else fan_out
    assert weight.var().item() == pytest.approx(variance(1.3, fan_in, out), rel=0.05)


def test_default_is_torchs_own_distribution() -> None:
    torch.manual_seed(0)
    torchs = nn.Linear(784, 500)
    ours = nn.Sequential(nn.Linear(784, 500))
    initialize(ours, "default", 1.0, 1.0, seed=0)
    layer = ours[0]
    for mine, theirs in ((layer.weight, torchs.weight), (layer.bias, torchs.bias)):
        assert isinstance(mine, torch.Tensor)
        assert mine.abs().max().item() == pytest.approx(theirs.abs().max().item(), rel=0.02)
        assert mine.std().item() == pytest.approx(theirs.std().item(), rel=0.05)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_matched_init_keeps_the_second_moment_over_20_layers(activation: str) -> None:
    """He et al. 2015, eq. 10: E[y^2] is the same at every layer, where torch's default loses a factor 6.

    The input is scaled so that the first layer's output has E[y^2] = 1, for which the gains are made.
    """
    x = torch.randn(256, 784, generator=torch.Generator().manual_seed(0)).view(-1, 1, 28, 28)

    def moments(init: str) -> list[float]:
        config = make_config(depth=20, width=1024, activation=activation, init=init)
        model, values, y = build_model(config, x), [], x
        y = y / gain_of(config)
        with torch.no_grad():
            for layer in model:
                y = layer(y)
                if isinstance(layer, nn.Linear):
                    values.append(y.pow(2).mean().item())
        return values[:-1]

    matched = moments("kaiming_normal")
    if activation not in ("gelu", "silu"):  # whose E[y^2] = 1 is a fixed point, but no stable one
        assert 0.7 < matched[-1] < 1.4
    assert all(0.8 < after / before < 1.25 for before, after in pairwise(matched)), matched
    if activation == "relu":
        default = [before / after for before, after in pairwise(moments("default")[:8])]
        # Biases of variance 1/(3 fan_in) keep a floor, so only the first layers show the pure factor.
        assert default[0] == pytest.approx(6, rel=0.15)


def test_two_configs_of_one_seed_share_their_draws() -> None:
    relu = build_model(make_config(activation="relu"), IMAGES)
    tanh = build_model(make_config(activation="tanh"), IMAGES)
    ratio = gain_of(make_config(activation="tanh")) / gain_of(make_config(activation="relu"))
    torch.testing.assert_close(
        tanh.get_parameter("linear1.weight"), relu.get_parameter("linear1.weight") * ratio
    )
    other = build_model(make_config(activation="relu", init_seed=3), IMAGES)
    assert not torch.equal(other.get_parameter("linear1.weight"), relu.get_parameter("linear1.weight"))


@pytest.mark.parametrize("model", ["mlp", "cnn"])
@pytest.mark.parametrize("norm", ["none", "before", "after"])
def test_lsuv_gives_every_layer_unit_variance(model: str, norm: str) -> None:
    config = make_config(model=model, norm=norm, init="lsuv", **({"depth": 8} if model == "mlp" else {}))
    net, y = build_model(config, IMAGES).train(), IMAGES
    with torch.no_grad():
        for layer in net:
            y = layer(y)
            if isinstance(layer, (nn.Linear, nn.Conv2d)):
                assert y.var().item() == pytest.approx(1, rel=1e-3)


def test_lsuv_leaves_the_running_statistics_as_they_were() -> None:
    net = build_model(make_config(model="cnn", norm="before", init="lsuv"), IMAGES)
    assert int(net.get_buffer("norm1.num_batches_tracked")) == 0
    assert torch.equal(net.get_buffer("norm1.running_var"), torch.ones(32))


def test_building_a_model_twice_is_bit_equal_whatever_the_global_rng() -> None:
    for init in INITS:
        torch.manual_seed(1)
        first = build_model(make_config(init=init), IMAGES).state_dict()
        torch.manual_seed(2)
        second = build_model(make_config(init=init), IMAGES).state_dict()
        assert all(torch.equal(first[name], second[name]) for name in first)


MATCHED = ["kaiming_normal", "kaiming_uniform", "xavier_normal", "xavier_uniform", "orthogonal"]


@pytest.mark.parametrize("model", ["mlp", "cnn"])
@pytest.mark.parametrize("activation", ["relu", "sigmoid", "leaky_relu"])
@pytest.mark.parametrize("init", INITS)
def test_the_output_layer_has_a_gain_of_1_or_that_of_the_hidden_ones(
    init: str, activation: str, model: str
) -> None:
    """The same draws; every other layer is the same to the bit."""
    config = make_config(model=model, activation=activation, init=init)
    one, hidden = (
        build_model(config.model_copy(update={"output_gain": name})).state_dict()
        for name in ("one", "hidden")
    )
    gain = gain_of(config) if init in MATCHED else 1.0
    assert gain != 1 or init in ("default", "lsuv")
    torch.testing.assert_close(hidden["out.weight"], one["out.weight"] * gain)
    for name in one.keys() - {"out.weight"}:
        assert torch.equal(one[name], hidden[name]), name


@pytest.mark.parametrize("gain", [1.0, 1.7])
@pytest.mark.parametrize("init", MATCHED)
def test_the_output_layers_variance_is_that_of_its_own_gain(init: str, gain: float) -> None:
    model = nn.Sequential(nn.Linear(300, 300), nn.ReLU(), nn.Linear(300, 200))
    initialize(model, init, 1.3, gain, seed=0)
    for name, expected, fan_out in (("0.weight", 1.3, 300), ("2.weight", gain, 200)):
        fans_in = {"xavier": (300 + fan_out) / 2}.get(init.split("_")[0], 300)
        assert model.get_parameter(name).var().item() == pytest.approx(expected**2 / fans_in, rel=0.05)


def test_what_was_stored_before_the_field_was_keeps_the_hidden_gain() -> None:
    fields = make_config(output_gain="one").model_dump()
    del fields["output_gain"]
    assert type(make_config()).model_validate(fields).output_gain == "hidden"
