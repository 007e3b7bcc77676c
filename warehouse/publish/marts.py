"""Computes a run's marts from what is loaded, each after those it reads.

Marts are the relations in `sql/marts` that say how they are filled for a run (`insert` statements with `$run_key`).
Their order follows from what these statements read. One is fitted outside SQL, by a function that is passed in.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb

from rare_tokens.common import parts
from rare_tokens.common.parts import Manifest
from rare_tokens.warehouse.publish.loading import neuron_blocks
from rare_tokens.warehouse.schema import migrations, relations
from rare_tokens.warehouse.schema.relations import Relation
from rare_tokens.warehouse.store import run_records

if TYPE_CHECKING:
    import polars as pl

Line = Callable[["pl.DataFrame"], "pl.DataFrame"]
"""Fits the power law to a run's curves.

It gets rows of `neuron_influence` (preset, token_group, neuron, influence, abs_mean_delta_loss, role), group by group
in order of rank, and returns one row per group, statistic and role: these keys, and the columns of `power_law_fit`
from rank_window on.
"""
_FITTED = "power_law_fit"  # the mart made from a `Line`'s rows; its statement reads them as `line`
_FILLED = re.compile(r"insert into (store\.\w+)")


@cache
def of_run() -> tuple[str, ...]:
    """The marts that publishing computes, each after those it reads."""
    return tuple(mart for mart in _all() if mart not in of_attention())


@cache
def of_attention() -> tuple[str, ...]:
    """The marts that read attention, computed when it is added to a run."""
    added = {f"store.{relation}" for relation in parts.ATTENTION_RELATIONS}
    known = relations.relations()
    return tuple(mart for mart in _all() if added & relations.tables_read(known[mart].publish))


def in_order(marts: Mapping[str, Relation]) -> list[str]:
    """Names of marts, each after those it reads.

    Raises:
        ValueError: some read one another; the message names them.
    """
    filled = {name: set(_tables(mart)) for name, mart in marts.items()}
    read = {name: relations.tables_read(mart.publish) for name, mart in marts.items()}
    needs = {name: [other for other in marts if other != name and read[name] & filled[other]] for name in marts}
    return relations.in_order(needs)


def fill(con: duckdb.DuckDBPyConnection, mart: str, key: int, manifest: Manifest, line: Line | None = None) -> None:
    """Compute a mart for one run, replacing what is there; statements that name neurons take them block by block.

    Args:
        con: the warehouse, in a transaction.
        mart: its name.
        key: the run's.
        manifest: says its positions and neurons.
        line: fits the power law; only `power_law_fit` uses it.
    """
    relation = relations.relations()[mart]
    for table in _tables(relation):
        con.execute(f"delete from {table} where run_key = $run_key", {"run_key": key})
    with fitted(con, key, line if mart == _FITTED else None):
        for statement in relation.publish:
            blocks = neuron_blocks(manifest) if "$first_neuron" in statement else [{}]
            for block in blocks:
                con.execute(statement, {"run_key": key, **block})


def bring_up_to_date(con: duckdb.DuckDBPyConnection, path: Path, line: Line) -> list[str]:
    """Bring an open, writable file to this version, its runs' marts included, in one transaction.

    Args:
        con: the file.
        path: its path.
        line: fits the power law.

    Returns:
        The names of the migrations that were applied; none if the file was up to date.

    Raises:
        UserError: as `migrations.migrate`.
    """
    return migrations.migrate(con, path, then=partial(complete, line=line))


def complete(con: duckdb.DuckDBPyConnection, line: Line) -> None:
    """Compute the marts that published runs lack, and those that read them; place every run in training.

    So a migration that changes how a mart is computed only needs to remove its rows.
    """
    run_records.place_in_training(con)
    known = relations.relations()
    published = "select run_id, run_key from store.run where status = 'published' order by run_key"
    for run_id, key in con.execute(published).fetchall():
        renewed: set[str] = set()
        for mart in of_run():
            tables = _tables(known[mart])
            if renewed & relations.tables_read(known[mart].publish) or not all(
                _has_rows(con, one, key) for one in tables
            ):
                fill(con, mart, key, run_records.manifest(con, run_id), line)
                renewed |= set(tables)


def _has_rows(con: duckdb.DuckDBPyConnection, table: str, key: int) -> bool:
    return bool(con.execute(f"select 1 from {table} where run_key = $run_key limit 1", {"run_key": key}).fetchall())


@contextmanager
def fitted(con: duckdb.DuckDBPyConnection, key: int, line: Line | None) -> Iterator[None]:
    """Show the rows that a `Line` fits to a run's influence as `line`; nothing without one."""
    if line is None:
        yield
        return
    curves = con.sql(
        "select preset, token_group, neuron, influence, abs_mean_delta_loss, role from store.neuron_influence"
        " where run_key = $run_key"
        " order by preset, token_group, rank",
        params={"run_key": key},
    ).pl()
    con.register("line", line(curves).to_arrow())
    try:
        yield
    finally:
        con.unregister("line")


@cache
def _all() -> list[str]:
    known = relations.relations()
    return in_order({name: known[name] for name in known if any("$run_key" in text for text in known[name].publish)})


def _tables(mart: Relation) -> list[str]:
    """The stored tables that a mart's statements fill."""
    return [table for statement in mart.publish for table in _FILLED.findall(statement)]
