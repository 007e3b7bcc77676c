"""The schema of a warehouse: ordered migrations of its stored tables, then the views and macros over them."""

import re
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import duckdb

from rare_tokens.common.errors import UserError
from rare_tokens.common.program import command
from rare_tokens.warehouse.schema import relations
from rare_tokens.warehouse.store import parquet_facts


def known() -> list[tuple[int, str, str]]:
    """The migrations of this version, in order: number, name, SQL. Numbers run 1, 2, 3 … without gaps."""
    named = [
        (path, re.fullmatch(r"(\d{3})_(\w+)\.sql", path.name))
        for path in (files("rare_tokens.sql") / "schema").iterdir()
    ]
    return sorted((int(match[1]), match[2], path.read_text(encoding="utf-8")) for path, match in named if match)


def make_or_check(con: duckdb.DuckDBPyConnection, path: Path) -> None:
    """Turn a new, empty file into a warehouse; check that any other is one of this version.

    Raises:
        UserError: as `check` and `migrate`.
    """
    if _applied(con):
        check(con, path)
    else:
        migrate(con, path)


def check(con: duckdb.DuckDBPyConnection, path: Path) -> None:
    """Check that an open file is a warehouse of this version.

    Raises:
        UserError: it is not a warehouse, or an older or newer version wrote it.
    """
    applied = _applied(con)
    if not applied:
        raise UserError(f"{path} is a DuckDB file but not a rare-tokens warehouse. Name another file.")
    _refuse_newer(applied, path)
    if applied[-1] < known()[-1][0] or _digest(con) != relations.digest():
        raise UserError(
            f"{path} was written by another version of this program. Run `{command('migrate')}` on it once."
        )


def migrate(
    con: duckdb.DuckDBPyConnection,
    path: Path,
    *,
    then: Callable[[duckdb.DuckDBPyConnection], None] | None = None,
) -> list[str]:
    """Bring an open, writable file to this version, in one transaction; return the names of what was applied.

    Args:
        con: the file.
        path: its path.
        then: computes what the runs in it need anew, within the same transaction.

    Raises:
        UserError: the file holds something other than a warehouse, or a newer version wrote it.
    """
    applied = _applied(con)
    _refuse_newer(applied, path)
    if not applied and con.execute("select table_name from duckdb_tables()").fetchall():
        raise UserError(f"{path} is a DuckDB file with other tables, not a warehouse. Name another file.")
    pending = [migration for migration in known() if migration[0] not in applied]
    if not pending and _digest(con) == relations.digest():
        return []
    con.execute("begin")
    _apply(con, pending)
    _define(con)
    for statement in relations.comments():
        con.execute(statement)
    if then is not None:
        then(con)
    con.execute("commit")
    return [f"{number:03d}_{name}" for number, name, _ in pending] + ["views"]


def make_views(con: duckdb.DuckDBPyConnection, *wanted: str) -> None:
    """Make every stored table in an empty database, but only these views and macros and those they read.

    For short use: making all of them takes many times as long.
    """
    _apply(con, known())
    for statement in relations.definitions(*wanted):
        con.execute(statement)


def _apply(con: duckdb.DuckDBPyConnection, pending: list[tuple[int, str, str]]) -> None:
    for number, name, text in pending:
        con.execute(text)
        values = {"number": number, "name": name}
        con.execute("insert into store.migration values ($number, $name, now() at time zone 'utc')", values)


def _define(con: duckdb.DuckDBPyConnection) -> None:
    """Replace every view and macro with those of this version."""
    views = "select format('drop view {}.{}', schema_name, view_name) from duckdb_views() where not internal"
    macros = (
        "select distinct format('drop {} {}', replace(function_type, 'table_macro', 'macro table'), function_name)"
        " from duckdb_functions() where not internal and function_type in ('macro', 'table_macro')"
    )
    for (statement,) in con.execute(f"{macros} union all {views}").fetchall():
        con.execute(statement)
    for statement in relations.definitions():
        con.execute(statement)
    parquet_facts.define(con)
    con.execute("delete from store.catalogue")
    con.execute("insert into store.catalogue values ($digest)", {"digest": relations.digest()})


def _applied(con: duckdb.DuckDBPyConnection) -> list[int]:
    is_migration = "schema_name = 'store' and table_name = 'migration'"
    if not con.execute(f"select table_name from duckdb_tables() where {is_migration}").fetchall():
        return []
    return [number for (number,) in con.execute("select number from store.migration order by number").fetchall()]


def _digest(con: duckdb.DuckDBPyConnection) -> str | None:
    if not _applied(con):
        return None
    rows = con.execute("select digest from store.catalogue").fetchall()
    return rows[0][0] if rows else None


def _refuse_newer(applied: list[int], path: Path) -> None:
    newest = known()[-1][0]
    if applied and applied[-1] > newest:
        raise UserError(
            f"{path} has schema {applied[-1]}, but this version knows only up to {newest}. Upgrade rare-token-neurons."
        )
