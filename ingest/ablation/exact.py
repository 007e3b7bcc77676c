"""Pairs that the series leaves over, computed over the whole vocabulary or in float64.

Δ = log1p Σ_v p_v expm1(δ_v − δ_y), relative to the target, so that a shift common to all logits cannot cancel.
"""

import torch
from torch import Tensor

from rare_tokens.common.effects import LOSS
from rare_tokens.ingest.ablation.effects import FORMULAS
from rare_tokens.ingest.ablation.factors import Pairs
from rare_tokens.ingest.ablation.folded_head import FoldedHead
from rare_tokens.ingest.ablation.moments import z_of_piece
from rare_tokens.ingest.ablation.paths import AtTokens, Edits, OverVocabulary, Totals
from rare_tokens.ingest.ablation.unablated import Directions, Positions

_CHANGES = 1 << 17  # values of δ at a time: they stay in a processor's cache
_FUSED_CHANGES = 1 << 20  # where one pass makes them
_GATHERED = 1 << 13  # rows of w and U at a time
LOG2_E = 1.4426950408889634


def exact_effects(
    folded: FoldedHead,
    positions: Positions,
    w: Tensor,
    pairs: Pairs,
    effects: tuple[str, ...],
    directions: Directions | None,
) -> dict[str, Tensor]:
    """Each effect of P pairs (float32), summed over the vocabulary piece by piece.

    `w` is N x d, the (centred) output rows.
    """
    target_m = _at_targets(w, folded.gather(positions.targets), pairs)
    target_change = pairs.u * positions.target_z[pairs.t] + pairs.c * target_m
    if effects == (LOSS,):
        return {LOSS: _mean_growth(folded, positions, w, pairs, target_change).log1p()}
    of = OverVocabulary(folded, pairs, positions, w, target_m, target_change, directions)
    own = {name: count for name in effects if (count := FORMULAS[name].own_sums)}
    sums = {name: tuple(torch.zeros_like(pairs.u) for _ in range(count)) for name, count in own.items()}
    at_a_time = max(1, _CHANGES // folded.piece_size)
    for ids, U, _ in folded.pieces():
        z, m = positions.normed @ U.T, w @ U.T
        log_p = folded.add_bias(ids, z) - positions.log_normaliser[:, None]
        p = log_p.exp()
        for start in range(0, len(pairs), at_a_time):
            few = slice(start, start + at_a_time)
            t, u, c = pairs.t[few], pairs.u[few, None], pairs.c[few, None]
            m_i = m.index_select(0, pairs.i[few])
            change = (m_i * c).sub_(target_change[few, None]).addcmul_(z.index_select(0, t), u)
            here = AtTokens(of, few, ids, p.index_select(0, t), m_i, change, change.expm1(), log_p)
            for name in own:
                for total, term in zip(sums[name], FORMULAS[name].terms(here), strict=True):
                    total[few] += term
    mean_growth = sums[LOSS][0]
    return {name: FORMULAS[name].exact(Totals(of, sums.get(name, ()), mean_growth)) for name in effects}


def _at_targets(w: Tensor, target_rows: Tensor, pairs: Pairs) -> Tensor:
    """m_{i,y} of P pairs, `target_rows` being U_y of the B positions' targets.

    The working memory is reused: what is freed bit by bit between results that stay, the allocator does not return.
    """
    found = torch.empty_like(pairs.u)
    scratch = w.new_empty(2, min(_GATHERED, len(found)), w.shape[1])
    for start in range(0, len(found), _GATHERED):
        few = slice(start, start + _GATHERED)
        left, right = (some[: len(found[few])] for some in scratch)
        torch.index_select(w, 0, pairs.i[few], out=left)
        torch.index_select(target_rows, 0, pairs.t[few], out=right)
        torch.sum(left.mul_(right), 1, out=found[few])
    return found


def _mean_growth(folded: FoldedHead, positions: Positions, w: Tensor, pairs: Pairs, target_change: Tensor) -> Tensor:
    """Σ_v p_v (exp(δ_v − δ_y) − 1) of P pairs, for the loss alone.

    c m + u z is a weighted sum of two rows of one table, m of the neurons and z of the positions: one pass over memory.
    A power of two costs a third of expm1; what cancels is within `rounding.FLOOR`. (Adding log p to the exponent would
    save two passes and lose 3e-7 nats.)
    """
    N, B = len(w), len(positions.normed)
    last = torch.full_like(pairs.i, N + 2 * B)  # a row of ones, which the target's change is a multiple of
    chosen = torch.stack((pairs.i, N + pairs.t, last), dim=1).int()
    weights = torch.stack((pairs.c, pairs.u, -target_change), dim=1) * LOG2_E
    total = torch.zeros_like(pairs.u)
    at_a_time = max(1, _FUSED_CHANGES // folded.piece_size)
    scratch = w.new_empty((N + 2 * B + 1) * folded.piece_size)
    gathered = w.new_empty(at_a_time * folded.piece_size)
    done = 0
    for ids, U, _ in folded.pieces():
        K = len(ids)
        table = scratch[: (N + 2 * B + 1) * K].view(-1, K)
        m, z, p, ones = table.split((N, B, B, 1))
        ones.fill_(1)
        torch.mm(w, U.T, out=m)
        kept = z_of_piece(positions.kept_z, B, done, K)
        done += K
        if kept is None or positions.origin is None:
            torch.mm(positions.normed, U.T, out=z)
        else:
            torch.add(kept, positions.origin[:, None], out=z)
        torch.sub(folded.add_bias(ids, z), positions.log_normaliser[:, None], out=p).exp_()
        for start in range(0, len(pairs), at_a_time):
            few = slice(start, start + at_a_time)
            growth = weighted_rows(table, chosen[few], weights[few]).exp2_().sub_(1)
            p_t = gathered[: growth.numel()].view_as(growth)
            total[few] += torch.index_select(p, 0, pairs.t[few], out=p_t).mul_(growth).sum(1)
    return total


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

    `x` and `edited` are P x d (centred for LayerNorm), before the norm.
    """
    scale, new_scale = (folded.head.norm.scale_of_centred(value) for value in (x, edited))
    before = Positions.of(folded, x / scale, targets)
    after = Positions.of(folded, edited / new_scale, targets)
    edits = Edits(folded, before, after, edited, scale, directions)
    return {name: FORMULAS[name].float64(edits) for name in effects}
