"""Makes `relation_names.pyi`, which tells type checkers and editors the relations, their columns and parameters.

It follows from the SQL files. After a change to a relation: ``python -m rare_tokens.warehouse.client.stub``.
"""

import textwrap
from inspect import Parameter
from pathlib import Path

import duckdb

from rare_tokens.warehouse import catalogue
from rare_tokens.warehouse.client.asked import signature
from rare_tokens.warehouse.client.relation_names import shown
from rare_tokens.warehouse.connection import reading
from rare_tokens.warehouse.schema import relations
from rare_tokens.warehouse.schema.relations import Relation

STUB = Path(__file__).with_name("relation_names.pyi")
_HEAD = '''"""Every public relation, for type checkers and editors. Made by `stub.py` from the SQL files."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from datetime import datetime
from typing import SupportsIndex, TypeAlias, TypeVar

import polars as pl

from rare_tokens.common.errors import UserError
from rare_tokens.warehouse.client.relation_method import Described
from rare_tokens.warehouse.schema.relations import Relation

_T = TypeVar("_T")
# One value, several of which any will do, or NULL.
_Of: TypeAlias = _T | Iterable[_T] | None

class UnknownRelationError(UserError, AttributeError): ...

def shown() -> list[str]: ...
'''
_TYPES = {"VARCHAR": "str", "BOOLEAN": "bool", "FLOAT": "float", "DOUBLE": "float", "TIMESTAMP": "datetime"}
_WIDTH = 116


def stub() -> str:
    """The text of the stubs."""
    with reading(Path("no warehouse.duckdb")) as con:
        found = [(relations.relations()[name], _types(con, relations.relations()[name])) for name in shown()]
    classes = [_class(relation, types) for relation, types in found]
    names = [_attribute(relation) for relation, _ in found]
    last = "class RelationNames(ABC):\n    @abstractmethod\n    def _method(self, relation: Relation) -> Described: ..."
    return "\n".join([_HEAD, *classes, last, *names])


def _types(con: duckdb.DuckDBPyConnection, relation: Relation) -> dict[str, str]:
    return {column.name: _python(column.type) for column in catalogue.columns(con, relation)} | {"run": "str"}


def _python(sql: str) -> str:
    if sql.endswith(("INT", "INTEGER")):
        return "SupportsIndex"  # numpy's integers too
    return _TYPES.get(sql, "object")


def _class(relation: Relation, types: dict[str, str]) -> str:
    lines = [f"class _{relation.name}(Described):", "    def __call__(", "        self,"]
    by_name_only = False
    for parameter in signature(relation).parameters.values():
        if parameter.kind is Parameter.KEYWORD_ONLY and not by_name_only:
            by_name_only = True
            lines.append("        *,")
        lines.append(f"        {parameter.name}: {_annotation(parameter, types)},")
    return "\n".join([*lines, "    ) -> pl.DataFrame: ...", ""])


def _annotation(parameter: Parameter, types: dict[str, str]) -> str:
    if parameter.kind is Parameter.KEYWORD_ONLY:
        kind = types[parameter.name]
        return "object = ..." if kind == "object" else f"_Of[{kind}] = ..."
    if parameter.name == "runs":
        return "str | Iterable[str]"
    if parameter.default is Parameter.empty:
        return types.get(parameter.name, "object")
    return f"{type(parameter.default).__name__} = {parameter.default!r}"


def _attribute(relation: Relation) -> str:
    text = textwrap.wrap(f'"""{relation.summary} {relation.grain}"""', _WIDTH - 8)
    if len(text) > 1:  # as the formatter has it: the quotes on a line of their own
        text = [*text[:-1], text[-1].removesuffix('"""'), '"""']
    documented = "\n".join(f"        {line}".rstrip() for line in text)
    return f"    @property\n    def {relation.name}(self) -> _{relation.name}:\n{documented}\n"


if __name__ == "__main__":
    STUB.write_text(stub(), encoding="utf-8")
