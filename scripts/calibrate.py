"""How often the statistics of `compare` err, on simulated runs: a table for docs, and what the tests check.

    python scripts/calibrate.py            2,000 simulations a line
    python scripts/calibrate.py 500        fewer

An arm's runs are noise around its mean, independent from arm to arm; a family is six arms against one
baseline. The smallest effect is 1, and the spread of an arm such that that of a difference is `sd`. At the
end one config is really trained, on the bundled digits and 40 seeds: its runs do not differ but by chance.
"""

import sys
from collections.abc import Callable
from math import sqrt
from pathlib import Path

import numpy as np
import torch
from statsmodels.stats.power import TTestPower

from slopesearch.config import TrialConfig
from slopesearch.evidence import statistics
from slopesearch.evidence.statistics import (
    ALPHA,
    POWER,
    Array,
    equivalence_p,
    estimate,
    flip_p,
    judge,
    level_of,
)
from slopesearch.training.data import load_for
from slopesearch.training.engine import train

SEEDS = (6, 10, 20, 30)
CONTRASTS = 6
SIGNIFICANT = ("BETTER", "WORSE", "NEGLIGIBLE")
LOOKS = (7, 10, 15, 22)  # seeds at each look at a comparison that is extended

Noise = Callable[[np.random.Generator, tuple[int, ...]], Array]
NOISES: dict[str, Noise] = {  # each of mean 0 and variance 1
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "skewed": lambda rng, shape: rng.exponential(size=shape) - 1,
    "heavy-tailed": lambda rng, shape: rng.standard_t(3, shape) / sqrt(3),
}


def family(rng: np.random.Generator, noise: Noise, seeds: int, sd: float = 1.0, effect: float = 0.0) -> Array:
    """Differences (seeds, CONTRASTS) of six arms from one baseline; the first arm alone has the effect."""
    runs = noise(rng, (seeds, CONTRASTS + 1)) * sd / sqrt(2)
    found = runs[:, 1:] - runs[:, :1]
    found[:, 0] += effect
    return found


def false_positives(noise: Noise, seeds: int, times: int) -> float:
    """The share of families without an effect in which a family-wise p is below ALPHA."""
    rng = np.random.default_rng(seeds)
    return float(np.mean([flip_p(family(rng, noise, seeds)).min() < ALPHA for _ in range(times)]))


def coverage(noise: Noise, seeds: int, times: int) -> float:
    """The share of 95 % intervals that hold the true difference, of exchangeable arms."""
    rng = np.random.default_rng(seeds)
    held = 0
    for _ in range(times):
        found = estimate(family(rng, noise, seeds)[:, 0].tolist())
        held += found.low <= 0 <= found.high
    return held / times


def wrong_equivalents(noise: Noise, seeds: int, times: int) -> float:
    """The share of contrasts, each a family of its own, called equivalent at a true difference of 1."""
    rng = np.random.default_rng(seeds)
    found = [family(rng, noise, seeds, effect=1.0)[:, :1] for _ in range(times)]
    return float(np.mean([equivalence_p(one, 1.0)[0] < ALPHA for one in found]))


def power(seeds: int, effect: float, times: int) -> tuple[float, float]:
    """How often an effect of so many sd is found in one normal contrast; and how often a t test finds it."""
    rng = np.random.default_rng(seeds)
    found = [flip_p(rng.normal(effect, 1, (seeds, 1)))[0] < ALPHA for _ in range(times)]
    return float(np.mean(found)), float(TTestPower().power(effect, seeds, ALPHA))


def settled(effect: float, sd: float, contrasts: int, times: int, pilot: int = 10) -> tuple[float, float]:
    """Of comparisons that a pilot leaves open, the share that the seeds told settle; the mean of these.

    Every contrast is normal and has the effect; the first is looked at. The pilot's seeds are among them.
    """
    rng = np.random.default_rng(contrasts)
    ended: list[bool] = []
    told: list[int] = []
    while len(ended) < times:
        runs = rng.normal(effect, sd, (pilot, contrasts))
        first = judge(runs, 1.0)[0]
        if first.further is None:
            continue
        told.append(first.further)
        more = rng.normal(effect, sd, (first.further, contrasts))
        ended.append(judge(np.vstack([runs, more]), 1.0, look=2)[0].verdict != "NOT SETTLED")
    return float(np.mean(ended)), float(np.mean(told))


def false_over_looks(noise: Noise, times: int) -> float:
    """The share of families without an effect in which one of the looks finds one."""
    rng = np.random.default_rng(len(LOOKS))
    wrong = 0
    for _ in range(times):
        runs = family(rng, noise, LOOKS[-1])
        wrong += any(flip_p(runs[:n]).min() < level_of(look) for look, n in enumerate(LOOKS, start=1))
    return wrong / times


CONFIG = {
    **{"dataset": "digits", "split_seed": 0, "train_size": 512, "val_size": 397, "batch_size": 64},
    **{"epochs": 2, "model": "mlp", "depth": 1, "width": 8, "order_seed": 0, "precision": "float32"},
    **{"warmup": 0.05, "activation": "relu", "norm": "none", "init": "kaiming_normal", "init_seed": 0},
    **{"lr": 1e-3, "weight_decay": 0.0},
    **dict.fromkeys(("negative_slope", "slope_mode", "slope_min", "slope_max", "slope_clamp")),
}


def real_losses(runs: int = 40) -> Array:
    """The log losses of CONFIG, each run with its own draws, trained as one pack."""
    configs = [TrialConfig.model_validate({**CONFIG, "init_seed": seed}) for seed in range(runs)]
    run = train(configs, load_for(configs[0], Path("unused")), torch.device("cpu"))
    while True:
        try:
            next(run)
        except StopIteration as end:
            return np.log([result.final.val_loss for result in end.value])


def significant_deals(losses: Array, deals: int, pairs: int = 10) -> float:
    """How often runs, dealt into pairs as if they were of two arms, are found different."""
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(deals):
        one, other = rng.permutation(losses)[: 2 * pairs].reshape(2, pairs)
        found += judge((one - other)[:, None], np.log(1.03))[0].verdict in SIGNIFICANT
    return found / deals


def main() -> None:
    """Print the table."""
    times = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    print(f"{times:,} simulations a number; its standard error near .05 is {sqrt(0.05 * 0.95 / times):.4f}\n")
    measures = {
        "false positives, six arms (at most .05)": false_positives,
        "95 % intervals that hold the truth (at least .94)": coverage,
        "equivalent at the boundary (at most .05)": wrong_equivalents,
    }
    for title, measure in measures.items():
        print(f"{title}\n  {'':<14}" + "".join(f"n = {n:<6}" for n in SEEDS))
        for name, noise in NOISES.items():
            print(f"  {name:<14}" + "".join(f"{measure(noise, n, times):<10.3f}" for n in SEEDS))
    print("\npower for one arm: sign flips, and TTestPower")
    for n in (10, 20):
        for effect in (0.5, 0.75, 1.0):
            ours, theirs = power(n, effect, times)
            print(f"  n = {n}, effect {effect} sd: {ours:.3f} {theirs:.3f}")
    statistics.DRAWN = 10_000  # each case has its own number of seeds, for which all flips are drawn anew
    print(f"\nsettled by the seeds told, after a pilot of 7 seeds (at least {POWER}; {times // 4} cases)")
    for contrasts in (1, CONTRASTS):
        for sd in (1.5, 2.5):
            for effect in (0.0, 2.0, 4.0):
                share, more = settled(effect, sd, contrasts, times // 4, pilot=7)
                print(f"  {contrasts} arms, sd {sd}, effect {effect}: {share:.3f}, {more:.0f} seeds more")
    print(f"\nfalse positives over looks at {', '.join(map(str, LOOKS))} seeds, six arms (at most .05)")
    for name, noise in NOISES.items():
        print(f"  {name:<14}{false_over_looks(noise, times):.3f}")
    share = significant_deals(real_losses(), 10_000)
    print(
        f"\none config on 40 seeds, dealt into 10 pairs 10,000 times: {share:.3f} significant (at most .05)"
    )


if __name__ == "__main__":
    main()
