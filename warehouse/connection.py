"""Opens a warehouse file to read or to write, and turns the engine's errors into ones a user can act on."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import duckdb

from rare_tokens.common.closest import closest
from rare_tokens.common.errors import LockedError, RareTokensError, UserError
from rare_tokens.common.files import is_utf8, require_local
from rare_tokens.common.interrupts import stoppable
from rare_tokens.common.program import command
from rare_tokens.warehouse import literals
from rare_tokens.warehouse.schema import migrations, relations
from rare_tokens.warehouse.store import parquet_facts

Config = dict[str, str | bool | int | float | list[str]]

# No Python variables, no extensions. `_lock` then takes away every file but the facts'.
READ_CONFIG: Config = {
    "python_enable_replacements": False,
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
}
# Publishing reads Parquet parts, and nothing else from outside.
WRITE_CONFIG: Config = {
    "python_enable_replacements": False,
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
}
_POLL_SECONDS = 0.1
_LOCKED = ("Could not set lock", "being used by another process")  # the latter on Windows
# What writing and flushing say on a failing disk; the engine does not always pass on the system's own words.
_FAILED = ("Input/output error", "fsync failed", "CHECKPOINT during DETACH failed")
_NAMED_BY_FACTS = (parquet_facts.NAMED,)
# What the reader says about a file that was damaged or removed after the warehouse was opened.
_OF_PARQUET = ("arquet", "ecompress", "No files found that match", "TProtocolException", "Invalid page")
_MEANT = re.compile(r'Did you mean "([^"]+)"\?')
MOST_CALLS = 3  # shown of a function that can be called in several ways
_UNUSABLE = ("not a valid DuckDB database", "Corrupt database", "Could not read enough bytes", "checksum")


@contextmanager
def reading(path: Path, *, wait: float = 0.0) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a warehouse read-only; an absent one reads as empty and is not created.

    Args:
        wait: seconds to wait for a process that is writing.

    Raises:
        UserError: the path is not a usable warehouse of this version.
        LockedError: another process is still writing after `wait` seconds.
    """
    with engine_errors(path):
        con = open_read_only(path, wait=wait)
        try:
            yield con
        finally:
            con.close()


@contextmanager
def writing(path: Path, *, wait: float = 0.0, any_version: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a warehouse to write, making it if there is none.

    Args:
        path: the warehouse.
        wait: seconds to wait for a process that has it open.
        any_version: also open one of another version; the caller brings it up to date (`marts.bring_up_to_date`).

    Raises:
        UserError: the path is not a usable warehouse of this version.
        LockedError: another process has it open after `wait` seconds.
    """
    with engine_errors(path):
        require_place(path)
        con = _connect_waiting(path, wait, WRITE_CONFIG, read_only=False)
        try:
            parquet_facts.bind(con, path)
            if not any_version:
                migrations.make_or_check(con, path)
            yield con
        finally:
            con.close()


def require_place(path: Path) -> None:
    """Refuse a path where no warehouse can be.

    Raises:
        UserError: it is an address, a folder, or in a folder that does not exist.
    """
    _check_path(path)
    if not path.parent.is_dir():
        raise UserError(f"Folder {path.parent} does not exist, so {path.name} cannot be made in it. Make it first.")


def connect(*given: Any, **named: Any) -> duckdb.DuckDBPyConnection:
    """`duckdb.connect`, with queries that Ctrl-C stops at once (see `common.interrupts`)."""
    return stoppable(duckdb.connect(*given, **named), _interrupt)


def _interrupt(con: duckdb.DuckDBPyConnection) -> None:
    with suppress(duckdb.ConnectionException):  # it is closed
        con.interrupt()


def open_read_only(path: Path, *, wait: float = 0.0, limits: Config | None = None) -> duckdb.DuckDBPyConnection:
    """A connection for queries only (see `reading`); the caller closes it.

    Args:
        limits: more settings of the engine.
    """
    with engine_errors(path):
        _check_path(path)
        if not path.exists():
            con = connect(config={"python_enable_replacements": False})
            migrations.migrate(con, path)
            con.execute("set enable_external_access = false")
            con.execute("set lock_configuration = true")
            return con
        con = _connect_waiting(path, wait, READ_CONFIG | (limits or {}), read_only=True)
        try:
            _lock(con, parquet_facts.bind(con, path))
            migrations.check(con, path)
        except BaseException:
            con.close()
            raise
        return con


def _lock(con: duckdb.DuckDBPyConnection, readable: list[Path]) -> None:
    """Take away from a connection every file but the warehouse's own and these, extensions, and changes of settings."""
    ((is_locked,),) = con.execute("select current_setting('lock_configuration')").fetchall()
    if is_locked:  # by another connection of this process, which shares the engine
        return
    names = sorted({name for file in readable for name in (str(file), literals.unpatterned(file))})
    if names:
        quoted = ", ".join(map(literals.text, names))
        con.execute(f"set allowed_paths = [{quoted}]")
    con.execute("set enable_external_access = false")
    con.execute("set lock_configuration = true")


@contextmanager
def engine_errors(path: Path) -> Iterator[None]:
    """Turn DuckDB's errors about the file itself (locked, damaged, disk full) into those of `common.errors`."""
    try:
        yield
    except duckdb.Error as error:
        refusal = _refusal(path, error)
        if refusal is None:
            raise
        raise refusal from error


def reason(error: duckdb.Error) -> str:
    """The engine's message in one line, without its class name, and with what it proposes instead."""
    first, *rest = str(error).strip().splitlines() or [type(error).__name__]
    said = re.sub(r"^\w[\w ]* Error: ", "", first)
    hints = " ".join(filter(None, [*map(_proposed, rest), _candidates(rest)]))
    if not hints:
        return said
    return f"{said} {hints}" if said.endswith((".", "!", "?")) else f"{said}. {hints}"


def _proposed(line: str) -> str:
    """A name for one that does not exist; instead of one that is not public, the closest public relation."""
    if line.startswith("Candidate bindings: "):
        return line.replace('"', "").removesuffix(".") + "."
    meant = _MEANT.match(line)
    if meant is None:
        return ""
    (name,) = meant.groups()
    if "." not in name and not name.startswith(("pg_", "sqlite_", "duckdb_")):
        return f"Did you mean {name}?"
    close = closest(name.split(".")[-1], relations.relations())
    return f"Did you mean {close}?" if close else f"`{command('tables')}` lists the relations."


def _candidates(lines: list[str]) -> str:
    """How the macro or function with other arguments is called, in up to three ways."""
    heads = [place for place, line in enumerate(lines) if line.strip() in ("Candidate macros:", "Candidate functions:")]
    if not heads:
        return ""
    calls = [line.strip() for line in lines[heads[0] + 1 :] if line.startswith("\t")]
    more = f" and {len(calls) - MOST_CALLS} more" if len(calls) > MOST_CALLS else ""
    return f"{lines[heads[0]].strip()} {'; '.join(calls[:MOST_CALLS])}{more}."


def _refusal(path: Path, error: duckdb.Error) -> RareTokensError | None:
    """What an engine error means to a user, if it is about the file and not about a query."""
    text = str(error)
    if _says(error, _LOCKED):
        return LockedError(_locked(path, text))
    if "different configuration than existing connections" in text:
        return LockedError(f"This very process has {path} open in another way. Close that connection first.")
    if "No space left on device" in text:
        return UserError(f"The disk is full, so {path} could not be written. Free some space and run it again.")
    if _says(error, _FAILED):
        return UserError(f"The disk of {path} fails ({reason(error)}). Check it, then run the same command again.")
    if _says(error, _UNUSABLE):
        return UserError(f"{path} is not a DuckDB file, or is damaged: {reason(error)}")
    if _says(error, _NAMED_BY_FACTS):
        return UserError(reason(error))
    if _says(error, _OF_PARQUET) and parquet_facts.folder(path).is_dir():
        return UserError(
            f"A Parquet file in {parquet_facts.folder(path)} cannot be read: {reason(error)} "
            f"`{command('check')}` says which it is."
        )
    if "Permission denied" in text:
        return UserError(f"{path} cannot be opened: permission denied. Check its permissions.")
    return None


def _says(error: duckdb.Error, marks: tuple[str, ...]) -> bool:
    return any(mark in str(error) for mark in marks)


def _check_path(path: Path) -> None:
    require_local(path)
    if "?" in str(path.absolute()):  # the engine reads what follows as URL options
        raise UserError(f"{path} has a question mark in its path, which DuckDB cannot open. Name another file.")
    if not is_utf8(str(path.absolute())):
        raise UserError(f"{path.absolute()} is not UTF-8, and DuckDB cannot open it. Rename the folder or the file.")
    if path.is_dir():
        raise UserError(f"{path} is a folder. A warehouse is a file; name one, such as {path / 'rare_tokens.duckdb'}.")


def _connect_waiting(path: Path, wait: float, config: Config, *, read_only: bool) -> duckdb.DuckDBPyConnection:
    deadline = time.monotonic() + wait
    while True:
        try:
            return connect(path, read_only=read_only, config=config)
        except duckdb.IOException as error:
            if not _says(error, _LOCKED) or time.monotonic() >= deadline:
                raise
        time.sleep(_POLL_SECONDS)


def _locked(path: Path, text: str) -> str:
    holder = re.search(r"PID (\d+)", text)
    who = f"by process {holder[1]}" if holder else "by another process"
    return f"{path} is open {who}. Wait for it to end, or give --wait SECONDS."
