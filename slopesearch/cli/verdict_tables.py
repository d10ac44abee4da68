"""What a search comes to once it was confirmed, and the studies of a verdict, whose trials are seeds."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from statistics import fmean

from slopesearch.config import TrialConfig
from slopesearch.evidence.answers import Answer, answers_of, own_runs
from slopesearch.evidence.results import (
    ConfirmedArm,
    as_share,
    confirmed_of,
    fixed_against_learned,
    openings_of,
    pick,
)
from slopesearch.evidence.statistics import FEWEST, Estimate
from slopesearch.report.answers_panel import QUESTIONS
from slopesearch.search.records import COMPARE, CONFIRM, StudyRecord
from slopesearch.search.store import Store
from slopesearch.wording import RequestError, counted, describe


def confirmation_of(store: Store, search: str) -> StudyRecord | None:
    """The confirmation of a search; None where there is none, or none that can be read."""
    try:
        found = store.find(search + CONFIRM, "ranking")
        confirmed_of(found)
    except RequestError:  # its own `show` says why
        return None
    return found


def answered_of(store: Store, search: str) -> dict[str, Answer]:
    """What a comparison of a search has answered, by question; nothing where it cannot be read."""
    try:
        return answers_of(store.find(search + COMPARE, "ranking"))
    except RequestError:  # its own `show` says why
        return {}


def unanswered(answered: Collection[str]) -> set[str]:
    """The questions that a comparison of a search leaves open; of the rate there is none."""
    return set(QUESTIONS) - {"lr"} - set(answered)


def is_finished(confirmation: StudyRecord | None) -> bool:
    """Whether a confirmation has come to its end, the test included."""
    openings = openings_of(confirmation)
    return bool(confirmed_of(confirmation) and openings and openings[-1].tested)


def compared_sentence(config: TrialConfig, answered: Mapping[str, Answer]) -> str | None:
    """What a comparison has measured of the best trial's config; None where it has not run it."""
    runs = own_runs(config, answered.values())
    if runs is None:
        return None
    error = runs.error
    accuracy = error.model_copy(update={"mean": 1 - error.mean, "low": 1 - error.high, "high": 1 - error.low})
    return (
        f"compared, at lr {runs.config.lr:.3g}: val_accuracy {_interval(as_share(accuracy))}, val_loss "
        f"{_interval(runs.loss)}, mean of {counted(len(runs.losses), 'fresh seed')} (95 %)."
    )


def confirmed_sentences(study: StudyRecord, confirmed: Sequence[ConfirmedArm]) -> list[str]:
    """The pick of a search's confirmation, what the search had seen, and its lead over the baselines."""
    best, searched = pick(confirmed), study.ranked()[0]
    told = [
        f"confirmed: {describe(best.arm.config)}",
        f"val_accuracy {_interval(as_share(best.val_accuracy))}, val_loss {_interval(best.val_loss)}: mean "
        f"of {counted(best.runs, 'fresh seed')} (95 %).",
    ]
    if best.arm.trial == searched.number:
        told.append(f"The search saw {study.spec.objective} {searched.value:.4f} of it, in one run.")
    elif searched.config not in [row.arm.config for row in confirmed]:
        told.append(
            f"The search's best is trial {searched.number} by now, with {study.spec.objective} "
            f"{searched.value:.4f} in one run: confirm again with --top 1."
        )
    else:
        told.append(
            f"The search's best, trial {searched.number} with {study.spec.objective} {searched.value:.4f}, "
            "was one lucky run, and is not the pick."
        )
    for row in confirmed:
        if row.arm.is_baseline and row.difference is not None:
            lead = row.difference.val_accuracy
            where = "Ahead of" if lead.mean > 0 else "Not ahead of"
            told.append(f"{where} {', '.join(row.arm.roles)}: val_accuracy {_interval(lead, '+')}.")
    return told


def separation_sentences(confirmed: Sequence[ConfirmedArm], numbers: Mapping[TrialConfig, int]) -> list[str]:
    """Which arms the pick is told apart from, and fixed slopes against learned ones; by the loss.

    `numbers` are those of the arms in the table above. Nothing where there is one arm.
    """
    verdicts = {
        str(numbers[row.arm.config]): row.difference.verdict
        for row in confirmed
        if row.difference is not None
    }
    if not verdicts:
        return []
    level = [number for number, verdict in verdicts.items() if verdict == "not separated"]
    if pick(confirmed).runs < FEWEST:
        told = [f"A verdict takes {FEWEST} seeds; with fewer an interval around zero separates nothing."]
    else:
        apart = sum(verdict == "separated" for verdict in verdicts.values())
        told = [f"By val_loss the pick is separated from {apart} of {counted(len(verdicts), 'other arm')}."]
    if level:
        told.append(f"Not separated from the pick: {', '.join(level)}.")
    return [*told, *_slope_sentences(confirmed, numbers)]


def _slope_sentences(confirmed: Sequence[ConfirmedArm], numbers: Mapping[TrialConfig, int]) -> list[str]:
    found = fixed_against_learned(confirmed)
    if not found:
        return []
    better, other = (row.arm.config for row in found)
    difference = found[1].difference
    assert difference is not None
    learned = {"learnable": "learned", "fixed": "fixed"}
    words = [f"{learned[str(config.slope_mode)]} ({numbers[config]})" for config in (better, other)]
    differing = [name for name in ("norm", "init", "lr") if getattr(better, name) != getattr(other, name)]
    p = "" if difference.p_loss is None else f", p {difference.p_loss:.4f}"
    loss = difference.val_loss
    said = (
        f"Slope, {words[0]} minus {words[1]}, the best of each: val_loss {loss.mean:+.4f} ± {loss.half:.4f}"
    )
    if set(differing) <= {"lr"}:
        return [f"{said}{p}, {difference.verdict}{'; they differ in lr too' if differing else ''}."]
    return [f"{said}; they differ in {' and '.join(differing)} too, so compare --only learned has to tell."]


def _interval(found: Estimate, sign: str = "") -> str:
    return f"{found.mean:{sign}.4f} ({found.low:{sign}.4f} to {found.high:{sign}.4f})"


def mean_rows(study: StudyRecord) -> list[tuple[str, int, float]]:
    """Each config of a study whose trials are seeds: how many runs ended, their mean; the best first.

    Nothing is pruned there, so a pruned one diverged, at chance.
    """
    values: dict[TrialConfig, list[float]] = defaultdict(list)
    for trial in study.trials:
        if trial.state in ("COMPLETE", "PRUNED") and trial.config is not None and trial.value is not None:
            values[trial.config.model_copy(update={"init_seed": 0, "order_seed": 0})].append(trial.value)
    rows = [(describe(config), len(found), fmean(found)) for config, found in values.items()]
    return sorted(rows, key=lambda row: row[2], reverse=study.spec.maximize)
