"""The Python client: a warehouse as an object whose relations are methods that return Polars frames."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from rare_tokens.common.errors import UserError
from rare_tokens.warehouse.connection import engine_errors, open_read_only
from rare_tokens.warehouse.runs import find
from rare_tokens.warehouse.sandbox import query_of, to_arrow
from rare_tokens.warehouse.schema import relations

if TYPE_CHECKING:
    from collections.abc import Callable

    import polars as pl


class Warehouse:
    """A warehouse opened read-only.

    Every public relation is a method: ``w.neuron_influence(run="novella-step3979", preset="es")`` returns, as a Polars
    frame, the rows whose columns have these values (a list: any of its values); ``run`` may be the start of a run_id. A
    table macro is a method with its own parameters: ``w.influence_at("novella-step3979", 15)``; one about several runs
    takes a list of them: ``w.group_test_across(["gpt2", "novella"])``. No process can write to the file while it is
    open, so close it, or use it in a ``with`` block.
    """

    def __init__(self, path: str | Path, *, wait: float = 0.0) -> None:
        """Open `path`; an absent warehouse reads as an empty one. See `warehouse.connection.reading` for the errors."""
        self.path = Path(path)
        self._con = open_read_only(self.path, wait=wait)

    def influence(self, run: str, preset: str = "es") -> "pl.DataFrame":
        """Influence of every neuron in a run under a preset, by token group and rank (`neuron_influence`)."""
        return self.read("neuron_influence", run=run, preset=preset).sort("token_group", "rank")

    def read(self, relation: str, **values: Any) -> "pl.DataFrame":
        """The rows of a relation whose columns have the given values.

        Args:
            relation: name of a public relation.
            values: per column a value, or a list of allowed values; `run` stands for run_id and may be its start.

        Raises:
            UserError: there is no such relation, column or run.
        """
        columns = self._columns(relation)
        values = self._with_run_id(values)
        if unknown := sorted(values.keys() - columns.keys()):
            raise UserError(f"{relation} has no column {unknown[0]}; it has {', '.join(columns)}.")
        kinds = {name: "in" if isinstance(value, list | tuple | set) else "=" for name, value in values.items()}
        conditions = [f'"{name}" {kind} ${name}' for name, kind in kinds.items()] or ["true"]
        bound = {name: list(value) if kinds[name] == "in" else value for name, value in values.items()}
        return self._frame(f"select * from {relation} where {' and '.join(conditions)}", bound)

    def sql(self, text: str, **parameters: Any) -> "pl.DataFrame":
        """The result of one query; `parameters` fill its ``$name`` places.

        Raises:
            UserError: it is not a query, does not parse or bind, or fails.
        """
        with engine_errors(self.path):
            return self._frame(query_of(self._con, text), parameters)

    def close(self) -> None:
        """Close the file; the object cannot be used afterwards."""
        self._con.close()

    def __enter__(self) -> Self:
        """The warehouse itself; it is closed when the block ends."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self.close()

    def __getattr__(self, name: str) -> "Callable[..., pl.DataFrame]":
        """The relation of that name as a method."""
        relation = relations.relations().get(name)
        if relation is None or not relation.columns:
            raise AttributeError(f"no relation {name}; the relations are {', '.join(_shown())}")
        return partial(self._call, name) if relation.is_macro else partial(self.read, name)

    def __dir__(self) -> list[str]:
        """Names for completion, the relations among them."""
        return [*super().__dir__(), *_shown()]

    def _call(self, macro: str, run: str | list[str], *arguments: Any, **named: Any) -> "pl.DataFrame":
        runs = find(self._con, run) if isinstance(run, str) else [find(self._con, one) for one in run]
        values = {f"argument_{place}": value for place, value in enumerate([runs, *arguments])}
        places = [f"${name}" for name in values] + [f"{name} := ${name}" for name in named]
        return self._frame(f"select * from {macro}({', '.join(places)})", values | named)

    def _columns(self, relation: str) -> dict[str, str]:
        known = relations.relations().get(relation)
        if known is None or known.is_macro:
            raise UserError(f"There is no relation {relation}. The relations are {', '.join(_shown())}.")
        return known.columns

    def _with_run_id(self, values: dict[str, Any]) -> dict[str, Any]:
        given = values.pop("run", None)
        if given is None:
            return values
        several = isinstance(given, list | tuple | set)
        runs = [find(self._con, run) for run in given] if several else find(self._con, given)
        return {"run_id": runs, **values}

    def _frame(self, query: str, parameters: dict[str, Any]) -> "pl.DataFrame":
        import polars as pl

        frame = pl.from_arrow(to_arrow(self._con, query, parameters))
        assert isinstance(frame, pl.DataFrame)
        return frame


def _shown() -> list[str]:
    return [name for name, relation in relations.relations().items() if relation.columns]
