"""Statistics of independent runs: a mean with its interval, and the same of paired differences."""

from collections.abc import Mapping, Sequence
from math import sqrt
from statistics import fmean, stdev
from typing import TypeVar

from slopesearch.config import Noun

Key = TypeVar("Key")


class Estimate(Noun):
    """A mean over independent runs, their standard deviation, and the 95 % interval of the mean.

    In the unit of the values: nats for a loss, a share for an accuracy.
    """

    mean: float
    sd: float
    low: float
    high: float


def estimate(values: Sequence[float]) -> Estimate:
    """The estimate from two values or more; the interval is Student's, mean +- t(n-1, 0.975) sd / sqrt(n).

    Raises statistics.StatisticsError for fewer.
    """
    from scipy.special import stdtrit  # loaded here, so that the commands that only read start at once

    mean, sd = fmean(values), stdev(values)
    half = float(stdtrit(len(values) - 1, 0.975)) * sd / sqrt(len(values))
    return Estimate(mean=mean, sd=sd, low=mean - half, high=mean + half)


def estimate_difference(ones: Mapping[Key, float], others: Mapping[Key, float]) -> Estimate:
    """The estimate of one minus other, pair by pair, over the keys that both have, two at least."""
    return estimate([ones[key] - others[key] for key in ones if key in others])
