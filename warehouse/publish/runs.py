"""Write, audit, publish: how a run gets into the warehouse, or does not.

An ingest calls `begin`, writes its parts, and calls `publish`. Publishing checks the parts before it touches the
warehouse, then loads them and computes the marts in one transaction: whatever happens, the warehouse holds either all
of the run or none of it, and of a run published before, the old state or the new.
"""

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb

from rare_tokens.common import parts
from rare_tokens.common.errors import LockedError, QualityError
from rare_tokens.common.parts import Manifest
from rare_tokens.common.progress import progress
from rare_tokens.warehouse import locks
from rare_tokens.warehouse.connection import reading, reason, writing
from rare_tokens.warehouse.publish import audit, staging
from rare_tokens.warehouse.schema import relations
from rare_tokens.warehouse.store import parquet_facts, run_records

log = logging.getLogger("rare_tokens.publish")

# So many facts, about, are sorted or summed by one statement, however large the run is: 4 M take 0.5 GB of memory.
FACTS_PER_STATEMENT = 4_000_000

# Values that the audit did not meet: Parquet's own statistics, which answer it in part, may be damaged as well.
_OF_DAMAGED_VALUES = (duckdb.InvalidInputException, duckdb.ConstraintException, duckdb.DataError)

# Relations with one row per … of the run, in the order they are loaded, each with the order of its rows.
LOADED = {
    "dim_document": "document_id",
    "dim_position": "position_id",
    "position_context": "position_id",
    "dim_neuron": "neuron",
    "neuron_weight": "neuron",
    "neuron_token": "neuron, direction, rank",
}
GROUP_TABLES = ("dim_group", "fct_group_effect")
# Computed from the facts, in an order in which each finds what it reads.
MARTS = ("position_group", "agg_effect", "neuron_influence", "power_law_fit", "neuron_deviation", "neuron_mediation")


def begin(path: Path, manifest: Manifest, *, wait: float = 0.0) -> None:
    """Record that this process is writing the parts of a run.

    A run published before stays visible as it is until its new parts are published.

    Args:
        path: the warehouse; made where there is none.
        wait: seconds to wait for a process that has the warehouse open or is writing the same run.

    Raises:
        LockedError: that process is still at it; the message names its PID.
        UserError: the path is no usable warehouse.
    """
    deadline = time.monotonic() + wait
    while True:
        with writing(path, wait=max(0.0, deadline - time.monotonic())) as con:
            holder = locks.other_holder(run_records.column(con, manifest.run_id, "process"))
            if holder is None:
                _begin(con, manifest)
                return
        if not locks.wait_until(deadline):
            raise LockedError(
                f"Process {holder} is writing run {manifest.run_id}. Wait for it, or give --wait SECONDS."
            )


def record_missing(
    path: Path,
    *,
    run_id: str,
    model: str,
    revision: str,
    why: str,
    contexts: str = "sample",
    known: Mapping[str, Any] | None = None,
    wait: float = 0.0,
) -> None:
    """Record a run that cannot be: its revision has no weights, or its corpora hold no such positions.

    So a series over training steps shows the gap, and an empty token group its reason. `known` has more columns of
    `dim_run`, as far as they were asked for: they say which series the gap is in.
    """
    with writing(path, wait=wait) as con:
        if run_records.column(con, run_id, "status") != "published":
            values: dict[str, Any] = {"run_id": run_id, "model": model, "revision": revision, "contexts": contexts}
            values |= dict(known or {})
            values |= {"status": "missing", "status_reason": why, "created_at": run_records.now(), "process": None}
            run_records.record(con, values)


def publish(
    path: Path,
    folder: Path,
    *,
    wait: float = 0.0,
    anyway: str | None = None,
    store: str | None = None,
    quiet: bool = False,
) -> str:
    """Check a finished run's parts, load them, compute the marts, remove the parts; returns the run's id.

    Publishing a run again replaces it. Parts that were published already (a crash kept them) are only removed.

    Args:
        path: the warehouse; made where there is none.
        folder: the run's parts.
        wait: seconds to wait for a process that has the warehouse open.
        anyway: reason to publish although checks fail; stored. Not for what the marts would fail on or get wrong.
        store: where the facts go, `native` (into the warehouse) or `parquet` (into files beside it); None: where those
            of the run are that this one replaces, else into the warehouse.
        quiet: show no progress.

    Raises:
        QualityError: the run fails an audit, of its parts or of what is computed from them; it is recorded as rejected
            and its parts are kept.
        UserError: there is no finished run in the folder, or the path is no usable warehouse.
        LockedError: another process has the warehouse open.
    """
    staged = staging.staged_run(folder)
    run_id = staged.manifest.run_id
    if _published_digest(path, run_id, wait) != staged.digest:
        try:
            with _timed("audit"):
                verdicts = audit.audit_parts(staged)
                audit.note(verdicts, run_id, anyway, _kept(staged))
            with writing(path, wait=wait) as con, parquet_facts.swept(con, path):
                with _naming_damage(staged):
                    _load(con, path, staged, verdicts, anyway, store=store, quiet=quiet)
                with _timed("checkpoint"):
                    con.execute("checkpoint")
        except QualityError as refusal:
            _reject(path, staged, refusal, wait)
            raise
    else:
        remove_orphans(path, wait=wait)
    staging.remove(folder)
    return run_id


def remove_orphans(path: Path, *, wait: float = 0.0) -> None:
    """Remove the Parquet files that a kill left beside a warehouse and no run lists."""
    with reading(path, wait=wait) as con:
        found = parquet_facts.orphans(con, path)
    if found:
        with writing(path, wait=wait) as con:
            parquet_facts.sweep(con, path)


def _begin(con: duckdb.DuckDBPyConnection, manifest: Manifest) -> None:
    values = {"run_id": manifest.run_id, "process": locks.current()}
    if run_records.column(con, manifest.run_id, "status") != "published":
        values = run_records.described(manifest) | values | {"status": "running", "status_reason": None}
    run_records.record(con, values)


def _published_digest(path: Path, run_id: str, wait: float) -> str | None:
    if not path.exists():
        return None
    with reading(path, wait=wait) as con:
        return run_records.column(con, run_id, "parts_digest")


@contextmanager
def _naming_damage(staged: staging.Staged) -> Iterator[None]:
    """Refuse a run of which a part turns out unreadable where the audit did not look."""
    try:
        yield
    except duckdb.Error as error:
        is_unreadable = isinstance(error, _OF_DAMAGED_VALUES)
        if is_unreadable or type(error) is duckdb.Error:  # of the Parquet reader, without a class of its own
            run_id = staged.manifest.run_id
            raise QualityError(
                f"A part of run {run_id} is damaged: {reason(error)}. Ingest it with --again."
            ) from error
        raise


def _kept(staged: staging.Staged) -> str:
    return f"Its parts stay in {staged.folder} for a look."


def _reject(path: Path, staged: staging.Staged, refusal: QualityError, wait: float) -> None:
    with writing(path, wait=wait) as con:
        values = {"run_id": staged.manifest.run_id, "process": None}
        if is_new := run_records.column(con, staged.manifest.run_id, "status") != "published":
            values = run_records.described(staged.manifest, staged.summary) | values
            values |= {"status": "rejected", "status_reason": str(refusal)}
        con.execute("begin")
        key = run_records.record(con, values)
        if is_new:
            audit.record_results(con, key, refusal.verdicts if isinstance(refusal, audit.RefusedError) else [])
        con.execute("commit")


def _load(
    con: duckdb.DuckDBPyConnection,
    path: Path,
    staged: staging.Staged,
    verdicts: list[audit.Verdict],
    anyway: str | None,
    *,
    store: str | None,
    quiet: bool,
) -> None:
    staging.attach(con, staged)
    con.execute("begin")
    store = store or run_records.column(con, staged.manifest.run_id, "store") or parquet_facts.NATIVE
    values = run_records.described(staged.manifest, staged.summary) | {
        "status": "published",
        "status_reason": None,
        "published_at": run_records.now(),
        "process": None,
        "parts_digest": staged.digest,
        "store": store,
    }
    key = run_records.record(con, values)
    with _timed("clear"):
        # A group's neurons are known nowhere else, so an ingest cut off before it adds them again must not lose them
        clear(con, key, keep=GROUP_TABLES)
    with _timed("dimensions"):
        tokenizer_key = load_tokens(con, staged.manifest)
        source_key = load_frequencies(con, staged.manifest, tokenizer_key)
        run_records.record(
            con, {"run_id": staged.manifest.run_id, "tokenizer_key": tokenizer_key, "source_key": source_key}
        )
        clear_unused(con)
        for relation, order in LOADED.items():
            con.execute(
                f"insert into store.{relation} by name"
                f" select $run_key as run_key, part.* from staging.{relation} as part order by {order}",
                {"run_key": key},
            )
    with _timed("facts"):
        if store == parquet_facts.PARQUET:
            write_facts(con, path, key, staged.manifest, staged.digest, "staging.fct_effect", quiet=quiet)
        else:
            load_facts(con, key, staged.manifest, quiet=quiet)
        parquet_facts.define(con, key)  # of this run only: what another's files are like is nothing to it
    for mart in MARTS:
        with _timed(mart):
            fill(con, mart, key, staged.manifest)
    with _timed("second audit"):
        _audit_marts(con, key, staged, verdicts, anyway)
    parquet_facts.define(con)
    with _timed("commit"):
        con.execute("commit")
    staging.detach(con)


def _audit_marts(
    con: duckdb.DuckDBPyConnection,
    key: int,
    staged: staging.Staged,
    verdicts: list[audit.Verdict],
    anyway: str | None,
) -> None:
    """Check what was computed before anyone can see it: a refusal rolls the transaction back."""
    run_id = staged.manifest.run_id
    verdicts = verdicts + audit.mart_verdicts(con, run_id)
    note = audit.note(verdicts, run_id, anyway, _kept(staged))
    run_records.record(con, {"run_id": run_id, "status_reason": note})
    audit.record_results(con, key, verdicts)


def clear(con: duckdb.DuckDBPyConnection, key: int, keep: tuple[str, ...] = ()) -> None:
    """Remove every stored row of a run but its row in `store.run` and those of the tables in `keep`."""
    tables = con.execute(
        "select t.table_name from duckdb_tables() as t join duckdb_columns() as c using (schema_name, table_name)"
        " where t.schema_name = 'store' and c.column_name = 'run_key' and t.table_name <> 'run' order by 1"
    ).fetchall()
    for table in [table for (table,) in tables if table not in keep]:
        con.execute(f"delete from store.{table} where run_key = $run_key", {"run_key": key})


def clear_unused(con: duckdb.DuckDBPyConnection) -> None:
    """Remove tokens and frequencies that no run uses any more."""
    for table, key, owner in (
        ("token_frequency", "source_key", "frequency_source"),
        ("dim_token", "tokenizer_key", "tokenizer"),
    ):
        unused = f"{key} not in (select {key} from store.run where {key} is not null)"
        con.execute(f"delete from store.{table} where {unused}")
        con.execute(f"delete from store.{owner} where {unused}")


def fill(con: duckdb.DuckDBPyConnection, mart: str, key: int, manifest: Manifest) -> None:
    """Run the statements that compute a mart for one run; those that name neurons take them block by block."""
    for statement in relations.relations()[mart].publish:
        blocks = neuron_blocks(manifest) if "$first_neuron" in statement else [{}]
        for block in blocks:
            con.execute(statement, {"run_key": key, **block})


def write_facts(
    con: duckdb.DuckDBPyConnection, path: Path, key: int, manifest: Manifest, digest: str, source: str, *, quiet: bool
) -> None:
    """Write the facts as Parquet beside the warehouse, a file a block of neurons, in the same order.

    Args:
        con: the warehouse, in a transaction.
        path: of the warehouse.
        key: of the run.
        manifest: its id, positions and neurons.
        digest: of its parts; part of the files' names.
        source: what to select the facts from.
        quiet: show no progress.
    """
    blocks = [(block["first_neuron"], block["last_neuron"]) for block in neuron_blocks(manifest)]
    with progress("Publish", manifest.neurons, "neurons", quiet=quiet) as advance:
        for neurons in parquet_facts.write(con, path, (key, manifest.run_id), digest[:16], source, blocks):
            advance(neurons)


def load_facts(
    con: duckdb.DuckDBPyConnection, key: int, manifest: Manifest, source: str = "staging.fct_effect", *, quiet: bool
) -> None:
    """Load the facts in the order of neuron and position, a block of neurons at a time from all parts."""
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
    """First and last neuron of blocks that begin where the parts' row groups do."""
    group = parts.NEURONS_PER_ROW_GROUP
    size = group * max(1, FACTS_PER_STATEMENT // (group * manifest.positions))
    starts = range(0, manifest.neurons, size)
    return [{"first_neuron": first, "last_neuron": min(first + size, manifest.neurons) - 1} for first in starts]


def load_tokens(con: duckdb.DuckDBPyConnection, manifest: Manifest) -> int:
    """Load the vocabulary where the warehouse lacks it, else compare; returns the tokenizer's key."""
    name = {"tokenizer_id": manifest.tokenizer_id}
    found = con.execute("select tokenizer_key from store.tokenizer where tokenizer_id = $tokenizer_id", name).fetchall()
    columns = ", ".join(parts.schema("dim_token").names)
    if found:
        key = int(found[0][0])
        _refuse_difference(con, "dim_token", columns, f"tokenizer_key = {key}", manifest.tokenizer_id)
        return key
    ((key,),) = con.execute("select coalesce(max(tokenizer_key), 0) + 1 from store.tokenizer").fetchall()
    con.execute("insert into store.tokenizer values ($key, $tokenizer_id)", {"key": key, **name})
    statement = (
        "insert into store.dim_token by name"
        " select $key as tokenizer_key, part.* from staging.dim_token as part order by token_id"
    )
    con.execute(statement, {"key": key})
    return int(key)


def load_frequencies(con: duckdb.DuckDBPyConnection, manifest: Manifest, tokenizer_key: int) -> int:
    """Load the counts where the warehouse lacks their source, else compare; returns the source's key."""
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


@contextmanager
def _timed(stage: str) -> Iterator[None]:
    start, start_cpu = time.perf_counter(), time.process_time()
    yield
    seconds, cpu = time.perf_counter() - start, time.process_time() - start_cpu
    log.debug("publish: %s %.2f s (%.2f s of processor time)", stage, seconds, cpu)
