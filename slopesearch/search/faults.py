"""Whose fault was it, and what follows: what runs again, where, and what is given up."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from slopesearch.search.messages import Failed

IN_A_ROW = 3  # faults without a finished run in between: a bug or a broken device, not bad luck
# Runs that fail before the first one finishes. A pack of 64 with two bad members has ten of them at most.
FRUITLESS = 12


@dataclass(frozen=True)
class Consequence:
    """What a failed run leads to: a note for a person; a trial to be told as FAIL, by its number; a stop.

    `stop` says why the study cannot go on.
    """

    note: str
    given_up: int | None = None
    stop: str | None = None


@dataclass
class Faults:
    """The faults of trials, of slots and of the machine, counted apart; and what has to run again.

    A pack that failed runs again in halves, before anything else, until its fault is alone: only a trial that
    fails alone is a fault. The trial runs once more, on another slot where there is one. Failing again it is
    given up; if that was on another slot, the first slot is cleared of it. A slot with IN_A_ROW faults in a
    row is retired. The study stops when no slot is left, when IN_A_ROW trials in a row were given up, and
    when every slot began with a fault, IN_A_ROW faults in all, with no run finished anywhere. No more than
    FRUITLESS runs begin before one has reported, so that of many slots not all begin on a broken machine. A
    slot that is lost is retired, and what ran there runs again, without a fault of anyone.

    `pack` is the largest pack that fits into memory, as far as is known. Trials go by their numbers.
    """

    slots: int
    pack: int
    retired: set[int] = field(default_factory=set)
    _again: list[tuple[Sequence[int], int | None]] = field(default_factory=list)  # each with a slot to avoid
    _failed_on: dict[int, int] = field(default_factory=dict)  # where a trial failed that runs again
    _in_a_row: Counter[int] = field(default_factory=Counter)  # faults of a slot
    _given_up: int = 0  # trials in a row
    _first: Counter[int] = field(default_factory=Counter)  # of a slot, before any run finished
    _fruitless: int = 0  # runs that failed, before any finished
    _sound: bool = False  # whether a run has finished
    _silent: bool = True  # whether no run has reported anything

    @property
    def waiting(self) -> int:
        """How many trials have to run again."""
        return sum(len(pack) for pack, _ in self._again)

    def hold_back(self, running: int) -> bool:
        """Whether to begin no more beside so many: no run has reported, or after faults none finished."""
        unknown = self._silent or (self._fruitless > 0 and not self._sound)
        return unknown and self._fruitless + running >= FRUITLESS

    def take(self, slot: int) -> Sequence[int]:
        """The next trials that a slot shall run again, together; empty where there are none for it."""
        if not self._again:
            return ()
        alone = self.retired >= set(range(self.slots)) - {slot}
        for place, (pack, avoid) in enumerate(self._again):
            if alone or avoid != slot:
                del self._again[place]
                return pack
        return ()

    def reported(self) -> None:
        """A run has reported: the machine trains."""
        self._silent = False

    def finished(self, slot: int) -> None:
        """A slot has finished a run: neither it nor the machine is broken."""
        self._in_a_row[slot] = self._given_up = 0
        self._sound, self._silent = True, False

    def failed(self, slot: int, pack: Sequence[int], failure: Failed) -> Consequence:
        """A slot has failed to run a pack."""
        self._fruitless += not failure.out_of_memory
        if len(pack) > 1:
            return Consequence(self._halve(pack, failure), stop=self._stop(failure))
        (number,) = pack
        if self._failed_on.get(number) != slot:  # a second failure there says nothing new of the slot
            self._first[slot] += 1
        if number in self._failed_on:
            note = self._give_up(number, slot, failure)
            given_up = number
        else:
            note = self._retry(number, slot, failure)
            given_up = None
        if self._in_a_row[slot] >= IN_A_ROW and slot not in self.retired:
            self.retired.add(slot)
            note += f"\nslot {slot} is retired: {IN_A_ROW} faults in a row"
        return Consequence(note, given_up, self._stop(failure))

    def lost(self, slot: int, pack: Sequence[int], reason: str) -> Consequence:
        """A slot is gone, with the pack that ran there, if any did."""
        self.retired.add(slot)
        if pack:
            self._again.insert(0, (pack, None))
        note = f"{reason}; {_named(pack)}" if pack else reason
        gone = len(self.retired) == self.slots
        return Consequence(note, stop=f"{reason}\nno worker is left: {_GO_ON}" if gone else None)

    def _halve(self, pack: Sequence[int], failure: Failed) -> str:
        half = len(pack) // 2
        self._again[:0] = [(pack[:half], None), (pack[half:], None)]
        if failure.out_of_memory:  # what does not fit now will not fit later
            self.pack = min(self.pack, half)
        return f"{failure.reason}\na pack of {len(pack)} failed ({_last_line(failure)}); its halves run again"

    def _retry(self, number: int, slot: int, failure: Failed) -> str:
        self._failed_on[number] = slot
        self._in_a_row[slot] += 1
        self._again.insert(0, ([number], slot))
        return f"{failure.reason}\ntrial {number} failed ({_last_line(failure)}); it runs again"

    def _give_up(self, number: int, slot: int, failure: Failed) -> str:
        first = self._failed_on.pop(number)
        if first != slot and self._in_a_row[first]:
            self._in_a_row[first] -= 1
        self._given_up += 1
        return f"trial {number} failed twice ({_last_line(failure)}); it is left as FAIL"

    def _stop(self, failure: Failed) -> str | None:
        why = self._why_stop()
        return f"{failure.reason}\n{why}: {_ADVICE}" if why else None

    def _why_stop(self) -> str | None:
        if len(self.retired) == self.slots:
            return f"{IN_A_ROW} faults in a row on every slot"
        if self._given_up >= IN_A_ROW:
            return f"{IN_A_ROW} trials in a row failed twice"
        if not self._sound and len(self._first) == self.slots and self._first.total() >= IN_A_ROW:
            return "every slot's first run failed"
        if not self._sound and self._fruitless >= FRUITLESS:
            return f"each of the first {FRUITLESS} runs failed"
        return None


_GO_ON = "what was finished is stored, and the same command goes on from there"
_ADVICE = f"a bug or a broken machine; {_GO_ON}"


def _named(pack: Sequence[int]) -> str:
    if len(pack) == 1:
        return f"trial {pack[0]} runs again"
    return f"{len(pack)} trials, {min(pack)} to {max(pack)}, run again"


def _last_line(failure: Failed) -> str:
    return failure.reason.strip().splitlines()[-1]
