"""The project's own ablation, timed by stage and compared with float64."""

import functools
import time
from functools import partial
from typing import Any

import torch

from benchmarks.layers.layers import Layer
from benchmarks.methods.accuracy import errors, telling_pairs
from benchmarks.speed.machine import peak_bytes, reset_peak, timed, wait
from rare_tokens.common.effects import EFFECTS, LOSS
from rare_tokens.ingest.ablation.ablation import Ablation
from rare_tokens.ingest.ablation.block import BlockEffects
from rare_tokens.ingest.ablation.numerics.timing import FLOAT64, STAGES, VOCABULARY, NoClock, StageClock
from rare_tokens.ingest.machine import release_memory
from rare_tokens.ingest.model.head import Head
from rare_tokens.ingest.model.norms import NormForm

CHECKED_PAIRS = 126_000
_SAMPLE = 256  # positions that tell common tokens from rare ones


def ours(layer: Layer, device: str, effects: tuple[str, ...] = (LOSS,), check: int = CHECKED_PAIRS) -> dict[str, Any]:
    """All T x N pairs, construction included.

    `check` pairs are compared with float64; for that the series reports its bounds, which costs a little time too.

    Returns:
        ``seconds`` and ``cpu_seconds``; ``stage_seconds`` by stage of `timing`, the rest under ``other``;
        ``compile_seconds``, paid once in a process and not among the others; ``peak_bytes`` above what was there before
        (the layer), results included; ``vocabulary_share`` and ``float64_share`` of all pairs, the second a part of the
        first; with `check` also ``common_share``, another part, of which only the common tokens were summed, and what
        `errors` finds.
    """
    compiling = _compiled(device, effects)
    T, N = layer.activations.shape
    reference = layer.activations.mean(0)
    clock = StageClock(partial(wait, device))
    release_memory()  # or what the allocator holds free would count as there before
    before = reset_peak(device)
    cpu = time.process_time()
    seconds, (blocks, block) = timed(partial(_ablated, layer, device, effects, clock, with_report=check > 0), device)
    cpu = time.process_time() - cpu
    stages = {stage: clock.seconds.get(stage, 0.0) for stage in STAGES}
    row = {
        "seconds": seconds,
        "cpu_seconds": cpu,
        "extrapolated": False,
        "peak_bytes": peak_bytes(device) - before,
        "compile_seconds": compiling,
        "stage_seconds": stages | {"other": seconds - sum(stages.values())},
        "position_block": block,
        "vocabulary_share": clock.pairs.get(VOCABULARY, 0) / (T * N),
        "float64_share": clock.pairs.get(FLOAT64, 0) / (T * N),
    }
    if check:
        reports = [one.report for one in blocks if one.report is not None]
        row["common_share"] = sum(report.common_pairs for report in reports) / (T * N)
        found = torch.cat([one.delta_loss.cpu() for one in blocks])
        bounds = torch.cat([report.share_of_tolerance.cpu() for report in reports])
        del blocks, reports
        row |= errors(layer, reference, found, telling_pairs(found, bounds, check))
    return row


@functools.cache
def _compiled(device: str, effects: tuple[str, ...]) -> float:
    """Seconds until a small layer is ablated, whose pairs need the vocabulary, some in float64: code is compiled."""
    generator = torch.Generator().manual_seed(0)
    U, w, x, n = (torch.randn(*shape, generator=generator) for shape in ((300, 8), (6, 8), (4, 8), (4, 6)))
    w[3:] *= 30
    head = Head(U, None, NormForm(False, torch.ones(8), None, 1e-5))
    layer = Layer(head, w, x, n, torch.zeros(4, dtype=torch.int64))
    seconds, _ = timed(partial(_ablated, layer, device, effects, NoClock(), with_report=False), device)
    return seconds


def _ablated(
    layer: Layer, device: str, effects: tuple[str, ...], clock: StageClock, *, with_report: bool
) -> tuple[list[BlockEffects], int]:
    """The effects block by block, and the positions in a block."""
    T, V = len(layer.residual), len(layer.head.unembedding)
    counts = torch.arange(V).flip(0) if any(EFFECTS[name].needs_counts for name in effects) else None
    ablation = Ablation(
        layer.head,
        layer.w_out,
        layer.activations.mean(0),
        effects=effects,
        unigram_counts=counts,
        sample=layer.residual[-_SAMPLE:],
        device=device,
        with_report=with_report,
        clock=clock,
    )
    block = ablation.preferred_positions(T)
    found = [
        ablation.ablate(layer.residual[at], layer.activations[at], layer.targets[at])
        for at in (slice(k, k + block) for k in range(0, T, block))
    ]
    return found, block
