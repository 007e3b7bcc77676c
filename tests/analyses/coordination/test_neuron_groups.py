"""Groups by sign, regime and rank, and their random controls."""

import numpy as np
import polars as pl
import pytest

from rare_tokens.analyses.coordination.activations import Activations
from rare_tokens.analyses.coordination.correlation import activation_correlation
from rare_tokens.analyses.coordination.neuron_groups import (
    GROUP,
    plateau_groups,
    settled_groups,
    sign_groups,
    stacks,
    suited_pool,
    top_groups,
    used_neurons,
    with_controls,
)
from rare_tokens.analyses.statistics import group_tests
from tests.support.layers import drawn, group


@pytest.fixture
def ranking():
    """Ten neurons; ranks run against the index; neurons 0, 3, 6 and 9 suppress, neuron 5 does neither."""
    roles = ["suppress" if neuron % 3 == 0 else "boost" for neuron in range(10)]
    roles[5] = None
    return pl.DataFrame({"neuron": range(10), "rank": range(10, 0, -1), "role": roles})


def members(frame, name, draw=0):
    return frame.filter(group_name=name, draw=draw)["neuron"].to_list()


def test_boost_and_suppress_are_the_most_influential_of_each_sign(ranking):
    frame = sign_groups(ranking, k=3)
    assert frame.schema == pl.Schema(GROUP)
    assert members(frame, "boost") == [4, 7, 8]
    assert members(frame, "suppress") == [3, 6, 9]


def test_a_group_larger_than_its_sign_is_not_formed(ranking):
    frame = sign_groups(ranking, k=5)
    assert members(frame, "boost") == [1, 2, 4, 7, 8]
    assert frame.filter(group_name="suppress").rows(named=True) == [
        {
            "group_name": "suppress",
            "k": 5,
            "draw": 0,
            "neuron": None,
            "pool": None,
            "reason": "4 neurons are of this kind; 5 are needed",
        }
    ]


def test_an_empty_token_group_forms_no_groups(ranking):
    unranked = ranking.with_columns(rank=pl.lit(None, pl.Int64), role=pl.lit(None, pl.String))
    for frame in (sign_groups(unranked, 2), plateau_groups(unranked, unranked.with_columns(regime=pl.lit("plateau")))):
        assert frame["neuron"].null_count() == len(frame) > 0
        assert frame["reason"].null_count() == 0


def signs_of(ranking, mixed, reason=None):
    """`neuron_sign` where these neurons are mixed; with a reason there is no interval."""
    held = pl.col("neuron").is_in(mixed) & pl.col("role").is_not_null()
    settled = pl.when(held).then(pl.lit("mixed")).otherwise("role") if reason is None else pl.lit(None, pl.String)
    return ranking.select("neuron", "role", settled_role=settled, reason=pl.lit(reason, pl.String))


def test_settled_groups_pass_over_the_mixed_and_take_the_next(ranking):
    frame = settled_groups(ranking, signs_of(ranking, [8, 9, 5]), k=3)
    assert frame.schema == pl.Schema(GROUP)
    assert members(frame, "boost_settled") == [2, 4, 7], "boost holds 4, 7 and 8"
    assert members(frame, "suppress_settled") == [0, 3, 6]
    assert set(frame["draw"]) == {0}
    assert frame["pool"].null_count() == len(frame)


def test_settled_groups_say_why_they_are_not_formed(ranking):
    few = settled_groups(ranking, signs_of(ranking, [9]), k=4)
    assert members(few, "boost_settled") == [2, 4, 7, 8]
    absent = few.filter(group_name="suppress_settled").row(0, named=True)
    assert (absent["neuron"], absent["k"]) == (None, 4)
    assert absent["reason"] == "3 neurons are of this kind; 4 are needed"
    alone = settled_groups(ranking, signs_of(ranking, [], "a single window: nothing to resample"), k=3)
    assert alone["group_name"].to_list() == ["boost_settled", "suppress_settled"]
    assert alone["neuron"].null_count() == 2
    assert alone["reason"].unique().to_list() == ["a single window: nothing to resample"]
    empty = settled_groups(ranking.clear(), signs_of(ranking, []).clear(), k=3)
    assert empty["reason"].unique().to_list() == ["0 neurons are of this kind; 3 are needed"]


def test_the_plateau_and_its_halves(ranking):
    regimes = ranking.select("neuron", regime=pl.when(pl.col("neuron") >= 5).then(pl.lit("plateau")))
    frame = plateau_groups(ranking, regimes)
    assert members(frame, "plateau") == [5, 6, 7, 8, 9]
    assert members(frame, "excitatory") == [7, 8]
    assert members(frame, "inhibitory") == [6, 9]
    assert dict(frame.select("group_name", "k").unique().iter_rows()) == {
        "plateau": 5,
        "excitatory": 2,
        "inhibitory": 2,
    }


def test_no_plateau_is_said(ranking):
    frame = plateau_groups(ranking, ranking.select("neuron", regime=pl.lit("power_law")))
    assert frame["reason"].to_list() == ["no neuron is of this kind"] * 3


def test_the_top_share(ranking):
    frame = top_groups(ranking, share=0.3)
    assert members(frame, "top") == [7, 8, 9]
    assert members(frame, "top_boost") == [7, 8]
    assert members(frame, "top_suppress") == [9]
    assert members(top_groups(ranking, share=0.001), "top") == [9]


def test_controls_are_of_the_same_size_and_disjoint_from_the_groups(ranking):
    frame = with_controls(sign_groups(ranking, k=3), 40, draws=25, seed=1, pool="disjoint")
    controls = frame.filter(group_name="control")
    assert controls.group_by("draw").agg(pl.col("neuron").n_unique())["neuron"].to_list() == [3] * 25
    assert not set(controls["neuron"]) & {3, 4, 6, 7, 8, 9}
    assert set(controls["neuron"]) <= set(range(40))
    whole = with_controls(sign_groups(ranking, k=3), 40, draws=200, seed=1, pool="layer")
    assert set(whole.filter(group_name="control")["neuron"]) == set(range(40))


def test_every_neuron_of_the_pool_is_drawn_equally_often():
    frame = with_controls(group(0, 1, 2, 3, 4), 25, draws=4_000, seed=2, pool="disjoint")
    counts = frame.filter(group_name="control")["neuron"].value_counts()["count"].to_numpy().astype(int)
    assert len(counts) == 20
    assert np.all(np.abs(counts - 1_000) < 4 * np.sqrt(1_000 * 0.75))


def test_more_controls_begin_with_the_fewer_and_depend_on_the_seed():
    few, many = (with_controls(group(0, 1, 2), 50, draws=draws, seed=3) for draws in (10, 300))
    assert few.equals(many.filter(pl.col("draw") <= 10))
    assert not few.equals(with_controls(group(0, 1, 2), 50, draws=10, seed=4))


def test_groups_of_two_sizes_get_controls_of_both():
    frame = with_controls(pl.concat([group(0, 1), group(2, 3, 4, name="plateau")]), 30, draws=5)
    assert {(s.group_name, s.k, len(s.members)) for s in stacks(frame)} == {
        ("boost", 2, 1),
        ("plateau", 3, 1),
        ("control", 2, 5),
        ("control", 3, 5),
    }


def test_a_layer_too_small_for_controls_says_so():
    frame = with_controls(group(0, 1, 2), 5, draws=5, pool="disjoint")
    assert frame.filter(group_name="control")["reason"].to_list() == [
        "2 neurons are outside the tested groups; a random group needs 3"
    ]
    assert stacks(frame)[1].members.shape == (1, 0)


def test_controls_come_from_the_whole_layer_where_the_groups_hold_much_of_it():
    assert suited_pool(group(*range(50)), 500) == "disjoint"
    assert suited_pool(group(*range(51)), 500) == "layer"
    frame = with_controls(group(*range(10)), 20, draws=50)
    assert set(frame.filter(group_name="control")["neuron"]) == set(range(20))


@pytest.mark.slow
def test_disjoint_controls_from_a_small_layer_reject_random_groups():
    """Why `suited_pool`: with 100 of 172 neurons tested, disjoint controls lie on the other side of the mean."""
    layer = drawn(positions=1_500, neurons=172, strength=0.3)
    rejected = dict.fromkeys(["disjoint", "layer"], 0)
    for seed in range(100):
        order = np.random.default_rng(seed).permutation(172).tolist()
        chosen = pl.concat([group(*order[:50]), group(*order[50:100], name="suppress")])
        for pool in rejected:
            frame = activation_correlation(layer, with_controls(chosen, 172, seed=seed, pool=pool), resamples=2)
            tests = group_tests(frame.filter(comparison="within"), "mean_correlation", analysis="a")
            rejected[pool] += int((tests["p_value"] <= 0.05).sum())
    assert rejected["disjoint"] > 25  # of 200; measured 38
    assert 2 <= rejected["layer"] <= 21


def test_no_controls_for_a_group_that_was_not_formed(ranking):
    assert with_controls(sign_groups(ranking, k=9), 40)["group_name"].to_list() == ["boost", "suppress"]


def test_stacks_refuse_a_draw_of_another_size():
    with pytest.raises(ValueError, match="group boost says k = 3"):
        stacks(group(1, 2, 2))
    with pytest.raises(ValueError, match="neuron 9 is outside the layer of 5"):
        used_neurons(stacks(group(1, 9)), 5)


def test_moments_of_few_and_of_many_neurons_agree():
    layer = drawn(neurons=40)
    few = layer.moments(np.array([3, 7, 20]))
    whole = drawn(neurons=40).moments(np.arange(40))
    np.testing.assert_allclose(few.correlation, whole.correlation[np.ix_([3, 7, 20], [3, 7, 20])], atol=1e-6)
    np.testing.assert_allclose(whole.correlation, np.corrcoef(layer.values.T.astype(float)), atol=1e-6)
    np.testing.assert_allclose(whole.covariance, np.cov(layer.values.T.astype(float), bias=True), atol=1e-5)


def test_a_large_mean_does_not_drown_the_correlation():
    layer = drawn(neurons=6)
    shifted = Activations(layer.values + np.float32(1_000), layer.windows)
    np.testing.assert_allclose(
        shifted.moments(np.arange(6)).correlation, np.corrcoef(shifted.values.T.astype(float)), atol=1e-6
    )


def test_constant_and_all_zero_neurons_are_undefined():
    layer = drawn(neurons=5)
    values = layer.values.copy()
    values[:, 1], values[:, 2] = 7.123, 0.0
    moments = Activations(values, layer.windows).moments(np.arange(5))
    assert moments.defined.tolist() == [True, False, False, True, True]
    assert np.all(np.isfinite(moments.correlation))
    assert np.diagonal(moments.cosine).tolist() == [1, 1, 0, 1, 1]


def test_samples_are_seeded_ordered_and_whole_where_small():
    layer = drawn(positions=300)
    sample = layer.sample(100, seed=1)
    assert sample.positions == 100
    assert np.array_equal(sample.values, layer.sample(100, seed=1).values)
    assert not np.array_equal(sample.values, layer.sample(100, seed=2).values)
    assert np.all(np.diff(sample.windows) >= 0)
    assert layer.sample(300, seed=1) is layer


def test_activations_refuse_windows_of_other_positions():
    with pytest.raises(ValueError, match="expected \\(positions, neurons\\)"):
        Activations(np.zeros((3, 2), np.float32), np.zeros(2, int))
