"""Correlation of activations within and between groups (ES §3.3, §4.2, table 1)."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from typing import Any

import polars as pl

from rare_tokens.analyses.analysis import ACTIVATIONS, Ask, Tested
from rare_tokens.analyses.coordination.activations import Activations
from rare_tokens.analyses.coordination.neuron_groups import stacks, used_neurons
from rare_tokens.analyses.coordination.of_groups import ES, SIGN_GROUPS, At, of_groups
from rare_tokens.analyses.coordination.pair_tests import pair_tests
from rare_tokens.analyses.coordination.similarity import (
    ACTIVATION,
    INTERVAL,
    MAGNITUDE,
    PAIR_MEAN,
    Similarity,
    pair_means,
    with_intervals,
)
from rare_tokens.analyses.result_table import table

ACTIVATION_CORRELATION = {"space": pl.String} | PAIR_MEAN | {"mean_correlation": pl.Float64} | INTERVAL


def activation_correlation(
    activations: Activations,
    groups: pl.DataFrame,
    *,
    spaces: Sequence[str] = (ACTIVATION,),
    resamples: int = 1_000,
    seed: int = 0,
) -> pl.DataFrame:
    """Mean Pearson correlation within and between groups (ES table 1): relation `activation_correlation`.

    In a gated MLP an activation is act(gate) · up, and the up projection gives it its sign. Activations of neurons
    whose gates open together can correlate with either sign, so that the mean is 0. |activation| ignores the sign.

    Args:
        activations: T × N at the chosen positions.
        groups: `GROUP`, tested groups and controls.
        spaces: `activation` (what ES prints), `abs_activation` (of the absolute values), or both.
        resamples: bootstrap samples per interval (BCa, over windows).
        seed: of the bootstrap.

    Returns:
        `ACTIVATION_CORRELATION`; `similarity.pair_means` says which pairs a row is over. Constant neurons have no
        correlation and make no pair; a row without a pair is NULL, with the reason.
    """
    found = stacks(groups)
    every: list[dict[str, Any]] = []
    for space in spaces:
        values = activations.magnitudes if space == MAGNITUDE else activations
        moments = values.moments(used_neurons(found, values.neurons))
        similarity = Similarity(moments.neurons, moments.correlation, moments.defined)
        rows = pair_means(similarity, found, "mean_correlation", values.positions)
        rows = with_intervals(rows, values, found, similarity, "correlation", resamples=resamples, seed=seed)
        every += [{**row, "space": space} for row in rows]
    return table(every, ACTIVATION_CORRELATION)


def _compute(at: At, own: Mapping[str, Any], _pool: Executor | None) -> pl.DataFrame:
    return activation_correlation(at.activations, at.groups, **own)


def _printed_tests(ask: Ask, preset: str, positions: str, _stored: pl.DataFrame) -> pl.DataFrame:
    """ES §4.2's tests of pairs, for activations and for weights."""
    at = At(ask, preset, positions, SIGN_GROUPS)
    return pair_tests(at.groups, activations=at.activations, weights=at.weights)


ANALYSIS = of_groups(
    "activation_correlation",
    ACTIVATION_CORRELATION,
    _compute,
    reads=(ACTIVATIONS,),
    parameters=ES | {"spaces": [ACTIVATION, MAGNITUDE], "resamples": 1_000, "seed": 0},
    tested=[Tested("mean_correlation", ("space", "comparison"), ("low", "high"))],
    printed_tests=_printed_tests,
)
