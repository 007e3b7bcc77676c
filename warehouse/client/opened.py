"""The Python client: a warehouse as an object whose relations are objects that return Polars frames."""

import html
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import duckdb

from rare_tokens.common.errors import UserError
from rare_tokens.common.files import size_in_words
from rare_tokens.common.text import visible
from rare_tokens.warehouse import catalogue
from rare_tokens.warehouse.catalogue import Column
from rare_tokens.warehouse.client.asked import asked
from rare_tokens.warehouse.client.relation_method import RelationMethod
from rare_tokens.warehouse.client.relation_names import RelationNames
from rare_tokens.warehouse.connection import engine_errors, open_read_only
from rare_tokens.warehouse.runs import IN_SHORT, listed
from rare_tokens.warehouse.sandbox import query_of, to_arrow
from rare_tokens.warehouse.schema import relations
from rare_tokens.warehouse.schema.relations import Relation
from rare_tokens.warehouse.store import parquet_facts

if TYPE_CHECKING:
    import polars as pl

_LISTED = 10
_NEXT = "w.runs() lists the runs, w.tables() the relations; each is an attribute: help(w.neuron_influence)."


class Warehouse(RelationNames):
    """A warehouse opened read-only.

    Every public relation is an attribute that says what it holds (``help(w.neuron_influence)``) and is called for its
    rows: ``w.neuron_influence(run="novella-step3979", preset="es")`` returns, as a Polars frame, those whose columns
    have these values (a list: any of its values; None: NULL); ``run`` may be the start of a run_id, and if one run is
    asked for, run_id is the last column. A table macro takes its own parameters first:
    ``w.influence_at("novella", 15)``, ``w.neuron_context("novella", neuron=7)``; one about several runs takes a list of
    them: ``w.group_test_across(["gpt2", "novella"])``. No process can write to the file while it is open, so close it,
    or use it in a ``with`` block.
    """

    def __init__(self, path: str | Path, *, wait: float = 0.0) -> None:
        """Open `path`; an absent warehouse reads as an empty one. See `warehouse.connection.reading` for the errors."""
        self.path = Path(path)
        self._methods: dict[str, RelationMethod] = {}
        self._con: duckdb.DuckDBPyConnection | None = open_read_only(self.path, wait=wait)

    def influence(self, run: str, preset: str = "es") -> "pl.DataFrame":
        """Influence of every neuron in a run under a preset, by token group and rank (`neuron_influence`)."""
        return self.read("neuron_influence", run=run, preset=preset).sort("token_group", "rank")

    def runs(self) -> "pl.DataFrame":
        """One row per run: what it is of, and its status at this moment; `dim_run` has all that is known of each."""
        with engine_errors(self.path):
            return listed(self._opened(), self.path).select(IN_SHORT)

    def tables(self, name: str | None = None) -> "pl.DataFrame":
        """One row per relation; with a name, one row per column of that relation, with its type and meaning.

        Raises:
            UserError: there is no relation of that name.
        """
        import polars as pl

        if name is not None:
            columns = self._columns(catalogue.known(name))
            return pl.DataFrame([vars(one) for one in columns], schema=["name", "type", "description"])
        with engine_errors(self.path):
            found = [catalogue.table(self._opened(), relation) for relation in relations.relations().values()]
        return pl.DataFrame(
            {
                "name": [one.name for one in found],
                "rows": [one.rows for one in found],
                "kind": [one.kind for one in found],
                "summary": [one.summary for one in found],
                "one row per": [one.grain.removeprefix("One row per ").removesuffix(".") for one in found],
            }
        )

    def read(self, relation: str, **values: Any) -> "pl.DataFrame":
        """The rows of a relation whose columns have the given values; as the attribute of that name, called.

        Args:
            relation: name of a public relation.
            values: per column a value, or a list of allowed values; `run` stands for run_id and may be its start.

        Raises:
            UserError: there is no such relation, column, run, neuron, preset or token group.
        """
        return self._rows(catalogue.known(relation), (), values)

    def sql(self, text: str, **parameters: Any) -> "pl.DataFrame":
        """The result of one query; `parameters` fill its ``$name`` places.

        Raises:
            UserError: it is not a query, does not parse or bind, or fails.
        """
        with engine_errors(self.path):
            return self._frame(query_of(self._opened(), text), parameters)

    def close(self) -> None:
        """Close the file; the object cannot be used afterwards."""
        if self._con is not None:
            self._con.close()
            self._con = None

    def __enter__(self) -> Self:
        """The warehouse itself; it is closed when the block ends."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self.close()

    def __repr__(self) -> str:
        """Where it is, how large, and its runs."""
        if self._con is None:
            return f"Warehouse {self.path}, closed"
        runs = self.runs().rows(named=True)
        lines = [f"  {row['run_id']}  {_size_of(row)}" for row in runs[:_LISTED]]
        more = [f"  and {len(runs) - _LISTED} more"] if len(runs) > _LISTED else []
        return "\n".join([visible(line) for line in (self._head(len(runs)), *lines, *more)] + [_NEXT])

    def _repr_html_(self) -> str:
        """The same as a notebook shows it, with a table of the runs."""
        if self._con is None:
            return f"<p>{html.escape(repr(self))}</p>"
        runs = self.runs()
        head = f"<p><b>{html.escape(visible(self._head(len(runs))))}</b></p>"
        rows = "".join(
            "<tr>" + "".join(f"<td>{html.escape(visible(str(value)))}</td>" for value in row) + "</tr>"
            for row in runs.head(_LISTED).rows()
        )
        titles = "".join(f"<th>{name}</th>" for name in runs.columns)
        return f"<div>{head}<table><tr>{titles}</tr>{rows}</table><p>{html.escape(_NEXT)}</p></div>"

    def _head(self, runs: int) -> str:
        counted = "no run" if not runs else "1 run" if runs == 1 else f"{runs} runs"
        return f"Warehouse {self.path} ({_bytes(self.path)}), {counted}"

    def _method(self, relation: Relation) -> RelationMethod:
        if relation.name not in self._methods:
            self._methods[relation.name] = RelationMethod(relation, self._rows, self._columns)
        return self._methods[relation.name]

    def _rows(self, relation: Relation, arguments: tuple[Any, ...], values: dict[str, Any]) -> "pl.DataFrame":
        if not relation.columns:
            raise UserError(f"{relation.name} gives a value, not rows; use it in a query: w.sql(…).")
        with engine_errors(self.path):
            call = asked(self._opened(), relation, arguments, values)
            frame = self._frame(call.query, call.values)
        if call.is_of_one_run and "run_id" in frame.columns:
            frame = frame.select(*(name for name in frame.columns if name != "run_id"), "run_id")
        return frame

    def _columns(self, relation: Relation) -> tuple[Column, ...]:
        with engine_errors(self.path):
            return catalogue.columns(self._opened(), relation)

    def _frame(self, query: str, parameters: dict[str, Any]) -> "pl.DataFrame":
        import polars as pl

        frame = pl.from_arrow(to_arrow(self._opened(), query, parameters))
        assert isinstance(frame, pl.DataFrame)
        return frame

    def _opened(self) -> duckdb.DuckDBPyConnection:
        if self._con is None:
            raise UserError(f"{self.path} is closed. Open it again with rare_tokens.open.")
        return self._con


def _size_of(run: dict[str, Any]) -> str:
    """`256 positions × 40 neurons, layer 3` of a published run; the status of any other."""
    if run["status"] != "published":
        return str(run["status"])
    return f"{run['positions']:,} positions × {run['neurons']:,} neurons, layer {run['layer']}"


def _bytes(path: Path) -> str:
    """Size of a warehouse with the facts beside it."""
    if not path.exists():
        return "no file: reads as empty"
    beside = parquet_facts.folder(path)
    facts = sum(file.stat().st_size for file in beside.rglob("*") if file.is_file()) if beside.is_dir() else 0
    return size_in_words(path.stat().st_size + facts)
