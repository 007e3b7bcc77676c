"""A public relation as an object: it says what it holds, and gives its rows when it is called."""

import html
import textwrap
from collections.abc import Callable
from inspect import Signature
from typing import TYPE_CHECKING, Any

from rare_tokens.warehouse.catalogue import Column
from rare_tokens.warehouse.client.asked import signature
from rare_tokens.warehouse.schema.relations import Relation

if TYPE_CHECKING:
    import polars as pl

_VALUES = "Values for columns are given by name: one value, or several of which any will do; None is NULL."
_RUN = " A run is named by its run_id or the start of it. If one run is asked for, run_id is the last column."
_WIDTH = 100


class _Documentation:
    """The docstring: on an object that of its relation, on the class its own."""

    def __init__(self, text: str | None) -> None:
        self.text = text

    def __get__(self, method: "Described | None", owner: type) -> str | None:
        return self.text if method is None else method.described()


class Described:
    """A relation or macro of an open warehouse, which says what it holds and how it is called.

    Attributes:
        name: in SQL and Python.
        summary: what it is, one sentence.
        grain: what there is one row per.
    """

    __doc__ = _Documentation(__doc__)

    def __init__(self, relation: Relation, columns: Callable[[Relation], tuple[Column, ...]]) -> None:
        """Args: the relation, and what gives its columns with their types."""
        self.name = self.__name__ = relation.name
        self.summary, self.grain = relation.summary, "" if relation.is_macro else relation.grain
        self._relation, self._columns = relation, columns

    @property
    def __signature__(self) -> Signature:
        """How it is called, for `inspect.signature` and for completion."""
        return signature(self._relation)

    @property
    def columns(self) -> tuple[Column, ...]:
        """Name, SQL type and meaning of each column."""
        return self._columns(self._relation)

    def described(self) -> str:
        """What it is, how it is called, and its columns with type and meaning, as text."""
        return "\n".join(
            [*self._head(), "", *textwrap.wrap(self._how(), _WIDTH), "", "Columns:", *_lines(self.columns)]
        )

    def __repr__(self) -> str:
        """What it is, how it is called, and where to read more."""
        more = f"help(w.{self.name}) or w.{self.name}? describes its columns; a call returns them as a Polars frame."
        return "\n".join([*self._head(), more])

    def _repr_html_(self) -> str:
        """The same as a notebook shows it, with the columns."""
        cells = [(column.name, column.type, column.description) for column in self.columns]
        rows = "".join(
            f"<tr><td><code>{html.escape(name)}</code></td><td>{html.escape(kind)}</td>"
            f'<td style="text-align:left">{html.escape(text)}</td></tr>'
            for name, kind, text in cells
        )
        first, *call = self._head()
        return (
            f"<div><p><b>{self.name}</b>: {html.escape(first.removeprefix(f'{self.name}: '))}</p>"
            f"<pre>{html.escape(chr(10).join(call))}</pre><p>{html.escape(self._how())}</p>"
            f"<table><thead><tr><th>column</th><th>type</th><th>meaning</th></tr></thead><tbody>{rows}</tbody></table>"
            "</div>"
        )

    def _how(self) -> str:
        return _VALUES + (_RUN if "run_id" in self._relation.columns else "")

    def _head(self) -> list[str]:
        first = f"{self.name}: {self.summary} {self.grain}".strip()
        call = textwrap.wrap(
            f"w.{self.name}{self.__signature__.replace(return_annotation=Signature.empty)}",
            _WIDTH,
            subsequent_indent="    ",
        )
        return [first, *call]


class RelationMethod(Described):
    """A relation or macro of an open warehouse: a call returns its rows as a Polars frame.

    How each is called is told to type checkers by `relation_names.pyi`.
    """

    __doc__ = _Documentation(__doc__)

    def __init__(
        self,
        relation: Relation,
        rows: "Callable[[Relation, tuple[Any, ...], dict[str, Any]], pl.DataFrame]",
        columns: Callable[[Relation], tuple[Column, ...]],
    ) -> None:
        """Args: the relation, what gives its rows for positional and named values, and what gives its columns."""
        super().__init__(relation, columns)
        self._rows = rows

    def __call__(self, *arguments: Any, **values: Any) -> "pl.DataFrame":
        """The rows whose columns have these values; for a macro, with these parameters.

        Raises:
            UserError: there is no such run, neuron, preset, token group, column or parameter, or one is missing.
        """
        return self._rows(self._relation, arguments, values)


def _lines(columns: tuple[Column, ...]) -> list[str]:
    names = max(len(column.name) for column in columns)
    types = min(16, max(len(column.type) for column in columns))
    lines = []
    for column in columns:
        start = f"  {column.name:<{names}}  {column.type:<{types}}  "
        indent = " " * (names + types + 6)
        lines += textwrap.wrap(start + column.description, _WIDTH + 20, subsequent_indent=indent)
    return lines
