"""How a worker starts and ends: it listens to its parent before it loads torch, and never outlives it.

`python -m slopesearch.search.worker_main DEVICE DATA_FOLDER` is a worker on its standard input and output.
"""

import os
import queue
import signal
import sys
import threading
from typing import TextIO


class ParentLines:
    """The lines that the parent sends, read by a thread as they come. Their end is the end of this process.

    The system closes the pipes of a parent that was killed, and what is computed after that has no reader.
    The main thread would notice at its next report, which may be hours away.
    """

    def __init__(self, stream: TextIO) -> None:
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._listen, args=(stream,), daemon=True).start()

    def _listen(self, stream: TextIO) -> None:
        for line in stream:
            self._lines.put(line)
        os._exit(0)

    def readline(self) -> str:
        """Wait for the next line."""
        return self._lines.get()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    lines = ParentLines(sys.stdin)
    from slopesearch.search.worker import main

    main(lines.readline)
