"""The texts of options, as the values that they mean."""

import pytest

from slopesearch.cli.options import parse_seconds, parse_set
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
