"""A new study that begins with the trials of another: those that are points of its space."""

import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from optuna.distributions import distribution_to_json
from optuna.storages._rdb import models
from sqlalchemy import Connection, insert, select

from slopesearch.config import ResolvedSpec, StudySpec
from slopesearch.search.choices import PARAMS, TRIALS
from slopesearch.search.given import OTHERS, Given, choices_of, misfits, place
from slopesearch.search.ledger import ATTRIBUTES, FINITE, STEPS, VALUES, Placed, attribute_rows, now
from slopesearch.search.records import BEGUN, TAKEN, StudyRecord, TrialRecord
from slopesearch.search.space import within_bound
from slopesearch.wording import RequestError, counted, differences

if TYPE_CHECKING:
    from slopesearch.search.storages import Storage

STUDY_ATTRIBUTES = models.StudyUserAttributeModel.__table__
FREE = (
    "sampler",
    "pruner",
)  # what a study may have otherwise than the study it begins from, beside the space


@dataclass(frozen=True)
class Heritage:
    """The trials of a study that are points of another's space, and why the others are not, counted."""

    study: str
    trials: list[tuple[TrialRecord, Placed]]
    left_out: Counter[str]

    @property
    def sentence(self) -> str:
        """What was taken and what was not."""
        taken, reasons = len(self.trials), self.left_out.most_common()
        out = f"; left out: {', '.join(f'{n} {reason}' for reason, n in reasons)}" if reasons else ""
        there = counted(taken + self.left_out.total(), "trial")
        return f"begins with {taken} of the {there} of '{self.study}'{out}; --trials counts them"


def widened(old: StudyRecord, given: StudySpec) -> dict[str, Any]:
    """The fields of the study that begins from another, where some are given.

    Raises RequestError where one is given that would make other runs: data, network, budget, seeds.
    """
    fixed = given.model_copy(update={"space": old.spec.space})
    found = [line for line in differences(old.spec, fixed) if line.partition(":")[0] not in FREE]
    if found:
        raise RequestError(
            f"a study from '{old.name}' shares its data, network, budget and seeds:",
            *(f"  {line}" for line in found),
            "leave these out, or begin another study without --from",
        )
    asked, stored = given.model_dump(exclude_unset=True), old.spec.model_dump()
    asked = {name: value for name, value in asked.items() if name in (*FREE, "space")}
    return {**stored, **asked, "space": {**stored["space"], **asked.get("space", {})}}


def inheritance(old: StudyRecord, spec: ResolvedSpec) -> Heritage:
    """What a study of the spec takes from another, which is read whole.

    Raises RequestError where that is nothing.
    """
    left_out = Counter({"unreadable": len(old.unreadable)} if old.unreadable else {})
    trials = []
    for trial in old.trials:
        if trial.state not in ("COMPLETE", "PRUNED") or trial.config is None:
            left_out["failed" if trial.state == "FAIL" else "unfinished"] += 1
            continue
        others = {name: getattr(trial.config, name) for name in OTHERS}
        given = Given("", choices_of(trial.config), others)
        if found := misfits(spec, given):
            left_out[f"outside by {' and '.join(found)}"] += 1
        elif (placed := place(spec, given.choices)).config != within_bound(trial.config):
            left_out["trained otherwise"] += 1
        else:
            trials.append((trial, placed))
    heritage = Heritage(old.name, trials, left_out)
    if not trials:
        raise RequestError(
            f"nothing of '{old.name}' fits, so there is nothing to begin with: the study {heritage.sentence}"
        )
    return heritage


def has_begun_from(study: StudyRecord, old: StudyRecord) -> bool:
    """Whether a study began with the trials of another."""
    begun = study.attributes.get(BEGUN)
    return isinstance(begun, dict) and begun.get("study") == old.name


def take_over(storage: "Storage", study_id: int, heritage: Heritage) -> bool:
    """Store the trials in the new study, and what was left out, in one commit; unless that has been done."""
    begun = {"study": heritage.study, "taken": len(heritage.trials), "left_out": dict(heritage.left_out)}
    mark = {"study_id": study_id, "key": BEGUN, "value_json": json.dumps(begun)}
    of_study = STUDY_ATTRIBUTES.c.study_id == study_id
    is_marked = select(STUDY_ATTRIBUTES).where(of_study, STUDY_ATTRIBUTES.c.key == BEGUN)
    taken = False

    def write(connection: Connection) -> None:
        nonlocal taken
        if connection.execute(is_marked).first() is None:  # a try whose answer was lost may have done it
            _store_trials(connection, study_id, heritage)
            connection.execute(insert(STUDY_ATTRIBUTES), mark)
            taken = True

    storage.transact(write)
    return taken


def _store_trials(connection: Connection, study_id: int, heritage: Heritage) -> None:
    rows: dict[Any, list[dict[str, Any]]] = {PARAMS: [], STEPS: [], VALUES: [], ATTRIBUTES: []}
    for number, (trial, placed) in enumerate(heritage.trials):
        row = {"study_id": study_id, "number": number, "state": trial.state}
        times = {"datetime_start": now(), "datetime_complete": now()}
        key = connection.execute(insert(TRIALS), row | times).inserted_primary_key
        assert key is not None
        for table, some in _rows_of(key[0], trial, placed, heritage.study).items():
            rows[table] += some
    for table, some in rows.items():
        if some:
            connection.execute(insert(table), some)


def _rows_of(
    trial_id: int, trial: TrialRecord, placed: Placed, study: str
) -> dict[Any, list[dict[str, Any]]]:
    params = [
        {
            "trial_id": trial_id,
            "param_name": name,
            "param_value": distribution.to_internal_repr(placed.params[name]),
            "distribution_json": distribution_to_json(distribution),
        }
        for name, distribution in placed.distributions.items()
    ]
    steps = [
        {
            "trial_id": trial_id,
            "step": step,
            "intermediate_value": value,
            "intermediate_value_type": FINITE,
        }
        for step, value in trial.reports.items()
    ]
    values = []
    if trial.value is not None:
        values.append({"trial_id": trial_id, "objective": 0, "value": trial.value, "value_type": FINITE})
    attributes = {TAKEN: f"{study}, trial {trial.number}"} | trial.attributes | trial.bulk()
    return {PARAMS: params, STEPS: steps, VALUES: values, ATTRIBUTES: attribute_rows(trial_id, attributes)}
