"""Takes runs from a folder that `export` wrote, or from the hub where one was uploaded, into a warehouse.

Runs are copied: the warehouse then does not need the folder, and never removes anything from it. What an analysis or an
audit computed is taken as it is; `agg_effect` is computed again from the facts, as in publishing, because an export
holds its sums but not the whole numbers behind them.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq

from rare_tokens.common import parts
from rare_tokens.common.errors import LockedError, QualityError, UserError
from rare_tokens.warehouse import literals, locks
from rare_tokens.warehouse.connection import WRITE_CONFIG, connect, reason, writing
from rare_tokens.warehouse.publish import audit, gaps, marts, staging
from rare_tokens.warehouse.publish.loading import LOADED, clear, load_shared, store_facts
from rare_tokens.warehouse.share import hub
from rare_tokens.warehouse.share.layout import MANIFEST, Exported, read_export, verify
from rare_tokens.warehouse.store import parquet_facts, run_records

# Tables with a run_key for which an export has no relation with the same rows.
_MADE_HERE = {"run", "fct_effect", "fact_file", "effect_cell", "agg_effect", "analysis"}
_OF_OTHER_CONTENTS = (
    duckdb.BinderException,
    duckdb.InvalidInputException,
    duckdb.ConstraintException,
    duckdb.ConversionException,
)
ATTACHED, PRESENT, LEFT = "attached", "already there", "left out"


def attach(
    path: Path,
    source: Path | str,
    *,
    line: marts.Line,
    store: str = parquet_facts.NATIVE,
    wait: float = 0.0,
    quiet: bool = False,
) -> dict[str, str]:
    """Copy the runs of an export into a warehouse, each in one transaction; the warehouse is made if there is none.

    A warehouse of an earlier version is brought up to date first. A run that is there already with the same facts is
    skipped, so a killed command can be given again. Faults in the export, or conflicts with runs that are there, are
    found before the first run is attached, except what only a run's audit sees: the runs before it then stay, each
    whole.

    Args:
        path: the warehouse.
        source: the export's folder, or its address on the hub, ``hf://datasets/USER/NAME[@REVISION]``. It is then
            fetched into a folder beside the warehouse, which is removed again whatever happens.
        line: fits the power law, if a run that is there needs it anew.
        store: where the facts go, `native` or `parquet`.
        wait: seconds to wait for a process that has the warehouse open.
        quiet: show no progress.

    Returns:
        What became of each run of the export: `attached`, `already there`, or `left out` (it is not published).

    Raises:
        UserError: the folder is not an export of this version, one of its files is missing or damaged, a run is
            there already with other facts, or the hub cannot be reached or has no such data set.
        QualityError: the warehouse holds other tokens or frequencies under the same names, or the facts of a run do
            not pass the audit.
        LockedError: another process has the warehouse open, or is writing one of the runs.
    """
    if hub.is_address(source):
        with hub.fetched(str(source), path, quiet=quiet) as exported:
            return _attach_all(path, exported, line, store, wait, quiet=quiet)
    return _attach_all(path, read_export(Path(source)), line, store, wait, quiet=quiet)


def _attach_all(
    path: Path, exported: Exported, line: marts.Line, store: str, wait: float, *, quiet: bool
) -> dict[str, str]:
    """What `attach` does, once the export lies in a folder."""
    verify(exported)
    with _naming(exported), connect(config=WRITE_CONFIG) as con:
        rows = _run_rows(con, exported)
        _check_facts(exported, [run_id for run_id, row in rows.items() if row["status"] == "published"])
    with writing(path, wait=wait, any_version=True) as con:
        marts.bring_up_to_date(con, path, line)
    with writing(path, wait=wait) as con, parquet_facts.swept(con, path), _naming(exported):
        here = {
            run_id: _compared(con, path, exported, run_id) for run_id in rows if rows[run_id]["status"] == "published"
        }
        outcomes = {}
        for run_id, row in rows.items():
            if run_id in here:
                outcomes[run_id] = here[run_id]
                if here[run_id] == ATTACHED:
                    _attach(con, path, exported, row, store, quiet=quiet)
            else:
                outcomes[run_id] = _attach_gap(con, row)
        _attach_published_values(con, exported)
        con.execute("checkpoint")
    return outcomes


@contextmanager
def _naming(exported: Exported) -> Iterator[None]:
    """Refuse an export in which a relation is not what its manifest says."""
    try:
        yield
    except duckdb.Error as error:
        if isinstance(error, _OF_OTHER_CONTENTS) or type(error) is duckdb.Error:  # from the Parquet reader
            message = f"{exported.source} does not hold what its manifest says ({reason(error)}). Export again."
            raise UserError(message) from error
        raise


def _run_rows(con: duckdb.DuckDBPyConnection, exported: Exported) -> dict[str, dict[str, Any]]:
    """The row of `dim_run` and what else `store.run` has, by run_id."""
    literal = exported.literal("dim_run")
    if literal is None:
        raise UserError(f"{exported.source}/{MANIFEST} is damaged: it lists no dim_run. Export again.")
    relation = con.sql(f"select * exclude (run_key) from read_parquet({literal}, hive_partitioning = false)")
    rows = {row[0]: dict(zip(relation.columns, row, strict=True)) for row in relation.fetchall()}
    if rows.keys() != exported.runs.keys():
        raise UserError(f"{exported.source}/{MANIFEST} is damaged: its runs are not those of dim_run. Export again.")
    for run_id, more in exported.runs.items():
        rows[run_id] |= {"parts_digest": more["parts_digest"], "self_check_pairs": more["self_check_pairs"]}
        rows[run_id] |= {"process": None}
    return rows


def _check_facts(exported: Exported, runs: Iterable[str]) -> None:
    expected = parts.schema("fct_effect", tuple(parts.EFFECT_COLUMNS))
    for run_id in runs:
        name = exported.file("fct_effect", run_id)
        if name is None:
            raise UserError(f"{exported.source} has no fct_effect of run {run_id}. Export again.")
        found = {item.name: item.type for item in pq.read_schema(exported.folder / name)}
        if any(found.get(item.name) != item.type for item in expected):
            raise UserError(f"{exported.source}/{name} has other columns than fct_effect. Export again.")


def _compared(con: duckdb.DuckDBPyConnection, path: Path, exported: Exported, run_id: str) -> str:
    """Whether a published run is to be attached, or is there already with the same facts."""
    pid = locks.other_holder(run_records.column(con, run_id, "process"))
    if pid is not None:
        raise LockedError(f"Process {pid} is writing run {run_id}. Wait for it to end, or stop it.")
    if run_records.column(con, run_id, "status") != "published":
        return ATTACHED
    key = run_records.run_key(con, run_id)
    if run_records.column(con, run_id, "store") == parquet_facts.PARQUET:
        parquet_facts.verify(con, path, run_id)
    there = exported.literal("fct_effect", run_id)
    columns = ", ".join(parquet_facts.columns())
    query = f"select count(*), sum(hash({columns})) from {{}}"
    parquet_facts.define(con, key)
    (ours,) = con.execute(query.format(f"store.effect where run_key = {key}")).fetchall()
    (theirs,) = con.execute(query.format(f"read_parquet({there}, hive_partitioning = false)")).fetchall()
    parquet_facts.define(con)
    if ours != theirs:
        raise UserError(
            f"Run {run_id} is in {path} already, with other facts than {exported.source} has. Delete it there first, or"
            " attach to another warehouse."
        )
    return PRESENT


def _attach(
    con: duckdb.DuckDBPyConnection, path: Path, exported: Exported, row: Mapping[str, Any], store: str, *, quiet: bool
) -> None:
    run_id = row["run_id"]
    _stage(con, exported, row)
    con.execute("begin")
    key = run_records.record(con, dict(row) | {"store": store})
    manifest = run_records.manifest(con, run_id)
    clear(con, key)
    load_shared(con, manifest)
    for table, columns in _tables(con).items():
        literal = exported.literal(table, run_id)
        if literal is not None:
            names, order = ", ".join(f'"{name}"' for name in columns), LOADED.get(table)
            con.execute(
                f"insert into store.{table} by name select $key as run_key, {names}"
                f" from read_parquet({literal}, hive_partitioning = false)" + (f" order by {order}" if order else ""),
                {"key": key},
            )
    for analysis in exported.runs[run_id]["analyses"]:
        con.execute("insert into store.analysis values (?, ?, ?, ?, ?, ?)", [key, *analysis])
    store_facts(con, path, key, manifest, row["parts_digest"], store, quiet=quiet)
    marts.fill(con, "agg_effect", key, manifest)
    _audit(con, exported, run_id)
    parquet_facts.define(con)
    con.execute("commit")
    staging.detach(con)


def _stage(con: duckdb.DuckDBPyConnection, exported: Exported, row: Mapping[str, Any]) -> None:
    """Show what publishing reads from parts as the relations `staging.NAME`, from the export."""
    run_id, tokenizer_id, source_id = (row[name] for name in ("run_id", "tokenizer_id", "frequency_source_id"))
    of_tokens = f"tokenizer_id = {literals.text(tokenizer_id)}"
    of_source = f"{of_tokens} and frequency_source_id = {literals.text(source_id)}"
    sources = {
        "dim_token": (exported.literal("dim_token"), parts.schema("dim_token").names, of_tokens),
        "token_frequency": (exported.literal("token_frequency"), parts.schema("token_frequency").names, of_source),
        "fct_effect": (exported.literal("fct_effect", run_id), parquet_facts.columns(), "true"),
    }
    con.execute("attach ':memory:' as staging")
    for relation, (literal, columns, condition) in sources.items():
        if literal is None:
            raise UserError(f"{exported.source} has no {relation} of run {run_id}. Export again.")
        names = ", ".join(columns)
        con.execute(
            f"create view staging.{relation} as select {names} from read_parquet({literal}, hive_partitioning = false)"
            f" where {condition}"
        )


def _tables(con: duckdb.DuckDBPyConnection) -> dict[str, list[str]]:
    """The columns, except the key, of each stored table of runs whose rows an export has."""
    tables: dict[str, list[str]] = {}
    for table, column in con.execute(
        "select table_name, column_name from duckdb_columns() where schema_name = 'store' and table_name in"
        " (select table_name from duckdb_columns() where schema_name = 'store' and column_name = 'run_key')"
        " and table_name in (select table_name from duckdb_tables()) order by table_name, column_index"
    ).fetchall():
        if table not in _MADE_HERE and column != "run_key":
            tables.setdefault(table, []).append(column)
    return tables


def _audit(con: duckdb.DuckDBPyConnection, exported: Exported, run_id: str) -> None:
    """Refuse a run whose relations do not belong together, whatever its manifest says about the files."""
    verdicts = audit.part_verdicts(con, run_id) + audit.mart_verdicts(con, run_id)
    broken = [verdict for verdict in audit.failed(verdicts) if verdict.is_integrity]
    if broken:
        what = "; ".join(str(verdict) for verdict in broken)
        raise QualityError(f"Run {run_id} of {exported.source} was refused: {what}. Export it again.")


def _attach_gap(con: duckdb.DuckDBPyConnection, row: Mapping[str, Any]) -> str:
    """Record a run without facts (missing, or a twin) as a series shows it; leave out unfinished runs."""
    if row["status"] not in (gaps.MISSING, gaps.TWIN):
        return LEFT
    if run_records.run_key(con, row["run_id"]) is not None:
        return PRESENT
    run_records.record(con, dict(row) | {"store": parquet_facts.NATIVE})
    return ATTACHED


def _attach_published_values(con: duckdb.DuckDBPyConnection, exported: Exported) -> None:
    literal = exported.literal("published_value")
    if literal is not None and not con.execute("select 1 from store.published_value limit 1").fetchall():
        con.execute(
            f"insert into store.published_value by name from read_parquet({literal}, hive_partitioning = false)"
        )
