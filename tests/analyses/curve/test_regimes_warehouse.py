"""The analyses of regimes on the relations of a real warehouse, and the marts against their NumPy oracles."""

import itertools
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from rare_tokens import warehouse
from rare_tokens.analyses.across_runs.emergence import emergence, series
from rare_tokens.analyses.curve.effect_cells import PRESETS, TOKEN_GROUPS, WindowSums, group_sums, window_sums
from rare_tokens.analyses.curve.intervals import influence_intervals
from rare_tokens.analyses.curve.power_law import power_law, power_law_line
from rare_tokens.analyses.curve.ranked_curve import influence_curve, local_slope
from rare_tokens.analyses.curve.regimes import regimes
from rare_tokens.analyses.curve.slopes import influence_slopes
from rare_tokens.analyses.curve.threshold_sensitivity import threshold_sensitivity
from rare_tokens.common.parts import parts_root
from studies.synthetic.runs import make_parts

NAMES = ("dim_run", "neuron_influence", "power_law_fit", "neuron_deviation", "agg_effect")
GROUPS = list(itertools.product(PRESETS, TOKEN_GROUPS))


@pytest.fixture(scope="module")
def relations(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pl.DataFrame]:
    path = tmp_path_factory.mktemp("warehouse") / "w.duckdb"
    folder = parts_root(path) / "synthetic-step64-00000007"
    run = {"run_id": folder.name, "revision": "step64"}
    make_parts(folder, neurons=256, positions=2048, window=64, seed=7, zipf_share=0.8, **run)  # type: ignore[arg-type]
    warehouse.publish(path, folder, line=power_law_line, quiet=True)
    with warehouse.open(path) as opened:
        return {name: opened.read(name) for name in NAMES}


def one_group(frame: pl.DataFrame, preset: str, token_group: str) -> pl.DataFrame:
    return frame.filter(pl.col("preset") == preset, pl.col("token_group") == token_group)


@pytest.mark.parametrize(("preset", "token_group"), GROUPS)
def test_the_marts_are_their_oracles(relations: dict[str, pl.DataFrame], preset: str, token_group: str) -> None:
    influence = one_group(relations["neuron_influence"], preset, token_group).sort("rank")
    curve = influence_curve(influence["influence"].to_numpy())
    stored = one_group(relations["power_law_fit"], preset, token_group).row(0, named=True)
    law = power_law(curve)
    for name in ("kappa", "beta", "tail", "head_rank", "step", "head_slope", "first_rank", "last_rank", "reason"):
        value = getattr(law, name)
        assert stored[name] == (pytest.approx(value, rel=1e-9) if isinstance(value, float) else value), name
    deviation = one_group(relations["neuron_deviation"], preset, token_group).sort("rank").head(len(curve))
    delta = law.deviation(curve)
    if delta is None:
        assert deviation["deviation"].null_count() == len(curve)
    else:
        assert deviation["deviation"].to_numpy() == pytest.approx(delta, abs=1e-9)
    slope = deviation["local_slope"].cast(pl.Float64).fill_null(np.nan).to_numpy()
    assert slope == pytest.approx(local_slope(curve), abs=1e-6, nan_ok=True)


@pytest.mark.parametrize(("preset", "token_group"), GROUPS)
def test_sums_over_cells_are_the_influence(relations: dict[str, pl.DataFrame], preset: str, token_group: str) -> None:
    sums = window_sums(relations["agg_effect"], preset, token_group)
    assert isinstance(sums, WindowSums)
    stored = one_group(relations["neuron_influence"], preset, token_group).sort("neuron")
    assert sums.influence() == pytest.approx(stored["influence"].to_numpy(), rel=1e-9)
    assert set(stored["positions"]) == {int(sums.positions.sum())}


def test_the_whole_chain_runs_on_a_warehouse(relations: dict[str, pl.DataFrame]) -> None:
    cells, influence = relations["agg_effect"], relations["neuron_influence"]
    sums = {key: group_sums(cells, *key) for key in GROUPS}
    result = regimes(influence, sums, draws=399, resamples=50)
    assert result["regime_decision"].height == 6 * len(GROUPS)
    decisions = result["regime_decision"].filter(pl.col("statistic") == "mean_abs", pl.col("role") == "all")
    assert decisions["decision"].null_count() == 0
    auto = result["regime_fit"].filter(pl.col("rank_window") == "auto").sort("preset", "token_group")
    stored = relations["power_law_fit"].sort("preset", "token_group")
    assert auto["kappa"].to_list() == pytest.approx(stored["kappa"].to_list(), rel=1e-9)
    intervals = influence_intervals("nc", "rare", sums["nc", "rare"], draws=50)
    kappa = intervals.row(0, named=True)
    assert kappa["low"] < kappa["high"]
    slopes = influence_slopes(influence)
    assert slopes.height == influence.filter(pl.col("influence") > 0).height

    sensitivity = threshold_sensitivity(cells, draws=399, resamples=50)
    for preset, percentile in PRESETS.items():
        own = sensitivity.filter(pl.col("preset") == preset, pl.col("percentile") == percentile).sort("token_group")
        fits = stored.filter(pl.col("preset") == preset).sort("token_group")
        assert own["kappa"].to_list() == pytest.approx(fits["kappa"].to_list(), rel=1e-9)
        assert own["first_rank"].to_list() == fits["first_rank"].to_list()

    (runs,) = series(relations["dim_run"])
    run_id = pl.lit(runs["run_id"][0]).alias("run_id")
    curves = emergence(
        runs,
        influence,
        relations["power_law_fit"],
        decisions=decisions.with_columns(run_id),
        intervals=intervals.with_columns(run_id),
        k=10,
    )
    assert set(curves["training_step"]) == {64}
    assert curves.filter(pl.col("quantity") == "kappa").height == len(GROUPS)


def test_a_run_of_one_window_has_no_intervals(relations: dict[str, pl.DataFrame], tmp_path: Path) -> None:
    """Nothing to resample: no intervals, errors unknown, and the reason says so."""
    path = tmp_path / "w.duckdb"
    folder = parts_root(path) / "single-main-00000001"
    make_parts(folder, neurons=160, positions=256, window=256, run_id=folder.name)
    warehouse.publish(path, folder, line=power_law_line, quiet=True)
    with warehouse.open(path) as opened:
        cells, influence = opened.read("agg_effect"), opened.read("neuron_influence")
    sums = {key: group_sums(cells, *key) for key in GROUPS}
    decision = regimes(influence, sums, draws=399)["regime_decision"].filter(pl.col("role") == "all")
    assert decision["decision"].null_count() == decision.height
    assert all("single window" in reason for reason in decision["reason"])
    intervals = pl.concat([influence_intervals(*key, one, draws=19) for key, one in sums.items()])
    assert intervals["low"].null_count() == intervals.height
    assert intervals["reason"].null_count() == 0
