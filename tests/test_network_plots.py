"""Figures of the networks."""

from slopesearch.nets.activations import ACTIVATIONS
from slopesearch.report.network_plots import SHAPES
from slopesearch.report.page import page, tables_of
from slopesearch.report.plots import PLOTS, trial_rows
from slopesearch.report.summary import NOT_COMPARABLE
from slopesearch.search.records import TrialRecord
from tests.conftest import make_config
from tests.synthetic import record, spec_of, study_with


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
        for trial in (1, 2, 3)
        for layer in (1, 2)
    ]
    said = PLOTS["gradients"].say(rows, spec_of(model="mlp"))
    assert "1 of the 6 gradients" in said
    assert "for relu (medians, n = 2)" in said
    assert "One hidden layer" not in PLOTS["gradients"].say(rows[:2], spec_of(model="mlp"))


def test_a_study_from_before_diagnostics_is_read() -> None:
    curve = [{"step": 9, "train_loss": 1, "val_loss": 1, "val_accuracy": 0.5}]
    study = study_with(record(0, "COMPLETE", 0.8, activation="relu", attributes={"curves": curve}))
    assert (
        PLOTS["dead"].rows(study) == PLOTS["gradients"].rows(study) == PLOTS["slope_paths"].rows(study) == []
    )
    assert PLOTS["dead"].missing in page(study, tables_of(study))


def test_diagnostics_of_an_earlier_version_stand_alone_and_are_marked() -> None:
    def trial(number: int, order: str | None) -> TrialRecord:
        layers = {
            "images": 9,
            "layers": [1],
            "never_active": [0.5],
            "zero_gradient": [0.5],
            "inactive": [0.5],
        }
        layers |= {"gradient_rms": [0.1], "dead_fraction": 0.5} | ({"order": order} if order else {})
        return record(number, "COMPLETE", 0.8, activation="relu", attributes={"layers": layers})

    old, mixed = study_with(trial(0, None)), study_with(trial(0, None), trial(1, "tutorial"))
    for name in ("dead", "gradients"):
        rows = PLOTS[name].rows(old)
        assert [row["trial"] for row in rows] == [0]
        assert NOT_COMPARABLE in PLOTS[name].say(rows, old.spec)
        rows = PLOTS[name].rows(mixed)
        assert [row["trial"] for row in rows] == [1]
        assert NOT_COMPARABLE not in PLOTS[name].say(rows, mixed.spec)
    assert NOT_COMPARABLE in page(old, tables_of(old))
    assert [row["diagnostics_order"] for row in trial_rows(mixed)] == [None, "tutorial"]


def test_shapes_are_those_of_the_networks() -> None:
    import torch

    z = torch.linspace(-4, 3, 71)
    for name, shape in SHAPES.items():
        module = ACTIVATIONS[name].make(make_config(activation=name, negative_slope=0.1), 1)
        drawn = torch.tensor([shape(float(value)) for value in z])
        assert torch.allclose(module(z[:, None])[:, 0], drawn, atol=1e-5), name
