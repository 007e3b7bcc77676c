"""Coordination of neuron groups in activation and weight space (SPEC 5; ES §3.3, §4.2, tables 1–3).

Each function takes the activations at the chosen positions (or weights) and a group frame, and returns one relation:
a row per group and draw, draw 0 the tested groups, draws 1 … C the random ones. 95 % intervals (bootstrap over
windows) are given for tested groups; of controls they would say nothing that the controls' spread does not.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import polars as pl
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from rare_tokens.analyses.coordination.activations import Activations
from rare_tokens.analyses.coordination.neuron_groups import Stack, comparisons, stacks, used_neurons
from rare_tokens.analyses.coordination.similarity import (
    CHUNK,
    NO_INTERVAL,
    PAIR_MEAN,
    Resampler,
    Similarity,
    interval,
    pair_means,
)
from rare_tokens.analyses.result_table import FloatArray, IntArray, table
from rare_tokens.analyses.statistics import (
    CONTROL,
    GROUP_TEST,
    corrected,
    jackknife_interval,
    mann_whitney,
    window_interval,
)

_INTERVAL: dict[str, Any] = {"low": pl.Float64, "high": pl.Float64, "reason": pl.String}
ACTIVATION_CORRELATION = PAIR_MEAN | {"mean_correlation": pl.Float64} | _INTERVAL
COSINE_SIMILARITY = {"space": pl.String} | PAIR_MEAN | {"mean_cosine": pl.Float64} | _INTERVAL
EFFECTIVE_DIMENSION: dict[str, Any] = {
    "group_name": pl.String,
    "k": pl.Int64,
    "draw": pl.Int64,
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
NEURON_CLUSTER: dict[str, Any] = {
    "group_name": pl.String,
    "k": pl.Int64,
    "draw": pl.Int64,
    "threshold": pl.Float64,  # distance at which the tree is cut
    "positions": pl.Int64,
    "undefined_neurons": pl.Int64,  # constant: in no cluster
    "clusters": pl.Int64,
    "largest_cluster": pl.Int64,  # neurons in it
    "neurons": pl.List(pl.Int64),  # that have a correlation
    "labels": pl.List(pl.Int64),  # the cluster of each, from 1
    "reason": pl.String,
}


def activation_correlation(
    activations: Activations, groups: pl.DataFrame, *, resamples: int = 1_000, seed: int = 0
) -> pl.DataFrame:
    """Mean Pearson correlation within and between groups (ES table 1): relation `activation_correlation`.

    Args:
        activations: T × N at the chosen positions.
        groups: `GROUP`, tested groups and controls.
        resamples: bootstrap samples of an interval (BCa, over windows).
        seed: of the bootstrap.

    Returns:
        `ACTIVATION_CORRELATION`; which pairs a row is over: `similarity.pair_means`. Constant neurons have no
        correlation and make no pair; a row without a pair is NULL with its reason.
    """
    found = stacks(groups)
    moments = activations.moments(used_neurons(found, activations.neurons))
    similarity = Similarity(moments.neurons, moments.correlation, moments.defined)
    rows = pair_means(similarity, found, "mean_correlation", activations.positions)
    rows = _with_intervals(rows, activations, found, similarity, "correlation", resamples=resamples, seed=seed)
    return table(rows, ACTIVATION_CORRELATION)


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
        weights: name of a space (`w_out`, `w_in`) and its vectors, N × d.
        resamples: bootstrap samples of an interval (BCa, over windows; of activations only).
        seed: of the bootstrap.

    Returns:
        `COSINE_SIMILARITY`; which pairs a row is over: `similarity.pair_means`. An all-zero vector has no cosine.
    """
    found = stacks(groups)
    frames = []
    if activations is not None:
        moments = activations.moments(used_neurons(found, activations.neurons))
        similarity = Similarity(moments.neurons, moments.cosine, np.diagonal(moments.cosine) > 0)
        rows = pair_means(similarity, found, "mean_cosine", activations.positions)
        rows = _with_intervals(rows, activations, found, similarity, "cosine", resamples=resamples, seed=seed)
        frames.append(table([{**row, "space": "activation"} for row in rows], COSINE_SIMILARITY))
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
    The number of components takes so few values that most random groups tie and a test of it rejects 0 to 3 of 200
    random groups at 5 %; test `interpolated_dimension`, the same crossing linear between two components.

    Args:
        activations: T × N at the chosen positions.
        groups: `GROUP`, tested groups and controls.
        threshold: τ of eq. 7.
        standardised: each neuron to unit variance first (eigenvalues of the correlations, not of the covariances).
        resamples: bootstrap samples of the participation ratio's interval; that of the components is a jackknife's.
        seed: of the bootstrap.

    Returns:
        `EFFECTIVE_DIMENSION`; NULL with the reason where no neuron of the group varies.
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


def neuron_cluster(
    activations: Activations, groups: pl.DataFrame, *, thresholds: Sequence[float] = (0.5, 5.0)
) -> pl.DataFrame:
    """Ward clusters of each group by D = 1 − |ρ| (ES eq. 9), the tree cut at each threshold: `neuron_cluster`.

    D is no Euclidean distance (it can break the triangle inequality), so Ward's criterion on it is not a variance:
    the heights are those of the Lance–Williams recursion, as scipy and the authors' code compute them. Uncorrelated
    neurons are 1 apart, so a cut at 0.5 (the paper) leaves nearly all of a weakly correlated group alone, and a cut
    at 5 (the code) can join a group of 50 whole.

    Args:
        activations: T × N at the chosen positions.
        groups: `GROUP`, tested groups and controls.
        thresholds: heights at which to cut.

    Returns:
        `NEURON_CLUSTER`, one row per group, draw and threshold.
    """
    found = stacks(groups)
    moments = activations.moments(used_neurons(found, activations.neurons))
    rows: list[dict[str, Any]] = []
    for stack in found:
        for keys, members in stack.each():
            at = moments.rows(members)
            at = at[moments.defined[at]]
            shared = {**keys, "positions": activations.positions}
            if stack.reason is not None or len(at) < 2:
                reason = stack.reason or "fewer than two neurons of the group vary over these positions"
                rows += [{**shared, "threshold": cut, "reason": reason} for cut in thresholds]
                continue
            tree = linkage(squareform(1 - np.abs(moments.correlation[np.ix_(at, at)]), checks=False), "ward")
            for cut in thresholds:
                labels = fcluster(tree, cut, criterion="distance")
                rows.append(
                    {
                        **shared,
                        "threshold": cut,
                        "undefined_neurons": len(members) - len(at),
                        "clusters": int(labels.max()),
                        "largest_cluster": int(np.bincount(labels).max()),
                        "neurons": moments.neurons[at].tolist(),
                        "labels": labels.tolist(),
                    }
                )
    return table(rows, NEURON_CLUSTER)


def pair_tests(
    groups: pl.DataFrame, *, activations: Activations | None = None, weights: dict[str, FloatArray] | None = None
) -> pl.DataFrame:
    """Mann–Whitney of the pairs within a group against those within one random group, as ES §4.2: `group_test`.

    The p is the one that such a paper prints. Pairs share neurons, so they are not exchangeable (the column says so),
    and random groups are found different from random groups far more often than at the level.

    Args:
        groups: `GROUP`, tested groups and controls; the first control of the group's size is the random one.
        activations: T × N at the chosen positions: their correlations.
        weights: name of a space and its vectors, N × d: their cosines.

    Returns:
        `GROUP_TEST`, corrected over the groups of each similarity.
    """
    found = stacks(groups)
    spaces: list[tuple[str, str, str, Similarity]] = []
    if activations is not None:
        moments = activations.moments(used_neurons(found, activations.neurons))
        similarity = Similarity(moments.neurons, moments.correlation, moments.defined)
        spaces.append(("activation_correlation", "mean_correlation", "comparison=within", similarity))
    for space, vectors in (weights or {}).items():
        setting = f"space={space}, comparison=within"
        spaces.append(("cosine_similarity", "mean_cosine", setting, weight_cosine(vectors, found)))
    controls = {stack.k: stack for stack in found if not stack.tested and stack.reason is None}
    rows = []
    for analysis, statistic, setting, similarity in spaces:
        for stack in (stack for stack in found if stack.tested):
            row: dict[str, Any] = {"analysis": analysis, "statistic": statistic, "setting": setting}
            row |= {"group_name": stack.group_name, "k": stack.k, "test": "mann_whitney", "exchangeable": False}
            if stack.reason is not None or stack.k not in controls:
                rows.append({**row, "reason": stack.reason or f"there is no random group of {stack.k}"})
                continue
            names = (f"pairs within {stack.group_name}", f"pairs within {CONTROL} {controls[stack.k].draws[0]}")
            samples = (similarity.pairs(stack.members[0]), similarity.pairs(controls[stack.k].members[0]))
            rows.append(row | mann_whitney(*samples, names, exchangeable=False))
    return corrected(table(rows, GROUP_TEST))


def _with_intervals(
    rows: list[dict[str, Any]],
    activations: Activations,
    found: list[Stack],
    similarity: Similarity,
    kind: str,
    **options: Any,
) -> list[dict[str, Any]]:
    """The rows, those of tested groups (`within` and `groups`) with the interval of their mean."""
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


def _blocks(matrix: FloatArray, members: IntArray) -> Iterable[FloatArray]:
    """The square of `matrix` of each draw, (≤ CHUNK, k, k) at a time."""
    for part in np.array_split(members, -(-len(members) // CHUNK)):
        yield matrix[part[:, :, None], part[:, None, :]]


def _dimensions(blocks: Iterable[FloatArray], threshold: float) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Components that reach the threshold, their interpolation, and participation ratio, of each symmetric matrix.

    All three are 0 of a null matrix.
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

    A resample repeats windows, and samples of fewer different positions have fewer dimensions: the percentiles of a
    bootstrap then lie below the value itself. Of 200 samples of a known Gaussian, the reflected bootstrap covers the
    participation ratio of the population in 187. The number of components stays too biased for that: its interval is
    the jackknife's, of what samples of so many positions give (200 of 200), and they lie below the population's.
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
