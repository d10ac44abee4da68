"""A study in short, for the terminal and the page: how many of the best are shown, and the textbook's lag."""

from typing import Any

from slopesearch.search.records import VERDICTS, StudyRecord
from slopesearch.search.textbook import textbook

TOP = 5  # of the completed trials so many are shown


def textbook_rows(study: StudyRecord) -> list[dict[str, Any]]:
    """For each textbook recipe that has run: its trial, its value, and the winner's lead on it (above 0)."""
    if study.name.endswith(VERDICTS):  # whose first trials are others
        return []
    ranked = study.ranked()
    rows = []
    for number, recipe in enumerate(textbook(study.spec)):
        if number >= len(study.trials) or study.trials[number].value is None or not ranked:
            continue
        value, best = study.trials[number].value, ranked[0].value
        assert value is not None
        assert best is not None
        lead = best - value if study.spec.maximize else value - best
        rows.append({"recipe": recipe, "trial": number, "value": value, "lead": lead})
    return rows
