"""Output on stdout: aligned tables for people, or the same rows as JSON, CSV, Markdown or Parquet."""

import io
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import polars as pl
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rare_tokens.commands.support.table_layout import Layout, field_lines, layout, note_lines
from rare_tokens.common.errors import UserError
from rare_tokens.common.text import fitted, of_bytes, plural

FORMATS = ("table", "json", "csv", "markdown", "parquet")
WIDEST_CELL = 80
LONGEST_FIELD = 1_000  # characters, where each field has lines of its own
ROWS_SHOWN = 200
WITHOUT_WIDTH = 100_000


def show(
    frame: pl.DataFrame,
    form: str = "table",
    *,
    title: str | None = None,
    whole: str = "--json",
    widest: int = WIDEST_CELL,
) -> None:
    """Print a frame on stdout in one of `FORMATS`; the table is for people and says what it leaves out.

    Args:
        frame: the rows.
        form: one of `FORMATS`.
        title: of the table.
        whole: the option that prints all, named where something is left out.
        widest: characters of a cell, beyond which it is cut.

    Raises:
        UserError: Parquet was asked for and stdout is a terminal.
    """
    if form == "table":
        _show_tables({title or "": frame}, whole, widest)
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


def show_groups(groups: Mapping[str, pl.DataFrame], *, right: Sequence[str] = ()) -> None:
    """Print frames with the same columns as one table for people, each below its title; `right` align to the right."""
    _show_tables(groups, "--json", WIDEST_CELL, right)


def _show_tables(
    groups: Mapping[str, pl.DataFrame], whole: str, widest: int = WIDEST_CELL, right: Sequence[str] = ()
) -> None:
    first = next(iter(groups.values()))
    names = [fitted(name) for name in first.columns]
    texts = {title: _texts(frame, widest) for title, frame in groups.items()}
    window = _window()
    found = layout(names, [row for rows in texts.values() for row in rows], window)
    console = Console(width=max(window or WITHOUT_WIDTH, found.width), highlight=False, file=sys.stdout)
    if found.common:
        row = next(rows[0] for rows in texts.values() if rows)
        same = ", ".join(f"{names[place]}\u00a0{row[place]}" for place in found.common)
        _note(console, f"In all rows: {same}", window)
        console.print()
    numbers = {place for place, (name, kind) in enumerate(first.schema.items()) if kind.is_numeric() or name in right}
    for place, (title, rows) in enumerate(texts.items()):
        if place:
            console.print()
        if found.is_list:
            _print_fields(console, names, _texts(groups[title], LONGEST_FIELD), title, window)
        else:
            console.print(_table(names, rows, title, found, numbers))
    for note in _left_out(groups, names, found, whole, LONGEST_FIELD if found.is_list else widest):
        _note(console, note, window)


def _texts(frame: pl.DataFrame, widest: int) -> list[list[str]]:
    return [[cell(value, widest) for value in row] for row in frame.head(ROWS_SHOWN).iter_rows()]


def _table(names: list[str], rows: list[list[str]], title: str, found: Layout, numbers: set[int]) -> Table:
    table = Table(
        title=Text(title) if title else None, box=SIMPLE_HEAD, title_justify="left", show_edge=False, pad_edge=False
    )
    for place, width in found.shown.items():
        side: Literal["left", "right"] = "right" if place in numbers else "left"
        table.add_column(Text(names[place]), justify=side, width=width, overflow="fold")
    for row in rows:
        table.add_row(*(Text(row[place]) for place in found.shown))
    return table


def _print_fields(console: Console, names: list[str], rows: list[list[str]], title: str, window: int | None) -> None:
    if title:
        console.print(Text(title), soft_wrap=True)
    for place, row in enumerate(rows):
        if place:
            console.print()
        for line in field_lines(names, row, window):
            console.print(Text(line), soft_wrap=True)


def _left_out(
    groups: Mapping[str, pl.DataFrame], names: list[str], found: Layout, whole: str, widest: int
) -> Iterator[str]:
    """What of some frames is not shown: rows, columns, ends of cells."""
    cut = 0
    for frame in groups.values():
        if frame.height > ROWS_SHOWN:
            more = plural(frame.height - ROWS_SHOWN, "more row")
            yield f"… {more} (of {frame.height:,}); {whole} prints them all."
        values = (value for row in frame.head(ROWS_SHOWN).iter_rows() for value in _not_at(row, found.hidden))
        cut += sum(_is_cut(value, widest) for value in values)
    if found.hidden:
        hidden = ", ".join(names[place] for place in found.hidden)
        yield f"{plural(len(found.hidden), 'column')} hidden: {hidden}; {whole} has them all."
    if cut:
        yield f"{plural(cut, 'cell')} cut at …; {whole} has all of them."


def _not_at(row: Sequence[Any], places: Sequence[int]) -> Iterator[Any]:
    return (value for place, value in enumerate(row) if place not in places)


def _is_cut(value: Any, widest: int) -> bool:
    if value is None or isinstance(value, bool | int | float):
        return False
    return len(of_bytes(value) if isinstance(value, bytes) else str(value)) > widest


def _note(console: Console, text: str, window: int | None) -> None:
    for line in note_lines(text, window):
        console.print(Text(line, style="dim"), soft_wrap=True)


def _window() -> int | None:
    """Characters in a line: what COLUMNS says, else the terminal's; None for a pipe, which has no width."""
    given = os.environ.get("COLUMNS", "")
    if given.isdecimal() and int(given) > 0:
        return int(given)
    return Console(file=sys.stdout).width if sys.stdout.isatty() else None


def cell(value: Any, limit: int = WIDEST_CELL) -> str:
    """A value for people: six significant digits, a dash for NULL, bytes as <0xE2>; cut with … where it is longer."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    return fitted(of_bytes(value) if isinstance(value, bytes) else str(value), limit)


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
