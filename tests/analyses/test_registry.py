"""The list of analyses: their order, what they fill, and that the rooms of `analyses` import each other one way."""

import ast
from pathlib import Path

import polars as pl
import pytest

from rare_tokens.analyses import registry
from rare_tokens.commands.analyze import analyze
from tests.conftest import REPOSITORY
from tests.support.mart_rows import empty_warehouse

# What each room, or module at the top, may be imported by: those after it. `report` is rooms of its own.
ORDER = (
    "result_table", "analysis", "statistics", "reference", "curve", "coordination", "attention", "across_runs",
    "group_tests", "registry", "explore_charts", "report.data", "report.figures", "report.page", "report",
)  # fmt: skip


def test_an_analysis_stands_after_those_whose_relations_it_reads():
    names = [one.name for one in registry.REGISTRY]
    assert len(set(names)) == len(names)
    last = {name: place for place, one in enumerate(registry.REGISTRY) for name in one.relations}
    late = {
        one.name: name
        for place, one in enumerate(registry.REGISTRY)
        for name in one.reads
        if last.get(name, -1) >= place
    }
    assert late == {}


def test_what_is_tested_are_columns_of_the_relation_that_the_analysis_is_named_after():
    for one in registry.REGISTRY:
        for tested in one.tested:
            columns = set(one.relations[one.name])
            assert {tested.statistic, *tested.keys, *(tested.interval or ()), "group_name", "draw", "reason"} <= columns


def test_every_relation_has_a_stored_table_of_its_columns():
    with empty_warehouse() as con:
        for name, schema in registry.relations().items():
            con.register("computed", pl.DataFrame(schema=pl.Schema(schema)).to_arrow())
            computed = dict(con.execute("select column_name, column_type from (describe computed)").fetchall())
            table = f"select column_name, column_type from (describe store.{name}) where column_name <> 'run_key'"
            assert dict(con.execute(table).fetchall()) == {
                column: kind for column, kind in computed.items() if column != "run_id"
            }, name


def test_the_positions_of_the_command_are_those_of_the_registry():
    (option,) = (option for option in analyze.params if option.name == "positions")
    assert tuple(option.type.choices) == registry.POSITIONS


def test_a_series_waits_for_the_analyses_that_it_reads():
    (emergence,) = registry.OF_SERIES
    assert registry.needed(emergence) == ["regimes", "influence_interval", "neuron_group"]


def test_attention_is_read_by_the_analyses_of_attention_alone():
    assert registry.readers("dim_attention") == ["attention_routing", "head_ablation"]


def room(module: str) -> str:
    """The room of `rare_tokens.analyses.ROOM…`."""
    parts = module.split(".")[2:]
    return ".".join(parts[:2]) if parts[0] == "report" and len(parts) > 1 else parts[0]


def imported(file: Path) -> set[str]:
    nodes = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
    found = [node for node in nodes if isinstance(node, ast.ImportFrom)]
    names = {node.module for node in found if node.module}
    names |= {f"{node.module}.{alias.name}" for node in found for alias in node.names}
    return {name for name in names if name.startswith("rare_tokens.analyses.")}


@pytest.mark.parametrize(
    "file", sorted((REPOSITORY / "analyses").rglob("*.py")), ids=lambda path: str(path.relative_to(REPOSITORY))
)
def test_no_room_imports_one_after_it(file: Path):
    parts = file.relative_to(REPOSITORY).with_suffix("").parts
    if parts[-1] == "__init__" and parts[1:] in (("__init__",), ("report", "__init__")):
        return  # what a package offers
    own = ORDER.index(room(".".join(("rare_tokens", *parts))))
    wrong = {name for name in imported(file) if room(name) in ORDER and ORDER.index(room(name)) > own}
    assert wrong == set()
