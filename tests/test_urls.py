"""Storage URLs: which are taken, what is said of the others, and that no password is."""

import subprocess
import sys

import pytest

from slopesearch.search import store as module
from slopesearch.search.store import Store
from slopesearch.search.urls import parsed_url, without_password
from slopesearch.wording import RequestError

SECRET = "s3same"


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("studies.db", "'studies.db' is not a storage URL; did you mean --storage sqlite:///studies.db?"),
        (f"u:{SECRET}@h/db", "'***@h/db' is not a storage URL; a SQLite file is named like sqlite:///"),
        (f"postgresql://u:{SECRET}@h:port/db", "'***@h:port/db' is not a storage URL"),
        (
            f"mysql+pymysql://u:{SECRET}@h/db",
            "on no other server and not in memory, given 'mysql+pymysql://u@h/db'",
        ),
        (f"mongodb://u:{SECRET}@h/db", "given 'mongodb://u@h/db'; name one like sqlite:///"),
        (
            f"postgresql+psycopg2://u:{SECRET}@h/db",
            "through psycopg alone, given 'postgresql+psycopg2://u@h/db'; write postgresql+psycopg://u@h/db",
        ),
        (
            f"postgresql://u:{SECRET}@h",
            "'postgresql://u@h' names no database; write it like postgresql+psycopg",
        ),
        (
            f"postgresql://u:p@{SECRET}@h/db",
            "holds an @ that does not stand before the host; write it as %40",
        ),
        (
            f"postgresql://u:p@{SECRET}/@h/db",
            "holds an @ that does not stand before the host; write it as %40",
        ),
        ("sqlite+nothing:///x.db", "needs a driver that is not installed"),
        ("sqlite://", "and not in memory, given 'sqlite://'; name one like sqlite:///"),
        ("sqlite:///:memory:", "studies are stored in SQLite files and PostgreSQL databases"),
    ],
)
def test_other_storages_are_refused_without_their_password(url: str, sentence: str) -> None:
    with pytest.raises(RequestError) as error:
        Store(url)
    assert sentence in str(error.value)
    assert SECRET not in str(error.value)


@pytest.mark.parametrize("scheme", ["postgresql+psycopg", "postgresql", "postgres"], ids="{}:".format)
def test_postgresql_is_psycopgs_whatever_it_is_called(scheme: str) -> None:
    url = f"{scheme}://u:{SECRET}@h:5433/db?sslmode=require"
    parsed = parsed_url(url)
    assert parsed.drivername == "postgresql+psycopg"
    assert (parsed.username, parsed.password, parsed.host, parsed.port) == ("u", SECRET, "h", 5433)
    store = Store(url)
    assert store.option == f" --storage '{scheme}://u@h:5433/db?sslmode=require'"
    assert store.url == store.path == f"{scheme}://u@h:5433/db?sslmode=require"
    assert SECRET not in repr(vars(store))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"postgresql://u:{SECRET}@h/db", "postgresql://u@h/db"),
        (f"postgresql://u:a/b?c#d@{SECRET}@h/db", "postgresql://u@h/db"),
        (f"postgresql://u:%40{SECRET}@h/db?a=1", "postgresql://u@h/db?a=1"),
        (f"postgresql://u@h/db?password={SECRET}", "postgresql://u@h/db"),
        (
            f"postgresql://h/db?user=u&password={SECRET}&sslmode=require",
            "postgresql://h/db?user=u&sslmode=require",
        ),
        (f"postgresql://h/db?sslmode=require&sslpassword={SECRET}", "postgresql://h/db?sslmode=require"),
        (f"--storage=postgresql://u:{SECRET}@h/db", "--storage=postgresql://u@h/db"),
        (f"postgresql://:{SECRET}@h/db", "postgresql://@h/db"),
        ("sqlite:////data/a@b:c.db", "sqlite:////data/a@b:c.db"),
        ("space.lr=0.01", "space.lr=0.01"),
        ("what@ever:it@is", "what@ever:it@is"),
        ("is it so?", "is it so?"),
    ],
)
def test_what_is_shown_of_a_url(text: str, shown: str) -> None:
    assert without_password(text) == shown


def test_without_psycopg_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "slopesearch.search.postgresql", raising=False)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    for name in ("waiting", "advisory", "shared"):
        monkeypatch.delitem(sys.modules, f"slopesearch.search.{name}", raising=False)
    with pytest.raises(RequestError, match=r'install it: pip install -e "\.\[postgresql\]" in the folder of'):
        module.Store("postgresql://u@h/db")


def test_sqlite_needs_no_psycopg() -> None:
    program = "import sys; from slopesearch.search.ledger import Ledger; print('psycopg' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
