"""Stored studies as JSON for programs; without torch."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from slopesearch.evidence.answers import NO_ANSWERS, Answer, own_runs
from slopesearch.evidence.health import health
from slopesearch.evidence.results import ConfirmedArm, Opening, confirmed_of, openings_of, pick
from slopesearch.evidence.selection import believed
from slopesearch.report.summary import textbook_rows
from slopesearch.search.records import StudyRecord, TrialRecord


def study_json(
    study: StudyRecord,
    top: Sequence[TrialRecord],
    confirmation: StudyRecord | None = None,
    answered: Mapping[str, Answer] = NO_ANSWERS,
    where: str = "",
) -> str:
    """A study for programs; `top` are its best trials, whole. The others as in `study_table`."""
    if confirmed := confirmed_of(study):
        return confirmation_json(confirmed, openings_of(study))
    arms, best = confirmed_of(confirmation), study.ranked()[:1]
    compared = own_runs(best[0].config, answered.values()) if best and best[0].config else None
    return json.dumps(
        {
            "name": study.name,
            "spec": study.spec.model_dump(mode="json"),
            "complete": study.count("COMPLETE"),
            "pruned": study.count("PRUNED"),
            "running": study.running,
            "waiting": study.waiting,
            "failed": study.count("FAIL"),
            "top": [_trial_data(trial) for trial in top],
            "textbook": textbook_rows(study),
            "believed": found.model_dump() if (found := believed(study)) else None,
            "confirmed": pick(arms).model_dump(mode="json") if arms else None,
            "compared": compared.model_dump(mode="json") if compared else None,
            "health": [asdict(doubt) for doubt in health(study, arms, answered, where)],
            "unreadable": study.unreadable,
        },
        indent=2,
    )


def confirmation_json(confirmed: Sequence[ConfirmedArm], openings: Sequence[Opening]) -> str:
    """A confirmation for programs; the last of the `openings` is the valid test."""
    return json.dumps(
        {
            "confirmed": [row.model_dump(mode="json") for row in confirmed],
            "pick": pick(confirmed).model_dump(mode="json"),
            "openings": [row.model_dump(mode="json") for row in openings],
        },
        indent=2,
    )


def trial_json(trial: TrialRecord, why: Sequence[str] = ()) -> str:
    """A trial for programs; `why` it was stopped, in sentences."""
    return json.dumps({**_trial_data(trial), "why": list(why)}, indent=2)


def _trial_data(trial: TrialRecord) -> dict[str, Any]:
    stored = trial.attributes | trial.bulk()
    return {"number": trial.number, "state": trial.state, "value": trial.value, **stored}
