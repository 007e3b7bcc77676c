"""What a call of a relation asks for: values for its parameters and columns, checked and written as a query."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from inspect import Parameter, Signature
from typing import Any

import duckdb

from rare_tokens.common.closest import hint
from rare_tokens.common.errors import UserError
from rare_tokens.common.presets import PRESETS
from rare_tokens.warehouse import literals
from rare_tokens.warehouse.runs import find
from rare_tokens.warehouse.schema.relations import Relation

# A macro's parameter may not have a column's name in SQL. In Python it has; the name in SQL is understood too.
IN_PYTHON = {
    "neuron_index": "neuron",
    "token_text": "text",
    "preset_name": "preset",
    "of_statistic": "statistic",
    "of_role": "role",
}


class _Any:
    """The default of a column: any value."""

    def __repr__(self) -> str:
        """As a signature shows it."""
        return "any"


ANY = _Any()
# Columns with the same few values in every relation.
_CLOSED = {"preset": tuple(PRESETS), "token_group": ("rare", "common")}


@dataclass(frozen=True)
class Asked:
    """A call as a query.

    Attributes:
        values: of the query's `$name` places.
        is_of_one_run: exactly one run was asked for, so that run_id says nothing new.
    """

    query: str
    values: dict[str, Any]
    is_of_one_run: bool


def signature(relation: Relation) -> Signature:
    """How a relation is called: a macro's parameters, then, by keyword only, `run` and the columns.

    A column's default is `ANY`.
    """
    given = [
        Parameter(IN_PYTHON.get(name, name), Parameter.POSITIONAL_OR_KEYWORD, default=_default(default))
        for name, default in relation.parameters.items()
    ]
    taken = {parameter.name for parameter in given}
    columns = [name for name in relation.columns if name not in taken]
    if {"run", "runs"} & taken:
        columns.remove("run_id")
    elif "run_id" in columns:
        columns.insert(0, "run")
    chosen = [Parameter(name, Parameter.KEYWORD_ONLY, default=ANY) for name in columns]
    return Signature([*given, *chosen], return_annotation="pl.DataFrame")


def asked(
    con: duckdb.DuckDBPyConnection, relation: Relation, arguments: tuple[Any, ...], named: dict[str, Any]
) -> Asked:
    """The query of a call.

    Args:
        arguments: values of a macro's first parameters.
        named: values of its other parameters, and of columns: one value, several (any of them), or None for NULL.

    Raises:
        UserError: there is no such column, parameter, run, neuron, preset or token group, or a parameter is missing.
    """
    given = {name: _plain(value) for name, value in _by_name(relation, arguments, named).items()}
    given = {name: value for name, value in given.items() if value is not ANY}
    runs = _runs(con, relation, given)
    for name, known in _CLOSED.items():
        _require_known(name, given.get(name), known)
    _require_neurons(con, given.get("neuron"), runs)
    places = {name: IN_PYTHON.get(name, name) for name in relation.parameters}
    arguments_of = [
        f"{sql} := ${name}" if default is not None else f"${name}"
        for (sql, default), name in zip(relation.parameters.items(), places.values(), strict=True)
        if name in given
    ]
    conditions = [_condition(name, value) for name, value in given.items() if name not in places.values()] or ["true"]
    source = f"{relation.name}({', '.join(arguments_of)})" if relation.is_macro else relation.name
    bound = {name: value for name, value in given.items() if name in places.values() or value is not None}
    return Asked(f"select * from {source} where {' and '.join(conditions)}", bound, len(set(runs)) == 1)


def _by_name(relation: Relation, arguments: tuple[Any, ...], named: dict[str, Any]) -> dict[str, Any]:
    """Every given value by its name in `signature`."""
    known = signature(relation).parameters
    ordered = [name for name, parameter in known.items() if parameter.kind is Parameter.POSITIONAL_OR_KEYWORD]
    if len(arguments) > len(ordered):
        takes = f"by place {', '.join(ordered)}" if ordered else "values by name only, such as run=…"
        raise UserError(f"{relation.name} takes {takes}; {len(arguments)} values were given by place.")
    given = dict(zip(ordered, arguments, strict=False))
    for spelled, value in named.items():
        name = IN_PYTHON.get(spelled, spelled) if spelled in relation.parameters else spelled
        name = "runs" if name == "run" and "runs" in relation.parameters else name
        if name in given:
            raise UserError(f"{relation.name}: {name} is given twice.")
        if name not in known:
            raise UserError(_unknown(relation, name, list(known)))
        given[name] = value
    if missing := [name for name in ordered if known[name].default is Parameter.empty and name not in given]:
        raise UserError(f"{relation.name} needs {' and '.join(missing)}: {relation.name}({', '.join(ordered)}).")
    return given


def _unknown(relation: Relation, name: str, known: list[str]) -> str:
    if relation.is_macro:
        return f"{relation.name} has no parameter or column {name}.{hint(name, known)} It has {', '.join(known)}."
    column = "run_id" if name == "run" else name
    near = "" if name == "run" else hint(name, known)
    return f"{relation.name} has no column {column}.{near} It has {', '.join(relation.columns)}."


def _runs(con: duckdb.DuckDBPyConnection, relation: Relation, given: dict[str, Any]) -> list[str]:
    """The ids of the runs asked for, put in the place of their starts; none if any run will do."""
    if "runs" in relation.parameters:
        wanted = given["runs"] if isinstance(given["runs"], list) else [given["runs"]]
        given["runs"] = [_found(con, one) for one in wanted]
        return list(given["runs"])
    if "run" in relation.parameters:
        if isinstance(given["run"], list):
            raise UserError(f"{relation.name} takes one run, not {len(given['run'])}: call it once for each.")
        given["run"] = _found(con, given["run"])
        return [given["run"]]
    start = given.pop("run", None)
    if start is not None:
        if "run_id" in given:
            raise UserError(f"{relation.name}: give run (an id or its start) or run_id (as it stands), not both.")
        found = [_found(con, one) for one in start] if isinstance(start, list) else _found(con, start)
        given["run_id"] = found
    runs = given.get("run_id")
    return [] if runs is None else runs if isinstance(runs, list) else [runs]


def _found(con: duckdb.DuckDBPyConnection, start: Any) -> str:
    if not isinstance(start, str):
        raise UserError(f"A run is named by its id or the start of it, a text, not by {start!r}.")
    return find(con, start)


def _require_known(column: str, value: Any, known: tuple[str, ...]) -> None:
    for one in value if isinstance(value, list) else [value]:
        if one is not None and one not in known:
            raise UserError(f"There is no {column} {one!r}.{hint(str(one), known)} There are {', '.join(known)}.")


def _require_neurons(con: duckdb.DuckDBPyConnection, value: Any, runs: list[str]) -> None:
    """Refuse a neuron that none of the runs has (no run: of the warehouse)."""
    wanted = [one for one in (value if isinstance(value, list) else [value]) if one is not None]
    if not wanted:
        return
    chosen = "where run_id in $runs" if runs else ""
    query = f"select max(neurons) from store.run {chosen}"
    ((neurons,),) = con.execute(query, {"runs": runs} if runs else None).fetchall()
    if neurons is None:
        return
    for one in wanted:
        if isinstance(one, bool) or not isinstance(one, int) or not 0 <= one < neurons:
            whose = runs[0] if len(runs) == 1 else "the largest layer here"
            raise UserError(f"There is no neuron {one!r}: those of {whose} are 0 to {neurons - 1}.")


def _condition(name: str, value: Any) -> str:
    column = literals.name(name)
    if value is None:
        return f"{column} is null"
    if isinstance(value, list):
        return f"({column} in ${name} or {column} is null)" if None in value else f"{column} in ${name}"
    return f"{column} = ${name}"


def _plain(value: Any) -> Any:
    """A value as Python's own; several, in whatever they came (a list, a set, a column, an array), as a list."""
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        return value.item() if hasattr(value, "item") else value  # numpy's scalars
    return [_plain(one) for one in value]


def _default(sql: str | None) -> Any:
    """The value of a default as SQL writes it: a number, true, false or a text."""
    if sql is None:
        return Parameter.empty
    return sql[1:-1].replace("''", "'") if sql.startswith("'") else json.loads(sql)
