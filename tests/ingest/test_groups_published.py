"""Groups of neurons and the warehouse: added to a published run, kept with it, and refused where they are wrong."""

import json
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rare_tokens import warehouse
from rare_tokens.common import parts
from rare_tokens.common.errors import QualityError, UserError
from rare_tokens.ingest import groups as grouped
from rare_tokens.ingest.groups import Group
from rare_tokens.ingest.run.executors import LocalExecutor
from rare_tokens.ingest.run.pipeline import Workbench
from rare_tokens.ingest.run.request import Options, identify
from rare_tokens.warehouse.publish import staging
from tests.ingest.dense.test_ablation import worst
from tests.support.commands import exit_code
from tests.support.tiny import SUPPORTED, save_folder, tiny_corpus

PATH = "rare_tokens.duckdb"


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    """A model, a corpus, groups, and warehouses to be copied: of a run of theirs without groups, and with them."""
    folder = tmp_path_factory.mktemp("once")
    save_folder(folder / "neox", SUPPORTED["gpt_neox"])
    tiny_corpus(folder / "corpus.jsonl")
    (folder / "groups.json").write_text(json.dumps({"few": [3, 17, 41], "one": [5]}))
    assert exit_code(*words(folder), "--quiet", "--warehouse", folder / "without.duckdb") == 0
    shutil.copy(folder / "without.duckdb", folder / "with.duckdb")
    more = ("--group", folder / "groups.json", "--quiet", "--warehouse", folder / "with.duckdb")
    assert exit_code(*words(folder), *more) == 0
    return folder


def words(folder):
    given = ["--model", folder / "neox", "--corpus", folder / "corpus.jsonl", "--tokens", 48, "--window", 16]
    return ["ingest", *given, "--device", "cpu"]


@pytest.fixture
def asked(commands, once):
    shutil.copy(once / "groups.json", commands.folder)
    return words(once)


@pytest.fixture
def ingested(commands, once):
    shutil.copy(once / "without.duckdb", commands.folder / PATH)


@pytest.fixture
def with_groups(commands, once):
    shutil.copy(once / "with.duckdb", commands.folder / PATH)


def test_groups_are_added_to_a_run_and_stay_with_it(commands, asked, ingested):
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


@pytest.mark.slow
def test_a_run_computed_again_does_not_lose_its_groups_where_it_is_cut_off(commands, asked, with_groups, monkeypatch):
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


@pytest.mark.slow
def test_more_effects_keep_those_there_are(commands, asked):
    assert commands(*asked, "--effects", "direct").code == 0
    assert commands(*asked, "--effects", "entropy").code == 0
    with warehouse.open(PATH) as opened:
        assert opened.dim_run()["effects"].to_list() == [["loss", "direct", "entropy"]]
        assert opened.fct_effect().select("direct_delta_loss", "delta_entropy").null_count().row(0) == (0, 0)


def test_a_run_that_is_not_published_has_no_groups_to_name(commands, asked):
    early = commands(*asked, "--group", "boost")
    assert early.code == 2
    assert "not published yet" in early.err
    assert not Path(f"{PATH}.parts").exists() or not any(Path(f"{PATH}.parts").glob("*/manifest.json"))


def test_groups_of_the_warehouse(commands, asked, ingested):
    without = commands(*asked, "--group", "boost")
    assert without.code == 2
    assert "has no group es:boost. It has none: run `rare-tokens analyze` first." in without.err
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
        ('{"far": [80]}', "there is no neuron 80 in the layer. Use 0 to 79"),
        ('{"far": [-1]}', "there is no neuron -1 in the layer"),
        ('{"none": []}', "none is empty"),
    ],
)
def test_bad_groups_are_refused_before_anything_is_computed(commands, asked, content, message):
    Path("bad.json").write_text(content)
    ended = commands(*asked, "--group", "bad.json")
    assert ended.code == 2
    assert message in ended.err
    assert commands.runs() == []


def test_a_name_stands_for_one_group(commands, asked, with_groups):
    Path("few.txt").write_text("3")
    twice = commands(*asked, "--group", "groups.json", "--group", "few.txt")
    assert twice.code == 2
    assert "the name few is given twice" in twice.err
    other = commands(*asked, "--group", "few.txt")
    assert other.code == 2
    assert "has a group of that name with other neurons" in other.err
    assert commands(*asked, "--group", "few.txt", "--again").code == 0
    with warehouse.open(PATH) as opened:
        assert sorted(opened.dim_group()["neurons"].to_list()) == [[3], [5]]


# --- what the warehouse refuses -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def groups_parts(once, tmp_path_factory):
    """The parts of a run's groups."""
    options = Options(str(once / "neox"), corpus=(str(once / "corpus.jsonl"),), tokens=48, window=16, device="cpu")
    folder = tmp_path_factory.mktemp("parts")
    groups = [Group("few", (3, 17, 41), "test"), Group("one", (5,), "test")]
    grouped.group_effects(Workbench().prepare(identify(options)[0]), groups, folder, LocalExecutor(quiet=True))
    return folder


@pytest.fixture
def added(commands, ingested, groups_parts):
    """A published run and the parts of its groups, not yet added."""
    return commands.runs()[0], shutil.copytree(groups_parts, commands.folder / "groups")


def edit(folder: Path, relation: str, change: Any) -> None:
    path = parts.relation_path(folder, relation)
    table = pq.read_table(path)
    pq.write_table(change(pl.DataFrame(table)).to_arrow().cast(parts.schema(relation)), path)


@pytest.mark.quick_cases(4)
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
        at_the_kill.setattr(staging.shutil, "rmtree", killed)
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
    exported = pl.read_parquet(f"out/fct_group_effect/{run_id}.parquet")
    assert exported.columns == ["run_id", "layer", "group_name", "position_id", "delta_loss"]
