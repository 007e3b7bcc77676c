"""Checkpoints of a series that hold no facts: those that are missing, that failed, and twins of another.

So a series over training steps shows each of them with its reason, and an empty token group says why it is empty.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb

from rare_tokens.common import parts
from rare_tokens.warehouse.connection import reading, writing
from rare_tokens.warehouse.publish import staging
from rare_tokens.warehouse.publish.loading import clear
from rare_tokens.warehouse.store import run_records

MISSING, FAILED, TWIN = "missing", "failed", "twin"
_APART = '{"model_hash": null, "revision": null}'  # in which the runs of a series may differ
# What a twin has in common with the run whose weights it has: all that was asked for, and what came of it.
_SHARED = (
    "layer", "positions", "neurons", "window_length", "tokenizer_id", "frequency_source_id", "frequency_source",
    "corpus", "corpus_hash", "ablation", "seed", "dtype", "contexts", "quantisation",
)  # fmt: skip


def record_gap(
    path: Path,
    *,
    run_id: str,
    model: str,
    revision: str,
    why: str,
    status: str = MISSING,
    contexts: str = "sample",
    known: Mapping[str, Any] | None = None,
    wait: float = 0.0,
) -> None:
    """Record a run that cannot be; one that is published stays as it is.

    Args:
        path: the warehouse.
        run_id: of the run.
        model: its model.
        revision: its checkpoint.
        why: the reason.
        status: `missing`: the revision has no weights, or the corpora hold no such positions; `failed`: what was there
            could not be used.
        contexts: what its positions would have been.
        known: more columns of `dim_run`, as far as they were asked for: they say which series the gap is in.
        wait: seconds to wait for a process that has the warehouse open.
    """
    with writing(path, wait=wait) as con:
        if run_records.column(con, run_id, "status") != "published":
            values: dict[str, Any] = {"run_id": run_id, "model": model, "revision": revision, "contexts": contexts}
            values |= run_records.as_text(dict(known or {})) | run_records.training(revision)
            values |= {"status": status, "status_reason": why, "twin_of": None}
            run_records.record(con, values | {"created_at": _now(), "process": None})


def forget_gaps(
    path: Path, *, run_id: str, gap_ids: Sequence[str], model: str, revision: str, identity: Any, wait: float = 0.0
) -> None:
    """Remove what is recorded of a checkpoint as missing or failed, now that it has a run.

    Args:
        path: the warehouse.
        run_id: of the run.
        gap_ids: that it may have been recorded under while its weights were not there.
        model: its model.
        revision: its checkpoint.
        identity: of the run: failures of other weights under the same name, all else equal, go too.
        wait: seconds to wait for a process that has the warehouse open.
    """
    query = """
        from store.run
        select run_key
        where
            status in ('missing', 'failed') and model = $model and revision = $revision and run_id <> $run_id
            and (
                run_id in $gap_ids
                or json_merge_patch(identity, $apart::json) = json_merge_patch($identity::json, $apart::json)
            )
    """
    values = {"model": model, "revision": revision, "run_id": run_id, "gap_ids": list(gap_ids), "apart": _APART}
    with reading(path, wait=wait) as con:
        keys = con.execute(query, values | {"identity": json.dumps(identity, sort_keys=True)}).fetchall()
    if keys:
        with writing(path, wait=wait) as con:
            con.executemany("delete from store.run where run_key = ?", keys)


def find_twin(
    path: Path, *, run_id: str, model: str, revision: str, identity: Any, weights_hash: str, wait: float = 0.0
) -> str | None:
    """The published run of another checkpoint that a run would only repeat; None where there is none.

    It is of the same series (model, branch, and all that identifies it but revision and weights), and its weights are
    the same: by `weights_hash`, or for a run that does not know it by `model_hash`. Of several, the earliest in
    training. A run that is published itself, or is no checkpoint by its name, has none.
    """
    training = run_records.training(revision)
    if training["training_step"] is None:
        return None
    query = """
        with asked as (select json_merge_patch($identity::json, $apart::json) as asked)

        select run_id
        from dim_run, asked
        where
            status = 'published' and model = $model and run_id <> $run_id
            and training_step is not null and training_branch is not distinct from $branch
            and json_merge_patch(identity, $apart::json) = asked
            and coalesce(facts ->> '$.weights_hash' = $weights, model_hash = $model_hash)
            and not exists (from dim_run where run_id = $run_id and status = 'published')
        order by coalesce(training_stage, 0), training_step, run_id
        limit 1
    """
    values = {
        "identity": json.dumps(identity, sort_keys=True),
        "apart": _APART,
        "model": model,
        "run_id": run_id,
        "branch": training["training_branch"],
        "weights": weights_hash,
        "model_hash": identity.get("model_hash"),
    }
    with reading(path, wait=wait) as con:
        found = con.execute(query, values).fetchone()
    return found[0] if found else None


def record_twin(
    path: Path, run_id: str, twin_of: str, *, revision: str, known: Mapping[str, Any], wait: float = 0.0
) -> None:
    """Record that a run would repeat another one, and remove what is left of an attempt to compute it.

    Args:
        path: the warehouse.
        run_id: of the twin.
        twin_of: the published run whose weights it has.
        revision: the twin's checkpoint.
        known: columns of `dim_run` that are its own: model_hash, identity, options.
        wait: seconds to wait for a process that has the warehouse open.
    """
    with reading(path, wait=wait) as con:
        if run_records.column(con, run_id, "twin_of") == twin_of:
            return
    with writing(path, wait=wait) as con:
        columns = ", ".join(("model", *_SHARED))
        (row,) = con.execute(f"select {columns} from store.run where run_id = $run", {"run": twin_of}).fetchall()
        values = dict(zip(("model", *_SHARED), row, strict=True)) | run_records.as_text(dict(known))
        values |= {"run_id": run_id, "revision": revision, "status": TWIN, "twin_of": twin_of, "process": None}
        values |= {"status_reason": f"its weights are those of {twin_of}", "created_at": _now()}
        con.execute("begin")
        clear(con, run_records.record(con, values | run_records.training(revision)))
        con.execute("commit")
    staging.remove_half_removed(folder := parts.parts_root(path) / run_id)
    if folder.is_dir():
        staging.remove(folder)


def _now() -> datetime:
    """The time, to the second as the runs have it."""
    return run_records.now().replace(microsecond=0)


def twins_of(con: duckdb.DuckDBPyConnection, run_id: str) -> list[str]:
    """The runs that are recorded as twins of a run."""
    query = "select run_id from store.run where twin_of = $run_id order by run_key"
    return [twin for (twin,) in con.execute(query, {"run_id": run_id}).fetchall()]
