"""Which relations a warehouse has, what they hold, and how many rows they have."""

from dataclasses import dataclass
from pathlib import Path

import duckdb

from rare_tokens.common.closest import hint
from rare_tokens.common.errors import UserError
from rare_tokens.common.program import command
from rare_tokens.warehouse.connection import reading
from rare_tokens.warehouse.schema import relation_groups, relations
from rare_tokens.warehouse.schema.relations import Relation
from rare_tokens.warehouse.store import parquet_facts

# What stands in the place of a macro's arguments where only its columns are asked for. A parameter that a column
# repeats needs a value of its type.
_BLANK = {"run": "''", "runs": "['']", "neuron_index": "0", "preset_name": "''", "of_statistic": "''", "of_role": "''"}
_BLANK |= {"first": "0", "last": "0"}


@dataclass(frozen=True)
class Column:
    """A column of a public relation: name, SQL type and description."""

    name: str
    type: str
    description: str


@dataclass(frozen=True)
class Table:
    """A public relation as it is in a warehouse.

    Attributes:
        kind: `view` or `macro`.
        group: what it belongs to, a key of `relation_groups.GROUPS`.
        rows: number of rows; None for a macro.
        example: a query that calls a macro; empty for a view.
    """

    name: str
    kind: str
    summary: str
    grain: str
    group: str
    example: str
    rows: int | None
    columns: tuple[Column, ...]


def tables(path: Path, name: str | None = None, *, wait: float = 0.0) -> list[Table]:
    """The public relations of a warehouse, or only the named one; an absent warehouse has them all, without runs.

    All of them come group by group; a view has rows, a macro an example.

    Raises:
        UserError: there is no relation of that name.
    """
    wanted = [known(name)] if name is not None else relation_groups.grouped(relations.relations().values())
    with reading(path, wait=wait) as con:
        return [table(con, relation) for relation in wanted]


def known(name: str) -> Relation:
    """The public relation of that name.

    Raises:
        UserError: there is none.
    """
    every = relations.relations()
    if name in every:
        return every[name]
    raise UserError(f"There is no relation {name}.{hint(name, every)} `{command('tables')}` lists them.")


def table(con: duckdb.DuckDBPyConnection, relation: Relation) -> Table:
    """A relation as it is in an open warehouse."""
    kind = "macro" if relation.is_macro else "view"
    group = relation_groups.group_of(relation)
    rows, found = _rows(con, relation), columns(con, relation)
    return Table(relation.name, kind, relation.summary, relation.grain, group, relation.example, rows, found)


def columns(con: duckdb.DuckDBPyConnection, relation: Relation) -> tuple[Column, ...]:
    """The columns of a relation with their types; none for a macro that returns a value."""
    if not relation.columns:
        return ()
    # The engine resolves the types without reading a row.
    needed = [_BLANK.get(name, "null") for name, default in relation.parameters.items() if default is None]
    types = con.sql(f"from {relation.name}" + (f"({', '.join(needed)})" if relation.is_macro else "")).types
    described = relation.columns.items()
    return tuple(Column(name, str(kind), text) for (name, text), kind in zip(described, types, strict=True))


def _rows(con: duckdb.DuckDBPyConnection, relation: Relation) -> int | None:
    if relation.is_macro:
        return None
    # Counting a stored table reads its statistics; counting the view joins every row.
    stored = con.execute(
        "select 1 from duckdb_tables() where schema_name = 'store' and table_name = $name", {"name": relation.name}
    ).fetchall()
    source = f"store.{relation.name}" if stored else relation.name
    ((rows,),) = con.execute(f"select count(*) from {source}").fetchall()
    if relation.name == "fct_effect":
        rows += sum(file.rows for file in parquet_facts.files(con))
    return int(rows)
