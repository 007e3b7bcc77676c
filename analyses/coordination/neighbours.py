"""The nearest neighbours of a neuron in its layer: by what it writes, and by when it is active."""

from collections.abc import Sequence

import numpy as np
import polars as pl

from rare_tokens.analyses.result_table import FloatArray

BY_WEIGHT, BY_ACTIVATION = "weight", "activation"
COUNT = 5
_BLOCK = 256  # neurons whose activations are standardised at once

NEIGHBOUR: dict[str, type[pl.DataType]] = {
    "neuron": pl.Int64,
    "kind": pl.String,
    "place": pl.Int64,
    "other_neuron": pl.Int64,
    "similarity": pl.Float64,
}


def neighbours(
    weights: FloatArray, activations: FloatArray, neurons: Sequence[int], count: int = COUNT
) -> pl.DataFrame:
    """The neurons most similar to each of some neurons of a layer, of either sign.

    By weight: cosine similarity of output weights. By activation: Pearson's correlation over positions, to five digits.
    A neuron whose weights are all 0, or whose activation never changes, is nobody's neighbour and has none.

    Args:
        weights: output weights, shape (N, d).
        activations: shape (T, N).
        neurons: whose neighbours are wanted.
        count: how many of each kind.

    Returns:
        Columns `NEIGHBOUR`: `kind` is `weight` or `activation`, `place` 1 the largest |similarity|, ties to the lower
        index.
    """
    chosen = np.asarray(list(neurons), dtype=np.int64)
    found = [pl.DataFrame(schema=NEIGHBOUR)]
    for kind, similarity in (
        (BY_WEIGHT, _cosines(weights, chosen)),
        (BY_ACTIVATION, _correlations(activations, chosen)),
    ):
        found += [_nearest(int(neuron), kind, row, count) for neuron, row in zip(chosen, similarity, strict=True)]
    return pl.concat(found)


def _nearest(neuron: int, kind: str, similarity: FloatArray, count: int) -> pl.DataFrame:
    size = np.abs(similarity)
    size[neuron] = np.nan
    order = np.argsort(-np.nan_to_num(size, nan=-1.0), kind="stable")
    others = [int(other) for other in order[:count] if np.isfinite(size[other])]
    rows = [(neuron, kind, place, other, float(similarity[other])) for place, other in enumerate(others, 1)]
    return pl.DataFrame(rows, schema=NEIGHBOUR, orient="row")


def _cosines(weights: FloatArray, chosen: np.ndarray) -> FloatArray:
    unit = weights.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    return unit[chosen] @ unit.T


def _correlations(activations: FloatArray, chosen: np.ndarray) -> FloatArray:
    """Correlation of the chosen neurons with all, block by block; NaN where one of the two never changes."""
    wanted = _standardised(activations[:, chosen])
    blocks = range(0, activations.shape[1], _BLOCK)
    parts = [wanted @ _standardised(activations[:, first : first + _BLOCK]).T for first in blocks]
    return np.concatenate(parts, axis=1).astype(np.float64) if parts else np.zeros((len(chosen), 0))


def _standardised(values: FloatArray) -> FloatArray:
    """A row per column, with mean 0 and length 1, in float32: five digits of a correlation are enough."""
    rows = np.ascontiguousarray(values.T, dtype=np.float32)
    centred = rows - rows.mean(axis=1, dtype=np.float64, keepdims=True).astype(np.float32)
    centred[rows.min(axis=1) == rows.max(axis=1)] = 0.0  # a rounded mean must not make a constant vary
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(centred / np.sqrt(np.einsum("ij,ij->i", centred, centred))[:, None])
