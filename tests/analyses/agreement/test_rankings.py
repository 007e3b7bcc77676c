"""Rank correlation and shared heads of rankings, against scipy, sets and a loop over the samples."""

import numpy as np
import pytest
from scipy import stats

from rare_tokens.analyses.agreement import rankings
from rare_tokens.analyses.agreement.rankings import Compared, agreements
from rare_tokens.analyses.curve.effect_cells import WindowSums

TOPS = {"10": 10, "50": 50, "first": 7}


def made(neurons=80, windows=12, seed=0, ties=False, noise=0.4):
    """Two rankings by like influences, over the same windows of unequal size."""
    rng = np.random.default_rng(seed)
    positions = rng.integers(1, 9, windows).astype(float)
    scale = np.exp(rng.normal(size=neurons))
    found = []
    for _ in range(2):
        sums = scale[:, None] * positions * np.exp(noise * rng.normal(size=(neurons, windows)))
        found.append(WindowSums(np.arange(neurons), positions, np.ceil(sums) if ties else sums))
    return found


def naive(first, second, weights, tops):
    """The quantities in one sample: neurons sorted as pairs, sets of them, scipy's correlation."""
    means = [(one.sums * weights).sum(axis=1) / (one.positions * weights).sum() for one in (first, second)]
    found = {"rank_correlation": stats.spearmanr(*means).statistic}
    for name, count in tops.items():
        heads = [{neuron for _, neuron in sorted(zip(-mean, range(len(mean)), strict=True))[:count]} for mean in means]
        found[f"shared_{name}"] = len(heads[0] & heads[1])
    return found


@pytest.mark.parametrize("ties", [False, True])
def test_values_and_intervals_are_those_of_a_loop_over_samples(ties, monkeypatch):
    monkeypatch.setattr(rankings, "BATCH", 80 * 7)  # several batches, the last one short
    first, second = made(ties=ties)
    if ties:
        assert len(np.unique(first.influence())) < 80
    (row,) = agreements([first, second], [Compared(0, 1, TOPS)], draws=60, seed=3)
    own = naive(first, second, np.ones(12), TOPS)
    counts = np.random.default_rng(3).multinomial(12, np.full(12, 1 / 12), size=60)
    samples = [naive(first, second, weights, TOPS) for weights in counts]
    assert row.keys() == {f"{name}{end}" for name in own for end in ("", "_low", "_high")} | {
        "windows", "draws", "reason",
    }  # fmt: skip
    for name, value in own.items():
        low, high = np.quantile([sample[name] for sample in samples], [0.025, 0.975])
        assert row[name] == pytest.approx(value, abs=1e-12)
        assert (row[f"{name}_low"], row[f"{name}_high"]) == pytest.approx((min(low, value), max(high, value)))
    assert (row["windows"], row["draws"], row["reason"]) == (12, 60, None)


def test_every_pair_uses_the_same_samples():
    first, second = made(seed=1)
    third = made(seed=2)[0]
    third = WindowSums(third.neurons, first.positions, third.sums)
    together = agreements(
        [first, second, third], [Compared(0, 1, TOPS), Compared(1, 2, TOPS), Compared(0, 2, TOPS)], draws=40, seed=0
    )
    pairs = [(first, second), (second, third), (first, third)]
    apart = [agreements(list(pair), [Compared(0, 1, TOPS)], draws=40, seed=0)[0] for pair in pairs]
    assert together == apart


def test_a_ranking_agrees_with_itself_in_every_sample():
    first, _ = made()
    (row,) = agreements([first, first], [Compared(0, 1, TOPS)], draws=40, seed=0)
    assert (row["rank_correlation_low"], row["rank_correlation_high"]) == pytest.approx((1, 1))
    assert [row[f"shared_10{end}"] for end in ("", "_low", "_high")] == [10, 10, 10]


def test_a_single_window_has_values_without_intervals():
    first, second = made(windows=1)
    (row,) = agreements([first, second], [Compared(0, 1, TOPS)], draws=40, seed=0)
    assert row["rank_correlation"] == pytest.approx(
        stats.spearmanr(first.influence(), second.influence()).statistic, abs=1e-12
    )
    assert row["reason"] == "a single window of text: nothing to resample"
    assert not [name for name in row if name.endswith(("_low", "_high"))]


def test_too_few_neurons_share_no_head():
    first, second = made(neurons=30)
    second.sums[25:] = 0  # without influence their order says nothing
    (row,) = agreements([first, second], [Compared(0, 1, TOPS)], draws=40, seed=0)
    assert "shared_10" in row
    assert not [name for name in row if name.startswith("shared_50")]
    assert row["reason"] == "fewer than 50 neurons with an influence above 0"


def test_equal_influences_have_no_ranks():
    first, second = made()
    second.sums[:] = second.positions
    (row,) = agreements([first, second], [Compared(0, 1, TOPS)], draws=40, seed=0)
    assert row == {"windows": 12, "draws": 40, "reason": "all influences are equal"}, "nor has any neuron a place"


def test_an_unknown_head_is_left_out():
    (row,) = agreements(made(), [Compared(0, 1, {"10": 10, "first": None})], draws=40, seed=0)
    assert not [name for name in row if name.startswith("shared_first")]
    assert row["reason"] is None


def test_an_interval_needs_nine_in_ten_samples():
    rare = np.full(40, np.nan)
    rare[:35] = 0.5
    assert rankings.interval_columns("x", 0.5, rare) == {}
    rare[:36] = 0.5
    assert rankings.interval_columns("x", 0.7, rare) == {"x_low": 0.5, "x_high": 0.7}
