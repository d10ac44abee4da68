"""confirm: the plan is run whole, once, on fresh seeds; the test set is opened once."""

import json
import os
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from slopesearch.config import TrialConfig
from slopesearch.evidence import confirm as module
from slopesearch.evidence import planned
from slopesearch.evidence.arms import HE, TUNED, TUTORIAL, choose_arms, paired
from slopesearch.evidence.confirm import Verdict, confirm
from slopesearch.evidence.families import RUNOFF_SEEDS
from slopesearch.evidence.planned import Plan
from slopesearch.evidence.results import compare_with_pick, openings_of
from slopesearch.evidence.statistics import estimate
from slopesearch.search import sqlite
from slopesearch.search.events import Began, Event, Listener, Progressed, Started, Told
from slopesearch.search.launchers import LAUNCHERS
from slopesearch.search.records import StudyRecord
from slopesearch.search.rows import Extent
from slopesearch.search.settings import Settings
from slopesearch.search.sqlite import WalConnection
from slopesearch.search.store import Store
from slopesearch.seeds import derive
from slopesearch.wording import RequestError, StudyFailedError
from tests.conftest import QUICK, InProcess
from tests.harness import FOLDER, FakeLauncher, Harness, Killed, StopsAt, spec


@pytest.fixture(autouse=True)
def _fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LAUNCHERS, "fake", FakeLauncher)


class Search:
    """Calls of `confirm` on a search in a file."""

    def __init__(self, path: Path) -> None:
        self.path, self.harness = path, Harness(path)
        self.store = self.harness.store
        self.events: list[Event] = []
        self.notes: list[str] = []
        self.plans: list[Plan] = []

    def __call__(self, workers: int = 2, listen: Any = None, **settings: Any) -> Verdict:
        self.events.clear()
        self.notes.clear()
        self.plans.clear()

        class Display:
            def __init__(_, plan: Plan) -> None:  # noqa: N805
                self.plans.append(plan)

            def __enter__(_) -> Any:  # noqa: N805
                return listen or self.events.append

            def __exit__(_, *error: object) -> None:  # noqa: N805
                pass

        return confirm(
            "digits-mlp",
            store=self.store,
            settings=Settings(FOLDER, "cpu", workers, launcher="fake"),
            note=self.notes.append,
            display=Display,
            **{"top": 2, "seeds": 3, **settings},
        )

    def record(self, part: str) -> StudyRecord:
        return self.store.read(f"digits-mlp{part}")

    def told(self) -> int:
        return sum(isinstance(event, Told) for event in self.events)


def during(part: str, act: Listener) -> Listener:
    """A listener that acts on the events of one study of a confirmation."""
    name = ""

    def listen(event: Event) -> None:
        nonlocal name
        if isinstance(event, Began):
            name = event.study.name
        if name.endswith(part):
            act(event)

    return listen


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search with fake metrics."""
    path = tmp_path_factory.mktemp("studies") / "x.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(LAUNCHERS, "fake", FakeLauncher)
        Harness(path)(25, spec(sampler="random", space={"activation": ["relu", "elu"]}))
    return path


@pytest.fixture(scope="module")
def done(searched: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Search, Verdict]:
    """The search, confirmed: for tests that only look."""
    search = Search(Path(shutil.copy(searched, tmp_path_factory.mktemp("confirmed"))))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(LAUNCHERS, "fake", FakeLauncher)
        return search, search()


@pytest.fixture
def confirmed(done: tuple[Search, Verdict], tmp_path: Path) -> Search:
    """The same in a file of its own, to go on with."""
    return Search(Path(shutil.copy(done[0].path, tmp_path)))


@pytest.fixture
def search(searched: Path, tmp_path: Path) -> Search:
    return Search(Path(shutil.copy(searched, tmp_path)))


def test_each_plan_says_what_it_is_and_calls_its_runs_by_arm_and_seed(search: Search) -> None:
    verdict = search()
    tuning, *further, confirming, testing = search.plans
    assert (tuning.title, tuning.shape) == ("confirm, learning rates", "2 arms x 6 rates")
    *wider, runoff = further
    assert all(plan.done >= 12 and plan.shape.startswith("2 arms x ") for plan in wider)
    assert runoff.title == "confirm, disputed rates"
    assert {name for name, _ in tuning.runs.values()} == {TUTORIAL, HE}
    assert all(rate == f"lr {config.lr:.2g}" for config, (_, rate) in tuning.runs.items())
    arms = len(verdict.confirmed)
    assert (confirming.title, confirming.shape) == ("confirm", f"{arms} arms x 3 seeds")
    assert (confirming.done, len(confirming.runs)) == (0, 3 * arms)
    called = {row.arm.config: row.arm.roles[0] for row in verdict.confirmed}
    for config, words in confirming.runs.items():
        (run,) = (run for run in range(3) if config.init_seed == derive(0, "confirm", run, "init"))
        (arm,) = (arm for arm in called if paired(arm, 0, run) == config)
        assert words == (called[arm], f"seed {run + 1} of 3")
    tested = len(verdict.openings[-1].arms)
    assert (testing.title, testing.shape) == ("test set", f"{tested} arms x 3 seeds")
    assert {config.evaluated_on for config in testing.runs} == {"test"}

    def stop(event: Event) -> None:
        if isinstance(event, Told) and event.number == 3 * arms + 4:
            raise Killed

    with pytest.raises(Killed):
        search(seeds=6, listen=during("/confirm", stop))
    search(seeds=6)
    assert search.plans[0].shape == f"{arms} arms x 6 seeds"
    assert search.plans[0].done == 3 * arms + 5


def test_every_config_runs_on_the_same_fresh_seeds_without_pruning(done: tuple[Search, Verdict]) -> None:
    search, verdict = done
    trials = search.record("/confirm").trials
    assert {trial.state for trial in trials} == {"COMPLETE"}
    assert {len(trial.reports) for trial in trials} == {9}
    configs = [trial.config for trial in trials]
    assert None not in configs
    by_arm: dict[TrialConfig, list[tuple[int, int]]] = {}
    for config in configs:
        assert config is not None
        arm = config.model_copy(update={"init_seed": 0, "order_seed": 0})
        by_arm.setdefault(arm, []).append((config.init_seed, config.order_seed))
    seeds = [[derive(0, "confirm", run, part) for part in ("init", "order")] for run in range(3)]
    assert len(by_arm) == len(verdict.confirmed) >= 6
    roles = [role for row in verdict.confirmed for role in row.arm.roles]
    assert {TUTORIAL, HE, *TUNED.values()} <= set(roles)  # as people use them, and fairly
    assert all(pairs == list(map(tuple, seeds)) for pairs in by_arm.values())
    searched = search.record("").trials[0].config
    assert searched is not None
    assert not {searched.init_seed, searched.order_seed} & {seed for pair in seeds for seed in pair}
    losses = [row.val_loss.mean for row in verdict.confirmed]
    assert losses == sorted(losses)
    assert not verdict.interrupted


def test_the_cost_comes_first(done: tuple[Search, Verdict]) -> None:
    search, _ = done
    count = len(search.record("/confirm").trials)
    cost, opening = search.notes
    assert (
        f"{count // 3} configs on 3 fresh seeds: 12 runs or more to tune the baselines' learning rates"
        in cost
    )
    assert f"{count} of {count} runs to do, then 15 of 15 on the test set; about" in cost
    runs = 12 + 2 * RUNOFF_SEEDS + count + 15  # a second each, on two workers
    assert f"about {runs * 12 * 1000:,} training images, about {runs / 2 / 60:.1f} min" in cost
    assert opening.startswith("opening the test set for ")


def test_the_test_set_is_opened_once_for_the_pick_and_the_baselines(
    done: tuple[Search, Verdict], confirmed: Search
) -> None:
    search, verdict = done
    (opening,) = verdict.openings
    assert opening.arms[0] == verdict.confirmed[0].arm
    assert all(arm.is_baseline for arm in opening.arms[1:])
    assert [row.arm for row in opening.tested] == list(opening.arms)
    trials = search.record("/test").trials
    assert len(trials) == 3 * len(opening.arms)
    assert {trial.config.evaluated_on for trial in trials if trial.config} == {"test"}
    assert {t.config.evaluated_on for t in search.record("/confirm").trials if t.config} == {"validation"}

    again = confirmed()
    assert confirmed.told() == 0
    assert (again.openings, again.confirmed) == (verdict.openings, verdict.confirmed)
    assert len(confirmed.notes) == 1  # the cost, which is nothing; no opening
    told = confirmed(open_again=True)
    assert confirmed.told() == 0  # the same runs, which are stored
    assert len(told.openings) == 2
    assert told.openings[1].tested == opening.tested


def test_asked_for_nothing_else_a_confirmation_is_given_back_without_a_run(
    done: tuple[Search, Verdict], confirmed: Search
) -> None:
    verdict = confirmed(top=None, seeds=None)  # two configs and three seeds, as it was made
    assert confirmed.told() == 0
    assert (verdict.confirmed, verdict.openings) == (done[1].confirmed, done[1].openings)


def test_tuned_baselines_stand_whatever_rule_tuned_them(
    done: tuple[Search, Verdict], confirmed: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    def another_rule(*_: object) -> None:
        raise AssertionError("the baselines are tuned again")

    monkeypatch.setattr(module, "tune", another_rule)
    assert confirmed(top=None, seeds=None).confirmed == done[1].confirmed
    more = confirmed(seeds=4)
    assert "to tune" not in confirmed.notes[0]
    assert confirmed.told() == len(done[1].confirmed)
    assert {row.arm for row in more.confirmed} == {row.arm for row in done[1].confirmed}


def test_more_seeds_and_more_configs_are_added(done: tuple[Search, Verdict], confirmed: Search) -> None:
    first = done[1]
    more = confirmed(seeds=4, top=4)
    new = {row.arm.config for row in more.confirmed} - {row.arm.config for row in first.confirmed}
    assert new
    assert confirmed.told() == len(first.confirmed) + 4 * len(new)
    assert {row.runs for row in more.confirmed} == {4}
    assert more.openings == first.openings  # on three seeds, as it was
    fewer = confirmed(seeds=2, top=1)  # what is there is used
    assert confirmed.told() == 0
    assert {row.arm.config: row.val_loss for row in fewer.confirmed} == {
        row.arm.config: row.val_loss for row in more.confirmed
    }


def killed_at(commit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Die instead of the n-th commit to the database."""
    count = 0

    class DyingConnection(WalConnection):
        def commit(self) -> None:
            nonlocal count
            count += 1
            if count == commit:
                raise Killed
            super().commit()

    monkeypatch.setattr(sqlite, "WalConnection", DyingConnection)


def test_killed_anywhere_it_ends_as_if_nothing_had_been(
    searched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, pieces = (Search(Path(shutil.copy(searched, tmp_path / f"{name}.db"))) for name in ("a", "b"))
    expected = whole(seeds=2)
    kills = 0
    for commit in (2, 5, 11, 23, 41, 61):
        with monkeypatch.context() as patch:
            killed_at(commit, patch)
            try:
                pieces(seeds=2)
            except Killed:
                kills += 1
    found = pieces(seeds=2)
    assert kills >= 5
    assert found.confirmed == expected.confirmed
    assert found.openings[-1].tested == expected.openings[-1].tested
    assert len(found.openings) == 1
    for part in ("/confirm", "/test"):
        tables = [
            sorted((t.config.model_dump_json(), t.value) for t in search.record(part).trials if t.config)
            for search in (whole, pieces)
        ]
        assert tables[0] == tables[1]


@pytest.mark.parametrize("part", ["/tune", "/confirm"])
def test_ctrl_c_leaves_it_to_the_next_call(search: Search, part: str) -> None:
    def interrupt(event: Event) -> None:
        if isinstance(event, Progressed) and event.number == 5 and event.report.step == 2:
            signal.raise_signal(signal.SIGINT)

    verdict = search(listen=during(part, interrupt))
    assert (verdict.interrupted, verdict.confirmed, verdict.openings) == (True, [], [])
    assert len(search.record(part).trials) < 8
    assert search().openings


@pytest.mark.parametrize(("part", "has_means"), [("/tune", False), ("/confirm", True)])
def test_ctrl_c_in_the_last_run_of_a_plan_begins_no_other(search: Search, part: str, has_means: bool) -> None:
    told = 0

    def interrupt(event: Event) -> None:
        nonlocal told
        told += isinstance(event, Told)
        if told == len(search.plans[-1].runs):
            signal.raise_signal(signal.SIGINT)

    verdict = search(listen=during(part, interrupt))
    assert (verdict.interrupted, bool(verdict.confirmed), verdict.openings) == (True, has_means, [])
    assert len(search.plans) == 1 if part == "/tune" else search.plans[-1].title == "confirm"
    assert search.store.find("digits-mlp/test") is None
    assert search().openings


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_between_two_plans_is_heard(
    search: Search, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    def choose(*asked: Any) -> Any:
        for _ in range(times):
            signal.raise_signal(signal.SIGINT)
        return compare_with_pick(*asked)

    with monkeypatch.context() as patch:
        patch.setattr("slopesearch.evidence.confirm.compare_with_pick", choose)
        if times == 1:
            verdict = search()
            assert verdict.confirmed
            assert (verdict.interrupted, verdict.openings) == (True, [])
        else:
            with pytest.raises(KeyboardInterrupt):
                search()
    assert "openings" not in search.record("/confirm").attributes
    assert search().openings


def test_an_opening_that_nobody_has_seen_is_none(search: Search) -> None:
    search.notes = StopsAt("opening the test set")  # it is stored, and no run has begun
    verdict = search()
    assert any(text.startswith("opening the test set") for text in search.notes)
    assert (verdict.interrupted, verdict.openings) == (True, [])
    assert openings_of(search.record("/confirm")) == []
    search.notes = []
    assert len(search().openings) == 1


class FailsOnce(FakeLauncher):
    """Fails the configs of one learning rate twice, so that their trial is left as FAIL; then no more."""

    lr: float
    left: int

    def fault(self, config: TrialConfig, attempt: int) -> str | None:
        if config.lr != self.lr or not FailsOnce.left:
            return None
        FailsOnce.left -= 1
        return "a fault"


@pytest.mark.parametrize("faults", [0, 2])
def test_what_a_larger_call_left_unfinished_takes_no_place_of_a_smaller_ones(
    search: Search, monkeypatch: pytest.MonkeyPatch, faults: int
) -> None:
    ranked = [trial.config.lr for trial in search.record("").ranked()[:9] if trial.config]
    others = set(ranked) - {arm.config.lr for arm in choose_arms(search.record(""), 1)}

    def leave(event: Event) -> None:  # as soon as one runs that the smaller call does not ask for
        if isinstance(event, Started) and event.config.lr in others:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    assert search(top=9, workers=1, listen=during("/confirm", leave)).interrupted
    left = [t.config for t in search.record("/confirm").trials if t.state == "RUNNING"]
    assert left
    assert left[-1] is not None
    FailsOnce.lr, FailsOnce.left = left[-1].lr, faults
    monkeypatch.setitem(LAUNCHERS, "fake", FailsOnce)
    verdict = search(top=1)
    assert FailsOnce.left == 0
    assert left[-1].lr not in [row.arm.config.lr for row in verdict.confirmed]  # it is none of this plan's
    assert {row.runs for row in verdict.confirmed} == {3}
    assert [row.runs for row in verdict.openings[-1].tested] == [3] * len(verdict.openings[-1].arms)
    trials = search.record("/confirm").trials
    assert left[-1] in [trial.config for trial in trials if trial.state == "COMPLETE"]


def test_with_runs_missing_nothing_is_stored_and_the_test_set_stays_closed(
    search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leave(event: Event) -> None:
        if isinstance(event, Progressed):
            signal.raise_signal(signal.SIGINT)

    assert search(listen=during("/confirm", leave)).interrupted  # the baselines are tuned
    monkeypatch.setattr(planned, "_others", lambda record, plan: -1)
    verdict = search()
    assert (verdict.interrupted, verdict.confirmed, verdict.openings) == (True, [], [])
    assert search.store.find("digits-mlp/test") is None
    assert "confirmed" not in search.record("/confirm").attributes


def test_an_opening_that_was_interrupted_is_in_the_cost(search: Search) -> None:
    def leave(event: Event) -> None:
        if isinstance(event, Told):
            signal.raise_signal(signal.SIGINT)

    assert search(listen=during("/test", leave)).interrupted
    done = sum(trial.state == "COMPLETE" for trial in search.record("/test").trials)
    of = 3 * len(openings_of(search.record("/confirm"))[-1].arms)
    assert 0 < done < of
    verdict = search()
    assert verdict.openings
    assert f" on 3 fresh seeds: 0 of {3 * len(verdict.confirmed)} runs to do, " in search.notes[0]
    assert f"then {of - done} of {of} on the test set" in search.notes[0]
    search()
    assert "test set" not in search.notes[0]


@pytest.mark.parametrize("moment", ["running", "opening"])
def test_two_calls_at_a_time_are_one_too_many(search: Search, moment: str) -> None:
    """The second comes while the first runs, or when it has just found that the test set is closed."""
    refused = []

    def second() -> None:
        with pytest.raises(
            RequestError, match=rf"'digits-mlp' is being confirmed by process {os.getpid()} on"
        ):
            Search(search.path)()
        refused.append(moment)

    def listen(event: Event) -> None:
        if moment == "running" and isinstance(event, Told) and not refused:
            second()

    class Notes(list[str]):
        def append(self, text: str) -> None:
            super().append(text)
            if moment == "opening" and text.startswith("opening the test set"):
                second()

    search.notes = Notes()
    verdict = search(listen=listen)
    assert refused == [moment]
    assert [len(opening.tested) for opening in verdict.openings] == [len(verdict.openings[0].arms)]
    assert Search(search.path)().openings == verdict.openings  # and the lock is let go


def test_the_pick_is_compared_with_every_other_arm_seed_by_seed(done: tuple[Search, Verdict]) -> None:
    search, verdict = done
    trials = search.record("/confirm").trials

    def losses(arm: TrialConfig) -> list[float]:
        plan = [paired(arm, 0, run) for run in range(3)]
        return [next(t.attributes["val_loss"] for t in trials if t.config == config) for config in plan]

    best, *others = verdict.confirmed
    assert best.difference is None
    for row in others:
        assert list(row.losses) == losses(row.arm.config)
        assert row.difference is not None
        pairs = zip(losses(best.arm.config), losses(row.arm.config), strict=True)
        assert row.difference.val_loss == estimate([a - b for a, b in pairs])
        assert row.difference.val_accuracy.mean == pytest.approx(-row.difference.val_loss.mean)


def test_the_baselines_are_tuned_where_compare_tunes(done: tuple[Search, Verdict]) -> None:
    search, verdict = done
    configs = [trial.config for trial in search.record("/tune").trials if trial.config]
    winner = search.record("").best().config
    assert winner is not None
    assert {c.evaluated_on for c in configs} == {"validation"}
    for role in TUNED.values():
        arm = next(row.arm for row in verdict.confirmed if role in row.arm.roles).config
        rates = {c.lr for c in configs if (c.activation, c.init) == (arm.activation, arm.init)}
        assert len(rates) in (6, 8, 10, 12)
        assert {arm.lr, winner.lr} <= rates


def test_a_search_of_the_same_name_with_another_question_is_refused(
    confirmed: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Store.read

    def another(self: Store, name: str | None, extent: Extent) -> StudyRecord:
        record = read(self, name, extent)
        changed = record.spec.model_copy(update={"epochs": 99})
        return StudyRecord(record.name, changed, record.trials, record.attributes)

    monkeypatch.setattr(Store, "read", another)
    monkeypatch.setattr(module, "refuse_other_images", lambda *_: None)
    with pytest.raises(RequestError, match="belongs to another search of the name 'digits-mlp'"):
        confirmed()


def test_other_images_are_refused(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "content_hash", lambda *_: "other")
    with pytest.raises(RequestError, match="the digits images differ from those that the study 'digits-mlp'"):
        search()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"top": 0, "seeds": 1}, "top: at least 1, given 0\nseeds: at least 2, given 1"),
        ({"seeds": -1}, "seeds: at least 2, given -1"),
    ],
)
def test_a_wrong_request_is_refused(search: Search, settings: dict[str, int], sentence: str) -> None:
    with pytest.raises(RequestError) as error:
        search(**settings)
    assert str(error.value) == sentence


def test_the_verdicts_own_studies_are_no_searches(done: tuple[Search, Verdict]) -> None:
    search, _ = done
    assert search.harness.study().name == "digits-mlp"  # no name needed: the others go with it
    with pytest.raises(RequestError, match="'digits-mlp/test' is no search; name 'digits-mlp', the"):
        confirm("digits-mlp/test", store=search.store, settings=Settings(FOLDER, "cpu", 1, launcher="fake"))
    with pytest.raises(RequestError, match="name: 'digits-mlp/confirm' is what `confirm` would call its own"):
        search.harness(50, name="digits-mlp/confirm")


def test_the_whole_way_on_the_command_line(command_line: InProcess, tmp_path: Path) -> None:
    """Really trained: search, confirm, export."""
    activations = ("--set", "space.activation=['relu', 'elu']")
    small = ("--train-size", "640", "--set", "width=8")
    assert command_line("optimize", *QUICK, *small, "--trials", "8", *activations).code == 0
    options = ("--top", "1", "--seeds", "2", "--launcher", "inline")
    done = command_line("confirm", *options)
    assert done.code == 0, done.err
    first, second, *lines = done.out.splitlines()
    assert first == "loading torch"
    assert second.startswith("digits-mlp: ")
    assert "fresh seeds" in second
    last_of = [line for line in lines if re.match(r"(confirm|test set)\b.* of \d+ runs", line)]
    assert last_of[0] == "confirm, learning rates: 0 of 12 runs (2 arms x 6 rates)"
    assert last_of[-1].startswith("test set: 10 of 10 runs (5 arms x 2 seeds); completed: ")
    assert lines[lines.index(last_of[0]) + 1].startswith("starting 1 worker")
    assert not re.search(r"best [0-9]|trial \d", "".join(last_of))
    for words in ("pick: 1, the lowest mean loss", "the tutorial's recipe", "ReLU with He init", "shrinkage"):
        assert words in done.out
    assert "The test set was opened once, on 20" in done.out
    assert done.out.count("opening the test set") == 1

    database = tmp_path / "studies" / "slopesearch.db"
    before = database.read_bytes()
    printed = command_line("confirm")  # its defaults are more than what was confirmed
    assert len(printed.out.splitlines()) > 20
    assert done.out.endswith(printed.out)
    again = command_line("confirm", "--json")
    assert database.read_bytes() == before
    verdict = json.loads(again.out)
    assert again.err == ""
    assert len(verdict["openings"]) == 1
    assert verdict["confirmed"][0] == verdict["pick"]
    assert verdict["openings"][0]["tested"][0]["arm"]["config"] == verdict["pick"]["arm"]["config"]
    assert json.loads(command_line("show", "digits-mlp/confirm", "--json").out) == verdict
    assert "pick: 1" in command_line("show", "digits-mlp/confirm").out
    said = "The intervals are over seeds, on the same validation images that chose the configs."
    commands = ("compare digits-mlp", "export digits-mlp -o best.toml")
    for words in (said, "pick minus", "not separated", "Seed by seed, ± 95 %", "its lr tuned", *commands):
        assert words in done.out
    assert {len(row["losses"]) for row in verdict["confirmed"]} == {2}
    for command in (["export"], ["replay", "--trial", "0"]):
        refused = command_line(*command, "digits-mlp/test")
        assert refused.code == 2
        assert "'digits-mlp/test' is no search; name 'digits-mlp'" in refused.err
    names = [row["name"] for row in json.loads(command_line("list", "--json").out)]
    assert names == ["digits-mlp", "digits-mlp/confirm", "digits-mlp/test", "digits-mlp/tune"]

    exported = command_line("export")
    assert (exported.code, exported.err) == (0, "")
    text = (tmp_path / "best.toml").read_text()
    assert f"mean = {verdict['pick']['val_loss']['mean']}" in text
    assert "[origin.confirmed.val_accuracy]" in text


def test_a_database_that_is_deleted_meanwhile_is_saved_with_the_runs_that_are_done(search: Search) -> None:
    def listen(event: Event) -> None:
        if isinstance(event, Told) and event.number == 3:
            search.path.unlink()

    with pytest.raises(StudyFailedError, match="was deleted or renamed while it was written"):
        search(workers=1, listen=during("/confirm", listen))
    (saved,) = search.path.parent.glob("x.saved-*")
    assert Search(saved).record("/confirm").count("COMPLETE") == 4
    runs = len(Search(saved)().confirmed) * 3
    assert Search(saved).record("/confirm").count("COMPLETE") == runs
