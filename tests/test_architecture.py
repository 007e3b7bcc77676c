"""The arrows of the house: layers never import each other; analyses touches neither torch nor a database."""

import ast
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

FORBIDDEN = {
    "ingest": {"warehouse", "analyses", "sql", "cli", "duckdb"},
    "warehouse": {"ingest", "analyses", "cli", "torch", "transformers"},
    "analyses": {"ingest", "warehouse", "sql", "cli", "torch", "transformers", "duckdb"},
    "common": {"ingest", "warehouse", "analyses", "sql", "cli", "torch", "transformers", "duckdb"},
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


def test_reading_commands_do_not_wait_for_torch():
    """`runs` and `sql` answer at once only while nothing that cli imports at its top loads torch."""
    top = ast.parse((REPOSITORY / "cli.py").read_text(encoding="utf-8")).body
    names = {node.module.split(".")[0] for node in top if isinstance(node, ast.ImportFrom) and node.module}
    assert names & {"ingest", "analyses", "torch", "transformers"} == set()
