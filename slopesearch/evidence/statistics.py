"""The verdict after a search: which configs are run again, on which seeds, and what that says of each."""

import json
from collections.abc import Mapping, Sequence
from math import sqrt
from statistics import fmean, stdev
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter

from slopesearch.config import TrialConfig
from slopesearch.search.records import StudyRecord, TrialRecord
from slopesearch.search.textbook import TEXTBOOK, Params
from slopesearch.seeds import derive
from slopesearch.wording import RequestError

EARLIER = "confirmed before"
TUTORIAL, HE = "the tutorial's recipe", "ReLU with He init"  # baselines, as TEXTBOOK names them


class _Noun(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


Noun = TypeVar("Noun", bound=_Noun)


class Estimate(_Noun):
    """A mean over independent runs, their standard deviation, and the 95 % interval of the mean."""

    mean: float
    sd: float
    low: float
    high: float


def estimate(values: Sequence[float]) -> Estimate:
    """Of at least two values; the interval is Student's, mean +- t(n-1, 0.975) sd / sqrt(n)."""
    from scipy.special import stdtrit  # loaded here, so that the commands that only read start at once

    mean, sd = fmean(values), stdev(values)
    half = float(stdtrit(len(values) - 1, 0.975)) * sd / sqrt(len(values))
    return Estimate(mean=mean, sd=sd, low=mean - half, high=mean + half)


class Arm(_Noun):
    """A config to confirm, why it was chosen, and what the search saw of it.

    `trial` is None for a baseline that was not in the search, `searched` (the objective) where the search
    did not run it to its end.
    """

    roles: tuple[str, ...]
    config: TrialConfig
    trial: int | None = None
    searched: float | None = None

    @property
    def is_baseline(self) -> bool:
        """Whether the winner has to be better than this one."""
        return bool({TUTORIAL, HE} & set(self.roles))


def choose_arms(study: StudyRecord, top: int) -> list[Arm]:
    """The best few of a search, the best of each activation, and the two baselines; nothing twice.

    Raises RequestError where no trial has run to its end.
    """
    anywhere = study.best().config
    chosen = [(f"top {place}", trial.config) for place, trial in enumerate(study.ranked()[:top], start=1)]
    for activation in study.spec.space.activation or ():
        best = _best_of(study, activation)
        if best is not None:
            chosen.append((f"best {activation}", best.config))
    assert anywhere is not None
    chosen.append((TUTORIAL, _recipe(anywhere, TEXTBOOK[TUTORIAL])))
    chosen.append((HE, _recipe(anywhere, {**TEXTBOOK[HE], "lr": _best_he_lr(study)})))
    roles: dict[TrialConfig, list[str]] = {}
    for role, config in chosen:
        assert config is not None
        roles.setdefault(config, []).append(role)
    return [_arm(study, config, tuple(names)) for config, names in roles.items()]


def all_arms(chosen: Sequence[Arm], earlier: Sequence[Arm]) -> list[Arm]:
    """What is chosen now, and what was confirmed before the search went on."""
    now = {arm.config for arm in chosen}
    return [
        *chosen,
        *(arm.model_copy(update={"roles": (EARLIER,)}) for arm in earlier if arm.config not in now),
    ]


def _best_of(study: StudyRecord, activation: str) -> TrialRecord | None:
    """The best completed trial of an activation; where all were pruned, the one that got furthest."""
    complete = [t for t in study.ranked() if t.config and t.config.activation == activation]
    if complete:
        return complete[0]
    sign = 1 if study.spec.maximize else -1
    pruned = [
        trial
        for trial in study.trials
        if trial.state == "PRUNED"
        and trial.reports
        and trial.config
        and trial.config.activation == activation
    ]

    def reached(trial: TrialRecord) -> tuple[int, float]:
        last = max(trial.reports)
        return last, sign * trial.reports[last]

    return max(pruned, key=reached, default=None)


def _recipe(template: TrialConfig, recipe: Params) -> TrialConfig:
    """A textbook recipe with the data, model, budget and seeds of the search."""
    without = dict.fromkeys(("negative_slope", "slope_mode", "slope_min", "slope_max", "slope_clamp"))
    return template.model_copy(update={**without, **recipe})


def _best_he_lr(study: StudyRecord) -> float:
    """The learning rate of the best trial of ReLU with He init and no BatchNorm; the recipe's without one."""
    for trial in study.ranked():
        config = trial.config
        if config and config.activation == "relu" and config.norm == "none" and "kaiming" in config.init:
            return config.lr
    return float(TEXTBOOK[HE]["lr"])


def _arm(study: StudyRecord, config: TrialConfig, roles: tuple[str, ...]) -> Arm:
    of = [trial for trial in study.trials if trial.config == config]
    complete = [trial for trial in of if trial.state == "COMPLETE"]
    return Arm(
        roles=roles,
        config=config,
        trial=(complete or of)[0].number if of else None,
        searched=complete[0].value if complete else None,
    )


def paired(config: TrialConfig, study_seed: int, run: int) -> TrialConfig:
    """The config on fresh seed number `run`: the same init draws and batch order for every config."""
    return config.model_copy(
        update={
            "init_seed": derive(study_seed, "confirm", run, "init"),
            "order_seed": derive(study_seed, "confirm", run, "order"),
        }
    )


class Difference(_Noun):
    """The pick minus a baseline, seed by seed: the mean of the paired differences and its interval."""

    val_accuracy: Estimate
    val_loss: Estimate


class Confirmed(_Noun):
    """What fresh seeds gave of an arm, on the validation images; a run that diverged counts as chance.

    `shrinkage` is how much better the search's value was than the confirmed mean of the objective;
    `difference` is there for a baseline that is not the pick itself.
    """

    arm: Arm
    runs: int
    diverged: int
    val_accuracy: Estimate
    val_loss: Estimate
    shrinkage: float | None
    difference: Difference | None = None


def estimate_runs(runs: Sequence[TrialRecord]) -> tuple[Estimate, Estimate]:
    """(accuracy, loss) of finished runs of one config, two at least."""
    accuracies = [float(run.attributes["val_accuracy"]) for run in runs]
    return estimate(accuracies), estimate([float(run.attributes["val_loss"]) for run in runs])


def confirm_arm(arm: Arm, runs: Sequence[TrialRecord], objective: str) -> Confirmed:
    """Estimates over an arm's finished runs, two at least."""
    accuracy, loss = estimate_runs(runs)
    mean, sign = (accuracy.mean, 1) if objective == "val_accuracy" else (loss.mean, -1)
    return Confirmed(
        arm=arm,
        runs=len(runs),
        diverged=sum(run.ended == "diverged" for run in runs),
        val_accuracy=accuracy,
        val_loss=loss,
        shrinkage=None if arm.searched is None else sign * (arm.searched - mean),
    )


def confirmed_of(confirmation: StudyRecord | None) -> list[Confirmed]:
    """What is stored with the study of a confirmation that has been run to its end; else nothing."""
    return _stored(confirmation, "confirmed", Confirmed)


class Tested(_Noun):
    """What the test set said of an arm, trained on the seeds that it was confirmed on."""

    arm: Arm
    runs: int
    accuracy: Estimate
    loss: Estimate


class Opening(_Noun):
    """One opening of the test set: when, for which arms (the pick first), on how many seeds, what it said.

    Stored before it is opened; `tested` is empty until every run is there.
    """

    opened: str
    arms: tuple[Arm, ...]
    seeds: int
    tested: tuple[Tested, ...] = ()


def openings_of(confirmation: StudyRecord | None) -> list[Opening]:
    """Every opening of the test set that is stored, the last one valid."""
    return _stored(confirmation, "openings", Opening)


def _stored(record: StudyRecord | None, name: str, noun: type[Noun]) -> list[Noun]:
    rows = record.attributes.get(name, []) if record else []
    try:
        return TypeAdapter(list[noun]).validate_json(json.dumps(rows))  # type: ignore[valid-type]
    except ValueError as error:
        raise RequestError(
            f"what is stored as '{name}' of a confirmation cannot be read ({str(error).splitlines()[0]}); "
            "was it made by another version of slopesearch?"
        ) from None


def compare(
    confirmed: Sequence[Confirmed], runs: Mapping[TrialConfig, Sequence[TrialRecord]]
) -> list[Confirmed]:
    """The same rows, each baseline with how the pick differs from it; `runs` by the config of their arm."""
    best = pick(confirmed)
    mine = _by_seed(runs[best.arm.config])
    rows = []
    for row in confirmed:
        if row.arm.is_baseline and row.arm != best.arm:
            other = _by_seed(runs[row.arm.config])
            common = mine.keys() & other.keys()
            found = {
                name: estimate(
                    [mine[seed].attributes[name] - other[seed].attributes[name] for seed in common]
                )
                for name in ("val_accuracy", "val_loss")
            }
            row = row.model_copy(update={"difference": Difference(**found)})
        rows.append(row)
    return rows


def _by_seed(runs: Sequence[TrialRecord]) -> dict[tuple[int, int], TrialRecord]:
    return {(run.config.init_seed, run.config.order_seed): run for run in runs if run.config}


def pick(confirmed: Sequence[Confirmed]) -> Confirmed:
    """The arm with the lowest confirmed mean loss."""
    return min(confirmed, key=lambda row: row.val_loss.mean)
