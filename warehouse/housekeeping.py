"""Keeping a warehouse in order: making it writable, deleting runs, giving space back."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import duckdb

from common import parts
from common.errors import LockedError
from warehouse import migrations, processes, records, staging
from warehouse.connection import reading, writing
from warehouse.publish import clear
from warehouse.runs import find


@dataclass(frozen=True)
class Space:
    """Bytes of a warehouse file before and after."""

    before: int
    after: int


def require_writable(path: Path, *, wait: float = 0.0) -> None:
    """Make sure, before long work, that its results can be written; makes the warehouse where there is none.

    Raises:
        UserError: the path is no usable warehouse.
        LockedError: another process has it open after `wait` seconds.
    """
    with writing(path, wait=wait):
        pass


def migrate(path: Path, *, wait: float = 0.0) -> list[str]:
    """Bring a warehouse to this version; returns the names of what was applied, none where it was up to date."""
    with writing(path, wait=wait, migrating=False) as con:
        return migrations.migrate(con, path)


def delete(path: Path, run: str, *, wait: float = 0.0) -> str:
    """Remove a run with its facts, marts, parts, and the tokens and frequencies that no other run uses.

    Args:
        run: a run_id, or the start of one.

    Returns:
        The id of the run that was removed.

    Raises:
        UserError: there is no such run, or more than one.
        LockedError: another process is writing the run, or has the warehouse open.
    """
    with reading(path, wait=wait) as con:  # an absent warehouse must not be made only to find the run missing
        run_id = find(con, run)
    with writing(path, wait=wait) as con:
        pid = processes.other_holder(records.column(con, run_id, "process"))
        if pid is not None:
            raise LockedError(f"Process {pid} is writing run {run_id}. Wait for it to end, or stop it.")
        con.execute("begin")
        key = records.run_key(con, run_id)
        if key is not None:
            clear(con, key)
            con.execute("delete from store.run where run_key = $key", {"key": key})
            _delete_unused(con)
        con.execute("commit")
        con.execute("checkpoint")
    shutil.rmtree(parts.parts_root(path) / run_id, ignore_errors=True)
    return run_id


def vacuum(path: Path, *, wait: float = 0.0) -> Space:
    """Give back the space of what was deleted, and remove parts of runs that are published.

    Returns:
        Size of the file before and after, bytes.
    """
    before = path.stat().st_size if path.exists() else 0
    if not path.exists():
        return Space(0, 0)
    with writing(path, wait=wait) as con:
        published = con.execute("select run_id, parts_digest from store.run where status = 'published'").fetchall()
        con.execute("checkpoint")
    for run_id, digest in published:
        folder = parts.parts_root(path) / run_id
        if (folder / parts.SUMMARY).is_file() and staging.digest(folder) == digest:
            shutil.rmtree(folder)
    return Space(before, path.stat().st_size)


def _delete_unused(con: duckdb.DuckDBPyConnection) -> None:
    for table, key, owner in (
        ("token_frequency", "source_key", "frequency_source"),
        ("dim_token", "tokenizer_key", "tokenizer"),
    ):
        unused = f"{key} not in (select {key} from store.run where {key} is not null)"
        con.execute(f"delete from store.{table} where {unused}")
        con.execute(f"delete from store.{owner} where {unused}")
