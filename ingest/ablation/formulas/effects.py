"""The formula of every effect, on each path that a pair may take (docs/definitions.md, "Neuron effect").

A `Formula` says how its effect follows from what a path provides (`paths`). The definition that all of them are
checked against, `reference.reference_effects`, shares nothing with them. The attribution has none: it is the derivative
at the unablated model and no effect of an edit as a whole (`attribution`).
"""

from abc import ABC, abstractmethod

from torch import Tensor

from rare_tokens.common.effects import LOSS
from rare_tokens.ingest.ablation.formulas.paths import Edits, ExactChange, Expansion, OverVocabulary, Prediction, Totals
from rare_tokens.ingest.ablation.layer.unablated import Positions
from rare_tokens.ingest.ablation.numerics.rounding import (
    ENTROPY_ROUNDINGS,
    KL_ROUNDINGS,
    LARGEST_RISE,
    LARGEST_RISE_FOR_ENTROPY,
    LOG_P_ROUNDINGS,
    ExactRounding,
)
from rare_tokens.ingest.ablation.series.entropy import entropy
from rare_tokens.ingest.ablation.series.series import Estimate, Series


class Formula(ABC):
    """An effect on every path; see the module. Values are in nats.

    Attributes:
        needs_log_p: whether it needs sums along the log-probability.
        needs_axis: whether its change of the logits moves along the log-unigram axis.
        has_own_change: whether it has a sum over the vocabulary of its own; one that has none follows from the loss's.
        largest_rise: Δ loss below which float32 cannot hold it.
        frozen_scale: whether the dense path computes it from logits with the final norm's scale frozen.
    """

    needs_log_p = False
    needs_axis = False
    has_own_change = False
    largest_rise = LARGEST_RISE
    frozen_scale = False

    @abstractmethod
    def series(self, expansion: Expansion) -> Estimate:
        """The effect of b x N pairs, with bounds on its error."""

    def expanded(self, expansion: Expansion) -> Series:
        """The series of the change of the logits that its sum over the vocabulary is about."""
        return expansion.series

    def change(self, of: OverVocabulary) -> ExactChange:  # noqa: ARG002
        """Its own change of the logits, of P pairs.

        Raises:
            TypeError: it has none.
        """
        raise TypeError(f"{type(self).__name__} has no change of its own")

    def rounding(self, of: ExactRounding, loss: Tensor) -> Tensor:  # noqa: ARG002
        """What float32 rounding can do to its exact value, of P pairs with these Δ `loss`."""
        return of.loss

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

    has_own_change = True

    def series(self, expansion: Expansion) -> Estimate:
        """As `Series.loss`."""
        return expansion.loss

    def change(self, of: OverVocabulary) -> ExactChange:
        """δ itself."""
        return ExactChange(of.pairs.change.u, of.pairs.change.c, None, of.target_change)

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

    has_own_change = True
    frozen_scale = True

    def series(self, expansion: Expansion) -> Estimate:
        """The loss's series with these factors."""
        return expansion.direct.loss()

    def expanded(self, expansion: Expansion) -> Series:
        """That with the scale frozen."""
        return expansion.direct

    def change(self, of: OverVocabulary) -> ExactChange:
        """The logits move by c m alone (and with an MLP's norm by its share)."""
        direct = of.pairs.direct
        return ExactChange(direct.u, direct.c, None, of.at_target(direct))

    def exact(self, totals: Totals) -> Tensor:
        """As the loss."""
        return totals.sums[0].log1p()

    def float64(self, edits: Edits) -> Tensor:
        """The edited residual over the scale of the unedited one."""
        return Positions.of(edits.folded, edits.edited / edits.scale, edits.before.targets).loss - edits.before.loss

    def dense(self, before: Prediction, after: Prediction) -> Tensor:
        """As the loss: `after` has the scale frozen."""
        return after.loss - before.loss


class Entropy(Formula):
    """Change of the prediction's entropy."""

    needs_log_p = True
    largest_rise = LARGEST_RISE_FOR_ENTROPY  # it divides by 1 + growth

    def series(self, expansion: Expansion) -> Estimate:
        """See `entropy.entropy`."""
        return entropy(expansion.series, expansion.log_p)

    def rounding(self, of: ExactRounding, loss: Tensor) -> Tensor:
        """It has log p in it, of as much of the prediction as moves."""
        return ENTROPY_ROUNDINGS * of.loss + LOG_P_ROUNDINGS * of.log_p * (-loss).expm1().abs()

    def exact(self, totals: Totals) -> Tensor:
        """log A − (E[e^δ L̃] + E[e^δ δ]) / A with A = E e^δ."""
        return totals.mean_growth.log1p() - (totals.sums[1] + totals.sums[2]) / (1 + totals.mean_growth)

    def float64(self, edits: Edits) -> Tensor:
        """The difference of two entropies."""
        return edits.after.entropy - edits.before.entropy

    def dense(self, before: Prediction, after: Prediction) -> Tensor:
        """The same."""
        return after.entropy - before.entropy


class Kl(Formula):
    """Change of KL(unigram ‖ prediction): Δ + δ_y − E_unigram δ, the last two low rank."""

    def series(self, expansion: Expansion) -> Estimate:
        """The loss's series, shifted."""
        assert expansion.directions is not None
        row, positions, change = expansion.directions.unigram_row, expansion.positions, expansion.factors.change
        shift = change.c * ((expansion.target_rows - row) @ expansion.w.T)
        for u, rows, target_z in zip(change.u, positions.rows, positions.target_z, strict=True):
            shift += u * (target_z - rows @ row)[:, None]
        return Estimate(expansion.loss.value + shift, expansion.loss.truncation, 2 * expansion.loss.rounding)

    def rounding(self, of: ExactRounding, loss: Tensor) -> Tensor:
        """The shift is found in float32, and the loss may be far larger than what is left of it."""
        return KL_ROUNDINGS * of.loss + 2 * of.moved + LOG_P_ROUNDINGS * of.log_p * (-loss).expm1().abs()

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

    needs_axis = True
    has_own_change = True

    def series(self, expansion: Expansion) -> Estimate:
        """The loss's series with one more function of the token, the axis, whose factor is −φ."""
        found = expansion.frozen_frequency.loss()
        return Estimate(found.value, found.truncation, 2 * found.rounding)

    def expanded(self, expansion: Expansion) -> Series:
        """That of δ − φ f."""
        return expansion.frozen_frequency

    def change(self, of: OverVocabulary) -> ExactChange:
        """δ − φ f."""
        assert of.directions is not None
        change, projection = of.pairs.change, of.change_along(of.directions.axis_row)
        target = of.target_change - projection * of.directions.axis[of.positions.targets[of.pairs.t]]
        return ExactChange(change.u, change.c, -projection, target)

    def rounding(self, of: ExactRounding, loss: Tensor) -> Tensor:  # noqa: ARG002
        """The projection is found in float32."""
        return of.loss + 2 * of.moved

    def exact(self, totals: Totals) -> Tensor:
        """As the loss."""
        return totals.sums[0].log1p()

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


def of_edits(effects: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the effects that an edit as a whole has, and so a formula."""
    return tuple(name for name in effects if name in FORMULAS)


def needs_log_p(effects: tuple[str, ...]) -> bool:
    """Whether any of these effects needs sums along the log-probability."""
    return any(FORMULAS[name].needs_log_p for name in of_edits(effects))


def needs_axis(effects: tuple[str, ...]) -> bool:
    """Whether any of these effects moves along the log-unigram axis."""
    return any(FORMULAS[name].needs_axis for name in of_edits(effects))
