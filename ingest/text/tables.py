"""The texts in a column of a table: Parquet, and Arrow as `datasets` writes it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rare_tokens.ingest.text.file_content import ARROW_STREAM, PARQUET
from rare_tokens.ingest.text.records import TextField

_ROWS = 256  # made into Python strings at a time


def table_texts(path: Path, form: str, field: TextField) -> Iterator[str]:
    """The texts of one column in the order of the rows, nulls left out.

    Raises:
        UserError: there is no such column, or it holds no strings.
        OSError, pa.ArrowException, UnicodeDecodeError: the file is damaged.
    """
    place = f"The corpus file {path}"
    with _parquet(path, field, place) if form == PARQUET else _arrow(path, form, field, place) as columns:
        for column in columns:
            # Offsets beyond the data would be followed into foreign memory.
            column.validate(full=True)
            for start in range(0, len(column), _ROWS):
                yield from (text for text in column.slice(start, _ROWS).to_pylist() if text is not None)


@contextmanager
def _parquet(path: Path, field: TextField, place: str) -> Iterator[Iterator[pa.Array]]:
    with pq.ParquetFile(path) as file:
        names = field.column(file.schema_arrow, place)
        yield (_within(batch, names) for batch in file.iter_batches(batch_size=_ROWS, columns=names[:1]))


@contextmanager
def _arrow(path: Path, form: str, field: TextField, place: str) -> Iterator[Iterator[pa.Array]]:
    with pa.memory_map(str(path)) as source:
        if form == ARROW_STREAM:
            stream = pa.ipc.open_stream(source)
            names = field.column(stream.schema, place)
            yield (_within(batch, names) for batch in stream)
        else:
            file = pa.ipc.open_file(source)
            names = field.column(file.schema, place)
            yield (_within(file.get_batch(number), names) for number in range(file.num_record_batches))


def _within(batch: pa.RecordBatch, names: list[str]) -> pa.Array:
    column = batch.column(names[0])
    for name in names[1:]:
        column = pc.struct_field(column, name)
    return column
