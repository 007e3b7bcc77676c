"""The curve of influence against rank: its power law, how far neurons stand off it, and its local slope.

A *curve* is log influence in descending order, shape (n,): the neuron of rank r is entry r − 1, and neurons without
influence are left out. Everything is in natural logarithms, one point a rank, unweighted. `power_law_line` is what
publishing a run calls to fill the relation `power_law_fit`. Definitions: docs/definitions.md, "Influence and the power
law".
"""

from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import polars as pl

from rare_tokens.analyses.result_table import BoolArray, FloatArray, IntArray, table

GRID = 40  # break candidates
LEAST_RANKS = 10  # ranks of the shortest piece
PAPER_WINDOW = (122, 181)  # the authors' log-rank 4.8 to 5.2
SLOPE_REACH = 0.25  # half-width of the local slope's window, in ln rank
LEAST_SLOPE_RANKS = 5

POWER_LAW_FIT: dict[str, Any] = {
    "preset": pl.String,
    "token_group": pl.String,
    "rank_window": pl.String,
    "kappa": pl.Float64,
    "beta": pl.Float64,
    "r2": pl.Float64,
    "first_rank": pl.Int64,
    "last_rank": pl.Int64,
    "ranks": pl.Int64,  # neurons with an influence above 0
    "reason": pl.String,  # why there is no fit
}


@dataclass(frozen=True)
class Line:
    """A power law on a window of ranks: log influence = −κ ln rank + β.

    Attributes:
        kappa: κ, positive where influence falls with rank.
        beta: β.
        r2: share of the variance on the window that the line explains; None where there is none to explain.
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


def power_law_line(influence: pl.DataFrame) -> pl.DataFrame:
    """The power law of each curve of a run, on the window `auto`.

    Args:
        influence: `neuron_influence` of one run: preset, token_group, influence; other columns are left alone.

    Returns:
        `POWER_LAW_FIT`, one row per preset × token_group in the order in which they come; NULL with a reason where
        fewer than 30 neurons have an influence.
    """
    rows: list[dict[str, Any]] = []
    for (preset, token_group), group in influence.group_by("preset", "token_group", maintain_order=True):
        curve = influence_curve(group["influence"].to_numpy())
        row = {"preset": preset, "token_group": token_group, "rank_window": "auto", "ranks": len(curve)}
        if len(curve) < 3 * LEAST_RANKS:
            few = f"fewer than {3 * LEAST_RANKS} neurons with an influence above 0 ({len(curve)})"
            rows.append(row | {"reason": few})
        else:
            rows.append(row | asdict(fit_line(curve, *auto_window(curve).tolist())))
    return table(rows, POWER_LAW_FIT)


def log_rank(n: int) -> FloatArray:
    """ln 1 … ln n, shape (n,)."""
    return np.log(np.arange(1, n + 1))


def influence_curve(influence: FloatArray) -> FloatArray:
    """Log influence in descending order, the neurons with none left out, shape (n,) with n ≤ N.

    Args:
        influence: mean |Δ| of each neuron, shape (N,), in any order.
    """
    return np.log(-np.sort(-influence[influence > 0]))


def fit_line(curve: FloatArray, first_rank: int, last_rank: int) -> Line:
    """Ordinary least squares of the curve on ln rank, over the ranks `first_rank` … `last_rank` (ES eq. 6 and 12).

    Raises:
        ValueError: a window that leaves the curve or holds fewer than two ranks.
    """
    if not 1 <= first_rank < last_rank <= len(curve):
        raise ValueError(f"ranks {first_rank} to {last_rank} are no window of {len(curve)} ranks")
    x, y = log_rank(len(curve))[first_rank - 1 : last_rank], curve[first_rank - 1 : last_rank]
    centred, deviation = x - x.mean(), y - y.mean()
    slope = float(centred @ deviation / (centred @ centred))
    spread = float(deviation @ deviation)
    r2 = slope**2 * float(centred @ centred) / spread if spread > 0 else None
    return Line(-slope, float(y.mean() - slope * x.mean()), r2, first_rank, last_rank)


def break_grid(n: int) -> IntArray:
    """The 40 log-spaced ranks at which a curve of n ranks may break, ends kept free for a piece."""
    if n < 2 * LEAST_RANKS:
        return np.zeros(0, dtype=np.int64)
    return np.unique(np.rint(np.exp(np.linspace(np.log(LEAST_RANKS), np.log(n - LEAST_RANKS), GRID))).astype(np.int64))


def auto_window(curves: FloatArray) -> IntArray:
    """The window `auto`: the middle piece of the least-squares continuous three-piece fit on ln rank.

    A piece ends at its break: pieces are ranks 1 … b1, b1 + 1 … b2, b2 + 1 … n, each of at least 10 ranks, b1 and b2
    of `break_grid`. Equal squared errors go to the smaller b1, then b2.

    Args:
        curves: one curve, shape (n,), or several of the same length, shape (B, n); n ≥ 30.

    Returns:
        First and last rank of each window, shape (2,) or (B, 2).

    Raises:
        ValueError: fewer than 30 ranks.
    """
    n = curves.shape[-1]
    if n < 3 * LEAST_RANKS:
        raise ValueError(f"a curve of {n} ranks does not hold three pieces of {LEAST_RANKS}")
    grid = _three_pieces(n)
    product = curves @ grid.hinges
    first, second = product[..., grid.first], product[..., grid.second]
    explained = grid.weight[0] * first**2 + 2 * grid.weight[1] * first * second + grid.weight[2] * second**2
    best = np.argmax(explained, axis=-1)
    return np.stack([grid.breaks[grid.first[best]] + 1, grid.breaks[grid.second[best]]], axis=-1)


@dataclass(frozen=True)
class _ThreePieces:
    """What the fit of three pieces needs of n alone: the hinges (ln r − ln b)₊ freed of constant and slope, (n, G),
    and for each of P pairs of them the inverse of their 2 × 2 products (11, 12, 22), (3, P)."""

    breaks: IntArray
    hinges: FloatArray
    first: IntArray
    second: IntArray
    weight: FloatArray


@lru_cache(maxsize=16)
def _three_pieces(n: int) -> _ThreePieces:
    breaks, x = break_grid(n), log_rank(n)
    hinges = np.maximum(x[:, None] - np.log(breaks), 0.0)
    line, _ = np.linalg.qr(np.stack([np.ones(n), x], axis=1))
    hinges -= line @ (line.T @ hinges)
    first, second = np.nonzero(breaks[None, :] - breaks[:, None] >= LEAST_RANKS)
    gram = hinges.T @ hinges
    a, b, c = gram[first, first], gram[first, second], gram[second, second]
    return _ThreePieces(breaks, hinges, first, second, np.stack([c, -b, a]) / (a * c - b * b))


def local_slope(curve: FloatArray) -> FloatArray:
    """Least-squares slope of the curve over the ranks within ± 0.25 in ln rank, shape (n,); NaN under 5 ranks."""
    return _sliding_slope(curve, np.ones(len(curve), dtype=bool))


def second_derivative(curve: FloatArray) -> FloatArray:
    """The same slope of the local slopes, over those that are defined, shape (n,); NaN under 5 of them (ES fig. 3b)."""
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
