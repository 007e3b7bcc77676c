"""What each path that a pair may take provides to the effects' formulas (`effects.Formula`).

Expansion                 the series: moments of δ at b positions and N neurons
OverVocabulary, AtTokens  P pairs over the whole vocabulary
Edits                     the model before and after P edits, in float64
Prediction                logits of the model itself, run again: the dense path
"""

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from rare_tokens.ingest.ablation.entropy_and_frequency import MixedMoments
from rare_tokens.ingest.ablation.factors import Factors, Pairs
from rare_tokens.ingest.ablation.folded_head import FoldedHead
from rare_tokens.ingest.ablation.series import Estimate, Series
from rare_tokens.ingest.ablation.sums import AlongSums, Sums
from rare_tokens.ingest.ablation.unablated import Directions, Positions
from rare_tokens.ingest.ablation.unigram import Unigram


@dataclass(frozen=True)
class Expansion:
    """The series of δ at b positions and N neurons, and what else an effect's series may be made of."""

    folded: FoldedHead
    series: Series
    factors: Factors
    sums: Sums  # of all B positions
    at: slice  # b of them
    w: Tensor  # N x d
    positions: Positions  # the b positions
    target_rows: Tensor  # b x d, U_y
    directions: Directions | None

    @cached_property
    def loss(self) -> Estimate:
        """Δ loss."""
        return self.series.loss()

    def mixed(self, along: AlongSums | None) -> MixedMoments:
        """Moments of δ with the function of the token that `along` is about."""
        assert along is not None
        return MixedMoments(self.sums, along, self.at, self.w, self.series.moments)

    def change_along(self, row: Tensor) -> Tensor:
        """Σ_v f_v δ_v, b x N, where `row` is Σ_v f_v U_v (d)."""
        return self.factors.u * (self.positions.normed @ row)[:, None] + self.factors.c * (self.w @ row)


@dataclass(frozen=True)
class OverVocabulary:
    """P pairs over the whole vocabulary: what does not depend on the token, P each."""

    folded: FoldedHead
    pairs: Pairs
    positions: Positions  # all B
    w: Tensor  # N x d
    target_m: Tensor  # m_{i,y}
    target_change: Tensor  # δ_y
    directions: Directions | None

    def change_along(self, row: Tensor) -> Tensor:
        """Σ_v f_v δ_v of each pair, where `row` is Σ_v f_v U_v (d)."""
        pairs = self.pairs
        return pairs.u * (self.positions.normed @ row)[pairs.t] + pairs.c * (self.w @ row)[pairs.i]

    @cached_property
    def projection(self) -> Tensor:
        """φ, the change of the logits' projection on the log-unigram axis."""
        assert self.directions is not None
        return self.change_along(self.directions.axis_row)

    @cached_property
    def frozen_target_change(self) -> Tensor:
        """δ_y with that projection frozen: δ_y − φ f_y."""
        assert self.directions is not None
        return self.target_change - self.projection * self.directions.axis[self.positions.targets[self.pairs.t]]


@dataclass(frozen=True)
class AtTokens:
    """Some of the P pairs at K tokens of the vocabulary, p x K each unless said otherwise; read only."""

    of: OverVocabulary
    few: slice  # which of the pairs
    ids: Tensor  # K
    p: Tensor  # p_v
    m: Tensor  # m_v
    change: Tensor  # δ_v − δ_y
    growth: Tensor  # exp(δ_v − δ_y) − 1
    all_log_p: Tensor  # log p_v at all B positions, B x K

    def column(self, values: Tensor) -> Tensor:
        """Values of all P pairs, as a column of those here: p x 1."""
        return values[self.few, None]

    def centred_log_p(self) -> Tensor:
        """L̃: log p_v less its mean under p."""
        t = self.of.pairs.t[self.few]
        return self.all_log_p.index_select(0, t).add_(self.of.positions.entropy[t, None])


@dataclass(frozen=True)
class Totals:
    """P pairs' sums over the vocabulary, P each."""

    of: OverVocabulary
    term_sums: tuple[Tensor, ...]  # of the effect's own terms
    mean_growth: Tensor  # Σ_v p_v (exp(δ_v − δ_y) − 1)


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
