"""The unablated model at some positions, and the directions in the logits that effects are measured along."""

from dataclasses import dataclass

import torch
from torch import Tensor

from rare_tokens.ingest.ablation.layer.folded_head import FoldedHead
from rare_tokens.ingest.ablation.layer.unigram import Unigram


@dataclass(frozen=True)
class Positions:
    """The unablated model at B positions."""

    rows: Tensor  # F x B x d: z_f = U rows_f (`edits`); the first is x / σ0
    targets: Tensor  # y, B
    log_normaliser: Tensor  # log Σ_v exp(z_v + b_v), B
    target_z: Tensor  # F x B: the z_f at the target
    loss: Tensor  # B, nats
    entropy: Tensor  # B, nats
    origin: Tensor  # F x B: what z in pieces is counted from
    kept_z: Tensor | None = None  # as `Sums.kept_z`

    @property
    def normed(self) -> Tensor:
        """x / σ0, B x d."""
        return self.rows[0]

    def __getitem__(self, some: slice | Tensor) -> "Positions":
        """Some of the positions, without their z."""
        return Positions(
            self.rows[:, some],
            self.targets[some],
            self.log_normaliser[some],
            self.target_z[:, some],
            self.loss[some],
            self.entropy[some],
            self.origin[:, some],
        )

    @staticmethod
    def of(
        folded: FoldedHead,
        normed: Tensor,
        targets: Tensor,
        axis: Tensor | None = None,
        projection: Tensor | None = None,
        *,
        with_entropy: bool = False,
    ) -> "Positions":
        """Pass once over the vocabulary for the normaliser, the loss and the entropy, in the dtype of `normed`.

        With `axis` (V) and `projection` (B), for the logits less their `projection` along the `axis`. Without
        `with_entropy` the entropies are NaN.
        """
        offset = None if axis is None or projection is None else -projection[:, None] * axis[None, :]
        total = torch.full_like(normed[:, 0], -torch.inf)
        expected = torch.full_like(total, 0.0 if with_entropy else torch.nan)  # E[logit] under the normaliser so far
        for ids, U, _ in folded.pieces(normed.dtype):
            logits = folded.add_bias(ids, normed @ U.T)
            if offset is not None:
                logits = logits + offset[:, ids]
            new = torch.logaddexp(total, logits.logsumexp(1))
            if with_entropy:
                expected = expected * (total - new).exp() + ((logits - new[:, None]).exp() * logits).sum(1)
            total = new
        target_z = (normed * folded.gather(targets, normed.dtype)).sum(1)
        target_logit = folded.add_bias(targets, target_z)
        if offset is not None:
            target_logit = target_logit + offset.gather(1, targets[:, None])[:, 0]
        rows, z = normed[None], target_z[None]
        return Positions(rows, targets, total, z, total - target_logit, total - expected, torch.zeros_like(z))


@dataclass(frozen=True)
class Directions:
    """Directions in the logits: the log-unigram axis, and the mean under the unigram distribution."""

    axis: Tensor  # V: centred log unigram frequency, unit norm
    axis_row: Tensor  # d: Σ_v axis_v U_v, so that a change of residual h moves the logits' projection by h·axis_row
    unigram_row: Tensor  # d: Σ_v unigram_v U_v, the same for the unigram mean of the logits

    @staticmethod
    def of(folded: FoldedHead, unigram_counts: Tensor) -> "Directions":
        """Directions of the add-one smoothed unigram distribution of V counts."""
        unigram = Unigram.of(unigram_counts)
        both = torch.zeros(2, folded.width, dtype=torch.float64)
        for ids, U, _ in folded.pieces():
            on_cpu = ids.cpu()
            both += torch.stack((unigram.axis[on_cpu], unigram.probability[on_cpu])) @ U.cpu().double()
        axis_row, unigram_row = both.float().to(folded.device)
        return Directions(unigram.axis.float().to(folded.device), axis_row, unigram_row)
