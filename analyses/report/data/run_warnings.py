"""What to know before reading: the warnings of a report's runs, each given once."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import polars as pl

from rare_tokens.analyses.report.data.series import Series


def run_warnings(warnings: pl.DataFrame, series: Sequence[Series]) -> list[dict[str, Any]]:
    """Each warning of the runs of `series` once: its `message`, and `of`, the series that give it (empty if all do).

    The checkpoints of a series are read at the same positions, so they give the same warnings. Those about every
    preset come first. A series is named by its model and corpus.
    """
    series_of = {run.run_id: one for one in series for run in one.runs}
    given: dict[str, dict[int, str]] = defaultdict(dict)
    for row in warnings.sort("kind", "preset").iter_rows(named=True):
        if one := series_of.get(row["run_id"]):
            given[row["message"]][one.index] = f"{one.shown.row['model']} on {one.shown.row['corpus']}"
    return [
        {"message": message, "of": [] if len(of) == len(series) else list(dict.fromkeys(of.values()))}
        for message, of in given.items()
    ]
