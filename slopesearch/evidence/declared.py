"""A study file with arms as a family: every mistake of it at once."""

import re
from collections.abc import Callable, Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any, get_args

from optuna.trial import FixedTrial

from slopesearch.config import Range, ResolvedSpace, ResolvedSpec, Space
from slopesearch.evidence.families import STEPS, Family, Metric, Side
from slopesearch.nets.activations import ACTIVATIONS
from slopesearch.search.records import COMPARE
from slopesearch.search.settings import Settings
from slopesearch.search.space import check, resolve, sample
from slopesearch.search.store import Store
from slopesearch.training.data import candidates, find
from slopesearch.wording import RequestError, read_toml, short, unknown

OWN = ("arms", "baseline", "metric", "smallest_effect", "cross")  # keys that a study to optimize has not
SMALLEST: dict[str, str] = {"val_loss": "smallest_loss", "val_error": "smallest_error"}
FIXED = ("activation", "slope_mode", "negative_slope", "slope_max", "norm", "init")

Table = dict[str, Any]


def declared(
    path: Path, name: str | None, settings: Settings, store: Store, note: Callable[[str], None]
) -> tuple[str, ResolvedSpec, list[Family]]:
    """The name of the comparison that a file declares, its spec and its one family; finds its images.

    The name is FILE-DATASET unless there is one. Raises RequestError with every mistake of the file.
    """
    data = read_toml(path)
    own = {key: data.pop(key, None) for key in OWN}
    found = [
        f"{key}: a comparison has none; leave it out"
        for key in ("objective", "sampler", "pruner")
        if key in data
    ]
    try:
        spec = check(data)
    except RequestError as error:
        found += error.sentences
    space = data.get("space")
    arms = list(_arms(own, space if isinstance(space, Mapping) else {}))
    found += _mistakes(own) + list(dict.fromkeys(line for arm in arms for line in _arm_mistakes(*arm)))
    if not found:
        found += _clashes(own, arms, resolve(spec, "float32"))
    if found:
        raise RequestError(f"'{path}' is no comparison that can be made:", *(f"  {line}" for line in found))
    called = (name or f"{path.stem}-{one}" for one in candidates(spec.dataset, settings.folder))
    there = next((stored for one in called if (stored := store.spec_of(one + COMPARE))), None)
    # "auto" is what it was: a download that failed is not tried again.
    asked = there.dataset if there and spec.dataset == "auto" else spec.dataset
    dataset = find(asked, settings.folder, note)
    name = name or f"{path.stem}-{dataset}"
    precision = spec.precision or (there.precision if there else settings.best_precision(None))
    full = resolve(spec.model_copy(update={"dataset": dataset, "precision": precision}), precision)
    return name, full, [_family(own, arms, full, _question(path))]


def _question(path: Path) -> str:
    """The question that a study file opens with, if it does."""
    opening = re.match(r"#\s*(.+?\?)", path.read_text(encoding="utf-8"))
    return opening[1] if opening else "which arm?"


def _mistakes(own: Table) -> list[str]:
    """What is wrong with the keys of a comparison, but for the fields of its arms."""
    arms, metric, smallest, crossed = own["arms"], own["metric"], own["smallest_effect"], own["cross"]
    if not isinstance(arms, dict) or not all(isinstance(arm, dict) for arm in arms.values()):
        return ["arms: two tables at least, [arms.NAME], each with the fields of the space that make the arm"]
    found = []
    if len(arms) < 2:
        found.append(f"arms: two at least, given {', '.join(map(short, arms)) or 'none'}")
    if own["baseline"] is None:
        found.append(f"baseline: is missing; the name of an arm: {', '.join(arms)}")
    elif own["baseline"] not in arms:
        found.append(unknown("baseline", str(own["baseline"]), arms))
    if metric is not None and metric not in get_args(Metric):
        found.append(unknown("metric", str(metric), list(get_args(Metric))))
    elif smallest is not None:
        limits, unit = (
            ((1, 10), "a ratio of losses") if metric != "val_error" else ((0, 90), "points of the error")
        )
        if type(smallest) not in (int, float) or not limits[0] < smallest <= limits[1]:
            found.append(
                f"smallest_effect: {unit}, above {limits[0]} and at most {limits[1]}, given {short(smallest)}"
            )
    if crossed is not None and not isinstance(crossed, dict):
        found.append(f"cross: a table of fields and their values, given {short(crossed)}")
    for field, values in (crossed if isinstance(crossed, dict) else {}).items():
        if field not in FIXED:
            found.append(unknown("key", f"cross.{field}", list(FIXED)))
            continue
        if not isinstance(values, list) or len(values) < 2:
            found.append(f"cross.{field}: a list of two values at least, given {short(values)}")
        found += [
            f"arms.{name}.{field}: is crossed already; leave it out" for name in arms if field in arms[name]
        ]
    return found


def _arms(own: Table, space: Mapping[str, Any]) -> Iterator[tuple[str, tuple[str, ...], Table]]:
    """Every arm at every level of the crossed factors: its name, its levels, and all of its fields."""
    arms = own["arms"] if isinstance(own["arms"], dict) else {}
    crossed = own["cross"] if isinstance(own["cross"], dict) else {}
    crossed = {field: values for field, values in crossed.items() if field in FIXED}
    levels = [values if isinstance(values, list) else [values] for values in crossed.values()]
    for chosen in product(*levels):
        for name, arm in arms.items():
            if isinstance(arm, dict):
                fields = {**space, **arm, **dict(zip(crossed, chosen, strict=True))}
                yield str(name), tuple(map(str, chosen)), fields


def _arm_mistakes(name: str, levels: tuple[str, ...], fields: Table) -> list[str]:
    """What is wrong with the fields of an arm: names, types, and that each has one value, but for lr."""
    try:
        space = check({"space": fields}).space
    except RequestError as error:
        return [_placed(line, name) for line in error.sentences]
    found = []
    for field in _needed(space):
        value = getattr(space, field)
        if field not in fields and field != "slope_mode":
            found.append(f"arms.{name}.{field}: is missing; give it there or in [space]")
        elif field in fields and (isinstance(value, Range) or len(value) > 1):
            found.append(f"arms.{name}.{field}: one value, given {short(fields[field])}; lr alone is tuned")
    if not isinstance(space.lr, Range) and len(space.lr) > 1:
        found.append(f"arms.{name}.lr: a value, or a range to tune it in, given {short(fields['lr'])}")
    return found


def _placed(sentence: str, name: str) -> str:
    """The sentence on a field of a space as one on a field of an arm."""
    if sentence.startswith("unknown "):
        sentence = sentence.replace("'space.", "'", 1)
        return f"arms.{name}: {sentence}"
    return f"arms.{name}.{sentence.removeprefix('space.')}"


def _needed(space: Space) -> list[str]:
    """The fields that an arm has to fix."""
    needed = ["activation", "norm", "init"]
    activations = space.activation or ()
    if any(ACTIVATIONS[name].has_slope for name in activations):
        needed += ["slope_mode", "negative_slope"]
        if space.slope_mode == ("learnable",):
            needed.append("slope_max")
    return needed


def _clashes(own: Table, arms: list[tuple[str, tuple[str, ...], Table]], spec: ResolvedSpec) -> list[str]:
    """A sentence for each arm that is the baseline under another name, or learns within no range."""
    sides = {
        (name, levels): _side(name, fields, spec).model_copy(update={"name": ""})
        for name, levels, fields in arms
    }
    found = [
        f"arms.{name}.slope_max: must lie above slope_min, which is {spec.slope_min}, given {top}"
        for (name, _), side in sides.items()
        if (top := side.config.slope_max) is not None and top <= spec.slope_min
    ]
    return list(
        dict.fromkeys(found)
        | dict.fromkeys(
            f"arms.{name}: equals the baseline '{own['baseline']}'; change a field or leave it out"
            for (name, levels), side in sides.items()
            if name != own["baseline"] and side == sides[own["baseline"], levels]
        )
    )


def _family(
    own: Table, arms: list[tuple[str, tuple[str, ...], Table]], spec: ResolvedSpec, asks: str
) -> Family:
    def named(name: str, levels: tuple[str, ...]) -> str:
        return ", ".join([*levels, name])

    metric: Metric = own["metric"] or "val_loss"
    smallest = {} if own["smallest_effect"] is None else {SMALLEST[metric]: float(own["smallest_effect"])}
    baseline = own["baseline"]
    return Family(
        question="arms",
        asks=asks,
        sides=tuple(_side(named(name, levels), fields, spec) for name, levels, fields in arms),
        contrasts=tuple(
            (named(name, levels), named(baseline, levels)) for name, levels, _ in arms if name != baseline
        ),
        metric=metric,
        **smallest,
    )


def _side(name: str, fields: Table, spec: ResolvedSpec) -> Side:
    space = check({"space": {"slope_mode": "fixed", **fields}}).space
    rates = _rates(space.lr)
    chosen = {**dict(space), "lr": rates[:1]}
    fixed = spec.model_copy(update={"space": ResolvedSpace.model_validate(chosen)})
    return Side(name=name, config=sample(fixed, FixedTrial({})), rates=rates)


def _rates(axis: Range | tuple[float, ...]) -> tuple[float, ...]:
    """The one rate, or as many as around a winner, evenly spaced in their logarithm over the range."""
    if not isinstance(axis, Range):
        return axis
    last = len(STEPS) - 1
    return tuple(axis.low * (axis.high / axis.low) ** (i / last) for i in range(last + 1))
