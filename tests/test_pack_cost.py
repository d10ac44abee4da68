"""What a pack asks of a device: operations and waits, counted where there is no GPU.

A GPU runs what it is sent while Python goes on. So each operation costs a launch, and a number that is read,
or a tensor that crosses between host and GPU, costs a wait for all that was sent before. Operations are those
that torch dispatches on a CPU; fake CUDA tensors show what would cross.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from slopesearch.config import TrialConfig
from slopesearch.nets.activations import ACTIVATIONS
from slopesearch.nets.models import MODELS, build_model
from slopesearch.training import engine
from slopesearch.training.data import Data
from slopesearch.training.devices import prepare
from slopesearch.training.diagnostics import diagnose
from slopesearch.training.engine import Alone, Member, Pack
from tests.conftest import make_config

CPU, META = torch.device("cpu"), torch.device("meta")
# These give memory, shapes or types, and launch nothing.
NO_WORK = {"empty", "empty_like", "new_empty_strided", "_unsafe_view", "promote_types"}


LEARNED: dict[str, Any] = {"slope_mode": "learnable"}
NORMS = ("none", "before", "after")


@pytest.fixture(autouse=True)
def _networks_without_an_init(monkeypatch: pytest.MonkeyPatch) -> None:
    """And of plain layers, as a GPU trains them. What the numbers are makes no difference here."""

    def build(config: TrialConfig, images: Tensor) -> nn.Sequential:
        return nn.Sequential(MODELS[config.model].build(config))

    monkeypatch.setattr(engine, "build_model", build)
    monkeypatch.setattr(engine, "accelerate", lambda model: model)


def mixed(count: int, norms: tuple[str, ...] = NORMS, **changes: Any) -> list[TrialConfig]:
    """CNNs of every activation and norm in turn: 9 kinds with one norm, 27 with all; slopes all differ."""
    kinds: list[dict[str, Any]] = [{"activation": name} for name in ACTIVATIONS]
    kinds.append({"slope_mode": "learnable", "slope_max": 0.3})
    found = []
    for i in range(count):
        kind = dict(kinds[i % len(kinds)])
        if kind.get("activation", "leaky_relu") == "leaky_relu":
            kind["negative_slope"] = 0.01 * (1 + i)
        norm = norms[(i + i // len(kinds)) % len(norms)]
        found.append(make_config(norm=norm, **kind, **{"model": "cnn", **changes}))
    return found


def team_of(configs: list[TrialConfig], data: Data, device: torch.device = CPU) -> Pack | Alone:
    members = [Member(config, data, device) for config in configs]
    return Pack(members, device) if len(members) > 1 else Alone(members, device)


class Spy(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Operations by name, views aside, each shown to `look`: its name, the tensors it is given and gives."""

    def __init__(self, look: Callable[[str, list[Tensor], list[Tensor]], None] | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: Counter[str] = Counter()
        self.float64 = 0  # the numbers of the largest tensor of that type
        self.look = look

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        given, made = ([x for x in tree_leaves(tree) if isinstance(x, Tensor)] for tree in (args, results))
        self.float64 = max([self.float64, *(x.numel() for x in made if x.dtype == torch.float64)])
        if not func.is_view:
            self.operations[name] += name not in NO_WORK
            if self.look is not None:
                self.look(name, given, made)
        return results


def operations_of_a_step(configs: list[TrialConfig]) -> Spy:
    images, labels = torch.zeros(2, 1, 28, 28), torch.tensor([0, 1])
    team = team_of(configs, Data(images, labels, images, labels))
    spy = Spy()
    with spy:
        team.step(images, labels, 0.5)
    return spy


@pytest.mark.parametrize(
    ("count", "norms", "most"),
    [
        (16, ("none",), 125),  # 9 kinds; with layers of their own for each kind it was 280
        (16, ("none", "before", "after"), 200),  # 16 kinds; 472
        (64, ("none", "before", "after"), 300),  # 27 kinds; 865
    ],
)
def test_a_step_of_a_mixed_pack_is_few_operations(count: int, norms: tuple[str, ...], most: int) -> None:
    spy = operations_of_a_step(mixed(count, norms))
    assert spy.operations.total() <= most, spy.operations.most_common()


def test_a_step_of_a_pack_of_one_kind_is_as_many_whatever_its_size() -> None:
    spies = [operations_of_a_step([make_config(model="cnn")] * count) for count in (4, 16)]
    assert spies[0].operations == spies[1].operations
    assert spies[0].operations.total() <= 52  # 66 before


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_step_reads_no_number_and_makes_no_map_float64(precision: str) -> None:
    forward = make_config(model="cnn", precision=precision, slope_clamp="forward", **LEARNED)
    configs = [*mixed(27, precision=precision), forward]
    for some in (configs, *([config] for config in configs if config.negative_slope is not None)):
        spy = operations_of_a_step(some)
        assert not spy.operations["_local_scalar_dense"]
        assert spy.float64 <= len(some)  # fixed slopes, before they meet a map


@pytest.mark.parametrize("slopes", [(0.1, 0.1), (0.1, 0.2)])
def test_fixed_slopes_have_no_gradient_to_compute(slopes: tuple[float, ...]) -> None:
    spy = operations_of_a_step([make_config(model="cnn", negative_slope=slope) for slope in slopes])
    assert not spy.operations["_prelu_kernel_backward"]
    assert spy.operations["leaky_relu_backward"] == (3 if len(set(slopes)) == 1 else 0)


def on_fake_cuda(model: nn.Module) -> None:
    """Put fake CUDA tensors of the same shapes and layouts in the place of a model's own."""
    for module in model.modules():
        places: list[dict[str, Any]] = [module._parameters, module._buffers]
        for held in places:
            for name, tensor in held.items():
                if tensor is not None:
                    strides = tensor.stride()
                    fake = torch.empty_strided(tensor.shape, strides, dtype=tensor.dtype, device="cuda")
                    held[name] = nn.Parameter(fake) if held is module._parameters else fake


@pytest.mark.parametrize("count", [1, 28])
def test_on_a_gpu_nothing_crosses_to_the_host_and_no_map_changes_its_layout(digits: Data, count: int) -> None:
    team = team_of(mixed(count), digits, META)

    copied: list[Tensor] = []

    def look(name: str, given: list[Tensor], made: list[Tensor]) -> None:
        assert {t.device.type for t in [*given, *made] if t.dim()} <= {"cuda"}, name
        assert all(t.is_contiguous() for t in made if t.dim() == 4), name
        copied.extend(t for t in made if t.dim() == 4 and name in ("clone", "_to_copy"))

    with FakeTensorMode(), torch.no_grad():
        on_fake_cuda(team.model)
        with Spy(look) as spy:
            logits = team.model(torch.empty(8, 1, 28, 28, device="cuda"))
    assert logits.shape == ((8, count, 10) if count > 1 else (8, 10))
    # cuDNN's BatchNorm wants the members that come straight from a convolution to themselves.
    assert len(copied) == (2 if count > 1 else 0)
    assert not spy.operations["_local_scalar_dense"]


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The tensors that were read as numbers."""
    found: list[Tensor] = []
    as_list = Tensor.tolist

    def tolist(tensor: Tensor) -> Any:
        found.append(tensor)
        return as_list(tensor)

    monkeypatch.setattr(Tensor, "tolist", tolist)
    return found


def test_a_report_reads_the_device_once_for_the_whole_pack(digits: Data, read: list[Tensor]) -> None:
    counts = []
    for count in (18, 27):
        team = team_of(mixed(count, ("before",), model="mlp", depth=3), digits)
        team.remember()
        read.clear()
        with Spy() as spy:
            team.look(digits.val_images[:8], digits.val_labels[:8])
        assert len(read) == 1
        assert not spy.operations["_local_scalar_dense"]
        counts.append(spy.operations.total())
    assert counts[0] == counts[1] <= 100


@pytest.mark.parametrize("changes", [{}, {"activation": "tanh"}, LEARNED])
def test_a_diagnosis_waits_once_a_batch_and_not_for_each_layer(
    digits: Data, changes: dict[str, Any], read: list[Tensor]
) -> None:
    config = make_config(depth=6, **changes)
    model = build_model(config)
    with torch.no_grad():  # a unit that is never active, so that all images are looked at
        model.get_parameter("linear1.bias")[0] = -1e3
    with Spy() as spy:
        found = diagnose(
            model, config, digits.val_images[:20], digits.val_labels[:20], digits.val_images[20:100]
        )
    assert found is not None
    assert found.images == 100
    assert len(read) == 2  # the gradients, which may end it; all shares
    assert spy.operations["_local_scalar_dense"] == 4  # four further batches


@pytest.mark.gpu
@pytest.mark.parametrize("count", [1, 27])
def test_a_training_step_on_a_gpu_waits_for_nothing(digits: Data, count: int) -> None:
    device = torch.device("cuda:0")
    prepare(device)
    data = digits.to(device)
    team = team_of(mixed(count), data, device)
    team.step(data.train_images[:64], data.train_labels[:64], 1.0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        team.step(data.train_images[:64], data.train_labels[:64], 1.0)
    finally:
        torch.cuda.set_sync_debug_mode("default")
