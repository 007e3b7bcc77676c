"""Pairs that the series leaves over, computed over the whole vocabulary or in float64.

Δ = log1p Σ_v p_v expm1(δ_v − δ_y), relative to the target, so that a shift common to all logits cannot cancel. Where
the moments of the rare tokens tell their share (`Pairs.rare_growth`), only the common ones are summed one by one.
"""

from dataclasses import replace

import torch
from torch import Tensor
from torch.linalg import vecdot

from rare_tokens.common.effects import LOSS
from rare_tokens.ingest.ablation.formulas.effects import FORMULAS, needs_log_p
from rare_tokens.ingest.ablation.formulas.paths import Edits, ExactChange, OverVocabulary, Totals
from rare_tokens.ingest.ablation.layer.changes import Pairs
from rare_tokens.ingest.ablation.layer.folded_head import FoldedHead
from rare_tokens.ingest.ablation.layer.unablated import Directions, Positions
from rare_tokens.ingest.ablation.numerics import compiler
from rare_tokens.ingest.ablation.vocabulary.fused import fused_sums
from rare_tokens.ingest.ablation.vocabulary.pieces import pieces_of_block

_CHANGES = 1 << 20  # values of δ at a time, where torch makes them
_LOG2_E, _LN_2 = 1.4426950408889634, 0.6931471805599453


def exact_effects(
    folded: FoldedHead,
    positions: Positions,
    w: Tensor,
    pairs: Pairs,
    effects: tuple[str, ...],
    directions: Directions | None,
    *,
    compiled: bool = True,
) -> dict[str, Tensor]:
    """Each effect of P pairs (float32), summed over the vocabulary piece by piece.

    Args:
        folded: the folded head.
        positions: all B of the block.
        w: N x d, the (centred) output rows.
        pairs: P of them.
        effects: by name.
        directions: where an effect needs them.
        compiled: by one compiled pass where there can be one, else by torch.
    """
    of = OverVocabulary(pairs, positions, w, directions)
    changes = {name: FORMULAS[name].change(of) for name in effects if FORMULAS[name].has_own_change}
    changes[LOSS] = replace(changes[LOSS], has_entropy=needs_log_p(effects))
    use_compiled = compiled and w.device.type == "cpu" and compiler.is_available()
    sums = (fused_sums if use_compiled else torch_sums)(folded, positions, w, pairs, changes, directions)
    for name, growth in zip(changes, pairs.rare_growth, strict=True):
        sums[name][0] += growth.nan_to_num(nan=0.0)
    return {name: FORMULAS[name].exact(Totals(of, sums.get(name, sums[LOSS]), sums[LOSS][0])) for name in effects}


def torch_sums(
    folded: FoldedHead,
    positions: Positions,
    w: Tensor,
    pairs: Pairs,
    changes: dict[str, ExactChange],
    directions: Directions | None,
) -> dict[str, Tensor]:
    """The sums of each change, `ExactChange.sums` x P.

    Σ u z + c m is a weighted sum of rows of one table, m of the neurons, z of the positions, the axis, and ones for the
    target's change: one pass over memory, and a second one for the power of two (a third of the price of expm1; what
    cancels is within `rounding.FLOOR`).
    """
    sums = {name: torch.zeros(change.sums, len(pairs), device=w.device) for name, change in changes.items()}
    in_full = pairs.is_in_full.nonzero()[:, 0]
    everything = torch.arange(len(pairs), device=w.device)
    base = positions.log_normaliser - positions.origin[0]
    for piece in pieces_of_block(folded, positions):
        m, z = w @ piece.U.T, piece.z.flatten(0, 1)
        log_p = folded.add_bias(piece.ids, piece.z[0]) - base[:, None]
        p = log_p.exp()
        there = ((piece.targets >= 0) & (piece.targets < len(piece.ids))).nonzero()[:, 0]
        p[there, piece.targets[there]] = 0  # the target's term is 0 by definition, which float32 would miss
        axis = torch.zeros_like(m[:1]) if directions is None else directions.axis[None, piece.ids]
        table = torch.cat([m, z, axis, torch.ones_like(axis)])
        for few in (in_full if piece.is_rare else everything).split(max(1, _CHANGES // len(piece.ids))):
            t = pairs.t[few]
            for name, change in changes.items():
                chosen, weights = _chosen(pairs, change, few, positions, len(w))
                x = weighted_rows(table, chosen, weights)
                growth = x.exp2() - 1
                p_t = p[t]
                sums[name][0, few] += vecdot(p_t, growth)
                if change.has_entropy:
                    sums[name][1, few] += vecdot(p_t * growth, log_p[t] + positions.entropy[t, None])
                    sums[name][2, few] += vecdot(p_t * (growth + 1), x * _LN_2)
    return sums


def _chosen(
    pairs: Pairs, change: ExactChange, few: Tensor, positions: Positions, neurons: int
) -> tuple[Tensor, Tensor]:
    """Row numbers in the table and their weights (times log2 e) for some pairs of a change, each p x (F + 3)."""
    t, i = pairs.t[few].long(), pairs.i[few].long()
    F, B, _ = positions.rows.shape
    rows, weights, shift = [i], [change.c[few]], change.target[few].clone()
    for f, u in enumerate(change.u):
        rows.append(neurons + f * B + t)
        weights.append(u[few])
        shift -= u[few] * positions.origin[f, t]
    axis = neurons + F * B
    rows += [torch.full_like(i, axis), torch.full_like(i, axis + 1)]
    weights += [torch.zeros_like(shift) if change.axis is None else change.axis[few], -shift]
    return torch.stack(rows, dim=1).int(), torch.stack(weights, dim=1) * _LOG2_E


def weighted_rows(table: Tensor, chosen: Tensor, weights: Tensor, fused: bool = True) -> Tensor:
    """Σ_k weights_jk table[chosen_jk] for P x k row numbers and weights, P x K; `fused` is one pass over memory."""
    if fused and table.device.type != "mps":  # which has no such kernel
        return torch.nn.functional.embedding_bag(chosen, table, mode="sum", per_sample_weights=weights)
    return (table[chosen.long()] * weights[..., None]).sum(1)


def float64_effects(
    folded: FoldedHead,
    x: Tensor,
    edited: Tensor,
    targets: Tensor,
    effects: tuple[str, ...],
    directions: Directions | None,
) -> dict[str, Tensor]:
    """The effects of P edits that float32 cannot hold, from the edited residuals in float64: O(d V) per pair.

    `x` and `edited` are P x d (centred for LayerNorm), before the norm. Equal rows of `x` next to each other are
    unembedded once.
    """
    scale, new_scale = (folded.head.norm.scale_of_centred(value) for value in (x, edited))
    normed = torch.cat([x / scale, targets[:, None].to(x)], dim=1)
    distinct, which = torch.unique_consecutive(normed, dim=0, return_inverse=True)
    asked = needs_log_p(effects)
    before = Positions.of(folded, distinct[:, :-1], distinct[:, -1].long(), with_entropy=asked)[which]
    after = Positions.of(folded, edited / new_scale, targets, with_entropy=asked)
    edits = Edits(folded, before, after, edited, scale, directions)
    return {name: FORMULAS[name].float64(edits) for name in effects}
