"""How much depends on the threshold: relation `threshold_sensitivity`, the curve described at every percentile.

ES draws the line between rare and common at percentile 50, DS at 15; DS asks what happens in between. Everything here
comes from stored sums (`agg_effect`), so moving the line costs a fraction of a second. Small frequency sources
have large ties, and then several percentiles select the same positions: `distinct_threshold` says so.
"""

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from typing import Any

import numpy as np
import polars as pl
from scipy import stats

from rare_tokens.analyses.analysis import GROUP_KEY, Analysis, Ask, Results
from rare_tokens.analyses.curve.effect_cells import PRESETS, TOKEN_GROUPS, WindowSums, check_percentile, window_sums
from rare_tokens.analyses.curve.plateau import Plateau, plateau
from rare_tokens.analyses.curve.power_law import power_law
from rare_tokens.analyses.curve.ranked_curve import influence_curve
from rare_tokens.analyses.curve.regimes import decision_row, shares
from rare_tokens.analyses.curve.stored_cells import stored_cells
from rare_tokens.analyses.result_table import FloatArray, table

PERCENTILES = tuple(float(value) for value in range(5, 55, 5))
TOP = 50  # neurons; ES's group size
DRAWS, RESAMPLES = 499, 400  # fewer than in `regime_decision`: there are many thresholds

THRESHOLD_SENSITIVITY: dict[str, Any] = GROUP_KEY | {
    "percentile": pl.Float64,  # where the line is drawn: among types, or among occurrences in preset nc
    "positions": pl.Int64,
    "distinct_threshold": pl.Boolean,  # false: the next lower percentile asked for selects the same positions
    "same_as_percentile": pl.Float64,  # the lowest percentile asked for that selects the same positions
    "kappa": pl.Float64,  # as in power_law_fit
    "kappa_low": pl.Float64,
    "kappa_high": pl.Float64,
    "beta": pl.Float64,
    "r2": pl.Float64,
    "first_rank": pl.Int64,
    "last_rank": pl.Int64,
    "straight_share": pl.Float64,
    "share_within_0_1": pl.Float64,
    "neurons_above_0_5": pl.Int64,
    "decision": pl.String,  # as in regime_decision, on fewer draws
    "p_value": pl.Float64,
    "power": pl.Float64,  # probability of finding 1 % of the neurons raised by 0.5 at p < 0.01
    "break_rank": pl.Int64,
    "break_low": pl.Int64,
    "break_high": pl.Int64,
    "break_determined": pl.Boolean,
    "step": pl.Float64,
    "step_low": pl.Float64,
    "step_high": pl.Float64,
    "head": pl.String,
    "head_slope": pl.Float64,
    "top_overlap": pl.Float64,  # share of the 50 most influential that are so at the preset's own percentile
    "rank_correlation": pl.Float64,  # Spearman's, of influence, with that at the preset's own percentile
    "ranks": pl.Int64,  # neurons with an influence above 0
    "reason": pl.String,
}


def threshold_sensitivity(
    cells: pl.DataFrame,
    *,
    presets: Sequence[str] = tuple(PRESETS),
    percentiles: Sequence[float] = PERCENTILES,
    draws: int = DRAWS,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> pl.DataFrame:
    """Describe both sides of every threshold of one run.

    The decision is that of `plateau`, computed once per set of positions; percentiles that select the same share it.

    Args:
        cells: `agg_effect` of one run: neuron, window_id, `CELL`, positions, abs_delta_sum, delta_sum.
        presets: any of es, nc, ds.
        percentiles: multiples of 5 up to 50.
        draws: from the null distribution, at least 399.
        resamples: bootstrap samples of windows.
        seed: of both.

    Returns:
        `THRESHOLD_SENSITIVITY`, one row per preset × token group × percentile; NULL with a reason if no position is
        on that side, or too few neurons have an influence.

    Raises:
        UserError: the preset is unknown, or cells cannot answer the percentile.
    """
    wanted = sorted({float(value) for value in percentiles})
    for value in wanted:
        check_percentile(value)
    rows: list[dict[str, Any]] = []
    described: dict[bytes, dict[str, Any]] = {}  # by the positions selected, whichever preset selects them
    for preset in presets:
        for token_group in TOKEN_GROUPS:
            own = window_sums(cells, preset, token_group)
            seen: dict[bytes, float] = {}
            previous = None
            for percentile in wanted:
                found = window_sums(cells, preset, token_group, percentile)
                selected = _digest(found)
                if selected not in described:
                    described[selected] = _described(found, (draws, resamples, seed))
                row = {
                    "preset": preset,
                    "token_group": token_group,
                    "percentile": percentile,
                    "positions": 0 if isinstance(found, str) else int(found.positions.sum()),
                    "distinct_threshold": selected != previous,
                    "same_as_percentile": seen.setdefault(selected, percentile),
                }
                previous = selected
                rows.append(row | described[selected] | _agreement(found, own))
    return table(rows, THRESHOLD_SENSITIVITY)


def _digest(sums: WindowSums | str) -> bytes:
    """Equal for equal positions."""
    if isinstance(sums, str):
        return b""
    return hashlib.sha256(sums.positions.tobytes() + sums.sums.tobytes()).digest()


def _described(sums: WindowSums | str, asked: tuple[int, int, int]) -> dict[str, Any]:
    if isinstance(sums, str):
        return {"reason": sums}
    draws, resamples, seed = asked
    curve = influence_curve(sums.influence())
    found: Plateau = plateau(sums, draws=draws, resamples=resamples, seed=seed)
    line = power_law(curve)
    deviation = line.deviation(curve)
    row = {name: value for name, value in decision_row(found).items() if name in THRESHOLD_SENSITIVITY}
    row |= {name: getattr(line, name) for name in ("beta", "r2", "first_rank", "last_rank", "straight_share")}
    row |= {} if deviation is None else shares(deviation)
    return row | {"ranks": len(curve)}


def _agreement(sums: WindowSums | str, own: WindowSums | str) -> dict[str, Any]:
    """How well the ranking agrees with that at the preset's own percentile."""
    if isinstance(sums, str) or isinstance(own, str):
        return {}
    influence, usual = sums.influence(), own.influence()
    top = min(TOP, len(usual))
    first, second = (_top(values, top) for values in (influence, usual))
    varied = min(np.ptp(influence), np.ptp(usual)) > 0
    correlation = float(stats.spearmanr(influence, usual).statistic) if varied else None
    return {"top_overlap": len(first & second) / top, "rank_correlation": correlation}


def _top(influence: FloatArray, count: int) -> set[int]:
    return set(np.argsort(-influence, kind="stable")[:count].tolist())


def _compute(ask: Ask, parameters: Mapping[str, Any], _pool: Executor | None) -> Results:
    return {"threshold_sensitivity": threshold_sensitivity(stored_cells(ask), **parameters)}


ANALYSIS = Analysis(
    "threshold_sensitivity",
    {"threshold_sensitivity": THRESHOLD_SENSITIVITY},
    ("agg_effect",),
    _compute,
    {"draws": DRAWS, "resamples": RESAMPLES, "seed": 0},
)
