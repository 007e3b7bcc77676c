"""Synthetic curves of influence with and without a step at the head, fixed or scattered, with known truth.

Each is log influence as a function of a real rank x between 0 and N + 1. A *fixed* layer has the ranks 1 … N; in a
*scattered* one the neurons are independent draws, x = (N+1) U_(r) of sorted uniforms.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import stats

from rare_tokens.analyses.curve.effect_cells import WindowSums
from rare_tokens.analyses.result_table import FloatArray

Curve = Callable[[FloatArray, int], FloatArray]
KAPPA, TAIL = 0.8, 0.3
WINDOWS = 98


@dataclass(frozen=True)
class Head:
    """A truth.

    Attributes:
        curve: log influence at real ranks, in a layer of n neurons.
        kappa: κ of its power law; None without one.
        raised: how many neurons are raised, and by how much.
    """

    curve: Curve
    kappa: float | None = None
    raised: tuple[int, float] = (0, 0.0)

    def layer(self, n: int, rng: np.random.Generator, *, scattered: bool) -> FloatArray:
        """Log influence of n neurons, descending, shape (n,)."""
        x = np.arange(1.0, n + 1)
        if scattered:
            sums = np.cumsum(rng.standard_exponential(n + 1))
            x = (n + 1) * sums[:-1] / sums[-1]
        values = self.curve(x, n)
        values[: self.raised[0]] += self.raised[1]
        return np.asarray(-np.sort(-values))


def measured(layer: FloatArray, error: float, rng: np.random.Generator) -> FloatArray:
    """The layer measured with a normal error of log influence, sorted again, shape (n,)."""
    return np.asarray(-np.sort(-(layer + error * rng.standard_normal(len(layer)))))


def measured_in_windows(layer: FloatArray, error: float, rng: np.random.Generator) -> WindowSums:
    """The layer measured in 98 windows of 256 positions, so that a neuron's mean has the relative error `error`.

    A window's mean |Δ| is gamma-distributed, independent between windows and neurons.
    """
    shape = 1 / (error**2 * WINDOWS)
    sums = np.exp(layer)[:, None] * rng.standard_gamma(shape, (len(layer), WINDOWS)) / shape
    return WindowSums(np.arange(len(layer)), np.full(WINDOWS, 256.0), 256 * sums)


def power_law(kappa: float = KAPPA, tail: float = TAIL) -> Curve:
    """−κ ln x + τ ln((N+1−x)/(N+1))."""
    return lambda x, n: -kappa * np.log(x) + tail * np.log1p(-x / (n + 1))


def loglog_after(at: float) -> Curve:
    """−κ ln x up to ln x = `at`, then s ln(ln(N+1) − ln x), continuous and equally steep there."""

    def values(x: FloatArray, n: int) -> FloatArray:
        end, log = np.log(n + 1), np.log(x)
        reach = (end - at) / np.maximum(end - np.maximum(log, at), 1e-9)
        return np.asarray(-KAPPA * (np.minimum(log, at) + (end - at) * np.log(reach)))

    return values


def loglog_throughout(strength: float) -> Curve:
    """−κ ln x + s ln(1 − ln x / ln(N+1)): the tail of a stretched exponential on a power law, from the first rank."""
    return lambda x, n: (
        -KAPPA * np.log(x) + strength * np.log(np.maximum(1 - np.log(np.maximum(x, 1.0)) / np.log(n + 1), 1e-9))
    )


def log_normal(sigma: float) -> Curve:
    """Quantiles of a normal distribution: no power law anywhere."""
    return lambda x, n: sigma * stats.norm.isf(x / (n + 1))


def quadratic(slope: float, bend: float) -> Curve:
    """−a ln x − c (ln x)²: concave for c > 0, convex for c < 0."""
    return lambda x, _: -slope * np.log(x) - bend * np.log(x) ** 2


def hinge(head: float, kappa: float, at: float) -> Curve:
    """Slope `head` up to rank `at`, then κ and a tail, continuous."""
    law = power_law(kappa)
    return lambda x, n: law(x, n) + (head - kappa) * np.maximum(np.log(at) - np.log(x), 0.0)


def cliff(head: float, kappa: float, first: float, last: float, drop: float) -> Curve:
    """Slope `head` up to rank `first`, from there to `last` a fall of `drop` besides κ, then κ and a tail."""
    smooth = hinge(head, kappa, first)

    def values(x: FloatArray, n: int) -> FloatArray:
        before = np.clip((np.log(last) - np.log(x)) / np.log(last / first), 0.0, 1.0)
        return smooth(x, n) + drop * before

    return values


LAWS = {
    "power law, tail 0.3": Head(power_law(), KAPPA),
    "power law, tail 0.8": Head(power_law(tail=0.8), KAPPA),
    "power law, log-log tail throughout": Head(loglog_throughout(0.3), KAPPA),
    "power law, log-log tail from ln rank 5": Head(loglog_after(5.0), KAPPA),
}
SMOOTH = LAWS | {
    "log-normal 0.8": Head(log_normal(0.8)),
    "log-normal 1.2": Head(log_normal(1.2)),
    "quadratic": Head(quadratic(0.3, 0.09)),
    "concave hinge": Head(hinge(0.35, 0.9, 60)),
    "steep head": Head(hinge(1.3, 0.7, 30)),
    "smooth convex": Head(quadratic(1.3, -0.06)),
}
PLATEAUS = {
    "50 raised by 0.7": Head(power_law(), KAPPA, (50, 0.7)),
    "50 raised by 0.3": Head(power_law(), KAPPA, (50, 0.3)),
    "15 raised by 0.5": Head(power_law(), KAPPA, (15, 0.5)),
    "shelf, cliff 43-57": Head(cliff(0.25, 0.7, 43, 57, 0.7), 0.7),
    "shelf, low wide cliff 35-70": Head(cliff(0.25, 0.7, 35, 70, 0.4), 0.7),
}
