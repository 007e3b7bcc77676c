"""The series of the effects that need a further function of the token, besides z and m (from Stolfo et al., 2024).

The entropy needs the log-probability's moments with δ, the frozen frequency those of the log-unigram axis.
"""

import torch
from torch import Tensor

from rare_tokens.ingest.ablation.series import CentralMoments, Estimate, Series, h_above, h_below
from rare_tokens.ingest.ablation.sums import AlongSums, Sums


class MixedMoments:
    """Central moments of a further function a of the token with z and m: b x 1 or, with m, b x N."""

    def __init__(self, sums: Sums, along: AlongSums, at: slice, w: Tensor, moments: CentralMoments) -> None:
        """Centre the sums of the positions `at`."""
        scale = 1 / sums.weight[at, None]
        a, az, azz, aa, aaz, aaa, aaaa = along.scalar[:, at, None] * scale
        am, azm, aam = ((rows[at] * scale) @ w.T for rows in (along.row, along.z_row, along.a_row))
        z, m = moments.raw_z, moments.raw_m
        self.mean = a
        self.smallest, self.largest = along.range[:, at, None] - a
        self.az, self.am = az - a * z, am - a * m
        self.azz = azz - a * moments.raw_zz - 2 * z * self.az
        self.azm = azm - a * moments.raw_zm - z * self.am - m * self.az
        self.amm = along.m2[at] * scale - a * moments.raw_mm - 2 * m * self.am
        self.aa = (aa - a * a).clamp_(min=0)
        self.aaz = aaz - z * aa - 2 * a * self.az
        self.aam = aam - m * aa - 2 * a * self.am
        self.aaa = aaa - 3 * a * aa + 2 * a**3
        self.aaaa = (aaaa - 4 * a * aaa + 6 * a * a * aa - 3 * a**4).clamp_(min=0)

    def with_change(self, u: Tensor, c: Tensor) -> Tensor:
        """E[ã δ̃]."""
        return u * self.az + c * self.am

    def with_square(self, u: Tensor, c: Tensor) -> Tensor:
        """E[ã δ̃²]."""
        return u * (u * self.azz + 2 * c * self.azm) + c * c * self.amm


def entropy(series: Series, log_p: MixedMoments) -> Estimate:
    """Change of the prediction's entropy: log A − E[e^δ̃ (L̃ + δ̃)] / A with A = E e^δ̃ and L the log-probability.

    E[e^δ̃ δ̃] = κ2 + μ3/2 + E[δ̃⁴ k(δ̃)] and E[e^δ̃ L̃] = E[L̃δ̃] + E[L̃δ̃²]/2 + E[L̃ δ̃³ k(δ̃)], where
    k(x) = (e^x − 1 − x − x²/2)/x³ is positive, increasing, and at most e^x/6 for x ≥ 0.
    """
    u, c = series.u, series.c
    growth, error = series.growth()
    k = series.largest.exp() / 6
    fourth = series.fourth_moment()
    tilt = series.kappa2 + series.mu3 / 2 + fourth * k / 2
    score = log_p.with_change(u, c) + log_p.with_square(u, c) / 2
    left_out = fourth * k / 2 + k * log_p.aaaa.sqrt().sqrt_() * fourth.pow(0.75)
    left_out += 3 * series.reduced_error
    total = growth + 1
    value = growth.log1p() - (score + tilt) / total
    truncation = error * (1 + (score + tilt).abs()) + left_out
    return Estimate(value, truncation, series.rounding * (2 + log_p.aa.sqrt()))


def frozen_frequency(series: Series, axis: MixedMoments, projection: Tensor, target_axis: Tensor) -> Estimate:
    """Change of loss with the logits' projection on the log-unigram axis f frozen: δ − φ f in place of δ.

    Args:
        series: that of δ.
        axis: moments along f.
        projection: φ = Σ_v δ_v f_v, b x N.
        target_axis: b x 1, f_y.
    """
    u, c, moments = series.u, series.c, series.moments
    square, size = projection * projection, projection.abs()
    kappa2 = series.kappa2 - 2 * projection * axis.with_change(u, c) + square * axis.aa
    kappa2.clamp_(min=0)
    mu3 = series.mu3 - 3 * projection * axis.with_square(u, c)
    mu3 += 3 * square * (u * axis.aaz + c * axis.aam) - square * projection * axis.aaa
    smallest = series.smallest - size * axis.largest.maximum(-axis.smallest)
    largest = series.largest + size * axis.largest.maximum(-axis.smallest)
    axis_norm = size * axis.aaaa.sqrt().sqrt_()
    z_norm, m_most, m_least = moments.fourth_norms(u, c)
    most = (z_norm + m_most + axis_norm).square().square_() * h_above(largest)
    least = (torch.maximum(z_norm - m_most, m_least - z_norm) - axis_norm).clamp_(min=0).square().square_()
    least = least * h_below(smallest)
    rare_norm = u.abs() * moments.rare.z2.sqrt() + c.abs() * moments.rare.m2.sqrt() + size * axis.aa.sqrt()
    most += rare_norm.square().minimum(kappa2) * (largest.square() * h_above(largest)).maximum(smallest.square() / 24)
    error = (most - least) / 2 + series.reduced_error
    first_order = u * moments.z_target + c * moments.m_target - projection * (axis.mean - target_axis)
    value = first_order + (kappa2 / 2 + mu3 / 6 + (most + least) / 2).log1p()
    return Estimate(value, error, 2 * series.rounding)
