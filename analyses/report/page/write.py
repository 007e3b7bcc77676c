"""Writes the report: a page, its numbers as JSON, and its tables, never half-made."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from rare_tokens.analyses.report.data.inputs import ReportInputs
from rare_tokens.analyses.report.data.tables import for_csv
from rare_tokens.analyses.report.page.content import Content, build_content
from rare_tokens.analyses.report.page.page import render_page
from rare_tokens.analyses.report.page.stills import stills
from rare_tokens.common.errors import UserError
from rare_tokens.common.files import write_atomically, write_json

FORMAT = 1  # version of report.json


def write_report(inputs: ReportInputs, folder: Path) -> Path:
    """Write a folder: ``index.html``, ``report.json``, ``tables/`` (CSV, Parquet), ``figures/`` (SVG, PNG, CSV).

    Everything is computed before the first file is written, every file appears whole, and the page comes last. Returns
    the page's path. Raises UserError if there is no run, or the folder cannot be written to.
    """
    content = build_content(inputs)
    index, tables = folder / "index.html", folder / "tables"
    try:
        tables.mkdir(parents=True, exist_ok=True)
        page, numbers, drawn = render_page(content), report_json(content), list(stills(content))
        for name, frame in content.tables.items():
            _write(tables / f"{name}.parquet", frame.write_parquet)
            _write(tables / f"{name}.csv", for_csv(frame).write_csv)
        for name, svg, png, rows in drawn:
            _write(folder / "figures" / f"{name}.svg", partial(Path.write_text, data=svg, encoding="utf-8"))
            _write(folder / "figures" / f"{name}.png", partial(Path.write_bytes, data=png))
            _write(folder / "figures" / f"{name}.csv", for_csv(rows).write_csv)
        write_json(folder / "report.json", numbers)
        _write(index, lambda path: path.write_text(page, encoding="utf-8"))
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"The report cannot be written to {folder}: {reason}. Name another folder.") from error
    return index


def require_writable(folder: Path) -> None:
    """Refuse a folder that a report cannot be written to, before anything is computed.

    Raises UserError if it, or the nearest existing folder above it, cannot be written to.
    """
    there = next(above for above in (folder.absolute(), *folder.absolute().parents) if above.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        reason = "it cannot be written" if there.is_dir() else f"{there} is a file"
        raise UserError(f"The report cannot be written to {folder}: {reason}. Name another folder.")


def report_json(content: Content) -> dict[str, Any]:
    """The numbers of the page for a program: runs, findings per group, and measured next to printed values."""
    rows = {name: content.tables[name].to_dicts() for name in ("runs", "summary", "agreement", "quality")}
    beside = {name: content.tables[name].to_dicts() for name in ("coactivation", "warnings") if name in content.tables}
    return (
        rows
        | beside
        | {
            "format": FORMAT,
            "created_at": content.inputs.created_at,
            "command": content.inputs.command,
            "presets": content.presets,
            "series": [[run.run_id for run in one.runs] for one in content.series],
            "measured_beside_printed": content.tables["measured_beside_printed"].to_dicts(),
            "points_drawn_up_to_rank": content.points.head,
            "cards": {one.shown.run_id: [card.neuron for card in content.cards[one.index]] for one in content.series},
            "tables": sorted(f"tables/{name}.{kind}" for name in content.tables for kind in ("csv", "parquet")),
        }
    )


def _write(path: Path, write: Callable[[Path], Any]) -> None:
    write_atomically(path, lambda partial: write(partial) and None)
