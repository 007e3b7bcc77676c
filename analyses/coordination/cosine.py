"""Cosine similarity of activations and of weight vectors (ES eq. 8, table 3)."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl

from rare_tokens.analyses.analysis import ACTIVATIONS, Tested
from rare_tokens.analyses.coordination.activations import Activations
from rare_tokens.analyses.coordination.neuron_groups import Stack, stacks, used_neurons
from rare_tokens.analyses.coordination.of_groups import ES, WHOLE_LAYER, At, of_groups
from rare_tokens.analyses.coordination.similarity import (
    ACTIVATION,
    INTERVAL,
    PAIR_MEAN,
    Similarity,
    pair_means,
    with_intervals,
)
from rare_tokens.analyses.result_table import FloatArray, table

COSINE_SIMILARITY = {"space": pl.String} | PAIR_MEAN | {"mean_cosine": pl.Float64} | INTERVAL


def cosine_similarity(
    groups: pl.DataFrame,
    *,
    activations: Activations | None = None,
    weights: dict[str, FloatArray] | None = None,
    resamples: int = 1_000,
    seed: int = 0,
) -> pl.DataFrame:
    """Mean cosine similarity of activation traces (ES eq. 8) and weight vectors (ES table 3): `cosine_similarity`.

    Args:
        groups: `GROUP`, tested groups and controls.
        activations: T × N at the chosen positions: space `activation`.
        weights: name of a space and its vectors, N × d: `w_out`, `w_in` (in a gated MLP the gate's rows), and `w_up`.
        resamples: bootstrap samples per interval (BCa, over windows; for activations only).
        seed: of the bootstrap.

    Returns:
        `COSINE_SIMILARITY`; `similarity.pair_means` says which pairs a row is over. An all-zero vector has no cosine.
    """
    found = stacks(groups)
    frames = []
    if activations is not None:
        moments = activations.moments(used_neurons(found, activations.neurons))
        similarity = Similarity(moments.neurons, moments.cosine, np.diagonal(moments.cosine) > 0)
        rows = pair_means(similarity, found, "mean_cosine", activations.positions)
        rows = with_intervals(rows, activations, found, similarity, "cosine", resamples=resamples, seed=seed)
        frames.append(table([{**row, "space": ACTIVATION} for row in rows], COSINE_SIMILARITY))
    for space, vectors in (weights or {}).items():
        rows = pair_means(weight_cosine(vectors, found), found, "mean_cosine", None)
        frames.append(table([{**row, "space": space} for row in rows], COSINE_SIMILARITY))
    return pl.concat(frames) if frames else table([], COSINE_SIMILARITY)


def weight_cosine(vectors: FloatArray, found: Sequence[Stack]) -> Similarity:
    """Cosine similarities of the weight vectors (N × d) of all neurons in the groups."""
    neurons = used_neurons(list(found), len(vectors))
    rows = vectors[neurons].astype(np.float64)
    norm = np.linalg.norm(rows, axis=1)
    defined = np.isfinite(norm) & (norm > 0)
    rows = np.where(defined[:, None], rows / np.where(defined, norm, 1.0)[:, None], 0.0)
    matrix = rows @ rows.T
    np.fill_diagonal(matrix, defined.astype(float))
    return Similarity(neurons, matrix, defined)


def _compute(at: At, own: Mapping[str, Any], _pool: Executor | None) -> pl.DataFrame:
    options = {name: own[name] for name in ("resamples", "seed")}
    of_activations = replace(at, pool=own["activation_pool"]).groups
    return pl.concat(
        [
            cosine_similarity(of_activations, activations=at.activations, **options),
            cosine_similarity(at.groups, weights=at.vectors(*own["weights"]), **options),
        ]
    )


ANALYSIS = of_groups(
    "cosine_similarity",
    COSINE_SIMILARITY,
    _compute,
    reads=(ACTIVATIONS, "neuron_weight"),
    parameters=ES
    | {"activation_pool": WHOLE_LAYER, "weights": ["w_out", "w_in", "w_up"], "resamples": 1_000, "seed": 0},
    tested=[Tested("mean_cosine", ("space", "comparison"), ("low", "high"))],
)
