"""What was tried once on this machine and found right, kept in the user's cache folder."""

import json
import os
from pathlib import Path

from slopesearch.files import write_aside
from slopesearch.wording import RequestError

MOST = 100  # keys that a file keeps, the latest


def _file(name: str) -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "slopesearch" / f"{name}.json"


def remembered(name: str) -> list[str]:
    """The keys of what was found right, under a name for the kind of thing."""
    try:
        return list(map(str, json.loads(_file(name).read_text())))
    except (OSError, ValueError, TypeError, RuntimeError):
        return []  # none yet, not ours, or no home: then it is tried again


def remember(name: str, key: str) -> None:
    """Add a key, once; where that cannot be written it is tried again next time."""
    known = remembered(name)
    if key in known:
        return
    try:
        _file(name).parent.mkdir(parents=True, exist_ok=True)
        write_aside(_file(name), json.dumps([*known, key][-MOST:], indent=1).encode())
    except (OSError, RuntimeError, RequestError):  # the last: no file stands there
        pass
