"""The command line: its commands by name, and what their errors look like."""

import io
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from slopesearch import __version__
from slopesearch.cli import compare_command, doctor_command, model_commands, search_commands, study_commands
from slopesearch.cli.passwords import hide_passwords
from slopesearch.cli.shipped import list_shipped
from slopesearch.cli.tables import to_stderr
from slopesearch.wording import RequestError, StudyFailedError

COMMANDS: dict[str, Callable[..., None]] = {
    "optimize": search_commands.optimize_study,
    "list": study_commands.list_studies,
    "show": study_commands.show_study,
    "report": study_commands.report_study,
    "dashboard": study_commands.serve_dashboard,
    "confirm": search_commands.confirm_study,
    "compare": compare_command.compare_arms,
    "export": model_commands.export_config,
    "train": model_commands.train_config,
    "predict": model_commands.predict_digits,
    "replay": model_commands.replay_stored,
    "doctor": doctor_command.examine_machine,
    "studies": list_shipped,
}

app = typer.Typer(
    help="Search activation, slope, BatchNorm placement, init and learning rate on MNIST. "
    "Begin with: python -m slopesearch optimize --trials 200",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for _name, _command in COMMANDS.items():
    app.command(_name)(_command)


def _print_version(asked: bool) -> None:
    if asked:
        print(f"slopesearch {__version__}")
        raise typer.Exit


@app.callback()
def _of_every_command(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; exit 2 where the request was wrong, 1 where the work failed."""
    _end_with_the_terminal()
    if hide_passwords():
        print(
            "the commands that are printed leave out the password of the storage; PGPASSWORD or ~/.pgpass "
            "can hold it, where no list of processes shows it",
            file=sys.stderr,
        )
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name may hold what the terminal cannot show
    try:
        app(prog_name=_called(), complete_var="_SLOPESEARCH_COMPLETE")
    except RequestError as error:
        _print_error(*error.sentences)
        sys.exit(2)
    except OSError as error:
        if error.filename is None:  # a fault of the machine, not of a path that was given
            raise
        _print_error(f"'{error.filename}': {error.strerror}; check the path and its permissions")
        sys.exit(2)
    except StudyFailedError as error:
        _print_error(*str(error).splitlines())
        sys.exit(1)


def _print_error(*sentences: str) -> None:
    """Print what was wrong."""
    for i, sentence in enumerate(sentences):
        to_stderr(sentence if i else f"error: {sentence}", "       " if i else "")


def _called() -> str:
    """What help calls the program. A shell completes the words of a command, which python -m is not."""
    completes = any(word.endswith("-completion") for word in sys.argv[1:2])
    is_command = Path(sys.argv[0]).stem == "slopesearch"
    return "slopesearch" if completes or is_command else "python -m slopesearch"


def _end_with_the_terminal() -> None:
    """End as on SIGTERM when the terminal is lost, unless the command runs under nohup."""
    hang_up = getattr(signal, "SIGHUP", None)  # Windows has none
    if hang_up is None or signal.getsignal(hang_up) != signal.SIG_DFL:
        return
    terminals = [descriptor for descriptor in (1, 2) if os.isatty(descriptor)]

    def end(signum: int, frame: object) -> None:
        signal.signal(hang_up, signal.SIG_IGN)  # it comes from the system, and again from the shell
        for descriptor in terminals:
            if not os.isatty(descriptor):  # to write to it would be an error now
                os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
        signal.raise_signal(signal.SIGTERM)

    signal.signal(hang_up, end)
