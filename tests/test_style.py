"""Colours and axes that the figures share."""

import pytest

from slopesearch.nets.activations import ACTIVATIONS
from slopesearch.report.plots import PLOTS
from slopesearch.report.style import (
    COLOURS,
    activations_of,
    better_up,
    colour_of,
    distance,
    log_axis,
    thinned,
)
from slopesearch.search.records import StudyRecord
from tests.synthetic import spec_of


def test_every_activation_has_its_own_colour() -> None:
    assert len(set(COLOURS.values())) == len(COLOURS)
    spec = spec_of()
    assert len({colour_of(name, spec) for name in ACTIVATIONS}) == len(ACTIVATIONS)
    added = spec.model_copy(update={"space": spec.space.model_copy(update={"activation": ("mish", "relu")})})
    assert activations_of(added) == ["relu", "mish"]
    assert colour_of("mish", added) not in COLOURS.values()
    said = PLOTS["shapes"].say(PLOTS["shapes"].rows(StudyRecord("s", added, [])), added)
    assert "(not mish)" in said


def test_the_axis_of_the_objective_is_better_upwards() -> None:
    spec = spec_of()
    axis = better_up(spec, [0.1, 0.98, 1.0])
    assert axis["range"][0] > axis["range"][1]  # reversed: small distances are on top
    assert dict(zip(axis["ticktext"], axis["tickvals"], strict=True))["0.99"] == pytest.approx(0.01)
    assert 0 < distance(1.0, spec) < 1 / (spec.val_size or 0)
    for values in ([0.981, 0.982], [0.1, 0.99]):
        assert 2 <= len(better_up(spec, values)["tickvals"]) <= 6
    assert 2 <= len(log_axis([1e-4, 3e-2])["tickvals"]) <= 6
    assert log_axis([0.0]) == {}


def test_thinned_rows_are_spread_evenly_and_whole_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"trial": trial, "report": report} for trial in range(10, 110) for report in (1, 2)]
    assert thinned(rows) == rows
    monkeypatch.setattr("slopesearch.report.style.MOST_DRAWN", 4)
    assert [row["trial"] for row in thinned(rows, [11])] == [10, 10, 11, 11, 35, 35, 60, 60, 85, 85]
