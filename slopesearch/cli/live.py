"""What a person sees while a study or a long run goes on: redrawn on a terminal, else line by line."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.spinner import Spinner
from rich.table import Column
from rich.text import Text

from slopesearch.cli.counts import PlanCounts, SearchCounts, starting
from slopesearch.cli.tables import say, wrapped
from slopesearch.config import REPORTS, Report, TrialConfig
from slopesearch.search.events import Arrived, Began, Event, Noted, Progressed, Started, Told

if TYPE_CHECKING:  # they load torch
    from slopesearch.evidence.planned import Plan
    from slopesearch.training.fit import Epoch


@contextmanager
def doing(console: Console, text: str) -> Iterator[None]:
    """Say what is done in the block: on a terminal as long as it is done, else in a line."""
    if not console.is_terminal:
        say(console, text)
        yield
        return
    with console.status(text):
        console.show_cursor(True)  # Ctrl-C may end the process in the block, and leave the terminal as it is
        yield


def note(console: Console, text: str) -> None:
    """Print text as data, on a terminal wrapped at its words."""
    for line in text.splitlines():
        if console.is_terminal:
            wrapped(console, line)
        else:
            say(console, line)


def _arrival(event: Arrived) -> str:
    return f"a worker has joined: {event.device}"


class Lines:
    """One line per finished trial, for logs and pipes."""

    def __init__(self, console: Console, counts: SearchCounts | PlanCounts) -> None:
        self._console, self._counts = console, counts

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
                for words in (self._counts.begin(event), self._counts.heading(), starting(event)):
                    if words:
                        say(self._console, words)
            case Noted():
                say(self._console, event.text)
            case Arrived():
                say(self._console, _arrival(event))
            case Told():
                self._counts.tell(event)
                say(self._console, self._counts.line(event))


class LiveDisplay:
    """A bar for the study, what it found, and a line per worker, redrawn in place.

    Until something comes of the workers, what is awaited stands in place of the bar; at the end one line
    is left.
    """

    def __init__(self, console: Console, counts: SearchCounts | PlanCounts) -> None:
        self._counts = counts
        beside = TextColumn("{task.description}")
        self._total = Progress(BarColumn(bar_width=None), beside, console=console, expand=True)
        self._bar = self._total.add_task("", total=None)
        rest = Column(ratio=1, no_wrap=True, overflow="ellipsis")
        self._workers = Progress(
            TextColumn("{task.fields[device]:<7}", table_column=Column(no_wrap=True, min_width=7)),
            BarColumn(bar_width=9, table_column=Column(min_width=9)),
            TextColumn("{task.description}", markup=False, table_column=rest),
            console=console,
            expand=True,
        )
        self._lines: list[TaskID] = []  # by slot
        self._packs: list[dict[int, TrialConfig]] = []  # by slot: number and config of each running trial
        self._starting: int | None = None  # the slot whose pack is being announced, trial by trial
        self._awaited: Spinner | None = None
        self._is_over = False
        self._live = Live(get_renderable=self._draw, console=console, refresh_per_second=4)

    def __enter__(self) -> "LiveDisplay":
        return self  # the picture begins with the study, so that a refusal stands alone

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over = True
        self._live.stop()

    def __call__(self, event: Event) -> None:
        """Take the event into the picture."""
        match event:
            case Began():
                self._begin(event)
            case Noted():
                note(self._live.console, event.text)
            case Arrived():
                note(self._live.console, _arrival(event))
                self._add_slot(event.device)
            case Started():
                self._start(event)
            case Progressed():
                self._awaited = None
                self._show(event.slot, event.report)
            case Told():
                self._awaited = None
                self._counts.tell(event)
                self._packs[event.slot].pop(event.number, None)
                if not self._packs[event.slot]:
                    self._show_idle(event.slot)
        self._starting = event.slot if isinstance(event, Started) else None
        self._total.update(self._bar, completed=self._counts.finished, description=self._counts.beside())

    def _begin(self, event: Began) -> None:
        opening = self._counts.begin(event)
        self._total.update(self._bar, total=self._counts.target)
        if words := starting(event):
            self._awaited = Spinner("dots", words)
        self._live.start()
        note(self._live.console, opening)
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
        self._show(event.slot, None)

    def _show_idle(self, slot: int) -> None:
        self._workers.update(self._lines[slot], description="idle", completed=0)

    def _show(self, slot: int, report: Report | None) -> None:
        text = self._counts.running(self._packs[slot], report)
        self._workers.update(self._lines[slot], description=text, completed=report.step if report else 0)

    def _draw(self) -> Group:
        heading: list[RenderableType] = [_line(self._counts.heading())] if self._counts.heading() else []
        if self._is_over:
            return Group(*(heading or [self._total]))
        # A terminal writes "^C" where the picture ends: behind a full line it would wrap, one line too low.
        last = Text()
        if self._awaited is not None:
            return Group(*heading, self._awaited, self._workers, last)
        below = [", ".join(self._counts.facts()), *self._counts.lines()]
        return Group(*heading, self._total, *map(_line, below), self._workers, last)


def _line(text: str) -> Text:
    return Text(text, no_wrap=True, overflow="ellipsis")


def display_on(console: Console, plan: "Plan | None" = None) -> LiveDisplay | Lines:
    """The display of a search, or of planned runs: redrawn on a terminal, lines elsewhere."""
    counts = SearchCounts() if plan is None else PlanCounts(plan)
    return LiveDisplay(console, counts) if console.is_terminal else Lines(console, counts)


class FitDisplay:
    """The display of a long run: a line per epoch, and on a terminal a bar of its steps below."""

    def __init__(self, console: Console, config: TrialConfig) -> None:
        from slopesearch.training.engine import total_steps  # here, since it loads torch

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

    def told(self, row: "Epoch") -> None:
        """Print an epoch's line."""
        validation = ""
        if row.val_loss is not None and row.val_accuracy is not None:
            validation = f", validation loss {row.val_loss:.4f}, accuracy {row.val_accuracy:.4f}"
        training = f"training loss {row.train_loss:.4f}{validation}"
        say(self._console, f"[{row.epoch}/{self._epochs}] {training}  {row.seconds:.0f} s")
