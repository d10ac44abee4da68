"""Figures of the runs."""

import pytest

from slopesearch.report.run_plots import expected_best


def test_expected_best_is_the_mean_of_the_best_of_k() -> None:
    values = [0.1, 0.4, 0.9]
    assert expected_best(values, 1, True) == pytest.approx(sum(values) / 3)
    pairs = [max(a, b) for a in values for b in values]
    assert expected_best(values, 2, True) == pytest.approx(sum(pairs) / 9)
    assert expected_best(values, 2, False) == pytest.approx(
        sum(min(a, b) for a in values for b in values) / 9
    )
