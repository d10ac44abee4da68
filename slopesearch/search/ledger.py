"""The Ledger: one study as the loop sees it, read from memory and written to the store commit by commit."""

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, distribution_to_json, json_to_distribution
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages._rdb import models
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial
from sqlalchemy import Connection, Executable, bindparam, delete, func, insert, select, update

from slopesearch.config import ResolvedSpec, TrialConfig, TrialResult
from slopesearch.search.choices import PARAMS, TRIALS, choice_rows
from slopesearch.search.records import (
    AUDITED,
    GIVEN,
    STOPPED,
    Stop,
    StudyRecord,
    TrialRecord,
    attributes_of,
)
from slopesearch.search.rows import (
    TrialRows,
    collector_at_rest,
    params_of,
    parsed,
    read_rows,
    record_of,
)
from slopesearch.search.storages import Storage, was_changed
from slopesearch.wording import RequestError, short

optuna.logging.set_verbosity(optuna.logging.WARNING)

STUDIES = models.StudyModel.__table__
ATTRIBUTES = models.TrialUserAttributeModel.__table__
SYSTEM = models.TrialSystemAttributeModel.__table__  # what a sampler notes for itself
STEPS = models.TrialIntermediateValueModel.__table__
VALUES = models.TrialValueModel.__table__
# Made once: to make a statement takes longer than to execute it.
COUNT = select(func.count()).where(TRIALS.c.study_id == bindparam("study"))
NEWEST = (
    select(TRIALS.c.trial_id)
    .join(STUDIES, TRIALS.c.study_id == STUDIES.c.study_id)
    .where(TRIALS.c.trial_id == bindparam("newest"), TRIALS.c.number == bindparam("its_number"))
    .where(STUDIES.c.study_id == bindparam("study"), STUDIES.c.study_name == bindparam("its_name"))
)
CHANGE_TRIAL = update(TRIALS).where(TRIALS.c.trial_id == bindparam("of"))
FORGET = delete(ATTRIBUTES).where(
    ATTRIBUTES.c.trial_id == bindparam("of"), ATTRIBUTES.c.key == bindparam("named")
)
_BEGUN = datetime.now()  # neither sampler nor pruner asks when a stored trial ran
FINITE = "FINITE"  # every number here is: infinite ones are refused as configs and reports come in

Configure = Callable[[Trial], TrialConfig]  # what a trial that is asked for shall run


@dataclass
class Job:
    """A trial to run.

    `reported` is the highest report step that the study holds of it, `audited` whether it notes that the
    pruner would have stopped it; `stop` is why the pruner has stopped it.
    """

    trial: Trial
    config: TrialConfig
    reported: int = 0
    audited: bool = False
    stop: Stop | None = None

    @property
    def number(self) -> int:
        """The number of the trial in its study."""
        return self.trial.number


@dataclass(frozen=True)
class Placed:
    """A point of a study's space: its config, and its parameters as the sampler would have drawn them."""

    config: TrialConfig
    params: dict[str, Any]
    distributions: dict[str, BaseDistribution]


class Over(FrozenTrial):
    """A trial that does not change any more: a study in memory holds it, and not a copy of all its parts."""

    def __init__(
        self,
        state: TrialState,
        value: float | None,
        params: dict[str, Any],
        distributions: dict[str, BaseDistribution],
        reports: dict[int, float],
        attributes: dict[str, Any],
    ) -> None:
        super().__init__(
            number=-1,
            state=state,
            value=value,
            datetime_start=_BEGUN,
            datetime_complete=_BEGUN,
            params=params,
            distributions=distributions,
            user_attrs=attributes,
            system_attrs={},
            intermediate_values=reports,
            trial_id=-1,
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> "Over":
        return self


class Ledger:
    """One study, which this process alone writes.

    Sampler and pruner read a study in memory. It knows everything, since there is no other writer. What
    changes is written to Optuna's own tables: one commit when a trial is asked for, with its config and its
    parameters, and one at each `commit`, with all that was reported and told before it. Killed between two
    commits, the storage is whole: it lacks a trial, or holds it with the config that it will run.

    Optuna's RDBStorage reads the running trials again for every draw and verdict, and commits every value by
    itself: 105 to 116 statements and 20 to 21 commits a trial, where this makes 18 to 21 and 5 to 7
    (scripts/benchmark_scale.py, 40 trials, most of them pruned, 2026-11-25).
    """

    def __init__(
        self, storage: Storage, study_id: int, spec: ResolvedSpec, sampler: BaseSampler, pruner: BasePruner
    ) -> None:
        self._storage, self._study_id, self.spec = storage, study_id, spec
        direction = StudyDirection.MAXIMIZE if spec.maximize else StudyDirection.MINIMIZE
        self.study = optuna.create_study(direction=direction, sampler=sampler, pruner=pruner)
        self._name = storage.get_study_name_from_id(study_id)
        self._ids: dict[int, int] = {}  # the storage's id of each trial that is not over, by number
        self._waiting: dict[int, FrozenTrial] = {}  # trials that another program has enqueued
        self._last: tuple[int, int] | None = None  # id and number of the newest trial
        self._writes: list[tuple[Executable, list[dict[str, Any]]]] = []

    def load(self, see: Callable[[TrialRecord], None] = lambda trial: None) -> StudyRecord:
        """Take over what is stored; the study as it was, with the state and the value of each trial.

        `see` is told of each trial, with its config. The study has the configs of complete trials alone: a
        config takes 4 kB. Raises RequestError where what is stored was edited.
        """
        records: list[TrialRecord] = []
        with self._storage.taking_over(self._study_id) as reader, collector_at_rest():
            for rows in read_rows(reader, self._study_id, "loop"):
                if rows.number != len(records):
                    raise RequestError(
                        f"the study '{self._name}' was changed: after its first {len(records)} trials comes "
                        f"number {short(rows.number)}; put a copy of the storage in its place, or choose "
                        "another study"
                    )
                try:
                    record = record_of(rows, self.spec, "loop")
                    trial = _in_memory(rows, record)
                    self.study.add_trial(trial)
                except ValueError as error:
                    raise RequestError(
                        f"trial {rows.number} was changed: {error}; put a copy of the storage in its place, "
                        "or choose another study"
                    ) from None
                see(record)
                self._last = rows.id, record.number
                if not trial.state.is_finished():
                    self._ids[record.number] = rows.id
                if trial.state == TrialState.WAITING:
                    self._waiting[record.number] = trial
                if record.state == "COMPLETE":
                    shown = {k: v for k, v in record.attributes.items() if k in ("val_loss", "seconds")}
                    records.append(replace(record, reports={}, attributes=shown))
                else:
                    records.append(replace(record, config=None, reports={}, attributes={}))
        return StudyRecord(self._name, self.spec, records)

    def interrupted(self, configure: Configure) -> list[Job]:
        """The trials that a process left running when it died; each runs again with the config it had."""
        jobs = []
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            attached, config = Trial(self.study, trial._trial_id), trial.user_attrs.get("config")
            if config is None:  # an earlier version stored each parameter as it was drawn, the config last
                stored = copy.deepcopy(trial)
                job = Job(attached, configure(attached))
                self._write_draw(job, stored)
            else:
                job = Job(attached, TrialConfig.model_validate_json(json.dumps(config)))
            job.reported = max(trial.intermediate_values, default=0)
            job.audited = AUDITED in trial.user_attrs
            jobs.append(job)
        self.commit()
        return jobs

    def trial(self, job: Job) -> FrozenTrial:
        """A trial as the study holds it now."""
        return self.study.get_trials(deepcopy=False)[job.number]

    def ask(self, configure: Configure, given: Placed | None = None) -> Job:
        """Draw the next trial, take what is given or another program has enqueued; store it in one commit.

        Raises StudyFailedError where another program has added trials to the study or deleted it.
        """
        if given is None:
            trial = self.study.ask()
            job, waiting = Job(trial, configure(trial)), self._waiting.pop(trial.number, None)
        else:
            job, waiting = Job(self._attach(given), given.config), None

        def begin(connection: Connection) -> None:
            self._begin(connection, job, waiting)
            if given is not None:
                self._note(job, {GIVEN: True})

        self._commit(begin)
        return job

    def _begin(self, connection: Connection, job: Job, waiting: FrozenTrial | None) -> None:
        begun = {"state": "RUNNING", "datetime_start": now()}
        if waiting is not None:
            self._change_trial(job, begun)
        else:
            row = {"study_id": self._study_id, "number": job.number, **begun}
            key = connection.execute(insert(TRIALS), row).inserted_primary_key
            assert key is not None
            self._ids[job.number] = key[0]
            self._last = key[0], job.number
            if connection.execute(COUNT, {"study": self._study_id}).scalar() != job.number + 1:
                raise was_changed(self._name)
        self._write_draw(job, waiting)

    def _attach(self, given: Placed) -> Trial:
        """A new trial in memory that runs with the given parameters."""
        running = create_trial(
            state=TrialState.RUNNING, params=given.params, distributions=given.distributions
        )
        self.study.add_trial(running)
        return Trial(self.study, self.study.get_trials(deepcopy=False)[-1]._trial_id)

    def report(self, job: Job, value: float, step: int) -> None:
        """Take down the objective at a report, unless the trial runs again and this one is there already."""
        if step <= job.reported:
            return
        job.reported = step
        job.trial.report(value, step)
        row = {"step": step, "intermediate_value": value, "intermediate_value_type": FINITE}
        self._write(insert(STEPS), [{"trial_id": self._ids[job.number], **row}])

    def audit(self, job: Job, stop: Stop) -> None:
        """Take down where, and why, the pruner would first have stopped a trial that goes on."""
        if not job.audited:
            job.audited = True
            job.trial.set_user_attr(AUDITED, stop.report)
            self._note(job, {AUDITED: stop.report, STOPPED: stop.model_dump()})

    def tell(self, job: Job, result: TrialResult) -> FrozenTrial:
        """Take down how a run ended, and why; a run that did not come to its end is told as PRUNED."""
        self._note(job, attributes_of(result))
        if job.stop is not None and result.ended == "pruned":
            self._note(job, {STOPPED: job.stop.model_dump()})
        if result.ended == "completed":
            return self._end(job, TrialState.COMPLETE, getattr(result.final, self.spec.objective))
        return self._end(job, TrialState.PRUNED, None)

    def fail(self, job: Job, reason: str) -> None:
        """Take down that a trial is given up, as FAIL; the last line of the reason says why it ended."""
        last_line = reason.strip().splitlines()[-1]
        self._note(job, {"ended": f"failed: {last_line}", "traceback": reason})
        self._end(job, TrialState.FAIL, None)

    def _note(self, job: Job, attributes: dict[str, Any]) -> None:
        """Attributes of a trial, over those of the same names."""
        trial_id = self._ids[job.number]
        rows = [{"of": trial_id, "named": name} for name in attributes]
        self._write(FORGET, rows)
        self._write(insert(ATTRIBUTES), attribute_rows(trial_id, attributes))

    def _end(self, job: Job, state: TrialState, value: float | None) -> FrozenTrial:
        told = self.study.tell(job.trial, value, state)  # a PRUNED trial takes the value of its last step
        trial_id = self._ids[job.number]
        if told.value is not None:
            row = {"trial_id": trial_id, "objective": 0, "value": told.value, "value_type": FINITE}
            self._write(insert(VALUES), [row])
        self._change_trial(job, {"state": state.name, "datetime_complete": now()})
        del self._ids[job.number]
        return told

    def _change_trial(self, job: Job, columns: dict[str, Any]) -> None:
        self._write(CHANGE_TRIAL, [{"of": self._ids[job.number], **columns}])

    def commit(self) -> None:
        """Store what was taken down since the last commit, all of it or nothing."""
        if self._writes:
            self._commit()

    def _commit(self, begin: Callable[[Connection], None] = lambda connection: None) -> None:
        """Store what a function writes or takes down, and what was taken down before it."""
        before = self._writes

        def write(connection: Connection) -> None:
            self._writes = list(before)  # a try that was lost has added to them
            begin(connection)
            self._flush(connection)

        self._storage.transact(write)
        self._writes = []

    def _flush(self, connection: Connection) -> None:
        for statement, rows in self._writes:
            connection.execute(statement, rows)
        # Ids are given again: behind a study that was deleted these may be another study's by now.
        if self._last is not None:
            study = {"study": self._study_id, "its_name": self._name}
            expected = {**study, "newest": self._last[0], "its_number": self._last[1]}
            if connection.execute(NEWEST, expected).first() is None:
                raise was_changed(self._name)

    def _write(self, statement: Executable, rows: list[dict[str, Any]]) -> None:
        if rows:
            self._writes.append((statement, rows))

    def _write_draw(self, job: Job, stored: FrozenTrial | None = None) -> None:
        """The parameters of a trial and its config, but for what is stored of it already."""
        drawn, trial_id = self.trial(job), self._ids[job.number]
        rows = []
        for name, distribution in drawn.distributions.items():
            if stored is None or name not in stored.params:
                value = distribution.to_internal_repr(drawn.params[name])
                row = {"param_value": value, "distribution_json": distribution_to_json(distribution)}
                rows.append({"trial_id": trial_id, "param_name": name, **row})
        if not drawn.distributions:  # a planned run
            rows = choice_rows(trial_id, job.config, self.spec.space)
        self._write(insert(PARAMS), rows)
        notes = drawn.system_attrs
        if stored is not None:
            notes = {name: value for name, value in notes.items() if name not in stored.system_attrs}
        self._write(insert(SYSTEM), attribute_rows(trial_id, notes))
        self._note(job, {"config": job.config.model_dump(mode="json"), "seed": self.spec.seed})


def attribute_rows(trial_id: int, values: dict[str, Any]) -> list[dict[str, Any]]:
    """Attributes of a trial as rows of a table."""
    return [
        {"trial_id": trial_id, "key": key, "value_json": json.dumps(value)} for key, value in values.items()
    ]


def now() -> datetime:
    """As Optuna stores times: UTC, naive."""
    return datetime.now(UTC).replace(tzinfo=None)


def _in_memory(rows: TrialRows, record: TrialRecord) -> FrozenTrial:
    """What sampler and pruner read of a stored trial; of its attributes, once it is over, AUDITED alone.

    Raises ValueError where its numbers are not those of such a trial.
    """
    state, params = TrialState[record.state], params_of(rows)
    distributions = {name: _distribution_of(text) for name, _, text in rows.params}
    if state.is_finished():
        audited = {key: held for key, held in record.attributes.items() if key == AUDITED}
        return Over(state, record.value, params, distributions, record.reports, audited)
    return create_trial(
        state=state,
        value=record.value,
        params=params,
        distributions=distributions,
        intermediate_values=record.reports,
        user_attrs=record.attributes,
        system_attrs={key: parsed(key, text) for key, text in rows.notes},
    )


_distribution_of = lru_cache(1000)(json_to_distribution)
