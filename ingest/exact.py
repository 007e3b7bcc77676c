"""The exact path: each pair's change of logits over the whole vocabulary (SPEC 2.1), many pairs at a time."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ingest.head import FoldedHead

_CHUNK = 1 << 18  # values of δ at a time: small enough for a core's cache


@dataclass(frozen=True)
class Positions:
    """The unablated model at B positions."""

    normed: Tensor  # x / σ0, B x d
    targets: Tensor  # B
    log_normaliser: Tensor  # log Σ_v exp(z_v + b_v), B
    target_z: Tensor  # z_y, B
    loss: Tensor  # B, nats
    entropy: Tensor  # B, nats

    @staticmethod
    def of(folded: FoldedHead, normed: Tensor, targets: Tensor) -> "Positions":
        """Pass once over the vocabulary for the normaliser, the loss and the entropy."""
        total = torch.full_like(normed[:, 0], -torch.inf)
        expected = torch.zeros_like(total)  # E[logit] under the normaliser so far
        for part, U in folded.blocks():
            logits = folded.add_bias(part, normed @ U.T)
            new = torch.logaddexp(total, logits.logsumexp(1))
            expected = expected * (total - new).exp() + ((logits - new[:, None]).exp() * logits).sum(1)
            total = new
        target_z = (normed * folded.gather(targets)).sum(1)
        target_logit = target_z if folded.bias is None else target_z + folded.bias[targets]
        return Positions(normed, targets, total, target_z, total - target_logit, total - expected)


@dataclass(frozen=True)
class Directions:
    """What the effects ``kl`` and ``frequency`` measure along."""

    axis: Tensor  # V: centred log unigram frequency, unit norm
    axis_row: Tensor  # d: Σ_v axis_v U_v, so that a change of residual h moves the logits' projection by h·axis_row
    unigram_row: Tensor  # d: Σ_v unigram_v U_v, the same for the unigram mean of the logits

    @staticmethod
    def of(folded: FoldedHead, unigram_counts: Tensor) -> "Directions":
        """Directions of the add-one smoothed unigram distribution of V counts."""
        smoothed = unigram_counts.cpu().double() + 1
        unigram = smoothed / smoothed.sum()
        axis = unigram.log() - unigram.log().mean()
        axis = (axis / axis.norm()) if bool(axis.any()) else axis
        rows = torch.zeros(2, folded.width, dtype=torch.float64)
        for part, U in folded.blocks(torch.float64):
            rows += torch.stack((axis[part], unigram[part])) @ U.cpu()
        axis_row, unigram_row = rows.float().to(folded.device)
        return Directions(axis.float().to(folded.device), axis_row, unigram_row)


@dataclass(frozen=True)
class Pairs:
    """P pairs (position t of the block, neuron i) and the factors of their change of logits, δ = u z_t + c m_i."""

    t: Tensor
    i: Tensor
    u: Tensor
    c: Tensor
    frozen_c: Tensor  # a/σ0: c with the norm's scale frozen


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
    w_y = (w[i] * folded.gather(positions.targets[t])).sum(1)  # m_{i,y}
    shift = u * positions.target_z[t] + c * w_y  # δ_y
    sums = {name: torch.zeros_like(u) for name in ("loss", "score", "tilt", "direct", "frequency")}
    if "frequency" in effects or "kl" in effects:
        assert directions is not None
        projection = u * (positions.normed @ directions.axis_row)[t] + c * (w @ directions.axis_row)[i]
        unigram_mean = u * (positions.normed @ directions.unigram_row)[t] + c * (w @ directions.unigram_row)[i]
        frozen_shift = shift - projection * directions.axis[positions.targets[t]]
    step = max(1, _CHUNK // folded.rows)
    for part, U in folded.blocks():
        z, m = positions.normed @ U.T, w @ U.T
        log_p = folded.add_bias(part, z) - positions.log_normaliser[:, None]
        p = log_p.exp()
        for start in range(0, len(t), step):
            k = slice(start, start + step)
            rows, m_i = t[k], m[i[k]]
            change = torch.addcmul(m_i * c[k, None] - shift[k, None], z[rows], u[k, None])
            p_t = p[rows]
            growth = change.expm1()
            sums["loss"][k] += (p_t * growth).sum(1)
            if "entropy" in effects:
                surprise = log_p[rows] + positions.entropy[rows, None]  # log p less its mean
                sums["score"][k] += (p_t * growth * surprise).sum(1)
                sums["tilt"][k] += (p_t * (growth + 1) * change).sum(1)
            if "direct" in effects:
                direct = pairs.frozen_c[k, None] * (m_i - w_y[k, None])
                sums["direct"][k] += (p_t * direct.expm1_()).sum(1)
            if "frequency" in effects:
                frozen = change + (shift - frozen_shift)[k, None] - projection[k, None] * directions.axis[part]
                sums["frequency"][k] += (p_t * frozen.expm1_()).sum(1)
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
