"""Times the stages of a run on a few of its positions, with the options of the run.

What is paid once (folding, the self-check) is timed as it is; what is paid per block and per position is timed on
blocks of several sizes, and the line through them gives the whole. Only the ablation's own interface is used, so that
the forecast follows whatever the ablation costs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rare_tokens.common.parts import Manifest
from rare_tokens.ingest.ablation.ablation import Ablation
from rare_tokens.ingest.ablation.reference import VALUES, reference_effects
from rare_tokens.ingest.ablation.stages.capture import Capture, Captured, forward
from rare_tokens.ingest.ablation.stages.curves import POINTS
from rare_tokens.ingest.ablation.stages.neurons import neuron_tables
from rare_tokens.ingest.ablation.stages.optimum import ROUGHLY, SAMPLED
from rare_tokens.ingest.ablation.stages.references import MEAN, OPTIMAL, RESAMPLE, ZERO, Choice, Constant, choices
from rare_tokens.ingest.ablation.stages.selfcheck import (
    LEAST_POSITIONS,
    NUMERIC_PAIRS,
    STRUCTURAL_WINDOWS,
    window_losses,
)
from rare_tokens.ingest.dense.parts import DenseUnits
from rare_tokens.ingest.forecast.blocks import blocks_seconds
from rare_tokens.ingest.forecast.clock import timed
from rare_tokens.ingest.forecast.extrapolation import EFFECTS, FORWARD, NEURONS, REFERENCES, SELF_CHECK, Line, calls
from rare_tokens.ingest.forecast.replay import replay_check_seconds, replay_seconds
from rare_tokens.ingest.forecast.storage import captured_seconds, parts_seconds, read_seconds
from rare_tokens.ingest.run.stages import Loaded, effect_units

FORWARD_SECONDS = 8.0  # about how long the forward pass is tried, in whole windows
TOKENS = 2_048, 8_192  # of the vocabulary, for which the neuron tables are tried
WARMED_SECONDS = 2.0  # up to which a first try is made again, since it also pays for what is made once
PAIRS = 8, 32  # pairs of the self-check that are tried
_OPTIMAL = 2.0  # standard deviations from the mean at which the cost of an optimal constant is tried
_SEARCHED = 64  # positions on which its search is tried


@dataclass(frozen=True)
class Tried:
    """What the forward pass gave on a few windows, on the device.

    Attributes:
        residual: B × d.
        activations: B × N.
        targets: B.
        mean: N, the mean of the activations.
    """

    residual: Tensor
    activations: Tensor
    targets: Tensor
    mean: NDArray[np.float64]

    def some(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Residual stream, activations and targets of `count` positions, evenly spread."""
        at = torch.linspace(0, len(self.targets) - 1, count).round().long()
        return self.residual[at], self.activations[at], self.targets[at]

    def references(self, chosen: Sequence[Choice], count: int) -> list[Tensor]:
        """What may replace the activations at those positions, in each draw of each reference: N or count × N.

        An optimal constant is not known yet; the cost grows with its distance, and it often lies far out.
        """
        _, activations, _ = self.some(count)
        mean = torch.from_numpy(self.mean).float()
        of_kind = {
            MEAN: mean,
            ZERO: torch.zeros_like(mean),
            RESAMPLE: activations.roll(max(1, count // 2), dims=0),
            OPTIMAL: mean + _OPTIMAL * self.activations.std(0),
        }
        return [of_kind[choice.kind] for choice in chosen for _ in range(choice.draws)]


def measured(loaded: Loaded, manifest: Manifest, references: Sequence[str] = ()) -> dict[str, float]:
    """Seconds that the stages of a run between loading and publishing will take, each tried on a few windows.

    Args:
        loaded: the model, and a sample that holds at least a few of the run's windows.
        manifest: the whole run: how many positions, with which options.
        references: those that are measured together; none: the manifest's.

    Raises:
        UserError: values are not finite.
    """
    each, tried = _forward(loaded)
    sample, structure = loaded.sample, loaded.structure
    rows = manifest.positions // sample.predicted * (sample.tokens.shape[1] - 1)
    captured = captured_seconds(manifest.positions, structure.w_out.shape[1] + structure.neurons)
    seconds = {FORWARD: each * rows + captured, NEURONS: _neurons(loaded, tried.mean)}
    nothing, constant = Captured(tried.residual.numpy(), tried.activations.numpy()), Constant(tried.mean)
    making, units = timed(lambda: effect_units(loaded, manifest, [Path()], nothing, [constant]), loaded.device)
    chosen = [one for name in references or [manifest.ablation] for one in choices(name)]
    search = 0.0
    if isinstance(units, DenseUnits):
        effects = len(chosen) * replay_seconds(loaded, manifest, units.dense[0])
        check = replay_check_seconds(loaded, manifest, units.dense[0])
    else:
        assert units.ablation is not None
        effects = _effects(loaded, manifest, units.ablation, tried, chosen)
        check = _check(loaded, manifest, tried)
        if any(choice.kind == OPTIMAL for choice in chosen):
            search = making + _search(loaded, manifest, units.ablation, tried)
    writing = parts_seconds(manifest.positions * manifest.neurons, len(manifest.effects))
    checks = len(chosen) * (check + read_seconds(manifest))
    seconds |= {REFERENCES: search} if search else {}
    return seconds | {EFFECTS: making + effects + len(chosen) * writing, SELF_CHECK: checks}


def _forward(loaded: Loaded) -> tuple[float, Tried]:
    """Seconds a position of a window, from one batch of windows or as many as the time allows; and what came out."""
    tokens = loaded.sample.tokens[: Capture.windows_in_a_batch(loaded.sample.tokens)]

    def run(windows: int) -> tuple[float, tuple[Tensor, Tensor]]:
        inputs = torch.from_numpy(tokens[:windows, :-1]).to(loaded.model.device)
        return timed(lambda: forward(loaded.model, loaded.structure, inputs), loaded.device)

    windows = 1
    seconds, (residual, activations) = run(windows)
    fitting = min(len(tokens), int(FORWARD_SECONDS / seconds))
    if fitting > 1 or seconds < FORWARD_SECONDS:  # the first pass also pays for what is made once
        windows = max(1, fitting)
        seconds, (residual, activations) = run(windows)
    residual, activations = residual.cpu(), activations.cpu()
    mean = activations.double().mean(0)
    targets = torch.from_numpy(tokens[:windows, 1:].reshape(-1))
    each = seconds / (windows * (tokens.shape[1] - 1))
    return each, Tried(residual, activations, targets, mean.numpy())


def _neurons(loaded: Loaded, mean: NDArray[np.float64]) -> float:
    """Seconds of the tables about neurons, which go through the vocabulary once."""
    structure, counts = loaded.structure, loaded.counts
    V = structure.vocabulary_size
    small, large = (min(V, tokens) for tokens in TOKENS)

    def run(rows: int) -> tuple[int, float]:
        head = structure.head
        bias = None if head.logit_bias is None else head.logit_bias[:rows]
        few = replace(structure, head=replace(head, unembedding=head.unembedding[:rows], logit_bias=bias))
        return rows, timed(lambda: neuron_tables(few, mean, counts[:rows]), loaded.device)[0]

    first = run(small)
    if first[1] < WARMED_SECONDS:
        first = run(small)
    return Line.through(first, run(large)).at(V)


def _effects(loaded: Loaded, manifest: Manifest, ablation: Ablation, tried: Tried, chosen: Sequence[Choice]) -> float:
    """Seconds to ablate every neuron at every position of the run, by every reference."""
    parts = calls(manifest.positions, manifest.position_block)
    blocks = [size for part in parts for size in calls(part, ablation.preferred_positions(part))]

    def run(count: int) -> float:
        rows, references = tried.some(count), tried.references(chosen, count)
        return timed(lambda: list(ablation.ablate_by(*rows, references)), loaded.device)[0]

    return blocks_seconds(run, blocks, len(tried.targets))


def _search(loaded: Loaded, manifest: Manifest, ablation: Ablation, tried: Tried) -> float:
    """Seconds to find optimal constants: a pass over the run by the second order, and exact effects at some places."""
    count = min(_SEARCHED, len(tried.targets))
    rows = tried.some(count)
    (far,) = tried.references([Choice(OPTIMAL)], count)
    exact, _ = timed(lambda: list(ablation.ablate_by(*rows, [far])), loaded.device)
    run, _ = timed(lambda: ablation.at(*rows).second_order().totals([far] * POINTS), loaded.device)
    places = 3 * (min(manifest.positions, SAMPLED) + min(manifest.positions, ROUGHLY))
    return (exact * places + run * (manifest.positions + SAMPLED)) / count


def _check(loaded: Loaded, manifest: Manifest, tried: Tried) -> float:
    """Seconds of the self-check: pairs in float64, and windows run unedited and edited."""
    sample, structure = loaded.sample, loaded.structure
    windows = min(max(STRUCTURAL_WINDOWS, LEAST_POSITIONS // sample.predicted), manifest.positions // sample.predicted)
    residual, activations, targets = (values.to(structure.w_out.device) for values in tried.some(max(PAIRS)))

    def numeric(count: int) -> tuple[int, float]:
        pairs = torch.stack([torch.arange(count), torch.arange(count) % structure.neurons], dim=1)
        mean = torch.from_numpy(tried.mean).float()
        given = (structure.head, structure.w_out, mean, residual, activations, targets)
        return count, timed(lambda: reference_effects(*given, pairs), loaded.device)[0]

    pairs = min(NUMERIC_PAIRS, windows * sample.predicted)
    at_a_time = max(1, VALUES // structure.vocabulary_size)
    tokens = torch.from_numpy(sample.tokens[0]).to(loaded.model.device)
    structural, _ = timed(lambda: window_losses(loaded.model, tokens, sample.predicted), loaded.device)
    return Line.through(*map(numeric, PAIRS)).of_calls(calls(pairs, at_a_time)) + 2 * windows * structural
