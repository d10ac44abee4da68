"""Would the tests notice? Single faults, drawn from a seed, each run against its module's own test files.

    pip install cosmic-ray coverage
    git worktree add --detach ../mutants
    python scripts/mutants.py ../mutants --out outcomes.jsonl --size 150 --seed 0

A fault is cosmic-ray's, one for each place that is drawn, or a statement left out. It is written into the
copy, never into the tree of this script. The same command goes on where it was stopped. The faults of the
rooms are shuffled, so that those tried so far are a fair sample; many tests wait, so several `--part`s run
well beside each other, each with a copy and a file of its own. A limit is in CPU seconds of a process, so
that a busy machine ends nothing. The tests must pass without a fault, or each would count as killed. Those
that run the line of a fault go first, the quickest of them before the others; a fault that they let through
faces the rest of the files, where a line may run in a process of its own.
"""

import argparse
import ast
import difflib
import itertools
import json
import multiprocessing
import os
import random
import resource
import signal
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

try:
    import coverage
    import parso
    from cosmic_ray.ast import ast_nodes
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator, operator_names
except ImportError:
    sys.exit("cosmic-ray, which makes the faults, or coverage is missing; pip install cosmic-ray coverage")

ROOMS = {"search": ["search"], "training": ["training"], "evidence": ["evidence", "runs"], "nets": ["nets"]}
LIMIT, LIMIT_LOOPS = 60, 120  # CPU s; the loops of nets/cpu compile again for 15 s with each fault
NEAREST = {  # the tests of a module that has no file of its name
    **{"events": ["loop", "live"], "messages": ["launchers", "loop"], "records": ["store", "tables"]},
    **{"settings": ["optimize"], "textbook": ["space", "optimize"], "fit": ["train"]},
    **{name: ["launchers"] for name in ("inline", "process", "worker", "worker_main")},
    **{"optimizers": ["engine", "packed"], "plain": ["train", "cpu"], "plan": ["cpu"], "stem": ["cpu"]},
    **{"steps": ["cpu_steps", "cpu"], "loops": ["cpu", "cpu_steps"], "validation": ["engine", "packed"]},
    **{"answers": ["verdicts", "compare"], "families": ["verdicts", "declared"], "literature": ["verdicts"]},
    **{name: ["compare", "declared"] for name in ("planned", "questions")},
    **{"rates": ["answers_panel"], "reading": ["rows", "store"], "ray_worker": ["ray_cluster"]},
    **{"choices": ["ledger", "dashboard"], "storages": ["ledger", "sqlite"]},
    **{name: ["postgresql"] for name in ("advisory", "shared", "waiting")},
}
PRELOADED = [
    "hypothesis",
    "numba",
    "optuna",
    "plotly.graph_objects",
    "pytest",
    "scipy.stats",
    "sklearn",
    "torch",
]
SLOW = "tests/test_loop.py::test_a_deterministic_study_that_really_trains_is_the_same_on_one_and_two_workers"


class LeaveOut:
    """An operator as cosmic-ray's are: a call, or an assignment to an attribute or an item, is not made."""

    def mutation_positions(self, node: Any) -> Iterator[tuple[Any, Any]]:
        """Where the statements are."""
        if node.type == "simple_stmt":
            done = node.children[0]
            target = done.children[0] if done.type == "expr_stmt" else done
            if target.type in ("atom_expr", "power"):
                yield done.start_pos, done.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        """The statement as `pass`."""
        done = node.children[0]
        node.children[0] = parso.python.tree.Keyword("pass", done.start_pos, done.get_first_leaf().prefix)
        return node


@dataclass(frozen=True)
class Fault:
    """The occurrence of an operator in a file of the package."""

    room: str
    path: str
    line: int
    operator: str
    occurrence: int

    def code(self, source: str) -> str | None:
        """The file with the fault; None where that is no Python."""
        try:
            code = str(mutate_code(source, operator_of(self.operator), self.occurrence))
            ast.parse(code)
        except (SyntaxError, AttributeError):  # cosmic-ray knows no `except a.B`
            return None
        return code


def operator_of(name: str) -> Any:
    return LeaveOut() if name == "LeaveOut" else get_operator(name)()


def places(room: str, tree: Path, path: Path) -> Iterator[list[Fault]]:
    """For each place of a file, the faults that it can have; in annotations there are none."""
    source, found = path.read_text(), defaultdict(list)
    nodes = list(ast_nodes(parso.parse(source)))
    typed = set()
    for node in ast.walk(ast.parse(source)):
        typed.add(
            node.annotation if isinstance(node, ast.arg | ast.AnnAssign) else getattr(node, "returns", None)
        )
    spans = [((t.lineno, t.col_offset), (t.end_lineno or 0, t.end_col_offset or 0)) for t in typed if t]
    for name in ["LeaveOut", *(n for n in operator_names() if "Variable" not in n)]:  # those want names
        starts = [start for node in nodes for start, _ in operator_of(name).mutation_positions(node)]
        for occurrence, start in enumerate(starts):
            if not any(begin <= start < end for begin, end in spans):
                fault = Fault(room, str(path.relative_to(tree)), start[0], name, occurrence)
                found[start, name == "LeaveOut"].append(fault)
    yield from found.values()


def draw(tree: Path, size: int, seed: int) -> list[Fault]:
    """So many faults of each room, shuffled."""
    generator, drawn = random.Random(seed), list[Fault]()
    for room, folders in ROOMS.items():
        files = sorted(p for folder in folders for p in (tree / "slopesearch" / folder).rglob("*.py"))
        faults = [generator.choice(choices) for file in files for choices in places(room, tree, file)]
        generator.shuffle(faults)
        valid = (fault for fault in faults if fault.code((tree / fault.path).read_text()))
        drawn += itertools.islice(valid, size)
    generator.shuffle(drawn)
    return drawn


class Watch:
    """A plugin of pytest: leaves tests out by name, and keeps how many seconds each took, set-up included."""

    def __init__(self, without: list[str]) -> None:
        self.without = {SLOW, *without}
        self.seconds: defaultdict[str, float] = defaultdict(float)

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Called by pytest."""
        items[:] = [item for item in items if item.nodeid.split("[")[0] not in self.without]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Called by pytest."""
        self.seconds[report.nodeid.split("[")[0]] += report.duration


def run_tests(tree: Path, tests: list[str], without: list[str], limit: int, seen: Path | None) -> None:
    """Tests in this process, which ends with pytest's exit code; `seen`: which of them runs which line."""
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background jobs ignore
    os.chdir(tree)
    sys.path.insert(0, str(tree))
    sys.dont_write_bytecode = True
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    # A worker that a test spawns would import the main module of this process, which is this script.
    sys.modules["__main__"].__spec__ = None  # gone altogether, multiprocessing would fail
    del sys.modules["__main__"].__file__
    ignored = ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
    options = ["-x", *ignored, "-q", "-n0", "--timeout=0", "-p", "no:cacheprovider"]
    times = Watch(without)
    watch = coverage.Coverage(data_file=str(seen), source=["slopesearch"], config_file=False)
    watch.set_option("run:dynamic_context", "test_function")
    if seen is not None:
        watch.start()
    code = pytest.main([*options, *tests], plugins=[times])
    if seen is not None:
        watch.stop()
        watch.save()
        seen.with_suffix(".json").write_text(json.dumps(times.seconds))
    os._exit(code)  # what a test has left running does not matter


def outcome_of(
    tree: Path, path: Path, tests: list[str], without: list[str] | None = None, seen: Path | None = None
) -> str:
    """What tests say to a module as it is now."""
    limit = LIMIT_LOOPS if path.stem == "loops" else LIMIT
    limit = 4 * limit if seen else limit
    # Forked from a process that has imported all but the package: four seconds less for each fault.
    process = multiprocessing.get_context("forkserver").Process(
        target=run_tests, args=(tree, tests, without or [], limit, seen)
    )
    process.start()
    process.join(4 * limit)
    if process.exitcode is None:  # it hangs
        process.kill()
        return "timed out"
    code = process.exitcode  # 5: no test is left
    ends = {0: "survived", 1: "killed", 2: "killed", 5: "survived", -9: "timed out"}
    return ends.get(code, f"ended with {code}")


def tests_of(path: Path) -> list[str]:
    """The test files of a module."""
    module = path.parent.name if path.stem == "__init__" else path.stem
    return [f"tests/test_{near}.py" for near in NEAREST.get(module, [module])]


@cache
def tests_by_line(tree: Path, path: Path) -> dict[int, list[str]] | None:
    """The tests of a module that run each of its lines; None where they do not pass as the module is."""
    with tempfile.TemporaryDirectory() as folder:
        seen = Path(folder, "seen")
        if (outcome := outcome_of(tree, path, tests_of(path), seen=seen)) != "survived":
            print(f"{path}: its tests without a fault: {outcome}; mend them, its faults are left out")
            return None
        data = coverage.CoverageData(str(seen))
        data.read()
        contexts = data.contexts_by_lineno(str(tree / path))
        seconds = json.loads(seen.with_suffix(".json").read_text())
    return {
        line: sorted(
            {"/".join(n.split(".")[:2]) + ".py::" + n.split(".")[-1] for n in names if n},
            key=lambda test: seconds.get(test, 0.0),
        )
        for line, names in contexts.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="single faults against a module's own tests")
    parser.add_argument("tree", type=Path, help="a copy of the repository, with no one else at work in it")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", type=int, default=150, help="faults for each room")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--part", type=int, nargs=2, default=(0, 1), help="K N: every Nth fault from K on")
    given = parser.parse_args()
    lines = given.out.read_text().splitlines() if given.out.exists() else []
    known = {tuple(json.loads(line)["fault"]) for line in lines}
    tree = given.tree.resolve()
    os.environ |= {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    multiprocessing.set_forkserver_preload(PRELOADED)
    first_fault, step = given.part
    for fault in draw(tree, given.size, given.seed)[first_fault::step]:
        if astuple(fault) in known:
            continue
        path, module = tree / fault.path, Path(fault.path)
        if (by_line := tests_by_line(tree, module)) is None:
            continue
        first = by_line.get(fault.line, [])
        source = path.read_text()
        code = fault.code(source) or ""
        change = [line for line in difflib.ndiff(source.splitlines(), code.splitlines()) if line[0] in "+-"]
        try:
            path.write_text(code)
            outcome = outcome_of(tree, module, first) if first else "survived"
            if outcome == "survived":
                outcome = outcome_of(tree, module, tests_of(module), without=first)
        finally:
            path.write_text(source)
        with given.out.open("a") as out:
            out.write(json.dumps({"fault": astuple(fault), "change": change, "outcome": outcome}) + "\n")
        print(fault.path, fault.line, outcome, *change, sep="\n    ", flush=True)


if __name__ == "__main__":
    main()
