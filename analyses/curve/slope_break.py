"""Does the slope of log influence break, and where? The test behind ES §4.1's figure 3.

ES reads off a figure that the first derivative begins to fall near ln r ≈ 5 and the second jumps there. Both say the
same: the slope, as a function of ln r, has a kink. The alternative to rule out is a slope that changes
smoothly, as in every stretched exponential or log-normal. Normalised spacings (`analyses.curve.spacings`) are
exponential with the slope as their mean, so this is a score test in a regression of exponentials: smooth slope
ln μ = a + b x + c ln(ln(N+1) − x) with x = ln r, against a break added to it at any of 40 places k: a kink (x − k)₊,
the same kink in ln(ln(N+1) − x), which is what a power law with the tail `loglog` has, or a jump of the slope.
"""

from dataclasses import dataclass

import numpy as np

from rare_tokens.analyses.curve.ranked_curve import GRID, log_rank
from rare_tokens.analyses.curve.spacings import normalised_spacings
from rare_tokens.analyses.result_table import FloatArray

PAPER_BREAK = 5.0  # ln r, ES §4.1
FIRST_RANK = 8  # ln r ≈ 2, where ES sees its power law begin
MARGIN = 0.5  # least distance between a break and the ends of the range, in ln rank
LEAST_RANKS = 100
CUT = 1.92  # half the 95 % point of χ² with one degree of freedom


@dataclass(frozen=True)
class SlopeBreak:
    """The break that stands out most.

    Attributes:
        log_rank: where it is.
        form: `kink` (the second derivative jumps) or `jump` (the slope itself does).
        low: lower end of its 95 % interval (profile likelihood), widened by the spacing of the places.
        high: upper end.
        change: change of the second derivative (kink) or slope (jump) there; negative: influence begins to fall faster.
        p_value: parametric bootstrap of the smooth slope, allowing for the search over ranks.
        near_five: whether p < 0.01 and ln r = 5 lies in the interval.
    """

    log_rank: float
    form: str
    low: float
    high: float
    change: float
    p_value: float
    near_five: bool


def slope_break(curve: FloatArray, rng: np.random.Generator, *, draws: int = 1_000) -> SlopeBreak | str:
    """Look for a break in the slope between rank 8 and the middle of the curve.

    Args:
        curve: log influence in descending order, shape (n,).
        rng: source of randomness of the bootstraps.
        draws: of each bootstrap.

    Returns:
        The break, or why there is no test, in words.
    """
    n = len(curve)
    ranks = np.arange(FIRST_RANK, n // 2)
    if len(ranks) < LEAST_RANKS:
        return f"{n} neurons leave {len(ranks)} ranks between {FIRST_RANK} and the middle; the slope's test needs 100"
    x = log_rank(n)[ranks - 1]
    spacings = normalised_spacings(curve)[ranks - 1]
    to_end = np.log(np.log(n + 1) - x)
    smooth = np.stack([np.ones(len(x)), x, to_end], axis=1)
    places = np.linspace(x[0] + MARGIN, x[-1] - MARGIN, GRID)
    linear = np.maximum(x[:, None] - places, 0.0)
    curved = np.maximum(np.log(np.log(n + 1) - places) - to_end[:, None], 0.0)
    kinks = np.concatenate([linear, curved, (x[:, None] > places).astype(float)], axis=1)
    line, _ = np.linalg.qr(smooth)
    basis = kinks - line @ (line.T @ kinks)
    basis /= np.linalg.norm(basis, axis=0)

    mean = _exponential_means(smooth, spacings)
    if mean is None:
        return "the slope cannot be fitted: too many neurons of equal influence"
    score = _scores(spacings / mean - 1, line, basis)
    under_null = _scores(rng.standard_exponential((draws, len(x))) - 1, line, basis)
    p_value = (1 + int(np.sum(np.abs(under_null).max(axis=1) >= np.abs(score).max()))) / (1 + draws)

    bends = [_exponential_means(np.column_stack([smooth, kink]), spacings, np.log(mean)) for kink in kinks.T]
    likelihood = np.array([-np.inf if m is None else -np.sum(np.log(m) + spacings / m) for m in bends])
    best = int(np.argmax(likelihood))
    bent = bends[best]
    if bent is None:
        return "the slope with a break cannot be fitted"
    place = np.tile(places, 3)
    inside = place[likelihood >= likelihood[best] - CUT]
    at = int(np.searchsorted(x, place[best]))
    coefficient = np.linalg.lstsq(np.column_stack([smooth, kinks[:, best]]), np.log(bent), rcond=None)[0][-1]
    form = ("kink", "kink", "jump")[best // GRID]
    rate = coefficient / (np.log(n + 1) - place[best]) if best // GRID == 1 else coefficient
    change = -rate * bent[at] if form == "kink" else -np.expm1(coefficient) * bent[max(at - 1, 0)]
    resolution = places[1] - places[0]
    low, high = float(inside.min() - resolution), float(inside.max() + resolution)
    return SlopeBreak(
        log_rank=float(place[best]),
        low=low,
        high=high,
        form=form,
        change=float(change),
        p_value=p_value,
        near_five=bool(p_value < 0.01 and low <= PAPER_BREAK <= high),
    )


def _scores(residuals: FloatArray, line: FloatArray, basis: FloatArray) -> FloatArray:
    """Standardised scores of each break, shape (…, breaks), from residuals of shape (…, ranks) freed of the fit."""
    rest = residuals - (residuals @ line) @ line.T
    return np.asarray(rest @ basis / rest.std(axis=-1, keepdims=True))


def _exponential_means(design: FloatArray, values: FloatArray, start: FloatArray | None = None) -> FloatArray | None:
    """Means of exponentials whose logarithm is linear in `design`, by maximum likelihood (Fisher scoring).

    None if it does not converge.
    """
    if values.mean() <= 0:
        return None
    inverse = np.linalg.pinv(design)
    linear = np.full(len(values), np.log(values.mean())) if start is None else start
    for _ in range(100):
        step = design @ (inverse @ (values * np.exp(-linear) - 1))
        linear = linear + np.clip(step, -1.0, 1.0)
        if not np.isfinite(linear).all():
            return None
        if np.abs(step).max() < 1e-8:
            return np.exp(linear)
    return None
