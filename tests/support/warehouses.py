"""Small warehouses for tests: runs published, parts damaged, contents compared."""

import atexit
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from rare_tokens import warehouse
from rare_tokens.analyses.curve.power_law import power_law_line
from rare_tokens.common import parts
from rare_tokens.warehouse.connection import reading
from rare_tokens.warehouse.sandbox import to_arrow
from rare_tokens.warehouse.schema import relations
from rare_tokens.warehouse.store import parquet_facts
from studies.synthetic.runs import make_parts, write_summary

SMALL: dict[str, Any] = {"positions": 128, "neurons": 40, "window": 32, "vocabulary": 60}


_MADE: dict[str, Path] = {}  # by what was published


def parts_of(path: Path, name: str = "run") -> Path:
    return parts.parts_root(path) / name


def published(path: Path, name: str = "run", **given: Any) -> str:
    make_parts(parts_of(path, name), run_id=name, **(SMALL | given))
    return warehouse.publish(path, parts_of(path, name), line=power_law_line)


def stored(path: Path, name: str = "run", **given: Any) -> str:
    """What `published` leaves in a new warehouse, made once a process and copied: for tests of all else."""
    assert not path.exists() or path.read_bytes() == _empty().read_bytes()
    key = f"{name} {sorted(given.items())}"
    if key not in _MADE:
        _MADE[key] = empty(_shelf() / f"{len(_MADE)}.duckdb")
        published(_MADE[key], name, **given)
    shutil.copy(_MADE[key], path)
    return name


def empty(path: Path) -> Path:
    """A new warehouse without runs, copied too."""
    assert not path.exists()
    return shutil.copy(_empty(), path)


@cache
def _empty() -> Path:
    path = _shelf() / "empty.duckdb"
    warehouse.require_writable(path, line=power_law_line)
    return path


@cache
def _shelf() -> Path:
    """A folder that goes with the process."""
    shelf = tempfile.TemporaryDirectory(prefix="rare-tokens-tests-")
    atexit.register(shelf.cleanup)
    return Path(shelf.name)


def contents(path: Path, leave_out: tuple[str, ...] = ()) -> dict[str, pl.DataFrame]:
    """Every public view, rows in a fixed order, without what differs between two times of publishing."""
    frames = {}
    names = [name for name, relation in relations.relations().items() if not relation.is_macro]
    with reading(path) as con:
        for name in names:
            if name not in leave_out:
                frame = pl.from_arrow(to_arrow(con, f"select * from {name} order by all"))
                assert isinstance(frame, pl.DataFrame)
                frames[name] = frame.drop("published_at", "checked_at", strict=False)
    return frames


def hashes(folder: Path) -> dict[Path, str]:
    """Every file of a folder by its content."""
    return {file: parquet_facts.sha256(file) for file in folder.rglob("*") if file.is_file()}


def assert_same(left: dict[str, pl.DataFrame], right: dict[str, pl.DataFrame]) -> None:
    assert left.keys() == right.keys()
    for name, frame in left.items():
        assert frame.equals(right[name]), name


def change(relation: str, column: str, row: int, value: Any) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        file = parts.effect_path(folder, 0) if relation == "fct_effect" else parts.relation_path(folder, relation)
        table = pq.read_table(file)
        index = table.schema.get_field_index(column)
        values = table[column].to_pylist()
        values[row] = value
        pq.write_table(
            table.set_column(index, table.schema.field(index), pa.array(values, table.schema.types[index])), file
        )

    return apply


def drop_row(relation: str, row: int) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        file = parts.effect_path(folder, 0) if relation == "fct_effect" else parts.relation_path(folder, relation)
        table = pq.read_table(file)
        pq.write_table(pa.concat_tables([table.slice(0, row), table.slice(row + 1)]), file)

    return apply


def summary(**values: Any) -> Callable[[Path], None]:
    return lambda folder: write_summary(folder, **values)
