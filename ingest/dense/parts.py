"""The dense path as units of work, and its cost."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from rare_tokens.common.effects import ATTRIBUTION, LOSS
from rare_tokens.ingest.ablation.block import BlockEffects
from rare_tokens.ingest.ablation.formulas.effects import FORMULAS, of_edits
from rare_tokens.ingest.ablation.stages.capture import Captured
from rare_tokens.ingest.ablation.stages.parts import EffectUnits
from rare_tokens.ingest.dense.ablation import DenseAblation, WindowEffects, attention_heads
from rare_tokens.ingest.model.mlp import decoder_blocks, mlp_shape
from rare_tokens.ingest.model.structure import Structure
from rare_tokens.ingest.text.windows import Sample

log = logging.getLogger("rare_tokens")

PAIRS_PER_PART = 1 << 20  # hours of work at worst; an interruption may lose a part


class DenseUnits(EffectUnits):
    """Ablates every neuron by the dense path in blocks of whole windows, each written as a part of ``fct_effect``."""

    def __init__(
        self,
        folders: Sequence[Path],
        dense: Sequence[DenseAblation],
        captured: Captured,
        sample: Sample,
        position_block: int,
        effects: tuple[str, ...],
    ) -> None:
        """As `EffectUnits`, with a path for each reference; blocks are whole windows of predicted positions."""
        super().__init__(folders, None, (), captured, sample.targets, position_block, effects)
        self.dense, self.sample = dense, sample

    def compute(self, at: slice) -> list[BlockEffects]:
        """Effects by each reference at the positions `at`, window by window."""
        each = self.sample.predicted
        some = self.sample.tokens[at.start // each : at.stop // each]
        return [self._joined([dense.window(tokens, predicted=each) for tokens in some]) for dense in self.dense]

    def _joined(self, found: list[WindowEffects]) -> BlockEffects:
        values = {name: torch.from_numpy(np.concatenate([one.values[name] for one in found])) for name in self.effects}
        return BlockEffects(
            values=values,
            loss=torch.from_numpy(np.concatenate([one.loss for one in found])),
            entropy=torch.from_numpy(np.concatenate([one.entropy for one in found])),
            exact_pairs=values[LOSS].numel(),
        )


def dense_position_block(sample: Sample, neurons: int, least: int = 1) -> int:
    """Positions per part: whole windows, about a million pairs; fewer if there would be fewer than `least` parts."""
    each = sample.predicted
    windows = min(PAIRS_PER_PART // (neurons * each), -(-len(sample.targets) // (each * least)))
    return min(len(sample.targets), each * max(1, windows))


def dense_rows(sample: Sample, edits: int, *, at_once: bool) -> int:
    """Positions run again for so many edits: all of a window where an edit is at every position of it."""
    return edits * (len(sample.tokens) * (sample.tokens.shape[1] - 1) if at_once else len(sample.targets))


@dataclass(frozen=True)
class DenseCost:
    """The work of the dense path.

    Attributes:
        rows: positions run again, one per neuron (or group) and position.
        layers: layers that each of them passes, besides the norm and the unembedding.
        operations: floating-point operations for these, without attention's products between positions.
    """

    rows: int
    layers: int
    operations: float


def dense_cost(
    model: PreTrainedModel, layer: int, rows: int, effects: tuple[str, ...] = (LOSS,), length: int = 1
) -> DenseCost:
    """The cost of running `rows` positions again from a layer on; the weights need not be loaded.

    `length` is through how many positions the loss of one is led back for its attributions.
    """
    above = list(decoder_blocks(model))[layer + 1 :]
    unembedding = model.get_output_embeddings()
    assert isinstance(unembedding, nn.Linear)
    parameters = sum(weight.numel() for block in above for weight in block.parameters()) + unembedding.weight.numel()
    # The frozen scale takes its own pass
    passes = 2 if any(FORMULAS[name].frozen_scale for name in of_edits(effects)) else 1
    operations = 2.0 * passes * rows * parameters
    if ATTRIBUTION in effects:
        operations += 2.0 * rows / mlp_shape(model, layer)[0] * length * (parameters - unembedding.weight.numel())
    return DenseCost(rows, len(above), operations)


def attribution_bytes(model: PreTrainedModel, layer: int, length: int, element: int) -> int:
    """The most bytes that a forward pass over `length` positions keeps for the backward passes, in `element` each."""
    N, d, V = mlp_shape(model, layer)
    blocks = len(decoder_blocks(model)) - 1 - layer
    return element * length * (blocks * (12 * d + 5 * N + 3 * attention_heads(model) * length) + 2 * V)


def announce(dense: DenseAblation, structure: Structure, sample: Sample, edits: int) -> None:
    """Log why these edits take the dense path and how long it will take, estimated by trying one batch."""
    rows = dense_rows(sample, edits, at_once=dense.at_once)
    layers = structure.depth - 1 - structure.layer
    seconds = rows * dense.seconds_per_row(sample.tokens[0])
    seconds += len(sample.tokens) * dense.attribution_seconds(sample.tokens[0], sample.predicted)
    log.info(
        "Dense path (%s): %s positions run again through %s and the unembedding, in %s on %s: %s.",
        "; ".join(structure.between),
        f"{rows:,}",
        f"{layers} layer{'s' * (layers != 1)}",
        str(dense.dtype)[6:],
        dense.device,
        in_words(seconds / 60),
    )


def in_words(minutes: float) -> str:
    """A time in the unit that suits it."""
    if minutes < 1:
        return "under a minute"
    return f"about {minutes:,.0f} minutes" if minutes < 120 else f"about {minutes / 60:,.1f} hours"
