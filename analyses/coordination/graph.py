"""The signed correlation graph of a group and how well it divides into communities (NC §2–3, A.1–A.4).

igraph and leidenalg are never given negative weights, which they mishandle: Louvain gets |w|, and Leiden one layer of
positive and one of negative edges, each with positive weights. (leidenalg answers a negative weight with a
`BaseException`, `Graph.community_leiden("modularity")` silently with a wrong result.)
"""

import random
from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import igraph
import leidenalg
import numpy as np
import polars as pl
from scipy.cluster.vq import ClusterError, kmeans2
from scipy.sparse.csgraph import connected_components

from rare_tokens.analyses.analysis import ACTIVATIONS, Ask, Tested
from rare_tokens.analyses.coordination.activations import Activations
from rare_tokens.analyses.coordination.neuron_groups import stacks, used_neurons
from rare_tokens.analyses.coordination.of_groups import NC, At, of_groups
from rare_tokens.analyses.coordination.similarity import NO_INTERVAL, Resampler
from rare_tokens.analyses.result_table import FloatArray, IntArray, joined, table
from rare_tokens.analyses.statistics import CONTROL, GROUP_TEST, corrected, mann_whitney, window_interval

GRAPH_MODULARITY: dict[str, Any] = {
    "group_name": pl.String,
    "k": pl.Int64,
    "draw": pl.Int64,
    "pool": pl.String,  # of the random groups: `disjoint` or `layer`
    "method": pl.String,  # `louvain` on |w|, `leiden` on the signed graph, `spectral` on |w|
    "communities_asked": pl.Int64,  # for spectral clustering; NULL for the others
    "threshold": pl.Float64,  # edges are |correlation| above it
    "positions": pl.Int64,
    "undefined_neurons": pl.Int64,  # constant: isolated
    "edges": pl.Int64,
    "negative_edges": pl.Int64,
    "isolated": pl.Int64,  # neurons without an edge; in no community
    "components": pl.Int64,  # connected components of the others
    "runs": pl.Int64,  # seeds of Louvain and Leiden, starts of k-means
    "modularity": pl.Float64,  # NC eq. 6 on |w|, for the best partition
    "signed_modularity": pl.Float64,  # NC eq. 7, for the same partition
    "communities": pl.Int64,  # in the same partition
    "signed_modularity_low": pl.Float64,
    "signed_modularity_high": pl.Float64,
    "signed_modularity_mean": pl.Float64,  # over the runs
    "signed_modularity_sd": pl.Float64,
    "communities_mean": pl.Float64,
    "communities_sd": pl.Float64,
    "run_signed_modularity": pl.List(pl.Float64),
    "neurons": pl.List(pl.Int64),  # those that have an edge
    "labels": pl.List(pl.Int64),  # the community of each in the best partition, from 1
    "reason": pl.String,
}


@dataclass(frozen=True)
class GraphOptions:
    """How to look for communities.

    Attributes:
        threshold: edges are pairs with |correlation| above it (NC A.1).
        louvain_runs: seeds of Louvain (NC A.2: 100).
        leiden_runs: starts of Leiden: each neuron alone, then random memberships. The best of 20 is the optimum for
            all of 450 random signed graphs of 5 to 8 nodes; the first alone misses 46.
        spectral: numbers of communities that spectral clustering is asked for (NC A.2: 2 to 8).
        spectral_runs: starts of k-means.
        seed: for all of them.
        resamples: bootstrap samples for the tested groups' intervals.
    """

    threshold: float = 0.1
    louvain_runs: int = 100
    leiden_runs: int = 20
    spectral: tuple[int, ...] = (2, 3, 4, 5, 6, 7, 8)
    spectral_runs: int = 10
    seed: int = 0
    resamples: int = 200


def graph_modularity(
    activations: Activations,
    groups: pl.DataFrame,
    *,
    positions: int = 1_000,
    options: GraphOptions | None = None,
    pool: Executor | None = None,
) -> pl.DataFrame:
    """Communities of every group's signed correlation graph (NC table 1): relation `graph_modularity`.

    A method's partition is the best of its runs: by modularity on |w| for Louvain, by signed modularity for Leiden, by
    the k-means objective for spectral clustering. Its interval, for the tested groups and the first two methods, is a
    percentile bootstrap over windows that rebuilds the graph and repeats a twentieth of the runs. Resampling adds
    noise to the correlations and so edges to a sparse graph: the interval shows spread, and may lie to one side of the
    estimate.

    Args:
        activations: T × N at the chosen positions.
        groups: `GROUP`, tested groups and controls.
        positions: size of the seeded sample of positions for the correlations (NC A.1: 1,000); all if fewer.
        options: `GraphOptions`.
        pool: processes to share the graphs among; the result is the same with and without.

    Returns:
        `GRAPH_MODULARITY`, one row per group, draw, method and number of communities asked for. NULL with the reason if
        no edge is left, or if fewer neurons have an edge than communities are asked for.
    """
    options = options or GraphOptions()
    chosen = activations.sample(positions, options.seed)
    found = stacks(groups)
    moments = chosen.moments(used_neurons(found, chosen.neurons))
    keys, matrices, members, resamplers, undefined = [], [], [], [], []
    rows: list[dict[str, Any]] = []
    for stack in found:
        for key, neurons in stack.each():
            key |= {"threshold": options.threshold, "positions": chosen.positions}
            if stack.reason is not None:
                rows += [{**key, **method, "reason": stack.reason} for method in _methods(options)]
                continue
            at = moments.rows(neurons)
            keys.append(key)
            members.append(neurons)
            matrices.append(moments.correlation[np.ix_(at, at)])
            undefined.append(int((~moments.defined[at]).sum()))
            wanted = stack.tested and options.resamples > 0 and chosen.positions > 0
            resamplers.append(Resampler(chosen, neurons) if wanted else None)
    results = (map if pool is None else pool.map)(_graph_rows, matrices, members, resamplers, repeat(options))
    for key, missing, methods in zip(keys, undefined, results, strict=True):
        rows += [{**key, "undefined_neurons": missing, **row} for row in methods]
    return table(rows, GRAPH_MODULARITY)


def run_tests(frame: pl.DataFrame) -> pl.DataFrame:
    """NC A.4's Mann–Whitney test of modularity, as printed: relation `group_test`.

    It compares the Louvain runs on a group's graph with the best partitions of its random groups. Runs on one graph
    and partitions of many graphs are not exchangeable (the column says so); `group_tests.group_test` has the
    exchangeable test.

    Args:
        frame: `graph_modularity` of one run, preset and positions, with random groups of one pool.

    Returns:
        `GROUP_TEST`, corrected over the groups.
    """
    louvain_rows = frame.filter(pl.col("method") == "louvain")
    controls = louvain_rows.filter(pl.col("group_name") == CONTROL)
    rows = []
    for row in louvain_rows.filter(pl.col("group_name") != CONTROL).iter_rows(named=True):
        reference = controls.filter(k=row["k"])["signed_modularity"].drop_nulls().to_numpy()
        sample = np.array(row["run_signed_modularity"] or [], dtype=float)
        names = (
            f"{len(sample)} Louvain runs of {row['group_name']}",
            f"best partitions of {len(reference)} random groups",
        )
        test = mann_whitney(sample, reference, names, exchangeable=False)
        rows.append(
            {
                "analysis": "graph_modularity",
                "statistic": "signed_modularity",
                "setting": "method=louvain",
                **{name: row[name] for name in ("group_name", "k", "pool")},
                **test,
                "reason": joined(row["reason"], test.get("reason")),
            }
        )
    return corrected(table(rows, GROUP_TEST))


def modularities(weights: FloatArray, partitions: IntArray) -> tuple[FloatArray, FloatArray]:
    """Modularity on |w| (NC eq. 6) and signed modularity (NC eq. 7) of partitions.

    Args:
        weights: signed, symmetric, zero diagonal, shape (n, n).
        partitions: community of each node, shape (R, n).

    Returns:
        Q and Q_signed, each of shape (R,). A sign without edges adds 0.
    """
    same = (partitions[:, :, None] == partitions[:, None, :]).reshape(len(partitions), -1).astype(float)
    positive, negative = _excess(np.maximum(weights, 0)), _excess(np.maximum(-weights, 0))
    return same @ _excess(np.abs(weights)).ravel(), same @ (positive - negative).ravel()


def louvain(weights: FloatArray, runs: int, seed: int) -> IntArray:
    """Partitions of the graph of |w| by Louvain, one per seed, shape (runs, n)."""
    graph, values = _layer(np.abs(weights))
    found = []
    try:
        for run in range(runs):
            igraph.set_random_number_generator(random.Random(seed * 1_000_003 + run))
            found.append(graph.community_multilevel(weights=values).membership)
    finally:
        igraph.set_random_number_generator(random)
    return np.array(found)


def leiden(weights: FloatArray, runs: int, seed: int) -> IntArray:
    """Partitions of the signed graph by Leiden on two layers with weights 1 and −1, one per start, shape (runs, n).

    Two nodes without an edge may gain from sharing a community (their negative degrees alone lead one to expect
    negative edges), so a move considers every community, not only the neighbours'. That default misses the optimum in
    63 of 180 random signed graphs of 5 to 8 nodes with 20 seeds.
    """
    layers = [(sign, *_layer(part)) for sign, part in ((1, np.maximum(weights, 0)), (-1, np.maximum(-weights, 0)))]
    nodes = len(weights)
    found = []
    for run in range(runs):
        rng = np.random.default_rng([seed, run])
        start = (np.arange(nodes) if run == 0 else rng.integers(0, rng.integers(1, nodes + 1), nodes)).tolist()
        partitions = [
            leidenalg.ModularityVertexPartition(graph, weights=values, initial_membership=start)
            for _, graph, values in layers
            if values
        ]
        optimiser = leidenalg.Optimiser()
        optimiser.set_rng_seed(seed * 1_000_003 + run)
        optimiser.consider_comms = optimiser.refine_consider_comms = leidenalg.ALL_COMMS
        signs = [sign for sign, _, values in layers if values]
        optimiser.optimise_partition_multiplex(partitions, layer_weights=signs, n_iterations=-1)
        found.append(partitions[0].membership)
    return np.array(found)


def spectral(weights: FloatArray, communities: int, runs: int, seed: int) -> tuple[IntArray, FloatArray]:
    """k-means on the first eigenvectors of the normalised Laplacian of |w| (Ng, Jordan and Weiss 2001).

    Every node must have an edge. Returns the partitions, (R, n), and their k-means objectives, (R,); R ≤ runs, since
    a start that leaves a community empty is left out.
    """
    scale = 1 / np.sqrt(np.abs(weights).sum(axis=1))
    laplacian = np.eye(len(weights)) - scale[:, None] * np.abs(weights) * scale
    embedding = np.linalg.eigh(laplacian)[1][:, :communities]
    embedding = embedding / np.maximum(np.linalg.norm(embedding, axis=1, keepdims=True), 1e-12)
    found, objectives = [], []
    if len(np.unique(embedding.round(9), axis=0)) >= communities:
        for run in range(runs):
            rng = np.random.default_rng([seed, communities, run])
            try:
                centres, labels = kmeans2(embedding, communities, iter=30, minit="++", missing="raise", rng=rng)
            except ClusterError:
                continue
            found.append(labels)
            objectives.append(np.sum((embedding - centres[labels]) ** 2))
    return np.array(found, dtype=np.int64).reshape(-1, len(weights)), np.array(objectives)


def _methods(options: GraphOptions) -> list[dict[str, Any]]:
    return [{"method": "louvain"}, {"method": "leiden"}] + [
        {"method": "spectral", "communities_asked": communities} for communities in options.spectral
    ]


def _graph_rows(
    correlation: FloatArray, members: IntArray, resampler: Resampler | None, options: GraphOptions
) -> list[dict[str, Any]]:
    """One row per method of one group; `correlation` has shape (k, k)."""
    weights, linked = _graph(correlation, options.threshold)
    shared: dict[str, Any] = {
        "edges": int((weights != 0).sum()) // 2,
        "negative_edges": int((weights < 0).sum()) // 2,
        "isolated": len(correlation) - len(linked),
        "components": int(connected_components(weights != 0)[0]) if len(linked) else 0,
        "neurons": members[linked].tolist(),
    }
    rows = []
    for method in _methods(options):
        asked = method.get("communities_asked", 1)
        if len(linked) == 0:
            reason: str | None = f"no |correlation| is above {options.threshold:g}"
        elif len(linked) < asked:
            reason = f"{len(linked)} neurons have an edge; {asked} communities were asked for"
        else:
            reason = None
        row = {**shared, **method, "reason": reason}
        if reason is None:
            row |= _best_partition(weights, method, options)
            if resampler is not None and "runs" in row and method["method"] != "spectral":
                limits = _interval(resampler, method, options)
                row |= limits | {"reason": joined(row["reason"], limits.get("reason"))}
        rows.append(row)
    return rows


def _best_partition(weights: FloatArray, method: dict[str, Any], options: GraphOptions) -> dict[str, Any]:
    partitions, scores = _partitions(weights, method, options, part=1.0)
    if len(partitions) == 0:
        return {"reason": f"k-means finds no {method['communities_asked']} different communities"}
    standard, signed = modularities(weights, partitions)
    best = int(np.argmax(scores))
    counts = np.array([len(np.unique(partition)) for partition in partitions])
    several = len(partitions) > 1
    return {
        "runs": len(partitions),
        "modularity": float(standard[best]),
        "signed_modularity": float(signed[best]),
        "communities": int(counts[best]),
        "signed_modularity_mean": float(signed.mean()),
        "signed_modularity_sd": float(signed.std(ddof=1)) if several else None,
        "communities_mean": float(counts.mean()),
        "communities_sd": float(counts.std(ddof=1)) if several else None,
        "run_signed_modularity": signed.tolist(),
        "labels": (np.unique(partitions[best], return_inverse=True)[1] + 1).tolist(),
        "reason": None if several else "one run: no spread over runs",
    }


def _partitions(
    weights: FloatArray, method: dict[str, Any], options: GraphOptions, part: float
) -> tuple[IntArray, FloatArray]:
    """A method's partitions from a share of its runs, and the objective that its best one maximises."""
    name, seed = method["method"], options.seed
    if name == "louvain":
        found = louvain(weights, max(1, round(part * options.louvain_runs)), seed)
        return found, modularities(weights, found)[0]
    if name == "leiden":
        found = leiden(weights, max(1, round(part * options.leiden_runs)), seed)
        return found, modularities(weights, found)[1]
    found, objectives = spectral(
        weights, method["communities_asked"], max(1, round(part * options.spectral_runs)), seed
    )
    return found, -objectives


def _interval(resampler: Resampler, method: dict[str, Any], options: GraphOptions) -> dict[str, Any]:
    def signed(counts: FloatArray) -> FloatArray:
        return np.array([of_graph(correlation) for correlation in resampler.correlation(counts)])

    def of_graph(correlation: FloatArray) -> float:
        weights, linked = _graph(np.where(np.isfinite(correlation), correlation, 0.0), options.threshold)
        if len(linked) == 0:
            return np.nan
        found, scores = _partitions(weights, method, options, part=0.05)
        return float(modularities(weights, found[[np.argmax(scores)]])[1][0])

    limits = window_interval(
        signed, resampler.windows, method="percentile", resamples=options.resamples, seed=options.seed,
        size=resampler.products.shape[1] ** 2,
    )  # fmt: skip
    if limits is None:
        return {"reason": NO_INTERVAL}
    return {"signed_modularity_low": limits[0], "signed_modularity_high": limits[1]}


def _graph(correlation: FloatArray, threshold: float) -> tuple[FloatArray, IntArray]:
    """Signed weights among the nodes that have an edge, and these nodes."""
    weights = np.where(np.abs(correlation) > threshold, correlation, 0.0)
    weights = (weights + weights.T) / 2  # resampled products round differently on the two sides
    np.fill_diagonal(weights, 0)
    linked = np.flatnonzero(weights.any(axis=1))
    return weights[np.ix_(linked, linked)], linked


def _layer(weights: FloatArray) -> tuple[igraph.Graph, list[float]]:
    """A graph and its edges' weights; `weights` ≥ 0."""
    i, j = np.triu_indices(len(weights), 1)
    present = weights[i, j] > 0
    edges = np.column_stack([i[present], j[present]])
    return igraph.Graph(n=len(weights), edges=edges), weights[i, j][present].tolist()


def _excess(weights: FloatArray) -> FloatArray:
    """A_ij / 2m − k_i k_j / (2m)²: what a pair adds to modularity; 0 without edges."""
    total = weights.sum()
    if total == 0:
        return np.zeros_like(weights)
    degree = weights.sum(axis=1)
    return weights / total - np.outer(degree, degree) / total**2


def _compute(at: At, own: Mapping[str, Any], pool: Executor | None) -> pl.DataFrame:
    options = GraphOptions(**{name: value for name, value in own.items() if name != "positions"})
    return graph_modularity(at.activations, at.groups, positions=own["positions"], options=options, pool=pool)


def _printed_tests(_ask: Ask, _preset: str, _positions: str, stored: pl.DataFrame) -> pl.DataFrame:
    return run_tests(stored)


ANALYSIS = of_groups(
    "graph_modularity",
    GRAPH_MODULARITY,
    _compute,
    reads=(ACTIVATIONS,),
    parameters=NC | {"positions": 1_000, "threshold": 0.1, "louvain_runs": 100, "leiden_runs": 20, "seed": 0},
    shares_work=True,
    tested=[
        Tested("modularity", ("method", "communities_asked")),
        Tested(
            "signed_modularity",
            ("method", "communities_asked"),
            ("signed_modularity_low", "signed_modularity_high"),
        ),
    ],
    printed_tests=_printed_tests,
)
