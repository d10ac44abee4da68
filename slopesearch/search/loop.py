"""The one loop: ask, pack, launch, receive, tell."""

import signal
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import inf

from optuna.trial import TrialState

from slopesearch.config import Report, TrialResult
from slopesearch.search.events import Arrived, Event, Listener, Noted, Progressed, Started, Told
from slopesearch.search.faults import Faults
from slopesearch.search.launchers import Launcher
from slopesearch.search.ledger import Configure, Job, Ledger, Placed
from slopesearch.search.messages import Failed, Finished, Joined, Left, Message, Reported, Said
from slopesearch.search.pruner import Referee
from slopesearch.search.schedule import Schedule
from slopesearch.search.settings import Settings
from slopesearch.wording import StudyFailedError

POLL = 0.2  # s between looks at the clock and at Ctrl-C
BATCH = 8  # trials that a deterministic study asks for at a time; by trial number, so that it can be resumed


@dataclass
class Interrupts:
    """How often the user asked to stop."""

    count: int = 0


@contextmanager
def counting(interrupts: Interrupts, most: float = inf) -> Iterator[None]:
    """Count Ctrl-C and SIGTERM instead of dying of them; in the main thread, which alone gets signals.

    Raises KeyboardInterrupt at those beyond the first `most`.
    """

    def count(signum: int, frame: object) -> None:
        interrupts.count += 1
        if interrupts.count > most:
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, count) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass
class Loop:
    """One call of `optimize` on one study: its slots train, until the study holds `target` finished trials.

    A slot trains a pack of trials together, up to `faults.pack` of them. A CUDA device has the next pack
    waiting when it finishes one, since asking for it may take longer than training it; a CPU asks when it is
    idle, so that its sampler knows of every result.

    A deterministic study asks for its trials in batches by number, each batch when all before it are over,
    and prunes them against earlier batches alone. So the same trials come of any number of workers, with
    packs of one, and where a study is extended by whole batches.
    """

    ledger: Ledger
    configure: Configure
    launcher: Launcher
    settings: Settings
    target: int
    listen: Listener
    interrupts: Interrupts
    schedule: Schedule
    given: deque[Placed]  # to be asked for before the sampler is
    most: float = inf  # trials that the space has configs for
    referee: Referee = field(init=False)
    faults: Faults = field(init=False)
    finished: int = field(init=False)  # trials of the study: complete or pruned
    asked: int = field(init=False)  # trials of the study, in any state
    queue: list[Job] = field(init=False)  # to be packed, in this order
    running: dict[int, list[Job]] = field(default_factory=dict)  # packs, by slot
    _jobs: dict[int, Job] = field(init=False)  # the trials that are not over, by number
    _heard: dict[int, float] = field(default_factory=dict)  # when a slot was last given or said something
    _said: set[str] = field(default_factory=set)
    begun: int = 0  # trials that this call has given to a slot
    _deadline: float = field(init=False)

    def __post_init__(self) -> None:
        settings, study, spec = self.settings, self.ledger.study, self.ledger.spec
        batch = BATCH if settings.deterministic else None
        self.referee = Referee(study.pruner, spec, exempt=self.schedule.is_exempt, batch=batch)
        self.faults = Faults(len(self.launcher.devices), settings.pack_for(self.launcher.shares, self.target))
        states = [trial.state for trial in study.get_trials(deepcopy=False)]
        self.asked = len(states)
        self.finished = states.count(TrialState.COMPLETE) + states.count(TrialState.PRUNED)
        self.queue = self.ledger.interrupted(self.configure)
        self._jobs = {job.number: job for job in self.queue}
        self._deadline = float("inf") if settings.timeout is None else time.monotonic() + settings.timeout

    def run(self) -> None:
        """Until there are `target` finished trials, or nothing more may begin and nothing runs.

        The second interrupt leaves what runs. Raises StudyFailedError where the faults say so.
        """
        noticed = 0
        while self.interrupts.count < 2:
            if self.interrupts.count > noticed:
                noticed = self.interrupts.count
                self.listen(Noted("stopping: the running trials finish first; Ctrl-C again leaves them now"))
            self._launch()
            asked = self._wants_trial()
            if asked:
                self._ask()
            elif not self.running:
                return
            self._receive(self._messages(0 if asked else POLL))
            self._end_hung()  # everything that waited has been read, so a silent slot is silent

    # Ask

    def _may_begin(self) -> bool:
        return not self.interrupts.count and time.monotonic() <= self._deadline

    def _wants_trial(self) -> bool:
        """Whether to ask the sampler for one more trial."""
        if not self._may_begin() or self.finished + len(self._jobs) >= self.target or self.asked >= self.most:
            return False
        if self.settings.deterministic:
            return not self._jobs or (self.asked % BATCH != 0 and not self.running)
        slots = [
            slot
            for slot, device in enumerate(self.launcher.devices[: self.faults.slots])
            if slot not in self.faults.retired and (slot not in self.running or device.startswith("cuda"))
        ]
        return len(self.queue) < len(slots) * self.faults.pack

    def _ask(self) -> None:
        given = self.given.popleft() if self.given else None
        job = self.ledger.ask(self.configure, given)
        if given is not None:
            self.schedule.leave_out(job.number, job.config)
        self.asked += 1
        self.queue.append(job)
        self._jobs[job.number] = job

    # Pack and launch

    def _launch(self) -> None:
        """Give idle slots a pack each, as long as there are full packs, or nothing will come to fill them."""
        if not self._may_begin() or (self.settings.deterministic and self._wants_trial()):
            return
        for slot in range(self.faults.slots):
            if slot in self.running or slot in self.faults.retired:
                continue
            if self.faults.hold_back(len(self.running)):
                return
            pack = [self._jobs[number] for number in self.faults.take(slot)] or self._next_pack()
            if pack:
                self.running[slot] = pack
                self._heard[slot] = time.monotonic()
                self.begun += len(pack)
                self.launcher.start(slot, [job.config for job in pack])
                for job in pack:
                    self.listen(Started(slot, job.number, job.config))

    def _next_pack(self) -> list[Job]:
        if not self.queue:
            return []
        begun = len(self._jobs) - len(self.queue)
        most = max(0, min(self.faults.pack, self.target - self.finished - begun))
        key = self.queue[0].config.pack_key()
        pack = [job for job in self.queue if job.config.pack_key() == key][:most]
        if len(pack) < self.faults.pack and self._wants_trial():
            return []
        self.queue = [job for job in self.queue if job not in pack]
        return pack

    # Receive and tell

    def _messages(self, timeout: float) -> list[tuple[int, Message]]:
        """What the slots have to say now, waited for until `timeout` s where that is nothing.

        A slot says one such thing, and then waits to be answered or started; what else is said is taken too.
        """
        messages: list[tuple[int, Message]] = []
        steps = 0
        while steps < len(self.running):
            received = self.launcher.wait(0 if messages else timeout)
            if received is None:
                break
            messages.append(received)
            steps += isinstance(received[1], Reported | Finished | Failed)
        return messages

    def _receive(self, messages: Sequence[tuple[int, Message]]) -> None:
        """Take in what the slots said, store it in one commit, and only then answer and announce it."""
        reported: dict[int, dict[int, Report]] = {}
        news: list[Event] = []
        stops: list[str] = []
        for slot, message in messages:
            self._heard[slot] = time.monotonic()
            match message:
                case Reported():
                    self.faults.reported()
                    reported[slot] = message.reports
                    self._report(slot, message.reports)
                case Finished():
                    news += self._tell(slot, message.results)
                case Said():
                    if message.text not in self._said:  # every worker says it
                        self._said.add(message.text)
                        news.append(Noted(message.text))
                case Failed():
                    reported.pop(slot, None)
                    news += self._fail(slot, message, stops)
                case Left():
                    reported.pop(slot, None)
                    news += self._lose(slot, message, stops)
                case Joined():
                    news.append(self._join())
        answers = {slot: self._judge(slot, reports, news) for slot, reports in reported.items()}
        self.ledger.commit()
        for slot, stopped in answers.items():
            self.launcher.answer(slot, stopped)
        for event in news:
            self.listen(event)
        if stops:
            raise StudyFailedError(stops[0])

    def _report(self, slot: int, reports: dict[int, Report]) -> None:
        for i, report in reports.items():
            value = getattr(report, self.ledger.spec.objective)
            self.ledger.report(self.running[slot][i], value, report.step)

    def _judge(self, slot: int, reports: dict[int, Report], news: list[Event]) -> list[int]:
        """The members of a slot's pack that are stopped, when all that was reported has been taken in."""
        stopped = []
        for i, report in reports.items():
            job = self.running[slot][i]
            call, why = self.referee.call(self.ledger.study, self.ledger.trial(job), report)
            if call == "stop":
                stopped.append(i)
                job.stop = why
            elif why is not None:
                self.ledger.audit(job, why)
            news.append(Progressed(slot, job.number, report))
        return stopped

    def _tell(self, slot: int, results: Sequence[TrialResult]) -> list[Event]:
        self.faults.finished(slot)
        news: list[Event] = []
        for job, result in zip(self.running.pop(slot), results, strict=True):
            told = self.ledger.tell(job, result)
            del self._jobs[job.number]
            self.finished += 1
            news.append(Told(slot, job.number, told.state.name, told.value, job.config, result, job.stop))
        return news

    def _fail(self, slot: int, failure: Failed, stops: list[str]) -> list[Event]:
        found = self.faults.failed(slot, [job.number for job in self.running.pop(slot)], failure)
        news: list[Event] = []
        if found.given_up is not None:
            job = self._jobs.pop(found.given_up)
            self.ledger.fail(job, failure.reason)
            news.append(Told(slot, job.number, "FAIL", None, job.config, None))
        if found.stop is not None:
            stops.append(found.stop)
        return [*news, Noted(found.note)]

    def _lose(self, slot: int, left: Left, stops: list[str]) -> list[Event]:
        lost = self.faults.lost(slot, [job.number for job in self.running.pop(slot, [])], left.reason)
        if lost.stop is not None:
            stops.append(lost.stop)
        return [Noted(lost.note)]

    def _join(self) -> Event:
        """Make room for one more slot; packs get smaller where they would not suit it, and never larger."""
        device = self.launcher.devices[self.faults.slots]
        self.faults.slots += 1
        self.faults.pack = min(self.faults.pack, self.settings.pack_for(self.launcher.shares, self.target))
        return Arrived(device)

    def _end_hung(self) -> None:
        """End the workers that have been silent for too long; a Failed comes of it."""
        limit = self.settings.hang_timeout
        for slot in self.running:
            if time.monotonic() - self._heard[slot] > limit:
                self._heard[slot] = time.monotonic()
                self.launcher.end(slot, f"the worker was ended: no message for {limit:g} s")
