"""Adds attention, and what its heads do, to a published run."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from rare_tokens.common import parts
from rare_tokens.common.errors import QualityError, UserError
from rare_tokens.warehouse import literals
from rare_tokens.warehouse.connection import reading, writing
from rare_tokens.warehouse.publish import audit, marts, staging
from rare_tokens.warehouse.store import run_records

_CHECKED = "attention_position"  # not kept


@dataclass(frozen=True)
class StoredAttention:
    """Attention that a run has: what replaced a head's output, and in which layers."""

    head_ablation: str
    layers: tuple[int, ...]
    code_version: str


def stored_attention(path: Path, run_id: str, *, wait: float = 0.0) -> list[StoredAttention]:
    """A run's attention, one entry per ablation that it was measured with."""
    with reading(path, wait=wait) as con:
        rows = con.execute(
            "select head_ablation, layers, code_version from dim_attention where run_id = $run_id order by 1",
            {"run_id": run_id},
        ).fetchall()
    return [StoredAttention(ablation, tuple(layers), version) for ablation, layers, version in rows]


def require_same_model(path: Path, run_id: str, identity: Mapping[str, Any], *, wait: float = 0.0) -> None:
    """Refuse a run that seems new but is a published one whose weights have changed.

    Args:
        path: the warehouse.
        run_id: the run asked for.
        identity: the values whose hash is in its id.
        wait: seconds to wait for a process that is writing.

    Raises:
        UserError: a published run of the same name differs only in its weights.
    """
    with reading(path, wait=wait) as con:
        query = "select run_id, model, identity from store.run where status = 'published' order by created_at"
        rows = con.execute(query).fetchall()
    if run_id in (known for known, _, _ in rows):
        return
    name = run_id.rpartition("-")[0]
    for known, model, text in rows:
        there = json.loads(text)
        if known.rpartition("-")[0] == name and {**there, "model_hash": ""} == {**identity, "model_hash": ""}:
            raise UserError(
                f"--attention: the folder of {model} has changed since run {known} (weights {there['model_hash'][:8]} "
                f"then, {identity['model_hash'][:8]} now). Nothing can be added to that run. Restore the weights, or "
                "ingest them as a run of their own first."
            )


def add_attention(path: Path, run_id: str, folder: Path, *, readers: Collection[str], wait: float = 0.0) -> int:
    """Add the attention in a folder to a published run, all or nothing; return the number of rows; remove the folder.

    What the run has for the same ablation is replaced.

    Args:
        path: the warehouse.
        run_id: the run.
        folder: the attention's parts.
        readers: the analyses that read attention; stored ones count as not computed, so that they are due.
        wait: seconds to wait for a process that has the warehouse open.

    Raises:
        UserError: the run is not published.
        QualityError: the parts are damaged, belong to other positions or token groups, or fail the audit.
        LockedError: another process has the warehouse open.
    """
    files = {relation: parts.relation_path(folder, relation) for relation in parts.ATTENTION_RELATIONS}
    staging.check_part_files({name: [file] for name, file in files.items()}, run_id)
    with writing(path, wait=wait) as con:
        key = run_records.run_key(con, run_id)
        if key is None or run_records.column(con, run_id, "status") != "published":
            raise UserError(f"Run {run_id} is not published, so nothing can be added to it. Ingest it first.")
        con.execute("begin")
        _refuse_other_positions(con, key, run_id, files)
        rows = _load(con, key, files)
        con.execute(
            "delete from store.analysis where run_key = $run_key and analysis in $readers",
            {"run_key": key, "readers": list(readers)},
        )
        verdicts = audit.attention_verdicts(con, run_id)
        if failures := audit.failed(verdicts):
            con.execute("rollback")
            what = "; ".join(str(failure) for failure in failures)
            raise QualityError(f"Attention of run {run_id} was refused: {what}. Ingest it again.")
        audit.record_results(con, key, verdicts, suite=audit.ATTENTION)
        for mart in marts.of_attention():
            marts.fill(con, mart, key, run_records.manifest(con, run_id))
        con.execute("commit")
        con.execute("checkpoint")
    staging.remove(folder)
    return rows


def _refuse_other_positions(con: duckdb.DuckDBPyConnection, key: int, run_id: str, files: dict[str, Path]) -> None:
    """Check that the tokens are the run's, and that each cell's positions are in its token groups."""
    part, cell = (f"read_parquet([{literals.file(files[name])}])" for name in (_CHECKED, "dim_attention_cell"))
    here = f"select preset, token_group, position_id from {part} join {cell} using (cell)"
    there = "select preset, token_group, position_id from store.position_group where run_key = $run_key"
    ((astray,),) = con.execute(
        f"select count(*) from (({here} except {there}) union all ({there} except {here}))", {"run_key": key}
    ).fetchall()
    ((different,),) = con.execute(
        f"select count(*) from {part} as part full join"
        " (select * from store.dim_position where run_key = $run_key) as stored using (position_id)"
        " where (part.input_token_id, part.target_token_id)"
        " is distinct from (stored.input_token_id, stored.target_token_id)",
        {"run_key": key},
    ).fetchall()
    if different or astray:
        con.execute("rollback")
        raise QualityError(
            f"The text drawn for attention is not that of run {run_id} ({max(different, astray)} positions differ). "
            "The corpus or the token groups have changed: ingest the run with --again."
        )


def _load(con: duckdb.DuckDBPyConnection, key: int, files: dict[str, Path]) -> int:
    values = {"run_key": key}
    parts_of = {relation: f"read_parquet([{literals.file(file)}])" for relation, file in files.items()}
    ((ablation,),) = con.execute(f"select head_ablation from {parts_of['dim_attention']}").fetchall()
    rows = 0
    for relation in parts.ATTENTION_RELATIONS:
        if relation == _CHECKED:
            continue
        con.execute(
            f"delete from store.{relation} where run_key = $run_key and head_ablation = $ablation",
            values | {"ablation": ablation},
        )
        named = "" if relation == "dim_attention" else f"'{ablation}' as head_ablation, "
        con.execute(
            f"insert into store.{relation} by name select $run_key as run_key, {named}part.*"
            f" from {parts_of[relation]} as part",
            values,
        )
        ((count,),) = con.execute(f"select count(*) from {parts_of[relation]}").fetchall()
        rows += int(count)
    return rows
