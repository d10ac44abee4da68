"""What a person sees while a study or a long run goes on: redrawn on a terminal, else line by line."""

import time
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table
from rich.text import Text

from slopesearch.cli.tables import say
from slopesearch.config import REPORTS, TrialConfig
from slopesearch.search.events import Arrived, Began, Event, Noted, Progressed, Started, Told
from slopesearch.training.engine import total_steps
from slopesearch.training.fit import Epoch
from slopesearch.wording import counted, describe


class _Tally:
    """The counts and the best trial of a study, kept up to date by its events."""

    def __init__(self) -> None:
        self.counts = {"COMPLETE": 0, "PRUNED": 0, "FAIL": 0}
        self.target = 0
        self.best: tuple[float, int, TrialConfig] | None = None
        self.stopped = ""  # the trial that the pruner stopped last, and why
        self._maximize = True
        self._started = time.monotonic()
        self._told = 0

    @property
    def finished(self) -> int:
        return self.counts["COMPLETE"] + self.counts["PRUNED"]

    def begin(self, event: Began) -> None:
        self.target = event.target
        self._maximize = event.study.spec.maximize
        for trial in event.study.trials:
            if trial.state in self.counts:
                self._count(trial.number, trial.state, trial.value, trial.config)

    def tell(self, event: Told) -> None:
        self._told += event.state != "FAIL"
        if event.stop is not None:
            self.stopped = f"stopped last: #{event.number} {event.stop.words}"
        self._count(event.number, event.state, event.value, event.config)

    def _count(self, number: int, state: str, value: float | None, config: TrialConfig | None) -> None:
        self.counts[state] += 1
        if state != "COMPLETE" or value is None or config is None:
            return
        if self.best is None or (value > self.best[0] if self._maximize else value < self.best[0]):
            self.best = value, number, config

    def rate(self) -> float:
        """Finished trials a minute, of this call alone."""
        return 60 * self._told / max(time.monotonic() - self._started, 1e-9)

    def time_left(self) -> str:
        if not self._told:
            return "-:--"
        seconds = round((self.target - self.finished) / self.rate() * 60)
        minutes, seconds = divmod(max(seconds, 0), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def _opening(event: Began) -> str:
    spec, devices = event.study.spec, event.devices
    kinds = ", ".join(f"{devices.count(name)} on {name}" for name in dict.fromkeys(devices)) or "none needed"
    resumed = f", {len(event.study.trials)} there already" if event.study.trials else ""
    return (
        f"{event.study.name}: to {counted(event.target, 'trial')}{resumed}; {spec.dataset}, {spec.model}, "
        f"{counted(spec.epochs, 'epoch')} of {spec.train_size:,} images; {spec.precision}; workers: {kinds}; "
        f"stored in {event.storage}"
    )


def _arrival(event: Arrived) -> str:
    return f"a worker has joined: {event.device}"


class Lines:
    """One line per finished trial, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._tally = _Tally()

    def __enter__(self) -> "Lines":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to clean up."""

    def __call__(self, event: Event) -> None:
        """Print a line where the study begins, a note is made, or a trial is over."""
        match event:
            case Began():
                self._tally.begin(event)
                say(self._console, _opening(event))
            case Noted():
                say(self._console, event.text)
            case Arrived():
                say(self._console, _arrival(event))
            case Told():
                self._tally.tell(event)
                best = f", best {self._tally.best[0]:.4f}" if self._tally.best else ""
                value = "   -  " if event.value is None else f"{event.value:.4f}"
                ended = event.result.ended if event.result else "failed"
                say(
                    self._console,
                    f"[{self._tally.finished}/{self._tally.target}{best}] trial {event.number} {ended} "
                    f"{value}  {describe(event.config)}{f'  {event.stop.words}' if event.stop else ''}",
                )


class LiveDisplay:
    """A bar for the study, its best config, and a line per worker, redrawn in place."""

    def __init__(self, console: Console) -> None:
        self._tally = _Tally()
        self._total = Progress(BarColumn(bar_width=None), MofNCompleteColumn(), console=console, expand=True)
        self._bar = self._total.add_task("", total=None)
        self._workers = Progress(
            TextColumn("{task.fields[device]:<7}"),
            BarColumn(bar_width=9),
            # It takes what the names of devices leave, which are long on a cluster.
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, ratio=1)),
            console=console,
            expand=True,
        )
        self._lines: list[TaskID] = []  # by slot
        self._packs: list[dict[int, TrialConfig]] = []  # by slot: number and config of each running trial
        self._starting: int | None = None  # the slot whose pack is being announced, trial by trial
        self._live = Live(get_renderable=self._draw, console=console, refresh_per_second=4)

    def __enter__(self) -> "LiveDisplay":
        return self  # the picture begins with the study, so that a refusal stands alone

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def __call__(self, event: Event) -> None:
        """Take the event into the picture."""
        match event:
            case Began():
                self._begin(event)
            case Noted():
                say(self._live.console, event.text)
            case Arrived():
                say(self._live.console, _arrival(event))
                self._add_slot(event.device)
            case Started():
                self._start(event)
            case Progressed():
                self._show(event.slot, event.report.step, f"{event.report.val_accuracy:.3f} ")
            case Told():
                self._tally.tell(event)
                self._packs[event.slot].pop(event.number, None)
                if not self._packs[event.slot]:
                    self._show_idle(event.slot)
        self._starting = event.slot if isinstance(event, Started) else None
        self._total.update(self._bar, completed=self._tally.finished)

    def _begin(self, event: Began) -> None:
        self._tally.begin(event)
        self._total.update(self._bar, total=self._tally.target)
        self._live.start()
        say(self._live.console, _opening(event))
        for device in event.devices:
            self._add_slot(device)

    def _add_slot(self, device: str) -> None:
        self._packs.append({})
        self._lines.append(self._workers.add_task("starting", total=REPORTS, device=device))

    def _start(self, event: Started) -> None:
        """Show a trial in its slot. No event says that a pack has failed, but two things give it away.

        A failed trial starts again, in any slot; and whatever else a slot starts, its former pack is gone.
        """
        if self._starting != event.slot:
            self._packs[event.slot] = {}
        for slot, pack in enumerate(self._packs):
            if event.number in pack:
                pack.clear()
                self._show_idle(slot)
        self._packs[event.slot][event.number] = event.config
        self._show(event.slot, 0, "")

    def _show_idle(self, slot: int) -> None:
        self._workers.update(self._lines[slot], description="idle", completed=0)

    def _show(self, slot: int, step: int, accuracy: str) -> None:
        trials = self._packs[slot]
        first, last = min(trials), max(trials)
        if first == last:
            text = f"#{first} {accuracy}{describe(trials[first])}"
        else:
            text = f"{len(trials)} together, #{first} to #{last} {accuracy}"
        self._workers.update(self._lines[slot], description=text, completed=step)

    def _draw(self) -> Group:
        tally = self._tally
        facts = Table.grid(padding=(0, 1))
        facts.add_row(
            f"{tally.counts['PRUNED']} pruned,",
            f"{tally.counts['FAIL']} failed,",
            f"{tally.rate():.1f} trials/min,",
            f"{tally.time_left()} left",
        )
        best = "best: none yet"
        if tally.best is not None:
            value, number, config = tally.best
            best = f"best {value:.4f}, #{number}: {describe(config)}"
        lines = [Text(line, no_wrap=True, overflow="ellipsis") for line in (best, tally.stopped) if line]
        return Group(self._total, facts, *lines, self._workers)


def display_on(console: Console) -> LiveDisplay | Lines:
    """The display of a study that suits the console: redrawn on a terminal, lines elsewhere."""
    return LiveDisplay(console) if console.is_terminal else Lines(console)


class FitDisplay:
    """The display of a long run: a line per epoch, and on a terminal a bar of its steps below."""

    def __init__(self, console: Console, config: TrialConfig) -> None:
        columns = (BarColumn(bar_width=None), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=console, expand=True, disable=not console.is_terminal)
        self._steps = self._bar.add_task(
            "", total=total_steps(config.train_size, config.batch_size, config.epochs)
        )
        self._console, self._epochs = console, config.epochs

    def __enter__(self) -> "FitDisplay":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def stepped(self, steps: int) -> None:
        """Take in how many steps are done in all."""
        self._bar.update(self._steps, completed=steps)

    def told(self, row: Epoch) -> None:
        """Print an epoch's line."""
        validation = ""
        if row.val_loss is not None and row.val_accuracy is not None:
            validation = f", validation loss {row.val_loss:.4f}, accuracy {row.val_accuracy:.4f}"
        training = f"training loss {row.train_loss:.4f}{validation}"
        say(self._console, f"[{row.epoch}/{self._epochs}] {training}  {row.seconds:.0f} s")
