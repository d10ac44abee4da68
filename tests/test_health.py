"""A sound study has no doubts; each check finds its fault, alone, and says what to do."""

import json
from math import log, sqrt

import pytest

from slopesearch.cli.json_views import study_json
from slopesearch.cli.tables import study_table
from slopesearch.evidence.arms import HE, Arm
from slopesearch.evidence.health import COMMAND, Health, health, luck
from slopesearch.evidence.results import ConfirmedArm, compare_with_pick, confirm_arm
from slopesearch.report.page import page, tables_of
from slopesearch.search.records import StudyRecord, TrialRecord
from tests.conftest import make_config
from tests.synthetic import record, study_with
from tests.test_tables import render

SPACE = {
    "activation": ["relu", "leaky_relu"],
    "slope_mode": "fixed",
    "norm": ["none", "before"],
    "init": "kaiming_normal",
}
RANGE = (1e-4, 3e-2)


def made(number: int, **changes: object) -> TrialRecord:
    """A trial of a sound study: every choice in turn, in the middle of every range, better and better."""
    state = str(changes.pop("state", "COMPLETE"))
    value = changes.pop("value", 0.8 + number / 1000)
    fields = {
        "activation": ("relu", "leaky_relu")[number % 2],
        "norm": ("none", "before")[number // 2 % 2],
        "lr": 2e-3,
        **changes,
    }
    if fields["activation"] == "leaky_relu":
        fields.setdefault("negative_slope", 0.02)
    return record(number, state, value, **fields)  # type: ignore[arg-type]


def sound(trials: int = 160) -> list[TrialRecord]:
    return [made(number) for number in range(trials)]


def found(trials: list[TrialRecord], space: object = None, **fields: object) -> list[Health]:
    return health(study_with(*trials, space=space or SPACE, **fields))


def only(trials: list[TrialRecord], grade: str, **fields: object) -> str:
    """The text of the only doubt about a study, which has the grade."""
    (doubt,) = found(trials, **fields)
    assert doubt.grade == grade
    return doubt.text


def test_a_sound_study_has_no_doubts() -> None:
    assert found(sound()) == []
    assert found([]) == []
    verdict = StudyRecord("s/confirm", study_with(space=SPACE).spec, sound(10))
    assert health(verdict) == []


def test_too_few_trials_for_the_space() -> None:
    """Activation, norm, slope and learning rate are searched: 40 trials."""
    assert found(sound(40)) == []
    assert only(sound(39), "note") == (
        "39 finished trials for 4 searched parameters, so the sampler has hardly begun; go on to 40 at "
        "least, 10 for each."
    )
    assert "has not begun to learn from them" in only(sound(20), "warning")
    assert "for 3 searched" in only([made(n, activation="relu") for n in range(25)], "note")


@pytest.mark.parametrize(("lr", "low", "high"), [(1.2e-4, "1e-05", "0.03"), (2.8e-2, "0.0001", "0.3")])
def test_the_best_learning_rate_at_an_end_of_its_range(lr: float, low: str, high: str) -> None:
    text = only([*sound(), made(160, lr=lr)], "warning")
    assert text.startswith(
        f"The best learning rate, {lr:.3g}, lies at the {'lower' if lr < 1e-3 else 'upper'}"
    )
    assert text.endswith(
        "end of its range, 0.0001 to 0.03: better ones may lie beyond. Search there: python -m slopesearch "
        f"optimize --from s --name s-2 --set 'space.lr={{low = {low}, high = {high}, log = true}}'"
    )


@pytest.mark.parametrize(("slope", "doubted"), [(0.49, True), (0.3, False)])
def test_the_best_fixed_slope_at_an_end_of_its_range(slope: float, doubted: bool) -> None:
    best = made(161, negative_slope=slope)
    texts = [doubt.text for doubt in found([*sound(), best])]
    assert [text.startswith("The best slope, 0.49, lies at the upper end") for text in texts] == [
        True
    ] * doubted
    assert all("high = 1, log = true}'" in text for text in texts)  # a slope is 1 at most
    learned = [made(n, negative_slope=slope, slope_mode="learnable") for n in (161, 163, 165)]
    assert found([*sound(), *learned], {**SPACE, "slope_max": 0.1, "slope_mode": "learnable"}) == []


def test_a_linear_range_is_moved_by_its_width_and_a_choice_has_no_end() -> None:
    trials = [*sound(), made(160, lr=0.0299)]
    (doubt,) = found(trials, {**SPACE, "lr": {"low": 0.001, "high": 0.03}})
    assert "{low = 0.001, high = 0.059, log = false}" in doubt.text
    assert found(trials, {**SPACE, "lr": [0.001, 0.0299]}) == []


def test_a_slope_that_cannot_be_larger_is_not_at_an_end() -> None:
    full = {**SPACE, "negative_slope": {"low": 0.1, "high": 1.0}}
    assert found([*sound(), made(161, negative_slope=1.0)], full) == []


def test_a_choice_with_fewer_than_three_completed_runs() -> None:
    def one(number: int, state: str) -> TrialRecord:
        return made(number, activation="elu", state=state, value=0.8)

    wide = {**SPACE, "activation": ["relu", "leaky_relu", "elu"]}
    two = [*sound(158), one(158, "COMPLETE"), one(159, "COMPLETE"), one(160, "PRUNED")]
    assert only(two, "note", space=wide) == (
        "Fewer than 3 completed runs, so the study says nothing of: activation elu (2). Paired runs around "
        "the winner do: python -m slopesearch compare s --only activation"
    )
    assert found([*two, one(161, "COMPLETE")], wide) == []
    assert "activation elu (0)." in only(sound(), "warning", space=wide)
    both = {**wide, "slope_mode": ["fixed", "learnable"], "slope_max": [0.1, 1.0]}
    assert "elu (0); slope_mode learnable (0)." in only(sound(), "warning", space=both)


def judged(good: int, audited: int = 10) -> list[TrialRecord]:
    """A sound study in which half of those let through since trial 50 are good."""
    trials = sound()
    for number in range(150, 150 + audited):
        value = 0.955 if number < 150 + good else 0.81
        trials[number] = made(number, value=value, attributes={"would_prune_at": 1})
    return trials


def test_a_pruner_that_cannot_be_told_from_chance() -> None:
    assert found(judged(good=9, audited=9)) == []  # too few to go by, as the page says
    assert found(judged(good=3)) == []  # as few as that happen to a pruner without skill in 17 of 100 cases
    text = only(judged(good=4), "warning")
    assert text == (
        "The pruner cannot be told from chance since trial 50: of 10 runs that it would have stopped and "
        "that went to their end, 4 (40%) ended better than the median of the 100 it let through; no skill "
        "would read 50%. The best trial, 150, is one of those. Search without it: python -m slopesearch "
        "optimize --from s --name s-2 --set pruner=none"
    )
    early = [*judged(good=0), *(made(number, attributes={"would_prune_at": 1}) for number in range(20))]
    assert found(early) == []


def test_thousands_of_audited_runs_are_held_against_chance_too() -> None:
    many = [made(number, attributes={"would_prune_at": 1}) for number in range(200, 4200)]
    assert "of 4000 runs that it would have stopped" in only([*sound(), *many], "warning")


def test_nothing_is_better_than_the_textbook() -> None:
    he = {"activation": "relu", "norm": "none", "lr": 1e-3}
    best = only([*sound(), made(160, value=0.99, **he)], "warning")
    assert best.startswith(
        "Nothing is better than the textbook's best, ReLU with He init (trial 160, 0.9900)"
    )
    near = only([*sound(), made(160, value=0.957, **he)], "warning")
    assert near.startswith(
        "The best trial is ahead of the textbook's best, ReLU with He init (trial 160, 0.95"
    )
    assert "by 0.0020, no more than luck, about 0.0100" in near
    assert found([*sound(), made(160, value=0.9, **he)]) == []


@pytest.mark.parametrize(("failed", "grade"), [(1, "note"), (9, "warning")])
def test_failures(failed: int, grade: str) -> None:
    attributes = {"ended": "failed: OSError: gone"}
    faults = [made(160 + n, state="FAIL", value=None, attributes=attributes) for n in range(failed)]
    assert only([*sound(), *faults], grade) == (
        f"{failed} of {160 + failed} trials failed, the last {159 + failed} (OSError: gone). "
        f"Its traceback: python -m slopesearch show s --trial {159 + failed}"
    )


@pytest.mark.parametrize(("diverged", "grade"), [(4, None), (15, None), (20, "note"), (60, "warning")])
def test_the_share_that_diverged(diverged: int, grade: str | None) -> None:
    def one(number: int) -> TrialRecord:
        lr = 0.01 if number % 2 else 0.02
        return made(number, state="PRUNED", value=0.1, lr=lr, attributes={"ended": "diverged"})

    doubts = found([*[one(number) for number in range(diverged)], *sound()[diverged:]])
    assert [doubt.grade for doubt in doubts] == ([grade] if grade else [])
    if doubts:
        share = (
            f"{diverged} of 160 runs ({diverged / 160:.0%}) diverged, half of them at learning rates from "
        )
        assert doubts[0].text.startswith(f"{share}0.015 on")


def test_the_last_hundred_found_nothing_and_what_more_of_them_would_bring() -> None:
    flat = [made(number, value=0.9 + min(number, 40) / 1000) for number in range(160)]
    text = only(flat, "note")
    assert text.startswith(
        "The last 100 trials found nothing that luck, about 0.0119, does not explain: the best was 0.9400 "
        "before them and is 0.9400. 100 more would be expected to gain 0.0000."
    )
    scale = sum(0.0005 * n for n in range(10)) / 10 + 0.0005
    steps = [made(n, value=0.94 - 0.0005 * n) for n in range(11)]
    told = only([*steps, *[made(n, value=0.9) for n in range(11, 160)]], "note")
    assert f"expected to gain {scale * log(260 / 160):.4f}. Run the best few on fresh seeds" in told
    assert found(flat[:119]) == []


def confirmed_arm(role: str, losses: list[float], **fields: object) -> ConfirmedArm:
    runs = [
        record(n, "COMPLETE", 0.9, attributes={"val_loss": loss, "val_accuracy": 0.9})
        for n, loss in enumerate(losses)
    ]
    return confirm_arm(Arm(roles=(role,), config=make_config(**fields)), runs, "val_accuracy")


def test_what_was_done_since_the_search_is_not_advised_again() -> None:
    """After `confirm` the advice is `compare`, and after that none; commands name the storage."""
    flat = study_with(*[made(n, value=0.9 + min(n, 40) / 1000) for n in range(160)], space=SPACE)
    wavy = [0.3 + 0.01 * (n % 3) for n in range(8)]
    lead = [
        *compare_with_pick([confirmed_arm("top 1", wavy), confirmed_arm(HE, [x + 0.2 for x in wavy], lr=0.1)])
    ]
    where = " --storage sqlite:///x.db"
    texts = [
        health(flat, done, answered, where)[0].text
        for done, answered in (((), ()), (lead, ()), (lead, ("norm",)))
    ]
    assert texts[0].endswith("on fresh seeds instead: python -m slopesearch confirm s" + where)
    assert texts[1].endswith("mattered instead: python -m slopesearch compare s" + where)
    assert texts[2].endswith("gain 0.0000.")
    assert "confirm" not in texts[1] + texts[2]


def test_a_baseline_that_fresh_seeds_do_not_tell_from_the_pick_is_a_warning_then() -> None:
    he = {"activation": "relu", "norm": "none", "lr": 1e-3}
    study = study_with(
        *sound(), made(160, value=0.957, **he), space=SPACE
    )  # no more than luck, in the search
    wavy = [0.3 + 0.01 * (n % 3) for n in range(8)]
    near = [x + (0.004 if n % 2 else -0.003) for n, x in enumerate(wavy)]
    level = compare_with_pick([confirmed_arm("top 1", wavy), confirmed_arm(HE, near, lr=0.1)])
    (doubt,) = health(study, level)
    found = level[1].difference
    assert found is not None
    assert found.p_loss is not None
    assert found.p_loss > 0.05
    mean = sum(a - b for a, b in zip(wavy, near, strict=True)) / 8
    assert doubt.text.startswith(f"On 8 fresh seeds the pick cannot be told from {HE}: val_loss {mean:+.4f}")
    assert doubt.text.endswith(" Take the simpler of the two.")
    apart = compare_with_pick(
        [confirmed_arm("top 1", wavy), confirmed_arm(HE, [x + 1 for x in wavy], lr=0.1)]
    )
    assert health(study, apart) == []


def test_a_question_that_was_answered_is_no_longer_lacking() -> None:
    wide = {**SPACE, "activation": ["relu", "leaky_relu", "elu"]}
    study = study_with(*sound(), space=wide)
    assert "activation elu (0)" in health(study)[0].text
    assert health(study, answered=("activation",)) == []


def test_after_a_confirmation_the_picks_rate_is_the_one_at_an_end() -> None:
    study = study_with(*sound(), space=SPACE)
    at_end = confirmed_arm("top 1", [0.3, 0.31], lr=2.8e-2)
    (doubt,) = health(study, [at_end], ("norm",))
    assert doubt.text.startswith("The pick's learning rate, 0.028, lies at the upper end")


def test_luck_is_what_the_validation_images_allow_and_of_a_loss_a_share() -> None:
    assert luck(study_with(record(0, "COMPLETE", 0.9))) == pytest.approx(sqrt(0.9 * 0.1 / 397))
    assert luck(study_with(record(0, "COMPLETE", 1.0))) == pytest.approx(0.5**0.5 / 397, rel=1e-3)
    assert luck(study_with(record(0, "COMPLETE", 0.5), objective="val_loss")) == pytest.approx(
        0.5 * 0.06 * 2**0.5
    )


def test_a_loss_is_better_when_it_is_lower() -> None:
    he = {"activation": "relu", "norm": "none", "lr": 1e-3}
    losses = [made(number, value=1 - number / 200) for number in range(160)]
    assert found(losses, objective="val_loss") == []
    text = only([*losses, made(160, value=0.15, **he)], "warning", objective="val_loss")
    assert text.startswith("Nothing is better than the textbook's best")


def test_doubts_are_told_everywhere_warnings_first_within_80_columns() -> None:
    attributes = {"ended": "failed: OSError: gone"}
    trials = [*sound(), made(160, lr=2.8e-2), made(161, state="FAIL", value=None, attributes=attributes)]
    study = study_with(*trials, space=SPACE)
    assert [doubt.grade for doubt in health(study)] == ["warning", "note"]
    text = render(study_table, study)
    assert "\nwarning: The best learning rate, 0.028, lies at the upper end of its range," in text
    assert "\nnote: 1 of 162 trials failed" in text
    assert max(len(line) for line in text.splitlines() if not line.startswith(f"  {COMMAND}")) <= 80
    assert f"\n  {COMMAND} show s --trial 161\n" in text
    told = json.loads(study_json(study, []))["health"]
    assert [doubt["grade"] for doubt in told] == ["warning", "note"]
    html = page(study, tables_of(study))
    assert "<strong>Warning:</strong> The best learning rate" in html
    assert "<strong>Note:</strong> 1 of 162 trials failed" in html
    without = study_with(*trials[-1:], space=SPACE)
    assert "note: " not in render(study_table, without)
    assert "warning: 1 of 1 trial failed" in " ".join(render(study_table, without).split())
