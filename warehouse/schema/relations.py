"""The public relations, read from their SQL files: documentation, definition, and how publishing fills them.

Every file below `sql/marts` (and `sql/audit`) is one relation or macro. Its head comment is its documentation::

    -- NAME: what it is.
    -- One row per GRAIN.            (a macro has instead: Macro NAME(parameters).)
    -- Example: QUERY                (only a macro: a call that works on the run embedded-step6144)
    --   column  what it holds
    --
    -- anything else, kept out of the catalogue

Its ``create`` statements run when a warehouse is made or brought up to date; its ``insert`` statements, if any, run for
each run inside the transaction that publishes it.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import astuple, dataclass, field, fields
from functools import cache
from graphlib import CycleError, TopologicalSorter
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import TYPE_CHECKING

import duckdb

from rare_tokens.common.presets import PRESETS
from rare_tokens.common.run_warnings import RULES
from rare_tokens.warehouse import literals

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_COLUMN = re.compile(r"--   (\w+)  +(.*)")
_MORE = re.compile(r"--     +(.*)")
_EXAMPLE = "-- Example: "
# What a statement defines, what it names (after from and join, or as a function), and its own common table expressions.
_DEFINED = re.compile(r"\s*create or replace (?:view|macro) ((?:store\.)?\w+)")
_NAMED = re.compile(r"\b(?:from|join)\s+((?:\w+\.)?\w+)|\b(\w+)\s*\(")
_PARAMETERS = r"\s*create or replace macro {}\(([^()]*)\)\s*as\b"
_COMMON_TABLE = re.compile(r"(?:\bwith|,)\s+(\w+) as (?:not materialized |materialized )?\(")


@dataclass(frozen=True)
class Relation:
    """A public relation or macro.

    Attributes:
        summary: what it is, one sentence.
        grain: what there is one row per; for a macro, its parameters.
        folder: below `sql/marts` where its file lies; see `groups`.
        example: a query that calls the macro; empty for a view.
        columns: description of each column, in order; empty for a macro that returns a value.
        create: statements that define it.
        publish: statements that fill its stored table for one run.
        parameters: of a macro, in order, each with its default as SQL writes it, or None if it must be given.
    """

    name: str
    is_macro: bool
    summary: str
    grain: str
    folder: str
    example: str
    columns: dict[str, str]
    create: tuple[str, ...]
    publish: tuple[str, ...]
    parameters: dict[str, str | None] = field(default_factory=dict)


@cache
def relations() -> dict[str, Relation]:
    """Every public relation and macro, by name."""
    return _read("marts")


@cache
def audit_relations() -> dict[str, Relation]:
    """The views that data checks read, by name."""
    return _read("audit")


@cache
def digest() -> str:
    """SHA-256 over everything that views and macros are made from."""
    texts = [*(text for part in ("marts", "audit") for _, _, text in _sources(part)), *_tables()]
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


def definitions(*wanted: str) -> list[str]:
    """The statements that define views and macros, in an order in which they can run.

    Args:
        wanted: only these and what they read; empty: all.
    """
    statements = _statements()
    kept = _read_by(wanted) if wanted else statements.keys()
    return [statements[name] for name in in_order({name: named(statements[name]) for name in statements.keys() & kept})]


@cache
def named(statement: str) -> frozenset[str]:
    """The relations and macros that a statement names, except itself; stored ones as `store.NAME`."""
    text = re.sub(r"'[^']*'|--.*", "", statement)
    found = {relation or macro for relation, macro in _NAMED.findall(text)}
    return frozenset(found - set(_COMMON_TABLE.findall(text)) - set(_DEFINED.findall(text)))


def tables_read(statements: Iterable[str]) -> set[str]:
    """The stored tables that statements read, directly or through views and macros, as `store.NAME`."""
    read = _read_by(set[str]().union(*map(named, statements)))
    return {name for name in read if name.startswith("store.") and name not in _statements()}


def _read_by(names: Iterable[str]) -> set[str]:
    """These relations and macros, and those they read, directly or through others."""
    statements, read, left = _statements(), set[str](), set(names)
    while new := left - read:
        read |= new
        left = set[str]().union(*(named(statements[name]) for name in new if name in statements))
    return read


def in_order(needs: Mapping[str, Iterable[str]]) -> list[str]:
    """The keys of `needs`, each after those it needs.

    Raises:
        ValueError: some need one another; the message names them.
    """
    try:
        return list(TopologicalSorter({key: sorted(set(needs[key]) & needs.keys()) for key in needs}).static_order())
    except CycleError as circle:
        raise ValueError(f"in sql/, each of these needs the one before it: {', '.join(circle.args[1])}") from circle


def comments() -> list[str]:
    """The statements that put the documentation of every relation and column into the catalogue."""
    statements = []
    for relation in [*relations().values(), *audit_relations().values()]:
        kind = "view"
        if relation.is_macro:
            kind = "macro table" if relation.columns else "macro"
        text = literals.text(f"{relation.summary} {relation.grain}")
        statements.append(f"comment on {kind} {relation.name} is {text}")
        if not relation.is_macro:
            described = relation.columns.items()
            statements += [
                f"comment on column {relation.name}.{name} is {literals.text(text)}" for name, text in described
            ]
    return statements


def markdown(wanted: Iterable[str] | None = None) -> str:
    """The documentation of public relations as Markdown, for the docs' pages and the card of an export.

    Args:
        wanted: names of relations; None: all, macros too.
    """
    lines = []
    for relation in map(relations().__getitem__, relations() if wanted is None else wanted):
        lines += [f"### `{relation.name}`", "", f"{relation.summary} {relation.grain}", ""]
        if relation.example:
            lines += [f"Example: `{relation.example}`", ""]
        if relation.columns:
            lines += ["| column | |", "|---|---|"]
            lines += [f"| `{name}` | {text.replace('|', chr(92) + '|')} |" for name, text in relation.columns.items()]
            lines.append("")
    return "\n".join(lines)


@cache
def _statements() -> dict[str, str]:
    """The `create` statements of every view and macro, by the name each defines."""
    known = [*relations().values(), *audit_relations().values()]
    texts = [*_tables(), *(text for relation in known for text in relation.create)]
    return {match[1]: text for text in texts if (match := _DEFINED.match(text))}


def _tables() -> list[str]:
    """The statements that show SQL the tables of `common` it needs: presets, rules of warnings."""
    return [_table("store.preset", PRESETS.values()), _table("store.warning_rule", RULES)]


def _table(name: str, rows: "Iterable[DataclassInstance]") -> str:
    """The statement that shows instances of one dataclass as a view, a column per field."""
    every = list(rows)
    values = ",\n".join(f"({', '.join(map(literals.value, astuple(row)))})" for row in every)
    names = ", ".join(item.name for item in fields(every[0]))
    return f"create or replace view {name} as\nselect * from (values\n{values}\n) as one ({names})"


def _sources(part: str) -> list[tuple[str, str, str]]:
    """Name, folder and text of every SQL file of a part (marts, audit), by name."""
    found = sorted(_below(files("rare_tokens.sql") / part, part), key=lambda source: source[1].name)
    return [(path.name.removesuffix(".sql"), folder, path.read_text(encoding="utf-8")) for folder, path in found]


def _below(folder: Traversable, name: str) -> Iterator[tuple[str, Traversable]]:
    for path in folder.iterdir():
        if path.is_dir():
            yield from _below(path, path.name)
        elif path.name.endswith(".sql"):
            yield name, path


def _read(part: str) -> dict[str, Relation]:
    with duckdb.connect() as parser:
        return {name: _parse(parser, name, folder, text) for name, folder, text in _sources(part)}


def _parse(parser: duckdb.DuckDBPyConnection, name: str, folder: str, text: str) -> Relation:
    head = text[: text.index("\n\n")].splitlines()
    if not head[0].startswith(f"-- {name}: ") or not head[1].startswith(("-- One row per ", "-- Macro ")):
        raise ValueError(f"sql file {name}.sql: its head does not say what a row of {name} is")
    example = head.pop(2).removeprefix(_EXAMPLE) if head[2:] and head[2].startswith(_EXAMPLE) else ""
    statements = parser.extract_statements(text)
    create = tuple(item.query for item in statements if item.type == duckdb.StatementType.CREATE)
    return Relation(
        name=name,
        is_macro=head[1].startswith("-- Macro "),
        summary=head[0].removeprefix(f"-- {name}: "),
        grain=head[1].removeprefix("-- "),
        folder=folder,
        example=example,
        columns=_columns(head[2:]),
        create=create,
        publish=tuple(item.query for item in statements if item.type == duckdb.StatementType.INSERT),
        parameters=_parameters(name, create),
    )


def _parameters(name: str, create: tuple[str, ...]) -> dict[str, str | None]:
    pattern = re.compile(_PARAMETERS.format(name))
    for found in filter(None, map(pattern.match, create)):
        pairs = (one.split(":=") for one in found[1].split(","))
        return {first.strip(): rest[0].strip() if rest else None for first, *rest in pairs}
    return {}


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
