"""What is said of an answer: rows, sentences, the literature, CSV rows; and how it is drawn."""

import json
from collections.abc import Sequence
from io import StringIO
from math import log
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from slopesearch.cli.answer_views import answer_view
from slopesearch.evidence.answers import Answer, SideRuns, answer, answers_of, runs_of
from slopesearch.evidence.families import Family, Side
from slopesearch.evidence.literature import literature
from slopesearch.report.forest import INK, forest, section
from slopesearch.report.verdicts import contrast_rows, heading, run_rows, sentences, table, to_settle
from slopesearch.search.records import StudyRecord, TrialRecord
from slopesearch.wording import RequestError
from tests.conftest import make_config
from tests.synthetic import spec_of

NOISE = np.random.default_rng(0).normal(size=(4, 10))


def side_of(
    name: str, factor: float, sd: float, k: int, seeds: int = 10, **fields: Any
) -> tuple[Side, SideRuns]:
    """A side whose loss is .05 times a factor, with some noise of its log."""
    losses = 0.05 * factor * np.exp(sd * NOISE[k, :seeds])
    attributes = [{"val_loss": float(loss), "val_accuracy": 1 - float(loss) / 5} for loss in losses]
    runs = [
        TrialRecord(i, "COMPLETE", 0, None, {}, {**a, "ended": "completed"}) for i, a in enumerate(attributes)
    ]
    config = make_config(**{"lr": 0.0075, **fields})
    side = Side(name=name, config=config, rates=(0.001, 0.0075, 0.05))
    return side, runs_of(name, config, side.rates, name == "edgy", runs)


def answer_of(
    *made: tuple[Side, SideRuns], question: str = "slope", looks: Sequence[int] = (10,), **fields: Any
) -> Answer:
    sides = tuple(side for side, _ in made)
    family = Family(
        question=question,
        asks="which?",
        sides=sides,
        contrasts=tuple((side.name, sides[0].name) for side in sides[1:]),
        **fields,
    )
    return answer(family, [runs for _, runs in made], looks)


@pytest.fixture(scope="module")
def told() -> Answer:
    return answer_of(
        side_of("base", 1, 0.01, 0), side_of("worse", 1.2, 0.01, 1), side_of("same", 1, 0.01, 2),
        side_of("edgy", 1.02, 0.1, 3),
    )  # fmt: skip


def test_a_verdict_between_rates_that_are_far_apart_says_so() -> None:
    arms = [side_of("worse", 1.2, 0.01, 1, lr=0.03), side_of("near", 1.2, 0.01, 2, lr=0.015)]
    found = answer_of(side_of("base", 1, 0.01, 0), *arms, side_of("same", 1, 0.01, 3, lr=0.03))
    assert [line for line in sentences(found) if "learning rates" in line] == [
        "The learning rates, chosen by one to four runs each, are 4 times apart or more in worse and base: "
        "part of the difference may be theirs."
    ]


def test_rates_that_were_given_are_what_is_asked() -> None:
    made = [side_of("base", 1, 0.01, 0), side_of("worse", 1.2, 0.01, 1, lr=0.03)]
    given = [(side, runs.model_copy(update={"rates": (runs.config.lr,)})) for side, runs in made]
    said = [
        [line for line in sentences(answer_of(*sides)) if "learning rates" in line]
        for sides in (given, [given[0], made[1]])
    ]
    assert [len(lines) for lines in said] == [0, 1]


def test_a_row_per_contrast_below_its_baseline(told: Answer) -> None:
    rows = table(told)
    assert [row[0] for row in rows] == ["base", "  worse", "  same", "  edgy"]
    assert [row[-1] for row in rows] == ["", "WORSE", "EQUIVALENT", "NOT SETTLED"]
    assert [row[1] for row in rows] == ["0.0075", "0.0075", "0.0075", "0.0075*"]
    assert rows[1][4].startswith("+1") or rows[1][4].startswith("+2")
    assert rows[1][5] == "0.002"  # of 512 flips


def test_a_side_is_found_by_its_name(told: Answer) -> None:
    names = ["base", "worse", "same", "edgy"]
    assert [told.family.side(name).name for name in names] == names


def test_a_person_would_write_it_so(told: Answer) -> None:
    worse, same, edgy, edge, more, correlation = sentences(told)
    assert worse.startswith("worse instead of base: loss ")
    assert " % higher [+" in worse
    assert ", worse; error 0." in worse
    assert "equivalent within 3 %" in same
    assert "edgy instead of base: loss " in edgy
    assert ", not settled; error " in edgy
    assert edge.startswith("* The best learning rate of edgy lies at the edge")
    further = told.contrasts[2].val_loss.further
    assert further
    assert more == f"{further} more seeds would settle edgy: --seeds {10 + further}."
    assert correlation.startswith("Paired correlation of the log losses: ")
    assert heading(told).splitlines()[1] == (
        "10 paired seeds; p counts below 0.025 (look 1); judged by the loss, from 3 % on"
    )


def test_the_seeds_to_type_are_those_that_settle_every_contrast(told: Answer) -> None:
    further = told.contrasts[2].val_loss.further
    assert further
    assert to_settle(told) == (10 + further, 4 * further)
    two = answer_of(
        side_of("base", 1, 0.01, 0), side_of("near", 1.02, 0.04, 1), side_of("wide", 1.02, 0.1, 2)
    )
    least, most = sorted(row.val_loss.further or 0 for row in two.contrasts)
    assert 0 < least < most
    assert to_settle(two) == (10 + most, 3 * most)
    assert f"--seeds {10 + most}." in " ".join(sentences(two))
    settled = answer_of(side_of("base", 1, 0.01, 0), side_of("worse", 1.2, 0.01, 1))
    assert to_settle(settled) is None


def test_the_activation_takes_three_times_the_seeds_that_are_typed() -> None:
    found = answer_of(side_of("base", 1, 0.1, 0), side_of("other", 1, 0.1, 1), question="activation")
    further = found.contrasts[0].val_loss.further
    assert further
    typed = -(-(10 + further) // 3)
    assert sentences(found)[1].endswith(f"--seeds {typed}.")
    assert to_settle(found) == (typed, 2 * (3 * typed - 10))


def test_the_same_runs_are_said_to_be_the_same_and_few_seeds_give_no_verdict() -> None:
    found = answer_of(side_of("base", 1, 0.1, 0), side_of("twin", 1, 0.1, 0))
    assert found.contrasts[0].val_loss.verdict == "EQUIVALENT"
    assert sentences(found)[0] == "twin instead of base: the same, run by run."
    few = answer_of(side_of("base", 1, 0.1, 0, 5), side_of("other", 1, 0.1, 1, 5), looks=(5,))
    assert "no verdict below 6 seeds" in sentences(few)[0]
    assert table(few)[1][-2:] == ("", "NO VERDICT")


def test_the_error_may_be_the_metric() -> None:
    found = answer_of(side_of("base", 1, 0.01, 0), side_of("worse", 1.5, 0.01, 1), metric="val_error")
    assert "judged by the error, from 0.1 points on" in heading(found)
    assert table(found)[0][2] == "1.00"  # per cent
    assert table(found)[1][-1] == found.contrasts[0].val_error.verdict == "WORSE"


def test_a_screen_has_eighty_columns(told: Answer) -> None:
    console = Console(width=80, record=True, file=StringIO())
    answer_view(console, told)
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= 80
    assert not any(line.strip().startswith("+") for line in lines)  # no cell of numbers is wrapped


@pytest.mark.parametrize(
    ("factor", "word"),
    [(0.8, "interval here agrees"), (1.3, "interval here disagrees"), (1.0, "neither agrees nor disagrees")],
)
def test_the_literature_is_one_line_where_the_arms_allow_it(factor: float, word: str) -> None:
    cnn: dict[str, Any] = {"model": "cnn", "depth": None, "width": None}
    before, after = (
        side_of("before", 1, 0.05, 0, norm="before", **cnn),
        side_of("after", factor, 0.05, 1, **cnn),
    )
    (line,) = literature({"norm": answer_of(before, after, question="norm")})
    assert line.startswith("Mishkin 2016: BatchNorm after the activation ahead of before it")
    assert word in line
    elu = side_of("elu", 1, 0.05, 0, norm="before", activation="elu", **cnn)
    relu = side_of("relu", factor, 0.05, 1, norm="before", activation="relu", **cnn)
    (line,) = literature({"activation": answer_of(elu, relu, question="activation")})
    assert "with BatchNorm ReLU slightly ahead of ELU" in line
    assert word in line
    without = [
        answer_of(
            side_of("elu", 1, 0.05, 0, activation="elu", **cnn),
            side_of("relu", 1, 0.05, 1, activation="relu", **cnn),
        ),
        answer_of(elu, side_of("tanh", 1, 0.05, 1, activation="tanh", **cnn)),
    ]
    assert [literature({"activation": one}) for one in without] == [[], []]
    assert literature({"norm": answer_of(side_of("before", 1, 0.1, 0), side_of("after", 1, 0.1, 1))}) == []


def test_rows_for_csv(told: Answer) -> None:
    rows = contrast_rows({"slope": told})
    assert len(rows) == 3 * 2
    assert rows[0]["arm"] == "worse"
    assert rows[0]["mean"] == pytest.approx(
        np.mean(np.log(told.sides[1].losses) - np.log(told.sides[0].losses))
    )
    assert (rows[0]["smallest_effect"], rows[1]["smallest_effect"]) == (log(1.03), 0.001)
    assert rows[0]["verdict"] == "WORSE"
    runs = run_rows({"slope": told})
    assert len(runs) == 40
    assert runs[13] == {
        **{"question": "slope", "arm": "worse", "seed": 3, "lr": 0.0075},
        **{"val_loss": told.sides[1].losses[3], "val_error": told.sides[1].errors[3]},
    }


def test_the_forest_has_an_interval_per_contrast_and_the_band_of_the_smallest_effect(told: Answer) -> None:
    drawn = json.loads(forest(told).to_json())
    verdicts = {"worse": "worse", "same": "equivalent", "edgy": "not settled"}  # told in words, not by colour
    assert [trace["y"] for trace in drawn["data"]] == [[f"{n}<br><i>{v}</i>"] for n, v in verdicts.items()]
    assert {trace["meta"] for trace in drawn["data"]} == {INK}
    assert not any("color" in trace["marker"] for trace in drawn["data"])
    mean = told.contrasts[0].val_loss.difference
    (x,) = drawn["data"][0]["x"]
    assert x == pytest.approx(100 * (np.exp(mean.mean) - 1))
    bar = drawn["data"][0]["error_x"]
    assert x + bar["array"][0] == pytest.approx(100 * (np.exp(mean.high) - 1))
    assert x - bar["arrayminus"][0] == pytest.approx(100 * (np.exp(mean.low) - 1))
    band = next(shape for shape in drawn["layout"]["shapes"] if shape["type"] == "rect")
    assert (band["x0"], band["x1"]) == pytest.approx((100 * (1 / 1.03 - 1), 3))
    assert section(told)["id"] == "answer-slope"


def test_an_answer_is_stored_and_read_back(told: Answer) -> None:
    stored = {"answers": {"slope": json.loads(told.model_dump_json())}}
    assert answers_of(StudyRecord("x/compare", spec_of(), [], stored)) == {"slope": told}
    assert answers_of(None) == {}
    with pytest.raises(RequestError, match="what is stored as 'answers' of a comparison cannot be read"):
        answers_of(StudyRecord("x/compare", spec_of(), [], {"answers": {"slope": 3}}))
