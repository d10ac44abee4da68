"""Notes and figures that optuna-dashboard shows beside the trials of a study; and the server itself."""

import logging
import shlex
from contextlib import suppress
from hashlib import sha256
from importlib.util import find_spec

import optuna
from optuna.trial import Trial

from slopesearch.report.network_plots import caution
from slopesearch.report.page import belief, counts, picked, tables_of
from slopesearch.report.plots import PLOTS
from slopesearch.search.records import CONFIRM, VERDICTS, StudyRecord
from slopesearch.search.store import Store
from slopesearch.wording import RequestError, counted

INSTALLED = find_spec("optuna_dashboard") is not None  # it is an optional dependency
ATTACHED = ("activations", "slope", "learned_slopes", "norm", "gradients")  # each row costs 2 kB


def annotate(store: Store, study: StudyRecord) -> None:
    """Write notes on the study and its best trial, and the main figures, where the dashboard finds them.

    Nothing is written without optuna-dashboard, or for a study of a verdict, which is no search. `study` is
    read for a page. Raises RequestError where another process writes the study, or a trial to note on cannot
    be read.
    """
    if not INSTALLED or study.name.endswith(VERDICTS):
        return
    from optuna_dashboard import save_plotly_graph_object

    best, noted = study.ranked()[:1], study.attributes.get("noted_trial")
    before = [trial for trial in study.trials if trial.number == noted and trial not in best]
    store.whole(study, best + before)  # to refuse what cannot be read, before Optuna reads it
    with store.writing(study.name) as storage:
        stored = optuna.load_study(study_name=study.name, storage=storage)
        _note(stored, study_note(store, study))
        for trial in before:
            _note(_trial(stored, trial.number), "")
        for trial in best:
            _note(_trial(stored, trial.number), "\n\n".join(["**The best trial so far.**", *belief(study)]))
            stored.set_user_attr("noted_trial", trial.number)
        for name, rows in tables_of(study, ATTACHED).items():
            if rows:
                figure = PLOTS[name].draw(rows, study.spec)
                small = f"<br><sup>{caution(rows).strip()}</sup>" if caution(rows) else ""
                figure.update_layout(title={"text": PLOTS[name].title + small}, margin={"t": 110}, height=445)
                save_plotly_graph_object(stored, figure, graph_object_id=f"slopesearch-{name}")


def _trial(study: optuna.Study, number: int) -> Trial:
    """A trial to write to, opened without reading the other trials."""
    return Trial(study, study._storage.get_trial_id_from_study_id_trial_number(study._study_id, number))


def study_note(store: Store, study: StudyRecord) -> str:
    """A note in Markdown: the question of the study and the commands that go on; its name inside code."""
    spec, where = study.spec, store.option
    name = shlex.quote(" ".join(study.name.splitlines()))
    command = "    python -m slopesearch"  # the indent makes it code: no part of a name is read as markup
    return "\n".join(
        [
            *picked(store.find(study.name + CONFIRM, "ranking")),
            f"A search over activation, slope, BatchNorm, init and learning rate: {spec.model} on "
            f"{spec.dataset}, {counted(spec.epochs, 'epoch')} of {spec.train_size:,} images, "
            f"{spec.precision}. "
            f"{counts(study)}",
            "",
            "Go on with it (the total), write its report, look at one trial, run the best few on fresh "
            "seeds, and write the config of the best to train with:",
            "",
            f"{command} optimize --name {name} --trials {2 * max(len(study.trials), 50)}{where}",
            f"{command} report {name}{where}",
            f"{command} show {name} --trial N{where}",
            f"{command} confirm {name}{where}",
            f"{command} export {name} -o best.toml{where}",
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
