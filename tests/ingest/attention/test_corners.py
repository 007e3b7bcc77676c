"""Attention together with what else an ingest can be asked for: matched contexts, groups, scopes, a real model."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from rare_tokens import warehouse
from rare_tokens.analyses import registry
from rare_tokens.ingest.attention.heads import eager, find_heads
from rare_tokens.ingest.model.files import Trust
from rare_tokens.ingest.model.load import load_model
from rare_tokens.ingest.model.locate import locate
from rare_tokens.ingest.model.structure import find_structure, hooked
from rare_tokens.ingest.run.pipeline import Workbench
from rare_tokens.ingest.run.request import Options, identify
from tests.support.commands import exit_code
from tests.support.hooked_heads import heads_outputs, hooked_pass
from tests.support.matched_texts import COMMON, RARE, documents, matched_counts, matched_tokenizer, write_corpus
from tests.support.tiny import SUPPORTED, save_folder, tiny_corpus, tiny_model

WINDOW = 16
GROUP = [3, 5, 41]
ANALYSED = {"regimes", "neuron_group", "attention_routing", "head_ablation"}
EDITED = ["head", "layer"]


@pytest.fixture(scope="module")
def matched(tmp_path_factory):
    """A run of matched contexts with attention and a group, and its model."""
    folder = tmp_path_factory.mktemp("matched")
    tokenizer = matched_tokenizer()
    tiny_model(SUPPORTED["gpt2"]).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    np.save(folder / "counts.npy", matched_counts(tokenizer))
    news = write_corpus(folder / "news.txt", documents([*RARE, *COMMON], 0))
    (folder / "some.json").write_text(json.dumps({"some": GROUP}), encoding="utf-8")
    path = folder / "rare_tokens.duckdb"
    asked = (
        "ingest", "--model", folder / "model", "--contexts", "nc-matched", "--corpus", f"news={news}", "--frequencies",
        folder / "counts.npy", "--window", WINDOW, "--attention", "--group", folder / "some.json", "--device", "cpu",
        "--quiet", "--warehouse", path,
    )  # fmt: skip
    assert exit_code(*asked) == 0
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(registry, "REGISTRY", [one for one in registry.REGISTRY if one.name in ANALYSED])
        assert exit_code("analyze", "--quiet", "--warehouse", path) == 0
    with warehouse.open(path) as opened:
        yield opened, folder


def of_folder(folder: Path):
    """The model as the ingest loads it, its neurons' layer and the attention before them."""
    model = load_model(locate(str(folder), None, Trust()), dtype="float32", device="cpu", trust=Trust())
    structure = find_structure(model)
    with eager(model):
        return model, structure, find_heads(model, structure)


def windows_of(folder: Path) -> np.ndarray:
    """The tokens of the matched contexts, drawn again: contexts × (window + 1)."""
    options = Options(
        str(folder / "model"), corpus=(f"news={folder / 'news.txt'}",), frequencies=str(folder / "counts.npy"),
        contexts="nc-matched", window=WINDOW, device="cpu",
    )  # fmt: skip
    return Workbench().prepare(identify(options)[0]).material.sample.tokens


@pytest.mark.slow
def test_attention_of_matched_contexts_is_what_hooks_say_at_their_own_position(matched):
    opened, folder = matched
    tokens = windows_of(folder)
    model, structure, layers = of_folder(folder / "model")
    context = opened.position_context().sort("position_id")
    assert tokens[:, -1].tolist() == context["token_id"].to_list()
    plain = hooked_pass(model, structure, tokens)
    edits = opened.dim_attention_edit()
    losses, impact = opened.fct_attention_effect(), opened.attention_impact(preset="nc-matched")
    assert losses["position_id"].n_unique() == len(context), "fewer than the subsample: the loss of all"
    for row in edits.filter(pl.col("kind").is_in(EDITED)).iter_rows(named=True):
        heads = None if row["head"] is None else [row["head"]]
        truth = hooked_pass(model, structure, tokens, layers[row["attention_layer"]], heads)
        change = (truth.activations - plain.activations)[:, -1].numpy()
        assert np.abs(change).max() > 0.01
        for group in ("rare", "common"):
            chosen = (context["token_group"] == group).to_numpy()
            ours = impact.filter(token_group=group, edit=row["edit"]).sort("neuron")
            assert np.abs(ours["mean_change"].to_numpy() - change[chosen].mean(0)).max() <= 1e-5
            clean = plain.activations[:, -1].numpy()[chosen].mean(0)
            assert np.abs(ours["mean_activation"].to_numpy() - clean).max() <= 1e-5
        delta = losses.filter(edit=row["edit"]).sort("position_id")["delta_loss"].to_numpy()
        assert np.abs(delta - (truth.loss - plain.loss)[:, -1].numpy()).max() <= 1e-5


@pytest.mark.slow
def test_a_group_over_matched_contexts_is_what_a_hook_says(matched):
    opened, folder = matched
    tokens = windows_of(folder)
    model, structure, _layers = of_folder(folder / "model")
    ours = opened.fct_group_effect(group_name="some").sort("position_id")
    assert ours["position_id"].to_list() == list(range(len(tokens)))
    plain = hooked_pass(model, structure, tokens)
    means = plain.activations[:, -1].mean(0)

    def silence(_module, args):
        edited = args[0].clone()
        edited[..., -1, GROUP] = means[GROUP]
        return (edited, *args[1:])

    with hooked((structure.out_projection, "before", silence)):
        without = hooked_pass(model, structure, tokens)
    truth = (without.loss - plain.loss)[:, -1].numpy()
    assert np.abs(truth).max() > 1e-3
    assert np.abs(ours["delta_loss"].to_numpy() - truth).max() <= 1e-5


@pytest.mark.slow
def test_matched_contexts_are_analysed_like_any_preset(matched):
    opened, _folder = matched
    found = opened.head_ablation(preset="nc-matched")
    assert {"head", "layer", "largest_head", "random_head"} <= set(found["target"])
    measured = found.filter(pl.col("activation_change").is_not_null())
    assert measured.height > 0
    assert measured["activation_change"].is_finite().all()
    routed = opened.attention_routing(preset="nc-matched")
    assert routed.height > 0
    of_heads = routed.filter(pl.col("head").is_not_null())
    pairs = opened.position_context()["pair_id"].n_unique()
    assert of_heads["units"].to_list() == [pairs] * 8, "a unit is a pair's contexts, so each holds both groups"
    assert of_heads["reason"].null_count() == 8
    assert of_heads["gini_p_value"].is_between(0, 1).all()
    assert set(measured["units"]) == {pairs}
    for column in ("gini", "common_gini"):
        assert routed[column].is_between(0, 1).all()


@pytest.mark.slow
def test_attention_beside_an_edit_of_one_position(commands):
    """The scope of the neurons' ablation says nothing of heads: both scopes have the same attention."""
    tiny_corpus(commands.folder / "corpus.jsonl")
    save_folder(commands.folder / "llama", SUPPORTED["llama"])
    given = ("--model", "llama", "--corpus", "corpus.jsonl", "--tokens", 48, "--window", WINDOW, "--layer", 0)
    for scope in ("position", "window"):
        ended = commands(
            "ingest", *map(str, given), "--edit-scope", scope, "--attention", "--device", "cpu", "--quiet", "--json"
        )
        assert ended.code == 0, ended.err
    with warehouse.open(commands.folder / "rare_tokens.duckdb") as opened:
        runs = opened.dim_run().sort("created_at")
        assert [json.loads(options)["edit_scope"] for options in runs["options"]] == ["position", "window"]
        by = ["edit", "cell", "neuron"]
        parts = [opened.agg_attention_activation(run_id=run).sort(by) for run in runs["run_id"]]
        assert parts[0].drop("run_id").equals(parts[1].drop("run_id"))
        losses = [opened.fct_attention_effect(run_id=run).sort("edit", "position_id") for run in runs["run_id"]]
        assert losses[0].drop("run_id").equals(losses[1].drop("run_id"))
        effects = [opened.fct_effect(run_id=run).sort("neuron", "position_id")["delta_loss"] for run in runs["run_id"]]
        assert (effects[0] - effects[1]).abs().max() > 1e-4, "of the neurons' effects it does say something"
        edits = opened.dim_attention_edit(run_id=runs["run_id"][0]).filter(pl.col("kind").is_in(EDITED))
        assert set(edits["attention_layer"]) == {0}, "upstream of layer 0 is its own attention alone"
        assert (edits["largest_change"] > 1e-3).all()


@pytest.mark.slow
def test_heads_of_novella_replaced_by_their_means(real_inputs, commands):
    """A model that has learnt: results are finite, means in the heads' place cost less than zeros, and hooks agree."""
    step = real_inputs / "models" / "novella" / "step3979"
    corpus = real_inputs / "corpora" / "c4-sample"
    given = ("--model", str(step), "--corpus", str(corpus), "--tokens", "1024", "--device", "cpu", "--quiet", "--json")
    for ablation in ("mean", "zero"):
        ended = commands("ingest", *given, "--attention", "--head-ablation", ablation)
        assert ended.code == 0, ended.err
    with warehouse.open(commands.folder / "rare_tokens.duckdb") as opened:
        edits = opened.dim_attention_edit().filter(pl.col("kind").is_in(EDITED))
        losses = opened.fct_attention_effect().join(
            edits.select("head_ablation", "edit", "kind"), on=["head_ablation", "edit"]
        )
        sums = opened.agg_attention_activation()
        position = opened.dim_position().sort("position_id")
    assert sums["activation_sum"].is_finite().all()
    assert losses["delta_loss"].is_finite().all()
    assert len(edits) == 2 * 2 * (8 + 1)
    assert (edits["largest_change"] > 0.01).all()
    mean = {
        (ablation, kind): value
        for ablation, kind, value in losses.group_by("head_ablation", "kind")
        .agg(pl.col("delta_loss").mean())
        .iter_rows()
    }
    assert 0 < mean["mean", "layer"] < mean["zero", "layer"] < 2
    assert mean["mean", "head"] < mean["mean", "layer"]
    tokens = np.column_stack([position["input_token_id"], position["target_token_id"]]).reshape(-1, 256, 2)
    tokens = np.column_stack([tokens[:, :, 0], tokens[:, -1, 1]]).astype(np.int64)
    model, structure, layers = of_folder(step)
    plain = hooked_pass(model, structure, tokens)
    for row in edits.filter(head_ablation="mean", kind="layer").iter_rows(named=True):
        (layer,) = (item for item in layers if item.index == row["attention_layer"])
        own = heads_outputs(model, layer, tokens)
        truth = hooked_pass(model, structure, tokens, layer, None, own.mean((0, 1)).expand_as(own))
        ours = losses.filter(head_ablation="mean", edit=row["edit"]).sort("position_id")["delta_loss"].to_numpy()
        assert np.abs(ours - (truth.loss - plain.loss).reshape(-1).numpy()).max() <= 1e-4, "32 roundings"
