"""Means, their intervals, and paired differences."""

import numpy as np
import pytest
from scipy import stats

from slopesearch.evidence.statistics import estimate, estimate_difference


def test_the_interval_is_students() -> None:
    values = np.random.default_rng(0).normal(3, 2, 10)
    found = estimate(values.tolist())
    low, high = stats.t.interval(0.95, 9, values.mean(), stats.sem(values))
    assert (found.mean, found.sd) == pytest.approx((values.mean(), values.std(ddof=1)))
    assert (found.low, found.high) == pytest.approx((low, high))


def test_differences_are_paired_by_their_keys() -> None:
    ones, others = {"a": 1.0, "b": 2.0, "only": 9.0}, {"b": 1.5, "a": 0.0, "other": 7.0}
    assert estimate_difference(ones, others) == estimate([1.0, 0.5])
