"""One command, several layers: the same positions and bits as separate commands, and what becomes of each run."""

import copy
import json
import os
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from rare_tokens import warehouse
from rare_tokens.common.parts import parts_root
from rare_tokens.ingest.ablation.stages import parts as effect_parts
from rare_tokens.ingest.run import loading, pipeline
from rare_tokens.warehouse.publish import runs
from tests.support.commands import Commands, Ended, exit_code
from tests.support.tiny import SUPPORTED, save_folder, tiny_corpus

SHAPE = ("--tokens", 64, "--window", 16, "--device", "cpu")
FACTS = """
    select dim_run.layer, ablation, neuron, position_id, activation, delta_loss
    from fct_effect join dim_run using (run_id)
"""


def deeper(name: str = "llama", layers: int = 3) -> Any:
    """A configuration of as many layers."""
    config = copy.deepcopy(SUPPORTED[name])
    config.num_hidden_layers = layers
    return config


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of three layers, and a text."""
    folder = tmp_path_factory.mktemp("inputs")
    save_folder(folder / "tiny", deeper())
    tiny_corpus(folder / "corpus.jsonl", documents=200)
    return folder


@pytest.fixture(scope="module")
def together(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A warehouse with every layer by two references, from one command that loaded and read once."""
    path = tmp_path_factory.mktemp("together") / "w.duckdb"
    made: dict[str, list[Any]] = {"models": [], "texts": []}
    load, draw = loading.load_model, pipeline.draw_material
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "load_model", lambda *a, **k: made["models"].append(1) or load(*a, **k))
        patch.setattr(pipeline, "draw_material", lambda *a, **k: made["texts"].append(1) or draw(*a, **k))
        asked = ("--layer", "all", "--ablation", "mean,zero", "--warehouse", path, "--quiet")
        assert exit_code("ingest", *given(inputs), *asked) == 0
    assert {name: len(found) for name, found in made.items()} == {"models": 1, "texts": 1}
    return path


def given(inputs: Path) -> tuple[object, ...]:
    return ("--model", inputs / "tiny", "--corpus", inputs / "corpus.jsonl", *SHAPE)


def ingest(commands: Commands, inputs: Path, layer: object, *more: object) -> Ended:
    return commands("ingest", *given(inputs), "--layer", layer, *more)


def published(path: Path | str = "rare_tokens.duckdb") -> pl.DataFrame:
    with warehouse.open(path) as opened:
        return opened.dim_run().filter(pl.col("status") == "published").sort("layer", "ablation")


def facts(path: Path | str = "rare_tokens.duckdb", where: str = "true") -> pl.DataFrame:
    with warehouse.open(path) as opened:
        return opened.sql(f"{FACTS} where {where} order by all")


def test_layers_and_references_are_a_run_each_at_the_same_positions(together: Path) -> None:
    found = published(together)
    expected = [(layer, ablation) for layer in range(3) for ablation in ("mean", "zero")]
    assert found.select("layer", "ablation").rows() == expected
    assert [json.loads(row)["layer"] for row in found["options"]] == [layer for layer, _ in expected]
    assert {json.loads(row)["layers"] for row in found["facts"]} == {3}
    assert [json.loads(row)["path"] for row in found["facts"]] == ["dense"] * 4 + ["moments"] * 2
    with warehouse.open(together) as opened:
        positions = opened.dim_position().sort("position_id").partition_by("run_id", include_key=False)
    assert len(positions) == 6
    assert positions[0].height == 64
    same = [name for name in positions[0].columns if name not in ("loss", "entropy")]
    assert all(one.select(same).equals(positions[0].select(same)) for one in positions)


@pytest.mark.parametrize(
    "layer", [pytest.param(0, marks=pytest.mark.slow), 1, pytest.param(-1, marks=pytest.mark.slow)]
)
def test_each_run_is_that_of_a_command_of_its_own_to_the_last_bit(
    commands: Commands, inputs: Path, together: Path, layer: int
) -> None:
    ended = ingest(commands, inputs, layer, "--ablation", "mean")
    assert ended.code == 0, ended.err
    (alone,) = published().rows(named=True)
    (same,) = published(together).filter(ablation="mean", layer=layer % 3).rows(named=True)
    assert alone["run_id"] == same["run_id"]
    assert facts().equals(facts(together, f"ablation = 'mean' and dim_run.layer = {layer % 3}"))
    again = ingest(commands, inputs, "2,0,1", "--ablation", "mean", "--json")
    assert again.code == 0, again.err
    assert again.err.count("is already published") == 1
    assert [row["layer"] for row in json.loads(again.out)] == [2, 0, 1], "in the order asked for"
    assert facts().equals(facts(together, "ablation = 'mean'"))


@pytest.mark.parametrize(
    ("layer", "more", "why"),
    [
        ("0,7", (), "--layer 7: the model has 3 layers. Use 0 to 2, or -1 (the last) to -3"),
        ("2,-1", (), "--layer 2,-1: 2 and -1 are the same layer of a model with 3. Leave one out"),
        ("0,0", (), "--layer 0,0: 0 is given twice"),
        ("all,1", (), "--layer all,1: all layers and single ones"),
        ("0,first", (), "--layer 0,first: 'first' is no number of a layer"),
        ("0,", (), "--layer 0,: '' is no number of a layer"),
        ("all", ("--group", "boost"), "--group with --layer all: the neurons of a group are of one layer"),
        ("-1,0", ("--ablation", "mean,optimal"), "--ablation optimal with --layer 0: layers below the last, 2, take"),
        ("all", ("--revisions", "0..1", "--revision", "main"), "give one of the two"),
    ],
)
@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_what_cannot_be_is_refused_before_anything_is_computed_or_written(
    commands: Commands, inputs: Path, layer: str, more: tuple[object, ...], why: str, dry: tuple[str, ...]
) -> None:
    ended = ingest(commands, inputs, layer, *more, *dry)
    assert (ended.code, ended.out) == (2, "")
    assert why in ended.err
    assert "Traceback" not in ended.err
    assert not list(commands.folder.iterdir())


@pytest.mark.slow
def test_a_layer_that_fails_is_recorded_and_the_others_go_on(
    commands: Commands, inputs: Path, together: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = loading.find_structure

    def unable(model: Any, layer: int) -> Any:
        if layer == 1:
            raise pipeline.UserError("made up")
        return find(model, layer)

    monkeypatch.setattr(loading, "find_structure", unable)
    ended = ingest(commands, inputs, "all", "--json")
    assert ended.code == 2
    assert "1 of 3 runs failed" in ended.err
    rows = json.loads(ended.out)
    assert [(row["layer"], row["status"]) for row in rows] == [(0, "published"), (1, "failed"), (2, "published")]
    assert rows[1]["status_reason"] == "made up"
    monkeypatch.undo()
    os.chdir(commands.folder)
    ended = ingest(commands, inputs, "all")
    assert ended.code == 0, ended.err
    assert facts().equals(facts(together, "ablation = 'mean'"))
    assert len(commands.runs()) == 3, "the record of the failure has become its run"


@pytest.mark.parametrize(
    "moment", ["at its first block of effects", pytest.param("before its facts are loaded", marks=pytest.mark.slow)]
)
def test_interrupted_between_layers_it_goes_on_where_it_was(
    commands: Commands, inputs: Path, together: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    name, room = ("write_effects", effect_parts) if moment.startswith("at") else ("_load", runs)
    do: Any = getattr(room, name)
    seen: list[object] = []

    def interrupted(*args: Any, **more: Any) -> Any:
        seen.append(1)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return do(*args, **more)

    monkeypatch.setattr(room, name, interrupted)
    ended = ingest(commands, inputs, "all")
    assert (ended.code, "resume" in ended.err) == (130, True)
    assert published()["layer"].to_list() == [0]
    before = facts()
    monkeypatch.setattr(room, name, do)
    ended = ingest(commands, inputs, "all")
    assert ended.code == 0, ended.err
    assert ended.err.count("is already published") == 1
    assert facts(where="dim_run.layer = 0").equals(before)
    assert facts().equals(facts(together, "ablation = 'mean'"))
    assert not list(parts_root(commands.folder / "rare_tokens.duckdb").glob("*/*"))


def test_a_dry_run_prices_each_layer_and_says_what_all_take(commands: Commands, inputs: Path) -> None:
    ended = ingest(commands, inputs, "all", "--ablation", "mean,zero", "--dry-run", "--json")
    assert ended.code == 0, ended.err
    rows = json.loads(ended.out)
    assert [(row["layer"], row["path"]) for row in rows] == [(layer, "dense") for layer in (0, 0, 1, 1)] + [
        (2, "moments")
    ] * 2
    assert {row["fact_rows"] for row in rows} == {64 * 80}
    assert [row["rerun_positions"] for row in rows] == [64 * 80] * 4 + [0] * 2
    assert all(row["minutes"] > 0 and row["memory_bytes"] > 0 for row in rows)
    for stage in ("text", "load"):
        done = [row["stage_seconds"][stage] is None for row in rows]
        assert done == [False] * 2 + [True] * 4, f"{stage}: once for all layers"
    assert f"All 6 runs: {6 * 64 * 80:,} fact rows, " in ended.err
    assert "for 4 runs on the dense path." in ended.err
    assert not list(commands.folder.iterdir())
    alone = ingest(commands, inputs, "-1", "--dry-run")
    assert "All" not in alone.err


@pytest.mark.slow
def test_attention_is_measured_for_the_neurons_of_each_layer(commands: Commands, inputs: Path) -> None:
    ended = ingest(commands, inputs, "0,2", "--attention")
    assert ended.code == 0, ended.err
    with warehouse.open("rare_tokens.duckdb") as opened:
        found = opened.sql("select layer, layers from dim_attention join dim_run using (run_id) order by all").rows()
    assert found == [(0, [0]), (2, [1, 2])], "the last layers that feed the neurons"


@pytest.mark.slow
def test_each_layer_of_each_checkpoint_and_gaps_of_each(commands: Commands, inputs: Path) -> None:
    grown = commands.folder / "grown"
    for step in (1, 2):
        save_folder(grown / f"step{step}", deeper("gpt_neox", 2), seed=step)
    (grown / "step0").mkdir()
    shutil.copy(grown / "step1/config.json", grown / "step0")
    shape = ("--corpus", inputs / "corpus.jsonl", *SHAPE, "--json")
    asked = ("ingest", "--model", grown, "--revisions", "0..2", *shape)
    ended = commands(*asked, "--layer", "all")
    assert ended.code == 0, ended.err
    found = [(row["revision"], row["layer"], row["status"]) for row in json.loads(ended.out)]
    assert found == [
        (f"step{step}", layer, "missing" if step == 0 else "published") for step in range(3) for layer in range(2)
    ]
    save_folder(grown / "step0", deeper("gpt_neox", 2), seed=0)
    ended = commands(*asked, "--layer", "-1,0")
    assert ended.code == 0, ended.err
    assert len(commands.runs()) == 6, "no record of a gap is left, by whatever number of its layer"


@pytest.mark.slow
def test_a_gap_of_all_layers_goes_once_one_of_them_has_a_run(commands: Commands, inputs: Path) -> None:
    grown = commands.folder / "grown"
    save_folder(grown / "step1", deeper("gpt_neox", 2))
    for name in ("step0", "step1"):
        (grown / name).mkdir(exist_ok=True)
    weights = grown / "step1/model.safetensors"
    weights.rename(grown / "kept")
    asked = ("ingest", "--model", grown, "--corpus", inputs / "corpus.jsonl", *SHAPE, "--layer", "all", "--json")
    rows = json.loads(commands(*asked, "--revisions", "0..1").out)
    assert [(row["revision"], row["layer"], row["status"]) for row in rows] == [
        ("step0", None, "missing"), ("step1", None, "missing")
    ]  # fmt: skip
    (grown / "kept").rename(weights)
    rows = json.loads(commands(*asked, "--revisions", "0..1").out)
    assert [(row["revision"], row["layer"], row["status"]) for row in rows] == [
        ("step0", 0, "missing"), ("step0", 1, "missing"), ("step1", 0, "published"), ("step1", 1, "published")
    ]  # fmt: skip


def test_the_profile_is_that_of_the_facts(together: Path) -> None:
    with warehouse.open(together) as opened:
        profile, effects, groups = opened.layer_profile(), opened.fct_effect(), opened.position_group()
        ids = dict(opened.sql("select run_id, ablation from dim_run").rows())
    key = ["run_id", "preset", "token_group"]
    influence = effects.join(groups, on=["run_id", "position_id"]).group_by(*key, "neuron")
    influence = influence.agg(pl.col("delta_loss").cast(pl.Float64).abs().mean(), positions=pl.len())
    expected = influence.group_by(key).agg(
        mean=pl.col("delta_loss").mean(), largest=pl.col("delta_loss").max(), positions=pl.col("positions").first()
    )
    assert expected.height > 6
    both = profile.join(expected, on=key, how="inner", suffix="_expected")
    assert both.height == expected.height
    for name in ("mean", "largest"):
        assert both[f"{name}_influence"].to_list() == pytest.approx(both[name].to_list(), abs=1e-10)
    assert both["positions"].to_list() == both["positions_expected"].to_list()
    empty = profile.join(expected, on=key, how="anti")
    assert empty["positions"].to_list() == [0] * empty.height
    assert set(profile["layers"]) == {3}
    assert set(profile["edit_scope"]) == {"window"}
    for ablation, part in profile.group_by("ablation"):
        assert set(part["layer"]) == {0, 1, 2}
        (last,) = part["last_run_id"].unique()
        assert (ids[last], last) == (ablation[0], part.filter(layer=2)["run_id"][0])
