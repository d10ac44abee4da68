"""What the terminal and the page both say of a study: its best few, the textbook, a caution."""

from typing import Any

from slopesearch.search.records import VERDICTS, StudyRecord
from slopesearch.search.textbook import textbook

TOP = 5  # how many of the completed trials are shown

# Of diagnostics without an order: the share of dead units and the gradients came out otherwise there.
NOT_COMPARABLE = "made by an earlier version, which looked behind the pool: not comparable with newer ones"


def textbook_rows(study: StudyRecord) -> list[dict[str, Any]]:
    """For each textbook recipe that has run: its trial, its value, and the winner's lead on it (above 0)."""
    if study.name.endswith(VERDICTS):  # whose first trials are others
        return []
    ranked = study.ranked()
    rows = []
    for number, recipe in enumerate(textbook(study.spec)):
        trial = study.find(number)
        if trial is None or trial.value is None or not ranked:
            continue
        value, best = trial.value, ranked[0].value
        assert best is not None
        lead = best - value if study.spec.maximize else value - best
        rows.append({"recipe": recipe, "trial": number, "value": value, "lead": lead})
    return rows
