"""The formula of every effect, on each path that a pair may take (docs/definitions.md, "Neuron effect").

A `Formula` says how its effect follows from what a path has at hand (`paths`). The definition that all of them are
checked against, `reference.reference_effects`, shares nothing with them.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor
from torch.linalg import vecdot

from rare_tokens.common.effects import LOSS
from rare_tokens.ingest.ablation.entropy_and_frequency import entropy, frozen_frequency
from rare_tokens.ingest.ablation.paths import AtTokens, Edits, Expansion, Prediction, Totals
from rare_tokens.ingest.ablation.rounding import ENTROPY_ROUNDINGS, LARGEST_RISE, LARGEST_RISE_FOR_ENTROPY
from rare_tokens.ingest.ablation.series import Estimate, Series
from rare_tokens.ingest.ablation.unablated import Positions

LOG_P, AXIS = "log_p", "axis"  # functions of the token, beside z and m, that a series can need sums along


class Formula(ABC):
    """An effect on every path; see the module. Values are in nats.

    Attributes:
        along: which function of the token its series needs sums along (`LOG_P` or `AXIS`), if any.
        own_sums: how many sums over the vocabulary its value takes, beside those of the loss.
        roundings: float32 roundings of its exact value for one of the loss's.
        largest_rise: Δ loss below which float32 does not hold it.
        frozen_scale: whether the dense path computes it from logits with the final norm's scale frozen.
    """

    along: str | None = None
    own_sums: int = 1
    roundings: float = 1
    largest_rise = LARGEST_RISE
    frozen_scale = False

    @abstractmethod
    def series(self, x: Expansion) -> Estimate:
        """Of b x N pairs, with what its error can be."""

    def terms(self, x: AtTokens) -> tuple[Tensor, ...]:  # noqa: ARG002
        """What K tokens add to each of the sums over the vocabulary of its own; none where the loss's suffice."""
        return ()

    @abstractmethod
    def exact(self, x: Totals) -> Tensor:
        """Of P pairs, from the sums over the vocabulary."""

    @abstractmethod
    def float64(self, x: Edits) -> Tensor:
        """Of P edits."""

    @abstractmethod
    def dense(self, before: Prediction, after: Prediction) -> Tensor:
        """Of S edits at T positions, S x T, from the logits before (T x V) and after (S x T x V)."""


class Loss(Formula):
    """Δ: log Σ_v p_v exp(δ_v) − δ_y."""

    def series(self, x: Expansion) -> Estimate:
        """As `Series.loss`."""
        return x.loss

    def terms(self, x: AtTokens) -> tuple[Tensor, ...]:
        """Relative to the target's change, so that nothing cancels."""
        return (vecdot(x.p, x.growth),)

    def exact(self, x: Totals) -> Tensor:
        """log Σ p exp(δ − δ_y)."""
        return x.growth.log1p()

    def float64(self, x: Edits) -> Tensor:
        """The difference of two losses."""
        return x.after.loss - x.before.loss

    def dense(self, before: Prediction, after: Prediction) -> Tensor:
        """The same."""
        return after.loss - before.loss


class Direct(Formula):
    """Δ with the final norm's scale frozen at σ0: u = 0 and c = a/σ0."""

    frozen_scale = True

    def series(self, x: Expansion) -> Estimate:
        """The loss's series with these factors."""
        frozen = Series(x.series.moments, torch.zeros_like(x.factors.u), x.factors.frozen_c, x.series.w_norm)
        return frozen.loss()

    def terms(self, x: AtTokens) -> tuple[Tensor, ...]:
        """δ_v − δ_y = c (m_v − m_y)."""
        change = (x.m - x.column(x.of.target_m)).mul_(x.column(x.of.pairs.frozen_c))
        return (vecdot(x.p, change.expm1_()),)

    def exact(self, x: Totals) -> Tensor:
        """As the loss."""
        return x.sums[0].log1p()

    def float64(self, x: Edits) -> Tensor:
        """The edited residual over the scale of the unedited one."""
        return Positions.of(x.folded, x.edited / x.scale, x.before.targets).loss - x.before.loss

    def dense(self, before: Prediction, after: Prediction) -> Tensor:
        """As the loss: `after` has the scale frozen."""
        return after.loss - before.loss


class Entropy(Formula):
    """Change of the prediction's entropy."""

    along = LOG_P
    own_sums = 2
    roundings = ENTROPY_ROUNDINGS
    largest_rise = LARGEST_RISE_FOR_ENTROPY  # it divides by 1 + growth

    def series(self, x: Expansion) -> Estimate:
        """See `entropy_and_frequency.entropy`."""
        return entropy(x.series, x.mixed(x.sums.log_p))

    def terms(self, x: AtTokens) -> tuple[Tensor, ...]:
        """E[(e^δ − 1) L̃] and E[e^δ δ], δ relative to the target's."""
        return vecdot(x.p * x.growth, x.centred_log_p()), vecdot(x.p, (x.growth + 1).mul_(x.change))

    def exact(self, x: Totals) -> Tensor:
        """log A − (E[e^δ L̃] + E[e^δ δ]) / A with A = E e^δ."""
        return x.growth.log1p() - (x.sums[0] + x.sums[1]) / (1 + x.growth)

    def float64(self, x: Edits) -> Tensor:
        """The difference of two entropies."""
        return x.after.entropy - x.before.entropy

    def dense(self, before: Prediction, after: Prediction) -> Tensor:
        """The same."""
        return after.entropy - before.entropy


class Kl(Formula):
    """Change of KL(unigram ‖ prediction): Δ + δ_y − E_unigram δ, the last two low rank."""

    own_sums = 0

    def series(self, x: Expansion) -> Estimate:
        """The loss's, shifted."""
        assert x.directions is not None
        row, here = x.directions.unigram_row, x.here
        shift = x.factors.u * (here.target_z - here.normed @ row)[:, None]
        shift += x.factors.c * ((x.target_rows - row) @ x.w.T)
        return Estimate(x.loss.value + shift, x.loss.truncation, 2 * x.loss.rounding)

    def exact(self, x: Totals) -> Tensor:
        """The loss, shifted."""
        assert x.of.directions is not None
        return x.growth.log1p() + x.of.target_change - x.of.along(x.of.directions.unigram_row)

    def float64(self, x: Edits) -> Tensor:
        """The normaliser's change less the unigram mean of the logits'."""
        assert x.directions is not None
        shift = x.moved @ x.directions.unigram_row.double()
        return x.after.log_normaliser - x.before.log_normaliser - shift

    def dense(self, before: Prediction, after: Prediction) -> Tensor:
        """The same."""
        assert before.unigram is not None
        change = after.logits.logsumexp(-1) - before.logits.logsumexp(-1)
        unigram = before.unigram.probability
        return change - (after.logits @ unigram - before.logits @ unigram)


class FrozenFrequency(Formula):
    """Δ with the logits' projection on the log-unigram axis f frozen: δ − φ f in place of δ, φ = Σ_v δ_v f_v."""

    along = AXIS

    def series(self, x: Expansion) -> Estimate:
        """See `entropy_and_frequency.frozen_frequency`."""
        assert x.directions is not None
        projection = x.along(x.directions.axis_row)
        target_axis = x.directions.axis[x.here.targets, None]
        return frozen_frequency(x.series, x.mixed(x.sums.axis), projection, target_axis)

    def terms(self, x: AtTokens) -> tuple[Tensor, ...]:
        """As the loss, of δ − φ f."""
        assert x.of.directions is not None
        shift = x.column(x.of.target_change) - x.column(x.of.frozen_target_change)
        change = (x.change + shift).sub_(x.column(x.of.projection) * x.of.directions.axis[x.ids])
        return (vecdot(x.p, change.expm1_()),)

    def exact(self, x: Totals) -> Tensor:
        """As the loss."""
        return x.sums[0].log1p()

    def float64(self, x: Edits) -> Tensor:
        """The logits after, less what their projection has gained."""
        assert x.directions is not None
        projection = x.moved @ x.directions.axis_row.double()
        targets = x.before.targets
        frozen = Positions.of(x.folded, x.after.normed, targets, x.directions.axis.double(), projection)
        return frozen.loss - x.before.loss

    def dense(self, before: Prediction, after: Prediction) -> Tensor:
        """The same."""
        assert before.unigram is not None
        axis = before.unigram.axis
        projection = after.logits @ axis - before.logits @ axis
        return Prediction(after.logits - projection[..., None] * axis, after.targets).loss - before.loss


FORMULAS: dict[str, Formula] = {
    LOSS: Loss(),
    "direct": Direct(),
    "entropy": Entropy(),
    "kl": Kl(),
    "frequency": FrozenFrequency(),
}


def functions_along(effects: tuple[str, ...]) -> set[str]:
    """The functions of the token that the series of some effects need sums along."""
    return {along for name in effects if (along := FORMULAS[name].along) is not None}
