"""Every neuron of a layer ablated at every position, pair by pair, for about the price of a forward pass (SPEC 2.1).

Ablating neuron i at position t adds a·w_i to the residual stream x_t, with a = n̄_i − n_{t,i}. Behind the residual
stream lie only the final norm and the unembedding U, so the logits change by

    δ_v = u z_v + c m_{i,v}        z = U x_t / σ0,   m_i = U w_i,   u = σ0/σ1 − 1,   c = a/σ1

with σ0, σ1 the norm's scale before and after, and the loss of the target y by

    Δ = log Σ_v p_v exp(δ_v − δ_y)                                 p = softmax of the unablated logits.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from common.errors import UserError
from ingest.definition import reference_effects
from ingest.exact import Directions, Pairs, Positions, exact_effects
from ingest.head import FoldedHead, Head, fold, require_finite, require_matrix, require_shape

__all__ = ["EFFECTS", "Ablation", "BlockEffects", "Head", "reference_effects"]

EFFECTS = ("loss", "direct", "entropy", "kl", "frequency")
SMALLEST_TOLERANCE = 1e-7
RELATIVE_TOLERANCE = 1e-4


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
        memory: int = 2 << 30,
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
        V = head.unembedding.shape[0]
        self.folded: FoldedHead = fold(head, self.device, max(256, min(V, 4096, (memory >> 4) // (8 * d))))
        self.directions: Directions | None = None
        if {"kl", "frequency"} & set(self.effects):
            if unigram_counts is None:
                raise UserError("The effects kl and frequency need the tokens' counts; none were given.")
            require_shape("the tokens' counts", unigram_counts, (V,))
            self.directions = Directions.of(self.folded, unigram_counts)
        w = w_out.double().cpu()
        if head.norm == "layer":
            w = w - w.mean(1, keepdim=True)
        self._w = w.float().to(self.device)
        self._squared_norms = w.square().sum(1).float().to(self.device)
        self._reference = reference.float().to(self.device)

    def preferred_positions(self, positions: int) -> int:
        """How many of `positions` positions to hand to `block` at a time."""
        return min(positions, 256)

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
        B, d = require_matrix("the residual stream", residual)
        N = self.w_out.shape[0]
        require_shape("the residual stream", residual, (B, self.folded.width))
        require_shape("the activations", activations, (B, N))
        require_shape("the targets", targets, (B,))
        require_finite("the residual stream", residual)
        require_finite("the activations", activations)
        targets = targets.to(self.device, torch.int64)
        if int(targets.min()) < 0 or int(targets.max()) >= self.folded.vocabulary:
            raise UserError(f"A target is no token of the vocabulary of {self.folded.vocabulary}.")
        x = residual.double().cpu()
        if self.head.norm == "layer":
            x = x - x.mean(1, keepdim=True)
        variance = x.square().sum(1) / d + self.head.eps
        if bool((variance == 0).any()):
            raise UserError(
                f"The residual stream at position {int((variance == 0).nonzero()[0])} of the block has no variance and "
                "the final norm's eps is 0, so its logits are undefined."
            )
        normed = (x / variance.sqrt()[:, None]).float().to(self.device)
        positions = Positions.of(self.folded, normed, targets)
        a = (self._reference - activations.to(self.device, torch.float32)) / variance.sqrt().float().to(self.device)[
            :, None
        ]
        # e / σ0² and σ1 / σ0 of SPEC 2.1
        growth = a * (2 * (normed @ self._w.T) + a * self._squared_norms) / d
        ratio = (1 + growth).sqrt()
        t, i = torch.cartesian_prod(torch.arange(B), torch.arange(N)).to(self.device).unbind(1)
        u = -growth / (ratio * (1 + ratio))
        pairs = Pairs(t, i, u.reshape(-1), (a / ratio).reshape(-1), a.reshape(-1))
        values = exact_effects(self.folded, positions, self._w, pairs, self.effects, self.directions)
        found = {name: value.reshape(B, N) for name, value in values.items()}
        return BlockEffects(
            delta_loss=found["loss"],
            loss=positions.loss,
            entropy=positions.entropy,
            direct_delta_loss=found.get("direct"),
            delta_entropy=found.get("entropy"),
            delta_kl=found.get("kl"),
            frozen_frequency_delta_loss=found.get("frequency"),
            exact_pairs=B * N,
            order2_pairs=0,
            order3_pairs=0,
        )
