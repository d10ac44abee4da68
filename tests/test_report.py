"""The report: its rows against made-up studies whose answer is known, and pages of studies of every kind."""

import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import optuna
import pytest
from optuna_dashboard import get_note, save_note

from slopesearch.cli.tables import describe
from slopesearch.config import REPORTS
from slopesearch.evidence import statistics as verdict
from slopesearch.evidence.statistics import Arm, Confirmed, Estimate, Opening
from slopesearch.nets.activations import ACTIVATIONS
from slopesearch.report.dashboard import annotate, study_note
from slopesearch.report.network_plots import SHAPES
from slopesearch.report.page import belief, page, tables_of, write_page
from slopesearch.report.plots import PLOTS, trial_rows, write_tables
from slopesearch.report.run_plots import expected_best
from slopesearch.report.style import COLOURS, activations_of, better_up, colour_of, distance, log_axis
from slopesearch.search.records import StudyRecord, TrialRecord
from slopesearch.search.store import Store
from tests.conftest import InProcess, make_config
from tests.synthetic import spec_of, store, study_of

STUDY = study_of(400)


def record(number: int, state: str, value: float | None, **fields: object) -> TrialRecord:
    """A trial with as little as there can be; `attributes` and `reports` may be given."""
    attributes = dict(fields.pop("attributes", {}))  # type: ignore[call-overload]
    ended = {"COMPLETE": "completed", "PRUNED": "pruned"}.get(state, "running")
    reports = fields.pop("reports", {1: 0.5, REPORTS: value} if state == "COMPLETE" else {1: 0.5})
    config = make_config(**fields)
    return TrialRecord(number, state, value, config, reports, {"ended": ended, **attributes})  # type: ignore[arg-type]


def study_with(*trials: TrialRecord, **fields: object) -> StudyRecord:
    return StudyRecord("s", spec_of(**fields), list(trials))


# --- rows


def test_history_counts_only_completed_trials_for_the_best() -> None:
    study = study_with(
        record(5, "COMPLETE", 0.8),
        record(6, "PRUNED", 0.9),
        record(7, "COMPLETE", 0.7),
        record(8, "RUNNING", None),
    )
    rows = PLOTS["history"].rows(study)
    assert [(row["trial"], row["best"]) for row in rows] == [(5, 0.8), (6, 0.8), (7, 0.8)]
    loss = study_with(record(5, "COMPLETE", 0.8), record(6, "COMPLETE", 0.7), objective="val_loss")
    assert [row["best"] for row in PLOTS["history"].rows(loss)] == [0.8, 0.7]
    assert "The best of 2 completed trials, 0.8000, is trial 5; 2 trials" in PLOTS["history"].say(
        rows, study.spec
    )


def test_the_textbooks_trials_are_marked() -> None:
    rows = PLOTS["history"].rows(STUDY)
    assert [row["trial"] for row in rows if row["recipe"]] == [0, 1, 2, 3, 4]


def test_where_runs_ended_and_what_was_saved() -> None:
    study = study_with(
        record(0, "COMPLETE", 0.8),
        record(1, "PRUNED", 0.5),
        record(2, "PRUNED", 0.5),
        record(3, "RUNNING", None),
    )
    rows = PLOTS["ended"].rows(study)
    assert [tuple(row.values()) for row in rows] == [(1, "pruned", 2), (9, "completed", 1)]
    assert "3 runs took 41%" in PLOTS["ended"].say(rows, study.spec)  # 11 of 27 reports
    others = study_with(
        *study.trials,
        record(4, "PRUNED", 0.1, attributes={"ended": "diverged"}),
        TrialRecord(5, "FAIL", None, make_config(), {}, {"ended": "failed: x"}),
    )
    said = PLOTS["ended"].say(PLOTS["ended"].rows(others), study.spec)
    assert "1 diverged" in said
    assert "3 runs took 41%" in said  # what diverged or failed was not pruned
    unpruned = study_with(*study.trials, pruner="none")
    assert "no pruner" in PLOTS["ended"].say(rows, unpruned.spec)


def test_wrong_stops_are_told_with_interval_and_number() -> None:
    through = [record(10 + i, "COMPLETE", 0.90 + i / 1000) for i in range(11)]  # median 0.905
    audited = [
        record(30 + i, "COMPLETE", value, attributes={"would_prune_at": 1})
        for i, value in enumerate((0.95, 0.8, 0.7, 0.6))
    ]
    book = record(0, "COMPLETE", 0.999)  # the textbook's are judged by nobody
    study = study_with(book, *through, *audited)
    rows = PLOTS["audit"].rows(study)
    said = PLOTS["audit"].say(rows, study.spec)
    # Wilson's interval of 1 in 4: 4.6 to 69.9 %.
    assert "Of 4 such runs, 0 of them diverged, 1 ended better than the median of the 11" in said
    assert "wrong in 25% (95 % interval 5% to 70%)" in said
    assert "too few" in said
    assert "not known" in PLOTS["audit"].say(PLOTS["audit"].rows(study_with(book, *through)), study.spec)
    assert "no pruner" in PLOTS["audit"].say(rows, spec_of(pruner="none"))


def test_stopping_what_diverges_is_right() -> None:
    through = [record(10 + i, "COMPLETE", 0.90 + i / 1000) for i in range(11)]
    diverged = [
        record(30, "PRUNED", 0.1, attributes={"would_prune_at": 1, "ended": "diverged"}),
        record(31, "PRUNED", 0.1, attributes={"ended": "diverged"}),  # the pruner would have let it go on
        record(32, "PRUNED", 0.1),
    ]
    better = record(40, "COMPLETE", 0.95, attributes={"would_prune_at": 1})
    study = study_with(*through, *diverged, better)
    rows = PLOTS["audit"].rows(study)
    assert {row["trial"] for row in rows} == {*range(10, 21), 30, 40}
    said = PLOTS["audit"].say(rows, study.spec)
    assert "Of 2 such runs, 1 of them diverged, 1 ended better than the median of the 11" in said
    assert "wrong in 50%" in said


def test_early_and_late_ranks_are_correlated() -> None:
    trials = [
        record(i, "COMPLETE", 0.9 + i / 100, reports={1: 0.5 - i / 100, 9: 0.9 + i / 100}) for i in range(6)
    ]
    study = study_with(*trials)
    rows = PLOTS["audit"].rows(study)
    assert "at -1.00 (Spearman, n = 6)" in PLOTS["audit"].say(rows, study.spec)
    assert "the pruner chose them" in PLOTS["audit"].say(rows, study.spec)
    assert "the pruner chose" not in PLOTS["audit"].say(rows, spec_of(pruner="none"))


def test_importances_stay_inside_their_branch() -> None:
    rows = PLOTS["importances"].rows(STUDY)
    branches = {row["branch"]: {r["parameter"] for r in rows if r["branch"] == row["branch"]} for row in rows}
    assert branches["all trials"] == {"activation", "norm", "init", "lr"}
    assert branches["leaky_relu"] == {"norm", "init", "lr", "slope_mode", "negative_slope"}
    for branch in branches:
        some = [row for row in rows if row["branch"] == branch]
        assert sum(row["importance"] for row in some) == pytest.approx(1)
    counts = {row["branch"]: row["trials"] for row in rows}
    complete = [trial.config for trial in STUDY.trials if trial.state == "COMPLETE"]
    assert counts["all trials"] == len(complete)
    assert counts["leaky_relu"] == sum(c.activation == "leaky_relu" for c in complete if c)
    top = max(
        (row for row in rows if row["branch"] == "all trials"), key=lambda row: float(row["importance"])
    )
    assert top["parameter"] == "lr"  # as it was made up


def test_values_that_are_all_equal_rank_nothing() -> None:
    tied = [record(i, "COMPLETE", 0.9, lr=1e-3 * (i + 1)) for i in range(12)]
    assert PLOTS["importances"].rows(study_with(*tied)) == []
    assert PLOTS["importances"].rows(study_with(*tied, record(12, "COMPLETE", 0.95)))


@pytest.mark.parametrize("name", ["importances", "dead", "gradients", "slope_paths", "activations"])
def test_what_a_sampler_chose_is_not_a_comparison(name: str) -> None:
    rows = PLOTS[name].rows(STUDY)
    rows = [*rows, *({**row, "report": REPORTS} for row in rows[:1] if "report" in row)]
    assert "The sampler chose these trials" in PLOTS[name].say(rows, STUDY.spec)
    assert "The sampler" not in PLOTS[name].say(rows, spec_of(sampler="random"))


def test_expected_best_is_the_mean_of_the_best_of_k() -> None:
    values = [0.1, 0.4, 0.9]
    assert expected_best(values, 1, True) == pytest.approx(sum(values) / 3)
    pairs = [max(a, b) for a in values for b in values]
    assert expected_best(values, 2, True) == pytest.approx(sum(pairs) / 9)
    assert expected_best(values, 2, False) == pytest.approx(
        sum(min(a, b) for a in values for b in values) / 9
    )


def test_slope_rows_hold_leaky_relu_alone() -> None:
    rows = PLOTS["slope"].rows(STUDY)
    assert rows
    numbers = {row["trial"] for row in rows}
    assert numbers == {
        t.number
        for t in STUDY.trials
        if t.state == "COMPLETE" and t.config and t.config.activation == "leaky_relu"
    }
    assert all((row["slope_max"] is None) == (row["slope_mode"] == "fixed") for row in rows)


def test_norm_cells_hold_the_best_and_the_count() -> None:
    study = study_with(
        record(0, "COMPLETE", 0.8, activation="elu"),
        record(1, "COMPLETE", 0.9, activation="elu"),
        record(2, "COMPLETE", 0.7, activation="elu", norm="after"),
    )
    rows = PLOTS["norm"].rows(study)
    assert [(r["norm"], r["trials"], r["best"]) for r in rows] == [("none", 2, 0.9), ("after", 1, 0.7)]
    assert "2 of 2 cells rest on fewer than three trials" in PLOTS["norm"].say(rows, study.spec)


def test_paths_begin_where_the_slope_begins_and_tell_raw_from_effective() -> None:
    curve = [
        {
            "step": 1,
            "train_loss": 1,
            "val_loss": 1,
            "val_accuracy": 0.5,
            "slopes": [0.02, 0.1],
            "raw_slopes": [0.02, 0.3],
        }
    ]
    study = study_with(
        record(0, "COMPLETE", 0.8, slope_mode="learnable", negative_slope=0.5, attributes={"curves": curve})
    )
    rows = PLOTS["slope_paths"].rows(study)
    assert [(r["layer"], r["report"], r["slope"], r["raw_slope"]) for r in rows] == [
        (1, 0, 0.1, 0.1),  # a start above slope_max begins there
        (2, 0, 0.1, 0.1),
        (1, 1, 0.02, 0.02),
        (2, 1, 0.1, 0.3),
    ]
    assert "At 1 points the parameter lay outside" in PLOTS["slope_paths"].say(
        [*rows, rows[0] | {"report": 9}], study.spec
    )


def test_a_learned_path_begins_within_its_range() -> None:
    curve = [
        {
            "step": 1,
            "train_loss": 1,
            "val_loss": 1,
            "val_accuracy": 0.5,
            "slopes": [0.02],
            "raw_slopes": [0.02],
        }
    ]
    low = record(0, "COMPLETE", 0.8, slope_mode="learnable", negative_slope=0.0, attributes={"curves": curve})
    assert PLOTS["slope_paths"].rows(study_with(low))[0]["slope"] == 1e-3  # slope_min


def test_the_tutorials_slopes_stand_where_the_axis_has_them() -> None:
    spec = spec_of()
    some = [record(i, "COMPLETE", 0.8, negative_slope=slope) for i, slope in enumerate((0.0, 0.3))]
    for trials, places in ((some, [0.01, 0.1, 0.2]), (some[1:], [-2, -1, -0.699])):
        drawn = PLOTS["slope"].draw(PLOTS["slope"].rows(study_with(*trials)), spec)
        assert [mark.x for mark in drawn.layout.annotations] == pytest.approx(places, abs=1e-3)


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


def test_shapes_are_those_of_the_networks() -> None:
    import torch

    z = torch.linspace(-4, 3, 71)
    for name, shape in SHAPES.items():
        module = ACTIVATIONS[name].make(make_config(activation=name, negative_slope=0.1), 1)
        drawn = torch.tensor([shape(float(value)) for value in z])
        assert torch.allclose(module(z[:, None])[:, 0], drawn, atol=1e-5), name


# --- figures


@pytest.mark.parametrize("name", PLOTS)
@pytest.mark.parametrize("objective", ["val_accuracy", "val_loss"])
def test_every_figure_draws_its_rows_and_says_how_many(name: str, objective: str) -> None:
    study = study_of(400, objective=objective) if objective == "val_loss" else STUDY
    rows = PLOTS[name].rows(study)
    assert rows
    figure = json.loads(PLOTS[name].draw(rows, study.spec).to_json())
    assert figure["data"]
    assert any(trace.get("x") or trace.get("z") for trace in figure["data"])
    assert "bdata" not in json.dumps(figure)  # plain lists: the dashboard's plotly may be older
    said = PLOTS[name].say(rows, study.spec)
    assert said.endswith(".")
    assert name in ("slope_shapes",) or re.search(r"\d", said)


def test_every_activation_has_its_own_colour() -> None:
    assert len(set(COLOURS.values())) == len(COLOURS)
    spec = spec_of()
    assert len({colour_of(name, spec) for name in ACTIVATIONS}) == len(ACTIVATIONS)
    added = spec.model_copy(update={"space": spec.space.model_copy(update={"activation": ("mish", "relu")})})
    assert activations_of(added) == ["relu", "mish"]
    assert colour_of("mish", added) not in COLOURS.values()
    said = PLOTS["shapes"].say(PLOTS["shapes"].rows(StudyRecord("s", added, [])), added)
    assert "(not mish)" in said


def test_the_axis_of_the_objective_is_better_upwards() -> None:
    spec = spec_of()
    axis = better_up(spec, [0.1, 0.98, 1.0])
    assert axis["range"][0] > axis["range"][1]  # reversed: small distances are on top
    assert dict(zip(axis["ticktext"], axis["tickvals"], strict=True))["0.99"] == pytest.approx(0.01)
    assert 0 < distance(1.0, spec) < 1 / (spec.val_size or 0)
    for values in ([0.981, 0.982], [0.1, 0.99]):
        assert 2 <= len(better_up(spec, values)["tickvals"]) <= 6
    assert 2 <= len(log_axis([1e-4, 3e-2])["tickvals"]) <= 6
    assert log_axis([0.0]) == {}


# --- pages


class Text(HTMLParser):
    """The text of a page outside of scripts and styles, and how often each element opens."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text, self.opened, self.inside = "", [""], ""
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: object) -> None:
        self.opened.append(tag)
        self.inside = tag

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside not in ("script", "style"):
            self.text += data


KINDS: dict[str, StudyRecord] = {
    "empty": study_with(),
    "one trial": study_with(record(0, "COMPLETE", 0.8)),
    "one pruned": study_with(record(0, "PRUNED", 0.3)),
    "only failures": study_with(
        *(TrialRecord(i, "FAIL", None, make_config(), {}, {"ended": "failed: x"}) for i in range(3))
    ),
    "unfinished": study_with(TrialRecord(0, "RUNNING", None, None, {}, {})),
    "one activation": study_of(30, space={"activation": "elu"}),
    "no slope": study_of(
        30, space={"activation": ["relu", "tanh"], "norm": "none", "init": "lsuv", "lr": 1e-3}
    ),
    "perfect": study_with(record(0, "COMPLETE", 1.0), record(1, "COMPLETE", 1.0)),
    "loss": study_of(60, objective="val_loss"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_pages_of_every_kind_of_study_make_sense(kind: str) -> None:
    study = KINDS[kind]
    found = Text(page(study, tables_of(study)))
    for plot in PLOTS.values():
        assert plot.title in found.text
    for word in ("nan", "None", "inf "):
        assert word not in found.text.replace("information", "")
    if not study.ranked():
        assert "there is no best config" in found.text
    if kind == "empty":
        assert "This study holds no trial yet." in found.text


def test_belief_counts_the_trials_that_cannot_be_told_apart() -> None:
    trials = [
        record(i, "COMPLETE", loss, attributes={"val_accuracy": accuracy})
        for i, (loss, accuracy) in enumerate(((0.1, 0.979), (0.09, 0.98), (0.5, 0.5), (0.2, 1.0)))
    ]
    said = " ".join(belief(study_with(*trials, objective="val_loss")))
    # Wilson's interval for 0.98 of 397 images: 0.961 to 0.990.
    assert "0.9609–0.9898" in said or re.search(r"0\.96\d\d–0\.9\d{3}", said)
    assert "1 of the other 3 completed trials" in said


def test_what_was_confirmed_stands_first() -> None:
    study = study_of(40)
    value = study.ranked()[0].value
    assert value is not None
    arm = Arm(roles=("top 1", "<b>"), config=study.ranked()[0].config or make_config(), searched=value)
    losing = Confirmed(
        arm=arm,
        runs=10,
        diverged=0,
        val_accuracy=Estimate(mean=0.91, sd=0.01, low=0.9028, high=0.9172),
        val_loss=Estimate(mean=0.3, sd=0.1, low=0.2, high=0.4),
        shrinkage=0.0123,
    )
    attributes = {"confirmed": [losing.model_dump(mode="json")]}
    confirmation = StudyRecord("x/confirm", study.spec, [], attributes)
    html = page(study, tables_of(study), confirmation)
    best = describe(arm.config)
    for words in ("On fresh seeds", "top 1, &lt;b&gt;", "0.9100 (0.9028–0.9172)", "+0.0123"):
        assert words in html
    for words in ("shrinkage", "0.3000 (0.2000–0.4000)", "a little optimistic", f"<td>{best}</td>"):
        assert words in html
    assert html.index(f"The pick of `confirm`: {best}") < html.index("Trial ")
    assert "On the test set" not in html
    assert html.index("On fresh seeds") < html.index("The best trials")
    assert "On fresh seeds" not in page(study, tables_of(study))
    tested = verdict.Tested(arm=arm, runs=10, accuracy=losing.val_accuracy, loss=losing.val_loss)
    opening = Opening(opened="2026-01-01", arms=(arm,), seeds=10, tested=(tested,))
    attributes["openings"] = [opening.model_dump(mode="json")]
    html = page(study, tables_of(study), confirmation)
    assert "On the test set, opened once" in html
    assert "the pick, top 1" in html


def test_text_from_a_study_is_data() -> None:
    evil = "<script>alert(1)</script>\"'&"
    study = study_of(40, name=evil)
    for trial in study.trials:
        trial.attributes["device"] = f"</script><img src=x>{evil}"
        trial.attributes["ended"] = trial.attributes["ended"]
    html = page(study, tables_of(study))
    plain = page(study_of(40), tables_of(study_of(40)))
    assert Text(html).opened == Text(plain).opened
    assert evil in Text(html).text


def test_the_page_is_one_file_without_addresses(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("before")
    write_page(STUDY, tables_of(STUDY), path)
    html = path.read_text()
    assert len(html.encode()) < 8e6
    own = html.replace(html[html.index("* plotly.js v") : html.rindex("<script>")], "")
    assert not re.search(r"(src|href)=\"(?!#|data:)", own)
    assert "default-src 'none'" in own
    assert [found.name for found in tmp_path.iterdir()] == ["report.html"]


def test_tables_keep_conditional_parameters(tmp_path: Path) -> None:
    written = write_tables(STUDY, tables_of(STUDY), tmp_path / "new" / "folder")
    assert {path.stem for path in written} == {"trials", *PLOTS}
    with (tmp_path / "new" / "folder" / "trials.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(STUDY.trials) == len(trial_rows(STUDY))
    for row, trial in zip(rows, STUDY.trials, strict=True):
        assert trial.config is not None
        leaky, learnable = trial.config.activation == "leaky_relu", trial.config.slope_mode == "learnable"
        assert bool(row["negative_slope"]) == bool(row["slope_mode"]) == leaky
        assert bool(row["slope_max"]) == learnable
        assert float(row["lr"]) == trial.config.lr


def test_a_stored_study_gives_the_same_page(tmp_path: Path) -> None:
    small = study_of(9)
    store(small, tmp_path / "x.db")
    read = Store(f"sqlite:///{tmp_path}/x.db").read()
    rows = tables_of(read)
    assert rows == tables_of(small)
    assert "torch" in page(read, rows)  # the versions are told


def test_a_verdict_has_no_page_and_no_notes_of_its_own(command_line: InProcess, tmp_path: Path) -> None:
    (tmp_path / "studies").mkdir()
    store(study_of(3, name="a b/confirm"), tmp_path / "studies" / "slopesearch.db")
    for name in ("a b/confirm", "a b/test"):
        refused = command_line("report", name)
        assert refused.code == 2
        assert "python -m slopesearch report 'a b'" in refused.err
    assert not (tmp_path / "report.html").exists()
    place = Store(f"sqlite:///{tmp_path}/studies/slopesearch.db")
    annotate(place, place.read("a b/confirm"))
    with place.open() as storage:
        assert get_note(optuna.load_study(study_name="a b/confirm", storage=storage)) == ""


def test_a_note_that_was_edited_stays(tmp_path: Path) -> None:
    place = Store(f"sqlite:///{tmp_path}/x.db")
    store(study_of(3), tmp_path / "x.db")
    study = place.read()
    annotate(place, study)
    with place.open() as storage:
        stored = optuna.load_study(study_name=study.name, storage=storage)
        ours = get_note(stored)
        annotate(place, StudyRecord(study.name, study.spec, [], study.attributes))
        assert get_note(stored) != ours  # it still was ours
        save_note(stored, f"Mine.\n\n{ours}")
        annotate(place, study)
        assert get_note(stored) == f"Mine.\n\n{ours}"


def test_a_name_in_a_note_keeps_its_spaces() -> None:
    note = study_note(Store("sqlite:///x.db"), study_of(3, name="a  b\nc"))
    assert "report 'a  b c' --storage" in note


@pytest.mark.parametrize("port", ["0", "99999"])
def test_a_port_that_is_none_is_refused(command_line: InProcess, port: str) -> None:
    refused = command_line("dashboard", "--port", port)
    assert refused.code == 2
    assert "--port" in refused.err
