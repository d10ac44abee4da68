"""A study file with arms: what it declares, and every mistake of it at once."""

from math import log
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from slopesearch.evidence.declared import declared
from slopesearch.evidence.families import Family
from slopesearch.search.launchers import LAUNCHERS
from slopesearch.search.records import COMPARE
from slopesearch.search.settings import Settings
from slopesearch.search.store import Store, create_or_resume
from slopesearch.wording import RequestError
from tests.conftest import InProcess
from tests.harness import FOLDER, FakeLauncher
from tests.test_compare import Comparison

ASKED: dict[str, Any] = {
    "dataset": "digits",
    "model": "mlp",
    "baseline": "relu",
    "space": {"norm": "none", "init": "default", "lr": {"low": 1e-3, "high": 1e-1, "log": True}},
    "arms": {
        "relu": {"activation": "relu"},
        "leaky": {"activation": "leaky_relu", "negative_slope": 0.1},
        "learned": {
            **{"activation": "leaky_relu", "negative_slope": 0.01, "slope_mode": "learnable"},
            **{"slope_max": 0.3, "lr": 0.01},
        },
    },
}


def written(folder: Path, head: str = "", **changes: Any) -> Path:
    path = folder / "slopes.toml"
    data = {key: value for key, value in {**ASKED, **changes}.items() if value is not None}
    path.write_text(head + tomli_w.dumps(data))
    return path


def family_of(path: Path) -> tuple[str, Family]:
    store = Store(f"sqlite:///{path.parent / 'x.db'}")
    name, _, (family,) = declared(path, None, Settings(FOLDER, "cpu", 1), store, print)
    return name, family


def test_what_was_begun_on_the_digits_for_lack_of_mnist_goes_on_without_a_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, dataset=None)
    store, settings = Store(f"sqlite:///{tmp_path / 'x.db'}"), Settings(tmp_path, "cpu", 1)
    with monkeypatch.context() as patch:
        patch.setattr("slopesearch.training.data._download", lambda *_: "no route to host")
        name, spec, _ = declared(path, None, settings, store, lambda text: None)
    assert name == "slopes-digits"
    with store.writing(name + COMPARE) as storage:
        create_or_resume(storage, name + COMPARE, spec, "images")
    monkeypatch.setattr("slopesearch.training.data._download", pytest.fail)
    assert declared(path, None, settings, store, pytest.fail)[:2] == (name, spec)


def test_the_arms_of_a_file_are_a_family(tmp_path: Path) -> None:
    name, family = family_of(written(tmp_path, "# Does the slope matter?   about 1 min\n"))
    assert (name, family.asks) == ("slopes-digits", "Does the slope matter?")
    assert family.contrasts == (("leaky", "relu"), ("learned", "relu"))
    relu, leaky, learned = family.sides
    assert (relu.config.activation, relu.config.negative_slope, relu.config.model) == ("relu", None, "mlp")
    assert (leaky.config.negative_slope, leaky.config.slope_mode) == (0.1, "fixed")
    assert (learned.config.slope_max, learned.config.slope_min) == (0.3, 1e-3)
    assert learned.rates == (0.01,)  # one value is not tuned
    assert len(relu.rates) == 6
    assert (relu.rates[0], relu.rates[-1]) == pytest.approx((1e-3, 1e-1))
    steps = [log(b / a) for a, b in zip(relu.rates, relu.rates[1:], strict=False)]
    assert steps == pytest.approx([log(100) / 5] * 5)
    assert (family.metric, family.smallest("val_loss")) == ("val_loss", log(1.03))


def test_the_metric_and_its_smallest_effect(tmp_path: Path) -> None:
    _, family = family_of(written(tmp_path, metric="val_error", smallest_effect=0.5))
    assert (family.metric, family.smallest("val_error")) == ("val_error", 0.005)
    assert family_of(written(tmp_path, smallest_effect=1.1))[1].smallest("val_loss") == log(1.1)
    _, largest = family_of(written(tmp_path, metric="val_error", smallest_effect=90))
    assert largest.smallest("val_error") == 0.9


def test_factors_are_crossed_and_compared_within_each_level(tmp_path: Path) -> None:
    _, family = family_of(written(
        tmp_path,
        baseline="none",
        space={"init": "default", "negative_slope": 0.01},
        arms={"none": {"norm": "none"}, "after": {"norm": "after"}},
        cross={"activation": ["relu", "leaky_relu"]},
    ))  # fmt: skip
    assert family.contrasts == (("relu, after", "relu, none"), ("leaky_relu, after", "leaky_relu, none"))
    made = [(s.name, s.config.activation, s.config.norm, s.config.negative_slope) for s in family.sides]
    assert made == [
        ("relu, none", "relu", "none", None),
        ("relu, after", "relu", "after", None),
        ("leaky_relu, none", "leaky_relu", "none", 0.01),
        ("leaky_relu, after", "leaky_relu", "after", 0.01),
    ]


def test_every_mistake_of_a_file_at_once(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        width=0,
        sampler="tpe",
        baseline="rellu",
        metric="loss",
        arms={
            "a": {"activation": "rellu"},
            "b": {"activation": "relu", "norm": ["none", "after"], "lr": [0.1, 0.2]},
            "c": {"activation": "leaky_relu", "widht": 3, "negative_slope": 2.0},
            "d": {"activation": "leaky_relu"},
        },
        cross={"init": ["default"], "lr": [0.1, 0.2]},
    )
    with pytest.raises(RequestError) as error:
        family_of(path)
    head, *lines = str(error.value).splitlines()
    assert head == f"'{path}' is no comparison that can be made:"
    expected = [
        "sampler: a comparison has none; leave it out",
        "width: input should be greater than or equal to 1, given 0",
        "unknown baseline 'rellu'; choose from a, b, c, d",
        "unknown metric 'loss'; choose from val_loss, val_error",
        "cross.init: a list of two values at least, given ['default']",
        "unknown key 'cross.lr'; choose from activation, ",
        "arms.a: unknown activation 'rellu'; choose from relu, ",
        "arms.b.norm: one value, given ['none', 'after']; lr alone is tuned",
        "arms.b.lr: a value, or a range to tune it in, given [0.1, 0.2]",
        "arms.c: unknown key 'widht'; choose from",
        "arms.c.negative_slope: a slope lies in [0, 1], given 2.0",
        "arms.d.negative_slope: is missing; give it there or in [space]",
    ]
    assert [one for one in expected if not any(line.strip().startswith(one) for line in lines)] == []
    assert len(lines) == len(expected)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"arms": {"relu": {"activation": "relu"}}}, "arms: two at least, given 'relu'"),
        ({"arms": None}, "arms: two tables at least, [arms.NAME], each with the fields"),
        ({"arms": 3}, "arms: two tables at least, [arms.NAME], each with the fields"),
        ({"baseline": None}, "baseline: is missing; the name of an arm: relu, leaky, learned"),
        ({"baseline": 3}, "unknown baseline '3'; choose from relu, leaky, learned"),
        ({"smallest_effect": 0.9}, "smallest_effect: a ratio of losses, above 1 and at most 10, given 0.9"),
        ({"smallest_effect": "x"}, "smallest_effect: a ratio of losses, above 1 and at most 10, given 'x'"),
        (
            {"metric": "val_error", "smallest_effect": 0},
            "smallest_effect: points of the error, above 0 and at",
        ),
        ({"cross": 3}, "cross: a table of fields and their values, given 3"),
        (
            {"cross": {"activation": ["relu", "elu"]}},
            "arms.relu.activation: is crossed already; leave it out",
        ),
        (
            {"arms": {**ASKED["arms"], "same": {"activation": "relu"}}},
            "arms.same: equals the baseline 'relu'; change a field or leave it out",
        ),
        ({"arms": {"relu": {}, "elu": {}}}, "arms.relu.activation: is missing; give it there or in [space]"),
        ({"arms": {"relu": {"activation": "relu"}, "x": {"activation": 3}}}, "arms.x.activation"),
        ({"train_size": 10**6}, "train_size: at most 1,000 for digits, given 1,000,000"),
    ],
)
def test_a_wrong_file_writes_nothing(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RequestError) as error:
        family_of(written(tmp_path, **changes))
    assert any(line.strip().startswith(sentence) for line in str(error.value).splitlines()), str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["slopes.toml"]


def test_a_comparison_without_a_search_has_a_page_of_its_own(
    command_line: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LAUNCHERS, "fake", FakeLauncher)
    comparison = Comparison(tmp_path / "x.db")
    arms = {"<b>relu": {"activation": "relu"}, "elu": {"activation": "elu"}}
    comparison(written(tmp_path, arms=arms, baseline="<b>relu"), only=[], seeds=6)
    storage = ("--storage", f"sqlite:///{tmp_path / 'x.db'}")
    done = command_line("report", "slopes-digits/compare", *storage, "--data-out", "tables")
    assert done.code == 0, done.err
    html = (tmp_path / "report.html").read_text()
    assert "elu instead of &lt;b&gt;relu: loss" in html
    assert "<b>" not in html.partition("<script>")[0]
    assert "The best config" not in html
    assert [path.name for path in sorted((tmp_path / "tables").iterdir())] == [
        *("compare.csv", "compare_runs.csv", "trials.csv")
    ]
    assert "<b>relu" in command_line("show", "slopes-digits/compare", *storage).out


def test_a_changed_file_is_another_comparison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LAUNCHERS, "fake", FakeLauncher)
    comparison = Comparison(tmp_path / "x.db")
    assert comparison(written(tmp_path), only=[], seeds=2).name == "slopes-digits/compare"
    assert comparison.notes[1] == "  arms: 3 arms on 2 seeds: 12 runs or more to tune and 6 to compare"
    assert comparison.notes[2].startswith("tuned; to compare takes about 0.1 min")
    more = comparison(written(tmp_path), only=[], seeds=3)
    assert comparison.runs() == 3
    assert more.answers[0].looks == (2, 3)
    names = [summary.name for summary in comparison.store.summaries()]
    arms = {**ASKED["arms"], "leaky": {"activation": "leaky_relu", "negative_slope": 0.2}}
    for changes, sentence in (
        ({"smallest_effect": 1.1}, "  arms: smallest_loss: stored 1.03, now 1.1"),
        ({"metric": "val_error"}, "  arms: metric: stored val_loss, now val_error"),
        ({"baseline": "leaky"}, "  arms: baseline: stored relu, now leaky"),
        ({"arms": arms}, "  arms: negative_slope of an arm: stored 0.1, now 0.2"),
        ({"arms": {**arms, "elu": {"activation": "elu"}}}, "  arms: arms: stored relu, leaky, learned; now"),
        ({"epochs": 7}, "  epochs: stored 12, given 7"),
    ):
        with pytest.raises(RequestError) as error:
            comparison(written(tmp_path, **changes), only=[], seeds=3)
        assert any(line.startswith(sentence) for line in str(error.value).splitlines()), str(error.value)
    assert [summary.name for summary in comparison.store.summaries()] == names
    assert comparison(written(tmp_path, epochs=7), only=[], seeds=2, name="other").name == "other/compare"
