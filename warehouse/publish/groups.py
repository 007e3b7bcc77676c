"""Groups of neurons ablated at once: reads their members, and adds their effects to a published run."""

from dataclasses import dataclass
from pathlib import Path

import duckdb

from rare_tokens.common import parts
from rare_tokens.common.errors import QualityError, UserError
from rare_tokens.common.program import command
from rare_tokens.warehouse import literals
from rare_tokens.warehouse.connection import reading, writing
from rare_tokens.warehouse.publish import audit, staging
from rare_tokens.warehouse.store import run_records

PRESET = "es"  # for a group named without one
RARE = "rare"


@dataclass(frozen=True)
class NamedGroup:
    """Named neurons, ascending; `source` says where they come from."""

    name: str
    neurons: tuple[int, ...]
    source: str


def stored_groups(path: Path, run_id: str, *, wait: float = 0.0) -> list[NamedGroup]:
    """The groups whose effects a run holds."""
    with reading(path, wait=wait) as con:
        rows = con.execute(
            "select group_name, neurons, source from dim_group where run_id = $run_id order by group_name",
            {"run_id": run_id},
        ).fetchall()
    return [NamedGroup(name, tuple(neurons), source) for name, neurons, source in rows]


def analysed_group(path: Path, run_id: str, spelled: str, *, wait: float = 0.0) -> NamedGroup:
    """A group that `analyze` stored in `neuron_group`, as NAME (preset `es`) or PRESET:NAME; its draw 0.

    Raises:
        UserError: the run is not published or not analysed, or has no such group; the message lists those it has.
    """
    preset, _, name = spelled.rpartition(":")
    preset = preset or PRESET
    with reading(path, wait=wait) as con:
        if run_records.column(con, run_id, "status") != "published":
            raise UserError(
                f"--group {spelled}: no such file, and run {run_id} is not published yet, so it has no group of that "
                "name. Ingest and analyze it first, or give a file."
            )
        rows = con.execute(
            "select preset, group_name, k, list(neuron order by neuron) filter (neuron is not null), any_value(reason)"
            " from neuron_group where run_id = $run_id and token_group = $token_group and draw = 0 group by all"
            " order by all",
            {"run_id": run_id, "token_group": RARE},
        ).fetchall()
    found = [(k, neurons, reason) for its, named, k, neurons, reason in rows if (its, named) == (preset, name)]
    if not found:
        has = sorted({f"{row[0]}:{row[1]}" for row in rows})
        what = f"It has {', '.join(has)}." if has else f"It has none: run `{command('analyze')}` first."
        raise UserError(f"--group {spelled}: run {run_id} has no group {preset}:{name}. {what} Or give a file.")
    if len(found) > 1:
        sizes = ", ".join(str(k) for k, _, _ in found)
        raise UserError(f"--group {spelled}: run {run_id} has it in several sizes ({sizes}). Give a file of neurons.")
    ((k, neurons, reason),) = found
    if not neurons:
        raise UserError(f"--group {spelled}: run {run_id} has no neurons in it ({reason}).")
    return NamedGroup(
        f"{preset}:{name}", tuple(neurons), f"neuron_group: preset {preset}, {RARE} tokens, k {k}, draw 0"
    )


def add_groups(path: Path, run_id: str, folder: Path, *, wait: float = 0.0) -> int:
    """Add the groups in a folder to a published run, all or none; return the number of effects. The folder is removed.

    A group whose name the run already has is replaced.

    Raises:
        UserError: the run is not published.
        QualityError: the parts are damaged, are about other positions than the run's, or fail the audit.
        LockedError: another process has the warehouse open.
    """
    files = {relation: parts.relation_path(folder, relation) for relation in parts.GROUP_RELATIONS}
    staging.check_part_files({name: [file] for name, file in files.items()}, run_id)
    with writing(path, wait=wait) as con:
        key = run_records.run_key(con, run_id)
        if key is None or run_records.column(con, run_id, "status") != "published":
            raise UserError(f"Run {run_id} is not published, so nothing can be added to it. Ingest it first.")
        con.execute("begin")
        rows = _load(con, key, run_id, files)
        verdicts = audit.group_verdicts(con, run_id)
        if failures := audit.failed(verdicts):
            con.execute("rollback")
            what = "; ".join(str(failure) for failure in failures)
            raise QualityError(f"Groups of run {run_id} were refused: {what}. Ingest them again.")
        audit.record_results(con, key, verdicts, suite=audit.GROUPS)
        con.execute("commit")
        con.execute("checkpoint")
    staging.remove(folder)
    return rows


def _load(con: duckdb.DuckDBPyConnection, key: int, run_id: str, files: dict[str, Path]) -> int:
    values = {"run_key": key}
    parts_of = {relation: f"read_parquet([{literals.file(file)}])" for relation, file in files.items()}
    ((different,),) = con.execute(
        f"select count(*) from {parts_of['group_position']} as part full join"
        " (select * from store.dim_position where run_key = $run_key) as stored using (position_id)"
        " where (part.input_token_id, part.target_token_id)"
        " is distinct from (stored.input_token_id, stored.target_token_id)",
        values,
    ).fetchall()
    if different:
        con.execute("rollback")
        raise QualityError(
            f"The text drawn for the groups is not that of run {run_id} ({different} positions differ). The corpus has "
            "changed: ingest the run with --again."
        )
    for relation, order in (("dim_group", "group_name"), ("fct_group_effect", "group_name, position_id")):
        con.execute(
            f"delete from store.{relation} where run_key = $run_key"
            f" and group_name in (select group_name from {parts_of['dim_group']})",
            values,
        )
        con.execute(
            f"insert into store.{relation} by name"
            f" select $run_key as run_key, part.* from {parts_of[relation]} as part order by {order}",
            values,
        )
    ((rows,),) = con.execute(f"select count(*) from {parts_of['fct_group_effect']}").fetchall()
    return int(rows)
