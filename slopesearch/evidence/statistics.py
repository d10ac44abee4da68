"""Statistics of independent runs: a mean with its interval, paired differences, and the rule of verdicts.

A difference is one arm minus another on the same seed, in a metric of which less is better. An array of them
has the shape (seeds, contrasts); a family is what is judged together.
"""

from bisect import bisect_left
from collections.abc import Sequence
from functools import lru_cache
from math import ceil, exp, fsum, lgamma, log, log1p, log2, sqrt
from statistics import NormalDist, fmean, stdev
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from slopesearch.config import Noun
from slopesearch.seeds import derive

Array = NDArray[np.float64]
Word = Literal["BETTER", "WORSE", "NEGLIGIBLE", "EQUIVALENT", "NOT SETTLED", "NO VERDICT"]

ALPHA = 0.05  # the error of all looks at a family together
FEWEST = 6  # seeds behind a verdict
EXACT = 16  # seeds: up to here every sign flip is counted, 32,768 at most
DRAWN = 100_000  # sign flips beyond
POWER = 0.8  # the chance to settle a comparison that the number of further seeds is meant to give
SURE = 0.8  # how sure it is that the spread is no larger than the one which that number is computed from
MOST_SEEDS = 10_000  # beyond that a comparison is not planned

RULE = (
    "BETTER, WORSE: family-wise p (max-T of sign flips) below the level, and at least the smallest effect. "
    "NEGLIGIBLE: p below the level, the 95 % interval within the smallest effect. EQUIVALENT: two one-sided "
    "t tests (Holm) below the level. Look k has the level .05/2^k; a difference takes seven seeds. "
    "Losses are on the held-out images that tuned no rate, those of confirm on others or on more: compare "
    "these with each other alone."
)


class Estimate(Noun):
    """A mean over independent runs, their standard deviation, and the 95 % interval of the mean.

    In the unit of the values: nats for a loss, a share for an accuracy.
    """

    mean: float
    sd: float
    low: float
    high: float

    @property
    def half(self) -> float:
        """Half the length of the interval."""
        return (self.high - self.low) / 2


class Judgement(Noun):
    """What the paired differences of a contrast allow one to say, in its family.

    `p` is the family-wise p of the difference, `p_equivalent` that of equivalence, both None below FEWEST
    seeds. `further`: how many seeds more would settle it, None where it is settled, or none of at most
    MOST_SEEDS would.
    """

    difference: Estimate
    p: float | None
    p_equivalent: float | None
    verdict: Word
    further: int | None = None


def estimate(values: Sequence[float]) -> Estimate:
    """The estimate from two values or more; the interval is Student's, mean +- t(n-1, 0.975) sd / sqrt(n).

    Raises statistics.StatisticsError for fewer.
    """
    from scipy.special import stdtrit  # loaded here, so that the commands that only read start at once

    mean, sd = fmean(values), stdev(values)
    half = float(stdtrit(len(values) - 1, 0.975)) * sd / sqrt(len(values))
    return Estimate(mean=mean, sd=sd, low=mean - half, high=mean + half)


def wilson(hits: int, runs: int) -> tuple[float, float]:
    """The ends of the 95 % interval of a share, hits of runs (Wilson 1927).

    Written here, as the next two, since scipy, which the tests compare with, loads for 0.2 s, a fifth of what
    `show` takes, and scipy.stats for 0.4 to 0.6 s, a quarter of the page of a default study.
    """
    share, z2 = hits / runs, NormalDist().inv_cdf(0.975) ** 2
    centre = share + z2 / (2 * runs)
    half = sqrt(z2 * (share * (1 - share) + z2 / (4 * runs)) / runs)
    low, high = (centre - half) / (1 + z2 / runs), (centre + half) / (1 + z2 / runs)
    return max(low, 0.0), min(high, 1.0)  # of none and of all, but for rounding


def rank_correlation(one: Sequence[float], other: Sequence[float]) -> float:
    """Spearman's rho of two lists as long, equal values sharing their mean rank; neither may be constant."""

    def ranks(values: Sequence[float]) -> Array:
        _, place, count = np.unique(values, return_inverse=True, return_counts=True)
        return np.asarray((count.cumsum() - (count - 1) / 2)[place])

    return float(np.corrcoef(ranks(one), ranks(other))[0, 1])


def binomial_cdf(hits: int, runs: int, share: float) -> float:
    """The chance of at most so many hits in runs that each hit with the chance `share`, below 1."""
    if share <= 0:
        return 1.0

    def exactly(k: int) -> float:
        ways = lgamma(runs + 1) - lgamma(k + 1) - lgamma(runs - k + 1)
        return exp(ways + k * log(share) + (runs - k) * log1p(-share))

    return fsum(map(exactly, range(hits + 1)))


def level_of(look: int) -> float:
    """What look number `look`, from 1, at a family is tested at; over all looks these add up to ALPHA."""
    return float(ALPHA / 2**look)


@lru_cache(maxsize=2)
def _flips(seeds: int) -> NDArray[np.int8]:
    """Signs (flips, seeds), the first row all +1: every one up to EXACT seeds, else DRAWN ones.

    Flipping all signs leaves |t| as it is, so the last seed keeps its own where every flip is counted.
    """
    if seeds <= EXACT:
        negative = np.arange(2 ** (seeds - 1))[:, None] >> np.arange(seeds) & 1
    else:
        drawn = np.random.default_rng(derive(seeds, "flips")).integers(0, 2, (DRAWN, seeds))
        negative = np.vstack([np.zeros((1, seeds), np.int64), drawn])
    return (1 - 2 * negative).astype(np.int8)


def flip_p(differences: Array) -> Array:
    """Family-wise p of each contrast: sign flips of whole seeds, the same for all, by the maximum of |t|.

    Westfall and Young 1993, the single-step max-T. A flip leaves the sum of squares of a contrast as it is,
    so |t| grows with r = |sum of d| / sqrt(sum of d^2), the same way for all contrasts, and r is compared.
    """
    norms = np.sqrt((differences**2).sum(axis=0))
    scaled = differences / np.where(norms > 0, norms, 1)
    largest = np.sort(np.abs(_flips(len(differences)) @ scaled).max(axis=1))
    observed = np.abs(scaled.sum(axis=0))
    below = np.searchsorted(largest, observed - 1e-9)  # of equal sums one may be rounded down
    return np.asarray(1 - below / len(largest))


def equivalence_p(differences: Array, smallest: float) -> Array:
    """Adjusted p of each contrast: it lies within +-smallest.

    Two one-sided t tests (Schuirmann 1987), then Holm 1979 over the family. Ten lines here: statsmodels,
    which the tests compare with, brings 150 MB, loads for 0.7 s and collects garbage for 17 ms a call.
    """
    from scipy.special import stdtr

    n, contrasts = differences.shape
    mean, error = differences.mean(axis=0), differences.std(axis=0, ddof=1) / sqrt(n)
    inside = (smallest - np.abs(mean)) / np.maximum(error, 1e-300)  # t of the nearer bound
    p = stdtr(n - 1, -inside)
    order = np.argsort(p)
    adjusted = np.empty(contrasts)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(contrasts, 0, -1)), 1)
    return adjusted


def seeds_to_settle(found: Estimate, seeds: int, contrasts: int, smallest: float, level: float) -> int | None:
    """How many seeds in all settle a contrast, with a chance of POWER; `found` was measured on `seeds`.

    Where its effect is 0 (EQUIVALENT or NEGLIGIBLE) or twice the smallest one or more; or where the interval
    lies beyond twice the smallest, at the end of the interval. `level` is that of the next look. The spread
    is taken at its upper limit, sd sqrt((n - 1) / chi2(n - 1, 1 - SURE)), and each test at the worst of its
    family, level / contrasts. With t' noncentral, a t test finds an effect with the power P(t' > t), and both
    one-sided tests reject at effect 0 with 2 P(t' > t) - 1 at least; where these do, twice the smallest is
    found too: its t is as far again from zero. None above MOST_SEEDS.
    """
    from scipy.special import chdtri, nctdtr, stdtrit

    upper = max(found.sd * sqrt((seeds - 1) / float(chdtri(seeds - 1, SURE))), 1e-300)
    surely = max(found.low, -found.high)
    clear = surely > 2 * smallest
    effect, tail = (surely, level / contrasts / 2) if clear else (smallest, level / contrasts)

    def power(n: int) -> float:
        centre = min(effect * sqrt(n) / upper, 1e3)  # beyond, scipy gives not-a-number for a power of 1
        missed = float(nctdtr(n - 1, centre, stdtrit(n - 1, 1 - tail)))
        return 1 - missed if clear else 1 - 2 * missed

    fewest = max(seeds + 1, FEWEST, ceil(log2(contrasts / level)) + 1)  # below, flips give no p so small
    candidates = range(fewest, MOST_SEEDS + 1)
    at = bisect_left(candidates, POWER, key=power)
    return candidates[at] if at < len(candidates) else None


def judge(differences: Array, smallest: float, look: int = 1) -> list[Judgement]:
    """The verdict on each contrast of a family, by RULE in its order; `differences` (seeds, contrasts).

    `smallest` is the smallest effect of interest, in the unit of the differences, and `look` how often the
    family has been judged, this time included. Differences that are all zero are EQUIVALENT at any number of
    seeds. Raises statistics.StatisticsError for less than two seeds.
    """
    seeds, contrasts = differences.shape
    estimates = [estimate(differences[:, k].tolist()) for k in range(contrasts)]
    if seeds < FEWEST:
        words: list[Word] = [
            "NO VERDICT" if differences[:, k].any() else "EQUIVALENT" for k in range(contrasts)
        ]
        return [
            Judgement(difference=found, p=None, p_equivalent=None, verdict=word)
            for found, word in zip(estimates, words, strict=True)
        ]
    p, equivalent = flip_p(differences), equivalence_p(differences, smallest)
    judged = []
    for k, found in enumerate(estimates):
        word = _word(found, bool(differences[:, k].any()), p[k], equivalent[k], smallest, level_of(look))
        further = None
        if word == "NOT SETTLED":
            total = seeds_to_settle(found, seeds, contrasts, smallest, level_of(look + 1))
            further = None if total is None else total - seeds
        judged.append(
            Judgement(
                difference=found,
                p=float(p[k]),
                p_equivalent=float(equivalent[k]),
                verdict=word,
                further=further,
            )
        )
    return judged


def _word(
    found: Estimate, any_differs: bool, p: float, equivalent: float, smallest: float, level: float
) -> Word:
    if not any_differs:
        return "EQUIVALENT"
    if p < level and abs(found.mean) >= smallest:
        return "BETTER" if found.mean < 0 else "WORSE"
    if p < level and -smallest < found.low and found.high < smallest:
        return "NEGLIGIBLE"
    return "EQUIVALENT" if equivalent < level else "NOT SETTLED"
