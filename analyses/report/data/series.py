"""Which runs are read together: the checkpoints of one model under otherwise equal settings, in training order."""

import re
from dataclasses import dataclass
from typing import Any

import polars as pl

from rare_tokens.analyses.across_runs.emergence import with_branch, with_gaps_placed
from rare_tokens.analyses.report.data.text import shortened

_SAME = (
    "model",
    "training_branch",
    "layer",
    "corpus",
    "corpus_hash",
    "frequency_source_id",
    "positions",
    "window_length",
    "seed",
)
_SAME_SETTINGS = (*_SAME, "ablation", "dtype")
PRESET_ORDER = ("es", "nc", "ds", "nc-matched")


@dataclass(frozen=True)
class Run:
    """One run: its row of `ReportInputs.runs`, and whether it has anything to draw."""

    index: int  # among all runs of the report
    row: dict[str, object]
    measured: bool

    @property
    def run_id(self) -> str:
        """The run's id."""
        return str(self.row["run_id"])

    @property
    def revision(self) -> str:
        """The checkpoint's name."""
        return str(self.row["revision"])

    @property
    def label(self) -> str:
        """The checkpoint's name as figures and the page's script show it."""
        return shortened(self.revision)


@dataclass(frozen=True)
class Series:
    """Runs that differ in revision only, earliest first; a single run is a series of one."""

    index: int
    runs: list[Run]

    @property
    def measured(self) -> list[Run]:
        """The runs with effects, which figures step through."""
        return [run for run in self.runs if run.measured]

    @property
    def shown(self) -> Run:
        """The run a reader sees first: the last one with effects, else the last."""
        return (self.measured or self.runs)[-1]


def group_runs(runs: pl.DataFrame, influence: pl.DataFrame) -> list[Series]:
    """Order `runs` (`dim_run` rows) into series; series are in order of their first run's row.

    Two runs of the same revision and settings (one repeated) stay in one series, ordered by creation time.
    """
    with_effects = set(influence["run_id"].unique()) if influence.height else set()
    groups: dict[tuple[object, ...], list[dict[str, object]]] = {}
    keys = [name for name in (*_SAME_SETTINGS, "contexts") if name in runs.columns]
    for row in with_gaps_placed(with_branch(runs), keys).iter_rows(named=True):
        groups.setdefault(tuple(row[column] for column in _SAME_SETTINGS), []).append(row)
    series, index = [], 0
    for position, rows in enumerate(groups.values()):
        rows.sort(key=lambda row: (_place(row), _natural(str(row["revision"])), str(row["created_at"])))
        members = [Run(index + i, row, row["run_id"] in with_effects) for i, row in enumerate(rows)]
        series.append(Series(position, members))
        index += len(rows)
    return series


def _place(row: dict[str, Any]) -> tuple[bool, int, int]:
    """Sort key by stage and step; what names no step (`main`, the final state) comes last."""
    step = row["training_step"]
    return (step is None, row["training_stage"] or 0, step or 0)


def presets(influence: pl.DataFrame, fits: pl.DataFrame) -> list[str]:
    """The presets that have anything to show, `es` first."""
    found = set(influence["preset"].unique()) | set(fits["preset"].unique())
    known = [name for name in PRESET_ORDER if name in found]
    return known + sorted(found - set(known))


def _natural(text: str) -> list[tuple[int, int, str]]:
    """Sort key that puts v2 before v10, for revisions that name no step; and `main` after those with a number."""
    if not re.search(r"\d", text):
        return [(1, 0, text)]
    parts = re.split(r"(\d+)", text)
    return [(0, int(part), "") if part.isdigit() else (0, -1, part) for part in parts]
