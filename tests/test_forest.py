"""The arms of a confirmation, drawn: means, intervals, every seed, what the search saw, and differences."""

import json
from math import asinh

import numpy as np
import pytest
from scipy import stats

from slopesearch.evidence.arms import HE, TUNED, TUTORIAL
from slopesearch.evidence.results import compare_with_pick
from slopesearch.report import page
from slopesearch.report.forest import INK, arm_names, confirmed_forest, differences_forest
from slopesearch.report.style import colour_of
from tests.synthetic import spec_of
from tests.test_answers_panel import ARMS, arm

SPEC = spec_of()


def test_the_mean_its_interval_and_every_seed_of_each_arm_in_its_activations_colour() -> None:
    drawn = json.loads(confirmed_forest(ARMS, SPEC).to_json())
    traces = {(trace["name"], trace["y"][0]): trace for trace in drawn["data"]}
    assert arm_names(ARMS) == ["1 gelu", "2 silu", "3 elu"]
    for name, row in zip(arm_names(ARMS), ARMS, strict=True):
        seeds, mean = traces["seeds", name], traces["mean, 95 %", name]
        assert seeds["x"] == pytest.approx([1 - value for value in row.accuracies])  # distance from perfect
        (x,) = mean["x"]
        low, high = stats.t.interval(0.95, 9, np.mean(row.accuracies), stats.sem(row.accuracies))
        assert (x - mean["error_x"]["arrayminus"][0], x + mean["error_x"]["array"][0]) == pytest.approx(
            (1 - high, 1 - low)
        )
        assert mean["marker"]["color"] == colour_of(row.arm.config.activation, SPEC)
    assert not any(trace["name"] == "in the search" for trace in drawn["data"])
    seen = [row.model_copy(update={"arm": row.arm.model_copy(update={"searched": 0.99})}) for row in ARMS]
    searched = json.loads(confirmed_forest(seen, SPEC).to_json())["data"][2]
    assert (searched["name"], searched["marker"]["symbol"]) == ("in the search", "diamond-open")
    assert searched["x"] == pytest.approx([0.01])


def test_a_study_that_goes_by_the_loss_draws_losses() -> None:
    drawn = json.loads(confirmed_forest(ARMS, spec_of(objective="val_loss")).to_json())
    assert drawn["data"][0]["x"] == pytest.approx(list(ARMS[0].losses))


def test_the_pick_minus_each_other_arm_told_apart_by_fill() -> None:
    figure = differences_forest(ARMS)
    assert figure is not None
    drawn = json.loads(figure.to_json())
    pick, apart, level = drawn["data"]
    assert (pick["y"], apart["y"], level["y"]) == (["1 gelu"], ["3 elu"], ["2 silu"])
    assert (apart["marker"]["symbol"], level["marker"]["symbol"]) == ("circle", "circle-open")
    assert {trace["meta"] for trace in drawn["data"]} == {INK}
    differences = [np.subtract(ARMS[0].losses, row.losses) for row in ARMS[1:]]
    halves = [stats.t.ppf(0.975, 9) * stats.sem(found) for found in differences]
    bend = np.median(halves)
    assert level["x"] == pytest.approx([asinh(differences[0].mean() / bend)])
    assert apart["x"] == pytest.approx([asinh(differences[1].mean() / bend)])
    ticks = dict(zip(drawn["layout"]["xaxis"]["ticktext"], drawn["layout"]["xaxis"]["tickvals"], strict=True))
    assert ticks["0"] == 0
    assert ticks["0.01"] == pytest.approx(asinh(0.01 / bend))
    assert differences_forest(compare_with_pick(ARMS[:1])) is None


def test_recipes_are_called_by_their_name() -> None:
    rows = [arm(role, [0.3, 0.4]) for role in (TUTORIAL, TUNED[TUTORIAL], HE, TUNED[HE])]
    assert arm_names(rows) == ["1 tutorial", "2 tutorial, lr tuned", "3 ReLU, He", "4 ReLU, He, lr tuned"]


def test_below_six_seeds_no_arm_is_told_apart_and_none_is_called_level_without_reason() -> None:
    few = compare_with_pick(
        [
            arm("top 1", [0.040, 0.041, 0.042], activation="gelu"),
            arm("best silu", [0.039, 0.043, 0.042], activation="silu"),
            arm("best elu", [0.060, 0.062, 0.061], activation="elu"),
        ]
    )
    figure = differences_forest(few)
    assert figure is not None
    named = {trace["name"]: trace["y"] for trace in json.loads(figure.to_json())["data"][1:]}
    assert named == {"not separated": ["2 silu"], "no verdict": ["3 elu"]}
    assert named.keys() == {row.difference.verdict for row in few if row.difference is not None}


def test_an_arm_of_which_a_seed_went_wrong_is_named() -> None:
    calm = [arm(f"top {i}", [0.040, 0.041, 0.042, 0.041 + i / 1e4], activation="gelu") for i in range(3)]
    spoilt = arm("best elu", [0.040, 0.041, 0.042, 0.200], activation="elu")
    assert page._spoilt(calm) == ""
    assert page._spoilt([*calm, spoilt]) == (
        " The loss of 4 elu differs between seeds over 5 times as much as is usual here: one seed may have "
        "spoilt the mean."
    )
