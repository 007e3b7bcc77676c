"""Every neuron of a layer ablated at every position, pair by pair, for about the price of a forward pass.

Ablating neuron i at position t adds a·w_i to the MLP's output, with a = n*_{t,i} − n_{t,i} for a reference n* (mean
ablation, n* = n̄_i: Liu et al. 2025, ES eq. 4 and 5, NC eq. 1; Stolfo et al. 2024). Only norms and the unembedding U
follow it, so the logits change by

    δ_v = u z_v + c m_v            z = U x_t / σ0,   m = U w_i,   u = σ0/σ1 − 1,   c = a/σ1

with σ0, σ1 the final norm's scale before and after (a norm after the MLP adds one more term: `edits`), and the loss of
the target y by

    Δ = log Σ_v p_v exp(δ_v) − δ_y                                 p = softmax of the unablated logits.

Each pair (t, i) is computed in the cheapest of four ways that keeps the tolerance (docs/ablation/derivation.md): a
series in the moments of δ under p, which are matrix products over all pairs at once; a sum over the common tokens, with
the moments for the rare ones; a sum over the whole vocabulary; the edited residual unembedded anew in float64. T, N, V,
d and the other symbols are those of docs/definitions.md, "Symbols".
"""

import copy
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from rare_tokens.common.effects import EFFECTS, LOSS, chosen_effects
from rare_tokens.common.errors import UserError
from rare_tokens.ingest.ablation.at_positions import AtPositions, Setting
from rare_tokens.ingest.ablation.block import Block, BlockEffects
from rare_tokens.ingest.ablation.block_sizes import MEMORY, BlockBytes, piece_size
from rare_tokens.ingest.ablation.formulas.effects import needs_axis, needs_log_p, of_edits
from rare_tokens.ingest.ablation.layer.edits import BlockEdits, LayerEdits
from rare_tokens.ingest.ablation.layer.folded_head import fold
from rare_tokens.ingest.ablation.layer.unablated import Directions, Positions
from rare_tokens.ingest.ablation.numerics.rounding import (
    Sizes,
    require_tolerance,
)
from rare_tokens.ingest.ablation.numerics.timing import (
    FOLDING,
    MOMENTS,
    NoClock,
    StageClock,
)
from rare_tokens.ingest.ablation.series.moments import accumulate
from rare_tokens.ingest.ablation.series.sums import Sums
from rare_tokens.ingest.machine import reduced_precision
from rare_tokens.ingest.model.head import Head, PostNorm, require_finite, require_matrix, require_shape

COMMON_MASS = 0.985  # share of the typical prediction that the common tokens hold


class Ablation:
    """Ablation of every neuron of the last MLP, by one reference or by several."""

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
        self.layer, self.reference = LayerEdits(head.norm, w_out, post_norm, self.device), reference
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
        (found,) = self.ablate_by(residual, activations, targets, [self.reference])
        return found

    def ablate_by(
        self, residual: Tensor, activations: Tensor, targets: Tensor, references: Sequence[Tensor]
    ) -> Iterator[BlockEffects]:
        """The same by each of several references, N or B x N: the moments are shared, for only a differs.

        Values are bit for bit those of each reference alone.

        Raises:
            UserError: as `ablate`.
        """
        there = self.at(residual, activations, targets)
        for reference in references:
            yield there.ablate(reference)

    def of(self, neurons: Tensor) -> "Ablation":
        """The same of K neurons alone, whose activations are B x K; only where no norm follows the MLP."""
        few = copy.copy(self)
        few.layer, few.reference = self.layer.of(neurons), self.reference[neurons]
        return few

    def at(self, residual: Tensor, activations: Tensor, targets: Tensor) -> AtPositions:
        """The moments at B positions, for as many references as are wanted.

        Raises:
            UserError: as `ablate`.
        """
        self._check(residual, activations, targets)
        edits = self.layer.at(residual, activations, self.reference)
        with self._clock.of(MOMENTS):
            sums = self._sums(edits.rows)
        first = self._begin(residual, activations, targets.to(self.device, torch.int64), edits, sums)
        setting = Setting(
            self.folded, self.layer, self.directions, self.asked, self.tolerance, self.device, self.reduced,
            self._clock, self.with_report,
        )  # fmt: skip
        return AtPositions(setting, sums, first)

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
        return Block(residual, activations, edits, unablated, sizes, sums.spans(), self.asked, self.with_report)

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
