"""How a shared folder is laid out: names of its files, its manifest, and what becomes of a half-written one.

A relation about runs has one file per run, ``NAME/RUN.parquet``; the others, and those without rows, are
``NAME/part.parquet``. Every file holds all columns of its relation, run_id among them, so that programs that know
nothing of folders read it. Format 2, which earlier versions wrote, had the run in a folder's name instead
(``NAME/run_id=RUN/part.parquet``, without the column); it can still be read.
"""

import hashlib
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import psutil

from rare_tokens.common.errors import UserError
from rare_tokens.common.files import read_json
from rare_tokens.warehouse import literals
from rare_tokens.warehouse.schema import migrations
from rare_tokens.warehouse.store import parquet_facts

FORMAT, _HIVE_FORMAT = 3, 2
MANIFEST = "manifest.json"
SHARED_PART = "part.parquet"
_LONGEST_NAME = 100  # characters of a run's id in the name of a file
# One file name, never a path; both formats' names begin with the relation.
_FILE = {
    FORMAT: re.compile(r"\w+/[\w.-]+\.parquet"),
    _HIVE_FORMAT: re.compile(r"\w+/(?:run_id=[^/\\]+/)?part\.parquet"),
}
_HIVE_RUN = re.compile(r"\w+/run_id=([^/\\]+)/")
_OF_A_FILE = {FORMAT: {"rows", "bytes", "sha256", "run_id"}, _HIVE_FORMAT: {"rows", "bytes", "sha256"}}


@dataclass(frozen=True)
class Exported:
    """A folder that `export` wrote.

    Attributes:
        folder: where it lies.
        source: what messages call it: the folder, or the address that it was fetched from.
        files: rows, bytes, SHA-256 and run of each file, by name within the folder.
        runs: what no relation shows, by run_id.
    """

    folder: Path
    source: str
    files: dict[str, dict[str, Any]]
    runs: dict[str, dict[str, Any]]

    def file(self, relation: str, run_id: str | None = None) -> str | None:
        """The name of the file with a relation, or with a run in it; None if there is none."""
        wanted = (relation, run_id)
        return next((name for name, of in self.files.items() if (name.split("/")[0], of["run_id"]) == wanted), None)

    def literal(self, relation: str, run_id: str | None = None) -> str | None:
        """That file as a SQL text."""
        name = self.file(relation, run_id)
        return None if name is None else literals.file(self.folder / name)


def file_name(relation: str, run_id: str | None) -> str:
    """The name of a file within the folder: a run's id as it is, or made into a name that every disk and hub takes."""
    if run_id is None:
        return f"{relation}/{SHARED_PART}"
    name = re.sub(r"[^A-Za-z0-9._-]", "_", run_id)[:_LONGEST_NAME]
    if not name[0].isalnum():  # readers pass over names that begin with a dot or an underscore
        name = f"run{name}"
    if name != run_id:  # another run's id may be made into the same name
        name += f"-{hashlib.sha256(run_id.encode()).hexdigest()[:8]}"
    return f"{relation}/{name}.parquet"


def read_export(folder: Path, source: str | None = None) -> Exported:
    """The manifest of an export.

    Args:
        folder: where it lies.
        source: what messages call it; None: the folder.

    Raises:
        UserError: there is none, it is damaged, or another version wrote it.
    """
    source = str(folder) if source is None else source
    if not (folder / MANIFEST).is_file():
        raise UserError(f"{source} is not an export: it has no {MANIFEST}. Name a folder that `export` wrote.")
    try:
        found = read_json(folder / MANIFEST)
        _require_version(found["format"], found["schema"], source)
        described: dict[str, dict[str, Any]] = found["files"]
        is_whole = all(
            _FILE[found["format"]].fullmatch(name) and _OF_A_FILE[found["format"]] == set(of)
            for name, of in described.items()
        ) and all({"parts_digest", "self_check_pairs", "analyses"} == set(run) for run in found["runs"].values())
        files = {name: {"run_id": _run_of(name)} | of for name, of in described.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        what = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise UserError(f"{source}/{MANIFEST} is damaged ({what}). Export again.") from error
    if not is_whole:
        raise UserError(f"{source}/{MANIFEST} is damaged: it lists files that no export has. Export again.")
    return Exported(folder, source, files, found["runs"])


def verify(exported: Exported) -> None:
    """Check that every file of an export is there and byte for byte what was exported.

    Raises:
        UserError: one is not; the message names it.
    """
    for name, described in exported.files.items():
        file = exported.folder / name
        if not file.is_file():
            raise UserError(f"{exported.source}/{name} is missing. Export again, or copy the whole folder again.")
        if file.stat().st_size != described["bytes"] or parquet_facts.sha256(file) != described["sha256"]:
            raise UserError(
                f"{exported.source}/{name} is damaged: it is not what was exported. Export again, or copy it again."
            )


def described(file: Path, rows: int, run_id: str | None) -> dict[str, Any]:
    """What the manifest says about a file."""
    return {"rows": rows, "bytes": file.stat().st_size, "sha256": parquet_facts.sha256(file), "run_id": run_id}


def partial_name(target: Path, pid: int) -> Path:
    """Where a process prepares what is to become, or to be read into, `target`."""
    return target.with_name(f"{target.name}.{pid}.partial")


def remove_leftovers(target: Path) -> None:
    """Remove the folders that killed processes left of what they prepared for `target`."""
    for partial in target.parent.glob(f"{escape(target.name)}.*.partial"):
        pid = partial.name.removeprefix(f"{target.name}.").removesuffix(".partial")
        if pid.isdecimal() and not psutil.pid_exists(int(pid)) and partial.is_dir():
            shutil.rmtree(partial)


def rows_by_relation(files: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    """The number of rows of each relation in an export, by the files that its manifest lists."""
    rows: dict[str, int] = {}
    for name, of in files.items():
        relation = name.split("/")[0]
        rows[relation] = rows.get(relation, 0) + of["rows"]
    return rows


def _require_version(number: object, schema: object, source: str) -> None:
    newest = migrations.known()[-1][0]
    if number not in _FILE or schema != newest:
        raise UserError(
            f"{source} was exported by another version (format {number}, schema {schema}; this one has {FORMAT} and"
            f" {newest}). Migrate its warehouse with this version and export it again."
        )


def _run_of(name: str) -> str | None:
    """The run that a file's name in format 2 says."""
    match = _HIVE_RUN.match(name)
    return None if match is None else unquote(match[1])
