"""Colours and axes that the figures share."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import slopesearch.report.page as page_module
from slopesearch.nets.activations import ACTIVATIONS
from slopesearch.report.plots import PLOTS
from slopesearch.report.style import (
    ACCENT,
    COLOURS,
    MOST_LAYERS,
    SPARE,
    activations_of,
    better_up,
    colour_of,
    distance,
    lacking,
    log_axis,
    some_layers,
    thinned,
    translucent,
)
from tests.synthetic import spec_of, study_of

STUDY = study_of(400)


def luminance(colour: str) -> float:
    """The relative luminance of #rrggbb, by the Web Content Accessibility Guidelines 2.2."""
    whole = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in whole)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def colours_in(part: Any) -> Iterator[str]:
    """Every colour in a figure's JSON."""
    if isinstance(part, dict):
        for name, value in part.items():
            if name in ("color", "fillcolor", "colorscale", "bgcolor") and not isinstance(value, dict):
                yield from value if isinstance(value, list) else [value]
            else:
                yield from colours_in(value)
    elif isinstance(part, list):
        for one in part:
            yield from colours_in(one)


def test_every_activation_has_its_own_colour() -> None:
    assert len({*COLOURS.values(), *SPARE, ACCENT}) == len(COLOURS) + len(SPARE) + 1
    spec = spec_of()
    assert len({colour_of(name, spec) for name in ACTIVATIONS}) == len(ACTIVATIONS)
    added = spec.model_copy(update={"space": spec.space.model_copy(update={"activation": ("mish", "relu")})})
    assert activations_of(added) == ["relu", "mish"]
    assert colour_of("mish", added) not in COLOURS.values()
    for colour in (*COLOURS.values(), *SPARE):  # none is near the ink, which is grey
        channels = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        assert max(channels) - min(channels) > 40


@pytest.mark.parametrize("colour", [*COLOURS.values(), *SPARE, ACCENT])
def test_every_colour_is_seen_on_the_white_page_and_on_the_dark_one(colour: str) -> None:
    html = (Path(page_module.__file__).parent / "page.html").read_text()
    pages = re.findall(r"--page: (#[0-9a-f]+)", html)
    assert len(pages) == 2
    for page in pages:
        behind = page if len(page) == 7 else "#" + "".join(2 * c for c in page[1:])
        low, high = sorted((luminance(colour), luminance(behind)))
        assert (high + 0.05) / (low + 0.05) >= 3


@pytest.mark.parametrize("name", PLOTS)
def test_a_colour_is_an_activation_and_all_else_is_of_one_ink(name: str) -> None:
    activations = {colour_of(activation, STUDY.spec) for activation in ACTIVATIONS}
    drawn = PLOTS[name].draw(PLOTS[name].rows(STUDY), STUDY.spec).to_plotly_json()
    found = set(colours_in({"data": list(drawn["data"]), "layout": drawn["layout"]}))
    assert found
    clear = {translucent(colour) for colour in activations} | {"rgba(0,0,0,0)"}  # no slab in the dark
    assert found <= activations | {ACCENT} | clear
    if name in ("history", "audit", "speed"):
        assert found <= {ACCENT, "rgba(0,0,0,0)"}


def test_the_axis_of_the_objective_is_better_upwards() -> None:
    spec = spec_of()
    axis = better_up(spec, [0.1, 0.98, 1.0])
    assert axis["range"][0] > axis["range"][1]  # reversed: small distances are on top
    assert dict(zip(axis["ticktext"], axis["tickvals"], strict=True))["0.99"] == pytest.approx(0.01)
    assert 0 < distance(1.0, spec) < 1 / (spec.val_size or 0)
    for values in ([0.981, 0.982], [0.1, 0.99]):
        assert 2 <= len(better_up(spec, values)["tickvals"]) <= 6
    assert 2 <= len(log_axis([1e-4, 3e-2])["tickvals"]) <= 6
    assert log_axis([2e-4, 3e-2], is_small=True)["ticktext"] == ["0.001", "0.01"]
    assert len(log_axis([2e-3, 5e-3], is_small=True)["tickvals"]) == 2
    assert log_axis([0.0]) == {}


def test_thinned_rows_are_spread_evenly_and_whole_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"trial": trial, "report": report} for trial in range(10, 110) for report in (1, 2)]
    assert thinned(rows) == rows
    monkeypatch.setattr("slopesearch.report.style.MOST_DRAWN", 4)
    assert [row["trial"] for row in thinned(rows, [11])] == [10, 10, 11, 11, 35, 35, 60, 60, 85, 85]


def test_the_layers_of_a_deep_network_are_thinned_to_its_ends() -> None:
    assert some_layers([3, 1, 2]) == [1, 2, 3]
    assert some_layers(range(1, 11)) == [1, 4, 7, 10]
    assert len(some_layers(range(50))) == MOST_LAYERS


def test_what_is_lacking_is_named_once() -> None:
    spec = spec_of(space={"norm": ["none", "before"], "activation": "elu"})
    assert lacking([{"norm": "none"}], "norm", spec) == " The search completed no trial with norm before."
    assert lacking([{"norm": "none"}, {"norm": "before"}], "norm", spec) == ""
