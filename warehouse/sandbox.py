"""Runs SQL that a user typed: only queries, on a read-only file, in a process of its own that can be stopped.

There are three walls, each enough for most attempts. The text must parse as one query, over relations and not files.
The engine opens the file read-only, with its settings locked and no access to anything outside but the Parquet files of
its own facts. The process's memory is limited, and it is killed when its time is up: the engine itself does not stop
within one function call, such as making a list of a billion numbers.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from datetime import MAXYEAR, MINYEAR
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import psutil
import pyarrow as pa
import pyarrow.compute as pc

from rare_tokens.common.errors import LockedError, RareTokensError, UserError
from rare_tokens.common.files import IMPORT_ROOT
from rare_tokens.common.program import command
from rare_tokens.warehouse import literals
from rare_tokens.warehouse.connection import WRITE_CONFIG, Config, open_read_only, reason
from rare_tokens.warehouse.schema import migrations

if TYPE_CHECKING:
    import polars as pl

# How long after the engine's own time limit the process is killed, as it hangs in a call that cannot be stopped.
GRACE_SECONDS = 2.0
_CHILD = "from rare_tokens.warehouse.sandbox import child; child()"
_EXPLAIN = re.compile(r"\s*explain\s+(?:analyze\s+)?", re.IGNORECASE)
# Types for which Polars has no column, alone or inside another.
_ODD_TYPES = re.compile(r"INTERVAL|UNION|BIGNUM|VARINT|VARIANT|BIT\b|TIME WITH TIME ZONE|GEOMETRY")
_MOST_SPILLED = "10GiB"
_QUERIES = {duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN}
# A PIVOT whose columns come from the data is several statements to the engine, within whatever else it is part of.
_BEGINS_QUERY = re.compile(
    r"(?:\s|--[^\n]*\n|/\*.*?\*/|\()*(?:explain\s+(?:analyze\s+)?)?(?:select|from|with|pivot|describe|summarize)",
    re.IGNORECASE | re.DOTALL,
)
_CHANGES = re.compile(r"\b(insert|update|delete|merge|copy|create)\b", re.IGNORECASE)
_QUOTED = re.compile(r"'(?:[^']|'')*'")
# The engine lists table functions whose first parameter is a file; this one runs any text as a query.
_OF_ANY_TEXT = "json_execute_serialized_sql"
_FILE_NAME = re.compile(r"[/\\]|\.(parquet|csv|tsv|json|jsonl|ndjson|txt|duckdb|db|gz|zst)\b", re.IGNORECASE)
_REFUSALS: dict[str, type[RareTokensError]] = {"UserError": UserError, "LockedError": LockedError}


def run_sql(path: Path, text: str, timeout: float = 60.0, *, wait: float = 0.0) -> "pl.DataFrame":
    """The result of one query, run where it can do no harm.

    Args:
        path: the warehouse; an absent one reads as an empty one.
        text: one statement: SELECT (also FROM …, VALUES, SUMMARIZE), DESCRIBE, SHOW or EXPLAIN.
        timeout: seconds after which the query is stopped.
        wait: seconds to wait for a process that is writing to the warehouse.

    Raises:
        UserError: the text is not a query, does not parse or bind, fails, needs too much memory, or takes too long.
        LockedError: another process is writing to the warehouse.
    """
    import polars as pl

    if timeout <= 0:
        raise UserError(f"A query needs more than {timeout:g} s. Give a --timeout above 0.")
    request = json.dumps({"path": str(path.absolute()), "text": text, "timeout": timeout, "wait": wait})
    search = os.pathsep.join([str(IMPORT_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    limit = timeout + wait + GRACE_SECONDS
    try:
        done = subprocess.run(  # noqa: S603  our own interpreter and code; the user's text goes through stdin
            [sys.executable, "-P", "-c", _CHILD],  # -P: no module from the working directory
            input=request.encode(),
            capture_output=True,
            timeout=limit,
            env=os.environ | {"PYTHONPATH": search},
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise UserError(_too_long(timeout)) from error
    if done.returncode == 0:
        return pl.read_ipc_stream(BytesIO(done.stdout))
    try:
        refusal = json.loads(done.stderr.splitlines()[-1])
    except (ValueError, IndexError):
        # Killed by the system for its memory, or the engine crashed: either way the query caused it.
        raise UserError(f"The query was stopped: its process ended with {done.returncode}. Ask for less.") from None
    raise _REFUSALS[refusal["kind"]](refusal["message"])


def child() -> None:
    """Run the request on stdin: the result goes to stdout as an Arrow stream, a refusal to stderr as JSON."""
    request = json.load(sys.stdin)
    _limit_memory()
    try:
        table = answer(Path(request["path"]), request["text"], request["timeout"], request["wait"])
    except (UserError, LockedError) as error:
        json.dump({"kind": type(error).__name__, "message": str(error)}, sys.stderr)
        sys.exit(1)
    with pa.ipc.new_stream(sys.stdout.buffer, table.schema) as stream:
        stream.write_table(table)


def query_of(con: duckdb.DuckDBPyConnection, text: str) -> str:
    """The one query that a text holds.

    Raises:
        UserError: it does not parse, or does not hold exactly one statement that is a query.
    """
    try:
        statements = con.extract_statements(text)
        kinds = [statement.type for statement in statements]
    except duckdb.Error as error:
        raise UserError(f"The SQL does not parse: {reason(error)}") from error
    except ValueError as error:  # a kind of statement without a name in the Python client
        raise UserError(_only_queries()) from error
    if len(statements) != 1:
        raise UserError(f"One query at a time: this text holds {len(statements)} statements.")
    (statement,) = statements
    if kinds[0] not in _QUERIES and not _is_pivot(statement):
        raise UserError(_only_queries())
    if kinds[0] == duckdb.StatementType.EXPLAIN:
        begin = _EXPLAIN.match(statement.query)
        if begin is None:
            raise UserError("Write EXPLAIN or EXPLAIN ANALYZE directly before the query, without options.")
        query_of(con, statement.query[begin.end() :])
    else:
        _refuse_files(con, statement.query)
    return statement.query


def _is_pivot(statement: duckdb.Statement) -> bool:
    """Whether a statement is a query with a PIVOT whose columns come from the data."""
    if statement.type != duckdb.StatementType.MULTI:
        return False
    text = _QUOTED.sub("''", statement.query)
    return bool(_BEGINS_QUERY.match(text)) and not _CHANGES.search(text)


def _refuse_files(con: duckdb.DuckDBPyConnection, query: str) -> None:
    """Refuse a query that names a file, or runs a text as a query: the engine may read the facts' own Parquet files."""
    ((listed, text),) = con.execute(
        "select list(distinct function_name), json_serialize_sql($query) from duckdb_functions()"
        " where function_type = 'table' and parameters[1] in ('path', 'paths', 'pattern', 'file')",
        {"query": query},
    ).fetchall()
    readers = {*listed, _OF_ANY_TEXT}
    try:
        tree = json.loads(text)
    except RecursionError as error:
        raise UserError("The query is nested too deeply. Write it with fewer levels.") from error
    if tree["error"]:  # PIVOT, which has no tree: any mention counts
        functions = set(re.findall(r"[\w.]+", query.lower()))
        names = functions | {text for text in _QUOTED.findall(query) if re.search(r"[/\\]", text)}
        queries: list[str] = []
        readers |= {"query", "query_table"}
    else:
        functions, names, queries = _called_and_read(tree)
    if refused := sorted(functions & readers) or sorted(filter(_FILE_NAME.search, names)):
        raise UserError(
            f"Files are not read here: {refused[0][:200]!r}. `{command('tables')}` lists the relations that are."
        )
    for inner in queries:
        query_of(con, inner)


def _called_and_read(tree: dict[str, Any]) -> tuple[set[str], set[str], list[str]]:
    """What a parsed query does: functions that it calls, tables that it reads but does not define, and queries that it
    holds as texts.
    """
    functions, tables, made, queries = set[str](), set[str](), set[str](), list[str]()
    rest: list[Any] = [tree]
    while rest:
        node = rest.pop()
        values: Any = node if isinstance(node, list) else node.values()
        if isinstance(node, dict):
            function = str(node.get("function_name", "")).lower()
            functions.add(function)
            if function == "query":
                queries += _texts(node)
            elif function == "query_table":
                tables |= set(_texts(node))
            tables.add(str(node.get("table_name", "")))
            made |= {item["key"] for item in (node.get("cte_map") or {}).get("map", [])}
        rest += [value for value in values if isinstance(value, dict | list)]
    return functions, tables - made, queries


def _texts(call: dict[str, Any]) -> list[str]:
    """The arguments of a call, which must be literal texts or lists of them."""
    texts, rest = [], [argument["expression"] for argument in call["arguments"]]
    while rest:
        argument = rest.pop()
        literal = argument.get("literal", {})
        if argument.get("function_name") == "list_value":
            rest += [item["expression"] for item in argument["arguments"]]
        elif literal.get("kind") == "STRING":
            texts.append(literal["text"])
        else:
            raise UserError(f"{call['function_name']} only runs with its texts written out. Put them into the query.")
    return texts


def to_arrow(con: duckdb.DuckDBPyConnection, query: str, parameters: dict[str, Any] | None = None) -> pa.Table:
    """The result of a query, every column with a type and name that a Polars frame can have.

    Intervals, unions, variants and the like become text; a repeated name gets a number.

    Raises:
        UserError: the query does not bind or fails.
    """
    try:
        relation = con.sql(query, params=parameters)
        names, types = relation.columns, [str(kind) for kind in relation.types]
        odd = [bool(_ODD_TYPES.search(kind)) for kind in types]
        if any(odd) and len(set(names)) == len(names):
            quoted = [literals.name(name) for name in names]
            texts = [f"{name}::varchar as {name}" if is_odd else name for name, is_odd in zip(quoted, odd, strict=True)]
            relation = relation.project(", ".join(texts))
        elif any(odd):
            raise UserError("The query gives two columns the same name. Name them with `as`.")
        table = relation.to_arrow_table()
    except duckdb.OutOfMemoryException as error:
        raise UserError("The query needs more memory than this machine can give it. Ask for less.") from error
    except duckdb.Error as error:
        raise UserError(f"The query failed: {reason(error)}") from error
    _refuse_far_dates(table)
    return table.rename_columns(_distinct(names))


def answer(path: Path, text: str, timeout: float = 60.0, wait: float = 0.0) -> pa.Table:
    """As `run_sql`, but in this process: two of the three walls."""
    if path.exists():
        return _run(path, text, timeout, wait)
    with tempfile.TemporaryDirectory() as folder:  # an empty warehouse in a file, so that it too is read-only
        empty = Path(folder) / "empty.duckdb"
        with duckdb.connect(empty, config=WRITE_CONFIG) as con:
            migrations.migrate(con, empty)
        return _run(empty, text, timeout, wait)


def _run(path: Path, text: str, timeout: float, wait: float) -> pa.Table:
    limits: Config = {
        "max_execution_time": max(1, round(1000 * timeout)),
        "memory_limit": f"{psutil.virtual_memory().total // 2}B",
        "max_temp_directory_size": _MOST_SPILLED,
    }
    with open_read_only(path, wait=wait, limits=limits) as con:
        query = query_of(con, text)
        try:
            return to_arrow(con, query)
        except UserError as error:
            if isinstance(error.__cause__, duckdb.InterruptException):
                raise UserError(_too_long(timeout)) from error
            raise


def _limit_memory() -> None:
    """Let allocations beyond three quarters of the machine's memory fail, if the system supports that."""
    try:
        import resource
    except ImportError:  # Windows
        return
    most = psutil.virtual_memory().total * 3 // 4
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _refuse_far_dates(table: pa.Table) -> None:
    """Refuse dates that Python lacks, which Polars cannot print."""
    for name, column in zip(table.column_names, table.columns, strict=True):
        if pa.types.is_date(column.type) or pa.types.is_timestamp(column.type):
            years = pc.min_max(pc.year(column))
            ends = [end for end in (years["min"].as_py(), years["max"].as_py()) if end is not None]
            if any(not MINYEAR <= end <= MAXYEAR for end in ends):
                raise UserError(f"Column {name} holds a date outside the years 1 to 9999. Cast it to varchar.")


def _distinct(names: list[str]) -> list[str]:
    distinct: list[str] = []
    for name in names:
        number, free = 1, name
        while free in distinct:
            free, number = f"{name}_{number}", number + 1
        distinct.append(free)
    return distinct


def _only_queries() -> str:
    return "Only queries are run: SELECT, FROM, VALUES, PIVOT, UNPIVOT, DESCRIBE, SUMMARIZE, SHOW, EXPLAIN."


def _too_long(timeout: float) -> str:
    return f"The query took more than {timeout:g} s and was stopped. Ask for less, or give more with --timeout SECONDS."
