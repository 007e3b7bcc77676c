"""The sums over the vocabulary that `moments.accumulate` makes, with weights e_v ∝ p_v.

T positions are handled B at a time; N neurons, d the width. Tiers are parts of the vocabulary (`folded_head`).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from rare_tokens.ingest.ablation.folded_head import RARE
from rare_tokens.ingest.ablation.rounding import Spans


@dataclass
class TierSums:
    """Sums over one or two tiers of the vocabulary; z is counted from the position's `Sums.origin`."""

    z_powers: Tensor  # 5 x B: Σ e z^k, k = 0 … 4
    row: Tensor  # B x d: Σ e U_v
    z_row: Tensor  # B x d: Σ e z U_v
    m2: Tensor  # B x N: Σ e m²
    m3: Tensor  # B x N: Σ e m³
    m4: Tensor  # B x N: Σ e m⁴ over the common tokens; over the rare ones a bound from above
    z_range: Tensor  # 2 x B: smallest and largest z
    m_range: Tensor  # 2 x N: smallest and largest m

    @staticmethod
    def empty(B: int, N: int, d: int, device: torch.device) -> "TierSums":
        """No token yet."""
        m2, m3, m4 = (torch.zeros(B, N, device=device) for _ in range(3))
        return TierSums(
            torch.zeros(5, B, device=device),
            torch.zeros(B, d, device=device),
            torch.zeros(B, d, device=device),
            m2,
            m3,
            m4,
            _no_range(B, device),
            _no_range(N, device),
        )


@dataclass
class AlongSums:
    """Sums that involve a further function a_v of the token: the log-probability, or the log-unigram axis."""

    scalar: Tensor  # 7 x B: Σ e (a, a z, a z², a², a² z, a³, a⁴)
    row: Tensor  # B x d: Σ e a U_v
    z_row: Tensor  # B x d: Σ e a z U_v
    a_row: Tensor  # B x d: Σ e a² U_v
    m2: Tensor  # B x N: Σ e a m²
    range: Tensor  # 2 x B: smallest and largest a

    @staticmethod
    def empty(B: int, N: int, d: int, device: torch.device) -> "AlongSums":
        """No token yet."""
        row, z_row, a_row = torch.zeros(3, B, d, device=device).unbind(0)
        scalar, m2 = torch.zeros(7, B, device=device), torch.zeros(B, N, device=device)
        return AlongSums(scalar, row, z_row, a_row, m2, _no_range(B, device))


@dataclass
class Sums:
    """All sums of a block of B positions; divide by `weight` for expectations."""

    common: TierSums  # over the top and the common tokens
    rare: TierSums
    top_m2: Tensor  # B x N: Σ e m² over the top tokens
    top_m4: Tensor  # B x N: Σ e m⁴ over the top tokens
    zm2: Tensor  # B x N: Σ e z m²
    zz_row: Tensor  # B x d: Σ e z² U_v over the common tokens
    origin: Tensor  # B: what z is counted from
    pivot: Tensor  # B: e_v = exp(logit_v − pivot)
    logit: Tensor  # B: Σ e logit, of logits counted from the pivot
    length: Tensor  # B: Σ e ‖U_v‖
    squares: Tensor  # B: Σ e²
    log_p_origin: Tensor  # B
    along_log_p: AlongSums | None  # a = logit less `log_p_origin`
    along_axis: AlongSums | None  # a = log-unigram axis
    kept_z: Tensor | None  # B·V: z less the origin, piece after piece of the vocabulary, B x K each; if kept

    @staticmethod
    def empty(B: int, N: int, d: int, device: torch.device, *, log_p: bool, axis: bool, kept: int) -> "Sums":
        """No token yet; `log_p` and `axis` ask for the sums along these, `kept` is how many tokens' z are kept."""
        common, rare = TierSums.empty(B, N, d, device), TierSums.empty(B, N, d, device)
        top_m2, top_m4, zm2 = (torch.zeros(B, N, device=device) for _ in range(3))
        zz_row = torch.zeros(B, d, device=device)
        origin, pivot, logit, length, squares, log_p_origin = torch.zeros(6, B, device=device).unbind(0)
        return Sums(
            common,
            rare,
            top_m2,
            top_m4,
            zm2,
            zz_row,
            origin,
            pivot,
            logit,
            length,
            squares,
            log_p_origin,
            AlongSums.empty(B, N, d, device) if log_p else None,
            AlongSums.empty(B, N, d, device) if axis else None,
            torch.empty(B * kept, device=device) if kept else None,
        )

    @property
    def weight(self) -> Tensor:
        """B: Σ_v e_v."""
        return self.common.z_powers[0] + self.rare.z_powers[0]

    def spans(self) -> Spans:
        """How far z and m reach over the whole vocabulary."""
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
        along = [one for one in (self.along_log_p, self.along_axis) if one is not None]
        self.squares[at] *= factor  # and below once more: they are of e²
        of_position = (self.common.z_powers, self.rare.z_powers, self.logit, self.length, self.squares)
        for value in (*of_position, *(one.scalar for one in along)):
            value[..., at] *= factor
        rows = [value for one in (self.common, self.rare) for value in (one.row, one.z_row)]
        pairs = [value for one in (self.common, self.rare) for value in (one.m2, one.m3, one.m4)]
        further = [value for one in along for value in (one.row, one.z_row, one.a_row, one.m2)]
        for value in (*rows, *pairs, *further, self.top_m2, self.top_m4, self.zm2, self.zz_row):
            value[at] *= factor[:, None]


def _no_range(count: int, device: torch.device) -> Tensor:
    """2 x count: the smallest and largest of no values."""
    return torch.tensor([torch.inf, -torch.inf], device=device)[:, None].repeat(1, count)
