"""The series of the other effects that CR measures: along a further function of the token, beside z and m.

Direct effect and KL need nothing new (`ablation`); the entropy needs the log-probability's moments with δ, the
frozen frequency the log-unigram axis's. Proofs of the bounds: docs/ablation.md.
"""

import torch
from torch import Tensor

from rare_tokens.ingest.ablation.moments import Along, Moments
from rare_tokens.ingest.ablation.series import Estimate, Expectations, Series, h_above, h_below


class Mixed:
    """Central moments of a further function a of the token with z and m, for b positions and N neurons."""

    def __init__(self, moments: Moments, along: Along, rows: slice, w: Tensor, expected: Expectations) -> None:
        """Centre the sums of the positions `rows`."""
        column = 1 / moments.weight[rows, None]
        a, az, azz, aa, aaz, aaa, aaaa = along.scalar[:, rows, None] * column
        am, azm, aam = ((sums[rows] * column) @ w.T for sums in (along.u, along.zu, along.au))
        z, m = expected.z, expected.m
        self.mean = a
        self.low, self.high = along.range[:, rows, None] - a
        self.az, self.am = az - a * z, am - a * m
        self.azz = azz - a * expected.zz - 2 * z * self.az
        self.azm = azm - a * expected.zm - z * self.am - m * self.az
        self.amm = along.m2[rows] * column - a * expected.mm - 2 * m * self.am
        self.aa = (aa - a * a).clamp_(min=0)
        self.aaz = aaz - z * aa - 2 * a * self.az
        self.aam = aam - m * aa - 2 * a * self.am
        self.aaa = aaa - 3 * a * aa + 2 * a**3
        self.aaaa = (aaaa - 4 * a * aaa + 6 * a * a * aa - 3 * a**4).clamp_(min=0)

    def first(self, u: Tensor, c: Tensor) -> Tensor:
        """E[ã δ̃]."""
        return u * self.az + c * self.am

    def second(self, u: Tensor, c: Tensor) -> Tensor:
        """E[ã δ̃²]."""
        return u * (u * self.azz + 2 * c * self.azm) + c * c * self.amm


def entropy(series: Series, surprise: Mixed) -> Estimate:
    """Change of the prediction's entropy: log A − E[e^δ̃ (L̃ + δ̃)] / A with A = E e^δ̃ and L the log-probability.

    E[e^δ̃ δ̃] = κ2 + μ3/2 + E[δ̃⁴ k(δ̃)] and E[e^δ̃ L̃] = E[L̃δ̃] + E[L̃δ̃²]/2 + E[L̃ δ̃³ k(δ̃)], where
    k(x) = (e^x − 1 − x − x²/2)/x³ is positive, increasing, and at most e^x/6 for x ≥ 0.
    """
    u, c = series.u, series.c
    growth, error = series.growth()
    k = series.high.exp() / 6
    fourth = series.fourth_moment()
    tilt = series.second + series.third / 2 + fourth * k / 2
    score = surprise.first(u, c) + surprise.second(u, c) / 2
    left_out = fourth * k / 2 + k * surprise.aaaa.sqrt().sqrt_() * fourth.pow(0.75)
    left_out += 3 * series.low_precision
    total = growth + 1
    value = growth.log1p() - (score + tilt) / total
    truncation = error * (1 + (score + tilt).abs()) + left_out
    return Estimate(value, truncation, series.rounding * (2 + surprise.aa.sqrt()))


def frozen_frequency(series: Series, axis: Mixed, projection: Tensor, target_axis: Tensor) -> Estimate:
    """Change of loss with the logits' projection on the log-unigram axis f frozen: δ − φ f in place of δ.

    Args:
        series: that of δ.
        axis: moments along f.
        projection: φ = Σ_v δ_v f_v, b x N.
        target_axis: b x 1, f_y.
    """
    u, c, expected = series.u, series.c, series.expected
    square, size = projection * projection, projection.abs()
    second = series.second - 2 * projection * axis.first(u, c) + square * axis.aa
    second.clamp_(min=0)
    third = series.third - 3 * projection * axis.second(u, c)
    third += 3 * square * (u * axis.aaz + c * axis.aam) - square * projection * axis.aaa
    low = series.low - size * axis.high.maximum(-axis.low)
    high = series.high + size * axis.high.maximum(-axis.low)
    along = size * axis.aaaa.sqrt().sqrt_()
    z_norm, m_most, m_least = expected.fourth_norms(u, c)
    most = (z_norm + m_most + along).square().square_() * h_above(high)
    least = (torch.maximum(z_norm - m_most, m_least - z_norm) - along).clamp_(min=0).square().square_() * h_below(low)
    rare = u.abs() * expected.rare.z2.sqrt() + c.abs() * expected.rare.m2.sqrt() + size * axis.aa.sqrt()
    most += rare.square().minimum(second) * (high.square() * h_above(high)).maximum(low.square() / 24)
    error = (most - least) / 2 + series.low_precision
    first = u * expected.z_target + c * expected.m_target - projection * (axis.mean - target_axis)
    value = first + (second / 2 + third / 6 + (most + least) / 2).log1p()
    return Estimate(value, error, 2 * series.rounding)
