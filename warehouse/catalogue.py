"""Which relations a warehouse has, what they hold, and how many rows they have."""

from dataclasses import dataclass
from pathlib import Path

import duckdb

from rare_tokens.common.errors import UserError
from rare_tokens.common.program import command
from rare_tokens.warehouse.connection import reading
from rare_tokens.warehouse.schema import relation_groups, relations
from rare_tokens.warehouse.schema.relations import Relation
from rare_tokens.warehouse.store import parquet_facts


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
    known = relations.relations()
    if name is not None and name not in known:
        close = relations.closest(name)
        meant = f" Did you mean {close}?" if close else ""
        raise UserError(f"There is no relation {name}.{meant} `{command('tables')}` lists them.")
    with reading(path, wait=wait) as con:
        types = _types(con)
        return [
            _table(con, relation, types.get(relation.name, {}))
            for relation in relation_groups.grouped(known.values())
            if name in (None, relation.name)
        ]


def _table(con: duckdb.DuckDBPyConnection, relation: Relation, types: dict[str, str]) -> Table:
    columns = tuple(Column(name, types.get(name, ""), text) for name, text in relation.columns.items())
    kind = "macro" if relation.is_macro else "view"
    group = relation_groups.group_of(relation)
    return Table(
        relation.name, kind, relation.summary, relation.grain, group, relation.example, _rows(con, relation), columns
    )


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


def _types(con: duckdb.DuckDBPyConnection) -> dict[str, dict[str, str]]:
    types: dict[str, dict[str, str]] = {}
    query = (
        "select table_name, column_name, data_type from duckdb_columns() where schema_name = 'main' and not internal"
    )
    for table, column, kind in con.execute(query).fetchall():
        types.setdefault(table, {})[column] = kind
    return types
