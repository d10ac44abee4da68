"""InlineLauncher: trains in this process; the other launchers imitate it."""

from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path

import torch

from slopesearch.config import TrialConfig
from slopesearch.search.messages import Message, Reported
from slopesearch.search.worker import advance, begin
from slopesearch.training.devices import gpu_shares, prepare
from slopesearch.training.engine import Run


class InlineLauncher:
    """One slot, on the first device, in this process: what the other launchers do, in the plainest way."""

    def __init__(self, devices: list[str], folder: Path) -> None:
        self.devices = devices[:1]
        prepare(torch.device(self.devices[0]))  # as in a worker, so that both give the same numbers
        self._folder = folder
        self._run: Run | None = None
        self._stop: Collection[int] | None = None  # None before the first report

    def shares(self) -> list[int]:
        """Of this machine's GPUs."""
        return gpu_shares(self.devices)

    def start(self, slot: int, configs: Sequence[TrialConfig]) -> None:
        """Give the slot its configs; the training happens in `wait`."""
        self._run = begin(configs, self._folder, torch.device(self.devices[slot]))
        self._stop = None

    def wait(self, timeout: float) -> tuple[int, Message] | None:
        """Train to the next report."""
        run, stop = self._run, self._stop
        if run is None:
            return None
        message = advance(partial(next, run) if stop is None else partial(run.send, stop))
        if not isinstance(message, Reported):
            self._run = None
        return 0, message

    def answer(self, slot: int, stop: Collection[int]) -> None:
        """Keep the verdict for the next `wait`."""
        self._stop = stop

    def end(self, slot: int, reason: str) -> None:
        """Nothing: this process asks, so it does not hang."""

    def close(self) -> None:
        """Nothing to end."""
