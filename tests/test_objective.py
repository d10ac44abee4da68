"""The library without the command line: the README's example, Objective in a study of one's own."""

import subprocess
import sys
from pathlib import Path

import optuna
import pytest

import slopesearch
from slopesearch import Objective, StudySpec
from slopesearch.training.data import load_test
from slopesearch.wording import RequestError

SPEC = StudySpec(dataset="digits", model="mlp", epochs=2)


def test_it_runs_in_a_study_with_its_own_sampler_and_pruner() -> None:
    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.RandomSampler(seed=1),
        pruner=optuna.pruners.PercentilePruner(30, n_startup_trials=4),
    )
    study.optimize(Objective(SPEC), n_trials=20)
    states = [trial.state.name for trial in study.trials]
    assert set(states) == {"COMPLETE", "PRUNED"}
    best = study.best_trial
    assert best.value == best.user_attrs["val_accuracy"] == best.intermediate_values[9]
    assert best.user_attrs["config"]["lr"] == best.params["lr"]
    assert best.user_attrs["seed"] == SPEC.seed
    pruned = study.trials[states.index("PRUNED")]
    assert pruned.user_attrs["ended"] == "pruned"
    assert len(pruned.intermediate_values) < 9


def test_the_same_parameters_give_the_same_value() -> None:
    values = []
    for _ in range(2):
        study = optuna.create_study(direction="minimize", sampler=optuna.samplers.RandomSampler(seed=1))
        study.optimize(Objective(SPEC.model_copy(update={"objective": "val_loss"})), n_trials=1)
        values.append(study.best_value)
    assert values[0] == values[1]


def test_divergence_is_pruned_at_chance() -> None:
    from slopesearch.config import Space

    spec = StudySpec(dataset="digits", model="mlp", epochs=2, space=Space(activation=("relu",), lr=(1e6,)))
    study = optuna.create_study(direction="maximize")
    study.optimize(Objective(spec), n_trials=1)
    (trial,) = study.trials
    assert (trial.state.name, trial.value, trial.user_attrs["ended"]) == ("PRUNED", 0.1, "diverged")


def test_a_study_in_the_wrong_direction_is_refused() -> None:
    study = optuna.create_study()
    with pytest.raises(RequestError, match=r'optuna\.create_study\(direction="maximize"\)'):
        study.optimize(Objective(SPEC), n_trials=1)


def test_a_wrong_spec_is_refused_before_it_runs() -> None:
    with pytest.raises(RequestError, match="unknown model 'resnet'"):
        Objective(StudySpec(model="resnet"))


def test_the_test_set_is_no_part_of_what_is_searched() -> None:
    objective = Objective(SPEC)
    test = {image.numpy().tobytes() for image in load_test("digits", Path("unused"))[0]}
    searched = {
        image.numpy().tobytes() for image in (*objective.data.train_images, *objective.data.val_images)
    }
    assert len(test) >= 398
    assert len(test & searched) <= 2  # twins among the 1,797 originals


def test_public_names_are_all_there() -> None:
    assert all(getattr(slopesearch, name) for name in slopesearch.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        slopesearch.nothing  # noqa: B018


def test_public_names_are_listed_before_they_are_used_and_optuna_goes_on_talking() -> None:
    """In a process of its own: here everything is imported, and `optimize` has made Optuna quiet."""
    program = (
        "import optuna, sys, slopesearch\n"
        "assert set(slopesearch.__all__) <= set(dir(slopesearch)), dir(slopesearch)\n"
        "assert 'torch' not in sys.modules\n"
        "before = optuna.logging.get_verbosity()\n"
        "slopesearch.Objective(slopesearch.StudySpec(dataset='digits', model='mlp'))\n"
        "assert optuna.logging.get_verbosity() == before\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=250)
