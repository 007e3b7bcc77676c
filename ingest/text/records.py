"""The text of a record: which field holds it, and what to say where none does.

No field is guessed. A record without the wanted field is refused with the fields that could be meant: JSON records,
columns of a table and features of a data set are described the same way.
"""

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import pyarrow as pa

from rare_tokens.common.errors import UserError

TEXT = "text"

_STRING, _CHAT, _RECORDS, _STRINGS, _OTHER = "", "chat", "a list of records", "a list of strings", "no string"
_SHOWN = 6  # fields named in a message
_LONGEST_NAME = 40  # characters
_DEEPEST = 3  # levels of nested records that are looked at
_TURNS = ({"role", "content"}, {"from", "value"})  # keys of one turn of a chat
_IN_WORDS = {bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object"}


@dataclass(frozen=True)
class TextField:
    """The field that holds the text of a record.

    Attributes:
        name: of the field; `a.b` is the field `b` of the field `a`, where there is no field `a.b`.
        remedy: how another is named, with `{}` for its name.
    """

    name: str = TEXT
    remedy: str = "--text-field {}"

    def text(self, record: Any, place: str) -> str | None:
        """The record's text, None where it is null; `place` names the record in a refusal.

        Raises:
            UserError: it is no record, lacks the field, or holds no text there.
        """
        if not isinstance(record, Mapping):
            raise UserError(f"{place} is no JSON object with a field `{self.name}`.")
        try:
            value = _value(record, self.name)
        except KeyError:
            self._refuse(dict(_fields(record)), place, "is a chat record")
        if value is None:
            return None
        if not isinstance(value, str):
            kind = _IN_WORDS.get(type(value), type(value).__name__)
            raise UserError(f"{place}: the field `{self.name}` is {kind}, not a string.{self._others(record)}")
        try:
            value.encode()
        except UnicodeEncodeError as error:
            half = f"{place}: the field `{self.name}` holds half a surrogate pair, which is no character."
            raise UserError(half) from error
        return value

    def column(self, columns: pa.Schema, place: str) -> list[str]:
        """The column that holds the text and the fields within it, from the outside in.

        Raises:
            UserError: there is none, or it holds no strings.
        """
        path = _column_path(columns, self.name)
        if path is None:
            self._refuse(dict(_columns(columns)), place, "holds chat records")
        kind = _type_at(columns, path)
        if not _is_string(kind):
            raise UserError(f"{place}: the column `{self.name}` holds no strings but {str(kind)[:80]}.")
        return path

    def _refuse(self, fields: Mapping[str, str], place: str, is_chat: str) -> NoReturn:
        """Say that the field is lacking and which there are, by name with their kinds."""
        strings = [name for name, kind in fields.items() if kind == _STRING]
        chat = next((name for name, kind in fields.items() if kind == _CHAT), None)
        if chat is not None:
            said = (
                f"{place} {is_chat} (`{chat}` is a list of turns) without a field `{self.name}`, and a chat is no "
                "single text. Write each conversation as one string in a field `text`"
            )
        elif strings:
            said = f"{place} has no field `{self.name}`. Name the one that holds the text"
        else:
            there = [f"{_cut(name)} ({kind})" for name, kind in list(fields.items())[:_SHOWN]]
            said = f"{place} has no field `{self.name}` and no string field (it has: {', '.join(there) or 'none'}). "
            raise UserError(said + "Write each text as one string in a field `text`.")
        named = (", or name a field" if chat and strings else "") + self._named(strings)
        raise UserError(said + named + ".")

    def _named(self, strings: list[str]) -> str:
        if not strings:
            return ""
        shown = [f"`{_cut(name)}`" for name in strings[:_SHOWN]] + ["…"] * (len(strings) > _SHOWN)
        return f": {self.remedy.format(shlex.quote(_cut(strings[0])))}. String fields: {', '.join(shown)}"

    def _others(self, record: Mapping[str, Any]) -> str:
        strings = [name for name, kind in _fields(record) if kind == _STRING]
        return f" Name the one that holds the text{self._named(strings)}." if strings else ""


def _value(record: Mapping[str, Any], name: str) -> Any:
    """The value of a field, None where a record around it is null; KeyError where there is none."""
    if name in record:
        return record[name]
    outer, dot, inner = name.partition(".")
    if not dot or outer not in record:
        raise KeyError(name)
    around = record[outer]
    if around is None:
        return None
    if not isinstance(around, Mapping):
        raise KeyError(name)
    return _value(around, inner)


def _fields(record: Mapping[str, Any], before: str = "", depth: int = 1) -> Iterator[tuple[str, str]]:
    """The fields of a record and of the records in it, each with its kind."""
    for name, value in record.items():
        full = before + str(name)
        if isinstance(value, Mapping) and depth < _DEEPEST:
            yield from _fields(value, full + ".", depth + 1)
        elif isinstance(value, str):
            yield full, _STRING
        elif isinstance(value, list) and value:
            yield full, _list_kind(value[0])
        else:
            yield full, _OTHER


def _list_kind(first: Any) -> str:
    if isinstance(first, Mapping):
        return _CHAT if any(turn <= first.keys() for turn in _TURNS) else _RECORDS
    return _STRINGS if isinstance(first, str) else "a list"


def _columns(columns: Any, before: str = "", depth: int = 1) -> Iterator[tuple[str, str]]:
    """The same of a table's columns: a schema, or the fields of a struct."""
    for field in columns:
        full, kind = before + field.name, field.type
        if pa.types.is_struct(kind) and depth < _DEEPEST:
            yield from _columns(list(kind), full + ".", depth + 1)
        elif _is_string(kind):
            yield full, _STRING
        elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
            yield full, _list_kind_of(kind.value_type)
        else:
            yield full, str(kind)[:_LONGEST_NAME]


def _list_kind_of(kind: pa.DataType) -> str:
    if pa.types.is_struct(kind):
        names = {field.name for field in kind}
        return _CHAT if any(turn <= names for turn in _TURNS) else _RECORDS
    return _STRINGS if _is_string(kind) else "a list"


def _is_string(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _column_path(columns: pa.Schema, name: str) -> list[str] | None:
    """The names from a column to the field wanted, None where there is none."""
    names = [field.name for field in columns]
    if name in names:
        return [name]
    outer, dot, inner = name.partition(".")
    if not dot or outer not in names or not pa.types.is_struct(columns.field(outer).type):
        return None
    rest = _column_path(pa.schema(list(columns.field(outer).type)), inner)
    return None if rest is None else [outer, *rest]


def _type_at(columns: pa.Schema, path: list[str]) -> pa.DataType:
    kind = columns.field(path[0]).type
    for name in path[1:]:
        kind = kind.field(name).type
    return kind


def _cut(name: str) -> str:
    name = name.replace("\n", " ")
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"
