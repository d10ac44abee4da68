"""replay_trial(): the config of a stored trial trained again, and how its curve differs."""

from collections.abc import Sequence
from math import inf
from pathlib import Path
from typing import Any

import torch

from slopesearch.config import Report
from slopesearch.search.records import StudyRecord, TrialRecord
from slopesearch.search.store import versions
from slopesearch.training.data import load_for
from slopesearch.training.engine import train
from slopesearch.wording import RequestError


def replay_trial(trial: TrialRecord, folder: Path, device: torch.device) -> tuple[Report, ...]:
    """Train the config of a stored trial again, as far as the trial went; the new curve.

    With one thread, as a worker trains, the same CPU gives the same bits. Raises RequestError where the trial
    has no curve to compare with.
    """
    if trial.config is None or not trial.curve:
        raise RequestError(
            f"trial {trial.number} ({trial.ended}) has no stored curve; choose another with --trial"
        )
    run = train([trial.config], load_for(trial.config, folder).to(device), device)
    curve = [next(run)[0]]
    while len(curve) < len(trial.curve) and not curve[-1].diverged:
        curve.append(run.send(())[0])
    run.close()
    return tuple(curve)


def largest_difference(stored: Sequence[Report], new: Sequence[Report]) -> float:
    """The largest difference between two numbers of the curves; infinite where one lacks a number."""
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
    """A sentence for each condition of the stored run (device, versions) that is another one here."""
    here: dict[str, Any] = {**versions(), "device": str(device)}
    stored = {**study.attributes.get("versions", {}), "device": trial.attributes.get("device")}
    return [
        f"{name}: stored {stored[name]}, here {here.get(name, 'none')}"
        for name in stored
        if stored[name] != here.get(name)
    ]
