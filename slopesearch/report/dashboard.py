"""What optuna-dashboard shows of a study beyond its trials: notes and figures; and the server itself."""

import logging
import shlex
from contextlib import suppress
from hashlib import sha256
from importlib.util import find_spec

import optuna
from optuna.trial import Trial

from slopesearch.report.page import belief, counts, tables_of
from slopesearch.report.plots import PLOTS
from slopesearch.search.records import VERDICTS, StudyRecord
from slopesearch.search.store import Store
from slopesearch.wording import RequestError

INSTALLED = find_spec("optuna_dashboard") is not None  # an extra
ATTACHED = ("activations", "slope", "lr_slope", "norm", "expected_best", "gradients")  # 2 kB a row


def annotate(store: Store, study: StudyRecord) -> None:
    """Write notes on the study and its best trial, and the main figures, where the dashboard finds them.

    Does nothing without optuna-dashboard, and for the runs of a verdict, which are no search. Raises
    RequestError where another process writes the study.
    """
    if not INSTALLED or study.name.endswith(VERDICTS):
        return
    from optuna_dashboard import save_plotly_graph_object

    with store.writing(study.name) as storage:
        stored = optuna.load_study(study_name=study.name, storage=storage)
        _note(stored, study_note(store, study))
        noted, ranked = stored.user_attrs.get("noted_trial"), study.ranked()
        best = ranked[0].number if ranked else None
        if noted is not None and noted != best:
            _note(_trial(stored, noted), "")
        if best is not None:
            _note(_trial(stored, best), "\n\n".join(["**The best trial so far.**", *belief(study)]))
            stored.set_user_attr("noted_trial", best)
        for name, rows in tables_of(study, ATTACHED).items():
            if rows:
                figure = PLOTS[name].draw(rows, study.spec)
                figure.update_layout(title={"text": PLOTS[name].title}, margin={"t": 110}, height=445)
                save_plotly_graph_object(stored, figure, graph_object_id=f"slopesearch-{name}")


def _trial(study: optuna.Study, number: int) -> Trial:
    """One trial to write to, without reading the others."""
    return Trial(study, study._storage.get_trial_id_from_study_id_trial_number(study._study_id, number))


def study_note(store: Store, study: StudyRecord) -> str:
    """What the study is, and how to go on with it; Markdown, with the name inside of code."""
    spec, where = study.spec, store.option
    name = shlex.quote(" ".join(study.name.splitlines()))
    command = "    python -m slopesearch"  # indented, so that nothing in a name is read as markup
    return "\n".join(
        [
            f"A search over activation, slope, BatchNorm, init and learning rate: {spec.model} on "
            f"{spec.dataset}, {spec.epochs} epochs of {spec.train_size:,} images, {spec.precision}. "
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
    """Save a note, unless somebody has written one of their own, or changed a letter of ours."""
    from optuna_dashboard import get_note, save_note

    there, new = get_note(of), _signed(body) if body else ""
    if there != new and (not there or there == _signed(there.rpartition("\n\n")[0])):
        save_note(of, new)


def _signed(body: str) -> str:
    """A note whose last line tells whether it still is what was written."""
    digest = sha256(body.encode()).hexdigest()[:8]
    return f"{body}\n\n*Written by slopesearch ({digest}); change anything, and the note is yours.*"


def serve(store: Store, host: str, port: int) -> None:
    """Run optuna-dashboard on the storage until Ctrl-C.

    Raises RequestError without the package, or where there is no such storage or the port is taken.
    """
    if not INSTALLED:
        raise RequestError("the dashboard is a package of its own; install it: pip install optuna-dashboard")
    from optuna_dashboard import run_server

    for summary in store.summaries():
        with suppress(RequestError):  # not ours, or being written: its writer does this at its end
            annotate(store, store.read(summary.name))
    logging.getLogger("optuna").setLevel(logging.WARNING)
    with store.open() as storage:
        try:
            run_server(storage, host, port)
        except OSError as error:
            raise RequestError(
                f"cannot listen on {host}, port {port}: {error.strerror}; choose another with --port"
            ) from None
