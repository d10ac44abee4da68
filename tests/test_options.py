"""The texts of options, as the values that they mean."""

import json
import re

import pytest

from slopesearch.cli.options import parse_seconds, parse_set
from slopesearch.search.space import check
from slopesearch.wording import RequestError


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("epochs=3", {"epochs": 3}),
        ("model=mlp", {"model": "mlp"}),
        ("space.lr=1e-3", {"space": {"lr": 1e-3}}),
        ("space.norm=['none', 'before']", {"space": {"norm": ["none", "before"]}}),
        ("space.lr={low = 1e-4, high = 1e-2}", {"space": {"lr": {"low": 1e-4, "high": 1e-2}}}),
    ],
)
def test_set_reads_toml_values_and_bare_words(text: str, parsed: object) -> None:
    assert parse_set(text) == parsed


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("30m", 1800), ("1.5h", 5400)])
def test_timeouts_have_units(text: str, seconds: float) -> None:
    assert parse_seconds(text, "timeout") == seconds


@pytest.mark.parametrize("text", ["", "0", "-3m", "m", "3 weeks"])
def test_other_timeouts_are_refused(text: str) -> None:
    with pytest.raises(RequestError):
        parse_seconds(text, "timeout")


@pytest.mark.parametrize(
    ("text", "spread"),
    [
        ("space.lr=[0.0001,0.1]", "{low = 0.0001, high = 0.1, log = true}"),
        ("space.negative_slope=[0, 0.5]", "{low = 0, high = 0.5}"),
    ],
)
def test_two_numbers_of_a_range_are_asked_about_with_what_to_type_for_either_meaning(
    text: str, spread: str
) -> None:
    with pytest.raises(RequestError) as refused:
        parse_set(text)
    assert "is two choices; for a range write --set" in str(refused.value)
    name = text.partition("=")[0]
    quoted = re.findall(r"--set '([^']+)'", str(refused.value))
    assert quoted[0] == f"{name}={spread}"
    (values,) = parse_set(quoted[1])["space"].values()
    assert sorted(values) == json.loads(text.partition("=")[2])  # the two choices
    for asked in quoted:
        check(parse_set(asked))


@pytest.mark.parametrize(
    "text", ["space.slope_max=[0.1, 0.3]", "space.lr=[1e-4, 1e-3, 1e-2]", "space.lr=0.1", "epochs=[1, 2]"]
)
def test_other_lists_are_choices(text: str) -> None:
    assert parse_set(text)
