"""What each path that a pair may take provides to the effects' formulas (`effects.Formula`).

Expansion                    the series: moments of δ at b positions and N neurons
OverVocabulary, ExactChange  P pairs over the whole vocabulary
Edits                        the model before and after P edits, in float64
Prediction                   logits of the model itself, run again: the dense path
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from rare_tokens.ingest.ablation.layer.changes import Change, Factors, Pairs
from rare_tokens.ingest.ablation.layer.folded_head import FoldedHead
from rare_tokens.ingest.ablation.layer.unablated import Directions, Positions
from rare_tokens.ingest.ablation.layer.unigram import Unigram
from rare_tokens.ingest.ablation.series.entropy import LogPMoments
from rare_tokens.ingest.ablation.series.series import CentralMoments, Estimate, Series
from rare_tokens.ingest.ablation.series.sums import Sums


@dataclass(frozen=True)
class Expansion:
    """The series of δ at b positions and N neurons, and what else an effect's series may be made of."""

    sums: Sums  # of all B positions
    at: slice  # b of them
    moments: CentralMoments
    factors: Factors
    size: Tensor  # b x N, how far an edit moves the normed residual
    w: Tensor  # N x d
    positions: Positions  # the b positions
    target_rows: Tensor  # b x d, U_y
    directions: Directions | None

    @cached_property
    def series(self) -> Series:
        """That of δ."""
        return self.series_of(self.factors.change)

    @cached_property
    def loss(self) -> Estimate:
        """Δ loss."""
        return self.series.loss()

    @cached_property
    def direct(self) -> Series:
        """That with the final norm's scale frozen."""
        return self.series_of(self.factors.direct)

    @cached_property
    def frozen_frequency(self) -> Series:
        """That of δ − φ f: the axis f is the last function of the token, with the factor −φ."""
        assert self.directions is not None
        change, projection = self.factors.change, self.change_along(self.directions.axis_row)
        return self.series_of(Change(torch.cat([change.u, -projection[None]]), change.c))

    @cached_property
    def log_p(self) -> LogPMoments:
        """Moments with the log-probability."""
        return LogPMoments(self.sums, self.at, self.w, self.moments)

    def series_of(self, change: Change) -> Series:
        """That of another change of the logits."""
        return Series(self.moments, change, self.size)

    def change_along(self, row: Tensor) -> Tensor:
        """Σ_v f_v δ_v, b x N, where `row` is Σ_v f_v U_v (d)."""
        change, total = self.factors.change, self.factors.change.c * (self.w @ row)
        for u, rows in zip(change.u, self.positions.rows, strict=True):
            total += u * (rows @ row)[:, None]
        return total


@dataclass(frozen=True)
class OverVocabulary:
    """P pairs over the whole vocabulary: what does not depend on the token, P each."""

    pairs: Pairs
    positions: Positions  # all B
    w: Tensor  # N x d
    directions: Directions | None

    def at_target(self, change: Change) -> Tensor:
        """δ_y of a change."""
        total = change.c * self.pairs.target_m
        for u, z in zip(change.u, self.positions.target_z, strict=True):
            total += u * z[self.pairs.t]
        return total

    @cached_property
    def target_change(self) -> Tensor:
        """δ_y."""
        return self.at_target(self.pairs.change)

    def change_along(self, row: Tensor) -> Tensor:
        """Σ_v f_v δ_v of each pair, where `row` is Σ_v f_v U_v (d)."""
        pairs = self.pairs
        total = pairs.change.c * (self.w @ row)[pairs.i]
        for u, rows in zip(pairs.change.u, self.positions.rows, strict=True):
            total += u * (rows @ row)[pairs.t]
        return total


@dataclass(frozen=True)
class ExactChange:
    """A change of the logits of P pairs, to be summed over the vocabulary.

    The sums are of p (e^(δ−δ_y) − 1) and, for the entropy, of the same times (log p + entropy) and of p e^(δ−δ_y)
    (δ − δ_y).
    """

    u: Tensor  # F x P
    c: Tensor  # P
    axis: Tensor | None  # P, the factor of the log-unigram axis
    target: Tensor  # P, δ_y
    has_entropy: bool = False

    @property
    def sums(self) -> int:
        """How many sums it takes."""
        return 3 if self.has_entropy else 1


@dataclass(frozen=True)
class Totals:
    """P pairs' sums over the vocabulary."""

    of: OverVocabulary
    sums: Tensor  # `ExactChange.sums` x P, of the effect's own change (of δ where it has none)
    mean_growth: Tensor  # P: Σ_v p_v (exp(δ_v − δ_y) − 1)


@dataclass(frozen=True)
class Edits:
    """The model before and after P edits of the residual stream, in float64."""

    folded: FoldedHead
    before: Positions
    after: Positions
    edited: Tensor  # P x d, before the norm (centred for LayerNorm)
    scale: Tensor  # P x 1, σ0
    directions: Directions | None

    @property
    def moved(self) -> Tensor:
        """P x d, by how much the normed residual changes."""
        return self.after.normed - self.before.normed


class Prediction:
    """Logits (… x T x V) at T positions with their targets (T)."""

    def __init__(
        self,
        logits: Tensor,
        targets: Tensor,
        unigram: Unigram | None = None,
        *,
        loss: Tensor | None = None,
        entropy: Tensor | None = None,
    ) -> None:
        """Known `loss` and `entropy` are not computed again; `unigram` is on the logits' device."""
        self.logits, self.targets, self.unigram = logits, targets, unigram
        self._loss, self._entropy = loss, entropy

    def select(self, some: slice) -> "Prediction":
        """The same at some of the positions, with loss and entropy taken from here."""
        logits, targets = self.logits[..., some, :], self.targets[some]
        return Prediction(logits, targets, self.unigram, loss=self.loss[..., some], entropy=self.entropy[..., some])

    @property
    def loss(self) -> Tensor:
        """Cross-entropy of the targets, … x T, nats."""
        if self._loss is None:
            index = self.targets.expand(self.logits.shape[:-1])[..., None]
            self._loss = self.logits.logsumexp(-1) - self.logits.gather(-1, index)[..., 0]
        return self._loss

    @property
    def entropy(self) -> Tensor:
        """Entropy of the prediction, … x T, nats."""
        if self._entropy is None:
            log_p = self.logits.log_softmax(-1)
            self._entropy = -(log_p.exp() * log_p).sum(-1)
        return self._entropy
