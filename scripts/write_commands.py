"""Write what the command line says of itself: docs/commands.md, and the table of commands in the README.

python scripts/write_commands.py
"""

import re
from pathlib import Path
from typing import Any

import typer

from slopesearch.cli.main import app

ROOT = Path(__file__).parent.parent
REFERENCE, README = ROOT / "docs" / "commands.md", ROOT / "README.md"
TABLE = re.compile(r"(?<=<!-- commands -->\n).*?(?=<!-- /commands -->)", re.DOTALL)
PROGRAM = "python -m slopesearch"


def commands() -> dict[str, Any]:
    """The commands by name, as the command line knows them."""
    group: Any = typer.main.get_command(app)
    return dict(group.commands)


def usage(name: str, command: Any) -> str:
    """A command with its arguments: in brackets what may be left out."""
    given = []
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            word = (parameter.metavar or parameter.name or "").strip("[]").upper()
            word += "..." if parameter.nargs == -1 else ""
            given.append(word if parameter.required else f"[{word}]")
    return " ".join([PROGRAM, name, *given])


def table() -> str:
    """The table of the README: every command, and what it is for."""
    rows = [f"| `{name}` | {_cell(command.help)} |" for name, command in commands().items()]
    return "\n".join(["| command | what it does |", "| --- | --- |", *rows]) + "\n"


def reference() -> str:
    """docs/commands.md: every command with every option."""
    written = "Written by `python scripts/write_commands.py` from the commands' own help."
    parts = [f"# Commands and options\n\n{written}\n"]
    for name, command in commands().items():
        parts.append(f"## {name}\n\n{_cell(command.help)}\n\n```sh\n{usage(name, command)}\n```\n")
        rows = [
            f"| `{', '.join([*parameter.opts, *parameter.secondary_opts])}` | {_cell(parameter.help)} "
            f"| {_default(parameter)} |"
            for parameter in command.params
            if parameter.param_type_name == "option"
        ]
        parts.append("\n".join(["| option | what it is | default |", "| --- | --- | --- |", *rows]) + "\n")
    return "\n".join(parts)


def _cell(text: str | None) -> str:
    return " ".join((text or "").split("\n\n")[0].split()).replace("|", r"\|")


def _default(parameter: Any) -> str:
    default = parameter.default
    return "" if default is None or isinstance(default, bool) or callable(default) else f"`{default}`"


def main() -> None:
    """Write both."""
    REFERENCE.write_text(reference())
    README.write_text(TABLE.sub(lambda _: table(), README.read_text()))


if __name__ == "__main__":
    main()
