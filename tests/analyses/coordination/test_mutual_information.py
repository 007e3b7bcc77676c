"""Mutual information against its closed form, an independent library, and brute force."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import polars as pl
import pytest
from scipy import stats
from scipy.special import digamma

from rare_tokens.analyses.coordination.activations import Activations
from rare_tokens.analyses.coordination.mutual_information import (
    MUTUAL_INFORMATION,
    binned_codes,
    binned_information,
    ksg_information,
    mutual_information,
)
from rare_tokens.analyses.coordination.neuron_groups import GROUP, with_controls
from rare_tokens.analyses.result_table import table
from rare_tokens.analyses.statistics import group_tests
from tests.support.layers import drawn, group, random_draws, real_layer


def gaussian_pair(correlation, positions, seed=0):
    rng = np.random.default_rng(seed)
    x, noise = rng.standard_normal((2, positions))
    return np.array([x, correlation * x + np.sqrt(1 - correlation**2) * noise])


def closed_form(correlation):
    return -0.5 * np.log(1 - correlation**2)


@pytest.mark.parametrize("correlation", [0.0, 0.3, -0.6, 0.9])
def test_ksg_finds_the_information_of_gaussians(correlation):
    found = [ksg_information(gaussian_pair(correlation, 1_000, seed), None, 3)[0] for seed in range(12)]
    assert np.mean(found) == pytest.approx(closed_form(correlation), abs=0.03)


@pytest.mark.parametrize("correlation", [0.0, 0.3, -0.6, 0.9])
def test_binned_information_of_gaussians_is_that_of_their_cells(correlation):
    """The cells' exact information comes from the bivariate normal distribution; the plug-in adds its known bias."""
    edges = stats.norm.ppf(np.linspace(0, 1, 17)[1:-1])
    normal = stats.multivariate_normal([0, 0], [[1, correlation], [correlation, 1]])
    inner = normal.cdf(np.array(np.meshgrid(edges, edges)).reshape(2, -1).T).reshape(15, 15)
    cumulative = np.zeros((17, 17))
    cumulative[1:16, 1:16] = inner
    cumulative[16, 1:] = cumulative[1:, 16] = np.arange(1, 17) / 16
    cells = np.diff(np.diff(cumulative, axis=0), axis=1)
    exact = np.sum(cells * np.log(np.maximum(cells, 1e-300) * 256))
    assert 0.9 * closed_form(correlation) <= exact + 1e-6 <= closed_form(correlation) + 2e-6
    found = [
        binned_information(binned_codes(gaussian_pair(correlation, 25_088, seed).T, 16), None, 16)[0]
        for seed in range(8)
    ]
    bias = (np.sum(cells > 2 / 25_088) - 31) / (2 * 25_088)  # cells that are seen, less 2 · 16 − 1
    assert np.mean(found) == pytest.approx(exact + bias, abs=0.003)


def test_binned_information_equals_scikit_learns():
    metrics = pytest.importorskip("sklearn.metrics", reason="ORACLE ABSENT: install scikit-learn")
    codes = binned_codes(drawn(positions=700, neurons=5).values, 16)
    within = binned_information(codes, None, 16)
    expected = [metrics.mutual_info_score(codes[i], codes[j]) for i in range(5) for j in range(i + 1, 5)]
    np.testing.assert_allclose(within, expected, atol=1e-12)
    between = binned_information(codes[:2], codes[2:], 16)
    expected = [metrics.mutual_info_score(codes[i], codes[j]) for i in (0, 1) for j in (2, 3, 4)]
    np.testing.assert_allclose(between, expected, atol=1e-12)


def test_ksg_equals_scikit_learns():
    selection = pytest.importorskip("sklearn.feature_selection", reason="ORACLE ABSENT: install scikit-learn")
    for correlation in (0.4, 0.95):
        x, y = gaussian_pair(correlation, 500)
        expected = selection.mutual_info_regression(x[:, None], y, n_neighbors=3, random_state=0)[0]
        assert ksg_information(np.array([x / x.std(), y / y.std()]), None, 3)[0] == pytest.approx(expected, abs=1e-9)


def test_ksg_equals_its_definition():
    x, y = gaussian_pair(0.5, 60)
    near = np.maximum(np.abs(np.subtract.outer(x, x)), np.abs(np.subtract.outer(y, y)))
    radius = np.sort(near, axis=1)[:, 3]  # column 0 is the point itself
    n_x = (np.abs(np.subtract.outer(x, x)) < radius[:, None]).sum(axis=1) - 1
    n_y = (np.abs(np.subtract.outer(y, y)) < radius[:, None]).sum(axis=1) - 1
    expected = digamma(3) + digamma(60) - np.mean(digamma(n_x + 1) + digamma(n_y + 1))
    assert ksg_information(np.array([x, y]), None, 3)[0] == pytest.approx(expected)


def test_bins_are_of_equal_frequency():
    codes = binned_codes(np.random.default_rng(1).standard_normal((1_000, 2)), 16)
    for row in codes:
        assert set(np.bincount(row, minlength=16)) <= {62, 63}
    values = np.random.default_rng(2).permutation(160).astype(float)[:, None]
    assert np.array_equal(binned_codes(values, 16)[0], values[:, 0] // 10)


def test_equal_values_share_a_bin_so_that_sparse_neurons_share_no_time():
    """Two independent neurons, zero at 90 % of positions: bins by position would give them most of ln 16."""
    rng = np.random.default_rng(3)
    values = np.maximum(rng.standard_normal((4_000, 2)) - 1.28, 0)
    together = binned_information(binned_codes(values, 16), None, 16)[0]
    by_position = (np.argsort(np.argsort(values, axis=0, kind="stable"), axis=0) * 16 // 4_000).T
    assert together < 0.01
    assert binned_information(by_position, None, 16)[0] > 1


def test_the_relation_has_every_comparison_and_both_estimators():
    layer = drawn(positions=600, neurons=30)
    groups = with_controls(pl.concat([group(0, 1, 2), group(3, 4, 5, name="suppress")]), 30, draws=5, pool="layer")
    frame = mutual_information(layer, groups, contexts=300)
    assert frame.schema == pl.Schema(MUTUAL_INFORMATION)
    counted = {row[:2]: row[2] for row in frame.group_by("estimator", "comparison").len().iter_rows()}
    assert counted == {("binned", "within"): 7, ("binned", "groups"): 6, ("ksg", "within"): 5}
    assert set(frame.filter(estimator="ksg")["positions"]) == {300}
    codes = binned_codes(layer.values, 16)
    for row in frame.filter(estimator="binned").iter_rows(named=True):
        first = groups.filter(group_name=row["group_name"], draw=row["draw"])["neuron"].to_list()
        second = groups.filter(group_name=row["other_group"], draw=row["other_draw"])["neuron"].to_list()
        pairs = [(i, j) for i in first for j in second if i != j]
        expected = np.mean([binned_information(codes[[i, j]], None, 16)[0] for i, j in pairs])
        assert row["mean_information"] == pytest.approx(expected, abs=1e-12)
        assert row["pairs"] == len(pairs) // (2 if row["comparison"] == "within" else 1)
    boost = frame.filter(estimator="ksg", group_name="boost", comparison="within")["mean_information"][0]
    assert boost == pytest.approx(
        np.mean(ksg_information(layer.sample(300, 0).values[:, :3].T.astype(float), None, 3)), abs=0.02
    )


def test_ksg_takes_no_more_neurons_than_asked():
    layer = drawn(positions=200, neurons=30)
    frame = mutual_information(layer, group(*range(12)), ksg_neurons=5)
    assert frame.select("estimator", "pairs").rows() == [("binned", 66), ("ksg", 10)]


def test_processes_change_nothing():
    layer = drawn(positions=200, neurons=30)
    groups = with_controls(group(0, 1, 2), 30, draws=4)
    alone = mutual_information(layer, groups)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        assert mutual_information(layer, groups, pool=pool).equals(alone)


def test_information_that_correlation_does_not_see():
    rng = np.random.default_rng(4)
    x = rng.standard_normal((1_500, 40))
    values = np.hstack([x, x[:, :10] ** 2]).astype(np.float32)
    layer = Activations(values, np.arange(1_500) // 100)
    groups = with_controls(group(*range(5), *range(40, 45)), 50, draws=30)
    frame = mutual_information(layer, groups, ksg_controls=30, contexts=500)
    tests = group_tests(frame, "mean_information", analysis="mutual_information", keys=["estimator", "comparison"])
    assert tests.filter(pl.col("setting").str.contains("within"))["p_value"].max() == pytest.approx(1 / 31)


def test_duplicates_share_everything_and_constants_make_no_pair():
    values = drawn(positions=320, neurons=3).values.copy()
    values[:, 1], values[:, 2] = values[:, 0], 5.0
    layer = Activations(values, np.zeros(320, int))
    frame = mutual_information(layer, group(0, 1, 2))
    assert frame["mean_information"][0] == pytest.approx(np.log(16))
    assert frame["mean_information"][1] > 2
    assert frame["undefined_neurons"].to_list() == frame["pairs"].to_list() == [1, 1]
    nothing = mutual_information(layer, group(0, 2))
    assert nothing["mean_information"].null_count() == 2
    assert set(nothing["reason"]) == {"no pair of neurons has a value"}


@pytest.mark.parametrize(("positions", "said"), [(0, ["0 positions", "0 positions"]), (10, ["10 positions", None])])
def test_too_few_positions_are_said(positions, said):
    layer = Activations(drawn().values[:positions], drawn().windows[:positions])
    frame = mutual_information(layer, group(0, 1, 2))
    for reason, expected in zip(frame["reason"], said, strict=True):
        assert (reason is None) if expected is None else reason.startswith(expected)


def test_a_group_that_was_not_formed_is_a_row_with_its_reason():
    absent = table([{"group_name": "boost", "k": 90, "draw": 0, "neuron": None, "reason": "60 neurons"}], GROUP)
    frame = mutual_information(drawn(positions=50), pl.concat([absent, group(1, 2, 3, name="suppress")]))
    assert frame.filter(group_name="boost")["reason"].to_list() == ["60 neurons"] * 2


@pytest.mark.slow
def test_random_groups_of_real_neurons_are_rejected_at_the_level(real_inputs):
    """200 random groups of 10 against 19 random controls: 2–21 rejections at 5 %."""
    layer = real_layer(real_inputs, windows=8)[0]
    rejected: dict[str, int] = {}
    for seed in range(200):
        groups = with_controls(random_draws(1024, 10, 0, seed=seed), 1024, draws=19, seed=seed)
        frame = mutual_information(layer, groups, estimators=["binned"])
        tests = group_tests(frame, "mean_information", analysis="mutual_information", keys=["estimator", "comparison"])
        for row in tests.iter_rows(named=True):
            rejected[row["setting"]] = rejected.get(row["setting"], 0) + (row["p_value"] <= 0.05)
    assert rejected
    assert all(2 <= count <= 21 for count in rejected.values()), rejected
