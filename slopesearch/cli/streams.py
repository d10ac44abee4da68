"""Standard output and error of a process whose audience may leave: `| head -1`, a terminal that is gone."""

import errno
import io
import sys
from typing import Any


class _Unheard(io.FileIO):
    """A stream that goes on, without a word, when nobody reads it any more."""

    def write(self, data: bytes) -> int:  # type: ignore[override]  # of whatever holds bytes
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EIO):  # the reader of the pipe; the terminal
                raise
            return memoryview(data).nbytes


def outlive_the_audience() -> None:
    """Make what is printed from now on be lost, and nothing else, once nobody reads it.

    A study that takes hours must not end because a pager did.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, io.TextIOWrapper):  # None where the process was started without it
            continue
        raw: Any = _Unheard(stream.fileno(), "w", closefd=False)
        unbuffered = isinstance(stream.buffer, io.RawIOBase)  # python -u
        text = io.TextIOWrapper(
            raw if unbuffered else io.BufferedWriter(raw),
            stream.encoding,
            stream.errors,
            line_buffering=stream.line_buffering,
            write_through=stream.write_through,
        )
        setattr(sys, name, text)
