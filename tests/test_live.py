"""The live display and the lines for logs, at 80 columns."""

import io
from pathlib import Path

from rich.console import Console

from slopesearch.cli.live import Lines, LiveDisplay, display_on
from slopesearch.config import Report, TrialResult
from slopesearch.search.events import Arrived, Began, Event, Noted, Progressed, Started, Told
from slopesearch.search.records import Stop, StudyRecord
from slopesearch.wording import describe
from tests.conftest import make_config
from tests.test_tables import LONGEST, SPEC, STUDY, render


def events() -> list[Event]:
    report = Report(step=4, train_loss=1, val_loss=1, val_accuracy=0.91)
    result = TrialResult(ended="completed", curve=(report,), seconds=1, images_per_second=1, device="cpu")
    return [
        Began(StudyRecord("digits-cnn", SPEC, STUDY.trials[:2]), ["cpu", "cpu"], 10, "studies/x.db"),
        Started(0, 2, LONGEST),
        Started(1, 3, make_config()),
        Progressed(0, 2, report),
        Noted("trial 3 failed (gone); it runs again"),
        Told(1, 3, "FAIL", None, make_config(), None),
        Told(0, 2, "COMPLETE", 0.99, LONGEST, result),
        Started(0, 4, LONGEST),
        Progressed(0, 4, report),
    ]


def test_lines_are_one_per_finished_trial() -> None:
    console = Console(file=io.StringIO(), width=80)
    with Lines(console) as listen:
        for event in events():
            listen(event)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert len(lines) == 4
    assert lines[0].startswith("digits-cnn: to 10 trials, 2 there already")
    assert lines[0].endswith("workers: 2 on cpu; stored in studies/x.db")
    assert lines[3] == f"[3/10, best 0.9900] trial 2 completed 0.9900  {describe(LONGEST)}"


def test_the_live_display_shows_everything_within_80_columns(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None, height=24)
    display = LiveDisplay(console)
    with display:
        for event in events():
            display(event)
        picture = render(lambda console: console.print(display._draw()))
    for words in (
        "3/10",
        "0 pruned",
        "1 failed",
        "trials/min",
        "left",
        "best 0.9900, #2: leaky_relu",
        "#4 0.910",
        "idle",
    ):
        assert words in picture, picture
    assert max(map(len, picture.splitlines())) <= 80


def test_a_pack_that_failed_leaves_the_display() -> None:
    config = make_config()
    report = Report(step=1, train_loss=1, val_loss=1, val_accuracy=0.5)
    display = LiveDisplay(Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None))

    def lines(*events: Event) -> list[str]:
        for event in events:
            display(event)
        picture = render(lambda console: console.print(display._draw()))
        return [line[17:].strip() for line in picture.splitlines() if line.startswith("cuda")]

    def started(slot: int, *numbers: int) -> list[Started]:
        return [Started(slot, number, config) for number in numbers]

    with display:
        display(Began(StudyRecord("digits-mlp", SPEC, []), ["cuda:0", "cuda:1"], 10, "x.db"))
        assert lines(*started(0, 0, 1, 2, 3)) == ["4 together, #0 to #3", "starting"]
        # A half of it starts again in the same slot, the other half in the other one.
        halves: list[Event] = [Noted("a pack of 4 failed"), *started(0, 0, 1), *started(1, 2, 3)]
        assert lines(*halves) == ["2 together, #0 to #1", "2 together, #2 to #3"]
        # Then trial 3 alone elsewhere, while its slot gets nothing.
        moved: list[Event] = [Noted("a pack of 2 failed"), *started(0, 3)]
        assert lines(*moved)[1] == "idle"
        # And another pack where one has failed.
        assert lines(Noted("trial 3 failed"), *started(0, 20), Progressed(0, 20, report))[0].startswith(
            "#20 0.500"
        )


def test_the_display_suits_the_console() -> None:
    assert isinstance(display_on(Console(file=io.StringIO(), force_terminal=True)), LiveDisplay)
    assert isinstance(display_on(Console(file=io.StringIO())), Lines)


def test_what_the_pruner_stopped_is_told_with_its_reason() -> None:
    stop = Stop(report=1, value=0.8123, place=14, of=17, cut=0.9)
    curve = (Report(step=1, train_loss=1, val_loss=1, val_accuracy=0.8123),)
    result = TrialResult(ended="pruned", curve=curve, seconds=1, images_per_second=1, device="cpu")
    told = Told(0, 2, "PRUNED", 0.8123, LONGEST, result, stop)
    begun = [*events()[:2], told]
    console = Console(file=io.StringIO(), width=80)
    display = LiveDisplay(Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None))
    with Lines(console) as listen, display:
        for event in begun:
            listen(event)
            display(event)
        picture = render(lambda console: console.print(display._draw()))
    line = console.file.getvalue().splitlines()[-1]  # type: ignore[attr-defined]
    assert line.endswith(f"{describe(LONGEST)}  at report 1: 0.8123, place 14 of 17, cut 0.9000")
    assert "stopped last: #2 at report 1: 0.8123, place 14 of 17, cut 0.9000" in picture.splitlines()[3]


def test_a_worker_that_joins_gets_a_line_of_its_own() -> None:
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None, height=24)
    with LiveDisplay(console) as display:
        for event in [*events(), Arrived("cpu@10.0.0.7"), Started(2, 5, make_config())]:
            display(event)
        picture = render(lambda console: console.print(display._draw()))
    assert "a worker has joined: cpu@10.0.0.7" in console.file.getvalue()  # type: ignore[attr-defined]
    (line,) = [line for line in picture.splitlines() if "cpu@10.0.0.7" in line]
    assert "#5 " in line
    lines = Console(file=io.StringIO(), width=80)
    Lines(lines)(Arrived("cpu@10.0.0.7"))
    assert lines.file.getvalue() == "a worker has joined: cpu@10.0.0.7\n"  # type: ignore[attr-defined]
