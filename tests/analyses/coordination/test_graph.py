"""Communities against exhaustive search, brute-force modularity, planted partitions and igraph itself."""

from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import cache
from multiprocessing import get_context

import igraph
import numpy as np
import polars as pl
import pytest
from scipy.cluster.vq import ClusterError

from rare_tokens.analyses.coordination.activations import Activations
from rare_tokens.analyses.coordination.graph import (
    ANALYSIS,
    GRAPH_MODULARITY,
    GraphOptions,
    graph_modularity,
    leiden,
    louvain,
    modularities,
    run_tests,
    spectral,
)
from rare_tokens.analyses.coordination.neuron_groups import GROUP, with_controls
from rare_tokens.analyses.group_tests import group_test
from rare_tokens.analyses.result_table import table
from rare_tokens.analyses.statistics import GROUP_TEST
from tests.support.layers import drawn, group, random_draws, real_layer

QUICK = GraphOptions(louvain_runs=5, leiden_runs=3, spectral=(2, 3), spectral_runs=2, resamples=0)


def signed_graph(nodes, density, seed):
    rng = np.random.default_rng(seed)
    weights = np.triu(rng.standard_normal((nodes, nodes)) * (rng.random((nodes, nodes)) < density), 1)
    return weights + weights.T


def brute_modularity(weights, labels):
    """NC eq. 6 as it is printed."""
    degree, total = weights.sum(axis=1), weights.sum()
    if total == 0:
        return 0.0
    same = [(i, j) for i in range(len(labels)) for j in range(len(labels)) if labels[i] == labels[j]]
    return sum(weights[i, j] - degree[i] * degree[j] / total for i, j in same) / total


@cache
def all_partitions(nodes):
    """Every partition of so many nodes, as restricted growth strings."""
    found = [[0]]
    for _ in range(nodes - 1):
        found = [[*labels, community] for labels in found for community in range(max(labels) + 2)]
    return np.array(found)


@pytest.mark.parametrize("seed", range(6))
def test_modularity_equals_the_brute_force_sum(seed):
    weights = signed_graph(9, 0.6, seed)
    partitions = np.random.default_rng(seed).integers(0, 4, (7, 9))
    standard, signed = modularities(weights, partitions)
    for labels, q, q_signed in zip(partitions, standard, signed, strict=True):
        assert q == pytest.approx(brute_modularity(np.abs(weights), labels))
        positive, negative = np.maximum(weights, 0), np.maximum(-weights, 0)
        assert q_signed == pytest.approx(brute_modularity(positive, labels) - brute_modularity(negative, labels))


def test_modularity_of_abs_weights_is_igraphs():
    weights = signed_graph(12, 0.5, 1)
    i, j = np.nonzero(np.triu(weights))
    graph = igraph.Graph(n=12, edges=np.column_stack([i, j]))
    labels = np.random.default_rng(2).integers(0, 3, 12)
    expected = graph.modularity(labels.tolist(), weights=np.abs(weights[i, j]).tolist())
    assert modularities(weights, labels[None])[0][0] == pytest.approx(expected)


def test_signed_modularity_of_an_all_positive_graph_is_modularity():
    standard, signed = modularities(np.abs(signed_graph(10, 0.7, 3)), np.random.default_rng(4).integers(0, 4, (20, 10)))
    np.testing.assert_allclose(standard, signed, atol=1e-14)


def test_every_node_in_one_community_has_no_modularity():
    assert modularities(signed_graph(8, 0.5, 5), np.zeros((1, 8), int)) == (pytest.approx(0), pytest.approx(0))


def optimum(weights):
    return modularities(weights, all_partitions(len(weights)))[1].max()


@pytest.mark.parametrize("nodes", [4, 5, 6, 7])
@pytest.mark.parametrize("density", [0.4, 0.7, 1.0])
def test_leiden_finds_the_exhaustive_optimum(nodes, density):
    for seed in range(8):
        weights = signed_graph(nodes, density, seed)
        if weights.any():
            assert modularities(weights, leiden(weights, 20, 0))[1].max() == pytest.approx(optimum(weights))


@pytest.mark.slow
@pytest.mark.parametrize("nodes", [8, 9])
def test_leiden_finds_the_exhaustive_optimum_of_larger_graphs(nodes):
    for seed in range(40):
        weights = signed_graph(nodes, 0.4 + 0.2 * (seed % 4), seed)
        assert modularities(weights, leiden(weights, 20, 0))[1].max() == pytest.approx(optimum(weights))


@pytest.mark.parametrize("sign", [1, -1])
def test_leiden_of_a_graph_of_one_sign(sign):
    weights = sign * np.abs(signed_graph(7, 0.6, 6))
    assert modularities(weights, leiden(weights, 20, 0))[1].max() == pytest.approx(optimum(weights))


def test_louvain_is_igraphs_and_its_best_is_at_least_its_first():
    weights = signed_graph(30, 0.3, 7)
    found = louvain(weights, 20, 0)
    standard = modularities(weights, found)[0]
    i, j = np.nonzero(np.triu(weights))
    graph = igraph.Graph(n=30, edges=np.column_stack([i, j]))
    single = graph.community_multilevel(weights=np.abs(weights[i, j]).tolist()).modularity
    assert standard.max() >= single - 0.02
    assert len(np.unique(standard.round(9))) > 1  # seeds do differ
    assert np.array_equal(found, louvain(weights, 20, 0))
    assert np.array_equal(found[:5], louvain(weights, 5, 0))


def planted(sizes=(8, 8, 8), positions=3_000, seed=0):
    """Neurons of one block follow one factor, half of them with its sign reversed; a last block is pure noise."""
    rng = np.random.default_rng(seed)
    block = np.repeat(np.arange(len(sizes)), sizes)
    sign = np.where(np.arange(len(block)) % 2, -1.0, 1.0)
    values = 0.8 * sign * rng.standard_normal((positions, len(sizes)))[:, block]
    values = np.hstack([values + rng.standard_normal(values.shape), rng.standard_normal((positions, 3))])
    return Activations(values.astype(np.float32), np.arange(positions) // 100), block, sign


def same_partition(found, expected):
    return np.array_equal(np.equal.outer(found, found), np.equal.outer(expected, expected))


def test_planted_communities_are_recovered():
    """On |w| the blocks; on the signed graph each block's two signs apart, since negative edges inside cost."""
    layer, block, sign = planted()
    frame = graph_modularity(layer, group(*range(27)), positions=3_000, options=replace(QUICK, leiden_runs=20))
    assert frame.schema == pl.Schema(GRAPH_MODULARITY)
    rows = {(row["method"], row["communities_asked"]): row for row in frame.iter_rows(named=True)}
    for key in (("louvain", None), ("spectral", 3)):
        assert rows[key]["neurons"] == list(range(24))
        assert same_partition(rows[key]["labels"], block)
        assert rows[key]["communities"] == 3
    signed = np.array(rows["leiden", None]["labels"])
    assert all(len(set(signed[(block == b) & (sign == s)])) == 1 for b in range(3) for s in (-1, 1))
    assert all(
        set(signed[(block == b) & (sign == 1)]).isdisjoint(signed[(block == b) & (sign == -1)]) for b in range(3)
    )
    assert rows["leiden", None]["signed_modularity"] > rows["louvain", None]["signed_modularity"]
    assert {row["isolated"] for row in rows.values()} == {3}
    assert {row["components"] for row in rows.values()} == {3}
    assert {row["negative_edges"] for row in rows.values()} == {48}


def test_spectral_clustering_agrees_with_scikit_learns():
    cluster = pytest.importorskip("sklearn.cluster", reason="ORACLE ABSENT: install scikit-learn")
    rng = np.random.default_rng(8)
    block = np.repeat([0, 1, 2], 10)
    chance = np.where(np.equal.outer(block, block), 0.8, 0.1)
    weights = np.triu(rng.random((30, 30)) < chance, 1) * rng.uniform(0.2, 0.6, (30, 30))
    weights = weights + weights.T
    found, objectives = spectral(weights, 3, 10, 0)
    expected = cluster.SpectralClustering(3, affinity="precomputed", random_state=0).fit_predict(weights)
    assert same_partition(found[np.argmin(objectives)], expected)
    assert same_partition(expected, block)


def test_a_group_that_stands_out_is_found_and_controls_are_not():
    layer = planted(sizes=(6, 6, 6))[0]
    noise = np.random.default_rng(9).standard_normal((3_000, 80)).astype(np.float32)
    common = np.random.default_rng(10).standard_normal((3_000, 1))
    layer = Activations(np.hstack([layer.values, noise + 0.7 * common]).astype(np.float32), layer.windows)
    groups = with_controls(group(*range(18)), 101, draws=19, seed=1, pool="disjoint")
    frame = graph_modularity(layer, groups, positions=3_000, options=QUICK)
    primary = group_test({"graph_modularity": frame}, [ANALYSIS]).filter(setting="method=louvain")
    assert primary["p_value"].to_list() == pytest.approx([0.05, 0.05])
    printed = run_tests(frame).row(0, named=True)
    assert run_tests(frame).schema == pl.Schema(GROUP_TEST)
    assert (printed["sample"], printed["reference"]) == (
        "5 Louvain runs of boost", "best partitions of 19 random groups"
    )  # fmt: skip
    assert printed["exchangeable"] is False
    assert printed["p_value"] < 0.01


def test_intervals_lie_about_the_estimate_of_a_clear_structure():
    layer = planted()[0]
    options = replace(QUICK, resamples=60, louvain_runs=20, leiden_runs=10)
    frame = graph_modularity(layer, group(*range(24)), positions=3_000, options=options)
    for row in frame.filter(pl.col("method") != "spectral").iter_rows(named=True):
        assert row["signed_modularity_low"] - 0.02 <= row["signed_modularity"] <= row["signed_modularity_high"] + 0.02
        assert row["signed_modularity_high"] - row["signed_modularity_low"] < 0.1


def test_an_empty_graph_is_null_with_its_reason():
    layer = drawn(positions=1_000, neurons=10, strength=0)
    frame = graph_modularity(layer, group(*range(10)), options=replace(QUICK, threshold=0.9))
    assert frame["modularity"].null_count() == frame["signed_modularity"].null_count() == len(frame) == 4
    assert set(frame["reason"]) == {"no |correlation| is above 0.9"}
    assert (frame["edges"].to_list(), frame["isolated"].to_list()) == ([0] * 4, [10] * 4)


def test_a_disconnected_graph_is_a_graph():
    base = np.random.default_rng(11).standard_normal((500, 2))
    layer = Activations(np.repeat(base, 2, axis=1).astype(np.float32), np.arange(500) // 50)
    options = replace(QUICK, threshold=0.5, spectral=(2, 5))
    frame = graph_modularity(layer, group(0, 1, 2, 3), options=options)
    for row in frame.head(3).iter_rows(named=True):
        assert (row["components"], row["edges"], row["communities"]) == (2, 2, 2)
        assert row["modularity"] == pytest.approx(0.5)
    assert frame["reason"][3] == "4 neurons have an edge; 5 communities were asked for"


def test_more_communities_than_distinct_neurons():
    """Two unconnected pairs span two points of the embedding: three communities do not exist."""
    weights = np.kron(np.eye(2), np.array([[0, 0.5], [0.5, 0]]))
    assert len(spectral(weights, 2, 3, 0)[0]) == 3
    assert spectral(weights, 3, 3, 0)[0].shape[1] == 4
    options = replace(QUICK, threshold=0.5, spectral=(2, 3))
    base = np.random.default_rng(12).standard_normal((500, 1))
    layer = Activations(np.repeat(base, 2, axis=1).astype(np.float32), np.arange(500) // 50)
    frame = graph_modularity(layer, group(0, 1), options=options)
    assert frame["reason"].to_list()[2:] == [None, "2 neurons have an edge; 3 communities were asked for"]


def test_k_means_that_always_empties_a_community_is_null_with_its_reason(monkeypatch):
    def emptied(*_args, **_options):
        raise ClusterError

    monkeypatch.setattr("rare_tokens.analyses.coordination.graph.kmeans2", emptied)
    frame = graph_modularity(drawn(strength=2), group(*range(9)), options=QUICK).filter(method="spectral")
    assert frame["modularity"].null_count() == 2
    assert frame["reason"].to_list() == [f"k-means finds no {k} different communities" for k in (2, 3)]


def test_constant_neurons_are_isolated():
    values = drawn(positions=400, neurons=6, strength=2).values.copy()
    values[:, 2] = 1.5
    frame = graph_modularity(Activations(values, np.arange(400) // 50), group(*range(6)), options=QUICK)
    assert set(frame["undefined_neurons"]) == {1}
    assert 2 not in frame["neurons"][0]


def test_a_group_that_was_not_formed_is_a_row_with_its_reason():
    absent = table([{"group_name": "boost", "k": 90, "draw": 0, "neuron": None, "reason": "60 neurons"}], GROUP)
    frame = graph_modularity(drawn(), pl.concat([absent, group(1, 2, 3, name="suppress")]), options=QUICK)
    assert frame.filter(group_name="boost")["reason"].to_list() == ["60 neurons"] * 4
    assert run_tests(frame).filter(group_name="boost")["reason"][0].startswith("60 neurons")


def test_no_positions():
    empty = Activations(np.zeros((0, 10), np.float32), np.zeros(0, int))
    frame = graph_modularity(empty, group(0, 1, 2), options=replace(QUICK, resamples=3))
    assert frame["reason"].null_count() == 0


@pytest.mark.slow
def test_processes_and_repetition_change_nothing():
    layer = drawn(positions=500, neurons=40)
    groups = with_controls(group(*range(10)), 40, draws=3)
    alone = graph_modularity(layer, groups, options=QUICK)
    assert alone.equals(graph_modularity(layer, groups, options=QUICK))
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        assert graph_modularity(layer, groups, options=QUICK, pool=pool).equals(alone)


def test_permuting_neurons_leaves_the_best_partition():
    layer, *_ = planted()
    order = np.random.default_rng(13).permutation(27)
    there = Activations(layer.values[:, order], layer.windows)
    options = replace(QUICK, louvain_runs=20, leiden_runs=20, spectral=(3,))
    here = graph_modularity(layer, group(*range(27)), positions=3_000, options=options)
    after = graph_modularity(there, group(*range(27)), positions=3_000, options=options)
    np.testing.assert_allclose(here["signed_modularity"].to_numpy(), after["signed_modularity"].to_numpy(), atol=1e-6)


@pytest.mark.slow
def test_random_groups_of_real_neurons_are_rejected_at_the_level(real_inputs):
    """200 random groups of 30 against 19 random controls, per test: 2–21 rejections at 5 %."""
    layer = real_layer(real_inputs, windows=8)[0].sample(1_000, 0)
    options = GraphOptions(louvain_runs=5, leiden_runs=2, spectral=(3,), spectral_runs=2, resamples=0)
    rejected: dict[str, int] = {}
    for seed in range(200):
        groups = with_controls(random_draws(1024, 30, 0, seed=seed), 1024, draws=19, seed=seed)
        tests = group_test({"graph_modularity": graph_modularity(layer, groups, options=options)}, [ANALYSIS])
        for row in tests.iter_rows(named=True):
            key = f"{row['statistic']} {row['setting']}"
            rejected[key] = rejected.get(key, 0) + (row["p_value"] <= 0.05)
    assert len(rejected) == 6
    assert all(2 <= count <= 21 for count in rejected.values()), rejected
