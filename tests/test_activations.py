"""The slope's gradient, the forms of leaky ReLU, the gains."""

from collections.abc import Callable
from math import inf, nan, pi, sqrt

import pytest
import torch
import torch.nn.functional as F
from scipy.integrate import quad
from torch import Tensor, nn

from slopesearch.nets.activations import ACTIVATIONS, LearnableLeakyReLU, PReLU, gain_of
from tests.conftest import make_config

SPECIAL = [0.0, -0.0, inf, -inf, nan, 1.0, -1.0, 1e-45, -1e-45, 3.4e38, -3.4e38]


def expression(x: Tensor, slope: Tensor | float) -> Tensor:
    """Leaky ReLU as the plain tensor expression."""
    return torch.where(x > 0, x, x * slope)


def bits(x: Tensor) -> Tensor:
    """The bit patterns, so that NaN equals NaN and 0 differs from -0."""
    return x.detach().contiguous().view(torch.int32)


@pytest.mark.parametrize("slope", [0.0, 0.001, 0.01, 0.1, 0.5, 1.0])
def test_leaky_relu_is_one_thing_in_five_forms(slope: float) -> None:
    x = torch.cat([torch.tensor(SPECIAL), torch.randn(1000, generator=torch.Generator().manual_seed(0))])
    # `slope` as float32: the parameter is stored so, and a Python float would be rounded elsewhere.
    slope = torch.tensor(slope).item()
    reference = bits(expression(x, slope))
    learnable = LearnableLeakyReLU(slope, 0.0, 1.0, "project")
    assert torch.equal(bits(nn.LeakyReLU(slope)(x)), reference)
    assert torch.equal(bits(F.leaky_relu(x, slope)), reference)
    assert torch.equal(bits(learnable(x)), reference)
    assert torch.equal(bits(PReLU(1, slope)(x[:, None])[:, 0]), reference)


@pytest.mark.parametrize("clamp", ["project", "forward"])
@pytest.mark.parametrize("start", [0.02, 0.05, 0.08])
def test_slope_gradient_against_finite_differences(clamp: str, start: float) -> None:
    layer = LearnableLeakyReLU(start, 0.001, 0.1, clamp).double()
    x = torch.randn(50, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def loss(slope: Tensor, x: Tensor) -> Tensor:
        layer.slope.data.copy_(slope)
        total: Tensor = layer(x).pow(3).sum()
        return total

    layer(x).pow(3).sum().backward()
    epsilon = 1e-6
    centre = torch.tensor(start, dtype=torch.float64)
    difference = (loss(centre + epsilon, x) - loss(centre - epsilon, x)) / (2 * epsilon)
    assert layer.slope.grad is not None
    assert layer.slope.grad.item() == pytest.approx(difference.item(), rel=1e-7)


def test_input_and_slope_gradients_equal_autograd_of_the_expression() -> None:
    layer = LearnableLeakyReLU(0.03, 0.001, 0.1, "project")
    x = torch.randn(4, 8, 5, 5, generator=torch.Generator().manual_seed(1)).requires_grad_()
    dy = torch.randn(4, 8, 5, 5, generator=torch.Generator().manual_seed(2))
    got = torch.autograd.grad(layer(x), (x, layer.slope), dy)
    want = torch.autograd.grad(expression(x, layer.slope), (x, layer.slope), dy)
    torch.testing.assert_close(got, want)


def test_fixed_slope_gradient_of_the_input() -> None:
    x = torch.randn(30, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    layer = ACTIVATIONS["leaky_relu"].make(make_config(negative_slope=0.2), 1)
    assert torch.autograd.gradcheck(layer, (x,))


@pytest.mark.parametrize(("raw", "sticks"), [(0.05, False), (-0.01, True), (0.2, True)])
def test_forward_clamp_sticks_outside_its_range(raw: float, sticks: bool) -> None:
    layer = LearnableLeakyReLU(0.05, 0.001, 0.1, "forward")
    layer.slope.data.fill_(raw)
    layer(torch.tensor([-1.0, -2.0, 3.0])).sum().backward()
    assert layer.slope.grad is not None
    assert layer.slope.grad.item() == (0.0 if sticks else -3.0)
    layer.project()
    assert layer.slope.item() == pytest.approx(raw)  # the forward clamp leaves the parameter alone
    assert 0.001 - 1e-8 <= layer.effective_slope().item() <= 0.1 + 1e-8


@pytest.mark.parametrize(("push", "bound"), [(-1.0, 0.001), (1.0, 0.1)])
def test_projected_slope_stays_inside_and_comes_back(push: float, bound: float) -> None:
    layer = LearnableLeakyReLU(0.01, 0.001, 0.1, "project")
    optimizer = torch.optim.Adam(layer.parameters(), lr=1e-3)

    def step(direction: float) -> None:
        optimizer.zero_grad()
        (-direction * layer.slope).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        layer.project()

    for _ in range(120):
        step(push)
    assert layer.slope.item() == pytest.approx(bound)
    for _ in range(40):
        step(-push)
    assert layer.slope.item() != pytest.approx(bound, rel=1e-3)


def test_start_above_the_range_begins_at_its_upper_end() -> None:
    config = make_config(slope_mode="learnable", negative_slope=0.5)
    layer = ACTIVATIONS["leaky_relu"].make(config, 1)
    assert isinstance(layer, LearnableLeakyReLU)
    assert layer.slope.item() == pytest.approx(0.1)
    assert gain_of(config) == pytest.approx(sqrt(2 / 1.01))


def test_prelu_is_torchs_one_slope_per_channel() -> None:
    layer = ACTIVATIONS["prelu"].make(make_config(activation="prelu"), 7)
    assert isinstance(layer, nn.PReLU)
    assert layer.weight.tolist() == [0.25] * 7


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(16, 5), (4, 5, 6, 6)])
def test_prelu_is_torchs_in_double_precision_with_the_slope_as_it_is(
    shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    """0.0123 lies between two numbers of bf16, and is not rounded to one of them."""
    layer = ACTIVATIONS["prelu"].make(make_config(activation="prelu"), 5)
    with torch.no_grad():
        layer.get_parameter("weight").copy_(torch.tensor([-0.7, 0.0123, 0.0, 0.25, 1.6]))
    torch_layer = nn.PReLU(5).double()
    torch_layer.weight.data = layer.get_parameter("weight").double().detach()
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_()
    dy = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    dy.view(-1)[::3] = 0
    exact = x.detach().double().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        y = layer(x)
    expected = torch_layer(exact)
    assert y.dtype == dtype
    assert torch.equal(y, expected.float().to(dtype))
    got = torch.autograd.grad(y, (x, layer.get_parameter("weight")), dy)
    want = torch.autograd.grad(expected, (exact, torch_layer.weight), dy.double())
    assert torch.equal(got[0], want[0].float().to(dtype))
    torch.testing.assert_close(got[1].double(), want[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("clamp", ["project", "forward"])
def test_a_learnable_slope_is_used_as_it_is_under_autocast(clamp: str) -> None:
    layer = LearnableLeakyReLU(0.0123, 0.001, 0.1, clamp)
    x = -torch.linspace(0.5, 2, 64).to(torch.bfloat16).view(8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, (x.float() * torch.tensor(0.0123)).to(torch.bfloat16))


@pytest.mark.parametrize(
    "make", [lambda: PReLU(1, 0.1), lambda: LearnableLeakyReLU(0.1, 0.0, 1.0, "project")]
)
def test_the_gradient_of_a_slope_is_summed_in_float32(make: Callable[[], nn.Module]) -> None:
    """A sum of equal numbers in bf16 stands still at 256 of them."""
    layer = make()
    x = torch.full((100_000, 1), -1.0, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    y.backward(torch.ones_like(y))
    (slope,) = layer.parameters()
    assert slope.grad is not None
    assert slope.grad.item() == pytest.approx(-100_000, rel=1e-6)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_gain_is_the_inverse_root_second_moment_under_a_standard_normal(name: str) -> None:
    config = make_config(activation=name)
    layer = ACTIVATIONS[name].make(config, 1).double()

    def integrand(z: float) -> float:
        with torch.no_grad():
            y = layer(torch.tensor([[z]], dtype=torch.float64)).item()
        return float(y * y * torch.exp(torch.tensor(-z * z / 2)).item() / sqrt(2 * pi))

    moment = quad(integrand, -10, 0)[0] + quad(integrand, 0, 10)[0]
    assert gain_of(config) == pytest.approx(1 / sqrt(moment), abs=1e-5)
