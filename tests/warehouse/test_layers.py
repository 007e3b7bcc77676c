"""The rooms of warehouse/ lie in layers, and no module imports one above its own."""

import ast
from graphlib import TopologicalSorter

from tests.conftest import REPOSITORY

PACKAGE = "rare_tokens.warehouse."
# From the ground up: a module may import those of its own layer and of the layers before it.
LAYERS = (
    ("literals", "locks", "store"),
    ("schema",),
    ("connection",),
    ("sandbox", "runs", "catalogue"),
    ("client",),
    ("publish",),
    ("check", "share", "maintenance", "report_inputs"),
)


def layer(module: str) -> int:
    (found,) = (number for number, rooms in enumerate(LAYERS) if module.split(".")[0] in rooms)
    return found


def arrows() -> dict[str, set[str]]:
    """Which modules of warehouse/ each imports."""
    found = {}
    for file in sorted((REPOSITORY / "warehouse").rglob("*.py")):
        if file.name == "__init__.py":
            continue
        name = ".".join(file.relative_to(REPOSITORY / "warehouse").with_suffix("").parts)
        found[name] = set()
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith(PACKAGE):
                inside = (node.module or "").removeprefix(PACKAGE.removesuffix(".")).removeprefix(".")
                found[name] |= {".".join(filter(None, (inside, alias.name))) for alias in node.names} | {inside}
    return {name: {other for other in names if other in found} for name, names in found.items()}


def test_no_arrow_runs_up() -> None:
    up = {(name, other) for name, others in arrows().items() for other in others if layer(other) > layer(name)}
    assert not up


def test_there_is_no_circle() -> None:
    assert len(list(TopologicalSorter(arrows()).static_order())) == len(arrows()) > 20
