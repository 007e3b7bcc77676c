"""The middle piece of a continuous three-piece fit: one of the windows that `regime_fit` keeps for comparison.

It mistakes the cliff at a plateau's end for the power law (SmolLM2-135M: ranks 42 to 69, κ 2.18), and on other curves
an ordinary tail; so nothing else rests on it.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from rare_tokens.analyses.curve.ranked_curve import LEAST_RANKS, break_grid, log_rank
from rare_tokens.analyses.result_table import FloatArray, IntArray


def middle_piece(curves: FloatArray) -> IntArray:
    """First and last rank of the middle piece of the least-squares continuous three-piece fit on ln rank.

    A piece ends at its break: pieces are ranks 1 … b1, b1 + 1 … b2, b2 + 1 … n, each of at least 10 ranks, b1 and b2
    from `break_grid`. Equal squared errors go to the smaller b1, then b2.

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
    """What the three-piece fit needs that depends on n alone: the hinges (ln r − ln b)₊ freed of constant and slope,
    (n, G), and for each of P pairs of them the inverse of their 2 × 2 products (11, 12, 22), (3, P)."""

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
