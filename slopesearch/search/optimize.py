"""The one loop: ask, launch, report, prune, tell."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import optuna
from optuna.trial import Trial, TrialState

from slopesearch.config import (
    REPORTS,
    Report,
    RequestError,
    StudyFailedError,
    StudySpec,
    TrialConfig,
    TrialResult,
    unknown,
)
from slopesearch.search import storage as store
from slopesearch.search.database import (
    DEFAULT_URL,
    check_database,
    check_writable,
    database_path,
    only_writer,
)
from slopesearch.search.launchers import LAUNCHERS, Launcher
from slopesearch.search.records import StudyRecord
from slopesearch.search.space import check, resolve, sample
from slopesearch.search.strategy import PRUNERS, SAMPLERS, SeededSampler
from slopesearch.search.textbook import first_trials, textbook
from slopesearch.search.worker import Failed, Finished, Reported
from slopesearch.seeds import derive
from slopesearch.training.data import content_hash, find
from slopesearch.training.devices import best_precision, resolve_devices

POLL = 0.2  # s between looks at the clock and at Ctrl-C
MOST_WORKERS = 1024  # a typing error beyond
AUDIT = 20
FAULTS_IN_A_ROW = 3  # trials left as FAIL one after the other: a bug or a broken machine, not bad luck


@dataclass(frozen=True)
class Began:
    """The loop is about to start: what is to be done, on what."""

    study: StudyRecord  # as it was before
    devices: list[str]
    target: int


@dataclass(frozen=True)
class Started:
    """A slot began a trial."""

    slot: int
    number: int
    config: TrialConfig


@dataclass(frozen=True)
class Progressed:
    """A trial was validated."""

    slot: int
    number: int
    report: Report


@dataclass(frozen=True)
class Told:
    """A trial is over. `state` is COMPLETE, PRUNED or FAIL; `value` the objective, None after a fault."""

    slot: int
    number: int
    state: str
    value: float | None
    config: TrialConfig
    result: TrialResult | None


@dataclass(frozen=True)
class Noted:
    """Something that a person should know."""

    text: str


Event = Began | Started | Progressed | Told | Noted
Listener = Callable[[Event], None]


@dataclass(frozen=True)
class Outcome:
    """How a call of `optimize` ended: `finished` counts complete and pruned trials of the whole study."""

    name: str
    finished: int
    target: int
    interrupted: bool


@dataclass
class _Job:
    """A trial on a slot. `stored`: the highest step the study held before this run; `step`: its last."""

    trial: Trial
    config: TrialConfig
    stored: int
    step: int = 0


@dataclass
class _Interrupts:
    """How often the user asked to stop."""

    count: int = 0


@dataclass
class _Loop:
    """One call of `optimize` on one study.

    `backlog`: trials to run again before new ones are asked for, each with the highest step it has stored.
    """

    study: optuna.Study
    spec: StudySpec
    launcher: Launcher
    target: int
    listen: Listener
    interrupts: _Interrupts
    deadline: float
    finished: int = field(init=False)
    backlog: list[tuple[Trial, int]] = field(init=False)
    unpruned: int = field(init=False)  # the first trials run to their end: the summary compares with them
    jobs: dict[int, _Job] = field(default_factory=dict)
    retried: set[int] = field(default_factory=set)
    faults: int = 0

    def __post_init__(self) -> None:
        trials = self.study.get_trials(deepcopy=False)
        self.finished = sum(t.state in (TrialState.COMPLETE, TrialState.PRUNED) for t in trials)
        running = [t for t in trials if t.state == TrialState.RUNNING]
        self.backlog = [
            (Trial(self.study, t._trial_id), max(t.intermediate_values, default=0)) for t in running
        ]
        self.unpruned = len(textbook(self.spec))

    def run(self) -> None:
        said = 0
        while self.interrupts.count < 2:
            if self.interrupts.count > said:
                said = self.interrupts.count
                self.listen(Noted("stopping: the running trials finish first; Ctrl-C again leaves them now"))
            self._fill()
            if not self.jobs:
                return
            received = self.launcher.wait(POLL)
            if received is None:
                continue
            slot, message = received
            match message:
                case Reported():
                    self._reported(slot, message.reports)
                case Finished():
                    self._finished(slot, message.results[0])
                case Failed():
                    self._failed(slot, message.reason)

    def _fill(self) -> None:
        """Give every idle slot a trial, as long as the study wants more."""
        for slot in range(len(self.launcher.devices)):
            wanted = self.finished + len(self.jobs) < self.target
            if slot in self.jobs or not wanted or self.interrupts.count or time.monotonic() > self.deadline:
                continue
            trial, stored = self.backlog.pop(0) if self.backlog else (self.study.ask(), 0)
            config = sample(self.spec, trial)
            trial.set_user_attr("config", config.model_dump(mode="json"))
            trial.set_user_attr("seed", self.spec.seed)
            self.jobs[slot] = _Job(trial, config, stored)
            self.launcher.start(slot, [config])
            self.listen(Started(slot, trial.number, config))

    def _reported(self, slot: int, reports: dict[int, Report]) -> None:
        job = self.jobs[slot]
        (report,) = reports.values()
        prune = self._judge(job, report)
        self.launcher.answer(slot, [0] if prune else [])
        self.listen(Progressed(slot, job.trial.number, report))

    def _judge(self, job: _Job, report: Report) -> bool:
        """Store a report and ask the pruner.

        A trial that runs again repeats reports that are stored; below the highest of them the pruner is not
        asked, since it would judge that one instead.
        """
        job.step = report.step
        if report.step > job.stored:
            job.trial.report(getattr(report, self.spec.objective), report.step)
        if report.step == REPORTS or report.step < job.stored or report.diverged:
            return False
        number = job.trial.number
        if number < self.unpruned or not job.trial.should_prune():
            return False
        # One in twenty that the pruner would stop runs on, so that the report can say how often it is wrong.
        if derive(self.spec.seed, "audit", number) % AUDIT == 0:
            if "would_prune_at" not in job.trial.user_attrs:
                job.trial.set_user_attr("would_prune_at", report.step)
            return False
        return True

    def _finished(self, slot: int, result: TrialResult) -> None:
        job = self.jobs.pop(slot)
        store.set_result(job.trial, result)
        if result.ended == "completed":
            told = self.study.tell(job.trial, getattr(result.final, self.spec.objective))
        else:
            told = self.study.tell(job.trial, state=TrialState.PRUNED)
        self.finished += 1
        self.faults = 0
        self.listen(Told(slot, job.trial.number, told.state.name, told.value, job.config, result))

    def _failed(self, slot: int, reason: str) -> None:
        job = self.jobs.pop(slot)
        number = job.trial.number
        last_line = reason.strip().splitlines()[-1]
        if number not in self.retried:
            self.retried.add(number)
            self.backlog.insert(0, (job.trial, max(job.stored, job.step)))
            self.listen(Noted(f"{reason}\ntrial {number} failed ({last_line}); it runs again"))
            return
        job.trial.set_user_attr("ended", f"failed: {last_line}")
        job.trial.set_user_attr("traceback", reason)
        self.study.tell(job.trial, state=TrialState.FAIL)
        self.listen(Told(slot, number, "FAIL", None, job.config, None))
        self.listen(Noted(f"trial {number} failed twice ({last_line}); it is left as FAIL"))
        self.faults += 1
        if self.faults == FAULTS_IN_A_ROW:
            raise StudyFailedError(
                f"{reason}\n{FAULTS_IN_A_ROW} trials in a row failed twice, so this is a bug or a broken "
                "machine; what was finished is stored, and the same command goes on from there"
            )


@contextmanager
def _interrupts() -> Iterator[_Interrupts]:
    """Count Ctrl-C and SIGTERM instead of dying of them; in the main thread, which alone gets signals."""
    interrupts = _Interrupts()

    def count(signum: int, frame: object) -> None:
        interrupts.count += 1

    if threading.current_thread() is not threading.main_thread():
        yield interrupts
        return
    before = {number: signal.signal(number, count) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupts
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _choose(
    spec: StudySpec,
    name: str | None,
    path: Path,
    folder: Path,
    devices: list[str],
    note: Callable[[str], None],
) -> tuple[str, StudySpec]:
    """The study's name and its full spec: the stored one where the study exists, else with the defaults."""
    stored = _stored(path, name) if name else None
    if stored is None or name is None:
        # Before anything is downloaded: what does not fit together will not do so afterwards.
        resolve(spec.model_copy(update={"dataset": "mnist"}) if spec.dataset == "auto" else spec, "float32")
        spec = spec.model_copy(update={"dataset": find(spec.dataset, folder, note)})
        name = name or f"{spec.dataset}-{spec.model}"
        stored = _stored(path, name)
    if stored is None:
        return name, resolve(spec, best_precision(devices))
    check(stored.model_dump())  # another version may have known other names
    store.refuse_mixing(name, stored, spec)
    find(stored.dataset, folder, note)
    return name, stored


def _stored(path: Path, name: str) -> StudySpec | None:
    if not path.exists():
        return None
    with store.database(path) as storage:
        return store.stored_spec(storage, name)


def optimize(
    spec: StudySpec,
    *,
    trials: int,
    folder: Path,
    url: str = DEFAULT_URL,
    name: str | None = None,
    devices: str = "auto",
    workers: int | None = None,
    launcher: str = "process",
    timeout: float | None = None,
    listen: Listener = lambda event: None,
) -> Outcome:
    """Run a study, or go on with it, until it holds `trials` finished ones; begin none after `timeout` s.

    `folder` is the data folder. The first Ctrl-C or SIGTERM lets the running trials finish; the second
    leaves them, and the next call runs them again. Raises RequestError, before anything is written, where
    the request is wrong; StudyFailedError where trial after trial fails.
    """
    started = time.monotonic()
    if trials < 1:
        raise RequestError(f"trials: at least 1, given {trials}")
    if workers is not None and not 1 <= workers <= MOST_WORKERS:
        raise RequestError(f"workers: from 1 to {MOST_WORKERS}, given {workers}")
    if name is not None and not name.strip():
        raise RequestError("name: a study needs one that is not empty; leave it out for DATASET-MODEL")
    if launcher not in LAUNCHERS:
        raise RequestError(unknown("launcher", launcher, list(LAUNCHERS)))
    spec = check(spec.model_dump(exclude_unset=True))
    slots = resolve_devices(devices, workers)
    path = database_path(url)
    check_database(path)
    check_writable(path)
    name, spec = _choose(spec, name, path, folder, slots, lambda text: listen(Noted(text)))
    data_hash = content_hash(spec.dataset, folder)

    path.parent.mkdir(exist_ok=True)  # the default folder; any other has been found there
    with (
        only_writer(path, name),
        store.database(path) as storage,
        _interrupts() as interrupts,
    ):
        sampler = SeededSampler(SAMPLERS[spec.sampler], spec.seed, first_trials(spec))
        study = store.create_or_resume(storage, name, spec, data_hash, sampler, PRUNERS[spec.pruner]())
        before = StudyRecord(name, spec, store.read_trials(study))
        finished = before.count("COMPLETE") + before.count("PRUNED")
        slots = slots[: max(0, trials - finished)]
        if not slots:
            listen(Began(before, [], trials))
            return Outcome(name, finished, trials, interrupted=False)
        running = LAUNCHERS[launcher](slots, folder)
        deadline = started + timeout if timeout is not None else float("inf")
        try:
            loop = _Loop(study, spec, running, trials, listen, interrupts, deadline)
            listen(Began(before, running.devices, trials))
            loop.run()
        finally:
            running.close()
        interrupted = interrupts.count > 0 and loop.finished < trials
        return Outcome(name, loop.finished, trials, interrupted)
