"""Runs whose facts are Parquet beside the warehouse: the same relations, files skipped, damage named, nothing left."""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import duckdb
import polars as pl
import polars.testing
import pyarrow.dataset as ds
import pytest

from rare_tokens import warehouse
from rare_tokens.analyses.curve.power_law import power_law_line
from rare_tokens.common.errors import UserError
from rare_tokens.warehouse import literals
from rare_tokens.warehouse.publish import loading
from rare_tokens.warehouse.store import parquet_facts
from studies.synthetic.runs import make_parts
from tests.support.damaged_files import DAMAGES, missing, replace
from tests.support.warehouses import SMALL, assert_same, contents, empty, parts_of

EFFECTS = ("loss", "entropy")


def publish(path: Path, name: str, store: str | None, seed: int = 1, neurons: int = 130) -> None:
    if not path.exists():
        empty(path)
    make_parts(parts_of(path, name), run_id=name, seed=seed, **(SMALL | {"neurons": neurons, "effects": EFFECTS}))
    warehouse.publish(path, parts_of(path, name), line=power_law_line, store=store)


def files_of(path: Path) -> list[Path]:
    return sorted(file for file in parquet_facts.folder(path).rglob("*") if file.is_file())


def facts(path: Path) -> int:
    with warehouse.open(path) as opened:
        return opened.sql("select count(*) as n from fct_effect")["n"].item()


def relations_of(path: Path) -> dict[str, pl.DataFrame]:
    """Every relation but the list of files; where the facts are left out."""
    found = contents(path, leave_out=("fact_file",))
    return found | {"dim_run": found["dim_run"].drop("store", "run_key")}


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file for each 64 neurons, as a run of many positions has."""
    monkeypatch.setattr(loading, "FACTS_PER_STATEMENT", 1)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "FACTS_PER_STATEMENT", 1)
        for name, stores in (("native", ("native", "native")), ("mixed", ("native", "parquet"))):
            (folder / name).mkdir()
            publish(folder / name / "w.duckdb", "one", stores[0], seed=1)
            publish(folder / name / "w.duckdb", "two", stores[1], seed=2)
        shutil.copytree(folder / "mixed", folder / "three")
        publish(folder / "three" / "w.duckdb", "three", "parquet", seed=3)
    return folder


@pytest.fixture
def both(made: Path, tmp_path: Path, small_blocks: None) -> tuple[Path, Path]:
    """A native warehouse, and one with the same runs of which one is in Parquet; its path has odd characters."""
    native, mixed = tmp_path / "native" / "w.duckdb", tmp_path / "a [b] 'c' * ü" / "w.duckdb"
    shutil.copytree(made / "native", native.parent)
    shutil.copytree(made / "mixed", mixed.parent)
    return native, mixed


@pytest.fixture
def three(made: Path, tmp_path: Path, small_blocks: None) -> Path:
    """The mixed one with a third run, in Parquet too."""
    return shutil.copytree(made / "three", tmp_path / "a [b] 'c' * ü") / "w.duckdb"


def test_every_relation_equals_the_native_store_bit_for_bit(both: tuple[Path, Path]) -> None:
    native, mixed = both
    assert_same(relations_of(mixed), relations_of(native))
    assert len(files_of(mixed)) == 3
    with warehouse.open(mixed) as opened, warehouse.open(native) as other:
        assert opened.dim_run()["store"].to_list() == ["native", "parquet"]
        assert other.dim_run()["store"].to_list() == ["native", "native"]
        for macro in ("influence_at", "influence_where"):
            here, there = (getattr(one, macro)("two", 17).sort(pl.all()) for one in (opened, other))
            assert here.equals(there)
            assert here.height >= 2 * 130
        assert opened.fact_file()["rows"].sum() == 128 * 130
        stored = opened.sql("select count(*) as n from store.fct_effect")["n"].item()
    assert stored == 128 * 130, "the facts of the run in Parquet are not in the warehouse as well"
    assert {table.name: table.rows for table in warehouse.tables(mixed)}["fct_effect"] == 2 * 128 * 130
    assert warehouse.runs(mixed)["store"].to_list() == ["native", "parquet"]


def test_a_filter_skips_files_and_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "FACTS_PER_STATEMENT", 1)
    monkeypatch.setattr(parquet_facts, "ROWS_PER_ROW_GROUP", 2048)
    path = tmp_path / "w.duckdb"
    for number in (1, 2):
        publish(path, f"run-{number}", "parquet", seed=number)
    with warehouse.open(path) as opened:
        plan = _scan(opened, "select sum(delta_loss) from fct_effect where run_id = 'run-2' and neuron = 70")
        by_key = _scan(opened, "select sum(delta_loss) from store.effect where run_key = 2 and neuron = 70")
    # 3 files a run of 64, 64 and 2 neurons; row groups of 16 neurons.
    assert _count(plan, r"Total Files Read: (\d+)") == 3
    assert _count(plan, r"Row Groups Scanned: (\d+) / 9") == 1
    assert "Scanning Files: 3/6" in by_key


def _scan(opened: warehouse.Warehouse, query: str) -> str:
    plan = str(opened.sql(f"explain analyze {query}").row(0)[-1])
    return plan[plan.index("READ_PARQUET") :]


def _count(plan: str, pattern: str) -> int:
    found = re.search(pattern, plan)
    assert found is not None, plan
    return int(found[1])


@pytest.mark.slow
def test_the_warehouse_and_its_folder_can_be_moved(
    both: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, mixed = both
    before = relations_of(mixed)
    there = tmp_path / "elsewhere"
    there.mkdir()
    mixed.rename(there / "renamed.duckdb")
    parquet_facts.folder(mixed).rename(there / "renamed.duckdb.facts")
    assert_same(relations_of(there / "renamed.duckdb"), before)
    monkeypatch.chdir(there)
    assert_same(relations_of(Path("renamed.duckdb")), before)
    (tmp_path / "disk").mkdir()
    (there / "renamed.duckdb.facts").rename(tmp_path / "disk" / "facts")
    (there / "renamed.duckdb.facts").symlink_to(tmp_path / "disk" / "facts")
    assert_same(relations_of(Path("renamed.duckdb")), before)
    publish(Path("renamed.duckdb"), "three", "parquet", seed=3)
    warehouse.delete(Path("renamed.duckdb"), "three")
    assert_same(relations_of(Path("renamed.duckdb")), before)


def test_facts_move_between_the_stores(both: tuple[Path, Path]) -> None:
    native, mixed = both
    expected = relations_of(native)
    assert warehouse.keep(mixed, "two", "native", quiet=True)
    assert not warehouse.keep(mixed, "two", "native", quiet=True)
    assert not parquet_facts.folder(mixed).exists()
    assert_same(relations_of(mixed), expected)
    assert warehouse.keep(mixed, "one", "parquet", quiet=True)
    assert_same(relations_of(mixed), expected)
    with pytest.raises(UserError, match="There is no run 'three'"):
        warehouse.keep(mixed, "three", "parquet")


def test_published_again_a_run_keeps_its_store_and_no_old_file(both: tuple[Path, Path]) -> None:
    _, mixed = both
    old = files_of(mixed)
    publish(mixed, "two", None, seed=5)
    assert len(files_of(mixed)) == 3
    assert not set(old) & set(files_of(mixed))
    with warehouse.open(mixed) as opened:
        assert opened.dim_run(run="two")["store"].item() == "parquet"
        assert set(opened.fact_file()["path"]) == {
            file.relative_to(parquet_facts.folder(mixed)).as_posix() for file in files_of(mixed)
        }
    publish(mixed, "two", "native", seed=6)
    assert files_of(mixed) == []


def test_deleting_the_runs_leaves_an_empty_warehouse_that_reads(both: tuple[Path, Path]) -> None:
    _, mixed = both
    assert warehouse.vacuum(mixed).after > 0
    assert len(files_of(mixed)) == 3
    warehouse.delete(mixed, "two")
    assert not parquet_facts.folder(mixed).exists()
    warehouse.delete(mixed, "one")
    with warehouse.open(mixed) as opened:
        assert opened.fct_effect().is_empty()
    publish(mixed, "one", "parquet")
    parquet_facts.folder(mixed).joinpath("stray").mkdir()
    assert facts(mixed) == 128 * 130


def delete_nothing(path: Path) -> None:
    with pytest.raises(UserError, match="There is no run 'nothing'"):
        warehouse.delete(path, "nothing")


@pytest.mark.slow
def test_what_a_kill_leaves_is_removed_by_the_next_command(both: tuple[Path, Path]) -> None:
    native, mixed = both
    real = files_of(mixed)[0]
    for number, clean in enumerate(
        (
            lambda: warehouse.vacuum(mixed),
            lambda: publish(mixed, "one", "native", seed=1),
            lambda: warehouse.keep(mixed, "one", "parquet", quiet=True),  # three files more
            lambda: warehouse.keep(mixed, "one", "native", quiet=True),
            lambda: delete_nothing(mixed),
            lambda: warehouse.remove_parts(mixed, "two"),
        )
    ):
        orphan = real.parents[1] / f"block=0000{number}" / "ffff.parquet.123.partial"
        orphan.parent.mkdir(exist_ok=True)
        orphan.write_bytes(b"half a file")
        shutil.copy(real, orphan.with_name("ffff.parquet"))
        assert facts(mixed) == 2 * 128 * 130
        clean()
        assert len(files_of(mixed)) == (6 if number == 2 else 3), number
    assert_same(relations_of(mixed), relations_of(native))


@pytest.mark.slow
@pytest.mark.parametrize("fails_at", [1, 2, 3])
def test_a_failure_while_writing_leaves_the_state_before(
    both: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, fails_at: int
) -> None:
    _, mixed = both
    before, files = contents(mixed), {file: file.read_bytes() for file in files_of(mixed)}
    made = parquet_facts.sha256
    calls = 0

    def fail(file: Path) -> str:
        nonlocal calls
        calls += 1
        if calls == fails_at:
            raise OSError(28, os.strerror(28))
        return made(file)

    monkeypatch.setattr(parquet_facts, "sha256", fail)
    with pytest.raises(OSError, match="No space left"):
        publish(mixed, "two", None, seed=8)
    monkeypatch.setattr(parquet_facts, "sha256", made)
    assert {file: file.read_bytes() for file in files_of(mixed)} == files
    assert_same(contents(mixed), before)
    warehouse.publish(mixed, parts_of(mixed, "two"), line=power_law_line)
    assert len(files_of(mixed)) == 3
    assert not set(files) & set(files_of(mixed))


def test_a_disk_without_room_for_a_temporary_file_is_the_users_error(
    three: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(three)

    def refused(**_: object) -> str:
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    with monkeypatch.context() as patch:
        patch.setattr(parquet_facts.tempfile, "mkdtemp", refused)
        with pytest.raises(UserError, match="No temporary file can be written"):
            warehouse.delete(three, "two")
    assert_same(contents(three), before)
    assert warehouse.delete(three, "two") == ["two"]


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_named_by_whatever_reads_facts(
    both: tuple[Path, Path], damage: Callable[[Path, Path], None]
) -> None:
    _, mixed = both
    first, second, _ = files_of(mixed)
    damage(first, second)
    named = f"{re.escape(str(first))} of run two (is missing|is damaged|cannot be read).*Put it back.*delete"
    with warehouse.open(mixed) as opened:
        with pytest.raises(UserError, match=named):
            opened.fct_effect(run="two")
        assert opened.influence("two").height == 2 * 130, "what is stored in the warehouse is still there"
    with pytest.raises(UserError, match=named):
        warehouse.export(mixed, mixed.parent / "out")
    with pytest.raises(UserError, match=named):
        warehouse.check(mixed, ["two"], mixed.parent / "gx")
    with pytest.raises(UserError, match=named):
        warehouse.keep(mixed, "two", "native")
    assert warehouse.runs(mixed).height == 2


@pytest.mark.parametrize(
    "damage", [missing, *(pytest.param(damage, marks=pytest.mark.slow) for damage in DAMAGES if damage != missing)]
)
def test_beside_a_damaged_file_others_are_published_and_its_run_deleted(
    both: tuple[Path, Path], damage: Callable[[Path, Path], None]
) -> None:
    _, mixed = both
    first, second, _ = files_of(mixed)
    damage(first, second)
    publish(mixed, "three", "parquet", seed=3)
    if first.is_dir():
        first.rmdir()
    warehouse.delete(mixed, "two")
    assert facts(mixed) == 2 * 128 * 130


def test_a_changed_value_is_found_by_check_and_export(both: tuple[Path, Path]) -> None:
    _, mixed = both
    file = files_of(mixed)[0]
    contents = bytearray(file.read_bytes())
    contents[len(contents) // 3] ^= 1
    replace(file, bytes(contents))
    named = f"{re.escape(str(file))} of run two is damaged: its bytes have changed"
    with pytest.raises(UserError, match=named):
        warehouse.check(mixed, [], mixed.parent / "gx")
    with pytest.raises(UserError, match=named):
        warehouse.export(mixed, mixed.parent / "out")


def test_a_file_that_vanishes_under_a_reader_is_the_users_error(both: tuple[Path, Path]) -> None:
    _, mixed = both
    with warehouse.open(mixed) as opened:
        files_of(mixed)[0].unlink()
        with pytest.raises(UserError, match=r"fails|failed|cannot be read"):
            opened.sql("select sum(delta_loss) from fct_effect")


def test_a_listed_file_outside_the_folder_makes_nothing_readable(both: tuple[Path, Path]) -> None:
    _, mixed = both
    with duckdb.connect(mixed) as con:
        con.execute("update store.fact_file set path = '../secret.parquet' where first_neuron = 0")
    with pytest.raises(UserError, match=r"lists the Parquet file '\.\./secret\.parquet'"):
        facts(mixed)


def _facts(path: Path, run: str) -> pl.DataFrame:
    with warehouse.open(path) as opened:
        return opened.fct_effect(run_id=run).sort("neuron", "position_id").select("run_id", *parquet_facts.columns())


def test_polars_reads_the_same_facts_lazily(three: Path) -> None:
    lazy = pl.scan_parquet(
        files_of(three),
        glob=False,
        hive_partitioning=True,
        hive_schema={"run_id": pl.String, "run_key": pl.UInt16, "block": pl.UInt16},
    )
    found = (
        lazy.filter(pl.col("run_id") == "two").sort("neuron", "position_id").select("run_id", *parquet_facts.columns())
    )
    assert "run_id=two" in found.explain()
    assert "run_id=three" not in found.explain(), "the other run's files are not opened"
    polars.testing.assert_frame_equal(found.collect(), _facts(three, "two"))
    assert lazy.select(pl.len()).collect().item() == 2 * 128 * 130


def test_pyarrow_reads_the_same_facts(three: Path) -> None:
    dataset = ds.dataset(
        [str(file) for file in files_of(three)],
        format="parquet",
        partitioning="hive",
        partition_base_dir=str(parquet_facts.folder(three)),
    )
    one = ds.field("run_id") == "three"
    assert len(list(dataset.get_fragments(filter=one))) == 3
    table = dataset.to_table(columns=["run_id", *parquet_facts.columns()], filter=one).sort_by(
        [("neuron", "ascending"), ("position_id", "ascending")]
    )
    found = pl.from_arrow(table)
    assert isinstance(found, pl.DataFrame)
    polars.testing.assert_frame_equal(found.cast({"run_id": pl.String}), _facts(three, "three"))


def test_plain_duckdb_reads_them_once_told_where_they_are(both: tuple[Path, Path]) -> None:
    _, mixed = both
    with duckdb.connect(mixed, read_only=True) as con:
        with pytest.raises(duckdb.Error, match=r"Set the variable rare_tokens_facts to the folder"):
            con.execute("select count(*) from fct_effect")
        where = literals.text(literals.unpatterned(parquet_facts.folder(mixed)))
        con.execute(f"set variable rare_tokens_facts = {where}")
        assert con.execute("select count(*) from fct_effect").fetchall() == [(2 * 128 * 130,)]
