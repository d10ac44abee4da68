"""What the terminal and the page both say of a study: its best few, the textbook, a caution."""

from dataclasses import dataclass
from typing import Any

from slopesearch.search.records import COMPARE, CONFIRM, TUNE, VERDICTS, StudyRecord, TrialRecord
from slopesearch.search.store import Store
from slopesearch.search.textbook import follows, textbook

TOP = 5  # how many of the completed trials are shown

# Of diagnostics without an order: the share of dead units and the gradients came out otherwise there.
NOT_COMPARABLE = "made by an earlier version, which looked behind the pool: not comparable with newer ones"


@dataclass(frozen=True)
class Verdicts:
    """What `confirm` and `compare` stored beside a search; None where they did not run."""

    confirmation: StudyRecord | None = None
    comparison: StudyRecord | None = None
    tuning: StudyRecord | None = None


NO_VERDICTS = Verdicts()


def verdicts_of(store: Store, name: str) -> Verdicts:
    """The studies of the verdict of a search, read for their ranking."""
    return Verdicts(*(store.find(name + part, "ranking") for part in (CONFIRM, COMPARE, TUNE)))


def textbook_rows(study: StudyRecord) -> list[dict[str, Any]]:
    """For each textbook recipe that has run: its trial, its value, and the winner's lead on it (above 0)."""
    if study.name.endswith(VERDICTS):  # which run a recipe on many seeds
        return []
    ranked = study.ranked()
    rows = []
    for recipe, trial in recipe_trials(study).items():
        if trial.value is None or not ranked:
            continue
        value, best = trial.value, ranked[0].value
        assert best is not None
        lead = best - value if study.spec.maximize else value - best
        rows.append({"recipe": recipe, "trial": trial.number, "value": value, "lead": lead})
    return rows


def recipe_trials(study: StudyRecord) -> dict[str, TrialRecord]:
    """The first trial of each recipe, in the textbook's order."""
    recipes = textbook(study.spec)
    found: dict[str, TrialRecord] = {}
    for trial in study.trials:
        for name, recipe in recipes.items():
            if name not in found and trial.config is not None and follows(trial.config, recipe):
                found[name] = trial
        if len(found) == len(recipes):
            break
    return {name: found[name] for name in recipes if name in found}
