"""BatchNorm and pool as one operation against torch's two, in double precision."""

import copy
from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slopesearch.nets.activations import ACTIVATIONS
from slopesearch.nets.fused import Net, norm_pool
from slopesearch.nets.models import build_model
from slopesearch.nets.pooling import MaxPool2x2
from tests.conftest import make_config


def maps(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> Tensor:
    x = 2 * torch.randn(shape, generator=torch.Generator().manual_seed(seed)) + 1
    return x.to(dtype).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2**-7)])
@pytest.mark.parametrize("shape", [(16, 8, 6, 4), (3, 33, 2, 10)])
def test_it_is_norm_then_pool(dtype: torch.dtype, tolerance: float, shape: tuple[int, ...]) -> None:
    norm = nn.BatchNorm2d(shape[1])
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(-1.5, 2.2, shape[1]))  # some fall
        norm.bias.copy_(torch.linspace(1, -1, shape[1]))
    exact = copy.deepcopy(norm).double()
    x = maps(shape, dtype, 0)
    mine = x.clone(memory_format=torch.preserve_format).requires_grad_()
    theirs = x.double().requires_grad_()
    y = norm_pool(norm, mine)
    expected = F.max_pool2d(exact(theirs), 2)
    dy = maps(tuple(y.shape), dtype, 1)
    y.backward(dy)  # type: ignore[no-untyped-call]
    expected.backward(dy.double())  # type: ignore[no-untyped-call]
    assert y.dtype == dtype
    assert y.is_contiguous(memory_format=torch.channels_last)
    pairs: list[tuple[Tensor | None, Tensor | None]] = [
        (y, expected),
        (mine.grad, theirs.grad),
        (norm.weight.grad, exact.weight.grad),
        (norm.bias.grad, exact.bias.grad),
        (norm.running_mean, exact.running_mean),
        (norm.running_var, exact.running_var),
    ]
    for ours, reference in pairs:
        assert ours is not None
        assert reference is not None
        size = reference.abs().max().item()
        torch.testing.assert_close(ours.double(), reference, rtol=tolerance, atol=tolerance * size)
    assert norm.num_batches_tracked == 1


QUASICONVEX = [name for name, kind in ACTIVATIONS.items() if kind.quasiconvex]


@pytest.mark.parametrize(
    ("dtype", "tolerance", "normed"),  # BatchNorm's rounding to bf16 would make winners chance
    [(torch.float32, 1e-5, False), (torch.float32, 1e-5, True), (torch.bfloat16, 2**-6, False)],
)
@pytest.mark.parametrize("name", QUASICONVEX)
def test_a_pool_may_jump_over_a_quasiconvex_activation(
    name: str, dtype: torch.dtype, tolerance: float, normed: bool
) -> None:
    """Forward, and all gradients, against activation, then pool, in double precision."""
    shape = (16, 9, 6, 4)
    activation, norm = ACTIVATIONS[name].make(make_config(activation=name), 9), nn.BatchNorm2d(9)
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(-1.5, 2.2, 9))
        if isinstance(activation, nn.PReLU):
            activation.weight.copy_(torch.linspace(-1.37, 1.61, 9))
    exact = copy.deepcopy(nn.Sequential(norm, activation) if normed else nn.Sequential(activation)).double()
    # 16 numbers apart from each other, so that the two precisions find the same winners.
    steps = torch.stack([torch.randperm(24) for _ in range(16 * 9)]).view(shape)
    x = (steps / 8 - 1.55).to(dtype).contiguous(memory_format=torch.channels_last)
    mine, theirs = x.clone(memory_format=torch.preserve_format).requires_grad_(), x.double().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        end = norm_pool(norm, mine, activation) if normed else MaxPool2x2().end(mine, activation)
        y = activation(end)
    expected = F.max_pool2d(exact(theirs), 2)
    dy = maps(tuple(y.shape), dtype, 1)
    y.backward(dy)
    expected.backward(dy.double())  # type: ignore[no-untyped-call]
    ours = [y, mine.grad, *(parameter.grad for parameter in activation.parameters())]
    wanted = [expected, theirs.grad, *(parameter.grad for parameter in exact[-1].parameters())]
    for one, other in zip(ours, wanted, strict=True):
        assert one is not None
        assert other is not None
        size = other.abs().max().item()
        torch.testing.assert_close(one.double(), other, rtol=tolerance, atol=tolerance * size)


@pytest.mark.parametrize("number", [float("nan"), float("-inf")])  # gelu makes NaN of both
def test_not_a_number_comes_through_the_jump(number: float) -> None:
    x = maps((2, 3, 4, 4), torch.float32, 0)
    x[1, 2, 3, 3] = number
    y = F.gelu(MaxPool2x2().end(x, nn.GELU()))
    assert y[1, 2, 1, 1].isnan()
    assert y.isnan().sum() == 1


class _Planar(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.silu(x.contiguous())


@pytest.mark.parametrize("activation", [nn.SiLU(inplace=True), _Planar()])
def test_activations_of_other_manners_give_the_same(activation: nn.Module) -> None:
    x = maps((4, 3, 6, 6), torch.float32, 0)
    y = Net(nn.Identity(), activation, MaxPool2x2(after_quasiconvex=True))(x.clone())
    torch.testing.assert_close(y, F.max_pool2d(F.silu(x), 2))


def test_a_channel_that_never_changes_gives_its_bias() -> None:
    norm = nn.BatchNorm2d(2)
    with torch.no_grad():
        norm.bias.copy_(torch.tensor([0.5, -2.0]))
    x = torch.full((4, 2, 4, 4), 3.0).contiguous(memory_format=torch.channels_last).requires_grad_()
    y = norm_pool(norm, x)
    y.sum().backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(y.detach(), norm.bias.view(1, 2, 1, 1).expand_as(y).detach())
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_not_a_number_comes_through() -> None:
    x = maps((2, 3, 4, 4), torch.float32, 0)
    x[1, 2, 3, 3] = float("nan")
    y = norm_pool(nn.BatchNorm2d(3), x)
    assert y[:, 2].isnan().all()
    assert y[:, :2].isfinite().all()


@pytest.mark.parametrize(
    ("activation", "norm", "fused"),  # how often; before the activation, the first BatchNorm is the stem's
    [("relu", "before", 1), ("gelu", "after", 2), ("relu", "none", 0)]
    + [(name, norm, int(norm == "before")) for name in ("gelu", "prelu") for norm in ("none", "before")],
)
def test_a_net_trains_as_its_layers_do(
    monkeypatch: pytest.MonkeyPatch, activation: str, norm: str, fused: int
) -> None:
    # Images without two numbers in a window that are equal to rounding: there the winner would be chance.
    images, labels = maps((32, 1, 28, 28), torch.float32, 3), torch.arange(32) % 10
    net = build_model(make_config(model="cnn", activation=activation, norm=norm), images)
    net = net.to(memory_format=torch.channels_last)
    assert isinstance(net, Net)
    plain = nn.Sequential(OrderedDict(copy.deepcopy(net).named_children())).double()
    calls: list[Tensor] = []

    def counted(norm: nn.Module, x: Tensor, activation: nn.Module | None) -> Tensor:
        calls.append(x)
        return norm_pool(norm, x, activation)

    monkeypatch.setattr("slopesearch.nets.fused.norm_pool", counted)
    for model, x in ((net, images), (plain, images.double())):
        F.cross_entropy(model(x), labels).backward()  # type: ignore[no-untyped-call]
    assert len(calls) == fused
    for ours, theirs in zip(net.parameters(), plain.parameters(), strict=True):
        assert ours.grad is not None
        assert theirs.grad is not None
        size = theirs.grad.abs().max().item()
        torch.testing.assert_close(ours.grad.double(), theirs.grad, rtol=1e-3, atol=1e-3 * size)
    states = net.eval().state_dict(), plain.eval().state_dict()
    for name in states[0]:
        torch.testing.assert_close(states[0][name].double(), states[1][name].double(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(net(images).double(), plain(images.double()), rtol=1e-3, atol=1e-3)
    assert len(calls) == fused  # in training alone
