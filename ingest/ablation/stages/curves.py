"""Functions of one constant per neuron, each known at a few points, and where a sum of them is least."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
POINTS = 11  # of a polynomial
_GRID, _NEWTON = 193, 4


class Curve(Protocol):
    """N functions of one number each."""

    def at(self, y: FloatArray) -> FloatArray:
        """Their values, … x N."""

    def slope(self, y: FloatArray) -> FloatArray:
        """Their first derivatives."""

    def curvature(self, y: FloatArray) -> FloatArray:
        """Their second derivatives."""


@dataclass(frozen=True)
class Parabola:
    """Through three points, N each."""

    centre: FloatArray
    width: FloatArray
    values: FloatArray  # 3 x N: at centre − width, centre, centre + width

    @property
    def _bend(self) -> FloatArray:
        below, middle, above = self.values
        return np.asarray(above - 2 * middle + below)

    def at(self, y: FloatArray) -> FloatArray:
        """Values."""
        x = (y - self.centre) / self.width
        return self.values[1] + x * (self.values[2] - self.values[0]) / 2 + x**2 * self._bend / 2

    def slope(self, y: FloatArray) -> FloatArray:
        """First derivatives."""
        x = (y - self.centre) / self.width
        return ((self.values[2] - self.values[0]) / 2 + x * self._bend) / self.width

    def curvature(self, y: FloatArray) -> FloatArray:
        """Second derivatives."""
        return np.broadcast_to(self._bend / self.width**2, np.broadcast_shapes(y.shape, self.width.shape))


@dataclass(frozen=True)
class Polynomial:
    """Of degree `POINTS` − 1 on an interval, through its Chebyshev points."""

    low: FloatArray  # N
    high: FloatArray
    coefficients: FloatArray  # POINTS x N, of Chebyshev polynomials

    @staticmethod
    def points(low: FloatArray, high: FloatArray) -> list[FloatArray]:
        """The constants at which its values must be known, N each."""
        return [(low + high) / 2 + x * (high - low) / 2 for x in chebyshev.chebpts1(POINTS)]

    @staticmethod
    def through(low: FloatArray, high: FloatArray, values: FloatArray) -> "Polynomial":
        """The one with these values (POINTS x N) at these points."""
        matrix = chebyshev.chebvander(chebyshev.chebpts1(POINTS), POINTS - 1)
        return Polynomial(low, high, np.asarray(np.linalg.solve(matrix, values), dtype=np.float64))

    def at(self, y: FloatArray) -> FloatArray:
        """Values."""
        return np.asarray(chebyshev.chebval(self._place(y), self.coefficients, tensor=False))

    def slope(self, y: FloatArray) -> FloatArray:
        """First derivatives."""
        inner = chebyshev.chebder(self.coefficients)
        return np.asarray(chebyshev.chebval(self._place(y), inner, tensor=False) * 2 / (self.high - self.low))

    def curvature(self, y: FloatArray) -> FloatArray:
        """Second derivatives."""
        inner = chebyshev.chebder(self.coefficients, 2)
        return np.asarray(chebyshev.chebval(self._place(y), inner, tensor=False) * (2 / (self.high - self.low)) ** 2)

    def slope_error(self) -> FloatArray:
        """About how far a slope is off: the next coefficient, by the ratio of the last two, times its own slope."""
        last, before = np.abs(self.coefficients[-1]), np.abs(self.coefficients[-2])
        following = last * np.divide(last, before, out=np.ones_like(last), where=before > last)
        return following * POINTS**2 * 2 / (self.high - self.low)

    def _place(self, y: FloatArray) -> FloatArray:
        return (2 * y - self.low - self.high) / (self.high - self.low)


def least(curves: Sequence[Curve], low: FloatArray, high: FloatArray) -> FloatArray:
    """Where the sum of some curves is least between low and high, N each: on a grid, then by Newton's method."""
    grid = low + (high - low) * np.linspace(0, 1, _GRID)[:, None]
    step = (high - low) / (_GRID - 1)
    place = np.take_along_axis(grid, sum_of(curves, "at", grid).argmin(0)[None], 0)[0]
    around = np.maximum(place - step, low), np.minimum(place + step, high)
    for _ in range(_NEWTON):
        slope, curvature = sum_of(curves, "slope", place), sum_of(curves, "curvature", place)
        move = np.divide(slope, curvature, out=np.zeros_like(place), where=curvature > 0)
        place = np.clip(place - move, *around)
    return place


def sum_of(curves: Sequence[Curve], what: str, y: FloatArray) -> FloatArray:
    """Σ over the curves of their values, slopes or curvatures at y."""
    return np.asarray(sum(getattr(curve, what)(y) for curve in curves))
