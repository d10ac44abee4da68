"""Which configs are confirmed, and on which seeds."""

from typing import Any

import pytest

from slopesearch.config import ResolvedSpec
from slopesearch.evidence.arms import EARLIER, HE, TUTORIAL, all_arms, baselines, choose_arms, paired
from slopesearch.search.records import StudyRecord, TrialRecord
from slopesearch.search.space import check, resolve
from slopesearch.wording import RequestError
from tests.conftest import make_config

SPEC: ResolvedSpec = resolve(
    check({"dataset": "digits", "space": {"activation": ["relu", "tanh", "elu", "gelu"]}}), "float32"
)


def trial(number: int, value: float, state: str = "COMPLETE", step: int = 9, **changes: Any) -> TrialRecord:
    return TrialRecord(number, state, value, make_config(**changes), {step: value}, {"ended": "completed"})


def study(*trials: TrialRecord, **changes: Any) -> StudyRecord:
    return StudyRecord("x", SPEC.model_copy(update=changes), list(trials))


RELU: dict[str, Any] = {"activation": "relu"}
TRIALS = (
    trial(0, 0.90, **RELU, lr=1e-3, init="kaiming_normal"),
    trial(1, 0.97, **RELU, lr=2e-3, norm="before"),
    trial(2, 0.96, **RELU, lr=3e-3, init="kaiming_uniform"),
    trial(3, 0.95, activation="tanh"),
    trial(4, 0.99, "PRUNED", step=1, activation="elu", lr=1e-4),
    trial(5, 0.80, "PRUNED", step=3, activation="elu", lr=1e-2),
    trial(6, 0.70, "PRUNED", step=3, activation="elu", lr=2e-2),
    trial(7, 0.10, "FAIL", activation="gelu"),
)


def test_the_best_few_the_best_of_each_activation_and_the_baselines() -> None:
    arms = choose_arms(study(*TRIALS), top=2)
    assert [(arm.roles, arm.trial, arm.searched) for arm in arms] == [
        (("top 1", "best relu"), 1, 0.97),
        (("top 2",), 2, 0.96),
        (("best tanh",), 3, 0.95),
        (("best elu",), 5, None),  # all were pruned: the best of those that got furthest
        ((TUTORIAL,), None, None),
        ((HE,), 0, 0.90),
    ]
    tutorial, he = arms[4].config, arms[5].config
    assert (tutorial.activation, tutorial.negative_slope, tutorial.lr) == ("leaky_relu", 0.01, 1e-3)
    assert (tutorial.slope_mode, tutorial.norm, tutorial.init) == ("fixed", "none", "default")
    # As people use it, whatever rate the search found for it.
    assert (he.activation, he.negative_slope, he.norm, he.init, he.lr) == (
        *("relu", None, "none", "kaiming_normal"),
        1e-3,
    )
    assert [arm.is_baseline for arm in arms] == [False] * 4 + [True] * 2
    fair = {name: config.model_copy(update={"lr": 0.5}) for name, config in baselines(study(*TRIALS)).items()}
    more = choose_arms(study(*TRIALS), 2, fair)
    assert more[:6] == arms
    assert [(arm.roles, arm.config.lr, arm.is_baseline) for arm in more[6:]] == [
        ((f"{name}, its lr tuned",), 0.5, True) for name in (TUTORIAL, HE)
    ]
    as_good = {TUTORIAL: tutorial, HE: he}  # the tuned rate is that which people use
    assert choose_arms(study(*TRIALS), 2, as_good)[4].roles == (TUTORIAL, f"{TUTORIAL}, its lr tuned")
    assert {arm.config.pack_key() for arm in arms} == {TRIALS[0].config.pack_key()}  # type: ignore[union-attr]


def test_a_baseline_that_was_searched_is_its_trial() -> None:
    (_, he) = choose_arms(study(TRIALS[0]), top=1)[1], choose_arms(study(TRIALS[0]), top=1)[0]
    assert (he.roles, he.trial, he.searched) == (("top 1", "best relu", HE), 0, 0.90)


def test_a_loss_is_ranked_upwards() -> None:
    arms = choose_arms(study(*TRIALS, objective="val_loss"), top=1)
    assert (arms[0].roles, arms[0].trial) == (("top 1", "best relu", HE), 0)
    assert next(arm for arm in arms if arm.roles == ("best elu",)).trial == 6


def test_nothing_to_confirm_is_said() -> None:
    with pytest.raises(RequestError, match="has run to its end yet"):
        choose_arms(study(TRIALS[5]), top=5)


def test_what_was_confirmed_before_stays() -> None:
    first, second = choose_arms(study(*TRIALS), top=2), choose_arms(study(*TRIALS[:1]), top=2)
    arms = all_arms(second, first)
    assert len(arms) == len({arm.config for arm in arms})
    assert [arm.roles for arm in arms if arm not in second] == [(EARLIER,)] * (len(arms) - len(second))
    assert {arm.config for arm in first} <= {arm.config for arm in arms}


def test_seeds_are_paired_and_fresh() -> None:
    a, b = make_config(), make_config(activation="elu", lr=0.1)
    seeds = [(run.init_seed, run.order_seed) for run in (paired(a, 0, i) for i in range(50))]
    assert seeds == [(run.init_seed, run.order_seed) for run in (paired(b, 0, i) for i in range(50))]
    assert len({seed for pair in seeds for seed in pair}) == 100
    assert not set(seeds) & {(paired(a, 1, i).init_seed, paired(a, 1, i).order_seed) for i in range(50)}
    assert paired(a, 0, 0).model_copy(update={"init_seed": 2, "order_seed": 1}) == a  # nothing else changes
