"""The arrows of the house: layers never import each other; analyses touches neither torch nor a database."""

import ast
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

FORBIDDEN = {
    "ingest": {"warehouse", "analyses", "sql", "cli", "commands", "duckdb"},
    "warehouse": {"ingest", "analyses", "cli", "commands", "torch", "transformers"},
    "analyses": {"ingest", "warehouse", "sql", "cli", "commands", "torch", "transformers", "duckdb"},
    "common": {"ingest", "warehouse", "analyses", "sql", "cli", "commands", "torch", "transformers", "duckdb"},
}


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("layer", FORBIDDEN)
def test_a_layer_imports_only_what_it_may(layer):
    files = sorted((REPOSITORY / layer).rglob("*.py"))
    assert files, f"{layer}/ is empty"
    wrong = {str(file.relative_to(REPOSITORY)): imported(file) & FORBIDDEN[layer] for file in files}
    assert not {file: names for file, names in wrong.items() if names}


@pytest.mark.parametrize("file", ["cli.py", *(f"commands/{p.name}" for p in (REPOSITORY / "commands").glob("*.py"))])
def test_reading_commands_do_not_wait_for_torch(file):
    """`runs` and `sql` answer at once only while nothing that the commands import at their top loads torch."""
    top = ast.parse((REPOSITORY / file).read_text(encoding="utf-8")).body
    names = {node.module.split(".")[0] for node in top if isinstance(node, ast.ImportFrom) and node.module}
    names |= {alias.name.split(".")[0] for node in top if isinstance(node, ast.Import) for alias in node.names}
    assert names & {"ingest", "analyses", "torch", "transformers"} == set()


def test_one_place_alone_catches_whatever_comes():
    """A broad `except` outside the boundary of the commands would hide bugs as the user's errors."""
    broad = {}
    for folder in (*FORBIDDEN, "commands"):
        for file in (REPOSITORY / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                names = (
                    {n.id for n in ast.walk(node.type) if isinstance(n, ast.Name)}
                    if (isinstance(node, ast.ExceptHandler) and node.type)
                    else set()
                )
                bare = isinstance(node, ast.ExceptHandler) and node.type is None
                if bare or names & {"Exception"}:
                    broad.setdefault(str(file.relative_to(REPOSITORY)), []).append(node.lineno)
    assert {file: len(lines) for file, lines in broad.items()} == {"commands/support/settings.py": 1}
