"""Warehouses of every earlier schema, with data, come to today's whole; a newer one is left alone."""

import shutil
from pathlib import Path

import duckdb
import pytest

from rare_tokens import warehouse
from rare_tokens.analyses.curve.power_law import power_law_line
from rare_tokens.common.errors import UserError
from rare_tokens.warehouse.schema import migrations
from rare_tokens.warehouse.store import parquet_facts
from tests.support.commands import Commands
from tests.support.old_schema import make_old
from tests.support.warehouses import assert_same, contents, published, stored

NEWEST = migrations.known()[-1][0]
# Publishing fills these; what only `analyze` or a later schema's publishing fills is empty after a migration.
LATER = {"quality_result"}


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("new") / "new.duckdb"
    stored(path, "first", seed=1)
    published(path, "second", seed=2, effects=("loss", "entropy"))
    return path


OLD = range(1, len(migrations.known()) + 1)  # the last: of this schema, but with the views of another version


@pytest.mark.parametrize(
    "schema", [OLD[0], *(pytest.param(schema, marks=pytest.mark.slow) for schema in OLD[1:-1]), OLD[-1]]
)
def test_an_old_warehouse_with_data_comes_to_the_newest_schema(new: Path, tmp_path: Path, schema: int) -> None:
    old = make_old(tmp_path / "old.duckdb", new, schema)
    with pytest.raises(UserError, match="rare-tokens migrate"), warehouse.open(old):
        pass
    applied = warehouse.migrate(old, line=power_law_line)
    assert len(applied) == len(migrations.known()) - schema + 1
    assert warehouse.migrate(old, line=power_law_line) == []
    before, after = contents(new), contents(old)
    assert before.keys() == after.keys()
    for name, frame in before.items():
        if name not in LATER:
            assert frame.equals(after[name]), name
    assert after["fct_effect"].height == 2 * 128 * 40
    with warehouse.open(old) as opened:
        assert opened.influence("first").height > 0
        assert opened.influence_at("second", 15).height > 0


@pytest.mark.slow
def test_a_migrated_warehouse_can_be_written_checked_and_deleted_from(new: Path, tmp_path: Path) -> None:
    old = make_old(tmp_path / "old.duckdb", new)
    warehouse.require_writable(old, line=power_law_line)  # as every ingest begins; it brings the warehouse up to date
    published(old, "third", seed=3)
    checked, _ = warehouse.check(old, [], tmp_path / "quality")
    assert [(run.run_id, run.failed) for run in checked] == [("first", []), ("second", []), ("third", [])]
    warehouse.delete(old, "second")
    with warehouse.open(old) as opened:
        assert opened.dim_run()["run_id"].to_list() == ["first", "third"]


BEFORE_THE_ROOMS = 10  # the schema of the last version whose code lay elsewhere


@pytest.fixture
def earlier(commands: Commands) -> Path:
    """A warehouse with facts in either store and views of another version, where commands look for it.

    Beside it, as `new.duckdb`, the same of today.
    """
    new, old = commands.folder / "new.duckdb", commands.folder / "rare_tokens.duckdb"
    stored(new, "native", seed=1)
    published(new, "parquet", seed=2, effects=("loss", "entropy"))
    warehouse.keep(new, "parquet", "parquet", quiet=True)
    make_old(old, new, BEFORE_THE_ROOMS)
    shutil.copytree(parquet_facts.folder(new), parquet_facts.folder(old))
    return old


@pytest.mark.slow
def test_a_warehouse_of_earlier_code_answers_once_migrated(earlier: Path, commands: Commands) -> None:
    asked = "select run_id, sum(delta_loss), count(delta_entropy), count(*) from fct_effect group by 1 order by 1"
    refused = commands("sql", asked)
    assert (refused.code, "rare-tokens migrate" in refused.err) == (2, True)
    ended = commands("migrate")
    assert ended.code == 0, ended.err
    new = earlier.with_name("new.duckdb")
    assert commands("sql", asked).out == commands("sql", asked, "--warehouse", new).out != ""
    assert_same(contents(new, tuple(LATER)), contents(earlier, tuple(LATER)))
    assert commands("export", "out").code == commands("attach", "out", "--warehouse", "copy.duckdb").code == 0


@pytest.mark.slow
def test_a_warehouse_of_earlier_code_is_checked_analysed_and_reported(earlier: Path, commands: Commands) -> None:
    for command in (["migrate"], ["check"], ["analyze"], ["report", "--no-analyze", "--out", "page"]):
        ended = commands(*command)
        assert ended.code == 0, (command, ended.err)


def test_a_newer_warehouse_is_refused_and_left_as_it_is(new: Path, tmp_path: Path) -> None:
    newer = tmp_path / "newer.duckdb"
    newer.write_bytes(new.read_bytes())
    with duckdb.connect(newer) as con:
        con.execute(f"insert into store.migration values ({NEWEST + 1}, 'from_the_future', now()::timestamp)")
        con.execute("create table store.from_the_future as select 42 as answer")
    before = newer.read_bytes()
    for use in (
        lambda: warehouse.open(newer),
        lambda: warehouse.migrate(newer, line=power_law_line),
        lambda: warehouse.delete(newer, "first"),
        lambda: warehouse.vacuum(newer),
        lambda: warehouse.run_sql(newer, "from dim_run"),
        lambda: warehouse.check(newer, [], tmp_path / "quality"),
    ):
        with pytest.raises(UserError, match="Upgrade rare-token-neurons"):
            use()
    assert newer.read_bytes() == before
