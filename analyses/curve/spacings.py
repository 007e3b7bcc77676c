"""Normalised spacings of a curve of influence, which are independent in sorted data.

Sorted values depend on each other: on pure Pareto draws, least squares with BIC finds a break every time. Their
spacings are independent. If the n largest of any number of independent Pareto draws have log values y_1 ≥ y_2 ≥ …, then
D_r = r (y_r − y_{r+1}) are independent exponentials of mean κ (Rényi 1953), or of mean −slope where the curve's slope
in ln r changes slowly. A head of m neurons raised by δ adds m·δ to the one spacing D_m and leaves all others alone.
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from rare_tokens.analyses.curve.ranked_curve import LEAST_RANKS
from rare_tokens.analyses.result_table import FloatArray


def normalised_spacings(curves: FloatArray) -> FloatArray:
    """D_r = r (y_r − y_{r+1}), shape (…, n − 1)."""
    return np.asarray((curves[..., :-1] - curves[..., 1:]) * np.arange(1, curves.shape[-1]))


@dataclass(frozen=True)
class SlopeRatio:
    """Slope of the head over slope of the power law.

    Attributes:
        ratio: ratio of their mean normalised spacings; 1 for equal slopes.
        low: lower end of its 95 % interval.
        high: upper end.
        p_value: two-sided, against equal slopes.
    """

    ratio: float
    low: float
    high: float
    p_value: float


def compare_slopes(spacings: FloatArray, first: int, last: int, tail_rank: int) -> SlopeRatio | None:
    """Is the head as steep as the power law? Exact F test of two means of exponentials (ES conjecture 5.1).

    Args:
        spacings: one curve's, shape (at least `tail_rank` − 1,).
        first: first spacing of the run that holds the step.
        last: last spacing of the run.
        tail_rank: last rank of the power law.

    Returns:
        None if the head has fewer than two spacings of its own, or the power law fewer than ten.
    """
    head, law = spacings[: first - 1], spacings[last : tail_rank - 1]
    if len(head) < 2 or len(law) < LEAST_RANKS or head.sum() == 0 or law.sum() == 0:
        return None
    ratio = float(head.mean() / law.mean())
    f = stats.f(2 * len(head), 2 * len(law))
    return SlopeRatio(
        ratio,
        ratio / float(f.ppf(0.975)),
        ratio / float(f.ppf(0.025)),
        min(1.0, 2 * float(min(f.cdf(ratio), f.sf(ratio)))),
    )
