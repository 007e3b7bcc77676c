"""Rare against common: one question, not two verdicts.

Two verdicts can differ because one group has few positions. So the lines themselves are compared: step, head and κ of
the rare group minus those of the common group, with intervals from the same bootstrap samples of windows for both.
"""

from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from rare_tokens.analyses.analysis import Analysis, Ask, Results
from rare_tokens.analyses.curve.effect_cells import (
    COMMON,
    MATCHED,
    PRESETS,
    RARE,
    SINGLE_WINDOW,
    WindowSums,
    aligned_sums,
)
from rare_tokens.analyses.curve.line_intervals import (
    Interval,
    head_interval,
    line_samples,
    plain_interval,
    same_head,
    step_interval,
)
from rare_tokens.analyses.curve.plateau import RESAMPLES
from rare_tokens.analyses.curve.power_law import power_law
from rare_tokens.analyses.curve.ranked_curve import influence_curve
from rare_tokens.analyses.curve.stored_cells import stored_cells
from rare_tokens.analyses.result_table import joined, table

PLATEAU_DIFFERENCE: dict[str, Any] = {
    "preset": pl.String,
    "step": pl.Float64,  # s of the rare group minus s of the common one
    "step_low": pl.Float64,  # 95 % interval, the same windows resampled for both groups
    "step_high": pl.Float64,
    "size": pl.Int64,  # b minus b
    "size_low": pl.Float64,
    "size_high": pl.Float64,
    "determined": pl.Boolean,  # false: a head's end is not, so neither are step and size
    "kappa": pl.Float64,  # κ minus κ
    "kappa_low": pl.Float64,
    "kappa_high": pl.Float64,
    "first": pl.Int64,  # b of the rare group
    "shared": pl.Int64,  # how many of its first b neurons are among the first b of the common group too
    "windows": pl.Int64,
    "draws": pl.Int64,
    "reason": pl.String,
}


@dataclass(frozen=True)
class PlateauDifference:
    """Rare minus common; None if a group has no line, or for κ no power law.

    Attributes:
        step: s of the rare group minus s of the common group.
        step_interval: its interval.
        size: b minus b.
        size_interval: its interval.
        kappa: κ minus κ.
        kappa_interval: its interval.
        first: b of the rare group: how many of the most influential neurons are compared.
        shared: how many of them are among the `first` most influential for common tokens too.
        reason: why something is missing; None otherwise.
    """

    step: float | None = None
    step_interval: Interval | None = None
    size: int | None = None
    size_interval: Interval | None = None
    kappa: float | None = None
    kappa_interval: Interval | None = None
    first: int | None = None
    shared: int | None = None
    reason: str | None = None


def paired_window_sums(
    cells: pl.DataFrame, preset: str, percentile: float | None = None
) -> tuple[WindowSums, WindowSums] | str:
    """Sum the rare and the common group's cells over the same windows: those with positions of either.

    Args:
        cells: `agg_effect` of one run: neuron, window_id, `effect_cells.CELL`, positions, abs_delta_sum.
        preset: as in `effect_cells.in_group`.
        percentile: as in `effect_cells.in_group`.

    Returns:
        Sums for rare and common tokens, over the same neurons and windows (0 where a window has no such position), or
        why there are none.

    Raises:
        UserError: as `effect_cells.in_group`.
    """
    found = aligned_sums(cells, [(preset, group) for group in (RARE, COMMON)], percentile)
    for group in (RARE, COMMON):
        if (preset, group) not in found:
            return f"no position in the {group} group"
    return found[preset, RARE], found[preset, COMMON]


def plateau_difference(
    pair: tuple[WindowSums, WindowSums] | str, *, resamples: int = RESAMPLES, seed: int = 0
) -> PlateauDifference:
    """Compare the lines of the rare and the common group.

    Args:
        pair: sums of the two groups over the same windows (`paired_window_sums`), or why there are none.
        resamples: bootstrap samples of windows, the same for both.
        seed: of the resampling.
    """
    if isinstance(pair, str):
        return PlateauDifference(reason=pair)
    rare, common = pair
    lines = [power_law(influence_curve(sums.influence())) for sums in pair]
    reasons = [
        f"{group}: {line.reason}" if line.reason else None for group, line in zip((RARE, COMMON), lines, strict=True)
    ]
    first, second = lines
    if first.head_rank is None or second.head_rank is None or first.step is None or second.step is None:
        return PlateauDifference(reason=joined(*reasons))
    heads = first.head_rank, second.head_rank
    found: dict[str, Any] = {
        "step": first.step - second.step,
        "size": first.head_rank - second.head_rank,
        "first": first.head_rank,
        "shared": shared_neurons(rare, common, first.head_rank),
    }
    if first.kappa is not None and second.kappa is not None:
        found["kappa"] = first.kappa - second.kappa
    if rare.windows < 2:
        return PlateauDifference(**found, reason=joined(*reasons, SINGLE_WINDOW))
    return PlateauDifference(**found, **_intervals(pair, found, heads, resamples, seed), reason=joined(*reasons))


def _intervals(
    pair: tuple[WindowSums, WindowSums], found: dict[str, Any], heads: tuple[int, int], resamples: int, seed: int
) -> dict[str, Any]:
    """A difference between heads, or between their steps, is determined if both heads are."""
    with np.errstate(invalid="ignore"):  # a sample without a position of a group is left out
        samples = [line_samples(sums.resampled(resamples, np.random.default_rng(seed))) for sums in pair]
    first, second = samples
    same = same_head(heads[0], first.head_rank) & same_head(heads[1], second.head_rank)
    sizes = [
        head_interval(head, one.head_rank, int((sums.influence() > 0).sum()))
        for head, one, sums in zip(heads, samples, pair, strict=True)
    ]
    known = all(size is None or size.determined for size in sizes)
    size = plain_interval(found["size"], first.head_rank - second.head_rank)
    of: dict[str, Any] = {
        "step_interval": step_interval(found["step"], first.step - second.step, same, determined=known),
        "size_interval": None if size is None else replace(size, determined=known),
    }
    if "kappa" in found:
        of["kappa_interval"] = plain_interval(found["kappa"], first.kappa - second.kappa)
    return of


def shared_neurons(rare: WindowSums, common: WindowSums, first: int) -> int:
    """How many neurons are among the `first` most influential of both groups."""
    tops = [set(sums.neurons[np.argsort(-sums.influence(), kind="stable")[:first]].tolist()) for sums in (rare, common)]
    return len(tops[0] & tops[1])


def difference_row(preset: str, pair: tuple[WindowSums, WindowSums] | str, *, draws: int, seed: int) -> dict[str, Any]:
    """`plateau_difference` in the columns of `PLATEAU_DIFFERENCE`."""
    found = plateau_difference(pair, resamples=draws, seed=seed)
    names = ("step", "size", "kappa", "first", "shared", "reason")
    row: dict[str, Any] = {"preset": preset, "draws": draws} | {name: getattr(found, name) for name in names}
    if not isinstance(pair, str):
        row["windows"] = pair[0].windows
    for name in ("step", "size", "kappa"):
        interval: Interval | None = getattr(found, f"{name}_interval")
        if interval is not None:
            row |= {f"{name}_low": interval.low, f"{name}_high": interval.high}
    if found.size_interval is not None:
        row["determined"] = found.size_interval.determined
    return row


def _compute(ask: Ask, parameters: Mapping[str, Any], _pool: Executor | None) -> Results:
    cells = stored_cells(ask)
    presets = [*PRESETS, *([MATCHED] if cells["matched_group"].count() else [])]
    rows = [difference_row(preset, paired_window_sums(cells, preset), **parameters) for preset in presets]
    return {"plateau_difference": table(rows, PLATEAU_DIFFERENCE)}


ANALYSIS = Analysis(
    "plateau_difference",
    {"plateau_difference": PLATEAU_DIFFERENCE},
    ("agg_effect",),
    _compute,
    {"draws": RESAMPLES, "seed": 0},
)
