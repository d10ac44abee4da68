"""A study that begins with the trials of another: what it takes, what it leaves out, and what kills it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest

from slopesearch.search.events import Noted
from slopesearch.search.given import Given
from slopesearch.search.inherit import inheritance, widened
from slopesearch.search.launchers import LAUNCHERS
from slopesearch.search.space import check, resolve
from slopesearch.wording import RequestError
from tests.harness import FakeLauncher, Harness, Killed, spec
from tests.test_optimize import killed_at

NARROW = {"activation": ["relu", "leaky_relu"], "lr": {"low": 1e-4, "high": 1e-2, "log": True}}
WIDER = {"activation": ["relu", "leaky_relu", "gelu"], "lr": {"low": 1e-5, "high": 1e-1, "log": True}}


@pytest.fixture(autouse=True)
def _fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LAUNCHERS, "fake", FakeLauncher)


@pytest.fixture
def harness(tmp_path: Path) -> Harness:
    made = Harness(tmp_path / "x.db")
    made(30, spec(space=NARROW), name="old")
    return made


def wider(**fields: Any) -> Any:
    return check({"space": WIDER, **fields})


def notes(harness: Harness) -> list[str]:
    return [event.text for event in harness.events if isinstance(event, Noted)]


def test_a_wider_study_takes_every_trial_as_it_was(harness: Harness) -> None:
    outcome = harness(40, wider(), name="new", begin_from="old")
    assert outcome.finished == 40
    old, new = harness.study("old"), harness.study("new")
    assert "new begins with 30 of the 30 trials of 'old'; --trials counts them" in notes(harness)
    for before, after in zip(old.trials, new.trials[:30], strict=True):
        taken = {"taken_from": f"old, trial {before.number}"}
        assert after.attributes == taken | before.attributes
        assert (after.state, after.value, after.config) == (before.state, before.value, before.config)
        assert (after.reports, after.curve) == (before.reports, before.curve)
    assert new.attributes["begun_from"] == {"study": "old", "taken": 30, "left_out": {}}
    assert new.spec == old.spec.model_copy(update={"space": new.spec.space})
    configs = [trial.config for trial in new.trials]
    assert len(set(configs)) == len(configs)  # the recipes do not run again
    assert any(config.activation == "gelu" for config in configs[30:] if config)
    assert old.trials == harness.study("old").trials


def test_optuna_goes_on_with_it(harness: Harness) -> None:
    harness(31, wider(), name="new", begin_from="old")
    study = optuna.load_study(study_name="new", storage=harness.store.url)
    assert len(study.get_trials()) == 31
    study.sampler = optuna.samplers.TPESampler(n_startup_trials=5)
    trial = study.ask()
    for name, distribution in study.get_trials()[0].distributions.items():
        trial._suggest(name, distribution)
    assert trial.params["lr"] > 0


def test_what_is_no_point_of_the_space_is_left_out_and_counted(harness: Harness) -> None:
    old = harness.study("old")
    other = check({"space": {**NARROW, "activation": ["relu"], "norm": ["none", "before"]}})
    harness(30, other, name="new", begin_from="old")
    left_out = harness.study("new").attributes["begun_from"]["left_out"]
    configs = [trial.config for trial in old.trials if trial.config]
    leaky = [config for config in configs if config.activation != "relu"]
    assert left_out["outside by activation and norm"] == sum(config.norm == "after" for config in leaky)
    assert left_out["outside by activation"] == sum(config.norm != "after" for config in leaky)
    assert left_out["outside by norm"] == sum(c.norm == "after" and c.activation == "relu" for c in configs)
    assert sum(left_out.values()) + harness.study("new").attributes["begun_from"]["taken"] == 30
    (told,) = notes(harness)
    assert "; left out: " in told
    assert f"{left_out['outside by activation']} outside by activation" in told


def test_failed_and_unfinished_trials_are_left_out(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        killed_at(20, patch)
        with pytest.raises(Killed):
            harness(60, name="old")
    with harness.store.writing("old") as storage:
        study = optuna.load_study(study_name="old", storage=storage)
        study.tell(study.ask(), state=optuna.trial.TrialState.FAIL)
    harness(31, wider(), name="new", begin_from="old")
    assert harness.study("new").attributes["begun_from"]["left_out"] == {"unfinished": 1, "failed": 1}


def test_trials_that_were_stored_with_a_start_above_its_bound_are_taken(harness: Harness) -> None:
    old = harness.study("old")
    trials = [
        replace(trial, config=trial.config.model_copy(update={"negative_slope": 0.4}))
        for trial in old.trials
        if trial.config is not None and trial.config.slope_max == 0.1
    ]
    assert trials
    taken = inheritance(replace(old, trials=trials), resolve(check(widened(old, wider())), "float32"))
    assert (len(taken.trials), taken.left_out) == (len(trials), {})


def test_what_a_person_gave_stays_by_hand(harness: Harness) -> None:
    choices = {"activation": "relu", "norm": "none", "init": "orthogonal", "lr": 0.002}
    harness(30, name="old", given=[Given("a", choices)])
    harness(32, wider(), name="new", begin_from="old")
    assert [trial.number for trial in harness.study("new").trials if trial.is_given] == [30]


def test_with_a_cover_and_batches_it_does_not_depend_on_its_workers(tmp_path: Path) -> None:
    """Those that were taken compete at a later report where they would have come to it, see Referee."""
    tables = []
    for i, workers in enumerate((1, 5)):
        harness = Harness(tmp_path / f"{i}.db")
        harness(40, spec(space=NARROW, plan="cover"), name="old", deterministic=True)
        harness(96, wider(), name="new", begin_from="old", deterministic=True, workers=workers)
        tables.append([(t.number, t.state, t.value, t.config, t.stop) for t in harness.study("new").trials])
        stops = [t.stop for t in harness.study("new").trials[40:] if t.stop and t.stop.report == 3]
        assert any(stop.of < 40 for stop in stops)
    assert tables[0] == tables[1]


def test_other_pruner_and_sampler_may_be_asked_for(harness: Harness) -> None:
    harness(40, check({"pruner": "none", "sampler": "random"}), name="new", begin_from="old")
    new = harness.study("new")
    assert (new.spec.pruner, new.spec.sampler, new.spec.space) == (
        "none",
        "random",
        harness.study("old").spec.space,
    )
    assert {trial.state for trial in new.trials[30:]} == {"COMPLETE"}


@pytest.mark.parametrize(
    ("fields", "arguments", "sentence"),
    [
        ({"dataset": "mnist"}, {"name": "new"}, "  dataset: stored digits, given mnist"),
        (
            {"epochs": 3, "seed": 2},
            {"name": "new"},
            "  epochs: stored 12, given 3\n  seed: stored 0, given 2",
        ),
        (
            {},
            {"name": "old"},
            "--from begins a new study, and 'old' is there already; name another: --name old-2",
        ),
        ({}, {"name": "new", "begin_from": "none"}, "there is no study 'none'; the storage"),
        (
            {"space": {"activation": "elu"}},
            {"name": "new"},
            "nothing of 'old' fits, so there is nothing to begin",
        ),
        ({"space": {"activation": "rellu"}}, {"name": "new"}, "unknown activation 'rellu'"),
    ],
)
def test_a_wrong_request_writes_nothing(
    harness: Harness, fields: dict[str, Any], arguments: dict[str, Any], sentence: str
) -> None:
    before = harness.store.summaries()
    with pytest.raises(RequestError) as refused:
        harness(40, check(fields), **{"begin_from": "old", **arguments})
    assert sentence in str(refused.value)
    assert harness.store.summaries() == before


def test_other_images_are_refused(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slopesearch.search.optimize.content_hash", lambda *_: "others")
    with pytest.raises(RequestError, match="images differ from those that the study 'old' began with"):
        harness(40, wider(), name="new", begin_from="old")


def test_the_same_command_goes_on_and_the_other_fields_are_refused(harness: Harness) -> None:
    harness(35, wider(), name="new", begin_from="old")
    harness.events.clear()
    assert harness(40, wider(), name="new", begin_from="old").finished == 40
    assert notes(harness) == []
    assert sum("taken_from" in trial.attributes for trial in harness.study("new").trials) == 30
    with pytest.raises(RequestError, match="the study 'new' was asked something else"):
        harness(40, name="new", begin_from="old")
    assert harness(41, name="new").finished == 41  # without --from, like any study


def test_killed_at_any_write_it_is_the_same_study(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    def table(name: str) -> list[tuple[object, ...]]:
        return [(t.number, t.state, t.config, t.reports, t.stop) for t in harness.study(name).trials]

    harness(50, wider(), name="whole", begin_from="old")
    kills = 0
    for commit in (*range(1, 14), *(11, 13, 17, 19) * 4):
        with monkeypatch.context() as patch:
            killed_at(commit, patch)
            try:
                harness(50, wider(), name="pieces", begin_from="old")
            except Killed:
                kills += 1
    harness(50, wider(), name="pieces", begin_from="old")
    assert kills >= 15
    assert table("pieces") == table("whole")
