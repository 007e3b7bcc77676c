"""A run's parts as relations that SQL can read, before any of them is in the warehouse."""

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from rare_tokens.common import parts
from rare_tokens.common.errors import QualityError, UserError
from rare_tokens.warehouse import literals


@dataclass(frozen=True)
class Staged:
    """A finished run's parts.

    Attributes:
        digest: SHA-256 over manifest and summary; tells a published run's leftover parts from new ones.
    """

    folder: Path
    manifest: parts.Manifest
    summary: parts.Summary
    digest: str


def staged_run(folder: Path) -> Staged:
    """The finished run in a folder.

    Raises:
        UserError: it holds no run, or the run is not finished.
    """
    manifest, summary = parts.read_manifest(folder), parts.read_summary(folder)
    if manifest is None:
        raise UserError(f"{folder} holds no parts of a run. Ingest it first.")
    if manifest.format != parts.FORMAT:
        raise UserError(f"{folder} has parts of format {manifest.format}, not {parts.FORMAT}. Ingest the run again.")
    if manifest.position_block < 1 or not set(manifest.effects) <= parts.EFFECT_COLUMNS.keys():
        raise UserError(f"{folder / parts.MANIFEST} is damaged. Ingest the run again with --again.")
    if summary is None:
        raise UserError(f"Run {manifest.run_id} is not finished. Give its ingest command again to resume it.")
    return Staged(folder, manifest, summary, digest(folder))


def digest(folder: Path) -> str:
    """SHA-256 over the manifest and the summary of a run's folder."""
    texts = [(folder / name).read_bytes() for name in (parts.MANIFEST, parts.SUMMARY)]
    return hashlib.sha256(b"\0".join(texts)).hexdigest()


def remove(folder: Path) -> None:
    """Remove the folder of a run's parts, or of parts added to it, and what a killed removal left of an earlier one."""
    doomed = parts.removed_folder(folder)
    remove_half_removed(folder)
    folder.rename(doomed)
    shutil.rmtree(doomed)


def remove_half_removed(folder: Path) -> None:
    """Remove what is left of such a folder after its removal was killed."""
    shutil.rmtree(parts.removed_folder(folder), ignore_errors=True)


def check_files(staged: Staged) -> None:
    """Check that every part is there, can be read, and has the columns of the contract.

    Raises:
        QualityError: one does not; the message names it.
    """
    check_part_files(_files(staged), staged.manifest.run_id, tuple(staged.manifest.effects))


def check_part_files(files: dict[str, list[Path]], run_id: str, effects: tuple[str, ...] = ("loss",)) -> None:
    """Check the parts of each relation in `files`.

    Raises:
        QualityError: one is missing, unreadable or has other columns; the message names it.
    """
    for relation, paths in files.items():
        expected = parts.schema(relation, effects)
        for path in paths:
            try:
                found = pq.read_schema(path)
            except (OSError, ValueError, pa.ArrowException) as error:  # including names that are not UTF-8
                what = "is missing" if not path.exists() else f"cannot be read ({str(error).splitlines()[0]})"
                message = f"Part {path} of run {run_id} {what}. Ingest the run again with --again."
                raise QualityError(message) from error
            if not found.equals(expected):
                raise QualityError(f"Part {path} has other columns than {relation} needs. Ingest the run with --again.")


def attach(con: duckdb.DuckDBPyConnection, staged: Staged) -> None:
    """Show the parts as relations `staging.NAME`, with the parts' columns.

    Effects that were not asked for are NULL; relations for which this kind of run has no part are empty. A transaction
    can neither attach nor detach, so the views read from variables: `show` turns them to another run.
    """
    con.execute("attach ':memory:' as staging")
    for relation in set(parts.CONTEXT_RELATIONS) - set(_files(staged)):
        con.register("nothing", parts.schema(relation).empty_table())
        con.execute(f"create table staging.{relation} as select * from nothing")
        con.unregister("nothing")
    show(con, staged)
    for relation in _files(staged):
        here = parts.schema(relation, tuple(staged.manifest.effects)).names
        every = parts.schema(relation, tuple(parts.EFFECT_COLUMNS)).names
        columns = ", ".join(f'"{name}"' if name in here else f"null::float as {name}" for name in every)
        con.execute(f"create view staging.{relation} as select {columns} from read_parquet(getvariable('{relation}'))")


def show(con: duckdb.DuckDBPyConnection, staged: Staged) -> None:
    """Show the parts of another run of the same effects and contexts in the relations of `attach`."""
    for relation, paths in _files(staged).items():
        files = ", ".join(literals.file(path) for path in paths)
        con.execute(f"set variable {relation} = [{files}]")


def detach(con: duckdb.DuckDBPyConnection) -> None:
    """Undo `attach`."""
    con.execute("detach staging")


def _files(staged: Staged) -> dict[str, list[Path]]:
    relations = parts.RELATIONS + (() if staged.manifest.contexts == "sample" else parts.CONTEXT_RELATIONS)
    files = {relation: [parts.relation_path(staged.folder, relation)] for relation in relations}
    files["fct_effect"] = [parts.effect_path(staged.folder, block) for block in range(staged.manifest.blocks)]
    return files
