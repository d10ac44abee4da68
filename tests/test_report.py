"""The report: every figure draws and speaks, pages of studies of every kind, and the dashboard's notes."""

import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import optuna
import pytest
from optuna_dashboard import get_note, save_note

from slopesearch.evidence.arms import TUTORIAL, Arm
from slopesearch.evidence.results import ConfirmedArm, Difference, Opening, TestedArm
from slopesearch.evidence.selection import believed
from slopesearch.evidence.statistics import Estimate
from slopesearch.report.dashboard import annotate, study_note
from slopesearch.report.findings import belief, lead, plainly
from slopesearch.report.page import page, tables_of, write_page
from slopesearch.report.plots import PLOTS, trial_rows, write_tables
from slopesearch.report.style import adaptive, distance
from slopesearch.report.summary import Verdicts
from slopesearch.search.records import StudyRecord, TrialRecord
from slopesearch.search.store import Store
from tests.conftest import InProcess, make_config
from tests.synthetic import record, spec_of, store, study_of, study_with

STUDY = study_of(400)


def test_what_a_sampler_chose_is_no_comparison_and_no_figure_repeats_it() -> None:
    told = adaptive(STUDY.spec)
    assert "they do not compare" in told
    assert adaptive(spec_of(sampler="random")) == ""
    for plot in PLOTS.values():
        assert "sampler" not in plot.say(plot.rows(STUDY), STUDY.spec)


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
    assert re.search(r"\d", said)


THINNED = ("history", "slope", "activations", "norm", "dead", "speed", "audit")


@pytest.mark.parametrize("name", PLOTS)
def test_a_figure_of_very_many_trials_draws_some_and_says_so(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plot = PLOTS[name]
    rows = plot.rows(STUDY)
    before, whole = plot.say(rows, STUDY.spec), plot.draw(rows, STUDY.spec)
    monkeypatch.setattr("slopesearch.report.style.MOST_DRAWN", 4)
    said, drawn = plot.say(rows, STUDY.spec), plot.draw(rows, STUDY.spec)
    assert "Drawn are" not in before
    assert ("Drawn are 4 of the" in said) == (name in THINNED)
    assert (len(drawn.to_json()) < len(whole.to_json())) == (name in THINNED)
    assert re.sub(" Drawn are[^.]*[.]", "", said) == before
    best = STUDY.best().value
    if name in ("history", "activations"):
        gap = distance(best or 0, STUDY.spec)
        assert any(gap in (trace["x"] or ()) or gap in (trace["y"] or ()) for trace in drawn["data"])


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
        assert "compare " not in found.text.partition("What the search saw")[0]  # around no winner
    if kind == "empty":
        assert "This study holds no trial yet." in found.text


def test_belief_says_what_to_expect_and_counts_the_trials_that_cannot_be_told_apart() -> None:
    study = study_with(
        *(record(i, "COMPLETE", loss) for i, loss in enumerate((0.1, 0.09, 0.5))), objective="val_loss"
    )
    said = " ".join([lead(study, Verdicts()), *belief(study)])
    found = believed(study)
    assert found is not None
    assert found.value > 0.09  # the luckiest of three
    assert f"on a fresh seed expect {found.value:.4f} ({found.low:.4f} to {found.high:.4f})" in said
    assert "the luckiest of 3 single runs" in said
    assert "1 other run cannot be told from it" in said


def test_what_was_confirmed_stands_first() -> None:
    study = study_of(40)
    value = study.ranked()[0].value
    assert value is not None
    arm = Arm(roles=("top 1", "<b>"), config=study.ranked()[0].config or make_config(), searched=value)
    losing = ConfirmedArm(
        arm=arm,
        runs=10,
        diverged=0,
        val_accuracy=Estimate(mean=0.91, sd=0.01, low=0.9028, high=0.9172),
        val_loss=Estimate(mean=0.3, sd=0.1, low=0.2, high=0.4),
        shrinkage=0.0123,
    )
    attributes = {"confirmed": [losing.model_dump(mode="json")]}
    confirmation = StudyRecord("x/confirm", study.spec, [], attributes)
    html = page(study, tables_of(study), Verdicts(confirmation))
    for words in ("Confirmed on 10 fresh seeds", "top 1, &lt;b&gt;", "0.9100 (0.9028 to 0.9172)", "+0.0123"):
        assert words in html
    for words in (
        "shrinkage",
        "0.3000\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}0.1000",
        "a little optimistic",
        f"<td>{arm.config.init}</td>",
    ):
        assert words in html
    assert (
        html.index(f"The pick: {plainly(arm.config)}.")
        < html.index("Confirmed on")
        < html.index("The best trials")
    )
    assert "95\N{NO-BREAK SPACE}%" in html  # no line ends before the sign
    assert "over 1 arm that the search chose, a mean of +0.0123." in html
    assert "On the test set" not in html
    assert "The best trial so far" not in html
    assert "confirm digits-cnn" not in html  # it has run
    recipe = losing.model_copy(update={"arm": arm.model_copy(update={"roles": (TUTORIAL,)})})
    kept = {"confirmed": [recipe.model_dump(mode="json")]}
    told = belief(study, Verdicts(StudyRecord("x/confirm", study.spec, [], kept)))
    assert not [sentence for sentence in told if sentence.startswith("Shrinkage")]  # no search chose it
    assert "Confirmed on" not in page(study, tables_of(study))
    tested = TestedArm(arm=arm, runs=10, accuracy=losing.val_accuracy, loss=losing.val_loss)
    opening = Opening(opened="2026-01-01", arms=(arm,), seeds=10, tested=(tested,))
    attributes["openings"] = [opening.model_dump(mode="json")]
    html = page(study, tables_of(study), Verdicts(confirmation))
    assert "On the test set, opened once" in html
    assert "; test accuracy 0.9100 (0.9028 to 0.9172)." in html
    assert "the pick, top 1" in html


@pytest.mark.parametrize("p", [None, 0.031])
def test_the_table_of_what_was_confirmed_has_a_column_for_p_where_there_are_some(p: float | None) -> None:
    study = study_of(40)
    found = Estimate(mean=0.3, sd=0.1, low=0.2, high=0.4)
    apart = Difference(val_accuracy=found, val_loss=found, p_loss=p)
    best, other = (
        ConfirmedArm(
            arm=Arm(roles=(), config=trial.config or make_config(), searched=trial.value),
            runs=4,
            diverged=0,
            val_accuracy=found,
            val_loss=found,
            shrinkage=0.0123,
            difference=difference,
        )
        for trial, difference in zip(study.ranked()[:2], (None, apart), strict=True)
    )
    attributes = {"confirmed": [arm.model_dump(mode="json") for arm in (best, other)]}
    confirmation = StudyRecord("x/confirm", study.spec, [], attributes)
    html = page(study, tables_of(study), Verdicts(confirmation))
    table = html[html.index("Each arm on 4 fresh seeds") : html.index("a little flattered")]
    rows = [len(re.findall("<t[hd][ >]", row)) for row in table.split("<tr")[1:]]
    assert rows == [8 if p is not None else 7] * 3
    assert ("<td>0.031</td>" in table) == ("p is family-wise" in table) == (p is not None)


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


def test_the_page_of_two_thousand_trials_stays_small() -> None:
    study = study_of(2000)
    assert len(page(study, tables_of(study)).encode()) < 8e6


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


def test_a_verdict_has_no_page_of_its_own(command_line: InProcess, tmp_path: Path) -> None:
    (tmp_path / "studies").mkdir()
    store(study_of(3, name="a b/confirm"), tmp_path / "studies" / "slopesearch.db")
    for name in ("a b/confirm", "a b/test"):
        refused = command_line("report", name)
        assert refused.code == 2
        assert "python -m slopesearch report 'a b'" in refused.err
    assert not (tmp_path / "report.html").exists()


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
    note = study_note(Store("sqlite:///x.db"), study_of(3, name="a  b\nc"), Verdicts())
    assert "report 'a  b c' --storage" in note


@pytest.mark.parametrize("port", ["0", "99999"])
def test_a_port_that_is_none_is_refused(command_line: InProcess, port: str) -> None:
    refused = command_line("dashboard", "--port", port)
    assert refused.code == 2
    assert "--port" in refused.err
