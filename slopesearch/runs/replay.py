"""replay(): a stored trial trained again, to be compared with what was stored."""

from collections.abc import Sequence
from math import inf
from pathlib import Path
from typing import Any

import torch

from slopesearch.config import Report, TrialConfig
from slopesearch.wording import RequestError
from slopesearch.search.records import StudyRecord, TrialRecord
from slopesearch.search.store import versions
from slopesearch.training.data import load_for
from slopesearch.training.engine import train


def replay(trial: TrialRecord, folder: Path, device: torch.device) -> tuple[Report, ...]:
    """Train a stored trial again, as far as it went: its curve, as it comes out here.

    With one thread, as a worker trains, the same CPU gives the same bits. Raises RequestError where the trial
    has no curve to compare with.
    """
    if trial.config is None or not trial.curve:
        raise RequestError(
            f"trial {trial.number} ({trial.ended}) has no stored curve; choose another with --trial"
        )
    return _curve(trial.config, len(trial.curve), folder, device)


def _curve(config: TrialConfig, reports: int, folder: Path, device: torch.device) -> tuple[Report, ...]:
    run = train([config], load_for(config, folder).to(device), device)
    curve = [next(run)[0]]
    while len(curve) < reports and not curve[-1].diverged:
        curve.append(run.send(())[0])
    run.close()
    return tuple(curve)


def largest_difference(stored: Sequence[Report], new: Sequence[Report]) -> float:
    """Of any number of two curves: every field of every report; infinite where one has more of them."""
    old, here = ([row.model_dump() for row in curve] for curve in (stored, new))
    if len(old) != len(here):
        return inf
    return max(
        _difference(a[name], b[name]) for a, b in zip(old, here, strict=True) for name in Report.model_fields
    )


def _difference(a: float | tuple[float, ...], b: float | tuple[float, ...]) -> float:
    if isinstance(a, tuple) and isinstance(b, tuple):
        pairs = zip(a, b, strict=False)
        return inf if len(a) != len(b) else max((abs(x - y) for x, y in pairs), default=0.0)
    assert not isinstance(a, tuple)
    assert not isinstance(b, tuple)
    return abs(a - b)


def what_differs(study: StudyRecord, trial: TrialRecord, device: torch.device) -> list[str]:
    """What is stored of how the trial was trained, where it is otherwise here: device, versions."""
    here: dict[str, Any] = {**versions(), "device": str(device)}
    stored = {**study.attributes.get("versions", {}), "device": trial.attributes.get("device")}
    return [
        f"{name}: stored {stored[name]}, here {here.get(name, 'none')}"
        for name in stored
        if stored[name] != here.get(name)
    ]
