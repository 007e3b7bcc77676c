"""The work of one unit of the ablation stage: a block of positions becomes one sorted Parquet part."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from rare_tokens.common.files import write_atomically
from rare_tokens.common.parts import EFFECT_COLUMNS, NEURONS_PER_ROW_GROUP, effect_path, relation_path, schema
from rare_tokens.ingest.ablation.ablation import Ablation, BlockEffects
from rare_tokens.ingest.ablation.capture import Captured
from rare_tokens.ingest.machine import release_memory

PAIRS_PER_PART = 1 << 24
_SMALLEST_BLOCK = 256


@dataclass(frozen=True)
class Baseline:
    """What a block says of its positions themselves: loss and entropy (nats), and how its pairs were computed."""

    loss: NDArray[np.float32]
    entropy: NDArray[np.float32]
    exact_pairs: int


class EffectUnits:
    """Blocks of positions: for each, every neuron ablated, written as a part of ``fct_effect``.

    The part is written last, so its presence says that the block is done.
    """

    def __init__(
        self,
        folder: Path,
        ablation: Ablation | None,
        captured: Captured,
        targets: NDArray[np.int64],
        position_block: int,
        effects: tuple[str, ...],
    ) -> None:
        self.folder, self.ablation, self.captured = folder, ablation, captured
        self.targets, self.position_block, self.effects = targets, position_block, effects

    def is_done(self, block: int) -> bool:
        """Whether the block's part is on disk."""
        return effect_path(self.folder, block).exists()

    def run(self, block: int) -> None:
        """Ablate every neuron at every position of the block and write the part."""
        self._write(block)
        release_memory()

    def _write(self, block: int) -> None:
        rows = slice(block * self.position_block, min((block + 1) * self.position_block, len(self.targets)))
        activations = np.array(self.captured.activations[rows])
        effects = self.compute(rows)
        loss, entropy = effects.loss.float().cpu().numpy(), effects.entropy.float().cpu().numpy()
        write_atomically(
            baseline_path(self.folder, block),
            lambda path: _save_baseline(path, Baseline(loss, entropy, effects.exact_pairs)),
        )
        write_atomically(
            effect_path(self.folder, block),
            lambda path: write_effects(path, rows.start, activations, effects, self.effects),
        )

    def compute(self, rows: slice) -> BlockEffects:
        """Effects at the positions `rows`, as many at a time as the ablation's memory allows."""
        assert self.ablation is not None
        step = self.ablation.preferred_positions(rows.stop - rows.start)
        arrays = (np.array(self.captured.residual[rows]), np.array(self.captured.activations[rows]), self.targets[rows])
        pieces = zip(*(torch.from_numpy(array).split(step) for array in arrays), strict=True)
        parts = [self.ablation.block(*piece) for piece in pieces]
        return parts[0] if len(parts) == 1 else _joined(parts)


def position_block(positions: int, neurons: int, least: int = 1) -> int:
    """Positions in a part: some 16 M pairs, so that a part is worth a row group's while and a lost one is cheap.

    Fewer where there would not be `least` parts, about.
    """
    wanted = min(PAIRS_PER_PART // neurons, -(-positions // least) + _SMALLEST_BLOCK - 1)
    return min(positions, max(_SMALLEST_BLOCK, wanted // _SMALLEST_BLOCK * _SMALLEST_BLOCK))


def _joined(parts: list[BlockEffects]) -> BlockEffects:
    values: dict[str, Any] = {}
    for item in fields(BlockEffects):
        column = [getattr(part, item.name) for part in parts]
        if column[0] is None:
            values[item.name] = None
        else:
            values[item.name] = torch.cat(column) if isinstance(column[0], torch.Tensor) else sum(column)
    return BlockEffects(**values)


def baseline_path(folder: Path, block: int) -> Path:
    """Where a block's loss and entropy wait until ``dim_position`` is written."""
    return folder / "baseline" / f"{block:05d}.npz"


def read_baselines(folder: Path, blocks: int) -> Baseline:
    """Loss and entropy of all T positions, and the pairs of all blocks that took the exact path."""
    parts = [np.load(baseline_path(folder, block)) for block in range(blocks)]
    return Baseline(
        np.concatenate([part["loss"] for part in parts]),
        np.concatenate([part["entropy"] for part in parts]),
        sum(int(part["exact_pairs"]) for part in parts),
    )


def write_relation(folder: Path, relation: str, table: pa.Table) -> None:
    """Write a relation's one part, in the schema of the contract."""
    write_atomically(relation_path(folder, relation), lambda path: pq.write_table(table.cast(schema(relation)), path))


def _save_baseline(path: Path, baseline: Baseline) -> None:
    with path.open("wb") as stream:
        np.savez(stream, loss=baseline.loss, entropy=baseline.entropy, exact_pairs=baseline.exact_pairs)


def write_effects(
    path: Path, first: int, activations: NDArray[np.float32], effects: BlockEffects, names: tuple[str, ...]
) -> None:
    """Write a part of ``fct_effect``: a row group a block of neurons; in it neuron by neuron, position by position.

    Args:
        path: where.
        first: position of its first row.
        activations: B × N.
        effects: of the same B positions.
        names: the effects that are stored.
    """
    form = schema("fct_effect", names)
    positions = np.arange(first, first + len(activations), dtype=np.uint32)
    values = {"activation": activations}
    for name in names:
        column = EFFECT_COLUMNS[name]
        values[column] = getattr(effects, column).cpu().numpy()
    # The floats are noise to a compressor; neuron and position are runs, which their encodings make vanish.
    with pq.ParquetWriter(
        path,
        form,
        compression="none",
        use_dictionary=["neuron"],
        column_encoding={"position_id": "DELTA_BINARY_PACKED"},
    ) as writer:
        for start in range(0, activations.shape[1], NEURONS_PER_ROW_GROUP):
            neurons = np.arange(start, min(start + NEURONS_PER_ROW_GROUP, activations.shape[1]), dtype=np.uint16)
            columns = {
                "neuron": np.repeat(neurons, len(positions)),
                "position_id": np.tile(positions, len(neurons)),
            } | {name: array[:, start : start + len(neurons)].T.reshape(-1) for name, array in values.items()}
            writer.write_table(pa.table(columns, form), row_group_size=len(positions) * len(neurons))
