"""The house: the route is one way, each side knows what it may, and what is shipped works."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import slopesearch
from slopesearch.evidence.declared import declared
from slopesearch.search.settings import Settings
from slopesearch.search.space import check, resolve
from slopesearch.search.store import Store
from tests.conftest import make_config

PACKAGE = Path(slopesearch.__file__).parent
ROOT = PACKAGE.parent

# A file may import only what stands above it.
ROUTE = [
    *("seeds", "interrupts", "config", "wording", "files", "remembered"),
    *("nets.activations", "nets.initializers", "nets.models", "nets.packed"),
    *("nets.cpu.loops", "nets.cpu.steps", "nets.cpu.stem", "nets.cpu.plan", "nets.cpu"),
    "nets.plain",
    *("training.data", "training.devices", "training.diagnostics", "training.optimizers"),
    *("training.validation", "training.engine", "training.parity", "training.doctor", "training.fit"),
    "checks",
    *("search.records", "search.textbook", "search.cover", "search.schedule", "search.sampler"),
    *("search.pruner", "search.space"),
    *("search.urls", "search.mounts", "search.rows", "search.reading", "search.storages", "search.rescue"),
    *("search.sqlite", "search.waiting", "search.advisory", "search.shared", "search.postgresql"),
    *("search.copies", "search.store", "search.choices", "search.ledger"),
    *("search.given", "search.inherit"),
    *("evidence.statistics", "evidence.selection", "evidence.arms", "evidence.results", "evidence.pruning"),
    "evidence.rates",
    *("evidence.health", "evidence.families", "evidence.answers", "evidence.literature"),
    *("search.messages", "search.faults", "search.worker", "search.worker_main"),
    *("search.launchers.inline", "search.launchers.process", "search.launchers"),
    *("search.launchers.ray_worker", "search.launchers.ray_cluster", "search.launchers.ray"),
    *("search.settings", "search.events", "search.loop", "search.optimize", "search.objective"),
    *("evidence.planned", "evidence.questions", "evidence.declared", "evidence.tuning"),
    *("evidence.confirm", "evidence.compare", "report.verdicts"),
    *("runs.export", "runs.train", "runs.predict", "runs.replay"),
    *("report.summary", "report.style", "report.search_plots", "report.slope_plots", "report.choice_plots"),
    *("report.network_plots", "report.run_plots", "report.shape_plots", "report.plots", "report.forest"),
    *("report.answers_panel", "report.findings", "report.page", "report.dashboard"),
    *("cli.streams", "cli.passwords", "cli.verdict_tables", "cli.tables", "cli.json_views", "cli.ending"),
    *("cli.answer_views", "cli.counts", "cli.live", "cli.options", "cli.shipped"),
    *("cli.study_commands", "cli.search_commands", "cli.compare_command", "cli.model_commands"),
    *("cli.doctor_command", "cli.main", "__main__"),
]
KNOWS_TORCH = (
    *("nets", "training", "search.worker", "search.launchers"),
    *("runs.train", "runs.predict", "runs.replay"),
)
KNOWS_OPTUNA = (
    *("search.sampler", "search.pruner", "search.space", "search.sqlite", "search.store"),
    *("search.storages", "search.shared", "search.postgresql"),
    *("search.choices", "search.ledger", "search.loop", "search.given", "search.inherit", "search.copies"),
    *("search.objective", "evidence.planned", "evidence.declared", "evidence.confirm"),
    "report.dashboard",
)


def modules() -> dict[str, Path]:
    found = {}
    for path in PACKAGE.rglob("*.py"):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        if path.name == "__init__.py":
            name = name.removesuffix(".__init__")
        if (path.stat().st_size and path.parent != PACKAGE) or path.name != "__init__.py":
            found[name] = path
    return found


def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            ours = {f"slopesearch.{name}" for name in modules()}
            names |= whole if whole <= ours else {node.module, *whole}  # a package is not its modules
    return names


def test_the_route_names_every_module() -> None:
    assert sorted(ROUTE) == sorted(modules())


@pytest.mark.parametrize("name", ROUTE)
def test_the_route_is_one_way(name: str) -> None:
    ours = {module.removeprefix("slopesearch.") for module in imports(modules()[name])}
    later = ROUTE[ROUTE.index(name) :]
    assert not ours & set(later)


@pytest.mark.parametrize("name", ROUTE)
def test_each_side_knows_what_it_may(name: str) -> None:
    packages = {module.partition(".")[0] for module in imports(modules()[name])}
    assert "torch" not in packages or name.startswith(KNOWS_TORCH)
    assert "optuna" not in packages or name.startswith(KNOWS_OPTUNA)


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("slopesearch.cli.main", {"torch", "optuna", "sklearn"}),
        ("slopesearch.search.store", {"torch", "sklearn"}),
        ("slopesearch.search.optimize", {"ray"}),
        ("slopesearch.search.sampler", {"torch", "sklearn"}),
        ("slopesearch.report.dashboard", {"torch", "sklearn"}),
        ("slopesearch.report.page", {"torch", "optuna", "sklearn", "scipy"}),
        ("slopesearch.training.engine", {"optuna", "numba"}),
    ],
)
def test_what_starts_at_once_loads_little(module: str, absent: set[str]) -> None:
    program = f"import sys, {module}; print(*{{m.partition('.')[0] for m in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not absent & set(done.stdout.split())


def test_a_worker_that_trains_loads_neither_a_compiler_of_graphs_nor_scikit_learn() -> None:
    """Either takes as long as torch itself, in each process."""
    program = (
        "import sys, torch\n"
        "from pathlib import Path\n"
        "from slopesearch.config import TrialConfig\n"
        "from slopesearch.search.worker import begin\n"
        f"config = TrialConfig.model_validate_json({make_config().model_dump_json()!r})\n"
        "next(begin([config], Path('unused'), torch.device('cpu')))\n"
        "print(*sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "slopesearch.training.optimizers" in loaded
    assert not {"torch._dynamo", "sympy", "sklearn", "pandas"} & loaded


def test_the_test_set_is_opened_by_the_verdict_alone() -> None:
    texts = {name: path.read_text() for name, path in modules().items()}
    assert {name for name, text in texts.items() if "load_test(" in text} == {"training.data", "runs.train"}
    asking = {name for name, text in texts.items() if '"test"' in text}
    assert asking == {"config", "training.data", "evidence.confirm"}


def test_files_are_small() -> None:
    """But the compiled loops, which are in one file so that no edit leaves stale machine code of another."""
    for name, path in modules().items():
        assert len(path.read_text().splitlines()) <= (480 if name == "nets.cpu.loops" else 400), path


def test_the_project_names_no_index_host_and_has_no_lock_file() -> None:
    tracked = [ROOT / "pyproject.toml", ROOT / "README.md", ROOT / ".ci" / "run"]
    for path in tracked:
        assert not re.search(r"https?://(?!pytorch\.org)\S*(pypi|whl)|index-url", path.read_text()), path
    assert not list(ROOT.glob("*.lock"))


@pytest.mark.parametrize("path", sorted((ROOT / "studies").glob("*.toml")), ids=lambda path: path.name)
def test_shipped_studies_are_valid_and_open_with_question_cost_and_command(
    path: Path, tmp_path: Path
) -> None:
    text = path.read_text()
    question, command = text.splitlines()[:2]
    assert re.fullmatch(r"# .+\?   about \d+ min on 2 cores", question)
    if "[arms." in text:
        assert command.startswith(f"#   python -m slopesearch compare {path.stem} --seeds ")
        copy = tmp_path / path.name
        copy.write_text(f'dataset = "digits"\n{text}')
        _, _, (family,) = declared(
            copy, None, Settings(tmp_path, "cpu", 1), Store(f"sqlite:///{tmp_path}/x.db"), print
        )
        assert len(family.contrasts) >= 2
        return
    assert command.startswith(f"#   python -m slopesearch optimize {path.stem} --trials ")
    spec = check(tomllib.loads(text))
    resolve(spec.model_copy(update={"dataset": "mnist"}), "float32")


def test_the_default_study_file_is_the_default() -> None:
    spec = check(tomllib.loads((ROOT / "studies" / "default.toml").read_text()))
    written, default = (
        resolve(asked.model_copy(update={"dataset": "mnist"}), "float32") for asked in (spec, check({}))
    )
    assert written == default
