"""The pruner against Optuna's own, and when the Referee lets it speak."""

import random
from typing import Literal

import optuna
import pytest
from optuna.pruners import BasePruner, SuccessiveHalvingPruner
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from slopesearch.config import REPORTS, Report
from slopesearch.search.pruner import AUDIT, PRUNERS, HalvingPruner, Referee, reason
from slopesearch.search.records import Stop
from slopesearch.search.space import check, resolve
from slopesearch.seeds import derive

SPEC = resolve(check({"dataset": "digits", "seed": 0}), "float32")


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
@pytest.mark.parametrize("seed", range(3))
def test_halving_gives_optunas_verdicts(direction: Literal["maximize", "minimize"], seed: int) -> None:
    """Eight trials run at a time, in a random order, as with eight workers."""
    generator = random.Random(seed)
    ours = optuna.create_study(direction=direction, pruner=HalvingPruner())
    theirs = optuna.create_study(
        direction=direction, pruner=SuccessiveHalvingPruner(min_resource=1, reduction_factor=3)
    )
    running: list[tuple[Trial, Trial, int]] = []
    verdicts = []
    for _ in range(600):
        if len(running) < 8:
            running.append((ours.ask(), theirs.ask(), 0))
        mine, other, step = running.pop(generator.randrange(len(running)))
        value = round(generator.random(), 2)  # ties happen
        for trial in (mine, other):
            trial.report(value, step + 1)
        if step + 1 == 9:
            ours.tell(mine, value)
            theirs.tell(other, value)
            continue
        verdict = mine.should_prune()
        assert verdict == other.should_prune()
        assert verdict == mine.should_prune()  # asked again, it says the same
        verdicts.append(verdict)
        if verdict:
            ours.tell(mine, state=TrialState.PRUNED)
            theirs.tell(other, state=TrialState.PRUNED)
        else:
            running.append((mine, other, step + 1))
    assert 20 < sum(verdicts) < len(verdicts)


def test_halving_judges_at_reports_1_and_3_alone() -> None:
    study = optuna.create_study(direction="maximize", pruner=HalvingPruner())
    for value in (1.0, 0.0):
        trial = study.ask()
        verdicts = []
        for step in range(1, REPORTS + 1):
            trial.report(value, step)
            verdicts.append(trial.should_prune())
        study.tell(trial, value)
    assert [step for step, stopped in enumerate(verdicts, 1) if stopped] == [1, 3]


@pytest.mark.parametrize("name", PRUNERS)
def test_every_pruner_lets_the_best_through(name: str) -> None:
    study = optuna.create_study(direction="maximize", pruner=PRUNERS[name]())
    pruned = 0
    for number in range(40):
        trial = study.ask()
        for step in range(1, 10):
            trial.report(step * number, step)
            if step < 9 and trial.should_prune():
                pruned += 1
                study.tell(trial, state=TrialState.PRUNED)
                break
        else:
            study.tell(trial, 9 * number)
    assert pruned == 0  # each is better than all before it


@pytest.mark.parametrize(("name", "step"), [("halving", 1), ("halving", 3), ("median", 3)])
def test_pruners_stop_a_bad_trial(name: str, step: int) -> None:
    study = optuna.create_study(direction="maximize", pruner=PRUNERS[name]())
    for number in range(60):
        trial = study.ask()
        for s in range(1, 10):
            trial.report(100.0, s)
        study.tell(trial, float(number))
    stopped = 0
    for _ in range(10):
        trial = study.ask()
        trial.report(-1.0, step)
        stopped += trial.should_prune()
        study.tell(trial, state=TrialState.PRUNED)
    assert stopped == 10


class Strict(BasePruner):
    """Stops whatever it is asked about."""

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        return True


def study_with(trials: int, *, steps: int) -> Study:
    """Running trials, each with so many reports."""
    study = optuna.create_study(direction="maximize")
    for number in range(trials):
        trial = study.ask()
        for step in range(1, steps + 1):
            trial.report(float(number), step)
    return study


def at(step: int, diverged: bool = False) -> Report:
    return Report(step=step, train_loss=1.0, val_loss=1.0, val_accuracy=0.5, diverged=diverged)


AUDITED = next(number for number in range(5, 500) if derive(0, "audit", number) % AUDIT == 0)
OTHER = next(number for number in range(5, 500) if derive(0, "audit", number) % AUDIT)


@pytest.mark.parametrize(
    ("number", "steps", "report", "call"),
    [
        (OTHER, 3, at(3), "stop"),
        (AUDITED, 3, at(3), "audit"),
        (4, 3, at(3), "go on"),  # a trial of the textbook
        (OTHER, REPORTS, at(REPORTS), "go on"),  # there is nothing left to save
        (OTHER, 3, at(3, diverged=True), "go on"),  # it ends by itself
        (OTHER, 3, at(2), "go on"),  # it runs again, and step 3 is stored
    ],
)
def test_the_referee_lets_the_pruner_speak(number: int, steps: int, report: Report, call: str) -> None:
    study = study_with(AUDITED + OTHER, steps=steps)
    trial = study.get_trials(deepcopy=False)[number]
    assert Referee(Strict(), SPEC, exempt=lambda number: number < 5).call(study, trial, report)[0] == call


@pytest.mark.parametrize("name", ["halving", "median"])
def test_an_audited_trial_leaves_the_race_behind_its_verdict(name: str) -> None:
    """At report 3 the judged trial competes with the 24 that were let through, which are all better."""
    study = optuna.create_study(direction="maximize")
    for number in range(24 + 80):
        trial = study.ask()
        for step in range(1, REPORTS + 1):
            trial.report(1.0 if number < 24 else 0.0, step)
        if number >= 24:
            trial.set_user_attr("would_prune_at", 1)
        study.tell(trial, 1.0)
    trial = study.ask()
    assert derive(0, "audit", trial.number) % AUDIT
    calls = []
    for step in (1, 3):
        trial.report(0.5, step)
        stored = study.get_trials(deepcopy=False)[trial.number]
        calls.append(
            Referee(PRUNERS[name](), SPEC, exempt=lambda number: False).call(study, stored, at(step))[0]
        )
    assert calls == ["go on", "stop"]


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
@pytest.mark.parametrize(("plan", "place", "of"), [("cover", 7, 12), ("walk", 31, 36)])
def test_exempt_trials_compete_at_a_report_that_they_would_have_come_to(
    direction: Literal["maximize", "minimize"], plan: str, place: int, of: int
) -> None:
    """12 of 36 pass report 1: six of the 30 that are exempt, and the others; the 30 lead at report 3."""
    study = optuna.create_study(direction=direction)
    sign = 1 if direction == "maximize" else -1
    for number in range(36):
        first, third = (0.8 if number < 6 or number >= 30 else 0.1), (0.9 if number < 30 else 0.8)
        trial = study.ask()
        for step, value in ((1, first), (2, 0.8), (3, 0.85 if number == 35 else third)):
            trial.report(sign * value, step)
    last = study.get_trials(deepcopy=False)[35]
    spec = SPEC.model_copy(update={"plan": plan})
    call, stop = Referee(HalvingPruner(), spec, exempt=lambda number: number < 30).call(study, last, at(3))
    assert call in ("stop", "audit")
    assert stop is not None
    assert (stop.place, stop.of) == (place, of)


@pytest.mark.parametrize(("batch", "seen"), [(None, 24), (8, 16)])
def test_a_deterministic_study_judges_by_earlier_batches_alone(batch: int | None, seen: int) -> None:
    heard: list[int] = []

    class Counting(BasePruner):
        def prune(self, study: Study, trial: FrozenTrial) -> bool:
            heard.append(len(study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))))
            heard.append(len(study.get_trials(deepcopy=False)))
            return False

    study = study_with(24, steps=1)
    trial = study.get_trials(deepcopy=False)[18]
    Referee(Counting(), SPEC, exempt=lambda number: False, batch=batch).call(study, trial, at(1))
    assert heard == [seen, seen]
    assert len(study.get_trials()) == 24


def test_a_trial_of_the_first_batch_goes_on_whatever_its_report() -> None:
    study = study_with(8, steps=3)
    trial = study.get_trials(deepcopy=False)[3]
    referee = Referee(HalvingPruner(), SPEC, exempt=lambda number: False, batch=8)
    assert referee.call(study, trial, at(3)) == ("go on", None)


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_halving_says_where_a_trial_stands_and_what_would_have_gone_on(
    direction: Literal["maximize", "minimize"],
) -> None:
    """Seven rivals: two of the eight go on, so the cut is the second best of the seven."""
    sign = 1 if direction == "maximize" else -1
    study = optuna.create_study(direction=direction, pruner=HalvingPruner())
    trials = [study.ask() for _ in range(8)]
    for trial, value in zip(trials, (0.9, 0.1, 0.8, 0.2, 0.3, 0.7, 0.4, 0.6), strict=True):
        trial.report(sign * value, 1)
    found = HalvingPruner().why(study, study.get_trials()[7])
    assert found == Stop(report=1, value=sign * 0.6, place=4, of=8, cut=sign * 0.8)
    assert HalvingPruner().why(study, study.get_trials()[2]) is None  # at the cut


def test_a_pruner_of_optunas_gives_a_place_and_no_cut() -> None:
    study = optuna.create_study(direction="maximize")
    for value in (0.5, 0.7):
        study.ask().report(value, 1)
    trial = study.ask()
    trial.report(0.6, 1)
    found = reason(Strict(), study, study.get_trials()[2])
    assert found == Stop(report=1, value=0.6, place=2, of=3)
    assert found.words == "at report 1: 0.6000, place 2 of 3"
    assert reason(PRUNERS["none"](), study, study.get_trials()[2]) is None
