"""Literal rows in the stored tables of an empty warehouse, and the marts computed from them."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import polars as pl

from rare_tokens.analyses.curve.power_law import power_law_line
from rare_tokens.warehouse.publish import marts
from rare_tokens.warehouse.schema import relations
from tests.support.warehouses import empty


@contextmanager
def empty_warehouse() -> Iterator[duckdb.DuckDBPyConnection]:
    """A warehouse of its own, with every table and view and no rows."""
    with tempfile.TemporaryDirectory() as folder, duckdb.connect(empty(Path(folder) / "w.duckdb")) as con:
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
    ranks = range(1, len(influence) + 1)
    fixed = {"run_key": 1, "preset": preset, "token_group": group, "mean_delta_loss": 0.0, "abs_mean_delta_loss": 0.0}
    frame = pl.DataFrame({"rank": ranks, "neuron": [100 + r for r in ranks], "influence": influence}).with_columns(
        **{name: pl.lit(value) for name, value in fixed.items()}, abs_mean_rank=pl.col("rank"), positions=5
    )
    con.register("curve", frame)
    con.execute("insert into store.neuron_influence by name from curve")
    con.unregister("curve")
