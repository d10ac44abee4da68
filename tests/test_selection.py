"""The estimate for the best of a search, on simulated searches whose truth is known."""

from collections.abc import Callable
from math import sqrt

import numpy as np
import pytest
from numpy.typing import NDArray

from slopesearch.evidence.selection import OF_BINOMIAL, OF_LOG_LOSS, believed, seed_noise
from slopesearch.search.records import StudyRecord
from tests import synthetic

Array = NDArray[np.float64]
Draw = Callable[[np.random.Generator, int], Array]
SEARCHES = 80
TRUTHS: dict[str, Draw] = {
    "spread": lambda g, n: 0.975 + 0.003 * g.standard_normal(n),
    "skewed": lambda g, n: 0.987 - 0.006 * g.exponential(size=n),
    "equals": lambda g, n: np.full(n, 0.985),
}


def study_of(values: Array, **fields: object) -> StudyRecord:
    """A finished search with these values."""
    trials = (synthetic.record(number, "COMPLETE", float(value)) for number, value in enumerate(values))
    return synthetic.study_with(*trials, **fields)


@pytest.mark.parametrize("trials", [20, 100])
@pytest.mark.parametrize("truth", TRUTHS.values(), ids=TRUTHS)
@pytest.mark.parametrize("objective", ["val_accuracy", "val_loss"])
def test_the_best_is_believed_less_than_it_was_seen_and_about_right(
    truth: Draw, trials: int, objective: str
) -> None:
    generator = np.random.default_rng(trials)
    naive, shrunk, held = [], [], []
    for _ in range(SEARCHES):
        true = truth(generator, trials)
        if objective == "val_accuracy":
            noise = np.sqrt(OF_BINOMIAL * true * (1 - true) / 5000)
            study = study_of(true + noise * generator.standard_normal(trials), dataset="mnist")
        else:
            true = 3 * (1 - true)
            seen = true * np.exp(OF_LOG_LOSS * generator.standard_normal(trials))
            study = study_of(seen, dataset="mnist", objective="val_loss")
        found, best = believed(study), study.best()
        assert found is not None
        assert found.observed == best.value
        sign, at_best = (1 if objective == "val_accuracy" else -1), float(true[best.number])
        naive.append(sign * (found.observed - at_best))
        shrunk.append(sign * (found.value - at_best))
        held.append(found.low <= at_best <= found.high)
    error = 2 * np.std(shrunk) / sqrt(SEARCHES)
    assert abs(np.mean(shrunk)) < 0.4 * np.mean(naive) + error
    assert np.mean(held) >= 0.8


def test_a_run_without_an_error_is_as_noisy_as_one_with_half_an_error() -> None:
    study, half = study_of(np.array([1.0, 0.5]), dataset="mnist"), 0.5 / 5000
    assert seed_noise(study, 1.0) == pytest.approx(sqrt(OF_BINOMIAL * half * (1 - half) / 5000))


def test_the_trials_that_cannot_be_told_from_the_best_are_counted() -> None:
    apart = 1.96 * sqrt(2) * sqrt(OF_BINOMIAL * 0.02 * 0.98 / 5000)
    found = believed(study_of(np.array([0.98, 0.98 - 0.8 * apart, 0.98 - 1.3 * apart]), dataset="mnist"))
    assert found is not None
    assert found.tied == 1


def test_a_best_without_rivals_is_not_shrunk() -> None:
    assert believed(study_of(np.array([0.98]))) is None
    found = believed(study_of(np.array([0.98, 0.5]), dataset="mnist"))
    assert found is not None
    assert found.value == pytest.approx(0.98, abs=1e-4)
    assert found.tied == 0


def test_an_estimate_lies_where_it_can() -> None:
    found = believed(study_of(np.array([1.0, 1.0, 0.9999]), dataset="mnist"))
    assert found is not None
    assert found.value <= found.high <= 1
