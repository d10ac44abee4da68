"""The first trials of a study, in which every choice of its space has a run; and the size of a space."""

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from math import exp, inf, log, prod, sqrt
from typing import Any

from slopesearch.config import Range, ResolvedSpace, ResolvedSpec
from slopesearch.nets.activations import ACTIVATIONS
from slopesearch.search.textbook import MOST, N_STARTUP, Params, textbook
from slopesearch.seeds import derive

LEAST = 3  # runs of every choice
# Steps of the evenly spread sequences, irrational each and to each other, or two numbers would lie on a line.
STEPS = {"negative_slope": sqrt(2) - 1, "slope_max": sqrt(3) - 1, "lr": (sqrt(5) - 1) / 2}


def first_trials(spec: ResolvedSpec) -> list[Params]:
    """What is fixed of the first trials; those of a cover are whole, and no pruner stops them."""
    recipes = list(textbook(spec).values())
    return recipes + (_walk(spec, len(recipes)) if spec.plan == "walk" else _cover(spec, recipes))


def unstopped(spec: ResolvedSpec) -> int:
    """How many of the first trials run to their end whatever the pruner says."""
    return len(textbook(spec)) if spec.plan == "walk" else len(first_trials(spec))


def _walk(spec: ResolvedSpec, recipes: int) -> list[Params]:
    """As version 0.1.0: activations and placements of BatchNorm side by side, the rest drawn at random."""
    activations, norms = spec.space.activation, spec.space.norm
    return [
        {"activation": activations[i % len(activations)], "norm": norms[i % len(norms)]}
        for i in range(max(N_STARTUP - recipes, len(activations), len(norms)))
    ]


def _cover(spec: ResolvedSpec, recipes: Sequence[Params]) -> list[Params]:
    """Runs that give each choice LEAST of them, and the study N_STARTUP, those of the recipes counted in.

    The rarest branch comes next, and in it the rarest placement of BatchNorm and init. A branch is an
    activation, or of one with a slope the fixed one, and the learnable one with each `slope_max`. Numbers are
    spread evenly over their ranges within a branch, each by a sequence of an irrational step from a random
    start (Weyl 1916; the discrepancy of that of the golden ratio is of order log n / n).
    """
    draw = random.Random(derive(spec.seed, "cover"))
    branches = draw.sample(found := list(_branches(spec.space)), len(found))
    starts = [{name: draw.random() for name in STEPS} for _ in branches]
    norms, inits = (draw.sample(axis, len(axis)) for axis in (spec.space.norm, spec.space.init))
    there, runs = list(recipes), Counter[Any]()
    for recipe in recipes:
        _count(runs, recipe, branches)
    while len(there) < MOST:
        by_need = sorted(range(len(branches)), key=runs.__getitem__)  # of equal ones the shuffle's first
        if len(there) >= N_STARTUP and min(runs[k] for k in (*by_need, *norms, *inits)) >= LEAST:
            break
        rows = (
            row
            for k in by_need
            for row in _rows(spec.space, branches[k], k, starts[k], norms, inits, runs)
            if row not in there
        )
        if (row := next(rows, None)) is None:  # a space of few configs, all of which are planned
            break
        there.append(row)
        _count(runs, row, branches)
    return there[len(recipes) :]


def _branches(space: ResolvedSpace) -> Iterator[Params]:
    """What each branch fixes."""
    for activation in space.activation:
        if not ACTIVATIONS[activation].has_slope:
            yield {"activation": activation}
            continue
        for mode in space.slope_mode:
            if mode == "learnable" and not isinstance(space.slope_max, Range):
                for slope_max in space.slope_max:
                    yield {"activation": activation, "slope_mode": mode, "slope_max": slope_max}
            else:
                yield {"activation": activation, "slope_mode": mode}


def _count(runs: Counter[Any], row: Params, branches: Sequence[Params]) -> None:
    """Count a run for its branch, by the branch's place, for its norm, its init, and its norm there."""
    (k,) = (k for k, branch in enumerate(branches) if branch.items() <= row.items())
    runs.update([k, row["norm"], row["init"], (k, row["norm"])])


def _rows(
    space: ResolvedSpace,
    branch: Params,
    k: int,
    starts: Mapping[str, float],
    norms: Sequence[str],
    inits: Sequence[str],
    runs: Counter[Any],
) -> Iterator[Params]:
    """Configs of branch `k`, the one to run next first; all of them where the space has no range."""
    evenly = {name: (starts[name] + runs[k] * step) % 1 for name, step in STEPS.items()}
    numbers = [*(name for name in _sloped(branch) if name not in branch), "lr"]
    axes: dict[str, list[Any]] = {
        "norm": sorted(norms, key=lambda norm: (runs[k, norm], runs[norm])),
        "init": sorted(inits, key=runs.__getitem__),
        **{name: _values(getattr(space, name), evenly[name]) for name in numbers},
    }
    for values in product(*axes.values()):
        yield branch | dict(zip(axes, values, strict=True))


def _values(axis: Range | tuple[float, ...], u: float) -> list[float]:
    """The value at a share `u` of a range; or every choice, that at the share first."""
    if not isinstance(axis, Range):
        first = int(u * len(axis))
        return [*axis[first:], *axis[:first]]
    if axis.log:
        return [exp(log(axis.low) + u * (log(axis.high) - log(axis.low)))]
    return [axis.low + u * (axis.high - axis.low)]


def size(space: ResolvedSpace, chosen: Mapping[str, Any]) -> float:
    """How many configs of a space hold these choices, the activation's first; infinite with an open range."""

    def ways(*names: str) -> float:
        axes = [getattr(space, name) for name in names if name not in chosen]
        return prod(inf if isinstance(axis, Range) else len(axis) for axis in axes)

    return sum(
        ways("norm", "init", "lr", *(name for name in _sloped(branch) if name not in branch))
        for branch in _branches(space)
        if all(branch.get(name, value) == value for name, value in chosen.items())
    )


def _sloped(branch: Params) -> tuple[str, ...]:
    """The slope's numbers that a branch has."""
    mode = branch.get("slope_mode")
    return () if mode is None else ("negative_slope", "slope_max")[: 1 + (mode == "learnable")]
