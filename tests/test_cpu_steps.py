"""The steps of a plan, one by one: the pool, slopes, tables, the first convolution."""

import copy
from collections.abc import Callable
from math import inf, nan

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slopesearch.nets.cpu import accelerate, steps

PRECISIONS = [torch.float32, torch.bfloat16]
SMOOTH = [nn.ELU(), nn.GELU(), nn.SiLU(), nn.Tanh(), nn.Sigmoid()]


def random_map(shape: tuple[int, ...], dtype: torch.dtype, seed: int = 0) -> Tensor:
    x = 2 * torch.randn(shape, generator=torch.Generator().manual_seed(seed)) + 1
    return x.to(dtype).contiguous(memory_format=torch.channels_last)


# --- pool


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("special", [[0.0, -0.0], [0.0, -0.0, inf, -inf]])
@pytest.mark.parametrize("shape", [(3, 4, 8, 6), (2, 32, 28, 28), (1, 1, 2, 2), (5, 3, 4, 4)])
def test_the_pool_is_torchs_bit_for_bit(
    shape: tuple[int, ...], special: list[float], dtype: torch.dtype
) -> None:
    """Values, which of equal ones gets the gradient, -0 and infinities; rounding makes ties common."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).round(decimals=1).to(dtype)
    x.view(-1)[: len(special)] = torch.tensor(special, dtype=dtype)
    x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    got, want = steps.pool(x, None), F.max_pool2d(x, 2)
    dy = torch.randn(got.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    assert torch.equal(got, want)
    assert got.is_contiguous(memory_format=torch.channels_last)
    (dx,), (want_dx,) = torch.autograd.grad(got, x, dy), torch.autograd.grad(want, x, dy)
    assert torch.equal(dx, want_dx)
    assert dx.dtype == dtype


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("activation", [nn.GELU(), nn.SiLU(), nn.PReLU(9)])
def test_the_pool_keeps_the_end_that_an_activation_makes_the_most_of(
    activation: nn.Module, dtype: torch.dtype
) -> None:
    if isinstance(activation, nn.PReLU):
        activation.weight.data = torch.linspace(-1.37, 1.61, 9)
    activation = activation.to(dtype)
    # Numbers apart from each other, so that no two are equal when they are rounded.
    apart = [torch.randperm(24, generator=torch.Generator().manual_seed(i)) for i in range(16 * 9)]
    x = (torch.stack(apart).view(16, 9, 6, 4) / 8 - 1.55).to(dtype)
    x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    got, want = activation(steps.pool(x, activation)), F.max_pool2d(activation(x), 2)
    assert torch.equal(got, want)
    dy = random_map(tuple(got.shape), dtype, 1)
    (dx,), (want_dx,) = torch.autograd.grad(got, x, dy), torch.autograd.grad(want, x, dy)
    assert torch.equal(dx, want_dx)


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("ends", [None, nn.GELU(), nn.SiLU()])
def test_not_a_number_is_above_all_in_every_place(
    ends: nn.Module | None, place: int, sign: float, dtype: torch.dtype
) -> None:
    x = torch.tensor([3.0, inf, -inf, 4.0], dtype=dtype).view(1, 1, 2, 2).repeat(2, 3, 2, 2)
    x = x.contiguous(memory_format=torch.channels_last)
    x[1, 2, 2 + place // 2, place % 2] = sign * nan
    x[:, :2] = x[:, :2].clamp(-5, 5)
    assert steps.pool(x, ends)[1, 2, 1, 0].isnan()
    finite = random_map((2, 3, 4, 4), dtype)
    finite[1, 2, 2 + place // 2, place % 2] = sign * nan
    y = steps.pool(finite, ends)
    assert y[1, 2, 1, 0].isnan()
    assert y.isnan().sum() == 1


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_minus_infinity_comes_through_where_the_activation_makes_nan_of_it(dtype: torch.dtype) -> None:
    x = random_map((2, 3, 4, 4), dtype)
    x[1, 2, 3, 3] = -inf
    y = F.gelu(steps.pool(x, nn.GELU()))
    assert torch.equal(y.isnan(), F.max_pool2d(F.gelu(x), 2).isnan())
    assert y[1, 2, 1, 1].isnan()


# --- gradients of gradients


@pytest.mark.parametrize(
    "step",
    [
        lambda x: steps.pool(x, None),
        lambda x: steps.norm_pool(x, nn.BatchNorm2d(4), None),
        lambda x: steps.bend(x, torch.tensor(0.1, requires_grad=True)),
        lambda x: steps.look_up(x.bfloat16(), *steps.tables_of(nn.Tanh())),
    ],
    ids=["pool", "norm_pool", "bend", "look_up"],
)
def test_a_second_derivative_is_refused_and_not_taken_for_zero(step: Callable[[Tensor], Tensor]) -> None:
    x = random_map((2, 4, 6, 6), torch.float32).requires_grad_()
    (dx,) = torch.autograd.grad(step(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        dx.sum().backward()  # type: ignore[no-untyped-call]


# --- learned slopes


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("each", [True, False])
def test_bend_is_leaky_relu_with_exact_slopes(each: bool, dtype: torch.dtype) -> None:
    x = random_map((4, 5, 6, 6), dtype).requires_grad_()
    slope = (torch.tensor([-0.7, 0.0123, 0.0, 0.25, 1.6]) if each else torch.tensor(0.0123)).requires_grad_()
    exact, wide = x.detach().double().requires_grad_(), slope.detach().double().requires_grad_()
    dy = random_map((4, 5, 6, 6), dtype, 1)
    got = steps.bend(x, slope)
    want = torch.where(exact > 0, exact, exact * (wide.view(-1, 1, 1) if each else wide))
    assert torch.equal(got, want.to(torch.float32).to(dtype))
    mine = torch.autograd.grad(got, (x, slope), dy)
    theirs = torch.autograd.grad(want, (exact, wide), dy.double())
    assert torch.equal(mine[0], theirs[0].to(torch.float32).to(dtype))
    assert mine[1].shape == slope.shape
    torch.testing.assert_close(mine[1].double(), theirs[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_bend_passes_not_a_number_on(dtype: torch.dtype) -> None:
    x = torch.tensor([nan, -nan, -1.0, inf], dtype=dtype).view(1, 1, 2, 2)
    y = steps.bend(x.contiguous(memory_format=torch.channels_last), torch.tensor(0.5))
    assert y.isnan().flatten().tolist() == [True, True, False, False]


# --- tables


def all_numbers() -> Tensor:
    """Every number that bf16 can hold, as a map."""
    bits = torch.arange(2**16, dtype=torch.int32).to(torch.int16)
    return bits.view(torch.bfloat16).view(4, 16, 32, 32).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("activation", [*SMOOTH, nn.ELU(alpha=2.0), nn.GELU("tanh")], ids=repr)
def test_a_table_gives_torchs_bits_for_all_numbers(activation: nn.Module) -> None:
    x = all_numbers()
    got, want = steps.look_up(x, *steps.tables_of(activation)), activation(x)
    assert torch.equal(got.isnan(), want.isnan())
    number = ~want.isnan()
    assert torch.equal(got[number].view(torch.int16), want[number].view(torch.int16))


@pytest.mark.parametrize("activation", [*SMOOTH, nn.ELU(alpha=2.0), nn.GELU("tanh")], ids=repr)
def test_a_tables_gradient_is_rounded_once(activation: nn.Module) -> None:
    x = all_numbers().requires_grad_()
    dy = random_map((4, 16, 32, 32), torch.bfloat16, 1)
    (dx,) = torch.autograd.grad(steps.look_up(x, *steps.tables_of(activation)), x, dy)
    wide = x.detach().double().requires_grad_()
    (exact,) = torch.autograd.grad(activation(wide), wide, dy.double())
    ordinary = x.detach().abs() < 1e9  # beyond it torch's own derivatives overflow
    torch.testing.assert_close(dx[ordinary].double(), exact[ordinary], rtol=2**-8, atol=5e-6)
    assert dx[x.isnan()].isnan().all()


@pytest.mark.parametrize("activation", [nn.SiLU(inplace=True), nn.ELU(inplace=True)], ids=repr)
def test_a_table_of_an_activation_in_place_is_that_of_the_activation(activation: nn.Module) -> None:
    plain = type(activation)()
    for ours, theirs in zip(steps.tables_of(activation), steps.tables_of(plain), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-7, equal_nan=True)


# --- the first convolution


@pytest.mark.parametrize("shape", [(16, 1, 28, 28), (3, 1, 6, 38), (2, 1, 2, 2)])
@pytest.mark.parametrize("norm", [False, True])
def test_in_bf16_only_the_map_behind_the_first_convolution_is_rounded(
    norm: bool, shape: tuple[int, ...]
) -> None:
    """Neither the images nor the weights: they are few, and the products are made in float32."""
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Conv2d(1, 19, 3, padding=1, bias=not norm)]
    if norm:
        layers.append(nn.BatchNorm2d(19))
        for parameter in layers[1].parameters():
            nn.init.uniform_(parameter, -1, 1)
    model = nn.Sequential(*layers, nn.MaxPool2d(2))
    exact = copy.deepcopy(model).double()
    images = torch.randn(shape)
    fast = accelerate(model)
    for training in (True, False):
        fast.train(training)
        exact.train(training)
        model.zero_grad()
        exact.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            y = fast(images)
        assert y.dtype == torch.bfloat16
        assert y.is_contiguous(memory_format=torch.channels_last)
        expected = exact(images.double())
        torch.testing.assert_close(y.detach().double(), expected.detach(), rtol=2**-8, atol=1e-5)
        dy = torch.randn(y.shape).to(torch.bfloat16)
        y.backward(dy)
        expected.backward(dy.double())
        for ours, theirs in zip(model.parameters(), exact.parameters(), strict=True):
            assert ours.grad is not None
            assert theirs.grad is not None
            size = theirs.grad.abs().max().item()
            torch.testing.assert_close(ours.grad.double(), theirs.grad, rtol=0, atol=1e-4 * size)
