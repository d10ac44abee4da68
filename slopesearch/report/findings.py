"""What a study has found, in sentences that the page and the dashboard share."""

from collections.abc import Sequence

from slopesearch.config import StudySpec, TrialConfig
from slopesearch.evidence.answers import Answer, answers_of
from slopesearch.evidence.results import ConfirmedArm, confirmed_of, openings_of, pick
from slopesearch.evidence.selection import believed
from slopesearch.evidence.statistics import Estimate
from slopesearch.report.style import completed, few, objective_name
from slopesearch.report.summary import NO_VERDICTS, Verdicts
from slopesearch.search.records import StudyRecord
from slopesearch.wording import counted


def counts(study: StudyRecord) -> str:
    """The number of trials by how they ended, in a sentence."""
    names = {"COMPLETE": "completed", "PRUNED": "stopped early", "FAIL": "failed", "RUNNING": "unfinished"}
    found = {state: study.count(state) for state in names}
    told = ", ".join(f"{found[state]} {name}" for state, name in names.items() if found[state])
    given = sum(trial.is_given for trial in study.trials)
    apart = f" {given} of them given by hand, and left out where groups are compared." if given else ""
    return (
        f"{counted(len(study.trials), 'trial')}: {told}.{apart}" if told else "This study holds no trial yet."
    )


def headline(study: StudyRecord, verdicts: Verdicts) -> str:
    """What was trained, and how often, in short."""
    spec = study.spec
    trained = (
        f"{spec.model} on {spec.dataset}, {counted(spec.epochs, 'epoch')} of {spec.train_size:,} images."
    )
    answers, confirmed = answers_of(verdicts.comparison), confirmed_of(verdicts.confirmation)
    if study is verdicts.comparison:
        return f"{trained} {counted(len(study.trials), 'run')} of {_sides(answers)} declared arms."
    told = [f"{trained} {counted(len(study.trials), 'trial')} searched."]
    if confirmed:
        told.append(f"{counted(len(confirmed), 'config')} confirmed on {pick(confirmed).runs} fresh seeds.")
    if answers:
        told.append(f"{counted(len(answers), 'question')} compared.")
    return " ".join(told)


def _sides(answers: dict[str, Answer]) -> int:
    return sum(len(answer.sides) for answer in answers.values())


def lead(study: StudyRecord, verdicts: Verdicts) -> str:
    """The finding in a sentence: the confirmed pick, else what the best trial would give on a fresh seed."""
    confirmed, spec = confirmed_of(verdicts.confirmation), study.spec
    if not confirmed:
        found = believed(study)
        best = study.ranked()[:1]
        if not best or best[0].config is None or best[0].value is None:
            return "No trial has run to its end yet, so there is no best config."
        expected = (
            f"; on a fresh seed expect {found.value:.4f} ({found.low:.4f} to {found.high:.4f})"
            if found
            else ""
        )
        return (
            f"The best trial so far, {best[0].number}: {plainly(best[0].config)}. {_named(spec)} "
            f"{best[0].value:.4f} in one run{expected}."
        )
    best_arm = pick(confirmed)
    measured = best_arm.val_accuracy if spec.maximize else best_arm.val_loss
    told = (
        f"The pick: {plainly(best_arm.arm.config)}. {_named(spec)} {interval(measured, spec.maximize)} on "
        f"{best_arm.runs} fresh seeds"
    )
    for opening in openings_of(verdicts.confirmation)[-1:]:
        for tested in opening.tested[:1]:
            if tested.arm.config == best_arm.arm.config:
                told += f"; test accuracy {interval(tested.accuracy, True)}"
    return f"{told}."


def _named(spec: StudySpec) -> str:
    name = objective_name(spec)
    return name[0].upper() + name[1:]


def around(answers: dict[str, Answer], confirmed: Sequence[ConfirmedArm]) -> str:
    """Around which config the comparison swapped one choice at a time, and whether that is the pick still."""
    for question in ("activation", "norm", "init"):
        if question not in answers:
            continue
        answer = answers[question]
        config = answer.side(answer.contrasts[0].other).config
        told = f"One choice at a time was swapped in {plainly(config)}, each arm with its own learning rate"
        now = pick(confirmed).arm.config if confirmed else config
        same = {"lr", "init_seed", "order_seed", "val_size", "evaluated_on"}
        if now.model_dump(exclude=same) != config.model_dump(exclude=same):
            told += f", which was the winner then; the pick is {plainly(now)} now"
        return f"{told}."
    return ""


def belief(study: StudyRecord, verdicts: Verdicts = NO_VERDICTS) -> list[str]:
    """How far to believe the best config: what was confirmed of it, else what to expect of a lucky run."""
    ranked = completed(study)
    if not ranked:
        return []
    confirmed = confirmed_of(verdicts.confirmation)
    if confirmed:
        return _confirmed_belief(study, confirmed)
    found = believed(study)
    tied = (
        f" {counted(found.tied, 'other run')} cannot be told from it, one run against one." if found else ""
    )
    return [
        f"The best trial is the luckiest of {counted(len(ranked), 'single run')} that were chosen and ranked "
        f"by the same images, all on one init seed and one batch order.{tied}{few(len(ranked), 10)}"
    ]


def _confirmed_belief(study: StudyRecord, confirmed: Sequence[ConfirmedArm]) -> list[str]:
    """What fresh seeds made of what the search saw."""
    best, spec, told = pick(confirmed), study.spec, []
    arms = {row.arm.config: row for row in confirmed}
    top = study.ranked()[0]
    if top.config in arms:
        row = arms[top.config]
        found = row.val_accuracy if spec.maximize else row.val_loss
        told.append(
            f"The search's best, trial {top.number}, had {spec.objective} {top.value:.4f} in one run and "
            f"{interval(found, spec.maximize)} on {row.runs} fresh seeds."
        )
    else:
        told.append(
            f"The search's best is trial {top.number} by now, with {spec.objective} {top.value:.4f} in one "
            "run; it was not confirmed."
        )
    lucky = [row.shrinkage for row in confirmed if row.shrinkage is not None and not row.arm.is_baseline]
    if lucky:
        told.append(
            f"Shrinkage is how much better the search's one run was: {min(lucky):+.4f} to {max(lucky):+.4f} "
            f"over {counted(len(lucky), 'arm')} that the search chose, a mean of "
            f"{sum(lucky) / len(lucky):+.4f}. It holds the luck of the choice and that of the one seed which "
            "all trials share."
        )
    by = "the lowest mean validation loss" + (", though the search went by accuracy" if spec.maximize else "")
    told.append(
        f"The pick has {by}, over {best.runs} seeds. The intervals cover fresh seeds on the same validation "
        "images that chose the configs, so its mean is still a little optimistic; the test set is not."
    )
    return told


def plainly(config: TrialConfig) -> str:
    """A config as a part of a sentence: the searched choices alone."""
    slope = f" {slope_words(config)}" if config.negative_slope is not None else ""
    norm = "no BatchNorm" if config.norm == "none" else f"BatchNorm {config.norm} it"
    return f"{config.activation}{slope}, {norm}, {config.init} init, lr {config.lr:.3g}"


def slope_words(config: TrialConfig) -> str:
    """The slope of a config: its value, or where a learnable one starts and ends at most."""
    if config.negative_slope is None:
        return ""
    if config.slope_mode == "learnable":
        return f"learned from {config.negative_slope:.3g}, at most {config.slope_max:g}"
    return f"{config.negative_slope:.3g}"


def interval(found: Estimate, is_share: bool) -> str:
    """A mean with its 95 % interval, which ends where a share, or a loss, does."""
    high = min(found.high, 1.0) if is_share else found.high
    return f"{found.mean:.4f} ({max(found.low, 0.0):.4f} to {high:.4f})"
