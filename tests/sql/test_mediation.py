"""By which way a neuron acts, and what is known of it, beside the ranking."""

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from rare_tokens import warehouse
from rare_tokens.analyses.curve.power_law import power_law_line
from rare_tokens.common import parts
from studies.synthetic.runs import make_parts

EFFECTS = ("loss", "direct", "entropy", "kl", "frequency")
GROUP = ["preset", "token_group", "neuron"]


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[warehouse.Warehouse]:
    """A run with every effect, one with the loss alone, one with the direct effect beside it."""
    path = tmp_path_factory.mktemp("mediation") / "w.duckdb"
    for seed, (run, effects) in enumerate({"all": EFFECTS, "loss": ("loss",), "direct": ("loss", "direct")}.items()):
        folder = parts.parts_root(path) / run
        make_parts(folder, positions=300, neurons=40, window=50, run_id=run, effects=effects, seed=seed)
        warehouse.publish(path, folder, line=power_law_line, quiet=True)
    with warehouse.open(path) as opened:
        yield opened


def test_ratios_of_means_and_means(opened: warehouse.Warehouse) -> None:
    facts = opened.fct_effect(run_id="all").join(opened.position_group(run_id="all"), on="position_id")
    assert facts["direct_delta_loss"].null_count() == 0
    size = facts.group_by(GROUP).agg(
        total=pl.col("delta_loss").cast(pl.Float64).abs().mean(),
        direct=pl.col("direct_delta_loss").cast(pl.Float64).abs().mean(),
        frozen=pl.col("frozen_frequency_delta_loss").cast(pl.Float64).abs().mean(),
        mean_direct=pl.col("direct_delta_loss").cast(pl.Float64).mean(),
        entropy=pl.col("delta_entropy").cast(pl.Float64).mean(),
        kl=pl.col("delta_kl").cast(pl.Float64).mean(),
    )
    both = opened.neuron_mediation(run_id="all").join(size, on=GROUP)
    assert len(both) == len(size) == 6 * 40
    for row in both.iter_rows(named=True):
        assert row["direct_share"] == pytest.approx(row["direct"] / row["total"], rel=1e-6)
        assert row["frequency_mediation"] == pytest.approx(1 - row["frozen"] / row["total"], rel=1e-6)
        assert row["mean_direct_delta_loss"] == pytest.approx(row["mean_direct"], abs=1e-11)
        assert (row["mean_delta_entropy"], row["mean_delta_kl"]) == pytest.approx(
            (row["entropy"], row["kl"]), abs=1e-11
        )
        assert row["reason"] is None


def test_what_was_not_asked_for_is_null_and_says_so(opened: warehouse.Warehouse) -> None:
    values = ["direct_share", "frequency_mediation", "mean_delta_entropy", "mean_delta_kl"]
    loss = opened.neuron_mediation(run_id="loss")
    assert loss.select(values).null_count().row(0) == (len(loss),) * 4
    assert loss["reason"].unique().to_list() == ["not asked for with --effects: direct, entropy, kl, frequency"]
    direct = opened.neuron_mediation(run_id="direct")
    assert direct.select(values).null_count().row(0) == (0, len(direct), len(direct), len(direct))
    assert direct["reason"].unique().to_list() == ["not asked for with --effects: entropy, kl, frequency"]


def test_a_neuron_without_influence_has_no_share(tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    folder = parts.parts_root(path) / "quiet"
    make_parts(folder, positions=300, neurons=40, window=50, run_id="quiet", effects=EFFECTS)
    for block in sorted((folder / "fct_effect").glob("*.parquet")):
        frame = pl.read_parquet(block)
        silenced = pl.when(pl.col("neuron") == 7).then(0).otherwise(pl.col("delta_loss")).cast(pl.Float32)
        frame.with_columns(delta_loss=silenced).write_parquet(block)
    warehouse.publish(path, folder, line=power_law_line, quiet=True)
    with warehouse.open(path) as opened:
        rows = opened.neuron_mediation(run_id="quiet", neuron=7)
    assert rows["direct_share"].to_list() == [None] * 6
    assert rows["frequency_mediation"].to_list() == [None] * 6
    assert rows["reason"].unique().to_list() == ["mean |delta_loss| is below 1e-6"]
    assert rows["mean_delta_entropy"].null_count() == 0


def test_the_profile_is_the_ranking_with_what_is_known_beside_it(opened: warehouse.Warehouse) -> None:
    profile = opened.neuron_profile(run_id="all").sort(GROUP)
    ranking = opened.neuron_influence(run_id="all").sort(GROUP)
    assert profile.select(*GROUP, "rank", "influence").equals(ranking.select(*GROUP, "rank", "influence"))
    neuron = opened.dim_neuron(run_id="all", neuron=3).row(0, named=True)
    tokens = opened.neuron_token(run_id="all", neuron=3).join(opened.dim_token(), on="token_id").sort("rank")
    for row in profile.filter(pl.col("neuron") == 3).iter_rows(named=True):
        for name in ("null_space_share", "logit_variance", "frequency_correlation", "w_out_norm", "mean_activation"):
            assert row[name] == neuron[name]
        for column, direction in (("raises", "up"), ("lowers", "down")):
            expected = tokens.filter(pl.col("direction") == direction, pl.col("rank") <= 5)["text"].to_list()
            assert row[column] == expected
            assert expected
        assert row["direct_share"] is not None
