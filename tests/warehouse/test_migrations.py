"""Warehouses of every earlier schema, with data, come to today's whole; a newer one is left alone."""

from pathlib import Path

import duckdb
import pytest

from rare_tokens import warehouse
from rare_tokens.analyses.curve.power_law import power_law_line
from rare_tokens.common.errors import UserError
from rare_tokens.warehouse.schema import migrations
from tests.support.old_schema import make_old
from tests.support.warehouses import contents, published

NEWEST = migrations.known()[-1][0]
# Publishing fills these; what only `analyze` or a later schema's publishing fills is empty after a migration.
LATER = {"quality_result"}


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("new") / "new.duckdb"
    published(path, "first", seed=1)
    published(path, "second", seed=2, effects=("loss", "entropy"))
    return path


OLD = range(1, len(migrations.known()))


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


def test_a_migrated_warehouse_can_be_written_checked_and_deleted_from(new: Path, tmp_path: Path) -> None:
    old = make_old(tmp_path / "old.duckdb", new)
    warehouse.require_writable(old, line=power_law_line)  # as every ingest begins; it brings the warehouse up to date
    published(old, "third", seed=3)
    checked, _ = warehouse.check(old, [], tmp_path / "quality")
    assert [(run.run_id, run.failed) for run in checked] == [("first", []), ("second", []), ("third", [])]
    warehouse.delete(old, "second")
    with warehouse.open(old) as opened:
        assert opened.dim_run()["run_id"].to_list() == ["first", "third"]


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
