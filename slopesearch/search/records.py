"""What is stored of a study and its trials, and how it is read back; without torch and without Optuna."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from slopesearch.config import Diagnostics, Report, ResolvedSpec, TrialConfig, TrialResult
from slopesearch.wording import RequestError

CONFIRM, TEST = "/confirm", "/test"  # behind the name of a search: the studies of its verdict
VERDICTS = (CONFIRM, TEST)
AUDITED = "would_prune_at"  # the first report step at which a trial that ran on would have been stopped
BULKY = ("curves", "layers")  # 5 of the 13 kB that a trial takes in memory; the loop does not need them


def attributes_of(result: TrialResult) -> dict[str, Any]:
    """What a trial stores of its run: flat attributes that read well as columns, and the two BULKY ones."""
    final, inside = result.final, result.diagnostics
    values: dict[str, Any] = {
        "val_accuracy": final.val_accuracy,
        "val_loss": final.val_loss,
        "train_loss": final.train_loss,
        "seconds": round(result.seconds, 3),
        "images_per_second": round(result.images_per_second, 1),
        "device": result.device,
        "ended": result.ended,
        "curves": [json.loads(report.model_dump_json()) for report in result.curve],
    }
    if inside is not None:
        values["dead_fraction"] = round(inside.dead_fraction, 4)
        values["layers"] = json.loads(inside.model_dump_json())
        if inside.grad_attenuation is not None:
            values["grad_attenuation"] = round(inside.grad_attenuation, 4)
    return values


@contextmanager
def _as_written(number: int, name: str) -> Iterator[None]:
    """Raise RequestError where what is stored of a trial is not what was written."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise RequestError(
            f"the stored {name} of trial {number} cannot be read ({str(error).splitlines()[0]}); was it made "
            "by another version of slopesearch?"
        ) from None


@dataclass(frozen=True)
class TrialRecord:
    """A stored trial, read back. `value` is the objective; `reports` holds it by report step, 1 to 9.

    A trial that was interrupted before it was told has state "RUNNING" and runs again.
    """

    number: int
    state: str
    value: float | None
    config: TrialConfig | None
    reports: dict[int, float]
    attributes: dict[str, Any]

    @property
    def ended(self) -> str:
        """Why its run ended: completed, pruned, diverged or failed: …; "running" while it has not ended."""
        return str(self.attributes.get("ended", "running"))

    @property
    def curve(self) -> tuple[Report, ...]:
        """Every report of the run, once it has ended. Raises RequestError where it was tampered with."""
        with _as_written(self.number, "curve"):
            return tuple(
                Report.model_validate_json(json.dumps(row)) for row in self.attributes.get("curves", [])
            )

    @property
    def diagnostics(self) -> Diagnostics | None:
        """What the network looked like inside; None for runs that diverged, and in older studies."""
        layers = self.attributes.get("layers")
        with _as_written(self.number, "diagnostics"):
            return None if layers is None else Diagnostics.model_validate_json(json.dumps(layers))


@dataclass(frozen=True)
class StudySummary:
    """A line of `list`."""

    name: str
    complete: int
    pruned: int
    running: int
    failed: int
    best: float | None


@dataclass(frozen=True)
class StudyRecord:
    """A stored study, read back: what was asked, every trial, and what else is stored of it."""

    name: str
    spec: ResolvedSpec
    trials: list[TrialRecord]
    attributes: dict[str, Any] = field(default_factory=dict)  # of the study, such as its versions

    def trial(self, number: int) -> TrialRecord:
        """The trial of a number. Raises RequestError where there is none."""
        if not 0 <= number < len(self.trials):
            raise RequestError(
                f"the study '{self.name}' has {len(self.trials)} trials, numbered from 0; given {number}"
            )
        return self.trials[number]

    def best(self) -> TrialRecord:
        """The best completed trial. Raises RequestError where none has run to its end."""
        ranked = self.ranked()
        if not ranked:
            raise RequestError(f"no trial of the study '{self.name}' has run to its end yet; run it first")
        return ranked[0]

    def ranked(self) -> list[TrialRecord]:
        """The completed trials, best first; of equal trials the earlier first."""
        sign = -1 if self.spec.maximize else 1
        complete = [trial for trial in self.trials if trial.state == "COMPLETE"]
        return sorted(complete, key=lambda trial: (sign * (trial.value or 0.0), trial.number))

    def count(self, state: str) -> int:
        """How many trials are in a state."""
        return sum(trial.state == state for trial in self.trials)
