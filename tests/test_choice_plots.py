"""Figures of the choices side by side."""

from statistics import median

from slopesearch.report.plots import PLOTS
from slopesearch.report.style import NORMS, colour_of, distance
from slopesearch.search.records import StudyRecord
from tests.synthetic import record, study_of, study_with

STUDY = study_of(400)


def said(name: str, study: StudyRecord) -> str:
    return PLOTS[name].say(PLOTS[name].rows(study), study.spec)


def test_the_best_of_each_activation_is_counted_again() -> None:
    best: dict[str, tuple[float, float]] = {}
    counts: dict[str, int] = {}
    for trial in STUDY.trials:
        if trial.state != "COMPLETE" or trial.config is None or trial.value is None:
            continue
        name = trial.config.activation
        counts[name] = counts.get(name, 0) + 1
        best[name] = max(best.get(name, (0.0, 0.0)), (trial.value, trial.config.lr))
    order = sorted(best, key=lambda name: -best[name][0])
    told = said("activations", STUDY)
    assert f"Completed trials: {', '.join(f'{name} {counts[name]}' for name in order)}." in told
    for name, start in ((order[0], "The best trial of"), (order[-1], "that of")):
        value, lr = best[name]
        assert f"{start} {name} " in told
        assert f"{value:.4f} (" in told
        assert f"{lr:.2g})" in told


def test_choices_without_a_completed_trial_are_named() -> None:
    trials = [
        record(i, "COMPLETE", 0.9, activation=name, norm="before", init="lsuv")
        for i, name in enumerate(("relu", "elu", "gelu", "silu"))
    ]
    pruned = record(9, "PRUNED", 0.95, activation="tanh", norm="after", init="orthogonal")
    study = study_with(*trials, pruned)
    told = said("activations", study)
    assert "no trial with activation leaky_relu, prelu, tanh or sigmoid." in told
    assert (
        "no trial with init default, kaiming_normal, kaiming_uniform, xavier_normal, xavier_uniform " in told
    )
    assert "or orthogonal." in told
    assert "no trial with norm none or after." in said("norm", study)
    assert "no trial with activation leaky_relu, prelu, tanh or sigmoid." in said("curves", study)
    assert "The search completed no trial" not in said("norm", STUDY)


def test_equal_bests_are_told_as_equal() -> None:
    study = study_with(
        record(0, "COMPLETE", 0.9862, activation="relu", norm="before"),
        record(1, "COMPLETE", 0.9862, activation="relu", norm="after"),
        record(2, "COMPLETE", 0.9500, activation="relu"),
        record(3, "COMPLETE", 0.9862, activation="elu", norm="after"),
        record(4, "COMPLETE", 0.9700, activation="elu", norm="before"),
        record(5, "COMPLETE", 0.9000, activation="tanh"),  # it has no choice
    )
    told = said("norm", study)
    assert "Completed trials with norm none 2, before 2, after 2." in told
    assert (
        "Of 2 activations with a choice, the best trial has norm after for 1, a tie for 1: relu (before and "
        "after, 0.9862)." in told
    )
    assert "6 of 6 pairs rest on fewer than three trials" in told
    assert "The best trials of elu and relu are equal, 0.9862." in said("activations", study)


def test_every_run_of_a_pair_is_drawn_with_its_median_and_number() -> None:
    drawn = PLOTS["norm"].draw(PLOTS["norm"].rows(STUDY), STUDY.spec)
    traces = [trace for trace in drawn.data if trace.x != (None,)]
    pairs = list(zip(traces[::2], traces[1::2], strict=True))
    found = set()
    for marks, bar in pairs:
        norm = next(name for name, symbol in NORMS.items() if symbol == marks.marker.symbol)
        activation = next(
            name for name in STUDY.spec.space.activation if colour_of(name, STUDY.spec) == marks.marker.color
        )
        values = [
            t.value or 0.0
            for t in STUDY.trials
            if t.state == "COMPLETE"
            and t.config
            and (t.config.activation, t.config.norm) == (activation, norm)
        ]
        assert sorted(marks.x) == sorted(distance(value, STUDY.spec) for value in values)
        assert bar.x[0] == distance(median(values), STUDY.spec)
        assert bar.text[1] == f"n {len(values)}"
        found.add((activation, norm))
    assert len(found) == len(pairs) == 24
