"""The jump at the head: how much better a curve fits with a step in it than with the best curve without.

Both models are a power law, a tail and a head with another slope (`head_fits`); *free* may also be raised by a
step s > 0, *hinge* is continuous. Each is fitted at its own best end of the head. The statistic is
(RSS_hinge − RSS_free) / RSS_free. Sorted values are not independent, so its null distribution is drawn: neurons
are independent draws of the fitted hinge (the r-th value is f((N+1) U_(r)), U_(r) sorted uniforms), each measured with
its standard error and sorted again.
"""

from collections.abc import Iterator

import numpy as np

from rare_tokens.analyses.curve.head_fits import Coefficients, HeadFits, tail_shape
from rare_tokens.analyses.result_table import FloatArray

BATCH = 1_000_000  # numbers drawn at once
ROUNDING = 1e-12  # of a curve's spread: residuals below it are rounding errors


def jump(curves: FloatArray, n: int | None = None) -> FloatArray:
    """(RSS_hinge − RSS_free) / RSS_free of each curve, shape (B,); 0 where no head with a step fits better.

    Args:
        curves: log influence in descending order, shape (B, at least ⌊n/2⌋).
        n: neurons of the whole curve, at least 150; the number of columns by default.
    """
    fits = HeadFits(curves, n)
    hinge = fits.rss(step=False).min(axis=1)
    free = np.where(fits.steps() > 0, fits.rss(step=True), np.inf).min(axis=1)
    free = np.minimum(free, hinge)
    least = np.maximum(ROUNDING * fits.spread, np.finfo(float).tiny)
    return np.asarray(np.maximum(hinge - free - least, 0.0) / np.maximum(free, least))


def smooth_fit(curve: FloatArray) -> Coefficients:
    """The best fit without a step to one curve, shape (n,)."""
    return HeadFits(curve[None, :]).best(step=False)


def curves_without_step(
    fit: Coefficients,
    n: int,
    draws: int,
    rng: np.random.Generator,
    *,
    error: FloatArray | None = None,
    raised: tuple[int, float] = (0, 0.0),
) -> Iterator[FloatArray]:
    """Draw curves of n neurons from a fit without a step, in batches of shape (B, n), each descending.

    Args:
        fit: one curve's (`smooth_fit`).
        n: N.
        draws: how many in all.
        rng: source of randomness.
        error: standard error of log influence at each rank, added as noise before sorting again, shape (n,).
        raised: (m, δ): the m largest raised by δ, before the noise.
    """
    size = max(1, BATCH // n)
    for done in range(0, draws, size):
        curves = _values(fit, n, _order_statistics(n, min(size, draws - done), rng))
        curves[:, : raised[0]] += raised[1]
        if error is not None:
            curves += error * rng.standard_normal(curves.shape)
            curves = -np.sort(-curves, axis=1)
        yield curves


def _order_statistics(n: int, draws: int, rng: np.random.Generator) -> FloatArray:
    """(N+1) U_(1) … (N+1) U_(N) of uniforms, ascending, shape (draws, n): sums of exponentials over their total."""
    sums = np.cumsum(rng.standard_exponential((draws, n + 1)), axis=1)
    return np.asarray((n + 1) * sums[:, :-1] / sums[:, -1:])


def _values(fit: Coefficients, n: int, ranks: FloatArray) -> FloatArray:
    """The fit at ranks that need not be whole, shape of `ranks`."""
    x = np.log(ranks)
    values = fit.beta[0] - fit.kappa[0] * x
    if fit.tail[0] > 0:
        values += fit.tail[0] * tail_shape(ranks, n)
    return np.asarray(values + fit.hinge[0] * np.maximum(np.log(fit.head_rank[0] + 0.5) - x, 0.0))
