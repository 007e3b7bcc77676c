"""Writes a warehouse as Parquet, for other tools, for sharing, for archiving."""

import errno
import os
import shutil
from collections.abc import Iterator
from glob import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import duckdb
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from rare_tokens.common.errors import UserError
from rare_tokens.common.files import write_json
from rare_tokens.warehouse.connection import reading
from rare_tokens.warehouse.publish.loading import neuron_blocks
from rare_tokens.warehouse.schema import migrations, relations
from rare_tokens.warehouse.store import parquet_facts, run_records

FORMAT = 2
MANIFEST = "manifest.json"
_ROWS_PER_BATCH = 122_880


def export(path: Path, folder: Path, *, wait: float = 0.0) -> dict[str, int]:
    """Write every public relation as Parquet into a new folder; return each one's number of rows.

    Relations about runs are partitioned in Hive style, ``NAME/run_id=RUN/part.parquet``; the
    others, and those without rows, are ``NAME/part.parquet``. ``manifest.json`` lists files with rows and hashes, and
    what else `attach` needs. The folder appears whole or not at all.

    Raises:
        UserError: the folder exists and is not empty, the disk is full, or a run's Parquet file is damaged.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} already exists and is not empty. Name a new folder.")
    _remove_leftovers(folder)
    partial = folder.with_name(f"{folder.name}.{os.getpid()}.partial")
    try:
        with reading(path, wait=wait) as con:
            partial.mkdir(parents=True)
            for (run_id,) in con.execute("select run_id from dim_run where store = 'parquet'").fetchall():
                parquet_facts.verify(con, path, run_id)
            files = dict(_write_relations(con, partial))
            manifest: dict[str, Any] = {"format": FORMAT, "schema": migrations.known()[-1][0], "runs": _runs(con)}
        manifest["files"] = {name: _described(partial / name, rows) for name, rows in files.items()}
        write_json(partial / MANIFEST, manifest)
        if folder.exists():
            folder.rmdir()
        partial.rename(folder)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise UserError(f"The disk is full, so nothing was exported to {folder}. Free some space.") from error
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return _rows_by_relation(files)


def _runs(con: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    """What no relation shows, by run: columns of `store.run`, and which analyses are stored."""
    runs = {}
    for run_id, key, digest, pairs in con.execute(
        "select run_id, run_key, parts_digest, self_check_pairs from store.run order by run_key"
    ).fetchall():
        analyses = con.execute(
            "select analysis, parameters, code_version, seconds, computed_at::varchar from store.analysis"
            " where run_key = $key order by analysis",
            {"key": key},
        ).fetchall()
        runs[run_id] = {"parts_digest": digest, "self_check_pairs": pairs, "analyses": analyses}
    return runs


def _described(file: Path, rows: int) -> dict[str, Any]:
    return {"rows": rows, "bytes": file.stat().st_size, "sha256": parquet_facts.sha256(file)}


def _remove_leftovers(folder: Path) -> None:
    """Remove what killed exports to the same place left behind."""
    for partial in folder.parent.glob(f"{escape(folder.name)}.*.partial"):
        pid = partial.name.removeprefix(f"{folder.name}.").removesuffix(".partial")
        if pid.isdecimal() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(partial)


def _write_relations(con: duckdb.DuckDBPyConnection, folder: Path) -> Iterator[tuple[str, int]]:
    runs = [run for (run,) in con.execute("select run_id from dim_run order by run_key").fetchall()]
    for relation in relations.relations().values():
        if relation.is_macro:
            continue
        is_of_runs = "run_id" in relation.columns and relation.name != "dim_run"
        written = list(_write_runs(con, relation.name, runs, folder)) if is_of_runs else []
        if not written:  # also if no run has rows: an empty part tells the columns
            name = f"{relation.name}/part.parquet"
            written = [(name, _write(con, [f"select * from {relation.name}"], {}, folder / name))]
        yield from written


def _write_runs(
    con: duckdb.DuckDBPyConnection, relation: str, runs: list[str], folder: Path
) -> Iterator[tuple[str, int]]:
    for run in runs:
        name = f"{relation}/run_id={quote(run, safe='')}/part.parquet"
        query = f"select * exclude (run_id) from {relation} where run_id = $run"
        queries = [query]
        if relation == "fct_effect":  # sorted, so that readers can skip what they do not need
            blocks = neuron_blocks(run_records.manifest(con, run)) if run_records.column(con, run, "neurons") else []
            queries = [
                f"{query} and neuron between {block['first_neuron']} and {block['last_neuron']}"
                " order by neuron, position_id"
                for block in blocks
            ] or [query]
        if rows := _write(con, queries, {"run": run}, folder / name):
            yield name, rows
        else:
            shutil.rmtree((folder / name).parent)


def _write(con: duckdb.DuckDBPyConnection, queries: list[str], values: dict[str, str], path: Path) -> int:
    """Write the results of queries with the same columns, one after the other, into one file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    schema: pa.Schema = con.sql(queries[0], params=values).to_arrow_reader(_ROWS_PER_BATCH).schema
    rows = 0
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for query in queries:
            for batch in con.sql(query, params=values).to_arrow_reader(_ROWS_PER_BATCH):
                writer.write_batch(batch)
                rows += batch.num_rows
    return rows


def _rows_by_relation(files: dict[str, int]) -> dict[str, int]:
    rows = {relation.name: 0 for relation in relations.relations().values() if not relation.is_macro}
    for name, count in files.items():
        rows[name.split("/")[0]] += count
    return rows
