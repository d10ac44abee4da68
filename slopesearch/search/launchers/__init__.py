"""LAUNCHERS by name: where trials are trained on this machine. Inline is the reference; process has a worker
per device. A third, "ray", has its workers on a cluster, and is imported only where it is asked for.
"""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Protocol

from slopesearch.config import TrialConfig
from slopesearch.search.launchers.inline import InlineLauncher
from slopesearch.search.launchers.process import ProcessLauncher
from slopesearch.search.messages import Message


class Launcher(Protocol):
    """Slots that train. A slot that was started gives Reported messages, each to be answered before the slot
    says more; then one Finished or Failed, after which it is idle; a Said may come at any time, of slot -1
    where it concerns none. A Joined adds a slot, which is idle; a slot that has Left is not to be started.
    """

    devices: list[str]  # by slot

    def shares(self) -> list[int]:
        """Each worker's share of its GPU's memory in bytes; 0 on a CPU. Of slots that have not left."""

    def start(self, slot: int, configs: Sequence[TrialConfig]) -> None:
        """Give an idle slot configs of one pack key."""

    def wait(self, timeout: float) -> tuple[int, Message] | None:
        """The next message and its slot, or None after `timeout` seconds without a message."""

    def answer(self, slot: int, stop: Collection[int]) -> None:
        """Let a slot that has reported go on, without the members to stop."""

    def end(self, slot: int, reason: str) -> None:
        """End what a slot is doing, however stuck it is; a Failed with the reason comes of it."""

    def close(self) -> None:
        """End every worker, whatever it is doing, within seconds."""


LAUNCHERS: dict[str, Callable[[list[str], Path], Launcher]] = {
    "inline": InlineLauncher,
    "process": ProcessLauncher,
}
