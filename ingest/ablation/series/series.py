"""The change of loss from the moments, with a bound on the error of every pair.

With δ̃ = δ − E_p δ the change of loss is E_p δ − δ_y + log E_p exp(δ̃), and

    E_p exp(δ̃) = 1 + Σ over the tiers of E_p[δ̃² g(δ̃); tier]       g(x) = (e^x − 1 − x) / x², positive, increasing

so each tier's term lies between g(smallest δ̃) and g(largest δ̃) times its share of the variance, which the moments
give. The middle is taken; half the distance bounds the error. Of a pair that this leaves over, the rare tokens' term
alone may still be told so: then only the common tokens need to be summed one by one.

Names: a tilde, or "central", is a value less its mean under p over the whole vocabulary; `smallest` and `largest` are
extremes over the tokens of a tier; `raw` moments are about the origins; `reduced_error` is what products in reduced
precision add.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from rare_tokens.ingest.ablation.layer.changes import Change
from rare_tokens.ingest.ablation.numerics.rounding import PRODUCT, RELATIVE_ROUNDING, SUMMED, Sizes
from rare_tokens.ingest.ablation.series.sums import Sums, TierSums


@dataclass(frozen=True)
class Estimate:
    """An effect of b x N pairs, in nats, and what its error can be."""

    value: Tensor
    truncation: Tensor  # proven: what the series leaves out, and the products in reduced precision
    rounding: Tensor  # of float32 arithmetic, here and over the whole vocabulary alike


@dataclass(frozen=True)
class TierMoments:
    """One tier's share of the moments of b positions and N neurons, central about the means over all tokens."""

    mass: Tensor  # b x 1: the tier's probability
    z: Tensor  # F x b x 1: E[z̃_f; v in the tier]
    m: Tensor  # b x N: E[m̃; v in the tier]
    zz: Tensor  # F x F x b x 1
    zm: Tensor  # F x b x N
    mm: Tensor  # b x N
    raw_zz: Tensor  # F x b x 1: E[z_f²; v in the tier]
    raw_mm: Tensor  # b x N
    z_range: Tensor  # 2 x F x b x 1, of z̃
    m_range: Tensor  # 2 x b x N, of m̃

    @staticmethod
    def of(sums: TierSums, at: slice, scale: Tensor, w: Tensor, tier_m: Tensor, z: Tensor, m: Tensor) -> "TierMoments":
        """Centre a tier's sums about the means z (F x b x 1) and m (b x N).

        `scale` is 1 / Σ e (b x 1), `tier_m` the tier's share of E m (b x N).
        """
        mass, tier_z, zz = (value[..., at, None] * scale for value in (sums.mass, sums.z, sums.zz))
        tier_zm = (sums.z_row[:, at] * scale) @ w.T
        mm = sums.m2[at] * scale
        first_z = tier_z - z * mass
        return TierMoments(
            mass=mass,
            z=first_z,
            m=tier_m - m * mass,
            zz=zz - z[:, None] * tier_z[None] - z[None] * first_z[:, None],
            zm=tier_zm - z * tier_m - m * first_z,
            mm=(mm - 2 * m * tier_m + m.square() * mass).clamp_(min=0),
            raw_zz=zz.diagonal(dim1=0, dim2=1).permute(2, 0, 1),
            raw_mm=mm,
            z_range=sums.z_range[:, :, at, None].nan_to_num(posinf=0.0, neginf=0.0) - z,
            m_range=sums.m_range[:, None].nan_to_num(posinf=0.0, neginf=0.0) - m,
        )

    def variance(self, change: Change) -> Tensor:
        """E[δ̃²; v in the tier], b x N."""
        u, c = change.u, change.c
        total = c * c * self.mm
        for f, u_f in enumerate(u):
            total += u_f * (u_f * self.zz[f, f] + 2 * c * self.zm[f])
            for g in range(f):
                total += 2 * u_f * u[g] * self.zz[f, g]
        return total.clamp_(min=0)

    def mean(self, change: Change) -> Tensor:
        """E[δ̃; v in the tier], b x N."""
        total = change.c * self.m
        for f, u_f in enumerate(change.u):
            total += u_f * self.z[f]
        return total

    def raw_variance(self, change: Change) -> Tensor:
        """Roughly E[δ²; v in the tier], not central: what float32 rounds; at most F + 1 times too large."""
        total = change.c.square() * self.raw_mm
        for f, u_f in enumerate(change.u):
            total += u_f * u_f * self.raw_zz[f]
        return total

    def extremes(self, change: Change) -> tuple[Tensor, Tensor]:
        """Bounds on δ̃ in the tier: the smallest (at most 0) and the largest (at least 0)."""
        ends = change.c * self.m_range
        smallest, largest = torch.minimum(*ends), torch.maximum(*ends)
        for f, u_f in enumerate(change.u):
            ends = u_f * self.z_range[:, f]
            smallest += torch.minimum(*ends)
            largest += torch.maximum(*ends)
        return smallest.clamp_(max=0), largest.clamp_(min=0)


class CentralMoments:
    """Moments of the functions z_f and of m under p for b positions and N neurons."""

    def __init__(
        self, sums: Sums, at: slice, w: Tensor, target_rows: Tensor, target_z: Tensor, dtype: torch.dtype
    ) -> None:
        """Centre the sums of the positions `at`.

        Args:
            sums: of all B positions.
            at: b of them.
            w: N x d, the output rows.
            target_rows: b x d, U_y of their targets.
            target_z: F x b, the functions at their targets.
            dtype: that of the products that are rounded.
        """
        scale = 1 / sums.weight[at, None]
        mean_row = (sums.common.row[at] + sums.rare.row[at]) * scale
        self.z = (sums.common.z + sums.rare.z)[:, at, None] * scale  # F x b x 1
        tier_m = [(tier.row[at] * scale) @ w.T for tier in (sums.common, sums.rare)]
        self.m = tier_m[0] + tier_m[1]  # b x N
        self.common, self.rare = (
            TierMoments.of(tier, at, scale, w, own_m, self.z, self.m)
            for tier, own_m in zip((sums.common, sums.rare), tier_m, strict=True)
        )
        self.mean_length = mean_row.norm(dim=1, keepdim=True)  # b x 1: ‖E U‖
        # First order against the target, the one that must not cancel: E m − m_y and E z − z_y
        self.m_target = (mean_row - target_rows) @ w.T
        self.z_target = self.z - (target_z - sums.origin[:, at])[:, :, None]
        self.product_error, self.width = PRODUCT[dtype], w.shape[1]
        focus = sums.squares[at, None].sqrt() * scale
        self.sizes = Sizes(sums.length[at, None] * scale, target_rows.norm(dim=1, keepdim=True), focus, focus)

    def first_order(self, change: Change) -> Tensor:
        """E δ − δ_y, b x N."""
        total = change.c * self.m_target
        for u, z in zip(change.u, self.z_target, strict=False):  # without the axis, where the change does not have it
            total += u * z
        return total

    def spread(self, change: Change) -> Tensor:
        """Standard deviation of δ under p, b x N: at most, given what a float32 sum does not hold."""
        variance = self.common.variance(change) + self.rare.variance(change)
        return (variance + SUMMED * (self.common.raw_variance(change) + self.rare.raw_variance(change))).sqrt()


class Series:
    """log E exp(δ̃) of b x N pairs to second order, and all it is made of."""

    def __init__(self, moments: CentralMoments, change: Change, size: Tensor) -> None:
        """Expand; `size` (b x N) is how far the edit moves the normed residual, at most."""
        self.moments, self.change, self.size = moments, change, size
        tiers = (moments.common, moments.rare)
        self.raw = [tier.raw_variance(change) for tier in tiers]
        self.extremes = [tier.extremes(change) for tier in tiers]
        # Each tier's share of the variance, least and most: a float32 sum does not hold what is far below its terms,
        # and where g is large that little decides
        self.variances = []
        for tier, raw in zip(tiers, self.raw, strict=True):
            variance = tier.variance(change)
            self.variances.append(((variance - SUMMED * raw).clamp_(min=0), variance + SUMMED * raw))
        brackets = [
            (least * g_below(smallest), most * g_above(largest))
            for (least, most), (smallest, largest) in zip(self.variances, self.extremes, strict=True)
        ]
        self.middles = [(low + high) / 2 for low, high in brackets]
        self.halves = [(high - low) / 2 for low, high in brackets]
        largest_g = g_above(self.extremes[1][1])
        self.reduced_error = change.c.square() * moments.rare.raw_mm * moments.product_error * largest_g
        self.spread = (self.variances[0][1] + self.variances[1][1]).sqrt()  # standard deviation of δ, at most

    def growth(self) -> tuple[Tensor, Tensor]:
        """E exp(δ̃) − 1 and a bound on its error."""
        return self.middles[0] + self.middles[1], self.halves[0] + self.halves[1] + self.reduced_error

    def first_order(self) -> Tensor:
        """E δ − δ_y."""
        return self.moments.first_order(self.change)

    def loss(self) -> Estimate:
        """Δ loss. E exp(δ̃) ≥ 1 (Jensen), so its logarithm's error is no larger than its own."""
        growth, error = self.growth()
        value = self.first_order() + growth.log1p()
        return Estimate(value, error, self.rounding() + RELATIVE_ROUNDING * value.abs())

    def rounding(self) -> Tensor:
        """What float32 rounding does to δ − δ_y and, through z, to p (`rounding`)."""
        moments = self.moments
        return moments.sizes.rounding(self.size, self.spread, moments.width, moments.sizes.target_rounding(self.size))

    def rare_growth(self) -> tuple[Tensor, Tensor]:
        """Σ over the rare tokens of p (exp(δ − δ_y) − 1), and a bound on what its error does to Δ loss.

        With s = E δ − δ_y it is e^s Σ p exp(δ̃) − Σ p. Δ = log(e^s E exp(δ̃)), and E exp(δ̃) ≥ 1, so an error of Σ p
        exp(δ̃) is at most the same of Δ.
        """
        rare, first = self.moments.rare, self.first_order()
        total = first.exp() * (rare.mean(self.change) + self.middles[1]) + first.expm1() * rare.mass
        return total, self.halves[1] + self.reduced_error + SUMMED * (self.raw[1] * rare.mass).sqrt()


def g_above(x: Tensor) -> Tensor:
    """An upper bound of g, e^{x/3 + x²/32}/2: g(x) = E exp(xB)/2 with B ~ Beta(1, 2), whose mean is 1/3.

    A Beta(α, β) is sub-Gaussian with the variance 1/(4(α + β + 1)), here 1/16 (Marchal and Arbel, 2017).
    """
    return (x * (1 / 3 + x / 32)).exp_().div_(2)


def g_below(x: Tensor) -> Tensor:
    """A lower bound of g, e^{x/3}/2 (Jensen)."""
    return (x / 3).exp_().div_(2)
