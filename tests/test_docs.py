"""README and docs: what they say can be typed, is there, is said once, and is what the command line says."""

import re
import shlex
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from slopesearch.runs.export import ConfigFile, Origin, write_config_file
from tests.conftest import make_config

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
import write_commands  # noqa: E402

README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
PROGRAM = "python -m slopesearch"
CODE = re.compile(r"```.*?```", re.DOTALL)


def typed(path: Path) -> list[str]:
    """The lines of the package's commands that a page tells its reader to type."""
    blocks = re.findall(r"```sh\n(.*?)```", path.read_text(), re.DOTALL)
    inline = re.findall(rf"`({PROGRAM}[^`]*)`", CODE.sub("", path.read_text()))
    lines = "\n".join([*blocks, *inline]).replace("\\\n", " ").splitlines()
    found = [part.strip() for line in lines for part in line.partition(" #")[0].split("&&")]
    return [line.partition(PROGRAM)[2] for line in found if line.startswith(PROGRAM)]


@pytest.mark.parametrize(
    ("path", "line"),
    [(path, line) for path in PAGES if path != write_commands.REFERENCE for line in typed(path)],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_what_a_page_tells_to_type_is_a_command_with_such_options(path: Path, line: str) -> None:
    name, *words = shlex.split(line)
    write_commands.commands()[name].make_context(name, words)  # or an error of an option or an argument


def test_the_pages_have_the_commands_of_the_command_line() -> None:
    """Where this fails, `python scripts/write_commands.py` writes them anew."""
    assert write_commands.REFERENCE.read_text() == write_commands.reference()
    assert f"<!-- commands -->\n{write_commands.table()}<!-- /commands -->" in README.read_text()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_what_a_page_links_to_or_names_is_there(path: Path) -> None:
    text = path.read_text()
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert link.startswith("https://") or (path.parent / link).is_file(), link
    names = r"`(?:python )?((?:slopesearch|studies|scripts|tests|docs)/[\w./-]+\.(?:py|toml|png|svg|md))\b"
    for name in re.findall(names, text):
        assert (ROOT / name).exists(), name


def test_every_page_of_docs_is_linked_from_the_readme() -> None:
    linked = set(re.findall(r"\(docs/([\w-]+\.md)\)", README.read_text()))
    assert linked == {path.name for path in PAGES[1:]}


def test_nothing_is_said_twice() -> None:
    said = Counter[str]()
    for path in PAGES:
        if path != write_commands.REFERENCE:
            prose = CODE.sub("", path.read_text())
            lines = [line for line in prose.splitlines() if not line.startswith(("|", "#"))]
            sentences = re.split(r"(?<=[.:?])\s", " ".join(lines))
            said.update({" ".join(sentence.split()) for sentence in sentences if len(sentence.split()) > 6})
    assert [sentence for sentence, times in said.items() if times > 1] == []


def test_the_example_in_code_runs(tmp_path: Path) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "studies.md").read_text(), re.DOTALL)
    origin = Origin(study="digits-mlp", objective="val_accuracy")
    write_config_file(
        ConfigFile(config=make_config(), origin=origin, versions={}), tmp_path / "best.toml", force=False
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", block + "print(model)"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr
    assert "'lr': " in done.stdout
    assert "(act1): LeakyReLU(negative_slope=0.01)" in done.stdout
    assert (tmp_path / "studies" / "slopesearch.db").is_file()
