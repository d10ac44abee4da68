"""Means and intervals, sign flips, equivalence, the rule of verdicts; and how often they err."""

import importlib
from collections.abc import Iterator
from itertools import product
from math import sqrt
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import ttost_paired

from slopesearch.evidence import statistics
from slopesearch.evidence.statistics import (
    Estimate,
    binomial_cdf,
    equivalence_p,
    estimate,
    flip_p,
    judge,
    level_of,
    rank_correlation,
    seeds_to_settle,
    wilson,
)

SCRIPTS = Path(__file__).parent.parent / "scripts"


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


@pytest.fixture
def few_flips(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fewer drawn flips, to draw them often."""
    monkeypatch.setattr(statistics, "DRAWN", 3000)
    statistics._flips.cache_clear()
    yield
    statistics._flips.cache_clear()


@pytest.fixture
def calibrate(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module("calibrate")


def at_most(share: float, limit: float, times: int) -> bool:
    """Within three standard errors of a share that is `limit`."""
    return share <= limit + 3 * sqrt(limit * (1 - limit) / times)


def test_the_interval_is_students() -> None:
    values = np.random.default_rng(0).normal(3, 2, 10)
    found = estimate(values.tolist())
    low, high = stats.t.interval(0.95, 9, values.mean(), stats.sem(values))
    assert (found.mean, found.sd) == pytest.approx((values.mean(), values.std(ddof=1)))
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.half == pytest.approx((high - low) / 2)


@pytest.mark.parametrize("seeds", [6, 9, 12])
def test_one_contrast_is_scipys_permutation_test(seeds: int) -> None:
    d = normal(seeds, seeds) + 0.5
    theirs = stats.permutation_test(
        (d,), lambda d: abs(d.mean()), permutation_type="samples", alternative="greater"
    )
    assert flip_p(d[:, None])[0] == pytest.approx(theirs.pvalue)


def test_the_family_is_judged_by_the_largest_t_of_whole_seeds() -> None:
    d = normal(1, 7, 3) * np.array([1, 100, 1e-3]) + np.array([1, 0, 1e-3])

    def t(d: np.ndarray) -> np.ndarray:
        return np.asarray(abs(stats.ttest_1samp(d, 0).statistic))

    largest = [t(d * np.array(signs)[:, None]).max() for signs in product((1, -1), repeat=7)]
    expected = [np.mean(np.array(largest) >= one - 1e-9) for one in t(d)]
    assert flip_p(d) == pytest.approx(expected)


def test_flips_are_counted_up_to_sixteen_seeds_and_drawn_beyond() -> None:
    exact = flip_p(normal(2, 16, 2) + 0.4) * 2**15
    assert exact == pytest.approx(exact.round())
    d = normal(3, 17, 1) + 0.4
    theirs = stats.permutation_test(
        (d[:, 0],),
        lambda d: abs(d.mean()),
        permutation_type="samples",
        alternative="greater",
        n_resamples=2**17,
        batch=2**14,
    )
    assert flip_p(d)[0] == pytest.approx(theirs.pvalue, abs=4 * sqrt(0.1 / 1e5))
    assert (flip_p(d) == flip_p(d)).all()  # the draws are seeded


def test_equivalence_is_statsmodels_ttost_and_holm() -> None:
    d = normal(4, 10, 5) + np.array([0, 0.5, 1, 1.5, -0.5])
    each = ttost_paired(d, np.zeros_like(d), -1, 1)[0]
    assert equivalence_p(d, 1.0) == pytest.approx(multipletests(each, method="holm")[1])


SPREAD = np.array([1, -1, 2, -2, 1.5, -1.5, 0.5, -0.5, 1, -1])


@pytest.mark.parametrize(
    ("mean", "sd", "smallest", "word"),
    [
        (-2, 0.5, 1, "BETTER"),
        (2, 0.5, 1, "WORSE"),
        (0.4, 0.2, 1, "NEGLIGIBLE"),
        (0.0, 0.2, 1, "EQUIVALENT"),
        (0.0, 0.0, 1, "EQUIVALENT"),
        (2, 3, 1, "NOT SETTLED"),
        (0.9, 0.5, 1, "NOT SETTLED"),  # it is there, and may be smaller than what is of interest
    ],
)
def test_the_verdicts_by_rule(mean: float, sd: float, smallest: float, word: str) -> None:
    d = mean + sd * SPREAD[:, None]
    (found,) = judge(d, smallest)
    assert found.verdict == word
    assert (found.further is not None) == (word == "NOT SETTLED")
    assert found.difference == estimate(d[:, 0].tolist())
    (few,) = judge(d[:5], smallest)
    assert few.verdict == ("EQUIVALENT" if mean == sd == 0 else "NO VERDICT")
    assert (few.p, few.p_equivalent, few.difference) == (None, None, estimate(d[:5, 0].tolist()))


def test_a_difference_takes_seven_seeds_and_more_at_a_later_look() -> None:
    clear = np.full((10, 1), 5.0) + 0.1 * SPREAD[:, None]

    def seeds_needed(look: int) -> int:
        return next(n for n in range(6, 11) if judge(clear[:n], 1, look)[0].verdict == "WORSE")

    assert [seeds_needed(look) for look in (1, 2, 3)] == [7, 8, 9]
    assert sum(level_of(look) for look in range(1, 30)) == pytest.approx(0.05)


def spread(sd: float) -> Estimate:
    """An effect that may be zero."""
    return Estimate(mean=0, sd=sd, low=-sd, high=sd)


def test_the_seeds_that_settle_are_the_fewest_with_the_power() -> None:
    """By simulation of both tests at the upper limit of the spread, one contrast."""
    upper = 2 * sqrt(9 / stats.chi2.ppf(0.2, 9))
    total = seeds_to_settle(spread(2), 10, 1, 1.0, 0.0125)
    assert total is not None
    d = np.random.default_rng(0).normal(0, upper, (total, 2000))

    def found(n: int) -> float:
        each = ttost_paired(d[:n], np.zeros_like(d[:n]), -1, 1)[0]
        return float((each < 0.0125).mean())

    assert found(total) > 0.8 - 0.03
    assert found(total - 4) < 0.8
    assert seeds_to_settle(spread(2), 10, 6, 1.0, 0.0125) > total  # type: ignore[operator]
    assert seeds_to_settle(spread(0), 10, 1, 1.0, 0.0125) == 11
    assert seeds_to_settle(spread(1e-9), 6, 6, 1.0, 0.0125) == 10  # flips give no smaller p below
    assert seeds_to_settle(spread(1e3), 10, 1, 1.0, 0.0125) is None


def test_the_most_seeds_that_are_told_of_are_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    total = seeds_to_settle(spread(2), 10, 1, 1.0, 0.0125)
    for most, told in ((total, total), (total - 1, None)):  # type: ignore[operator]
        monkeypatch.setattr(statistics, "MOST_SEEDS", most)
        assert seeds_to_settle(spread(2), 10, 1, 1.0, 0.0125) == told


def test_a_clear_difference_takes_the_seeds_that_find_the_end_of_its_interval() -> None:
    found = Estimate(mean=50, sd=20, low=20, high=80)
    total = seeds_to_settle(found, 7, 1, 1.0, 0.0125)
    assert total is not None
    upper = 20 * sqrt(6 / stats.chi2.ppf(0.2, 6))
    powers = [TTestPower().power(20 / upper, n, 0.0125) for n in (total - 1, total)]
    assert powers[0] < 0.8 <= powers[1]
    mirrored = Estimate(mean=-50, sd=20, low=-80, high=-20)
    assert seeds_to_settle(mirrored, 7, 1, 1.0, 0.0125) == total


# What follows errs by chance in one of 700 cases a number, and the seeds are fixed.


@pytest.mark.usefixtures("few_flips")
@pytest.mark.parametrize("seeds", [6, 10, 20, 30])
@pytest.mark.parametrize("noise", ["normal", "skewed", "heavy-tailed"])
def test_false_positives_coverage_and_false_equivalents(
    calibrate: ModuleType, noise: str, seeds: int
) -> None:
    draw = calibrate.NOISES[noise]
    assert at_most(calibrate.false_positives(draw, seeds, 600), 0.05, 600)
    assert at_most(1 - calibrate.coverage(draw, seeds, 2000), 0.06, 2000)
    assert at_most(calibrate.wrong_equivalents(draw, seeds, 2000), 0.05, 2000)


@pytest.mark.usefixtures("few_flips")
@pytest.mark.parametrize("seeds", [10, 20])
def test_the_power_is_that_of_a_t_test(calibrate: ModuleType, seeds: int) -> None:
    ours, theirs = calibrate.power(seeds, 0.75, 1500)
    assert abs(ours - theirs) < 0.03 + 2 * sqrt(0.25 / 1500)


@pytest.mark.usefixtures("few_flips")
@pytest.mark.parametrize("effect", [0.0, 2.0])
def test_the_seeds_told_settle_four_of_five(calibrate: ModuleType, effect: float) -> None:
    share, _ = calibrate.settled(effect, 1.5, 1, 150, pilot=7)
    assert share > 0.8 - 2 * sqrt(0.16 / 150)


@pytest.mark.usefixtures("few_flips")
def test_all_looks_together_keep_the_error(calibrate: ModuleType) -> None:
    share = calibrate.false_over_looks(calibrate.NOISES["normal"], 600)
    assert at_most(share, 0.05, 600)
    assert share > 0


def test_runs_of_one_config_are_not_told_apart(calibrate: ModuleType) -> None:
    """Really trained on 40 seeds, dealt into pairs over and over, each deal put through the verdict."""
    losses = calibrate.real_losses()
    assert len(set(losses)) == 40
    assert at_most(calibrate.significant_deals(losses, 1500), 0.05, 1500)


@pytest.mark.parametrize(("hits", "runs"), [(0, 1), (0, 7), (3, 8), (14, 14), (41, 100)])
def test_the_interval_of_a_share_is_wilsons(hits: int, runs: int) -> None:
    expected = stats.binomtest(hits, runs).proportion_ci(method="wilson")
    assert wilson(hits, runs) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize("runs", [301, 519, 577])
def test_the_interval_of_none_begins_at_zero_and_that_of_all_ends_at_one(runs: int) -> None:
    assert f"{wilson(0, runs)[0]:.0%}" == "0%"
    assert wilson(0, runs)[0] == 0 <= wilson(runs, runs)[0] < wilson(runs, runs)[1] <= 1


@pytest.mark.parametrize(
    ("hits", "runs", "share"), [(0, 1, 0.5), (4, 10, 0.48), (900, 2000, 0.47), (5, 5, 0.3)]
)
def test_the_chance_of_at_most_so_many_is_the_binomials(hits: int, runs: int, share: float) -> None:
    assert binomial_cdf(hits, runs, share) == pytest.approx(stats.binom.cdf(hits, runs, share), rel=1e-9)
    assert binomial_cdf(hits, runs, 0.0) == 1


@pytest.mark.parametrize("digits", [1, 8])
def test_the_rank_correlation_is_spearmans_with_equal_values_too(digits: int) -> None:
    one = normal(5, 40).round(digits)
    other = (one + normal(6, 40)).round(digits)
    assert (len(set(one)) < 40) == (digits == 1)
    assert rank_correlation(one.tolist(), other.tolist()) == pytest.approx(
        stats.spearmanr(one, other).statistic
    )
