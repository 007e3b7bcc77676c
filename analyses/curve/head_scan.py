"""The scan for a step at the head: a run of spacings that stands out from those on both sides.

If the neurons' influences are the largest of independent draws of a power law, the normalised spacings
D_r = r (y_r − y_{r+1}) are independent exponentials of one mean (Rényi 1953). Where the curve's slope changes slowly,
their mean follows it. A cliff is a run of w spacings a … b′−1 (b′ = a + w) whose mean M_c is above both the mean M_h of
all spacings before and the mean M_b of some after. M_c/M_b and M_c/M_h are then F-distributed with 2w degrees of
freedom over twice the number of the others; a run's surprise is the smaller −ln p, and the statistic is the largest
surprise of all runs. A bend of the slope (a steep head, a tail) raises only one of the ratios.

The null distribution depends on N alone: it is drawn once and cached.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from rare_tokens.analyses.curve.head_fits import SMALLEST_HEAD, largest_head
from rare_tokens.analyses.curve.spacings import normalised_spacings
from rare_tokens.analyses.result_table import FloatArray, IntArray

WIDTHS = (1, 2, 4, 8, 16, 32, 64)  # w
LARGEST_END = 0.3  # share of the neurons above the cliff's end
WIDEST = 2.5  # the cliff's end over its beginning, where it is wider than one spacing
AFTER, AFTER_SHARE = 40, 3  # the spacings after: to 40 ranks beyond the cliff, or to a third of the neurons
LEAST_RATIO = 1.3  # of the cliff's mean spacing to that of either side
NULL_DRAWS = 9_999
BATCH = 1_000_000  # spacings drawn at once
SEED = 0


@dataclass(frozen=True)
class Scan:
    """The most surprising run of each curve.

    Attributes:
        surprise: the smaller −ln p of its two ratios, before allowing for the search, shape (B,); 0 if no run has both
            ratios above 1.3.
        first: a, the last rank above the run, shape (B,); 0 if there is none.
        last: b′ = a + w, the first rank below it, shape (B,).
    """

    surprise: FloatArray
    first: IntArray
    last: IntArray


def scanned_ranks(n: int) -> int:
    """How many ranks of a curve of n neurons the scan reads."""
    return min(n, max(_last_end(n) + AFTER, n // AFTER_SHARE) + 1)


def scan(curves: FloatArray, n: int | None = None) -> Scan:
    """Find each curve's most surprising run of spacings.

    Args:
        curves: log influence in descending order, shape (B, at least `scanned_ranks(n)`).
        n: neurons of the whole curve, at least 34; the number of columns by default.
    """
    n = curves.shape[1] if n is None else n
    return _scan(normalised_spacings(curves[:, : scanned_ranks(n)]), n)


def scan_p(surprise: FloatArray, n: int) -> FloatArray:
    """p of the most surprising run, shape of `surprise`: (1 + #{null ≥ it}) / (1 + 9,999)."""
    null = scan_null(n)
    return np.asarray((1 + len(null) - np.searchsorted(null, surprise, side="left")) / (1 + len(null)))


@lru_cache(maxsize=32)
def scan_null(n: int) -> FloatArray:
    """The largest surprise of curves of n neurons on an exact power law, ascending, shape (9,999,).

    Exact for independent draws of a power law whatever its κ; conservative where the curve is concave.
    """
    rng = np.random.default_rng([SEED, n])
    count = scanned_ranks(n) - 1
    size = max(1, BATCH // count)
    batches = [min(size, NULL_DRAWS - done) for done in range(0, NULL_DRAWS, size)]
    drawn = [_scan(rng.standard_exponential((batch, count)), n).surprise for batch in batches]
    null = np.sort(np.concatenate(drawn))
    null.setflags(write=False)
    return null


def _last_end(n: int) -> int:
    return int(LARGEST_END * n + 1e-9)


@dataclass(frozen=True)
class _Runs:
    """The runs of one width w: each one's a, how many spacings are before and after it, and the last after, m − 1."""

    width: int
    first: IntArray
    before: IntArray
    after: IntArray
    stop: IntArray


@lru_cache(maxsize=64)
def _runs(n: int) -> tuple[_Runs, ...]:
    runs = []
    for width in WIDTHS:
        first = np.arange(SMALLEST_HEAD, min(largest_head(n), _last_end(n) - width) + 1)
        if width > 1:
            first = first[first + width <= WIDEST * first]
        end = first + width
        stop = np.minimum(n - 1, np.maximum(end + AFTER, n // AFTER_SHARE)) - 1
        runs.append(_Runs(width, first, first - 1, stop - end + 1, stop))
    return tuple(runs)


@dataclass(frozen=True)
class _Candidates:
    """Runs of one width with both ratios above 1.3: whose (K,), which (K,), and for both sides (2, K) the share of the
    side in side + run, how many spacings it has, and bounds of its surprise; of the smaller, (K,) each."""

    width: int
    row: IntArray
    first: IntArray
    share: FloatArray
    others: FloatArray
    low: FloatArray
    high: FloatArray


def _scan(spacings: FloatArray, n: int) -> Scan:
    """As `scan`, for spacings (B, `scanned_ranks(n)` − 1). Exact tails are computed only for runs whose bound reaches
    the best."""
    sums = np.zeros((len(spacings), spacings.shape[1] + 1))
    np.cumsum(spacings, axis=1, out=sums[:, 1:])
    best = np.zeros(len(spacings))
    found = list(_candidates(sums, n))
    for some in found:
        np.maximum.at(best, some.row, some.low)
    surprise, first, last = np.zeros(len(spacings)), *(np.zeros(len(spacings), dtype=np.int64) for _ in range(2))
    for some in found:
        near = np.flatnonzero(some.high >= best[some.row])
        exact = surprise_of_share(some.share[:, near], some.width, some.others[:, near]).min(axis=0)
        order = np.argsort(exact, kind="stable")  # so that a row's last write is its largest
        row, start, value = some.row[near][order], some.first[near][order], exact[order]
        better = value > surprise[row]
        row, start, value = row[better], start[better], value[better]
        surprise[row], first[row], last[row] = value, start, start + some.width
    return Scan(surprise, first, last)


def _candidates(sums: FloatArray, n: int) -> Iterator[_Candidates]:
    for runs in _runs(n):
        if not len(runs.first):
            continue
        low, high = int(runs.first[0]) - 1, int(runs.first[-1])
        before = sums[:, low:high]  # runs' beginnings are consecutive
        end = sums[:, low + runs.width : high + runs.width]
        run, after = end - before, sums[:, runs.stop] - end
        scale = LEAST_RATIO * runs.width
        row, at = np.nonzero((run * runs.before > scale * before) & (run * runs.after > scale * after))
        sides = np.stack([after[row, at], before[row, at]])
        share = np.maximum(sides / (sides + run[row, at]), np.finfo(float).tiny)
        others = np.stack([runs.after[at], runs.before[at]]).astype(float)
        bounds = _bounds(share, runs.width, others, n).min(axis=1)
        yield _Candidates(runs.width, row, runs.first[at], share, others, *bounds)


def _bounds(share: FloatArray, width: int, others: FloatArray, n: int) -> FloatArray:
    """Below and above −ln p of a run, shape (2, …): the last term of the series in `surprise_of_share` and the
    geometric series that it begins downwards."""
    high = -others * np.log(share)
    if width == 1:
        return np.stack([high, high])
    high = high - _log_binomials(width, n)[others.astype(np.int64)] - (width - 1) * np.log1p(-share)
    falls = (width - 1) / ((others + width - 2) * (1 - share))
    return np.stack([high + np.log1p(-falls), high])


@lru_cache(maxsize=256)
def _log_binomials(width: int, most: int) -> FloatArray:
    """ln C(k + w − 2, w − 1) for k = 0 … `most`; k = 0 is not used."""
    k = np.arange(1, most + 1)
    total = np.zeros(most + 1)
    for j in range(1, width):
        total[1:] += np.log((k + j - 1) / j)
    return total


def surprise_of_share(share: FloatArray, width: int, others: FloatArray) -> FloatArray:
    """−ln p of a run of w spacings against k others, of one mean: their share x of the sum of both is Beta(k, w).

    p = xᵏ Σ_{j<w} C(k+j−1, j) (1−x)ʲ, the upper tail of F with 2w and 2k degrees of freedom at (1−x) k / (x w).

    Args:
        share: x, above 0.
        width: w.
        others: k.
    """
    series, term = np.ones_like(share), np.ones_like(share)
    for j in range(1, width):
        term = term * (1 - share) * (others + j - 1) / j
        series = series + term
    return np.asarray(-others * np.log(share) - np.log(series))
