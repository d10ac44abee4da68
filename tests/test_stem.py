"""The compiled first convolution gives what torch's layers give in float64."""

import copy

import pytest
import torch
from torch import Tensor, nn

from slopesearch.nets.fused import Net
from slopesearch.nets.pooling import MaxPool2x2
from slopesearch.nets.stem import starts, stem


def layers_of(norm: bool, pool: bool, channels: int) -> list[nn.Module]:
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Conv2d(1, channels, 3, padding=1, bias=not norm)]
    if norm:
        layers.append(nn.BatchNorm2d(channels))
        with torch.no_grad():
            layers[1].weight.uniform_(-1, 1)  # type: ignore[operator]
            layers[1].bias.uniform_(-1, 1)  # type: ignore[operator]
    return layers + [MaxPool2x2()] * pool


def close(ours: Tensor | None, theirs: Tensor | None, tolerance: float) -> None:
    assert ours is not None
    assert theirs is not None
    size = theirs.abs().max().item()
    torch.testing.assert_close(ours.double(), theirs, rtol=tolerance, atol=tolerance * size)


@pytest.mark.parametrize("shape", [(16, 1, 28, 28), (3, 1, 6, 38)])
@pytest.mark.parametrize("pool", [False, True])
@pytest.mark.parametrize("norm", [False, True])
def test_it_is_convolution_norm_and_pool(norm: bool, pool: bool, shape: tuple[int, ...]) -> None:
    layers = layers_of(norm, pool, channels=19)
    exact = nn.Sequential(*copy.deepcopy(layers)).double()
    images = torch.randn(shape)
    rest = layers[1:]
    assert starts(layers[0], images)
    y = stem(layers[0], rest, images)
    assert rest == []
    assert y.is_contiguous(memory_format=torch.channels_last)
    expected = exact(images.double())
    dy = torch.randn(y.shape)
    y.backward(dy)  # type: ignore[no-untyped-call]
    expected.backward(dy.double())
    close(y.detach(), expected.detach(), 1e-5)
    for ours, theirs in zip(nn.Sequential(*layers).parameters(), exact.parameters(), strict=True):
        close(ours.grad, theirs.grad, 1e-5)
    for ours_now, theirs_now in zip(nn.Sequential(*layers).buffers(), exact.buffers(), strict=True):
        close(ours_now, theirs_now.double(), 1e-5)

    nn.Sequential(*layers).eval()
    y, expected = stem(layers[0], layers[1:], images), exact.eval()(images.double())
    close(y.detach(), expected.detach(), 1e-5)
    y.backward(dy)  # type: ignore[no-untyped-call]
    expected.backward(dy.double())
    for ours, theirs in zip(nn.Sequential(*layers).parameters(), exact.parameters(), strict=True):
        close(ours.grad, theirs.grad, 1e-5)


@pytest.mark.parametrize("norm", [False, True])
def test_a_pool_may_jump_over_a_quasiconvex_activation(norm: bool) -> None:
    activation = nn.PReLU(19)
    with torch.no_grad():
        activation.weight.uniform_(-1.5, 1.5)
    layers = [*layers_of(norm, False, channels=19), activation, MaxPool2x2(after_quasiconvex=True)]
    exact = nn.Sequential(*copy.deepcopy(layers)).double()
    images, rest = torch.randn(8, 1, 12, 12), layers[1:]
    y = activation(stem(layers[0], rest, images))  # type: ignore[arg-type]
    assert rest == [activation]
    expected = exact(images.double())
    dy = torch.randn(y.shape)
    y.backward(dy)
    expected.backward(dy.double())
    close(y.detach(), expected.detach(), 1e-5)
    for ours, theirs in zip(nn.Sequential(*layers).parameters(), exact.parameters(), strict=True):
        close(ours.grad, theirs.grad, 1e-5)


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("pool", [False, True])
def test_in_bf16_only_the_map_is_rounded(norm: bool, pool: bool) -> None:
    layers = layers_of(norm, pool, channels=32)
    exact = nn.Sequential(*copy.deepcopy(layers)).double()
    images = torch.randn(16, 1, 28, 28)
    with torch.autocast("cpu", torch.bfloat16):
        y = stem(layers[0], layers[1:], images)  # type: ignore[arg-type]
    assert y.dtype == torch.bfloat16
    expected = exact(images.double())
    dy = torch.randn(y.shape).to(torch.bfloat16)
    y.backward(dy)  # type: ignore[no-untyped-call]
    expected.backward(dy.double())
    torch.testing.assert_close(y.detach().double(), expected.detach(), rtol=2**-8, atol=1e-5)
    for ours, theirs in zip(nn.Sequential(*layers).parameters(), exact.parameters(), strict=True):
        close(ours.grad, theirs.grad, 1e-5)


@pytest.mark.parametrize(
    ("layer", "images"),
    [
        (nn.Conv2d(3, 8, 3, padding=1), torch.zeros(1, 3, 4, 4)),
        (nn.Conv2d(1, 8, 5, padding=2), torch.zeros(1, 1, 4, 4)),
        (nn.Conv2d(1, 8, 3), torch.zeros(1, 1, 4, 4)),
        (nn.Conv2d(1, 8, 3, padding=1, stride=2), torch.zeros(1, 1, 4, 4)),
        (nn.Conv2d(1, 8, 3, padding=1), torch.zeros(1, 1, 5, 4)),
        (nn.Conv2d(1, 8, 3, padding=1).double(), torch.zeros(1, 1, 4, 4).double()),
        (nn.Conv2d(1, 8, 3, padding=1), torch.zeros(1, 1, 4, 4, requires_grad=True)),
        (nn.Conv2d(1, 8, 3, padding=1), torch.zeros(1, 4, 4)),
        (nn.Flatten(), torch.zeros(1, 1, 4, 4)),
    ],
)
def test_what_it_cannot_do_is_torchs(layer: nn.Module, images: Tensor) -> None:
    assert not starts(layer, images)
    torch.testing.assert_close(Net(layer)(images), layer(images))


def test_not_a_number_comes_through() -> None:
    layers = layers_of(norm=False, pool=True, channels=4)
    with torch.no_grad():
        layers[0].weight[2, 0, 1, 1] = float("nan")  # type: ignore[operator]
    y = stem(layers[0], layers[1:], torch.randn(2, 1, 4, 4))  # type: ignore[arg-type]
    assert y[:, 2].isnan().all()
    assert y[:, [0, 1, 3]].isfinite().all()
