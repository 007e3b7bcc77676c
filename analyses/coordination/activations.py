"""Activations of one layer at the chosen positions, read by the coordination, graph and information analyses."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from rare_tokens.analyses.result_table import BoolArray, FloatArray, IntArray

_BLOCK = 4_096  # positions multiplied at once in float32; sums over blocks are in float64


@dataclass(frozen=True)
class Moments:
    """Means and second moments of some neurons over the chosen positions.

    Attributes:
        neurons: their indices, ascending, shape (n,).
        positions: T, the number of positions that the moments are taken over.
        mean: shape (n,), float64.
        covariance: over T (not T − 1), shape (n, n), float64.
    """

    neurons: IntArray
    positions: int
    mean: FloatArray
    covariance: FloatArray

    @cached_property
    def defined(self) -> BoolArray:
        """Which neurons vary by more than float32 rounding, shape (n,): only these have correlations."""
        variance = np.diagonal(self.covariance)
        floor = (np.finfo(np.float32).eps * np.abs(self.mean)) ** 2
        return np.isfinite(variance) & (variance > np.maximum(floor, np.finfo(np.float64).tiny))

    @cached_property
    def correlation(self) -> FloatArray:
        """Pearson correlations, shape (n, n); rows and columns of undefined neurons are 0."""
        scale = np.zeros(len(self.neurons))
        scale[self.defined] = 1 / np.sqrt(np.diagonal(self.covariance)[self.defined])
        return _scaled(np.where(np.isfinite(self.covariance), self.covariance, 0.0), scale)

    @cached_property
    def cosine(self) -> FloatArray:
        """Cosine similarities of the activation traces (ES eq. 8: not centred), shape (n, n); 0 for an all-zero one."""
        product = self.covariance + np.outer(self.mean, self.mean)
        norm = np.sqrt(np.diagonal(product))
        return _scaled(product, np.divide(1.0, norm, out=np.zeros_like(norm), where=norm > 0))

    def rows(self, neurons: IntArray) -> IntArray:
        """The places of `neurons` (any shape) among these."""
        return np.searchsorted(self.neurons, neurons)


@dataclass(frozen=True)
class Activations:
    """Activations of a layer at T positions.

    Attributes:
        values: shape (T, N), float32; column i is neuron i. May be memory-mapped.
        windows: the window of each position, shape (T,): positions of one window are not independent.
    """

    values: FloatArray
    windows: IntArray

    def __post_init__(self) -> None:
        """Refuse arrays that do not belong together."""
        if self.values.ndim != 2 or self.windows.shape != self.values.shape[:1]:
            raise ValueError(
                f"activations of shape {self.values.shape} and windows of shape {self.windows.shape}: "
                "expected (positions, neurons) and (positions,)"
            )

    @property
    def positions(self) -> int:
        """T."""
        return self.values.shape[0]

    @property
    def neurons(self) -> int:
        """N."""
        return self.values.shape[1]

    @property
    def magnitudes(self) -> "Activations":
        """|activation| at the same positions, (T, N)."""
        return Activations(np.abs(self.values), self.windows)

    def sample(self, count: int, seed: int) -> "Activations":
        """`count` seeded positions, in order; all of them if there are no more."""
        if count >= self.positions:
            return self
        rows = np.sort(np.random.default_rng(seed).choice(self.positions, count, replace=False))
        return Activations(self.values[rows], self.windows[rows])

    def moments(self, neurons: IntArray) -> Moments:
        """Moments of at least `neurons` (ascending, distinct); if they are many, of the whole layer, and cached."""
        if 4 * len(neurons) < self.neurons and "_layer" not in self.__dict__:
            return _moments(self.values[:, neurons], neurons)
        return self._layer

    @cached_property
    def _layer(self) -> Moments:
        return _moments(self.values, np.arange(self.neurons))

    def window_sums(self, neurons: IntArray) -> tuple[IntArray, FloatArray, FloatArray]:
        """Count, sum and sum of products of `neurons` in each window, about their overall mean.

        Returns:
            Shapes (W,), (W, n) and (W, n, n), for the W windows that hold any position.
        """
        values = self.values[:, neurons].astype(np.float64)
        values -= values.mean(axis=0)
        order = np.argsort(self.windows, kind="stable")
        _, starts = np.unique(self.windows[order], return_index=True)
        parts = np.split(values[order], starts[1:])
        return (
            np.array([len(part) for part in parts]),
            np.array([part.sum(axis=0) for part in parts]),
            np.array([part.T @ part for part in parts]),
        )


def _moments(values: FloatArray, neurons: IntArray) -> Moments:
    count, width = values.shape
    if count == 0:
        nothing = np.zeros(width)
        return Moments(neurons, 0, nothing, np.zeros((width, width)))
    mean = np.asarray(values.mean(axis=0, dtype=np.float64))
    covariance = np.zeros((width, width))
    for start in range(0, count, _BLOCK):
        block = (values[start : start + _BLOCK] - mean).astype(np.float32)
        covariance += block.T @ block
    covariance /= count
    return Moments(neurons, count, mean, covariance)


def _scaled(matrix: FloatArray, scale: FloatArray) -> FloatArray:
    result = matrix * scale
    result *= scale[:, None]
    np.fill_diagonal(result, (scale > 0).astype(float))
    return np.clip(result, -1, 1, out=result)  # duplicates round to just beyond 1
