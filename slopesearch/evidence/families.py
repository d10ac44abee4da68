"""The nouns of a comparison, which is declared before its runs: metrics, sides, families of contrasts."""

from math import log
from typing import Literal

from pydantic import Field

from slopesearch.config import Noun, ResolvedSpec, TrialConfig, values_of

Metric = Literal["val_loss", "val_error"]

ACTIVATION_SEEDS = 3  # times as many: differences between activations spread twice as much as other ones
STEPS = (-3, -2, -1, 0, 1, 2)  # doublings of the winner's learning rate: most arms want less than it
RUNOFF_SEEDS = 3  # on which an arm's own best rate meets the rate that is best for all arms together
SLOPES = (0.001, 0.1, 0.2, 1 / 3)  # of leaky ReLU, beside the usual one


class Side(Noun):
    """One side of a comparison: an arm whose learning rate is tuned over `rates`, unless there is but one.

    `config` holds everything else. `mean_of` names the side with a learnable slope whose learned mean this
    side has as its fixed slope, once that side has been tuned.
    """

    name: str
    config: TrialConfig
    rates: tuple[float, ...] = Field(min_length=1)
    mean_of: str | None = None


class Family(Noun):
    """One question: its sides, and which of them is compared with which, as (one, other); judged together.

    Stored before its first run. Smallest effects of interest: `smallest_loss` a ratio of losses,
    `smallest_error` in points of the error rate. `metric` is the one that the verdict goes by.
    """

    question: str
    asks: str
    sides: tuple[Side, ...]
    contrasts: tuple[tuple[str, str], ...]
    metric: Metric = "val_loss"
    smallest_loss: float = Field(1.03, gt=1, le=10)
    smallest_error: float = Field(0.1, gt=0, le=90)

    def side(self, name: str) -> Side:
        """The side of a name."""
        return next(side for side in self.sides if side.name == name)

    def smallest(self, metric: Metric) -> float:
        """The smallest effect of interest in the unit that is judged: log of the loss, or a share."""
        return log(self.smallest_loss) if metric == "val_loss" else self.smallest_error / 100


def changes(stored: Family, now: Family) -> list[str]:
    """What differs between two families of one question, a sentence each; nothing where they are the same."""
    found = []
    for name in ("metric", "smallest_loss", "smallest_error"):
        old, new = getattr(stored, name), getattr(now, name)
        if old != new:
            found.append(f"{name}: stored {old}, now {new}")
    names = [[side.name for side in family.sides] for family in (stored, now)]
    if names[0] != names[1]:
        found.append(f"arms: stored {', '.join(names[0])}; now {', '.join(names[1])}")
        return found
    if stored.contrasts != now.contrasts:
        found.append(f"baseline: stored {stored.contrasts[0][1]}, now {now.contrasts[0][1]}")
    differing = {
        (name, str(value), str(getattr(new.config, name)))
        for old, new in zip(stored.sides, now.sides, strict=True)
        for name, value in old.config
        if value != getattr(new.config, name)
    }
    found += [f"{name} of an arm: stored {old}, now {new}" for name, old, new in sorted(differing)]
    same = stored == now.model_copy(update={"asks": stored.asks})  # a question may be put in other words
    return found if found or same else ["the learning rates to try differ"]


def seeds_for(question: str, seeds: int) -> int:
    """How many seeds a question takes: those asked for where one factor changes, else more."""
    return seeds * ACTIVATION_SEEDS if question == "activation" else seeds


def arms_around(question: str, spec: ResolvedSpec) -> int:
    """How many arms a question around the winner of a search has; without the registries, which load torch.

    Of a space that was narrowed the arms that this version knows are counted: `compare` leaves none out.
    """
    space = spec.space
    match question:
        case "activation":
            return max(8, len(space.activation))
        case "slope":
            return 1 + len(SLOPES)
        case "learned":
            return 1 + 2 * sum(top > spec.slope_min for top in values_of(space.slope_max))
        case "norm":
            return 3
    return max(7, len(space.init))


def runs_to_answer(question: str, spec: ResolvedSpec, seeds: int) -> int:
    """About how many runs answer a question around a winner: to tune its arms, and those on the seeds.

    Half of the arms are counted as ones whose best rate is not the others', which takes a runoff of two.
    """
    return arms_around(question, spec) * (len(STEPS) + RUNOFF_SEEDS + seeds_for(question, seeds))
