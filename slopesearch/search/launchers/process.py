"""ProcessLauncher: one worker process per slot, which speaks JSON lines on its pipes."""

import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from pydantic import TypeAdapter

from slopesearch.config import TrialConfig
from slopesearch.search.messages import Answer, Failed, Finished, FromWorker, Message, Work
from slopesearch.training.devices import gpu_shares, worker_environment

GOODBYE = 5.0  # s that the workers have to end before they are killed
KILL = 1.0  # s that a killed worker has to be gone


class _Worker:
    """One worker process, its pipes, and the file that its standard error goes to."""

    def __init__(self, device: str, folder: Path, received: Callable[["_Worker", str], None]) -> None:
        # A thread reads the output: select does not work on pipes everywhere, and a queue does.
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the worker
        self.process = subprocess.Popen(
            [sys.executable, "-m", "slopesearch.search.worker_main", device, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=worker_environment(),
            encoding="utf-8",
            start_new_session=True,  # or the terminal would send Ctrl-C to the workers too
        )
        self.ended = ""  # why it was killed on purpose
        self._received = received
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.endswith("\n"):  # the last line of a worker that was killed may be half a message
                self._received(self, line)
        self.process.wait()
        self._received(self, "")

    def send(self, message: Work | Answer) -> None:
        assert self.process.stdin is not None
        with suppress(OSError):  # a dead worker is noticed by the end of its output
            self.process.stdin.write(message.model_dump_json() + "\n")
            self.process.stdin.flush()

    def how_it_died(self) -> str:
        if self.ended:
            return self.ended
        self._errors.seek(0)
        text = self._errors.read().decode(errors="replace").strip()
        return f"{text}\nthe worker process died with exit code {self.process.returncode}".strip()

    def ask_to_end(self) -> None:
        assert self.process.stdin is not None
        with suppress(OSError):  # what was left to send has nobody to read it
            self.process.stdin.close()
        self.process.terminate()

    def close(self, deadline: float) -> None:
        """Kill the process where it has not ended by a time of `time.monotonic`, and let go of its pipes.

        A process that hangs in a driver cannot even be killed. It is left behind, with its output.
        """
        self.ask_to_end()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(max(0.0, deadline - time.monotonic()))
        self.process.kill()
        self._reader.join(KILL)
        if not self._reader.is_alive() and self.process.stdout is not None:
            self.process.stdout.close()
            self._errors.close()


class ProcessLauncher:
    """One worker process for each device in the list.

    A worker that died is replaced when its slot is next started, and so is a worker that reported a fault
    other than lack of memory, since a CUDA context does not recover.
    """

    def __init__(self, devices: list[str], folder: Path) -> None:
        self.devices = devices
        self._folder = folder
        self._messages: queue.SimpleQueue[tuple[_Worker, str]] = queue.SimpleQueue()
        self._busy: set[int] = set()
        self._parse = TypeAdapter[FromWorker](FromWorker).validate_json
        self._workers = [self._launch(device) for device in devices]

    def _launch(self, device: str) -> _Worker:
        return _Worker(device, self._folder, lambda worker, line: self._messages.put((worker, line)))

    def shares(self) -> list[int]:
        """Of this machine's GPUs."""
        return gpu_shares(self.devices)

    def start(self, slot: int, configs: Sequence[TrialConfig]) -> None:
        """Send the configs to the slot's worker."""
        if self._workers[slot].process.poll() is not None or self._workers[slot].ended:
            self._workers[slot].close(time.monotonic())
            self._workers[slot] = self._launch(self.devices[slot])
        self._busy.add(slot)
        self._workers[slot].send(Work(configs=tuple(configs)))

    def wait(self, timeout: float) -> tuple[int, Message] | None:
        """The next message of a busy worker; the end of its output is a Failed."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                worker, line = self._messages.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                return None
            # An idle worker that died, or a worker that was replaced, has nothing more to say.
            if worker in self._workers and self._workers.index(worker) in self._busy:
                break
        slot = self._workers.index(worker)
        message = self._parse(line) if line else Failed(reason=worker.how_it_died())
        if isinstance(message, Finished | Failed):
            self._busy.discard(slot)
        if isinstance(message, Failed) and not message.out_of_memory:
            self.end(slot, message.reason)
        return slot, message

    def answer(self, slot: int, stop: Collection[int]) -> None:
        """Send the verdict."""
        self._workers[slot].send(Answer(stop=tuple(sorted(stop))))

    def end(self, slot: int, reason: str) -> None:
        """Kill the slot's worker; of a busy worker, `wait` then gives a Failed with the reason."""
        worker = self._workers[slot]
        worker.ended = reason
        worker.process.kill()
        self._messages.put((worker, ""))  # its output ends too, unless it cannot be killed

    def close(self) -> None:
        """Ask every worker to end, and kill those that do not."""
        for worker in self._workers:
            worker.ask_to_end()
        deadline = time.monotonic() + GOODBYE
        for worker in self._workers:
            worker.close(deadline)
