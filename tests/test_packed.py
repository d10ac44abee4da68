"""A pack gives each member what it gets alone: every activation, norm, init and slope mode, both models."""

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from slopesearch.config import TrialConfig
from slopesearch.nets.activations import ACTIVATIONS
from slopesearch.nets.initializers import INITS
from slopesearch.nets.models import build_model
from slopesearch.nets.packed import PackedModel, _LeakyReLU
from slopesearch.training.data import Data
from slopesearch.training.devices import prepare
from slopesearch.training.engine import Alone, Member, Pack
from slopesearch.training.optimizers import PackedAdamW
from tests.conftest import make_config

CPU = torch.device("cpu")
NORMS = ("none", "before", "after")
INIT_NAMES = list(INITS)


def every_kind(**changes: Any) -> list[TrialConfig]:
    """A pack that varies every field that may: each activation, norm, init and slope mode is in it."""
    kinds: list[dict[str, Any]] = []
    for activation in ACTIVATIONS:
        kinds += [{"activation": activation, "norm": norm} for norm in NORMS]
    for clamp in ("project", "forward"):
        kinds += [{"slope_mode": "learnable", "slope_clamp": clamp, "norm": norm} for norm in NORMS]
    kinds += [{"negative_slope": 0.3}, {"slope_mode": "learnable", "slope_max": 0.3, "negative_slope": 0.2}]
    kinds += [{"weight_decay": 0.1, "slope_mode": "learnable", "norm": "after"}]
    return [
        make_config(
            init=INIT_NAMES[i % len(INITS)],
            init_seed=i,
            lr=1e-3 * (1 + i % 3),
            output_gain=("one", "hidden")[i % 2],
            **kind,
            **changes,
        )
        for i, kind in enumerate(kinds)
    ]


def members(configs: Sequence[TrialConfig], data: Data, dtype: torch.dtype) -> list[Member]:
    made = [Member(config, data, CPU) for config in configs]
    for member in made:
        member.model.to(dtype)
    return made


def trained(
    configs: Sequence[TrialConfig], data: Data, steps: int, dtype: torch.dtype, together: bool
) -> tuple[list[dict[str, torch.Tensor]], list[float]]:
    """State and mean loss of each config's model after some steps, all in one pack or each alone."""
    made = members(configs, data, dtype)
    teams: list[Any] = [Pack(made, CPU)] if together else [Alone([member], CPU) for member in made]
    losses: list[float] = []
    for team in teams:
        size = configs[0].batch_size
        for step in range(steps):
            at = step * size % (len(data.train_labels) - size + 1)
            team.step(data.train_images[at : at + size].to(dtype), data.train_labels[at : at + size], 0.9)
        losses += [total / steps for total in team.losses()]
        team.settle()
    return [member.model.state_dict() for member in made], losses


# The CNN takes every fourth of its kinds, each norm among them, and few steps, for time.
@pytest.mark.parametrize(
    ("fields", "every", "steps"),
    [({}, 1, 50), ({"depth": 3, "width": 9}, 1, 50), ({"model": "cnn", "batch_size": 16}, 4, 6)],
)
def test_a_pack_equals_its_members_in_float64(
    digits: Data, fields: dict[str, Any], every: int, steps: int
) -> None:
    configs = every_kind(**fields)[::every]
    packed, losses = trained(configs, digits, steps, torch.float64, together=True)
    alone, expected = trained(configs, digits, steps, torch.float64, together=False)
    for config, mine, theirs in zip(configs, packed, alone, strict=True):
        for name, tensor in theirs.items():
            assert torch.allclose(mine[name], tensor, rtol=0, atol=1e-7), (name, config)
    assert losses == pytest.approx(expected, abs=1e-7)


def test_a_pack_equals_its_members_in_float32(digits: Data) -> None:
    configs = [config.model_copy(update={"lr": 1e-3}) for config in every_kind()]
    _, losses = trained(configs, digits, 10, torch.float32, together=True)
    _, expected = trained(configs, digits, 10, torch.float32, together=False)
    assert losses == pytest.approx(expected, rel=1e-3)


def test_bf16_packs_train(digits: Data) -> None:
    configs = [c.model_copy(update={"lr": 1e-3, "precision": "bf16"}) for c in every_kind()]
    _, losses = trained(configs, digits, 10, torch.float32, together=True)
    _, expected = trained(configs, digits, 10, torch.float32, together=False)
    assert losses == pytest.approx(expected, rel=0.02)


class Widest(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The number of numbers of the largest float64 tensor that any operation gives."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.size = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = func(*args, **(kwargs or {}))
        for tensor in given if isinstance(given, tuple | list) else [given]:
            if isinstance(tensor, torch.Tensor) and tensor.dtype == torch.float64:
                self.size = max(self.size, tensor.numel())
        return given


@pytest.mark.parametrize("model", ["mlp", "cnn"])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_no_slope_makes_a_map_float64(digits: Data, precision: str, model: str) -> None:
    changes = {"model": model, "precision": precision}
    configs = [make_config(negative_slope=slope, **changes) for slope in (0.01, 0.3)]
    configs += [make_config(slope_mode="learnable", **changes), make_config(activation="prelu", **changes)]
    packed = PackedModel([build_model(config) for config in configs])
    with Widest() as widest, torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        packed(digits.train_images[:8]).float().sum().backward()
    assert widest.size <= len(configs)  # a slope for each member
    group = next(layer for layer in packed.modules() if type(layer).__name__ == "_LeakyReLU")
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        assert group(torch.ones(3, 4, dtype=dtype)).dtype == dtype


def test_slopes_in_a_pack_are_used_as_they_are_in_bf16(digits: Data) -> None:
    """0.0123 lies between two numbers of bf16: a member and its exported module would differ."""
    configs = [
        make_config(negative_slope=0.0123),
        make_config(negative_slope=0.0123, slope_mode="learnable"),
        make_config(activation="prelu"),
    ]
    models = [build_model(config) for config in configs]
    nn.init.constant_(models[2].get_parameter("act1.weight"), 0.0123)
    x = -torch.linspace(0.5, 2, 96).to(torch.bfloat16).view(3, 32)
    wanted = (x.float() * torch.tensor(0.0123)).to(torch.bfloat16)
    packed = PackedModel(models)
    acts = [layer for layer in packed.modules() if "ReLU" in type(layer).__name__]
    acts += [_LeakyReLU([nn.LeakyReLU(0.0123)] * 2)]  # as where slopes differ
    assert len(acts) == 4
    with torch.autocast("cpu", torch.bfloat16):
        for layer in [*acts, *(model.get_submodule("act1") for model in models[1:])]:
            assert torch.equal(layer(x), wanted)


def test_a_smaller_pack_goes_on_where_the_larger_was(digits: Data) -> None:
    configs = every_kind()
    kept = [1, 4, 7, 20, 24, 26, 30]
    size = configs[0].batch_size
    batches = [
        (digits.train_images[i * size : (i + 1) * size].double(), digits.train_labels[i * size :][:size])
        for i in range(6)
    ]
    states = []
    for shrinks in (False, True):
        made = members(configs, digits, torch.float64)
        team = Pack(made, CPU)
        for number, (x, y) in enumerate(batches):
            if number == 3 and shrinks:
                team = team.keep(kept)
            team.step(x, y, 1.0)
        team.settle()
        states.append([made[k].model.state_dict() for k in kept])
    for whole, smaller in zip(*states, strict=True):
        for name in whole:
            torch.testing.assert_close(smaller[name], whole[name], rtol=0, atol=1e-10)


def test_what_was_packed_comes_back(digits: Data) -> None:
    images = digits.train_images[:64]
    models = [build_model(config, images) for config in every_kind(model="cnn")[::2]]
    before = [copy.deepcopy(model.state_dict()) for model in models]
    packed = PackedModel(models)
    for k, model in enumerate(models):
        for parameter in model.parameters():
            parameter.data.fill_(7.0)
        assert packed.unpack(k) is model
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, before[k][name])


def test_the_forward_pass_is_each_members_own(digits: Data) -> None:
    models = [build_model(config, digits.train_images[:64]).eval() for config in every_kind(model="cnn")]
    packed = PackedModel(models).eval()
    logits = packed(digits.val_images[:32])
    assert logits.shape == (32, len(models), 10)
    for k, model in enumerate(models):
        torch.testing.assert_close(logits[:, k], model(digits.val_images[:32]), rtol=1e-4, atol=1e-4)


def test_a_member_that_is_not_a_number_harms_no_other(digits: Data) -> None:
    configs = every_kind()
    made = members(configs, digits, torch.float32)
    with torch.no_grad():
        next(made[3].model.parameters()).fill_(float("nan"))
    team = Pack(made, CPU)
    for _ in range(3):
        team.step(digits.train_images[:64], digits.train_labels[:64], 1.0)
    finite = [bool(torch.tensor(loss).isfinite()) for loss in team.losses()]
    assert finite == [k != 3 for k in range(len(configs))]


def test_a_layer_with_parameters_that_nobody_can_pack_says_so() -> None:
    models = [nn.Sequential(nn.Linear(4, 3), nn.GroupNorm(1, 3), nn.Linear(3, 2)) for _ in range(2)]
    with pytest.raises(TypeError, match="cannot pack a layer of type GroupNorm"):
        PackedModel(models)


def test_the_optimizer_is_adamw_member_by_member() -> None:
    torch.manual_seed(0)
    models = [nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double() for _ in range(3)]
    rates, decays = [1e-3, 1e-2, 0.1], [0.0, 0.1, 0.5]
    packed = PackedModel(models)
    ours = PackedAdamW(packed, rates, decays)
    plain = [copy.deepcopy(model) for model in models]
    theirs = [
        torch.optim.AdamW(
            [
                {"params": [p for p in model.parameters() if p.dim() > 1], "weight_decay": decay},
                {"params": [p for p in model.parameters() if p.dim() <= 1], "weight_decay": 0.0},
            ],
            lr=rate,
        )
        for model, rate, decay in zip(plain, rates, decays, strict=True)
    ]
    x, y = torch.randn(7, 5, dtype=torch.float64), torch.randint(0, 3, (7,))
    for _ in range(20):
        ours.zero_grad()
        logits = packed(x)
        torch.stack([F.cross_entropy(logits[:, k], y) for k in range(3)]).sum().backward()  # type: ignore[no-untyped-call]
        ours.step(1.0)
        for model, optimizer in zip(plain, theirs, strict=True):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    for k, model in enumerate(plain):
        for mine, parameter in zip(packed.unpack(k).parameters(), model.parameters(), strict=True):
            torch.testing.assert_close(mine, parameter, rtol=0, atol=1e-12)


@pytest.mark.gpu
def test_a_pack_on_a_gpu_equals_its_members_on_the_cpu(digits: Data) -> None:
    configs = [config.model_copy(update={"lr": 1e-3}) for config in every_kind(model="cnn")]
    device = torch.device("cuda:0")
    prepare(device)
    on_gpu = digits.to(device)
    team = Pack([Member(config, on_gpu, device) for config in configs], device)
    for step in range(10):
        at = step * 16
        team.step(on_gpu.train_images[at : at + 16], on_gpu.train_labels[at : at + 16], 1.0)
    expected = []
    for config in configs:
        alone = Alone([Member(config, digits, CPU)], CPU)
        for step in range(10):
            alone.step(digits.train_images[step * 16 :][:16], digits.train_labels[step * 16 :][:16], 1.0)
        expected += alone.losses()
    assert team.losses() == pytest.approx(expected, rel=1e-3)
