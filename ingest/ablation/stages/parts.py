"""The work of one unit of the ablation stage: a block of positions becomes one sorted Parquet part."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from rare_tokens.common.effects import EFFECTS
from rare_tokens.common.files import write_atomically
from rare_tokens.common.parts import NEURONS_PER_ROW_GROUP, effect_path, relation_path, schema
from rare_tokens.ingest.ablation.ablation import Ablation
from rare_tokens.ingest.ablation.block import BlockEffects
from rare_tokens.ingest.ablation.stages.capture import Captured
from rare_tokens.ingest.machine import release_memory

PAIRS_PER_PART = 1 << 24
_SMALLEST_BLOCK = 256


@dataclass(frozen=True)
class Baseline:
    """Loss and entropy (nats) at a block's positions, and how many of its pairs took the exact path."""

    loss: NDArray[np.float32]
    entropy: NDArray[np.float32]
    exact_pairs: int


class EffectUnits:
    """Ablates every neuron at the positions of a block, and writes that block's part of ``fct_effect``.

    The part is written last: once it exists, the block is done.
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
        at = slice(block * self.position_block, min((block + 1) * self.position_block, len(self.targets)))
        activations = np.array(self.captured.activations[at])
        found = self.compute(at)
        loss, entropy = found.loss.float().cpu().numpy(), found.entropy.float().cpu().numpy()
        write_atomically(
            baseline_path(self.folder, block),
            lambda path: _save_baseline(path, Baseline(loss, entropy, found.exact_pairs)),
        )
        write_atomically(
            effect_path(self.folder, block),
            lambda path: write_effects(path, at.start, activations, found, self.effects),
        )

    def compute(self, at: slice) -> BlockEffects:
        """Effects at the positions `at`, as many at a time as the ablation's memory allows."""
        assert self.ablation is not None
        size = self.ablation.preferred_positions(at.stop - at.start)
        arrays = (np.array(self.captured.residual[at]), np.array(self.captured.activations[at]), self.targets[at])
        some = zip(*(torch.from_numpy(array).split(size) for array in arrays), strict=True)
        several = [self.ablation.ablate(*one) for one in some]
        return several[0] if len(several) == 1 else _joined(several)


def position_block(T: int, N: int, least: int = 1) -> int:
    """Positions per part: about 16 million pairs, so that row groups are large enough and a lost part is cheap.

    Fewer where there would otherwise be fewer than about `least` parts.
    """
    wanted = min(PAIRS_PER_PART // N, -(-T // least) + _SMALLEST_BLOCK - 1)
    return min(T, max(_SMALLEST_BLOCK, wanted // _SMALLEST_BLOCK * _SMALLEST_BLOCK))


def _joined(several: list[BlockEffects]) -> BlockEffects:
    return BlockEffects(
        values={name: torch.cat([one.values[name] for one in several]) for name in several[0].values},
        loss=torch.cat([one.loss for one in several]),
        entropy=torch.cat([one.entropy for one in several]),
        exact_pairs=sum(one.exact_pairs for one in several),
    )


def baseline_path(folder: Path, block: int) -> Path:
    """Where a block's loss and entropy wait until ``dim_position`` is written."""
    return folder / "baseline" / f"{block:05d}.npz"


def read_baselines(folder: Path, blocks: int) -> Baseline:
    """Loss and entropy of all T positions, and the pairs of all blocks that took the exact path."""
    several = [np.load(baseline_path(folder, block)) for block in range(blocks)]
    return Baseline(
        np.concatenate([one["loss"] for one in several]),
        np.concatenate([one["entropy"] for one in several]),
        sum(int(one["exact_pairs"]) for one in several),
    )


def write_relation(folder: Path, relation: str, table: pa.Table) -> None:
    """Write a relation's one part, in the schema of the contract."""
    write_atomically(relation_path(folder, relation), lambda path: pq.write_table(table.cast(schema(relation)), path))


def _save_baseline(path: Path, baseline: Baseline) -> None:
    with path.open("wb") as stream:
        np.savez(stream, loss=baseline.loss, entropy=baseline.entropy, exact_pairs=baseline.exact_pairs)


def write_effects(
    path: Path, first: int, activations: NDArray[np.float32], found: BlockEffects, effects: tuple[str, ...]
) -> None:
    """Write a part of ``fct_effect``: a row group per 64 neurons; within it neuron by neuron, position by position.

    Args:
        path: where.
        first: position of its first row.
        activations: B × N.
        found: the effects at the same B positions.
        effects: names of those that are stored.
    """
    form = schema("fct_effect", effects)
    positions = np.arange(first, first + len(activations), dtype=np.uint32)
    by_column = {"activation": activations}
    for name in effects:
        by_column[EFFECTS[name].column] = found.values[name].cpu().numpy()
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
            } | {name: array[:, start : start + len(neurons)].T.reshape(-1) for name, array in by_column.items()}
            writer.write_table(pa.table(columns, form), row_group_size=len(positions) * len(neurons))
