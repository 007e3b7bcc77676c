"""Groups of neurons ablated at once: exact, added to a published run, and refused where they make no sense."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from rare_tokens import warehouse
from rare_tokens.common import parts
from rare_tokens.common.errors import QualityError, UserError
from rare_tokens.ingest import groups as grouped
from rare_tokens.ingest.groups import Group, read_groups
from rare_tokens.ingest.model.structure import find_structure, hooked
from rare_tokens.ingest.run.executors import LocalExecutor
from rare_tokens.ingest.run.pipeline import Prepared, Workbench, execute
from rare_tokens.ingest.run.request import Options, identify
from tests.ingest.dense.test_ablation import CONFIGS, losses, worst
from tests.support.float64 import float64_model
from tests.support.tiny import SUPPORTED, save_folder, tiny_corpus

WINDOW, POSITIONS = 16, 48
GROUPS = [
    Group("all", tuple(range(80)), "test"),
    Group("few", (3, 17, 41), "test"),
    Group("one", (5,), "test"),
]


def prepare(tmp_path: Path, name: str, **options: Any) -> Prepared:
    model = save_folder(tmp_path / name, CONFIGS[name])
    corpus = tiny_corpus(tmp_path / "corpus.jsonl")
    given = {"tokens": POSITIONS, "window": WINDOW, "device": "cpu"} | options
    return Workbench().prepare(identify(Options(str(model), corpus=(str(corpus),), **given))[0])


def computed(prepared: Prepared, folder: Path, groups: list[Group]) -> dict[str, np.ndarray]:
    """Δ (T) by the name of the group."""
    grouped.group_effects(prepared, groups, folder, LocalExecutor(quiet=True), quiet=True)
    facts = pl.read_parquet(folder / "fct_group_effect.parquet")
    assert facts["position_id"].to_list() == [*range(POSITIONS)] * len(groups)
    return {group.name: facts.filter(group_name=group.name)["delta_loss"].to_numpy() for group in groups}


def hooked_effect(name: str, tokens: np.ndarray, layer: int, scope: str, neurons: tuple[int, ...], value: str):
    """Δ (T) of a group in a float64 model, from whole forward passes."""
    model = float64_model(CONFIGS[name])
    found = find_structure(model, layer)
    inputs, targets = torch.from_numpy(tokens[:, :-1]), torch.from_numpy(tokens[:, 1:])
    windows, length = inputs.shape
    seen = []
    with hooked((found.out_projection, "before", lambda _m, args: seen.append(args[0]))):
        baseline = losses(model(input_ids=inputs).logits, targets)
    mean = seen[0].reshape(-1, found.neurons).mean(0)
    reference = mean[list(neurons)] if value == "mean" else torch.zeros(len(neurons), dtype=torch.float64)
    found_losses = torch.zeros_like(baseline)
    for position in [None] if scope == "window" else range(length):

        def replace(_module, args, position=position):
            edited = args[0].clone()
            rows = edited.view(windows, length, -1)[:, slice(None) if position is None else position]
            rows[..., list(neurons)] = reference
            return (edited,)

        with hooked((found.out_projection, "before", replace)):
            ablated = losses(model(input_ids=inputs).logits, targets)
        where = slice(None) if position is None else slice(position, position + 1)
        found_losses[:, where] = ablated[:, where]
    return (found_losses - baseline).flatten().numpy()


@pytest.mark.parametrize(
    ("name", "layer", "scope", "ablation"),
    [
        ("gpt2", -1, "window", "mean"),
        ("llama", -1, "window", "mean"),
        ("cohere", -1, "window", "mean"),
        ("phi", -1, "window", "zero"),
        ("gemma2", -1, "window", "mean"),
        ("gpt_neox", 0, "window", "mean"),
        ("gemma3", 0, "position", "mean"),
    ],
)
def test_every_effect_is_within_tolerance_of_the_hooked_model(name, layer, scope, ablation, tmp_path):
    prepared = prepare(tmp_path, name, layer=layer, edit_scope=scope, ablation=ablation)
    found = computed(prepared, tmp_path / "groups", GROUPS)
    for group in GROUPS:
        truth = hooked_effect(name, prepared.material.sample.tokens, layer, scope, group.neurons, ablation)
        assert np.abs(truth).max() > 1e-3
        assert worst(found[group.name], truth) <= 1, group.name
    described = pl.read_parquet(tmp_path / "groups" / "dim_group.parquet")
    assert described["k"].to_list() == [80, 3, 1]
    assert described["structural_check_error"].is_between(0, 1).all()


@pytest.mark.parametrize(("name", "layer"), [("gpt2", -1), ("olmo2", -1), ("llama", 0)])
def test_a_group_of_one_neuron_is_that_neuron(name, layer, tmp_path):
    prepared = prepare(tmp_path, name, layer=layer)
    execute(prepared, tmp_path / "parts", LocalExecutor(quiet=True))
    facts = pl.concat(pl.read_parquet(path) for path in (tmp_path / "parts" / "fct_effect").iterdir())
    found = computed(prepared, tmp_path / "groups", [Group(str(n), (n,), "test") for n in (0, 33, 79)])
    for neuron, effects in found.items():
        alone = facts.filter(neuron=int(neuron)).sort("position_id")["delta_loss"].to_numpy()
        assert worst(effects, alone) <= 1


def test_a_group_is_not_the_sum_of_its_neurons(tmp_path):
    prepared = prepare(tmp_path, "gpt2")
    found = computed(prepared, tmp_path / "groups", [GROUPS[1], *(Group(str(n), (n,), "test") for n in (3, 17, 41))])
    alone = sum(found[str(n)] for n in (3, 17, 41))
    assert worst(alone, found["few"]) > 10


def test_a_wrong_effect_is_refused(tmp_path, monkeypatch):
    prepared = prepare(tmp_path, "gpt2")
    exact = grouped.exact_loss
    monkeypatch.setattr(grouped, "exact_loss", lambda *given: 1.1 * exact(*given))
    with pytest.raises(UserError, match="--group few: its effects differ from the hooked GPT2LMHeadModel by"):
        computed(prepared, tmp_path / "groups", [GROUPS[1]])
    assert not (tmp_path / "groups" / "fct_group_effect.parquet").exists()


# --- files ----------------------------------------------------------------------------------------------------------


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_files_of_groups(tmp_path):
    both = [("first", (1, 5)), ("second", (2,))]
    files = {
        write(tmp_path / "a.json", '{"first": [5, 1], "second": [2]}'): both,
        write(tmp_path / "b.json", "[7, 3]"): [("b", (3, 7))],
        write(tmp_path / "c.csv", "group_name,neuron\nfirst,5\nsecond,2\nfirst,1\n"): both,
        write(tmp_path / "d.CSV", "neuron\n4\n"): [("d", (4,))],
        write(tmp_path / "e.txt", "9\n\n 8\n"): [("e", (8, 9))],
    }
    for file, wanted in files.items():
        found = read_groups(file)
        assert [(group.name, group.neurons) for group in found] == wanted
        assert {group.source for group in found} == {f"file {Path(file).name}"}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "{", "is not JSON"),
        ("a.json", '{"x": 3}', "JSON of another form"),
        ("a.json", "{}", "there is no group in it"),
        ("a.json", '{"x": []}', "x is empty"),
        ("a.json", '{"x": [1, 1]}', "x has neuron 1 twice"),
        ("a.json", '{"x": [1], "x": [2]}', "the name x is given twice"),
        ("a.json", '{"x": [1.5]}', "1.5 is not a whole number"),
        ("a.json", '{"x": [true]}', "True is not a whole number"),
        ("a.json", '{" ": [1]}', "a group has no name"),
        ("a.csv", "index\n3\n", "no column neuron"),
        ("a.csv", "group_name,neuron\n", "there is no group in it"),
        ("a.csv", "group_name,neuron\nx\n", "x holds what is no index"),
        ("a.txt", "", "a is empty"),
        ("a.txt", "3 four", "a holds what is no index"),
        ("a.parquet", "3", "a file of groups ends in .json, .csv, .txt"),
    ],
)
def test_a_file_that_is_no_group_is_refused(name, text, message, tmp_path):
    with pytest.raises(UserError, match=message):
        read_groups(write(tmp_path / name, text))


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(UserError, match="No such file"):
        read_groups(str(tmp_path / "absent.json"))
    (tmp_path / "latin.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="is not UTF-8 text"):
        read_groups(str(tmp_path / "latin.txt"))


# --- a published run ------------------------------------------------------------------------------------------------


@pytest.fixture
def asked(tmp_path):
    model = save_folder(tmp_path / "neox", SUPPORTED["gpt_neox"])
    corpus = tiny_corpus(tmp_path / "corpus.jsonl")
    given = ["--model", model, "--corpus", corpus, "--tokens", 48, "--window", 16, "--device", "cpu"]
    (tmp_path / "groups.json").write_text(json.dumps({"few": [3, 17, 41], "one": [5]}))
    return ["ingest", *given]


PATH = "rare_tokens.duckdb"


def test_groups_are_added_to_a_run_and_stay_with_it(commands, asked):
    first = commands(*asked, "--group", "groups.json")
    assert first.code == 0, first.err
    assert "has the groups few, one" in first.err
    with warehouse.open(PATH) as opened:
        before = opened.fct_group_effect().sort("group_name", "position_id")
        facts = opened.fct_effect(neuron=5).sort("position_id")
        assert opened.dim_group().sort("group_name")["neurons"].to_list() == [[3, 17, 41], [5]]
        assert opened.dim_group()["source"].unique().to_list() == ["file groups.json"]
        assert opened.quality_result(suite="groups")["success"].all()
        published = opened.dim_run()["published_at"]
    assert len(before) == 2 * 48
    assert worst(before.filter(group_name="one")["delta_loss"].to_numpy(), facts["delta_loss"].to_numpy()) <= 1

    again = commands(*asked, "--group", "groups.json")
    assert again.code == 0, again.err
    assert "already published" in again.err
    assert "has the groups" not in again.err
    Path("more.txt").write_text("1 2")
    assert commands(*asked, "--group", "groups.json", "--group", "more.txt").code == 0
    with warehouse.open(PATH) as opened:
        assert opened.dim_run()["published_at"].equals(published), "the run itself is as it was"
        after = opened.fct_group_effect().sort("group_name", "position_id")
        assert after.filter(pl.col("group_name") != "more").equals(before)
        assert after["group_name"].unique().sort().to_list() == ["few", "more", "one"]

    extended = commands(*asked, "--effects", "direct")
    assert extended.code == 0, extended.err
    with warehouse.open(PATH) as opened:
        assert opened.fct_group_effect().sort("group_name", "position_id").equals(after), "computed again with the run"
        assert opened.dim_run()["effects"].to_list() == [["loss", "direct"]]
    assert commands("delete", "neox").code == 0
    with warehouse.open(PATH) as opened:
        assert len(opened.fct_group_effect()) == len(opened.dim_group()) == 0


def test_a_run_computed_again_does_not_lose_its_groups_where_it_is_cut_off(commands, asked, monkeypatch):
    assert commands(*asked, "--group", "groups.json").code == 0
    with warehouse.open(PATH) as opened:
        before = opened.fct_group_effect()
    with monkeypatch.context() as patched:
        patched.setattr(warehouse, "add_groups", lambda *_args, **_given: raise_interrupt())
        assert commands(*asked, "--again").code == 130
    with warehouse.open(PATH) as opened:
        assert opened.fct_group_effect().equals(before)
    assert commands(*asked, "--again").code == 0
    with warehouse.open(PATH) as opened:
        assert opened.fct_group_effect().equals(before)


def raise_interrupt() -> None:
    raise KeyboardInterrupt


def test_more_effects_keep_those_there_are(commands, asked):
    assert commands(*asked, "--effects", "direct").code == 0
    assert commands(*asked, "--effects", "entropy").code == 0
    with warehouse.open(PATH) as opened:
        assert opened.dim_run()["effects"].to_list() == [["loss", "direct", "entropy"]]
        assert opened.fct_effect().select("direct_delta_loss", "delta_entropy").null_count().row(0) == (0, 0)


def test_groups_of_the_warehouse(commands, asked):
    early = commands(*asked, "--group", "boost")
    assert early.code == 2
    assert "not published yet" in early.err
    assert not Path(f"{PATH}.parts").exists() or not any(Path(f"{PATH}.parts").glob("*/manifest.json"))
    assert commands(*asked).code == 0
    without = commands(*asked, "--group", "boost")
    assert without.code == 2
    assert "has no group es:boost. It has none: run `analyze` first." in without.err
    run_id = store_groups()
    ended = commands(*asked, "--group", "boost", "--group", "nc:suppress")
    assert ended.code == 0, ended.err
    with warehouse.open(PATH) as opened:
        groups = {row["group_name"]: row for row in opened.dim_group().iter_rows(named=True)}
        assert {name: row["neurons"] for name, row in groups.items()} == {"es:boost": [2, 9], "nc:suppress": [4]}
        assert groups["es:boost"]["source"] == "neuron_group: preset es, rare tokens, k 2, draw 0"
        assert len(opened.fct_group_effect(run_id=run_id)) == 96
    unknown = commands(*asked, "--group", "plateaus")
    assert unknown.code == 2
    assert "has no group es:plateaus. It has es:boost, es:plateau, nc:suppress" in unknown.err
    empty = commands(*asked, "--group", "plateau")
    assert empty.code == 2
    assert "has no neurons in it (no plateau)" in empty.err


def store_groups() -> str:
    with warehouse.open(PATH) as opened:
        run = opened.dim_run().row(0, named=True)
    key = {"preset": "es", "token_group": "rare", "group_name": "boost", "k": 2, "draw": 0, "reason": None}
    rows = [
        key | {"neuron": 9},
        key | {"neuron": 2},
        key | {"group_name": "control", "draw": 1, "neuron": 7},
        key | {"group_name": "plateau", "k": None, "neuron": None, "reason": "no plateau"},
        key | {"preset": "nc", "group_name": "suppress", "k": 1, "neuron": 4},
    ]
    warehouse.store(
        Path(PATH), run["run_id"], "neuron_group", {"neuron_group": pl.DataFrame(rows)}, parameters={},
        code_version="0", seconds=0.0, published_at=run["published_at"],
    )  # fmt: skip
    return run["run_id"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"far": [80]}', "there is no neuron 80 in the layer; it has 0 to 79"),
        ('{"far": [-1]}', "there is no neuron -1 in the layer"),
        ('{"none": []}', "none is empty"),
    ],
)
def test_bad_groups_are_refused_before_anything_is_computed(commands, asked, content, message):
    Path("bad.json").write_text(content)
    ended = commands(*asked, "--group", "bad.json")
    assert ended.code == 2
    assert message in ended.err
    assert warehouse.runs(Path(PATH)).is_empty()


def test_a_name_stands_for_one_group(commands, asked):
    Path("few.txt").write_text("3")
    twice = commands(*asked, "--group", "groups.json", "--group", "few.txt")
    assert twice.code == 2
    assert "the name few is given twice" in twice.err
    assert commands(*asked, "--group", "groups.json").code == 0
    other = commands(*asked, "--group", "few.txt")
    assert other.code == 2
    assert "has a group of that name with other neurons" in other.err
    assert commands(*asked, "--group", "few.txt", "--again").code == 0
    with warehouse.open(PATH) as opened:
        assert sorted(opened.dim_group()["neurons"].to_list()) == [[3], [5]]


# --- what the warehouse refuses -------------------------------------------------------------------------------------


@pytest.fixture
def added(commands, asked, tmp_path):
    """A published run and the parts of its groups, not yet added."""
    assert commands(*asked).code == 0
    prepared = prepare(tmp_path / "again", "gpt_neox")
    folder = tmp_path / "groups"
    computed(prepared, folder, GROUPS[1:])
    with warehouse.open(PATH) as opened:
        return opened.dim_run()["run_id"].item(), folder


def edit(folder: Path, relation: str, change: Any) -> None:
    path = parts.relation_path(folder, relation)
    table = pq.read_table(path)
    pq.write_table(change(pl.DataFrame(table)).to_arrow().cast(parts.schema(relation)), path)


@pytest.mark.parametrize(
    ("relation", "change", "message"),
    [
        ("fct_group_effect", lambda rows: rows[1:], "has every group at every position once: 1"),
        ("fct_group_effect", lambda rows: pl.concat([rows, rows[:1]]), "has every group at every position once: 1"),
        ("fct_group_effect", lambda rows: rows.filter(group_name="few"), "has every group at every position once: 1"),
        (
            "fct_group_effect",
            lambda rows: rows.with_columns(delta_loss=pl.lit(float("nan"))),
            "delta_loss is finite: 96",
        ),
        ("dim_group", lambda rows: rows[:1], "groups are in dim_group: 1"),
        ("dim_group", lambda rows: pl.concat([rows, rows[:1]]), "has every group once: 2"),
        ("dim_group", lambda rows: rows.with_columns(k=7), "as many neurons as k says: 2"),
        ("dim_group", lambda rows: rows.with_columns(neurons=[80], k=1), "neurons are of the layer, each once: 2"),
        ("dim_group", lambda rows: rows.with_columns(structural_check_error=1.5), "self-check is within tolerance: 2"),
        ("group_position", lambda rows: rows.with_columns(target_token_id=1), "is not that of run"),
        ("group_position", lambda rows: rows[:-1], "is not that of run"),
    ],
)
def test_parts_of_groups_that_are_wrong_are_refused(added, relation, change, message):
    run_id, folder = added
    edit(folder, relation, change)
    with pytest.raises(QualityError, match=message):
        warehouse.add_groups(Path(PATH), run_id, folder)
    with warehouse.open(PATH) as opened:
        assert len(opened.fct_group_effect()) == len(opened.dim_group()) == 0
    assert folder.exists()


def test_parts_of_groups_that_cannot_be_read_are_refused(added):
    run_id, folder = added
    path = parts.relation_path(folder, "fct_group_effect")
    pq.write_table(pa.table({"neuron": [1]}), path)
    with pytest.raises(QualityError, match="has other columns than fct_group_effect needs"):
        warehouse.add_groups(Path(PATH), run_id, folder)
    path.unlink()
    with pytest.raises(QualityError, match="is missing"):
        warehouse.add_groups(Path(PATH), run_id, folder)


def test_groups_need_a_published_run(added):
    run_id, folder = added
    with pytest.raises(UserError, match="Run other is not published"):
        warehouse.add_groups(Path(PATH), "other", folder)
    assert warehouse.add_groups(Path(PATH), run_id, folder) == 96
    assert not folder.exists()


def test_a_kill_while_parts_of_groups_are_removed_leaves_nothing_behind(added, monkeypatch):
    run_id, folder = added
    own = parts.parts_root(Path(PATH)) / run_id
    own.parent.mkdir(exist_ok=True)
    folder = folder.rename(parts.groups_folder(own))

    def killed(doomed: Path, **_given: bool) -> None:
        if doomed.exists():
            (doomed / "dim_group.parquet").unlink()
            raise KeyboardInterrupt

    with monkeypatch.context() as at_the_kill:
        at_the_kill.setattr("rare_tokens.warehouse.publish.staging.shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            warehouse.add_groups(Path(PATH), run_id, folder)
    assert not folder.exists()
    assert any(folder.parent.iterdir())
    warehouse.vacuum(Path(PATH))
    assert not any(folder.parent.iterdir())


def test_groups_are_exported_and_checked(commands, added):
    run_id, folder = added
    warehouse.add_groups(Path(PATH), run_id, folder)
    rows = warehouse.export(Path(PATH), Path("out"))
    assert rows["fct_group_effect"] == 96
    assert rows["dim_group"] == 2
    exported = pl.read_parquet(f"out/fct_group_effect/run_id={run_id}/part.parquet")
    assert exported.columns == ["layer", "group_name", "position_id", "delta_loss"]
