"""The decision on the plateau, its intervals over windows of text, and rare against common."""

import dataclasses
import itertools
from typing import Any

import numpy as np
import polars as pl
import pytest

from rare_tokens.analyses.curve.effect_cells import WindowSums, window_sums
from rare_tokens.analyses.curve.line_intervals import (
    Interval,
    LineSamples,
    curves_by_length,
    head_interval,
    line_samples,
    plain_interval,
    same_head,
    spans_range,
    step_interval,
)
from rare_tokens.analyses.curve.plateau import Plateau, plateau, plateau_of_curve, reference_size
from rare_tokens.analyses.curve.plateau_difference import (
    PlateauDifference,
    paired_window_sums,
    plateau_difference,
    shared_neurons,
)
from rare_tokens.analyses.curve.power_law import PowerLaw, power_law, power_laws
from rare_tokens.analyses.curve.ranked_curve import influence_curve
from studies.synthetic.heads import LAWS, PLATEAUS, Head, measured_in_windows
from studies.synthetic.heads import power_law as law_of

QUICK: dict[str, Any] = {"draws": 399, "resamples": 100}


def sums_of(truth: Head, n: int, seed: int, *, scattered: bool = False, error: float = 0.07) -> WindowSums:
    rng = np.random.default_rng([seed, n])
    return measured_in_windows(truth.layer(n, rng, scattered=scattered), error, rng)


def numbers(found: object) -> list[float]:
    """Every number in a result, however deep."""
    if dataclasses.is_dataclass(found):
        return list(itertools.chain.from_iterable(numbers(value) for value in vars(found).values()))
    return [float(found)] if isinstance(found, int | float) else []


def test_a_raised_head_is_present_with_size_height_and_slope() -> None:
    found = plateau(sums_of(PLATEAUS["50 raised by 0.7"], 1536, 0), **QUICK)
    assert (found.verdict, found.head, found.reason) == ("present", "raised", None)
    assert found.test is not None
    assert found.test.p_value < 0.01
    assert found.line.head_rank == 50
    assert found.above is not None
    assert 49 <= found.above <= 51
    for interval, truth in ((found.size, 50), (found.step, 0.7), (found.kappa, 0.8), (found.head_slope, 0.8)):
        assert interval is not None
        assert interval.determined
        assert interval.low - 0.02 <= truth <= interval.high + 0.02
        assert interval.high - interval.low < 0.15


def test_a_flat_head_is_a_shelf() -> None:
    found = plateau(sums_of(PLATEAUS["shelf, cliff 43-57"], 1536, 0, scattered=True), **QUICK)
    assert (found.verdict, found.head) == ("present", "shelf")
    assert found.line.head_rank is not None
    assert 40 <= found.line.head_rank <= 60
    assert found.head_slope is not None
    assert found.head_slope.high < 0.45


@pytest.mark.slow
def test_scattered_heads_of_the_laws_own_slope_are_not_called_shelves() -> None:
    """The interval over windows of text alone would: it knows nothing of how few neurons a head has."""
    found = [plateau(sums_of(PLATEAUS["50 raised by 0.7"], 1536, seed, scattered=True), **QUICK) for seed in range(12)]
    beside = [one for one in found if one.line.kappa and one.head_slope and not holds(one.head_slope, one.line.kappa)]
    assert len(beside) >= 6
    assert sum(one.head == "raised" for one in found) >= 9
    slopes = [one.slopes for one in found if one.slopes]
    assert sum(slope.low <= 1 <= slope.high for slope in slopes) >= len(slopes) - 3


def holds(interval: Interval, value: float) -> bool:
    return interval.low <= value <= interval.high


@pytest.mark.slow
def test_a_power_law_of_many_neurons_is_absent() -> None:
    found = plateau(sums_of(LAWS["power law, tail 0.3"], 6400, 1), **QUICK)
    assert found.power is not None
    assert found.power > 0.8
    assert (found.verdict, found.above, found.reason) == ("absent", 0, None)


def test_where_a_plateau_could_not_be_seen_it_is_undecided() -> None:
    found = plateau(sums_of(LAWS["power law, tail 0.3"], 512, 0), **QUICK)
    assert found.power is not None
    assert found.power < 0.8
    assert found.verdict == "undecided"
    assert "would be found with probability" in str(found.reason)


def test_a_clear_step_that_is_low_is_undecided() -> None:
    found = plateau(sums_of(Head(law_of(), 0.8, (100, 0.2)), 1536, 0, error=0.03), **QUICK)
    assert found.test is not None
    assert found.test.p_value < 0.01
    assert found.verdict == "undecided"
    assert "below 0.3" in str(found.reason)


def test_a_head_that_stands_high_without_a_step_is_never_absent() -> None:
    """1 % of the layer above 0.5, or a neuron from rank 5 on: said where everything else speaks for absent."""
    x = np.log(np.arange(1, 6401))
    curve = -0.5 * x + 0.8 * np.maximum(np.log(60) - x, 0)
    error = np.full(6400, 0.02)
    curve = -np.sort(-(curve + error * np.random.default_rng(0).standard_normal(6400)))
    own = power_laws(curve[None, :])
    samples = LineSamples(
        *(np.repeat(v, 50) for v in (own.fit.kappa, own.fit.head_rank * 1.0, own.fit.step, own.head_slope))
    )
    found = plateau_of_curve(curve, error, samples, draws=399)
    assert found.test is not None
    assert found.test.p_value >= 0.05
    assert found.verdict == "undecided"
    assert "above the power law" in str(found.reason)


def test_without_a_power_law_nothing_is_absent() -> None:
    layer = LAWS["power law, log-log tail from ln rank 5"]
    found = plateau(sums_of(layer, 1536, 0), **QUICK)
    assert found.line.kappa is None
    assert found.verdict == "undecided"
    assert "no power law" in str(found.reason)
    assert (found.kappa, found.head, found.above) == (None, None, None)


def test_a_decision_repeats_and_depends_on_its_seed_alone() -> None:
    sums = sums_of(PLATEAUS["15 raised by 0.5"], 300, 0)
    first, again, other = (plateau(sums, **QUICK, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first.line == other.line
    order = np.random.default_rng(0).permutation(300)
    shuffled = plateau(WindowSums(sums.neurons, sums.positions, sums.sums[order]), **QUICK, seed=1)
    assert shuffled.verdict == first.verdict
    assert shuffled.line == first.line


@pytest.mark.parametrize(
    ("sums", "said"),
    [
        ("no position in the group", "no position in the group"),
        (sums_of(LAWS["power law, tail 0.3"], 149, 0), "149 neurons"),
        (WindowSums(np.arange(200), np.ones(9), np.ones((200, 9))), "the same influence"),
        (WindowSums(np.arange(200), np.ones(9), np.zeros((200, 9))), "0 neurons with an influence above 0"),
        (WindowSums(np.arange(200), np.ones(1), np.geomspace(1, 9, 200)[:, None]), "a single window of text"),
    ],
)
def test_bad_input_has_no_verdict_but_a_reason(sums: WindowSums | str, said: str) -> None:
    with np.errstate(all="raise"):
        found = plateau(sums, **QUICK)
    assert found.verdict is None
    assert said in str(found.reason)
    assert (found.test, found.power, found.size, found.step, found.kappa) == (None, None, None, None, None)
    assert np.isfinite(numbers(found)).all()


def test_a_group_of_one_position_is_a_single_window() -> None:
    values = np.exp(LAWS["power law, tail 0.3"].layer(200, np.random.default_rng(0), scattered=True))
    found = plateau(WindowSums(np.arange(200), np.ones(1), values[:, None]), **QUICK)
    assert "a single window of text" in str(found.reason)
    assert found.line == power_law(influence_curve(values))


def test_two_windows_and_tied_neurons_give_numbers() -> None:
    rng = np.random.default_rng(0)
    values = np.exp(-0.8 * np.log(np.arange(1, 301)))
    two = np.stack([values, values * (1 + 0.1 * rng.random(300))], axis=1)
    tied = np.repeat(values[:100], 3)[:, None] * (1 + 0.1 * rng.random(12))
    for sums in (WindowSums(np.arange(300), np.ones(2), two), WindowSums(np.arange(300), np.ones(12), tied)):
        found = plateau(sums, **QUICK)
        assert found.verdict is not None
        assert np.isfinite(numbers(found)).all()


def test_too_few_draws_are_refused() -> None:
    with pytest.raises(ValueError, match="398 draws"):
        plateau(sums_of(LAWS["power law, tail 0.3"], 200, 0), draws=398, resamples=10)


def test_the_reference_plateau_is_one_percent() -> None:
    assert [reference_size(n) for n in (40, 150, 1536, 6400)] == [1, 2, 15, 64]


# --- intervals ------------------------------------------------------------------------------------------------------


def test_resampled_curves_of_equal_length_come_together() -> None:
    influence = np.array([[1.0, 0.0, 4.0], [2.0, 1.0, 3.0], [5.0, np.nan, 1.0]])
    found = {rows.tolist()[0]: (rows.tolist(), curves.tolist()) for rows, curves in curves_by_length(influence)}
    assert found[0] == ([0, 2], np.log([[4.0, 1.0], [5.0, 1.0]]).tolist())
    assert found[1] == ([1], np.log([[3.0, 2.0, 1.0]]).tolist())


def test_samples_are_fitted_as_curves_and_those_without_a_line_are_missing() -> None:
    curve = PLATEAUS["15 raised by 0.5"].layer(200, np.random.default_rng(0), scattered=True)
    influence = np.exp(curve)[None, :] * np.ones((4, 1))
    influence[1, :60] = 0.0  # 140 neurons are left
    influence[2] = 1.0
    influence[3, ::-1] = influence[0]
    found = line_samples(influence)
    line = power_laws(curve[None, :])
    assert found.kappa[[0, 3]] == pytest.approx(np.repeat(line.fit.kappa, 2))
    assert found.head_slope[[0, 3]] == pytest.approx(np.repeat(line.head_slope, 2))
    assert found.head_rank[[0, 3]].tolist() == [line.fit.head_rank[0]] * 2
    assert np.isnan(np.stack(list(vars(found).values()))[:, 1:3]).all()


def test_an_interval_that_spans_its_range_is_not_determined() -> None:
    assert spans_range(0.05, 0.95, 0, 1)
    assert not spans_range(0.05, 0.7, 0, 1)
    assert spans_range(5, 200, 5, 230, log=True)
    assert not spans_range(5, 60, 5, 230, log=True)
    scattered = head_interval(30, np.geomspace(5, 230, 500).round(), 1536)
    sharp = head_interval(50, np.full(500, 50.0), 1536)
    assert scattered is not None
    assert not scattered.determined
    assert sharp is not None
    assert (sharp.low, sharp.high, sharp.determined) == (50, 50, True)


def test_intervals_hold_their_estimate_and_need_most_samples() -> None:
    samples = np.linspace(0, 1, 1001)
    plain = plain_interval(2.0, samples)
    assert plain is not None
    assert (plain.low, plain.high) == (pytest.approx(0.025), 2.0)
    gaps = np.where(np.arange(1001) < 120, np.nan, samples)
    for missing in (plain_interval(0.5, gaps), head_interval(5, gaps, 500), step_interval(0.5, gaps, gaps > 0)):
        assert missing is None


def test_the_interval_of_a_step_is_moved_by_what_sorting_takes() -> None:
    samples = np.linspace(0.5, 0.7, 1001)  # median 0.6: 0.05 lower than the value in hand, as that is than the truth
    ranks = np.full(1001, 50.0)
    moved = step_interval(0.65, samples, same_head(50, ranks))
    assert moved is not None
    assert (moved.low, moved.high) == pytest.approx((0.505 + 0.1, 0.695 + 0.1))
    elsewhere = step_interval(0.65, samples, same_head(20, ranks), determined=False)
    assert elsewhere is not None
    assert (elsewhere.low, elsewhere.high, elsewhere.determined) == (pytest.approx(0.505), pytest.approx(0.695), False)
    assert same_head(50, np.array([44.0, 57.0, 42.0, np.nan])).tolist() == [True, True, False, False]


@pytest.mark.slow
def test_intervals_cover_what_more_text_would_give() -> None:
    truth, held = PLATEAUS["50 raised by 0.7"], np.zeros(4)
    for seed in range(40):
        found = plateau(sums_of(truth, 512, seed), draws=399, resamples=150)
        pairs = (found.size, 50), (found.step, 0.7), (found.head_slope, 0.8)
        held[:3] += [one is not None and one.low <= value <= one.high for one, value in pairs]
    assert (held[:3] >= 34).all(), held


# --- rare against common --------------------------------------------------------------------------------------------


def cells(rare: np.ndarray, common: np.ndarray, windows: int, seed: int = 0) -> pl.DataFrame:
    """Cells of `agg_effect` for two influences of the same neurons; the last window has common positions alone."""
    rng = np.random.default_rng(seed)
    rows = []
    for window, (bucket, influence) in itertools.product(range(windows), ((20.0, rare), (75.0, common))):
        if bucket < 50 and window == windows - 1:
            continue
        count = int(rng.integers(5, 50))
        noise = np.exp(0.3 * rng.standard_normal(len(rare)))
        rows.append(
            pl.DataFrame({"neuron": np.arange(len(rare)), "abs_delta_sum": count * influence * noise}).with_columns(
                window_id=pl.lit(window),
                percentile_bucket=pl.lit(bucket),
                occurrence_bucket=pl.lit(bucket),
                is_word=pl.lit(value=True),
                is_elbow=pl.lit(value=False),
                positions=pl.lit(count),
                delta_sum=-pl.col("abs_delta_sum"),
            )
        )
    return pl.concat(rows)


@pytest.fixture(scope="module")
def pair() -> tuple[WindowSums, WindowSums]:
    rng = np.random.default_rng(0)
    common = np.exp(LAWS["power law, tail 0.3"].layer(400, rng, scattered=False))
    rare = np.exp(PLATEAUS["15 raised by 0.5"].layer(400, rng, scattered=False) + 0.4 * (np.arange(400) < 15))
    found = paired_window_sums(cells(rare, common, 20), "es")
    assert not isinstance(found, str)
    return found


def test_paired_sums_are_those_of_each_group_over_the_same_windows(pair: tuple[WindowSums, WindowSums]) -> None:
    rng = np.random.default_rng(0)
    common = np.exp(LAWS["power law, tail 0.3"].layer(400, rng, scattered=False))
    frame = cells(common, common, 20)
    both = paired_window_sums(frame, "es")
    assert not isinstance(both, str)
    for sums, group in zip(both, ("rare", "common"), strict=True):
        alone = window_sums(frame, "es", group)
        assert not isinstance(alone, str)
        assert sums.influence() == pytest.approx(alone.influence())
        assert sums.windows == 20
    assert both[0].positions[-1] == 0
    assert both[0].sums[:, -1].tolist() == [0.0] * 400


def test_rare_minus_common_is_the_difference_of_the_lines(pair: tuple[WindowSums, WindowSums]) -> None:
    found = plateau_difference(pair, resamples=200)
    rare, common = (power_law(influence_curve(sums.influence())) for sums in pair)
    assert rare.step is not None
    assert common.step is not None
    assert rare.head_rank is not None
    assert common.head_rank is not None
    assert found.step == pytest.approx(rare.step - common.step)
    assert found.size == rare.head_rank - common.head_rank
    assert found.first == rare.head_rank == 15
    assert found.step is not None
    assert found.step > 0.5
    assert found.step_interval is not None
    assert found.step_interval.low > 0
    assert found.shared == shared_neurons(*pair, 15)
    assert found.shared is not None
    assert 12 <= found.shared <= 15
    assert found.reason is None


def test_a_difference_from_a_head_that_is_not_determined_is_not_determined(pair: tuple[WindowSums, WindowSums]) -> None:
    found = plateau_difference(pair, resamples=200)
    alone = plateau(pair[1], draws=399, resamples=200)
    assert alone.size is not None
    for interval in (found.step_interval, found.size_interval):
        assert interval is not None
        assert interval.determined == alone.size.determined


def test_the_same_group_twice_differs_by_nothing(pair: tuple[WindowSums, WindowSums]) -> None:
    found = plateau_difference((pair[0], pair[0]), resamples=50)
    assert (found.step, found.size, found.kappa) == (0, 0, 0)
    for interval in (found.step_interval, found.size_interval, found.kappa_interval):
        assert interval is not None
        assert (interval.low, interval.high) == (0, 0)


def test_a_difference_needs_two_lines_and_two_windows(pair: tuple[WindowSums, WindowSums]) -> None:
    flat = WindowSums(pair[0].neurons, pair[0].positions, np.ones_like(pair[0].sums) * pair[0].positions)
    found = plateau_difference((pair[0], flat), resamples=20)
    assert found == PlateauDifference(reason=found.reason)
    assert "common: the more influential half" in str(found.reason)
    assert plateau_difference("no position").reason == "no position"
    one = [WindowSums(s.neurons, s.positions[:1], s.sums[:, :1]) for s in pair]
    alone = plateau_difference((one[0], one[1]))
    assert alone.step is not None
    assert alone.step_interval is None
    assert "a single window" in str(alone.reason)
    empty = cells(np.ones(3), np.ones(3), 1)
    assert paired_window_sums(empty, "es") == "no position in the rare group"


def test_a_plateau_of_nothing_says_nothing() -> None:
    assert Plateau(None, PowerLaw(reason="x"), reason="x") == plateau("x")
