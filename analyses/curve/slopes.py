"""The slope of the influence curve at every rank, and its change: relation `influence_slope` (ES fig. 3)."""

from collections.abc import Mapping
from concurrent.futures import Executor
from typing import Any

import numpy as np
import polars as pl

from rare_tokens.analyses.analysis import GROUP_KEY, Analysis, Ask, Results, Source
from rare_tokens.analyses.curve.ranked_curve import influence_curve, local_slope, log_rank, second_derivative

INFLUENCE_SLOPE: dict[str, Any] = GROUP_KEY | {
    "rank": pl.Int64,
    "log_rank": pl.Float64,
    "local_slope": pl.Float64,  # least squares over ± 0.25 in ln rank; NULL under 5 ranks
    "second_derivative": pl.Float64,  # the same, taken of the local slopes
    "reason": pl.String,
}


def influence_slopes(influence: pl.DataFrame) -> pl.DataFrame:
    """Local slope and second derivative of each curve of one run: relation `influence_slope` (ES fig. 3).

    Args:
        influence: `neuron_influence` of one run: preset, token_group, influence.

    Returns:
        `INFLUENCE_SLOPE`, one row per preset × token group × rank with an influence above 0.
    """
    parts = []
    for part in influence.partition_by("preset", "token_group", maintain_order=True):
        curve = influence_curve(part["influence"].to_numpy())
        slope, second = local_slope(curve), second_derivative(curve)
        ends = "fewer than 5 ranks within 0.25 in ln rank"
        parts.append(
            pl.DataFrame(
                {
                    "preset": [part["preset"][0]] * len(curve),
                    "token_group": [part["token_group"][0]] * len(curve),
                    "rank": np.arange(1, len(curve) + 1),
                    "log_rank": log_rank(len(curve)),
                    "local_slope": slope,
                    "second_derivative": second,
                    "reason": [None if np.isfinite(value) else ends for value in slope + second],
                },
                schema=INFLUENCE_SLOPE,
            ).with_columns(pl.col("local_slope", "second_derivative").fill_nan(None))
        )
    return pl.concat(parts) if parts else pl.DataFrame(schema=INFLUENCE_SLOPE)


def _compute(ask: Ask, _parameters: Mapping[str, Any], _pool: Executor | None) -> Results:
    return {"influence_slope": influence_slopes(ask(Source("neuron_influence")))}


ANALYSIS = Analysis("influence_slope", {"influence_slope": INFLUENCE_SLOPE}, ("neuron_influence",), _compute)
