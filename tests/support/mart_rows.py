"""Literal rows in the stored tables of an empty warehouse, and the marts computed from them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb

from rare_tokens.analyses.curve.power_law import power_law_line
from rare_tokens.warehouse.publish import marts
from rare_tokens.warehouse.schema import migrations, relations


@contextmanager
def empty_warehouse() -> Iterator[duckdb.DuckDBPyConnection]:
    """A warehouse in memory, with every table and view and no rows."""
    with duckdb.connect() as con:
        migrations.migrate(con, Path(":memory:"))
        yield con


def given(con: duckdb.DuckDBPyConnection, table: str, columns: str, *rows: tuple[Any, ...]) -> None:
    places = ", ".join("?" for _ in columns.split(","))
    con.executemany(f"insert into store.{table} ({columns}) values ({places})", rows)


def given_run(con: duckdb.DuckDBPyConnection, run_key: int = 1, run_id: str = "run") -> None:
    columns = "run_key, run_id, model, revision, layer, status, tokenizer_key, source_key, separator_token_id"
    given(con, "run", columns, (run_key, run_id, "m", "r", 2, "published", 1, 1, 0))


def publish(con: duckdb.DuckDBPyConnection, mart: str, **parameters: int) -> None:
    with marts.fitted(con, parameters.get("run_key", 0), power_law_line if mart == "power_law_fit" else None):
        for statement in relations.relations()[mart].publish:
            names = {name for name in parameters if f"${name}" in statement}
            con.execute(statement, {name: parameters[name] for name in names})


def rows(con: duckdb.DuckDBPyConnection, query: str) -> list[tuple[Any, ...]]:
    return con.execute(query).fetchall()


def given_curve(
    con: duckdb.DuckDBPyConnection, influence: list[float], preset: str = "es", group: str = "rare"
) -> None:
    columns = (
        "run_key, preset, token_group, neuron, rank, influence, mean_delta_loss, abs_mean_delta_loss, abs_mean_rank,"
        " positions"
    )
    curve = [(1, preset, group, 100 + r, r, value, 0.0, 0.0, r, 5) for r, value in enumerate(influence, 1)]
    given(con, "neuron_influence", columns, *curve)
