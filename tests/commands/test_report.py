"""The command `report`: it analyses first, shows what is stored, and refuses what cannot be shown or written."""

import json
import shutil

import duckdb
import polars as pl
import pytest

from rare_tokens import warehouse
from rare_tokens.analyses.curve.power_law import power_law_line
from rare_tokens.common.parts import parts_root
from studies.synthetic.runs import make_parts
from tests.support.warehouses import empty

REVISIONS = ("step0", "step64")


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    """A warehouse with two checkpoints on the same text, to be copied."""
    path = empty(tmp_path_factory.mktemp("once") / "rare_tokens.duckdb")
    for seed, revision in enumerate(REVISIONS):
        run_id = f"synthetic-{revision}-{seed:08x}"
        folder = parts_root(path) / run_id
        shape = {"neurons": 192, "positions": 1024, "window": 64}
        make_parts(folder, run_id=run_id, revision=revision, seed=7, model_seed=seed, **shape)
        warehouse.publish(path, folder, line=power_law_line, quiet=True)
    return path


@pytest.fixture
def published(commands, once):
    """Such a warehouse where commands run."""
    return shutil.copy(once, commands.folder / "rare_tokens.duckdb")


def count(commands, relation):
    with warehouse.open(commands.folder / "rare_tokens.duckdb") as opened:
        return opened.read(relation).height


def change(path, statement):
    with duckdb.connect(path) as con:
        con.execute(statement)


@pytest.mark.slow
def test_a_report_analyses_first_and_only_once(commands, published):
    ended = commands("report", "--out", "page", "--json")
    assert ended.code == 0, ended.err
    assert json.loads(ended.out) == [{"report": "page/index.html"}]
    assert count(commands, "regime_decision") > 0
    assert count(commands, "emergence") > 0
    numbers = json.loads((commands.folder / "page" / "report.json").read_text(encoding="utf-8"))
    together = numbers["coactivation"]
    assert {row["group_name"] for row in together} == {"boost", "suppress"}
    assert all(row["run_id"] < row["other_run_id"] and 1 / 101 <= row["p_value"] <= 1 for row in together)
    assert len(numbers["cards"]["synthetic-step64-00000001"]) >= 50
    verdicts = {row["verdict"] for row in numbers["measured_beside_printed"]}
    assert {"agrees", "differs", "cannot tell"} <= verdicts
    when = json.loads(commands("sql", "select max(computed_at) as at from store.analysis", "--json").out)
    commands("report", "--out", "page", "--quiet")
    assert json.loads(commands("sql", "select max(computed_at) as at from store.analysis", "--json").out) == when


@pytest.mark.slow
def test_without_analysing_it_shows_what_is_stored_and_stores_nothing(commands, published):
    ended = commands("report", "--no-analyze", "--out", "page")
    assert ended.code == 0, ended.err
    assert "`rare-tokens analyze` computes them" in ended.err
    assert count(commands, "regime_decision") == 0
    page = (commands.folder / "page" / "index.html").read_text(encoding="utf-8")
    assert "no interval is stored" in page
    assert "nothing is stored to show beside it" in page
    assert 'class="card"' in page  # cards need nothing but the effects


@pytest.mark.slow
def test_a_half_analysed_run_is_shown_with_what_is_missing_named(commands, published):
    assert commands("analyze", "--quiet").code == 0
    with duckdb.connect(published) as con:
        for table in ("regime_decision", "activation_correlation", "emergence", "neuron_group"):
            con.execute(f"delete from store.{table}")
        con.execute("delete from store.influence_interval where run_key = 1")
    ended = commands("report", "--no-analyze", "--out", "page")
    assert ended.code == 0, ended.err
    page = (commands.folder / "page" / "index.html").read_text(encoding="utf-8")
    assert "Correlation of activations, within and between groups: " in page
    assert "It cannot be asked of this report" in page
    assert 'data-figure="alpha"' not in page


@pytest.mark.parametrize("status", ["rejected", "missing"])
def test_a_run_that_is_not_published_is_refused_and_nothing_is_written(commands, published, status):
    change(published, f"update store.run set status = '{status}', status_reason = 'for a reason' where run_key = 1")
    ended = commands("report", "synthetic-step0", "--out", "page")
    assert ended.code == 2
    assert f"is {status} (for a reason)" in ended.err
    assert not (commands.folder / "page").exists()
    assert count(commands, "regime_decision") == 0


def test_a_run_that_is_not_there_and_a_warehouse_without_runs(commands):
    for arguments in ((), ("absent",)):
        ended = commands("report", *arguments, "--out", "page")
        assert ended.code == 2
        assert not (commands.folder / "page").exists()


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_computed(commands, published):
    (commands.folder / "file").write_text("", encoding="utf-8")
    for out in ("file", "file/page"):
        ended = commands("report", "--out", out)
        assert ended.code == 2
        assert "file" in ended.err
    assert count(commands, "regime_decision") == 0
    assert (commands.folder / "file").read_text(encoding="utf-8") == ""


@pytest.mark.slow
def test_a_card_by_sql_is_the_card_of_the_page(commands, published):
    commands("report", "--no-analyze", "--out", "page", "--quiet")
    shown = pl.read_parquet(commands.folder / "page" / "tables" / "contexts.parquet")
    row = shown.row(0, named=True)
    query = (
        f"from neuron_context('{row['run_id']}', {row['neuron']}) where direction = '{row['direction']}' and place = 1"
    )
    with warehouse.open(published) as opened:
        (found,) = opened.sql(query).to_dicts()
    assert (found["context"], found["target"]) == (row["context"], row["target"])
    assert found["delta_loss"] == pytest.approx(row["delta_loss"], rel=1e-6)
