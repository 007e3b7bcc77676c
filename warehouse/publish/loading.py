"""Loads the rows of a run's parts into the stored tables, and removes a run's rows again."""

from pathlib import Path

import duckdb

from rare_tokens.common import parts
from rare_tokens.common.errors import QualityError
from rare_tokens.common.parts import Manifest
from rare_tokens.common.progress import progress
from rare_tokens.warehouse.schema import relations
from rare_tokens.warehouse.store import parquet_facts, run_records

# About so many facts are sorted or summed per statement, however large the run: 4 million take 0.5 GB of memory.
FACTS_PER_STATEMENT = 4_000_000

# Relations with one row per … of the run, in loading order, each with the order of its rows.
LOADED = {
    "dim_document": "document_id",
    "dim_position": "position_id",
    "position_context": "position_id",
    "dim_neuron": "neuron",
    "neuron_weight": "neuron",
    "neuron_token": "neuron, direction, rank",
}


def load_shared(con: duckdb.DuckDBPyConnection, manifest: Manifest) -> None:
    """Load what runs share, tokens and frequencies, or compare it with what is there; remove what no run uses.

    Raises:
        QualityError: the warehouse holds different ones under the same names.
    """
    tokenizer_key = _load_tokens(con, manifest)
    source_key = _load_frequencies(con, manifest, tokenizer_key)
    run_records.record(con, {"run_id": manifest.run_id, "tokenizer_key": tokenizer_key, "source_key": source_key})
    clear_unused(con)


def load_dimensions(con: duckdb.DuckDBPyConnection, key: int) -> None:
    """Load relations with a row per document, position, neuron … of the run."""
    for relation, order in LOADED.items():
        con.execute(
            f"insert into store.{relation} by name"
            f" select $run_key as run_key, part.* from staging.{relation} as part order by {order}",
            {"run_key": key},
        )


def store_facts(
    con: duckdb.DuckDBPyConnection,
    path: Path,
    key: int,
    manifest: Manifest,
    digest: str,
    store: str,
    *,
    source: str = "staging.fct_effect",
    quiet: bool,
) -> None:
    """Put a run's facts where they are to be kept, and let `store.effect` read only this run's.

    The state of other runs' files then does not matter; `parquet_facts.define` shows all of them again.

    Args:
        con: the warehouse, in a transaction.
        path: the warehouse's.
        key: the run's.
        manifest: says its id, positions and neurons.
        digest: its parts' digest, which goes into the files' names.
        store: `native` or `parquet`.
        source: what to select the facts from.
        quiet: show no progress.
    """
    if store == parquet_facts.PARQUET:
        write_facts(con, path, key, manifest, digest, source, quiet=quiet)
    else:
        load_facts(con, key, manifest, source, quiet=quiet)
    parquet_facts.define(con, key)


def write_facts(
    con: duckdb.DuckDBPyConnection, path: Path, key: int, manifest: Manifest, digest: str, source: str, *, quiet: bool
) -> None:
    """Write the facts as Parquet next to the warehouse, one file per block of neurons (see `store_facts`)."""
    blocks = [(block["first_neuron"], block["last_neuron"]) for block in neuron_blocks(manifest)]
    with progress("Publish", manifest.neurons, "neurons", quiet=quiet) as advance:
        for neurons in parquet_facts.write(con, path, (key, manifest.run_id), digest[:16], source, blocks):
            advance(neurons)


def load_facts(con: duckdb.DuckDBPyConnection, key: int, manifest: Manifest, source: str, *, quiet: bool) -> None:
    """Load the facts in order of neuron and position, one block of neurons at a time from all parts."""
    columns = ", ".join(parts.schema("fct_effect", tuple(manifest.effects)).names)
    statement = (
        f"insert into store.fct_effect by name select $run_key as run_key, {columns} from {source}"
        " where neuron between $first_neuron and $last_neuron order by neuron, position_id"
    )
    with progress("Publish", manifest.neurons, "neurons", quiet=quiet) as advance:
        for block in neuron_blocks(manifest):
            con.execute(statement, {"run_key": key, **block})
            advance(block["last_neuron"] + 1 - block["first_neuron"])


def neuron_blocks(manifest: Manifest) -> list[dict[str, int]]:
    """First and last neuron of blocks, which begin where the parts' row groups do."""
    group = parts.NEURONS_PER_ROW_GROUP
    size = group * max(1, FACTS_PER_STATEMENT // (group * manifest.positions))
    starts = range(0, manifest.neurons, size)
    return [{"first_neuron": first, "last_neuron": min(first + size, manifest.neurons) - 1} for first in starts]


LATER_COLUMN = "bytes"  # of `dim_token`: earlier versions did not store it
_ADD_BYTES = """
    update store.dim_token as token set bytes = part.bytes from staging.dim_token as part
    where
        token.tokenizer_key = $key and token.token_id = part.token_id
        and token.bytes is null and part.bytes is not null
"""


def _load_tokens(con: duckdb.DuckDBPyConnection, manifest: Manifest) -> int:
    """Load the vocabulary if the warehouse lacks it, else compare; return the tokenizer's key."""
    name = {"tokenizer_id": manifest.tokenizer_id}
    found = con.execute("select tokenizer_key from store.tokenizer where tokenizer_id = $tokenizer_id", name).fetchall()
    compared = ", ".join(name for name in parts.schema("dim_token").names if name != LATER_COLUMN)
    if found:
        key = int(found[0][0])
        _refuse_difference(con, "dim_token", compared, f"tokenizer_key = {key}", manifest.tokenizer_id)
        con.execute(_ADD_BYTES, {"key": key})
        return key
    ((key,),) = con.execute("select coalesce(max(tokenizer_key), 0) + 1 from store.tokenizer").fetchall()
    con.execute("insert into store.tokenizer values ($key, $tokenizer_id)", {"key": key, **name})
    statement = (
        "insert into store.dim_token by name"
        " select $key as tokenizer_key, part.* from staging.dim_token as part order by token_id"
    )
    con.execute(statement, {"key": key})
    return int(key)


def _load_frequencies(con: duckdb.DuckDBPyConnection, manifest: Manifest, tokenizer_key: int) -> int:
    """Load the counts if the warehouse lacks their source, else compare; return the source's key."""
    name = {"tokenizer_key": tokenizer_key, "source_id": manifest.frequency_source_id}
    found = con.execute(
        "select source_key from store.frequency_source"
        " where tokenizer_key = $tokenizer_key and frequency_source_id = $source_id",
        name,
    ).fetchall()
    if found:
        key = int(found[0][0])
        _refuse_difference(con, "token_frequency", "token_id, count", f"source_key = {key}", name["source_id"])
        return key
    ((key,),) = con.execute("select coalesce(max(source_key), 0) + 1 from store.frequency_source").fetchall()
    values = {"key": key, "description": manifest.frequency_source, **name}
    con.execute("insert into store.frequency_source values ($key, $tokenizer_key, $source_id, $description)", values)
    for statement in relations.relations()["token_frequency"].publish:
        con.execute(statement, {"source_key": key})
    return int(key)


def _refuse_difference(con: duckdb.DuckDBPyConnection, relation: str, columns: str, stored: str, name: object) -> None:
    here, there = f"select {columns} from staging.{relation}", f"select {columns} from store.{relation} where {stored}"
    ((different,),) = con.execute(
        f"select count(*) from (({here} except {there}) union all ({there} except {here}))"
    ).fetchall()
    if different:
        raise QualityError(
            f"The warehouse already holds {name}, with other contents in {relation} ({different} rows differ)."
            " Ingest into another warehouse, or delete the runs that use it first."
        )


def clear(con: duckdb.DuckDBPyConnection, key: int, keep: tuple[str, ...] = ()) -> None:
    """Remove every stored row of a run, except its row in `store.run` and rows of the tables in `keep`."""
    tables = con.execute(
        "select t.table_name from duckdb_tables() as t join duckdb_columns() as c using (schema_name, table_name)"
        " where t.schema_name = 'store' and c.column_name = 'run_key' and t.table_name <> 'run' order by 1"
    ).fetchall()
    for table in [table for (table,) in tables if table not in keep]:
        con.execute(f"delete from store.{table} where run_key = $run_key", {"run_key": key})


def clear_pairs(con: duckdb.DuckDBPyConnection, run_id: str) -> None:
    """Remove what is stored with other runs about a pair that this run is in: it was true of what the run held."""
    tables = con.execute(
        "select table_name from duckdb_columns() where schema_name = 'store' and column_name = 'other_run_id'"
        " and table_name in (select table_name from duckdb_tables()) order by 1"
    ).fetchall()
    for (table,) in tables:
        con.execute(f"delete from store.{table} where other_run_id = $run_id", {"run_id": run_id})


def clear_unused(con: duckdb.DuckDBPyConnection) -> None:
    """Remove tokens and frequencies that no run uses any more."""
    for table, key, owner in (
        ("token_frequency", "source_key", "frequency_source"),
        ("dim_token", "tokenizer_key", "tokenizer"),
    ):
        unused = f"{key} not in (select {key} from store.run where {key} is not null)"
        con.execute(f"delete from store.{table} where {unused}")
        con.execute(f"delete from store.{owner} where {unused}")
