"""Hostile study files, SQLite files and names: a sentence, exit code 2, nothing changed."""

import json
import random
import shutil
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slopesearch.cli.main import main
from slopesearch.config import ResolvedSpec, Space, StudySpec
from slopesearch.report.dashboard import annotate
from slopesearch.search.events import Event, Told
from slopesearch.search.launchers import LAUNCHERS
from slopesearch.search.optimize import optimize
from slopesearch.search.settings import Settings
from slopesearch.search.space import check, resolve
from slopesearch.search.store import Store
from slopesearch.wording import LARGEST_TOML, RequestError, printable, read_toml
from tests.edits import edits, loosen
from tests.harness import FakeLauncher, Harness

Command = Callable[..., tuple[int, str, str]]
MORE = ("--dataset", "digits", "--model", "mlp", "--trials", "9", "--launcher", "inline")


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command line in this process: what it exits with, its output and its errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SLOPESEARCH_DATA", raising=False)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["slopesearch", *arguments])
        try:
            main()
        except SystemExit as stopped:
            return int(stopped.code or 0), *capsys.readouterr()
        raise AssertionError("the command line always exits")

    return run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real study of two trials."""
    path = tmp_path_factory.mktemp("made") / "x.db"
    spec = check({"dataset": "digits", "model": "mlp", "epochs": 2})
    inline = Settings(Path("unused"), "cpu", launcher="inline")
    optimize(spec, trials=2, store=Store(f"sqlite:///{path}"), settings=inline)
    return path


@pytest.fixture
def database(made: Path, tmp_path: Path) -> Path:
    """A copy of it, where the command line looks first."""
    path = tmp_path / "studies" / "slopesearch.db"
    path.parent.mkdir()
    return Path(shutil.copy(made, path))


# What TOML can hold, and some of it nearly right.
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=10**4000)
    | st.floats()
    | st.text(max_size=20)
    | st.dates()
    | st.sampled_from(["relu", "mlp", "digits", "fixed", "before", 0.01, 3, 1e-3])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
RANGES = st.fixed_dictionaries(
    {}, optional={"low": SCALARS, "high": SCALARS, "log": SCALARS, "step": SCALARS}
)
SPACES = st.fixed_dictionaries({}, optional=dict.fromkeys(Space.model_fields, RANGES | VALUES))
SPECS = st.fixed_dictionaries({}, optional={**dict.fromkeys(StudySpec.model_fields, VALUES), "space": SPACES})


def sentences(read: Callable[[], object]) -> tuple[str, ...]:
    """What is wrong, or nothing; any other exception is a failure."""
    try:
        read()
    except RequestError as error:
        return error.sentences
    return ()


@settings(database=None, derandomize=True, deadline=None, max_examples=150)
@given(SPECS | st.dictionaries(st.text(), VALUES, max_size=3))
def test_a_spec_is_taken_or_refused_in_sentences_and_nothing_else(data: dict[str, Any]) -> None:
    def read() -> None:
        full = resolve(check(data).model_copy(update={"dataset": "digits"}), "float32")
        assert ResolvedSpec.model_validate_json(full.model_dump_json()) == full

    for sentence in sentences(read):
        assert 10 < len(sentence) < 600
        assert printable(sentence) == sentence


@settings(database=None, derandomize=True, deadline=None, max_examples=100)
@given(content=st.binary(max_size=200) | st.text(alphabet='[]{}="\n.a1', max_size=200).map(str.encode))
def test_a_file_is_toml_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_bytes(content)
    assert all("any.toml" in sentence for sentence in sentences(lambda: read_toml(path)))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"a = 1\n" * 10_000_000, f"it has more than {LARGEST_TOML:,} bytes"),
        ("größe = 1".encode("latin-1"), "is not UTF-8 text"),
        (b"a = " + b"[" * 5000, "is not valid TOML: it is nested too deeply"),
        (b"epochs = " + b"9" * 5000, "is not valid TOML: Exceeds the limit"),
        (
            b"epochs = 0x" + b"f" * 10_000,
            "epochs: input should be less than or equal to 10000, given a number",
        ),
        (b"space.lr" + b".a" * 7000 + b" = 1", "space.lr.low: is missing"),
        (b'model = "\\u001b[2J"', r"unknown model '\x1b[2J'; choose from mlp, cnn"),
        (b'"\\u202e" = 1', r"unknown key '\u202e'"),
    ],
    ids=["60 MB", "latin-1", "nested", "digits", "hex", "dots", "escape", "bidi"],
)
def test_a_hostile_study_file_is_refused(
    content: bytes, sentence: str, command: Command, tmp_path: Path
) -> None:
    Path("study.toml").write_bytes(content)
    code, _, errors = command("optimize", "study.toml", "--dataset", "digits")
    assert code == 2
    assert sentence in errors
    assert [path.name for path in tmp_path.iterdir()] == ["study.toml"]


def test_what_never_ends_is_refused() -> None:
    with pytest.raises(RequestError, match="has more than"):
        read_toml(Path("/dev/zero"))


SQL = {
    "a view": (
        "ALTER TABLE trials RENAME TO moved; CREATE VIEW trials AS SELECT * FROM moved",
        ["optimize", "show", "list", "report", "export"],
    ),
    "another program's": ("DROP TABLE trials", ["optimize", "show", "list"]),
    "a newer schema": ("UPDATE alembic_version SET version_num = 'v9.9.9'", ["optimize", "show"]),
    "a config of another type": (
        "UPDATE trial_user_attributes SET value_json = '3' WHERE key = 'config'",
        ["optimize", "show"],
    ),
    "a config that is no JSON": (
        "UPDATE trial_user_attributes SET value_json = '{' WHERE key = 'config'",
        ["optimize", "show"],
    ),
    "a config that is nested": (
        "UPDATE trial_user_attributes SET value_json = printf('%.*c', 99999, '[') WHERE key = 'config'",
        ["optimize", "show"],
    ),
    "a config with another field": (
        "UPDATE trial_user_attributes SET value_json = json_set(value_json, '$.surprise', 1) "
        "WHERE key = 'config'",
        ["optimize", "show"],
    ),
    "a config with an infinite number": (
        """UPDATE trial_user_attributes SET value_json = replace(value_json, '"lr": ', '"lr": 1e999')
           WHERE key = 'config'""",
        ["optimize", "show"],
    ),
    "a config with another value": (
        "UPDATE trial_user_attributes SET value_json = json_set(value_json, '$.lr', 0.5) "
        "WHERE key = 'config'",
        ["optimize", "show"],
    ),
    "a curve that is none": (
        "UPDATE trial_user_attributes SET value_json = '7' WHERE key = 'curves'",
        ["show --trial 0"],
    ),
    "an attribute without a value": (
        "UPDATE trial_user_attributes SET value_json = NULL",
        ["optimize", "show"],
    ),
    "a state that there is not": ("UPDATE trials SET state = 'BORED'", ["optimize", "show"]),
    "a spec of another version": (
        "UPDATE study_user_attributes SET value_json = json_set(value_json, '$.color', 1) WHERE key = 'spec'",
        ["optimize", "show"],
    ),
    "a spec with an unknown name": (
        "UPDATE study_user_attributes SET value_json = json_set(value_json, '$.sampler', 'x') "
        "WHERE key = 'spec'",
        ["optimize"],
    ),
    "a spec that is no JSON": (
        "UPDATE study_user_attributes SET value_json = x'00' WHERE key = 'spec'",
        ["optimize", "show"],
    ),
}


@pytest.mark.parametrize(("statement", "commands"), SQL.values(), ids=SQL)
def test_an_edited_database_is_refused_and_left_alone(
    statement: str, commands: list[str], database: Path, command: Command
) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("PRAGMA journal_mode=DELETE")
        connection.executescript(statement)
    before, rows = database.read_bytes(), _dump(database)
    for words in sorted(commands, key="optimize".__eq__):
        code, _, errors = command(*words.split(), *(MORE if words == "optimize" else ()))
        assert (code, errors.count("error: ")) == (2, 1), errors
        assert "Traceback" not in errors
        if words == "optimize":  # it has opened the file to write, which turns WAL on again
            assert _dump(database) == rows
        else:
            assert database.read_bytes() == before


def _dump(database: Path) -> list[str]:
    """Every row, as SQL."""
    with closing(sqlite3.connect(database)) as connection:
        return list(connection.iterdump())


ONE_FIELD = {
    "a value that is text": "UPDATE trial_values SET value = 'abc' WHERE trial_id = 2",
    "an infinite value with a number": "UPDATE trial_values SET value_type = 'INF_POS' WHERE trial_id = 2",
    "a reason that is none": (
        "INSERT INTO trial_user_attributes (trial_id, key, value_json) VALUES (2, 'pruned_by', '[]')"
    ),
    "a mark that is none": (
        "INSERT INTO trial_user_attributes (trial_id, key, value_json) VALUES (2, 'given_by_hand', '3')"
    ),
    "a report that is nothing": (
        "UPDATE trial_intermediate_values SET intermediate_value = NULL WHERE trial_id = 2 AND step = 1"
    ),
    "seconds that are text": (
        "UPDATE trial_user_attributes SET value_json = '\"abc\"' WHERE trial_id = 2 AND key = 'seconds'"
    ),
    "a number that is nothing": "UPDATE trials SET number = NULL WHERE trial_id = 2",
}


@pytest.mark.parametrize("statement", ONE_FIELD.values(), ids=ONE_FIELD)
def test_one_edited_trial_is_named_and_the_others_are_shown(
    statement: str, database: Path, command: Command
) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("PRAGMA journal_mode=DELETE")
        connection.execute(statement)
    before = database.read_bytes()
    code, output, errors = command("report")
    assert (code, errors) == (0, "")
    assert "left out: trial 1 cannot be read" in output or "left out: the trial of id 2" in output
    page = Path("report.html").read_text()
    assert "<p>Left out: " in page
    assert "1 trial: 1 completed." in page
    code, output, errors = command("show")
    assert (code, errors) == (0, "")
    if "intermediate" not in statement and "seconds" not in statement:  # which `show` does not read
        assert "left out: " in output
        assert "best: trial 0" in output
    assert command("show", "--trial", "0")[0] == 0
    assert command("show", "--trial", "1")[0] == 2
    code, _, errors = command("export")
    assert code == 0
    assert command("confirm")[0] == 2
    assert database.read_bytes() == before
    rows = _dump(database)
    code, _, errors = command("optimize", *MORE)
    if "pruned_by" in statement:  # which `optimize` does not read
        assert code == 0
        return
    assert code == 2
    assert errors.startswith("error: trial 1 was changed: ") or "comes number None; put a copy" in errors
    assert _dump(database) == rows


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE study_user_attributes SET value_json = '[1]' WHERE key = 'versions'",
        "UPDATE study_user_attributes SET value_json = json_set(value_json, '$.space.activation', NULL) "
        "WHERE key = 'spec'",
    ],
    ids=["a list", "open"],
)
def test_versions_that_are_a_list_and_a_space_that_is_open_are_refused(
    statement: str, database: Path, command: Command
) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(statement)
    rows = _dump(database)
    for words in (["show"], ["report"], ["export"], ["confirm"], ["optimize", *MORE]):
        code, _, errors = command(*words)
        assert (code, errors.count("error: ")) == (2, 1), errors
    assert _dump(database) == rows


@pytest.fixture(scope="module")
def loose(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with notes for the dashboard and a trial that runs, in a file that takes any value anywhere."""
    path = tmp_path_factory.mktemp("loose") / "x.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(LAUNCHERS, "fake", FakeLauncher)
        study = Harness(path)
        study(24, name="s")

        def die(event: Event) -> None:
            if isinstance(event, Told):
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            study(27, name="s", listen=die, workers=2)
    annotate(study.store, study.study("s"))
    loosen(path)
    return path


SAMPLED = 14  # edits of over 2,000, of which each takes a second


def test_an_edit_of_any_field_ends_in_a_sentence(
    loose: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LAUNCHERS, "fake", FakeLauncher)
    path = tmp_path / "x.db"
    for edit in random.Random(13).sample(edits(loose), SAMPLED):
        shutil.copy(loose, path)
        edit.apply(path)
        before = path.read_bytes()
        for words in ("list", "show s", "show s --trial 2", "report s", "export s --force"):
            code, _, errors = command(*words.split(), "--storage", f"sqlite:///{path}")
            assert code in (0, 2), (str(edit), words, errors)
            assert (code == 2) == errors.startswith("error: "), (str(edit), words, errors)
            assert path.read_bytes() == before, (str(edit), words)
        rows = stored_rows(path)
        study = Harness(path)
        sentences(lambda study=study: study(28, name="s"))  # type: ignore[misc]
        assert rows <= stored_rows(path), str(edit)


def stored_rows(path: Path) -> set[tuple[str, ...]]:
    """Every row of the trials that do not run, as text."""
    tables = ("trials", "trial_params", "trial_values", "trial_intermediate_values", "trial_user_attributes")
    over = "trial_id IN (SELECT trial_id FROM trials WHERE state IS NOT 'RUNNING')"
    with closing(sqlite3.connect(path)) as connection:
        connection.text_factory = bytes
        return {
            (table, repr(row))
            for table in tables
            for row in connection.execute(f"SELECT * FROM {table} WHERE {over}")
        }


@pytest.mark.parametrize("words", ["report -o", "export --force -o"])
def test_no_command_puts_its_file_in_the_place_of_a_database(
    words: str, database: Path, command: Command
) -> None:
    before = database.read_bytes()
    code, _, errors = command(*words.split(), "studies/slopesearch.db")
    assert (code, errors) == (
        2,
        "error: 'studies/slopesearch.db' is a database, which nothing replaces; name another file with -o\n",
    )
    assert database.read_bytes() == before


DAMAGE = {
    "truncated in the middle": lambda content: content[: len(content) // 2],
    "its last page missing": lambda content: content[:-4096],
    "cut within a page": lambda content: content[:-1000],
    "zeros in the middle": lambda content: content[:8192] + bytes(40_960) + content[49_152:],
    "text in the middle": lambda content: content[:16_384] + b"drop table" * 2000 + content[36_384:],
    "only a header": lambda content: content[:100],
    "50 MB of something else": lambda content: b"\x00\x01slope" * 7_500_000,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_database_is_refused_and_left_alone(damage: Any, database: Path, command: Command) -> None:
    database.write_bytes(damage(database.read_bytes()))
    before = database.read_bytes()
    code, _, errors = command("optimize", *MORE)
    assert code == 2
    assert errors.startswith("error: 'studies/slopesearch.db' ")
    for words in ("show", "show --trial 0", "list"):  # which may be lucky, and find whole what they look for
        code, _, errors = command(*words.split())
        assert (code == 2) == errors.startswith("error: ")
        assert "Traceback" not in errors
    assert database.read_bytes() == before


def test_reading_changes_no_byte_of_a_file(database: Path, command: Command) -> None:
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")  # as Optuna makes its own files
    before = database.read_bytes()
    for words in ("show", "show --trial 0", "list"):
        assert command(*words.split())[0] == 0
    assert database.read_bytes() == before
    database.write_bytes(b"")
    for words in ("show", "show --trial 0", "list"):
        assert command(*words.split())[0] == 2
    assert database.read_bytes() == b""


NAMES = {
    "quotes": """it's "quoted" `so`; DROP TABLE studies --""",
    "slashes": "../../etc/passwd\\..",
    "markup": "<script>alert(1)</script>[red]x[/red][/] :smile: {0} %s",
    "emoji": "slope 🦄👩‍🔬 ünï",
    "long": "n" * 500,
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_any_text_is_a_name(
    name: str, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "600")
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes that for a terminal
    code, output, errors = command("optimize", *MORE, "--name", name, "--timeout", "0.001")
    assert code == 0, errors
    assert name in output
    assert name in command("list")[1]
    monkeypatch.delenv("FORCE_COLOR")
    assert name in command("list")[1]
    assert name in command("show", name)[1]
    assert json.loads(command("list", "--json")[1])[0]["name"] == name
    assert json.loads(command("show", name, "--json")[1])["name"] == name
    assert [path.name for path in tmp_path.iterdir()] == ["studies"]
    assert all(len(path.name) < 60 for path in (tmp_path / "studies").iterdir())


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (" ", "name: a study needs one that is not empty"),
        ("n" * 1000, "name: at most 500 characters, given 1,000; shorten it"),
        ("\x1b[2Jboo", r"name: control characters cannot be part of one, given '\x1b[2Jboo'"),
        ("two\nlines", r"given 'two\nlines'"),
        ("\u202egnp.exe", r"given '\u202egnp.exe'"),
        ("\udcff", r"given '\udcff'"),
        ("-x", "name: a leading '-' would be read as an option, given '-x'"),
    ],
)
def test_a_name_that_a_terminal_or_a_shell_misreads_is_refused(
    name: str, sentence: str, command: Command, tmp_path: Path
) -> None:
    code, _, errors = command("optimize", *MORE, f"--name={name}")
    assert code == 2
    assert sentence in errors
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("terminal", [False, True])
def test_the_text_of_a_foreign_study_steers_no_terminal(
    terminal: bool, database: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    evil = "\x1b]0;boo\x07\x1b[2J\r\n[red]" + "n" * 1000
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE studies SET study_name = ?", [evil])
        connection.execute(
            "UPDATE trial_user_attributes SET value_json = ? WHERE key = 'device'", ['"\\u001b[2J"']
        )
    monkeypatch.setenv("COLUMNS", "2000")
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
    for words in (["list"], ["show"], ["show", "--trial", "0"], ["list", "--json"], ["show", "--json"]):
        code, output, errors = command(*words)
        assert (code, errors) == (0, "")
        assert not any(control in output for control in ("\x1b[2J", "\x1b]", "\x07", "\r"))
        assert "x1b" in output or "u001b" in output
    code, _, errors = command("show", "another")
    assert code == 2
    assert "\x1b" not in errors
    assert r"holds \x1b]0;boo" in errors
