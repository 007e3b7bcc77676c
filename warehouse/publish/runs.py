"""Write, audit, publish: how a run gets into the warehouse, or does not.

An ingest calls `begin`, writes its parts, and calls `publish`. Publishing checks the parts before it touches the
warehouse, then loads them and computes the marts in one transaction: whatever happens, the warehouse holds either all
of the run or none of it, and a run published before either in its old state or in the new.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import duckdb

from rare_tokens.common.errors import LockedError, QualityError
from rare_tokens.common.parts import Manifest
from rare_tokens.warehouse import locks
from rare_tokens.warehouse.connection import reading, reason, writing
from rare_tokens.warehouse.publish import audit, marts, staging
from rare_tokens.warehouse.publish.loading import clear, clear_pairs, load_dimensions, load_shared, store_facts
from rare_tokens.warehouse.store import parquet_facts, run_records

log = logging.getLogger("rare_tokens.publish")

# Values that the audit did not read: Parquet's own statistics, which partly answer it, may be damaged as well.
_OF_DAMAGED_VALUES = (duckdb.InvalidInputException, duckdb.ConstraintException, duckdb.DataError)

GROUP_TABLES = ("dim_group", "fct_group_effect")


def begin(path: Path, manifest: Manifest, *, wait: float = 0.0) -> None:
    """Record that this process is writing the parts of a run.

    A run published before stays visible as it is until its new parts are published.

    Args:
        path: the warehouse; made if there is none.
        wait: seconds to wait for a process that has the warehouse open or is writing the same run.

    Raises:
        LockedError: that process is still running; the message gives its PID.
        UserError: the path is not a usable warehouse.
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


def publish(
    path: Path,
    folder: Path,
    *,
    line: marts.Line,
    wait: float = 0.0,
    anyway: str | None = None,
    store: str | None = None,
    quiet: bool = False,
) -> str:
    """Publish one run; as `publish_together`. Return its id."""
    (run_id,) = publish_together(path, [folder], line=line, wait=wait, anyway=anyway, store=store, quiet=quiet)
    return run_id


def publish_together(
    path: Path,
    folders: Sequence[Path],
    *,
    line: marts.Line,
    wait: float = 0.0,
    anyway: str | None = None,
    store: str | None = None,
    quiet: bool = False,
) -> list[str]:
    """Check finished runs' parts, load them, compute the marts, remove the parts; return the runs' ids.

    All of them are published, or none. Publishing a run again replaces it. Parts that were already published (left by a
    crash) are only removed.

    Args:
        path: the warehouse; made if there is none.
        folders: each run's parts.
        line: fits the power law of the run's curves.
        wait: seconds to wait for a process that has the warehouse open.
        anyway: reason to publish although checks fail; it is stored. It does not cover what the marts would fail on or
            get wrong.
        store: where the facts go, `native` (into the warehouse) or `parquet` (into files next to it); None: where
            those of the run that this one replaces are, else into the warehouse.
        quiet: show no progress.

    Raises:
        QualityError: a run fails an audit of its parts or of what is computed from them; it is recorded as rejected,
            each of the others says in its `status_reason` that it waits for this one, and the parts of all are kept.
        UserError: there is no finished run in a folder, or the path is no usable warehouse.
        LockedError: another process has the warehouse open.
    """
    every = [staging.staged_run(folder) for folder in folders]
    new = [one for one in every if _published_digest(path, one.manifest.run_id, wait) != one.digest]
    if new:
        _publish_new(path, new, line=line, wait=wait, anyway=anyway, store=store, quiet=quiet)
    else:
        remove_orphans(path, wait=wait)
    for folder in folders:
        staging.remove(folder)
    return [one.manifest.run_id for one in every]


def _publish_new(
    path: Path,
    new: list[staging.Staged],
    *,
    line: marts.Line,
    wait: float,
    anyway: str | None,
    store: str | None,
    quiet: bool,
) -> None:
    """Audit all runs, then load them in one transaction."""
    staged = new[0]
    try:
        found = []
        with _timed("audit"):
            for staged in new:
                found.append(audit.audit_parts(staged))
                audit.note(found[-1], staged.manifest.run_id, anyway, _kept(staged))
        with writing(path, wait=wait) as con, parquet_facts.swept(con, path):
            staging.attach(con, staged)
            con.execute("begin")
            for staged, verdicts in zip(new, found, strict=True):
                staging.show(con, staged)
                with _naming_damage(staged):
                    _load(con, path, staged, verdicts, anyway, line=line, store=store, quiet=quiet)
            parquet_facts.define(con)
            with _timed("commit"):
                con.execute("commit")
            staging.detach(con)
            with _timed("checkpoint"):
                con.execute("checkpoint")
    except QualityError as refusal:
        _reject(path, staged, refusal, [one for one in new if one is not staged], wait)
        raise


def remove_orphans(path: Path, *, wait: float = 0.0) -> None:
    """Remove the Parquet files next to a warehouse that no run lists, left by a killed command."""
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
    """Refuse a run if a part turns out unreadable where the audit did not look."""
    try:
        yield
    except duckdb.Error as error:
        is_unreadable = isinstance(error, _OF_DAMAGED_VALUES)
        if is_unreadable or type(error) is duckdb.Error:  # from the Parquet reader, which has no error class of its own
            run_id = staged.manifest.run_id
            raise QualityError(
                f"A part of run {run_id} is damaged: {reason(error)}. Ingest it with --again."
            ) from error
        raise


def _kept(staged: staging.Staged) -> str:
    return f"Its parts stay in {staged.folder} for a look."


def _reject(
    path: Path, staged: staging.Staged, refusal: QualityError, others: Sequence[staging.Staged], wait: float
) -> None:
    """Record why a run was refused, and in the runs measured together with it why they are not published.

    The others stay as they were begun, so the same command publishes their parts once the refused run is sound. A run
    that was published before keeps its old state and what is said of that.
    """
    with writing(path, wait=wait) as con:
        values = {"run_id": staged.manifest.run_id, "process": None}
        if is_new := run_records.column(con, staged.manifest.run_id, "status") != "published":
            values = run_records.described(staged.manifest, staged.summary) | values
            values |= {"status": "rejected", "status_reason": str(refusal)}
        con.execute("begin")
        key = run_records.record(con, values)
        if is_new:
            audit.record_results(con, key, refusal.verdicts if isinstance(refusal, audit.RefusedError) else [])
        refused = staged.manifest.run_id
        for run_id in (one.manifest.run_id for one in others):
            if run_records.column(con, run_id, "status") != "published":
                why = f"run {refused}, measured together with this one, was refused; none of them is published"
                run_records.record(con, {"run_id": run_id, "status_reason": why})
        con.execute("commit")


def _load(
    con: duckdb.DuckDBPyConnection,
    path: Path,
    staged: staging.Staged,
    verdicts: list[audit.Verdict],
    anyway: str | None,
    *,
    line: marts.Line,
    store: str | None,
    quiet: bool,
) -> None:
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
        # Only the warehouse knows a group's neurons, so an ingest that is interrupted must not lose them
        clear(con, key, keep=GROUP_TABLES)
        clear_pairs(con, staged.manifest.run_id)
    with _timed("dimensions"):
        load_shared(con, staged.manifest)
        load_dimensions(con, key)
    with _timed("facts"):
        store_facts(con, path, key, staged.manifest, staged.digest, store, quiet=quiet)
    for mart in marts.of_run():
        with _timed(mart):
            marts.fill(con, mart, key, staged.manifest, line)
    with _timed("second audit"):
        _audit_marts(con, key, staged, verdicts, anyway)


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


@contextmanager
def _timed(stage: str) -> Iterator[None]:
    start, start_cpu = time.perf_counter(), time.process_time()
    yield
    seconds, cpu = time.perf_counter() - start, time.process_time() - start_cpu
    log.debug("publish: %s %.2f s (%.2f s of processor time)", stage, seconds, cpu)
