"""Configs that a person gives to a study: fitted into its space, kept with it, and run once each."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from optuna.trial import FixedTrial

from slopesearch.config import Range, ResolvedSpec, Space, TrialConfig
from slopesearch.nets.activations import ACTIVATIONS
from slopesearch.search.ledger import Placed
from slopesearch.search.records import TAKEN, TrialRecord
from slopesearch.search.schedule import Schedule
from slopesearch.search.space import sample, within_bound
from slopesearch.wording import RequestError, describe, plain, short, unknown

if TYPE_CHECKING:
    from optuna.storages import RDBStorage

KEPT = "given"  # the attribute of a study that holds the choices of each config, in the order of their coming

# What a config says of its run beside its choices; its seeds and its budget are those of the study.
OTHERS = (
    *("dataset", "model", "depth", "width", "batch_size", "warmup", "weight_decay"),
    "output_gain",
    *("slope_min", "slope_clamp"),
)


@dataclass(frozen=True)
class Given:
    """A config by hand: what sentences call it, its choices by field of the space, what else it fixes."""

    source: str
    choices: Mapping[str, Any]
    others: Mapping[str, Any] = field(default_factory=dict)


def choices_of(config: TrialConfig) -> dict[str, Any]:
    """The fields of the space that a config has."""
    return {name: value for name in Space.model_fields if (value := getattr(config, name)) is not None}


def misfits(spec: ResolvedSpec, given: Given) -> dict[str, str]:
    """By field, a sentence for each that keeps a config out of a study."""
    found = {
        name: f"{name}: the study has {getattr(spec, name)}, given {value}"
        for name, value in given.others.items()
        if value is not None and value != getattr(spec, name)
    }
    fields = Space.model_fields
    found |= {name: unknown("key", name, list(fields)) for name in given.choices if name not in fields}
    wanted = _wanted(spec, given.choices)
    for name in fields:
        axis, value = getattr(spec.space, name), given.choices.get(name)
        if name not in wanted and value is not None:
            found[name] = f"{name}: there is none for such a config, given {short(value)}"
        elif name in wanted and value is None and (isinstance(axis, Range) or len(axis) > 1):
            found[name] = f"{name}: is missing; the space holds {plain(axis)}"
        elif name in wanted and value is not None and not _holds(axis, value):
            found[name] = f"{name}: the space holds {plain(axis)}, given {short(value)}"
    return found


def _wanted(spec: ResolvedSpec, choices: Mapping[str, Any]) -> set[str]:
    """The fields that a config with these choices has; a field that the space fixes may be left out."""

    def chosen(name: str) -> Any:
        return choices.get(name, getattr(spec.space, name)[0])

    activation = chosen("activation")
    wanted = {"activation", "norm", "init", "lr"}
    if isinstance(activation, str) and activation in ACTIVATIONS and ACTIVATIONS[activation].has_slope:
        wanted |= {"slope_mode", "negative_slope"}
        if chosen("slope_mode") == "learnable":
            wanted.add("slope_max")
    return wanted


def _holds(axis: Range | Sequence[Any], value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):  # True is 1 to Python
        return False
    if isinstance(axis, Range):
        return not isinstance(value, str) and axis.low <= value <= axis.high
    return value in axis


def place(spec: ResolvedSpec, choices: Mapping[str, Any]) -> Placed:
    """The point of the space with these choices, which fit into it."""
    numbers = {name: float(value) if isinstance(value, int) else value for name, value in choices.items()}
    trial = FixedTrial(numbers)
    return Placed(sample(spec, trial), trial.params, trial.distributions)


def refuse_misfits(name: str, spec: ResolvedSpec, given: Sequence[Given]) -> None:
    """Raise RequestError, field by field, where one of the configs does not fit into the study."""
    found = {one.source: misfits(spec, one) for one in given}
    if any(found.values()):
        raise RequestError(
            f"what is given does not fit into the study '{name}':",
            *(f"  {source}: {sentence}" for source, all_of in found.items() for sentence in all_of.values()),
        )


class Backlog:
    """The given configs of a study that no trial has run yet, in order.

    They are stored with the study before anything runs, so that a study that is killed goes on with them.
    `see` is to be told of every trial that the study holds. A config whose trial failed runs again where it
    is among those that are given `now`.
    """

    def __init__(
        self,
        spec: ResolvedSpec,
        stored: Sequence[Mapping[str, Any]],
        schedule: Schedule,
        now: Sequence[Given] = (),
    ) -> None:
        placed = [place(spec, choices) for choices in stored]
        self._left = {one.config: one for one in placed}
        self._now = {place(spec, one.choices).config for one in now}
        self._ran: dict[TrialConfig, int] = {}
        self._schedule = schedule
        self._unfinished = self._owed = 0  # trials that run again; those of them that were given

    def see(self, trial: TrialRecord) -> None:
        """Take note of a stored trial."""
        if TAKEN in trial.attributes:
            self._schedule.take_over(trial)
        elif trial.is_given:
            self._schedule.leave_out(trial.number, trial.config)
        config = trial.config and within_bound(trial.config)
        if config in self._left and not (trial.state == "FAIL" and config in self._now):
            del self._left[config]
            self._ran[config] = trial.number
        self._unfinished += trial.state == "RUNNING"
        self._owed += trial.state == "RUNNING" and trial.is_given

    def explain(self, spec: ResolvedSpec, given: Sequence[Given]) -> list[str]:
        """A sentence on what becomes of each config that is given now."""
        told = []
        for one in given:
            config = place(spec, one.choices).config
            ran = self._ran.get(config)
            fate = "runs next" if ran is None else f"is trial {ran} already, and does not run twice"
            told.append(f"{one.source} {fate}: {describe(config)}")
        return told

    def rest(self) -> deque[Placed]:
        """What is left to run."""
        return deque(self._left.values())

    def target(self, trials: int, finished: int) -> int:
        """How many trials the study shall hold where so many are asked for: what is given always runs."""
        if not self._left and not self._owed:
            return trials
        return max(trials, finished + self._unfinished + len(self._left))


def kept(storage: "RDBStorage", study_id: int, spec: ResolvedSpec) -> list[dict[str, Any]]:
    """The choices of each config that was ever given to the study, as they are stored with it.

    Raises RequestError where they were edited.
    """
    stored = storage.get_study_user_attrs(study_id).get(KEPT, [])
    sound = isinstance(stored, list) and all(isinstance(one, dict) for one in stored)
    if not sound or any(misfits(spec, Given("", one)) for one in stored):
        raise RequestError(
            f"the configs that were given to the study cannot be read: {short(stored)}; put a copy of the "
            "storage in its place, or choose another study"
        )
    return list(stored)


def joined(stored: Sequence[dict[str, Any]], given: Sequence[Given]) -> list[dict[str, Any]]:
    """The stored choices, and those that are new."""
    found = list(stored)
    for one in given:
        if dict(one.choices) not in found:
            found.append(dict(one.choices))
    return found
