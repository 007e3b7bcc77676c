"""Partners of neurons in another run against numpy, and what is said where there are none."""

import numpy as np
import polars as pl
import pytest
from scipy import stats

from rare_tokens.analyses.across_runs.neuron_match import (
    CONSTANT,
    NEURON_MATCH,
    NO_HEAD,
    PLATEAU_MATCH,
    SINGLE_WINDOW,
    Activations,
    neuron_match,
    plateau_match,
    unmatched,
)

WINDOWS, LENGTH = 12, 20


def pair(seed=0, noise=0.3):
    """A layer, and one whose neurons are these in another order, some mirrored, with noise and two more neurons."""
    rng = np.random.default_rng(seed)
    one = rng.normal(3, 2, (WINDOWS * LENGTH, 9)).astype(np.float32)
    order = rng.permutation(9)
    other = one[:, order] * rng.choice([-1, 1], 9) + rng.normal(0, noise, one.shape)
    other = np.hstack([other, rng.normal(size=(len(one), 2))]).astype(np.float32)
    window = np.repeat(np.arange(WINDOWS) * 3, LENGTH)
    return Activations(one, window), Activations(other, window), order


def test_partners_are_those_that_compute_the_same_whatever_the_order_and_the_sign():
    one, other, order = pair()
    forth, back = neuron_match(one, other, draws=20)
    assert forth["other_neuron"].to_list() == np.argsort(order).tolist()
    assert back["other_neuron"].to_list()[:9] == order.tolist()
    assert forth["is_mutual"].all()
    assert back["is_mutual"].to_list()[:9] == [True] * 9
    assert not any(back["is_mutual"].to_list()[9:])
    assert (forth["correlation"].abs() > 0.9).all()
    assert (back["correlation"].abs().to_numpy()[9:] < 0.3).all()


def test_correlations_and_partners_are_numpys():
    one, other, _ = pair(seed=2, noise=3.0)
    matrix = np.corrcoef(one.values.T.astype(float), other.values.T.astype(float))[:9, 9:]
    forth, back = neuron_match(one, other, draws=20)
    assert forth["other_neuron"].to_list() == np.abs(matrix).argmax(axis=1).tolist()
    assert back["other_neuron"].to_list() == np.abs(matrix).argmax(axis=0).tolist()
    for row in forth.iter_rows(named=True):
        assert row["correlation"] == pytest.approx(matrix[row["neuron"], row["other_neuron"]], abs=1e-5)
        assert row["correlation_low"] <= row["correlation"] <= row["correlation_high"]
    assert forth.schema == pl.Schema(NEURON_MATCH)
    assert (forth["windows"][0], forth["positions"][0]) == (WINDOWS, WINDOWS * LENGTH)


def test_intervals_are_those_of_positions_repeated_with_their_windows():
    one, other, _ = pair(seed=4, noise=2.0)
    forth, _ = neuron_match(one, other, draws=50, seed=9)
    drawn = np.random.default_rng(9).multinomial(WINDOWS, np.full(WINDOWS, 1 / WINDOWS), size=50)
    partner = forth["other_neuron"][4]
    values = []
    for counts in drawn:
        rows = [w * LENGTH + i for w, times in enumerate(counts) for _ in range(times) for i in range(LENGTH)]
        values.append(np.corrcoef(one.values[rows, 4], other.values[rows, partner])[0, 1])
    low, high = np.quantile(values, [0.025, 0.975])
    assert forth["correlation_low"][4] == pytest.approx(low, abs=1e-4)
    assert forth["correlation_high"][4] == pytest.approx(high, abs=1e-4)


def test_what_chance_gives_is_the_best_correlation_on_text_that_does_not_fit():
    one, other, _ = pair(seed=5)
    forth, _ = neuron_match(one, other, draws=10, rotations=3)
    expected = np.zeros(9)
    for shift in (3, 6, 9):  # windows
        rotated = np.concatenate([other.values[shift * LENGTH :], other.values[: shift * LENGTH]]).astype(float)
        expected += np.abs(np.corrcoef(one.values.T, rotated.T)[:9, 9:]).max(axis=1) / 3
    assert forth["chance_correlation"].to_numpy() == pytest.approx(expected, abs=1e-5)
    assert (forth["chance_correlation"] < 0.4).all()


def test_a_neuron_that_does_not_vary_and_a_single_window_say_so():
    one, other, _ = pair()
    still = one.values.copy()
    still[:, 2] = 0.7
    forth, _ = neuron_match(Activations(still, one.window), other, draws=10)
    assert forth["reason"].to_list() == [None, None, CONSTANT, *[None] * 6]
    assert forth.row(2)[:5] == (None, 2, None, None, None)
    window = np.zeros(len(one.window), dtype=int)
    forth, _ = neuron_match(Activations(one.values, window), Activations(other.values, window), draws=10)
    assert set(forth["reason"]) == {SINGLE_WINDOW}
    assert forth["correlation_low"].null_count() == forth["chance_correlation"].null_count() == 9
    assert forth["correlation"].null_count() == 0


def ranked(neurons):
    """`neuron_influence` with neurons in this order."""
    key = {"preset": ["es"] * len(neurons), "token_group": ["rare"] * len(neurons)}
    return pl.DataFrame(key | {"neuron": neurons, "rank": range(1, len(neurons) + 1)})


def test_matched_heads_are_counted_by_plain_sets():
    one, other, order = pair()
    forth, _ = neuron_match(one, other, draws=10)
    ranks = ranked([0, 1, 2, 3, 4, 5, 6, 7, 8]), ranked([*np.argsort(order)[[1, 5, 0]].tolist(), 9, 10])
    row = plateau_match(forth, ranks, ({("es", "rare"): 4}, {("es", "rare"): 3})).row(0, named=True)
    assert (row["first"], row["other_first"], row["matched"]) == (4, 3, 2)  # neurons 0 and 1
    assert row["expected"] == pytest.approx(4 * 3 / 5)
    assert row["p_value"] == pytest.approx(stats.binomtest(2, 4, 3 / 5, alternative="greater").pvalue)
    assert row["head_correlation"] == pytest.approx(forth["correlation"].abs()[:4].mean())
    without = plateau_match(forth, ranks, ({("es", "rare"): 4}, {})).row(0, named=True)
    assert (without["matched"], without["reason"]) == (None, NO_HEAD)


def test_runs_that_cannot_be_matched_have_one_row_with_the_reason():
    matches, plateaus = unmatched("other positions")
    assert matches.schema == pl.Schema(NEURON_MATCH)
    assert plateaus.schema == pl.Schema(PLATEAU_MATCH)
    assert (len(matches), matches["neuron"][0], matches["reason"][0]) == (1, None, "other positions")
