"""Which positions are summed together: a cell holds the positions of a unit that are in the same token groups.

Units are what can be resampled later: one window each, or a few where there would be too many sums; in matched contexts
the windows of one pair or a few, since they share their two tokens. The windows whose loss is measured (the subsample)
have units of their own.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rare_tokens.ingest.text.windows import Sample

MOST_SUMS = 1 << 25  # sums of activations that a run may add, roughly
LEAST_UNITS = 24  # even if the sums then exceed that
NO_CELL = -1


@dataclass(frozen=True)
class UnitCells:
    """The K cells of one unit: their numbers, ascending, and how many positions each has."""

    ids: NDArray[np.int64]
    positions: NDArray[np.int64]


@dataclass(frozen=True)
class Cells:
    """How the positions of a run are summed.

    Attributes:
        units: the windows of each unit, ascending; every window is in one.
        subsampled: the units whose loss is measured.
        partner: for each window, the one that patches come from.
        of_position: windows × P, the cell of each position; NO_CELL for one in no token group.
        table: `dim_attention_cell`.
        windows_per_unit: the most that a unit has.
    """

    units: tuple[NDArray[np.int64], ...]
    subsampled: frozenset[int]
    partner: NDArray[np.int64]
    of_position: NDArray[np.int64]
    table: pl.DataFrame
    windows_per_unit: int

    @cached_property
    def _units(self) -> list[UnitCells]:
        found = []
        for windows in self.units:
            ids, counts = np.unique(self.of_position[windows], return_counts=True)
            kept = ids != NO_CELL
            found.append(UnitCells(ids[kept], counts[kept]))
        return found

    def without_table(self) -> "Cells":
        """The same for a worker, which needs no table."""
        return replace(self, table=self.table.clear())

    def of_unit(self, unit: int) -> UnitCells:
        """The cells of a unit."""
        return self._units[unit]

    def cell_of(self, windows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The cell of each position of some windows, windows × P."""
        return self.of_position[windows]

    def positions_of(self, unit: int) -> NDArray[np.int64]:
        """position_id of each position of a unit, in the order of its windows."""
        each = self.of_position.shape[1]
        return (self.units[unit][:, None] * each + np.arange(each)).reshape(-1)


def make_cells(
    groups: pl.DataFrame,
    W: int,
    predicted: int,
    *,
    subsample: int,
    seed: int,
    values: int,
    pairs: NDArray[np.int64] | None = None,
) -> Cells:
    """Divide the windows into units and their positions into cells.

    Args:
        groups: preset, token_group, position_id: which positions are in which token group.
        W: number of windows.
        predicted: P, positions per window.
        subsample: about how many positions have their loss measured; all if there are no more.
        seed: of the subsample and the partners.
        values: sums per cell (edits × neurons).
        pairs: for each window its pair, ascending, whose windows stay together; None: there are no pairs.
    """
    generator = np.random.default_rng([seed, 0xA77E])
    together = np.split(np.arange(W), np.flatnonzero(np.diff(np.arange(W) if pairs is None else pairs)) + 1)
    drawn = generator.permutation(len(together))
    sizes = np.array([len(together[bundle]) for bundle in drawn])
    before = np.cumsum(sizes) - sizes
    chosen = np.sort(drawn[before < max(1, -(-subsample // predicted))])
    order = generator.permutation(W)
    partner = np.empty(W, dtype=np.int64)
    partner[order] = np.roll(order, 1)
    groups_of_kind, kinds = _kinds(groups, W * predicted)
    kinds = kinds.reshape(W, predicted)
    count = sum(len(np.unique(of_window[of_window > 0])) for of_window in kinds)
    per = min(max(1, -(-values * count // MOST_SUMS)), max(1, len(together) // LEAST_UNITS))
    rest = np.setdiff1d(np.arange(len(together)), chosen)
    measured = _split(together, chosen, min(per, max(1, len(chosen) // (LEAST_UNITS // 2))))
    units = (*measured, *_split(together, rest, per))
    of_position, table = _cells(units, kinds, len(measured))
    table = table.join(groups_of_kind, on="kind").sort("cell", "preset", "token_group")
    table = table.select("cell", "preset", "token_group", "window_id", "positions", "has_loss")
    largest = max(len(members) for members in units)
    return Cells(units, frozenset(range(len(measured))), partner, of_position, table, largest)


def _cells(
    units: Sequence[NDArray[np.int64]], kinds: NDArray[np.int64], with_loss: int
) -> tuple[NDArray[np.int64], pl.DataFrame]:
    """The cell of each position (windows × P), and a row per cell; the first `with_loss` units are the subsample.

    `kinds` is each position's kind, windows × P.
    """
    of_position = np.full(kinds.shape, NO_CELL, dtype=np.int64)
    rows: list[tuple[int, int, int, int, bool]] = []
    for unit, members in enumerate(units):
        here = kinds[members]
        for kind in np.unique(here[here > 0]):
            cell = len(rows)
            of_position[members] = np.where(here == kind, cell, of_position[members])
            rows.append((cell, int(kind), int(members[0]), int((here == kind).sum()), unit < with_loss))
    form = {
        "cell": pl.UInt32, "kind": pl.Int64, "window_id": pl.UInt32, "positions": pl.UInt32, "has_loss": pl.Boolean,
    }  # fmt: skip
    return of_position, pl.DataFrame(rows, schema=form, orient="row")


def positions_with_cells(cells: Cells, sample: Sample) -> pl.DataFrame:
    """`attention_position`: each position's cell and tokens."""
    of_position = cells.of_position.reshape(-1)
    return pl.DataFrame(
        {
            "position_id": np.arange(len(of_position), dtype=np.uint32),
            "input_token_id": sample.inputs.astype(np.uint32),
            "target_token_id": sample.targets.astype(np.uint32),
            "cell": of_position,
        }
    ).with_columns(pl.when(pl.col("cell") != NO_CELL).then("cell").cast(pl.UInt32))


def _kinds(groups: pl.DataFrame, positions: int) -> tuple[pl.DataFrame, NDArray[np.int64]]:
    """The token groups of each kind of position (kind, preset, token_group), and each position's kind (0: no group)."""
    names = groups.select("preset", "token_group").unique().sort("preset", "token_group")
    bits = names.with_columns(bit=pl.lit(2, pl.Int64).pow(pl.int_range(pl.len())).cast(pl.Int64))
    by_position = groups.join(bits, on=["preset", "token_group"]).group_by("position_id").agg(pl.col("bit").sum())
    kinds = np.zeros(positions, dtype=np.int64)
    kinds[by_position["position_id"].to_numpy()] = by_position["bit"].to_numpy()
    present = pl.DataFrame({"kind": np.unique(kinds[kinds > 0])}, schema={"kind": pl.Int64})
    table = present.join(bits, how="cross").filter((pl.col("kind") // pl.col("bit")) % 2 == 1)
    return table.select("kind", "preset", "token_group"), kinds


def _split(together: list[NDArray[np.int64]], chosen: NDArray[np.int64], per: int) -> list[NDArray[np.int64]]:
    """The windows of `per` of the chosen bundles at a time."""
    return [
        np.concatenate([together[bundle] for bundle in chosen[start : start + per]])
        for start in range(0, len(chosen), per)
    ]
