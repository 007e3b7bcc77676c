"""Rare and common positions of like difficulty: strata of the unablated loss, and cells within which labels may change.

Rare targets are predicted worse, and every neuron moves a badly predicted target more. So rare positions are set beside
common ones of the same baseline loss, and a label may change places only with one in the same window and stratum.
"""

from dataclasses import dataclass

import numpy as np

from rare_tokens.analyses.result_table import BoolArray, FloatArray, IntArray

STRATA = 10  # deciles of the rare positions' loss
NO_RARE, NO_COMMON = "no rare position", "no common position"
NO_MIXED = "no window has a rare and a common position of like loss: there is no label to permute"


@dataclass(frozen=True)
class Strata:
    """Positions of two token groups, in order of their cell: the stratum first, then the window.

    Attributes:
        chosen: which of the given positions, in this order, shape (T,).
        is_rare: of each, shape (T,).
        stratum: of each, counted over the strata that hold a rare position, shape (T,).
        window: of each, counted over the windows that hold a position, shape (T,).
        weight: q_k, share of the rare positions in each stratum, shape (K,).
        common: number of common positions in each stratum, shape (K,).
        reason: why rare and common cannot be compared; None: they can.
    """

    chosen: IntArray
    is_rare: BoolArray
    stratum: IntArray
    window: IntArray
    weight: FloatArray
    common: IntArray
    reason: str | None

    @property
    def windows(self) -> int:
        """W, windows that hold a position."""
        return int(self.window.max()) + 1 if len(self.window) else 0

    @property
    def rare(self) -> int:
        """Number of rare positions."""
        return int(self.is_rare.sum())

    def cells(self) -> list[slice]:
        """The places of each cell, in order."""
        ends = np.flatnonzero(np.diff(self.stratum) | np.diff(self.window)) + 1
        return [slice(a, b) for a, b in zip([0, *ends], [*ends, len(self.stratum)], strict=True)]

    def mixed(self) -> BoolArray:
        """Which positions are in a cell with rare and common ones, so that a permutation may change them: (T,)."""
        found = np.zeros(len(self.is_rare), dtype=bool)
        for cell in self.cells():
            found[cell] = 0 < self.is_rare[cell].sum() < cell.stop - cell.start
        return found


def strata(loss: FloatArray, window: IntArray, rare: BoolArray, common: BoolArray) -> Strata:
    """Cut two token groups by the deciles of the rare positions' baseline loss.

    A stratum is from one decile up to, not including, the next; the first and the last are open. Strata without a rare
    position, which equal losses make, are left out with the common positions in them.

    Args:
        loss: of the unablated prediction, nats, shape (P,).
        window: of each position, shape (P,).
        rare: the rare positions, shape (P,).
        common: the common ones, shape (P,).
    """
    if not rare.any() or not common.any():
        none = np.zeros(0, dtype=int)
        return Strata(none, none > 0, none, none, np.zeros(0), none, NO_COMMON if rare.any() else NO_RARE)
    edges = np.quantile(loss[rare], np.arange(1, STRATA) / STRATA)
    stratum = np.searchsorted(edges, loss, side="right")
    held, place = np.unique(stratum[rare], return_inverse=True)
    of_held = np.full(STRATA, -1)
    of_held[held] = np.arange(len(held))
    chosen = np.flatnonzero((rare | common) & (of_held[stratum] >= 0))
    chosen = chosen[np.lexsort((window[chosen], stratum[chosen]))]
    is_rare, stratum = rare[chosen], of_held[stratum[chosen]]
    counts = np.bincount(stratum[~is_rare], minlength=len(held))
    reason = None
    if (counts == 0).any():
        reason = f"no common position has {_between(edges, int(held[np.argmin(counts)]))} nats, as rare ones have"
    _, of_window = np.unique(window[chosen], return_inverse=True)
    return Strata(chosen, is_rare, stratum, of_window, np.bincount(place) / len(place), counts, reason)


def _between(edges: FloatArray, stratum: int) -> str:
    """The bounds of a stratum in words."""
    if stratum == 0:
        return f"a loss below {edges[0]:.2f}"
    if stratum == len(edges):
        return f"a loss of {edges[-1]:.2f} or more"
    return f"a loss from {edges[stratum - 1]:.2f} to {edges[stratum]:.2f}"


def permuted_labels(found: Strata, permutations: int, seed: int) -> tuple[IntArray, np.ndarray]:
    """Rare labels permuted within each cell.

    Args:
        found: the positions.
        permutations: B.
        seed: of the permutations.

    Returns:
        The places of the positions in mixed cells, shape (M,), and which of them are rare in each permutation, 0 or 1,
        shape (M, B), uint8. The rare positions of a cell are as many in each as they are.
    """
    rng = np.random.default_rng(seed)
    places = np.flatnonzero(found.mixed())
    labels = np.empty((len(places), permutations), dtype=np.uint8)
    done = 0
    for cell in found.cells():
        of_cell = found.is_rare[cell].astype(np.uint8)
        if 0 < of_cell.sum() < len(of_cell):
            labels[done : done + len(of_cell)] = rng.permuted(np.repeat(of_cell[:, None], permutations, axis=1), axis=0)
            done += len(of_cell)
    return places, labels
