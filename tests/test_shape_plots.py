"""The shapes of the activations, and of slopes."""

import torch

from slopesearch.nets.activations import ACTIVATIONS
from slopesearch.report.plots import PLOTS
from slopesearch.report.shape_plots import SHAPES
from slopesearch.search.records import StudyRecord
from tests.conftest import make_config
from tests.synthetic import record, spec_of, study_with


def test_shapes_are_those_of_the_networks() -> None:
    z = torch.linspace(-4, 3, 71)
    for name, shape in SHAPES.items():
        module = ACTIVATIONS[name].make(make_config(activation=name, negative_slope=0.1), 1)
        drawn = torch.tensor([shape(float(value)) for value in z])
        assert torch.allclose(module(z[:, None])[:, 0], drawn, atol=1e-5), name


def test_an_unknown_shape_is_named() -> None:
    spec = spec_of()
    added = spec.model_copy(update={"space": spec.space.model_copy(update={"activation": ("mish", "relu")})})
    said = PLOTS["shapes"].say(PLOTS["shapes"].rows(StudyRecord("s", added, [])), added)
    assert "1 activation of this study (the shape of mish is not known here)" in said
    assert "no trial of leaky ReLU has run to its end" in said


def test_the_best_slope_stands_beside_the_tutorials_and_near_ones_share_a_label() -> None:
    study = study_with(
        record(0, "COMPLETE", 0.8, slope_mode="learnable", negative_slope=0.5),  # begins at 0.1
        record(1, "COMPLETE", 0.9, negative_slope=0.3),
        record(2, "PRUNED", 0.95, negative_slope=0.4),
    )
    rows = PLOTS["shapes"].rows(study)
    drawn = PLOTS["shapes"].draw(rows, study.spec)
    labels = [note.text for note in drawn.layout.annotations][2:]
    assert labels == ["0, 0.01", "0.1", "0.2", "0.3"]
    assert "began with, 0.3." in PLOTS["shapes"].say(rows, study.spec)
    ends = {row["negative_slope"]: row["phi"] for row in rows if row["z"] == -4 and row["negative_slope"]}
    assert ends == {0.01: -0.04, 0.1: -0.4, 0.2: -0.8, 0.3: -1.2}
