"""What a fault leads to: for its trial, for its slot, for the study; without a loop, and on fake metrics."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from slopesearch.config import TrialConfig
from slopesearch.search.events import Noted, Started
from slopesearch.search.faults import Faults
from slopesearch.search.launchers import LAUNCHERS
from slopesearch.search.messages import Failed
from slopesearch.wording import StudyFailedError
from tests.harness import FakeLauncher, Harness

GONE = Failed(reason="Traceback\nOSError: gone")
MEMORY = Failed(reason="OutOfMemoryError: tried", out_of_memory=True)


def test_a_pack_is_halved_and_its_halves_come_first() -> None:
    faults = Faults(slots=1, pack=16)
    faults.failed(0, [7], GONE)
    consequence = faults.failed(0, range(8, 13), GONE)
    assert consequence.note.endswith("a pack of 5 failed (OSError: gone); its halves run again")
    assert (consequence.given_up, consequence.stop, faults.pack) == (None, None, 16)
    assert faults.waiting == 6
    assert [list(faults.take(0)) for _ in range(4)] == [[8, 9], [10, 11, 12], [7], []]


def test_what_does_not_fit_makes_packs_smaller_for_good() -> None:
    faults = Faults(slots=1, pack=16)
    faults.failed(0, range(16), MEMORY)
    assert faults.pack == 8
    faults.failed(0, range(16, 20), MEMORY)
    assert faults.pack == 2


def test_a_trial_runs_again_elsewhere_and_failing_twice_is_given_up() -> None:
    faults = Faults(slots=2, pack=1)
    assert "trial 5 failed (OSError: gone); it runs again" in faults.failed(0, [5], GONE).note
    assert not faults.take(0)
    assert list(faults.take(1)) == [5]
    consequence = faults.failed(1, [5], GONE)
    assert consequence.given_up == 5
    assert "trial 5 failed twice (OSError: gone); it is left as FAIL" in consequence.note


def test_a_trial_runs_again_on_the_same_slot_where_there_is_no_other() -> None:
    faults = Faults(slots=1, pack=1)
    faults.failed(0, [5], GONE)
    assert list(faults.take(0)) == [5]


def test_a_slot_with_three_faults_in_a_row_is_retired_and_said_so() -> None:
    faults = Faults(slots=2, pack=1)
    faults.finished(1)
    for number in (1, 2):
        faults.failed(0, [number], GONE)
    faults.finished(0)
    for number in (3, 4):
        assert not faults.failed(0, [number], GONE).note.endswith("in a row")
    consequence = faults.failed(0, [5], GONE)
    assert consequence.note.endswith("slot 0 is retired: 3 faults in a row")
    assert (faults.retired, consequence.stop) == ({0}, None)
    assert [list(faults.take(1)) for _ in range(5)] == [[5], [4], [3], [2], [1]]


@pytest.mark.parametrize(("first", "second"), [(0, 1), (1, 0)])
def test_a_trial_that_fails_on_two_slots_clears_the_first_of_them(first: int, second: int) -> None:
    faults = Faults(slots=3, pack=1)
    faults.finished(2)
    for number in range(2):
        faults.failed(first, [number], GONE)
        faults.failed(second, [number], GONE)
    faults.finished(2)
    for number in (2, 3):
        faults.failed(first, [number], GONE)
    assert not faults.retired


def test_what_ran_on_a_slot_that_is_lost_runs_again_first_and_is_no_fault_of_anyone() -> None:
    faults = Faults(slots=3, pack=4)
    faults.failed(0, [5], GONE)
    lost = faults.lost(1, [1, 2, 3, 4], "node b has left")
    assert (lost.note, lost.given_up, lost.stop) == (
        "node b has left; 4 trials, 1 to 4, run again",
        None,
        None,
    )
    assert (faults.retired, faults.pack) == ({1}, 4)
    assert list(faults.take(2)) == [1, 2, 3, 4]
    assert faults.lost(2, [7], "node c has left").note == "node c has left; trial 7 runs again"
    assert list(faults.take(0)) == [7]
    assert list(faults.take(0)) == [5]  # its other slots are gone
    faults.finished(0)
    for number in (7, 8):  # a trial that was lost has not failed yet
        assert faults.failed(0, [number], GONE).given_up is None


def test_a_study_stops_when_its_last_slot_is_lost() -> None:
    faults = Faults(slots=2, pack=1)
    assert faults.lost(1, [], "node b has left").note == "node b has left"
    lost = faults.lost(0, [1], "node a has left")
    assert lost.stop is not None
    assert lost.stop.startswith("node a has left\nno worker is left: what was finished is stored")


def test_a_trial_that_fails_twice_on_the_only_slot_does_not_clear_it() -> None:
    faults = Faults(slots=1, pack=1)
    faults.finished(0)
    stops = [faults.failed(0, [number], GONE).stop for number in (1, 1, 2, 2, 3)]
    assert not any(stops[:4])
    assert "3 faults in a row on every slot" in str(stops[4])


@pytest.mark.parametrize(
    ("faulty", "why"),
    [
        ([(0, 1), (0, 2), (0, 3)], None),  # slot 1 is left
        ([(0, 1), (0, 2), (0, 3), (1, 4), (1, 5), (1, 6)], "3 faults in a row on every slot"),
        ([(0, 1), (1, 1), (0, 2), (1, 2), (0, 3), (1, 3)], "3 trials in a row failed twice"),
    ],
)
def test_the_study_stops_when_nothing_works(faulty: list[tuple[int, int]], why: str | None) -> None:
    faults = Faults(slots=2, pack=1)
    faults.finished(0)
    *before, last = [faults.failed(slot, [number], GONE).stop for slot, number in faulty]
    assert not any(before)
    assert (last is None) if why is None else last and f"OSError: gone\n{why}: a bug or a broken" in last


def test_the_study_stops_when_every_slot_begins_with_a_fault() -> None:
    faults = Faults(slots=3, pack=1)
    stops = [faults.failed(slot, [slot], GONE).stop for slot in range(3)]
    assert stops[:2] == [None, None]
    assert stops[2] is not None
    assert "every slot's first run failed" in stops[2]


def test_packs_that_do_not_fit_into_memory_stop_nothing() -> None:
    faults = Faults(slots=8, pack=64)
    packs = [range(64 * slot, 64 * slot + 64) for slot in range(8)]
    assert not any(faults.failed(slot, pack, MEMORY).stop for slot, pack in enumerate(packs))
    again = [faults.take(slot) for slot in range(8)]
    assert not any(faults.failed(slot, pack, MEMORY).stop for slot, pack in enumerate(again))


class Faulty(FakeLauncher):
    """Counts what was started where."""

    starts: Counter[int]

    def __init__(self, devices: list[str], folder: Path) -> None:
        super().__init__(devices, folder)
        Faulty.starts = Counter()

    def start(self, slot: int, configs: Sequence[TrialConfig]) -> None:
        Faulty.starts[slot] += 1
        super().start(slot, configs)


@pytest.fixture
def harness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Harness:
    monkeypatch.setitem(LAUNCHERS, "fake", Faulty)
    return Harness(tmp_path / "x.db")


@pytest.mark.parametrize("bad", [(4, 12), (4, 5), (0, 1), (0, 15)])
def test_two_bad_members_of_a_pack_on_one_slot_are_found_and_the_study_goes_on(
    bad: tuple[int, int], harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs: list[TrialConfig] = []

    def fault(self: FakeLauncher, config: TrialConfig, attempt: int) -> str | None:
        if config not in configs:
            configs.append(config)
        return "Traceback\nOSError: gone" if configs.index(config) in bad else None

    monkeypatch.setattr(Faulty, "fault", fault)
    assert harness(40, pack=16).finished == 40
    failed = [trial.number for trial in harness.study().trials if trial.state == "FAIL"]
    assert failed == list(bad)


@pytest.mark.parametrize("workers", [2, 8, 16])
@pytest.mark.parametrize("pack", [1, 4])
@pytest.mark.parametrize("sound", [0, 10])
def test_a_sick_slot_takes_no_trial_with_it(
    workers: int, pack: int, sound: int, harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the first run on, or when so many have finished."""

    def sick(self: FakeLauncher, slot: int, reported: int) -> str | None:
        return "Traceback\nCUDA error: launch failed" if slot == 0 and self.told >= sound else None

    monkeypatch.setattr(Faulty, "slot_fault", sick)
    assert harness(90, workers=workers, pack=pack).finished == 90
    assert harness.study().count("FAIL") == 0
    notes = [event.text for event in harness.events if isinstance(event, Noted)]
    assert sum("slot 0 is retired" in note for note in notes) == 1


@pytest.mark.parametrize("workers", [1, 2, 8, 64])
@pytest.mark.parametrize("pack", [1, 16])
def test_a_broken_machine_stops_within_twelve_runs(
    workers: int, pack: int, harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Faulty, "fault", lambda *_: "Traceback\nRuntimeError: broken")
    with pytest.raises(StudyFailedError, match="RuntimeError: broken\n.* a bug or a broken machine"):
        harness(200, workers=workers, pack=pack)
    assert Faulty.starts.total() <= 12


def test_a_machine_that_breaks_later_stops_too(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: FakeLauncher, slot: int, reported: int) -> str | None:
        return "Traceback\nRuntimeError: broken" if self.told > 20 else None

    monkeypatch.setattr(Faulty, "slot_fault", broken)
    with pytest.raises(StudyFailedError, match="RuntimeError: broken"):
        harness(200, workers=8)
    assert harness.study().count("FAIL") <= 8
    started = [event.number for event in harness.events if isinstance(event, Started)]
    assert len(started) < 70
