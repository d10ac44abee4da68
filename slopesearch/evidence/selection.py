"""believed(): what the best trial of a search would give on a fresh seed, as far as the search can tell."""

from math import sqrt

import numpy as np

from slopesearch.config import Noun
from slopesearch.search.records import StudyRecord

# How much the result of one run varies over seeds: of an accuracy the variance, as a share of the binomial
# variance e (1 - e) / n of its error e on n images; of a loss the standard deviation of its logarithm. 113
# configs of the CNN that ran twice on MNIST: 0.62 by the mean, 0.50 by the median; 0.054 (2026-11-28).
OF_BINOMIAL = 0.5
OF_LOG_LOSS = 0.06
DRAWS = 4000
FAR, MOST = 8, 500  # standard deviations behind the best, and trials, beyond which none is drawn
Z = 1.96  # of a normal distribution, 95 %


class Believed(Noun):
    """The best trial's value on a fresh seed, in the objective's unit: an estimate and its 95 % interval.

    `observed` is what the search saw; `noise` one standard deviation of a run over seeds; `tied` how many
    other completed trials cannot be told from the best, one run against one run.
    """

    observed: float
    value: float
    low: float
    high: float
    noise: float
    tied: int


def believed(study: StudyRecord) -> Believed | None:
    """The best of the completed trials, shrunk for having been chosen; None for fewer than two.

    The parametric bootstrap of the optimism of a maximum: were the observed values true, the best of runs as
    noisy as these would be seen too good by as much on average (Efron and Tibshirani 1993, chapter 17, of a
    model's error; here of a choice). On simulated searches of 20 to 200 trials it leaves a fifth of the
    optimism, and its interval holds the truth in 85 to 95 of 100 (tests/test_selection.py).
    """
    ranked = [trial for trial in study.ranked() if trial.value is not None]
    if len(ranked) < 2:
        return None
    seen = np.array([float(trial.value or 0.0) for trial in ranked])
    noise = np.array([seed_noise(study, float(value)) for value in seen])
    better = seen if study.spec.maximize else -seen  # larger is better
    near = (better >= better[0] - FAR * noise.max())[:MOST]  # the others are never seen as the best
    close, their_noise = better[:MOST][near], noise[:MOST][near]
    drawn = close + their_noise * np.random.default_rng(0).standard_normal((DRAWS, len(close)))
    chosen = drawn.argmax(axis=1)
    optimism = drawn.max(axis=1) - close[chosen]
    shrunk, half = better[0] - optimism.mean(), Z * optimism.std()
    ends = sorted(_within(study, x if study.spec.maximize else -x) for x in (shrunk - half, shrunk + half))
    apart = Z * np.sqrt(noise[0] ** 2 + noise[1:] ** 2)
    return Believed(
        observed=float(seen[0]),
        value=_within(study, shrunk if study.spec.maximize else -shrunk),
        low=ends[0],
        high=ends[1],
        noise=float(noise[0]),
        tied=int((better[0] - better[1:] <= apart).sum()),
    )


def seed_noise(study: StudyRecord, value: float) -> float:
    """One standard deviation over seeds of a run that has such a value of the objective."""
    if not study.spec.maximize:
        return OF_LOG_LOSS * value
    wrong = max(1 - value, 0.5 / study.spec.val_size)  # no error seen is not none
    return sqrt(OF_BINOMIAL * wrong * (1 - wrong) / study.spec.val_size)


def _within(study: StudyRecord, value: float) -> float:
    """A value where it can lie."""
    return float(min(max(value, 0.0), 1.0) if study.spec.maximize else max(value, 0.0))


def sentences(found: Believed | None) -> list[str]:
    """What a person should know of the best value, beside it; nothing where nothing is believed."""
    if found is None:
        return []
    return [
        f"On a fresh seed expect {found.value:.4f} ({found.low:.4f} to {found.high:.4f}): whatever comes "
        "out best was lucky too.",
        f"Trials that cannot be told from it by one run each: {found.tied}. All ran on one init seed and one "
        "batch order.",
    ]
