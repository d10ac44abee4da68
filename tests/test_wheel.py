"""The wheel: what it holds, and that its study files are found from an empty folder."""

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.conftest import QUICK
from tests.running import ROOT

STUDIES = sorted((ROOT / "studies").glob("*.toml"))


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of the project, unpacked as pip would install it."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    for name in ("slopesearch", "studies"):
        ignored = shutil.ignore_patterns("__pycache__", "*.db*", ".*")
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    wheel = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*wheel, "-w", built, source], capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    (packed,) = built.glob("*.whl")
    with zipfile.ZipFile(packed) as archive:
        archive.extractall(built / "site")
    return built / "site"


def test_every_package_and_every_study_is_in_it(unpacked: Path) -> None:
    """The packages are named one by one in pyproject.toml; a new one could be forgotten there."""
    ours = {path.relative_to(ROOT) for path in (ROOT / "slopesearch").rglob("*.py")}
    assert {path.relative_to(unpacked) for path in unpacked.rglob("*.py")} == ours
    assert [path.read_text() for path in sorted((unpacked / "slopesearch" / "studies").iterdir())] == [
        path.read_text() for path in STUDIES
    ]
    assert (unpacked / "slopesearch" / "report" / "page.html").is_file()
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert declared == sorted(declared)


def test_its_studies_run_from_an_empty_folder(unpacked: Path, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "SLOPESEARCH_DATA"}

    def typed(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "slopesearch", *words],
            cwd=tmp_path,
            env={**environment, "PYTHONPATH": str(unpacked)},
            capture_output=True,
            text=True,
            timeout=250,
        )

    listed = typed("studies").stdout
    assert all(f"{path.stem}  (about " in listed for path in STUDIES)
    small = (*QUICK[:2], *QUICK[4:], "--trials", "1", "--set", "depth=2")
    done = typed("optimize", "deep-mlp", *small)
    assert done.returncode == 0, done.stderr
    assert "deep-mlp-digits: to 1 trial;" in done.stdout
    again = typed("optimize", "studies/deep-mlp.toml", *small)  # as a checkout has it
    assert "deep-mlp-digits: to 1 trial, 1 of them finished already;" in again.stdout
    refused = typed("compare", "compare-norm", "--seeds", "1")
    assert (refused.returncode, refused.stderr) == (2, "error: seeds: at least 2, given 1\n")
