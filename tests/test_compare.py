"""compare: each question is a family that was fixed before its runs; paired, resumed, extended, answered."""

import json
import os
import re
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from math import log
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from slopesearch.cli.compare_command import _next_commands
from slopesearch.config import REPORTS, Report, TrialConfig
from slopesearch.evidence import compare as module
from slopesearch.evidence.answers import Answer, answers_of, families_of
from slopesearch.evidence.arms import paired
from slopesearch.evidence.compare import Compared, compare
from slopesearch.evidence.families import RUNOFF_SEEDS, Family
from slopesearch.evidence.planned import Plan
from slopesearch.evidence.questions import name_of
from slopesearch.evidence.statistics import estimate
from slopesearch.evidence.tuning import best_rate, shared_rate
from slopesearch.report.verdicts import to_settle
from slopesearch.search import sqlite
from slopesearch.search.events import Event, Progressed, Told
from slopesearch.search.launchers import LAUNCHERS
from slopesearch.search.records import StudyRecord
from slopesearch.search.settings import Settings
from slopesearch.search.sqlite import WalConnection
from slopesearch.search.store import Store
from slopesearch.seeds import derive
from slopesearch.wording import RequestError
from tests.conftest import QUICK, InProcess, make_config
from tests.harness import FOLDER, FakeLauncher, Harness, Killed, StopsAt, spec
from tests.test_verdicts import answer_of, side_of


class Learning(FakeLauncher):
    """Slopes that were to be learned end at a sixth of their limit; sigmoid diverges."""

    def report(self, config: TrialConfig, step: int) -> Report:
        found = super().report(config, step)
        if config.slope_mode == "learnable":
            assert config.slope_max is not None
            slopes = (config.slope_max / 12, config.slope_max / 4)
            return found.model_copy(update={"slopes": slopes, "raw_slopes": slopes})
        if config.activation == "sigmoid" and step == 2:
            return found.model_copy(update={"diverged": True, "val_loss": log(10), "val_accuracy": 0.1})
        return found


@pytest.fixture(autouse=True)
def _fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LAUNCHERS, "fake", Learning)


class Comparison:
    """Calls of `compare` on a search in a file."""

    def __init__(self, path: Path) -> None:
        self.path, self.store = path, Store(f"sqlite:///{path}")
        self.events: list[Event] = []
        self.notes: list[str] = []
        self.plans: list[Plan] = []
        self.told: list[Answer] = []

    def __call__(self, asked: Any = None, listen: Any = None, workers: int = 2, **settings: Any) -> Compared:
        for seen in (self.events, self.notes, self.plans, self.told):
            seen.clear()

        class Display:
            def __init__(_, plan: Plan) -> None:  # noqa: N805
                self.plans.append(plan)

            def __enter__(_) -> Any:  # noqa: N805
                return listen or self.events.append

            def __exit__(_, *error: object) -> None:  # noqa: N805
                pass

        return compare(
            asked,
            store=self.store,
            settings=Settings(FOLDER, "cpu", workers, launcher="fake"),
            note=self.notes.append,
            display=Display,
            tell=self.told.append,
            **{"seeds": 3, "only": ["norm"], **settings},
        )

    def record(self, part: str, name: str = "digits-mlp") -> StudyRecord:
        return self.store.read(f"{name}{part}")

    def runs(self) -> int:
        return sum(isinstance(event, Told) for event in self.events)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search with fake metrics."""
    path = tmp_path_factory.mktemp("studies") / "x.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(LAUNCHERS, "fake", FakeLauncher)
        Harness(path)(25, spec(sampler="random", pruner="none", space={"activation": ["relu", "elu"]}))
    return path


@pytest.fixture(scope="module")
def done(searched: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Comparison, Compared]:
    """All five questions answered: for tests that only look."""
    comparison = Comparison(Path(shutil.copy(searched, tmp_path_factory.mktemp("compared"))))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(LAUNCHERS, "fake", Learning)
        return comparison, comparison(only=[], seeds=2)


@pytest.fixture
def comparison(searched: Path, tmp_path: Path) -> Comparison:
    return Comparison(Path(shutil.copy(searched, tmp_path)))


def answered(compared: Compared, question: str) -> Answer:
    return next(answer for answer in compared.answers if answer.family.question == question)


def test_each_question_has_its_plans_which_name_arm_and_seed(comparison: Comparison) -> None:
    compared = comparison(only=["slope", "learned"])
    titles = list(dict.fromkeys(plan.title for plan in comparison.plans))
    assert titles == [
        title
        for question in ("compare slope", "compare learned")
        for title in (f"{question}, learning rates", f"{question}, disputed rates", question)
    ]
    last = {plan.title: plan for plan in comparison.plans}
    for answer in compared.answers:
        plan = last[f"compare {answer.family.question}"]
        arms = [side.name for side in answer.sides]
        named = {name for name, _ in plan.runs.values()}
        assert plan.shape == f"{len(named)} arms x 3 seeds"
        assert named <= set(arms)
        assert {seed for _, seed in plan.runs.values()} == {f"seed {seed} of 3" for seed in (1, 2, 3)}
        assert len(plan.runs) == 3 * len(named)
        sweeps = [one for one in comparison.plans if one.title == f"{plan.title}, learning rates"]
        for one in sweeps:
            counts = Counter(name for name, _ in one.runs.values())
            low, high = min(counts.values()), max(counts.values())
            rates = f"{high}" if low == high else f"{low} to {high}"
            assert re.fullmatch(rf"{len(counts)} arms? x {rates} rates", one.shape)
            assert all(called == f"lr {config.lr:.2g}" for config, (_, called) in one.runs.items())


def test_the_five_questions_in_the_order_of_their_cost(done: tuple[Comparison, Compared]) -> None:
    comparison, compared = done
    assert [answer.family.question for answer in compared.answers] == [
        *("slope", "learned", "norm", "init", "activation")
    ]
    assert comparison.told == compared.answers
    assert [answer.seeds for answer in compared.answers] == [2, 2, 2, 2, 6]
    winner = comparison.record("").best().config
    assert winner is not None
    slope = answered(compared, "slope")
    assert [side.config.negative_slope for side in slope.sides] == [0.001, 0.01, 0.1, 0.2, 1 / 3]
    assert {other for _, other in slope.family.contrasts} == {"leaky_relu 0.01"}
    assert {other for _, other in answered(compared, "norm").family.contrasts} == {winner.norm}
    assert {other for _, other in answered(compared, "init").family.contrasts} == {winner.init}
    activation = answered(compared, "activation")
    assert len(activation.sides) == 8
    assert {other for _, other in activation.family.contrasts} == {winner.activation}
    kept = {"norm", "init", "model", "epochs", "train_size", "output_gain", "split_seed"}
    for answer in (slope, activation):
        assert all(
            side.config.model_dump(include=kept) == winner.model_dump(include=kept) for side in answer.sides
        )


def test_a_learnable_slope_meets_the_fixed_one_and_its_own_mean(done: tuple[Comparison, Compared]) -> None:
    answer = answered(done[1], "learned")
    assert answer.family.contrasts == (
        *((f"learned, at most {top}", "fixed 0.01") for top in ("0.1", "0.3", "1")),
        *((f"learned, at most {top}", f"mean of learned, at most {top}") for top in ("0.1", "0.3", "1")),
    )
    means = {side.name: side.config.negative_slope for side in answer.sides if "mean of" in side.name}
    assert means == {
        "mean of learned, at most 0.1": 0.0167,
        "mean of learned, at most 0.3": 0.05,
        "mean of learned, at most 1": 0.167,
    }
    starts = {side.config.negative_slope for side in answer.sides if side.config.slope_mode == "learnable"}
    assert starts == {0.01}


def test_arms_run_on_the_same_fresh_seeds_and_other_images_than_they_are_tuned_on(
    done: tuple[Comparison, Compared],
) -> None:
    comparison, compared = done
    trials = comparison.record("/compare").trials
    configs = [trial.config for trial in trials if trial.config]
    assert {(c.evaluated_on, c.val_size) for c in configs} == {("rest", 198)}  # of 397: digits leave none
    seeds = {(c.init_seed, c.order_seed) for c in configs}
    assert len(seeds) == 6
    answer = answered(compared, "init")
    for side in answer.sides:
        plan = [paired(side.config, 0, run, "compare") for run in range(2)]
        expected = [
            next(
                t.attributes["val_loss"]
                for t in trials
                if t.config
                and t.config.model_copy(
                    update={"evaluated_on": "validation", "val_size": side.config.val_size}
                )
                == config
            )
            for config in plan
        ]
        assert list(side.losses) == expected
    tuned = [trial.config for trial in comparison.record("/tune").trials if trial.config]
    assert {(c.evaluated_on, c.val_size) for c in tuned} == {("validation", 198)}
    assert len({(c.init_seed, c.order_seed) for c in tuned}) == 1 + RUNOFF_SEEDS
    assert not seeds & {(c.init_seed, c.order_seed) for c in tuned}
    assert {t.state for t in trials if t.config and t.config.activation != "sigmoid"} == {"COMPLETE"}


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"activation": "relu"}, "relu"),
        ({"negative_slope": 0.0123456}, "leaky_relu 0.0123"),
        (
            {"slope_mode": "learnable", "negative_slope": 0.25, "slope_max": 0.3},
            "leaky_relu 0.25 learned, at most 0.3",
        ),
    ],
)
def test_an_arm_is_named_by_its_activation_and_slope(fields: dict[str, Any], name: str) -> None:
    assert name_of(make_config(**fields)) == name


def test_each_arm_has_the_best_of_its_own_rates_or_the_shared_one(done: tuple[Comparison, Compared]) -> None:
    comparison, compared = done
    trials = comparison.record("/tune").trials
    winner = comparison.record("").best().config
    assert winner is not None
    answer, measured = answered(compared, "init"), {}
    for side in answer.sides:
        losses = {(t.config.lr, t.config.init_seed): log(t.attributes["val_loss"]) for t in trials
                  if t.config and t.config.init == side.config.init
                  and t.config.norm == winner.norm and t.config.activation == winner.activation}  # fmt: skip
        measured[side.name] = losses
    first = derive(0, "tune", 0, "init")
    swept = [(side.rates, [measured[side.name][rate, first] for rate in side.rates]) for side in answer.sides]
    shared = shared_rate(swept)
    differing = 0
    for side, (rates, losses_once) in zip(answer.sides, swept, strict=True):
        losses = measured[side.name]
        ran = sorted(rate for rate, seed in losses if seed == first)
        assert set(side.rates) <= set(ran)
        # The winner is an arm of other questions too, in which the rate that is best for all may be another.
        assert ran == list(side.rates) or side.config.init == winner.init
        rivals = {best_rate(rates, losses_once), shared}
        fresh = {rate: fmean(loss for (lr, seed), loss in losses.items() if lr == rate and seed != first)
                 for rate in rivals if len(rivals) > 1}  # fmt: skip
        assert side.config.lr == min(rivals, key=lambda rate: fresh.get(rate, 0.0))
        differing += len(fresh) > 1
        assert side.at_edge == (side.config.lr in (side.rates[0], side.rates[-1]))
        assert winner.lr in side.rates
    assert differing


def test_differences_are_those_of_the_same_seed(done: tuple[Comparison, Compared]) -> None:
    answer = answered(done[1], "activation")
    for contrast in answer.contrasts:
        one, other = answer.side(contrast.one), answer.side(contrast.other)
        losses = [log(a) - log(b) for a, b in zip(one.losses, other.losses, strict=True)]
        errors = [a - b for a, b in zip(one.errors, other.errors, strict=True)]
        assert contrast.val_loss.difference.mean == pytest.approx(estimate(losses).mean)
        assert contrast.val_loss.difference.high == pytest.approx(estimate(losses).high)
        assert contrast.val_error.difference.sd == pytest.approx(estimate(errors).sd)


def test_a_run_that_diverges_is_chance(done: tuple[Comparison, Compared]) -> None:
    side = answered(done[1], "activation").side("sigmoid")
    assert side.diverged == 6
    assert set(side.losses) == {log(10)}
    assert set(side.errors) == {0.9}


def test_the_cost_of_each_question_comes_first(comparison: Comparison) -> None:
    first: list[str] = []

    def listen(event: Event) -> None:
        if not first:
            first.extend(comparison.notes)

    comparison(only=["norm", "activation"], listen=listen)
    assert first[0].startswith("digits-mlp: around trial ")
    assert first[1] == "  norm: 3 arms on 3 seeds: 18 runs or more to tune and 9 to compare, about 0.3 min"
    assert (
        first[2]
        == "  activation: 8 arms on 9 seeds: 48 runs or more to tune and 72 to compare, about 1.2 min"
    )
    comparison(only=["norm"])
    assert comparison.notes[1] == "  norm: 3 arms on 3 seeds: 0 runs to tune and 0 to compare, about 0.0 min"
    assert comparison.runs() == 0


def test_tuned_arms_cost_no_run_to_tune_whatever_came_between(comparison: Comparison) -> None:
    def interrupt(event: Event) -> None:
        if isinstance(event, Progressed) and comparison.plans[-1].title == "compare norm":
            signal.raise_signal(signal.SIGINT)

    assert comparison(listen=interrupt).interrupted
    there = comparison.record("/compare").count("COMPLETE")
    comparison()
    assert comparison.notes[1].startswith(
        f"  norm: 3 arms on 3 seeds: 0 runs to tune and {9 - there} to compare"
    )


def test_an_answer_stands_whatever_rule_tuned_its_arms(
    comparison: Comparison, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = comparison(seeds=6).answers[0]

    def another_rule(*_: object) -> None:
        raise AssertionError("the arms are tuned again")

    monkeypatch.setattr(module, "tune", another_rule)
    assert comparison(seeds=6).answers == [first]
    assert comparison.runs() == 0
    more = comparison(seeds=8).answers[0]
    assert comparison.runs() == 3 * 2
    for one, other in zip(more.sides, first.sides, strict=True):
        assert (one.config, one.rates, one.at_edge) == (other.config, other.rates, other.at_edge)
        assert one.losses[:6] == other.losses


def test_the_family_is_stored_before_its_first_run(comparison: Comparison) -> None:
    found: list[dict[str, Family]] = []

    def listen(event: Event) -> None:
        if isinstance(event, Told) and not found:
            found.append(families_of(comparison.record("/compare")))

    compared = comparison(listen=listen)
    assert found == [{"norm": compared.answers[0].family}]


def test_more_seeds_extend_it_and_are_a_further_look(comparison: Comparison) -> None:
    first = comparison(seeds=6).answers[0]
    tuned = len(comparison.record("/tune").trials)
    more = comparison(seeds=8).answers[0]
    assert comparison.runs() == 3 * 2
    assert len(comparison.record("/tune").trials) == tuned
    assert (first.looks, more.looks) == ((6,), (6, 8))
    assert [side.losses[:6] for side in more.sides] == [side.losses for side in first.sides]
    again = comparison(seeds=5).answers[0]
    assert comparison.runs() == 0
    assert again == more
    assert answers_of(comparison.record("/compare")) == {"norm": more}


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
    whole, pieces = (Comparison(Path(shutil.copy(searched, tmp_path / f"{name}.db"))) for name in ("a", "b"))
    asked: dict[str, Any] = {"only": ["learned"], "seeds": 2}
    expected = whole(**asked)
    kills = 0
    for commit in (2, 5, 9, 30, 61, 103, 160, 230):
        with monkeypatch.context() as patch:
            killed_at(commit, patch)
            try:
                pieces(**asked)
            except Killed:
                kills += 1
    found = pieces(**asked)
    assert kills >= 6
    assert found == expected
    for part in ("/tune", "/compare"):
        tables = [
            sorted((t.config.model_dump_json(), t.value) for t in one.record(part).trials if t.config)
            for one in (whole, pieces)
        ]
        assert tables[0] == tables[1]


def test_ctrl_c_leaves_it_to_the_next_call(comparison: Comparison) -> None:
    def interrupt(event: Event) -> None:
        if isinstance(event, Progressed) and event.number == 5 and event.report.step == 2:
            signal.raise_signal(signal.SIGINT)

    compared = comparison(listen=interrupt)
    assert (compared.interrupted, compared.answers) == (True, [])
    assert comparison().answers


def test_ctrl_c_in_the_last_run_of_a_plan_begins_no_other(comparison: Comparison) -> None:
    told = 0

    def interrupt(event: Event) -> None:
        nonlocal told
        told += isinstance(event, Told)
        if told == len(comparison.plans[-1].runs):
            signal.raise_signal(signal.SIGINT)

    compared = comparison(only=["norm", "init"], listen=interrupt)
    assert (compared.interrupted, compared.answers) == (True, [])
    assert [plan.title for plan in comparison.plans] == ["compare norm, learning rates"]
    assert len(comparison(only=["norm", "init"]).answers) == 2


def test_ctrl_c_before_the_first_run_fixes_no_family(comparison: Comparison) -> None:
    comparison.notes = StopsAt("  norm: ")
    compared = comparison()
    assert (compared.interrupted, compared.answers, comparison.plans) == (True, [], [])
    assert comparison.store.find("digits-mlp/compare") is None


def test_two_calls_at_a_time_are_one_too_many(comparison: Comparison) -> None:
    refused: list[Event] = []

    def listen(event: Event) -> None:
        if not refused:
            with pytest.raises(RequestError, match=rf"is being compared by process {os.getpid()} on"):
                Comparison(comparison.path)()
            refused.append(event)

    assert comparison(listen=listen).answers


def test_another_winner_is_another_comparison(comparison: Comparison) -> None:
    comparison()
    before = [summary.name for summary in comparison.store.summaries()]
    Harness(comparison.path)(
        200, spec(sampler="random", pruner="none", space={"activation": ["relu", "elu"]})
    )
    with pytest.raises(RequestError) as error:
        comparison()
    text = str(error.value)
    assert "'digits-mlp/compare' was begun with another family" in text
    assert "  norm: " in text
    assert "of an arm: stored " in text
    assert "add --name digits-mlp-again" in text
    assert [summary.name for summary in comparison.store.summaries()] == before
    assert comparison(name="digits-mlp-2").name == "digits-mlp-2/compare"
    assert not comparison(only=["init"], name="digits-mlp-2").interrupted


def test_around_the_confirmed_pick(searched: Path, tmp_path: Path) -> None:
    from slopesearch.evidence.confirm import confirm

    comparison = Comparison(Path(shutil.copy(searched, tmp_path)))
    verdict = confirm(
        "digits-mlp",
        store=comparison.store,
        settings=Settings(FOLDER, "cpu", 1, launcher="fake"),
        top=3,
        seeds=2,
    )
    compared = comparison()
    assert "around the confirmed pick" in comparison.notes[0]
    pick = verdict.confirmed[0].arm.config
    assert compared.answers[0].family.side(pick.norm).config == pick


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"seeds": 1}, "seeds: at least 2, given 1"),
        ({"only": ["norms"]}, "unknown question 'norms'; choose from slope, learned, norm, init, activation"),
        (
            {"name": "x/compare"},
            "name: 'x/compare' is what `compare` would call its own study; choose another",
        ),
        ({"asked": "none"}, "there is no study 'none'"),
        ({"asked": "digits-mlp/compare"}, "there is no study 'digits-mlp/compare'"),
        ({"asked": Path("x.toml")}, "only: a study file with arms asks one question of its own"),
    ],
)
def test_a_wrong_request_writes_nothing(
    comparison: Comparison, settings: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(RequestError) as error:
        comparison(**settings)
    assert str(error.value).startswith(sentence)
    assert [summary.name for summary in comparison.store.summaries()] == ["digits-mlp"]


def test_without_a_completed_trial_there_is_no_winner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Diverging(FakeLauncher):
        def report(self, config: TrialConfig, step: int) -> Report:
            return super().report(config, step).model_copy(update={"diverged": step < REPORTS})

    monkeypatch.setitem(LAUNCHERS, "fake", Diverging)
    Harness(tmp_path / "x.db")(2)
    with pytest.raises(RequestError, match="no trial of the study 'digits-mlp' has run to its end yet"):
        Comparison(tmp_path / "x.db")()


def test_other_images_are_refused(comparison: Comparison, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "content_hash", lambda *_: "other")
    with pytest.raises(RequestError, match="the digits images differ from those that the study 'digits-mlp'"):
        comparison()


def test_what_takes_the_fewest_runs_is_named_to_be_settled_next(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'x.db'}")
    pair = side_of("a", 1, 0.1, 0), side_of("b", 1.02, 0.1, 1)
    clear = [side_of(name, 2, 0.01, k) for k, name in enumerate("cde", start=1)]
    answers = [answer_of(*pair, *clear, question="activation"), answer_of(*pair, question="norm")]
    found = Compared("digits-mlp/compare", answers, interrupted=False)
    (activation, more), (norm, fewer) = (settling for one in answers if (settling := to_settle(one)))
    assert (activation < norm, fewer < more) == (True, True)  # three seeds of activations for each one typed

    def told(found: Compared) -> list[str]:
        return _next_commands(store, found, "digits-mlp", "digits-mlp", None)

    assert f"compare digits-mlp --only norm --seeds {norm} " in told(found)[0]
    # The same command goes on.
    assert not any("to settle" in line for line in told(replace(found, interrupted=True)))
    assert told(found)[1].startswith("the others   python -m slopesearch compare digits-mlp --storage ")
    assert not any("the others" in line for line in told(replace(found, interrupted=True)))


Written = Callable[..., Path]


def test_the_whole_way_on_the_command_line(
    command_line: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Really trained: search, compare, look at it."""
    monkeypatch.setenv("COLUMNS", "80")
    small = ("--train-size", "640", "--set", "width=8", "--set", "pruner='none'")
    assert command_line("optimize", *QUICK, *small, "--trials", "2").code == 0
    done = command_line("compare", "--only", "norm", "--seeds", "6", "--launcher", "inline")
    assert done.code == 0, done.err
    shown = done.out[done.out.index("\nnorm: where does BatchNorm go") :]
    assert max(map(len, shown.splitlines())) <= 80
    assert len(shown.splitlines()) <= 32
    to_settle = [line.split(maxsplit=2) for line in shown.splitlines() if line.startswith("  to settle")]
    seeds = [int(number) for number in re.findall(r"--seeds (\d+)\.", " ".join(shown.split()))]
    assert bool(to_settle) == bool(seeds)
    for *_, typed in to_settle:
        assert typed.startswith("python -m slopesearch compare digits-mlp --only norm --seeds ")
        assert int(typed.split()[-1]) == min(seeds)
    for words in (
        "6 paired seeds; p counts below 0.025 (look 1)",
        "difference, %",
        " instead of ",
    ):
        assert words in shown
    again = command_line("compare", "--only", "norm", "--seeds", "6", "--launcher", "inline", "--json")
    (answer,) = json.loads(again.out)
    assert answer["looks"] == [6]
    assert [len(side["losses"]) for side in answer["sides"]] == [6, 6, 6]
    assert json.loads(command_line("show", "digits-mlp/compare", "--json").out) == [answer]
    assert "norm: where does BatchNorm go" in command_line("show", "digits-mlp/compare").out
    told = " ".join(command_line("show").out.split())
    assert "compared, at lr 0." in told
    assert "mean of 6 fresh seeds" in told
    page = command_line("report", "--data-out", "tables")
    assert page.code == 0, page.err
    html = (tmp_path / "report.html").read_text()
    assert html.index('id="answer-norm"') < html.index('id="asked"')
    assert len((tmp_path / "tables" / "compare.csv").read_text().splitlines()) == 1 + 2 * 2
    assert len((tmp_path / "tables" / "compare_runs.csv").read_text().splitlines()) == 1 + 18
    assert "report digits-mlp" in command_line("report", "digits-mlp/compare").err
