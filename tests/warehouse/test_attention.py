"""`ingest --attention` from the command to the relations: added, extended, resumed, refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from rare_tokens import warehouse
from rare_tokens.common import parts
from rare_tokens.common.errors import QualityError, UserError
from rare_tokens.ingest.attention import measure
from rare_tokens.ingest.attention.heads import eager, find_heads
from rare_tokens.ingest.attention.measure import AttentionRequest, attention_due, measure_attention
from rare_tokens.ingest.model.files import Trust
from rare_tokens.ingest.model.load import load_model
from rare_tokens.ingest.model.locate import locate
from rare_tokens.ingest.model.structure import find_structure
from rare_tokens.ingest.run.executors import LocalExecutor
from rare_tokens.ingest.run.pipeline import Workbench
from rare_tokens.ingest.run.request import Options, identify
from tests.conftest import REPOSITORY
from tests.support.attention_runs import halves, measured_parts, prepared_model
from tests.support.commands import exit_code
from tests.support.hooked_heads import hooked_pass
from tests.support.mart_rows import empty_warehouse, given, given_run, publish, rows
from tests.support.tiny import SUPPORTED, save_folder, tiny_corpus, tiny_model
from tests.support.warehouses import change

ASKED = ("--tokens", 96, "--window", 16, "--device", "cpu", "--quiet")


@pytest.fixture(scope="module")
def once(tmp_path_factory) -> Path:
    """A folder with a model, a corpus, and the warehouse of a run of theirs, to be copied."""
    folder = tmp_path_factory.mktemp("once")
    corpus, model = tiny_corpus(folder / "corpus.jsonl"), save_folder(folder / "gpt2", SUPPORTED["gpt2"])
    given = ("ingest", "--model", model, "--corpus", corpus, *ASKED)
    assert exit_code(*given, "--warehouse", folder / "rare_tokens.duckdb") == 0
    return folder


@pytest.fixture
def model(commands, once) -> Path:
    shutil.copy(once / "corpus.jsonl", commands.folder)
    return shutil.copytree(once / "gpt2", commands.folder / "gpt2")


@pytest.fixture
def ingested(commands, once, model) -> Path:
    return Path(shutil.copy(once / "rare_tokens.duckdb", commands.folder))


def ingest(commands, *more, model="gpt2"):
    return commands("ingest", "--model", model, "--corpus", "corpus.jsonl", *ASKED, *more, "--json")


def relation(commands, name, **chosen) -> pl.DataFrame:
    with warehouse.open(commands.folder / "rare_tokens.duckdb") as opened:
        return opened.read(name).filter(**chosen)


def test_attention_is_added_to_a_run_that_is_there_and_says_what_hooks_say(commands, model, ingested) -> None:
    before = relation(commands, "fct_effect")
    ended = ingest(commands, "--attention")
    assert ended.code == 0, ended.err
    assert relation(commands, "fct_effect").equals(before), "the run itself is left as it is"
    edits = relation(commands, "dim_attention_edit").sort("edit")
    assert edits["kind"].value_counts().sort("kind").rows() == [
        ("feed_forward", 4), ("head", 8), ("layer", 2), ("norm", 4), ("patch_head", 8), ("patch_layer", 2)
    ]  # fmt: skip
    loaded = load_model(locate(str(model), None, Trust()), dtype="float32", device="cpu", trust=Trust())
    structure = find_structure(loaded)
    position = relation(commands, "dim_position").sort("position_id")
    tokens = np.column_stack([position["input_token_id"], position["target_token_id"]]).reshape(6, 16, 2)
    tokens = np.column_stack([tokens[:, :, 0], tokens[:, -1, 1]]).astype(np.int64)
    groups = relation(commands, "position_group", preset="nc")
    impact = relation(commands, "attention_impact", preset="nc")
    losses = relation(commands, "fct_attention_effect")
    plain = hooked_pass(loaded, structure, tokens)
    with eager(loaded):
        layers = find_heads(loaded, structure)
    for row in edits.filter(pl.col("kind").is_in(["head", "layer"])).iter_rows(named=True):
        heads = None if row["head"] is None else [row["head"]]
        truth = hooked_pass(loaded, structure, tokens, layers[row["attention_layer"]], heads)
        change = (truth.activations - plain.activations).reshape(96, 80).numpy()
        for group in ("rare", "common"):
            chosen = groups.filter(pl.col("token_group") == group)["position_id"].to_numpy()
            ours = impact.filter(pl.col("token_group") == group, pl.col("edit") == row["edit"]).sort("neuron")
            assert np.abs(ours["mean_change"].to_numpy() - change[chosen].mean(0)).max() <= 1e-5
            clean = plain.activations.reshape(96, 80).numpy()[chosen].mean(0)
            assert np.abs(ours["mean_activation"].to_numpy() - clean).max() <= 1e-5
        delta = losses.filter(pl.col("edit") == row["edit"]).sort("position_id")["delta_loss"].to_numpy()
        assert np.abs(delta - (truth.loss - plain.loss).reshape(-1).numpy()).max() <= 1e-5
        assert row["largest_change"] == pytest.approx(np.abs(change).max(), rel=1e-4)
    weights = relation(commands, "agg_attention_distance").group_by("head", "attention_layer", "cell")
    cells = relation(commands, "dim_attention_cell").select("cell", "positions").unique()
    summed = weights.agg(pl.col("weight_sum").sum()).join(cells, on="cell")
    assert (summed["weight_sum"] / summed["positions"] - 1).abs().max() < 1e-5


@pytest.mark.slow
def test_asked_again_it_is_done_and_more_is_added(commands, model) -> None:
    assert ingest(commands, "--attention", "--attention-layers", "1").code == 0
    first = relation(commands, "dim_attention")
    assert first["layers"].to_list() == [[1]]
    assert ingest(commands, "--attention", "--attention-layers", "1").code == 0
    assert relation(commands, "dim_attention").equals(first), "nothing is measured twice"
    assert ingest(commands, "--attention", "--attention-layers", "0").code == 0
    assert relation(commands, "dim_attention")["layers"].to_list() == [[0, 1]], "asking for more loses nothing"
    assert ingest(commands, "--attention", "--head-ablation", "uniform").code == 0
    assert sorted(relation(commands, "dim_attention")["head_ablation"]) == ["uniform", "zero"]
    assert ingest(commands, "--effects", "loss,entropy").code == 0
    assert sorted(relation(commands, "dim_attention")["head_ablation"]) == ["uniform", "zero"], "the run has it again"
    run_id = relation(commands, "dim_run")["run_id"].item()
    assert commands("check").code == 0
    assert commands("delete", run_id).code == 0
    assert all(
        relation(commands, name).is_empty() for name in parts.ATTENTION_RELATIONS if name != "attention_position"
    )


@pytest.mark.slow
def test_what_analyses_say_follows_new_attention(commands, model) -> None:
    assert ingest(commands).code == 0
    assert commands("analyze", "--quiet").code == 0
    assert relation(commands, "head_ablation").is_empty()
    assert ingest(commands, "--attention").code == 0
    done = {row["analysis"] for row in json.loads(commands("analyze", "--quiet", "--json").out)}
    assert done == {"attention_routing", "head_ablation"}
    heads = relation(commands, "head_ablation").filter(pl.col("target") == "head")
    assert heads["activation_change"].count() > 0
    assert heads["delta_loss"].null_count() == 0
    assert relation(commands, "attention_routing")["correlation"].count() == 9
    assert len(relation(commands, "activation_patching")) > 0
    for name in ("nc_table_2", "nc_attention", "heads", "nc_patching"):
        found = json.loads(commands("sql", REPOSITORY / "docs" / "queries" / f"{name}.sql", "--json").out)
        assert [row for row in found if row["model"] == "gpt2"], name


@pytest.mark.slow
def test_side_by_side_the_last_layer_changes_nothing_and_the_relation_says_why(commands) -> None:
    save_folder(commands.folder / "neox", SUPPORTED["gpt_neox"])
    tiny_corpus(commands.folder / "corpus.jsonl")
    assert ingest(commands, "--attention", "--attention-layers", "0..1", model="neox").code == 0
    edits = relation(commands, "dim_attention_edit", attention_layer=1).filter(pl.col("kind") != "norm")
    assert not edits["feeds_neurons"].any()
    assert edits["largest_change"].to_list() == [0.0] * len(edits)
    assert relation(commands, "agg_attention_activation").filter(pl.col("edit").is_in(edits["edit"])).is_empty()
    assert commands("analyze", "--quiet").code == 0
    found = relation(commands, "head_ablation", attention_layer=1, target="head", group_name="top")
    assert len(found) == 4 * 2
    assert found["activation_change"].null_count() == len(found)
    assert found["delta_loss"].null_count() == 0
    assert found["reason"].str.contains("no path: the attention of layer 1 does not feed the neurons of layer 1").all()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--attention", "--attention-layers", "1..2"), "--attention-layers 1..2: the model has 2 layers"),
        (("--attention", "--attention-layers", "last"), "--attention-layers last: give one layer, or two"),
        (("--attention-layers", "0"), "--attention-layers 0 says how to measure attention. Give --attention too"),
        (("--head-ablation", "mean"), "--head-ablation mean says how to measure attention"),
    ],
)
def test_bad_input_is_refused_in_a_sentence(commands, model, options, said) -> None:
    ended = ingest(commands, *options)
    assert ended.code == 2
    assert said in ended.err
    assert commands.runs() == [], "before anything is computed"


def test_a_dry_run_says_what_attention_adds(commands, ingested) -> None:
    (without,) = json.loads(ingest(commands, "--dry-run").out)
    (asked,) = json.loads(ingest(commands, "--dry-run", "--attention").out)
    assert without["attention_rows"] == without["attention_minutes"] == 0
    assert asked["attention_minutes"] > 0
    assert asked["warehouse_bytes"] > without["warehouse_bytes"]
    assert ingest(commands, "--attention").code == 0
    rows = sum(len(relation(commands, name)) for name in ("agg_attention_activation", "agg_attention_distance"))
    assert rows / 3 <= asked["attention_rows"] <= 3 * rows
    assert ingest(commands, "--dry-run", "--attention", "--attention-layers", "7").code == 2


@pytest.mark.slow
def test_a_model_folder_that_has_changed_since_is_refused(commands, model, ingested) -> None:
    (run_id,) = relation(commands, "dim_run")["run_id"]
    shutil.rmtree(model)
    save_folder(model, SUPPORTED["gpt2"], seed=1)
    ended = ingest(commands, "--attention")
    assert ended.code == 2
    assert f"the folder of gpt2 has changed since run {run_id}" in ended.err
    assert len(relation(commands, "dim_run")) == 1
    assert ingest(commands).code == 0, "a run of its own"
    assert ingest(commands, "--attention").code == 0


def test_an_interrupted_measurement_goes_on(tmp_path, monkeypatch) -> None:
    prepared = prepared_model(tmp_path / "model", tiny_model(SUPPORTED["llama"]))
    whole = measured_parts(prepared, tmp_path / "whole")
    units = measure.AttentionUnits
    run, ran = units.run, []

    def cut_off(self, unit):
        if len(ran) == 3:
            raise KeyboardInterrupt
        ran.append(unit)
        run(self, unit)

    monkeypatch.setattr(units, "run", cut_off)
    groups = halves(prepared.manifest.positions)
    arguments = (prepared, groups, tmp_path / "parts", AttentionRequest(), LocalExecutor(quiet=True))
    with pytest.raises(KeyboardInterrupt):
        measure_attention(*arguments)
    assert prepared.model.config._attn_implementation != "eager"
    monkeypatch.setattr(units, "run", lambda self, unit: (ran.append(unit), run(self, unit)))
    measure_attention(*arguments)
    assert sorted(ran) == list(range(6)), "what was done is not done again"
    for name, frame in whole.items():
        again = pl.read_parquet(tmp_path / "parts" / f"{name}.parquet")
        assert again.drop("seconds", strict=False).equals(frame.drop("seconds", strict=False)), name


def test_results_do_not_depend_on_how_windows_and_edits_are_batched(tmp_path, monkeypatch) -> None:
    prepared = prepared_model(tmp_path / "model", tiny_model(SUPPORTED["qwen3"]))
    whole = measured_parts(prepared, tmp_path / "whole")
    monkeypatch.setattr("rare_tokens.ingest.attention.edits.POSITIONS_PER_BATCH", 16)
    monkeypatch.setattr("rare_tokens.ingest.attention.units.POSITIONS_PER_PASS", 16)
    single = measured_parts(prepared, tmp_path / "single")
    monkeypatch.setattr("rare_tokens.ingest.attention.cells.MOST_SUMS", 1)
    monkeypatch.setattr("rare_tokens.ingest.attention.cells.LEAST_UNITS", 2)
    coarse = measured_parts(prepared, tmp_path / "coarse")
    for name in ("agg_attention_activation", "agg_attention_distance", "fct_attention_effect"):
        values = whole[name].columns[-1]
        assert (whole[name][values] - single[name][values]).abs().max() <= 2e-4
    assert coarse["dim_attention"]["windows_per_unit"].item() == 3
    sums = [
        found["agg_attention_activation"]
        .join(found["dim_attention_cell"], on="cell")
        .group_by("edit", "neuron", "token_group")
        .agg(pl.col("activation_sum").cast(pl.Float64).sum())
        .sort("edit", "neuron", "token_group")["activation_sum"]
        for found in (whole, coarse)
    ]
    assert (sums[0] - sums[1]).abs().max() <= 1e-3


@pytest.fixture(scope="module")
def measured(once, tmp_path_factory) -> Path:
    """The parts of the run's attention."""
    corpus = str(once / "corpus.jsonl")
    options = Options(str(once / "gpt2"), corpus=(corpus,), tokens=96, window=16, device="cpu")
    prepared = Workbench().prepare(identify(options)[0])
    path, folder = once / "rare_tokens.duckdb", tmp_path_factory.mktemp("measured")
    groups = warehouse.read(path, prepared.manifest.run_id, "position_group")
    measure_attention(prepared, groups, folder, AttentionRequest(), LocalExecutor(quiet=True))
    return folder


@pytest.mark.quick_cases(3)
@pytest.mark.parametrize(
    ("relation_name", "column", "value", "said"),
    [
        ("agg_attention_activation", "activation_sum", np.nan, "activation_sum is finite"),
        ("fct_attention_effect", "delta_loss", np.inf, "delta_loss is finite"),
        ("agg_attention_distance", "weight_sum", 3.0, "weights of a position sum to 1"),
        ("agg_attention_activation", "neuron", 79, "has every edit, cell and neuron once"),
        ("dim_attention", "structural_check_error", 2.0, "structural self-check is within tolerance"),
        ("attention_position", "target_token_id", 299, "The text drawn for attention is not that of run"),
        ("dim_attention_cell", "token_group", "neither", "The text drawn for attention is not that of run"),
    ],
)
def test_parts_that_are_wrong_are_refused(commands, ingested, measured, relation_name, column, value, said) -> None:
    (run_id,) = relation(commands, "dim_run")["run_id"]
    folder = shutil.copytree(measured, commands.folder / "parts")
    change(relation_name, column, 0, value)(folder)
    with pytest.raises(QualityError, match=said):
        warehouse.add_attention(ingested, run_id, folder, readers=())
    assert relation(commands, "dim_attention").is_empty()
    with pytest.raises(UserError, match="is not published"):
        warehouse.add_attention(ingested, "another", folder, readers=())


def test_what_is_due() -> None:
    asked, stored = AttentionRequest((2,)), AttentionRequest((1, 2))
    assert attention_due(None, [], recomputed=True) == []
    assert attention_due(AttentionRequest(), [], recomputed=False) == [AttentionRequest()]
    assert attention_due(asked, [stored], recomputed=False) == []
    assert attention_due(asked, [stored], recomputed=True) == [stored]
    assert attention_due(AttentionRequest((3,)), [stored], recomputed=True) == [AttentionRequest((1, 2, 3))]
    uniform = AttentionRequest(None, "uniform")
    assert attention_due(uniform, [stored], recomputed=False) == [uniform]
    assert attention_due(uniform, [stored], recomputed=True) == [stored, uniform]
    with pytest.raises(UserError, match="--head-ablation half: unknown"):
        AttentionRequest(None, "half")


def test_attention_impact_and_units_of_literal_rows() -> None:
    with empty_warehouse() as con:
        given_run(con)
        given(
            con, "dim_attention_edit", "run_key, head_ablation, edit, kind, attention_layer, head, feeds_neurons,"
            " largest_change", (1, "zero", 1, "head", 0, 0, True, 1.0), (1, "zero", 2, "patch_head", 0, 0, True, 1.0),
        )  # fmt: skip
        given(
            con, "dim_attention_cell", "run_key, head_ablation, cell, preset, token_group, window_id, positions,"
            " has_loss", (1, "zero", 0, "nc", "rare", 0, 2, True), (1, "zero", 1, "nc", "rare", 1, 3, False),
        )  # fmt: skip
        sums = [(0, 0, 4.0), (0, 1, 6.0), (1, 0, 1.0), (1, 1, -2.0), (2, 0, 3.0)]
        columns = "run_key, head_ablation, edit, cell, neuron, activation_sum"
        given(
            con, "agg_attention_activation", columns, *((1, "zero", edit, cell, 5, total) for edit, cell, total in sums)
        )
        publish(con, "attention_impact", run_key=1)
        assert rows(
            con, "select edit, neuron, positions, mean_activation, mean_change from attention_impact order by 1"
        ) == [
            (1, 5, 5, 2.0, -0.2),
            (2, 5, 2, 2.0, 1.5),
        ]
        member = "run_key, preset, token_group, group_name, k, draw, neuron"
        given(con, "neuron_group", member, (1, "nc", "rare", "top", 1, 0, 5), (1, "nc", "rare", "control", 1, 1, 5))
        found = rows(
            con,
            "select group_name, edit, window_id, positions, activation_sum, has_loss from attention_unit order by all",
        )
        assert found == [
            ("top", 0, 0, 2, 4.0, True), ("top", 0, 1, 3, 6.0, False), ("top", 1, 0, 2, 1.0, True),
            ("top", 1, 1, 3, -2.0, False), ("top", 2, 0, 2, 3.0, True),
        ]  # fmt: skip


def test_a_run_of_another_device_dtype_keeps_within_its_rounding(tmp_path) -> None:
    model = tiny_model(SUPPORTED["llama"]).to(torch.bfloat16)
    prepared = prepared_model(tmp_path / "model", model)
    found = measured_parts(prepared, tmp_path / "parts")
    assert found["dim_attention"]["structural_check_error"].item() <= 1


def test_of_matched_contexts_only_their_own_position_counts(tmp_path) -> None:
    whole = prepared_model(tmp_path / "model", tiny_model(SUPPORTED["llama"]))
    sample = replace(whole.material.sample, document_ids=whole.material.sample.document_ids[:, -1:])
    assert (sample.predicted, len(sample.targets)) == (1, 6)
    manifest = replace(whole.manifest, positions=6, window_length=1)
    prepared = replace(whole, material=replace(whole.material, sample=sample), manifest=manifest)
    found = measured_parts(prepared, tmp_path / "parts")
    assert found["dim_attention"]["loss_positions"].item() == 6
    with eager(prepared.model):
        layers = find_heads(prepared.model, prepared.structure)
    plain = hooked_pass(prepared.model, prepared.structure, sample.tokens)
    truth = hooked_pass(prepared.model, prepared.structure, sample.tokens, layers[0], [0])
    ours = found["fct_attention_effect"].filter(pl.col("edit") == 1).sort("position_id")["delta_loss"].to_numpy()
    assert np.abs(ours - (truth.loss - plain.loss)[:, -1].numpy()).max() <= 1e-5
    cells = found["dim_attention_cell"].unique("cell")
    assert cells["positions"].sum() == 6
    sums = (
        found["agg_attention_activation"].filter(pl.col("edit") == 1).group_by("neuron").agg(pl.sum("activation_sum"))
    )
    change = (truth.activations - plain.activations)[:, -1].sum(0).numpy()
    assert np.abs(sums.sort("neuron")["activation_sum"].to_numpy() - change).max() <= 1e-4
