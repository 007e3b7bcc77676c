"""The law of the house: which room may import which, and what each layer never touches (docs/architecture.md)."""

import ast
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

LAYERS = ("common", "ingest", "warehouse", "analyses", "commands")
FORBIDDEN = {  # beside what is said here, everything below may be used
    "common": {"ingest", "warehouse", "analyses", "sql", "cli", "commands", "torch", "transformers", "duckdb"},
    "ingest": {"warehouse", "analyses", "sql", "cli", "commands", "duckdb"},
    "warehouse": {"ingest", "analyses", "cli", "commands", "torch", "transformers"},
    "analyses": {"ingest", "warehouse", "sql", "cli", "commands", "torch", "transformers", "duckdb"},
    "commands": {"cli"},
}
# Within a layer a room imports itself and the rooms on the floors before its own.
FLOORS = {
    "ingest": (
        ("machine", "embedded"),
        ("text",),
        ("model",),
        ("ablation.layer",),
        ("ablation.numerics",),
        ("ablation.series",),
        ("ablation.formulas",),
        ("ablation.vocabulary",),
        ("ablation",),
        ("ablation.stages",),
        ("dense",),
        ("run",),
        ("attention", "group_units"),
        ("groups", "forecast"),
        ("estimate",),
    ),
    "analyses": (
        ("result_table",),
        ("statistics", "analysis"),
        ("curve",),
        ("specificity",),
        ("coordination",),
        ("attention",),
        ("agreement", "across_runs", "explore_charts", "explore_line", "reference"),
        ("group_tests",),
        ("registry",),
        ("report.data",),
        ("report.figures",),
        ("report.page",),
        ("report",),
    ),
    "warehouse": (
        ("literals", "locks"),
        ("store",),
        ("schema",),
        ("connection",),
        ("runs", "sandbox", "catalogue"),
        ("client",),
        ("publish",),
        ("check", "share", "maintenance", "report_inputs"),
    ),
}
LARGEST_FLAT = {"ingest": 8, "sql/marts": 5, "tests": 12}  # files that lie in the folder itself
LONGEST = 400  # lines of a module; what is longer says why below
LONGER: dict[str, str] = {}


@cache
def modules() -> dict[str, Path]:
    """Every module of the package by its name without `rare_tokens.`."""
    found = {}
    for layer in LAYERS:
        for path in sorted((REPOSITORY / layer).rglob("*.py")):
            name = ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    return found


@cache
def imports(module: str) -> frozenset[str]:
    """What a module imports, as dotted names; those of the package without `rare_tokens.`."""
    names = set()
    for node in ast.walk(ast.parse(modules()[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert not node.level, f"{module}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(name.removeprefix("rare_tokens.") for name in names)


def room(layer: str, name: str) -> str | None:
    """The room of a layer that a dotted name is in: the longest that `FLOORS` has."""
    rooms = [one for floor in FLOORS[layer] for one in floor if f"{name}.".startswith(f"{layer}.{one}.")]
    return max(rooms, key=len, default=None)


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_imports_only_what_it_may(layer):
    own = [name for name in modules() if name.split(".")[0] == layer]
    assert own, f"{layer}/ is empty"
    wrong = {name: {top for top in imports(name) if top.split(".")[0] in FORBIDDEN[layer]} for name in own}
    assert not {name: found for name, found in wrong.items() if found}


@pytest.mark.parametrize("layer", FLOORS)
def test_within_a_layer_no_arrow_runs_up(layer):
    floor = {name: number for number, names in enumerate(FLOORS[layer]) for name in names}
    wrong = []
    for module in (name for name in modules() if name.startswith(f"{layer}.")):
        here = room(layer, module)
        assert here is not None, f"{module} is in no room: give it one in FLOORS"
        for name in imports(module):
            there = room(layer, name)
            if there not in (None, here) and floor[there] >= floor[here]:
                wrong.append(f"{module} imports {name}")
    assert not wrong


def test_there_is_no_circle():
    known = modules()
    arrows = {}
    for name in known:
        named = (other if other in known else other.rpartition(".")[0] for other in imports(name))
        arrows[name] = {other for other in named if other in known}
    assert len(list(TopologicalSorter(arrows).static_order())) == len(known)


def test_the_law_sees_an_arrow_that_runs_up(monkeypatch):
    monkeypatch.setitem(FLOORS, "ingest", tuple(reversed(FLOORS["ingest"])))
    with pytest.raises(AssertionError, match="imports"):
        test_within_a_layer_no_arrow_runs_up("ingest")


@pytest.mark.parametrize("folder", LARGEST_FLAT)
def test_a_folder_is_rooms_and_no_heap(folder):
    flat = [path.name for path in (REPOSITORY / folder).iterdir() if path.suffix in (".py", ".sql")]
    assert len(flat) <= LARGEST_FLAT[folder], sorted(flat)


def test_a_module_fits_in_the_head():
    where = ("analyses", "commands", "common", "ingest", "warehouse", "tests", "benchmarks", "studies")
    files = [path for folder in where for path in (REPOSITORY / folder).rglob("*.py")]
    long = {
        str(path.relative_to(REPOSITORY)): lines
        for path in files
        if (lines := path.read_text(encoding="utf-8").count("\n")) > LONGEST
    }
    assert long.keys() == LONGER.keys(), long


@pytest.mark.parametrize("file", ["cli.py", *(f"commands/{p.name}" for p in (REPOSITORY / "commands").glob("*.py"))])
def test_reading_commands_do_not_wait_for_torch(file):
    """`runs` and `sql` answer at once only while nothing that the commands import at their top loads torch."""
    names = set()
    for node in ast.parse((REPOSITORY / file).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    tops = {name.removeprefix("rare_tokens.").split(".")[0] for name in names}
    assert not tops & {"ingest", "analyses", "torch", "transformers"}


def test_one_place_alone_catches_whatever_comes():
    """A broad `except` outside the boundary of the commands would hide bugs as the user's errors."""
    broad: dict[str, int] = {}
    for name, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ExceptHandler):
                continue
            caught = {n.id for n in ast.walk(node.type) if isinstance(n, ast.Name)} if node.type else {"Exception"}
            if "Exception" in caught:
                broad[name] = broad.get(name, 0) + 1
    assert broad == {"commands.support.settings": 1}


def test_tests_and_benchmarks_are_no_library_of_each_other():
    """What both need is in studies/synthetic. Only tests/benchmarks imports what it tests."""
    for folder, other in (("tests", "benchmarks"), ("benchmarks", "tests"), ("studies", "tests")):
        for path in sorted((REPOSITORY / folder).rglob("*.py")):
            if path.is_relative_to(REPOSITORY / "tests" / "benchmarks"):
                continue
            tree = ast.parse(path.read_text(encoding="utf-8"))
            names = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
            assert not {name for name in names if name.split(".")[0] == other}, path


def test_one_package_holds_every_room():
    """`rare_tokens/` links the folders, so that a checkout, an install and every tool see one package."""
    package = REPOSITORY / "rare_tokens"
    linked = {path.name: path.resolve() for path in package.iterdir() if path.is_symlink()}
    assert linked == {name: REPOSITORY / name for name in (*LAYERS, "sql", "cli.py")}
