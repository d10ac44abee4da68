"""What is seen inside of a network: against hand-made networks whose answer is known."""

import copy
from math import log10
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from slopesearch.config import REPORTS
from slopesearch.nets.activations import ACTIVATIONS
from slopesearch.nets.models import build_model
from slopesearch.training.data import Data
from slopesearch.training.diagnostics import (
    MOST_LAYERS,
    attenuation,
    diagnose,
    hidden_layers,
    hidden_weights,
    slopes_of,
    told_layers,
    update_ratios,
)
from slopesearch.training.engine import DIAGNOSED, QUICK_DIAGNOSED, Alone, Member, train
from slopesearch.training.validation import Seen
from tests.conftest import make_config, run_to_end


def network(digits: Data, bias: list[float], weight: float = 0.0, **changes: object) -> Any:
    """One hidden layer with these biases; with weight 0, z is the bias for every image."""
    config = make_config(depth=1, width=len(bias), **changes)
    model: Any = build_model(config, digits.train_images)
    model.linear1.weight.data.fill_(weight)
    model.linear1.bias.data = torch.tensor(bias)
    return model


def test_relu_units_that_are_off_are_dead(digits: Data) -> None:
    config = make_config(activation="relu")
    model = network(digits, [-0.1, 0.1, -2.0, 3.0], activation="relu")
    found = diagnose(model, config, digits.val_images, digits.val_labels)
    assert found is not None
    assert (found.images, found.layers) == (397, (1,))
    assert found.never_active == found.zero_gradient == found.inactive == (0.5,)
    assert found.dead_fraction == 0.5
    assert found.saturated == ()
    assert not any(layer._forward_pre_hooks for layer in model.modules())  # nothing looks on afterwards


@pytest.mark.parametrize(("activation", "mode"), [("leaky_relu", "fixed"), ("leaky_relu", "learnable")])
def test_leaky_units_that_are_off_still_pass_a_gradient(digits: Data, activation: str, mode: str) -> None:
    config = make_config(activation=activation, slope_mode=mode)
    model = network(digits, [-1.0, 1.0, -2.0, 3.0], slope_mode=mode)
    found = diagnose(model, config, digits.val_images, digits.val_labels)
    assert found is not None
    assert found.never_active == (0.5,)
    assert found.zero_gradient == (0.0,)


@pytest.mark.parametrize("activation", ["tanh", "sigmoid"])
def test_saturation_of_bounded_activations(digits: Data, activation: str) -> None:
    config = make_config(activation=activation)
    # tanh' is below 5 % from |z| = 2.18 on, sigmoid' from twice that; at 200 float32 has none left.
    model = network(digits, [0.5, 1.0, -8.0, 200.0], activation=activation)
    found = diagnose(model, config, digits.val_images, digits.val_labels)
    assert found is not None
    assert found.saturated == (0.5,)
    assert found.zero_gradient == found.inactive == (0.25,)


def test_the_gradient_is_that_of_each_images_loss(digits: Data) -> None:
    config = make_config(activation="tanh", depth=3)
    model = build_model(config, digits.train_images).eval()
    found = diagnose(model, config, digits.val_images, digits.val_labels)
    assert found is not None
    squares: dict[str, Tensor] = {}
    for image, label in zip(digits.val_images[:40], digits.val_labels[:40], strict=True):
        x, zs = image[None], []
        for name, module in model.named_children():
            if name.startswith("act"):
                zs.append(x)
            x = module(x)
        gradients = torch.autograd.grad(nn.functional.cross_entropy(x, label[None]), zs)
        for i, gradient in enumerate(gradients):
            squares[str(i)] = squares.get(str(i), torch.zeros(())) + gradient.square().mean() / 40
    first = diagnose(model, config, digits.val_images[:40], digits.val_labels[:40])
    assert first is not None
    assert first.gradient_rms == pytest.approx([float(s.sqrt()) for s in squares.values()], rel=1e-3)
    assert first.grad_attenuation == pytest.approx(attenuation((1, 2, 3), first.gradient_rms), abs=1e-3)


def test_attenuation_is_decades_per_layer() -> None:
    assert attenuation([1, 2, 3], [1e-4, 1e-3, 1e-2]) == pytest.approx(1.0)
    assert attenuation([1, 3], [1.0, 0.01]) == pytest.approx(log10(0.01) / 2)
    assert attenuation([1], [0.5]) is None
    assert attenuation([1, 2], [0.0, 1.0]) is None


def test_a_unit_alive_on_one_image_of_all_is_alive(digits: Data) -> None:
    config = make_config(activation="relu")
    model = network(digits, [0.0, -1e9], activation="relu").eval()
    last = digits.val_images[-1].flatten()
    model.linear1.weight.data[0] = last
    model.linear1.bias.data[0] = -float(last @ last) * 0.999  # above zero for nearly nothing but itself
    images, labels = digits.val_images[:100], digits.val_labels[:100]
    found = diagnose(model, config, images, labels, digits.val_images[100:])
    alone = diagnose(model, config, images, labels)
    assert found is not None
    assert alone is not None
    assert (found.images, found.dead_fraction) == (397, 0.5)
    assert (alone.images, alone.dead_fraction) == (100, 1.0)
    assert found.never_active == found.zero_gradient == (0.5,)
    # Gradients and means are those of the first images alone.
    assert (found.inactive, found.gradient_rms) == (alone.inactive, alone.gradient_rms)


@pytest.mark.parametrize(("biases", "images"), [([1.0, 2.0], 100), ([1.0, -1.0], 397)])
def test_no_more_images_are_looked_at_when_all_units_are_alive(
    digits: Data, biases: list[float], images: int
) -> None:
    config = make_config(activation="relu")
    model = network(digits, biases, activation="relu")
    first, rest = digits.val_images[:100], digits.val_images[100:]
    found = diagnose(model, config, first, digits.val_labels[:100], rest)
    assert found is not None
    assert found.images == images


def test_a_unit_that_wakes_late_ends_the_search(digits: Data) -> None:
    config = make_config(activation="relu")
    model = network(digits, [0.0], activation="relu").eval()
    flat = digits.val_images.flatten(1)
    early = flat[:100] @ flat[100:].T  # an image of the last ones that is like none of the first
    late = flat[100 + int((early.amax(0) / flat[100:].square().sum(1)).argmin())]
    model.linear1.weight.data[0] = late
    model.linear1.bias.data[0] = -float(late @ late) * 0.999
    found = diagnose(model, config, digits.val_images[:100], digits.val_labels[:100], digits.val_images[100:])
    assert found is not None
    assert 100 < found.images <= len(digits.val_images)
    assert found.dead_fraction == 0.0


def test_not_a_number_gives_none(digits: Data) -> None:
    model = network(digits, [float("nan")] * 4)
    assert diagnose(model, make_config(), digits.val_images, digits.val_labels) is None


def test_deep_networks_are_told_of_in_part() -> None:
    assert told_layers(3) == [1, 2, 3]
    many = told_layers(1000)
    assert (len(many), many[0], many[-1]) == (MOST_LAYERS, 1, 1000)
    assert many == sorted(set(many))


def test_layers_weights_and_slopes_belong_together(digits: Data) -> None:
    config = make_config(model="cnn", norm="after", slope_mode="learnable", slope_clamp="forward")
    model: Any = build_model(config, digits.train_images)
    assert list(hidden_layers(model)) == [1, 2, 3]
    assert [weight.shape[0] for weight in hidden_weights(model)] == [32, 64, 128]
    model.act2.slope.data.fill_(5.0)
    assert slopes_of(model) == pytest.approx((0.01, 0.1, 0.01))  # slope_max is 0.1
    assert slopes_of(model, raw=True) == pytest.approx((0.01, 5.0, 0.01))


def test_update_ratios_are_relative() -> None:
    before = [torch.full((4, 4), 2.0), torch.full((3,), -1.0)]
    assert update_ratios(before, [before[0] * 1.001, before[1]]) == pytest.approx((1e-3, 0.0), abs=1e-6)


def test_every_run_brings_its_diagnostics(digits: Data) -> None:
    """On as many validation images as it takes for a whole run, on a few for one that was stopped."""
    config = make_config(activation="prelu", epochs=2)
    whole = run_to_end(config, digits)
    assert whole.diagnostics is not None
    assert DIAGNOSED <= whole.diagnostics.images <= 397
    assert len(whole.final.update_ratios) == len(whole.final.raw_slopes) == len(whole.diagnostics.layers)
    assert all(0 < ratio < 1 for ratio in whole.curve[2].update_ratios)
    run = train([config], digits, torch.device("cpu"))
    next(run)
    with pytest.raises(StopIteration) as end:
        run.send([0])
    (stopped,) = end.value.value
    assert stopped.ended == "pruned"
    assert stopped.diagnostics.images == QUICK_DIAGNOSED


@pytest.mark.parametrize(("step", "images"), [(1, QUICK_DIAGNOSED), (REPORTS, 397)])
def test_all_images_are_searched_for_one_that_wakes_a_unit_only_after_a_whole_run(
    digits: Data, step: int, images: int
) -> None:
    member = Member(make_config(activation="relu"), digits, torch.device("cpu"))
    member.model.get_parameter("linear1.bias").data[0] = -1e9
    member.report(step, 1.0, Seen(1.0, 0.5, (), (), ()), digits.classes)
    member.train_seconds = 1.0
    found = member.result(digits, torch.device("cpu")).diagnostics
    assert found is not None
    assert (found.images, found.dead_fraction) == (images, 1 / 32)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_is_diagnosed_in_bf16_too(digits: Data, activation: str) -> None:
    config = make_config(activation=activation, precision="bf16", norm="before")
    model = build_model(config, digits.train_images[:64])
    images, labels = digits.val_images[:50], digits.val_labels[:50]
    found = diagnose(model, config, images, labels)
    exact = diagnose(model, config.model_copy(update={"precision": "float32"}), images, labels)
    assert found is not None
    assert exact is not None
    assert found.inactive == pytest.approx(exact.inactive, abs=0.02)
    assert found.gradient_rms == pytest.approx(exact.gradient_rms, rel=0.05)


def test_a_gradient_that_all_but_vanishes_is_no_zero(digits: Data) -> None:
    config = make_config(activation="sigmoid", depth=40, init="default")
    model = build_model(config, digits.train_images[:64])
    found = diagnose(model, config, digits.val_images[:50], digits.val_labels[:50])
    assert found is not None
    assert min(found.gradient_rms) > 0
    assert found.grad_attenuation is not None
    assert found.grad_attenuation > 0.3


def test_a_run_that_diverged_has_none(digits: Data) -> None:
    result = run_to_end(make_config(lr=1e6), digits)
    assert (result.ended, result.diagnostics) == ("diverged", None)


@pytest.mark.parametrize("model", ["mlp", "cnn"])
@pytest.mark.parametrize("norm", ["none", "before", "after"])
@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"negative_slope": 0.25}, {"activation": "prelu"}),  # which starts from 0.25
        (
            {"negative_slope": 0.25},
            {"negative_slope": 0.25, "slope_mode": "learnable", "slope_max": 0.3},
        ),
        ({"activation": "relu"}, {"negative_slope": 0.0}),
    ],
)
def test_equal_functions_have_equal_diagnostics(
    digits: Data, one: dict[str, Any], other: dict[str, Any], norm: str, model: str
) -> None:
    """Whatever a CPU may do as one for the one of them and not for the other."""
    found = []
    for kind in (one, other):
        config = make_config(model=model, norm=norm, **kind)
        network = build_model(config, digits.train_images[:64])
        network.train()(digits.train_images[:64])  # BatchNorm has seen something
        labels = digits.val_labels[:100]
        found.append(diagnose(network, config, digits.val_images[:100], labels, digits.val_images[100:]))
    assert found[0] is not None
    assert found[1] is not None
    assert found[0].order == "tutorial"
    first, second = found[0].model_dump(), found[1].model_dump()
    assert first.keys() == second.keys()
    for name, value in first.items():  # four digits are kept
        told = value if isinstance(value, str | None) else pytest.approx(value, rel=1e-3)
        assert second[name] == told, name


@pytest.mark.parametrize("norm", ["none", "before", "after"])
@pytest.mark.parametrize("activation", ["relu", "gelu", "prelu"])
def test_a_trained_run_is_diagnosed_on_its_definition(digits: Data, activation: str, norm: str) -> None:
    """The accelerated network that trained leaves its parameters in the one that is looked at."""
    config = make_config(model="cnn", activation=activation, norm=norm)
    member = Member(config, digits, torch.device("cpu"))
    trainer = Alone([member], torch.device("cpu"))
    for _ in range(3):
        trainer.step(digits.train_images[:64], digits.train_labels[:64], 1.0)
    copied = nn.Sequential()
    for name, layer in copy.deepcopy(member.model).named_children():
        copied.add_module(name, layer)
    images, labels = digits.val_images[:128], digits.val_labels[:128]
    assert diagnose(member.model, config, images, labels) == diagnose(copied, config, images, labels)


def test_diagnostics_stored_without_an_order_stay_unordered(digits: Data) -> None:
    found = diagnose(build_model(make_config()), make_config(), digits.val_images, digits.val_labels)
    assert found is not None
    fields = found.model_dump()
    assert fields.pop("order") == "tutorial"
    assert type(found).model_validate(fields).order is None
