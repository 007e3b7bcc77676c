"""The relations of regimes: fits, decisions, slopes and intervals over windows; and what bad input becomes."""

import numpy as np
import polars as pl
import polars.selectors as cs
import pytest

from rare_tokens.analyses.curve.effect_cells import GroupSums, WindowSums, group_sums, in_group, window_sums
from rare_tokens.analyses.curve.intervals import CURVE, INFLUENCE_INTERVAL, NEURON, influence_intervals
from rare_tokens.analyses.curve.middle_piece import middle_piece
from rare_tokens.analyses.curve.power_law import power_law
from rare_tokens.analyses.curve.ranked_curve import fit_line, influence_curve
from rare_tokens.analyses.curve.regimes import REGIME_DECISION, REGIME_FIT, regimes
from rare_tokens.analyses.curve.slopes import INFLUENCE_SLOPE, influence_slopes
from rare_tokens.common.errors import UserError
from studies.synthetic.curves import Truth


def influence_frame(sums: GroupSums, token_group: str = "rare") -> pl.DataFrame:
    """`neuron_influence` of one token group."""
    mean = sums.signed.mean()
    sign = pl.Series(["suppress", None, "boost"]).gather(np.sign(mean).astype(int) + 1)
    return pl.DataFrame(
        {
            "preset": "es", "token_group": token_group, "neuron": sums.signed.neurons,
            "influence": sums.absolute.mean(), "abs_mean_delta_loss": np.abs(mean), "role": sign,
        }
    )  # fmt: skip


def flat(values: np.ndarray, windows: int = 4) -> GroupSums:
    """Effects that are the same in every window, every second neuron suppress."""
    sums = np.repeat(values[:, None], windows, axis=1)
    sign = np.where(np.arange(len(values)) % 2, -1, 1)[:, None]
    ones = np.ones(windows)
    return GroupSums(*(WindowSums(np.arange(len(values)), ones, one) for one in (sums, sign * sums)))


def decided(sums: GroupSums, **more: object) -> dict[str, pl.DataFrame]:
    asked = {"draws": 399, "resamples": 50} | more
    return regimes(influence_frame(sums), {("es", "rare"): sums}, **asked)  # type: ignore[arg-type]


def sampled(truth: Truth, windows: int = 40, seed: int = 0, spread: float = 0.3) -> GroupSums:
    """Effects by window of neurons whose true influence lies on a curve, in random order; mean Δ half of it."""
    rng = np.random.default_rng(seed)
    curve = truth.curve()
    per_window = np.exp(rng.permutation(curve)[:, None] + spread * rng.standard_normal((truth.n, windows)))
    positions = rng.integers(50, 200, windows).astype(float)
    sign = rng.choice([-1, 1], truth.n)[:, None]
    sums = positions * per_window
    return GroupSums(*(WindowSums(np.arange(truth.n), positions, one) for one in (sums, sign * sums / 2)))


def no_nan(frame: pl.DataFrame) -> bool:
    return bool(frame.select(pl.all_horizontal(cs.float().is_finite().fill_null(value=True).all())).item())


def test_fits_of_a_plateau_hold_the_line_windows_and_models() -> None:
    sums = sampled(Truth(512, 0.6, plateau=17, step=1.0))
    result = decided(sums, windows=[(20, 120), (5, 5), (500, 513)])
    fits, decision = result["regime_fit"], result["regime_decision"].row(0, named=True)
    assert dict(fits.schema) == REGIME_FIT
    assert dict(result["regime_decision"].schema) == REGIME_DECISION
    windows = ["auto", "middle piece", "paper", "paper early", "explicit", "explicit", "explicit"]
    assert fits["rank_window"].to_list() == windows + [None] * 12
    assert no_nan(fits)
    assert no_nan(result["regime_decision"])

    curve = influence_curve(sums.absolute.influence())
    line, auto = power_law(curve), fits.row(0, named=True)
    assert (auto["kappa"], auto["first_rank"], auto["last_rank"]) == (line.kappa, line.first_rank, line.last_rank)
    assert (auto["step"], auto["head_kappa"]) == (line.step, line.head_slope)
    deviation = line.deviation(curve)
    assert deviation is not None
    assert auto["neurons_above_0_5"] == (deviation > 0.5).sum() == decision["neurons_above_0_5"]
    middle = fits.row(1, named=True)
    assert [middle["first_rank"], middle["last_rank"]] == middle_piece(curve).tolist()
    assert fits["reason"].to_list()[4:7] == [
        None,
        "ranks 5 to 5 are no window of 512 ranks",
        "ranks 500 to 513 are no window of 512 ranks",
    ]
    explicit, straight = fits.row(4, named=True), fit_line(curve, 20, 120)
    assert (explicit["kappa"], explicit["beta"], explicit["r2"]) == (straight.kappa, straight.beta, straight.r2)
    assert explicit["share_within_0_1"] == (np.abs(straight.deviation(curve)) < 0.1).mean()

    assert decision["decision"] == "present"
    assert decision["break_rank"] == 17
    assert decision["step_low"] < 1.0 < decision["step_high"]
    assert decision["kappa_low"] <= line.kappa <= decision["kappa_high"]
    assert decision["head"] == "raised"
    assert decision["reason"] is None


def test_every_statistic_and_sign_has_its_own_decision() -> None:
    sums = sampled(Truth(512, 0.6, plateau=17, step=1.0))
    found = decided(sums)["regime_decision"]
    keys = [(statistic, role) for statistic in ("mean_abs", "abs_mean") for role in ("all", "boost", "suppress")]
    assert found.select("statistic", "role").rows() == keys
    assert found["slope_break_p_value"].null_count() == 5, "of the default curve alone"
    ranks = dict(zip(keys, found["ranks"], strict=True))
    assert ranks["mean_abs", "boost"] + ranks["mean_abs", "suppress"] == ranks["mean_abs", "all"] == 512
    both = found.filter(pl.col("role") == "all").drop("statistic")
    for name in ("kappa", "break_rank", "step", "p_value"):
        assert both[name][0] == pytest.approx(both[name][1]), "here mean Δ is half of mean |Δ|"
    boost = influence_curve(sums.signed.mean()[sums.signed.mean() > 0])
    row = found.row(by_predicate=(pl.col("role") == "boost") & (pl.col("statistic") == "abs_mean"), named=True)
    assert row["kappa"] == power_law(boost).kappa


def test_a_short_curve_gives_nulls_with_reasons() -> None:
    result = decided(flat(np.exp(-np.arange(29.0))))
    fits, decision = result["regime_fit"], result["regime_decision"].row(0, named=True)
    assert fits["kappa"].null_count() == fits.height == fits["reason"].drop_nulls().len()
    assert decision["decision"] is None
    assert "29 neurons" in decision["reason"]


def test_the_paper_window_needs_181_neurons() -> None:
    rng = np.random.default_rng(0)
    for n, defined in ((180, False), (181, True)):
        fits = decided(flat(rng.exponential(size=n)))["regime_fit"]
        paper = fits.filter(pl.col("rank_window") == "paper").row(0, named=True)
        assert (paper["kappa"] is not None) == defined
        assert defined or paper["reason"] == "ranks 122 to 181 are no window of 180 ranks"


@pytest.mark.parametrize("values", [np.zeros(300), np.full(300, 0.5)])
def test_influence_without_a_curve_is_said_to_have_none(values: np.ndarray) -> None:
    sums = flat(values)
    result = decided(sums)
    assert result["regime_fit"]["kappa"].drop_nulls().len() in (0, 2), "only the paper's lines can be drawn"
    assert result["regime_decision"]["decision"].to_list() == [None] * 6
    assert result["regime_decision"]["reason"].null_count() == 0
    assert no_nan(result["regime_fit"])
    assert no_nan(influence_slopes(influence_frame(sums)))


def test_a_single_window_has_a_line_and_no_decision() -> None:
    row = decided(flat(np.random.default_rng(0).exponential(size=300), windows=1))["regime_decision"].row(0, named=True)
    assert row["decision"] is row["p_value"] is None
    assert row["step"] is not None
    assert "single window" in row["reason"]


def test_neurons_without_influence_are_left_out() -> None:
    rng = np.random.default_rng(1)
    values = np.concatenate([rng.exponential(size=200), np.zeros(100)])
    result = decided(flat(rng.permutation(values)))
    assert set(result["regime_fit"]["ranks"]) == {200}


def test_slopes_have_one_row_a_rank() -> None:
    rng = np.random.default_rng(2)
    frame = pl.concat([influence_frame(flat(rng.exponential(size=100)), group) for group in ("rare", "common")])
    slopes = influence_slopes(frame)
    assert dict(slopes.schema) == INFLUENCE_SLOPE
    assert slopes.height == 200
    ends = slopes.filter(pl.col("local_slope").is_null() | pl.col("second_derivative").is_null())
    assert ends["reason"].null_count() == 0
    assert slopes.filter(pl.col("rank") > 60)["local_slope"].null_count() == 0
    assert influence_slopes(frame.clear()).is_empty()


def test_errors_over_windows_are_those_of_a_bootstrap() -> None:
    both = sampled(Truth(50, 1.0, tail_at=3.0), windows=60)
    for sums in (both.absolute, both.signed):
        error = sums.log_error()
        assert error is not None
        resampled = np.log(sums.resampled(4_000, np.random.default_rng(0))).std(axis=0)
        assert error == pytest.approx(resampled, rel=0.1)
    assert WindowSums(sums.neurons, sums.positions[:1], sums.sums[:, :1]).log_error() is None


def test_intervals_hold_the_estimate_and_widen_with_noise() -> None:
    truth = Truth(300, 1.0, plateau=10, step=1.0, tail_at=5.0)
    widths = []
    for spread in (0.1, 0.6):
        sums = sampled(truth, spread=spread)
        frame = influence_intervals("es", "rare", sums, draws=200)
        assert dict(frame.schema) == INFLUENCE_INTERVAL
        assert no_nan(frame)
        assert frame.height == len(CURVE) + len(NEURON) * 300
        curve = frame.filter(pl.col("neuron").is_null())
        assert curve["quantity"].to_list() == list(CURVE)
        line = power_law(influence_curve(sums.absolute.influence()))
        values = dict(curve.select("quantity", "estimate").iter_rows())
        for name in ("tail", "head_rank", "step", "head_slope", "straight_share", "kappa"):
            assert values[name] == pytest.approx(getattr(line, name)), name
        assert set(curve["windows"]) == {40}
        assert (curve["low"] <= curve["estimate"]).all()
        assert (curve["estimate"] <= curve["high"]).all()
        influence = frame.filter(pl.col("quantity") == "influence")
        assert (influence["low"] < influence["estimate"]).all()
        assert (influence["estimate"] < influence["high"]).all()
        widths.append(float(np.median(np.log((influence["high"] / influence["low"]).to_numpy()))))
    assert widths[1] > 3 * widths[0]
    ranks = frame.filter(pl.col("quantity") == "rank")
    assert sorted(ranks["estimate"]) == list(range(1, 301))
    assert (ranks["low"] <= ranks["estimate"]).sum() > 270


def test_the_sign_of_a_neuron_is_settled_where_its_mean_is_far_from_0() -> None:
    sums = sampled(Truth(200, 1.0), windows=30)
    rng = np.random.default_rng(0)
    signed = sums.signed.sums.copy()
    signed[:20] *= np.sign(rng.standard_normal((20, 30)))
    mixed = GroupSums(sums.absolute, WindowSums(sums.signed.neurons, sums.signed.positions, signed))
    frame = influence_intervals("es", "rare", mixed, draws=400).filter(pl.col("quantity") == "mean_delta_loss")
    assert frame["estimate"].to_numpy() == pytest.approx(mixed.signed.mean())
    holds = (frame["low"] <= 0) & (frame["high"] >= 0)
    assert holds[:20].sum() >= 15
    assert not holds[20:].any()


def test_an_interval_over_all_that_is_possible_is_not_determined() -> None:
    rng = np.random.default_rng(3)
    sums = flat(np.ones(300), windows=6)
    absolute = WindowSums(sums.absolute.neurons, sums.absolute.positions, np.exp(rng.standard_normal((300, 6))))
    ranks = influence_intervals("es", "rare", GroupSums(absolute, sums.signed), draws=200)
    ranks = ranks.filter(pl.col("quantity") == "rank")
    wide = np.log(ranks["high"] / ranks["low"]) >= 0.8 * np.log(300)
    assert wide.any()
    assert (ranks["determined"] == ~wide).all()


def test_a_curve_without_a_power_law_has_no_interval_of_one() -> None:
    bent = np.exp(-((np.arange(300) / 40) ** 1.5))
    frame = influence_intervals("es", "rare", sampled_from(bent), draws=100)
    law = power_law(influence_curve(sampled_from(bent).absolute.influence()))
    assert law.kappa is None
    for name in ("kappa", "beta", "deviation"):
        rows = frame.filter(pl.col("quantity") == name)
        assert rows["low"].null_count() == rows["estimate"].null_count() == rows.height
        assert set(rows["reason"]) == {law.reason}
    assert frame.filter(pl.col("quantity") == "head_rank")["low"].null_count() == 0
    assert frame.filter(pl.col("quantity") == "influence")["low"].null_count() == 0


def sampled_from(values: np.ndarray) -> GroupSums:
    rng = np.random.default_rng(5)
    sums = values[:, None] * np.exp(0.05 * rng.standard_normal((len(values), 20)))
    return GroupSums(*(WindowSums(np.arange(len(values)), np.ones(20), one) for one in (sums, sums)))


def test_a_single_window_or_no_position_has_no_interval() -> None:
    sums = sampled(Truth(200, 1.0, tail_at=3.0), windows=1)
    single = influence_intervals("es", "rare", sums, draws=20)
    assert single["low"].null_count() == single.height == len(CURVE)
    assert set(single["reason"]) == {"a single window: nothing to resample"}
    assert single.filter(pl.col("quantity") == "step")["estimate"].null_count() == 0
    empty = influence_intervals("es", "rare", "no position in the group", draws=20)
    assert set(empty["reason"]) == {"no position in the group"}


def test_a_neuron_silent_in_most_windows_is_null_with_its_reason() -> None:
    sums = sampled(Truth(200, 1.0), windows=8)
    silent = sums.absolute.sums.copy()
    silent[3, 1:] = 0.0
    absolute = WindowSums(sums.absolute.neurons, sums.absolute.positions, silent)
    frame = influence_intervals("es", "rare", GroupSums(absolute, sums.signed), draws=50)
    row = frame.filter(pl.col("quantity") == "deviation", pl.col("neuron") == 3).row(0, named=True)
    assert row["low"] is None
    assert "undefined in" in row["reason"]
    assert frame.filter(pl.col("neuron") != 3)["low"].null_count() == 0


def cells(rows: list[tuple[int, float, float, bool, bool, int, float]]) -> pl.DataFrame:
    names = ("window_id", "percentile_bucket", "occurrence_bucket", "is_word", "is_elbow", "positions", "abs_delta_sum")
    one = pl.DataFrame(rows, schema=list(names), orient="row")
    both = one.join(pl.DataFrame({"neuron": [0, 1]}), how="cross")
    size = pl.col("abs_delta_sum") * (pl.col("neuron") + 1)
    return both.with_columns(abs_delta_sum=size, delta_sum=size * (1 - 2 * pl.col("neuron")))


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
        assert found.sums[1].sum() == 2 * found.sums[0].sum()
    assert window_sums(frame, "es", "rare", 5.0) == "no position in the group"
    both = group_sums(frame, "es", "rare")
    assert isinstance(both, GroupSums)
    assert both.curve("abs_mean", "suppress").neurons.tolist() == [1]
    assert both.curve("abs_mean", "suppress").influence() == pytest.approx(both.curve("mean_abs").influence()[1:])
    assert both.curve("mean_abs", "boost").neurons.tolist() == [0]


@pytest.mark.parametrize(
    ("preset", "group", "percentile", "said"),
    [
        ("es", "rare", 101.0, "not a percentile"),
        ("es", "rare", -5.0, "not a percentile"),
        ("nc", "rare", 7.0, "multiple of 5"),
        ("nc", "rare", 60.0, "influence_at"),
        ("xx", "rare", 5.0, "No token group xx rare"),
        ("es", "rear", 5.0, "No token group es rear"),
    ],
)
def test_thresholds_that_cells_cannot_answer_are_refused(preset: str, group: str, percentile: float, said: str) -> None:
    with pytest.raises(UserError, match=said):
        in_group(preset, group, percentile)
