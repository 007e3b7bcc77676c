"""The rows of `store.run`: what is known about each run, whatever became of it."""

import json
from dataclasses import asdict, fields
from datetime import UTC, datetime
from typing import Any

import duckdb

from rare_tokens.common.checkpoint_names import parse
from rare_tokens.common.parts import Manifest, Summary

# Fields of a manifest that are not needed once the run is published.
_NOT_KEPT = {"position_block", "format"}
_JSON = {"identity", "options", "facts", "packages", "stage_seconds"}


def described(manifest: Manifest, summary: Summary | None = None) -> dict[str, Any]:
    """The columns of `store.run` filled from a manifest, and from the summary if there is one."""
    values = {name: value for name, value in asdict(manifest).items() if name not in _NOT_KEPT}
    if summary is not None:
        values |= asdict(summary)
    started = datetime.fromisoformat(manifest.created_at)
    values |= {"created_at": started.astimezone(UTC).replace(tzinfo=None), "twin_of": None}
    return as_text(values) | training(manifest.revision)


def as_text(values: dict[str, Any]) -> dict[str, Any]:
    """The same columns, those that are stored as JSON written so."""
    return values | {name: json.dumps(values[name], sort_keys=True) for name in _JSON & values.keys()}


def training(revision: str) -> dict[str, Any]:
    """The columns that tell a checkpoint's place in training, from its name; all NULL where it names none."""
    name = parse(revision)
    return {
        "training_stage": name and name.stage,
        "training_step": name and name.step,
        "training_tokens": name and name.tokens,
        "training_branch": (name and name.branch) or None,
    }


def place_in_training(con: duckdb.DuckDBPyConnection) -> None:
    """Fill these columns for every run of the warehouse: by the rule of this version, whichever wrote the run."""
    for key, revision in con.execute("select run_key, revision from store.run order by run_key").fetchall():
        values = training(revision)
        assignments = ", ".join(f"{name} = ${name}" for name in values)
        con.execute(f"update store.run set {assignments} where run_key = $key", values | {"key": key})


def record(con: duckdb.DuckDBPyConnection, values: dict[str, Any]) -> int:
    """Write columns of the run named by ``values["run_id"]``, making its row if there is none; return its key."""
    if (key := run_key(con, values["run_id"])) is not None:
        assignments = ", ".join(f"{name} = ${name}" for name in values if name != "run_id")
        con.execute(f"update store.run set {assignments} where run_id = $run_id", values)
        return key
    ((key,),) = con.execute("select coalesce(max(run_key), 0) + 1 from store.run").fetchall()
    names = ["run_key", *values]
    places = ", ".join(f"${name}" for name in names)
    con.execute(f"insert into store.run ({', '.join(names)}) values ({places})", {"run_key": key, **values})
    return int(key)


def run_key(con: duckdb.DuckDBPyConnection, run_id: str) -> int | None:
    """Key of a run, or None if it has no row."""
    rows = con.execute("select run_key from store.run where run_id = $run_id", {"run_id": run_id}).fetchall()
    return int(rows[0][0]) if rows else None


def column(con: duckdb.DuckDBPyConnection, run_id: str, name: str) -> Any:
    """One column of a run's row, or None if it has no row."""
    rows = con.execute(f"select {name} from store.run where run_id = $run_id", {"run_id": run_id}).fetchall()
    return rows[0][0] if rows else None


def manifest(con: duckdb.DuckDBPyConnection, run_id: str) -> Manifest:
    """The manifest of a published run, from its row; without what only its parts needed."""
    names = [item.name for item in fields(Manifest) if item.name not in _NOT_KEPT]
    (row,) = con.execute(
        f"select {', '.join(names)} from store.run where run_id = $run_id", {"run_id": run_id}
    ).fetchall()
    values = dict(zip(names, row, strict=True))
    values |= {name: json.loads(values[name] or "{}") for name in _JSON & values.keys()}
    return Manifest(**values | {"created_at": values["created_at"].isoformat(), "position_block": values["positions"]})


def now() -> datetime:
    """The time, UTC, without a zone, as the warehouse stores times."""
    return datetime.now(UTC).replace(tzinfo=None)
