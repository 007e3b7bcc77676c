"""The sums over the vocabulary that `moments.accumulate` makes, with weights e_v ∝ p_v.

T positions are handled B at a time; N neurons, d the width, F functions of the token (`changes`). Tiers are the two
parts of the vocabulary (`folded_head`).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from rare_tokens.ingest.ablation.layer.folded_head import RARE
from rare_tokens.ingest.ablation.numerics.rounding import Spans


@dataclass
class TierSums:
    """Sums over one tier of the vocabulary; z_f is counted from the position's `Sums.origin`."""

    mass: Tensor  # B: Σ e
    z: Tensor  # F x B: Σ e z_f
    zz: Tensor  # F x F x B: Σ e z_f z_g
    row: Tensor  # B x d: Σ e U_v
    z_row: Tensor  # F x B x d: Σ e z_f U_v
    m2: Tensor  # B x N: Σ e m²
    z_range: Tensor  # 2 x F x B: smallest and largest z_f
    m_range: Tensor  # 2 x N: smallest and largest m

    @staticmethod
    def empty(F: int, B: int, N: int, d: int, device: torch.device) -> "TierSums":
        """No token yet."""
        return TierSums(
            torch.zeros(B, device=device),
            torch.zeros(F, B, device=device),
            torch.zeros(F, F, B, device=device),
            torch.zeros(B, d, device=device),
            torch.zeros(F, B, d, device=device),
            torch.zeros(B, N, device=device),
            no_range((F, B), device),
            no_range((N,), device),
        )

    def rescale(self, at: slice, factor: Tensor) -> None:
        """Multiply all weights e of the positions `at` by their factors."""
        _multiply((self.mass, self.z, self.zz), (self.row, self.z_row, self.m2), at, factor)


@dataclass
class AlongSums:
    """Sums that involve the log-probability a_v as well."""

    a: Tensor  # B: Σ e a
    aa: Tensor  # B: Σ e a²
    az: Tensor  # F x B: Σ e a z_f
    azz: Tensor  # F x F x B: Σ e a z_f z_g
    row: Tensor  # B x d: Σ e a U_v
    z_row: Tensor  # F x B x d: Σ e a z_f U_v
    m2: Tensor  # B x N: Σ e a m²
    range: Tensor  # 2 x B: smallest and largest a

    @staticmethod
    def empty(F: int, B: int, N: int, d: int, device: torch.device) -> "AlongSums":
        """No token yet."""
        return AlongSums(
            torch.zeros(B, device=device),
            torch.zeros(B, device=device),
            torch.zeros(F, B, device=device),
            torch.zeros(F, F, B, device=device),
            torch.zeros(B, d, device=device),
            torch.zeros(F, B, d, device=device),
            torch.zeros(B, N, device=device),
            no_range((B,), device),
        )

    def rescale(self, at: slice, factor: Tensor) -> None:
        """As `TierSums.rescale`."""
        _multiply((self.a, self.aa, self.az, self.azz), (self.row, self.z_row, self.m2), at, factor)


@dataclass
class Sums:
    """All sums of a block of B positions; divide by `weight` for expectations."""

    common: TierSums
    rare: TierSums
    origin: Tensor  # F x B: what the z_f are counted from
    pivot: Tensor  # B: e_v = exp(logit_v − pivot)
    logit: Tensor  # B: Σ e logit, of logits counted from the pivot
    length: Tensor  # B: Σ e ‖U_v‖
    squares: Tensor  # B: Σ e²
    log_p_origin: Tensor  # B
    along_log_p: AlongSums | None  # a = logit less `log_p_origin`
    kept_z: Tensor | None  # F·B·V: z_f less the origin, piece after piece of the vocabulary, F x B x K each; if kept

    @staticmethod
    def empty(F: int, B: int, N: int, d: int, device: torch.device, *, log_p: bool, kept: int) -> "Sums":
        """No token yet; `log_p` asks for the sums along it, `kept` is how many values of z are kept."""
        pivot, logit, length, squares, log_p_origin = torch.zeros(5, B, device=device).unbind(0)
        return Sums(
            TierSums.empty(F, B, N, d, device),
            TierSums.empty(F, B, N, d, device),
            torch.zeros(F, B, device=device),
            pivot,
            logit,
            length,
            squares,
            log_p_origin,
            AlongSums.empty(F, B, N, d, device) if log_p else None,
            torch.empty(kept, device=device) if kept else None,
        )

    @property
    def weight(self) -> Tensor:
        """B: Σ_v e_v."""
        return self.common.mass + self.rare.mass

    def spans(self) -> Spans:
        """How far the z_f and m reach over the whole vocabulary."""
        z, m = (
            torch.maximum(common[1], rare[1]) - torch.minimum(common[0], rare[0])
            for common, rare in ((self.common.z_range, self.rare.z_range), (self.common.m_range, self.rare.m_range))
        )
        return Spans(z, m)

    def of_tier(self, tier: int) -> TierSums:
        """The sums that a tier's tokens are added to."""
        return self.rare if tier == RARE else self.common

    def rescale(self, at: slice, factor: Tensor) -> None:
        """Multiply all weights e of the positions `at` by their factors."""
        for sums in (self.common, self.rare, self.along_log_p):
            if sums is not None:
                sums.rescale(at, factor)
        for value in (self.logit, self.length, self.squares, self.squares):  # the squares are of e²
            value[at] *= factor


def _multiply(by_position: tuple[Tensor, ...], by_row: tuple[Tensor, ...], at: slice, factor: Tensor) -> None:
    """Multiply, at some positions, sums whose last dimension is the position's, and sums that have rows of it."""
    for value in by_position:
        value[..., at] *= factor
    for value in by_row:
        value[..., at, :] *= factor[:, None]


def no_range(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """2 x …: the smallest and largest of no values."""
    ends = torch.tensor([torch.inf, -torch.inf], device=device)
    return ends.view(2, *(1 for _ in shape)).repeat(1, *shape)


def widen(ends: Tensor, smallest: Tensor, largest: Tensor) -> None:
    """Let a range (2 x …) take in further values."""
    torch.minimum(ends[0], smallest, out=ends[0])
    torch.maximum(ends[1], largest, out=ends[1])
