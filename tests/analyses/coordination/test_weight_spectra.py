"""Hill exponents and spectra against WeightWatcher, powerlaw, numpy's SVD, and samples whose exponent is known."""

import numpy as np
import polars as pl
import pytest

from rare_tokens.analyses.coordination.neuron_groups import GROUP, with_controls
from rare_tokens.analyses.coordination.weight_spectra import (
    RULES,
    SPECTRAL_DENSITY,
    WEIGHT_SPECTRUM,
    alpha_interval,
    hill,
    spectral_density,
    tail_distances,
    tail_fit,
)
from rare_tokens.analyses.coordination.weight_spectra import weight_spectrum as spectrum_of
from rare_tokens.analyses.result_table import table
from rare_tokens.analyses.statistics import group_tests
from tests.support.layers import group, random_draws, real_layer

pytestmark = pytest.mark.filterwarnings("ignore:Standard error for the MLE:")  # of powerlaw, once a fit
ABSENT = "ORACLE ABSENT: install weightwatcher==0.7.7, powerlaw==2.0"
WIDE = {"alpha": [0, 50]}  # powerlaw 2.0 by itself caps the density exponent at 3


def pareto(alpha, count, seed=0):
    """A descending sample with λ_min = 1."""
    return np.sort(np.random.default_rng(seed).pareto(alpha, count) + 1)[::-1]


@pytest.mark.parametrize("alpha", [0.8, 2.0, 6.0])
def test_alpha_and_distance_of_every_tail_are_weightwatchers(alpha):
    fits = pytest.importorskip("weightwatcher.WW_powerlaw", reason=ABSENT)
    spectrum = pareto(alpha, 250)
    expected = fits.WWFit(spectrum)  # every λ_min but the largest, ascending
    alphas, _ = hill(spectrum)
    np.testing.assert_allclose(alphas[:0:-1] + 1, expected.alphas, rtol=1e-9)  # it prints the density's exponent, α + 1
    distances = tail_distances(spectrum, np.arange(250, 1, -1), alphas[:0:-1])
    np.testing.assert_allclose(distances, expected.Ds, atol=1e-12)


@pytest.mark.parametrize("alpha", [1.2, 2.0, 6.0])
@pytest.mark.parametrize("rule", ["mid", "tenth"])
def test_alpha_and_distance_are_powerlaws_for_the_same_lambda_min(alpha, rule):
    powerlaw = pytest.importorskip("powerlaw", reason=ABSENT)
    spectrum = pareto(alpha, 250)
    found = tail_fit(spectrum, rule)
    expected = powerlaw.Fit(spectrum.copy(), xmin=found["lambda_min"], verbose=False, parameter_ranges=WIDE).power_law
    assert found["density_exponent"] == pytest.approx(expected.alpha, rel=1e-4)  # above 3 it optimises numerically
    assert found["distance"] == pytest.approx(expected.D, abs=1e-4)


def powerlaw_in(spectrum, low, high):
    import powerlaw

    return powerlaw.Fit(spectrum.copy(), xmin=(low, high), verbose=False, parameter_ranges=WIDE)


def published_fix_finger(spectrum, monkeypatch):
    """λ_min and α + 1 of WeightWatcher's own code, whose call of powerlaw no longer fits powerlaw 2.0."""
    watcher = pytest.importorskip("weightwatcher.weightwatcher", reason=ABSENT)
    monkeypatch.setattr(watcher, "pl_fit", lambda data, xmin, **_: powerlaw_in(data, *xmin))
    fit = watcher.WeightWatcher().fit_powerlaw(
        spectrum[::-1], plot=False, fix_fingers="xmin_peak", pl_package="powerlaw"
    )
    assert fit[9] == "success"
    return fit[2], fit[0]


def candidates(spectrum):
    counts, edges = np.histogram(np.log10(spectrum), bins=100)
    peak = 10 ** edges[np.argmax(counts)]
    return peak, spectrum[(spectrum >= 0.95 * peak) & (spectrum <= 1.5 * peak)]


@pytest.mark.slow
def test_fix_finger_is_weightwatchers_where_the_lower_ends_admit_the_same(monkeypatch):
    """The published lower end is log10(0.95 · peak): the same candidates if no eigenvalue lies between the two."""
    compared = 0
    for seed in range(12):
        spectrum = pareto(3.0, 300, seed)
        peak, inside = candidates(spectrum)
        found = tail_fit(spectrum, "fix_finger")
        between = (spectrum >= np.log10(0.95 * peak)) & (spectrum < 0.95 * peak)
        if between.any() or found["lambda_min"] == inside.max():  # powerlaw leaves out the largest candidate
            continue
        lambda_min, exponent = published_fix_finger(spectrum, monkeypatch)
        assert found["lambda_min"] == pytest.approx(lambda_min, rel=1e-12)
        assert found["density_exponent"] == pytest.approx(exponent, rel=1e-4)
        compared += 1
    assert compared >= 5


@pytest.mark.slow
def test_fix_finger_keeps_to_its_window_where_the_published_code_does_not(monkeypatch):
    """A bump at 3 on a power law from 1: log10(0.95 · peak) is below 1, and the published code leaves the peak."""
    outside = 0
    for seed in range(8):
        bump = np.random.default_rng(seed).uniform(3, 3.1, 60)
        spectrum = np.sort(np.concatenate([pareto(2.0, 300, seed), bump]))[::-1]
        peak, inside = candidates(spectrum)
        assert 2.7 < peak < 3.2
        found = tail_fit(spectrum, "fix_finger")
        assert 0.95 * peak <= found["lambda_min"] <= 1.5 * peak
        tails = np.array([np.sum(spectrum >= value) for value in inside])
        assert found["distance"] == pytest.approx(tail_distances(spectrum, tails, hill(spectrum)[0][tails - 1]).min())
        right = powerlaw_in(spectrum, 0.95 * peak, np.nextafter(1.5 * peak, np.inf))
        assert found["distance"] <= right.D + 1e-4
        outside += published_fix_finger(spectrum, monkeypatch)[0] < 0.95 * peak
    assert outside >= 3


@pytest.mark.parametrize("count", [60, 61])
def test_mid_takes_the_larger_half_alphapruning_one_more_of_an_odd_number(count):
    spectrum = pareto(2.0, count)
    ascending, i = spectrum[::-1], count // 2
    tail = count - i  # of AlphaPruning
    expected = 1 + tail / (np.log(ascending[i:]).sum() - tail * np.log(ascending[i]))
    alphas = hill(spectrum)[0]
    assert alphas[tail - 1] + 1 == pytest.approx(expected)
    assert tail_fit(spectrum, "mid")["tail_size"] == count // 2 == tail - count % 2
    assert tail_fit(spectrum, "tenth")["tail_size"] == 6


def covered(alpha, rule, count):
    """Of 200 Pareto samples, how many intervals hold the exponent, and the median estimate."""
    hits, estimates = 0, []
    for seed in range(200):
        spectrum = pareto(alpha, count, seed)
        fit = tail_fit(spectrum, rule)
        fit |= alpha_interval(spectrum, rule, fit, seed)
        hits += fit["alpha_low"] <= alpha <= fit["alpha_high"]
        estimates.append(fit["alpha"])
        assert fit["alpha_low"] < fit["alpha"] < fit["alpha_high"]
    return hits, np.median(estimates)


@pytest.mark.parametrize("alpha", [1.5, 4.0])
@pytest.mark.parametrize("rule", ["mid", "tenth"])
def test_the_interval_covers_the_exponent_of_pareto_samples(alpha, rule):
    hits, median = covered(alpha, rule, 600)
    assert 182 <= hits <= 197
    assert median == pytest.approx(alpha, rel=0.03)


@pytest.mark.slow
@pytest.mark.parametrize(("alpha", "count"), [(1.5, 600), (4.0, 600), (1.0, 50), (2.0, 50), (6.0, 50)])
def test_the_interval_of_fix_finger_covers_though_it_looks_for_its_tail(alpha, count):
    hits, median = covered(alpha, "fix_finger", count)
    assert 182 <= hits <= 197
    assert median == pytest.approx(alpha, rel=0.1)


def test_group_and_layer_spectra_are_squared_singular_values():
    rows = np.random.default_rng(1).standard_normal((40, 12))
    groups = with_controls(group(0, 5, 9, 11, 20), 40, draws=3)
    frame = spectrum_of({"w_out": rows}, groups, rules=["mid"])
    assert frame.schema == pl.Schema(WEIGHT_SPECTRUM)
    assert frame["group_name"].to_list() == ["layer", "boost"] + ["control"] * 3
    for row in frame.iter_rows(named=True):
        chosen = range(40) if row["group_name"] == "layer" else groups.filter(
            group_name=row["group_name"], draw=row["draw"]
        )["neuron"].to_list()  # fmt: skip
        expected = np.linalg.svd(rows[list(chosen)], compute_uv=False) ** 2 / 12
        assert row["eigenvalues"] == len(expected)
        assert row["largest_eigenvalue"] == pytest.approx(expected[0])
        tail = len(expected) // 2
        assert row["alpha"] == pytest.approx(1 / np.mean(np.log(expected[:tail] / expected[tail - 1])))
        assert row["lambda_min"] == pytest.approx(expected[tail - 1])


def test_exponents_do_not_depend_on_scale_or_order():
    rows = np.random.default_rng(2).standard_normal((60, 30)) * np.random.default_rng(3).pareto(1.5, (60, 1))
    groups = group(*range(45))
    frame = spectrum_of({"w_in": rows}, groups)
    order = np.random.default_rng(4).permutation(45)
    mixed = spectrum_of({"w_in": 7 * np.vstack([rows[order], rows[45:]])}, groups)
    np.testing.assert_allclose(frame["alpha"].to_numpy(), mixed["alpha"].to_numpy(), rtol=1e-6)
    np.testing.assert_allclose(49 * frame["lambda_min"].to_numpy(), mixed["lambda_min"].to_numpy(), rtol=1e-6)
    for column in ("equal_aspect_alpha", "equal_aspect_sd"):
        np.testing.assert_allclose(frame[column].to_numpy(), mixed[column].to_numpy(), rtol=1e-6)


def test_standardised_rows_have_mean_0_and_variance_1():
    rows = np.random.default_rng(5).standard_normal((20, 300)) * np.arange(1, 21)[:, None] + 4
    rows[3] = 2.0
    frame = spectrum_of({"w_out": rows}, group(*range(12)), standardised=True, rules=["mid"])
    tidy = np.delete(rows[:12], 3, axis=0)
    tidy = (tidy - tidy.mean(axis=1, keepdims=True)) / tidy.std(axis=1, keepdims=True)
    assert frame["largest_eigenvalue"][1] == pytest.approx(np.linalg.svd(tidy, compute_uv=False)[0] ** 2 / 300)
    assert frame["eigenvalues"][1] == 11  # a constant row has no direction
    assert frame["standardised"].all()


def test_duplicated_neurons_and_groups_larger_than_the_width_have_fewer_eigenvalues():
    rows = np.random.default_rng(6).standard_normal((30, 10))
    rows[1] = rows[0]
    frame = spectrum_of({"w_out": rows}, pl.concat([group(0, 1, 2, 3, 4), group(*range(10, 30), name="suppress")]))
    counts = dict(frame.group_by("group_name").agg(pl.col("eigenvalues").first()).iter_rows())
    assert counts == {"layer": 10, "boost": 4, "suppress": 10}


def test_too_few_or_equal_eigenvalues_are_null_with_their_reason():
    rows = np.eye(12)
    rows[8:] = 0
    frame = spectrum_of({"w_out": rows}, pl.concat([group(0, 1, 2, 3, 4, 5), group(7, 8, 9, name="suppress")]))
    assert frame["reason"].str.ends_with("× 12").all(), "none has a sub-matrix of 20 columns"
    own = pl.col("reason").str.replace("; no exponent of equal aspect.*", "")
    said = {(row["group_name"], row["rule"]): row["reason"] for row in frame.with_columns(own).iter_rows(named=True)}
    assert said["boost", "mid"] == "the 3 largest eigenvalues are equal"
    assert said["boost", "tenth"] == "6 eigenvalues are above zero; rule tenth needs at least 20"
    assert said["boost", "fix_finger"].startswith("no eigenvalue but the largest")
    assert said["suppress", "fix_finger"] == "1 eigenvalues are above zero; rule fix_finger needs at least 2"
    assert frame["alpha"].null_count() == len(frame)
    zero = spectrum_of({"w_out": np.zeros((5, 4))}, group(0, 1))
    assert zero["reason"].null_count() == 0


def test_equal_eigenvalues_at_the_threshold_are_all_in_the_tail():
    spectrum = np.array([9.0, 8.0, 7.0, 1.1, 1.0, 1.0, 1.0, 1.0])
    assert tail_fit(spectrum, "fix_finger")["tail_size"] in (4, 8)


def test_a_group_that_was_not_formed_is_a_row_with_its_reason():
    absent = table([{"group_name": "boost", "k": 90, "draw": 0, "neuron": None, "reason": "60 neurons"}], GROUP)
    frame = spectrum_of({"w_out": np.random.default_rng(7).standard_normal((60, 20))}, absent)
    assert frame.filter(group_name="boost")["reason"].to_list() == ["60 neurons"] * 3
    density = spectral_density({"w_out": np.random.default_rng(7).standard_normal((60, 20))}, absent)
    assert density.filter(group_name="boost")["reason"].to_list() == ["60 neurons"]


def test_the_density_counts_every_eigenvalue_once_and_integrates_to_one():
    rows = np.random.default_rng(8).standard_normal((64, 32))
    frame = spectral_density({"w_out": rows}, with_controls(group(*range(6)), 64, draws=3), bins=20)
    assert frame.schema == pl.Schema(SPECTRAL_DENSITY)
    assert frame["group_name"].unique(maintain_order=True).to_list() == ["layer", "boost"]
    width = pl.col("log10_right") - pl.col("log10_left")
    sums = frame.group_by("group_name", maintain_order=True).agg(
        pl.col("eigenvalues").sum(), area=(pl.col("density") * width).sum()
    )
    assert sums["eigenvalues"].to_list() == [32, 6]
    assert sums["area"].to_list() == pytest.approx([1, 1])
    eigenvalues = np.log10(np.linalg.eigvalsh(rows.T @ rows / 32))
    assert np.array_equal(frame.filter(group_name="layer")["eigenvalues"], np.histogram(eigenvalues, bins=20)[0])
    assert "no eigenvalue" in spectral_density({"w_out": np.zeros((4, 3))}, group(0, 1))["reason"][0]


def test_a_heavy_tailed_group_stands_out():
    rng = np.random.default_rng(9)
    rows = rng.standard_normal((300, 100))
    rows[:40] *= rng.pareto(1.0, (40, 1)) + 1
    frame = spectrum_of({"w_out": rows}, with_controls(group(*range(40)), 300, draws=99, pool="disjoint"))
    tests = group_tests(frame, "alpha", analysis="weight_spectrum", keys=["matrix", "rule"],
                        interval=("alpha_low", "alpha_high"))  # fmt: skip
    assert tests["setting"].to_list() == [f"matrix=w_out, rule={rule}" for rule in RULES]
    mid = tests.row(1, named=True)
    assert mid["p_value"] == pytest.approx(0.01)
    assert mid["value"] < mid["reference_mean"]
    assert mid["low"] < mid["value"] < mid["high"]


@pytest.mark.slow
def test_random_groups_of_real_neurons_are_rejected_at_the_level(real_inputs):
    """200 random groups of 50 against 100 random controls, per rule: 2–21 rejections at 5 %."""
    weights = {"w_out": real_layer(real_inputs, windows=1)[1]}
    rejected = dict.fromkeys(RULES, 0)
    for seed in range(200):
        groups = with_controls(random_draws(1024, 50, 0, seed=seed), 1024, draws=100, seed=seed)
        tests = group_tests(spectrum_of(weights, groups), "alpha", analysis="weight_spectrum", keys=["rule"])
        for rule, p in zip(RULES, tests["p_value"], strict=True):
            rejected[rule] += p <= 0.05
    assert all(2 <= count <= 21 for count in rejected.values()), rejected
