"""The training path: schedule, reports, bit-equality, divergence, packs of plain models."""

import copy
import io
import time
from math import inf, log, nan
from typing import Any

import pytest
import torch

from slopesearch.config import QUICK_VALIDATION, REPORTS, Report
from slopesearch.nets.activations import ACTIVATIONS
from slopesearch.nets.models import build_model
from slopesearch.training.data import Data
from slopesearch.training.devices import prepare
from slopesearch.training.diagnostics import diagnose, hidden_weights
from slopesearch.training.engine import (
    Alone,
    Member,
    Pack,
    batches_of,
    lr_factor,
    report_steps,
    total_steps,
    train,
    validated_at,
)
from slopesearch.training.optimizers import SingleAdamW
from slopesearch.training.validation import evaluate
from tests.conftest import drain, make_config, run_to_end

CPU = torch.device("cpu")


def test_reports_are_evenly_spaced_and_end_with_the_run() -> None:
    assert report_steps(234) == [26, 52, 78, 104, 130, 156, 182, 208, 234]
    assert report_steps(10) == [1, 2, 3, 4, 6, 7, 8, 9, 10]  # the nearest step, not the one before
    assert report_steps(9) == list(range(1, 10))
    assert total_steps(10_000, 128, 3) == 234


def test_learning_rate_warms_up_then_falls_to_zero() -> None:
    factors = [lr_factor(step, 200, 0.05) for step in range(200)]
    assert factors[:10] == pytest.approx([0.1 * i for i in range(1, 11)])
    assert max(factors) == 1.0
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert factors[-1] == pytest.approx(1 / 190)
    assert lr_factor(0, 200, 0.0) == 1.0
    assert [lr_factor(step, 9, 0.99) for step in (0, 8)] == pytest.approx([1 / 9, 1])  # warm-up to the end


def test_an_epoch_takes_every_image_once_and_another_takes_them_in_another_order(digits: Data) -> None:
    config = make_config()
    batches = batches_of(digits, config, CPU)
    first, second = (torch.cat([next(batches) for _ in range(512 // 64)]) for _ in range(2))
    assert first.sort().values.tolist() == second.sort().values.tolist() == list(range(512))
    assert not torch.equal(first, second)
    batches = batches_of(digits, make_config(batch_size=100), CPU)
    assert {len(next(batches)) for _ in range(11)} == {100}  # what fills no batch waits for the next epoch


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_the_same_config_twice_is_bit_equal(digits: Data, precision: str) -> None:
    # Few images: bf16 is slow where the CPU has to emulate it.
    few = Data(
        digits.train_images[:160], digits.train_labels[:160], digits.val_images[:160], digits.val_labels[:160]
    )
    sizes = {"train_size": 160, "val_size": 160, "batch_size": 16, "epochs": 1}
    config = make_config(model="cnn", norm="before", precision=precision, **sizes)
    first, second = run_to_end(config, few), run_to_end(config, few)
    assert first.curve == second.curve
    assert len(first.curve) == REPORTS
    assert first.ended == "completed"


def test_seeds_reach_the_run(digits: Data) -> None:
    base = run_to_end(make_config(), digits).curve
    assert run_to_end(make_config(init_seed=8), digits).curve != base
    assert run_to_end(make_config(order_seed=8), digits).curve != base
    assert run_to_end(make_config(lr=2e-3), digits).curve != base


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("norm", ["none", "before", "after"])
def test_everything_registered_learns(digits: Data, activation: str, norm: str) -> None:
    result = run_to_end(make_config(activation=activation, norm=norm, lr=3e-3, epochs=6), digits)
    assert result.ended == "completed"
    assert result.final.val_accuracy > 0.8
    assert result.final.train_loss < result.curve[0].train_loss


def test_a_well_chosen_net_passes_97_percent_on_digits() -> None:
    from pathlib import Path

    from slopesearch.training.data import DATASETS, load

    entry = DATASETS["digits"]
    data = load("digits", Path("unused"), 0, entry.train_size, entry.val_size)
    config = make_config(
        model="cnn",
        norm="before",
        batch_size=128,
        lr=3e-3,
        epochs=entry.epochs,
        train_size=entry.train_size,
    )
    assert run_to_end(config, data).final.val_accuracy > 0.97


def test_a_run_that_diverges_reports_chance_and_ends(digits: Data) -> None:
    result = run_to_end(make_config(lr=1e6), digits)
    assert result.ended == "diverged"
    assert len(result.curve) < REPORTS
    assert result.final.val_accuracy == 0.1
    assert result.final.val_loss == pytest.approx(log(10))


def report_of(member: Member, step: int, train_loss: float, data: Data) -> Report:
    """What a member reports whose last step has changed nothing."""
    team = Alone([member], CPU)
    team.remember()
    (seen,) = team.look(*validated_at(step, data))
    return member.report(step, train_loss, seen, data.classes)


@pytest.mark.parametrize(
    ("train_loss", "diverged"),
    [(9.9 * log(10), False), (10.1 * log(10), True), (inf, True), (nan, True)],
)
def test_a_run_diverges_at_ten_times_the_loss_of_chance(
    digits: Data, train_loss: float, diverged: bool
) -> None:
    member = Member(make_config(), digits, CPU)
    assert report_of(member, 1, train_loss, digits).diverged == diverged


def test_a_validation_loss_that_is_not_a_number_is_divergence(digits: Data) -> None:
    member = Member(make_config(), digits, CPU)
    member.model.get_parameter("out.bias").data.fill_(nan)
    assert report_of(member, 1, 1.0, digits).diverged


def test_the_last_report_alone_is_on_all_validation_images(digits: Data) -> None:
    more = 250
    labels = torch.tensor([3] * QUICK_VALIDATION + [4] * more)
    data = Data(
        digits.train_images, digits.train_labels, torch.zeros(QUICK_VALIDATION + more, 1, 28, 28), labels
    )
    member = Member(make_config(), data, CPU)
    member.model.get_parameter("out.weight").data.fill_(0)
    member.model.get_parameter("out.bias").data.copy_(torch.arange(10) == 3)
    accuracies = [report_of(member, step, 1.0, data).val_accuracy for step in (1, REPORTS - 1, REPORTS)]
    assert accuracies == [1.0, 1.0, QUICK_VALIDATION / (QUICK_VALIDATION + more)]


def test_not_a_number_ends_the_run(digits: Data) -> None:
    broken = Data(
        torch.full_like(digits.train_images, float("nan")),
        digits.train_labels,
        digits.val_images,
        digits.val_labels,
    )
    result = run_to_end(make_config(), broken)
    assert [report.diverged for report in result.curve] == [True]


def test_members_of_a_pack_train_as_if_alone_and_leave_when_they_are_stopped(digits: Data) -> None:
    configs = [
        make_config(),
        make_config(activation="tanh", norm="after", lr=3e-3),
        make_config(slope_mode="learnable", init="orthogonal", weight_decay=0.01),
        make_config(norm="before", lr=1e6),
        make_config(activation="prelu", norm="before", init="lsuv"),
    ]
    run = train(configs, digits, CPU)
    assert list(next(run)) == [0, 1, 2, 3, 4]
    left = list(run.send([1]))
    assert 1 not in left
    assert {0, 2, 4} <= set(left)
    together = drain(run)
    alone = [run_to_end(config, digits) for config in configs]
    ends = ["completed", "pruned", "completed", alone[3].ended, "completed"]
    assert [result.ended for result in together] == ends
    for i in (0, 2, 4):
        for mine, theirs in zip(together[i].curve, alone[i].curve, strict=True):
            assert mine.train_loss == pytest.approx(theirs.train_loss, rel=1e-3)
            # Behind BatchNorm, gradients that are 0 but for rounding get whole steps of Adam.
            assert mine.val_accuracy == pytest.approx(theirs.val_accuracy, abs=0.04)
            assert mine.update_ratios == pytest.approx(theirs.update_ratios, rel=0.1)
    assert len(together[1].curve) == 1


def test_a_pack_goes_on_with_one_member(digits: Data) -> None:
    configs = [make_config(), make_config(lr=3e-3)]
    run = train(configs, digits, CPU)
    next(run)
    assert list(run.send([0])) == [1]
    stopped, whole = drain(run)
    assert (stopped.ended, whole.ended, len(whole.curve)) == ("pruned", "completed", REPORTS)
    assert whole.final.val_loss == pytest.approx(run_to_end(configs[1], digits).final.val_loss, rel=1e-2)


def test_a_pack_is_seen_as_its_members_are_alone(digits: Data) -> None:
    learned = {"slope_mode": "learnable"}
    kinds = [{"activation": "prelu"}, {**learned, "slope_clamp": "forward"}, learned, {}]
    members = [Member(make_config(depth=2, **kind), digits, CPU) for kind in kinds]
    for layer, slope in (("act1", 0.05), ("act2", 5.0)):
        members[0].model.get_parameter(f"{layer}.weight").data.fill_(slope)
        members[1].model.get_parameter(f"{layer}.slope").data.fill_(slope)
    teams: list[Any] = [Pack(members, CPU), *(Alone([member], CPU) for member in members)]
    seen = []
    for team in teams:
        team.remember()
        seen += team.look(digits.val_images, digits.val_labels)
    assert seen[5].slopes == pytest.approx((0.05, 0.1))  # slope_max is 0.1
    assert seen[5].raw_slopes == pytest.approx((0.05, 5.0))
    for together, alone in zip(seen[:4], seen[4:], strict=True):
        for name, value in alone._asdict().items():
            assert getattr(together, name) == pytest.approx(value, rel=1e-4), name


def test_update_ratios_are_of_one_step(digits: Data) -> None:
    config = make_config(batch_size=56, epochs=1)  # nine steps, a report after each
    (weights,) = hidden_weights(Member(config, digits, CPU).model)
    report = next(train([config], digits, CPU))[0]
    moved = config.lr * weights.numel() ** 0.5  # Adam's first step is as large for every weight
    assert report.update_ratios == pytest.approx((moved / weights.norm().item(),), rel=0.02)


def test_the_seconds_of_members_are_shares_of_those_of_the_run(digits: Data) -> None:
    started = time.perf_counter()
    run = train([make_config(), make_config(lr=3e-3)], digits, CPU)
    next(run)
    results = drain(run)
    passed = time.perf_counter() - started
    assert sum(result.seconds for result in results) <= passed
    for result in results:
        assert 0 < 24 * 64 / result.images_per_second < result.seconds  # training is a part of the run


def test_different_batches_cannot_share_a_run(digits: Data) -> None:
    with pytest.raises(ValueError, match="pack keys"):
        next(train([make_config(), make_config(order_seed=5)], digits, CPU))


def test_decay_spares_slopes_norms_and_biases(digits: Data) -> None:
    config = make_config(slope_mode="learnable", norm="after", weight_decay=0.1)
    member = Member(config, digits, CPU)
    decayed, spared = Alone([member], CPU).optimizer.param_groups
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.1, 0.0)
    names = {id(parameter): name for name, parameter in member.model.named_parameters()}
    assert {names[id(p)] for p in decayed["params"]} == {"linear1.weight", "out.weight"}
    assert {"act1.slope", "norm1.weight", "out.bias"} <= {names[id(p)] for p in spared["params"]}


def test_learned_slopes_are_reported_and_stay_in_range(digits: Data) -> None:
    result = run_to_end(make_config(slope_mode="learnable", lr=0.03, depth=3), digits)
    for report in result.curve:
        assert len(report.slopes) == 3
        assert all(1e-3 - 1e-9 <= slope <= 0.1 + 1e-7 for slope in report.slopes)
    assert result.final.slopes != (0.01, 0.01, 0.01)


def test_evaluate_is_the_mean_over_all_images_in_evaluation_mode(digits: Data) -> None:
    config = make_config(norm="before")
    member = Member(config, digits, CPU)
    assert member.model.training
    loss, accuracy = evaluate(member.model, config, digits.val_images, digits.val_labels)
    with torch.no_grad():
        logits = member.model.eval()(digits.val_images)
    assert loss == pytest.approx(
        torch.nn.functional.cross_entropy(logits, digits.val_labels).item(), rel=1e-5
    )
    assert accuracy == (logits.argmax(1) == digits.val_labels).double().mean().item()


@pytest.mark.gpu
def test_a_gpu_trains_like_the_cpu(digits: Data) -> None:
    config = make_config(norm="before", slope_mode="learnable")
    device = torch.device("cuda:0")
    prepare(device)
    run = train([config], digits.to(device), device)
    report = next(run)[0]
    cpu = next(train([config], digits, CPU))[0]
    assert report.train_loss == pytest.approx(cpu.train_loss, rel=1e-3)
    assert report.val_accuracy == pytest.approx(cpu.val_accuracy, abs=0.01)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("norm", ["none", "before", "after"])
def test_the_cnns_pools_take_the_compiled_path(
    digits: Data, norm: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    member = Member(make_config(model="cnn", norm=norm, precision=precision), digits, CPU)
    monkeypatch.setattr("torch.nn.functional.max_pool2d", pytest.fail)
    Alone([member], CPU).step(digits.train_images[:64], digits.train_labels[:64], 1.0)
    evaluate(member.fast, member.config, digits.val_images[:64], digits.val_labels[:64])


def test_training_goes_on_in_training_mode_after_a_look_inside(digits: Data) -> None:
    config = make_config(norm="before", model="cnn")
    member = Member(config, digits, CPU)
    team, x, y = Alone([member], CPU), digits.train_images[:16], digits.train_labels[:16]
    team.step(x, y, 1.0)
    diagnose(member.model, config, digits.val_images[:20], digits.val_labels[:20])
    team.step(x, y, 1.0)
    assert member.model.get_buffer("norm1.num_batches_tracked") == 2


@pytest.mark.parametrize("norm", ["none", "before", "after"])
@pytest.mark.parametrize("activation", ["leaky_relu", "prelu", "gelu"])
def test_the_model_itself_learns_as_its_accelerated_one_does(
    digits: Data, activation: str, norm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(model="cnn", activation=activation, norm=norm)
    losses = []
    for off in (False, True):
        if off:
            monkeypatch.setattr("slopesearch.training.engine.accelerate", lambda model: model)
        member = Member(config, digits, CPU)
        assert (member.fast is member.model) == off
        trainer = Alone([member], CPU)
        for start in range(0, 320, 64):
            trainer.step(
                digits.train_images[start : start + 64], digits.train_labels[start : start + 64], 1.0
            )
        losses += trainer.losses()
        losses.append(evaluate(member.fast, config, digits.val_images[:64], digits.val_labels[:64])[0])
    assert losses[0] == pytest.approx(losses[2], rel=1e-3)
    assert losses[1] == pytest.approx(losses[3], rel=0.05)  # Adam's first steps make rounding as large


def _two_of_a_kind(decay: float) -> tuple[Any, SingleAdamW, Any, torch.optim.AdamW]:
    """One network twice, with our optimizer and with torch's on the groups of checkpoints of before."""
    config = make_config(model="cnn", activation="prelu", norm="before")
    ours = build_model(config).to(memory_format=torch.channels_last)
    theirs = copy.deepcopy(ours)
    parameters = list(theirs.parameters())
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return (
        ours,
        SingleAdamW(ours.parameters(), 0.01, decay),
        theirs,
        torch.optim.AdamW(groups, lr=0.01, fused=True),
    )


def _step(ours: Any, mine: SingleAdamW, theirs: Any, other: torch.optim.AdamW, step: int) -> None:
    factor = (0.3, 1.0, 0.7, 0.01)[step % 4]
    for index, (p, q) in enumerate(zip(ours.parameters(), theirs.parameters(), strict=True)):
        generator = torch.Generator().manual_seed(100 * step + index)
        p.grad = torch.zeros_like(p).copy_(torch.randn(p.shape, generator=generator))
        q.grad = p.grad.clone(memory_format=torch.preserve_format)
    mine.update(factor)
    for group in other.param_groups:
        group["lr"] = 0.01 * factor
    other.step()
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(p, q)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_the_optimizer_is_torchs_adamw_bit_for_bit(decay: float) -> None:
    pair = _two_of_a_kind(decay)
    for step in range(8):
        _step(*pair, step)
    states = pair[1].state_dict()["state"], pair[3].state_dict()["state"]
    assert states[0].keys() == states[1].keys()
    for key, state in states[0].items():
        for name in ("step", "exp_avg", "exp_avg_sq"):
            assert torch.equal(state[name], states[1][key][name])


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_the_optimizers_state_is_read_by_torchs_and_back(decay: float) -> None:
    """As it lies in checkpoints, which torch's AdamW wrote before."""
    ours, mine, theirs, other = _two_of_a_kind(decay)
    for step in range(3):
        _step(ours, mine, theirs, other, step)
    written = [io.BytesIO(), io.BytesIO()]
    torch.save(mine.state_dict(), written[0])
    torch.save(other.state_dict(), written[1])
    to_torch, to_ours = (torch.load(io.BytesIO(f.getvalue()), weights_only=True) for f in written)
    state = ours.state_dict()
    ours, mine, theirs, other = _two_of_a_kind(decay)
    ours.load_state_dict(state)
    theirs.load_state_dict(state)
    mine.load_state_dict(to_ours)
    other.load_state_dict(to_torch)
    for step in range(3, 7):
        _step(ours, mine, theirs, other, step)
