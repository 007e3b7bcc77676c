"""Deleting, exporting, and giving space back."""

import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from rare_tokens import warehouse
from rare_tokens.analyses.curve.power_law import power_law_line
from rare_tokens.common import parts
from rare_tokens.common.errors import LockedError, UserError
from rare_tokens.warehouse.publish import staging
from rare_tokens.warehouse.schema import relations
from rare_tokens.warehouse.share import columns
from rare_tokens.warehouse.share.export import LEFT_OUT
from studies.synthetic.runs import make_parts
from tests.support.warehouses import contents, empty, parts_of, published, stored


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "w.duckdb"


def test_delete_removes_everything_of_the_run_and_nothing_else(path: Path) -> None:
    stored(path, "kept", seed=1)
    alone = contents(path)
    published(path, "gone", seed=2, tokenizer_id="another tokenizer")
    make_parts(parts_of(path, "gone"), run_id="gone", positions=64, neurons=4)
    assert warehouse.delete(path, "go") == ["gone"]
    assert not parts_of(path, "gone").exists()
    left = contents(path)
    for name, frame in alone.items():
        assert frame.equals(left[name]), name
    with warehouse.open(path) as opened:
        tables = opened.sql(
            "select table_name from duckdb_columns() join duckdb_tables() using (schema_name, table_name)"
            " where schema_name = 'store' and column_name = 'run_key'"
        )["table_name"]
        assert len(tables) > 10
        for table in tables:
            assert set(opened.sql(f"select run_key from store.{table}")["run_key"]) <= {1}, table
        assert opened.sql("select tokenizer_id from store.tokenizer")["tokenizer_id"].to_list() != ["another tokenizer"]


def test_delete_of_a_run_that_is_not_there(path: Path) -> None:
    with pytest.raises(UserError, match="is empty"):
        warehouse.delete(path, "run")
    assert not path.exists()
    stored(path, "run-a")
    published(path, "run-b", seed=1)
    with pytest.raises(UserError, match="start of 2 runs"):
        warehouse.delete(path, "run")


def test_delete_of_a_run_that_was_never_published(path: Path) -> None:
    warehouse.begin(path, make_parts(parts_of(path), run_id="run", positions=64, neurons=4, staged=False))
    assert warehouse.delete(path, "run") == ["run"]
    assert not parts_of(path).exists()
    assert warehouse.status(path, "run") is None


@pytest.mark.slow
def test_space_is_used_again(path: Path) -> None:
    """Publishing and deleting over and over does not make the file grow."""
    sizes = []
    for seed in range(3):
        published(path, "run", seed=seed, positions=1024, neurons=128)
        warehouse.delete(path, "run")
        sizes.append(path.stat().st_size)
    assert sizes[2] <= sizes[1]


@pytest.mark.slow
def test_vacuum_gives_space_back_and_changes_nothing(path: Path) -> None:
    for seed, name in enumerate("abcd"):
        published(path, name, seed=seed, positions=1024, neurons=128)
    for name in "ac":
        warehouse.delete(path, name)
    before = contents(path)
    space = warehouse.vacuum(path)
    assert space.before > space.after == path.stat().st_size
    assert [file.name for file in path.parent.iterdir() if file.is_file()] == [path.name]
    after = contents(path)
    for name, frame in before.items():
        assert frame.equals(after[name]), name
    assert warehouse.tables(path) != []
    published(path, "e", seed=9)
    assert len(warehouse.runs(path)) == 3


def test_vacuum_of_nothing(path: Path) -> None:
    assert warehouse.vacuum(path) == warehouse.Space(0, 0)
    assert not path.exists()


def test_vacuum_removes_parts_that_a_crash_left(path: Path) -> None:
    make_parts(parts_of(path), run_id="run", positions=64, neurons=4)
    kept = parts_of(path, "copy")
    subprocess.run(["cp", "-r", parts_of(path), kept], check=True)
    warehouse.publish(path, parts_of(path), line=power_law_line)
    kept.rename(parts_of(path))
    make_parts(parts_of(path, "next"), run_id="next", positions=64, neurons=4)
    warehouse.vacuum(path)
    assert [folder.name for folder in parts.parts_root(path).iterdir()] == ["next"]


@pytest.mark.parametrize(
    "finish",
    [warehouse.vacuum, lambda path: warehouse.remove_parts(path, "run"), lambda path: warehouse.delete(path, "run")],
)
def test_parts_that_a_kill_left_half_removed_are_removed(
    path: Path, monkeypatch: pytest.MonkeyPatch, finish: Callable[[Path], object]
) -> None:
    """Whatever file went first: what is left is told apart from a run's parts by its name."""
    empty(path)
    make_parts(parts_of(path), run_id="run", positions=64, neurons=4)

    def killed(folder: Path, **_given: Any) -> None:
        if folder.exists():
            (folder / parts.SUMMARY).unlink()
            raise KeyboardInterrupt

    with monkeypatch.context() as at_the_kill:
        at_the_kill.setattr(staging.shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            warehouse.publish(path, parts_of(path), line=power_law_line)
    assert not parts_of(path).exists()
    assert any(parts_of(path).parent.iterdir())
    finish(path)
    assert not any(parts_of(path).parent.iterdir())


def test_what_a_kill_left_is_removed(path: Path, tmp_path: Path) -> None:
    stored(path)
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    for name in (f"w.duckdb.{gone.pid}.partial", f"w.duckdb.{gone.pid}.partial.wal"):
        (tmp_path / name).write_text("half a copy")
    for pid in (gone.pid, os.getppid()):
        (tmp_path / f"out.{pid}.partial" / "dim_run").mkdir(parents=True)
    warehouse.vacuum(path)
    warehouse.export(path, tmp_path / "out")
    assert sorted(entry.name for entry in tmp_path.iterdir() if entry.name != "w.duckdb.parts") == [
        "out",
        f"out.{os.getppid()}.partial",
        "w.duckdb",
    ]


@pytest.mark.slow
def test_export(path: Path, tmp_path: Path) -> None:
    stored(path, "run-a", seed=1)
    published(path, "odd/run id", seed=2)
    folder = tmp_path / "out"
    rows = warehouse.export(path, folder)
    held = contents(path, leave_out=tuple(LEFT_OUT))
    assert rows == {name: len(frame) for name, frame in held.items()}
    manifest = json.loads((folder / "manifest.json").read_text())
    files = {file.relative_to(folder).as_posix() for file in folder.rglob("*.parquet")}
    assert manifest["files"].keys() == files
    assert sum(file["rows"] for file in manifest["files"].values()) == sum(rows.values())
    for name, frame in held.items():
        exported = pl.read_parquet(folder / name / "*.parquet")
        assert exported.columns == list(relations.relations()[name].columns), name
        exported = exported.drop("published_at", "checked_at", strict=False)
        assert exported.sort(pl.all(), nulls_last=True).equals(frame.sort(pl.all(), nulls_last=True)), name
    facts = pl.read_parquet(folder / "fct_effect" / "run-a.parquet")
    assert facts.select("neuron", "position_id").equals(facts.select("neuron", "position_id").sort(pl.all()))
    assert facts["run_id"].unique().to_list() == ["run-a"]


def test_export_of_an_absent_warehouse_is_empty(path: Path, tmp_path: Path) -> None:
    rows = warehouse.export(path, tmp_path / "out")
    assert {name: count for name, count in rows.items() if count} == {"preset": 4}
    assert not path.exists()


def test_export_takes_an_empty_folder_and_no_other(path: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    warehouse.export(path, tmp_path / "empty")
    with pytest.raises(UserError, match="not empty"):
        warehouse.export(path, tmp_path / "empty")
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="not empty"):
        warehouse.export(path, tmp_path / "file")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_failing_export_leaves_nothing(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    stored(path)
    names = []

    def failing(_con: object, _query: str, _values: object, file: Path) -> int:
        names.append(file)
        if len(names) < 5:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("x")
            return 1
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(columns, "write", failing)
    with pytest.raises(UserError if number == errno.ENOSPC else OSError):
        warehouse.export(path, tmp_path / "out")
    assert sorted(file.name for file in tmp_path.iterdir() if "out" in file.name) == []


def test_nothing_is_written_to_a_warehouse_that_is_read(path: Path) -> None:
    stored(path)
    migrate = partial(warehouse.migrate, line=power_law_line)
    calls: list[Any] = [warehouse.vacuum, migrate, lambda path: warehouse.delete(path, "run")]
    code = "import sys, rare_tokens; w = rare_tokens.open(sys.argv[1]); print('open', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        for call in calls:
            with pytest.raises(LockedError, match=str(other.pid)):
                call(path)
        other.kill()
    time.sleep(0.1)
    assert warehouse.delete(path, "run") == ["run"]
