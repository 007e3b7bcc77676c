"""Facts kept as Parquet next to the warehouse: their files, and the view that reads them.

A run's files are ``<warehouse>.facts/run_id=…/run_key=…/block=…/TAG.parquet``, one per block of neurons, sorted by
neuron, then position. `store.fact_file` lists them with counts and hashes; a file that it does not list belongs to no
run. They are written under temporary names, renamed, and only then listed in the transaction that publishes the run, so
whatever happens the warehouse holds all of a run or none of it. A file is never written again: the TAG tells one
publication of a run from the next. Unlisted files left by a killed command are removed by the next command that writes.

The view takes the folder from a variable of the connection, so a warehouse and its folder can be moved together.
"""

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from urllib.parse import quote

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from rare_tokens.common import parts
from rare_tokens.common.errors import UserError
from rare_tokens.common.files import write_atomically
from rare_tokens.common.program import command
from rare_tokens.warehouse import literals

STORES = NATIVE, PARQUET = "native", "parquet"
# Long enough that a file's statistics and pages cost little, short enough that reading one neuron reads little else.
ROWS_PER_ROW_GROUP = 122_880
FOLDER, FAULT, _TEMPLATE = "rare_tokens_facts", "rare_tokens_fault", "rare_tokens_template"
NAMED = "Facts in Parquet: file"  # begins the message about a file that is not the one written
_MAGIC = b"PAR1"
_HIVE = "hive_partitioning = true, hive_types = {'run_id': varchar, 'run_key': usmallint, 'block': usmallint}"
_READ_BYTES = 2**20
# A file elsewhere must not become readable.
_NAME = re.compile(r"run_id=[^/\\]+/run_key=\d+/block=\d{5}/[\w-]+\.parquet")


@dataclass(frozen=True)
class FactFile:
    """A row of `store.fact_file`.

    Attributes:
        path: within the folder.
        footer_sha256: hash of the footer, with columns and the pages' places and statistics.
        column_names: its columns; none in a warehouse of an earlier schema.
    """

    run_key: int
    path: str
    first_neuron: int
    last_neuron: int
    rows: int
    bytes: int
    sha256: str
    footer_sha256: str
    column_names: tuple[str, ...] = ()


def columns() -> tuple[str, ...]:
    """The columns of facts, every effect among them."""
    return tuple(parts.schema("fct_effect", tuple(parts.EFFECT_COLUMNS)).names)


def folder(path: Path) -> Path:
    """The folder next to a warehouse for the facts of its Parquet-backed runs; it may be a link to another disk."""
    return path.absolute().with_name(path.name + ".facts")


def files(con: duckdb.DuckDBPyConnection, key: int | None = None) -> list[FactFile]:
    """The files of a run, or of all runs, in order of neurons; none in a warehouse of an earlier schema."""
    table = "select 1 from duckdb_tables() where schema_name = 'store' and table_name = 'fact_file'"
    if not con.execute(table).fetchall():
        return []
    columns_of = "select name from pragma_table_info('store.fact_file')"  # duckdb_columns() looks into every view too
    there = {name for (name,) in con.execute(columns_of).fetchall()}
    names = [item.name for item in fields(FactFile) if item.name in there]
    rows = con.execute(
        f"select {', '.join(names)} from store.fact_file where $key is null or run_key = $key"
        " order by run_key, first_neuron",
        {"key": key},
    ).fetchall()
    listed = [FactFile(**dict(zip(names, row, strict=True))) for row in rows]
    if odd := next((file for file in listed if not _NAME.fullmatch(file.path)), None):
        raise UserError(f"The warehouse is damaged: it lists the Parquet file {odd.path!r}, which it never wrote.")
    return listed


def write(
    con: duckdb.DuckDBPyConnection,
    path: Path,
    run: tuple[int, str],
    tag: str,
    source: str,
    blocks: Iterable[tuple[int, int]],
) -> Iterator[int]:
    """Write a run's facts and list them, in the transaction of `con`; yield the number of neurons after each file.

    Args:
        con: the warehouse, open to write.
        path: the warehouse's.
        run: its run_key and run_id.
        tag: tells this publication of the run from others.
        source: what to select the columns of facts from.
        blocks: first and last neuron of each file.
    """
    key, run_id = run
    for number, (first, last) in enumerate(blocks):
        name = f"run_id={quote(run_id, safe='')}/run_key={key}/block={number:05d}/{tag}.parquet"
        query = (
            f"select {', '.join(columns())} from {source} where neuron between {first} and {last}"
            " order by neuron, position_id"
        )
        write_atomically(folder(path) / name, partial(_copy, con, query))
        written = _described(folder(path) / name, FactFile(key, name, first, last, 0, 0, "", "", columns()))
        values = asdict(written) | {"column_names": list(written.column_names)}
        con.execute(f"insert into store.fact_file values ({', '.join(f'${name}' for name in values)})", values)
        yield last + 1 - first


def define(con: duckdb.DuckDBPyConnection, key: int | None = None) -> None:
    """Let `store.parquet_effect` read the listed files, or for a while only one run's; no file is opened.

    A run that reads only its own files can be published even if another run's file is gone.
    """
    kinds: dict[tuple[str, ...], list[str]] = {}
    for file in files(con, key):
        kinds.setdefault(tuple(file.column_names), []).append(file.path)
    if not kinds:
        con.execute(
            "create or replace view store.parquet_effect as"
            " select *, null::varchar as run_id from store.fct_effect where false"
        )
        return
    with ExitStack() as templates:
        for number, names in enumerate(kinds):
            template = templates.enter_context(_template(names))
            con.execute(f"set variable {_TEMPLATE}_{number} = {literals.text(literals.unpatterned(template))}")
        selects = [
            _select(names, paths, number, or_fault=key is None) for number, (names, paths) in enumerate(kinds.items())
        ]
        con.execute(f"create or replace view store.parquet_effect as {' union all '.join(selects)}")
        for number in range(len(kinds)):
            con.execute(f"reset variable {_TEMPLATE}_{number}")


def _select(names: tuple[str, ...], paths: list[str], number: int, *, or_fault: bool) -> str:
    """The facts in files with the same columns; an effect added since is NULL."""
    template = f"getvariable('{_TEMPLATE}_{number}')"
    fault = f"when getvariable('{FAULT}') is not null then [error(getvariable('{FAULT}'))] " if or_fault else ""
    unset = f"Set the variable {FOLDER} to the folder WAREHOUSE.facts first, or open the warehouse with rare-tokens."
    source = (
        f"case when {template} is not null then [{template}] {fault}"
        f"when getvariable('{FOLDER}') is null then [error({literals.text(unset)})] "
        f"else list_transform([{', '.join(map(literals.text, paths))}],"
        f" lambda file: getvariable('{FOLDER}') || '/' || file) end"
    )
    chosen = [f'"{name}"' if name in names else f'null::float as "{name}"' for name in columns()]
    return f"select run_key, {', '.join(chosen)}, run_id from read_parquet({source}, {_HIVE})"


def bind(con: duckdb.DuckDBPyConnection, path: Path) -> list[Path]:
    """Tell a connection where the files are; return them.

    If one is missing or is not the one written, reading facts fails and names it; everything else works.
    """
    con.execute(f"set variable {FOLDER} = {literals.text(literals.unpatterned(folder(path)))}")
    listed = files(con)
    fault = next(filter(None, (_fault(con, path, file) for file in listed)), None)
    if fault is not None:
        con.execute(f"set variable {FAULT} = {literals.text(fault)}")
    return [folder(path) / file.path for file in listed]


def verify(con: duckdb.DuckDBPyConnection, path: Path, run_id: str) -> None:
    """Check that every file of a run is byte for byte the one written.

    Raises:
        UserError: one is not; the message names it.
    """
    keys = con.execute("select run_key from store.run where run_id = $run_id", {"run_id": run_id}).fetchall()
    for key, *_ in keys:
        for file in files(con, key):
            fault = _fault(con, path, file)
            if fault is None and sha256(folder(path) / file.path) != file.sha256:
                fault = _names(con, path, file, "is damaged: its bytes have changed")
            if fault is not None:
                raise UserError(fault)


@contextmanager
def swept(con: duckdb.DuckDBPyConnection, path: Path) -> Iterator[None]:
    """Remove, once the context has committed or failed, every file that the warehouse does not list."""
    try:
        yield
    except BaseException:
        with suppress(duckdb.Error):  # no transaction, or a failing disk has stopped the engine
            con.execute("rollback")
        with suppress(duckdb.Error, OSError):  # report what stopped the context instead
            sweep(con, path)
        raise
    sweep(con, path)


def sweep(con: duckdb.DuckDBPyConnection, path: Path) -> None:
    """Remove every file of the folder that the warehouse does not list, and folders left empty."""
    for orphan in orphans(con, path):
        orphan.chmod(0o644)  # else Windows would refuse
        orphan.unlink()
        for above in orphan.relative_to(folder(path)).parents:
            with suppress(OSError):  # not empty; or the folder itself is a link
                (folder(path) / above).rmdir()


def orphans(con: duckdb.DuckDBPyConnection, path: Path) -> list[Path]:
    """The files in the folder that the warehouse could have written but does not list."""
    listed = {folder(path) / file.path for file in files(con)}
    found = folder(path).glob("run_id=*/run_key=*/block=*/*.parquet*")
    return sorted(file for file in found if file not in listed)


def sha256(file: Path) -> str:
    """SHA-256 of a file, hex."""
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while chunk := opened.read(_READ_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _copy(con: duckdb.DuckDBPyConnection, query: str, file: Path) -> None:
    # Version 2 has suitable encodings: differences of positions, floats split by byte. Level 1 is quicker to write than
    # the default, and higher levels compress floats no further.
    options = "format parquet, parquet_version v2, compression zstd, compression_level 1"
    con.execute(f"copy ({query}) to {literals.text(file)} ({options}, row_group_size {ROWS_PER_ROW_GROUP})")
    file.chmod(0o444)


def _described(file: Path, entry: FactFile) -> FactFile:
    rows = pq.read_metadata(file).num_rows
    size, hashes = file.stat().st_size, (sha256(file), _footer_sha256(file))
    return replace(entry, rows=rows, bytes=size, sha256=hashes[0], footer_sha256=hashes[1])


def _fault(con: duckdb.DuckDBPyConnection, path: Path, file: FactFile) -> str | None:
    """What is wrong with a file at first sight: its size, or its footer."""
    try:
        size = (folder(path) / file.path).stat().st_size
        footer = _footer_sha256(folder(path) / file.path) if size == file.bytes else None
    except OSError as error:
        is_missing = isinstance(error, FileNotFoundError | NotADirectoryError)
        return _names(con, path, file, "is missing" if is_missing else f"cannot be read ({error.strerror})")
    if footer is None:
        return _names(con, path, file, f"is damaged or another file: it has {size} bytes, not {file.bytes}")
    if footer != file.footer_sha256:
        return _names(con, path, file, "is damaged or another file: its contents are not those that were written")
    return None


def _names(con: duckdb.DuckDBPyConnection, path: Path, file: FactFile, what: str) -> str:
    run = con.execute("select run_id from store.run where run_key = $key", {"key": file.run_key}).fetchall()
    run_id = run[0][0] if run else file.run_key
    return (
        f"{NAMED} {folder(path) / file.path} of run {run_id} {what}."
        f" Put it back from a copy, or remove the run with `{command('delete')}`."
    )


def _footer_sha256(file: Path) -> str:
    """SHA-256 of a Parquet file's footer, or of as much of its end as its last bytes claim to be one."""
    with file.open("rb") as opened:
        size = opened.seek(0, os.SEEK_END)
        opened.seek(max(0, size - 8))
        end = opened.read(8)
        length = int.from_bytes(end[:4], "little") if end.endswith(_MAGIC) else 0
        opened.seek(max(0, size - 8 - length))
        return hashlib.sha256(opened.read()).hexdigest()


@contextmanager
def _template(names: tuple[str, ...]) -> Iterator[Path]:
    """A file without rows, from which the view takes its columns."""
    schema = parts.schema("fct_effect", tuple(parts.EFFECT_COLUMNS))
    schema = pa.schema([schema.field(name) for name in names])
    try:
        root = Path(tempfile.mkdtemp(prefix="rare-tokens-"))
    except FileNotFoundError as error:  # no folder for temporary files can be written to
        raise UserError("No temporary file can be written: the disk is full or fails. Free some space.") from error
    try:
        file = root / "run_id=none" / "run_key=0" / "block=0" / "none.parquet"
        file.parent.mkdir(parents=True)
        pq.write_table(schema.empty_table(), file)
        yield file
    finally:
        shutil.rmtree(root, ignore_errors=True)
