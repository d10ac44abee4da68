"""Notes and figures that optuna-dashboard shows beside the trials of a study; and the server itself."""

import logging
import shlex
from contextlib import suppress
from hashlib import sha256
from importlib.util import find_spec

import optuna
from optuna.trial import Trial

from slopesearch.evidence.answers import answers_of
from slopesearch.evidence.results import confirmed_of, pick
from slopesearch.report.answers_panel import Card, cards
from slopesearch.report.findings import belief, counts, lead
from slopesearch.report.network_plots import caution
from slopesearch.report.page import tables_of
from slopesearch.report.plots import PLOTS
from slopesearch.report.summary import Verdicts, verdicts_of
from slopesearch.search.choices import fill_in
from slopesearch.search.records import COMPARE, CONFIRM, TEST, TUNE, VERDICTS, StudyRecord
from slopesearch.search.store import Store
from slopesearch.wording import RequestError, counted

NOTED = "noted_trials"  # the attribute of a study that holds the numbers of the trials with a note of ours
INSTALLED = find_spec("optuna_dashboard") is not None  # it is an optional dependency
ATTACHED = ("activations", "slope", "learned_slopes", "norm", "gradients")  # each row costs 2 kB


def annotate(store: Store, study: StudyRecord) -> None:
    """Write notes on the study and on what it found, and the main figures, where the dashboard finds them.

    A study of a verdict gets its note, and its runs the choices that earlier versions did not store. Nothing
    is written without optuna-dashboard. `study` is read for the dashboard at least. Raises RequestError where
    another process writes the study, or a trial to note on cannot be read.
    """
    if not INSTALLED:
        return
    if study.name.endswith(VERDICTS):
        _annotate_verdict(store, study)
        return
    from optuna_dashboard import save_plotly_graph_object

    verdicts = verdicts_of(store, study.name)
    notes = _trial_notes(study, verdicts)
    noted = [study.find(number) for number in _noted(study)]
    before = [trial for trial in noted if trial is not None and trial.number not in notes]
    store.whole(study, [*map(study.trial, notes), *before])  # refuse what cannot be read, before Optuna does
    with store.writing(study.name) as storage:
        stored = optuna.load_study(study_name=study.name, storage=storage)
        _note(stored, study_note(store, study, verdicts))
        for trial in before:
            _note(_trial(stored, trial.number), "")
        for number, body in notes.items():
            _note(_trial(stored, number), body)
        stored.set_user_attr(NOTED, list(notes))
        for name in ATTACHED:  # one after the other: of 50,000 trials all take 44 MiB
            if rows := tables_of(study, [name])[name]:
                figure = PLOTS[name].draw(rows, study.spec)
                small = f"<br><sup>{caution(rows).strip()}</sup>" if caution(rows) else ""
                figure.update_layout(title={"text": PLOTS[name].title + small}, margin={"t": 110}, height=445)
                save_plotly_graph_object(stored, figure, graph_object_id=f"slopesearch-{name}")


def annotate_all(store: Store, name: str) -> None:
    """Annotate a search and the studies of its verdict, but for those that another process writes."""
    for part in (name, *(name + end for end in VERDICTS)):
        with suppress(RequestError):  # its writer will annotate it; or it cannot be read, which `show` says
            found = store.find(part, "page")
            if found is not None:
                annotate(store, found)


def _noted(study: StudyRecord) -> list[int]:
    """The trials that have a note of ours, also one by an earlier version."""
    stored = study.attributes.get(NOTED, [study.attributes.get("noted_trial")])
    return [number for number in stored if isinstance(number, int)] if isinstance(stored, list) else []


def _annotate_verdict(store: Store, study: StudyRecord) -> None:
    store.whole(study, study.trials[:1])
    with store.writing(study.name) as storage:
        stored = optuna.load_study(study_name=study.name, storage=storage)
        fill_in(storage, stored._study_id, study)
        _note(stored, verdict_note(store, study))


def _trial_notes(study: StudyRecord, verdicts: Verdicts) -> dict[int, str]:
    """A note by the number of its trial: on the best of the search, and on the pick where it is confirmed."""
    notes = {}
    confirmed = confirmed_of(verdicts.confirmation)
    for trial in study.ranked()[:1]:
        said = "The best trial of the search." if confirmed else "The best trial so far."
        expected = [] if confirmed else [lead(study, verdicts)]
        notes[trial.number] = "\n\n".join([f"**{said}**", *expected, *belief(study, verdicts)])
    number = pick(confirmed).arm.trial if confirmed else None
    if number is not None and study.find(number) is not None:
        others = [notes[number]] if number in notes else []
        notes[number] = "\n\n".join(["**The confirmed pick.**", lead(study, verdicts), *others])
    return notes


def _trial(study: optuna.Study, number: int) -> Trial:
    """A trial to write to, opened without reading the other trials."""
    return Trial(study, study._storage.get_trial_id_from_study_id_trial_number(study._study_id, number))


def study_note(store: Store, study: StudyRecord, verdicts: Verdicts) -> str:
    """A note in Markdown: what was found, and the commands that go on; the name of the study inside code."""
    spec, where = study.spec, store.option
    name = shlex.quote(" ".join(study.name.splitlines()))
    command = "    python -m slopesearch"  # the indent makes it code: no part of a name is read as markup
    further = [f"{command} optimize --name {name} --trials {2 * max(len(study.trials), 50)}{where}"]
    if not confirmed_of(verdicts.confirmation):
        further.append(f"{command} confirm {name}{where}")
    if not answers_of(verdicts.comparison):
        further.append(f"{command} compare {name}{where}")
    return "\n".join(
        [
            lead(study, verdicts),
            "",
            *(line for card in cards(study, verdicts) for line in (_card_line(card), "")),
            f"A search over activation, slope, BatchNorm, init and learning rate: {spec.model} on "
            f"{spec.dataset}, {counted(spec.epochs, 'epoch')} of {spec.train_size:,} images, "
            f"{spec.precision}. "
            f"{counts(study)}",
            "",
            "To go on with it (the total is given), to write its report, to look at one trial, and to write "
            "the config to train with:",
            "",
            *further,
            f"{command} report {name}{where}",
            f"{command} show {name} --trial N{where}",
            f"{command} export {name} -o best.toml{where}",
        ]
    )


def _card_line(card: Card) -> str:
    return f"- **{card.question}** {card.answer} ({card.chip}). {card.evidence}"


ABOUT = {
    CONFIRM: "The best configs of a search, each on the same fresh seeds.",
    TEST: "The pick and the baselines, trained on the seeds that they were confirmed on, on the test set.",
    TUNE: "A run for each learning rate of each arm, all on one seed, some again on fresh seeds where "
    "arms differ: they choose the rates, and no arm.",
    COMPARE: "Arms on the same fresh seeds, each at its own learning rate.",
}


def verdict_note(store: Store, study: StudyRecord) -> str:
    """A note in Markdown on a study of a verdict: what its trials are, and what they came to."""
    part = next(end for end in VERDICTS if study.name.endswith(end))
    search = study.name.removesuffix(part)
    verdicts = verdicts_of(store, search)
    of = store.find(search, "ranking") or verdicts.comparison
    found: list[str] = []
    if of is not None and part in (CONFIRM, TEST) and confirmed_of(verdicts.confirmation):
        found = [lead(of, verdicts)]
    if of is not None and part == COMPARE:
        found = [_card_line(card) for card in cards(of, verdicts) if card.link]
    name = shlex.quote(" ".join(study.name.splitlines()))
    return "\n\n".join(
        [
            *found,
            ABOUT[part],
            f"Its {counted(len(study.trials), 'trial')} are seeds, not candidates: planned runs, of which "
            "the best is a lucky one. The best so far and the importances say nothing here: no sampler drew "
            "anything.",
            f"    python -m slopesearch show {name}{store.option}",
        ]
    )


def _note(of: optuna.Study | Trial, body: str) -> None:
    """Save a note, unless a person has written another one, or has changed a letter of ours.

    Raises RequestError where the note that is there cannot be read.
    """
    from optuna_dashboard import get_note, save_note

    try:
        there = get_note(of)
    except (ValueError, TypeError, LookupError) as error:  # the package takes what is stored for its own
        raise RequestError(
            f"a note of the dashboard cannot be read ({error!r}); delete the study's system attributes whose "
            "key begins with 'dashboard:'"
        ) from None
    new = _signed(body) if body else ""
    if there != new and (not there or there == _signed(there.rpartition("\n\n")[0])):
        save_note(of, new)


def _signed(body: str) -> str:
    """The note with a last line that tells whether a person has changed it since."""
    digest = sha256(body.encode()).hexdigest()[:8]
    return f"{body}\n\n*Written by slopesearch ({digest}); change anything, and the note is yours.*"


def serve(store: Store, host: str, port: int) -> None:
    """Run optuna-dashboard on the storage until Ctrl-C.

    Raises RequestError where the package or the storage is missing, or the port is taken.
    """
    if not INSTALLED:
        raise RequestError("the dashboard is a package of its own; install it: pip install optuna-dashboard")
    from optuna_dashboard import run_server

    for summary in store.summaries():
        with suppress(RequestError):  # made by another program, or its writer will annotate it
            annotate(store, store.read(summary.name, "page"))
    logging.getLogger("optuna").setLevel(logging.WARNING)
    with store.open() as storage:
        try:
            run_server(storage, host, port)
        except OSError as error:
            raise RequestError(
                f"cannot listen on {host}, port {port}: {error.strerror}; choose another with --port"
            ) from None
