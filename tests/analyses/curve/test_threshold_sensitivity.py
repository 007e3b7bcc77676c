"""Sensitivity to the threshold, from sums over cells."""

import numpy as np
import polars as pl
import polars.selectors as cs
import pytest

from rare_tokens.analyses.curve.effect_cells import PRESETS, window_sums
from rare_tokens.analyses.curve.plateau import plateau
from rare_tokens.analyses.curve.power_law import power_law
from rare_tokens.analyses.curve.ranked_curve import influence_curve
from rare_tokens.analyses.curve.threshold_sensitivity import PERCENTILES, THRESHOLD_SENSITIVITY, threshold_sensitivity
from rare_tokens.common.errors import UserError
from studies.synthetic.curves import Truth

BUCKETS = (0.0, 2.5, 7.5, 22.5, 47.5, 50.0, 75.0)  # so that 10, 15 and 20 select the same positions


def cells(curve: np.ndarray, windows: int = 3, seed: int = 0) -> pl.DataFrame:
    """Cells in which every neuron's mean |Δ| is about that of the curve, in random order of neurons."""
    rng = np.random.default_rng(seed)
    influence = np.exp(rng.permutation(curve))
    kinds = pl.DataFrame(
        [
            (window, bucket, bucket, word, bucket == 47.5, int(rng.integers(1, 40)))
            for window in range(windows)
            for bucket in BUCKETS
            for word in (True, False)
        ],
        schema=["window_id", "percentile_bucket", "occurrence_bucket", "is_word", "is_elbow", "positions"],
        orient="row",
    )
    neurons = pl.DataFrame({"neuron": np.arange(len(curve)), "influence": influence})
    noise = np.exp(0.05 * rng.standard_normal(len(curve) * kinds.height))
    frame = neurons.join(kinds, how="cross").with_columns(noise=noise)
    size = pl.col("influence") * pl.col("positions") * pl.col("noise")
    return frame.with_columns(abs_delta_sum=size, delta_sum=size / 2)


@pytest.fixture(scope="module")
def frame() -> pl.DataFrame:
    return cells(Truth(400, 0.6, tail_at=4.0).draw(np.random.default_rng(1))[0])


def test_every_side_of_every_threshold_has_its_row(frame: pl.DataFrame) -> None:
    result = threshold_sensitivity(frame)
    assert dict(result.schema) == THRESHOLD_SENSITIVITY
    assert result.height == len(PRESETS) * 2 * len(PERCENTILES)
    assert not result.select("preset", "token_group", "percentile").is_duplicated().any()
    assert result.select(pl.all_horizontal(cs.float().is_finite().fill_null(value=True).all())).item()
    decided = result.filter(pl.col("decision") != "undecided")
    assert decided["reason"].null_count() == decided.height, "nothing is missing here"


def test_a_row_is_what_its_positions_say(frame: pl.DataFrame) -> None:
    row = threshold_sensitivity(frame, presets=["es"], percentiles=[10]).row(0, named=True)
    sums = window_sums(frame, "es", "rare", 10)
    assert not isinstance(sums, str)
    curve = influence_curve(sums.influence())
    line = power_law(curve)
    assert row["positions"] == sums.positions.sum()
    assert (row["kappa"], row["beta"], row["r2"]) == pytest.approx((line.kappa, line.beta, line.r2))
    assert row["token_group"] == "rare"
    assert row["ranks"] == 400


def test_thresholds_that_select_the_same_positions_say_so(frame: pl.DataFrame) -> None:
    rare = threshold_sensitivity(frame, presets=["nc"]).filter(pl.col("token_group") == "rare")
    same = dict(rare.select("percentile", "same_as_percentile").iter_rows())
    assert same == {5: 5, 10: 10, 15: 10, 20: 10, 25: 25, 30: 25, 35: 25, 40: 25, 45: 25, 50: 50}
    distinct = rare.filter(pl.col("distinct_threshold"))["percentile"].to_list()
    assert distinct == [5, 10, 25, 50]
    flat = rare.filter(pl.col("percentile").is_in([10.0, 15.0, 20.0])).drop("percentile", "same_as_percentile")
    assert flat.drop("distinct_threshold").n_unique() == 1


def test_the_presets_own_threshold_agrees_with_itself(frame: pl.DataFrame) -> None:
    result = threshold_sensitivity(frame)
    for preset, percentile in PRESETS.items():
        own = result.filter(pl.col("preset") == preset, pl.col("percentile") == percentile)
        assert own["top_overlap"].to_list() == [1.0, 1.0]
        assert own["rank_correlation"].to_list() == pytest.approx([1.0, 1.0])
    assert result["rank_correlation"].to_numpy().min() > 0.9, "all thresholds see the same neurons here"


@pytest.mark.parametrize("step", [0.0, 1.5])
def test_the_decision_is_that_of_the_same_positions(step: float) -> None:
    curve = Truth(400, 0.6, plateau=12 if step else 0, step=step).draw(np.random.default_rng(2))[0]
    frame = cells(curve, windows=12)
    result = threshold_sensitivity(frame, presets=["nc"], percentiles=[50])
    for row in result.iter_rows(named=True):
        found = plateau(window_sums(frame, "nc", row["token_group"], 50), draws=499, resamples=400)
        assert found.test is not None
        assert found.size is not None
        assert (row["decision"], row["p_value"], row["power"]) == (found.verdict, found.test.p_value, found.power)
        assert (row["break_rank"], row["break_low"]) == (found.line.head_rank, found.size.low)
        assert row["head"] == found.head
    if step:
        assert result["decision"].to_list() == ["present"] * 2
        assert result["break_rank"].to_list() == [12, 12]


def test_a_single_window_has_a_line_and_no_decision() -> None:
    frame = cells(Truth(400, 0.6, tail_at=4.0).draw(np.random.default_rng(1))[0], windows=1)
    result = threshold_sensitivity(frame, presets=["es"], percentiles=[50])
    assert result["step"].null_count() == 0
    assert result["decision"].null_count() == 2
    assert all("single window" in reason for reason in result["reason"])


def test_a_side_without_positions_is_null_with_its_reason() -> None:
    only = cells(Truth(100, 1.0, tail_at=3.0).curve()).filter(pl.col("percentile_bucket") >= 50)
    result = threshold_sensitivity(only, presets=["es"], percentiles=[5, 50])
    rare = result.filter(pl.col("token_group") == "rare")
    assert rare["positions"].to_list() == [0, 0]
    assert rare["reason"].to_list() == ["no position in the group"] * 2
    assert rare.select("kappa", "decision", "power", "top_overlap").null_count().row(0) == (2, 2, 2, 2)
    assert rare["distinct_threshold"].to_list() == [True, False]


@pytest.mark.parametrize("neurons", [20, 149])
def test_layers_too_small_say_so(neurons: int) -> None:
    said = f"{neurons} neurons with an influence above 0; a power law needs 150"
    result = threshold_sensitivity(cells(-np.log(np.arange(1.0, neurons + 1))), presets=["es"], percentiles=[50])
    assert all(said in reason for reason in result["reason"])
    assert result["decision"].null_count() == 2


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_all_equal_influence_is_null_with_its_reason(value: float) -> None:
    flat = cells(np.zeros(180)).with_columns(abs_delta_sum=value * pl.col("positions").cast(pl.Float64), delta_sum=0.0)
    result = threshold_sensitivity(flat, presets=["es"], percentiles=[50])
    assert result["kappa"].null_count() == 2
    assert result["reason"].null_count() == 0


def test_thresholds_between_the_sums_are_refused(frame: pl.DataFrame) -> None:
    with pytest.raises(UserError, match="12 cannot be answered"):
        threshold_sensitivity(frame, percentiles=[12])
    with pytest.raises(UserError, match="not a percentile"):
        threshold_sensitivity(frame, percentiles=[-5])
