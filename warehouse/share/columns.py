"""Writes rows as Parquet for others to read, every column in the encoding that takes least room for what it holds."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

# Long enough that pages cost little, short enough that reading one neuron reads little else.
ROWS_PER_ROW_GROUP = 122_880
_QUICK, _THOROUGH = 3, 19  # levels of zstd: facts hardly compress further, other relations do
_SMALL = 4_000_000  # bytes; what has fewer is compressed thoroughly, more would take memory and time
_DICTIONARY, _PLAIN = "dictionary", "PLAIN"
# By which encodings a column's values may be written. Measured floats hardly ever repeat, so a dictionary of them
# makes a file half as large again; split by byte, what they share (sign, exponent) compresses.
_OF_FLOATS = ("BYTE_STREAM_SPLIT", _DICTIONARY, _PLAIN)
_OF_WHOLE_NUMBERS = ("DELTA_BINARY_PACKED", _DICTIONARY, _PLAIN)
_OF_TEXTS = (_DICTIONARY, _PLAIN)
_LOOKED_FOR = {"run_id", "preset", "token_group"}  # and whole numbers: readers skip row groups by their statistics


def write(con: duckdb.DuckDBPyConnection, queries: list[str], values: dict[str, Any], path: Path) -> int:
    """Write the results of queries with the same columns, one after the other, into one file; return its rows.

    How columns are encoded is decided by the first row group. Without a row the file has no row group.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    batches = _batches(con, queries, values)
    first = next(batches)
    chosen = {_leaf(field): _smallest(first, field) for field in first.schema}
    is_small = len(queries) == 1 and len(first) < ROWS_PER_ROW_GROUP
    options = _options(chosen, _SMALL if is_small else _QUICK) | {
        "write_statistics": _looked_for(first.schema) or False
    }
    rows = 0
    with pq.ParquetWriter(path, first.schema, **options) as writer:
        for batch in chain([first], batches):
            if len(batch):
                writer.write_batch(batch)
                rows += len(batch)
    return rows


def _batches(con: duckdb.DuckDBPyConnection, queries: list[str], values: dict[str, Any]) -> Iterator[pa.RecordBatch]:
    """The results of queries, at least one batch of each, even without rows; one result at a time is held."""
    for query in queries:
        reader = con.sql(query, params=values).to_arrow_reader(ROWS_PER_ROW_GROUP)
        yield next(iter(reader), pa.RecordBatch.from_pylist([], reader.schema))
        yield from reader
        del reader


def _options(encodings: dict[str, str], level: int) -> dict[str, Any]:
    """What `pyarrow.parquet` is told about encodings, by the path of a column's values."""
    others = {leaf: encoding for leaf, encoding in encodings.items() if encoding != _DICTIONARY}
    return {
        "compression": "zstd",
        "compression_level": level,
        "use_dictionary": [leaf for leaf in encodings if leaf not in others] or False,
        "column_encoding": others or None,
        "store_schema": False,
    }


def _looked_for(schema: pa.Schema) -> list[str]:
    return [field.name for field in schema if pa.types.is_integer(field.type) or field.name in _LOOKED_FOR]


def _smallest(batch: pa.RecordBatch, field: pa.Field) -> str:
    """The encoding in which these values of a column take least room."""
    candidates = _candidates(field.type.value_type if pa.types.is_list(field.type) else field.type)
    if len(candidates) == 1 or not len(batch):
        return candidates[0]
    table = pa.Table.from_batches([batch.select([field.name])])
    return min(candidates, key=lambda encoding: _bytes(table, {_leaf(field): encoding}))


def _candidates(kind: pa.DataType) -> tuple[str, ...]:
    """The encodings that suit values of a type."""
    if pa.types.is_floating(kind):
        return _OF_FLOATS
    if pa.types.is_integer(kind):
        return _OF_WHOLE_NUMBERS
    return _OF_TEXTS if pa.types.is_string(kind) else (_DICTIONARY,)


def _bytes(table: pa.Table, encodings: dict[str, str]) -> int:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **_options(encodings, _QUICK))
    return int(sink.tell())


def _leaf(field: pa.Field) -> str:
    """The path of a column's values within the file."""
    return f"{field.name}.list.element" if pa.types.is_list(field.type) else str(field.name)
