"""The live display and the lines for logs, at 80 columns."""

import io
import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from slopesearch.cli.counts import SearchCounts
from slopesearch.cli.live import Lines, LiveDisplay, display_on, doing, note
from slopesearch.config import Report, TrialConfig, TrialResult
from slopesearch.evidence.planned import Plan
from slopesearch.search.events import Arrived, Began, Event, Noted, Progressed, Started, Told
from slopesearch.search.launchers import LAUNCHERS
from slopesearch.search.records import Stop, StudyRecord, TrialRecord
from slopesearch.wording import describe
from tests.conftest import InProcess, make_config
from tests.harness import FakeLauncher
from tests.synthetic import record, study_with
from tests.test_tables import LONGEST, SPEC, STUDY, render


def events() -> list[Event]:
    report = Report(step=4, train_loss=1, val_loss=1, val_accuracy=0.91)
    result = TrialResult(ended="completed", curve=(report,), seconds=1, images_per_second=1, device="cpu")
    return [
        Began(StudyRecord("digits-cnn", SPEC, STUDY.trials[:3]), ["cpu", "cpu"], 10, "studies/x.db"),
        Started(0, 2, LONGEST),
        Started(1, 3, make_config()),
        Progressed(0, 2, report),
        Noted("trial 3 failed (gone); it runs again"),
        Told(1, 3, "FAIL", None, make_config(), None),
        Told(0, 2, "COMPLETE", 0.99, LONGEST, result),
        Started(0, 4, LONGEST),
        Progressed(0, 4, report),
    ]


def live(plan: Plan | None = None) -> LiveDisplay:
    """The display on a terminal of 80 columns."""
    console = Console(file=io.StringIO(), width=80, height=24, force_terminal=True, color_system=None)
    found = display_on(console, plan)
    assert isinstance(found, LiveDisplay)
    return found


def picture_of(display: LiveDisplay) -> str:
    return render(lambda console: console.print(display._draw()))


def written(console: Console) -> list[str]:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def result_of(loss: float, accuracy: float = 0.9) -> TrialResult:
    report = Report(step=9, train_loss=1, val_loss=loss, val_accuracy=accuracy)
    return TrialResult(ended="completed", curve=(report,), seconds=1, images_per_second=1, device="cpu")


def test_lines_are_one_per_finished_trial() -> None:
    console = Console(file=io.StringIO(), width=80)
    with Lines(console, SearchCounts()) as listen:
        for event in events():
            listen(event)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert len(lines) == 5
    assert lines[0].startswith("digits-cnn: to 10 trials, 2 of them finished already")
    assert lines[0].endswith("workers: 2 on cpu; stored in studies/x.db")
    assert lines[1] == "starting 2 workers; the first result comes about 2 s after that"  # both took 1.5
    assert lines[4] == f"[3/10, best 0.9900] trial 2 completed 0.9900  {describe(LONGEST)}"


def test_the_live_display_shows_everything_within_80_columns(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None, height=24)
    display = LiveDisplay(console, SearchCounts())
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
        "#4 ~0.910 ",
        "idle",
    ):
        assert words in picture, picture
    assert max(map(len, picture.splitlines())) <= 80


def test_a_pack_that_failed_leaves_the_display() -> None:
    config = make_config()
    report = Report(step=1, train_loss=1, val_loss=1, val_accuracy=0.5)
    display = live()

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
            "#20 ~0.500 "
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
    display = live()
    with Lines(console, SearchCounts()) as listen, display:
        for event in begun:
            listen(event)
            display(event)
        picture = render(lambda console: console.print(display._draw()))
    line = console.file.getvalue().splitlines()[-1]  # type: ignore[attr-defined]
    assert line.endswith(f"{describe(LONGEST)}  at report 1: 0.8123, place 14 of 17, needed 0.9000")
    assert "stopped last: #2 at report 1: 0.8123, place 14 of 17, needed 0.9000" in picture.splitlines()[3]


def test_a_rate_leaves_out_what_workers_take_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0  # s
    monkeypatch.setattr("slopesearch.cli.counts.time.monotonic", lambda: now)
    counts = SearchCounts()
    counts.begin(Began(StudyRecord("s", SPEC, []), ["cpu", "cpu"], 50, "x.db"))
    now = 160.0
    for number in range(4):
        counts.tell(Told(0, number, "PRUNED", 0.5, make_config(), None))
    assert (counts.rate(), counts.time_left()) == (None, "-:--")
    now = 180.0
    counts.tell(Told(0, 4, "PRUNED", 0.5, make_config(), None))
    assert (counts.rate(), counts.time_left()) == (12, "3:45")  # 4 in 20 s


def test_on_a_terminal_the_awaited_stands_in_place_of_the_bar() -> None:
    first, *_ = events()
    display = live()
    with display:
        display(first)
        display(Started(0, 2, LONGEST))
        waiting = picture_of(display).splitlines()
        display(Progressed(0, 2, Report(step=1, train_loss=1, val_loss=1, val_accuracy=0.5)))
        running = picture_of(display).splitlines()
    assert waiting[0][2:] == "starting 2 workers; the first result comes about 2 s after that"
    assert (waiting[1][:8], waiting[1][18:21]) == ("cpu     ", "#2 ")  # no bar of the study, no facts
    assert len(waiting) == 4
    assert waiting[-1] == running[-1] == ""  # where the terminal writes ^C: behind a full line it would wrap
    assert running[0].endswith(" 2/10")
    assert "starting 2" not in "".join(running)
    assert len(picture_of(display).splitlines()) == 1  # when it is over


def test_when_the_first_result_comes_is_said_where_it_is_known() -> None:
    def second_line(trials: list[TrialRecord], devices: list[str]) -> list[str]:
        console = Console(file=io.StringIO(), width=80)
        with Lines(console, SearchCounts()) as listen:
            listen(Began(StudyRecord("digits-cnn", SPEC, trials), devices, 10, "x.db"))
        return written(console)[1:]

    def took(seconds: float) -> TrialRecord:
        return TrialRecord(0, "COMPLETE", 0.9, make_config(), {}, {"seconds": seconds})

    assert second_line([], ["cpu"]) == ["starting 1 worker"]
    assert second_line([took(0.2)], ["cpu"]) == ["starting 1 worker"]
    assert second_line([took(3), took(20), took(40)], ["cpu"] * 2) == [
        "starting 2 workers; the first result comes about 20 s after that"
    ]
    assert second_line([took(3)], []) == []


def test_what_is_done_before_a_study_is_a_line_or_on_a_terminal_a_status() -> None:
    pipe = Console(file=io.StringIO())
    with doing(pipe, "loading torch"):
        assert written(pipe) == ["loading torch"]
    assert written(pipe) == ["loading torch"]
    terminal = Console(file=io.StringIO(), force_terminal=True, width=80)
    with doing(terminal, "loading torch"):
        began = "".join(written(terminal))
        assert began.rindex("\x1b[?25h") > began.rindex("\x1b[?25l")  # the cursor is there: it may be killed
    rest = "".join(written(terminal)).removeprefix(began)
    assert "loading torch" in began + rest
    assert rest.endswith("\x1b[1A\x1b[2K")  # the line is taken away


def test_a_note_is_wrapped_on_a_terminal_alone() -> None:
    text = "  slope: " + "word " * 20 + "end\nsecond"
    pipe = Console(file=io.StringIO(), width=80)
    terminal = Console(file=io.StringIO(), width=80, force_terminal=True)
    note(pipe, text)
    note(terminal, text)
    assert written(pipe) == text.splitlines()
    first, second, last = written(terminal)
    assert first == f"  slope: {'word ' * 14}".rstrip()
    assert (second, last) == (f"  {'word ' * 6}end", "second")


def test_of_equal_values_the_lower_loss_is_the_best_and_then_the_earlier() -> None:
    def best_after(*told: tuple[int, float, float]) -> str:
        display = live()
        with display:
            display(Began(StudyRecord("digits-cnn", SPEC, [stored]), ["cpu"], 9, "x.db"))
            for number, value, loss in told:
                display(Started(0, number, make_config()))
                display(Told(0, number, "COMPLETE", value, make_config(), result_of(loss)))
            (line,) = (line for line in picture_of(display).splitlines() if line.startswith("best"))
        return line[: line.index(":")]

    stored = TrialRecord(3, "COMPLETE", 0.9, make_config(), {}, {"val_loss": 0.3, "seconds": 1.0})
    assert best_after((5, 0.9, 0.4)) == "best 0.9000, #3"
    assert best_after((5, 0.9, 0.2)) == "best 0.9000, #5"
    assert best_after((5, 0.9, 0.2), (4, 0.9, 0.2)) == "best 0.9000, #4"  # told later
    assert best_after((5, 0.91, 9.0), (6, 0.9, 0.1)) == "best 0.9100, #5"


def planned_runs() -> tuple[list[TrialConfig], Plan]:
    """Two arms on three seeds, seed by seed."""
    pairs = [(seed, activation) for seed in range(3) for activation in ("elu", "relu")]
    configs = [make_config(activation=activation, init_seed=seed) for seed, activation in pairs]
    return configs, replace(Plan.over_seeds("confirm", ["top 1", "best relu"], 3, configs), done=2)


def told_of_plan() -> list[Event]:
    configs, _ = planned_runs()
    other = make_config(activation="tanh")  # another plan left it unfinished
    report = Report(step=4, train_loss=1, val_loss=1, val_accuracy=0.9731)
    return [
        Began(StudyRecord("digits-cnn/confirm", SPEC, []), ["cpu", "cpu"], 40, "x.db"),
        Started(0, 17, other),
        Started(1, 18, configs[2]),
        Progressed(1, 18, report),
        Told(0, 17, "COMPLETE", 0.9975, other, result_of(0.1, 0.9975)),
        Started(0, 19, configs[3]),
        Progressed(0, 19, report),
        Told(1, 18, "COMPLETE", 0.9975, configs[2], result_of(0.1, 0.9975)),
        Told(0, 19, "FAIL", None, configs[3], None),
        Started(1, 20, configs[4]),
    ]


def test_the_lines_of_planned_runs_count_arms_and_seeds() -> None:
    console = Console(file=io.StringIO(), width=80)
    configs, plan = planned_runs()
    with display_on(console, plan) as listen:
        for event in told_of_plan():
            listen(event)
    lines = written(console)
    assert lines == [
        "digits-cnn/confirm; workers: 2 on cpu; stored in x.db",
        "confirm: 2 of 6 runs (2 arms x 3 seeds)",
        "starting 2 workers",
        "confirm: 2 of 6 runs (2 arms x 3 seeds); completed: left from an earlier call, not counted: "
        + describe(make_config(activation="tanh")),
        f"confirm: 3 of 6 runs (2 arms x 3 seeds); completed: top 1, seed 2 of 3: {describe(configs[2])}",
        f"confirm: 3 of 6 runs (2 arms x 3 seeds); failed: best relu, seed 2 of 3: {describe(configs[3])}",
    ]


def test_the_live_display_of_planned_runs_names_arm_and_seed_and_no_best() -> None:
    _, plan = planned_runs()
    display = live(plan)
    pictures = []
    with display:
        for event in told_of_plan():
            display(event)
            pictures.append(picture_of(display))
    assert pictures[3].splitlines()[0] == "confirm: 2 of 6 runs (2 arms x 3 seeds)"
    last = pictures[-1].splitlines()
    assert last[0] == "confirm: 3 of 6 runs (2 arms x 3 seeds)"
    assert last[2].startswith("1 failed, ")
    assert "runs/min" in last[2]
    assert last[3][18:].strip() == "idle"
    assert last[4][18:].startswith("top 1, seed 3 of 3: elu norm ")
    assert not re.search(r"best [0-9:]|#|0\.9975|0\.973|pruned", "".join(pictures))
    assert max(len(line) for picture in pictures for line in picture.splitlines()) <= 80
    assert picture_of(display).splitlines() == ["confirm: 3 of 6 runs (2 arms x 3 seeds)"]


def test_a_pack_of_planned_runs_is_named_by_its_seeds_and_arms() -> None:
    configs, plan = planned_runs()
    display = live(plan)
    with display:
        display(Began(StudyRecord("digits-cnn/confirm", SPEC, []), ["cuda:0"], 6, "x.db"))
        for number, config in enumerate(configs[:2]):
            display(Started(0, number, config))
        line = picture_of(display).splitlines()[-2]
    assert line[18:].strip() == "2 together, seed 1 of 3: top 1, best relu"


def test_an_arm_that_is_there_twice_runs_once() -> None:
    config = make_config()
    plan = Plan.over_seeds("slope", ["a", "b"], 2, [config, config, *[make_config(init_seed=9)] * 2])
    assert plan.shape == "1 arm x 2 seeds"
    assert list(plan.runs.values()) == [("a", "seed 1 of 2"), ("a", "seed 2 of 2")]


def test_what_a_search_says_and_in_which_order(
    command_line: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LAUNCHERS, "fake", FakeLauncher)
    command = ("optimize", "--dataset", "digits", "--model", "mlp", "--launcher", "fake", "--workers", "2")

    def said(trials: int) -> list[str]:
        lines = command_line(*command, "--devices", "cpu", "--trials", str(trials)).out.splitlines()
        return lines[: lines.index("")]  # where the ending begins

    loading, opening, starting, *told = said(3)
    assert loading == "loading torch"
    assert opening.startswith("digits-mlp: to 3 trials; ")
    assert starting == "starting 2 workers"
    assert [line[:3] for line in told] == ["[1/", "[2/", "[3/"]

    _, opening, starting, *told = said(5)
    assert opening.startswith("digits-mlp: to 5 trials, 3 of them finished already; ")
    assert starting == "starting 2 workers; the first result comes about 1 s after that"  # as they store
    assert [line[:3] for line in told] == ["[4/", "[5/"]


def test_a_worker_that_joins_gets_a_line_of_its_own() -> None:
    display = live()
    with display:
        for event in [*events(), Arrived("cpu@10.0.0.7"), Started(2, 5, make_config())]:
            display(event)
        picture = picture_of(display)
    assert "a worker has joined: cpu@10.0.0.7" in display._live.console.file.getvalue()  # type: ignore[attr-defined]
    (line,) = [line for line in picture.splitlines() if "cpu@10.0.0.7" in line]
    assert "#5 " in line
    console = Console(file=io.StringIO(), width=80)
    Lines(console, SearchCounts())(Arrived("cpu@10.0.0.7"))
    assert written(console) == ["a worker has joined: cpu@10.0.0.7"]


def test_what_a_run_takes_is_that_of_its_placement_of_batchnorm_where_it_is_known() -> None:
    times = [("none", 5.0), ("after", 8.0), ("after", 9.0), ("after", 30.0)]
    whole = [
        record(number, "COMPLETE", 0.9, norm=norm, attributes={"seconds": seconds})
        for number, (norm, seconds) in enumerate(times)
    ]
    pruned = record(4, "PRUNED", 0.1, norm="before", attributes={"seconds": 1.0})
    study = study_with(*whole, pruned)
    assert [study.seconds(norm) for norm in ("none", "after", "before", None)] == [5.0, 9.0, 8.5, 8.5]
    assert study_with(pruned).seconds("before") is None
