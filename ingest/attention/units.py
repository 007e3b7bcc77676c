"""Attention as units of work: the windows of a unit become one file with sums and losses, here or on a worker."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rare_tokens.common.errors import UserError
from rare_tokens.common.files import write_atomically
from rare_tokens.ingest.attention.cells import Cells
from rare_tokens.ingest.attention.edits import HeadEdits
from rare_tokens.ingest.attention.heads import eager, find_heads
from rare_tokens.ingest.attention.sums import UnitSums
from rare_tokens.ingest.run.shared_storage import Place
from rare_tokens.ingest.run.stages import Loaded, Work, carried

POSITIONS_PER_PASS = 512  # shorter windows run several at a time
UNITS = "units"


class AttentionUnits:
    """Units of windows: each becomes one file with its cells' sums and its positions' losses."""

    def __init__(self, folder: Path, edits: HeadEdits, tokens: NDArray[np.int64], cells: Cells, neurons: int) -> None:
        self.folder, self.edits, self.tokens, self.cells, self.neurons = folder, edits, tokens, cells, neurons

    def path(self, unit: int) -> Path:
        """The file of a unit."""
        return self.folder / unit_name(unit)

    def is_done(self, unit: int) -> bool:
        """Whether it is on disk."""
        return self.path(unit).exists()

    def run(self, unit: int) -> None:
        """Run the unit's windows with every edit and write their sums.

        Raises:
            UserError: an activation or a loss is NaN or infinite.
        """
        loss = unit in self.cells.subsampled
        sums = UnitSums(self.edits, self.cells.of_unit(unit), self.neurons, self.tokens.shape[1] - 1)
        for chosen in batched(self.cells.units[unit], self.tokens.shape[1] - 1):
            patched = None
            if loss and len(self.tokens) > 1:
                patched = self.edits.heads_of(self.tokens[self.cells.partner[chosen]])
            tokens = self.tokens[chosen]
            activations, weights = self.edits.record(tokens, loss=loss)
            sums.add_clean(self.cells.cell_of(chosen), activations, weights)
            for edited in self.edits.edited(loss=loss, patched=patched):
                sums.add_edited(edited)
        arrays = sums.arrays()
        if not all(np.isfinite(array).all() for array in arrays.values()):
            raise UserError(
                f"Attention or its heads' effect is NaN or infinite in windows {self.cells.units[unit].tolist()}. "
                "Try --dtype float32, or check the weights."
            )
        write_atomically(self.path(unit), lambda path: _save(path, arrays))


@dataclass(frozen=True)
class AttentionStage:
    """Measures attention in units of windows; one file holds a unit's sums and losses."""

    layers: tuple[int, ...]  # whose heads are edited
    ablation: str
    seed: int
    cells: Cells
    means: tuple[NDArray[np.float64], ...]  # that replace heads' outputs (`HeadEdits.means`)
    title: str = "attention"

    @property
    def units(self) -> int:
        """Units of windows."""
        return len(self.cells.units)

    def files(self, unit: int) -> tuple[str, ...]:
        """The unit's sums."""
        return (unit_name(unit),)

    def build(self, loaded: Loaded, place: Place) -> Work:
        """Find the heads of the layers, and what editing them leaves unchanged."""
        scratch = tempfile.TemporaryDirectory(prefix="rare-tokens-")
        model, structure, sample = loaded.model, loaded.structure, loaded.sample
        with eager(model):
            layers = find_heads(model, structure, self.layers)
        edits = HeadEdits(
            model, structure, layers, ablation=self.ablation, predicted=sample.predicted,
            patches=len(sample.tokens) > 1, seed=self.seed,
        )  # fmt: skip
        edits.use_means(self.means)
        units = AttentionUnits(Path(scratch.name), edits, sample.tokens, self.cells, structure.neurons)
        return carried(units.run, self.files, scratch, place)


def unit_name(unit: int) -> str:
    """Name of a unit's file within the folder of the attention."""
    return f"{UNITS}/{unit:05d}.npz"


def batched(windows: NDArray[np.int64], length: int) -> Iterator[NDArray[np.int64]]:
    """The windows, as many at a time as run in one pass."""
    at_a_time = max(1, POSITIONS_PER_PASS // length)
    for start in range(0, len(windows), at_a_time):
        yield windows[start : start + at_a_time]


def _save(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    with path.open("wb") as stream:
        np.savez(stream, **arrays)  # type: ignore[arg-type]
