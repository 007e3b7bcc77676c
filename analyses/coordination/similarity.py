"""Mean similarity of pairs within and between groups: what tables 1 and 3 of ES have in common."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from rare_tokens.analyses.coordination.activations import Activations
from rare_tokens.analyses.coordination.neuron_groups import Stack, comparisons
from rare_tokens.analyses.result_table import BoolArray, FloatArray, IntArray
from rare_tokens.analyses.statistics import window_interval

ACTIVATION, MAGNITUDE = "activation", "abs_activation"  # spaces: the activations, and their absolute values
CHUNK = 1_000  # draws gathered at once: 20 MB of 50 × 50 matrices
NO_PAIR = "no pair of neurons has a value"
NO_INTERVAL = "no interval: fewer than two windows, or a value that resampling does not move"

PAIR_MEAN: dict[str, Any] = {
    "group_name": pl.String,
    "k": pl.Int64,
    "draw": pl.Int64,
    "pool": pl.String,  # of the random groups: `disjoint` or `layer`
    "comparison": pl.String,  # `within` a group, between two `groups` of a kind, or a group with all `random` ones
    "other_group": pl.String,
    "other_k": pl.Int64,
    "other_draw": pl.Int64,  # NULL for `random`: the mean is over all draws
    "positions": pl.Int64,
    "pairs": pl.Int64,  # pairs of neurons that have a value
    "undefined_neurons": pl.Int64,  # of the group: constant, or all zero
}


@dataclass(frozen=True)
class Similarity:
    """Pairwise similarities of the neurons that some groups use.

    Attributes:
        neurons: indices, ascending, shape (n,).
        matrix: shape (n, n); rows and columns of undefined neurons are 0, and the diagonal 1 elsewhere.
        defined: which neurons have a similarity, shape (n,).
    """

    neurons: IntArray
    matrix: FloatArray
    defined: BoolArray

    def rows(self, members: IntArray) -> IntArray:
        """The places of `members` (any shape) in the matrix."""
        return np.searchsorted(self.neurons, members)

    def pairs(self, members: IntArray) -> FloatArray:
        """Similarities of one group's defined pairs, shape (m·(m − 1)/2,)."""
        rows = self.rows(members)
        rows = rows[self.defined[rows]]
        return self.matrix[np.ix_(rows, rows)][np.triu_indices(len(rows), 1)]


class Resampler:
    """Second moments of a few neurons when windows are resampled."""

    def __init__(self, activations: Activations, neurons: IntArray) -> None:
        self.counts, self.sums, self.products = activations.window_sums(neurons)
        self.mean = activations.values[:, neurons].mean(axis=0, dtype=np.float64)
        self.windows = len(self.counts)

    def covariance(self, counts: FloatArray) -> FloatArray:
        """Covariances where window w counts `counts[:, w]` times: (batch, W) to (batch, n, n)."""
        return self._moments(counts)[1]

    def correlation(self, counts: FloatArray) -> FloatArray:
        """Correlations, as `covariance`; NaN for a neuron that does not vary in the sample."""
        return _normalised(self._moments(counts)[1])

    def cosine(self, counts: FloatArray) -> FloatArray:
        """Cosine similarities of the traces, as `covariance`."""
        mean, covariance = self._moments(counts)
        mean = mean + self.mean
        return _normalised(covariance + mean[:, :, None] * mean[:, None, :])

    def _moments(self, counts: FloatArray) -> tuple[FloatArray, FloatArray]:
        total = counts @ self.counts
        mean = counts @ self.sums / total[:, None]
        flat = counts @ self.products.reshape(self.windows, -1) / total[:, None]
        return mean, flat.reshape(len(counts), *self.products.shape[1:]) - mean[:, :, None] * mean[:, None, :]


def pair_means(similarity: Similarity, found: list[Stack], value: str, positions: int | None) -> list[dict[str, Any]]:
    """Mean similarity over the pairs of two different neurons, for every group and every comparison.

    Besides `neuron_groups.comparisons` there is `random`: a tested group with all its controls together (B–R, S–R), and
    each control with all others, against which B–R is tested. A neuron in both groups makes no pair with itself.

    Args:
        similarity: similarities of all neurons in `found`.
        found: the groups.
        value: name of the column for the mean.
        positions: value of the column of that name; NULL for weights.

    Returns:
        Rows of `PAIR_MEAN`, `value` and `reason`.
    """
    formed = [stack for stack in found if stack.reason is None]
    controls = {stack.k: stack for stack in formed if not stack.tested}
    rows: list[dict[str, Any]] = [
        {**keys, "comparison": "within", "other_group": stack.group_name, "reason": stack.reason}
        for stack in found
        if stack.reason is not None
        for keys, _ in stack.each()
    ]
    for comparison, stack, other in comparisons(found):
        within = comparison == "within"
        sums = _within(similarity, stack.members) if within else _between(similarity, stack, other)
        rows += _rows(similarity, stack, other, comparison, value, *sums)
    for stack in formed:
        if stack.k in controls:
            sums = _with_controls(similarity, stack, controls[stack.k])
            rows += _rows(similarity, stack, controls[stack.k], "random", value, *sums)
    return [{**row, "positions": positions} for row in rows]


def interval(
    resample: Callable[[FloatArray], FloatArray],
    windows: int,
    first: IntArray,
    second: IntArray | None,
    **options: Any,
) -> dict[str, Any]:
    """Columns `low` and `high`: the bootstrap interval of a mean over pairs.

    Args:
        resample: turns (batch, W) counts of windows into (batch, n, n) similarities.
        windows: W.
        first: the group's rows.
        second: the other group's rows; None: the pairs within the first.
        options: for `window_interval`.
    """
    other = first if second is None else second

    def mean(counts: FloatArray) -> FloatArray:
        block = resample(counts)[:, first[:, None], other[None, :]]
        block = block[:, first[:, None] != other[None, :]]
        known = np.isfinite(block)
        with np.errstate(invalid="ignore"):
            return np.where(known, block, 0.0).sum(axis=1) / known.sum(axis=1)

    size = (max(first.max(), other.max()) + 1) ** 2
    limits = window_interval(mean, windows, size=int(size), **options)
    if limits is None:
        return {"reason": NO_INTERVAL}
    return {"low": limits[0], "high": limits[1]}


def _normalised(products: FloatArray) -> FloatArray:
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = 1 / np.sqrt(np.diagonal(products, axis1=1, axis2=2))
        scale = np.where(np.isfinite(scale), scale, np.nan)
        return products * scale[:, :, None] * scale[:, None, :]


def _rows(
    similarity: Similarity, stack: Stack, other: Stack, comparison: str, value: str, sums: FloatArray, pairs: IntArray
) -> list[dict[str, Any]]:
    undefined = (~similarity.defined[similarity.rows(stack.members)]).sum(axis=1)
    rows = []
    for i, (keys, _) in enumerate(stack.each()):
        count = int(pairs[i])
        rows.append(
            {
                **keys,
                "comparison": comparison,
                "other_group": other.group_name,
                "other_k": other.k,
                "other_draw": None if comparison == "random" else int(other.draws[i]),
                "pairs": count,
                "undefined_neurons": int(undefined[i]),
                value: float(sums[i]) / count if count else None,
                "reason": None if count else NO_PAIR,
            }
        )
    return rows


def _within(similarity: Similarity, members: IntArray) -> tuple[FloatArray, IntArray]:
    """Each draw's sum over unordered pairs, and their number."""
    rows = similarity.rows(members)
    counts = similarity.defined[rows].sum(axis=1)
    sums = np.concatenate(
        [
            similarity.matrix[part[:, :, None], part[:, None, :]].sum(axis=(1, 2))
            for part in np.array_split(rows, -(-len(rows) // CHUNK))
        ]
    )
    return (sums - counts) / 2, counts * (counts - 1) // 2


def _between(similarity: Similarity, stack: Stack, other: Stack) -> tuple[FloatArray, IntArray]:
    first, second = similarity.rows(stack.members), similarity.rows(other.members)
    sums, pairs = np.zeros(len(first)), np.zeros(len(first), dtype=np.int64)
    for i, (a, b) in enumerate(zip(first, second, strict=True)):
        shared = similarity.defined[np.intersect1d(a, b, assume_unique=True)].sum()
        sums[i] = similarity.matrix[np.ix_(a, b)].sum() - shared  # a neuron is 1 with itself
        pairs[i] = similarity.defined[a].sum() * similarity.defined[b].sum() - shared
    return sums, pairs


def _with_controls(similarity: Similarity, stack: Stack, controls: Stack) -> tuple[FloatArray, IntArray]:
    """Each draw of `stack` paired with every control, or each control with every other one.

    With n_i the number of controls that neuron i is in, the sum over all pairs of a group with all controls is
    Σ_{i∈group} (S n)_i: one matrix-vector product for all groups.
    """
    held = np.bincount(similarity.rows(controls.members).ravel(), minlength=len(similarity.neurons))
    held = held * similarity.defined
    rows = similarity.rows(stack.members)
    sums = (similarity.matrix @ held)[rows].sum(axis=1) - held[rows].sum(axis=1)
    counts = similarity.defined[rows].sum(axis=1)
    pairs = counts * held.sum() - held[rows].sum(axis=1)
    if not stack.tested:  # leave out the pairs of a control with itself
        inside, inner_pairs = _within(similarity, stack.members)
        sums, pairs = sums - 2 * inside, pairs - 2 * inner_pairs
    return sums, pairs


INTERVAL: dict[str, Any] = {"low": pl.Float64, "high": pl.Float64, "reason": pl.String}


def with_intervals(
    rows: list[dict[str, Any]],
    activations: Activations,
    found: list[Stack],
    similarity: Similarity,
    kind: str,
    **options: Any,
) -> list[dict[str, Any]]:
    """The rows; those of tested groups (`within` and `groups`) get the interval of their mean."""
    limits: dict[tuple[Any, ...], dict[str, Any]] = {}
    for comparison, first, second in comparisons(found):
        if not first.tested:
            continue
        within = comparison == "within"
        members = np.union1d(first.members[0], second.members[0])
        known = members[similarity.defined[similarity.rows(members)]]
        if len(known) < 2:
            continue
        resampler = Resampler(activations, known)
        at = [np.searchsorted(known, np.intersect1d(known, side.members[0])) for side in (first, second)]
        limits[first.group_name, first.k, second.group_name, second.k] = interval(
            getattr(resampler, kind), resampler.windows, at[0], None if within else at[1], **options
        )
    for row in rows:
        key = (row["group_name"], row["k"], row["other_group"], row.get("other_k"))
        if row["comparison"] != "random" and row.get("pairs") and key in limits:
            row.update(limits[key])
    return rows
