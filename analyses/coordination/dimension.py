"""Effective dimension of a group's activations: principal components and participation ratio (ES eq. 7, table 2)."""

import math
from collections.abc import Iterable, Mapping
from concurrent.futures import Executor
from typing import Any

import numpy as np
import polars as pl

from rare_tokens.analyses.analysis import ACTIVATIONS, Tested
from rare_tokens.analyses.coordination.activations import Activations
from rare_tokens.analyses.coordination.neuron_groups import stacks, used_neurons
from rare_tokens.analyses.coordination.of_groups import ES, WHOLE_LAYER, At, of_groups
from rare_tokens.analyses.coordination.similarity import CHUNK, NO_INTERVAL, Resampler
from rare_tokens.analyses.result_table import FloatArray, IntArray, table
from rare_tokens.analyses.statistics import jackknife_interval, window_interval

EFFECTIVE_DIMENSION: dict[str, Any] = {
    "group_name": pl.String,
    "k": pl.Int64,
    "draw": pl.Int64,
    "pool": pl.String,  # of the random groups: `disjoint` or `layer`
    "standardised": pl.Boolean,
    "threshold": pl.Float64,  # τ, share of the variance
    "positions": pl.Int64,
    "undefined_neurons": pl.Int64,  # constant: they add no variance, but count in the group's size
    "dimension": pl.Int64,  # principal components that reach τ (eq. 7)
    "interpolated_dimension": pl.Float64,  # where the cumulative share crosses τ: what tests should compare
    "dimension_percent": pl.Float64,  # of k
    "dimension_percent_low": pl.Float64,
    "dimension_percent_high": pl.Float64,
    "participation_ratio": pl.Float64,  # (Σλ)² / Σλ²
    "participation_percent": pl.Float64,  # of k
    "participation_percent_low": pl.Float64,
    "participation_percent_high": pl.Float64,
    "reason": pl.String,
}


def effective_dimension(
    activations: Activations,
    groups: pl.DataFrame,
    *,
    threshold: float = 0.95,
    standardised: bool = True,
    resamples: int = 1_000,
    seed: int = 0,
) -> pl.DataFrame:
    """Effective dimension of each group's activations, by both definitions: relation `effective_dimension`.

    The smallest number of principal components that reach `threshold` of the variance (ES eq. 7), and the
    participation ratio (Σλ)² / Σλ², which A.1 of ES says that its table 2 prints; both also as % of the group's size.
    The number of components takes so few values that most random groups tie, and a test of it rejects 0 to 3 of 200
    random groups at 5 %. Test `interpolated_dimension` instead, which interpolates linearly between two components.

    Args:
        activations: T × N at the chosen positions.
        groups: `GROUP`, tested groups and controls.
        threshold: τ of eq. 7.
        standardised: scale each neuron to unit variance first (eigenvalues of correlations, not covariances).
        resamples: bootstrap samples for the participation ratio's interval; the components' is a jackknife interval.
        seed: of the bootstrap.

    Returns:
        `EFFECTIVE_DIMENSION`; NULL with the reason if no neuron of the group varies.
    """
    found = stacks(groups)
    moments = activations.moments(used_neurons(found, activations.neurons))
    known = np.where(moments.defined[:, None] & moments.defined, moments.covariance, 0.0)
    matrix = moments.correlation if standardised else known
    shared = {"standardised": standardised, "threshold": threshold, "positions": activations.positions}
    rows: list[dict[str, Any]] = []
    for stack in found:
        if stack.reason is not None:
            rows += [{**keys, **shared, "reason": stack.reason} for keys, _ in stack.each()]
            continue
        members = moments.rows(stack.members)
        undefined = (~moments.defined[members]).sum(axis=1).tolist()
        dimension, crossing, participation = _dimensions(_blocks(matrix, members), threshold)
        for i, (keys, chosen) in enumerate(stack.each()):
            row = {**keys, **shared, "undefined_neurons": undefined[i]}
            if dimension[i] == 0:
                rows.append({**row, "reason": "no neuron of the group varies over these positions"})
                continue
            row |= {"dimension": int(dimension[i]), "interpolated_dimension": crossing[i]}
            row |= {"dimension_percent": 100 * dimension[i] / stack.k}
            row |= {"participation_ratio": participation[i], "participation_percent": 100 * participation[i] / stack.k}
            if stack.tested:
                row |= _dimension_intervals(
                    activations, chosen[moments.defined[members[i]]], stack.k, threshold, standardised,
                    resamples=resamples, seed=seed,
                )  # fmt: skip
            rows.append(row)
    return table(rows, EFFECTIVE_DIMENSION)


def _blocks(matrix: FloatArray, members: IntArray) -> Iterable[FloatArray]:
    """Each draw's square block of `matrix`, (≤ CHUNK, k, k) at a time."""
    for part in np.array_split(members, -(-len(members) // CHUNK)):
        yield matrix[part[:, :, None], part[:, None, :]]


def _dimensions(blocks: Iterable[FloatArray], threshold: float) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Components that reach the threshold, their interpolation, and the participation ratio of each symmetric matrix.

    All three are 0 for a null matrix.
    """
    dimensions, crossings, ratios = [], [], []
    for block in blocks:
        eigenvalues = np.clip(np.linalg.eigvalsh(block)[:, ::-1], 0, None)
        total = eigenvalues.sum(axis=1, keepdims=True)
        varies = total[:, 0] > 0
        shares = eigenvalues / np.where(total > 0, total, 1.0)
        cumulative = np.cumsum(shares, axis=1)
        last = np.argmax(cumulative >= threshold - 1e-9, axis=1)[:, None]  # 19 equal of 20 do reach 0.95
        reached, step = (np.take_along_axis(array, last, axis=1)[:, 0] for array in (cumulative, shares))
        beyond = np.divide(reached - threshold, step, out=np.zeros_like(step), where=step > 0)
        dimensions.append(np.where(varies, last[:, 0] + 1, 0))
        crossings.append(np.where(varies, last[:, 0] + 1 - np.clip(beyond, 0, 1), 0.0))
        ratios.append(np.where(varies, 1 / np.maximum((shares**2).sum(axis=1), 1e-300), 0.0))
    return np.concatenate(dimensions), np.concatenate(crossings), np.concatenate(ratios)


def _dimension_intervals(
    activations: Activations,
    neurons: np.ndarray[Any, Any],
    k: int,
    threshold: float,
    standardised: bool,
    **options: Any,
) -> dict[str, Any]:
    """Intervals of both dimensions over windows.

    A resample repeats windows, and samples with fewer distinct positions have fewer dimensions, so a bootstrap's
    percentiles lie below the value itself. The reflected bootstrap covers the population's participation ratio in 187
    of 200 samples of a known Gaussian. The number of components is too biased for that: its interval is a jackknife's,
    about what samples of so many positions give (200 of 200), and these lie below the population's.
    """
    resampler = Resampler(activations, neurons)

    def dimensions(counts: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        matrices = resampler.correlation(counts) if standardised else resampler.covariance(counts)
        return _dimensions([np.where(np.isfinite(matrices), matrices, 0.0)], threshold)

    components = jackknife_interval(lambda counts: dimensions(counts)[1], resampler.windows)
    ratio = window_interval(
        lambda counts: dimensions(counts)[2], resampler.windows, method="basic", size=len(neurons) ** 2, **options
    )
    limits: dict[str, Any] = {"reason": NO_INTERVAL} if components is None or ratio is None else {}
    if components is not None:
        low, high = (100 / k * min(max(1, math.ceil(end - 1e-9)), len(neurons)) for end in components)
        limits |= {"dimension_percent_low": low, "dimension_percent_high": high}
    if ratio is not None:
        low, high = (100 / k * min(max(1.0, end), len(neurons)) for end in ratio)
        limits |= {"participation_percent_low": low, "participation_percent_high": high}
    return limits


def _compute(at: At, own: Mapping[str, Any], _pool: Executor | None) -> pl.DataFrame:
    return effective_dimension(at.activations, at.groups, **own)


ANALYSIS = of_groups(
    "effective_dimension",
    EFFECTIVE_DIMENSION,
    _compute,
    reads=(ACTIVATIONS,),
    parameters=ES | {"pool": WHOLE_LAYER, "threshold": 0.95, "standardised": True, "resamples": 1_000, "seed": 0},
    tested=[
        Tested("interpolated_dimension", ("standardised", "threshold")),
        Tested(
            "participation_percent",
            ("standardised", "threshold"),
            ("participation_percent_low", "participation_percent_high"),
        ),
    ],
)
