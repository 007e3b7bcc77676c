"""Moves the facts of a published run between the warehouse and Parquet files next to it."""

from pathlib import Path

from rare_tokens.common.errors import UserError
from rare_tokens.warehouse.connection import reading, writing
from rare_tokens.warehouse.publish.loading import load_facts, write_facts
from rare_tokens.warehouse.runs import find
from rare_tokens.warehouse.store import parquet_facts, run_records


def keep(path: Path, run: str, store: str, *, wait: float = 0.0, quiet: bool = False) -> bool:
    """Move the facts of a published run to a store, in one transaction; return whether they had to be moved.

    The rest of the run stays as it is, and every relation holds the same rows afterwards.

    Args:
        path: the warehouse.
        run: a run_id, or the start of one.
        store: `native` or `parquet`.
        wait: seconds to wait for a process that has the warehouse open.
        quiet: show no progress.

    Raises:
        UserError: there is no such run, it is not published, or one of its Parquet files is damaged.
        LockedError: another process has the warehouse open.
    """
    with reading(path, wait=wait) as con:
        run_id = find(con, run)
        if run_records.column(con, run_id, "status") != "published":
            raise UserError(f"Run {run_id} is not published, so it has no facts to move. Ingest it first.")
        if run_records.column(con, run_id, "store") == store:
            return False
    with writing(path, wait=wait) as con, parquet_facts.swept(con, path):
        con.execute("begin")
        key, manifest = run_records.run_key(con, run_id), run_records.manifest(con, run_id)
        assert key is not None
        if store == parquet_facts.PARQUET:
            digest = run_records.column(con, run_id, "parts_digest")
            source = f"(from store.fct_effect where run_key = {key})"
            write_facts(con, path, key, manifest, digest, source, quiet=quiet)
            con.execute("delete from store.fct_effect where run_key = $key", {"key": key})
        else:
            parquet_facts.verify(con, path, run_id)
            parquet_facts.define(con, key)
            load_facts(con, key, manifest, "store.parquet_effect", quiet=quiet)
            con.execute("delete from store.fact_file where run_key = $key", {"key": key})
        run_records.record(con, {"run_id": run_id, "store": store})
        parquet_facts.define(con)
        con.execute("commit")
        con.execute("checkpoint")
    return True
