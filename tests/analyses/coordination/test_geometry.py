"""Correlation, effective dimension, cosine and clusters, each against an independent computation."""

import numpy as np
import polars as pl
import pytest
from scipy import stats
from scipy.cluster.hierarchy import fcluster, ward
from scipy.spatial.distance import squareform

from rare_tokens.analyses.coordination.activations import Activations
from rare_tokens.analyses.coordination.clusters import neuron_cluster
from rare_tokens.analyses.coordination.correlation import ACTIVATION_CORRELATION, activation_correlation
from rare_tokens.analyses.coordination.cosine import cosine_similarity
from rare_tokens.analyses.coordination.dimension import effective_dimension
from rare_tokens.analyses.coordination.neuron_groups import GROUP, with_controls
from rare_tokens.analyses.coordination.pair_tests import pair_tests
from rare_tokens.analyses.result_table import table
from rare_tokens.analyses.statistics import group_tests, jackknife_interval
from tests.support.layers import drawn, group, random_draws, real_layer

BOOST, SUPPRESS = (3, 8, 15, 30, 31), (0, 9, 22, 40, 41)


@pytest.fixture(scope="module")
def layer():
    return drawn(positions=900, neurons=60, seed=1)


@pytest.fixture(scope="module")
def groups():
    return with_controls(pl.concat([group(*BOOST), group(*SUPPRESS, name="suppress")]), 60, draws=12, seed=3)


def members(groups, name, draw):
    return groups.filter(group_name=name, draw=draw)["neuron"].to_list()


def brute_mean(matrix, first, second):
    """Mean over all pairs of two different neurons, each unordered pair counted once within a group."""
    pairs = [(i, j) for i in first for j in second if i != j]
    return np.mean([matrix[i, j] for i, j in pairs]), len(pairs) // (2 if first == second else 1)


def test_every_comparison_of_correlations_equals_the_plain_loop(layer, groups):
    frame = activation_correlation(layer, groups, resamples=50)
    assert frame.schema == pl.Schema(ACTIVATION_CORRELATION)
    matrix = np.corrcoef(layer.values.T.astype(float))
    assert frame["comparison"].value_counts().sort("comparison").rows() == [
        ("groups", 13),
        ("random", 14),
        ("within", 14),
    ]
    for row in frame.iter_rows(named=True):
        first = members(groups, row["group_name"], row["draw"])
        if row["comparison"] == "random":
            draws = [d for d in range(1, 13) if (row["group_name"], row["draw"]) != ("control", d)]
            pairs = [(i, j) for d in draws for i in first for j in members(groups, "control", d) if i != j]
            expected, count = np.mean([matrix[pair] for pair in pairs]), len(pairs)
        else:
            expected, count = brute_mean(matrix, first, members(groups, row["other_group"], row["other_draw"]))
        assert row["pairs"] == count
        assert row["mean_correlation"] == pytest.approx(expected, abs=1e-7)
    assert frame["reason"].null_count() == len(frame)


def test_the_groups_compared_are_those_of_table_1(layer, groups):
    frame = activation_correlation(layer, groups, resamples=50).filter(comparison="groups")
    assert frame.row(0, named=True)["other_group"] == "suppress"
    controls = frame.filter(group_name="control")
    assert controls["other_draw"].to_list() == [*range(2, 13), 1]


@pytest.mark.parametrize("kind", ["activation", "w_out"])
def test_every_comparison_of_cosines_equals_the_plain_loop(layer, groups, kind):
    vectors = np.random.default_rng(2).standard_normal((60, 16)) if kind == "w_out" else layer.values.T.astype(float)
    chosen = {"weights": {"w_out": vectors}} if kind == "w_out" else {"activations": layer}
    frame = cosine_similarity(groups, **chosen, resamples=50)
    assert set(frame["space"]) == {kind}
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    for row in frame.filter(pl.col("comparison") != "random").iter_rows(named=True):
        first, second = (
            members(groups, row["group_name"], row["draw"]),
            members(groups, row["other_group"], row["other_draw"]),
        )
        assert row["mean_cosine"] == pytest.approx(brute_mean(unit @ unit.T, first, second)[0], abs=1e-6)


def test_intervals_are_those_of_a_plain_window_bootstrap(layer, groups):
    row = activation_correlation(layer, groups, resamples=2_000).row(0, named=True)
    assert (row["group_name"], row["comparison"]) == ("boost", "within")
    rng = np.random.default_rng(0)
    windows = [np.flatnonzero(layer.windows == w) for w in np.unique(layer.windows)]
    means = []
    for _ in range(600):
        at = np.concatenate([windows[w] for w in rng.integers(0, len(windows), len(windows))])
        means.append(np.corrcoef(layer.values[at][:, BOOST].T)[np.triu_indices(5, 1)].mean())
    spread = np.ptp(np.quantile(means, [0.025, 0.975]))
    assert row["low"] < row["mean_correlation"] < row["high"]
    assert row["high"] - row["low"] == pytest.approx(spread, rel=0.35)  # BCa of 12 windows beside a percentile interval
    assert activation_correlation(layer, groups, resamples=50)["low"][1] is not None
    tested = activation_correlation(layer, groups, resamples=50).filter(pl.col("low").is_not_null())
    assert tested.select("group_name", "comparison").rows() == [
        ("boost", "within"), ("suppress", "within"), ("boost", "groups")
    ]  # fmt: skip


def test_effective_dimension_equals_scikit_learns_pca(layer, groups):
    decomposition = pytest.importorskip("sklearn.decomposition", reason="ORACLE ABSENT: install scikit-learn")
    for standardised in (True, False):
        frame = effective_dimension(layer, groups, standardised=standardised, resamples=50)
        for row in frame.iter_rows(named=True):
            values = layer.values[:, members(groups, row["group_name"], row["draw"])].astype(float)
            values = stats.zscore(values) if standardised else values
            ratio = decomposition.PCA(svd_solver="full").fit(values).explained_variance_ratio_
            assert row["dimension"] == np.searchsorted(np.cumsum(ratio), 0.95) + 1
            d, cumulative = row["dimension"], np.concatenate([[0], np.cumsum(ratio)])
            crossing = np.interp(0.95, cumulative[d - 1 : d + 1], [d - 1, d])
            assert row["interpolated_dimension"] == pytest.approx(crossing, abs=1e-4)
            assert row["dimension_percent"] == pytest.approx(20 * row["dimension"])
            assert row["participation_ratio"] == pytest.approx(1 / np.sum(ratio**2), rel=1e-5)
            assert row["participation_percent"] == pytest.approx(20 * row["participation_ratio"])
        boost = frame.row(0, named=True)
        for column in ("dimension_percent", "participation_percent"):
            assert boost[f"{column}_low"] <= boost[column] <= boost[f"{column}_high"]


def test_known_dimensions():
    rng = np.random.default_rng(4)
    one = rng.standard_normal((4_000, 1))
    values = np.hstack([np.repeat(one, 6, axis=1), rng.standard_normal((4_000, 6))]).astype(np.float32)
    layer = Activations(values, np.arange(4_000) // 100)
    frame = effective_dimension(
        layer, pl.concat([group(*range(6)), group(*range(6, 12), name="suppress")]), resamples=50
    )
    assert frame["dimension"].to_list() == [1, 6]
    assert frame["participation_ratio"].to_list() == pytest.approx([1, 6], abs=0.02)


def test_19_equal_components_of_20_reach_95_percent():
    layer = Activations(np.eye(21, 20, dtype=np.float32), np.arange(21))
    hadamard = np.array([[(-1) ** bin(i & j).count("1") for j in range(1, 21)] for i in range(32)], np.float32)
    layer = Activations(hadamard, np.arange(32))  # 20 exactly uncorrelated neurons of unit variance
    assert effective_dimension(layer, group(*range(20)), resamples=50)["dimension"].to_list() == [19]


def lance_williams(distance, cut):
    """Ward clusters by the recursion itself: merge the two nearest until none is within the cut."""
    size = dict.fromkeys(range(len(distance)), 1)
    label = np.arange(len(distance))
    d = {(i, j): distance[i, j] for i in size for j in size if i < j}
    while d:
        (a, b), height = min(d.items(), key=lambda item: item[1])
        if height > cut:
            break
        for c in set(size) - {a, b}:
            ac, bc = d[min(a, c), max(a, c)], d.pop((min(b, c), max(b, c)))
            n = size[a] + size[b] + size[c]
            squared = ((size[a] + size[c]) * ac**2 + (size[b] + size[c]) * bc**2 - size[c] * height**2) / n
            d[min(a, c), max(a, c)] = np.sqrt(squared)
        d.pop((a, b))
        size[a] += size.pop(b)
        label[label == b] = a
    return label


@pytest.mark.parametrize("cut", [0.5, 0.9, 1.2, 5.0])
def test_clusters_equal_scipys_and_the_recursions(layer, groups, cut):
    frame = neuron_cluster(layer, with_controls(group(*range(20)), 60, draws=4, seed=5), thresholds=[cut])
    every = with_controls(group(*range(20)), 60, draws=4, seed=5)
    for row in frame.iter_rows(named=True):
        chosen = members(every, row["group_name"], row["draw"])
        distance = 1 - np.abs(np.corrcoef(layer.values[:, chosen].T.astype(float)))
        np.fill_diagonal(distance, 0)
        expected = fcluster(ward(squareform(distance, checks=False)), cut, "distance")
        assert row["neurons"] == chosen
        same = np.equal.outer(row["labels"], row["labels"])
        assert np.array_equal(same, np.equal.outer(expected, expected))
        recursion = lance_williams(distance, cut)
        assert np.array_equal(same, np.equal.outer(recursion, recursion))
        assert row["clusters"] == len(set(expected))
        assert row["largest_cluster"] == np.bincount(expected).max()


def test_mirrored_neurons_cluster_together():
    """|ρ| is blind to the sign: a neuron and its negative are one cluster, as are duplicates."""
    base = drawn(neurons=3, strength=0).values
    layer = Activations(np.hstack([base, -base, base]), drawn().windows)
    row = neuron_cluster(layer, group(*range(9)), thresholds=[0.5]).row(0, named=True)
    assert row["labels"][:3] == row["labels"][3:6] == row["labels"][6:]
    assert row["clusters"] == 3


def test_planted_coordination_is_found_and_random_groups_are_not():
    rng = np.random.default_rng(6)
    values = rng.standard_normal((2_000, 200))
    values[:, :20] += 0.7 * rng.standard_normal((2_000, 1))
    layer = Activations(values.astype(np.float32), np.repeat(np.arange(20), 100))
    groups = with_controls(group(*range(20)), 200, draws=99, seed=7)
    correlation = group_tests(
        activation_correlation(layer, groups, resamples=50), "mean_correlation",
        analysis="activation_correlation", keys=["comparison"],
    )  # fmt: skip
    dimension = group_tests(
        effective_dimension(layer, groups, resamples=50), "participation_ratio", analysis="effective_dimension"
    )
    assert correlation.filter(setting="comparison=within")["p_value"].to_list() == [0.01]
    assert dimension["p_value"].to_list() == [0.01]
    assert dimension["value"][0] < dimension["reference_mean"][0]


def awkward_layer():
    """Neuron 0 constant, 1 all zero, 2 and 3 the same, 4 ordinary."""
    values = drawn(neurons=5).values.copy()
    values[:, 0], values[:, 1], values[:, 3] = 2.5, 0.0, values[:, 2]
    return Activations(values, drawn().windows)


def test_constant_neurons_make_no_pair_and_duplicates_correlate_fully():
    layer = awkward_layer()
    row = activation_correlation(layer, group(0, 1, 2, 3), resamples=50).row(0, named=True)
    assert (row["pairs"], row["undefined_neurons"]) == (1, 2)
    assert row["mean_correlation"] == pytest.approx(1)
    nothing = activation_correlation(layer, group(0, 1), resamples=50).row(0, named=True)
    assert nothing["mean_correlation"] is None
    assert nothing["reason"] == "no pair of neurons has a value"


def test_dimension_and_clusters_of_constant_and_duplicated_neurons():
    layer = awkward_layer()
    row = effective_dimension(layer, group(0, 2, 3, 4), resamples=50).row(0, named=True)
    assert (row["dimension"], row["undefined_neurons"]) == (2, 1)
    assert row["dimension_percent"] == 50
    nothing = effective_dimension(layer, group(0, 1), resamples=50).row(0, named=True)
    assert (nothing["dimension"], nothing["participation_ratio"]) == (None, None)
    assert nothing["reason"] == "no neuron of the group varies over these positions"
    clusters = neuron_cluster(layer, group(0, 2, 3, 4), thresholds=[0.5]).row(0, named=True)
    assert (clusters["undefined_neurons"], clusters["neurons"]) == (1, [2, 3, 4])
    assert clusters["labels"][0] == clusters["labels"][1] != clusters["labels"][2]
    assert "fewer than two neurons" in neuron_cluster(layer, group(0, 4), thresholds=[0.5])["reason"][0]


def test_a_zero_weight_vector_has_no_cosine():
    vectors = np.eye(4)
    vectors[1] = 0
    row = cosine_similarity(group(0, 1, 2), weights={"w_in": vectors}).row(0, named=True)
    assert (row["pairs"], row["mean_cosine"], row["undefined_neurons"]) == (1, 0, 1)
    assert "no pair" in cosine_similarity(group(0, 1), weights={"w_in": vectors})["reason"][0]


def test_no_positions_one_position_and_one_window():
    for positions in (0, 1):
        layer = Activations(drawn().values[:positions], drawn().windows[:positions])
        for frame in (
            activation_correlation(layer, group(0, 1, 2)),
            effective_dimension(layer, group(0, 1, 2)),
            neuron_cluster(layer, group(0, 1, 2)),
        ):
            assert frame["reason"].null_count() == 0
    one = Activations(drawn().values[:50], np.zeros(50, int))
    row = activation_correlation(one, group(0, 1, 2)).row(0, named=True)
    assert row["mean_correlation"] is not None
    assert row["low"] is None
    assert "fewer than two windows" in row["reason"]


def test_a_group_that_was_not_formed_is_a_row_with_its_reason(layer):
    absent = table([{"group_name": "boost", "k": 90, "draw": 0, "neuron": None, "reason": "60 neurons"}], GROUP)
    groups = pl.concat([absent, group(1, 2, 3, name="suppress")])
    for frame in (
        activation_correlation(layer, groups, resamples=50),
        cosine_similarity(groups, activations=layer, weights={"w_out": np.eye(60)}, resamples=50),
        effective_dimension(layer, groups, resamples=50),
        neuron_cluster(layer, groups),
    ):
        assert set(frame.filter(group_name="boost")["reason"]) == {"60 neurons"}
        assert frame.filter(pl.col("group_name") == "suppress", pl.col("reason").is_null()).height > 0


def test_a_group_of_one_neuron(layer):
    assert activation_correlation(layer, group(4))["reason"].to_list() == ["no pair of neurons has a value"]
    assert effective_dimension(layer, group(4), resamples=50)["dimension"].to_list() == [1]


def test_permuting_neurons_permutes_results(layer, groups):
    order = np.random.default_rng(8).permutation(60)
    there = Activations(layer.values[:, order], layer.windows)
    place = np.argsort(order)
    moved = groups.with_columns(neuron=pl.col("neuron").replace_strict(dict(enumerate(place.tolist()))))
    for function, column in (
        (activation_correlation, "mean_correlation"),
        (effective_dimension, "participation_ratio"),
    ):
        here, after = function(layer, groups, resamples=50), function(there, moved, resamples=50)
        np.testing.assert_allclose(here[column].to_numpy(), after[column].to_numpy(), atol=1e-6)


def test_pair_tests_name_their_samples_and_say_that_pairs_are_not_exchangeable(layer, groups):
    frame = pair_tests(groups, activations=layer, weights={"w_out": layer.values[:16].T})
    assert frame["sample"].to_list()[:2] == ["pairs within boost", "pairs within suppress"]
    assert set(frame["reference"]) == {"pairs within control 1"}
    assert not frame["exchangeable"].any()
    assert frame["tests"].to_list() == [2] * 4
    matrix = np.corrcoef(layer.values.T.astype(float))
    pairs = [matrix[np.ix_(m, m)][np.triu_indices(5, 1)] for m in (BOOST, members(groups, "control", 1))]
    assert frame["p_value"][0] == pytest.approx(stats.mannwhitneyu(*pairs).pvalue, rel=1e-3)
    assert "no random group of 5" in pair_tests(group(*BOOST), activations=layer)["reason"][0]


@pytest.mark.slow
def test_random_groups_of_real_neurons_are_rejected_at_the_level(real_inputs):
    """200 random groups against random controls, per test: 2–21 rejections at 5 %; pairs by Mann–Whitney: far more."""
    layer, weights = real_layer(real_inputs)
    rejected: dict[tuple[str, str], int] = {}
    for seed in range(200):
        draws = with_controls(random_draws(1024, 50, 0, seed=seed), 1024, draws=100, seed=seed)
        dimension = effective_dimension(layer, draws, resamples=2)
        frames = [
            (activation_correlation(layer, draws, resamples=2), "mean_correlation", ["comparison"]),
            (cosine_similarity(draws, activations=layer, weights={"w_out": weights}, resamples=2), "mean_cosine",
             ["space", "comparison"]),
            (dimension, "interpolated_dimension", ["standardised"]),
            (dimension, "participation_ratio", ["standardised"]),
            (effective_dimension(layer, draws, standardised=False, resamples=2), "participation_ratio",
             ["standardised"]),
            (neuron_cluster(layer, draws, thresholds=[0.5, 1.0]), "clusters", ["threshold"]),
        ]  # fmt: skip
        tests = [group_tests(frame, column, analysis=column, keys=keys) for frame, column, keys in frames]
        tests.append(pair_tests(draws, activations=layer))
        for row in pl.concat(tests).iter_rows(named=True):
            key = (row["test"], f"{row['analysis']} {row['setting']}")
            rejected[key] = rejected.get(key, 0) + (row["p_value"] is not None and row["p_value"] <= 0.05)
    controls = {key: count for key, count in rejected.items() if key[0] == "control"}
    assert all(2 <= count <= 21 for count in controls.values()), controls
    assert rejected["mann_whitney", "activation_correlation space=activation, comparison=within"] > 30


def correlated_windows(seed, correlation):
    """50 neurons with these correlations at about 1,400 positions of 98 windows, dependent within a window."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(5, 25, 98)
    windows = np.repeat(np.arange(98), sizes)
    latent = rng.standard_normal((len(windows), 50)) + 0.7 * rng.standard_normal((98, 50))[windows]
    return Activations((latent @ np.linalg.cholesky(correlation).T).astype(np.float32), windows)


def known_correlation():
    loads = np.random.default_rng(0).standard_normal((50, 8)) * 0.35
    covariance = loads @ loads.T + np.eye(50)
    scale = 1 / np.sqrt(np.diag(covariance))
    return covariance * scale * scale[:, None]


def dimension_coverage(samples):
    """Of samples from a known Gaussian: how many intervals cover what they are about."""
    correlation = known_correlation()
    eigenvalues = np.linalg.eigvalsh(correlation)
    ratio = 100 * eigenvalues.sum() ** 2 / (eigenvalues**2).sum() / 50
    chosen = group(*range(50))
    rows = pl.concat(
        effective_dimension(correlated_windows(seed, correlation), chosen, resamples=300) for seed in range(samples)
    )
    usual = rows["interpolated_dimension"].mean()
    near = rows.with_columns(least=pl.lit(2 * np.floor(usual)), most=pl.lit(2 * np.ceil(usual)))
    return {
        "participation": rows.filter(
            pl.lit(ratio).is_between("participation_percent_low", "participation_percent_high")
        ).height,
        "components": near.filter(
            (pl.col("dimension_percent_low") <= pl.col("most")) & (pl.col("dimension_percent_high") >= pl.col("least"))
        ).height,
        "holds the value": rows.filter(
            pl.col("dimension_percent").is_between("dimension_percent_low", "dimension_percent_high")
        ).height,
    }


@pytest.mark.slow
def test_intervals_of_dimensions_cover():
    found = dimension_coverage(20)
    assert found["participation"] >= 16
    assert found["components"] >= 17
    assert found["holds the value"] == 20


def test_jackknife_of_a_mean_is_students_interval():
    values = np.random.default_rng(1).standard_normal(30)
    interval = jackknife_interval(lambda counts: counts @ values / counts.sum(axis=1), 30)
    expected = stats.t.interval(0.95, 29, values.mean(), stats.sem(values))
    assert interval == pytest.approx(expected)
    assert jackknife_interval(lambda counts: counts[:, 0] * 0, 5) is None
    assert jackknife_interval(lambda counts: counts[:, 0], 1) is None
