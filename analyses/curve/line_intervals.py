"""How far the line moves with the text: intervals of κ, head, step and slope from bootstrap samples of windows.

The layer's neurons are fixed; only the text is a sample. So an interval is about the value that unlimited text would
give for these neurons, not about other neurons from the same law.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from rare_tokens.analyses.curve.head_fits import SMALLEST_HEAD, fitted_ranks, largest_head
from rare_tokens.analyses.curve.power_law import LEAST_NEURONS, SAME, power_laws
from rare_tokens.analyses.result_table import BoolArray, FloatArray, IntArray

LEVELS = (0.025, 0.975)
FITTED = 0.9  # share of the samples that must have a line
NEARLY = 0.8  # of the possible range: an interval this wide says nothing
SAME_HEAD = 0.15  # in ln rank: samples within it find the head where the curve in hand has it


@dataclass(frozen=True)
class Interval:
    """A 95 % interval.

    Attributes:
        low: lower end.
        high: upper end.
        determined: False if it spans nearly all possible values; then show "not determined".
    """

    low: float
    high: float
    determined: bool = True


@dataclass(frozen=True)
class LineSamples:
    """The line's coefficients in B bootstrap samples, NaN where a sample has no line, shape (B,) each.

    Attributes:
        kappa: κ of the fit.
        head_rank: b.
        step: s.
        head_slope: κ + h.
    """

    kappa: FloatArray
    head_rank: FloatArray
    step: FloatArray
    head_slope: FloatArray


def line_samples(influence: FloatArray) -> LineSamples:
    """Fit the line to each sample.

    Args:
        influence: mean |Δ| of each neuron in each sample, shape (B, N), neurons in any order.
    """
    values = np.full((4, len(influence)), np.nan)
    for rows, curves in curves_by_length(influence):
        if curves.shape[1] < LEAST_NEURONS:
            continue
        fitted = np.ptp(curves[:, : fitted_ranks(curves.shape[1])], axis=1) > SAME
        found = power_laws(curves[fitted])
        values[:, rows[fitted]] = found.fit.kappa, found.fit.head_rank, found.fit.step, found.head_slope
    return LineSamples(*values)


def curves_by_length(influence: FloatArray) -> Iterator[tuple[IntArray, FloatArray]]:
    """Curves of resampled influence, grouped by length.

    Args:
        influence: mean |Δ| of each neuron in each of B samples, shape (B, N), in any order.

    Yields:
        Which samples, shape (B',), and their curves, shape (B', n), where n neurons have an influence above 0.
    """
    descending = -np.sort(-influence, axis=1)
    lengths = (descending > 0).sum(axis=1)
    for length in np.unique(lengths).tolist():
        rows = np.flatnonzero(lengths == length)
        yield rows, np.log(descending[rows, :length])


def spans_range(low: float, high: float, least: float, most: float, *, log: bool = False) -> bool:
    """Whether an interval spans (nearly) all possible values, and so is not determined.

    Args:
        low: lower end of the interval.
        high: upper end.
        least: smallest possible value; above 0 with `log`.
        most: largest possible value.
        log: measure in logarithms, as for ranks.
    """
    if log:
        low, high, least, most = (float(np.log(value)) for value in (low, high, least, most))
    return high - low >= NEARLY * (most - least)


def head_interval(rank: int, samples: FloatArray, n: int) -> Interval | None:
    """Percentile interval of the head's last rank b; None where too few samples have a line.

    Args:
        rank: b of the curve in hand.
        samples: b in each sample, shape (B,).
        n: neurons of the curve.
    """
    ends = _percentiles(samples, whole=True)
    if ends is None:
        return None
    low, high = min(ends[0], rank), max(ends[1], rank)
    return Interval(low, high, determined=not spans_range(low, high, SMALLEST_HEAD, largest_head(n), log=True))


def plain_interval(value: float, samples: FloatArray) -> Interval | None:
    """Percentile interval of κ, or of a difference of κ or of ranks; None if too few samples have a line."""
    ends = _percentiles(samples)
    return None if ends is None else Interval(min(ends[0], value), max(ends[1], value))


def same_head(rank: int, ranks: FloatArray) -> BoolArray:
    """Which samples find the head where the curve in hand has it, shape (B,)."""
    return np.asarray(np.abs(np.log(ranks / rank)) <= SAME_HEAD)  # False where a sample has no line


def step_interval(value: float, samples: FloatArray, same: BoolArray, *, determined: bool = True) -> Interval | None:
    """Interval of what sorting biases at the head's end: the step s, the head's slope κ + h, and their differences.

    Errors carry neurons over the cliff, so the curve in hand shows a step blurred once, a sample one blurred twice.
    The percentile interval is therefore moved by twice the distance of the samples' median from the value in hand, as
    seen in samples that find the head at the same place. It is not moved if most samples find it elsewhere.

    Args:
        value: on the curve in hand.
        samples: the value in each sample, shape (B,).
        same: which samples find the same head (`same_head`), shape (B,).
        determined: whether the interval of b is determined.
    """
    ends = _percentiles(samples)
    if ends is None:
        return None
    moved = 2 * (value - float(np.median(samples[same]))) if same.mean() > 0.5 else 0.0
    return Interval(min(ends[0] + moved, value), max(ends[1] + moved, value), determined)


def _percentiles(samples: FloatArray, *, whole: bool = False) -> tuple[float, float] | None:
    known = samples[np.isfinite(samples)]
    if len(known) < max(1.0, FITTED * len(samples)):
        return None
    low, high = np.quantile(known, LEVELS, method="inverted_cdf" if whole else "linear").tolist()
    return low, high
