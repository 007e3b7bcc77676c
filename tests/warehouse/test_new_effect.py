"""An effect that is added to the table of effects needs a migration for its column, and nothing else here."""

import shutil
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from rare_tokens import warehouse
from rare_tokens.analyses.curve.power_law import power_law_line
from rare_tokens.common import parts
from rare_tokens.common.errors import QualityError, UserError
from rare_tokens.warehouse.schema import migrations
from studies.synthetic.runs import make_parts
from tests.support.warehouses import SMALL, change, parts_of, published, stored

MIGRATION = "alter table store.fct_effect add column delta_rank float"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    stored(folder / "w.duckdb", "native", effects=("loss", "kl"))
    published(folder / "w.duckdb", "parquet", effects=("loss", "kl"))
    warehouse.keep(folder / "w.duckdb", "parquet", "parquet", quiet=True)
    return folder


@pytest.fixture
def path(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A warehouse with a run in either store, from before there was an effect `rank`."""
    path = shutil.copytree(made, tmp_path, dirs_exist_ok=True) / "w.duckdb"
    known = [*migrations.known(), (migrations.known()[-1][0] + 1, "rank", MIGRATION)]
    monkeypatch.setattr(migrations, "known", lambda: known)
    monkeypatch.setitem(parts.EFFECT_COLUMNS, "rank", "delta_rank")
    columns = [*parts._SCHEMAS["fct_effect"], ("delta_rank", pa.float32())]
    monkeypatch.setitem(parts._SCHEMAS, "fct_effect", columns)
    return path


@pytest.mark.parametrize("store", ["parquet", pytest.param("native", marks=pytest.mark.slow)])
def test_it_is_audited_stored_shown_and_shared(path: Path, tmp_path: Path, store: str) -> None:
    with pytest.raises(UserError, match="rare-tokens migrate"), warehouse.open(path):
        pass
    warehouse.migrate(path, line=power_law_line)
    folder = parts_of(path, "new")
    make_parts(folder, run_id="new", effects=("loss", "rank"), **SMALL)
    change("fct_effect", "delta_rank", 3, 0.25)(folder)
    warehouse.publish(path, folder, line=power_law_line, store=store)
    shown = "select run_id, count(delta_rank) as ranks, count(delta_kl) as kls from fct_effect group by 1 order by 1"
    pairs = SMALL["positions"] * SMALL["neurons"]
    expected = [("native", 0, pairs), ("new", pairs, 0), ("parquet", 0, pairs)]
    with warehouse.open(path) as opened:
        assert opened.sql(shown).rows() == expected
        (value,) = opened.sql(
            "select delta_rank from fct_effect where run_id = 'new' and neuron = 0 and position_id = 3"
        )
        assert value.to_list() == [0.25]
    warehouse.export(path, tmp_path / "out")
    other = tmp_path / "other.duckdb"
    warehouse.attach(other, tmp_path / "out", line=power_law_line, store=store)
    with warehouse.open(other) as opened:
        assert opened.sql(shown).rows() == expected
    assert warehouse.keep(path, "parquet", "native", quiet=True)
    with warehouse.open(path) as opened:
        assert opened.sql(shown).rows() == expected


@pytest.mark.slow
def test_it_is_checked(path: Path, tmp_path: Path) -> None:
    warehouse.migrate(path, line=power_law_line)
    folder = parts_of(path, "new")
    make_parts(folder, run_id="new", effects=("loss", "rank"), **SMALL)
    warehouse.publish(path, folder, line=power_law_line)
    checked, _ = warehouse.check(path, [], tmp_path / "quality")
    assert [(run.run_id, run.failed) for run in checked] == [("native", []), ("new", []), ("parquet", [])]


@pytest.mark.parametrize("value", [float("nan"), float("-inf"), None])
def test_a_value_that_is_none_is_refused(path: Path, value: float | None) -> None:
    warehouse.migrate(path, line=power_law_line)
    folder = parts_of(path, "new")
    make_parts(folder, run_id="new", effects=("loss", "rank"), **SMALL)
    change("fct_effect", "delta_rank", 3, value)(folder)
    with pytest.raises(QualityError, match="has each effect" if value is None else "each effect is finite"):
        warehouse.publish(path, folder, line=power_law_line, anyway="please")
    with duckdb.connect(path, read_only=True) as con:
        assert con.execute("select count(*) from store.fct_effect where delta_rank is not null").fetchall() == [(0,)]
