"""The change of loss from the moments, with a bound on the error of every pair (proof: docs/ablation.md).

With δ̃ = δ − E_p δ the change of loss is E_p δ − δ_y + log E_p exp(δ̃), and

    E_p exp(δ̃) = 1 + κ2/2 + μ3/6 + E_p[δ̃⁴ h(δ̃)]       h(x) = (e^x − 1 − x − x²/2 − x³/6) / x⁴, positive, increasing

so the last term lies between two numbers that the moments give. Their middle is taken; half their distance is the
bound. Over the common tokens the fourth moment of δ̃ = u z̃ + c m̃ is held between (‖u z̃‖₄ ∓ ‖c m̃‖₄)⁴; over the rare
ones δ̃⁴ h(δ̃) is at most δ̃² times the largest δ̃² h(δ̃) of any rare token.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from rare_tokens.ingest.ablation.moments import Moments, Tier
from rare_tokens.ingest.ablation.rounding import FLOAT32, RELATIVE_ROUNDING, Sizes

_SUMMED = 32 * FLOAT32  # relative error of a float32 sum over the vocabulary (docs/ablation.md)
_BFLOAT16 = 3 * 2.0**-8 + _SUMMED  # of a bfloat16 product: three roundings (two factors and the result), proven


@dataclass(frozen=True)
class Estimate:
    """An effect of b x N pairs, in nats, and what its error can be."""

    value: Tensor
    truncation: Tensor  # proven: what the series leaves out, and the products in low precision
    rounding: Tensor  # of float32 arithmetic, here and in the exact path alike


@dataclass(frozen=True)
class Part:
    """One tier's share of the expectations, centred on the means over the whole vocabulary."""

    m2: Tensor  # b x N: E[m̃²; v in the tier]
    z2: Tensor  # b x 1
    raw_m2: Tensor  # b x N, not centred: what low precision rounds
    raw_m: Tensor  # N: largest |m|
    raw_z: Tensor  # b x 1: largest |z|
    m_low: Tensor  # b x N: smallest m̃
    m_high: Tensor
    z_low: Tensor  # b x 1: smallest z̃
    z_high: Tensor

    def reach(self, u: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """(no δ̃ is smaller, none is larger), at most and at least 0."""
        low = torch.minimum(u * self.z_low, u * self.z_high) + torch.minimum(c * self.m_low, c * self.m_high)
        high = torch.maximum(u * self.z_low, u * self.z_high) + torch.maximum(c * self.m_low, c * self.m_high)
        return low.clamp_(max=0), high.clamp_(min=0)


class Expectations:
    """Central moments of z and m under p for b positions and N neurons."""

    def __init__(
        self, moments: Moments, rows: slice, w: Tensor, target_rows: Tensor, target_z: Tensor, low: torch.dtype
    ) -> None:
        """Centre the sums of the positions `rows`.

        Args:
            moments: sums of all B positions.
            rows: b of them.
            w: N x d, the output rows.
            target_rows: b x d, U_y of their targets.
            target_z: b, z_y.
            low: dtype of the high moments' products.
        """
        scale = 1 / moments.weight[rows]
        column = scale[:, None]
        common, rare = moments.common, moments.rare

        def times_m(sums: Tensor) -> Tensor:
            return (sums[rows] * column) @ w.T

        Z = ((common.z + rare.z)[:, rows] * scale)[:, :, None]
        z = Z[1]
        m_common, m_rare = times_m(common.u1), times_m(rare.u1)
        m = m_common + m_rare
        zm_common = times_m(common.zu)
        zm, zmm = zm_common + times_m(rare.zu), moments.zm2[rows] * column
        mm_common, mm_rare = common.m2[rows] * column, rare.m2[rows] * column
        mmm_common, mmm_rare = common.m3[rows] * column, rare.m3[rows] * column
        mm, mmm, m_square = mm_common + mm_rare, mmm_common + mmm_rare, m.square()
        self.z, self.m, self.zz, self.zm, self.mm = z, m, Z[2], zm, mm  # about the origins, not central
        self.var_z = (Z[2] - z * z).clamp_(min=0)
        self.cov = zm - z * m
        self.var_m = (mm - m_square).clamp_(min=0)
        self.zzz = Z[3] - 3 * z * Z[2] + 2 * z**3
        self.zmm = zmm - z * mm - 2 * m * (zm - z * m)
        self.mmm = mmm + m * (2 * m_square - 3 * mm)
        z_common = common.z[:, rows, None] * column
        # Over the common tokens only: the rare ones' share is bounded
        self.zzm = times_m(moments.zzu) - 2 * z * zm_common + z * z * m_common
        self.zzm -= m * (z_common[2] - 2 * z * z_common[1] + z * z * z_common[0])
        self.top_m2, self.top_m4 = moments.top_m2[rows] * column, moments.top_m4[rows] * column
        self.raw_m4 = common.m4[rows] * column
        m4 = self.raw_m4 + mm_common * m_square * 6
        m4 -= 4 * m * (mmm_common + m_square * m_common) - m_square.square() * z_common[0]
        self.low = _BFLOAT16 if low == torch.bfloat16 else _SUMMED  # relative error of a product
        slack = self.low * (self.raw_m4 + 4 * m.abs() * (mm_common * self.raw_m4).sqrt())
        slack += _SUMMED * m_square * (6 * mm_common + 5 * m_square)
        self.m4_most, self.m4_least = (m4 + slack).clamp_(min=0), (m4 - slack).clamp_(min=0)
        self.z4 = _fourth(z_common, z)
        z_rare = rare.z[:, rows, None] * column
        self.rare_z4 = _fourth(z_rare, z)
        m4_rare = rare.m4[rows] * (column * (1 + self.low))
        self.rare_m4_norm = (
            m4_rare.sqrt().sqrt_() + m.abs() * z_rare[0].sqrt().sqrt_()
        )  # at least ‖m̃‖₄ over the rare tokens
        self.common = _part(common, rows, column, z, m, m_square, m_common, mm_common)
        self.rare = _part(rare, rows, column, z, m, m_square, m_rare, mm_rare)
        self.raw_z2 = Z[2]
        # First order against the target, the one that must not cancel
        shift = common.u1[rows] + rare.u1[rows]
        self.m_target = (shift * column - target_rows) @ w.T
        self.width = w.shape[1]
        focus = moments.squares[rows, None].sqrt() * column
        self.sizes = Sizes(moments.row[rows, None] * column, target_rows.norm(dim=1, keepdim=True), focus)
        self.z_target = z - (target_z - moments.origin[rows])[:, None]

    def fourth_norms(self, u: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Fourth-order norms over the common tokens of u z̃, and of c m̃ at most and at least."""
        return (
            u.abs() * self.z4.sqrt().sqrt_(),
            c.abs() * self.m4_most.sqrt().sqrt_(),
            c.abs() * self.m4_least.sqrt().sqrt_(),
        )


def _fourth(z: Tensor, mean: Tensor) -> Tensor:
    """Σ p (z − mean)⁴ over a tier from its five sums."""
    total = z[4] - 4 * mean * z[3] + 6 * mean**2 * z[2] - 4 * mean**3 * z[1] + mean**4 * z[0]
    return total.clamp_(min=0)


def _part(
    tier: Tier, rows: slice, column: Tensor, z: Tensor, m: Tensor, m_square: Tensor, m_tier: Tensor, mm_tier: Tensor
) -> Part:
    z0, z1, z2 = (tier.z[k, rows, None] * column for k in range(3))
    z_low, z_high = tier.z_range[:, rows, None].nan_to_num(posinf=0.0, neginf=0.0)
    m_low, m_high = tier.m_range.nan_to_num(posinf=0.0, neginf=0.0)
    return Part(
        (mm_tier - 2 * m * m_tier + m_square * z0).clamp_(min=0),
        (z2 - 2 * z * z1 + z * z * z0).clamp_(min=0),
        mm_tier,
        torch.maximum(m_high, -m_low),
        torch.maximum(z_high, -z_low),
        m_low - m,
        m_high - m,
        z_low - z,
        z_high - z,
    )


class Series:
    """log E exp(δ̃) for δ = u z + c m of b x N pairs, to order 4 or thereabouts, and all it is made of."""

    def __init__(self, expected: Expectations, u: Tensor, c: Tensor, norms: Tensor) -> None:
        """Expand; `u` and `c` are b x N, `norms` N the ‖w_i‖."""
        self.expected, self.u, self.c = expected, u, c
        uu, cc, uc = u * u, c * c, u * c
        self.second = (uu * expected.var_z + 2 * uc * expected.cov + cc * expected.var_m).clamp_(min=0)
        self.third = u * (uu * expected.zzz + 3 * uc * expected.zzm + 3 * cc * expected.zmm) + cc * c * expected.mmm
        self.least, self.most, self.low, self.high = _rest(expected, u, c, self.second)
        self.low_precision = _low_precision(expected, u.abs(), c.abs())
        self.rounding = _rounding(expected, u.abs(), c.abs(), norms, self.second)

    def growth(self) -> tuple[Tensor, Tensor]:
        """E exp(δ̃) − 1 and a bound on its error."""
        error = (self.most - self.least) / 2 + self.low_precision
        return self.second / 2 + self.third / 6 + (self.most + self.least) / 2, error

    def loss(self) -> Estimate:
        """Δ loss. E exp(δ̃) ≥ 1 (Jensen), so its logarithm's error is no larger than its own."""
        growth, error = self.growth()
        first = self.u * self.expected.z_target + self.c * self.expected.m_target
        value = first + growth.log1p()
        return Estimate(value, error, self.rounding + RELATIVE_ROUNDING * value.abs())

    def fourth_moment(self) -> Tensor:
        """No less than E[δ̃⁴]."""
        expected, u, c = self.expected, self.u.abs(), self.c.abs()
        common = (u * expected.z4.sqrt().sqrt_() + c * expected.m4_most.sqrt().sqrt_()).square().square_()
        return common + _rare_fourth(expected, u, c)

    def order2_error(self) -> Tensor:
        """Bound on the error of order 2: δ̃² g(δ̃) with g(x) = (e^x − 1 − x)/x² increasing."""
        return self.second * (_g(self.high) - _g(self.low)) / 2


def _rest(expected: Expectations, u: Tensor, c: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Least and most that E[δ̃⁴ h(δ̃)] can be; no δ̃ is below the third or above the fourth."""
    low, high = expected.common.reach(u, c)
    z_norm, m_most, m_least = expected.fourth_norms(u, c)
    most = (z_norm + m_most).square().square_() * h_above(high)
    least = torch.maximum(z_norm - m_most, m_least - z_norm).clamp_(min=0).square().square_() * h_below(low)
    rare_low, rare_high = expected.rare.reach(u, c)
    rare = (u.abs() * expected.rare.z2.sqrt() + c.abs() * expected.rare.m2.sqrt()).square()
    rare = torch.minimum(rare, second)
    factor = h_above(rare_high)
    rare *= torch.maximum(rare_high.square() * factor, rare_low.square() * (1 / 24))
    rare = torch.minimum(rare, factor * _rare_fourth(expected, u.abs(), c.abs()))
    return least, most + rare, torch.minimum(low, rare_low), torch.maximum(high, rare_high)


def _rare_fourth(expected: Expectations, u: Tensor, c: Tensor) -> Tensor:
    """No less than E[δ̃⁴] over the rare tokens; u, c ≥ 0."""
    return (u * expected.rare_z4.sqrt().sqrt_() + c * expected.rare_m4_norm).square().square_()


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


def _low_precision(expected: Expectations, u: Tensor, c: Tensor) -> Tensor:
    """What low precision does to κ2/2 and μ3/6, to first order, and what μ3/6 leaves out; u, c ≥ 0."""
    common, rare = expected.common, expected.rare
    # Σ e |m|³ and Σ e |z| m² by Cauchy and Schwarz over the common tokens, by the largest factor over the rare ones;
    # of the top tokens m³ is in float32, of all common ones m²
    m2, m4 = common.raw_m2 - expected.top_m2, expected.raw_m4 - expected.top_m4
    total = c / 6 * ((m2 * m4).clamp_(min=0).sqrt() + rare.raw_m * rare.raw_m2)
    total += u / 2 * ((expected.raw_z2 * expected.raw_m4).sqrt() + rare.raw_z * rare.raw_m2)
    total += rare.raw_m2 / 2
    left_out = u * u * c * (expected.rare_z4 * rare.m2).sqrt() / 2  # E[z̃² m̃] over the rare tokens
    return total.mul_(c * c * expected.low).add_(left_out)


def _rounding(expected: Expectations, u: Tensor, c: Tensor, norms: Tensor, second: Tensor) -> Tensor:
    """What float32 rounding does to δ − δ_y and, through z, to p (model and test: docs/ablation.md); u, c ≥ 0."""
    size = c * norms + u * expected.width**0.5
    rounding = expected.sizes.rounding(size, second.sqrt(), expected.width)
    raw = u * expected.raw_z2.sqrt() + c * expected.mm.sqrt()  # root mean square of δ, not central
    return rounding.add_(raw * raw * (1 + raw), alpha=_SUMMED)
