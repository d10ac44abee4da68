"""What is fixed of the first trials goes on around those that the sampler does not draw."""

import pytest

from slopesearch.config import ResolvedSpec
from slopesearch.search.cover import first_trials, unstopped
from slopesearch.search.schedule import Schedule
from slopesearch.search.textbook import TEXTBOOK, textbook
from tests.conftest import make_config
from tests.synthetic import as_recipe, record, spec_of

HE = list(TEXTBOOK.values())[3]


@pytest.fixture(params=["walk", "cover"])
def spec(request: pytest.FixtureRequest) -> ResolvedSpec:
    return spec_of(plan=request.param)


def entries(schedule: Schedule) -> list[object]:
    return [schedule[number] for number in range(len(schedule))]


def exempt(schedule: Schedule) -> list[int]:
    return [number for number in range(90) if schedule.is_exempt(number)]


def test_without_others_it_is_the_first_trials(spec: ResolvedSpec) -> None:
    schedule = Schedule(spec)
    assert entries(schedule) == first_trials(spec)
    assert schedule[len(first_trials(spec))] == {}
    assert exempt(schedule) == list(range(unstopped(spec)))


def test_others_take_no_entry_and_are_not_stopped(spec: ResolvedSpec) -> None:
    schedule, first = Schedule(spec), first_trials(spec)
    for number in (2, 0, 7):
        schedule.leave_out(number, make_config())
    assert entries(schedule) == [{}, first[0], {}, *first[1:5], {}, *first[5:]]
    assert exempt(schedule) == list(range(unstopped(spec) + 3))


def test_an_entry_that_another_ran_is_left_out_and_what_ran_before_it_stays(spec: ResolvedSpec) -> None:
    schedule, first = Schedule(spec), first_trials(spec)
    before = [schedule[0], schedule[1]]
    schedule.leave_out(2, as_recipe(make_config(), HE))
    assert entries(schedule) == [*before, {}, first[2], *first[4:]]
    assert exempt(schedule) == list(range(unstopped(spec)))


def test_a_cover_of_what_was_taken_over_is_not_run_again() -> None:
    """But for an activation of which the other study had none, and one with two completed runs."""
    spec = spec_of(space={"norm": ["none", "before"], "init": ["default", "orthogonal"]})
    schedule, first = Schedule(spec), first_trials(spec)
    number = 0
    for activation in spec.space.activation:
        for run in range({"gelu": 0, "elu": 2}.get(activation, 18)):
            mode = ("fixed", "learnable")[run % 2] if activation == "leaky_relu" else None
            slopes = {"slope_mode": mode, "slope_max": (0.1, 0.3, 1.0)[run // 2 % 3]} if mode else {}
            slopes = slopes if mode == "learnable" else {}
            chosen = {"norm": ("none", "before")[run % 2], "init": ("default", "orthogonal")[run % 2]}
            schedule.take_over(
                record(number, "COMPLETE", 0.9, activation=activation, lr=0.005, **chosen, **slopes)
            )
            number += 1
    schedule.take_over(record(number, "PRUNED", 0.1, activation="elu"))
    left = [entry for entry in entries(schedule) if entry]
    recipes = list(textbook(spec).values())
    assert left[: len(recipes)] == recipes
    assert left[len(recipes) :] == [e for e in first[len(recipes) :] if e["activation"] in ("gelu", "elu")]
