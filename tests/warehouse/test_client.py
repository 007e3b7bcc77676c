"""The Python door, the list of runs, and the list of relations."""

import inspect
import pydoc
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import rare_tokens
from rare_tokens import warehouse
from rare_tokens.analyses import registry
from rare_tokens.analyses.curve.power_law import power_law_line
from rare_tokens.common import parts
from rare_tokens.common.errors import UserError
from rare_tokens.common.files import size_in_words
from rare_tokens.warehouse import connection
from rare_tokens.warehouse.client import stub
from rare_tokens.warehouse.runs import IN_SHORT
from rare_tokens.warehouse.schema import relations
from studies.synthetic.runs import make_parts
from tests.conftest import REPOSITORY

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
    assert opened.power_law_fit(rank_window="es' or 'a' = 'a").is_empty()


WRONG = {
    "relation": (lambda w: w.fct_effects(), r"no relation fct_effects\. The closest is fct_effect\."),
    "relation, read": (lambda w: w.read("store"), "There is no relation store"),
    "relation, described": (lambda w: w.tables("neuron_influense"), r"The closest is neuron_influence\."),
    "macro of a value": (lambda w: w.read("nats"), "nats gives a value, not rows"),
    "run of what has none": (lambda w: w.dim_token(run="model-step1"), "dim_token has no column run_id"),
    "column": (lambda w: w.fct_effect(neurons=3), r"no column neurons\. The closest is neuron\. It has .*delta_loss"),
    "run": (lambda w: w.influence("other"), r"There is no run 'other'\. The warehouse has"),
    "run, nearly": (
        lambda w: w.influence("modle-step2"),
        r"no run 'modle-step2'\. .* The closest is model-step2-bbbb\.",
    ),
    "run of a macro": (lambda w: w.influence_at("other", 15), "There is no run 'other'"),
    "run that is no text": (lambda w: w.influence_at(1, 15), "not by 1"),
    "one of several runs": (lambda w: w.dim_neuron(run=["model-step1", "other"]), "There is no run 'other'"),
    "two runs of a macro of one": (
        lambda w: w.influence_at(["model-step1", "model-step2"], 15),
        "takes one run, not 2",
    ),
    "run twice": (lambda w: w.dim_neuron(run="model-step1", run_id="model-step2-bbbb"), "not both"),
    "preset": (lambda w: w.influence("model-step1", "ess"), r"no preset 'ess'\. The closest is es\. There are es, nc"),
    "one of several presets": (lambda w: w.neuron_influence(preset=["es", "x"]), "no preset 'x'"),
    "token group": (lambda w: w.neuron_influence(token_group="rares"), r"The closest is rare\."),
    "neuron": (lambda w: w.neuron_influence(run="model-step1", neuron=40), r"no neuron 40: .*aaaa are 0 to 39"),
    "neuron below 0": (lambda w: w.neuron_influence(neuron=-1), "no neuron -1"),
    "half a neuron": (lambda w: w.neuron_influence(neuron=1.5), r"no neuron 1\.5"),
    "one of several neurons": (lambda w: w.neuron_influence(neuron=[3, 40]), "no neuron 40"),
    "neuron of a macro": (lambda w: w.neuron_context("model-step1", neuron=40), "no neuron 40"),
    "parameter": (
        lambda w: w.influence_at("model-step1", 15, words_=1),
        r"no parameter or column words_\. .* is words",
    ),
    "parameter left out": (lambda w: w.influence_at("model-step1"), r"needs percentile: influence_at\(run, percentile"),
    "parameter twice": (lambda w: w.influence_at("model-step1", 15, run="model-step1"), "run is given twice"),
    "value by place": (lambda w: w.neuron_influence("model-step1"), "by name only, such as run="),
    "too many": (lambda w: w.neuron_target("model-step1", 3, 5, 6), "4 values were given by place"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_exist_is_named(opened: warehouse.Warehouse, case: str) -> None:
    call, says = WRONG[case]
    with pytest.raises(UserError, match=says):
        call(opened)


def test_a_relation_that_is_not_there_is_an_attribute_that_is_not_there(opened: warehouse.Warehouse) -> None:
    assert not hasattr(opened, "fct_effects")
    assert not hasattr(opened, "nats")
    assert not hasattr(opened, "_repr_png_")


def test_macros_are_methods(opened: warehouse.Warehouse) -> None:
    at = opened.influence_at("model-step1", 15)
    assert set(at["run_id"]) == {"model-step1-aaaa"}
    assert len(at) == len(opened.influence_at("model-step1-aaaa", percentile=15, words=True)) == 80
    rows = opened.influence_at("model-step1", 15, token_group="rare", neuron=[3, 5])
    assert rows.sort("neuron")["neuron"].to_list() == [3, 5]
    assert rows.equals(at.filter(pl.col("neuron").is_in([3, 5]), pl.col("token_group") == "rare"))


def test_a_parameter_that_is_a_column_has_the_column_s_name(opened: warehouse.Warehouse) -> None:
    by_name = opened.neuron_context("model-step1", neuron=7, contexts=2)
    assert by_name["neuron"].unique().to_list() == [7]
    assert by_name.equals(opened.neuron_context("model-step1", 7, 2))
    assert by_name.equals(opened.neuron_context("model-step1", neuron_index=7, contexts=2))
    assert set(opened.group_activation("model-step1", preset="es").columns) >= {"preset", "position_id"}
    fits = opened.power_law_fit_of("abs_mean", "boost", run="model-step2", preset="nc")
    assert fits["run_id"].unique().to_list() == ["model-step2-bbbb"]
    assert fits.equals(opened.power_law_fit_of(role="boost", statistic="abs_mean", run="model-step2", preset="nc"))
    assert fits["role"].unique().to_list() == ["boost"]


def test_a_macro_of_several_runs_takes_one_too(opened: warehouse.Warehouse) -> None:
    assert opened.group_test_across("model-step1").columns == opened.group_test_across(run=["model-step1"]).columns
    assert opened.group_test_across(["model-step1", "model-step2"], level=0.1).is_empty()  # nothing is analysed


def test_values_may_come_as_columns_and_arrays(opened: warehouse.Warehouse) -> None:
    ranking = opened.influence("model-step1").filter(pl.col("token_group") == "rare")
    chosen = opened.dim_neuron(run=opened.runs()["run_id"], neuron=ranking["neuron"][:3])
    assert len(chosen) == 6
    assert opened.dim_neuron(run="model-step1", neuron=np.arange(3))["neuron"].to_list() == [0, 1, 2]
    assert len(opened.dim_neuron(run="model-step1", neuron=np.int64(3))) == 1
    assert len(opened.dim_neuron(run="model-step1", neuron=range(4))) == 4
    assert opened.dim_neuron(run="model-step1", neuron=[]).is_empty()


def test_none_is_null(opened: warehouse.Warehouse) -> None:
    sizes = opened.token_group_size(run="model-step1")
    filled = sizes.filter(pl.col("reason").is_null())
    why = sizes.filter(pl.col("preset") == "nc-matched")["reason"][0]
    by = ("preset", "token_group")
    assert 0 < len(filled) < len(sizes)
    assert opened.token_group_size(run="model-step1", reason=None).sort(by).equals(filled.sort(by))
    assert len(opened.token_group_size(run="model-step1", reason=[None, why])) == len(filled) + 2


def test_one_run_asked_for_is_named_last(opened: warehouse.Warehouse) -> None:
    columns = list(relations.relations()["neuron_influence"].columns)
    one = opened.neuron_influence(run="model-step1", neuron=3)
    assert one.columns == [*columns[1:], "run_id"]
    assert one["run_id"].unique().to_list() == ["model-step1-aaaa"]
    assert opened.neuron_influence(run=["model-step1"]).columns == one.columns
    assert opened.influence("model-step1").columns == one.columns
    assert opened.influence_at("model-step1", 15).columns[-1] == "run_id"
    assert opened.neuron_influence(run=["model-step1", "model-step2"]).columns == columns
    assert opened.neuron_influence(preset="es").columns == columns


def test_a_relation_describes_itself(opened: warehouse.Warehouse) -> None:
    text = pydoc.plain(pydoc.render_doc(opened.neuron_influence))
    assert "One row per run × preset × token_group × neuron." in text
    assert re.search(r"influence +DOUBLE +mean \|delta_loss\| over the group's positions, nats", text)
    page = opened.neuron_context._repr_html_()
    assert "where a neuron helps and hurts most" in page
    assert "<td><code>delta_loss</code></td><td>FLOAT</td>" in page
    assert "w.neuron_context(run, neuron, contexts=5, before=12, *, layer=any" in repr(opened.neuron_context)
    for name in (name for name, relation in relations.relations().items() if relation.columns):
        method = getattr(opened, name)
        assert [column.name for column in method.columns] == list(relations.relations()[name].columns)
        assert all(column.description in " ".join(method.__doc__.split()) for column in method.columns), name
        assert not [column for column in method.columns if "NULL" in column.type], f"{name}: see catalogue._BLANK"


def test_signatures(opened: warehouse.Warehouse) -> None:
    view = inspect.signature(opened.neuron_influence).parameters
    assert list(view) == ["run", *relations.relations()["neuron_influence"].columns]
    assert {parameter.kind for parameter in view.values()} == {inspect.Parameter.KEYWORD_ONLY}
    macro = inspect.signature(opened.neuron_context)
    assert str(macro).startswith("(run, neuron, contexts=5, before=12, *, layer=any, ")
    assert macro.bind("a run", neuron=3).arguments == {"run": "a run", "neuron": 3}
    where = inspect.signature(opened.influence_where).parameters
    assert (where["elbow"].default, where["strict"].default) == (True, False)
    assert "run" not in inspect.signature(opened.dim_token).parameters


def test_the_stubs_are_those_of_the_relations() -> None:
    says = "sql/ has changed: run `python -m rare_tokens.warehouse.client.stub`"
    assert stub.STUB.read_text(encoding="utf-8") == stub.stub(), says


def test_type_checkers_know_relations_columns_and_parameters(tmp_path: Path) -> None:
    script = tmp_path / "typed.py"
    script.write_text(
        """
import rare_tokens
w = rare_tokens.open("w.duckdb")
reveal_type(w.neuron_influence(run="a", preset=["es", "nc"], neuron=3, role=None))
w.neuron_influence(run=w.runs()["run_id"], neuron=range(3))
w.neuron_context("a", neuron=3)
w.neuron_influence(neurons=3)
w.neuron_context("a")
w.neuron_influence(neuron="three")
w.fct_effects()
""",
        encoding="utf-8",
    )
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", REPOSITORY / "pyproject.toml", script],
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip
    said = [line.partition("typed.py:")[2] for line in checked.stdout.splitlines() if "typed.py:" in line]
    errors = [int(line.split(":")[0]) for line in said if "error:" in line]
    assert 'Revealed type is "polars.dataframe.frame.DataFrame"' in said[0], checked.stdout
    assert errors == [7, 8, 9, 10], checked.stdout


def test_a_warehouse_shows_where_it_is_how_large_and_its_runs(
    opened: warehouse.Warehouse, path: Path, tmp_path: Path
) -> None:
    shown = repr(opened)
    assert shown.startswith(f"Warehouse {path} ({size_in_words(path.stat().st_size)}), 2 runs")
    assert "model-step1-aaaa  256 positions × 40 neurons, layer " in shown
    assert "model-step2-bbbb" in opened._repr_html_()
    assert opened.runs()["run_id"].to_list() == ["model-step1-aaaa", "model-step2-bbbb"]
    assert opened.runs().columns == list(IN_SHORT)
    with warehouse.open(tmp_path / "absent.duckdb") as absent:
        assert "(no file: reads as empty), no run" in repr(absent)
    assert repr(absent) == f"Warehouse {tmp_path / 'absent.duckdb'}, closed"
    with pytest.raises(UserError, match=r"absent\.duckdb is closed"):
        absent.influence("x")


def test_tables_of_an_open_warehouse(opened: warehouse.Warehouse) -> None:
    listed = opened.tables()
    assert listed["name"].to_list() == list(relations.relations())
    assert listed.filter(pl.col("name") == "fct_effect")["rows"].item() == 2 * 256 * 40
    columns = opened.tables("influence_at")
    assert columns["name"].to_list() == list(relations.relations()["influence_at"].columns)
    assert columns.filter(pl.col("name") == "influence")["type"].item() == "DOUBLE"


def test_the_front_door_says_what_it_has() -> None:
    assert set(dir(rare_tokens)) == set(rare_tokens.__all__)
    assert rare_tokens.__all__[:2] == ["open", "Warehouse"]
    for name in rare_tokens.__all__:
        assert getattr(rare_tokens, name).__doc__, name


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
    with pytest.raises(UserError, match=r"There is no relation dim_runs\. The closest is dim_run\."):
        warehouse.tables(path, "dim_runs")


def test_frames_are_polars(opened: warehouse.Warehouse) -> None:
    weights = opened.neuron_weight(run="model-step1", neuron=0)
    assert weights.schema["w_out"] == pl.List(pl.Float32)
    assert opened.dim_run().schema["effects"] == pl.List(pl.String)
