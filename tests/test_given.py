"""Configs by hand: what does not fit is named, what fits runs next and once, whatever kills the study."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest

from slopesearch.config import Report, TrialConfig
from slopesearch.report.findings import counts
from slopesearch.report.page import tables_of
from slopesearch.report.plots import COMPARING
from slopesearch.search.events import Noted
from slopesearch.search.given import OTHERS, Backlog, Given, choices_of, misfits, place
from slopesearch.search.launchers import LAUNCHERS
from slopesearch.search.loop import BATCH
from slopesearch.search.messages import Message
from slopesearch.search.records import GIVEN, TrialRecord
from slopesearch.search.schedule import Schedule
from slopesearch.search.space import resolve
from slopesearch.wording import RequestError
from tests.conftest import make_config
from tests.harness import FakeLauncher, Harness, Killed, spec
from tests.synthetic import record, spec_of, study_with
from tests.test_optimize import killed_at

SPEC = resolve(spec(), "float32")
RELU = {"activation": "relu", "norm": "none", "init": "orthogonal", "lr": 0.002}
LEAKY = {**RELU, "activation": "leaky_relu", "slope_mode": "fixed", "negative_slope": 0.2}
LEARNED = {**LEAKY, "slope_mode": "learnable", "slope_max": 0.3}
HE = {"activation": "relu", "norm": "none", "init": "kaiming_normal", "lr": 1e-3}


def by_hand(*choices: dict[str, Any]) -> list[Given]:
    return [Given(f"'{n}.toml'", one) for n, one in enumerate(choices)]


@pytest.fixture(autouse=True)
def _fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LAUNCHERS, "fake", FakeLauncher)


@pytest.fixture
def harness(tmp_path: Path) -> Harness:
    return Harness(tmp_path / "x.db")


def given_of(harness: Harness, name: str | None = None) -> list[tuple[int, float]]:
    """The number and the learning rate of each trial that was given by hand."""
    trials = harness.study(name).trials
    return [(trial.number, trial.config.lr) for trial in trials if trial.is_given and trial.config]


# What does not fit


@pytest.mark.parametrize("choices", [RELU, LEAKY, LEARNED])
def test_a_whole_config_fits_and_is_placed_as_if_it_were_drawn(choices: dict[str, Any]) -> None:
    assert misfits(SPEC, Given("", choices)) == {}
    placed = place(SPEC, choices)
    assert placed.params == choices
    assert choices_of(placed.config) == choices
    assert set(placed.distributions) == set(choices)


@pytest.mark.parametrize(
    ("changes", "sentences"),
    [
        ({"lr": 0.5}, ["lr: the space holds 0.0001 to 0.03 (log), given 0.5"]),
        ({"lr": "fast"}, ["lr: the space holds 0.0001 to 0.03 (log), given 'fast'"]),
        ({"lr": True}, ["lr: the space holds 0.0001 to 0.03 (log), given True"]),
        ({"lr": None}, ["lr: is missing; the space holds 0.0001 to 0.03 (log)"]),
        ({"norm": "layer"}, ["norm: the space holds none, before, after, given 'layer'"]),
        ({"negative_slope": 0.1}, ["negative_slope: there is none for such a config, given 0.1"]),
        (
            {"slope": 0.1},
            ["unknown key 'slope'; choose from activation, slope_mode, negative_slope, slope_max,"],
        ),
        ({"init": ["a"]}, ["init: the space holds default, kaiming_normal"]),
        (
            {"activation": "leaky_relu", "lr": 1},
            ["slope_mode: is missing", "negative_slope: is missing", "lr: the space holds"],
        ),
        (
            {**LEARNED, "slope_max": 0.2},
            ["slope_max: the space holds 0.1, 0.3, 1.0, given 0.2"],
        ),
        (
            {"activation": "mish", "norm": 3},
            ["activation: the space holds relu, leaky_relu", "norm: the space"],
        ),
    ],
)
def test_each_field_outside_the_space_gets_a_sentence(changes: dict[str, Any], sentences: list[str]) -> None:
    found = list(misfits(SPEC, Given("", {**RELU, **changes})).values())
    assert len(found) == len(sentences)
    assert all(text.startswith(start) for text, start in zip(found, sentences, strict=True)), found


def test_what_the_space_fixes_may_be_left_out() -> None:
    fixed = spec_of(space={"activation": "relu", "init": "orthogonal", "norm": ["none", "before"]})
    assert misfits(fixed, Given("", {"norm": "none", "lr": 0.002})) == {}
    assert place(fixed, {"norm": "none", "lr": 0.002}).config.init == "orthogonal"
    whole = place(spec_of(space={"lr": [1.0, 2.0]}), {**RELU, "lr": 1})
    assert (whole.params["lr"], type(whole.params["lr"])) == (1.0, float)


def test_another_network_or_data_set_is_no_point_of_the_space() -> None:
    config = make_config(dataset="mnist", width=64, activation="relu", epochs=99, init_seed=7, lr=0.002)
    others = {name: getattr(config, name) for name in OTHERS}
    found = misfits(SPEC, Given("", choices_of(config), others))
    assert list(found) == ["dataset", "width", "batch_size", "output_gain"]  # and not its budget or seeds
    assert found["dataset"] == "dataset: the study has digits, given mnist"


def test_what_does_not_fit_is_refused_file_by_file_and_nothing_is_written(
    harness: Harness, tmp_path: Path
) -> None:
    with pytest.raises(RequestError) as refused:
        harness(5, given=by_hand(RELU, {**RELU, "lr": 1.0}, {**RELU, "norm": "x", "lr": 1.0}))
    assert refused.value.sentences == (
        "what is given does not fit into the study 'digits-mlp':",
        "  '1.toml': lr: the space holds 0.0001 to 0.03 (log), given 1.0",
        "  '2.toml': norm: the space holds none, before, after, given 'x'",
        "  '2.toml': lr: the space holds 0.0001 to 0.03 (log), given 1.0",
    )
    assert list(tmp_path.iterdir()) == []


# What fits


def test_given_configs_are_the_first_trials_of_a_new_study_and_the_plan_follows(harness: Harness) -> None:
    assert harness(12, given=by_hand(LEAKY, HE)).finished == 12
    study = harness.study()
    assert [trial.is_given for trial in study.trials] == [True, True, *[False] * 10]
    assert [choices_of(t.config) for t in study.trials[:2] if t.config] == [LEAKY, HE]
    recipes = [trial.config for trial in study.trials[2:6]]
    assert [config.activation for config in recipes if config] == ["leaky_relu"] * 3 + ["prelu"]
    configs = [trial.config for trial in study.trials]
    assert len(set(configs)) == len(configs)  # He's recipe was given, and does not run again
    assert {trial.state for trial in study.trials[:6]} == {"COMPLETE"}  # nobody stops what a person gave


def test_they_run_next_in_a_resumed_study_and_over_its_total(harness: Harness) -> None:
    harness(10)
    assert harness(10, given=by_hand(RELU, LEAKY)).finished == 12
    assert given_of(harness) == [(10, 0.002), (11, 0.002)]
    assert harness(10).finished == 12
    assert harness(20, given=by_hand({**RELU, "lr": 0.01})).finished == 20
    assert given_of(harness)[-1] == (12, 0.01)


def test_a_total_grows_by_what_is_owed_and_not_by_what_has_run() -> None:
    given = record(0, "COMPLETE", 0.9, attributes={GIVEN: True})
    backlog = Backlog(SPEC, [], Schedule(SPEC))
    for trial in (given, record(1, "COMPLETE", 0.9, lr=0.1), record(2, "RUNNING", None, lr=0.2)):
        backlog.see(trial)
    assert backlog.target(2, finished=2) == 2
    backlog.see(record(3, "RUNNING", None, lr=0.3, attributes={GIVEN: True}))
    assert backlog.target(2, finished=2) == 4  # the loop runs both, the older first


def test_a_config_runs_once(harness: Harness) -> None:
    harness(8, given=by_hand(RELU, RELU))
    assert given_of(harness) == [(0, 0.002)]
    drawn = harness.study().trials[7].config
    assert drawn is not None
    harness.events.clear()
    assert harness(8, given=by_hand(RELU, choices_of(drawn))).finished == 8
    notes = [event.text for event in harness.events if isinstance(event, Noted)]
    assert notes[0].startswith(
        "'0.toml' is trial 0 already, and does not run twice: relu norm none orthogonal"
    )
    assert notes[1].startswith("'1.toml' is trial 7 already, and does not run twice")


def test_a_config_that_failed_runs_again_where_it_is_given_again(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault(self: FakeLauncher, config: TrialConfig, attempt: int) -> str | None:
        return "Traceback\nOSError: gone" if config.lr == 0.002 else None

    with monkeypatch.context() as patch:
        patch.setattr(FakeLauncher, "fault", fault)
        harness(4, given=by_hand(RELU))
    assert [trial.state for trial in harness.study().trials if trial.is_given] == ["FAIL"]
    harness(6)
    assert len(given_of(harness)) == 1  # a resume that does not name it leaves it
    harness(6, given=by_hand(RELU))
    assert [trial.state for trial in harness.study().trials if trial.is_given] == ["FAIL", "COMPLETE"]
    harness(6, given=by_hand(RELU))
    assert len(given_of(harness)) == 2


def test_a_start_above_its_bound_that_was_stored_as_it_was_drawn_does_not_run_twice() -> None:
    above = {**LEARNED, "negative_slope": 0.4}
    config = place(SPEC, above).config
    assert config.negative_slope == 0.3
    stored = config.model_copy(update={"negative_slope": 0.4})  # as version 0.1.0 did
    backlog = Backlog(SPEC, [above], Schedule(SPEC))
    backlog.see(TrialRecord(0, "COMPLETE", 0.9, stored, {}, {GIVEN: True}))
    assert not backlog.rest()


def test_optuna_knows_it_as_a_trial_like_others(harness: Harness) -> None:
    harness(3, given=by_hand(LEARNED))
    stored = optuna.load_study(study_name="digits-mlp", storage=harness.store.url).get_trials()
    assert stored[0].params == LEARNED
    assert stored[0].user_attrs["given_by_hand"] is True
    assert stored[0].distributions["lr"] == stored[1].distributions["lr"]


def test_the_sampler_learns_from_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    plain = FakeLauncher.report
    for accuracy in (0.999, 0.001):

        def report(self: FakeLauncher, config: TrialConfig, step: int, accuracy: float = accuracy) -> Report:
            found = plain(self, config, step)
            return found.model_copy(update={"val_accuracy": accuracy}) if config.lr == 0.002 else found

        monkeypatch.setattr(FakeLauncher, "report", report)
        harness = Harness(tmp_path / f"{accuracy}.db")
        harness(40, spec(pruner="none"), given=by_hand(RELU))
        drawn.append([trial.config for trial in harness.study().trials])
    assert drawn[0][:20] == drawn[1][:20]
    assert drawn[0][20:] != drawn[1][20:]


def test_comparisons_leave_them_out() -> None:
    mine = record(3, "COMPLETE", 0.99, activation="elu", attributes={"given_by_hand": True})
    trials = [record(n, "COMPLETE", 0.9 + n / 100, activation="relu") for n in range(3)]
    study = study_with(*trials, mine)
    for name, rows in tables_of(study, COMPARING).items():
        assert rows == tables_of(study_with(*trials), [name])[name], name
    assert any(row["trial"] == 3 for row in tables_of(study, ["history"])["history"])
    assert counts(study).endswith("1 of them given by hand, and left out where groups are compared.")
    assert study.best() == mine


# Kills


def test_what_is_given_is_stored_before_it_runs_and_a_plain_resume_runs_it(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness(6)

    def die(self: FakeLauncher, slot: int, configs: Sequence[TrialConfig]) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(FakeLauncher, "start", die)
        with pytest.raises(Killed):
            harness(6, given=by_hand(RELU, LEAKY))
    assert [(trial.state, trial.is_given) for trial in harness.study().trials[6:]] == [("RUNNING", True)]
    assert harness(6).finished == 8
    assert given_of(harness) == [(6, 0.002), (7, 0.002)]
    assert harness(6, given=by_hand(RELU, LEAKY)).finished == 8


@pytest.mark.parametrize("again", [True, False])
def test_killed_at_any_write_each_runs_once_and_the_study_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    given = by_hand(LEAKY, HE, LEARNED)
    whole, pieces = Harness(tmp_path / "whole.db"), Harness(tmp_path / "pieces.db")
    whole(26, given=given)
    kills = 0
    first = 11 if again else 19  # when the study is made, or when its first trials run
    for call, commit in enumerate((first, 2, 3, 2, 5, 3, 7, 11, 13, 11, 13, 17, 11, 13, 17, 19, 11, 13, 17)):
        with monkeypatch.context() as patch:
            killed_at(commit, patch)
            try:
                pieces(26, given=given if again or call == 0 else ())
            except Killed:
                kills += 1
    pieces(26, given=given if again else ())
    assert kills >= 10
    assert pieces.table() == whole.table()
    assert given_of(pieces) == given_of(whole) == [(0, 0.002), (1, 0.001), (2, 0.002)]


def test_a_deterministic_study_with_more_than_a_batch_of_them_killed_anywhere_goes_on_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = by_hand(*({**RELU, "lr": 0.001 + n / 1000} for n in range(BATCH + 3)))
    luck = random.Random(1)

    class Disorder(FakeLauncher):
        def next_slot(self) -> int:
            return luck.randrange(len(self.order))

    class Dying(Disorder):
        def wait(self, timeout: float) -> tuple[int, Message] | None:
            if luck.random() < 0.03:
                raise Killed
            return super().wait(timeout)

    monkeypatch.setitem(LAUNCHERS, "disorder", Disorder)
    monkeypatch.setitem(LAUNCHERS, "dying", Dying)
    whole, pieces = Harness(tmp_path / "whole.db"), Harness(tmp_path / "pieces.db")
    whole(4 * BATCH, given=given, deterministic=True, workers=3, launcher="disorder")
    finished = kills = 0
    while finished < 4 * BATCH:
        try:
            outcome = pieces(4 * BATCH, given=given, deterministic=True, workers=2, launcher="dying")
            finished = outcome.finished
        except Killed:
            kills += 1
    assert kills > 3
    assert pieces.table() == whole.table()
    assert len(given_of(pieces)) == BATCH + 3


def test_an_edit_of_what_is_kept_is_refused(harness: Harness) -> None:
    harness(3, given=by_hand(RELU))
    for edited in ("x", [3], [{**RELU, "lr": 9.0}]):
        harness.store.set_attributes("digits-mlp", {"given": edited})
        with pytest.raises(RequestError, match="the configs that were given to the study cannot be read"):
            harness(5)
    assert len(harness.study().trials) == 3
