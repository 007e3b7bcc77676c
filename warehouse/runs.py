"""The runs of a warehouse and how far each got, from its records and from the parts next to it."""

from pathlib import Path
from typing import TYPE_CHECKING

import duckdb

from rare_tokens.common import parts
from rare_tokens.common.closest import hint
from rare_tokens.common.errors import UserError
from rare_tokens.warehouse import locks
from rare_tokens.warehouse.connection import reading, reason

if TYPE_CHECKING:
    import polars as pl

# What a list of runs shows of each, unless all is asked for.
IN_SHORT = (
    "run_id",
    "status",
    "model",
    "revision",
    "layer",
    "ablation",
    "positions",
    "neurons",
    "corpus",
    "created_at",
)


def runs(path: Path, *, wait: float = 0.0) -> "pl.DataFrame":
    """Every run: the columns of `dim_run`, with its status at this moment, and `pid`.

    Besides the recorded statuses, a run is ``interrupted`` if the process that wrote it ended before it was done, and
    ``staged`` if all its parts are there but not yet published. `pid` is the process that is writing it. Parts that the
    warehouse does not know (because its file was removed, for example) are listed too.
    """
    with reading(path, wait=wait) as con:
        return listed(con, path)


def listed(con: duckdb.DuckDBPyConnection, path: Path) -> "pl.DataFrame":
    """As `runs`, of a warehouse that is open."""
    import polars as pl

    recorded = con.sql("select * from dim_run order by created_at, run_id").pl()
    processes_of = dict(con.execute("select run_id, process from store.run").fetchall())
    root = parts.parts_root(path)
    names = recorded["run_id"].to_list()
    pids = [locks.holder(processes_of[run]) for run in names]
    statuses = [
        _effective(*known) for known in zip(recorded["status"], [root / run for run in names], pids, strict=True)
    ]
    frame = recorded.with_columns(pl.Series("status", statuses, pl.String), pl.Series("pid", pids, pl.Int64))
    unrecorded = [
        {"run_id": manifest.run_id, "model": manifest.model, "revision": manifest.revision, "layer": manifest.layer}
        | {"status": _effective("running", folder, None)}
        for folder, manifest in _folders(root)
        if manifest.run_id not in processes_of
    ]
    return pl.concat([frame, pl.DataFrame(unrecorded, frame.schema)]) if unrecorded else frame


def status(path: Path, run_id: str, *, wait: float = 0.0) -> str | None:
    """Status of a run as in `runs`, or None if the warehouse does not know it."""
    with reading(path, wait=wait) as con:
        rows = con.execute("select status, process from store.run where run_id = $run", {"run": run_id}).fetchall()
    if not rows:
        return None
    return _effective(rows[0][0], parts.parts_root(path) / run_id, locks.holder(rows[0][1]))


def find(con: duckdb.DuckDBPyConnection, start: str) -> str:
    """The one run whose id is `start`, or starts with it, as the macro `run_key_of` finds it.

    Raises:
        UserError: there is none, or more than one; the message lists them.
    """
    try:
        ((run_id,),) = con.execute(
            "select run_id from store.run where run_key = run_key_of($start)", {"start": start}
        ).fetchall()
    except duckdb.InvalidInputException as error:
        known = [run for (run,) in con.execute("select run_id from store.run order by created_at, run_id").fetchall()]
        said = reason(error)
        raise UserError(said if "is the start of" in said else said + hint(start, known, starts=True)) from error
    return str(run_id)


def _effective(recorded: str, folder: Path, pid: int | None) -> str:
    if recorded != "running":
        return recorded
    if (folder / parts.SUMMARY).is_file():
        return "staged"
    return "interrupted" if pid is None else "running"


def _folders(root: Path) -> list[tuple[Path, parts.Manifest]]:
    """The runs whose parts are next to the warehouse, in order of name."""
    folders = sorted(folder for folder in root.iterdir() if folder.is_dir()) if root.is_dir() else []
    manifests = [(folder, parts.read_manifest(folder)) for folder in folders]
    return [(folder, manifest) for folder, manifest in manifests if manifest is not None]
