"""What a figure of the report is, and how its rows are made.

A figure has one data set, `rows`, given by preset (`EVERY`: for any preset), with `run` if a row belongs to one
checkpoint and `group` if it belongs to one panel. The figures of all neurons have none: the page draws them from the
points that it holds anyway (`data.points`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import altair as alt
import polars as pl

from rare_tokens.analyses.report.data.extent import Extent
from rare_tokens.analyses.report.data.inputs import Input, ReportInputs
from rare_tokens.analyses.report.data.series import Series

Rows = Mapping[str, pl.DataFrame]  # by preset
EVERY = "*"  # in place of a preset


@dataclass(frozen=True)
class Subject:
    """What a figure is about: one series, and all that may be drawn from it.

    Attributes:
        series: the runs.
        inputs: the report's inputs.
        extent: what its axes span.
        summaries: the report's `data.summary.group_summaries`.
    """

    series: Series
    inputs: ReportInputs
    extent: Extent
    summaries: pl.DataFrame

    @property
    def names(self) -> list[str]:
        """The checkpoints of the series that have effects, as the column `step` names them."""
        return [run.label for run in self.series.measured]

    def of_series(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The rows of its runs, with `step` (the checkpoint's name) and `run` (its number in the report)."""
        runs = pl.DataFrame(
            [{"run_id": run.run_id, "step": run.label, "run": run.index} for run in self.series.measured],
            schema={"run_id": pl.String, "step": pl.String, "run": pl.Int64},
        )
        return frame.join(runs, on="run_id").sort("run", maintain_order=True)


@dataclass(frozen=True)
class Figure:
    """A figure of every series.

    Attributes:
        name: its name in the page (`data-figure`) and of its files.
        chart: draws it, from the subject and the rows (none: the page fills its own named data sets).
        rows: what it draws, by preset; None: the page's points. Without rows there is no figure.
        reads: frames that only figures read.
        panels: values of `group`, one panel each; empty: one panel.
        over_training: whether it needs several checkpoints.
        heights: pixels of charts stacked one below the other, in a narrow place and in a wide one.
    """

    name: str
    chart: Callable[[Subject, Rows], alt.TopLevelMixin]
    rows: Callable[[Subject], Rows] | None = None
    reads: tuple[Input, ...] = ()
    panels: tuple[str, ...] = ()
    over_training: bool = False
    heights: tuple[tuple[int, ...], ...] = ()


def by_preset(found: pl.DataFrame, *names: str, **renamed: str) -> Rows:
    """The named columns, and others under new names, by preset."""
    kept = [*names, *(pl.col(source).alias(name) for name, source in renamed.items())]
    return {str(preset): rows.select(kept) for (preset,), rows in found.group_by("preset", maintain_order=True)}


def columns(frame: pl.DataFrame, digits: int = 4) -> dict[str, list[Any]]:
    """A frame as columns with few significant digits, as a page carries them."""
    rounded = frame.with_columns(pl.selectors.float().round_sig_figs(digits))
    return {name: rounded[name].to_list() for name in rounded.columns}


def shown_rows(rows: Rows, preset: str, run: int) -> pl.DataFrame:
    """The rows that a figure shows first: those of `preset`, and of checkpoint `run` if a row belongs to one."""
    found = rows.get(preset, rows.get(EVERY, pl.DataFrame()))
    return found.filter(pl.col("run") == run) if "run" in found.columns else found
