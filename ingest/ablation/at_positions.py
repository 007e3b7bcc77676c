"""B positions whose moments are known, and the effects of ablating every neuron there by any reference.

The moments cost most and do not depend on the reference; what a reference leaves over does.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from rare_tokens.common.effects import ATTRIBUTION, LOSS
from rare_tokens.ingest.ablation.block import Block, BlockEffects, SeriesReport
from rare_tokens.ingest.ablation.block_sizes import CHUNK, EXACT_PAIRS
from rare_tokens.ingest.ablation.formulas.attribution import attribution, attribution64
from rare_tokens.ingest.ablation.formulas.effects import FORMULAS, needs_log_p, of_edits
from rare_tokens.ingest.ablation.formulas.paths import Expansion
from rare_tokens.ingest.ablation.layer.changes import Pairs
from rare_tokens.ingest.ablation.layer.edits import LayerEdits
from rare_tokens.ingest.ablation.layer.folded_head import FoldedHead
from rare_tokens.ingest.ablation.layer.unablated import Directions
from rare_tokens.ingest.ablation.numerics import compiler
from rare_tokens.ingest.ablation.numerics.rounding import (
    LARGEST_EXPONENT,
    LARGEST_RISE,
    RELATIVE_ROUNDING,
    RELATIVE_TOLERANCE,
    SMALLEST_RATIO,
    ExactRounding,
    reach,
)
from rare_tokens.ingest.ablation.numerics.timing import (
    FLOAT64,
    SERIES,
    VOCABULARY,
    StageClock,
)
from rare_tokens.ingest.ablation.second_order import SecondOrder
from rare_tokens.ingest.ablation.series.series import CentralMoments, Estimate
from rare_tokens.ingest.ablation.series.sums import Sums
from rare_tokens.ingest.ablation.vocabulary.exact import exact_effects, float64_effects
from rare_tokens.ingest.ablation.vocabulary.fused64 import fused64_losses
from rare_tokens.ingest.model.head import require_finite, require_shape

# Pairs in float64 at a time: unembedded, and by the compiled pass so many values of their rows
FLOAT64_PAIRS, FLOAT64_VALUES = 512, 1 << 23


@dataclass(frozen=True)
class Setting:
    """What is the same at all positions (`ablation.Ablation`)."""

    folded: FoldedHead
    layer: LayerEdits
    directions: Directions | None
    asked: tuple[str, ...]  # effects
    tolerance: float
    device: torch.device
    reduced: torch.dtype
    clock: StageClock
    with_report: bool


class AtPositions:
    """B positions, the sums over the vocabulary there, and the unablated model."""

    def __init__(self, setting: Setting, sums: Sums, first: Block) -> None:
        """`first` is the block without a reference's effects."""
        self.folded, self.layer, self.directions = setting.folded, setting.layer, setting.directions
        self.asked, self.effects = setting.asked, of_edits(setting.asked)  # the attribution takes a way of its own
        self.tolerance, self.device, self.reduced = setting.tolerance, setting.device, setting.reduced
        self._clock, self.sums, self.first = setting.clock, sums, first

    def ablate(self, reference: Tensor) -> BlockEffects:
        """Effects of replacing each activation by a reference, N or B x N.

        Raises:
            UserError: it has another shape, or values that are not finite.
        """
        require_shape("the reference activations", reference, tuple(self.first.activations.shape)[-reference.ndim :])
        require_finite("the reference activations", reference)
        block, exact_pairs = self.first.towards(reference), 0
        for start in range(0, len(block.residual), CHUNK):
            with self._clock.of(SERIES):
                pairs = self.by_series(block, slice(start, min(start + CHUNK, len(block.residual))))
            exact_pairs += len(pairs)
            block.left.append(pairs)
            if sum(map(len, block.left)) > EXACT_PAIRS:  # keeps memory bounded where nearly all are left
                self._settle_left(block)
        self._settle_left(block)
        self._settle_attribution(block)
        report = None
        if block.bounds is not None:
            report = SeriesReport(block.bounds, block.common_pairs, block.float64_pairs)
        return BlockEffects(block.values, block.unablated.loss, block.unablated.entropy, exact_pairs, report)

    def second_order(self, *, keep: bool = False) -> SecondOrder:
        """Δ by the second order alone, for any reference: to look for one; `keep` as there."""
        B = len(self.first.residual)
        stretches = [slice(start, min(start + CHUNK, B)) for start in range(0, B, CHUNK)]
        return SecondOrder(self.first.edits, self._moments, stretches, keep=keep)

    # --- by the series --------------------------------------------------------------------------------------------

    def by_series(self, block: Block, at: slice) -> Pairs:
        """Fill in the series' effects at the positions `at`; return the pairs that it cannot do within tolerance."""
        expansion = self.expansion(block, at)
        good = expansion.factors.ratio > SMALLEST_RATIO
        for name in self.effects:
            estimate = FORMULAS[name].series(expansion)
            block.values[name][at] = estimate.value
            good &= estimate.truncation + estimate.rounding <= self.allowed(estimate)  # false where either is NaN
        if ATTRIBUTION in self.asked:
            estimate = attribution(expansion)
            block.values[ATTRIBUTION][at] = estimate.value
            coarse = (~(estimate.rounding <= self.allowed(estimate))).nonzero()
            block.coarse.append(coarse + coarse.new_tensor([at.start, 0]))
        if block.bounds is not None:
            block.bounds[at] = self._share_of_tolerance(expansion.loss).masked_fill_(~good, torch.inf)
        return self._left_over(expansion, ~good)

    def expansion(self, block: Block, at: slice) -> Expansion:
        """The series of δ at the positions `at`, from which every effect's series is made."""
        here, w, factors = block.unablated[at], self.layer.w, block.edits.factors(at)
        target_rows, moments = self.folded.gather(here.targets), self._moments(at)
        size = torch.maximum(factors.change.c.abs(), factors.direct.c.abs()) * self.layer.w_norm
        for u, length in zip(factors.change.u, block.edits.lengths[:, at], strict=True):
            size += u.abs() * length[:, None]
        return Expansion(self.sums, at, moments, factors, size, w, here, target_rows, self.directions)

    def _moments(self, at: slice) -> CentralMoments:
        """The central moments at the positions `at`."""
        here, sums = self.first.unablated[at], self.sums
        target_z = here.target_z
        if len(sums.origin) > len(target_z):  # the axis is one of the functions
            assert self.directions is not None
            target_z = torch.cat([target_z, self.directions.axis[None, here.targets]])
        return CentralMoments(sums, at, self.layer.w, self.folded.gather(here.targets), target_z, self.reduced)

    def _left_over(self, expansion: Expansion, left: Tensor) -> Pairs:
        """The pairs that are `left` (b x N, bool), and what the moments still tell of them."""
        t, i = left.nonzero().unbind(1)
        growth, error = self._rare_share(expansion)
        place = "cpu" if self.device.type == "mps" else self.device  # which has no float64
        rows, w = (value.to(place, torch.float64) for value in (expansion.target_rows, self.layer.w))
        target_m = (rows @ w.T).float().to(self.device)
        chosen = {
            "target_m": target_m, "first_order": expansion.series.first_order(), "spread": expansion.series.spread,
            "size": expansion.size,
            "ratio": expansion.factors.ratio, "rare_growth": growth, "rare_error": error,
        }  # fmt: skip
        factors = expansion.factors
        return Pairs(
            t=(t + expansion.at.start).int(),
            i=i.int(),
            change=factors.change[t, i],
            direct=factors.direct[t, i],
            **{name: value[..., t, i] for name, value in chosen.items()},
        )

    def _rare_share(self, expansion: Expansion) -> tuple[Tensor, Tensor]:
        """`Pairs.rare_growth` (E x b x N) and `Pairs.rare_error` (b x N) of all pairs."""
        growths, errors = [], {}
        told = torch.full_like(expansion.loss.value, not needs_log_p(self.effects), dtype=torch.bool)
        for name in self.effects:
            series = FORMULAS[name].expanded(expansion)
            if FORMULAS[name].has_own_change:
                growth, error = series.rare_growth()
                growths.append(growth)
                errors[id(series)] = error
            estimate = FORMULAS[name].series(expansion)
            told &= errors[id(series)] + estimate.rounding <= self.allowed(estimate)
        most = torch.stack(list(errors.values())).amax(0)
        return torch.where(told, torch.stack(growths), torch.nan), torch.where(told, most, 0.0)

    def allowed(self, estimate: Estimate) -> Tensor:
        """The tolerance of b x N pairs, for the smallest |effect| that their error bounds allow."""
        error = estimate.truncation + estimate.rounding
        return self.tolerance + RELATIVE_TOLERANCE * (estimate.value.abs() - error).clamp_(min=0)

    def _share_of_tolerance(self, loss: Estimate) -> Tensor:
        """What the error of a loss can be, over its tolerance."""
        return (loss.truncation + loss.rounding) / (self.tolerance + RELATIVE_TOLERANCE * loss.value.abs())

    # --- what the series leaves over ------------------------------------------------------------------------------

    def _settle_left(self, block: Block) -> None:
        if any(map(len, block.left)):
            self._settle(block, Pairs.concatenate(block.left))
        block.left.clear()

    def _settle_attribution(self, block: Block) -> None:
        """Fill in the attributions that float32 cannot hold."""
        if any(map(len, block.coarse)):
            t, i = torch.cat(block.coarse).unbind(1)
            with self._clock.of(FLOAT64, len(t)):
                found = attribution64(self.folded, block.unablated, block.edits, t.cpu(), i.cpu())
            block.values[ATTRIBUTION][t, i] = found.float().to(self.device)

    def _settle(self, block: Block, pairs: Pairs) -> None:
        """Fill in P pairs: over the vocabulary, in float64 where float32 may not hold them."""
        far = reach(block.spans, pairs)
        hard = ~(pairs.ratio > SMALLEST_RATIO) | ~(far <= LARGEST_EXPONENT)
        easy = (~hard).nonzero()[:, 0]
        if len(easy):
            hard[easy] = self._settle_in_float32(block, pairs if len(easy) == len(pairs) else pairs[easy])
        block.common_pairs += len(pairs) - int(pairs.is_in_full.sum())
        block.float64_pairs += int(hard.sum())
        is_fused = self.effects == (LOSS,) and self.device.type == "cpu" and compiler.is_available()
        at_a_time = max(FLOAT64_PAIRS, FLOAT64_VALUES // self.folded.width) if is_fused else FLOAT64_PAIRS
        for few in hard.nonzero()[:, 0].split(at_a_time) if bool(hard.any()) else ():
            t, i = pairs.t[few].long(), pairs.i[few].long()
            with self._clock.of(FLOAT64, len(few)):
                if is_fused:
                    found = fused64_losses(self.folded, block.unablated, block.edits, t, i)
                    block.values[LOSS][t, i] = found.float()
                else:
                    self._settle_in_float64(block, t, i)

    def _settle_in_float32(self, block: Block, pairs: Pairs) -> Tensor:
        """Fill in P pairs over the vocabulary; return which of them float32 may not hold (P, bool)."""
        with self._clock.of(VOCABULARY, len(pairs)):
            values = exact_effects(self.folded, block.unablated, self.layer.w, pairs, self.effects, self.directions)
        target_z, loss = block.unablated.target_z, values[LOSS]
        rounding = ExactRounding.of(self.folded.width, block.sizes, pairs, target_z, loss)
        # The target's rise leaves 1 + Σ p expm1(δ − δ_y) near 0, which float32 cannot hold
        hard = loss < max(FORMULAS[name].largest_rise for name in self.effects)
        for name, value in values.items():
            allowed = self.tolerance + (RELATIVE_TOLERANCE - RELATIVE_ROUNDING) * value.abs()
            hard |= ~(FORMULAS[name].rounding(rounding, loss) + pairs.rare_error <= allowed)
            hard |= ~value.isfinite() | (value < LARGEST_RISE)
            block.values[name][pairs.t, pairs.i] = value
        return hard

    def _settle_in_float64(self, block: Block, t: Tensor, i: Tensor) -> None:
        """Fill in the pairs (t, i): the residual stream is edited and unembedded anew."""
        place = torch.device("cpu") if self.device.type == "mps" else self.device
        x, edited = block.edits.edited(block.residual, t.cpu(), i.cpu())
        targets = block.unablated.targets[t].to(place)
        values = float64_effects(
            self.folded.on(place), x.to(place), edited.to(place), targets, self.effects, self.directions
        )
        for name, value in values.items():
            block.values[name][t, i] = value.float().to(self.device)
