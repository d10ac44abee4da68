"""What the displays count and say of a study that runs: of a search, and of runs that were planned."""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from slopesearch.config import Report, TrialConfig
from slopesearch.search.events import Began, Told
from slopesearch.wording import counted, describe

if TYPE_CHECKING:  # it loads torch
    from slopesearch.evidence.planned import Plan

TOLD = 5  # runs before a rate is believed
_FINISHED = ("COMPLETE", "PRUNED")


class _Counts:
    """How many runs of the target are finished, and how fast they come; kept up to date by events."""

    things = "trials"

    def __init__(self) -> None:
        self.target = self.finished = self.failed = 0
        self._first = 0.0  # s, when the first run of this call was told
        self._told = 0

    def _take_time(self) -> None:
        if not self._told:
            self._first = time.monotonic()
        self._told += 1

    def rate(self) -> float | None:
        """Finished runs a minute, of this call alone, from the first on; None of fewer than TOLD.

        Before the first of them workers start, and with several that end together a few say nothing.
        """
        if self._told < TOLD:
            return None
        return 60 * (self._told - 1) / max(time.monotonic() - self._first, 1e-9)

    def time_left(self) -> str:
        """How long the rest takes at that rate, as 1:02:03 or 2:03."""
        rate = self.rate()
        if rate is None:
            return "-:--"
        seconds = round((self.target - self.finished) / rate * 60)
        minutes, seconds = divmod(max(seconds, 0), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"

    def facts(self) -> list[str]:
        """What is shown below the bar, as parts of one line."""
        rate = self.rate()
        told = f"{'-' if rate is None else f'{rate:.1f}'} {self.things}/min"
        return [f"{self.failed} failed", told, f"{self.time_left()} left"]


class SearchCounts(_Counts):
    """Of a search: its counts, its best trial, and what its pruner stopped last."""

    def __init__(self) -> None:
        super().__init__()
        self.pruned = 0
        self.best: tuple[float, int, TrialConfig] | None = None  # value, number, config
        self._rank: tuple[float, float, int] | None = None  # of the best, lowest first
        self._stopped = ""
        self._sign = -1

    def begin(self, event: Began) -> str:
        """Take in what is there; the sentence that the display opens with."""
        self.target = event.target
        study, spec = event.study, event.study.spec
        self._sign = -1 if spec.maximize else 1
        for trial in study.trials:
            self._count(trial.number, trial.state, trial.value, trial.val_loss, trial.config)
        finished = study.count("COMPLETE") + study.count("PRUNED")
        resumed = f", {finished} of them finished already" if study.trials else ""
        return (
            f"{study.name}: to {counted(event.target, 'trial')}{resumed}; {spec.dataset}, {spec.model}, "
            f"{counted(spec.epochs, 'epoch')} of {spec.train_size:,} images; {spec.precision}; "
            f"workers: {_kinds(event.devices)}; stored in {event.storage}"
        )

    def tell(self, event: Told) -> None:
        """Take in a trial that is over."""
        if event.state != "FAIL":
            self._take_time()
        if event.stop is not None:
            self._stopped = f"stopped last: #{event.number} {event.stop.words}"
        loss = event.result.final.val_loss if event.result else 0.0
        self._count(event.number, event.state, event.value, loss, event.config)

    def _count(
        self, number: int, state: str, value: float | None, loss: float, config: TrialConfig | None
    ) -> None:
        self.finished += state in _FINISHED
        self.pruned += state == "PRUNED"
        self.failed += state == "FAIL"
        if state != "COMPLETE" or value is None or config is None:
            return
        rank = self._sign * value, loss, number  # as StudyRecord ranks
        if self._rank is None or rank < self._rank:
            self._rank, self.best = rank, (value, number, config)

    def line(self, event: Told) -> str:
        """The line of a log on a trial that was taken in."""
        best = f", best {self.best[0]:.4f}" if self.best else ""
        value = "   -  " if event.value is None else f"{event.value:.4f}"
        ended = event.result.ended if event.result else "failed"
        return (
            f"[{self.finished}/{self.target}{best}] trial {event.number} {ended} "
            f"{value}  {describe(event.config)}{f'  {event.stop.words}' if event.stop else ''}"
        )

    def heading(self) -> str:
        """The line above the bar: none, since the bar says it."""
        return ""

    def beside(self) -> str:
        """What stands beside the bar."""
        return f"{self.finished}/{self.target}"

    def facts(self) -> list[str]:
        """What is shown below the bar, as parts of one line."""
        return [f"{self.pruned} pruned", *super().facts()]

    def lines(self) -> list[str]:
        """The lines below that."""
        if self.best is None:
            return ["best: none yet", *filter(None, [self._stopped])]
        value, number, config = self.best
        return [f"best {value:.4f}, #{number}: {describe(config)}", *filter(None, [self._stopped])]

    def running(self, trials: Mapping[int, TrialConfig], report: Report | None) -> str:
        """What a worker runs, by number, and how the report that came last did."""
        first, last = min(trials), max(trials)
        # On a part of the images, so it is not to be compared with the best's.
        accuracy = f" ~{report.val_accuracy:.3f}" if report else ""
        if first == last:
            return f"#{first}{accuracy} {describe(trials[first])}"
        return f"{len(trials)} together, #{first} to #{last}{accuracy}"


class PlanCounts(_Counts):
    """Of runs that were planned: each is called by its arm and seed, and none of them is a best."""

    things = "runs"

    def __init__(self, plan: "Plan") -> None:
        super().__init__()
        self._plan = plan
        self.target, self.finished = len(plan.runs), plan.done

    def begin(self, event: Began) -> str:
        """The sentence that the display opens with; what is there was counted with the plan."""
        return f"{event.study.name}; workers: {_kinds(event.devices)}; stored in {event.storage}"

    def tell(self, event: Told) -> None:
        """Take in a run that is over; one that an earlier plan left behind is not of this count."""
        finished = event.state in _FINISHED and event.config in self._plan.runs
        if finished:
            self._take_time()
        self.finished += finished
        self.failed += event.state == "FAIL"

    def line(self, event: Told) -> str:
        """The line of a log on a run that was taken in; no value, since one seed says little."""
        ended = event.result.ended if event.result else "failed"
        return f"{self.heading()}; {ended}: {self.running({event.number: event.config}, None)}"

    def heading(self) -> str:
        """The line above the bar."""
        return f"{self._plan.title}: {self.finished} of {self.target} runs ({self._plan.shape})"

    def beside(self) -> str:
        """What stands beside the bar: nothing, since the heading says it."""
        return ""

    def lines(self) -> list[str]:
        """The lines below the facts: none."""
        return []

    def running(self, trials: Mapping[int, TrialConfig], report: Report | None) -> str:
        """What a worker runs, by arm and seed."""
        called = [self._called(config) for config in trials.values()]
        if len(called) == 1:
            (config,) = trials.values()
            return f"{', '.join(called[0])}: {describe(config)}"
        arms, places = (", ".join(dict.fromkeys(words)) for words in zip(*called, strict=True))
        return f"{len(called)} together, {places}: {arms}"

    def _called(self, config: TrialConfig) -> tuple[str, str]:
        return self._plan.runs.get(config, ("left from an earlier call", "not counted"))


def starting(event: Began) -> str:
    """What a display says until something comes of it; nothing where nothing starts.

    When the first result comes is known where runs that went to their end are stored.
    """
    if not event.devices:
        return ""
    words = f"starting {counted(len(event.devices), 'worker')}"
    seconds = event.study.seconds()
    if seconds is None or seconds < 1:
        return words
    return f"{words}; the first result comes about {seconds:.0f} s after that"


def _kinds(devices: list[str]) -> str:
    return ", ".join(f"{devices.count(name)} on {name}" for name in dict.fromkeys(devices)) or "none needed"
