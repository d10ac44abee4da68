"""What a spec accepts, and every mistake at once."""

from typing import Any

import pytest

from slopesearch.config import Range, ResolvedSpec, Space, StudySpec, TrialConfig
from slopesearch.search.space import check, resolve
from slopesearch.seeds import derive
from slopesearch.wording import RequestError
from tests.conftest import make_config


def refused(data: dict[str, Any]) -> tuple[str, ...]:
    with pytest.raises(RequestError) as error:
        check(data)
    return error.value.sentences


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({"model": "resnet"}, "unknown model 'resnet'; choose from mlp, cnn"),
        (
            {"dataset": "cifar"},
            "unknown dataset 'cifar'; choose from auto, mnist, fashion-mnist, kmnist, digits",
        ),
        ({"sampler": "grid"}, "unknown sampler 'grid'; choose from tpe, random"),
        ({"pruner": "asha"}, "unknown pruner 'asha'; choose from halving, median, none"),
        (
            {"space": {"activation": ["relu", "rellu"]}},
            "unknown activation 'rellu'; choose from relu, leaky_relu,",
        ),
        ({"space": {"init": "he"}}, "unknown init 'he'; choose from default, kaiming_normal,"),
        (
            {"space": {"norm": "batch"}},
            "unknown space.norm 'batch'; choose from 'none', 'before' or 'after'",
        ),
        ({"objective": "loss"}, "unknown objective 'loss'; choose from 'val_accuracy' or 'val_loss'"),
        ({"epoch": 3}, "unknown key 'epoch'; choose from dataset, model, depth"),
        ({"space": {"slope": 0.1}}, "unknown key 'space.slope'; choose from activation, slope_mode"),
        (
            {"space": {"lr": {"low": 1e-3, "high": 1, "hihg": 1}}},
            "unknown key 'space.lr.hihg'; choose from low, high, log",
        ),
        ({"space": {"lr": {"low": 0.1, "high": 0.01}}}, "space.lr: low must be below high, given low = 0.1"),
        ({"space": {"lr": {"low": 0, "high": 1, "log": True}}}, "space.lr: a log range needs low above 0"),
        ({"space": {"lr": 0.0}}, "space.lr: a learning rate is above 0, given 0.0"),
        ({"space": {"lr": "fast"}}, "space.lr.0: input should be a valid number, given 'fast'"),
        ({"space": {"lr": float("nan")}}, "space.lr.0: input should be a finite number, given nan"),
        (
            {"space": {"negative_slope": [-0.1, 0.1]}},
            "space.negative_slope: a slope lies in [0, 1], given -0.1",
        ),
        ({"space": {"slope_max": 1.5}}, "space.slope_max: a slope lies in [0, 1], given 1.5"),
        ({"space": {"norm": []}}, "space.norm: an empty list; give at least one value"),
        ({"space": {"init": ["lsuv", "lsuv"]}}, "space.init: lists a value twice"),
        ({"epochs": 2.5}, "epochs: input should be a valid integer, given 2.5"),
        ({"epochs": 0}, "epochs: input should be greater than or equal to 1, given 0"),
        ({"seed": True}, "seed: input should be a valid integer, given True"),
        ({"warmup": 1.0}, "warmup: input should be less than 1, given 1.0"),
    ],
)
def test_a_mistake_gets_a_sentence(data: dict[str, Any], sentence: str) -> None:
    (found,) = refused(data)
    assert found.startswith(sentence)


def test_all_mistakes_are_told_at_once() -> None:
    found = refused(
        {
            "model": "resnet",
            "epochs": -1,
            "depht": 3,
            "space": {"lr": {"low": 1, "high": 0}, "activation": "rellu", "negative_slope": 2},
        }
    )
    assert len(found) == 6


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        (
            {"model": "cnn", "depth": 3},
            "depth: model 'cnn' takes none, given 3; leave it out or choose model 'mlp'",
        ),
        ({"train_size": 5000}, "train_size: at most 1,000 for digits, given 5,000"),
        ({"val_size": 5000}, "val_size: at most 397 for digits, given 5,000"),
        ({"train_size": 100}, "batch_size: at most train_size, which is 100, given 128"),
        ({"train_size": 128, "epochs": 8}, "epochs: a run of 8 steps is too short for its 9 reports"),
        ({"slope_min": 0.2}, "space.slope_max: must lie above slope_min, which is 0.2, given 0.1"),
    ],
)
def test_fields_that_do_not_fit_together_are_refused(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RequestError) as error:
        resolve(check({"dataset": "digits", **fields}), "float32")
    assert str(error.value).startswith(sentence)


def test_a_list_is_a_choice_a_table_a_range_a_value_fixes() -> None:
    space = check(
        {"space": {"activation": "elu", "negative_slope": [0.01, 0.1], "lr": {"low": 1e-3, "high": 1e-2}}}
    ).space
    assert space.activation == ("elu",)
    assert space.negative_slope == (0.01, 0.1)
    assert space.lr == Range(low=1e-3, high=1e-2)


def test_a_resolved_spec_leaves_nothing_open_and_survives_json() -> None:
    spec = resolve(check({"dataset": "digits", "model": "mlp"}), "bf16")
    assert (spec.depth, spec.width, spec.epochs, spec.train_size, spec.precision) == (
        1,
        128,
        12,
        1000,
        "bf16",
    )
    assert "prelu" in spec.space.activation
    assert ResolvedSpec.model_validate_json(spec.model_dump_json()) == spec


def test_nouns_are_frozen() -> None:
    for noun in (StudySpec(), Space(), make_config()):
        with pytest.raises(ValueError, match="frozen"):
            noun.lr = 1.0  # type: ignore[union-attr, misc]


def test_what_may_differ_in_a_pack_is_a_field_and_not_in_its_key() -> None:
    assert TrialConfig.member_fields < set(TrialConfig.model_fields)
    assert make_config().pack_key() == make_config(activation="elu", lr=0.02, init_seed=7).pack_key()
    assert make_config().pack_key() != make_config(order_seed=7).pack_key()


def test_seeds_are_the_same_everywhere() -> None:
    assert derive(0, "init", "linear1", "weight") == 2_583_693_278
    assert len({derive(seed, "order", epoch) for seed in range(30) for epoch in range(30)}) == 900
