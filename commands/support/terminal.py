"""Output on stdout: aligned tables for people, or the same rows as JSON, CSV, Markdown or Parquet."""

import io
import json
import sys
from collections.abc import Mapping
from typing import Any

import polars as pl
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rare_tokens.common.errors import UserError
from rare_tokens.common.text import fitted

FORMATS = ("table", "json", "csv", "markdown", "parquet")
WIDEST_CELL = 80
ROWS_SHOWN = 200


def show(frame: pl.DataFrame, form: str = "table", *, title: str | None = None) -> None:
    """Print a frame on stdout in one of `FORMATS`; the table is for people and says if rows are left out.

    Raises:
        UserError: Parquet was asked for and stdout is a terminal.
    """
    if form == "table":
        _show_table(frame, title)
    elif form == "json":
        sys.stdout.write(to_json(frame) + "\n")
    elif form == "csv":
        sys.stdout.write(_flat(frame).write_csv())
    elif form == "markdown":
        sys.stdout.write(_markdown(frame))
    elif form == "parquet":
        if sys.stdout.isatty():
            raise UserError(
                "--format parquet writes bytes: send them to a file, as in `… --format parquet > rows.parquet`."
            )
        buffer = io.BytesIO()
        frame.write_parquet(buffer)
        sys.stdout.buffer.write(buffer.getvalue())


def show_parts(parts: Mapping[str, pl.DataFrame]) -> None:
    """Print several frames on stdout as one JSON object, a list of rows under each name."""
    inside = ", ".join(f"{json.dumps(name)}: {to_json(frame)}" for name, frame in parts.items())
    sys.stdout.write(f"{{{inside}}}\n")


def to_json(frame: pl.DataFrame) -> str:
    """The rows as a JSON list of objects: times as ISO text, bytes as hex, and null for NaN and infinity."""
    finite = frame.with_columns(pl.when(pl.col(name).is_finite()).then(pl.col(name)) for name in _floats(frame))
    return json.dumps(finite.to_dicts(), default=_plain, ensure_ascii=False, allow_nan=False)


def _show_table(frame: pl.DataFrame, title: str | None) -> None:
    table = Table(title=title, box=SIMPLE_HEAD, title_justify="left", show_edge=False, pad_edge=False)
    for name, kind in frame.schema.items():
        table.add_column(Text(fitted(name)), justify="right" if kind.is_numeric() else "left", overflow="fold")
    for row in frame.head(ROWS_SHOWN).iter_rows():
        table.add_row(*(Text(cell(value)) for value in row))
    # A pipe has no width, so lines are as long as they need to be instead of folding at 80 columns.
    console = Console(width=None if sys.stdout.isatty() else 100_000, highlight=False, file=sys.stdout)
    console.print(table)
    if frame.height > ROWS_SHOWN:
        console.print(f"… {frame.height - ROWS_SHOWN:,} more rows (of {frame.height:,}); --format csv prints them all")


def cell(value: Any) -> str:
    """A value for people: six significant digits, a dash for NULL."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    return fitted(str(value), WIDEST_CELL)


def _floats(frame: pl.DataFrame) -> list[str]:
    return [name for name, kind in frame.schema.items() if kind.is_float()]


def _flat(frame: pl.DataFrame) -> pl.DataFrame:
    """Nested columns as JSON text, which CSV can hold."""
    nested = [name for name, kind in frame.schema.items() if kind.is_nested()]
    return frame.with_columns(
        pl.Series(name, [None if item is None else json.dumps(item, default=_plain) for item in frame[name].to_list()])
        for name in nested
    )


def _markdown(frame: pl.DataFrame) -> str:
    def line(cells: list[str]) -> str:
        return "| " + " | ".join(item.replace("|", "\\|") for item in cells) + " |\n"

    rule = ["---:" if kind.is_numeric() else "---" for kind in frame.dtypes]
    return line(frame.columns) + line(rule) + "".join(line([cell(item) for item in row]) for row in frame.iter_rows())


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, pl.Series):
        return value.to_list()
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
