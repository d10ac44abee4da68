"""The one loop: ask, pack, launch, report, prune, tell."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import optuna
from optuna.trial import Trial, TrialState

from slopesearch.config import REPORTS, Report, StudySpec, TrialConfig, TrialResult
from slopesearch.search import store
from slopesearch.search.events import Listener, Noted, Progressed, Started, Told
from slopesearch.search.launchers import Launcher
from slopesearch.search.messages import Failed, Finished, Message, Reported
from slopesearch.search.sampler import snapshot
from slopesearch.search.textbook import textbook
from slopesearch.seeds import derive
from slopesearch.wording import StudyFailedError

POLL = 0.2  # s between looks at the clock and at Ctrl-C
HANG_TIMEOUT = 1800.0  # s; the default study reports every second, a day's run every three hours
FAULTS_IN_A_ROW = 3  # with nothing finished in between: a bug or a broken machine, not bad luck
AUDIT = 20  # one in so many that the pruner would stop runs on, so that one can say how often it is wrong
BATCH = 8  # trials that a deterministic study asks for at a time; by trial number, so that it can be resumed


@dataclass
class Interrupts:
    """How often the user asked to stop."""

    count: int = 0


@dataclass
class _Job:
    """A trial to run. `stored`: the highest step the study held before this run; `step`: its last."""

    trial: Trial
    config: TrialConfig
    stored: int
    step: int = 0


@dataclass
class Loop:
    """One call of `optimize` on one study.

    A slot trains a pack of up to `pack` trials together. A CUDA device has the next pack waiting when it
    finishes one, since asking for it may take longer than training it; a CPU asks when it is idle, so
    that its sampler knows of every result.

    `deterministic`: trials are asked for in batches by number, each batch when all before it are over, and
    pruned against earlier batches alone. So the same trials come of any number of workers, with packs of
    one, and where a study is extended by whole batches.
    """

    study: optuna.Study
    spec: StudySpec
    configure: Callable[[Trial], TrialConfig]  # what a trial that was asked for, or found again, shall run
    launcher: Launcher
    target: int
    listen: Listener
    interrupts: Interrupts
    deadline: float = float("inf")
    hang_timeout: float = HANG_TIMEOUT  # s without a message after which a worker is ended
    pack: int = 1
    deterministic: bool = False
    finished: int = field(init=False)
    asked: int = field(init=False)  # trials that the study holds, in any state
    unpruned: int = field(init=False)  # the first trials run to their end: the summary compares with them
    queue: list[_Job] = field(init=False)  # to be packed, in this order
    again: list[list[_Job]] = field(default_factory=list)  # packs to be run as they are, before the queue
    packs: dict[int, list[_Job]] = field(default_factory=dict)  # by slot
    heard: dict[int, float] = field(default_factory=dict)  # when a slot was last given or said something
    retried: set[int] = field(default_factory=set)
    faults: int = 0

    def __post_init__(self) -> None:
        trials = self.study.get_trials(deepcopy=False)
        self.asked = len(trials)
        self.finished = sum(t.state in (TrialState.COMPLETE, TrialState.PRUNED) for t in trials)
        self.unpruned = len(textbook(self.spec))
        self.queue = [
            self._job(Trial(self.study, t._trial_id), max(t.intermediate_values, default=0))
            for t in trials
            if t.state == TrialState.RUNNING
        ]

    def run(self) -> None:
        """Until the study holds `target` finished trials, the deadline has passed, or the user stops it."""
        said = 0
        while self.interrupts.count < 2:
            if self.interrupts.count > said:
                said = self.interrupts.count
                self.listen(Noted("stopping: the running trials finish first; Ctrl-C again leaves them now"))
            self._launch()
            asked = self._wants_trial()
            if asked:  # one at a time, so that no worker waits long for its answer
                self.queue.append(self._job(self.study.ask(), 0))
                self.asked += 1
            elif not self.packs:
                return
            received = self.launcher.wait(0 if asked else POLL) if self.packs else None
            if received is not None:
                self._receive(*received)
            else:  # nothing waits to be read, so who was silent is silent
                self._end_hung()

    def _end_hung(self) -> None:
        """End the workers that have been silent for too long; a Failed comes of it."""
        for slot in self.packs:
            if time.monotonic() - self.heard[slot] > self.hang_timeout:
                self.heard[slot] = time.monotonic()
                self.launcher.end(slot, f"the worker was ended: no message for {self.hang_timeout:g} s")

    def _job(self, trial: Trial, stored: int) -> _Job:
        config = self.configure(trial)
        trial.set_user_attr("config", config.model_dump(mode="json"))
        trial.set_user_attr("seed", self.spec.seed)
        return _Job(trial, config, stored)

    def _begins(self) -> bool:
        """Whether anything new may be begun."""
        return not self.interrupts.count and time.monotonic() <= self.deadline

    def _pending(self) -> int:
        return sum(map(len, [self.queue, *self.again, *self.packs.values()]))

    def _wants_trial(self) -> bool:
        """Whether to ask the sampler for one more."""
        if not self._begins() or self.finished + self._pending() >= self.target:
            return False
        if self.deterministic:
            return self._pending() == 0 or (self.asked % BATCH != 0 and not self.packs)
        slots = [
            slot
            for slot, device in enumerate(self.launcher.devices)
            if slot not in self.packs or device.startswith("cuda")
        ]
        return len(self.queue) < len(slots) * self.pack

    def _launch(self) -> None:
        """Give idle slots a pack each, as long as there are full ones, or nothing will come to fill them."""
        if not self._begins() or (self.deterministic and self._wants_trial()):
            return
        for slot in range(len(self.launcher.devices)):
            if slot in self.packs:
                continue
            pack = self.again.pop(0) if self.again else self._next_pack()
            if not pack:
                return
            self.packs[slot] = pack
            self.heard[slot] = time.monotonic()
            self.launcher.start(slot, [job.config for job in pack])
            for job in pack:
                self.listen(Started(slot, job.trial.number, job.config))

    def _next_pack(self) -> list[_Job]:
        wanted = self.target - self.finished - sum(map(len, self.packs.values()))
        key = self.queue[0].config.pack_key() if self.queue else None
        pack = [job for job in self.queue if job.config.pack_key() == key][: max(0, min(self.pack, wanted))]
        if len(pack) < self.pack and self._wants_trial():
            return []
        self.queue = [job for job in self.queue if job not in pack]
        return pack

    def _receive(self, slot: int, message: Message) -> None:
        match message:
            case Reported():
                self._reported(slot, message.reports)
            case Finished():
                for job, result in zip(self.packs.pop(slot), message.results, strict=True):
                    self._tell(slot, job, result)
            case Failed():
                self._failed(slot, message.reason, message.out_of_memory)

    def _reported(self, slot: int, reports: dict[int, Report]) -> None:
        """Store the reports of a pack and stop the members that the pruner gives up.

        A trial that runs again repeats reports that are stored.
        """
        jobs = {i: self.packs[slot][i] for i in reports}
        for i, job in jobs.items():
            job.step = reports[i].step
            if job.step > job.stored:
                job.trial.report(getattr(reports[i], self.spec.objective), job.step)
        study = snapshot(self.study)
        self.heard[slot] = time.monotonic()
        self.launcher.answer(slot, [i for i, job in jobs.items() if self._prunes(study, job, reports[i])])
        for i, job in jobs.items():
            self.listen(Progressed(slot, job.trial.number, reports[i]))

    def _prunes(self, study: optuna.Study, job: _Job, report: Report) -> bool:
        """Ask the pruner, with the study as it is now.

        Not below the highest step that is stored, since it would judge that one instead.
        """
        if report.step == REPORTS or report.step < job.stored or report.diverged:
            return False
        number = job.trial.number
        frozen = study._storage.get_trial(job.trial._trial_id)
        if self.deterministic:
            study = snapshot(study, before=number - number % BATCH)
        if number < self.unpruned or not self.study.pruner.prune(study, frozen):
            return False
        if derive(self.spec.seed, "audit", number) % AUDIT == 0:
            if "would_prune_at" not in frozen.user_attrs:
                job.trial.set_user_attr("would_prune_at", report.step)
            return False
        return True

    def _tell(self, slot: int, job: _Job, result: TrialResult) -> None:
        store.set_result(job.trial, result)
        if result.ended == "completed":
            told = self.study.tell(job.trial, getattr(result.final, self.spec.objective))
        else:
            told = self.study.tell(job.trial, state=TrialState.PRUNED)
        self.finished += 1
        self.faults = 0
        self.listen(Told(slot, job.trial.number, told.state.name, told.value, job.config, result))

    def _failed(self, slot: int, reason: str, out_of_memory: bool) -> None:
        """Halve a pack that failed, until its fault is alone; a trial alone runs again once, then is FAIL.

        What did not fit into memory will not later: the packs that follow are no larger than its halves.
        """
        pack = self.packs.pop(slot)
        last_line = reason.strip().splitlines()[-1]
        for job in pack:
            job.stored = max(job.stored, job.step)
        if len(pack) > 1:
            half = len(pack) // 2
            self.again += [pack[:half], pack[half:]]
            self.listen(Noted(f"{reason}\na pack of {len(pack)} failed ({last_line}); its halves run again"))
            if out_of_memory:
                self.pack = min(self.pack, half)
            elif not self.packs:  # else a half that is sound may still be at work
                self._count_fault(reason)
            return
        (job,) = pack
        number = job.trial.number
        if number not in self.retried:
            self.retried.add(number)
            self.again.insert(0, pack)
            self.listen(Noted(f"{reason}\ntrial {number} failed ({last_line}); it runs again"))
            return
        job.trial.set_user_attr("ended", f"failed: {last_line}")
        job.trial.set_user_attr("traceback", reason)
        self.study.tell(job.trial, state=TrialState.FAIL)
        self.listen(Told(slot, number, "FAIL", None, job.config, None))
        self.listen(Noted(f"trial {number} failed twice ({last_line}); it is left as FAIL"))
        self._count_fault(reason)

    def _count_fault(self, reason: str) -> None:
        self.faults += 1
        if self.faults == FAULTS_IN_A_ROW:
            raise StudyFailedError(
                f"{reason}\n{FAULTS_IN_A_ROW} faults in a row with nothing finished in between: a bug or a "
                "broken machine; what was finished is stored, and the same command goes on from there"
            )
