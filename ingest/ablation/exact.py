"""The exact path: each pair's change of logits over the whole vocabulary (SPEC 2.1), many pairs at a time."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.linalg import vecdot

from rare_tokens.ingest.ablation.folded_head import FoldedHead
from rare_tokens.ingest.ablation.moments import z_block
from rare_tokens.ingest.ablation.unablated import Directions, Positions

_CHUNK = 1 << 17  # values of δ at a time: they stay in a processor's cache
_FUSED_CHUNK = 1 << 20  # where they are made in one pass
_GATHERED = 1 << 13  # rows of w and U at a time
LOG2_E = 1.4426950408889634


@dataclass(frozen=True)
class Pairs:
    """P pairs (position t of the block, neuron i) and the factors of their change of logits, δ = u z_t + c m_i."""

    t: Tensor
    i: Tensor
    u: Tensor
    c: Tensor
    frozen_c: Tensor  # a/σ0: c with the norm's scale frozen

    @staticmethod
    def concatenate(parts: "list[Pairs]") -> "Pairs":
        """All pairs of several lists."""
        return Pairs(*(torch.cat([getattr(part, name) for part in parts]) for name in ("t", "i", "u", "c", "frozen_c")))

    def __len__(self) -> int:
        """P."""
        return len(self.t)


def exact_effects(
    folded: FoldedHead,
    positions: Positions,
    w: Tensor,
    pairs: Pairs,
    effects: tuple[str, ...],
    directions: Directions | None,
) -> dict[str, Tensor]:
    """For each effect the P pairs' values (float32), summed over the vocabulary block by block.

    `w` is N x d, the (centred) output rows; δ is taken relative to the target's, so that nothing cancels.
    """
    u, c, t, i = pairs.u, pairs.c, pairs.t, pairs.i
    w_y = _at_targets(w, folded.gather(positions.targets), pairs)
    shift = u * positions.target_z[t] + c * w_y  # δ_y
    sums = {name: torch.zeros_like(u) for name in ("loss", "score", "tilt", "direct", "frequency")}
    axis = torch.empty(0)
    if effects == ("loss",):
        return {"loss": _growth(folded, positions, w, pairs, shift).log1p()}
    if directions is not None:
        axis = directions.axis
        projection = u * (positions.normed @ directions.axis_row)[t] + c * (w @ directions.axis_row)[i]
        unigram_mean = u * (positions.normed @ directions.unigram_row)[t] + c * (w @ directions.unigram_row)[i]
        frozen_shift = shift - projection * axis[positions.targets[t]]
    step = max(1, _CHUNK // folded.rows)
    for tokens, U, _ in folded.blocks():
        z, m = positions.normed @ U.T, w @ U.T
        log_p = folded.add_bias(tokens, z) - positions.log_normaliser[:, None]
        p = log_p.exp()
        for start in range(0, len(t), step):
            k = slice(start, start + step)
            rows, shift_k = t[k], shift[k, None]
            m_i, p_t = m.index_select(0, i[k]), p.index_select(0, rows)
            change = (m_i * c[k, None]).sub_(shift_k).addcmul_(z.index_select(0, rows), u[k, None])
            growth = change.expm1()
            sums["loss"][k] += vecdot(p_t, growth)
            if "entropy" in effects:
                surprise = log_p.index_select(0, rows).add_(positions.entropy[rows, None])  # log p less its mean
                sums["score"][k] += vecdot(p_t * growth, surprise)
                sums["tilt"][k] += vecdot(p_t, (growth + 1).mul_(change))
            if "direct" in effects:
                direct = (m_i - w_y[k, None]).mul_(pairs.frozen_c[k, None])
                sums["direct"][k] += vecdot(p_t, direct.expm1_())
            if "frequency" in effects:
                frozen = change.add_(shift_k - frozen_shift[k, None]).sub_(projection[k, None] * axis[tokens])
                sums["frequency"][k] += vecdot(p_t, frozen.expm1_())
    loss = sums["loss"].log1p()
    found = {"loss": loss}
    if "direct" in effects:
        found["direct"] = sums["direct"].log1p()
    if "entropy" in effects:
        found["entropy"] = loss - (sums["score"] + sums["tilt"]) / (1 + sums["loss"])
    if "kl" in effects:
        found["kl"] = loss + shift - unigram_mean
    if "frequency" in effects:
        found["frequency"] = sums["frequency"].log1p()
    return found


def _at_targets(w: Tensor, rows_y: Tensor, pairs: Pairs) -> Tensor:
    """m_{i,y} of P pairs, `rows_y` being U_y of the B positions' targets.

    In memory that is used again: what is freed piece by piece between results that stay, the system's allocator keeps.
    """
    found = torch.empty_like(pairs.u)
    room = w.new_empty(2, min(_GATHERED, len(found)), w.shape[1])
    for start in range(0, len(found), _GATHERED):
        k = slice(start, start + _GATHERED)
        left, right = (some[: len(found[k])] for some in room)
        torch.index_select(w, 0, pairs.i[k], out=left)
        torch.index_select(rows_y, 0, pairs.t[k], out=right)
        torch.sum(left.mul_(right), 1, out=found[k])
    return found


def _growth(folded: FoldedHead, positions: Positions, w: Tensor, pairs: Pairs, shift: Tensor) -> Tensor:
    """Σ_v p_v (exp(δ_v − δ_y) − 1) of P pairs, for the loss alone.

    c m + u z is a weighted sum of two rows of one table, m of the neurons and z of the positions: one pass over memory.
    A power of two costs a third of expm1; what cancels is within `FLOOR`. (Adding log p to the exponent would save two
    passes and lose 3e-7 nats.)
    """
    N, B = len(w), len(positions.normed)
    last = torch.full_like(pairs.i, N + 2 * B)  # a row of ones, which the shift is a multiple of
    rows = torch.stack((pairs.i, N + pairs.t, last), dim=1).int()
    weights = torch.stack((pairs.c, pairs.u, -shift), dim=1) * LOG2_E
    total = torch.zeros_like(pairs.u)
    step = max(1, _FUSED_CHUNK // folded.rows)
    room = w.new_empty((N + 2 * B + 1) * folded.rows)
    gathered = w.new_empty(step * folded.rows)
    done = 0
    for tokens, U, _ in folded.blocks():
        K = len(tokens)
        table = room[: (N + 2 * B + 1) * K].view(-1, K)
        m, z, p, ones = table.split((N, B, B, 1))
        ones.fill_(1)
        torch.mm(w, U.T, out=m)
        kept = z_block(positions.kept_z, B, done, K)
        done += K
        if kept is None or positions.origin is None:
            torch.mm(positions.normed, U.T, out=z)
        else:
            torch.add(kept, positions.origin[:, None], out=z)
        torch.sub(folded.add_bias(tokens, z), positions.log_normaliser[:, None], out=p).exp_()
        for start in range(0, len(rows), step):
            k = slice(start, start + step)
            growth = weighted_rows(table, rows[k], weights[k]).exp2_().sub_(1)
            p_t = gathered[: growth.numel()].view_as(growth)
            total[k] += torch.index_select(p, 0, pairs.t[k], out=p_t).mul_(growth).sum(1)
    return total


def weighted_rows(table: Tensor, rows: Tensor, weights: Tensor, fused: bool = True) -> Tensor:
    """Σ_k weights_jk table[rows_jk] for P x k row numbers and weights, P x K; `fused` is one pass over memory."""
    if fused and table.device.type != "mps":  # which has no such kernel
        return torch.nn.functional.embedding_bag(rows, table, mode="sum", per_sample_weights=weights)
    return (table[rows.long()] * weights[..., None]).sum(1)


def float64_effects(
    folded: FoldedHead,
    x: Tensor,
    edited: Tensor,
    targets: Tensor,
    eps: float,
    effects: tuple[str, ...],
    directions: Directions | None,
) -> dict[str, Tensor]:
    """The effects of P edits that float32 cannot hold, from the edited residuals in float64: O(d V) a pair.

    `x` and `edited` are P x d (centred for LayerNorm), before the norm.
    """
    scale, new_scale = ((value.square().mean(1, keepdim=True) + eps).sqrt() for value in (x, edited))
    before = Positions.of(folded, x / scale, targets)
    after = Positions.of(folded, edited / new_scale, targets)
    found = {"loss": after.loss - before.loss}
    if "direct" in effects:
        found["direct"] = Positions.of(folded, edited / scale, targets).loss - before.loss
    if "entropy" in effects:
        found["entropy"] = after.entropy - before.entropy
    if directions is not None:
        moved = after.normed - before.normed
        if "kl" in effects:
            shift = moved @ directions.unigram_row.double()
            found["kl"] = after.log_normaliser - before.log_normaliser - shift
        if "frequency" in effects:
            projection = moved @ directions.axis_row.double()
            frozen = Positions.of(folded, after.normed, targets, directions.axis.double(), projection)
            found["frequency"] = frozen.loss - before.loss
    return found
