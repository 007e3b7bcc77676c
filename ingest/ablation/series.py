"""The change of loss from the moments, with a bound on the error of every pair.

With δ̃ = δ − E_p δ the change of loss is E_p δ − δ_y + log E_p exp(δ̃), and

    E_p exp(δ̃) = 1 + κ2/2 + μ3/6 + E_p[δ̃⁴ h(δ̃)]       h(x) = (e^x − 1 − x − x²/2 − x³/6) / x⁴, positive, increasing

so the last term, the rest, lies between two numbers that the moments give. Their middle is taken; half their distance
is the bound. Over the common tokens the fourth moment of δ̃ = u z̃ + c m̃ is held between (‖u z̃‖₄ ∓ ‖c m̃‖₄)⁴; over the
rare ones δ̃⁴ h(δ̃) is at most δ̃² times the largest δ̃² h(δ̃) of any rare token.

Names: a tilde, or "central", is a value less its mean under p over the whole vocabulary; `least` and `most` are ends of
a bracket, `smallest` and `largest` extremes over tokens; `reduced_error` is what products in reduced precision add.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from rare_tokens.ingest.ablation.rounding import PRODUCT, RELATIVE_ROUNDING, SUMMED, Sizes
from rare_tokens.ingest.ablation.sums import Sums, TierSums


@dataclass(frozen=True)
class Estimate:
    """An effect of b x N pairs, in nats, and what its error can be."""

    value: Tensor
    truncation: Tensor  # proven: what the series leaves out, and the products in reduced precision
    rounding: Tensor  # of float32 arithmetic, here and over the whole vocabulary alike


@dataclass(frozen=True)
class TierShare:
    """One tier's share of expectations under p, about the origins: of b positions, and with m of N neurons."""

    z_powers: Tensor  # 5 x b x 1: of z^k, k = 0 … 4
    m: Tensor  # b x N
    zm: Tensor
    mm: Tensor
    mmm: Tensor

    @staticmethod
    def of(sums: TierSums, at: slice, scale: Tensor, w: Tensor) -> "TierShare":
        """From the sums of the positions `at`; `scale` is 1 / Σ e, b x 1."""
        m, zm = ((rows[at] * scale) @ w.T for rows in (sums.row, sums.z_row))
        return TierShare(sums.z_powers[:, at, None] * scale, m, zm, sums.m2[at] * scale, sums.m3[at] * scale)


@dataclass(frozen=True)
class TierMoments:
    """One tier's share of the moments, central about the means over the whole vocabulary, and its extremes."""

    m2: Tensor  # b x N: E[m̃²; v in the tier]
    z2: Tensor  # b x 1
    raw_m2: Tensor  # b x N, not central: what reduced precision rounds
    largest_abs_m: Tensor  # N, not central
    largest_abs_z: Tensor  # b x 1, not central
    smallest_m: Tensor  # b x N, of m̃
    largest_m: Tensor
    smallest_z: Tensor  # b x 1, of z̃
    largest_z: Tensor

    @staticmethod
    def of(sums: TierSums, at: slice, share: TierShare, z: Tensor, m: Tensor) -> "TierMoments":
        """Centre a tier's share about the means z (b x 1) and m (b x N)."""
        powers = share.z_powers
        smallest_z, largest_z = sums.z_range[:, at, None].nan_to_num(posinf=0.0, neginf=0.0)
        smallest_m, largest_m = sums.m_range.nan_to_num(posinf=0.0, neginf=0.0)
        return TierMoments(
            m2=(share.mm - 2 * m * share.m + m.square() * powers[0]).clamp_(min=0),
            z2=(powers[2] - 2 * z * powers[1] + z * z * powers[0]).clamp_(min=0),
            raw_m2=share.mm,
            largest_abs_m=torch.maximum(largest_m, -smallest_m),
            largest_abs_z=torch.maximum(largest_z, -smallest_z),
            smallest_m=smallest_m - m,
            largest_m=largest_m - m,
            smallest_z=smallest_z - z,
            largest_z=largest_z - z,
        )

    def extremes(self, u: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """Bounds on δ̃: the smallest (at most 0) and the largest (at least 0)."""
        of_z, of_m = (u * self.smallest_z, u * self.largest_z), (c * self.smallest_m, c * self.largest_m)
        smallest = torch.minimum(*of_z) + torch.minimum(*of_m)
        largest = torch.maximum(*of_z) + torch.maximum(*of_m)
        return smallest.clamp_(max=0), largest.clamp_(min=0)


class CentralMoments:
    """Moments of z and m under p for b positions and N neurons, all b x N; those of z alone are b x 1."""

    def __init__(
        self, sums: Sums, at: slice, w: Tensor, target_rows: Tensor, target_z: Tensor, dtype: torch.dtype
    ) -> None:
        """Centre the sums of the positions `at`.

        Args:
            sums: of all B positions.
            at: b of them.
            w: N x d, the output rows.
            target_rows: b x d, U_y of their targets.
            target_z: b, z_y.
            dtype: that of the high moments' products.
        """
        inverse = 1 / sums.weight[at]
        scale = inverse[:, None]
        common, rare = (TierShare.of(tier, at, scale, w) for tier in (sums.common, sums.rare))
        z_powers = ((sums.common.z_powers + sums.rare.z_powers)[:, at] * inverse)[:, :, None]
        self.product_error, self.width = PRODUCT[dtype], w.shape[1]
        self._to_third_order(z_powers, common, rare, sums.zm2[at] * scale, (sums.zz_row[at] * scale) @ w.T)
        self._fourth_order(common, rare, sums.common.m4[at] * scale, sums.rare.m4[at], scale)
        self.top_m2, self.top_m4 = sums.top_m2[at] * scale, sums.top_m4[at] * scale
        self.common = TierMoments.of(sums.common, at, common, self.raw_z, self.raw_m)
        self.rare = TierMoments.of(sums.rare, at, rare, self.raw_z, self.raw_m)
        # First order against the target, the one that must not cancel: E m − m_y and E z − z_y
        mean_row = sums.common.row[at] + sums.rare.row[at]
        self.m_target = (mean_row * scale - target_rows) @ w.T
        self.z_target = self.raw_z - (target_z - sums.origin[at])[:, None]
        focus = sums.squares[at, None].sqrt() * scale
        self.sizes = Sizes(sums.length[at, None] * scale, target_rows.norm(dim=1, keepdim=True), focus)

    def _to_third_order(
        self, z_powers: Tensor, common: TierShare, rare: TierShare, zmm: Tensor, zzm_common: Tensor
    ) -> None:
        """Orders 1 to 3, about the origins (`raw_…`) and central;

        `z_powers` is E z^k over the whole vocabulary, 5 x b x 1.
        """
        z, m, zm = z_powers[1], common.m + rare.m, common.zm + rare.zm
        mm, mmm, m_square = common.mm + rare.mm, common.mmm + rare.mmm, m.square()
        self.raw_z, self.raw_m, self.raw_zz, self.raw_zm, self.raw_mm = z, m, z_powers[2], zm, mm
        self.zz = (z_powers[2] - z * z).clamp_(min=0)
        self.zm = zm - z * m
        self.mm = (mm - m_square).clamp_(min=0)
        self.zzz = z_powers[3] - 3 * z * z_powers[2] + 2 * z**3
        self.zmm = zmm - z * mm - 2 * m * (zm - z * m)
        self.mmm = mmm + m * (2 * m_square - 3 * mm)
        # Over the common tokens only: the rare ones' share is bounded
        self.zzm = zzm_common - 2 * z * common.zm + z * z * common.m
        self.zzm -= m * (common.z_powers[2] - 2 * z * common.z_powers[1] + z * z * common.z_powers[0])

    def _fourth_order(
        self, common: TierShare, rare: TierShare, raw_m4: Tensor, rare_m4_sum: Tensor, scale: Tensor
    ) -> None:
        """Bracket order 4: `raw_m4` is the common tokens' share of E m⁴, `rare_m4_sum` the sum over the rare ones."""
        z, m, m_square = self.raw_z, self.raw_m, self.raw_m.square()
        self.raw_m4 = raw_m4
        m4 = raw_m4 + common.mm * m_square * 6
        m4 -= 4 * m * (common.mmm + m_square * common.m) - m_square.square() * common.z_powers[0]
        slack = self.product_error * (raw_m4 + 4 * m.abs() * (common.mm * raw_m4).sqrt())
        slack += SUMMED * m_square * (6 * common.mm + 5 * m_square)
        self.m4_most, self.m4_least = (m4 + slack).clamp_(min=0), (m4 - slack).clamp_(min=0)
        self.z4, self.rare_z4 = _fourth(common.z_powers, z), _fourth(rare.z_powers, z)
        rare_m4 = rare_m4_sum * (scale * (1 + self.product_error))
        # An upper bound of ‖m̃‖₄ over the rare tokens
        self.rare_m4_norm = rare_m4.sqrt().sqrt_() + m.abs() * rare.z_powers[0].sqrt().sqrt_()

    def fourth_norms(self, u: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Fourth-order norms over the common tokens: of u z̃, and of c m̃ at most and at least."""
        return (
            u.abs() * self.z4.sqrt().sqrt_(),
            c.abs() * self.m4_most.sqrt().sqrt_(),
            c.abs() * self.m4_least.sqrt().sqrt_(),
        )


def _fourth(powers: Tensor, mean: Tensor) -> Tensor:
    """Σ p (z − mean)⁴ over a tier from its five sums."""
    total = powers[4] - 4 * mean * powers[3] + 6 * mean**2 * powers[2] - 4 * mean**3 * powers[1] + mean**4 * powers[0]
    return total.clamp_(min=0)


class Series:
    """log E exp(δ̃) for δ = u z + c m of b x N pairs, to about order 4, and all it is made of."""

    def __init__(self, moments: CentralMoments, u: Tensor, c: Tensor, w_norm: Tensor) -> None:
        """Expand; `u` and `c` are b x N, `w_norm` holds the N norms ‖w_i‖."""
        self.moments, self.u, self.c, self.w_norm = moments, u, c, w_norm
        uu, cc, uc = u * u, c * c, u * c
        self.kappa2 = (uu * moments.zz + 2 * uc * moments.zm + cc * moments.mm).clamp_(min=0)
        self.mu3 = u * (uu * moments.zzz + 3 * uc * moments.zzm + 3 * cc * moments.zmm) + cc * c * moments.mmm
        self.rest_least, self.rest_most, self.smallest, self.largest = _rest(moments, u, c, self.kappa2)
        self.reduced_error = _reduced_error(moments, u.abs(), c.abs())
        self.rounding = _rounding(moments, u.abs(), c.abs(), w_norm, self.kappa2)

    def growth(self) -> tuple[Tensor, Tensor]:
        """E exp(δ̃) − 1 and a bound on its error."""
        error = (self.rest_most - self.rest_least) / 2 + self.reduced_error
        return self.kappa2 / 2 + self.mu3 / 6 + (self.rest_most + self.rest_least) / 2, error

    def loss(self) -> Estimate:
        """Δ loss. E exp(δ̃) ≥ 1 (Jensen), so its logarithm's error is no larger than its own."""
        growth, error = self.growth()
        first = self.u * self.moments.z_target + self.c * self.moments.m_target
        value = first + growth.log1p()
        return Estimate(value, error, self.rounding + RELATIVE_ROUNDING * value.abs())

    def fourth_moment(self) -> Tensor:
        """An upper bound of E[δ̃⁴]."""
        moments, u, c = self.moments, self.u.abs(), self.c.abs()
        common_fourth = (u * moments.z4.sqrt().sqrt_() + c * moments.m4_most.sqrt().sqrt_()).square().square_()
        return common_fourth + _rare_fourth(moments, u, c)

    def order2_error(self) -> Tensor:
        """Bound on the error of order 2 alone: δ̃² g(δ̃) with g(x) = (e^x − 1 − x)/x² increasing."""
        return self.kappa2 * (_g(self.largest) - _g(self.smallest)) / 2


def _rest(moments: CentralMoments, u: Tensor, c: Tensor, kappa2: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Bounds on E[δ̃⁴ h(δ̃)], least and most, and on every δ̃, smallest and largest."""
    smallest, largest = moments.common.extremes(u, c)
    z_norm, m_most, m_least = moments.fourth_norms(u, c)
    most = (z_norm + m_most).square().square_() * h_above(largest)
    least = torch.maximum(z_norm - m_most, m_least - z_norm).clamp_(min=0).square().square_() * h_below(smallest)
    rare_smallest, rare_largest = moments.rare.extremes(u, c)
    rare_most = (u.abs() * moments.rare.z2.sqrt() + c.abs() * moments.rare.m2.sqrt()).square()
    rare_most = torch.minimum(rare_most, kappa2)
    factor = h_above(rare_largest)
    rare_most *= torch.maximum(rare_largest.square() * factor, rare_smallest.square() * (1 / 24))
    rare_most = torch.minimum(rare_most, factor * _rare_fourth(moments, u.abs(), c.abs()))
    return least, most + rare_most, torch.minimum(smallest, rare_smallest), torch.maximum(largest, rare_largest)


def _rare_fourth(moments: CentralMoments, u: Tensor, c: Tensor) -> Tensor:
    """An upper bound of E[δ̃⁴] over the rare tokens; u, c ≥ 0."""
    return (u * moments.rare_z4.sqrt().sqrt_() + c * moments.rare_m4_norm).square().square_()


def h_above(x: Tensor) -> Tensor:
    """An upper bound of h on x ≥ 0, within 1e-4 of it up to x = 2: seven terms and a bound on the others.

    h(x) = Σ x^k / (k+4)!, and the terms from k = 6 are at most x⁶ e^x / 10!.
    """
    total = x.exp() / 3628800
    for factorial in (362880, 40320, 5040, 720, 120, 24):
        total = total.mul_(x).add_(1 / factorial)
    return total


def h_below(x: Tensor) -> Tensor:
    """A lower bound of h on x ≤ 0, e^{x/5}/24: h(x) = E exp(xB)/24 with B ~ Beta(1, 4), whose mean is 1/5 (Jensen)."""
    return (x / 5).exp() / 24


def _g(x: Tensor) -> Tensor:
    """(e^x − 1 − x) / x², increasing."""
    return torch.where(x.abs() < 0.05, 0.5 + x / 6 + x * x / 24, (x.expm1() - x) / (x * x))


def _reduced_error(moments: CentralMoments, u: Tensor, c: Tensor) -> Tensor:
    """What reduced precision does to κ2/2 and μ3/6, to first order, and what μ3/6 leaves out; u, c ≥ 0."""
    common, rare = moments.common, moments.rare
    # Σ e |m|³ and Σ e |z| m² by Cauchy and Schwarz over the common tokens, by the largest factor over the rare ones;
    # of the top tokens m³ is in float32, of all common ones m²
    middle_m2, middle_m4 = common.raw_m2 - moments.top_m2, moments.raw_m4 - moments.top_m4
    total = c / 6 * ((middle_m2 * middle_m4).clamp_(min=0).sqrt() + rare.largest_abs_m * rare.raw_m2)
    total += u / 2 * ((moments.raw_zz * moments.raw_m4).sqrt() + rare.largest_abs_z * rare.raw_m2)
    total += rare.raw_m2 / 2
    left_out = u * u * c * (moments.rare_z4 * rare.m2).sqrt() / 2  # E[z̃² m̃] over the rare tokens
    return total.mul_(c * c * moments.product_error).add_(left_out)


def _rounding(moments: CentralMoments, u: Tensor, c: Tensor, w_norm: Tensor, kappa2: Tensor) -> Tensor:
    """What float32 rounding does to δ − δ_y and, through z, to p (`rounding`); u, c ≥ 0."""
    size = c * w_norm + u * moments.width**0.5
    rounding = moments.sizes.rounding(size, kappa2.sqrt(), moments.width)
    rms = u * moments.raw_zz.sqrt() + c * moments.raw_mm.sqrt()  # root mean square of δ, not central
    return rounding.add_(rms * rms * (1 + rms), alpha=SUMMED)
