"""The Python door, the list of runs, and the list of relations."""

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from rare_tokens import warehouse
from rare_tokens.analyses import registry
from rare_tokens.analyses.curve.power_law import power_law_line
from rare_tokens.common import parts
from rare_tokens.common.errors import UserError
from rare_tokens.warehouse import connection
from rare_tokens.warehouse.schema import relations
from studies.synthetic.runs import make_parts

# Filled by `analyze`, so empty after publishing (see tests/commands/test_analyze.py).
ANALYSED = {
    *registry.relations(),
    "measured_value",
    "published_value",
}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A warehouse of two published runs."""
    path = tmp_path_factory.mktemp("door") / "w.duckdb"
    for seed, run in enumerate(["model-step1-aaaa", "model-step2-bbbb"]):
        folder = parts.parts_root(path) / run
        make_parts(
            folder, positions=256, neurons=40, run_id=run, seed=seed, created_at=f"2026-11-2{seed + 1}T00:00:00Z"
        )
        warehouse.publish(path, folder, line=power_law_line)
    return path


@pytest.fixture
def opened(path: Path) -> Iterator[warehouse.Warehouse]:
    with warehouse.open(path) as opened:
        yield opened


def test_influence(opened: warehouse.Warehouse) -> None:
    frame = opened.influence("model-step1", "nc")
    assert frame["run_id"].unique().to_list() == ["model-step1-aaaa"]
    assert frame["preset"].unique().to_list() == ["nc"]
    assert frame["token_group"].to_list() == ["common"] * 40 + ["rare"] * 40
    assert frame["rank"].to_list() == [*range(1, 41)] * 2
    assert frame["influence"].to_list()[:40] == sorted(frame["influence"].to_list()[:40], reverse=True)
    assert opened.influence("model-step1-aaaa")["preset"].unique().to_list() == ["es"]


def test_every_relation_is_a_method(opened: warehouse.Warehouse) -> None:
    asked_for = {"dim_group", "fct_group_effect", *parts.CONTEXT_RELATIONS}  # in a run only then
    asked_for |= {"layer_profile", "neuron_match", "plateau_match"}  # of several layers; filled by `compare`
    asked_for |= {*parts.ATTENTION_RELATIONS, "attention_impact", "attention_unit", "fact_file", "neuron_group_summary"}
    for name, relation in relations.relations().items():
        if relation.columns and not relation.is_macro:
            frame = getattr(opened, name)()
            assert frame.columns == list(relation.columns)
            assert len(frame) > 0 or name in ANALYSED | asked_for, name
            assert name in dir(opened)


def test_rows_are_chosen_by_columns(opened: warehouse.Warehouse) -> None:
    facts = opened.fct_effect(run="model-step2", neuron=3)
    assert len(facts) == 256
    assert set(facts["run_id"]) == {"model-step2-bbbb"}
    assert len(opened.fct_effect(run=["model-step1", "model-step2"], neuron=[3, 5], position_id=7)) == 4
    assert len(opened.fct_effect(run_id="model-step2-bbbb", neuron=(3,))) == 256
    assert opened.neuron_influence(preset="es' or 'a' = 'a").is_empty()


def test_what_does_not_exist_is_named(opened: warehouse.Warehouse) -> None:
    with pytest.raises(AttributeError, match=r"no relation fct_effects; the relations are .*fct_effect"):
        opened.fct_effects()
    with pytest.raises(UserError, match="dim_token has no column run_id"):
        opened.dim_token(run="model-step1")
    with pytest.raises(UserError, match=r"fct_effect has no column neurons; it has .*neuron"):
        opened.fct_effect(neurons=3)
    with pytest.raises(UserError, match="There is no relation store"):
        opened.read("store")
    with pytest.raises(UserError, match="There is no run 'other'"):
        opened.influence("other")


def test_macros_are_methods(opened: warehouse.Warehouse) -> None:
    at = opened.influence_at("model-step1", 15)
    assert set(at["run_id"]) == {"model-step1-aaaa"}
    assert len(at) == len(opened.influence_at("model-step1-aaaa", percentile=15, words=True)) == 80
    with pytest.raises(UserError, match="query failed"):
        opened.influence_at("model-step1", 15, no_such_parameter=1)


def test_sql(opened: warehouse.Warehouse) -> None:
    assert opened.sql("select count(*) as n from dim_run")["n"].to_list() == [2]
    neurons = opened.sql("select max(neuron) as n from dim_neuron where run_id = $run", run="model-step1-aaaa")
    assert neurons["n"].to_list() == [39]
    with pytest.raises(UserError, match="Only queries"):
        opened.sql("create table t as select 1")


def test_a_subquery_for_the_run_skips_the_other_runs(opened: warehouse.Warehouse) -> None:
    """The filter reaches the scan of the facts, where statistics let it skip the other runs' row groups."""
    one = "explain analyze select sum(delta_loss) from fct_effect where run_id = {}"
    for run in ("'model-step2-bbbb'", "(select max(run_id) from dim_run)"):
        plan = opened.sql(one.format(run))["explain_value"].item()
        scan = plan[plan.index("store.fct_effect") :]
        assert "run_key = 2" in scan, plan


@pytest.mark.parametrize("start", ["model-step1-aaaa", "model-step1"])
def test_find(path: Path, start: str) -> None:
    with connection.reading(path) as con:
        assert warehouse.find(con, start) == "model-step1-aaaa"


def test_find_lists_candidates(path: Path, tmp_path: Path) -> None:
    with connection.reading(path) as con:
        with pytest.raises(UserError, match="start of 2 runs: model-step1-aaaa, model-step2-bbbb"):
            warehouse.find(con, "model")
        with pytest.raises(UserError, match=r"no run 'x'. The warehouse has model-step1-aaaa, model-step2-bbbb"):
            warehouse.find(con, "x")
    with connection.reading(tmp_path / "absent.duckdb") as con, pytest.raises(UserError, match="is empty"):
        warehouse.find(con, "x")


def test_runs(path: Path) -> None:
    runs = warehouse.runs(path)
    assert runs["run_id"].to_list() == ["model-step1-aaaa", "model-step2-bbbb"]
    assert runs["status"].to_list() == ["published"] * 2
    assert runs["pid"].to_list() == [None, None]
    assert runs.columns == [*relations.relations()["dim_run"].columns, "pid"]
    assert warehouse.status(path, "no such run") is None


def test_parts_that_the_warehouse_does_not_know_are_listed(tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    make_parts(parts.parts_root(path) / "a", run_id="a", positions=64, neurons=4, staged=False)
    make_parts(parts.parts_root(path) / "b", run_id="b", positions=64, neurons=4)
    (parts.parts_root(path) / "not a run").mkdir()
    assert warehouse.runs(path).select("run_id", "status").rows() == [("a", "interrupted"), ("b", "staged")]
    assert not path.exists()


def test_tables(path: Path, tmp_path: Path) -> None:
    here = {table.name: table for table in warehouse.tables(path)}
    assert here.keys() == relations.relations().keys()
    assert here["fct_effect"].rows == 2 * 256 * 40
    assert here["dim_run"].rows == 2
    assert here["influence_at"].kind == "macro"
    assert here["influence_at"].rows is None
    neuron = next(column for column in here["fct_effect"].columns if column.name == "neuron")
    assert (neuron.type, neuron.description) == ("USMALLINT", "its index in the layer")
    (one,) = warehouse.tables(path, "power_law_fit")
    assert one.grain == "One row per run × preset × token_group."
    absent = {table.name: table.rows for table in warehouse.tables(tmp_path / "absent.duckdb") if table.rows}
    assert absent == {"preset": 4}
    with pytest.raises(UserError, match=r"There is no relation nothing\. `rare-tokens tables` lists them\."):
        warehouse.tables(path, "nothing")
    with pytest.raises(UserError, match=r"There is no relation dim_runs\. Did you mean dim_run\?"):
        warehouse.tables(path, "dim_runs")


def test_frames_are_polars(opened: warehouse.Warehouse) -> None:
    weights = opened.neuron_weight(run="model-step1", neuron=0)
    assert weights.schema["w_out"] == pl.List(pl.Float32)
    assert opened.dim_run().schema["effects"] == pl.List(pl.String)
