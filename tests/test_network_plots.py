"""Figures of the networks."""

from math import log10
from statistics import median
from typing import Literal

from slopesearch.config import Diagnostics, Report
from slopesearch.report.network_plots import ENOUGH
from slopesearch.report.page import page, tables_of
from slopesearch.report.plots import PLOTS, trial_rows
from slopesearch.report.style import colour_of
from slopesearch.report.summary import NOT_COMPARABLE
from slopesearch.search.records import StudyRecord, TrialRecord
from tests.synthetic import record, spec_of, study_with


def inside(
    zero: tuple[float, ...],
    silent: tuple[float, ...] | None = None,
    order: Literal["tutorial"] | None = "tutorial",
    attenuation: float | None = None,
) -> Diagnostics:
    """Diagnostics with as many layers as there are shares of dead units."""
    return Diagnostics(
        images=9,
        layers=tuple(range(1, len(zero) + 1)),
        never_active=silent or zero,
        zero_gradient=zero,
        inactive=zero,
        gradient_rms=(0.1,) * len(zero),
        dead_fraction=sum(zero) / len(zero),
        grad_attenuation=attenuation,
        order=order,
    )


def said(name: str, study: StudyRecord) -> str:
    return PLOTS[name].say(PLOTS[name].rows(study), study.spec)


def test_dead_units_are_told_of_the_layer_that_has_them() -> None:
    trials = [
        record(0, "COMPLETE", 0.8, activation="relu", diagnostics=inside((0.0, 0.0, 0.41))),
        record(1, "COMPLETE", 0.9, activation="relu", diagnostics=inside((0.02, 0.01, 0.0))),
        record(2, "COMPLETE", 0.9, activation="relu", diagnostics=inside((0.0, 0.0, 0.0))),
        record(3, "COMPLETE", 0.9, activation="elu", diagnostics=inside((0.0, 0.0, 0.0))),
        record(4, "COMPLETE", 0.9, diagnostics=inside((0.0, 0.0, 0.0), silent=(0.3, 0.0, 0.1))),
        record(5, "COMPLETE", 0.9, diagnostics=inside((0.0, 0.0, 0.0), silent=(0.1, 0.0, 0.0))),
        record(6, "COMPLETE", 0.9, activation="gelu", diagnostics=inside((0.05, 0.0, 0.0))),
        record(7, "COMPLETE", 0.9, activation="gelu", diagnostics=inside((0.03, 0.0, 0.0))),
    ]
    study = study_with(*trials)
    told = said("dead", study)
    assert "relu up to 41% of layer 3 (trial 0; median of 3 runs 2%)" in told
    assert "gelu up to 5% of layer 1 (trial 6; median of 2 runs 4%)" in told
    assert "none in elu (n = 1)" in told
    assert "leaky_relu up to 30% of layer 1 (trial 4; median of 2 runs 20%)" in told
    assert "14%" not in told  # the mean over the layers
    drawn = PLOTS["dead"].draw(PLOTS["dead"].rows(study), study.spec)
    above = {trace.marker.color: trace for trace in drawn.data if trace.yaxis == "y" and trace.name}
    below = {trace.marker.color for trace in drawn.data if trace.yaxis == "y2" and trace.name}
    assert set(above) == {colour_of("relu", study.spec), colour_of("gelu", study.spec)}
    assert below == {colour_of("leaky_relu", study.spec)}
    relu = above[colour_of("relu", study.spec)]
    highest = max(zip(relu.y, relu.x, strict=True))
    assert highest[0] == 0.41
    assert round(highest[1]) == 3  # in its layer's place
    (bars,) = [t for t in drawn.data if t.yaxis == "y" and t.line.color == colour_of("gelu", study.spec)]
    assert bars.y[::3] == (0.04, 0.0, 0.0)  # the median of 0.05 and 0.03


def test_activations_without_dead_units_are_not_said_to_have_some() -> None:
    study = study_with(record(0, "COMPLETE", 0.8, activation="tanh", diagnostics=inside((0.0, 0.0))))
    assert "cannot learn. Dead: none in tanh (n = 1)." in said("dead", study)
    assert PLOTS["dead"].draw(PLOTS["dead"].rows(study), study.spec).layout


def test_gradients_are_compared_within_a_norm_alone() -> None:
    # Simpson's case: within each norm relu's gradient shrinks less, yet over all it would shrink more.
    few, many = ENOUGH, 4 * ENOUGH
    factors = {("relu", "before"): (0.30, many), ("relu", "after"): (0.90, few)}
    factors |= {
        ("silu", "before"): (0.22, few),
        ("silu", "after"): (0.80, many),
        ("elu", "none"): (0.5, few - 1),
    }
    trials: list[TrialRecord] = []
    for (activation, norm), (factor, n) in factors.items():
        for _ in range(n):
            seen = inside((0.0, 0.0), attenuation=-log10(factor))
            trials.append(
                record(len(trials), "COMPLETE", 0.9, activation=activation, norm=norm, diagnostics=seen)
            )
    over_all = {
        name: median(f for (a, _), (f, n) in factors.items() if a == name for _ in range(n))
        for name in ("relu", "silu")
    }
    assert over_all["relu"] < over_all["silu"]  # the paradox
    study = study_with(*trials, model="mlp")
    told = said("gradients", study)
    assert f"norm before, 0.22 for silu (n = {few}) to 0.3 for relu (n = {many})" in told
    assert f"norm after, 0.8 for silu (n = {many}) to 0.9 for relu (n = {few})" in told
    assert f"norm none, under {ENOUGH} runs of each activation, too few to compare" in told
    drawn = PLOTS["gradients"].draw(PLOTS["gradients"].rows(study), study.spec)
    assert [title.text for title in drawn.layout.annotations] == ["norm none", "norm before", "norm after"]
    panels = [
        {trace.line.color for trace in drawn.data if trace.xaxis == axis and trace.x != (None,)}
        for axis in ("x", "x2", "x3")
    ]
    relu, silu, elu = (colour_of(name, study.spec) for name in ("relu", "silu", "elu"))
    assert panels == [{elu}, {relu, silu}, {relu, silu}]


def test_one_activation_is_no_comparison() -> None:
    some = [
        record(i, "COMPLETE", 0.9, activation=name, diagnostics=inside((0.0, 0.0), attenuation=0.0))
        for i, name in enumerate(("relu", "relu", "relu", "elu"))
    ]
    told = said("gradients", study_with(*some, model="mlp"))
    assert "norm none, 1 for relu (n = 3) and under 3 runs of each other activation." in told


def test_gradients_of_zero_are_told() -> None:
    rows = [
        {
            "trial": trial,
            "activation": "relu",
            "norm": "none",
            "layer": layer,
            "gradient_rms": 0.0 if trial == layer == 1 else 1e-3,
            "attenuation": None if trial == 1 else 0.5,
        }
        for trial in (1, 2, 3, 4)
        for layer in (1, 2)
    ]
    told = PLOTS["gradients"].say(rows, spec_of(model="mlp"))
    assert "1 of the 8 gradients" in told
    assert "for relu (n = 3)" in told
    assert "One hidden layer" not in PLOTS["gradients"].say(rows[:2], spec_of(model="mlp"))


def test_a_study_from_before_diagnostics_is_read() -> None:
    curve = (Report(step=9, train_loss=1, val_loss=1, val_accuracy=0.5),)
    study = study_with(record(0, "COMPLETE", 0.8, activation="relu", curve=curve))
    assert all(PLOTS[name].rows(study) == [] for name in ("dead", "gradients", "learned_slopes"))
    assert PLOTS["dead"].missing in page(study, tables_of(study))


def test_diagnostics_of_an_earlier_version_stand_alone_and_are_marked() -> None:
    def trial(number: int, order: Literal["tutorial"] | None) -> TrialRecord:
        return record(number, "COMPLETE", 0.8, activation="relu", diagnostics=inside((0.5,), order=order))

    old, mixed = study_with(trial(0, None)), study_with(trial(0, None), trial(1, "tutorial"))
    for name in ("dead", "gradients"):
        assert [row["trial"] for row in PLOTS[name].rows(old)] == [0]
        assert NOT_COMPARABLE in said(name, old)
        assert [row["trial"] for row in PLOTS[name].rows(mixed)] == [1]
        assert NOT_COMPARABLE not in said(name, mixed)
    assert NOT_COMPARABLE in page(old, tables_of(old))
    assert [row["diagnostics_order"] for row in trial_rows(mixed)] == [None, "tutorial"]
