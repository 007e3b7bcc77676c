"""What the axes of a series span, so that its checkpoints can be compared."""

import math
from dataclasses import dataclass

import polars as pl

from rare_tokens.analyses.report.data.inputs import ReportInputs
from rare_tokens.analyses.report.data.series import Series
from rare_tokens.analyses.report.data.summary import LARGE_DEVIATION

DEEPEST_TAIL = -3.0  # lowest δ on its axis: the tail falls far below, and would flatten the head
DECADES = 8  # the most that the axis of influence spans


@dataclass(frozen=True)
class Extent:
    """What the axes of a series span, over all of its runs and presets.

    Attributes:
        neurons: neurons in the largest run.
        influence: nats, lowest and highest.
        deviation: δ, lowest and highest.
    """

    neurons: int
    influence: tuple[float, float]
    deviation: tuple[float, float]


def extent_of(series: Series, inputs: ReportInputs) -> Extent:
    """The axes of a series: influence over at most `DECADES`, and all of δ except a tail deeper than `DEEPEST_TAIL`."""
    runs = pl.col("run_id").is_in([run.run_id for run in series.runs])
    neurons = max(int(run.row["neurons"]) for run in series.runs)  # type: ignore[call-overload]
    influence = inputs.influence.filter(runs, pl.col("influence") > 0)["influence"]
    largest = _largest(influence, 1.0)
    smallest = max(-_largest(-influence, -largest / 10), largest * 10.0**-DECADES)
    deviations = inputs.deviations.filter(runs, pl.col("deviation").is_not_null())
    tail = -_largest(-deviations["deviation"], 0.3)
    head = -_largest(-deviations.filter(pl.col("rank") <= neurons / 2)["deviation"], 0.3)
    low, high = min(head, max(tail, DEEPEST_TAIL)), max(_largest(deviations["deviation"], 0.0), LARGE_DEVIATION)
    bounds = (10.0 ** (math.log10(smallest) - 0.1), 10.0 ** (math.log10(largest) + 0.3))
    return Extent(neurons, bounds, (low - 0.15, high + 0.15))


def _largest(values: pl.Series, otherwise: float) -> float:
    """The largest value, or `otherwise` if there is none."""
    return float(values.max()) if len(values) else otherwise  # type: ignore[arg-type]
