"""A curve of influence, a straight line on a window of its ranks, and its local slope.

A *curve* is log influence in descending order, shape (n,): the neuron of rank r is entry r − 1, and neurons without
influence are left out. Everything is in natural logarithms, one point per rank, unweighted. `power_law` says which line
is a curve's power law. Definitions: docs/definitions.md, "Influence and the power law".
"""

from dataclasses import dataclass

import numpy as np

from rare_tokens.analyses.result_table import BoolArray, FloatArray, IntArray

GRID = 40  # break candidates
LEAST_RANKS = 10  # ranks of the shortest piece
PAPER_WINDOW = (122, 181)  # the authors' log-rank 4.8 to 5.2
EARLY_WINDOW = (34, 90)  # their other one
SLOPE_REACH = 0.25  # half-width of the local slope's window, in ln rank
LEAST_SLOPE_RANKS = 5


@dataclass(frozen=True)
class WindowLine:
    """A straight line on a window of ranks: log influence = −κ ln rank + β.

    Attributes:
        kappa: κ, positive where influence falls with rank.
        beta: β.
        r2: share of the window's variance that the line explains; None if there is no variance.
        first_rank: first rank of the window, counted from 1.
        last_rank: last rank of the window, included.
    """

    kappa: float
    beta: float
    r2: float | None
    first_rank: int
    last_rank: int

    def deviation(self, curve: FloatArray) -> FloatArray:
        """δ(rank) = log influence − (−κ ln rank + β), shape (n,) (ES §4.1)."""
        return curve - (self.beta - self.kappa * log_rank(len(curve)))


def log_rank(n: int) -> FloatArray:
    """ln 1 … ln n, shape (n,)."""
    return np.log(np.arange(1, n + 1))


def influence_curve(influence: FloatArray) -> FloatArray:
    """Log influence in descending order, without neurons that have none, shape (n,) with n ≤ N.

    Args:
        influence: mean |Δ| of each neuron, shape (N,), in any order.
    """
    return np.log(-np.sort(-influence[influence > 0]))


def fit_line(curve: FloatArray, first_rank: int, last_rank: int) -> WindowLine:
    """Ordinary least squares of the curve on ln rank, over the ranks `first_rank` … `last_rank` (ES eq. 6 and 12).

    Raises:
        ValueError: the window leaves the curve or holds fewer than two ranks.
    """
    if not 1 <= first_rank < last_rank <= len(curve):
        raise ValueError(f"ranks {first_rank} to {last_rank} are no window of {len(curve)} ranks")
    x, y = log_rank(len(curve))[first_rank - 1 : last_rank], curve[first_rank - 1 : last_rank]
    centred, deviation = x - x.mean(), y - y.mean()
    slope = float(centred @ deviation / (centred @ centred))
    spread = float(deviation @ deviation)
    r2 = slope**2 * float(centred @ centred) / spread if spread > 0 else None
    return WindowLine(-slope, float(y.mean() - slope * x.mean()), r2, first_rank, last_rank)


def break_grid(n: int) -> IntArray:
    """The 40 log-spaced ranks at which a curve of n ranks may break; each end leaves room for a piece."""
    if n < 2 * LEAST_RANKS:
        return np.zeros(0, dtype=np.int64)
    return np.unique(np.rint(np.exp(np.linspace(np.log(LEAST_RANKS), np.log(n - LEAST_RANKS), GRID))).astype(np.int64))


def local_slope(curve: FloatArray) -> FloatArray:
    """Least-squares slope of the curve over the ranks within ± 0.25 in ln rank, shape (n,); NaN under 5 ranks."""
    return _sliding_slope(curve, np.ones(len(curve), dtype=bool))


def second_derivative(curve: FloatArray) -> FloatArray:
    """The same slope taken of the defined local slopes, shape (n,); NaN under 5 of them (ES fig. 3b)."""
    slope = local_slope(curve)
    return _sliding_slope(slope, np.isfinite(slope))


def _sliding_slope(values: FloatArray, known: BoolArray) -> FloatArray:
    n = len(values)
    x = log_rank(n)
    centre = values[known].mean() if known.any() else 0.0  # for the precision of the differences below
    y = np.where(known, values - centre, 0.0)
    low = np.searchsorted(x, x - SLOPE_REACH, side="left")
    high = np.searchsorted(x, x + SLOPE_REACH, side="right")

    def total(terms: FloatArray) -> FloatArray:
        sums = np.concatenate([[0.0], np.cumsum(terms)])
        return np.asarray(sums[high] - sums[low])

    count = total(known.astype(float))
    weight = np.maximum(count, 1.0)
    mean_x, mean_y = total(x * known) / weight, total(y) / weight
    spread = total(x * x * known) - weight * mean_x**2
    product = total(x * y) - weight * mean_x * mean_y
    defined = known & (count >= LEAST_SLOPE_RANKS)
    return np.divide(product, spread, out=np.full(n, np.nan), where=defined)
