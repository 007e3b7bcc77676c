"""The analyses of attention: a planted routing head is found, none in its absence, and the numbers by hand."""

import numpy as np
import polars as pl
import pytest
import torch

from rare_tokens.analyses.attention.head_edits import activation_patching, head_ablation
from rare_tokens.analyses.attention.inputs import Measured
from rare_tokens.analyses.attention.routing import attention_routing, gini, profile_correlation
from rare_tokens.analyses.attention.shares import Shares, largest_share
from rare_tokens.analyses.coordination.neuron_groups import GROUP, with_controls
from rare_tokens.analyses.result_table import table
from rare_tokens.analyses.statistics import holm
from rare_tokens.ingest.attention.measure import AttentionRequest
from tests.support.attention_runs import as_analysed, measured_parts, prepared_model
from tests.support.tiny import SUPPORTED, tiny_model

NEURON, LAYER, HEAD = 7, 1, 2
LEVEL = 0.05


def one_neuron(*neurons: int) -> pl.DataFrame:
    return table([{"group_name": f"n{neuron}", "k": 1, "draw": 0, "neuron": neuron} for neuron in neurons], GROUP)


def with_planted_head(seed: int = 0) -> torch.nn.Module:
    """A GPT-2 in which head 2 of layer 1 writes a direction that nothing else does and neuron 7 alone reads."""
    model = tiny_model(SUPPORTED["gpt2"], seed)
    direction = torch.randn(32, generator=torch.Generator().manual_seed(1))
    direction = direction - direction.mean()  # the norm takes the mean away
    direction /= direction.norm()
    without = torch.eye(32) - torch.outer(direction, direction)
    model.transformer.wte.weight.data @= 4 * without  # so that no head moves the norm's scale by much
    model.transformer.wpe.weight.data @= without
    for block in model.transformer.h:
        for projection in (block.attn.c_proj, block.mlp.c_proj):
            projection.weight.data @= without
            projection.bias.data @= without
    last = model.transformer.h[LAYER]
    last.ln_2.weight.data[:] = 1
    last.ln_2.bias.data[:] = 0
    last.mlp.c_fc.weight.data = without @ last.mlp.c_fc.weight.data
    last.mlp.c_fc.weight.data[:, NEURON] = direction
    last.attn.c_proj.weight.data[HEAD * 8 : (HEAD + 1) * 8] += torch.outer(torch.ones(8), 4 * direction)
    return model


def test_a_planted_routing_head_is_found(tmp_path) -> None:
    prepared = prepared_model(tmp_path / "planted", with_planted_head())
    measured = as_analysed(
        prepared,
        measured_parts(prepared, tmp_path / "parts", AttentionRequest((LAYER,))),
        one_neuron(NEURON, NEURON + 1),
    )
    found = head_ablation(measured, draws=999, resamples=50)
    largest = found.filter(pl.col("target") == "largest_head").sort("group_name", "token_group")
    planted = largest.filter(pl.col("group_name") == f"n{NEURON}")
    assert planted["attention_layer"].to_list() == [LAYER] * 2
    assert planted["head"].to_list() == [HEAD] * 2
    assert (planted["head_share"] > 0.9).all()
    assert (planted["share_p_value"] <= 0.02).all()
    own = found.filter(
        pl.col("target") == "head", pl.col("group_name") == f"n{NEURON}", pl.col("share_p_holm") <= LEVEL
    )
    assert set(own.select("attention_layer", "head").iter_rows()) == {(LAYER, HEAD)}, "no other head is called special"
    other = largest.filter(pl.col("group_name") == f"n{NEURON + 1}")
    assert (other["head_share"] < 0.9).all()


@pytest.mark.slow
def test_no_head_is_found_in_its_absence(tmp_path) -> None:
    rejected = draws = 0
    for seed in range(10):
        prepared = prepared_model(tmp_path / f"model{seed}", tiny_model(SUPPORTED["gpt2"], seed), tokens=48)
        parts = measured_parts(prepared, tmp_path / f"parts{seed}")
        neurons = np.random.default_rng(seed).choice(80, 20, replace=False)
        shares = Shares.of(as_analysed(prepared, parts, one_neuron()), "rare")
        for neuron in neurons.tolist():
            controls = with_controls(one_neuron(neuron), 80, draws=399, seed=neuron).filter(pl.col("draw") > 0)
            members = controls["neuron"].to_numpy()[:, None]
            own = shares.of_groups(np.array([[neuron]]))[:, 0]
            p = largest_share(own, shares.of_groups(members), LEVEL)["share_p_value"]
            rejected += p <= LEVEL
            draws += 1
    assert draws == 200
    assert 2 <= rejected <= 21, rejected


def by_hand() -> Measured:
    """Two neurons, two units, two heads and a layer without a path; sums that can be followed by hand."""
    edits = pl.DataFrame(
        [
            (1, "head", 0, 0, None, True, 1.0),
            (2, "head", 0, 1, None, True, 1.0),
            (3, "layer", 1, None, None, False, 0.0),
            (4, "patch_head", 0, 0, None, True, 1.0),
        ],
        schema=["edit", "kind", "attention_layer", "head", "draw", "feeds_neurons", "largest_change"],
        orient="row",
    )
    sums = {  # edit: unit × neuron
        0: [[2.0, -4.0], [4.0, -4.0]],
        1: [[-1.0, 0.0], [-2.0, 0.0]],
        2: [[0.0, 2.0], [0.0, 6.0]],
        4: [[1.0, 1.0], [0.0, 0.0]],
    }
    rows = [
        (group, "top", 2, edit, 10 * unit, neuron, 2, scale * value, unit == 0)
        for group, scale in (("rare", 1.0), ("common", 0.5))
        for edit, units in sums.items()
        for unit, values in enumerate(units)
        for neuron, value in enumerate(values)
        if edit != 4 or unit == 0
    ]
    names = ["token_group", "group_name", "k", "edit", "window_id", "neuron", "positions", "activation_sum", "has_loss"]
    units = pl.DataFrame(rows, schema=names, orient="row")
    impact = units.group_by("token_group", "edit", "neuron").agg(
        (pl.col("activation_sum").sum() / 4).alias("mean_change")
    )
    losses = pl.DataFrame(
        [("rare", edit, window, 2, 0.5 * edit + window) for edit in (1, 2, 3, 4) for window in (0, 1)],
        schema=["token_group", "edit", "window_id", "positions", "delta_sum"],
        orient="row",
    )
    groups = table([{"group_name": "top", "k": 2, "draw": 0, "neuron": neuron} for neuron in (0, 1)], GROUP)
    return Measured(1, edits, units, impact.sort("token_group", "edit", "neuron"), losses, groups, 2)


def test_changes_by_hand() -> None:
    found = head_ablation(by_hand(), draws=20, resamples=20)
    rare = found.filter(pl.col("token_group") == "rare")
    first, second, layer = (rare.filter(pl.col("target") == name) for name in ("head", "head", "layer"))
    first, second = first[:1], second[1:]
    # neuron 0: (−3/4) / (6/4) = −0.5, neuron 1: 0; their mean, the size of it, and what sums say
    assert first["activation_change"].item() == -0.25
    assert first["impact"].item() == 0.25
    assert first["pooled_change"].item() == -3 / 14
    assert second["activation_change"].item() == 0.5
    assert first["positions"].item() == 4
    assert first["versus_common"].item() == 0.0, "common is half of everything"
    assert rare.filter(pl.col("target") == "random_head")["activation_change"].item() == 0.125
    assert rare.filter(pl.col("target") == "largest_head")["head"].item() == 1
    assert [first["delta_loss"].item(), first["loss_positions"].item()] == [(0.5 + 1.5) / 4, 4]
    assert layer["activation_change"].item() is None
    assert layer["delta_loss"].item() is not None
    assert "no path: the attention of layer 1" in layer["reason"].item()
    assert "by exactly 0" in layer["reason"].item()
    # each neuron is changed by one head alone
    assert first["head_share"].item() == second["head_share"].item() == 0.5


def test_a_patch_is_compared_with_the_subsample() -> None:
    found = activation_patching(by_hand(), resamples=20).filter(pl.col("token_group") == "rare")
    assert found["target"].to_list() == ["head"]
    assert found["positions"].item() == 2
    assert found["activation_change"].item() == pytest.approx((1 / 2 + 1 / 4) / 2)


def test_a_group_that_cannot_be_formed_has_its_reason() -> None:
    groups = table([{"group_name": "plateau", "k": 0, "draw": 0, "neuron": None, "reason": "no neuron is"}], GROUP)
    measured = by_hand()
    found = head_ablation(Measured(**{**measured.__dict__, "groups": groups}), draws=20, resamples=20)
    assert found["activation_change"].null_count() == len(found)
    assert found["reason"].str.contains("no neuron is").all()


def routing_frames(rng: np.random.Generator, units: int, shift: float) -> tuple[pl.DataFrame, ...]:
    """Two heads whose Gini coefficient is higher at rare targets by `shift`, in standard deviations of a unit."""
    cells = [(u * 2 + g, group, u, 4) for u in range(units) for g, group in enumerate(("rare", "common"))]
    heads, distances = [], []
    for head in (0, 1):
        for cell, group, _, positions in cells:
            value = 0.5 + 0.05 * (rng.standard_normal() + shift * (group == "rare"))
            heads.append((0, head, cell, positions * value, 1.0, 0.4))
            weights = rng.dirichlet(np.array([8.0, 4.0, 2.0, 1.0])) * positions
            distances += [(0, head, cell, back, weight) for back, weight in enumerate(weights)]
    key = ["attention_layer", "head", "cell"]
    return (
        pl.DataFrame(heads, schema=[*key, "gini_sum", "entropy_sum", "first_sum"], orient="row"),
        pl.DataFrame(distances, schema=[*key, "distance", "weight_sum"], orient="row"),
        pl.DataFrame(cells, schema=["cell", "token_group", "window_id", "positions"], orient="row"),
    )


def test_routing_by_hand() -> None:
    rng = np.random.default_rng(0)
    heads, distances, cells = routing_frames(rng, 12, 2.0)
    found = attention_routing(heads, distances, cells, resamples=200)
    assert found["head"].to_list() == [0, 1, None]
    joined = distances.join(cells, on="cell").filter(pl.col("head") == 0)
    profiles = {
        group: part.group_by("distance").agg(pl.col("weight_sum").sum() / 48).sort("distance")["weight_sum"].to_numpy()
        for (group,), part in joined.group_by("token_group")
    }
    first = found.row(0, named=True)
    assert first["correlation"] == pytest.approx(np.corrcoef(profiles["rare"], profiles["common"])[0, 1])
    assert first["mean_distance"] == pytest.approx(profiles["rare"] @ np.arange(4))
    assert first["profile_gini"] == pytest.approx(gini(profiles["rare"]))
    assert first["gini_difference"] == pytest.approx(first["gini"] - first["common_gini"])
    assert first["gini_low"] < first["gini_difference"] < first["gini_high"]
    assert first["correlation_low"] < first["correlation"] < first["correlation_high"] <= 1
    assert first["gini_p_value"] < 0.05
    over = found.row(2, named=True)
    assert over["gini"] == pytest.approx(found["gini"][:2].mean())
    assert over["correlation_sd"] == pytest.approx(found["correlation"][:2].std())


@pytest.mark.slow
def test_the_test_of_gini_rejects_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    rejected = 0
    for _ in range(100):
        found = attention_routing(*routing_frames(rng, 10, 0.0), resamples=2)
        rejected += (found["gini_p_value"][:2] <= LEVEL).sum()
    assert 2 <= rejected <= 21, rejected


def test_gini_and_correlation_of_profiles() -> None:
    assert gini(np.full(5, 0.2)) == pytest.approx(0)
    assert gini(np.array([0.0, 0.0, 1.0])) == pytest.approx(2 / 3)
    assert gini(np.arange(1.0, 8)) == pytest.approx(6 / 21)
    rows = np.array([[1.0, 2, 3], [3.0, 2, 1], [1.0, 1, 1]])
    found = profile_correlation(rows, np.array([[2.0, 4, 6]] * 3))
    assert found[:2].tolist() == pytest.approx([1, -1])
    assert np.isnan(found[2])


def test_holm_is_that_of_the_library() -> None:
    from statsmodels.stats.multitest import multipletests

    p = np.random.default_rng(0).uniform(0, 0.2, 9)
    assert holm([*p, None])[:9] == pytest.approx(multipletests(p, method="holm")[1])
    assert holm([*p, None])[9] is None
