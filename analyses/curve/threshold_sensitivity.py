"""How much hangs on the threshold: relation `threshold_sensitivity`, the curve described at every percentile.

ES draws the line between rare and common at percentile 50, DS at 15; DS asks what happens in between. Everything here
comes from stored sums (`agg_effect`), so that moving the line costs milliseconds. Small frequency sources have large
ties, and then several percentiles select the same positions: `distinct_threshold` says so.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from functools import lru_cache
from typing import Any

import numpy as np
import polars as pl
from scipy import stats

from rare_tokens.analyses.analysis import GROUP_KEY, Analysis, Ask, Results
from rare_tokens.analyses.curve.effect_cells import CELL, PRESETS, TOKEN_GROUPS, check_percentile, in_group
from rare_tokens.analyses.curve.plateau_decision import DOUBT, LEVEL, POWER, REFERENCE_STEP, reference_plateau
from rare_tokens.analyses.curve.power_law import LEAST_RANKS, auto_window, fit_line, influence_curve
from rare_tokens.analyses.curve.regimes import shares
from rare_tokens.analyses.curve.spacings import (
    LEAST_NEURONS,
    draw_curves,
    find_steps,
    normalised_spacings,
    ranks_needed,
    step_power,
    without_step,
)
from rare_tokens.analyses.curve.stored_cells import stored_cells
from rare_tokens.analyses.result_table import FloatArray, table

PERCENTILES = tuple(float(value) for value in range(5, 55, 5))
TOP = 50  # neurons; ES's group size
DRAWS = 2_000

THRESHOLD_SENSITIVITY: dict[str, Any] = GROUP_KEY | {
    "percentile": pl.Float64,  # where the line is drawn: of types, or of occurrences in preset nc
    "positions": pl.Int64,
    "distinct_threshold": pl.Boolean,  # false: the next lower percentile asked for selects the same positions
    "same_as_percentile": pl.Float64,  # the lowest percentile asked for that selects the same positions
    "kappa": pl.Float64,  # on the window auto, as in power_law_fit
    "beta": pl.Float64,
    "r2": pl.Float64,
    "first_rank": pl.Int64,
    "last_rank": pl.Int64,
    "share_within_0_1": pl.Float64,
    "neurons_above_0_5": pl.Int64,
    "decision": pl.String,  # as in regime_decision, by its faster form
    "p_value": pl.Float64,  # of a step in the head, on pure Pareto draws
    "power": pl.Float64,  # of finding 1 % of the neurons raised by 0.5 at p < 0.01
    "break_rank": pl.Int64,
    "step": pl.Float64,
    "top_overlap": pl.Float64,  # share of the 50 most influential neurons that are so at the preset's own percentile
    "rank_correlation": pl.Float64,  # Spearman's, of influence, with that at the preset's own percentile
    "ranks": pl.Int64,  # neurons with an influence above 0
    "reason": pl.String,
}


def threshold_sensitivity(
    cells: pl.DataFrame,
    *,
    presets: Sequence[str] = tuple(PRESETS),
    percentiles: Sequence[float] = PERCENTILES,
    seed: int = 0,
) -> pl.DataFrame:
    """Describe both sides of every threshold of one run.

    The decision is that of `plateau_decision` in a form that costs microseconds: the surprise of a step does
    not depend on κ, so one set of Pareto draws serves all thresholds; the neurons' standard errors and the tail, which
    move it little, are left out.

    Args:
        cells: `agg_effect` of one run: neuron, `CELL`, positions, abs_delta_sum; summed over windows or not.
        presets: of es, nc, ds.
        percentiles: multiples of 5 up to 50.
        seed: of the Pareto draws.

    Returns:
        `THRESHOLD_SENSITIVITY`, one row per preset × token group × percentile; NULL with a reason where no position is
        on that side, or too few neurons have an influence.

    Raises:
        UserError: an unknown preset, or a percentile that cells cannot answer.
    """
    wanted = sorted({float(value) for value in percentiles})
    for value in wanted:
        check_percentile(value)
    kinds, positions, sums = _by_kind(cells)
    rows: list[dict[str, Any]] = []
    for preset in presets:
        for token_group in TOKEN_GROUPS:
            own = _influence(_chosen(kinds, preset, token_group, None), positions, sums)
            seen: dict[bytes, float] = {}
            previous = b""
            for percentile in wanted:
                chosen = _chosen(kinds, preset, token_group, percentile)
                selected = (chosen & (positions > 0)).tobytes()
                row = {
                    "preset": preset,
                    "token_group": token_group,
                    "percentile": percentile,
                    "positions": int(positions[chosen].sum()),
                    "distinct_threshold": selected != previous,
                    "same_as_percentile": seen.setdefault(selected, percentile),
                }
                previous = selected
                rows.append(row | _described(_influence(chosen, positions, sums), own, seed))
    return table(rows, THRESHOLD_SENSITIVITY)


def _by_kind(cells: pl.DataFrame) -> tuple[pl.DataFrame, FloatArray, FloatArray]:
    """The kinds of cells, the positions of each, shape (C,), and Σ |Δ| by neuron and kind, shape (N, C)."""
    summed = (
        cells.lazy()
        .group_by("neuron", *CELL)
        .agg(pl.col("positions").sum(), pl.col("abs_delta_sum").sum())
        .sort("neuron", *CELL)
        .collect()
    )
    neurons = summed["neuron"].n_unique()
    kinds = summed.head(summed.height // max(1, neurons)).select(*CELL, "positions")
    return kinds, kinds["positions"].to_numpy().astype(float), summed["abs_delta_sum"].to_numpy().reshape(neurons, -1)


def _chosen(kinds: pl.DataFrame, preset: str, token_group: str, percentile: float | None) -> np.ndarray[Any, Any]:
    return kinds.select(chosen=in_group(preset, token_group, percentile))["chosen"].to_numpy()


def _influence(chosen: np.ndarray[Any, Any], positions: FloatArray, sums: FloatArray) -> FloatArray | None:
    count = positions[chosen].sum()
    return np.asarray(sums[:, chosen].sum(axis=1) / count) if count else None


def _described(influence: FloatArray | None, own: FloatArray | None, seed: int) -> dict[str, Any]:
    if influence is None:
        return {"reason": "no position in the group"}
    curve = influence_curve(influence)
    row: dict[str, Any] = {"ranks": len(curve)} | _agreement(influence, own)
    if len(curve) < 3 * LEAST_RANKS or np.ptp(curve) == 0:
        said = "all the same" if len(curve) >= 3 * LEAST_RANKS else f"{len(curve)} of {3 * LEAST_RANKS} needed"
        return row | {"reason": f"too few neurons with an influence above 0, or all the same ({said})"}
    line = fit_line(curve, *auto_window(curve).tolist())
    row |= {"kappa": line.kappa, "beta": line.beta, "r2": line.r2}
    row |= {"first_rank": line.first_rank, "last_rank": line.last_rank} | shares(line.deviation(curve))
    if len(curve) < LEAST_NEURONS:
        return row | {"reason": f"{len(curve)} neurons with an influence above 0; a decision needs {LEAST_NEURONS}"}
    return row | _quick_decision(curve, seed)


def _agreement(influence: FloatArray, own: FloatArray | None) -> dict[str, Any]:
    if own is None:
        return {}
    top = min(TOP, len(own))
    first, second = (set(np.argsort(-values, kind="stable")[:top].tolist()) for values in (influence, own))
    varied = min(np.ptp(influence), np.ptp(own)) > 0
    correlation = float(stats.spearmanr(influence, own).statistic) if varied else None
    return {"top_overlap": len(first & second) / top, "rank_correlation": correlation}


def _quick_decision(curve: FloatArray, seed: int) -> dict[str, Any]:
    n = len(curve)
    null = _pareto_surprise(n, seed)
    spacings = normalised_spacings(curve[: ranks_needed(n)])
    found = find_steps(spacings[None, :], n)
    p_value = (1 + int(np.sum(null >= found.surprise[0]))) / (1 + len(null))
    smooth = without_step(spacings, int(found.first[0]), int(found.last[0]))
    power = step_power(smooth, n, reference_plateau(n), REFERENCE_STEP, float(np.quantile(null, 1 - LEVEL)))
    clear = p_value >= DOUBT and power >= POWER
    return {
        "decision": "present" if p_value < LEVEL else "absent" if clear else "undecided",
        "p_value": p_value,
        "power": power,
        "break_rank": int(found.rank[0]),
        "step": float(found.size[0]),
    }


@lru_cache(maxsize=64)
def _pareto_surprise(n: int, seed: int) -> FloatArray:
    """The most surprising step of pure Pareto draws of n neurons, shape (DRAWS,)."""
    ranks = ranks_needed(n)
    curves = draw_curves(np.ones(ranks - 1), DRAWS, np.random.default_rng([seed, n]))
    return find_steps(normalised_spacings(curves), n).surprise


def _compute(ask: Ask, parameters: Mapping[str, Any], _pool: Executor | None) -> Results:
    return {"threshold_sensitivity": threshold_sensitivity(stored_cells(ask), **parameters)}


ANALYSIS = Analysis(
    "threshold_sensitivity",
    {"threshold_sensitivity": THRESHOLD_SENSITIVITY},
    ("agg_effect",),
    _compute,
    {"seed": 0},
)
