"""Every neuron of a layer ablated at every position, pair by pair, for about the price of a forward pass.

Ablating neuron i at position t adds a·w_i to the MLP's output, with a = n̄_i − n_{t,i} (mean ablation: Liu et al. 2025,
ES eq. 4 and 5, NC eq. 1; Stolfo et al. 2024). Only norms and the unembedding U follow it, so the logits change by

    δ_v = u z_v + c m_v            z = U x_t / σ0,   m = U w_i,   u = σ0/σ1 − 1,   c = a/σ1

with σ0, σ1 the final norm's scale before and after (a norm after the MLP adds one more term: `edits`), and the loss of
the target y by

    Δ = log Σ_v p_v exp(δ_v) − δ_y                                 p = softmax of the unablated logits.

Each pair (t, i) is computed in the cheapest of four ways that keeps the tolerance (docs/ablation/derivation.md): a
series in the moments of δ under p, which are matrix products over all pairs at once; a sum over the common tokens, with
the moments for the rare ones; a sum over the whole vocabulary; the edited residual unembedded anew in float64. T, N, V,
d and the other symbols are those of docs/definitions.md, "Symbols".
"""

import torch
from torch import Tensor

from rare_tokens.common.effects import ATTRIBUTION, EFFECTS, LOSS, chosen_effects
from rare_tokens.common.errors import UserError
from rare_tokens.ingest.ablation.block import Block, BlockEffects, SeriesReport
from rare_tokens.ingest.ablation.block_sizes import CHUNK, EXACT_PAIRS, MEMORY, BlockBytes, piece_size
from rare_tokens.ingest.ablation.formulas.attribution import attribution, attribution64
from rare_tokens.ingest.ablation.formulas.effects import FORMULAS, needs_axis, needs_log_p, of_edits
from rare_tokens.ingest.ablation.formulas.paths import Expansion
from rare_tokens.ingest.ablation.layer.changes import Pairs
from rare_tokens.ingest.ablation.layer.edits import BlockEdits, LayerEdits
from rare_tokens.ingest.ablation.layer.folded_head import fold
from rare_tokens.ingest.ablation.layer.unablated import Directions, Positions
from rare_tokens.ingest.ablation.numerics import compiler
from rare_tokens.ingest.ablation.numerics.rounding import (
    LARGEST_EXPONENT,
    LARGEST_RISE,
    RELATIVE_ROUNDING,
    RELATIVE_TOLERANCE,
    SMALLEST_RATIO,
    ExactRounding,
    Sizes,
    reach,
    require_tolerance,
)
from rare_tokens.ingest.ablation.numerics.timing import (
    FLOAT64,
    FOLDING,
    MOMENTS,
    SERIES,
    VOCABULARY,
    NoClock,
    StageClock,
)
from rare_tokens.ingest.ablation.series.moments import accumulate
from rare_tokens.ingest.ablation.series.series import CentralMoments, Estimate
from rare_tokens.ingest.ablation.series.sums import Sums
from rare_tokens.ingest.ablation.vocabulary.exact import exact_effects, float64_effects
from rare_tokens.ingest.ablation.vocabulary.fused64 import fused64_losses
from rare_tokens.ingest.machine import reduced_precision
from rare_tokens.ingest.model.head import Head, PostNorm, require_finite, require_matrix, require_shape

COMMON_MASS = 0.985  # share of the typical prediction that the common tokens hold
# Pairs in float64 at a time: unembedded, and by the compiled pass so many values of their rows
FLOAT64_PAIRS, FLOAT64_VALUES = 512, 1 << 23


class Ablation:
    """Mean ablation (zero ablation, where `reference` is zero) of every neuron of the last MLP."""

    def __init__(
        self,
        head: Head,
        w_out: Tensor,
        reference: Tensor,
        *,
        post_norm: PostNorm | None = None,
        tolerance: float = 1e-6,
        effects: tuple[str, ...] = (LOSS,),
        unigram_counts: Tensor | None = None,
        device: str = "cpu",
        memory: int = MEMORY,
        sample: Tensor | None = None,
        with_report: bool = False,
        clock: StageClock | None = None,
    ) -> None:
        """Fold the head and check what does not change from block to block.

        Args:
            head: final norm and unembedding.
            w_out: N x d, the output projection's rows w_i. A row of zeros gives effects of exactly 0.
            reference: N, n̄: the value each activation is replaced by.
            post_norm: the norm between the MLP's output and the residual stream, where there is one.
            tolerance: largest error of a pair is `tolerance` + 1e-4 |effect|, in nats.
            effects: names of those to compute (`common.effects`); the loss always is one of them.
            unigram_counts: V, how often each token occurs; needed by ``kl`` and ``frequency``.
            device: torch device to compute on.
            memory: bytes that a block may take besides its inputs and results.
            sample: S x d, residuals at some of the run's positions, which tell common tokens from rare ones. Without
                them the counts do; without either, all tokens count as common. Only the cost depends on this.
            with_report: return a `SeriesReport` too, for tests and benchmarks.
            clock: keeps the seconds of each stage.

        Raises:
            UserError: shapes do not fit, values are not finite, an effect is unknown or lacks its counts, or the
                tolerance is below what float32 can hold.
        """
        N, d, V = _require_layer(head, w_out, reference)
        require_tolerance(tolerance)
        self.asked = chosen_effects(effects)
        self.effects = of_edits(self.asked)  # the attribution takes a way of its own
        self.head, self.tolerance, self.memory, self.with_report = head, tolerance, memory, with_report
        self._clock = clock or NoClock()
        self.device = torch.device(device)
        self.reduced = reduced_precision(self.device)
        self.layer = LayerEdits(head.norm, w_out, reference, post_norm, self.device)
        K = piece_size(V, d, N)
        self._bytes = BlockBytes.of(N, d, V, K, self.asked, functions=1 if post_norm is None else 2)
        with self._clock.of(FOLDING):
            self.folded = fold(head, self.device, K)
            if sample is not None:
                self.folded = self.folded.ordered_by(self._typical_prediction(sample), COMMON_MASS)
            elif unigram_counts is not None:
                self.folded = self.folded.ordered_by(unigram_counts.cpu().double() + 1e-3, COMMON_MASS)
        self.directions: Directions | None = None
        if needing := [name for name in self.effects if EFFECTS[name].needs_counts]:
            if unigram_counts is None:
                raise UserError(f"The effects {' and '.join(needing)} need the tokens' counts; none were given.")
            require_shape("the tokens' counts", unigram_counts, (V,))
            self.directions = Directions.of(self.folded, unigram_counts)

    def preferred_positions(self, total: int) -> int:
        """How many of `total` positions to pass to `ablate` at a time: as many as the memory allows."""
        return self._bytes.preferred_positions(total, self.memory)

    def ablate(self, residual: Tensor, activations: Tensor, targets: Tensor) -> BlockEffects:
        """Effects of ablating every neuron at each of B positions.

        Args:
            residual: B x d, the input of the final norm.
            activations: B x N, the input of the MLP's output projection.
            targets: B, token ids.

        Raises:
            UserError: shapes do not fit, values are not finite, a target is not a token id, or a residual has no
                variance and the norm adds none.
        """
        self._check(residual, activations, targets)
        B = len(residual)
        edits = self.layer.at(residual, activations)
        with self._clock.of(MOMENTS):
            sums = self._sums(edits.rows)
        block = self._begin(residual, activations, targets.to(self.device, torch.int64), edits, sums)
        exact_pairs = 0
        for start in range(0, B, CHUNK):
            with self._clock.of(SERIES):
                pairs = self._by_series(block, sums, slice(start, min(start + CHUNK, B)))
            exact_pairs += len(pairs)
            block.left.append(pairs)
            if sum(map(len, block.left)) > EXACT_PAIRS:  # keeps memory bounded where nearly all are left
                self._settle_left(block)
        del sums
        self._settle_left(block)
        self._settle_attribution(block)
        report = None
        if block.bounds is not None:
            report = SeriesReport(block.bounds, block.common_pairs, block.float64_pairs)
        return BlockEffects(block.values, block.unablated.loss, block.unablated.entropy, exact_pairs, report)

    # --- the unablated model --------------------------------------------------------------------------------------

    def _sums(self, rows: Tensor) -> Sums:
        """The sums that all moments are made of, in one pass over the vocabulary."""
        return accumulate(
            self.folded,
            rows,
            self.layer.w,
            self.reduced,
            axis=self.directions.axis if self.directions is not None and needs_axis(self.effects) else None,
            log_p=needs_log_p(self.effects),
            keep_z=self._bytes.keeps_z(rows.shape[1], self.memory),
        )

    def _begin(self, residual: Tensor, activations: Tensor, targets: Tensor, edits: BlockEdits, sums: Sums) -> Block:
        """The unablated model at B positions, and room for their effects."""
        target_rows = self.folded.gather(targets, torch.float64).cpu()
        target_z = (edits.exact_rows * target_rows).sum(2).float().to(self.device)
        weight = sums.weight
        log_normaliser = weight.log() + sums.pivot
        loss = log_normaliser - self.folded.add_bias(targets, target_z[0])
        entropy = weight.log() - sums.logit / weight
        origin = sums.origin[: len(edits.rows)]
        unablated = Positions(edits.rows, targets, log_normaliser, target_z, loss, entropy, origin, sums.kept_z)
        lengths = target_rows.norm(dim=1).float().to(self.device)
        squares = sums.squares / weight.square()
        others = (squares - (-2 * loss).exp()).clamp(min=0)
        sizes = Sizes(sums.length / weight, lengths, squares.sqrt(), others.sqrt())
        shape = tuple(activations.shape)
        values = {name: torch.empty(shape, device=self.device) for name in self.asked}
        bounds = torch.empty(shape, device=self.device) if self.with_report else None
        return Block(residual, activations, edits, unablated, sizes, sums.spans(), values, bounds)

    def _typical_prediction(self, sample: Tensor) -> Tensor:
        """Mean prediction over some positions (S x d): V probabilities."""
        centred = self.head.norm.centre(sample.cpu().double())
        normed = (centred / self.head.norm.scale_of_centred(centred)).float().to(self.device)
        total = Positions.of(self.folded, normed, torch.zeros(len(sample), dtype=torch.int64, device=self.device))
        mean = torch.zeros(self.folded.vocabulary, device=self.device)
        for ids, U, _ in self.folded.pieces():
            logits = self.folded.add_bias(ids, normed @ U.T)
            mean[ids] = (logits - total.log_normaliser[:, None]).exp().mean(0)
        return mean

    # --- by the series --------------------------------------------------------------------------------------------

    def _by_series(self, block: Block, sums: Sums, at: slice) -> Pairs:
        """Fill in the series' effects at the positions `at`; return the pairs that it cannot do within tolerance."""
        expansion = self._expansion(block, sums, at)
        good = expansion.factors.ratio > SMALLEST_RATIO
        for name in self.effects:
            estimate = FORMULAS[name].series(expansion)
            block.values[name][at] = estimate.value
            good &= estimate.truncation + estimate.rounding <= self._allowed(estimate)  # false where either is NaN
        if ATTRIBUTION in self.asked:
            estimate = attribution(expansion)
            block.values[ATTRIBUTION][at] = estimate.value
            coarse = (~(estimate.rounding <= self._allowed(estimate))).nonzero()
            block.coarse.append(coarse + coarse.new_tensor([at.start, 0]))
        if block.bounds is not None:
            block.bounds[at] = self._share_of_tolerance(expansion.loss).masked_fill_(~good, torch.inf)
        return self._left_over(expansion, ~good)

    def _expansion(self, block: Block, sums: Sums, at: slice) -> Expansion:
        """The series of δ at the positions `at`, from which every effect's series is made."""
        here, w, factors = block.unablated[at], self.layer.w, block.edits.factors(at)
        target_rows, target_z = self.folded.gather(here.targets), here.target_z
        if len(sums.origin) > len(target_z):  # the axis is one of the functions
            assert self.directions is not None
            target_z = torch.cat([target_z, self.directions.axis[None, here.targets]])
        moments = CentralMoments(sums, at, w, target_rows, target_z, self.reduced)
        size = torch.maximum(factors.change.c.abs(), factors.direct.c.abs()) * self.layer.w_norm
        for u, length in zip(factors.change.u, block.edits.lengths[:, at], strict=True):
            size += u.abs() * length[:, None]
        return Expansion(sums, at, moments, factors, size, w, here, target_rows, self.directions)

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
            told &= errors[id(series)] + estimate.rounding <= self._allowed(estimate)
        most = torch.stack(list(errors.values())).amax(0)
        return torch.where(told, torch.stack(growths), torch.nan), torch.where(told, most, 0.0)

    def _allowed(self, estimate: Estimate) -> Tensor:
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
        on_cpu = t.cpu()
        x, edited = self.layer.edited(block.residual[on_cpu], block.activations[on_cpu], i)
        targets = block.unablated.targets[t].to(place)
        values = float64_effects(
            self.folded.on(place), x.to(place), edited.to(place), targets, self.effects, self.directions
        )
        for name, value in values.items():
            block.values[name][t, i] = value.float().to(self.device)

    # --- input ----------------------------------------------------------------------------------------------------

    def _check(self, residual: Tensor, activations: Tensor, targets: Tensor) -> None:
        B, _ = require_matrix("the residual stream", residual)
        require_shape("the residual stream", residual, (B, self.folded.width))
        require_shape("the activations", activations, (B, len(self.layer.w)))
        require_shape("the targets", targets, (B,))
        require_finite("the residual stream", residual)
        require_finite("the activations", activations)
        if int(targets.min()) < 0 or int(targets.max()) >= self.folded.vocabulary:
            raise UserError(f"A target is not a token id: the vocabulary has {self.folded.vocabulary} tokens.")


def _require_layer(head: Head, w_out: Tensor, reference: Tensor) -> tuple[int, int, int]:
    """(N, d, V) of a layer whose matrices fit together and are finite; else UserError."""
    head.check()
    V, width = head.unembedding.shape
    N, d = require_matrix("the output projection", w_out)
    if d != width:
        raise UserError(f"The output projection is {d} wide and the unembedding {width}; they must be equally wide.")
    require_shape("the reference activations", reference, (N,))
    require_finite("the output projection", w_out)
    require_finite("the reference activations", reference)
    return N, d, V
