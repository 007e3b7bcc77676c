"""The public relations, read from their SQL files: documentation, definition, and how publishing fills them.

Every file below `sql/marts` (and `sql/audit`) is one relation or macro. Its head comment is its documentation::

    -- NAME: what it is.
    -- One row per GRAIN.            (a macro has instead: Macro NAME(parameters).)
    --   column  what it holds
    --
    -- anything else, kept out of the catalogue

Its ``create`` statements are run when a warehouse is made or brought up to date; its ``insert`` statements, if any, are
run for each run inside the transaction that publishes it.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from graphlib import TopologicalSorter
from importlib.resources import files
from importlib.resources.abc import Traversable

import duckdb

_COLUMN = re.compile(r"--   (\w+)  +(.*)")
_TABLE_MACRO = re.compile(r"create or replace macro (\w+)\([^)]*\) as table\b")
_MORE = re.compile(r"--     +(.*)")


@dataclass(frozen=True)
class Relation:
    """A public relation or macro.

    Attributes:
        summary: what it is, one sentence.
        grain: what a row is one of; for a macro, its parameters.
        columns: description of each column, in order; empty for a macro that gives a value.
        create: statements that define it.
        publish: statements that fill its stored table for one run.
    """

    name: str
    is_macro: bool
    summary: str
    grain: str
    columns: dict[str, str]
    create: tuple[str, ...]
    publish: tuple[str, ...]


@cache
def relations() -> dict[str, Relation]:
    """Every public relation and macro, by name."""
    return _read("marts")


@cache
def audit_relations() -> dict[str, Relation]:
    """The views that data checks read, by name; in this order a later one may use an earlier one."""
    return _read("audit")


@cache
def digest() -> str:
    """SHA-256 over every file that views and macros are made from."""
    texts = [text for folder in ("marts", "audit") for _, text in _sources(folder)]
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


def definitions() -> list[str]:
    """The statements that define every view and macro, in an order in which they can be run."""
    statements = [statement for relation in relations().values() for statement in relation.create]
    macros = {found[1]: one for one in statements if (found := _TABLE_MACRO.match(one.strip()))}
    calls = {name: [other for other in macros if other != name and f"{other}(" in macros[name]] for name in macros}
    statements = sorted((one for one in statements if one not in macros.values()), key=_creation_rank)
    statements += [macros[name] for name in TopologicalSorter(calls).static_order()]
    return statements + [statement for view in audit_relations().values() for statement in view.create]


def comments() -> list[str]:
    """The statements that put the documentation of every relation and column into the catalogue."""
    statements = []
    for relation in [*relations().values(), *audit_relations().values()]:
        kind = "view"
        if relation.is_macro:
            kind = "macro table" if relation.columns else "macro"
        text = _quoted(f"{relation.summary} {relation.grain}")
        statements.append(f"comment on {kind} {relation.name} is {text}")
        if not relation.is_macro:
            described = relation.columns.items()
            statements += [f"comment on column {relation.name}.{name} is {_quoted(text)}" for name, text in described]
    return statements


def markdown() -> str:
    """The documentation of every public relation as Markdown: what the pages of the docs are made from."""
    lines = []
    for relation in relations().values():
        lines += [f"### `{relation.name}`", "", f"{relation.summary} {relation.grain}", ""]
        if relation.columns:
            lines += ["| column | |", "|---|---|"]
            lines += [f"| `{name}` | {text.replace('|', chr(92) + '|')} |" for name, text in relation.columns.items()]
            lines.append("")
    return "\n".join(lines)


def _sources(folder: str) -> list[tuple[str, str]]:
    """Name and text of every SQL file below a folder, by name."""
    found = sorted(_below(files("rare_tokens.sql") / folder), key=lambda path: path.name)
    return [(path.name.removesuffix(".sql"), path.read_text(encoding="utf-8")) for path in found]


def _below(folder: Traversable) -> Iterator[Traversable]:
    for path in folder.iterdir():
        if path.is_dir():
            yield from _below(path)
        elif path.name.endswith(".sql"):
            yield path


def _read(folder: str) -> dict[str, Relation]:
    with duckdb.connect() as parser:
        return {name: _parse(parser, name, text) for name, text in _sources(folder)}


def _parse(parser: duckdb.DuckDBPyConnection, name: str, text: str) -> Relation:
    head = text[: text.index("\n\n")].splitlines()
    if not head[0].startswith(f"-- {name}: ") or not head[1].startswith(("-- One row per ", "-- Macro ")):
        raise ValueError(f"sql file {name}.sql: its head does not say what a row of {name} is")
    statements = parser.extract_statements(text)
    return Relation(
        name=name,
        is_macro=head[1].startswith("-- Macro "),
        summary=head[0].removeprefix(f"-- {name}: "),
        grain=head[1].removeprefix("-- "),
        columns=_columns(head[2:]),
        create=tuple(item.query for item in statements if item.type == duckdb.StatementType.CREATE),
        publish=tuple(item.query for item in statements if item.type == duckdb.StatementType.INSERT),
    )


def _columns(lines: list[str]) -> dict[str, str]:
    columns: dict[str, str] = {}
    for line in lines:
        if more := _MORE.fullmatch(line):
            last = next(reversed(columns))
            columns[last] += " " + more[1]
        elif column := _COLUMN.fullmatch(line):
            columns[column[1]] = column[2]
        else:
            break
    return columns


def _creation_rank(statement: str) -> int:
    """Scalar macros stand alone; views use them; public views use the stored ones. (Table macros use them all.)"""
    first_line = statement.strip().splitlines()[0]
    if " macro " in first_line:
        return 0
    return 1 if " view store." in first_line else 2


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
