"""Normalised spacings of a curve of influence: what is independent in sorted data.

Sorted values depend on each other: on pure Pareto draws, least squares with BIC finds a break every time. Their
spacings do not. If the n largest of any number of independent Pareto draws have log values y_1 ≥ y_2 ≥ …, then
D_r = r (y_r − y_{r+1}) are independent exponentials of mean κ (Rényi 1953); where the curve's slope in ln r changes
slowly, of mean −slope. A head of m neurons raised by δ adds m·δ to the one spacing D_m and leaves all others alone.
So a level shift is an outlier among exponentials, found best by the largest spacing; and how surprising the largest
is, is known without knowing κ. Neurons measured with error blur the edge of the head over a few ranks, so runs of two
and four spacings are tried too.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from scipy import stats

from rare_tokens.analyses.curve.piecewise import LEAST_HEAD, TAILS, Tail, head_ranks
from rare_tokens.analyses.curve.power_law import LEAST_RANKS, break_grid, log_rank
from rare_tokens.analyses.result_table import FloatArray, IntArray

RUNS = (1, 2, 4)  # lengths of a run of spacings that may hold the step
REFERENCE = 40, 80  # spacings that a run is compared with, at least: n/16 between these
LEAST_NEURONS = 60  # so that a head of three neurons has them


@dataclass(frozen=True)
class SlopeModel:
    """A power law with a tail, as the means of its normalised spacings (maximum likelihood).

    Attributes:
        kappa: κ of the power law, ranks 1 … `tail_rank`, or from `bend_rank` on.
        tail: form of the tail.
        tail_rank: last rank before the tail; n without one.
        tail_slope: −slope of a linear tail, or s of a + s·ln(ln(N+1) − ln r); κ without a tail.
        log_likelihood: of the spacings.
        bend_rank: last rank of a head with another slope, continuous; None where the curve needs none.
        bend_slope: its −slope.
    """

    kappa: float
    tail: Tail
    tail_rank: int
    tail_slope: float
    log_likelihood: float
    bend_rank: int | None = None
    bend_slope: float | None = None

    def slopes(self, n: int, ranks: int) -> FloatArray:
        """Mean spacing after each of the first `ranks` − 1 ranks of a curve of n, shape (ranks − 1,)."""
        rank = np.arange(1, ranks)
        slopes = np.where(rank < self.tail_rank, self.kappa, self.tail_slope * _tail_shape(n, self.tail)[: ranks - 1])
        if self.bend_rank is None or self.bend_slope is None:
            return slopes
        return np.where(rank < self.bend_rank, self.bend_slope, slopes)


@dataclass(frozen=True)
class Steps:
    """The most surprising step of each curve.

    Attributes:
        surprise: −ln p of the run of spacings against its neighbourhood, before allowing for the search, shape (B,).
        rank: last rank above the step, shape (B,).
        size: the step δ in log influence, shape (B,).
        first: first spacing of the run, shape (B,).
        last: last spacing of the run, shape (B,).
    """

    surprise: FloatArray
    rank: IntArray
    size: FloatArray
    first: IntArray
    last: IntArray


def normalised_spacings(curves: FloatArray) -> FloatArray:
    """D_r = r (y_r − y_{r+1}), shape (…, n − 1)."""
    return np.asarray((curves[..., :-1] - curves[..., 1:]) * np.arange(1, curves.shape[-1]))


def ranks_needed(n: int) -> int:
    """Ranks of the curve that the search for a step looks at, with room for noise to move neurons across its end."""
    return min(n, 4 * int(head_ranks(n)[-1]) + 2 * REFERENCE[0]) if len(head_ranks(n)) else n


def find_steps(spacings: FloatArray, n: int) -> Steps:
    """The step of each curve that stands out most from the spacings around it.

    A run of w spacings ending a head of m = 3 … 5 % of n neurons is compared with the k other spacings between ranks
    m/2 and 2m, or with 40 to 80 of them. Among exponentials of one mean, sum/(sum + others) is Beta(w, k) distributed.
    So that the beginning of the tail is not mistaken for a step, the spacings are first divided by the likeliest pair
    of slopes, the second the steeper (a head that is steeper may be one with a step in it).

    Args:
        spacings: of the largest ranks, shape (B, ranks − 1), `ranks` at least `ranks_needed(n)`.
        n: neurons of the whole curve, at least 60.
    """
    slopes = _two_slopes(spacings)
    relative = spacings / slopes
    sums = np.concatenate([np.zeros((len(spacings), 1)), np.cumsum(relative, axis=1)], axis=1)
    rows = np.arange(len(spacings))
    surprise, first, last = np.full(len(rows), -np.inf), np.zeros(len(rows), int), np.zeros(len(rows), int)
    mean = np.zeros(len(rows))
    for run in RUNS:
        low, high, start, stop = _runs(n, run)
        inside = sums[:, high] - sums[:, low - 1]
        around = sums[:, stop] - sums[:, start - 1] - inside
        others = (stop - start + 1 - run).astype(float)
        found = _surprise(inside, around, run, others)
        best = np.argmax(found, axis=1)
        better = found[rows, best] > surprise
        surprise = np.where(better, found[rows, best], surprise)
        first, last = np.where(better, low[best], first), np.where(better, high[best], last)
        mean = np.where(better, around[rows, best] / others[best], mean)
    offsets = first[:, None] + np.arange(max(RUNS))
    within = offsets <= last[:, None]
    offsets = np.minimum(offsets, spacings.shape[1])
    at = rows[:, None], offsets - 1
    excess = np.where(within, (relative[at] - mean[:, None]) * slopes[at] / offsets, 0.0)
    largest = np.argmax(np.where(within, relative[at], -np.inf), axis=1)
    return Steps(surprise, first + largest, excess.sum(axis=1), first, last)


def _two_slopes(spacings: FloatArray) -> FloatArray:
    """The likeliest mean of each spacing, one before a break and none smaller after it, shape (B, ranks − 1)."""
    breaks = break_grid(spacings.shape[1] + 1)
    likelihood, before, after = _tail_fits(spacings, "linear", breaks)
    rows, best = np.arange(len(spacings)), np.argmax(np.where(after >= before, likelihood, -np.inf), axis=1)
    flat = _positive(spacings.mean(axis=1, keepdims=True))
    steeper = (after >= before).any(axis=1, keepdims=True)
    before, after = np.where(steeper, before, flat), np.where(steeper, after, flat)
    ranks = np.arange(1, spacings.shape[1] + 1)
    return np.where(ranks < breaks[best][:, None], before[rows, best][:, None], after[rows, best][:, None])


def _surprise(inside: FloatArray, around: FloatArray, run: int, others: FloatArray) -> FloatArray:
    """−ln p of a run's sum: the Beta(w, k) tail, which for whole w is xᵏ Σ_j<w C(k+j−1, j) (1−x)ʲ."""
    total = inside + around
    share = np.divide(around, total, out=np.ones_like(total), where=total > 0)
    share = np.clip(share, np.finfo(float).tiny, 1.0)
    series, term = np.ones_like(share), np.ones_like(share)
    for j in range(1, run):
        term = term * (1 - share) * (others + j - 1) / j
        series = series + term
    return np.asarray(-others * np.log(share) - np.log(series))


@lru_cache(maxsize=32)
def _runs(n: int, run: int) -> tuple[IntArray, IntArray, IntArray, IntArray]:
    """First and last spacing of each run, and of its neighbourhood, counted from 1."""
    head = head_ranks(n)
    low = np.maximum(1, head - (run - 1) // 2)
    high = low + run - 1
    start = np.minimum(np.maximum(1, head // 2), low)
    stop = np.minimum(n - 1, np.maximum(2 * head, start + int(np.clip(n // 16, *REFERENCE))))
    return low, high, start, np.maximum(stop, high)


def without_step(spacings: FloatArray, first: int, last: int) -> FloatArray:
    """The spacings of one curve with the run `first` … `last` replaced by the mean around it."""
    smooth = spacings.copy()
    around = spacings[max(0, first // 2) : 2 * last + LEAST_RANKS]
    inside = spacings[first - 1 : last]
    smooth[first - 1 : last] = (around.sum() - inside.sum()) / max(1, len(around) - len(inside))
    return smooth


def step_power(spacings: FloatArray, n: int, rank: int, size: float, threshold: float) -> float:
    """Probability that a step would be more surprising than a threshold, were it there.

    The one spacing that holds it is size · rank plus an exponential; its neighbourhood is taken as it is.

    Args:
        spacings: of the curve without a step, shape (at least `ranks_needed(n)` − 1,).
        n: neurons of the whole curve.
        rank: last rank above the step.
        size: δ, in log influence.
        threshold: −ln p to be exceeded.
    """
    low, _, start, stop = (int(ends[rank - LEAST_HEAD]) for ends in _runs(n, 1))
    around = np.delete(spacings[start - 1 : stop], low - start)
    needed = around.sum() * np.expm1(threshold / len(around)) - size * rank
    return float(np.exp(-max(0.0, needed) / max(around.mean(), np.finfo(float).tiny)))


def draw_curves(
    slopes: FloatArray,
    draws: int,
    rng: np.random.Generator,
    *,
    error: FloatArray | None = None,
    scattered: bool = True,
    step: tuple[int, float] | None = None,
) -> FloatArray:
    """Curves that have these slopes: what influence would look like again under a fitted model.

    Args:
        slopes: mean normalised spacings, shape (ranks − 1,).
        draws: B.
        rng: source of randomness.
        error: standard error of the log influence of each neuron, shape (ranks,), added as noise before sorting again.
        scattered: neurons are independent draws (order statistics, exponential spacings); else a fixed population
            that lies on the curve, and `error` is all that moves it.
        step: (m, δ): the m largest raised by δ, before the noise.

    Returns:
        Shape (B, ranks), each descending; the last rank is at 0 before the noise.
    """
    ranks = len(slopes) + 1
    gaps = np.broadcast_to(slopes / np.arange(1, ranks), (draws, ranks - 1))
    if scattered:
        gaps = gaps * rng.standard_exponential((draws, ranks - 1))
    curves = np.zeros((draws, ranks))
    curves[:, :-1] = np.cumsum(gaps[:, ::-1], axis=1)[:, ::-1]
    if step is not None:
        curves[:, : step[0]] += step[1]
    if error is not None:
        curves += error * rng.standard_normal((draws, ranks))
        curves = -np.sort(-curves, axis=1)
    return curves


def _tail_shape(n: int, tail: Tail) -> FloatArray:
    """−slope of a tail of strength 1 after each rank, shape (n − 1,)."""
    return np.ones(n - 1) if tail != "loglog" else 1 / (np.log(n + 1) - log_rank(n - 1))


def fit_slopes(spacings: FloatArray, head_rank: int = 0) -> list[SlopeModel]:
    """The power law without a tail and with each form of it, at the break with the largest likelihood.

    Args:
        spacings: of a whole curve, shape (n − 1,), n ≥ 30, not all zero.
        head_rank: last rank of the head; the tail begins at least ten ranks later.

    Returns:
        Models in the order of `TAILS`.
    """
    n = len(spacings) + 1
    fits = []
    for tail in TAILS:
        grid = break_grid(n)
        breaks = np.array([n]) if tail == "none" else grid[grid >= head_rank + LEAST_RANKS]
        likelihood, kappa, strength = (values[0] for values in _tail_fits(spacings[None, :], tail, breaks))
        at = int(np.argmax(likelihood))
        slope = float(strength[at]) if tail != "none" else float(kappa[at])
        fits.append(SlopeModel(float(kappa[at]), tail, int(breaks[at]), slope, float(likelihood[at])))
    return fits


def bent(model: SlopeModel, spacings: FloatArray) -> SlopeModel:
    """The model with another slope for its first ranks, where BIC wants one: curves of real influence often bend.

    Args:
        model: without a bend.
        spacings: of the same curve, shape (n − 1,).
    """
    law = spacings[: model.tail_rank - 1]
    ends = break_grid(len(spacings) + 1)
    ends = ends[ends + LEAST_RANKS <= len(law)]
    if not len(ends):
        return model
    sums, total = np.cumsum(law)[ends - 2], law.sum()
    head, rest = _positive(sums / (ends - 1)), _positive((total - sums) / (len(law) - ends + 1))
    gains = len(law) * np.log(model.kappa) - (ends - 1) * np.log(head) - (len(law) - ends + 1) * np.log(rest)
    best = int(np.argmax(gains))
    if gains[best] <= np.log(len(spacings)):
        return model
    return replace(
        model,
        kappa=float(rest[best]),
        tail_slope=float(rest[best]) if model.tail == "none" else model.tail_slope,
        log_likelihood=model.log_likelihood + float(gains[best]),
        bend_rank=int(ends[best]),
        bend_slope=float(head[best]),
    )


def tail_gains(spacings: FloatArray) -> dict[Tail, FloatArray]:
    """How much log-likelihood each form of tail gains over the pure power law, shape (B,) each.

    Args:
        spacings: shape (B, n − 1), n ≥ 30.
    """
    n = spacings.shape[1] + 1
    none = _tail_fits(spacings, "none", np.array([n]))[0][:, 0]
    return {tail: _tail_fits(spacings, tail, break_grid(n))[0].max(axis=1) - none for tail in TAILS[1:]}


def _tail_fits(spacings: FloatArray, tail: Tail, breaks: IntArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Log-likelihood, κ and strength of the tail for each break, shapes (B, G)."""
    n = spacings.shape[1] + 1
    shape = _tail_shape(n, tail)
    after = (np.arange(1, n)[:, None] >= breaks).astype(float)
    head = breaks - 1.0
    tails = n - 1.0 - head
    kappa = _positive(spacings @ (1 - after) / head)
    strength = _positive((spacings / shape) @ after / np.maximum(tails, 1.0))
    likelihood = -head * (np.log(kappa) + 1) - tails * (np.log(strength) + 1) - np.log(shape) @ after
    return likelihood, kappa, strength


def head_gains(spacings: FloatArray, n: int) -> dict[str, FloatArray]:
    """How much log-likelihood a `hinge` and a `free` head gain over one κ, shape (B,) each.

    A level shift alone is better found by `find_steps`, which does not need one κ for the whole power law.

    Args:
        spacings: of the power law and its head, shape (B, k).
        n: neurons of the whole curve.
    """
    k = spacings.shape[1]
    ends = head_ranks(n)
    ends = ends[ends + LEAST_RANKS <= k]
    if not len(ends):
        return {name: np.zeros(len(spacings)) for name in ("hinge", "free")}
    sums = np.concatenate([np.zeros((len(spacings), 1)), np.cumsum(spacings, axis=1)], axis=1)
    total, before = sums[:, -1:], sums[:, ends - 1]
    at = spacings[:, ends - 1]
    inside, outside = ends - 1.0, k - ends + 1.0

    def score(amount: FloatArray, count: FloatArray | float) -> FloatArray:
        return np.asarray(-count * (np.log(_positive(amount / count)) + 1))

    one = score(total, float(k))
    rest = score(total - before - at, outside - 1) - np.log(_positive((total - before - at) / (outside - 1)))
    models = {
        "hinge": score(before, inside) + score(total - before, outside),
        "free": score(before, inside) + rest,
    }
    return {name: (values - one).max(axis=1) for name, values in models.items()}


def _positive(values: FloatArray) -> FloatArray:
    return np.maximum(values, np.finfo(float).tiny)


@dataclass(frozen=True)
class SlopeRatio:
    """Slope of the head over slope of the power law.

    Attributes:
        ratio: of the two means of normalised spacings; 1 for equal slopes.
        low: lower end of its 95 % interval.
        high: upper end.
        p_value: two-sided, of equal slopes.
    """

    ratio: float
    low: float
    high: float
    p_value: float


def compare_slopes(spacings: FloatArray, first: int, last: int, tail_rank: int) -> SlopeRatio | None:
    """Is the head as steep as the power law? Exact F test of two means of exponentials (ES conjecture 5.1).

    Args:
        spacings: of one curve, shape (at least `tail_rank` − 1,).
        first: first spacing of the run that holds the step.
        last: last spacing of the run.
        tail_rank: last rank of the power law.

    Returns:
        None where the head has fewer than two spacings of its own, or the power law fewer than ten.
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
