"""The relations of regimes: fits, decisions, slopes and intervals over windows; and what bad input becomes."""

import numpy as np
import polars as pl
import polars.selectors as cs
import pytest

from rare_tokens.analyses.curve.effect_cells import WindowSums, in_group, window_sums
from rare_tokens.analyses.curve.intervals import CURVE, INFLUENCE_INTERVAL, _lines, influence_intervals
from rare_tokens.analyses.curve.power_law import auto_window, fit_line, influence_curve
from rare_tokens.analyses.curve.regimes import REGIME_DECISION, REGIME_FIT, regimes
from rare_tokens.analyses.curve.slopes import INFLUENCE_SLOPE, influence_slopes
from rare_tokens.common.errors import UserError
from studies.synthetic.curves import Truth


def influence_frame(values: np.ndarray, token_group: str = "rare") -> pl.DataFrame:
    return pl.DataFrame(
        {"preset": "es", "token_group": token_group, "neuron": np.arange(len(values)), "influence": values}
    )


def sampled(truth: Truth, windows: int = 40, seed: int = 0, spread: float = 0.3) -> WindowSums:
    """Effects by window of neurons whose true influence lies on a drawn curve, in random order."""
    rng = np.random.default_rng(seed)
    curve, _ = truth.draw(rng)
    per_window = np.exp(rng.permutation(curve)[:, None] + spread * rng.standard_normal((truth.n, windows)))
    positions = rng.integers(50, 200, windows).astype(float)
    return WindowSums(np.arange(truth.n), positions, per_window * positions)


def no_nan(frame: pl.DataFrame) -> bool:
    return bool(frame.select(pl.all_horizontal(cs.float().is_finite().fill_null(value=True).all())).item())


def test_fits_of_a_plateau_hold_windows_models_and_their_p() -> None:
    sums = sampled(Truth(1024, 0.6, plateau=17, step=1.0))
    frame = influence_frame(sums.influence())
    result = regimes(frame, {("es", "rare"): sums}, windows=[(20, 120), (5, 5), (900, 1025)], draws=199)
    fits, decision = result["regime_fit"], result["regime_decision"].row(0, named=True)
    assert dict(fits.schema) == REGIME_FIT
    assert dict(result["regime_decision"].schema) == REGIME_DECISION
    assert fits["rank_window"].to_list() == ["auto", "paper", "explicit", "explicit", "explicit"] + [None] * 12
    assert no_nan(fits)
    assert no_nan(result["regime_decision"])

    curve = influence_curve(sums.influence())
    auto = fits.row(0, named=True)
    assert [auto["first_rank"], auto["last_rank"]] == auto_window(curve).tolist()
    assert fits["reason"].to_list()[2:5] == [
        None,
        "ranks 5 to 5 are no window of 1024 ranks",
        "ranks 900 to 1025 are no window of 1024 ranks",
    ]
    explicit, line = fits.row(2, named=True), fit_line(curve, 20, 120)
    assert (explicit["kappa"], explicit["beta"], explicit["r2"]) == (line.kappa, line.beta, line.r2)
    deviation = line.deviation(curve)
    assert explicit["neurons_above_0_5"] == (deviation > 0.5).sum() >= 15
    assert explicit["share_within_0_1"] == (np.abs(deviation) < 0.1).mean()

    assert decision["decision"] == "present"
    assert decision["break_rank"] == 17
    assert decision["step_low"] < 1.0 < decision["step_high"]
    assert decision["head"] in ("level", "free")
    assert decision["errors_known"] is True
    assert decision["reason"] is None
    level = fits.filter(pl.col("head") == "level", pl.col("tail") == "loglog").row(0, named=True)
    assert level["p_value"] == decision["p_value"] == 0.005
    assert fits.filter(pl.col("head") == "none", pl.col("tail") == "none")["p_value"].to_list() == [None]


def test_a_short_curve_gives_nulls_with_reasons() -> None:
    result = regimes(influence_frame(np.exp(-np.arange(29.0))), draws=100)
    fits, decision = result["regime_fit"], result["regime_decision"].row(0, named=True)
    assert fits["kappa"].null_count() == fits.height == fits["reason"].drop_nulls().len()
    assert decision["decision"] is None
    assert "29 neurons" in decision["reason"]
    assert "standard errors" in decision["reason"]


def test_the_paper_window_needs_181_neurons() -> None:
    rng = np.random.default_rng(0)
    for n, defined in ((180, False), (181, True)):
        fits = regimes(influence_frame(rng.exponential(size=n)), draws=100)["regime_fit"]
        paper = fits.filter(pl.col("rank_window") == "paper").row(0, named=True)
        assert (paper["kappa"] is not None) == defined
        assert defined or paper["reason"] == "ranks 122 to 181 are no window of 180 ranks"


@pytest.mark.parametrize("values", [np.zeros(300), np.full(300, 0.5)])
def test_influence_without_a_curve_is_said_to_have_none(values: np.ndarray) -> None:
    result = regimes(influence_frame(values), draws=100)
    assert result["regime_fit"]["kappa"].drop_nulls().len() in (0, 1), "only the paper's line can be drawn"
    assert result["regime_decision"]["decision"].to_list() == [None]
    assert result["regime_decision"]["reason"].null_count() == 0
    assert no_nan(result["regime_fit"])
    assert no_nan(influence_slopes(influence_frame(values)))


def test_neurons_without_influence_are_left_out() -> None:
    rng = np.random.default_rng(1)
    values = np.concatenate([rng.exponential(size=200), np.zeros(100)])
    result = regimes(influence_frame(rng.permutation(values)), draws=100)
    assert set(result["regime_fit"]["ranks"]) == {200}


def test_slopes_have_one_row_a_rank() -> None:
    rng = np.random.default_rng(2)
    frame = pl.concat([influence_frame(rng.exponential(size=100), group) for group in ("rare", "common")])
    slopes = influence_slopes(frame)
    assert dict(slopes.schema) == INFLUENCE_SLOPE
    assert slopes.height == 200
    ends = slopes.filter(pl.col("local_slope").is_null() | pl.col("second_derivative").is_null())
    assert ends["reason"].null_count() == 0
    assert slopes.filter(pl.col("rank") > 60)["local_slope"].null_count() == 0
    assert influence_slopes(frame.clear()).is_empty()


def test_errors_over_windows_are_those_of_a_bootstrap() -> None:
    sums = sampled(Truth(50, 1.0, tail_at=3.0), windows=60)
    error = sums.log_error()
    assert error is not None
    resampled = np.log(sums.resampled(4_000, np.random.default_rng(0))).std(axis=0)
    assert error == pytest.approx(resampled, rel=0.1)
    assert WindowSums(sums.neurons, sums.positions[:1], sums.abs_sums[:, :1]).log_error() is None


def test_intervals_hold_the_estimate_and_widen_with_noise() -> None:
    truth = Truth(300, 1.0, plateau=10, step=1.0, tail_at=4.0)
    widths = []
    for spread in (0.1, 0.6):
        sums = sampled(truth, spread=spread)
        frame = influence_intervals("es", "rare", sums, draws=200)
        assert dict(frame.schema) == INFLUENCE_INTERVAL
        assert no_nan(frame)
        assert frame.height == len(CURVE) + 3 * 300
        curve = frame.filter(pl.col("neuron").is_null())
        assert curve["quantity"].to_list() == list(CURVE)
        line = fit_line(influence_curve(sums.influence()), *auto_window(influence_curve(sums.influence())).tolist())
        kappa = curve.row(0, named=True)
        assert (kappa["estimate"], kappa["windows"], kappa["draws"]) == (pytest.approx(line.kappa), 40, 200)
        influence = frame.filter(pl.col("quantity") == "influence")
        assert (influence["low"] < influence["estimate"]).all()
        assert (influence["estimate"] < influence["high"]).all()
        widths.append(float(np.median(np.log((influence["high"] / influence["low"]).to_numpy()))))
    assert widths[1] > 3 * widths[0]
    ranks = frame.filter(pl.col("quantity") == "rank")
    assert sorted(ranks["estimate"]) == list(range(1, 301))
    assert (ranks["low"] <= ranks["estimate"]).sum() > 270


def test_deviations_and_lines_of_many_samples_are_those_of_each() -> None:
    curves = np.stack([Truth(400, 1.0).draw(np.random.default_rng(seed))[0] + 5 for seed in range(4)])
    many = _lines(curves)
    for row, curve in enumerate(curves):
        line = fit_line(curve, *auto_window(curve).tolist())
        one = {"kappa": line.kappa, "beta": line.beta, "r2": line.r2}
        assert {name: many[name][row] for name in one} == pytest.approx(one)
        assert many["deviation"][row] == pytest.approx(line.deviation(curve))


def test_a_single_window_or_no_position_has_no_interval() -> None:
    sums = sampled(Truth(100, 1.0, tail_at=3.0), windows=1)
    single = influence_intervals("es", "rare", sums, draws=20)
    assert single["low"].null_count() == single.height == len(CURVE)
    assert set(single["reason"]) == {"a single window: nothing to resample"}
    assert single["estimate"].null_count() == 0
    empty = influence_intervals("es", "rare", "no position in the group", draws=20)
    assert set(empty["reason"]) == {"no position in the group"}


def test_a_neuron_silent_in_most_windows_is_null_with_its_reason() -> None:
    sums = sampled(Truth(100, 1.0, tail_at=3.0), windows=8)
    silent = sums.abs_sums.copy()
    silent[3, 1:] = 0.0
    frame = influence_intervals("es", "rare", WindowSums(sums.neurons, sums.positions, silent), draws=50)
    row = frame.filter(pl.col("quantity") == "deviation", pl.col("neuron") == 3).row(0, named=True)
    assert row["low"] is None
    assert "undefined in" in row["reason"]
    assert frame.filter(pl.col("neuron") != 3)["low"].null_count() == 0


def cells(rows: list[tuple[int, float, float, bool, bool, int, float]]) -> pl.DataFrame:
    names = ("window_id", "percentile_bucket", "occurrence_bucket", "is_word", "is_elbow", "positions", "abs_delta_sum")
    one = pl.DataFrame(rows, schema=list(names), orient="row")
    both = one.join(pl.DataFrame({"neuron": [0, 1]}), how="cross")
    return both.with_columns(abs_delta_sum=pl.col("abs_delta_sum") * (pl.col("neuron") + 1))


def test_cells_make_the_groups_of_the_presets() -> None:
    frame = cells(
        [
            (0, 12.5, 2.5, True, False, 1, 1.0),
            (0, 12.5, 2.5, False, False, 2, 10.0),
            (0, 15.0, 2.5, True, True, 4, 100.0),
            (1, 50.0, 47.5, True, False, 8, 1e3),
            (1, 75.0, 75.0, True, False, 16, 1e4),
        ]
    )
    expected = {
        ("es", "rare", None): 5, ("es", "common", None): 24, ("nc", "rare", None): 15, ("nc", "common", None): 16,
        ("ds", "rare", None): 3, ("ds", "common", None): 24, ("es", "rare", 15.0): 1, ("nc", "common", 5.0): 24,
    }  # fmt: skip
    for (preset, group, percentile), positions in expected.items():
        found = window_sums(frame, preset, group, percentile)
        assert isinstance(found, WindowSums)
        assert found.positions.sum() == positions, (preset, group, percentile)
        assert found.abs_sums[1].sum() == 2 * found.abs_sums[0].sum()
    assert window_sums(frame, "es", "rare", 5.0) == "no position in the group"


@pytest.mark.parametrize(
    ("preset", "group", "percentile", "said"),
    [
        ("es", "rare", 101.0, "no percentile"),
        ("es", "rare", -5.0, "no percentile"),
        ("nc", "rare", 7.0, "multiple of 5"),
        ("nc", "rare", 60.0, "influence_at"),
        ("xx", "rare", 5.0, "No token group xx rare"),
        ("es", "rear", 5.0, "No token group es rear"),
    ],
)
def test_thresholds_that_cells_cannot_answer_are_refused(preset: str, group: str, percentile: float, said: str) -> None:
    with pytest.raises(UserError, match=said):
        in_group(preset, group, percentile)
