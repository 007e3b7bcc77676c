"""Every neuron of a layer ablated at every position, pair by pair, for about the price of a forward pass (SPEC 2.1).

Ablating neuron i at position t adds a·w_i to the residual stream x_t, with a = n̄_i − n_{t,i}. Behind the residual
stream lie only the final norm and the unembedding U, so the logits change by

    δ_v = u z_v + c m_{i,v}        z = U x_t / σ0,   m_i = U w_i,   u = σ0/σ1 − 1,   c = a/σ1

with σ0, σ1 the norm's scale before and after, and the loss of the target y by

    Δ = log Σ_v p_v exp(δ_v − δ_y)                                 p = softmax of the unablated logits.
"""

import functools
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.linalg import vecdot

from rare_tokens.common.errors import UserError
from rare_tokens.ingest.ablation.block_sizes import CHUNK, EXACT_PAIRS, MEMORY, BlockBytes, vocabulary_rows
from rare_tokens.ingest.ablation.entropy_and_frequency import Mixed, entropy, frozen_frequency
from rare_tokens.ingest.ablation.exact import Pairs, exact_effects, float64_effects
from rare_tokens.ingest.ablation.folded_head import fold
from rare_tokens.ingest.ablation.moments import Moments, accumulate
from rare_tokens.ingest.ablation.reference import reference_effects
from rare_tokens.ingest.ablation.rounding import RELATIVE_ROUNDING, Sizes, exact_rounding
from rare_tokens.ingest.ablation.series import Estimate, Expectations, Series
from rare_tokens.ingest.ablation.unablated import Directions, Positions
from rare_tokens.ingest.model.head import Head, require_finite, require_matrix, require_shape

__all__ = ["EFFECTS", "Ablation", "BlockEffects", "Head", "reference_effects"]

EFFECTS = ("loss", "direct", "entropy", "kl", "frequency")
SMALLEST_TOLERANCE = 1e-7
RELATIVE_TOLERANCE = 1e-4
# Of the typical prediction: the tokens whose third moments are in float32; whose fourth ones are computed, and the
# second ones in float32
TOP_MASS, COMMON_MASS = 0.8, 0.985
SMALLEST_RATIO = 0.1  # of σ1 / σ0: below it float32 loses the norm of the edited residual
FLOAT64_PAIRS = 512  # settled at a time
LARGEST_RISE, LARGEST_RISE_FOR_ENTROPY = -4.0, -1.0  # nats of Δ loss: below them the exact path is in float64
ENTROPY_ROUNDINGS = 4  # roundings of the entropy for one of the loss


@dataclass(frozen=True)
class BlockEffects:
    """Effects of ablating each of N neurons at each of B positions, in nats."""

    delta_loss: Tensor  # B x N float32
    loss: Tensor  # B float32, of the unablated model
    entropy: Tensor  # B float32, of the unablated model's prediction
    direct_delta_loss: Tensor | None  # B x N float32, with the final norm's scale frozen; None unless asked for
    delta_entropy: Tensor | None
    delta_kl: Tensor | None  # of KL(unigram ‖ model)
    frozen_frequency_delta_loss: Tensor | None  # with the logits' projection on the log-unigram direction frozen
    exact_pairs: int  # pairs computed over the whole vocabulary
    order2_pairs: int
    order3_pairs: int
    share_of_tolerance: Tensor | None = None  # B x N: a loss's bound over its tolerance, if kept; inf where exact


class Ablation:
    """Mean ablation (zero ablation, where `reference` is zero) of every neuron of the last MLP."""

    def __init__(
        self,
        head: Head,
        w_out: Tensor,
        reference: Tensor,
        *,
        tolerance: float = 1e-6,
        effects: tuple[str, ...] = ("loss",),
        unigram_counts: Tensor | None = None,
        device: str = "cpu",
        memory: int = MEMORY,
        sample: Tensor | None = None,
        keep_bounds: bool = False,
    ) -> None:
        """Fold the head and check what will not change from block to block.

        Args:
            head: final norm and unembedding.
            w_out: N x d, the output projection's rows w_i. A row of zeros gives effects of exactly 0.
            reference: N, the value each activation is replaced by.
            tolerance: largest error of a pair is `tolerance` + 1e-4 |effect|, in nats.
            effects: which of `EFFECTS` to compute; ``loss`` always is.
            unigram_counts: V, how often each token occurs; needed by ``kl`` and ``frequency``.
            device: torch device to compute on.
            memory: bytes that a block may take beside its inputs and results.
            sample: S x d, residuals of some positions of the run, which tell common tokens from rare ones. Without
                them the counts do, and without either all tokens count as common; only the cost depends on it.
            keep_bounds: hand back the series' bound of every pair too, for tests and benchmarks.

        Raises:
            UserError: shapes do not fit, values are not finite, an effect is unknown or lacks its counts, or the
                tolerance is below what float32 can hold.
        """
        head.check()
        N, d = require_matrix("the output projection", w_out)
        if d != head.unembedding.shape[1]:
            raise UserError(f"The output projection is {d} wide and the unembedding {head.unembedding.shape[1]}.")
        require_shape("the reference activations", reference, (N,))
        require_finite("the output projection", w_out)
        require_finite("the reference activations", reference)
        if not tolerance >= SMALLEST_TOLERANCE:
            raise UserError(
                f"A tolerance of {tolerance:g} nats is below what float32 results can hold; the smallest is "
                f"{SMALLEST_TOLERANCE:g}."
            )
        unknown = sorted(set(effects) - set(EFFECTS))
        if unknown:
            raise UserError(f"Unknown effects: {', '.join(unknown)}. Known are {', '.join(EFFECTS)}.")
        self.tolerance = tolerance
        self.effects = tuple(name for name in EFFECTS if name in effects or name == "loss")
        self.device = torch.device(device)
        self.head = head
        self.w_out = w_out
        self.reference = reference
        self.memory = memory
        self.keep_bounds = keep_bounds
        V = head.unembedding.shape[0]
        self.low = low_precision(self.device)
        rows = vocabulary_rows(V, d, N)
        self._bytes = BlockBytes.of(N, d, V, rows, self.effects)
        self.folded = fold(head, self.device, rows)
        w = centred(w_out.cpu(), head.norm)
        self._norms = w.square().sum(1).sqrt().float().to(self.device)
        self._w = w.float().to(self.device)
        self._reference = reference.float().to(self.device)
        if sample is not None:
            self.folded = self.folded.ordered_by(self._typical_prediction(sample), TOP_MASS, COMMON_MASS)
        elif unigram_counts is not None:
            self.folded = self.folded.ordered_by(unigram_counts.cpu().double() + 1e-3, TOP_MASS, COMMON_MASS)
        self.directions: Directions | None = None
        if {"kl", "frequency"} & set(self.effects):
            if unigram_counts is None:
                raise UserError("The effects kl and frequency need the tokens' counts; none were given.")
            require_shape("the tokens' counts", unigram_counts, (V,))
            self.directions = Directions.of(self.folded, unigram_counts)

    def preferred_positions(self, positions: int) -> int:
        """How many of `positions` positions to hand to `block` at a time: as many as the memory allows."""
        return self._bytes.preferred_positions(positions, self.memory)

    def block(self, residual: Tensor, activations: Tensor, targets: Tensor) -> BlockEffects:
        """Effects of ablating every neuron at each of B positions.

        Args:
            residual: B x d, the input of the final norm.
            activations: B x N, the input of the MLP's output projection.
            targets: B, token ids.

        Raises:
            UserError: shapes do not fit, values are not finite, a target is no token, or a residual has no variance
                and the norm adds none.
        """
        self._check(residual, activations, targets)
        targets = targets.to(self.device, torch.int64)
        normed, scale = self._norm(residual)
        axis = self.directions.axis if self.directions is not None and "frequency" in self.effects else None
        B, N = activations.shape
        moments = accumulate(
            self.folded,
            normed,
            self._w,
            self.low,
            surprise="entropy" in self.effects,
            axis=axis,
            keep_z=self.effects == ("loss",) and self._bytes.keeps_z(B, self.memory),
        )
        positions = self._positions(normed, targets, moments)
        found = {name: torch.empty(B, N, device=self.device) for name in self.effects}
        bounds = torch.empty(B, N, device=self.device) if self.keep_bounds else None
        weight = moments.weight
        target_row = self.folded.gather(targets).norm(dim=1)
        sizes = Sizes(moments.row / weight, target_row, moments.squares.sqrt() / weight)
        settle = functools.partial(self._settle, found, positions, sizes, residual, activations)
        left: list[Pairs] = []
        exact = order2 = 0
        for start in range(0, B, CHUNK):
            rows = slice(start, min(start + CHUNK, B))
            over, within = self._expand(moments, positions, (normed, scale, activations), found, bounds, rows)
            left.append(over)
            order2 += within
            exact += len(over)
            if sum(map(len, left)) > EXACT_PAIRS:  # so that they take no more memory where nearly all are left
                settle(Pairs.concatenate(left))
                left = []
        del moments
        if left:
            settle(Pairs.concatenate(left))
        return BlockEffects(
            delta_loss=found["loss"],
            loss=positions.loss,
            entropy=positions.entropy,
            direct_delta_loss=found.get("direct"),
            delta_entropy=found.get("entropy"),
            delta_kl=found.get("kl"),
            frozen_frequency_delta_loss=found.get("frequency"),
            exact_pairs=exact,
            order2_pairs=order2,
            order3_pairs=B * N - order2 - exact,
            share_of_tolerance=bounds,
        )

    def _expand(
        self,
        moments: Moments,
        positions: Positions,
        edit: tuple[Tensor, Tensor, Tensor],
        found: dict[str, Tensor],
        bounds: Tensor | None,
        rows: slice,
    ) -> tuple[Pairs, int]:
        """Fill in the series' effects, and bounds, at the positions `rows`.

        `edit` is the normed residual, its scale and the activations of all B. Returns the pairs that are over the
        tolerance, and how many would not be with order 2 alone.
        """
        factors = self._factors(*(value[rows] for value in edit))
        estimates, second_order_error = self._estimates(moments, positions, rows, factors)
        good, good2 = self._within(estimates, second_order_error, factors)
        for name, estimate in estimates.items():
            found[name][rows] = estimate.value
        if bounds is not None:
            loss = estimates["loss"]
            allowed = self.tolerance + RELATIVE_TOLERANCE * loss.value.abs()
            bounds[rows] = ((loss.truncation + loss.rounding) / allowed).masked_fill_(~good, torch.inf)
        t, i = (~good).nonzero().unbind(1)
        return Pairs(t + rows.start, i, factors.u[t, i], factors.c[t, i], factors.frozen_c[t, i]), int(good2.sum())

    def _estimates(
        self, moments: Moments, positions: Positions, rows: slice, factors: "Factors"
    ) -> tuple[dict[str, Estimate], Tensor]:
        """Every effect's series at the positions `rows`, and the bound on the loss's error at order 2."""
        u, c = factors.u, factors.c
        target_rows = self.folded.gather(positions.targets[rows])
        expected = Expectations(moments, rows, self._w, target_rows, positions.target_z[rows], self.low)
        series = Series(expected, u, c, self._norms)
        found = {"loss": series.loss()}
        if "direct" in self.effects:
            still = Series(expected, torch.zeros_like(u), factors.frozen_c, self._norms)
            found["direct"] = still.loss()
        if moments.surprise is not None:
            found["entropy"] = entropy(series, Mixed(moments, moments.surprise, rows, self._w, expected))
        if self.directions is not None and "kl" in self.effects:
            row = self.directions.unigram_row
            shift = u * (positions.target_z[rows] - positions.normed[rows] @ row)[:, None]
            shift += c * ((target_rows - row) @ self._w.T)
            loss = found["loss"]
            found["kl"] = Estimate(loss.value + shift, loss.truncation, 2 * loss.rounding)
        if self.directions is not None and moments.axis is not None:
            row = self.directions.axis_row
            projection = u * (positions.normed[rows] @ row)[:, None] + c * (self._w @ row)
            found["frequency"] = frozen_frequency(
                series,
                Mixed(moments, moments.axis, rows, self._w, expected),
                projection,
                self.directions.axis[positions.targets[rows], None],
            )
        return found, series.order2_error()

    def _within(
        self, estimates: dict[str, Estimate], second_order_error: Tensor, factors: "Factors"
    ) -> tuple[Tensor, Tensor]:
        """Which pairs are within tolerance for every effect, and which would be with order 2 alone."""
        good = factors.ratio > SMALLEST_RATIO
        good2 = good.clone()
        for name, estimate in estimates.items():
            error = estimate.truncation + estimate.rounding
            allowed = self.tolerance + RELATIVE_TOLERANCE * (estimate.value.abs() - error).clamp_(min=0)
            good &= error <= allowed  # false where either is NaN
            if name == "loss":
                good2 &= second_order_error + estimate.rounding <= allowed
        return good, good & good2

    def _settle(
        self,
        found: dict[str, Tensor],
        positions: Positions,
        sizes: Sizes,
        residual: Tensor,
        activations: Tensor,
        pairs: Pairs,
    ) -> None:
        """Fill in the pairs that the series leaves over: over the whole vocabulary, in float64 where it takes that."""
        if not len(pairs):
            return
        values = exact_effects(self.folded, positions, self._w, pairs, self.effects, self.directions)
        rounding = exact_rounding(self.folded, sizes, self._norms, pairs)
        # The target's rise leaves 1 + Σ p expm1(δ − δ_y) near 0, which float32 cannot hold; the entropy divides by it
        hard = values["loss"] < (LARGEST_RISE_FOR_ENTROPY if "entropy" in self.effects else LARGEST_RISE)
        hard |= ~(pairs.u < 1 / SMALLEST_RATIO - 1)  # u = σ0/σ1 − 1
        allowed = RELATIVE_TOLERANCE - RELATIVE_ROUNDING
        for name in self.effects:
            value = values[name]
            share = ENTROPY_ROUNDINGS if name == "entropy" else 1
            hard |= ~(share * rounding <= self.tolerance + allowed * value.abs())
            hard |= ~value.isfinite() | (value < LARGEST_RISE)
            found[name][pairs.t, pairs.i] = value
        place = torch.device("cpu") if self.device.type == "mps" else self.device
        folded = self.folded.on(place)
        for rows in hard.nonzero()[:, 0].split(FLOAT64_PAIRS):
            t, i = pairs.t[rows], pairs.i[rows]
            x, w = (centred(value.to(place), self.head.norm) for value in (residual[t.cpu()], self.w_out[i.cpu()]))
            n = activations[t.cpu(), i.cpu()].double()
            edited = x + (self.reference[i.cpu()].double() - n).to(place)[:, None] * w
            targets = positions.targets[t].to(place)
            exact = float64_effects(folded, x, edited, targets, self.head.eps, self.effects, self.directions)
            for name in self.effects:
                found[name][t, i] = exact[name].float().to(self.device)

    def _positions(self, normed: Tensor, targets: Tensor, moments: Moments) -> Positions:
        target_z = vecdot(normed, self.folded.gather(targets))
        weight = moments.weight.log()
        normaliser = weight + moments.reference
        loss = normaliser - self.folded.add_bias(targets, target_z)
        entropy = weight - moments.logit / moments.weight
        return Positions(normed, targets, normaliser, target_z, loss, entropy, moments.origin, moments.z)

    def _check(self, residual: Tensor, activations: Tensor, targets: Tensor) -> None:
        B, _ = require_matrix("the residual stream", residual)
        require_shape("the residual stream", residual, (B, self.folded.width))
        require_shape("the activations", activations, (B, len(self._w)))
        require_shape("the targets", targets, (B,))
        require_finite("the residual stream", residual)
        require_finite("the activations", activations)
        if int(targets.min()) < 0 or int(targets.max()) >= self.folded.vocabulary:
            raise UserError(f"A target is no token of the vocabulary of {self.folded.vocabulary}.")

    def _norm(self, residual: Tensor) -> tuple[Tensor, Tensor]:
        """x / σ0 (B x d, x centred for LayerNorm) and σ0 (B)."""
        x = centred(residual.cpu(), self.head.norm)
        scale = (x.square().mean(1) + self.head.eps).sqrt()
        if bool((scale == 0).any()):
            raise UserError(
                f"The residual stream at position {int((scale == 0).nonzero()[0])} of the block has no variance and "
                "the final norm's eps is 0, so its logits are undefined."
            )
        return (x / scale[:, None]).float().to(self.device), scale.float().to(self.device)

    def _factors(self, normed: Tensor, scale: Tensor, activations: Tensor) -> "Factors":
        """SPEC 2.1's factors of b positions and all neurons."""
        a = (self._reference - activations.to(self.device, torch.float32)) / scale[:, None]
        growth = a * (2 * (normed @ self._w.T) + a * self._norms.square()) / self.folded.width  # e / σ0²
        ratio = (1 + growth).clamp_(min=0).sqrt()
        return Factors(-growth / (ratio * (1 + ratio)), a / ratio, a, ratio)

    def _typical_prediction(self, sample: Tensor) -> Tensor:
        """Mean prediction over some positions: V probabilities."""
        normed, _ = self._norm(sample)
        total = Positions.of(self.folded, normed, torch.zeros(len(sample), dtype=torch.int64, device=self.device))
        mean = torch.zeros(self.folded.vocabulary, device=self.device)
        for tokens, U, _ in self.folded.blocks():
            logits = self.folded.add_bias(tokens, normed @ U.T)
            mean[tokens] = (logits - total.log_normaliser[:, None]).exp().mean(0)
        return mean


@dataclass(frozen=True)
class Factors:
    """What an edit does to the logits of b positions and N neurons, b x N each: δ = u z + c m."""

    u: Tensor
    c: Tensor
    frozen_c: Tensor  # a/σ0: c with the norm's scale frozen
    ratio: Tensor  # σ1/σ0


def centred(values: Tensor, norm: str) -> Tensor:
    """Rows in float64, less their mean where the norm takes it away."""
    values = values.double()
    return values - values.mean(1, keepdim=True) if norm == "layer" else values


@functools.cache
def low_precision(device: torch.device) -> torch.dtype:
    """bfloat16 where the hardware multiplies it itself (CUDA; avx512_bf16 or amx_bf16 on a CPU), else float32.

    Asked of the processor and not timed: a timing on a busy machine would choose otherwise from one run to the next,
    and the same command would no longer give the same bits.
    """
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    if device.type != "cpu" or not hasattr(torch.cpu, "get_capabilities"):  # an older torch
        return torch.float32
    found = torch.cpu.get_capabilities()
    return torch.bfloat16 if found.get("avx512_bf16") or found.get("amx_bf16") else torch.float32
