"""What is fixed of the first trials goes on around those that the sampler does not draw."""

from slopesearch.search.plan import Plan
from slopesearch.search.textbook import TEXTBOOK, first_trials
from tests.conftest import make_config
from tests.synthetic import as_recipe, spec_of

SPEC = spec_of()
FIRST = first_trials(SPEC)
HE = list(TEXTBOOK.values())[3]


def entries(plan: Plan) -> list[object]:
    return [plan[number] for number in range(len(plan))]


def test_without_others_it_is_the_first_trials() -> None:
    plan = Plan(SPEC)
    assert entries(plan) == FIRST
    assert plan[len(FIRST)] == {}
    assert [number for number in range(30) if plan.is_exempt(number)] == [0, 1, 2, 3, 4]


def test_others_take_no_entry_and_are_not_stopped() -> None:
    plan = Plan(SPEC)
    for number in (2, 0, 7):
        plan.leave_out(number, make_config())
    assert entries(plan) == [{}, FIRST[0], {}, FIRST[1], FIRST[2], FIRST[3], FIRST[4], {}, *FIRST[5:]]
    assert [number for number in range(30) if plan.is_exempt(number)] == list(range(8))


def test_a_recipe_that_another_ran_is_left_out_and_what_ran_before_it_stays() -> None:
    plan = Plan(SPEC)
    before = [plan[0], plan[1]]
    plan.leave_out(2, as_recipe(make_config(), HE))
    assert entries(plan) == [*before, {}, FIRST[2], *FIRST[4:]]
    assert [number for number in range(30) if plan.is_exempt(number)] == [0, 1, 2, 3, 4]
