"""`ranking_overlap` against scipy and plain sets, within a run and between runs."""

from functools import cache

import numpy as np
import polars as pl
import pytest
from scipy import stats

from rare_tokens import warehouse
from rare_tokens.analyses import registry
from rare_tokens.analyses.agreement import overlap
from rare_tokens.analyses.agreement.overlap import (
    MOST,
    RESAMPLED,
    by_chance,
    every_layer_set,
    overlap_across,
    ranking_overlap,
)
from rare_tokens.analyses.curve.power_law import power_law_line
from rare_tokens.common.parts import parts_root
from rare_tokens.warehouse.publish import results
from studies.synthetic.runs import make_parts

GROUPS = [(preset, group) for preset in ("es", "nc", "ds") for group in ("rare", "common")]
NEURONS = 80


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A run, one with another ablation on the same text, and one on another text."""
    path = tmp_path_factory.mktemp("overlap") / "w.duckdb"
    for run_id, seed, given in (("a", 0, {}), ("b", 0, {"ablation": "zero"}), ("c", 1, {"model_seed": 0})):
        folder = parts_root(path) / run_id
        make_parts(folder, positions=1_024, neurons=NEURONS, run_id=run_id, seed=seed, **given)
        warehouse.publish(path, folder, line=power_law_line, quiet=True)
    return path


def relation(path, name, run_id="a", **given):
    return results.read(path, run_id, name, **given)


@pytest.fixture(scope="module")
def rows(path):
    return ranking_overlap(relation(path, "agg_effect"), relation(path, "dim_neuron"), draws=40, seed=0)


@cache
def influence(path, preset, group, run_id="a"):
    found = relation(path, "neuron_influence", run_id, preset=preset, token_group=group).sort("neuron")
    return found["influence"].to_numpy()


def top(values, count):
    return {neuron for _, neuron in sorted((-value, neuron) for neuron, value in enumerate(values))[:count]}


def values_of(path, row, prefix=""):
    if row[f"{prefix}ranking"] == "influence":
        return influence(path, row[f"{prefix}preset"], row[f"{prefix}token_group"])
    return np.abs(relation(path, "dim_neuron").sort("neuron")[row[f"{prefix}ranking"]].to_numpy())


def test_every_pair_of_rankings_is_there_once(rows):
    assert len(rows) == 8 * 7 // 2 + 6
    assert rows["reason"].null_count() == len(rows)
    keys = ("preset", "token_group", "ranking")
    assert len(rows.unique([*keys, *(f"other_{name}" for name in keys)])) == len(rows)


def test_shared_neurons_and_correlation_are_those_of_plain_sets_and_scipy(rows, path):
    for row in rows.filter(pl.col("other_ranking") != RESAMPLED).iter_rows(named=True):
        one, other = values_of(path, row), values_of(path, row, "other_")
        assert row["rank_correlation"] == pytest.approx(stats.spearmanr(one, other).statistic, abs=1e-9)
        for count in (10, 50):
            shared = len(top(one, count) & top(other, count))
            assert row[f"shared_{count}"] == shared
            assert row[f"expected_{count}"] == pytest.approx(count**2 / NEURONS)
            chance = stats.hypergeom(NEURONS, count, count)
            assert row[f"p_{count}"] == pytest.approx(sum(chance.pmf(k) for k in range(shared, count + 1)))


def test_intervals_hold_the_value_and_properties_do_not_move(rows):
    found = rows.filter(pl.col("other_ranking") != RESAMPLED)
    for name in ("rank_correlation", "shared_10", "shared_50"):
        assert found.filter(pl.col(f"{name}_low") > pl.col(name) + 1e-12).is_empty()
        assert found.filter(pl.col(f"{name}_high") < pl.col(name) - 1e-12).is_empty()
    properties = found.filter(ranking="null_space_share")
    assert properties["shared_50_low"].to_list() == properties["shared_50_high"].to_list()


def test_stability_is_the_median_overlap_with_resampled_text(rows, path):
    """The same samples, ranked one by one."""
    cells = relation(path, "agg_effect")
    row = rows.filter(preset="es", token_group="rare", other_ranking=RESAMPLED).row(0, named=True)
    positions = relation(path, "position_group", preset="es", token_group="rare")
    all_groups = relation(path, "position_group")
    every = relation(path, "dim_position")
    windows = np.unique(every.filter(pl.col("position_id").is_in(all_groups["position_id"].implode()))["window_id"])
    facts = relation(path, "fct_effect").join(every.select("position_id", "window_id"), on="position_id")
    facts = facts.join(positions.select("position_id"), on="position_id", how="semi")
    own = influence(path, "es", "rare")
    rng = np.random.default_rng(0)
    shared, correlations = [], []
    for counts in rng.multinomial(len(windows), np.full(len(windows), 1 / len(windows)), size=40):
        times = pl.DataFrame({"window_id": windows, "times": counts}).cast({"window_id": facts["window_id"].dtype})
        weighted = facts.join(times, on="window_id").group_by("neuron").agg(
            (pl.col("delta_loss").cast(pl.Float64).abs() * pl.col("times")).sum() / pl.col("times").sum()
        )  # fmt: skip
        values = weighted.sort("neuron")["delta_loss"].to_numpy()
        shared.append(len(top(own, 10) & top(values, 10)))
        correlations.append(stats.spearmanr(own, values).statistic)
    assert row["shared_10"] == int(np.median(shared))
    assert row["rank_correlation"] == pytest.approx(np.median(correlations), abs=1e-6)
    assert row["expected_10"] is None
    assert row["p_10"] is None
    assert not cells.is_empty()


def test_runs_of_one_layer_are_compared_group_by_group(path):
    runs = warehouse.runs(path)
    (members,) = every_layer_set(runs)
    ids = members["run_id"].to_list()
    assert sorted(ids) == ["a", "b", "c"]
    cells = {run_id: relation(path, "agg_effect", run_id) for run_id in ids}
    found = overlap_across(members, cells, draws=30, seed=0)
    assert len(found) == 3 * len(GROUPS)
    for row in found.iter_rows(named=True):
        assert row["preset"] == row["other_preset"]
        one, other = (
            influence(path, row["preset"], row["token_group"], row[name]) for name in ("run_id", "other_run_id")
        )
        assert row["shared_50"] == len(top(one, 50) & top(other, 50))
        assert row["rank_correlation"] == pytest.approx(stats.spearmanr(one, other).statistic, abs=1e-9)


def test_the_same_text_is_resampled_together(path):
    """Two runs that are the same have no interval of their overlap; on other text the interval is wide."""
    cells = {name: relation(path, "agg_effect", "a") for name in ("a", "b")}
    runs = warehouse.runs(path).filter(pl.col("run_id").is_in(["a", "b"])).sort("run_id")
    same = overlap_across(runs, cells, draws=30, seed=0)
    assert (same["rank_correlation_low"] > 1 - 1e-9).all()
    assert (same["shared_50_low"] == 50).all()
    other = overlap_across(runs, cells | {"b": relation(path, "agg_effect", "c")}, draws=30, seed=0)
    assert (other["rank_correlation_high"] - other["rank_correlation_low"] > 0.001).all()


def test_of_many_checkpoints_some_are_compared():
    count = 40
    runs = pl.DataFrame(
        {
            "run_id": [f"r{i:02}" for i in range(count)], "status": ["published"] * count, "model": ["m"] * count,
            "layer": [3] * count, "neurons": [64] * count, "quantisation": [None] * count,
            "training_stage": [None] * count, "training_step": range(count), "created_at": ["2026"] * count,
        }
    )  # fmt: skip
    (members,) = every_layer_set(runs)
    assert len(members) == MOST
    assert members["run_id"].to_list()[0] == "r00"
    assert members["run_id"].to_list()[-1] == "r39"
    assert every_layer_set(runs.with_columns(layer=pl.int_range(count))) == []


def test_a_group_without_a_position_and_a_property_that_is_not_known_say_so(path):
    cells = relation(path, "agg_effect").filter(pl.col("percentile_bucket") > 20)
    neurons = relation(path, "dim_neuron").with_columns(frequency_correlation=pl.lit(None, dtype=pl.Float32))
    found = ranking_overlap(cells, neurons, draws=10, seed=0)
    empty = found.filter(preset="ds", token_group="rare")
    assert set(empty["reason"]) == {"no position in the group"}
    assert empty["shared_10"].null_count() == len(empty)
    unknown = found.filter(preset="es", token_group="common", other_ranking="frequency_correlation")
    assert unknown["reason"].to_list() == ["not known for the layer's neurons"]
    assert by_chance({"shared_10": None, "shared_50": None, "other_ranking": "influence"}, 10) == {"neurons": 10}


def test_analyze_stores_both_and_the_relation_shows_them_as_one(path, commands, monkeypatch):
    monkeypatch.setattr(registry, "REGISTRY", (overlap.ANALYSIS,))
    monkeypatch.setattr(registry, "OF_SETS", (overlap.ACROSS,))
    ended = commands("analyze", "--warehouse", path, "--json")
    assert ended.code == 0, ended.err
    with warehouse.open(path) as opened:
        found = opened.ranking_overlap()
        own = found.filter(pl.col("run_id") == pl.col("other_run_id"))
        assert len(own) == 3 * 34
        assert len(found) - len(own) == 3 * len(GROUPS)
