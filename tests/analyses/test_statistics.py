"""Tests of significance: against brute force, against known error rates, and at their edges."""

from itertools import combinations

import numpy as np
import polars as pl
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from rare_tokens.analyses.result_table import table
from rare_tokens.analyses.statistics import (
    GROUP_TEST,
    cohens_d,
    control_p,
    control_test,
    controls_needed,
    corrected,
    group_tests,
    mann_whitney,
    permutation_p,
    window_interval,
)


@pytest.mark.parametrize(
    ("value", "alternative", "expected"),
    [
        (5.0, "greater", 1 / 20),
        (5.0, "less", 1.0),
        (5.0, "two-sided", 1 / 20),
        (-5.0, "less", 1 / 20),
        (-5.0, "two-sided", 1 / 20),
        (0.9, "greater", 2 / 20),  # a tie counts as extreme
        (0.0, "two-sided", 1.0),
    ],
)
def test_control_p_counts_the_random_groups_as_extreme(value, alternative, expected):
    controls = np.linspace(-0.9, 0.9, 19)
    assert control_p(value, controls, alternative) == pytest.approx(expected)


def test_control_p_holds_its_level_whatever_the_distribution():
    rng = np.random.default_rng(0)
    for draw in (rng.standard_normal, rng.standard_cauchy, rng.standard_exponential):
        p = np.array([control_p(row[0], row[1:]) for row in draw((2_000, 40))])
        # Exact under exchangeability: P(p ≤ 0.05) is 2/40; the bounds are its 0.1 % and 99.9 % quantiles.
        assert 70 <= np.sum(p <= 0.05) <= 132


def test_control_p_is_conservative_on_ties():
    rng = np.random.default_rng(1)
    draws = rng.integers(0, 4, (2_000, 40)).astype(float)
    assert np.mean([control_p(row[0], row[1:]) <= 0.05 for row in draws]) <= 0.06


def test_equal_values_from_different_roundings_are_ties():
    controls = np.full(19, 0.1 + 0.2)
    controls[0] = 0.5
    assert control_p(0.3, controls, "less") == pytest.approx(19 / 20)


@pytest.mark.parametrize(
    ("value", "controls", "said"),
    [
        (1.0, [0.1 * i for i in range(18)], "18 random groups have a value; a p of 0.05 needs 19"),
        (1.0, [None] * 30, "0 random groups have a value"),
        (2.0, [2.0] * 30, "have the same value"),
    ],
)
def test_control_test_says_why_there_is_no_p(value, controls, said):
    row = control_test(value, controls)
    assert "p_value" not in row
    assert said in row["reason"]


def test_control_test_of_an_undefined_value_has_no_p():
    assert "p_value" not in control_test(None, [1.0, 2.0] * 20)


def test_controls_needed_reaches_the_level_and_one_fewer_does_not():
    for tests in (1, 3, 6, 7):
        needed = controls_needed(0.05, tests)
        assert tests / (1 + needed) <= 0.05 + 1e-12
        assert tests / needed > 0.05


def test_cohens_d_of_two_samples_and_of_one_value():
    x, y = np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 6.0, 8.0])
    pooled = np.sqrt((2 * 1.0 + 3 * np.var(y, ddof=1)) / 5)
    assert cohens_d(x, y) == pytest.approx((2 - 5) / pooled)
    assert cohens_d(np.array([9.0]), y) == pytest.approx((9 - 5) / np.std(y, ddof=1))
    assert cohens_d(np.array([9.0]), np.array([1.0])) is None
    assert cohens_d(x * 0, y * 0) is None


def test_mann_whitney_counts_the_pairs_won():
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal(30) + 0.7, rng.standard_normal(40)
    row = mann_whitney(x, y, ("a", "b"), exchangeable=True)
    assert row["test_statistic"] == np.sum(x[:, None] > y[None, :])
    assert row["p_value"] == pytest.approx(stats.ranksums(x, y).pvalue, rel=0.03)  # which has no continuity correction
    assert (row["sample"], row["reference"], row["exchangeable"]) == ("a", "b", True)


def test_mann_whitney_refuses_one_value_and_equal_values():
    assert "p_value" not in mann_whitney(np.array([1.0]), np.arange(100.0), ("a", "b"), exchangeable=True)
    row = mann_whitney(np.ones(5), np.ones(5), ("a", "b"), exchangeable=True)
    assert "p_value" not in row
    assert "the same" in row["reason"]


def _tests(p_values, controls=1_000, test="control"):
    rows = [
        {"analysis": "a", "statistic": "s", "test": test, "reference_size": controls, "p_value": p} for p in p_values
    ]
    return table(rows, GROUP_TEST)


def test_corrections_by_hand():
    frame = corrected(_tests([0.01, 0.04, 0.03, None]))
    assert frame["tests"].to_list() == [3] * 4
    assert frame["p_bonferroni"].to_list()[:3] == pytest.approx([0.03, 0.12, 0.09])
    assert frame["p_holm"].to_list()[:3] == pytest.approx([0.03, 0.06, 0.06])
    assert frame["p_holm"][3] is None


@pytest.mark.parametrize("method", ["bonferroni", "holm"])
def test_corrections_are_those_of_statsmodels(method, monkeypatch):
    monkeypatch.setattr("gc.collect", lambda: 0)  # which it calls each time, at half a second in a process of this size
    rng = np.random.default_rng(7)
    p = np.round(rng.random((40, 9)) ** 3, 2)  # with ties
    frames = [_tests(row).with_columns(setting=pl.lit(str(i))) for i, row in enumerate(p)]
    frame = corrected(pl.concat(frames))
    expected = np.concatenate([multipletests(row, method=method)[1] for row in p])
    np.testing.assert_allclose(frame[f"p_{method}"].to_numpy(), expected)


def test_families_are_corrected_apart():
    both = pl.concat([_tests([0.01, 0.02]), _tests([0.03], test="mann_whitney")])
    assert corrected(both)["p_bonferroni"].to_list() == pytest.approx([0.02, 0.04, 0.03])


def test_each_test_names_its_family_in_words():
    """As migration `families` writes it for results that are stored already."""
    set_apart = _tests([0.03], test="mann_whitney").with_columns(setting=pl.lit("rule=mid"))
    frame = corrected(pl.concat([_tests([0.01, None]).with_columns(setting=pl.lit("")), set_apart]))
    assert frame["family"].to_list() == [
        "control tests of a.s: groups of one preset and positions of one run",
        "control tests of a.s: groups of one preset and positions of one run",
        "mann_whitney tests of a.s, rule=mid: groups of one preset and positions of one run",
    ]
    assert frame["tests"].to_list() == [1, 1, 1]


def test_a_correction_that_cannot_reach_its_level_is_not_printed():
    frame = corrected(_tests([1 / 101] * 6, controls=100))
    assert frame["p_bonferroni"].null_count() == frame["p_holm"].null_count() == 6
    assert frame["p_value"].null_count() == 0
    assert "100 random groups cannot reach 0.05 over 6 tests: 119 are needed" in frame["reason"][0]
    assert corrected(_tests([1 / 101] * 6, controls=119))["p_bonferroni"].null_count() == 0


def test_group_tests_compare_a_group_with_the_controls_of_its_size_and_setting():
    rows = [
        {"group_name": "control", "k": k, "draw": draw, "rule": rule, "alpha": k + draw / 100 + shift, "reason": None}
        for k in (5, 9)
        for draw in range(1, 41)
        for rule, shift in (("mid", 0.0), ("tenth", 100.0))
    ]
    rows += [
        {"group_name": "boost", "k": 9, "draw": 0, "rule": "mid", "alpha": 9.2, "reason": None},
        {"group_name": "boost", "k": 9, "draw": 0, "rule": "tenth", "alpha": 9.2, "reason": None},
        {"group_name": "plateau", "k": 7, "draw": 0, "rule": "mid", "alpha": None, "reason": "no such neuron"},
        {"group_name": "lonely", "k": 7, "draw": 0, "rule": "mid", "alpha": 3.0, "reason": None},
    ]
    tests = group_tests(
        pl.DataFrame(rows, infer_schema_length=None), "alpha", analysis="weight_spectrum", keys=["rule"]
    )
    assert tests.schema == pl.Schema(GROUP_TEST)
    found = {(row["group_name"], row["setting"]): row for row in tests.iter_rows(named=True)}
    assert found["boost", "rule=mid"]["p_value"] > 0.9
    assert found["boost", "rule=tenth"]["p_value"] == pytest.approx(1 / 41)
    assert found["boost", "rule=mid"]["reference_mean"] == pytest.approx(9.205)
    assert found["plateau", "rule=mid"]["p_value"] is None
    assert found["plateau", "rule=mid"]["reason"] == "no such neuron"
    assert "0 random groups have a value" in found["lonely", "rule=mid"]["reason"]


def test_window_interval_of_a_mean_is_the_normal_one():
    values = np.random.default_rng(3).standard_normal(400)
    expected = stats.norm.interval(0.95, values.mean(), values.std() / 20)
    for method in ("percentile", "BCa"):
        found = window_interval(lambda counts: counts @ values / 400, 400, method=method, resamples=4_000)
        assert found == pytest.approx(expected, abs=0.01)


def test_bca_leans_with_the_skew_and_the_percentile_does_not():
    values = np.random.default_rng(4).standard_exponential(40) ** 2

    def mean(counts):
        return counts @ values / 40

    low, high = window_interval(mean, 40, method="percentile")
    assert window_interval(mean, 40, method="BCa")[1] > high
    assert window_interval(mean, 40, method="BCa")[0] > low
    assert window_interval(mean, 40, seed=0) == window_interval(mean, 40, seed=0) != window_interval(mean, 40, seed=1)


def test_window_interval_is_none_where_windows_say_nothing():
    assert window_interval(lambda counts: counts[:, 0], 1) is None
    for method in ("percentile", "BCa"):
        assert window_interval(lambda counts: np.full(len(counts), np.nan), 9, method=method) is None
    assert window_interval(lambda counts: np.ones(len(counts)), 9, method="BCa") is None


@pytest.mark.slow
def test_the_window_bootstrap_covers_where_positions_alone_do_not():
    """Tokens of a window share a shift: resampling positions one by one gives intervals several times too narrow."""
    rng = np.random.default_rng(5)
    windows, width = 40, 16
    covered = {"windows": 0, "positions": 0}
    for seed in range(200):
        values = (rng.standard_normal(windows)[:, None] + rng.standard_normal((windows, width))) * 0.3
        sums, flat = values.sum(axis=1), values.ravel()
        whole = window_interval(lambda c, sums=sums: c @ sums / (c.sum(1) * width), windows, seed=seed, resamples=400)
        apart = window_interval(lambda c, flat=flat: c @ flat / c.sum(1), flat.size, seed=seed, resamples=400)
        covered["windows"] += whole[0] <= 0 <= whole[1]
        covered["positions"] += apart[0] <= 0 <= apart[1]
    assert 176 <= covered["windows"] <= 199
    assert covered["positions"] < 120


def test_permutation_p_equals_the_enumeration():
    x, y = np.array([2.1, 3.0, 4.2, 1.9]), np.array([0.3, 2.0, 1.1])
    both = np.concatenate([x, y])
    observed = x.mean() - y.mean()
    shuffled = [both[list(c)].mean() - np.delete(both, list(c)).mean() for c in combinations(range(7), 4)]
    assert permutation_p(x, y, alternative="greater") == pytest.approx(np.mean(np.array(shuffled) >= observed - 1e-12))


def test_paired_permutation_flips_signs():
    rng = np.random.default_rng(6)
    x = rng.standard_normal(8)
    y = x - np.abs(rng.standard_normal(8))
    assert permutation_p(x, y, paired=True) == pytest.approx(2 / 2**8)
    assert permutation_p(x, y) > 0.05


def test_permutation_p_is_none_without_two_units_or_without_spread():
    assert permutation_p(np.array([1.0]), np.arange(3.0)) is None
    assert permutation_p(np.ones(4), np.ones(4)) is None


def test_a_table_never_holds_nan_and_says_what_was_not_finite():
    frame = table(
        [{"x": float("nan"), "reason": None}, {"x": float("inf"), "reason": "said"}, {"x": 1.0, "reason": None}],
        {"x": pl.Float64, "reason": pl.String},
    )
    assert frame["x"].to_list() == [None, None, 1.0]
    assert frame["reason"].to_list() == ["the value is not finite", "said", None]
