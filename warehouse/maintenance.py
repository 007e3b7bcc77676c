"""Maintains a warehouse: makes it writable, deletes runs, gives space back."""

from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from glob import escape
from pathlib import Path

import duckdb

from rare_tokens.common import parts
from rare_tokens.common.errors import LockedError, UserError
from rare_tokens.common.files import write_atomically
from rare_tokens.warehouse import literals, locks
from rare_tokens.warehouse.connection import reading, writing
from rare_tokens.warehouse.publish import staging
from rare_tokens.warehouse.publish.gaps import twins_of
from rare_tokens.warehouse.publish.loading import clear, clear_pairs, clear_unused
from rare_tokens.warehouse.publish.marts import Line, bring_up_to_date
from rare_tokens.warehouse.publish.runs import remove_orphans
from rare_tokens.warehouse.runs import find
from rare_tokens.warehouse.store import parquet_facts, run_records

_WORTH_COPYING = 0.1  # free share of the file


@dataclass(frozen=True)
class Space:
    """Bytes of a warehouse file before and after."""

    before: int
    after: int


def require_writable(path: Path, *, line: Line, wait: float = 0.0) -> None:
    """Check, before long work, that its results can be written.

    Makes the warehouse if there is none, and brings one of an earlier version up to date (see `migrate`).

    Raises:
        UserError: the path is not a usable warehouse.
        LockedError: another process has it open after `wait` seconds.
    """
    migrate(path, line=line, wait=wait)


def migrate(path: Path, *, line: Line, wait: float = 0.0) -> list[str]:
    """Bring a warehouse to this version: its schema, and what its runs then lack.

    Args:
        path: the warehouse.
        line: fits the power law.
        wait: seconds to wait for a process that has it open.

    Returns:
        The names of what was applied; none if it was up to date.

    Raises:
        UserError: the path is not a usable warehouse, or a newer version wrote it.
        LockedError: another process has it open after `wait` seconds.
    """
    with writing(path, wait=wait, any_version=True) as con:
        return bring_up_to_date(con, path, line)


def delete(path: Path, run: str, *, wait: float = 0.0) -> list[str]:
    """Remove a run with its facts, marts and parts, and the tokens and frequencies that no other run uses.

    The records of its twins go with it: without the run they say nothing.

    Args:
        path: the warehouse.
        run: a run_id, or the start of one.
        wait: seconds to wait for a process that has the warehouse open.

    Returns:
        The ids of what was removed: the run, then its twins.

    Raises:
        UserError: there is no such run, or more than one.
        LockedError: another process is writing the run, or has the warehouse open.
    """
    try:
        with reading(path, wait=wait) as con:  # do not make an absent warehouse only to find the run missing
            run_id = find(con, run)
    except UserError:
        remove_orphans(path, wait=wait)  # an earlier `delete` may have been killed before it removed them
        raise
    with writing(path, wait=wait) as con, parquet_facts.swept(con, path):
        pid = locks.other_holder(run_records.column(con, run_id, "process"))
        if pid is not None:
            raise LockedError(f"Process {pid} is writing run {run_id}. Wait for it to end, or stop it.")
        con.execute("begin")
        key = run_records.run_key(con, run_id)
        twins = twins_of(con, run_id)
        if key is not None:
            clear(con, key)
            clear_pairs(con, run_id)
            con.execute(
                "delete from store.run where run_key = $key or twin_of = $run_id", {"key": key, "run_id": run_id}
            )
            clear_unused(con)
            parquet_facts.define(con)
        con.execute("commit")
        con.execute("checkpoint")
    for folder in _parts_folders(parts.parts_root(path) / run_id):
        staging.remove_half_removed(folder)
        if folder.is_dir():
            _try_to_remove(folder)
    return [run_id, *twins]


def vacuum(path: Path, *, wait: float = 0.0) -> Space:
    """Give back the space of what was deleted, and remove parts of runs that are published.

    Deleting gives back only space at the end of the file and keeps the rest for later runs. If much is kept, the
    warehouse is copied to a new file that then replaces it, so for a while the disk must hold both.
    """
    if not path.exists():
        return Space(0, 0)
    before = path.stat().st_size
    with writing(path, wait=wait) as con, parquet_facts.swept(con, path):
        published = con.execute("select run_id, parts_digest from store.run where status = 'published'").fetchall()
        con.execute("checkpoint")
        # Under the lock: no other vacuum is running, and nobody writes to the old file before the rename.
        for left_by_a_crash in path.parent.glob(f"{escape(path.name)}.*.partial*"):
            left_by_a_crash.unlink()
        if _free_share(con, path) > _WORTH_COPYING:
            write_atomically(path, partial(_copy, con))
    for run_id, digest in published:
        _remove_parts(parts.parts_root(path) / run_id, digest)
    return Space(before, path.stat().st_size)


def remove_parts(path: Path, run_id: str, *, wait: float = 0.0) -> None:
    """Remove parts of a published run left by a crash or a full disk, unless they are another version's."""
    with reading(path, wait=wait) as con:
        digest = run_records.column(con, run_id, "parts_digest")
    _remove_parts(parts.parts_root(path) / run_id, digest)
    remove_orphans(path, wait=wait)


def _remove_parts(folder: Path, digest: str | None) -> None:
    for half_removed in _parts_folders(folder):
        staging.remove_half_removed(half_removed)
    if (folder / parts.SUMMARY).is_file() and staging.digest(folder) == digest:
        _try_to_remove(folder)


def _try_to_remove(folder: Path) -> None:
    with suppress(OSError):  # another process may be removing it
        staging.remove(folder)


def _parts_folders(folder: Path) -> tuple[Path, ...]:
    """Where a run's parts may be: its own, and those of what is added to it."""
    return folder, parts.groups_folder(folder), parts.attention_folder(folder)


def _free_share(con: duckdb.DuckDBPyConnection, path: Path) -> float:
    """Free share of the file; after a failed write it may hold blocks that the engine forgot."""
    ((used,),) = con.execute("select used_blocks * block_size from pragma_database_size()").fetchall()
    return float(1 - used / path.stat().st_size)


def _copy(con: duckdb.DuckDBPyConnection, new: Path) -> None:
    ((name,),) = con.execute("select current_database()").fetchall()
    con.execute(f"attach {literals.text(new)} as vacuumed")
    con.execute(f"copy from database {literals.name(name)} to vacuumed")
    con.execute("detach vacuumed")
