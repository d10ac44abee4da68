"""What does it cost a search to ask for many trials at a time? Regret on an objective with a known best.

    python scripts/benchmark_regret.py --packs 1 4 8 16 --seeds 100       3 min on 2 fast cores
    python scripts/benchmark_regret.py --packs 1 --most 250 500 1000 100000 --trials 2000 --seeds 10

A pack of K is asked for while the pack before it trains, as on a GPU, so the sampler does not know the last
2K - 1 trials. `--most`: how many trials of a long study a draw looks at. The objective stands in for an
accuracy: it has no noise, a best learning rate and slope for each activation, and a cost for every other
choice. Regret is the best possible value minus the best found.
"""

import argparse
import statistics
from math import log10

import joblib
import optuna
from rich.console import Console
from rich.table import Table

from slopesearch.config import TrialConfig
from slopesearch.nets.activations import ACTIVATIONS
from slopesearch.nets.initializers import INITS
from slopesearch.search import sampler as samplers
from slopesearch.search.cover import first_trials
from slopesearch.search.sampler import SAMPLERS, SeededSampler
from slopesearch.search.space import check, resolve, sample

NORM_COST = {"before": 0.0, "after": 0.01, "none": 0.03}
OPTIMUM = 1.0


def objective(config: TrialConfig) -> float:
    """The value of a config; 1 is the best: leaky_relu, fixed slope 0.1, norm before, last init, lr 0.003."""
    best_lr = -2.5 - 0.1 * list(ACTIVATIONS).index(config.activation)
    if config.activation == "leaky_relu":
        best_lr = log10(3e-3)
        cost = 0.02 * (log10(config.negative_slope or 1e-3) + 1) ** 2
        cost += 0.005 * (config.slope_mode == "learnable")
    else:
        cost = 0.005 + 0.005 * list(ACTIVATIONS).index(config.activation)
    cost += 0.05 * (log10(config.lr) - best_lr) ** 2 + NORM_COST[config.norm]
    cost += 0.003 * (len(INITS) - 1 - list(INITS).index(config.init))
    return OPTIMUM - cost


def regret(seed: int, pack: int, most: int, trials: int) -> float:
    """The regret of one study after `trials` trials; packs of one are asked for when the last is told."""
    samplers.MOST = most
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    spec = resolve(check({"dataset": "mnist"}), "float32")
    sampler = SeededSampler(SAMPLERS["tpe"], seed, first_trials(spec))
    study = optuna.create_study(direction="maximize", sampler=sampler)
    asked = 0

    def ask() -> list[tuple[optuna.Trial, float]]:
        nonlocal asked
        count = min(pack, trials - asked)
        asked += count
        drawn = (study.ask() for _ in range(count))
        return [(trial, objective(sample(spec, trial))) for trial in drawn]

    running = ask()
    while running:
        ahead = ask() if pack > 1 else []
        for trial, value in running:
            study.tell(trial, value)
        running = ahead or ask()
    return OPTIMUM - study.best_value


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--packs", type=int, nargs="+", default=[1, 4, 8, 16])
    parser.add_argument("--most", type=int, nargs="+", default=[samplers.MOST])
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--trials", type=int, default=200)
    arguments = parser.parse_args()
    kinds = [(pack, most) for pack in arguments.packs for most in arguments.most]
    jobs = [(seed, *kind) for seed in range(arguments.seeds) for kind in kinds]
    found = joblib.Parallel(n_jobs=-1)(joblib.delayed(regret)(*job, arguments.trials) for job in jobs)
    table = Table("pack", "looks at", "mean regret", "standard error", "times the first", box=None)
    means = []
    for kind in kinds:
        values = [value for (_, *of), value in zip(jobs, found, strict=True) if tuple(of) == kind]
        means.append(statistics.mean(values))
        error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan")
        ratio = means[-1] / means[0]
        table.add_row(*map(str, kind), f"{means[-1]:.6f}", f"{error:.6f}", f"{ratio:.2f}")
    console = Console()
    console.print(f"{arguments.trials} trials, {arguments.seeds} seeds, TPE")
    console.print(table)


if __name__ == "__main__":
    main()
