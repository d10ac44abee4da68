"""The backward of a pooled convolution gives what torch's does in float64, on the same winners."""

import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slopesearch.nets.fused import Net
from slopesearch.nets.models import build_model
from slopesearch.nets.pooled_conv import multiplies_bf16, pooled_conv, pools_at_once
from slopesearch.nets.pooling import MaxPool2x2
from tests.conftest import make_config

PRECISIONS = [
    pytest.param(torch.float32, 1e-5, id="float32"),
    pytest.param(
        torch.bfloat16,
        2**-7,
        id="bf16",
        marks=pytest.mark.skipif(not multiplies_bf16(), reason="this CPU does not multiply bf16"),
    ),
]


def random_map(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return x.to(dtype).contiguous(memory_format=torch.channels_last)


def prelu_of(channels: int) -> nn.Module:
    prelu = nn.PReLU(channels)
    with torch.no_grad():
        prelu.weight.copy_(torch.linspace(-1.37, 1.61, channels))
    return prelu


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("activation", [None, nn.GELU(), prelu_of(19)])
@pytest.mark.parametrize(
    ("shape", "bias"), [((5, 32, 14, 14), True), ((3, 64, 6, 10), False), ((1, 96, 2, 2), True)]
)
def test_it_is_convolution_and_pool(
    shape: tuple[int, ...], bias: bool, activation: nn.Module | None, dtype: torch.dtype, tolerance: float
) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(shape[1], 19, 3, padding=1, bias=bias)
    x = random_map(shape, dtype, 1).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        got = pooled_conv(conv, x, activation)
        y = conv(x).detach().requires_grad_()
        want = MaxPool2x2()(y) if activation is None else MaxPool2x2().end(y, activation)
    assert got.dtype == dtype
    assert got.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(got, want)

    dy = random_map(tuple(got.shape), dtype, 2)
    dy[:, ::3] = 0  # as behind a dead unit
    got.backward(dy)  # type: ignore[no-untyped-call]
    (at_winners,) = torch.autograd.grad(want, y, dy)
    images, rounded = x.detach().double().requires_grad_(), conv.weight.to(dtype).double()
    weight = rounded.detach().requires_grad_()
    F.conv2d(images, weight, padding=1).backward(at_winners.double())  # type: ignore[no-untyped-call]
    pairs = [(x.grad, images.grad), (conv.weight.grad, weight.grad)]
    if conv.bias is not None:
        pairs.append((conv.bias.grad, at_winners.double().sum((0, 2, 3))))
    for ours, theirs in pairs:
        assert ours is not None
        assert theirs is not None
        # The gradient of a map is rounded as the map is, that of a parameter is summed in float32.
        allowed = tolerance if ours is x.grad else 1e-5
        size = theirs.abs().max().item()
        torch.testing.assert_close(ours.double(), theirs, rtol=allowed, atol=allowed * size)


@pytest.mark.parametrize(
    ("layer", "channels", "requires_grad"),
    [
        (nn.Conv2d(32, 8, 3, padding=1), 32, False),  # nothing to save where there is no backward
        (nn.Conv2d(24, 8, 3, padding=1), 24, True),
        (nn.Conv2d(32, 8, 5, padding=2), 32, True),
        (nn.Conv2d(32, 8, 3), 32, True),
        (nn.Conv2d(32, 8, 3, padding=1, groups=2), 32, True),
        (nn.Conv2d(32, 8, 3, padding=1).double(), 32, True),
        (nn.Identity(), 32, True),
    ],
)
def test_what_it_cannot_do_is_torchs(layer: nn.Module, channels: int, requires_grad: bool) -> None:
    x = random_map((2, channels, 6, 6), torch.float32, 0).requires_grad_(requires_grad)
    if isinstance(layer, nn.Conv2d):
        x = x.to(layer.weight.dtype)
    assert not pools_at_once(layer, x)
    torch.testing.assert_close(Net(nn.Identity(), layer, MaxPool2x2())(x), F.max_pool2d(layer(x), 2))


class Doubled(nn.Conv2d):
    """A convolution of the user's own."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def test_a_convolution_with_a_forward_of_its_own_is_called() -> None:
    layer, x = Doubled(32, 8, 3, padding=1), random_map((2, 32, 6, 6), torch.float32, 0).requires_grad_()
    torch.testing.assert_close(Net(nn.Identity(), layer, MaxPool2x2())(x), F.max_pool2d(layer(x), 2))


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("activation", ["relu", "gelu", "prelu"])
def test_a_net_trains_on_it_where_it_may(
    monkeypatch: pytest.MonkeyPatch, activation: str, precision: str
) -> None:
    calls: list[Tensor] = []

    def counted(conv: nn.Conv2d, x: Tensor, jumped: nn.Module | None) -> Tensor:
        calls.append(x)
        return pooled_conv(conv, x, jumped)

    monkeypatch.setattr("slopesearch.nets.fused.pooled_conv", counted)
    images = torch.randn(4, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    net = build_model(make_config(model="cnn", activation=activation)).to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        net(images).sum().backward()
        assert len(calls) == (precision == "float32" or multiplies_bf16())
        monkeypatch.setattr("slopesearch.nets.pooled_conv.multiplies_bf16", lambda: False)
        gradients = [parameter.grad for parameter in net.parameters()]
        net.zero_grad()
        net(images).sum().backward()
    assert len(calls) == (2 if precision == "float32" else multiplies_bf16())
    for before, parameter in zip(gradients, net.parameters(), strict=True):
        assert before is not None
        assert parameter.grad is not None
        size = parameter.grad.abs().max().item()
        tolerance = 1e-6 if precision == "float32" else 2**-6
        torch.testing.assert_close(before, parameter.grad, rtol=tolerance, atol=tolerance * size)


def test_on_a_processor_that_does_not_multiply_bf16_it_compiles_float32_alone() -> None:
    """What LLVM cannot compile ends the process."""
    program = "from slopesearch.nets import pooled_conv_kernels as k; print(k.BF16)"
    environment = {**os.environ, "NUMBA_CPU_NAME": "generic"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "False\n"), done.stderr


def test_not_a_number_reaches_the_gradients() -> None:
    conv = nn.Conv2d(32, 3, 3, padding=1)
    x = random_map((2, 32, 4, 4), torch.float32, 0).requires_grad_()
    dy = torch.ones(2, 3, 2, 2)
    dy[1, 2, 1, 1] = float("nan")
    pooled_conv(conv, x, None).backward(dy)  # type: ignore[no-untyped-call]
    assert conv.weight.grad is not None
    assert x.grad is not None
    assert conv.weight.grad[2].isnan().any()
    assert conv.weight.grad[:2].isfinite().all()
    assert x.grad[0].isfinite().all()
    assert x.grad[1].isnan().any()
