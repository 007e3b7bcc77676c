"""The formula of every effect, on each path that a pair may take (docs/definitions.md, "Neuron effect").

A `Formula` says how its effect follows from what a path provides (`paths`). The definition that all of them are
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

LOG_P, AXIS = "log_p", "axis"  # functions of the token, besides z and m, that a series can need sums along


class Formula(ABC):
    """An effect on every path; see the module. Values are in nats.

    Attributes:
        along: which function of the token its series needs sums along (`LOG_P` or `AXIS`), if any.
        own_sums: how many sums over the vocabulary its value takes, besides those of the loss.
        roundings: float32 roundings of its exact value per rounding of the loss's.
        largest_rise: Δ loss below which float32 cannot hold it.
        frozen_scale: whether the dense path computes it from logits with the final norm's scale frozen.
    """

    along: str | None = None
    own_sums: int = 1
    roundings: float = 1
    largest_rise = LARGEST_RISE
    frozen_scale = False

    @abstractmethod
    def series(self, expansion: Expansion) -> Estimate:
        """The effect of b x N pairs, with bounds on its error."""

    def terms(self, here: AtTokens) -> tuple[Tensor, ...]:  # noqa: ARG002
        """What K tokens add to each of its own sums over the vocabulary; nothing where the loss's suffice."""
        return ()

    @abstractmethod
    def exact(self, totals: Totals) -> Tensor:
        """The effect of P pairs, from the sums over the vocabulary."""

    @abstractmethod
    def float64(self, edits: Edits) -> Tensor:
        """The effect of P edits."""

    @abstractmethod
    def dense(self, before: Prediction, after: Prediction) -> Tensor:
        """The effect of S edits at T positions, S x T, from the logits before (T x V) and after (S x T x V)."""


class Loss(Formula):
    """Δ: log Σ_v p_v exp(δ_v) − δ_y."""

    def series(self, expansion: Expansion) -> Estimate:
        """As `Series.loss`."""
        return expansion.loss

    def terms(self, here: AtTokens) -> tuple[Tensor, ...]:
        """Relative to the target's change, so that nothing cancels."""
        return (vecdot(here.p, here.growth),)

    def exact(self, totals: Totals) -> Tensor:
        """log Σ p exp(δ − δ_y)."""
        return totals.mean_growth.log1p()

    def float64(self, edits: Edits) -> Tensor:
        """The difference of two losses."""
        return edits.after.loss - edits.before.loss

    def dense(self, before: Prediction, after: Prediction) -> Tensor:
        """The same."""
        return after.loss - before.loss


class Direct(Formula):
    """Δ with the final norm's scale frozen at σ0: u = 0 and c = a/σ0."""

    frozen_scale = True

    def series(self, expansion: Expansion) -> Estimate:
        """The loss's series with these factors."""
        direct = Series(
            expansion.series.moments,
            torch.zeros_like(expansion.factors.u),
            expansion.factors.frozen_c,
            expansion.series.w_norm,
        )
        return direct.loss()

    def terms(self, here: AtTokens) -> tuple[Tensor, ...]:
        """δ_v − δ_y = c (m_v − m_y)."""
        change = (here.m - here.column(here.of.target_m)).mul_(here.column(here.of.pairs.frozen_c))
        return (vecdot(here.p, change.expm1_()),)

    def exact(self, totals: Totals) -> Tensor:
        """As the loss."""
        return totals.term_sums[0].log1p()

    def float64(self, edits: Edits) -> Tensor:
        """The edited residual over the scale of the unedited one."""
        return Positions.of(edits.folded, edits.edited / edits.scale, edits.before.targets).loss - edits.before.loss

    def dense(self, before: Prediction, after: Prediction) -> Tensor:
        """As the loss: `after` has the scale frozen."""
        return after.loss - before.loss


class Entropy(Formula):
    """Change of the prediction's entropy."""

    along = LOG_P
    own_sums = 2
    roundings = ENTROPY_ROUNDINGS
    largest_rise = LARGEST_RISE_FOR_ENTROPY  # it divides by 1 + growth

    def series(self, expansion: Expansion) -> Estimate:
        """See `entropy_and_frequency.entropy`."""
        return entropy(expansion.series, expansion.mixed(expansion.sums.along_log_p))

    def terms(self, here: AtTokens) -> tuple[Tensor, ...]:
        """E[(e^δ − 1) L̃] and E[e^δ δ], δ relative to the target's."""
        return vecdot(here.p * here.growth, here.centred_log_p()), vecdot(here.p, (here.growth + 1).mul_(here.change))

    def exact(self, totals: Totals) -> Tensor:
        """log A − (E[e^δ L̃] + E[e^δ δ]) / A with A = E e^δ."""
        return totals.mean_growth.log1p() - (totals.term_sums[0] + totals.term_sums[1]) / (1 + totals.mean_growth)

    def float64(self, edits: Edits) -> Tensor:
        """The difference of two entropies."""
        return edits.after.entropy - edits.before.entropy

    def dense(self, before: Prediction, after: Prediction) -> Tensor:
        """The same."""
        return after.entropy - before.entropy


class Kl(Formula):
    """Change of KL(unigram ‖ prediction): Δ + δ_y − E_unigram δ, the last two low rank."""

    own_sums = 0

    def series(self, expansion: Expansion) -> Estimate:
        """The loss's series, shifted."""
        assert expansion.directions is not None
        row, positions = expansion.directions.unigram_row, expansion.positions
        shift = expansion.factors.u * (positions.target_z - positions.normed @ row)[:, None]
        shift += expansion.factors.c * ((expansion.target_rows - row) @ expansion.w.T)
        return Estimate(expansion.loss.value + shift, expansion.loss.truncation, 2 * expansion.loss.rounding)

    def exact(self, totals: Totals) -> Tensor:
        """The loss, shifted."""
        assert totals.of.directions is not None
        return (
            totals.mean_growth.log1p()
            + totals.of.target_change
            - totals.of.change_along(totals.of.directions.unigram_row)
        )

    def float64(self, edits: Edits) -> Tensor:
        """The normaliser's change less the unigram mean of the logits'."""
        assert edits.directions is not None
        unigram_change = edits.moved @ edits.directions.unigram_row.double()
        return edits.after.log_normaliser - edits.before.log_normaliser - unigram_change

    def dense(self, before: Prediction, after: Prediction) -> Tensor:
        """The same."""
        assert before.unigram is not None
        normaliser_change = after.logits.logsumexp(-1) - before.logits.logsumexp(-1)
        probability = before.unigram.probability
        return normaliser_change - (after.logits @ probability - before.logits @ probability)


class FrozenFrequency(Formula):
    """Δ with the logits' projection on the log-unigram axis f frozen: δ − φ f in place of δ, φ = Σ_v δ_v f_v."""

    along = AXIS

    def series(self, expansion: Expansion) -> Estimate:
        """See `entropy_and_frequency.frozen_frequency`."""
        assert expansion.directions is not None
        projection = expansion.change_along(expansion.directions.axis_row)
        target_axis = expansion.directions.axis[expansion.positions.targets, None]
        return frozen_frequency(expansion.series, expansion.mixed(expansion.sums.along_axis), projection, target_axis)

    def terms(self, here: AtTokens) -> tuple[Tensor, ...]:
        """As the loss, of δ − φ f."""
        assert here.of.directions is not None
        target_projection = here.column(here.of.target_change) - here.column(here.of.frozen_target_change)
        change = (here.change + target_projection).sub_(
            here.column(here.of.projection) * here.of.directions.axis[here.ids]
        )
        return (vecdot(here.p, change.expm1_()),)

    def exact(self, totals: Totals) -> Tensor:
        """As the loss."""
        return totals.term_sums[0].log1p()

    def float64(self, edits: Edits) -> Tensor:
        """The logits after, less what their projection has gained."""
        assert edits.directions is not None
        projection = edits.moved @ edits.directions.axis_row.double()
        targets = edits.before.targets
        frozen = Positions.of(edits.folded, edits.after.normed, targets, edits.directions.axis.double(), projection)
        return frozen.loss - edits.before.loss

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
    """The functions of the token that the series of these effects need sums along."""
    return {along for name in effects if (along := FORMULAS[name].along) is not None}
