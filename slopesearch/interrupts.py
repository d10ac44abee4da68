"""Ctrl-C while modules are loaded, which takes a second, or ten on a busy machine."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def exits_at_once() -> Iterator[None]:
    """In this block Ctrl-C ends the process there and then, with exit code 130.

    A KeyboardInterrupt would come out of a module that is half loaded, or be lost in a callback of the import
    system. To be used in the main thread, before anything is written. Where Ctrl-C is ignored, or something
    else than an exception, it stays so.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, _exit)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _exit(signum: int, frame: FrameType | None) -> None:
    os._exit(130)
