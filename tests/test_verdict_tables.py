"""After a confirmation: what was confirmed is told, and no lucky run is called the best."""

import json
from pathlib import Path

import pytest

from slopesearch.cli.json_views import study_json
from slopesearch.cli.tables import confirmation_table, study_table, summaries_table
from slopesearch.cli.verdict_tables import confirmed_sentences, mean_rows, separation_sentences
from slopesearch.evidence.arms import TUTORIAL, Arm
from slopesearch.evidence.families import Side
from slopesearch.evidence.results import ConfirmedArm, Difference, Opening, TestedArm, compare_with_pick
from slopesearch.evidence.statistics import Estimate
from slopesearch.evidence.statistics import estimate as real
from slopesearch.search.records import StudyRecord
from slopesearch.search.store import Store
from tests import synthetic
from tests.conftest import InProcess
from tests.synthetic import record, study_with
from tests.test_tables import render
from tests.test_verdicts import answer_of, side_of

SEARCH = study_with(
    record(0, "COMPLETE", 0.97), record(1, "COMPLETE", 0.98, lr=0.02), record(2, "PRUNED", 0.5)
)


def estimate(mean: float) -> Estimate:
    return Estimate(mean=mean, sd=0.001, low=mean - 0.001, high=mean + 0.001)


def confirmed_arms() -> list[ConfirmedArm]:
    """The second of the search is the pick, ahead of a baseline by 0.0125."""
    configs = [trial.config for trial in SEARCH.trials]
    assert configs[0] is not None
    pick = ConfirmedArm(
        arm=Arm(roles=("top 2",), config=configs[0], trial=0, searched=0.97),
        runs=10,
        diverged=0,
        val_accuracy=estimate(0.9725),
        val_loss=estimate(0.1),
        shrinkage=-0.0025,
    )
    lead = Difference(val_accuracy=estimate(0.0125), val_loss=estimate(-0.05))
    tutorial = Arm(roles=(TUTORIAL,), config=configs[0].model_copy(update={"lr": 1e-3}))
    baseline = pick.model_copy(
        update={
            "arm": tutorial,
            "val_accuracy": estimate(0.96),
            "val_loss": estimate(0.15),
            "difference": lead,
        }
    )
    return [pick, baseline]


def confirmation() -> StudyRecord:
    attributes = {"confirmed": [row.model_dump(mode="json") for row in confirmed_arms()]}
    return StudyRecord("s/confirm", SEARCH.spec, [], attributes)


def test_the_pick_stands_in_the_place_of_the_luckiest_trial() -> None:
    arms = confirmed_arms()
    lucky = arms[0].arm.model_copy(update={"config": SEARCH.trials[1].config, "trial": 1})
    told = confirmed_sentences(SEARCH, [*arms, arms[0].model_copy(update={"arm": lucky})])
    assert told[0].startswith("confirmed: leaky_relu")
    assert "val_accuracy 0.9725 (0.9715 to 0.9735), val_loss 0.1000 (0.0990 to 0.1010)" in told[1]
    assert "trial 1 with val_accuracy 0.9800, was one lucky run, and is not the pick" in told[2]
    assert told[3] == f"Ahead of {TUTORIAL}: val_accuracy +0.0125 (+0.0115 to +0.0135)."
    later = confirmed_sentences(SEARCH, arms)[2]
    assert "trial 1 by now, with val_accuracy 0.9800 in one run: confirm again with --top 1" in later
    text = render(study_table, SEARCH, confirmation())
    assert "confirmed: leaky_relu" in text
    assert "best: trial" not in text
    assert "winner ahead by" not in text
    assert "python -m slopesearch show s/confirm" in text
    assert max(map(len, text.splitlines())) <= 82


def test_a_comparison_tells_of_the_best_trial_what_fresh_seeds_gave() -> None:
    best = SEARCH.trials[1].config
    assert best is not None
    own = side_of("own", 1, 0.01, 0, seeds=6)
    wide = Side(name="own", config=best.model_copy(update={"lr": 0.005}), rates=(0.005,))
    runs = own[1].model_copy(update={"config": wide.config})
    answered = {"norm": answer_of((wide, runs), side_of("worse", 1.2, 0.01, 1, seeds=6), looks=(6,))}
    text = " ".join(render(study_table, SEARCH, None, answered).split())
    assert f"What was compared: python -m slopesearch show {SEARCH.name}/compare" in text
    accuracy, loss = 1 - runs.error.mean, runs.loss.mean
    assert f"compared, at lr 0.005: val_accuracy {accuracy:.4f} ({1 - runs.error.high:.4f} to " in text
    assert f"val_loss {loss:.4f} (" in text
    assert "mean of 6 fresh seeds (95 %)." in text
    told = json.loads(study_json(SEARCH, [], None, answered))
    assert told["compared"] == runs.model_dump(mode="json")
    assert (told["confirmed"], json.loads(study_json(SEARCH, []))["compared"]) == (None, None)
    told = json.loads(study_json(SEARCH, [], confirmation(), {}, " --storage sqlite:///x.db"))
    assert told["confirmed"] == confirmed_arms()[0].model_dump(mode="json")
    assert not any("confirm s " in doubt["text"] for doubt in told["health"])


def test_what_the_search_saw_of_the_pick_is_told() -> None:
    own = confirmed_arms()[0]
    best = own.model_copy(update={"arm": own.arm.model_copy(update={"trial": 1})})
    assert confirmed_sentences(SEARCH, [best])[2] == "The search saw val_accuracy 0.9800 of it, in one run."


def test_a_study_of_seeds_has_means_and_no_best() -> None:
    runs = [
        record(i, "COMPLETE", value, lr=lr, init_seed=i)
        for i, (value, lr) in enumerate([(0.9, 0.1), (0.99, 0.1), (0.95, 0.2)])
    ]
    study = StudyRecord("s/test", SEARCH.spec, runs)
    assert [row[1:] for row in mean_rows(study)] == [(1, 0.95), (2, pytest.approx(0.945))]
    text = render(study_table, study)
    assert "s/test: 3 runs of 2 configs on seeds" in text
    assert "mean test_accuracy" in text
    assert "best" not in text


def test_list_has_the_confirmed_mean_and_no_best_of_seeds(tmp_path: Path, command_line: InProcess) -> None:
    synthetic.store(synthetic.study_of(4, "s"), tmp_path / "x.db")
    store = Store(f"sqlite:///{tmp_path}/x.db")
    synthetic.store(synthetic.study_of(4, "s/confirm"), tmp_path / "x.db")
    store.set_attributes("s/confirm", confirmation().attributes)
    rows = {
        row["name"]: row for row in json.loads(command_line("list", "--json", "--storage", store.url).out)
    }
    assert (rows["s"]["confirmed"], rows["s/confirm"]["best"]) == (0.9725, None)
    assert rows["s"]["best"] is not None
    summaries = store.summaries()
    text = render(summaries_table, summaries, {"s": 0.9725})
    assert "confirmed" in text
    assert "0.9725" in text


def arms_of(losses: dict[str, list[float]]) -> list[ConfirmedArm]:
    """Arms by their role, leaky ReLU with a learnable slope where the role says so; the lowest loss first."""
    bounds = {"slope_mode": "learnable", "slope_min": 1e-3, "slope_max": 0.1, "slope_clamp": "project"}
    rows = []
    for k, (role, values) in enumerate(losses.items()):
        changes = bounds if "learned" in role else {} if "fixed" in role else {"activation": "elu"}
        config = record(k, "COMPLETE", 0.9, lr=0.01 * (k + 1), **changes).config
        assert config is not None
        spread = real(values)
        rows.append(
            ConfirmedArm(
                arm=Arm(roles=(role,), config=config),
                runs=len(values),
                diverged=0,
                val_accuracy=spread.model_copy(update={"mean": 1 - spread.mean}),
                val_loss=spread,
                shrinkage=None,
                losses=tuple(values),
                accuracies=tuple(1 - value for value in values),
            )
        )
    return compare_with_pick(rows)


def test_what_the_pick_is_not_separated_from_is_told_and_fixed_against_learned() -> None:
    base = [0.1, 0.104, 0.098, 0.103, 0.1, 0.099, 0.102]
    jitter = [0.001, -0.001, 0.002, -0.002, 0.001, -0.0005, 0.0001]
    arms = arms_of(
        {
            "fixed": base,
            "near": [x + 0.0001 + y for x, y in zip(base, jitter, strict=True)],
            "learned": [x + 0.02 + y for x, y in zip(base, jitter, strict=True)],
        }
    )
    numbers = {row.arm.config: number for number, row in enumerate(arms, start=1)}
    apart, level, slope = separation_sentences(arms, numbers)
    assert apart == "By val_loss the pick is separated from 1 of 2 other arms."
    assert level == "Not separated from the pick: 2."
    assert slope.startswith("Slope, fixed (1) minus learned (3), the best of each: val_loss -0.0201 ± 0.00")
    assert slope.endswith(", p 0.0156, separated; they differ in lr too.")  # 1 of the 64 sign flips
    learned = arms[2].arm.model_copy(
        update={"config": arms[2].arm.config.model_copy(update={"norm": "after"})}
    )
    mixed = [*arms[:2], arms[2].model_copy(update={"arm": learned})]
    *_, slope = separation_sentences(mixed, {row.arm.config: n for n, row in enumerate(mixed, start=1)})
    assert slope.endswith("; they differ in norm and lr too, so compare --only learned has to tell.")
    assert "separated" not in slope
    text = render(confirmation_table, arms, [])
    near, far = text.split("pick minus")[1].splitlines()[1:3]
    assert near.startswith("2")
    assert " not separated " in near
    assert far.startswith("3")
    assert " separated " in far
    assert "not" not in far
    assert max(map(len, text.splitlines())) <= 80


def test_below_six_seeds_nothing_is_separated() -> None:
    arms = arms_of({"fixed": [0.1, 0.2], "near": [0.2, 0.101], "far": [0.5, 0.6001]})
    numbers = {row.arm.config: number for number, row in enumerate(arms, start=1)}
    told = separation_sentences(arms, numbers)
    assert told[0].startswith("A verdict takes 6 seeds")
    assert told[1:] == ["Not separated from the pick: 2."]
    assert separation_sentences(arms[:1], numbers) == []


def test_a_finished_confirmation_is_printed_and_says_when_the_search_has_gone_on(
    tmp_path: Path, command_line: InProcess
) -> None:
    synthetic.store(synthetic.study_of(4, "s"), tmp_path / "x.db")
    synthetic.store(synthetic.study_of(4, "s/confirm"), tmp_path / "x.db")
    store, (pick, _) = Store(f"sqlite:///{tmp_path}/x.db"), confirmed_arms()
    tested = TestedArm(arm=pick.arm, runs=10, accuracy=pick.val_accuracy, loss=pick.val_loss)
    opening = Opening(opened="2026-11-28", arms=(pick.arm,), seeds=10, tested=(tested,))
    opened = {"openings": [opening.model_dump(mode="json")]}
    store.set_attributes("s/confirm", confirmation().attributes | opened)
    best = store.read("s", "ranking").best()
    done = command_line("confirm", "s", "--storage", store.url)  # its images are not there: nothing runs
    assert (done.code, done.err) == (0, "")
    assert f"The search's best is trial {best.number} by now, which is not among these" in done.out
    assert f"  python -m slopesearch confirm s --top 1 --storage {store.url}" in done.out.splitlines()
    printed = json.loads(command_line("confirm", "s", "--json", "--storage", store.url).out)
    assert printed["pick"]["arm"]["trial"] == pick.arm.trial
