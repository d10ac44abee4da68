"""Files that are whole or not there: written aside, then renamed."""

import os
import secrets
from pathlib import Path
from stat import S_IMODE

from slopesearch.wording import RequestError


def write_aside(path: Path, content: bytes) -> None:
    """Write a file in one step, over one that is there; what is killed half-way leaves the old one.

    The file keeps the permissions of the one that it replaces; those of a new one are what the user's umask
    leaves. A link is followed and stays. Raises RequestError where something other than a file is there.
    """
    refuse_special(path)
    target = Path(os.path.realpath(path))
    aside = target.with_name(f".{target.name[:50]}-{secrets.token_hex(4)}")
    try:
        with aside.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            aside.chmod(S_IMODE(target.stat().st_mode))
        aside.replace(target)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def refuse_special(path: Path) -> None:
    """Raise RequestError where a path names a folder, a device or a pipe: only a file may be replaced."""
    if path.exists() and not path.is_file():
        kind = "is a folder" if path.is_dir() else "is no regular file, and only such a file is replaced"
        raise RequestError(f"'{path}' {kind}; name a file with -o")
