"""Runs taken from an export: the same relations in either store, and what is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from rare_tokens import warehouse
from rare_tokens.analyses.curve.power_law import power_law_line
from rare_tokens.common.errors import LockedError, QualityError, UserError
from rare_tokens.warehouse import locks
from rare_tokens.warehouse.connection import writing
from rare_tokens.warehouse.schema import migrations
from rare_tokens.warehouse.store import parquet_facts, run_records
from studies.synthetic.runs import make_parts
from tests.support.old_export import to_format_2
from tests.support.tiny import SUPPORTED, save_folder, tiny_corpus
from tests.support.warehouses import SMALL, assert_same, contents, empty, parts_of

STORES = parquet_facts.STORES


def publish(path: Path, name: str, store: str, **given: Any) -> None:
    if not path.exists():
        empty(path)
    make_parts(parts_of(path, name), run_id=name, **(SMALL | {"effects": ("loss", "kl")} | given))
    warehouse.publish(path, parts_of(path, name), line=power_law_line, store=store)


def relations_of(path: Path) -> dict[str, pl.DataFrame]:
    found = contents(path, leave_out=("fact_file",))
    return found | {"dim_run": found["dim_run"].drop("store", "run_key").sort("run_id")}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A warehouse of two published runs, analysed with a group, one in each store, a gap, and its export."""
    folder = tmp_path_factory.mktemp("made")
    path = folder / "w.duckdb"
    publish(path, "odd/run id", "parquet", seed=2)
    publish(path, "run-a", "native", seed=1)
    warehouse.record_gap(path, run_id="gap", model="m", revision="step5", why="no weights")
    frame = pl.DataFrame({"preset": ["es"], "token_group": ["rare"], "model": ["straight"]})
    columns = _columns(path, "regime_fit")
    rows = frame.select([name for name in frame.columns if name in columns])
    warehouse.store(
        path, "run-a", "regimes", {"regime_fit": rows}, parameters={"draws": 3}, code_version="1", seconds=2.5
    )
    warehouse.export(path, folder / "out")
    return folder


def _columns(path: Path, relation: str) -> list[str]:
    with warehouse.open(path) as opened:
        return list(getattr(opened, relation)().columns)


@pytest.fixture
def there(made: Path, tmp_path: Path) -> Path:
    """The warehouse and its export, to be changed."""
    shutil.copytree(made, tmp_path / "there")
    return tmp_path / "there"


@pytest.mark.parametrize("store", ["parquet", pytest.param("native", marks=pytest.mark.slow)])
def test_what_was_exported_is_attached_as_it_was(made: Path, tmp_path: Path, store: str) -> None:
    path = tmp_path / "new.duckdb"
    first = warehouse.attach(path, made / "out", line=power_law_line, store=store)
    assert first == {"odd/run id": "attached", "run-a": "attached", "gap": "attached"}
    assert_same(relations_of(path), relations_of(made / "w.duckdb"))
    with warehouse.open(path) as opened:
        assert set(opened.dim_run(status="published")["store"]) == {store}
        assert opened.fact_file().is_empty() == (store == "native")
    assert warehouse.stored(path, "run-a") == warehouse.stored(made / "w.duckdb", "run-a")
    again = warehouse.attach(path, made / "out", line=power_law_line, store=store)
    assert set(again.values()) == {"already there"}
    # and back again
    warehouse.export(path, tmp_path / "out")
    back = tmp_path / "back.duckdb"
    warehouse.attach(back, tmp_path / "out", line=power_law_line, store=STORES[store == "native"])
    assert_same(relations_of(back), relations_of(made / "w.duckdb"))


def test_an_export_of_an_earlier_version_is_attached_as_it_was(there: Path, tmp_path: Path) -> None:
    to_format_2(there / "w.duckdb", there / "out")
    assert (there / "out" / "fct_effect" / "run_id=odd%2Frun%20id" / "part.parquet").is_file()
    path = tmp_path / "new.duckdb"
    assert set(warehouse.attach(path, there / "out", line=power_law_line).values()) == {"attached"}
    assert_same(relations_of(path), relations_of(there / "w.duckdb"))
    assert set(warehouse.attach(path, there / "out", line=power_law_line).values()) == {"already there"}


def test_one_run_is_attached_as_it_was(there: Path, tmp_path: Path) -> None:
    warehouse.export(there / "w.duckdb", tmp_path / "one", ["run"])
    path = tmp_path / "new.duckdb"
    assert warehouse.attach(path, tmp_path / "one", line=power_law_line) == {"run-a": "attached"}
    for run in ("odd/run id", "gap"):
        warehouse.delete(there / "w.duckdb", run)
    assert_same(relations_of(path), relations_of(there / "w.duckdb"))


@pytest.mark.slow
def test_beside_other_runs_and_after_the_folder_is_gone(there: Path, tmp_path: Path) -> None:
    path = tmp_path / "new.duckdb"
    publish(path, "first", "parquet", seed=7)
    warehouse.attach(path, there / "out", line=power_law_line, store="parquet")
    shutil.rmtree(there / "out")
    found, original = relations_of(path), relations_of(there / "w.duckdb")
    for name in (
        "fct_effect",
        "neuron_influence",
        "agg_effect",
        "neuron_deviation",
        "position_group",
        "quality_result",
    ):
        of_them = found[name].filter(pl.col("run_id") != "first")
        assert of_them.equals(original[name]), name
    warehouse.delete(path, "run-a")
    with warehouse.open(path) as opened:
        assert opened.fct_effect()["run_id"].n_unique() == 2


def test_a_run_that_is_not_published_is_left_out(there: Path, tmp_path: Path) -> None:
    with writing(there / "w.duckdb") as con:
        con.execute("update store.run set status = 'rejected' where run_id = 'gap'")
    warehouse.export(there / "w.duckdb", tmp_path / "out")
    path = tmp_path / "new.duckdb"
    assert warehouse.attach(path, tmp_path / "out", line=power_law_line)["gap"] == "left out"
    assert "gap" not in warehouse.runs(path)["run_id"].to_list()


def test_a_run_with_other_facts_is_refused_and_nothing_attached(made: Path, tmp_path: Path) -> None:
    path = tmp_path / "new.duckdb"
    publish(path, "run-a", "native", seed=99)
    before = contents(path)
    with pytest.raises(
        UserError, match=r"Run run-a is in .*new\.duckdb already, with other facts.*Delete it there first"
    ):
        warehouse.attach(path, made / "out", line=power_law_line, store="parquet")
    assert_same(contents(path), before)
    assert not parquet_facts.folder(path).exists()


def test_a_run_that_another_process_writes_is_not_taken_from_it(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "new.duckdb"
    publish(path, "run-a", "native", seed=1)
    with writing(path) as con:
        run_records.record(con, {"run_id": "run-a", "process": "host 4711 1.0"})
    monkeypatch.setattr(locks, "holder", lambda process: process and 4711)
    with pytest.raises(LockedError, match="Process 4711 is writing run run-a"):
        warehouse.attach(path, made / "out", line=power_law_line)


# --- damage ---------------------------------------------------------------------------------------------------------

FACTS = "fct_effect/run-a.parquet"


def _manifest(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        manifest = json.loads((folder / "manifest.json").read_text())
        change(manifest)
        (folder / "manifest.json").write_text(json.dumps(manifest))

    return apply


def _flip(folder: Path) -> None:
    contents = bytearray((folder / FACTS).read_bytes())
    contents[len(contents) // 2] ^= 1
    (folder / FACTS).write_bytes(bytes(contents))


def _rehashed(change: Callable[[pl.DataFrame], pl.DataFrame], name: str = FACTS) -> Callable[[Path], None]:
    """Another content, with a manifest that says so."""

    def apply(folder: Path) -> None:
        change(pl.read_parquet(folder / name, hive_partitioning=False)).write_parquet(folder / name)
        described = {"bytes": (folder / name).stat().st_size, "sha256": parquet_facts.sha256(folder / name)}
        _manifest(lambda manifest: manifest["files"][name].update(described))(folder)

    return apply


NEWEST = migrations.known()[-1][0]
REFUSED = [
    (shutil.rmtree, "is not an export: it has no manifest.json"),
    (lambda folder: (folder / "manifest.json").unlink(), "is not an export: it has no manifest.json"),
    (lambda folder: (folder / "manifest.json").write_text("{"), "manifest.json is damaged"),
    (lambda folder: (folder / "manifest.json").write_text("[1]"), "manifest.json is damaged"),
    (_manifest(lambda manifest: manifest.update(schema=NEWEST - 1)), "exported by another version"),
    (_manifest(lambda manifest: manifest.update(schema=NEWEST + 1)), "exported by another version"),
    (_manifest(lambda manifest: manifest.update(format=1)), "exported by another version"),
    (_manifest(lambda manifest: manifest.pop("runs")), "manifest.json is damaged"),
    (_manifest(lambda manifest: manifest["runs"].pop("gap")), "its runs are not those of dim_run"),
    (_manifest(lambda manifest: manifest["files"].pop("dim_run/part.parquet")), "it lists no dim_run"),
    (_manifest(lambda manifest: manifest["files"].pop(FACTS)), "has no fct_effect of run run-a"),
    (_manifest(lambda manifest: manifest["files"].update({"../x/part.parquet": {}})), "lists files that no export has"),
    (_manifest(lambda manifest: manifest["files"].update({"x/../y.parquet": {}})), "lists files that no export has"),
    (_manifest(lambda manifest: manifest["files"][FACTS].pop("run_id")), "lists files that no export has"),
    (_manifest(lambda manifest: manifest["files"].update({FACTS: 3})), "is damaged"),
    (lambda folder: (folder / FACTS).unlink(), "fct_effect/run-a.parquet is missing"),
    (lambda folder: (folder / FACTS).write_bytes(b""), "fct_effect/run-a.parquet is damaged"),
    (_flip, "fct_effect/run-a.parquet is damaged"),
    (_rehashed(lambda frame: frame.drop("delta_loss")), "has other columns than fct_effect"),
    (_rehashed(lambda frame: frame.with_columns(pl.lit("x").alias("neuron"))), "has other columns than fct_effect"),
]


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A warehouse that every refusal must leave as it is, and what is in it."""
    path = tmp_path_factory.mktemp("target") / "new.duckdb"
    publish(path, "first", "native", seed=7)
    return path, contents(path)


@pytest.mark.quick_cases(5)
@pytest.mark.parametrize(("damage", "message"), REFUSED)
def test_a_damaged_export_is_refused(
    there: Path, target: tuple[Path, dict[str, Any]], damage: Callable[[Path], None], message: str
) -> None:
    damage(there / "out")
    path, before = target
    with pytest.raises(UserError) as refusal:
        warehouse.attach(path, there / "out", line=power_law_line, store="parquet")
    assert message in str(refusal.value)
    assert_same(contents(path), before)
    assert not list(parquet_facts.folder(path).rglob("*.parquet"))


def test_facts_that_do_not_belong_together_are_refused_by_the_audit(there: Path, tmp_path: Path) -> None:
    _rehashed(lambda frame: frame.head(-1))(there / "out")
    with pytest.raises(
        QualityError, match=r"was refused: .*fct_effect has every neuron at every position once: 1 do not"
    ):
        warehouse.attach(tmp_path / "new.duckdb", there / "out", line=power_law_line)
    assert "run-a" not in warehouse.runs(tmp_path / "new.duckdb")["run_id"].to_list()


# --- the command line -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_ingest_into_parquet_move_export_attach(commands: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    inputs = tmp_path_factory.mktemp("inputs")
    save_folder(inputs / "neox", SUPPORTED["gpt_neox"])
    tiny_corpus(inputs / "corpus.jsonl", documents=200)
    asked = ["ingest", "--model", inputs / "neox", "--corpus", inputs / "corpus.jsonl", "--tokens", 320, "--window", 32]
    path = commands.folder / "rare_tokens.duckdb"
    first = commands(*asked, "--store", "parquet", "--json", "--quiet")
    assert first.code == 0, first.err
    (run,) = json.loads(first.out)
    assert run["store"] == "parquet"
    assert len(list(parquet_facts.folder(path).rglob("*.parquet"))) == 1
    assert commands(*asked, "--quiet").code == 0
    again = commands(*asked, "--again", "--json", "--quiet")
    assert json.loads(again.out)[0]["store"] == "parquet", "--again leaves it where it was"
    expected = relations_of(path)
    moved = commands(*asked, "--store", "native", "--json")
    assert "are in the native store now" in moved.err
    (run_again,) = json.loads(moved.out)
    assert (run_again["store"], run_again["run_id"]) == ("native", run["run_id"]), "the store is not of the identity"
    assert_same(relations_of(path), expected)
    assert commands("export", "out", "--quiet").code == 0
    attached = commands("attach", "out", "--store", "parquet", "--warehouse", "other.duckdb", "--json")
    assert json.loads(attached.out) == [{"run_id": run["run_id"], "outcome": "attached"}]
    assert_same(relations_of(commands.folder / "other.duckdb"), expected)
    counted = commands("sql", "select count(*) as n from fct_effect", "--warehouse", "other.duckdb", "--json")
    assert json.loads(counted.out) == [{"n": 320 * 80}]
    assert commands("check", "--warehouse", "other.duckdb", "--quiet").code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["attach"], "Missing argument"),
        (["attach", "absent"], "is not an export"),
        (["attach", "out", "--store", "csv"], "'csv' is not one of"),
        (["ingest", "--model", "m", "--store", "duckdb"], "'duckdb' is not one of"),
    ],
)
def test_bad_input_to_the_commands(commands: Any, arguments: list[str], message: str) -> None:
    ended = commands(*arguments)
    assert ended.code == 2
    assert message in ended.err
