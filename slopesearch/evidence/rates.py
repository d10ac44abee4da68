"""The learning rates that were tried with one config, and which of them cannot be told apart."""

from math import log, sqrt
from statistics import fmean

from slopesearch.config import TrialConfig
from slopesearch.evidence.selection import OF_LOG_LOSS, Z
from slopesearch.search.records import StudyRecord

APART = Z * sqrt(2) * OF_LOG_LOSS  # of the logarithms of two losses that seeds alone may set so far apart


BySeed = dict[int, float]  # losses, by the init seed of their runs


def tuned_losses(config: TrialConfig, tuning: StudyRecord | None) -> dict[float, BySeed]:
    """The losses of each learning rate that was tried with a config, from the lowest rate up.

    The first is on the same seed for all; some rates ran on further seeds later. A run that diverged has the
    loss at which it ended.
    """
    found: dict[float, BySeed] = {}
    for trial in tuning.trials if tuning else []:
        if trial.config is None or trial.value is None or trial.state not in ("COMPLETE", "PRUNED"):
            continue
        same = {"lr", "init_seed", "order_seed", "val_size"}
        if trial.config.model_dump(exclude=same) == config.model_dump(exclude=same):
            found.setdefault(trial.config.lr, {})[trial.config.init_seed] = trial.value
    return dict(sorted(found.items()))


def behind(one: BySeed, other: BySeed) -> float:
    """The logarithm of the loss of one rate minus that of another.

    Where both ran on further seeds, by the mean of these: one may have been lucky on the first, which is why
    it ran on others. 0 where they have no seed in common.
    """
    common = [seed for seed in one if seed in other]
    return fmean([log(one[seed]) - log(other[seed]) for seed in common[1:] or common] or [0.0])


def level_rates(rate: float, losses: dict[float, BySeed]) -> list[float]:
    """The rates around one whose losses are within the luck of two single runs of its own loss."""
    rates = list(losses)
    near = [abs(behind(losses[other], losses[rate])) <= APART for other in rates]
    low = high = rates.index(rate)
    while low > 0 and near[low - 1]:
        low -= 1
    while high + 1 < len(rates) and near[high + 1]:
        high += 1
    return rates[low : high + 1]
