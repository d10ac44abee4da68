"""accelerate(model) is the same function as the model, planned once, and leaves alone what it cannot do."""

import ast
import copy
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from math import inf
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numba
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import slopesearch
from slopesearch.nets import cpu
from slopesearch.nets.activations import ACTIVATIONS, LearnableLeakyReLU, PReLU
from slopesearch.nets.cpu import accelerate, loops, plan
from slopesearch.nets.models import build_model
from slopesearch.nets.packed import PackedModel
from slopesearch.nets.plain import as_torch
from tests.conftest import CommandLine, make_config

KINDS: dict[str, dict[str, Any]] = {name: {"activation": name} for name in ACTIVATIONS} | {
    f"leaky_relu-{clamp}": {"slope_mode": "learnable", "slope_clamp": clamp}
    for clamp in ("project", "forward")
}


def fast_of(model: nn.Sequential) -> nn.Module:
    fast = accelerate(model)
    assert fast is not model
    return fast


def random_map(*shape: int, seed: int = 0) -> Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return x.contiguous(memory_format=torch.channels_last) if len(shape) == 4 else x


def randomise(model: nn.Sequential) -> nn.Sequential:
    """Away from where it starts: falling and rising lines of BatchNorm, slopes of both signs, biases."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d) and layer.affine:
                layer.weight.uniform_(-1.5, 1.5, generator=generator)
                layer.bias.uniform_(-1, 1, generator=generator)
            elif isinstance(layer, nn.PReLU):
                layer.weight.uniform_(-1.3, 1.6, generator=generator)
            elif isinstance(layer, nn.Linear | nn.Conv2d) and layer.bias is not None:
                layer.bias.uniform_(-0.2, 0.2, generator=generator)
    return model


def results(model: nn.Module, x: Tensor, dy: Tensor | None = None) -> dict[str, Tensor]:
    """What a model gives, and the gradients of its parameters, for a random loss."""
    model.zero_grad()
    y = model(x)
    if dy is None:
        dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(9))
    (y.float() if y.dtype == torch.bfloat16 else y).backward(
        dy.to(torch.promote_types(y.dtype, torch.float32))
    )
    found = {"output": y.detach()}
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        found[name.removeprefix("model.")] = parameter.grad.clone()
    return found


def close(ours: dict[str, Tensor], theirs: dict[str, Tensor], tolerance: float) -> None:
    """Within a share of each tensor's largest number."""
    assert ours.keys() == theirs.keys()
    for name, wanted in theirs.items():
        size = wanted.abs().max().item() if wanted.numel() else 0.0
        mine, difference = ours[name], (ours[name].double() - wanted.double()).abs()
        assert mine.shape == wanted.shape
        largest = difference.max().item() if difference.numel() else 0.0
        assert largest <= tolerance * size, f"{name}: off by {largest:.2g}, the largest is {size:.2g}"


def statistics(model: nn.Module) -> dict[str, Tensor]:
    return {name.removeprefix("model."): tensor.clone() for name, tensor in model.named_buffers()}


def same(fast: nn.Module, exact: nn.Module, shape: tuple[int, ...], tolerance: float = 2e-5) -> None:
    """In training and in evaluation, forward, backward and in what BatchNorm remembers.

    Where two numbers of a window are equal to rounding the winner is chance, on some images, but not on all:
    it is enough to be the same on one draw of them.
    """
    for training in (True, False):
        fast.train(training)
        exact.train(training)
        for seed in range(8):
            images = random_map(*shape, seed=seed)
            ours, theirs = results(fast, images), results(exact, images.double())
            try:
                close(ours, theirs, tolerance)
                break
            except AssertionError:
                if seed == 7:
                    raise
        close(statistics(fast), statistics(exact), tolerance)


def distance(ours: Tensor, theirs: Tensor) -> float:
    difference, size = (ours.double() - theirs.double()).norm(), theirs.double().norm()
    return float(difference / size.clamp(min=1e-30))


def as_good_in_bf16(plain: nn.Sequential, shape: tuple[int, ...]) -> None:
    """As close to the exact function as torch's autocast, in training and in evaluation; see `same`."""
    for seed in range(4):
        exact, torchs, fast = (
            copy.deepcopy(plain).double(),
            copy.deepcopy(plain),
            fast_of(copy.deepcopy(plain)),
        )
        try:
            for training in (True, False):
                _as_close(exact.train(training), torchs.train(training), fast.train(training), shape, seed)
            return
        except AssertionError:
            if seed == 3:
                raise


def _as_close(
    exact: nn.Module, torchs: nn.Module, fast: nn.Module, shape: tuple[int, ...], seed: int
) -> None:
    images = random_map(*shape, seed=seed)
    wanted = results(exact, images.double())
    with torch.autocast("cpu", torch.bfloat16):
        ours, theirs = results(fast, images), results(torchs, images)
    for name, tensor in wanted.items():
        if tensor.dim():  # a single slope's gradient is what is left of a sum of opposites
            assert distance(ours[name], tensor) < 3 * distance(theirs[name], tensor) + 2**-6, name
    for name, tensor in statistics(exact).items():
        assert (
            distance(statistics(fast)[name], tensor) < 2 * distance(statistics(torchs)[name], tensor) + 2**-6
        )


# --- the same function


@pytest.mark.parametrize("model", ["mlp", "cnn"])
@pytest.mark.parametrize("norm", ["none", "before", "after"])
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_same_function(kind: str, norm: str, model: str) -> None:
    plain = randomise(build_model(make_config(model=model, norm=norm, **KINDS[kind])))
    if model == "cnn":  # as the engine has it
        plain = plain.to(memory_format=torch.channels_last)
    same(fast_of(plain), copy.deepcopy(plain).double(), (6, 1, 28, 28))
    as_good_in_bf16(plain, (16, 1, 28, 28))


def test_it_gives_what_autocast_gives() -> None:
    fast = fast_of(build_model(make_config(model="cnn", norm="before")))
    with torch.autocast("cpu", torch.bfloat16):
        assert fast(random_map(2, 1, 28, 28)).dtype == torch.bfloat16
    assert fast(random_map(2, 1, 28, 28)).dtype == torch.float32


@pytest.mark.parametrize("clamp", ["project", "forward"])
def test_it_shares_the_parameters(clamp: str) -> None:
    config = make_config(model="cnn", norm="before", slope_mode="learnable", slope_clamp=clamp)
    plain = build_model(config)
    fast, images = fast_of(plain), random_map(8, 1, 28, 28)
    assert {id(p) for p in fast.parameters()} == {id(p) for p in plain.parameters()}
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1)
    before = fast(images)
    before.square().mean().backward()
    optimizer.step()
    after = fast(images).detach()
    assert not torch.allclose(after, before)
    torch.testing.assert_close(after, plain(images).detach(), rtol=1e-4, atol=1e-4)
    plain.eval()
    torch.testing.assert_close(fast(images), plain(images), rtol=1e-4, atol=1e-4)


def test_what_is_loaded_or_unpacked_into_the_model_is_seen() -> None:
    configs = [make_config(model="cnn", activation="prelu", norm="before", init_seed=seed) for seed in (1, 2)]
    models = [build_model(config).eval() for config in configs]
    fast, images = fast_of(models[0]), random_map(4, 1, 28, 28)
    fast(images)
    models[0].load_state_dict(models[1].state_dict())
    torch.testing.assert_close(fast(images), models[1](images), rtol=1e-4, atol=1e-4)
    packed = PackedModel(models)
    with torch.no_grad():
        for parameter in packed.parameters():
            parameter.mul_(0.5)
    torch.testing.assert_close(fast(images), models[1](images), rtol=1e-4, atol=1e-4)
    packed.unpack(0), packed.unpack(1)
    torch.testing.assert_close(fast(images), models[1](images), rtol=1e-4, atol=1e-4)


# --- planned once


def test_it_is_planned_once_for_a_shape_a_precision_and_a_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Tensor] = []

    def counted(layers: Any, x: Tensor, dtype: torch.dtype) -> Any:
        calls.append(x)
        return planned(layers, x, dtype)

    planned = plan.plan
    monkeypatch.setattr(plan, "plan", counted)
    norm = nn.BatchNorm2d(32)
    fast = fast_of(nn.Sequential(nn.Conv2d(1, 32, 3, padding=1), norm, nn.ReLU(), nn.MaxPool2d(2)))

    def forward(*shape: int) -> int:
        for _ in range(3):
            fast(random_map(*shape))
        return len(calls)

    assert forward(4, 1, 8, 8) == 1
    fast.eval()
    assert forward(4, 1, 8, 8) == 2
    fast.train()
    assert forward(4, 1, 8, 8) == 2
    assert forward(7, 1, 8, 8) == 2  # the number of images is no part of the shape
    assert forward(4, 1, 12, 8) == 3
    assert forward(4, 1, 8, 8) == 3
    norm.eval()
    assert forward(4, 1, 8, 8) == 4
    norm.train()
    with torch.autocast("cpu", torch.bfloat16):
        assert forward(4, 1, 8, 8) == 5
    assert forward(4, 1, 8, 8) == 5


@pytest.mark.parametrize("sizes", [(1, 5), (5, 1), (4, 0)])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_plan_holds_for_any_number_of_images(channels: int, sizes: tuple[int, int]) -> None:
    layers = [nn.Conv2d(channels, 32, 3, padding=1), nn.GELU(), nn.MaxPool2d(2)]
    layers += [nn.Conv2d(32, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.MaxPool2d(2), nn.Flatten()]
    model = nn.Sequential(*layers, nn.Linear(8, 3))
    fast = fast_of(model)
    for count in sizes:
        x = random_map(count, channels, 8, 8)
        torch.testing.assert_close(fast(x), model(x), rtol=1e-4, atol=1e-5)


def test_a_plan_holds_for_any_layout_of_the_images() -> None:
    model = nn.Sequential(nn.SiLU(), nn.MaxPool2d(2), nn.BatchNorm2d(8), nn.MaxPool2d(2))
    fast, x = fast_of(model), random_map(4, 8, 8, 8)
    for images in (x, x.contiguous(), x.transpose(2, 3), x[:, :, ::2, ::2].repeat(1, 1, 2, 2)):
        torch.testing.assert_close(fast(images), model(images), rtol=1e-4, atol=1e-5)


def test_a_plan_holds_for_any_layout_behind_a_convolution() -> None:
    model = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), PReLU(32), nn.MaxPool2d(2), nn.GELU()).eval()
    fast, wide = fast_of(model), random_map(4, 3, 16, 16)
    for precision in (torch.float32, torch.bfloat16):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16), torch.no_grad():
            for images in (wide[:, :, ::2, ::2], wide[:, :, :8, :8].contiguous(), wide):
                torch.testing.assert_close(fast(images), model(images), rtol=2e-2, atol=2e-2)
            model.to(memory_format=torch.channels_last)
            torch.testing.assert_close(fast(wide), model(wide), rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("layers", [[nn.GELU()], [nn.BatchNorm2d(4), nn.GELU()]], ids=["gelu", "norm"])
def test_under_autocast_a_map_that_no_product_made_stays_float32(layers: list[nn.Module]) -> None:
    model, images = nn.Sequential(*layers, nn.MaxPool2d(2)).eval(), random_map(2, 4, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        ours, theirs = fast_of(model)(images), model(images)
    assert ours.dtype == theirs.dtype == torch.float32
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_in_inference_mode_it_is_the_same_function() -> None:
    model = build_model(make_config(activation="gelu", model="cnn")).eval()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        images = random_map(2, 1, 28, 28)
        torch.testing.assert_close(fast_of(model)(images), model(images), rtol=5e-2, atol=5e-2)


def test_a_second_derivative_is_refused() -> None:
    layers = [nn.Conv2d(1, 4, 3, padding=1), nn.Tanh(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 2)]
    model = nn.Sequential(*layers)
    loss = fast_of(model)(random_map(2, 1, 8, 8)).square().sum()
    gradients = torch.autograd.grad(loss, list(model.parameters()), create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        sum(g.square().sum() for g in gradients).backward()  # type: ignore[union-attr]


def test_numbers_without_bounds_warn_of_nothing() -> None:
    model = build_model(make_config(activation="relu", norm="after", model="cnn"))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1e30)
    fast_of(model)(random_map(4, 1, 28, 28)).sum().backward()


# --- a pool jumps where it may


def prelu_of_both_signs(channels: int) -> PReLU:
    layer = PReLU(channels)
    with torch.no_grad():
        layer.weight.copy_(torch.linspace(-1.37, 1.61, channels))
    return layer


class Falling(nn.LeakyReLU):
    """An activation of the user's own."""

    def forward(self, x: Tensor) -> Tensor:
        return -x


JUMPED = {
    "relu": nn.ReLU(),
    "leaky": nn.LeakyReLU(0.1),
    "learnable": LearnableLeakyReLU(0.1, 0.001, 0.3, "project"),
    "prelu": prelu_of_both_signs(32),
    "gelu": nn.GELU(),
    "gelu-tanh": nn.GELU("tanh"),
    "silu": nn.SiLU(),
    "elu": nn.ELU(),
    "tanh": nn.Tanh(),
    "sigmoid": nn.Sigmoid(),
}
NOT_JUMPED = {
    "mish": nn.Mish(),
    "inplace-relu": nn.ReLU(inplace=True),
    "inplace-silu": nn.SiLU(inplace=True),
    "inplace-elu": nn.ELU(inplace=True),
    "falling-leaky": nn.LeakyReLU(-0.5),
    "falling-elu": nn.ELU(alpha=-1.0),
    "falling-subclass": Falling(),
    "softmax": nn.Softmax(1),
    "torchs-prelu": nn.PReLU(32, init=-0.3),
}


def network_around(activation: nn.Module, before: str) -> nn.Sequential:
    """A network whose last pool follows `activation` on a map that `before` makes."""
    first: dict[str, list[nn.Module]] = {
        "stem": [nn.Conv2d(1, 32, 3, padding=1)],
        "conv": [nn.Conv2d(1, 32, 3, padding=1), nn.Conv2d(32, 32, 3, padding=1)],
        "norm": [nn.Conv2d(1, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32)],
        "map": [nn.Conv2d(1, 32, 3, padding=1), nn.Identity()],
    }
    torch.manual_seed(1)
    return randomise(nn.Sequential(*first[before], copy.deepcopy(activation), nn.MaxPool2d(2)))


@pytest.mark.parametrize("before", ["stem", "conv", "norm", "map"])
@pytest.mark.parametrize("name", [*JUMPED, *NOT_JUMPED])
def test_activation_and_pool_are_the_same_function(name: str, before: str) -> None:
    plain = network_around({**JUMPED, **NOT_JUMPED}[name], before)
    same(fast_of(plain), copy.deepcopy(plain).double(), (4, 1, 8, 8))
    as_good_in_bf16(plain, (4, 1, 8, 8))


@pytest.mark.parametrize("name", [*JUMPED, *NOT_JUMPED])
def test_a_pool_jumps_where_the_winners_stay_and_nowhere_else(name: str) -> None:
    activation = copy.deepcopy({**JUMPED, **NOT_JUMPED}[name])
    images = random_map(2, 1, 8, 8)
    found, _ = plan.plan([nn.Conv2d(1, 32, 3, padding=1), activation, nn.MaxPool2d(2)], images, torch.float32)
    assert found[0](images).shape[2] == (4 if name in JUMPED else 8)


GRID = torch.linspace(-6, 6, 4001, dtype=torch.float64)


def values_of(layer: nn.Module, weight: float | None = None) -> Tensor:
    layer = copy.deepcopy(layer).double()
    if isinstance(layer, nn.PReLU) and weight is not None:
        nn.init.constant_(layer.weight, weight)
    if isinstance(layer, LearnableLeakyReLU) and weight is not None:
        nn.init.constant_(layer.slope, min(max(weight, layer.slope_min), layer.slope_max))
    values: Tensor = layer(GRID[:, None].clone()).detach().flatten()
    return values


def registered() -> list[tuple[str, nn.Module]]:
    return [(name, ACTIVATIONS[kind.get("activation", "leaky_relu")].make(make_config(**kind), 1))
            for name, kind in KINDS.items()]  # fmt: skip


@pytest.mark.parametrize("weight", [-0.4, 0.3, 1.5])
@pytest.mark.parametrize(("name", "layer"), registered())
def test_what_the_plan_says_of_a_registered_activation_is_true(
    name: str, layer: nn.Module, weight: float
) -> None:
    values = values_of(layer, weight)
    rises = values.diff() > 0
    if plan._never_falls(layer):
        assert (values.diff() >= 0).all()
    elif plan._falls_then_rises(layer):
        assert (rises.int().diff() >= 0).all()
    else:
        pytest.fail(f"the plan knows nothing of {name}")


@pytest.mark.parametrize("name", NOT_JUMPED)
def test_what_the_plan_says_of_any_other_activation_is_true(name: str) -> None:
    layer = NOT_JUMPED[name]
    if name in ("softmax", "torchs-prelu"):  # no function of one number, with one slope a channel
        assert not plan._never_falls(layer)
        assert not plan._falls_then_rises(layer)
        return
    values = values_of(layer)
    assert not plan._never_falls(layer) or bool((values.diff() >= 0).all())
    assert not plan._falls_then_rises(layer) or bool(((values.diff() > 0).int().diff() >= 0).all())


# --- what the plan cannot do is the plain layer's


class Doubled(nn.Conv2d):
    """A convolution of the user's own."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def stem_of(channels: int = 32, **changes: Any) -> nn.Conv2d:
    return nn.Conv2d(1, channels, 3, padding=1, **changes)


ODD: dict[str, tuple[list[nn.Module], tuple[int, ...]]] = {
    "norm without weights": (
        [stem_of(bias=False), nn.BatchNorm2d(32, affine=False), nn.MaxPool2d(2)],
        (4, 1, 8, 8),
    ),
    "norm with a mean of all": (
        [stem_of(bias=False), nn.BatchNorm2d(32, momentum=None), nn.MaxPool2d(2)],
        (4, 1, 8, 8),
    ),
    "norm that remembers nothing": (
        [stem_of(bias=False), nn.BatchNorm2d(32, track_running_stats=False), nn.MaxPool2d(2)],
        (4, 1, 8, 8),
    ),
    "norm of a kind of its own, after": (
        [stem_of(), nn.Tanh(), nn.BatchNorm2d(32, affine=False), nn.MaxPool2d(2)],
        (4, 1, 8, 8),
    ),
    "group norm": ([stem_of(), nn.GroupNorm(4, 32), nn.ReLU(), nn.MaxPool2d(2)], (4, 1, 8, 8)),
    "odd height": ([stem_of(), nn.ReLU(), nn.MaxPool2d(2)], (4, 1, 7, 8)),
    "odd width": ([stem_of(), nn.ReLU(), nn.MaxPool2d(2)], (4, 1, 8, 7)),
    "odd map": (
        [stem_of(), nn.MaxPool2d(2), nn.Conv2d(32, 8, 3, padding=1), nn.GELU(), nn.MaxPool2d(2)],
        (4, 1, 6, 6),
    ),
    "odd map and norm": ([stem_of(bias=False), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)], (4, 1, 5, 9)),
    "three channels": ([nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)], (4, 3, 8, 8)),
    "a kernel of 5": ([nn.Conv2d(1, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)], (4, 1, 8, 8)),
    "a kernel of 5, later": (
        [stem_of(), nn.Conv2d(32, 8, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)],
        (4, 1, 8, 8),
    ),
    "no padding": ([nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 8, 3), nn.MaxPool2d(2)], (4, 1, 8, 8)),
    "padding by name": ([nn.Conv2d(1, 32, 3, padding="same"), nn.MaxPool2d(2)], (4, 1, 8, 8)),
    "padding by reflection": ([stem_of(padding_mode="reflect"), nn.MaxPool2d(2)], (4, 1, 8, 8)),
    "a stride": ([stem_of(stride=2), nn.Conv2d(32, 8, 3, padding=1, stride=2), nn.ReLU()], (4, 1, 8, 8)),
    "groups": ([stem_of(), nn.Conv2d(32, 8, 3, padding=1, groups=2), nn.MaxPool2d(2)], (4, 1, 8, 8)),
    "pool of 3": ([stem_of(), nn.ReLU(), nn.MaxPool2d(3)], (4, 1, 9, 9)),
    "pool with a stride": ([stem_of(), nn.ReLU(), nn.MaxPool2d(2, stride=1)], (4, 1, 8, 8)),
    "pool with padding": ([stem_of(), nn.ReLU(), nn.MaxPool2d(2, padding=1)], (4, 1, 8, 8)),
    "pool rounded up": ([stem_of(), nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True)], (4, 1, 7, 7)),
    "pool with dilation": ([stem_of(), nn.ReLU(), nn.MaxPool2d(2, dilation=2)], (4, 1, 8, 8)),
    "average pool": ([stem_of(), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(32, 8, 3, padding=1)], (4, 1, 8, 8)),
    "a convolution of one's own": ([Doubled(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)], (4, 1, 8, 8)),
    "a convolution of one's own, later": (
        [stem_of(), Doubled(32, 8, 3, padding=1), nn.MaxPool2d(2)],
        (4, 1, 8, 8),
    ),
    "24 channels": ([stem_of(24), nn.Conv2d(24, 7, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)], (4, 1, 8, 8)),
    "one channel": ([stem_of(1), nn.Conv2d(1, 1, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)], (4, 1, 8, 8)),
    "19 channels and norm": (
        [stem_of(19, bias=False), nn.BatchNorm2d(19), nn.SiLU(), nn.MaxPool2d(2)],
        (4, 1, 6, 10),
    ),
    "only a pool": ([nn.MaxPool2d(2)], (2, 5, 4, 6)),
    "norm first": ([nn.BatchNorm2d(5), nn.MaxPool2d(2)], (2, 5, 4, 6)),
    "norm and no pool": ([stem_of(), nn.ReLU(), nn.BatchNorm2d(32)], (4, 1, 8, 8)),
    "no batch": ([stem_of(), nn.ReLU(), nn.MaxPool2d(2)], (1, 8, 8)),
    "layers in layers": ([nn.Sequential(stem_of(), nn.ReLU()), nn.MaxPool2d(2), nn.Flatten()], (4, 1, 8, 8)),
    "flatten in part": ([stem_of(), nn.Flatten(2), nn.Linear(64, 3)], (4, 1, 8, 8)),
    "a linear of one's map": ([stem_of(), nn.ReLU(), nn.Linear(8, 3)], (4, 1, 8, 8)),
    "dropout of nothing": ([stem_of(), nn.Dropout(0.0), nn.MaxPool2d(2)], (4, 1, 8, 8)),
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_what_it_cannot_do_is_the_plain_layers(name: str, precision: str) -> None:
    layers, shape = ODD[name]
    torch.manual_seed(0)
    plain = randomise(copy.deepcopy(nn.Sequential(*layers)))
    if not list(plain.parameters()):
        images = random_map(*shape)
        assert torch.equal(fast_of(plain)(images), plain(images))
    elif precision == "bf16":
        as_good_in_bf16(plain, shape)
    else:
        same(fast_of(plain), copy.deepcopy(plain).double(), shape)


def test_images_in_float64_are_done_in_float64() -> None:
    model = build_model(make_config(model="cnn", activation="gelu", norm="before")).double()
    images = random_map(4, 1, 28, 28).double()
    assert torch.equal(fast_of(model).eval()(images), model.eval()(images))


@pytest.mark.parametrize("norm", ["none", "before", "after"])
@pytest.mark.parametrize("activation", ["relu", "gelu", "prelu"])
def test_images_may_require_a_gradient(activation: str, norm: str) -> None:
    plain = randomise(build_model(make_config(model="cnn", activation=activation, norm=norm))).eval()
    exact, fast = copy.deepcopy(plain).double(), fast_of(plain)
    fast(random_map(2, 1, 28, 28))  # planned for images without a gradient before
    mine = random_map(2, 1, 28, 28).requires_grad_()
    theirs = mine.detach().double().requires_grad_()
    results(fast, mine), results(exact, theirs)
    assert mine.grad is not None
    assert theirs.grad is not None
    assert distance(mine.grad, theirs.grad) < 1e-3  # a winner may be chance


@pytest.mark.parametrize("norm", ["before", "after"])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_batchnorm_may_be_frozen_while_the_rest_trains(activation: str, norm: str) -> None:
    plain = randomise(build_model(make_config(model="cnn", activation=activation, norm=norm)))
    plain(random_map(8, 1, 28, 28, seed=3))

    exact, fast = copy.deepcopy(plain).double(), fast_of(plain)
    norms = [m for model in (plain, exact) for m in model if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    before = statistics(plain)
    for layer in norms:
        layer.eval()
        layer.train = lambda mode=True, layer=layer: layer  # type: ignore[method-assign]
    same(fast, exact, (4, 1, 28, 28))
    assert all(torch.equal(tensor, before[name]) for name, tensor in statistics(plain).items())


def test_frozen_weights_get_no_gradient() -> None:
    plain = build_model(make_config(model="cnn", norm="before", activation="prelu"))
    for name, parameter in plain.named_parameters():
        parameter.requires_grad_(name.startswith("out"))
    fast_of(plain)(random_map(4, 1, 28, 28)).sum().backward()
    got = {name for name, parameter in plain.named_parameters() if parameter.grad is not None}
    assert got == {"out.weight", "out.bias"}


# --- numbers


@pytest.mark.parametrize("ratio", [10, 100, 1000])
@pytest.mark.parametrize("activation", [None, nn.ReLU(), nn.GELU()])
def test_batchnorm_of_a_map_far_from_zero_is_as_good_as_torchs(
    ratio: float, activation: nn.Module | None
) -> None:
    model = nn.Sequential(nn.BatchNorm2d(8), *([] if activation is None else [activation]), nn.MaxPool2d(2))
    _is_as_good_as_torch(model, random_map(64, 8, 14, 14) + ratio)


@pytest.mark.parametrize("ratio", [1, 10])  # images are normalised; nearly constant ones would cancel
def test_batchnorm_of_the_first_convolution_far_from_zero_is_as_good_as_torchs(ratio: float) -> None:
    conv = stem_of(8, bias=False)
    with torch.no_grad():
        conv.weight.zero_()[:, 0, 1, 1] = torch.linspace(0.5, 2, 8)  # else the border widens the spread
    _is_as_good_as_torch(
        nn.Sequential(conv, nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)), random_map(64, 1, 14, 14) + ratio
    )


def _is_as_good_as_torch(model: nn.Sequential, x: Tensor) -> None:
    torchs, exact = copy.deepcopy(model), copy.deepcopy(model).double()
    wanted, theirs, ours = exact(x.double()), torchs(x), fast_of(model)(x)
    for mine, other, right in [
        (ours, theirs, wanted),
        *zip(model.buffers(), torchs.buffers(), exact.buffers(), strict=True),
    ]:
        size = right.double().abs().max().item()
        allowed = 2 * (other.double() - right).abs().max().item() + 1e-6 * size
        assert (mine.double() - right).abs().max().item() <= allowed


def test_a_channel_that_never_changes_gives_its_bias() -> None:
    norm = nn.BatchNorm2d(2)
    with torch.no_grad():
        norm.bias.copy_(torch.tensor([0.5, -2.0]))
    x = torch.full((4, 2, 4, 4), 3.0).contiguous(memory_format=torch.channels_last).requires_grad_()
    y = fast_of(nn.Sequential(norm, nn.MaxPool2d(2)))(x)
    y.sum().backward()
    torch.testing.assert_close(y.detach(), norm.bias.view(1, 2, 1, 1).expand_as(y).detach())
    assert x.grad is not None
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("activation", [None, nn.ReLU(), nn.GELU(), prelu_of_both_signs(4)])
def test_one_infinite_weight_gives_as_many_nans_as_torch(
    activation: nn.Module | None, precision: str
) -> None:
    conv = stem_of(4)
    with torch.no_grad():
        conv.weight[2, 0, 1, 1] = inf  # the middle: no library multiplies it by the border
    plain = nn.Sequential(conv, *([] if activation is None else [activation]), nn.MaxPool2d(2))
    plain = plain.to(memory_format=torch.channels_last)  # on another map torch's gelu(inf) is not a number
    images = random_map(4, 1, 8, 8)
    images[images.abs() < 0.3] = 0  # times infinity is not a number, in any place of a window
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        ours, theirs = fast_of(plain)(images), plain(images)
    assert theirs.isnan().any()
    if not isinstance(activation, nn.GELU):  # which makes NaN of minus infinity
        assert not theirs[:, 2].isnan().all()
    assert torch.equal(ours.isnan(), theirs.isnan())


@pytest.mark.parametrize("pools", [False, True])
def test_rounding_to_bf16_keeps_not_a_number(pools: bool) -> None:
    conv = stem_of(4)
    with torch.no_grad():
        conv.bias[1] = torch.tensor(0x7FFFFFFF, dtype=torch.int32).view(torch.float32)  # type: ignore[index]
    with torch.autocast("cpu", torch.bfloat16):
        y = fast_of(nn.Sequential(conv, *[nn.MaxPool2d(2)] * pools))(random_map(2, 1, 4, 4))
    assert y.dtype == torch.bfloat16
    assert y[:, 1].isnan().all()
    assert y[:, [0, 2, 3]].isfinite().all()


@pytest.mark.parametrize("norm", [False, True])
def test_not_a_number_in_a_weight_stays_in_its_channel(norm: bool) -> None:
    model = nn.Sequential(stem_of(4, bias=not norm), *[nn.BatchNorm2d(4)] * norm, nn.MaxPool2d(2))
    with torch.no_grad():
        model.get_parameter("0.weight")[2, 0, 1, 1] = float("nan")
    y = fast_of(model)(random_map(2, 1, 4, 4))
    assert y[:, 2].isnan().all()
    assert y[:, [0, 1, 3]].isfinite().all()


def test_not_a_number_comes_through_batchnorm_before_a_pool() -> None:
    x = random_map(2, 3, 4, 4)
    x[1, 2, 3, 3] = float("nan")
    y = fast_of(nn.Sequential(nn.BatchNorm2d(3), nn.MaxPool2d(2)))(x)
    assert y[:, 2].isnan().all()
    assert y[:, :2].isfinite().all()


def test_not_a_number_reaches_the_gradients() -> None:
    conv = nn.Conv2d(32, 3, 3, padding=1)
    x = random_map(2, 32, 4, 4).requires_grad_()
    dy = torch.ones(2, 3, 2, 2)
    dy[1, 2, 1, 1] = float("nan")
    fast_of(nn.Sequential(conv, nn.MaxPool2d(2)))(x).backward(dy)
    assert conv.weight.grad is not None
    assert x.grad is not None
    assert conv.weight.grad[2].isnan().any()
    assert conv.weight.grad[:2].isfinite().all()
    assert x.grad[0].isfinite().all()
    assert x.grad[1].isnan().any()


@pytest.mark.parametrize("seed", range(20))
def test_any_network_of_these_layers_is_the_same_function(seed: int) -> None:
    """Drawn at random: sizes, channels, biases, norms, activations, with and without pools."""
    generator = torch.Generator().manual_seed(seed)

    def pick(choices: Any) -> Any:
        return choices[int(torch.randint(len(choices), (), generator=generator))]

    channels, layers = 1, list[nn.Module]()
    for _ in range(pick([1, 2, 3])):
        width = pick([3, 16, 32, 64])
        place = pick([None, 0, 1])  # of BatchNorm, before or after the activation
        layers.append(nn.Conv2d(channels, width, 3, padding=1, bias=place != 0 and pick([True, False])))
        channels = width
        kinds = [nn.ReLU(), nn.GELU(), nn.Tanh(), nn.LeakyReLU(0.2), prelu_of_both_signs(width)]
        between: list[nn.Module] = [pick(kinds)]
        if place is not None:
            between.insert(place, nn.BatchNorm2d(width))
        layers += between + [nn.MaxPool2d(2)] * pick([0, 1])
    torch.manual_seed(seed)
    plain = randomise(nn.Sequential(*layers, nn.Flatten()))
    shape = (pick([1, 3, 4]), 1, pick([8, 16]), pick([8, 24]))
    same(fast_of(plain), copy.deepcopy(plain).double(), shape)


@pytest.mark.parametrize("size", [(8, 12), (12, 8)])
def test_an_oblong_map_of_several_blocks_is_convolved_and_pooled_in_one(size: tuple[int, int]) -> None:
    layers = [nn.Conv2d(1, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 32, 3, padding=1), nn.ReLU()]
    plain = randomise(nn.Sequential(*layers, nn.MaxPool2d(2), nn.Flatten()))
    same(fast_of(plain), copy.deepcopy(plain).double(), (2, 1, *size))


# --- learned slopes are used as they are


SLOPE = 0.0123  # between two numbers of bf16


def with_slope(kind: str, channels: int) -> nn.Module:
    if kind == "prelu":
        return PReLU(channels, SLOPE)
    return LearnableLeakyReLU(SLOPE, 0.001, 0.1, kind)


@pytest.mark.parametrize("kind", ["prelu", "project", "forward"])
def test_a_learned_slope_is_not_rounded_in_bf16(kind: str) -> None:
    """In the model, accelerated, in a pack; and exported in float32."""
    x = -torch.linspace(0.5, 2, 64).to(torch.bfloat16).float().view(4, 1, 4, 4)
    exact = x.double() * torch.tensor(SLOPE).double()
    conv = stem_of(1, bias=False)
    nn.init.dirac_(conv.weight)  # the map is the image
    model = nn.Sequential(conv, with_slope(kind, 1))
    line = nn.Linear(16, 16, bias=False)
    nn.init.eye_(line.weight)
    flat = nn.Sequential(line, with_slope(kind, 16))
    with torch.autocast("cpu", torch.bfloat16):
        got = [model(x), fast_of(model)(x), flat(x.flatten(1)), fast_of(flat)(x.flatten(1))]
        got += [PackedModel([flat, copy.deepcopy(flat)])(x.flatten(1))[:, 1]]
    for y in got:
        assert y.dtype == torch.bfloat16
        assert torch.equal(y.flatten(), exact.to(torch.bfloat16).flatten())
    assert torch.equal(as_torch(model)(x).detach(), x * torch.tensor(SLOPE))


@pytest.mark.parametrize("kind", ["prelu", "project", "forward"])
def test_the_gradient_of_a_slope_is_summed_in_float32(kind: str) -> None:
    """A sum of equal numbers in bf16 stands still at 256 of them."""
    images = torch.full((64, 1, 8, 8), -1.0)
    for accelerated in (False, True):
        conv = stem_of(1, bias=False)
        nn.init.dirac_(conv.weight)
        model = nn.Sequential(conv, with_slope(kind, 1))
        with torch.autocast("cpu", torch.bfloat16):
            y = (fast_of(model) if accelerated else model)(images)
        y.backward(torch.ones_like(y))
        (slope,) = (parameter for name, parameter in model.named_parameters() if name.startswith("1."))
        assert slope.grad is not None
        assert slope.grad.dtype == torch.float32
        assert slope.grad.item() == pytest.approx(-4096, rel=1e-4)


# --- where the loops are off, or do not compile


@pytest.fixture
def _forgets_whether_the_loops_compile() -> Iterator[None]:
    cpu.kernels_compile.cache_clear()
    yield
    cpu.kernels_compile.cache_clear()


def python(program: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_off_gives_the_model_itself() -> None:
    program = (
        "import sys; from torch import nn; from slopesearch.nets.cpu import accelerate\n"
        "model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU())\n"
        "print(accelerate(model) is model, 'numba' in sys.modules)"
    )
    assert python(program, SLOPESEARCH_KERNELS="off") == "True False\n"
    assert python(program, SLOPESEARCH_KERNELS="OFF ") == "True False\n"
    assert python(program, SLOPESEARCH_KERNELS="on", NUMBA_DISABLE_JIT="1") == "True True\n"
    assert python(program, SLOPESEARCH_KERNELS="on") == "False True\n"


@pytest.mark.usefixtures("_forgets_whether_the_loops_compile")
def test_a_machine_where_nothing_compiles_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*arguments: Any, **settings: Any) -> None:
        raise NotImplementedError("no such processor\nand more that nobody reads")

    monkeypatch.setattr(numba, "njit", refuse)
    monkeypatch.delitem(sys.modules, "slopesearch.nets.cpu.loops")
    monkeypatch.delattr(cpu, "loops")
    models = [build_model(make_config(model=model)) for model in ("cnn", "mlp", "cnn")]
    with caplog.at_level(logging.WARNING, logger="slopesearch"):
        assert all(accelerate(model) is model for model in models)
    (record,) = [record for record in caplog.records if record.name == "slopesearch"]
    assert "NotImplementedError: no such processor)" in record.getMessage()
    assert "SLOPESEARCH_KERNELS=off" in record.getMessage()
    assert models[0](random_map(2, 1, 28, 28)).shape == (2, 10)


@pytest.mark.parametrize("kernels", ["off", "on"])
def test_a_study_runs_where_the_loops_are_off_or_do_not_compile(
    slopesearch: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernels: str
) -> None:
    shadow, loaded = tmp_path / "shadow", tmp_path / "numba-was-loaded"
    shadow.mkdir()
    (shadow / "numba.py").write_text(f"open({str(loaded)!r}, 'w').close()\nraise ImportError('loaded')\n")
    paths = [str(shadow), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    monkeypatch.setenv("SLOPESEARCH_KERNELS", kernels)
    budget = ("--dataset", "digits", "--model", "cnn", "--epochs", "3", "--train-size", "400")
    workers = ("--devices", "cpu", "--workers", "2")
    done = slopesearch("optimize", *budget, "--val-size", "100", *workers, "--trials", "3")
    assert done.returncode == 0, done.stderr
    assert "digits-cnn: 3 trials" in done.stdout
    assert "best: trial" in done.stdout
    said = (done.stdout + done.stderr).count("kernels do not compile here (ImportError: loaded)")
    assert said == (0 if kernels == "off" else 1)  # by both workers, printed once
    assert loaded.exists() == (kernels == "on")


def test_all_that_numba_compiles_is_in_one_file() -> None:
    """numba's cache follows each function's own file: an edit of another would leave stale machine code."""
    package = Path(slopesearch.__file__).parent

    def imports(path: Path) -> set[str]:
        found: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add(node.module or "")
        return {name.split(".")[0] for name in found}

    users = [path for path in package.rglob("*.py") if imports(path) & {"numba", "llvmlite"}]
    assert users == [package / "nets" / "cpu" / "loops.py"]
    assert "slopesearch" not in imports(users[0])  # nor does it compile in what another file holds


def test_that_the_loops_are_compiled_is_said_once_and_not_where_they_come_from_a_cache(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_misses(misses: dict[str, int]) -> SimpleNamespace:
        return SimpleNamespace(stats=SimpleNamespace(cache_misses=misses))

    tell: Any = loops._tell_if_new
    monkeypatch.setattr(loops, "_is_told", False)
    with caplog.at_level(logging.INFO, "slopesearch"):
        tell(with_misses({}))
        assert caplog.messages == []
        for _ in range(3):
            tell(with_misses({"(float32,)": 1}))
    assert caplog.messages == ["compiling the fast loops once (about 15 s)"]
    compiled = next(value for value in vars(loops).values() if getattr(value, "nopython_signatures", None))
    assert sum(compiled.stats.cache_hits.values()) + sum(compiled.stats.cache_misses.values()) > 0


def test_it_compiles_for_a_processor_of_which_nothing_is_known() -> None:
    program = (
        "import torch; from torch import nn; from slopesearch.nets.cpu import accelerate\n"
        "layers = [nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.GELU(), nn.MaxPool2d(2)]\n"
        "layers += [nn.Conv2d(32, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]\n"
        "model, x = nn.Sequential(*layers), torch.randn(4, 1, 8, 8)\n"
        "fast = accelerate(model)\n"
        "y = fast(x); y.sum().backward()\n"
        "print(fast is not model, torch.allclose(y, model(x), atol=1e-4))"
    )
    assert python(program, NUMBA_CPU_NAME="generic") == "True True\n"


def test_plain_and_accelerated_learn_alike() -> None:
    plain = build_model(make_config(model="cnn", activation="gelu", norm="before"))
    other = copy.deepcopy(plain)
    images, labels = random_map(16, 1, 28, 28), torch.arange(16) % 10
    losses = []
    for module, model in ((plain, plain), (fast_of(other), other)):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        for _ in range(5):
            optimizer.zero_grad()
            loss = F.cross_entropy(module(images), labels)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
