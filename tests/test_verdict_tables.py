"""After a confirmation: what was confirmed is told, and no lucky run is called the best."""

import json
from pathlib import Path

import pytest

from slopesearch.cli.tables import study_table, summaries_table
from slopesearch.cli.verdict_tables import confirmed_sentences, mean_rows
from slopesearch.evidence.arms import TUTORIAL, Arm
from slopesearch.evidence.results import ConfirmedArm, Difference
from slopesearch.evidence.statistics import Estimate
from slopesearch.search.records import StudyRecord
from slopesearch.search.store import Store
from tests import synthetic
from tests.conftest import InProcess
from tests.synthetic import record, study_with
from tests.test_tables import render

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
    assert "is trial 1 by now, with val_accuracy 0.9800 in one run: confirm again" in later
    text = render(study_table, SEARCH, confirmation())
    assert "confirmed: leaky_relu" in text
    assert "best: trial" not in text
    assert "winner ahead by" not in text
    assert "python -m slopesearch show s/confirm" in text
    assert max(map(len, text.splitlines())) <= 82


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
