"""The fitted power laws as figures draw them: lines, and the ranks that they were fitted to."""

import math
from collections.abc import Mapping
from typing import Any

import polars as pl

Row = Mapping[str, Any]


def lines(fits: Mapping[str, Row], neurons: int) -> pl.DataFrame:
    """Each token group's line in three parts, two ends each: before, on and after the ranks it was fitted to.

    Args:
        fits: by token group: kappa, beta, first_rank, last_rank.
        neurons: the last rank that is drawn.

    Returns:
        group, part (`before`, `window`, `after`), rank, influence (nats).
    """
    rows = []
    for group, fit in fits.items():
        first, last = fit["first_rank"], fit["last_rank"]
        for part, ends in {"before": (1, first), "window": (first, last), "after": (last, neurons)}.items():
            if ends[0] < ends[1]:
                influences = [math.exp(fit["beta"] - fit["kappa"] * math.log(rank)) for rank in ends]
                rows += [(group, part, rank, value) for rank, value in zip(ends, influences, strict=True)]
    schema = {"group": pl.String, "part": pl.String, "rank": pl.Int64, "influence": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row")


def windows(fits: Mapping[str, Row]) -> pl.DataFrame:
    """The ranks that each line was fitted to: group, first, last."""
    rows = [(group, fit["first_rank"], fit["last_rank"]) for group, fit in fits.items()]
    return pl.DataFrame(rows, schema={"group": pl.String, "first": pl.Int64, "last": pl.Int64}, orient="row")
