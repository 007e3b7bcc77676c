"""Stores what `analyze` computes with its run, and reads the activations that it needs.

Result tables have a run_key like every other table, so publishing a run again or deleting it clears them.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from rare_tokens.common.errors import UserError
from rare_tokens.common.program import command
from rare_tokens.warehouse.client.opened import Warehouse
from rare_tokens.warehouse.connection import reading, writing
from rare_tokens.warehouse.schema import relations
from rare_tokens.warehouse.store import run_records

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

FACTS_PER_READ = 8_000_000  # about 100 MB while they are sorted


@dataclass(frozen=True)
class Stored:
    """A stored analysis of a run.

    Attributes:
        code_version: version of the program that computed it.
        parameters: those it was computed with.
    """

    code_version: str
    parameters: dict[str, Any]


def stored(path: Path, run_id: str, *, wait: float = 0.0) -> dict[str, Stored]:
    """A run's stored analyses, by name.

    Raises:
        UserError: the path is not a usable warehouse.
        LockedError: another process is writing.
    """
    with reading(path, wait=wait) as con:
        rows = con.execute(
            "select analysis.analysis, analysis.code_version, analysis.parameters from store.analysis"
            " join store.run using (run_key) where run_id = $run_id order by analysis",
            {"run_id": run_id},
        ).fetchall()
    return {name: Stored(version, json.loads(parameters)) for name, version, parameters in rows}


def store(
    path: Path,
    run_id: str,
    analysis: str,
    frames: Mapping[str, "pl.DataFrame"],
    *,
    parameters: Mapping[str, Any],
    code_version: str,
    seconds: float,
    published_at: Any = None,
    wait: float = 0.0,
) -> int:
    """Replace the stored rows of one analysis of a run, in one transaction; return the number of rows.

    Args:
        path: the warehouse.
        run_id: the run.
        analysis: its name.
        frames: the rows of each relation that it fills; NaN and infinity are stored as NULL.
        parameters: those it was computed with.
        code_version: version of the program that computed it.
        seconds: how long it took.
        published_at: publication time of the run that was analysed (`dim_run`); None: do not check.
        wait: seconds to wait for a process that has the warehouse open.

    Raises:
        UserError: the run is gone, or was published again meanwhile.
        LockedError: another process has the warehouse open.
    """
    with writing(path, wait=wait) as con:
        con.execute("begin")
        key = run_records.run_key(con, run_id)
        if key is None or run_records.column(con, run_id, "status") != "published":
            raise UserError(f"Run {run_id} was removed while it was analysed; nothing was stored.")
        if published_at not in (None, run_records.column(con, run_id, "published_at")):
            raise UserError(
                f"Run {run_id} was published again while it was analysed. Run `{command('analyze')}` once more."
            )
        for relation, frame in frames.items():
            _replace(con, relation, frame, key)
        name = {"key": key, "name": analysis}
        con.execute("delete from store.analysis where run_key = $key and analysis = $name", name)
        con.execute(
            "insert into store.analysis values ($key, $name, $parameters, $version, $seconds, $now)",
            name
            | {"parameters": json.dumps(dict(parameters), sort_keys=True)}
            | {"version": code_version, "seconds": seconds, "now": run_records.now()},
        )
        con.execute("commit")
    return sum(len(frame) for frame in frames.values())


def store_published_values(path: Path, frame: "pl.DataFrame", *, wait: float = 0.0) -> bool:
    """Make `published_value` hold exactly these rows; return whether it had to be changed."""
    with reading(path, wait=wait) as con:
        here = con.sql("select * from published_value").pl()
    if here.equals(frame.select(here.columns)):
        return False
    with writing(path, wait=wait) as con:
        con.execute("begin")
        _replace(con, "published_value", frame, None)
        con.execute("commit")
    return True


def read(
    path: Path,
    run_id: str,
    relation: str,
    *,
    preset: str | None = None,
    token_group: str | None = None,
    columns: Sequence[str] = (),
    group_names: Sequence[str] = (),
    wait: float = 0.0,
) -> "pl.DataFrame":
    """Rows of a run's relation, in a fixed order.

    Args:
        path: the warehouse.
        run_id: the run.
        relation: a public relation, or a macro of a run alone.
        preset: only its rows; None: all.
        token_group: likewise.
        columns: only these; empty: all.
        group_names: only the rows of these groups of neurons; empty: all.
        wait: seconds to wait for a process that is writing.

    Raises:
        UserError: the path is not a usable warehouse.
        LockedError: another process is writing.
    """
    key = {"run_id": run_id, "preset": preset, "token_group": token_group}
    chosen: dict[str, Any] = {name: value for name, value in key.items() if value is not None}
    conditions = " and ".join(f"{name} = ${name}" for name in chosen)
    if group_names:
        conditions += " and group_name in $group_names"
        chosen["group_names"] = list(group_names)
    source = f"{relation}($run_id)" if relations.relations()[relation].is_macro else relation
    query = f"select {', '.join(columns) or '*'} from {source} where {conditions} order by all"
    with Warehouse(path, wait=wait) as opened:
        return opened.sql(query, **chosen)


def activations(
    path: Path,
    run_id: str,
    *,
    preset: str | None = None,
    token_group: str | None = None,
    by_position: bool = True,
    wait: float = 0.0,
) -> "tuple[np.ndarray, np.ndarray]":
    """Activations of a layer at the positions of a token group.

    Args:
        path: the warehouse.
        run_id: the run.
        preset: the token group's (`position_group`); None: all positions.
        token_group: `rare` or `common`.
        by_position: lay the rows out one after the other in memory; False: the columns, which is quicker to make.
        wait: seconds to wait for a process that is writing.

    Returns:
        Activations, shape (T, N), float32, and the window of each position, shape (T,); T = 0 for an empty group.

    Raises:
        UserError: the path is not a usable warehouse.
        LockedError: another process is writing.
    """
    import numpy as np

    key, chosen = {"run": run_id}, "where run_id = $run"
    if preset is not None and token_group is not None:
        key |= {"preset": preset, "token_group": token_group}
        chosen += _IN_GROUP
    with Warehouse(path, wait=wait) as opened:
        ((neurons,),) = opened.sql("select count(*) from dim_neuron where run_id = $run", run=run_id).rows()
        found = opened.sql(f"select position_id, window_id from dim_position {chosen} order by position_id", **key)
        positions, windows = (found[name].to_numpy().astype(np.int64) for name in ("position_id", "window_id"))
        count = len(windows)
        places = np.zeros(positions.max(initial=-1) + 1, dtype=np.uint32)
        places[positions] = np.arange(count)
        values = np.zeros((neurons, count), dtype=np.float32)
        step = max(1, FACTS_PER_READ // max(1, count))
        for first in range(0, neurons if count else 0, step):
            last = min(first + step, neurons) - 1
            query = (
                f"select neuron, position_id, activation from fct_effect {chosen} and neuron between $first and $last"
            )
            block = opened.sql(query, **key, first=first, last=last)
            _fill(values, block, places)
    return np.ascontiguousarray(values.T) if by_position else values.T, windows


def _fill(values: "np.ndarray", block: "pl.DataFrame", places: "np.ndarray") -> None:
    """Put the activations of some facts, in any order, into their places.

    Facts are stored by neuron and position, and the threads that read them hand on long stretches of that order: to
    copy stretch by stretch is several times as fast as to sort.

    Args:
        values: shape (N, T); filled where `block` has a fact.
        block: neuron, position_id and activation of facts.
        places: column of `values` of each position_id.
    """
    import numpy as np

    flat, count = values.reshape(-1), values.shape[1]
    neuron, found = block["neuron"].to_numpy(), block["activation"].to_numpy()
    place = block["position_id"].to_numpy()
    place = place if (places == np.arange(len(places))).all() else places[place]
    follows = (neuron[1:] == neuron[:-1]) & (place[1:] == place[:-1] + 1)
    follows |= (neuron[1:] == neuron[:-1] + 1) & (place[1:] == 0) & (place[:-1] == count - 1)
    starts = [0, *(np.flatnonzero(~follows) + 1).tolist()]
    for start, end in zip(starts, [*starts[1:], len(block)], strict=True):
        to = int(neuron[start]) * count + int(place[start])
        flat[to : to + end - start] = found[start:end]


@dataclass(frozen=True)
class Magnitudes:
    """|Δ| of all neurons of a run at all its positions, as often as it is iterated over.

    Iterating gives block after block of neurons, ascending: shape (n, T), float32, nats, in order of position. Raises
    UserError if the path is not a usable warehouse, LockedError if another process is writing.

    Attributes:
        path: the warehouse.
        run_id: the run.
        wait: seconds to wait for a process that is writing.
    """

    path: Path
    run_id: str
    wait: float = 0.0

    def __iter__(self) -> "Iterator[np.ndarray]":
        """Give the blocks."""
        first, neurons = 0, 1
        while first < neurons:
            with Warehouse(self.path, wait=self.wait) as opened:  # not kept open while the reader computes
                counted = opened.sql("select neurons, positions from dim_run where run_id = $run", run=self.run_id)
                neurons, positions = counted.row(0)
                last = min(first + max(1, FACTS_PER_READ // max(1, positions)), neurons) - 1
                block = opened.sql(_MAGNITUDE, run=self.run_id, first=first, last=last)["magnitude"]
            yield block.to_numpy().reshape(last + 1 - first, positions)
            first = last + 1


_MAGNITUDE = """
select abs(delta_loss) as magnitude from fct_effect
where run_id = $run and neuron between $first and $last
order by neuron, position_id"""

_IN_GROUP = """ and position_id in (
    select position_id from position_group
    where run_id = $run and preset = $preset and token_group = $token_group
)"""


def _replace(con: duckdb.DuckDBPyConnection, relation: str, frame: "pl.DataFrame", key: int | None) -> None:
    """Replace a run's rows in a stored table, or without a key all its rows, with a frame."""
    con.execute(f"delete from store.{relation}" + (" where run_key = $key" if key is not None else ""), _bound(key))
    con.register("computed", _finite(frame).to_arrow())
    chosen = "$key as run_key, computed.*" if key is not None else "*"
    con.execute(f"insert into store.{relation} by name select {chosen} from computed", _bound(key))
    con.unregister("computed")


def _bound(key: int | None) -> dict[str, int]:
    return {} if key is None else {"key": key}


def _finite(frame: "pl.DataFrame") -> "pl.DataFrame":
    """The frame with NULL for every number that is not finite, in lists too."""
    import polars as pl

    floats = [name for name, kind in frame.schema.items() if kind.is_float()]
    lists = [name for name, kind in frame.schema.items() if isinstance(kind, pl.List) and kind.inner.is_float()]
    finite = pl.when(pl.element().is_finite()).then(pl.element())
    return frame.with_columns(
        *(pl.when(pl.col(name).is_finite()).then(pl.col(name)).alias(name) for name in floats),
        *(pl.col(name).list.eval(finite) for name in lists),
    )
