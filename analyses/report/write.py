"""The one function of the report that writes: a page, its numbers as JSON, and its tables, or nothing half-made."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from analyses.report.content import Content, build_content
from analyses.report.inputs import ReportInputs
from analyses.report.page import render_page
from analyses.report.tables import for_csv
from common.errors import UserError
from common.files import write_atomically, write_json

FORMAT = 1  # of report.json


def write_report(inputs: ReportInputs, folder: Path) -> Path:
    """Write ``index.html``, ``report.json`` and ``tables/`` (each table as CSV and Parquet) into `folder`.

    Everything is computed before the first file is written, every file appears whole, and the page last. Returns the
    page's path. Raises UserError where there is no run, or the folder cannot be written.
    """
    content = build_content(inputs)
    index, tables = folder / "index.html", folder / "tables"
    try:
        tables.mkdir(parents=True, exist_ok=True)
        page, numbers = render_page(content), report_json(content)
        for name, frame in content.tables.items():
            _write(tables / f"{name}.parquet", frame.write_parquet)
            _write(tables / f"{name}.csv", for_csv(frame).write_csv)
        write_json(folder / "report.json", numbers)
        _write(index, lambda path: path.write_text(page, encoding="utf-8"))
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"The report cannot be written to {folder}: {reason}. Name another folder.") from error
    return index


def report_json(content: Content) -> dict[str, Any]:
    """The numbers of the page for a program: runs, what was found for each group, and measured beside printed."""
    rows = {name: content.tables[name].to_dicts() for name in ("runs", "summary", "agreement", "quality")}
    return rows | {
        "format": FORMAT,
        "created_at": content.inputs.created_at,
        "command": content.inputs.command,
        "presets": content.presets,
        "series": [[run.run_id for run in one.runs] for one in content.series],
        "measured_beside_printed": content.tables["measured_beside_printed"].to_dicts(),
        "points_drawn_up_to_rank": content.points.head,
        "tables": sorted(f"tables/{name}.{kind}" for name in content.tables for kind in ("csv", "parquet")),
    }


def _write(path: Path, write: Callable[[Path], Any]) -> None:
    write_atomically(path, lambda partial: write(partial) and None)
