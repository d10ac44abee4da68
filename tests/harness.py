"""The loop without training: a launcher with fake metrics, and calls of `optimize` on one database."""

import signal
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from slopesearch.config import REPORTS, Report, StudySpec, TrialConfig, TrialResult
from slopesearch.search.events import Event, Listener
from slopesearch.search.given import Given
from slopesearch.search.messages import Failed, Finished, Message, Reported
from slopesearch.search.optimize import Outcome, optimize
from slopesearch.search.records import StudyRecord
from slopesearch.search.settings import Settings
from slopesearch.search.space import check
from slopesearch.search.store import Store
from slopesearch.seeds import derive
from slopesearch.training.devices import gpu_shares

FOLDER = Path("unused")


class StopsAt(list[str]):
    """Notes that press Ctrl-C when one comes that begins with `words`."""

    def __init__(self, words: str) -> None:
        self.words = words

    def append(self, text: str) -> None:
        super().append(text)
        if text.startswith(self.words):
            signal.raise_signal(signal.SIGINT)


class FakePack:
    """The configs that a slot trains, their curves, and which of them still run."""

    def __init__(self, configs: Sequence[TrialConfig]) -> None:
        self.configs = tuple(configs)
        self.curves: list[list[Report]] = [[] for _ in configs]
        self.running = set(range(len(configs)))

    def result(self, i: int) -> TrialResult:
        last = self.curves[i][-1]
        ended = "diverged" if last.diverged else "completed" if last.step == REPORTS else "pruned"
        return TrialResult(
            ended=ended,  # type: ignore[arg-type]
            curve=tuple(self.curves[i]),
            seconds=1.0,
            images_per_second=1.0,
            device="fake",
        )


class FakeLauncher:
    """Trains nothing: a trial's accuracy rises to a number derived from its config.

    Slots report in turn. `fault(config, attempt)` may raise or give the reason of a failure.
    """

    def __init__(self, devices: list[str], folder: Path) -> None:
        self.devices = devices
        self.packs: dict[int, FakePack] = {}
        self.order: list[int] = []
        self.attempts: dict[TrialConfig, int] = {}
        self.told = 0  # packs that were finished

    def shares(self) -> list[int]:
        return gpu_shares(self.devices)

    def start(self, slot: int, configs: Sequence[TrialConfig]) -> None:
        assert slot not in self.packs
        self.packs[slot] = FakePack(configs)
        self.order.append(slot)
        for config in configs:
            self.attempts[config] = self.attempts.get(config, 0) + 1

    def wait(self, timeout: float) -> tuple[int, Message] | None:
        if not self.order:
            return None
        slot = self.order.pop(self.next_slot())
        pack = self.packs[slot]
        reasons = [
            reason
            for c in pack.configs
            if (reason := self.fault(c, self.attempts[c]) or self.slot_fault(slot, len(pack.curves[0])))
        ]
        if reasons:
            del self.packs[slot]
            return slot, Failed(reason=reasons[0])
        pack.running -= {i for i, curve in enumerate(pack.curves) if curve and curve[-1].diverged}
        if not pack.running or all(len(pack.curves[i]) == REPORTS for i in pack.running):
            del self.packs[slot]
            self.told += 1
            return slot, Finished(results=tuple(map(pack.result, range(len(pack.configs)))))
        reports = {}
        for i in sorted(pack.running):
            reports[i] = self.report(pack.configs[i], len(pack.curves[i]) + 1)
            pack.curves[i].append(reports[i])
        return slot, Reported(reports=reports)

    def next_slot(self) -> int:
        """The place in `order` of the slot that speaks next."""
        return 0

    def report(self, config: TrialConfig, step: int) -> Report:
        top = (derive(0, config.model_dump_json()) % 1000) / 1000
        accuracy = top * (0.7 + 0.3 * step / REPORTS)
        return Report(step=step, train_loss=1.0, val_loss=1 - accuracy, val_accuracy=accuracy)

    def fault(self, config: TrialConfig, attempt: int) -> str | None:
        return None

    def slot_fault(self, slot: int, reported: int) -> str | None:
        return None

    def answer(self, slot: int, stop: Collection[int]) -> None:
        self.packs[slot].running -= set(stop)
        self.order.append(slot)

    def end(self, slot: int, reason: str) -> None:
        raise AssertionError("nothing hangs here")

    def close(self) -> None:
        pass


def spec(**fields: Any) -> StudySpec:
    """What to ask for; without a cover, most of whose studies would end before anything is pruned."""
    return check({"dataset": "digits", "model": "mlp", "plan": "walk", **fields})


class Harness:
    """Calls of `optimize` on one database: a SQLite file, or what a URL names."""

    def __init__(self, where: Path | str) -> None:
        self.store = Store(where if isinstance(where, str) else f"sqlite:///{where}")
        self.events: list[Event] = []

    def __call__(
        self,
        trials: int,
        asked: StudySpec | None = None,
        name: str | None = None,
        listen: Listener | None = None,
        given: Sequence[Given] = (),
        begin_from: str | None = None,
        source: str | None = None,
        **settings: Any,
    ) -> Outcome:
        defaults: dict[str, Any] = {"folder": FOLDER, "launcher": "fake", "devices": "cpu", "workers": 1}
        return optimize(
            asked or spec(),
            trials=trials,
            name=name,
            source=source,
            given=given,
            begin_from=begin_from,
            store=self.store,
            settings=Settings(**(defaults | settings)),
            listen=listen or self.events.append,
        )

    def study(self, name: str | None = None) -> StudyRecord:
        return self.store.read(name)

    def table(self) -> list[tuple[object, ...]]:
        """What must be equal between a killed study and one that never was: all but times."""
        return [
            (t.number, t.state, t.value, t.config, t.reports, t.ended, t.curve, t.stop)
            for t in self.study().trials
        ]


class Killed(BaseException):
    """Stands for SIGKILL: no handler in the program catches it."""
