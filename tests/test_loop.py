"""Packs, asking ahead and deterministic studies, driven with fake metrics and with real training."""

import random
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from slopesearch.config import TrialConfig
from slopesearch.search.cover import unstopped
from slopesearch.search.events import Arrived, Event, Noted, Progressed, Started, Told
from slopesearch.search.launchers import LAUNCHERS
from slopesearch.search.ledger import Configure, Job, Ledger, Placed
from slopesearch.search.loop import BATCH, Loop
from slopesearch.search.messages import Finished, Joined, Left, Message, Reported, Said
from slopesearch.search.optimize import run_study
from slopesearch.search.records import AUDITED, TrialRecord
from slopesearch.search.settings import Settings
from slopesearch.search.space import resolve
from slopesearch.wording import RequestError, StudyFailedError
from tests.conftest import make_config
from tests.harness import FOLDER, FakeLauncher, FakePack, Harness, Killed, spec


class Disorder(FakeLauncher):
    """Slots report in an order that no study may depend on."""

    luck = random.Random(0)

    def next_slot(self) -> int:
        return self.luck.randrange(len(self.order))


class FakeGpu(FakeLauncher):
    """Two devices that trials are asked ahead for."""

    def __init__(self, devices: list[str], folder: Path) -> None:
        super().__init__(["cuda:0", "cuda:1"], folder)


@pytest.fixture(autouse=True)
def _fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LAUNCHERS, "fake", FakeLauncher)
    monkeypatch.setitem(LAUNCHERS, "disorder", Disorder)
    monkeypatch.setitem(LAUNCHERS, "gpu", FakeGpu)


@pytest.fixture
def harness(tmp_path: Path) -> Harness:
    return Harness(tmp_path / "x.db")


def packs_of(harness: Harness) -> list[list[int]]:
    """The numbers of the trials that were started together."""
    packs: list[list[int]] = []
    last = None
    for event in harness.events:
        if isinstance(event, Started):
            if last != event.slot:
                packs.append([])
            packs[-1].append(event.number)
            last = event.slot
        else:
            last = None
    return packs


def test_trials_are_trained_in_packs_and_every_one_is_told(harness: Harness) -> None:
    assert harness(26, pack=8).finished == 26
    assert [len(pack) for pack in packs_of(harness)] == [8, 8, 8, 2]
    study = harness.study()
    assert [trial.number for trial in study.trials] == list(range(26))
    assert study.count("PRUNED") > 5
    told = [event.number for event in harness.events if isinstance(event, Told)]
    assert sorted(told) == list(range(26))


def test_members_of_a_pack_compete(harness: Harness) -> None:
    harness(24, pack=20)
    reached = [len(trial.reports) for trial in harness.study().trials]
    assert set(reached[5:]) == {1, 3, 9}
    assert 3 <= sum(reports > 1 for reports in reached[5:20]) <= 10


def test_only_runs_on_the_same_batches_share_a_pack(harness: Harness) -> None:
    outcome = run_study(
        "s",
        resolve(spec(sampler="random", pruner="none"), "float32"),
        lambda trial: make_config(init_seed=trial.number, order_seed=trial.number % 2),
        trials=12,
        store=harness.store,
        settings=Settings(FOLDER, "cpu", 1, pack=4, launcher="fake"),
        data_hash="images",
        listen=harness.events.append,
    )
    packs = packs_of(harness)
    assert outcome.finished == 12
    assert all(len({number % 2 for number in pack}) == 1 for pack in packs)
    assert max(map(len, packs)) > 2


def test_a_gpu_has_its_next_pack_waiting(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the end of a pack to the start of the next one on its device, nothing is asked for."""
    waits: dict[int, int] = {}
    waited: list[int] = []

    class Watched(FakeGpu):
        def start(self, slot: int, configs: Sequence[TrialConfig]) -> None:
            if slot in waits:
                waited.append(len(harness.study().trials) - waits[slot])
            super().start(slot, configs)

        def wait(self, timeout: float) -> tuple[int, Message] | None:
            received = super().wait(timeout)
            if received is not None and isinstance(received[1], Finished):
                waits[received[0]] = len(harness.study().trials)
            return received

    monkeypatch.setitem(LAUNCHERS, "gpu", Watched)
    asked = spec(pruner="none")  # a pack that is stopped at once ends before the next has been asked for
    assert harness(32, asked, launcher="gpu", pack=4, workers=2).finished == 32
    assert waited == [0] * 6
    assert harness.study().count("RUNNING") == 0


def test_what_was_asked_ahead_does_not_begin_after_ctrl_c(harness: Harness) -> None:
    begun: list[int] = []

    def listen(event: Event) -> None:
        if isinstance(event, Started):
            begun.append(event.number)
        if isinstance(event, Progressed) and (event.number, event.report.step) == (3, 8):
            signal.raise_signal(signal.SIGINT)

    asked = spec(pruner="none")
    outcome = harness(32, asked, launcher="gpu", pack=4, workers=2, listen=listen)
    assert (outcome.finished, outcome.interrupted) == (8, True)
    assert begun == list(range(8))
    assert harness.study().count("RUNNING") > 0  # they begin with the next call
    assert harness(32, launcher="gpu", pack=4, workers=2).finished == 32


def test_a_cpu_asks_only_when_it_is_idle(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    running: list[int] = []
    start = FakeLauncher.start

    def counting(self: FakeLauncher, slot: int, configs: list[TrialConfig]) -> None:
        running.append(harness.study().count("RUNNING"))
        start(self, slot, configs)

    monkeypatch.setattr(FakeLauncher, "start", counting)
    harness(10)
    assert running == [1] * 10


def test_all_that_waits_is_taken_in_one_commit_before_the_next_trial_is_asked_for(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    busy: list[dict[int, FakePack]] = []

    class Watched(FakeLauncher):
        def __init__(self, devices: list[str], folder: Path) -> None:
            super().__init__(devices, folder)
            busy.append(self.packs)

        def wait(self, timeout: float) -> tuple[int, Message] | None:
            received = super().wait(timeout)
            said.append("nothing" if received is None else "message")
            return received

    ask, commit = Ledger.ask, Ledger.commit

    def asking(self: Ledger, configure: Configure, given: Placed | None = None) -> Job:
        said.append(f"ask {len(busy[0])}")
        return ask(self, configure, given)

    def committing(self: Ledger) -> None:
        said.append("commit")
        commit(self)

    monkeypatch.setitem(LAUNCHERS, "fake", Watched)
    monkeypatch.setattr(Ledger, "ask", asking)
    monkeypatch.setattr(Ledger, "commit", committing)
    assert harness(40, workers=8).finished == 40
    rounds = [part.split() for part in " ".join(said).split("ask")[8:]]
    assert len(rounds) > 30
    for slots, *after in rounds:
        assert after[: int(slots) + 1] == ["message"] * int(slots) + ["commit"]


@pytest.mark.parametrize(
    ("pruner", "plan", "trials"), [("halving", "walk", 54), ("median", "walk", 54), ("halving", "cover", 78)]
)
def test_a_deterministic_study_does_not_depend_on_its_workers(
    tmp_path: Path, pruner: str, plan: str, trials: int
) -> None:
    tables = []
    for i, workers in enumerate((1, 5)):
        harness = Harness(tmp_path / f"{i}.db")
        asked = spec(pruner=pruner, plan=plan)
        harness(trials, asked, deterministic=True, workers=workers, launcher="disorder")
        tables.append(harness.table())
    assert tables[0] == tables[1]
    assert any(row[1] == "PRUNED" for row in tables[0])


def test_the_first_trials_run_to_their_end_and_compete_as_far_as_they_would_have_come(
    harness: Harness,
) -> None:
    harness(120, spec(plan="cover"))
    trials = harness.study().trials
    first = unstopped(harness.study().spec)
    assert all(trial.state == "COMPLETE" for trial in trials[:first])
    stops = [trial.stop for trial in trials if trial.stop]
    assert {stop.report for stop in stops} == {1, 3}
    for trial in trials:
        if trial.stop is None or trial.number < first:
            continue
        report, earlier = trial.stop.report, trials[: trial.number]
        come = [other for other in earlier if report in other.reports and not _left(other, report)]
        at_first = sorted((other.reports[1] for other in [*earlier, trial]), reverse=True)
        cut = at_first[len(at_first) // 3 - 1]
        behind = [o for o in come if report == 3 and o.number < first and o.reports[1] < cut]
        assert trial.stop.of == len(come) - len(behind) + 1


def _left(trial: TrialRecord, report: int) -> bool:
    return bool(trial.attributes.get(AUDITED, report) < report)


def test_a_deterministic_batch_is_asked_for_whole_and_then_fills_the_workers(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, running = set(), set()
    start = FakeLauncher.start

    def watched(self: FakeLauncher, slot: int, configs: list[TrialConfig]) -> None:
        start(self, slot, configs)
        asked.add(len(harness.study().trials))
        running.add(len(self.packs))

    monkeypatch.setattr(FakeLauncher, "start", watched)
    harness(2 * BATCH, deterministic=True, workers=4)
    assert asked == {BATCH, 2 * BATCH}
    assert max(running) == 4


def test_a_deterministic_study_extended_by_whole_batches_is_the_longer_study(tmp_path: Path) -> None:
    whole, pieces = Harness(tmp_path / "whole.db"), Harness(tmp_path / "pieces.db")
    whole(4 * BATCH, deterministic=True)
    for total in (BATCH, 3 * BATCH, 4 * BATCH):
        pieces(total, deterministic=True, workers=3, launcher="disorder")
    assert pieces.table() == whole.table()


def test_a_deterministic_study_is_not_extended_as_another(harness: Harness) -> None:
    harness(BATCH, deterministic=True)
    with pytest.raises(RequestError, match="'digits-mlp' is deterministic.*: add that to go on with it"):
        harness(2 * BATCH)
    assert len(harness.study().trials) == BATCH
    assert harness(2 * BATCH, deterministic=True).finished == 2 * BATCH


def test_without_it_a_study_on_many_workers_does(tmp_path: Path) -> None:
    tables = []
    for i, workers in enumerate((1, 8)):
        harness = Harness(tmp_path / f"{i}.db")
        harness(26, workers=workers, launcher="disorder")
        tables.append(harness.table())
    assert tables[0] != tables[1]


@pytest.mark.parametrize(("plan", "trials"), [("walk", 28), ("cover", 72)])
def test_a_deterministic_study_killed_anywhere_goes_on_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plan: str, trials: int
) -> None:
    asked = spec(plan=plan)
    whole, pieces = Harness(tmp_path / "whole.db"), Harness(tmp_path / "pieces.db")
    whole(trials, asked, deterministic=True, workers=3, launcher="disorder")
    luck, kills = random.Random(1), 0

    class Dying(Disorder):
        def wait(self, timeout: float) -> tuple[int, Message] | None:
            if luck.random() < 0.03:
                raise Killed
            return super().wait(timeout)

    monkeypatch.setitem(LAUNCHERS, "dying", Dying)
    finished = 0
    while finished < trials:
        try:
            finished = pieces(trials, asked, deterministic=True, workers=2, launcher="dying").finished
        except Killed:
            kills += 1
    assert kills > 3
    assert pieces.table() == whole.table()


def test_a_deterministic_study_that_really_trains_is_the_same_on_one_and_two_workers(tmp_path: Path) -> None:
    tables = []
    for workers in (1, 2):
        harness = Harness(tmp_path / f"{workers}.db")
        asked = spec(epochs=2, width=16)
        harness(12, asked, deterministic=True, devices="cpu", workers=workers, launcher="process")
        tables.append(harness.table())
    assert tables[0] == tables[1]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_pack_that_fails_is_halved_until_its_fault_is_alone(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    def fault(self: FakeLauncher, config: TrialConfig, attempt: int) -> str | None:
        return "Traceback\nOSError: gone" if config.activation == "prelu" and config.lr == 1e-3 else None

    monkeypatch.setattr(FakeLauncher, "fault", fault)
    assert harness(17, pack=16, workers=workers).finished == 17
    study = harness.study()
    assert [trial.number for trial in study.trials if trial.state == "FAIL"] == [4]
    assert [len(pack) for pack in packs_of(harness) if 4 in pack] == [16, 8, 4, 2, 1, 1]
    notes = [event.text for event in harness.events if isinstance(event, Noted)]
    assert "a pack of 16 failed (OSError: gone); its halves run again" in notes[0]
    assert "trial 4 failed twice (OSError: gone); it is left as FAIL" in notes[-1]
    finished = [event.number for event in harness.events if isinstance(event, Told)]
    assert sorted(finished) == list(range(18))


class Moving(FakeLauncher):
    """Begins with one slot; after so many messages, slots join or leave. MiB are the memory of each slot."""

    moves: dict[int, list[int | str]] = {}  # noqa: RUF012 - a slot that leaves, or the device of one that joins
    memory = 2**33

    def __init__(self, devices: list[str], folder: Path) -> None:
        super().__init__(devices, folder)
        self.given = 0
        self.waiting: list[tuple[int, Message]] = []
        self.lost: set[int] = set()

    def shares(self) -> list[int]:
        alive = [device for slot, device in enumerate(self.devices) if slot not in self.lost]
        return [self.memory if device.startswith("cuda") else 0 for device in alive]

    def wait(self, timeout: float) -> tuple[int, Message] | None:
        if not self.waiting:
            self.given += 1
            for move in self.moves.get(self.given, []):
                self.move(move)
        return self.waiting.pop(0) if self.waiting else super().wait(timeout)

    def move(self, move: int | str) -> None:
        if isinstance(move, str):
            self.devices = [*self.devices, move]
            self.waiting.append((len(self.devices) - 1, Joined()))
            return
        self.lost.add(move)
        self.packs.pop(move, None)
        self.order = [slot for slot in self.order if slot != move]
        self.waiting.append((move, Left(reason=f"node {move} has left")))

    def start(self, slot: int, configs: Sequence[TrialConfig]) -> None:
        assert slot not in self.lost
        super().start(slot, configs)


def test_what_is_said_besides_keeps_no_report_waiting() -> None:
    """Or a slot whose report is there would seem to be silent."""
    said = [(-1, Said(text=text)) for text in "abc"]
    reports = [(slot, Reported(reports={})) for slot in (1, 0)]

    class Full(FakeLauncher):
        def wait(self, timeout: float) -> tuple[int, Message] | None:
            return waiting.pop(0)

    waiting: list[tuple[int, Message]] = [*said, *reports]
    loop = object.__new__(Loop)
    loop.launcher, loop.running = Full([], FOLDER), {0: [], 1: []}
    assert loop._messages(0) == [*said, *reports]


def test_a_slot_that_joins_is_used_and_what_a_lost_slot_ran_runs_again(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LAUNCHERS, "moving", Moving)
    monkeypatch.setattr(Moving, "moves", {5: ["cpu@b", "cpu@c"], 40: [1], 60: [0], 61: ["cpu@d"]})
    assert harness(30, launcher="moving").finished == 30
    study = harness.study()
    assert (len(study.trials), study.count("FAIL"), study.count("RUNNING")) == (30, 0, 0)
    told = [event.number for event in harness.events if isinstance(event, Told)]
    assert sorted(told) == list(range(30))
    arrived = [event.device for event in harness.events if isinstance(event, Arrived)]
    assert arrived == ["cpu@b", "cpu@c", "cpu@d"]
    started = [(event.slot, event.number) for event in harness.events if isinstance(event, Started)]
    assert {slot for slot, _ in started} == {0, 1, 2, 3}
    again = [number for _, number in started if sum(number == other for _, other in started) > 1]
    notes = [event.text for event in harness.events if isinstance(event, Noted)]
    assert len(set(again)) == 2
    assert notes == [
        f"node {slot} has left; trial {number} runs again"
        for slot, number in zip((1, 0), dict.fromkeys(again), strict=True)
    ]


def test_a_study_whose_last_slot_is_lost_stops_and_goes_on_with_the_next_call(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LAUNCHERS, "moving", Moving)
    monkeypatch.setattr(Moving, "moves", {25: [0]})
    with pytest.raises(StudyFailedError, match="node 0 has left\nno worker is left: what was finished is"):
        harness(9, launcher="moving")
    monkeypatch.setattr(Moving, "moves", {})
    assert harness(9, launcher="moving").finished == 9
    assert len(harness.study().trials) == 9


@pytest.mark.parametrize(("memory", "size"), [(2**33, 2), (2**28, 1)])
def test_packs_get_smaller_for_a_slot_that_joins(
    memory: int, size: int, harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU alone takes 4 of 200 trials at a time, two take 2 each; and no more than fit into either."""

    class FirstGpu(Moving):
        def __init__(self, devices: list[str], folder: Path) -> None:
            super().__init__(["cuda:0@a"], folder)

        def move(self, move: int | str) -> None:
            super().move(move)
            self.memory = memory

    monkeypatch.setitem(LAUNCHERS, "moving", FirstGpu)
    monkeypatch.setattr(Moving, "moves", {30: ["cuda:0@b"]})
    harness(200, launcher="moving")
    sizes = [len(pack) for pack in packs_of(harness)]
    assert sizes[:2] == [4, 4]
    assert max(sizes[-20:]) == size
