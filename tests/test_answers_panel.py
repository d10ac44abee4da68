"""The cards that the page opens with: every number of them is made again from the runs that are stored."""

import json
import re
from collections.abc import Mapping
from math import exp, log, sqrt
from typing import Any

import numpy as np
import pytest
from scipy import stats

from slopesearch.config import TrialConfig
from slopesearch.evidence.answers import Answer, answer
from slopesearch.evidence.arms import Arm
from slopesearch.evidence.families import RUNOFF_SEEDS, Family, runs_to_answer
from slopesearch.evidence.questions import QUESTIONS as FAMILIES
from slopesearch.evidence.questions import around
from slopesearch.evidence.rates import level_rates, tuned_losses
from slopesearch.evidence.results import ConfirmedArm, compare_with_pick, confirm_arm
from slopesearch.report.answers_panel import Card, _told, cards
from slopesearch.report.findings import headline, lead
from slopesearch.report.page import page, tables_of
from slopesearch.report.summary import Verdicts
from slopesearch.search.records import StudyRecord, TrialRecord
from slopesearch.training.devices import usable_cores
from tests.conftest import make_config
from tests.synthetic import record, spec_of, study_of, study_with
from tests.test_verdicts import answer_of, side_of

STUDY = study_of(120)
ASKED = (
    *("Which activation?", "Which slope of leaky ReLU?", "Slope fixed or learned?"),
    *("Where does BatchNorm go?", "Which init?", "Which learning rate?"),
)


def percent(one: tuple[float, ...], other: tuple[float, ...]) -> str:
    """The difference of two losses in per cent with its Student interval, from the runs."""
    logs = np.log(one) - np.log(other)
    low, high = stats.t.interval(0.95, len(logs) - 1, logs.mean(), stats.sem(logs))
    mean, low, high = (100 * (exp(x) - 1) for x in (logs.mean(), low, high))
    return f"loss {mean:+.1f} % [{low:+.1f}, {high:+.1f}]"


def compared(*answers: Answer) -> StudyRecord:
    stored = {one.family.question: json.loads(one.model_dump_json()) for one in answers}
    return StudyRecord("digits-cnn/compare", STUDY.spec, [], {"answers": stored})


def card(question: str, verdicts: Verdicts, study: StudyRecord = STUDY) -> Card:
    return next(one for one in cards(study, verdicts) if one.question == question)


def losses(answer: Answer, name: str) -> tuple[float, ...]:
    return answer.side(name).losses


# --- from a comparison


def test_all_others_are_worse() -> None:
    found = answer_of(
        side_of("gelu", 1, 0.01, 0), side_of("silu", 1.05, 0.01, 1), side_of("elu", 1.4, 0.01, 2),
        side_of("tanh", 1.5, 0.01, 3), question="activation",
    )  # fmt: skip
    told = card("Which activation?", Verdicts(comparison=compared(found)))
    assert (told.answer, told.chip, told.state) == ("gelu", "settled", "settled")
    nearest = percent(losses(found, "silu"), losses(found, "gelu"))
    assert told.evidence == f"Against gelu: 3 worse, nearest silu, {nearest}. 10 seeds."
    assert told.link == "answer-activation"
    assert told.command == ""


def test_what_is_equivalent_is_an_answer_too() -> None:
    found = answer_of(
        side_of("leaky_relu 0.01", 1, 0.01, 0), side_of("leaky_relu 0.001", 1, 0.01, 1),
        side_of("leaky_relu 0.1", 1.1, 0.01, 2),
    )  # fmt: skip
    told = card("Which slope of leaky ReLU?", Verdicts(comparison=compared(found)))
    assert (told.answer, told.chip) == ("0.01 or 0.001", "settled")
    base = losses(found, "leaky_relu 0.01")
    assert f"0.001 equivalent, {percent(losses(found, 'leaky_relu 0.001'), base)}" in told.evidence
    assert f"0.1 worse, {percent(losses(found, 'leaky_relu 0.1'), base)}" in told.evidence


def seconds_like_the_best() -> float:
    """The median of the whole runs with BatchNorm where the best has it, or without as it."""
    whole = [t for t in STUDY.trials if t.state == "COMPLETE" and t.config is not None]
    best = max(whole, key=lambda t: t.value or 0.0).config
    assert best is not None
    return float(
        np.median([t.attributes["seconds"] for t in whole if t.config and t.config.norm == best.norm])
    )


def test_what_is_not_settled_says_so_and_what_would_settle_it() -> None:
    found = answer_of(
        side_of("before", 1, 0.01, 0), side_of("after", 1.02, 0.05, 1), side_of("none", 1.2, 0.01, 2),
        question="norm",
    )  # fmt: skip
    told = card("Where does BatchNorm go?", Verdicts(comparison=compared(found)))
    assert (told.answer, told.state) == ("Before the activation, or after: open", "partly")
    assert f"after not settled, {percent(losses(found, 'after'), losses(found, 'before'))}" in told.evidence
    further = found.contrasts[0].val_loss.further
    assert further
    assert told.command == f"compare digits-cnn --only norm --seeds {10 + further}"
    each = seconds_like_the_best()
    minutes = max(1, round(3 * further * each / usable_cores() / 60))
    assert told.cost == f"about {minutes:,} min"


def test_nothing_settled_is_no_answer_and_a_better_arm_is_one() -> None:
    open_one = answer_of(side_of("default", 1, 0.1, 0), side_of("lsuv", 1.02, 0.1, 1), question="init")
    told = card("Which init?", Verdicts(comparison=compared(open_one)))
    assert (told.answer, told.chip, told.state) == ("Open: default or lsuv", "not settled", "open")
    many = [side_of(name, 1.02, 0.1, k) for k, name in enumerate(("default", "lsuv", "orthogonal", "he"))]
    told = card("Which init?", Verdicts(comparison=compared(answer_of(*many, question="init"))))
    assert told.answer == "Open: default or one of 3 others"
    better = answer_of(side_of("default", 1, 0.01, 0), side_of("lsuv", 0.8, 0.01, 1), question="init")
    told = card("Which init?", Verdicts(comparison=compared(better)))
    assert (told.answer, told.chip) == ("lsuv rather than default", "settled")
    few = answer_of(
        side_of("default", 1, 0.1, 0, 5), side_of("lsuv", 1.1, 0.1, 1, 5), question="init", looks=(5,)
    )
    assert card("Which init?", Verdicts(comparison=compared(few))).chip == "no verdict below 6 seeds"


def test_learning_a_slope_that_gains_nothing_and_what_its_own_mean_leaves_open() -> None:
    learned: dict[str, Any] = {"slope_mode": "learnable", "slope_max": 0.3}
    fixed, up = side_of("fixed 0.01", 1, 0.01, 0), side_of("learned, at most 0.3", 1.05, 0.01, 1, **learned)
    twin = side_of("mean of learned, at most 0.3", 1.03, 0.1, 2, negative_slope=0.05)
    sides = [fixed, up, twin]
    found = answer_of(*sides, question="learned")
    family = found.family.model_copy(
        update={
            "sides": (fixed[0], up[0], twin[0].model_copy(update={"mean_of": up[0].name})),
            "contrasts": ((up[0].name, fixed[0].name), (up[0].name, twin[0].name)),
        }
    )
    judged = answer(family, [runs for _, runs in sides], (10,))
    told = card("Slope fixed or learned?", Verdicts(comparison=compared(judged)))
    assert told.answer == "Fixed: learning it gains nothing"
    assert (told.chip, told.state) == ("partly settled", "partly")
    assert f"up to 0.3 worse, {percent(up[1].losses, fixed[1].losses)}" in told.evidence
    assert told.evidence.endswith("Against their means, fixed: not settled.")


def test_a_declared_comparison_has_a_card_for_each_level() -> None:
    pairs = [side_of(f"{a}, {n}", 1 + 0.2 * k, 0.01, k) for a in ("relu", "elu") for k, n in enumerate("xy")]
    found = answer_of(*pairs, question="arms")
    family = found.family.model_copy(update={"contrasts": (("relu, y", "relu, x"), ("elu, y", "elu, x"))})
    judged = answer(family, [runs for _, runs in pairs], (10,))
    study = StudyRecord("x/compare", STUDY.spec, [], compared(judged).attributes)
    # The answers of a declared comparison stand in its own study.
    told = cards(study, Verdicts(comparison=study))
    assert [(one.question, one.answer, one.chip) for one in told] == [
        ("relu", "x", "settled"), ("elu", "x", "settled"),
    ]  # fmt: skip


# --- from a confirmation


def arm(role: str, values: list[float], **fields: Any) -> ConfirmedArm:
    runs = [
        record(n, "COMPLETE", 0.9, attributes={"val_loss": loss, "val_accuracy": 1 - loss / 5})
        for n, loss in enumerate(values)
    ]
    return confirm_arm(Arm(roles=(role,), config=make_config(**fields)), runs, "val_accuracy")


NOISE = np.random.default_rng(3).normal(size=(3, 10))
ARMS = compare_with_pick(
    [
        arm("top 1", list(0.040 + 0.001 * NOISE[0]), activation="gelu", norm="before", lr=0.01),
        arm("best silu", list(0.0405 + 0.002 * NOISE[1]), activation="silu", norm="after", lr=0.01),
        arm("best elu", list(0.060 + 0.001 * NOISE[2]), activation="elu", norm="before", lr=0.02),
    ]
)
CONFIRMED = StudyRecord(
    "digits-cnn/confirm", STUDY.spec, [], {"confirmed": [row.model_dump(mode="json") for row in ARMS]}
)


def test_a_confirmation_compares_configs_and_says_in_what_they_differ() -> None:
    told = card("Which activation?", Verdicts(CONFIRMED))
    differences = np.subtract(ARMS[0].losses, ARMS[1].losses)
    low, high = stats.t.interval(0.95, 9, differences.mean(), stats.sem(differences))
    signs = 1 - 2 * (np.arange(2**10)[:, None] >> np.arange(10) & 1)  # every flip of every seed
    both = np.array([differences, np.subtract(ARMS[0].losses, ARMS[2].losses)]).T
    t = np.abs(signs @ both) / np.sqrt((both**2).sum(axis=0))
    p = (t.max(axis=1) >= t[0, 0] - 1e-9).mean()
    assert p > 0.05
    assert told.answer == "gelu; silu not separated"
    assert told.evidence == (
        f"The pick minus silu's arm of the lowest loss, which differs in norm too: val_loss "
        f"{differences.mean():+.4f} [{low:+.4f}, {high:+.4f}], p {p:.2g}. "
        "10 seeds of confirm; ahead of 1 of 2."
    )
    assert (told.chip, told.state) == ("not separated", "open")
    assert told.command == "compare digits-cnn --only activation"
    # No two arms differ in the placement alone, so nothing is said of it.
    assert card("Where does BatchNorm go?", Verdicts(CONFIRMED)).answer == "Not settled by this search"


def test_a_choice_is_told_from_the_pick_where_each_of_its_arms_is() -> None:
    spoilt = [0.058] * 9 + [0.3]  # one seed of the best elu of the search, and the test says nothing of it
    arms = compare_with_pick(
        [
            arm("top 1", list(0.040 + 0.001 * NOISE[0]), activation="gelu"),
            arm("best elu", spoilt, activation="elu", lr=0.01),
            arm("top 2", list(0.060 + 0.001 * NOISE[2]), activation="elu", lr=0.02),
        ]
    )
    stored = {"confirmed": [row.model_dump(mode="json") for row in arms]}
    told = card("Which activation?", Verdicts(StudyRecord("digits-cnn/confirm", STUDY.spec, [], stored)))
    assert told.answer == "gelu; elu not separated"
    assert told.evidence.startswith(
        "The pick minus elu's arm of the lowest loss, which differs in lr too: val_loss -0.02"
    )
    assert (told.evidence[-16:], told.chip) == ("ahead of 0 of 1.", "not separated")


def test_of_many_choices_that_are_not_separated_two_are_named() -> None:
    close = [0.040 + 0.001 * k + 0.01 * NOISE[k % 3] for k in range(5)]
    names = ("gelu", "silu", "elu", "relu", "tanh")
    arms = [arm(f"best {name}", list(close[k]), activation=name) for k, name in enumerate(names)]
    stored = {"confirmed": [row.model_dump(mode="json") for row in compare_with_pick(arms)]}
    told = card("Which activation?", Verdicts(StudyRecord("digits-cnn/confirm", STUDY.spec, [], stored)))
    assert re.fullmatch(r"\w+; \w+, \w+ or (1 other|2 others) not separated", told.answer), told.answer
    assert "of 4." in told.evidence


def test_fewer_than_six_seeds_give_no_verdict_and_no_interval_leaves_its_range() -> None:
    few = compare_with_pick(
        [
            arm("top 1", [0.04, 0.001, 0.02], activation="gelu", norm="before"),
            arm("best elu", [0.05, 0.06, 0.05], activation="elu", norm="before"),
        ]
    )
    stored = {"confirmed": [row.model_dump(mode="json") for row in few]}
    verdicts = Verdicts(StudyRecord("digits-cnn/confirm", STUDY.spec, [], stored))
    told = card("Which activation?", verdicts)
    assert (told.answer, told.chip, told.state) == (
        "gelu, on too few seeds to tell",
        "no verdict below 6 seeds",
        "open",
    )
    assert told.evidence.endswith("3 seeds of confirm.")
    assert few[0].val_accuracy.high > 1
    assert "to 1.0000) on 3 fresh seeds" in lead(STUDY, verdicts)
    assert "A verdict takes 6 seeds: these are intervals." in page(STUDY, {}, verdicts)


def test_the_page_of_a_confirmed_study_speaks_of_the_pick() -> None:
    verdicts = Verdicts(CONFIRMED)
    mean = np.mean(ARMS[0].accuracies)
    assert f"Validation accuracy {mean:.4f} (" in lead(STUDY, verdicts)
    assert "on 10 fresh seeds" in lead(STUDY, verdicts)
    assert "3 configs confirmed on 10 fresh seeds." in headline(STUDY, verdicts)
    html = page(STUDY, tables_of(STUDY), verdicts, " --storage sqlite:///x.db")
    assert "they compare configs, not choices" in html
    assert "The pick is told apart from 1 of 2 other arms, not from 2 silu." in html
    assert "slopesearch confirm" not in html
    assert "--storage sqlite:///x.db" in html


# --- from the search alone


def test_without_either_nothing_is_settled_and_each_answer_has_its_price() -> None:
    told = cards(STUDY, Verdicts())
    assert [one.question for one in told] == list(ASKED)
    ran = [t.config for t in STUDY.trials if t.state == "COMPLETE" and t.config is not None]
    each = seconds_like_the_best()
    for one, question in zip(told[:5], ("activation", "slope", "learned", "norm", "init"), strict=True):
        assert (one.answer, one.chip, one.state) == ("Not settled by this search", "not settled", "open")
        assert one.command == f"compare digits-cnn --only {question}"
        sides = len(around(ran[0], STUDY.spec, [question])[0].sides)
        runs = sides * (6 + RUNOFF_SEEDS + (30 if question == "activation" else 10))
        assert one.cost == f"about {max(1, round(runs * each / usable_cores() / 60)):,} min"
    leaky = [config.negative_slope for config in ran if config.negative_slope is not None]
    assert told[1].evidence == (
        f"{len(leaky)} completed runs with a slope, {min(leaky):.2g} to {max(leaky):.2g}."
    )
    norms = [config.norm for config in ran]
    assert told[3].evidence.startswith(f"{len(ran)} completed runs: ")
    for norm in ("none", "before", "after"):
        assert f"{norm} {norms.count(norm)}" in told[3].evidence


@pytest.mark.parametrize("question", FAMILIES)
def test_the_arms_of_a_question_are_counted_without_the_registries(question: str) -> None:
    for space in ({}, {"slope_max": [0.1, 0.5]}, {"activation": ["relu", "elu"], "init": "lsuv"}):
        spec = spec_of(space=space)
        (family,) = around(make_config(), spec, [question])
        seeds = 30 if question == "activation" else 10
        tuning = len(family.sides[0].rates) + RUNOFF_SEEDS
        assert runs_to_answer(question, spec, 10) == len(family.sides) * (tuning + seeds)


@pytest.mark.parametrize(
    ("space", "absent"),
    [
        ({"activation": ["relu", "elu"]}, {"Which slope of leaky ReLU?", "Slope fixed or learned?"}),
        ({"norm": "before", "lr": 0.001}, {"Where does BatchNorm go?", "Which learning rate?"}),
        ({"slope_mode": "fixed", "init": "lsuv"}, {"Slope fixed or learned?", "Which init?"}),
    ],
)
def test_what_the_space_fixes_is_not_asked(space: Mapping[str, Any], absent: set[str]) -> None:
    study = study_of(40, space=dict(space))
    assert {one.question for one in cards(study, Verdicts())} == set(ASKED) - absent


def test_a_comparison_that_has_begun_goes_on_with_the_same_command() -> None:
    family = answer_of(side_of("default", 1, 0.1, 0), side_of("lsuv", 1, 0.1, 1), question="init").family
    stored: dict[str, Family] = {"init": family}
    begun = {"families": {name: json.loads(one.model_dump_json()) for name, one in stored.items()}}
    verdicts = Verdicts(comparison=StudyRecord("digits-cnn/compare", STUDY.spec, [], begun))
    assert card("Which init?", verdicts).evidence.endswith("A comparison has begun.")


def test_a_study_without_a_completed_run_has_no_command() -> None:
    assert not any(one.command for one in cards(study_with(), Verdicts()))


# --- the learning rate


def tuned(config: TrialConfig, found: Mapping[float, float]) -> StudyRecord:
    runs = [
        TrialRecord(
            n, "COMPLETE", loss,
            config.model_copy(update={"lr": rate, "init_seed": 99, "order_seed": 98, "val_size": 100}),
            {}, {"ended": "completed"},
        )
        for n, (rate, loss) in enumerate(found.items())
    ]  # fmt: skip
    other = config.model_copy(update={"norm": "after", "lr": 0.5})
    runs.append(TrialRecord(len(runs), "COMPLETE", 1e-9, other, {}, {"ended": "completed"}))
    return StudyRecord("digits-cnn/tune", spec_of(), runs)


def test_the_rates_that_cannot_be_told_from_the_picks() -> None:
    """By seeds alone two single runs differ by .06 sqrt(2) in the log of the loss, a standard deviation."""
    config = ARMS[0].arm.config
    apart = exp(1.96 * sqrt(2) * 0.06)
    found = {0.0025: 0.04 * apart * 1.01, 0.005: 0.04 * apart * 0.99, 0.01: 0.04, 0.02: 0.041, 0.04: 0.09}
    told = card("Which learning rate?", Verdicts(CONFIRMED, tuning=tuned(config, found)))
    assert told.answer == "0.01"
    assert told.evidence.startswith("0.005 to 0.02 cannot be told from it: of 5 rates tried, 0.0025 to 0.04")
    assert f"within {100 * (apart - 1):.0f} %" in told.evidence
    assert told.chip == "one run each"
    once = {rate: {99: loss} for rate, loss in found.items()}
    assert tuned_losses(config, tuned(config, found)) == once
    assert level_rates(0.01, once) == [0.005, 0.01, 0.02]
    better = {0.0025: 0.02, **{rate: found[rate] for rate in (0.005, 0.01)}}
    told = card("Which learning rate?", Verdicts(CONFIRMED, tuning=tuned(config, better)))
    assert "; 0.0025 did better:" in told.evidence


def test_a_rate_that_a_runoff_refuted_did_not_do_better() -> None:
    config = ARMS[0].arm.config
    study = tuned(config, {0.01: 0.04, 0.02: 0.041, 0.04: 0.02})  # the highest was lucky
    further = [
        TrialRecord(
            10 + n, "COMPLETE", loss, config.model_copy(update={"lr": rate, "init_seed": seed}), {},
            {"ended": "completed"},
        )
        for n, (rate, seed, loss) in enumerate(
            (rate, seed, loss) for seed in (1, 2, 3) for rate, loss in ((0.01, 0.04), (0.04, 0.06))
        )
    ]  # fmt: skip
    lucky = card("Which learning rate?", Verdicts(CONFIRMED, tuning=study))
    assert "; 0.04 did better:" in lucky.evidence
    both = StudyRecord(study.name, study.spec, [*study.trials, *further])
    told = card("Which learning rate?", Verdicts(CONFIRMED, tuning=both))
    assert told.evidence.startswith("0.01 to 0.02 cannot be told from it: of 3 rates tried")
    assert told.evidence.endswith("Two that ran on further seeds are compared on these.")
    assert (lucky.chip, told.chip) == ("one run each", "few runs each")


def test_without_a_tuning_the_rates_of_the_runs_that_cannot_be_told_from_the_best() -> None:
    told = card("Which learning rate?", Verdicts())
    ranked = STUDY.ranked()
    best = ranked[0].value or 0.0

    def noise(value: float) -> float:
        return 0.5 * (1 - value) * value / STUDY.spec.val_size  # a variance

    tied = [
        t.config.lr
        for t in ranked[1:]
        if t.config is not None
        and t.value is not None
        and best - t.value <= 1.96 * sqrt(noise(best) + noise(t.value))
    ]
    assert ranked[0].config is not None
    assert told.answer == f"{ranked[0].config.lr:.2g}"
    assert f"{len(tied)} runs level with the best" in told.evidence
    assert f"had {min(tied):.2g} to {max(tied):.2g}, and other choices." in told.evidence
    assert log(max(tied)) > log(min(tied))
    assert told.state == "open"
    assert "Not tuned; comparing norm tunes it too." in told.evidence
    assert told.command == "compare digits-cnn --only norm"


def test_an_answer_between_far_rates_says_so() -> None:
    far = answer_of(side_of("a", 1, 0.01, 0), side_of("b", 1.2, 0.01, 1, lr=0.03), question="norm")
    near = answer_of(side_of("a", 1, 0.01, 0), side_of("b", 1.2, 0.01, 1), question="norm")
    said = " Some of the learning rates are 4 times apart or more."
    assert [said in _told(found, found.contrasts, "a")[1] for found in (far, near)] == [True, False]
