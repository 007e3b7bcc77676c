"""How much more a neuron matters at rare positions than at common ones of the same loss, as it is and under the null.

    C_i = ln mean_rare |Δ_i| − ln Σ_k q_k mean_{common, k} |Δ_i|

with strata k of the baseline loss and q_k the rare positions' share in each. Neurons come in blocks, so that the facts
of a run are never in memory at once.
"""

from dataclasses import dataclass

import numpy as np

from rare_tokens.analyses.result_table import FloatArray, IntArray
from rare_tokens.analyses.specificity.strata import Strata, permuted_labels


@dataclass(frozen=True)
class Contrasts:
    """C of N neurons; not finite where a mean is 0.

    Attributes:
        own: with the labels as they are, shape (N,).
        resampled: in bootstrap samples of windows, shape (N, draws); no columns with a single window.
        permuted: with labels permuted, shape (N, B), float32.
    """

    own: FloatArray
    resampled: FloatArray
    permuted: FloatArray


class Contrasting:
    """The contrasts of one set of rare and common positions, block of neurons after block."""

    def __init__(self, found: Strata, *, draws: int, permutations: int, seed: int):
        """Draw the samples of windows and the permutations, the same for every block.

        Args:
            found: the positions; without a `reason`.
            draws: bootstrap samples of windows.
            permutations: B.
            seed: of both.
        """
        self.found = found
        self._places, self._labels = permuted_labels(found, permutations, seed)
        rng = np.random.default_rng(seed)
        windows = found.windows
        self._weights = rng.multinomial(windows, np.full(windows, 1 / windows), size=draws if windows > 1 else 0)
        self._sides = [_Side.of(found, rare=rare) for rare in (True, False)]
        self._blocks: list[Contrasts] = []

    @property
    def permuted_positions(self) -> int:
        """Positions that a permutation may change."""
        return len(self._places)

    def add(self, magnitude: FloatArray) -> None:
        """Take the next block of neurons.

        Args:
            magnitude: |Δ|, nats, at all positions that the strata were made from, shape (n, P).
        """
        values = magnitude[:, self.found.chosen]
        rare, common = (side.sums(values) for side in self._sides)  # (n, K, W)
        with np.errstate(divide="ignore", invalid="ignore"):
            own = self._contrast(rare, common, np.ones((1, self.found.windows)))[:, 0]
            resampled = self._contrast(rare, common, self._weights.astype(float))
            permuted = self._permuted(values, rare.sum(axis=2), common.sum(axis=2))
        self._blocks.append(Contrasts(own, resampled, permuted))

    def result(self) -> Contrasts:
        """All neurons so far."""
        return Contrasts(
            *(np.concatenate([getattr(one, name) for one in self._blocks]) for name in ("own", "resampled", "permuted"))
        )

    def _contrast(self, rare: FloatArray, common: FloatArray, weights: FloatArray) -> FloatArray:
        """C with windows weighted, shape (n, samples), from sums by stratum and window and weights (samples, W)."""
        rare_n, common_n = (side.positions @ weights.T for side in self._sides)  # (K, samples)
        share = rare_n / rare_n.sum(axis=0)
        each = np.divide(share, common_n, out=np.zeros_like(share), where=share > 0)  # a sample may lack a stratum
        expected = sum(each[k] * (common[:, k] @ weights.T) for k in range(len(each)))
        return np.asarray(np.log(rare.sum(axis=1) @ weights.T / rare_n.sum(axis=0)) - np.log(expected))

    def _permuted(self, values: FloatArray, rare: FloatArray, common: FloatArray) -> FloatArray:
        """C in every permutation, shape (n, B), float32, from |Δ| and its sums by stratum, (n, K).

        The number of rare and of common positions in a stratum stays as it is, so only sums over the mixed cells have
        to be taken again; what leaves the rare ones joins the common ones.
        """
        found = self.found
        of_mixed, stratum = found.is_rare[self._places], found.stratum[self._places]
        total = np.repeat(rare.sum(axis=1, keepdims=True), self._labels.shape[1], axis=1)
        expected = np.repeat((common @ (found.weight / found.common))[:, None], self._labels.shape[1], axis=1)
        for k, weight in enumerate(found.weight / found.common):
            rows = np.flatnonzero(stratum == k)
            if not len(rows):
                continue
            of_stratum = values[:, self._places[rows]].astype(np.float32)
            drawn = (of_stratum @ self._labels[rows].astype(np.float32)).astype(float)
            moved = drawn - of_stratum[:, of_mixed[rows]].sum(axis=1, dtype=float)[:, None]
            total += moved
            expected -= weight * moved
        return (np.log(total / found.rare) - np.log(expected)).astype(np.float32)


@dataclass(frozen=True)
class _Side:
    """The rare or the common positions.

    Attributes:
        order: places of its positions, shape (n,), ordered by cell.
        starts: where each cell begins in `order`, shape (cells,).
        cell: stratum and window of each cell, shape (2, cells).
        positions: their number by stratum and window, shape (K, W).
    """

    order: IntArray
    starts: IntArray
    cell: IntArray
    positions: FloatArray

    @classmethod
    def of(cls, found: Strata, *, rare: bool) -> "_Side":
        order = np.flatnonzero(found.is_rare == rare)
        keys = found.stratum[order] * found.windows + found.window[order]
        cells, starts, counts = np.unique(keys, return_index=True, return_counts=True)
        cell = np.array(np.divmod(cells, found.windows))
        positions = np.zeros((len(found.weight), found.windows))
        positions[cell[0], cell[1]] = counts
        return cls(order, starts, cell, positions)

    def sums(self, values: FloatArray) -> FloatArray:
        """Sums of the values (n, T) by stratum and window, shape (n, K, W)."""
        found = np.zeros((len(values), *self.positions.shape))
        found[:, self.cell[0], self.cell[1]] = np.add.reduceat(values[:, self.order].astype(float), self.starts, axis=1)
        return found
