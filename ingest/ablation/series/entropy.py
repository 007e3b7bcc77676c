"""The series of the change of the prediction's entropy, which needs the log-probability besides the functions and m."""

import torch
from torch import Tensor

from rare_tokens.ingest.ablation.layer.changes import Change
from rare_tokens.ingest.ablation.series.series import CentralMoments, Estimate, Series, g_above, g_below
from rare_tokens.ingest.ablation.series.sums import AlongSums, Sums


class LogPMoments:
    """Central moments of the log-probability L with the z_f and m: b x 1 or, with m, b x N."""

    def __init__(self, sums: Sums, at: slice, w: Tensor, moments: CentralMoments) -> None:
        """Centre the sums of the positions `at`; w is N x d."""
        assert sums.along_log_p is not None
        along: AlongSums = sums.along_log_p
        scale = 1 / sums.weight[at, None]
        a, aa, az, azz = (value[..., at, None] * scale for value in (along.a, along.aa, along.az, along.azz))
        am, azm = ((rows[..., at, :] * scale) @ w.T for rows in (along.row, along.z_row))
        z, m = moments.z, moments.m
        tiers = (sums.common, sums.rare)
        raw_zz = sum(tier.zz[:, :, at, None] for tier in tiers) * scale
        raw_zm = (sum(tier.z_row[:, at] for tier in tiers) * scale) @ w.T
        raw_mm = sum(tier.m2[at] for tier in tiers) * scale
        self.mean = a
        self.largest = torch.maximum(along.range[1, at, None] - a, a - along.range[0, at, None])  # of |L̃|
        self.variance = (aa - a * a).clamp_(min=0)
        self.z, self.m = az - a * z, am - a * m
        self.zz = azz - a * raw_zz - z[:, None] * self.z[None] - z[None] * self.z[:, None]
        self.zm = azm - a * raw_zm - z * self.m - m * self.z
        self.mm = along.m2[at] * scale - a * raw_mm - 2 * m * self.m

    def with_change(self, change: Change) -> Tensor:
        """E[L̃ δ̃]."""
        return change.c * self.m + sum(u * z for u, z in zip(change.u, self.z, strict=False))

    def with_square(self, change: Change) -> Tensor:
        """E[L̃ δ̃²]."""
        c, total = change.c, change.c.square() * self.mm
        for f, u in enumerate(change.u):
            total += u * (u * self.zz[f, f] + 2 * c * self.zm[f])
            for other in range(f):
                total += 2 * u * change.u[other] * self.zz[f, other]
        return total


def entropy(series: Series, log_p: LogPMoments) -> Estimate:
    """Change of the prediction's entropy: log A − E[e^δ̃ (L̃ + δ̃)] / A with A = E e^δ̃.

    E[e^δ̃ δ̃] = E[δ̃² (1 + δ̃ g(δ̃))], and 1 + x g(x) = (e^x − 1)/x increases, so each tier's share lies in a bracket.
    E[e^δ̃ L̃] = E[L̃δ̃] + E[L̃δ̃²]/2 + E[L̃ δ̃² (g(δ̃) − ½)]. The last is left out: it is at most max|L̃| E[δ̃²] max|g − ½|,
    and by Cauchy and Schwarz at most σ_L (E[δ̃²] max (δ̃ (g − ½))²)^½.
    """
    change = series.change
    growth, error = series.growth()
    tilt, left_out = torch.zeros_like(growth), torch.zeros_like(growth)
    deviation = log_p.variance.sqrt()
    for (least, most), (smallest, largest) in zip(series.variances, series.extremes, strict=True):
        low, high = least * mean_power(smallest), most * mean_power(largest)
        tilt += (low + high) / 2
        left_out += (high - low) / 2
        off = (0.5 - g_below(smallest), g_above(largest) - 0.5)
        by_largest = log_p.largest * most * torch.maximum(*off)
        by_spread = deviation * most.sqrt() * torch.maximum(-smallest * off[0], largest * off[1])
        left_out += torch.minimum(by_largest, by_spread)
    score = log_p.with_change(change) + log_p.with_square(change) / 2
    # Of the squares in the tilt and in the score: (e^x − 1)/x ≤ (2 + x) g(x) for x ≥ 0
    left_out += (2 + series.extremes[1][1] + log_p.mean.abs()) * series.reduced_error
    value = growth.log1p() - (score + tilt) / (growth + 1)
    truncation = error * (1 + (score + tilt).abs()) + left_out
    return Estimate(value, truncation, series.rounding() * (2 + deviation))


def mean_power(x: Tensor) -> Tensor:
    """(e^x − 1) / x, increasing; 1 at 0."""
    return torch.where(x.abs() < 1e-3, 1 + x / 2 + x * x / 6, x.expm1() / x)
