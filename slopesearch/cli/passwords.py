"""A password on the command line: no list of processes goes on showing it."""

import sys
from contextlib import suppress
from pathlib import Path

from slopesearch.search.urls import without_password

ARGUMENTS = 45  # the field behind the name in /proc/self/stat: where the arguments begin in memory


def hide_passwords() -> bool:
    """Whether a word of the command line holds a password; the system then shows the words without it.

    On Linux. Elsewhere the system goes on showing them.
    """
    if [without_password(word) for word in sys.argv] == sys.argv:
        return False
    with suppress(OSError, ValueError, IndexError):
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        start, end = (int(field) for field in fields[ARGUMENTS : ARGUMENTS + 2])
        with Path("/proc/self/mem").open("r+b", buffering=0) as memory:
            memory.seek(start)
            words = memory.read(end - start).split(b"\0")
            shown = b"\0".join(without_password(word.decode("latin-1")).encode("latin-1") for word in words)
            memory.seek(start)
            memory.write(shown.ljust(end - start, b"\0"))
    return True
