"""Writes runs as a folder of Parquet that is also a data set of the Hugging Face hub: to share, to archive, to read.

`layout` says how the folder is laid out, `card` writes the README.md that makes it a data set.
"""

import errno
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb

from rare_tokens.common.errors import UserError
from rare_tokens.common.files import write_json
from rare_tokens.warehouse.connection import reading
from rare_tokens.warehouse.publish.loading import neuron_blocks
from rare_tokens.warehouse.runs import find
from rare_tokens.warehouse.schema import migrations, relations
from rare_tokens.warehouse.share import card, columns, layout
from rare_tokens.warehouse.store import parquet_facts, run_records

# Relations that an export does not have, and why.
LEFT_OUT = {
    "agg_effect": "sums of `fct_effect`, a sixth of its size; `attach` computes them again, bit for bit",
    "fact_file": "files beside the warehouse that these runs were exported from",
}
# Relations of which an export has the rows that its runs use.
_SHARED = {
    "dim_run": "run_id in $runs",
    "dim_token": "tokenizer_id in (select tokenizer_id from dim_run where run_id in $runs)",
    "token_frequency": "(tokenizer_id, frequency_source_id) in"
    " (select (tokenizer_id, frequency_source_id) from dim_run where run_id in $runs)",
}
_OTHER_RUN = "other_run_id"  # a column of relations about pairs of runs


def export(
    path: Path, folder: Path, runs: Sequence[str] = (), *, licence: str | None = None, wait: float = 0.0
) -> dict[str, int]:
    """Write runs into a new folder, every public relation as Parquet; return each one's number of rows.

    ``README.md`` makes the folder a data set that `datasets.load_dataset` loads, a configuration per relation;
    ``manifest.json`` lists files with rows and hashes, and what else `attach` needs. The folder appears whole or not
    at all. What is left out, `LEFT_OUT` says.

    Args:
        path: the warehouse.
        folder: a new one, or an empty one.
        runs: only these, each by its id or a start of it that no other run has, with the tokens and frequencies that
            they use, and of comparisons of two runs those of both; none: all runs.
        licence: what the card says, by the hub's name of the licence; None: it says that none is given.
        wait: seconds to wait for a process that is writing.

    Raises:
        UserError: the folder exists and is not empty, a run is not there or not published, the disk is full, or a
            run's Parquet file is damaged.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} already exists and is not empty. Name a new folder.")
    layout.remove_leftovers(folder)
    partial = layout.partial_name(folder, os.getpid())
    try:
        with reading(path, wait=wait) as con:
            chosen = _chosen(con, runs)
            partial.mkdir(parents=True)
            for run_id in chosen:
                if run_records.column(con, run_id, "store") == parquet_facts.PARQUET:
                    parquet_facts.verify(con, path, run_id)
            files = {
                layout.file_name(relation, run_id): layout.described(
                    partial / layout.file_name(relation, run_id), rows, run_id
                )
                for relation, run_id, rows in _write_relations(con, partial, chosen)
            }
            rows = layout.rows_by_relation(files)
            text = card.text(con, chosen, files, LEFT_OUT, licence)
            manifest = {"format": layout.FORMAT, "schema": migrations.known()[-1][0], "files": files}
            manifest["runs"] = _runs(con, chosen)
        (partial / card.CARD).write_text(text, encoding="utf-8")
        write_json(partial / layout.MANIFEST, manifest)
        if folder.exists():
            folder.rmdir()
        partial.rename(folder)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise UserError(f"The disk is full, so nothing was exported to {folder}. Free some space.") from error
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return rows


def _chosen(con: duckdb.DuckDBPyConnection, wanted: Sequence[str]) -> list[str]:
    """The ids of the runs to export, in the warehouse's order."""
    known = con.execute("select run_id, status, status_reason from dim_run order by run_key").fetchall()
    if not wanted:
        return [run_id for run_id, *_ in known]
    found = {find(con, start) for start in wanted}
    for run_id, status, why in known:
        if run_id in found and status != "published":
            because = f" ({why})" if why else ""
            raise UserError(f"Run {run_id} cannot be exported: its status is {status}{because}. Name a published run.")
    return [run_id for run_id, *_ in known if run_id in found]


def _runs(con: duckdb.DuckDBPyConnection, chosen: list[str]) -> dict[str, Any]:
    """What no relation shows, by run: columns of `store.run`, and which analyses are stored."""
    runs = {}
    for run_id, key, digest, pairs in con.execute(
        "select run_id, run_key, parts_digest, self_check_pairs from store.run where run_id in $runs order by run_key",
        {"runs": chosen},
    ).fetchall():
        analyses = con.execute(
            "select analysis, parameters, code_version, seconds, computed_at::varchar from store.analysis"
            " where run_key = $key order by analysis",
            {"key": key},
        ).fetchall()
        runs[run_id] = {"parts_digest": digest, "self_check_pairs": pairs, "analyses": analyses}
    return runs


def _write_relations(
    con: duckdb.DuckDBPyConnection, folder: Path, chosen: list[str]
) -> Iterator[tuple[str, str | None, int]]:
    """Write every file; yield its relation, run and number of rows."""
    for relation in relations.relations().values():
        if relation.is_macro or relation.name in LEFT_OUT:
            continue
        is_of_runs = "run_id" in relation.columns and relation.name not in _SHARED
        written: list[tuple[str | None, int]] = []
        if is_of_runs:
            written += _write_runs(con, relation, chosen, folder)
        if not written:  # also if no run has rows: an empty file tells the columns
            query = f"select * from {relation.name}"
            values: dict[str, Any] = {}
            if is_of_runs:
                query += " where false"
            elif relation.name in _SHARED:
                query, values = f"{query} where {_SHARED[relation.name]}", {"runs": chosen}
            file = folder / layout.file_name(relation.name, None)
            written = [(None, columns.write(con, [query], values, file))]
        yield from ((relation.name, run_id, rows) for run_id, rows in written)


def _write_runs(
    con: duckdb.DuckDBPyConnection, relation: relations.Relation, chosen: list[str], folder: Path
) -> Iterator[tuple[str, int]]:
    """Write the file of each run that has rows; yield the run and their number."""
    for run in chosen:
        file = folder / layout.file_name(relation.name, run)
        query = f"select * from {relation.name} where run_id = $run"
        values: dict[str, Any] = {"run": run}
        if _OTHER_RUN in relation.columns:
            query, values = f"{query} and ({_OTHER_RUN} is null or {_OTHER_RUN} in $runs)", values | {"runs": chosen}
        queries = _facts_by_block(con, run) if relation.name == "fct_effect" else [query]
        if rows := columns.write(con, queries, values, file):
            yield run, rows
        else:
            file.unlink()


def _facts_by_block(con: duckdb.DuckDBPyConnection, run: str) -> list[str]:
    """The facts in parts that memory holds, sorted, so that readers can skip what they do not need."""
    query = "select * exclude (run_id) from fct_effect where run_id = $run"
    if run_records.column(con, run, "neurons"):
        blocks = [
            f"{query} and neuron between {block['first_neuron']} and {block['last_neuron']}"
            for block in neuron_blocks(run_records.manifest(con, run))
        ]
    else:
        blocks = [query]
    # The id is added once they are sorted: millions of copies of it would be sorted too.
    return [f"select $run as run_id, fact.* from ({block} order by neuron, position_id) as fact" for block in blocks]
