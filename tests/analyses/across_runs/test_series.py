"""`analyze` over a series: what `emergence` holds, and when it is computed anew."""

import json

import numpy as np
import polars as pl
import pytest

from rare_tokens import warehouse
from rare_tokens.analyses import registry
from rare_tokens.analyses.coordination.weight_spectra import weight_spectrum
from rare_tokens.analyses.curve.power_law import power_law_line
from rare_tokens.common.parts import parts_root
from studies.synthetic.runs import make_parts
from tests.commands.test_analyze import smaller_registry


def publish(path, revision):
    run_id = f"grown-{revision}"
    folder = parts_root(path) / run_id
    sizes = {"positions": 768, "neurons": 256, "zipf_share": 0.8}
    make_parts(folder, **sizes, model_seed=int(revision[4:]), run_id=run_id, revision=revision, model="grown")
    warehouse.publish(path, folder, line=power_law_line, quiet=True)


@pytest.fixture
def path(commands, monkeypatch):
    """A warehouse of two checkpoints, a missing one between them and a run of another model."""
    monkeypatch.setattr(registry, "REGISTRY", smaller_registry())
    path = commands.folder / "rare_tokens.duckdb"
    publish(path, "step1")
    publish(path, "step64")
    warehouse.record_gap(path, run_id="grown-step8", model="grown", revision="step8", why="no weights")
    folder = parts_root(path) / "other"
    make_parts(folder, positions=384, neurons=96, seed=9, run_id="other", zipf_share=0.8)
    warehouse.publish(path, folder, line=power_law_line, quiet=True)
    return path


def analysed(commands, *arguments):
    ended = commands("analyze", "--json", *arguments)
    assert ended.code == 0, ended.err
    return [row["run_id"] for row in json.loads(ended.out) if row["analysis"] == "emergence"]


@pytest.mark.slow
def test_a_series_is_followed_and_only_when_it_changes(commands, path):
    assert analysed(commands, "grown-step1") == [], "a checkpoint that is not analysed yet would be left out"
    assert analysed(commands) == ["grown-step1", "grown-step64"]
    assert analysed(commands) == []
    publish(path, "step8")
    assert analysed(commands) == ["grown-step1", "grown-step8", "grown-step64"]
    with warehouse.open(path) as opened:
        assert opened.emergence(run_id="other").is_empty()
    assert commands("delete", "grown-step64").code == 0
    assert analysed(commands) == ["grown-step1", "grown-step8"]


@pytest.mark.slow
def test_groups_of_the_last_checkpoint_are_followed_back(commands, path):
    analysed(commands)
    with warehouse.open(path) as opened:
        found = opened.emergence()
        groups = opened.neuron_group(preset="es").sort("draw", "neuron")
        fits = opened.power_law_fit()
        first = opened.neuron_weight(run_id="grown-step1").sort("neuron")
    missing = found.filter(pl.col("run_id") == "grown-step8")
    assert missing.select("training_step", "quantity", "reason").rows() == [
        (8, "kappa", "no effects: the run is missing")
    ]
    kappa = found.filter(pl.col("quantity") == "kappa").join(fits, on=["run_id", "preset", "token_group"])
    assert kappa["value"].to_list() == kappa["kappa"].to_list()
    assert kappa["low"].null_count() < len(kappa)
    weights = {"w_out": np.array(first["w_out"].to_list(), dtype=np.float32)}
    for chosen_at, run_id in (("last", "grown-step64"), ("each", "grown-step1")):
        chosen = groups.filter(pl.col("run_id") == run_id, pl.col("group_name") == "boost")
        expected = weight_spectrum(weights, chosen, rules=["mid"]).filter(pl.col("group_name") == "boost")
        row = found.filter(
            pl.col("run_id") == "grown-step1", pl.col("group_name") == "boost",
            pl.col("quantity") == "alpha_mid", pl.col("chosen_at") == chosen_at,
        )  # fmt: skip
        assert row["value"].item() == pytest.approx(expected["alpha"].item(), rel=1e-6)
        control = found.filter(
            pl.col("group_name") == "control", pl.col("quantity") == "alpha_mid", pl.col("chosen_at") == chosen_at
        )
        assert (control["low"] <= control["value"]).all()
        assert (control["value"] <= control["high"]).all()
