"""A run's stored sums of effects, as the analyses of its curves ask for them."""

import polars as pl

from rare_tokens.analyses.analysis import Ask, Source
from rare_tokens.analyses.curve.effect_cells import (
    CELL,
    MATCHED,
    PRESETS,
    TOKEN_GROUPS,
    GroupSums,
    group_sums,
)

_COLUMNS = ("neuron", "window_id", *CELL, "matched_group", "positions", "abs_delta_sum", "delta_sum")


def stored_cells(ask: Ask) -> pl.DataFrame:
    """`agg_effect` of a run: the columns that `group_sums` and `threshold_sensitivity` read."""
    cells: pl.DataFrame = ask(Source("agg_effect", columns=_COLUMNS))
    return cells


def curve_sums(ask: Ask) -> dict[tuple[str, str], GroupSums | str]:
    """A run's sums per window, by preset and token group, or why there are none."""
    cells = stored_cells(ask)
    presets = [*PRESETS, *([MATCHED] if cells["matched_group"].count() else [])]
    return {(preset, group): group_sums(cells, preset, group) for preset in presets for group in TOKEN_GROUPS}
