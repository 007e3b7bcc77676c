"""Intervals of the curve of influence, by bootstrap over windows: relation `influence_interval`.

Tokens of one window are not independent, so windows are what is resampled. A resampled curve is a little steeper at its
ends than the curve in hand, because sampling noise spreads sorted values; the intervals say how far a number moves
with the text that was sampled, and nothing about whether a break is real (`analyses.curve.plateau_decision` does).
"""

from collections.abc import Mapping
from concurrent.futures import Executor
from typing import Any

import numpy as np
import polars as pl

from rare_tokens.analyses.analysis import GROUP_KEY, Analysis, Ask, Results
from rare_tokens.analyses.curve.effect_cells import WindowSums
from rare_tokens.analyses.curve.power_law import LEAST_RANKS, auto_window, log_rank
from rare_tokens.analyses.curve.regimes import ABOVE, NEAR
from rare_tokens.analyses.curve.spacings import LEAST_NEURONS, find_steps, normalised_spacings, ranks_needed
from rare_tokens.analyses.curve.stored_cells import curve_sums
from rare_tokens.analyses.result_table import FloatArray, IntArray, table

INFLUENCE_INTERVAL: dict[str, Any] = GROUP_KEY | {
    "quantity": pl.String,  # a column of power_law_fit or regime_decision; or influence, rank, deviation of a neuron
    "neuron": pl.Int64,  # NULL where it is about the whole curve
    "estimate": pl.Float64,
    "low": pl.Float64,  # 2.5 and 97.5 % points over the samples
    "high": pl.Float64,
    "windows": pl.Int64,
    "draws": pl.Int64,
    "reason": pl.String,
}
CURVE = (
    "kappa",
    "beta",
    "r2",
    "first_rank",
    "last_rank",
    "share_within_0_1",
    "neurons_above_0_5",
    "break_rank",
    "step",
)
NEURON = ("influence", "rank", "deviation")
LEVELS = (0.025, 0.975)
BATCH = 2_000_000  # numbers resampled at once


def influence_intervals(
    preset: str, token_group: str, sums: WindowSums | str, *, draws: int = 1_000, seed: int = 0
) -> pl.DataFrame:
    """Intervals of κ, β, R², window, shares, break and step of one curve, and of each neuron's place on it.

    The window is `auto`, found anew in every sample; `break_rank` and `step` are of the most surprising step of the
    head, whether or not it is significant.

    Args:
        preset: of the token group.
        token_group: `rare` or `common`.
        sums: effects by window, or why there are none.
        draws: bootstrap samples.
        seed: of the resampling.

    Returns:
        `INFLUENCE_INTERVAL`: one row per quantity, then one per neuron and quantity.
    """
    key = {"preset": preset, "token_group": token_group}
    if isinstance(sums, str):
        return table([key | {"quantity": name, "reason": sums} for name in CURVE], INFLUENCE_INTERVAL)
    counted = {"windows": sums.windows, "draws": draws}
    estimate, own = _measure(sums.influence()[None, :])
    reason = None
    if sums.windows < 2:
        reason = "a single window: nothing to resample"
    elif not np.isfinite(estimate["kappa"][0]):
        reason = f"fewer than {3 * LEAST_RANKS} neurons with an influence above 0, or all the same"
    if reason:
        undefined = [key | counted | {"quantity": name, "estimate": estimate[name][0]} for name in CURVE]
        return table([row | {"reason": reason} for row in undefined], INFLUENCE_INTERVAL)
    rng = np.random.default_rng(seed)
    size = max(1, BATCH // len(sums.neurons))
    parts = [_measure(sums.resampled(min(size, draws - done), rng)) for done in range(0, draws, size)]
    rows: list[dict[str, Any]] = []
    for name in (*CURVE, *NEURON):
        samples = np.concatenate([(part[0] | part[1])[name].reshape(part[0]["kappa"].size, -1) for part in parts])
        estimates = (estimate | own)[name].ravel().tolist()
        neurons = sums.neurons.tolist() if name in NEURON else [None]
        low, high = np.quantile(samples, LEVELS, axis=0).tolist()
        missing = (~np.isfinite(samples)).sum(axis=0).tolist()
        rows += [
            key | counted | {"quantity": name, "neuron": neuron, "estimate": value, "low": bottom, "high": top}
            | {"reason": f"undefined in {missed} of {draws} samples" if missed else None}
            for neuron, value, bottom, top, missed in zip(neurons, estimates, low, high, missing, strict=True)
        ]  # fmt: skip
    return table(rows, INFLUENCE_INTERVAL)


def _measure(influence: FloatArray) -> tuple[dict[str, FloatArray], dict[str, FloatArray]]:
    """The quantities of `CURVE`, shape (B,) each, and of `NEURON`, shape (B, N) each, of curves of (B, N) neurons."""
    draws, n = influence.shape
    curve = {name: np.full(draws, np.nan) for name in CURVE}
    neuron = {"influence": influence, "rank": np.zeros((draws, n)), "deviation": np.full((draws, n), np.nan)}
    order = np.argsort(-influence, axis=1, kind="stable")
    np.put_along_axis(neuron["rank"], order, np.arange(1.0, n + 1)[None, :], axis=1)
    lengths = (influence > 0).sum(axis=1)
    for length in np.unique(lengths[lengths >= 3 * LEAST_RANKS]).tolist():
        rows = np.flatnonzero(lengths == length)
        places = order[rows, :length]
        logs = np.log(np.take_along_axis(influence[rows], places, axis=1))
        varied = np.ptp(logs, axis=1) > 0
        rows, places, logs = rows[varied], places[varied], logs[varied]
        for name, values in _lines(logs).items():
            if name == "deviation":
                neuron["deviation"][rows[:, None], places] = values
            else:
                curve[name][rows] = values
        if length >= LEAST_NEURONS:
            steps = find_steps(normalised_spacings(logs[:, : ranks_needed(length)]), length)
            curve["break_rank"][rows], curve["step"][rows] = steps.rank, steps.size
    return curve, neuron


def _lines(curves: FloatArray) -> dict[str, FloatArray]:
    """`auto` window and line of each curve of (B, n), with the deviations from it, shape (B, n)."""
    windows = auto_window(curves)
    x = log_rank(curves.shape[1])
    x_centred, centre = x - x.mean(), curves.mean(axis=1, keepdims=True)
    y = curves - centre
    mean_x, mean_y = _window_mean(x_centred[None, :], windows), _window_mean(y, windows)
    xx = _window_mean(x_centred[None, :] ** 2, windows) - mean_x**2
    xy = _window_mean(x_centred * y, windows) - mean_x * mean_y
    yy = _window_mean(y**2, windows) - mean_y**2
    slope = xy / xx
    at_one = centre[:, 0] + mean_y - slope * (mean_x + x.mean())
    deviation = curves - (at_one[:, None] + slope[:, None] * x)
    return {
        "kappa": -slope,
        "beta": at_one,
        "r2": np.divide(xy**2, xx * yy, out=np.full(len(y), np.nan), where=yy > 0),
        "first_rank": windows[:, 0].astype(float),
        "last_rank": windows[:, 1].astype(float),
        "share_within_0_1": np.mean(np.abs(deviation) < NEAR, axis=1),
        "neurons_above_0_5": np.sum(deviation > ABOVE, axis=1).astype(float),
        "deviation": deviation,
    }


def _window_mean(values: FloatArray, windows: IntArray) -> FloatArray:
    """Mean of each row over its window of ranks, shape (B,)."""
    sums = np.concatenate([np.zeros((len(values), 1)), np.cumsum(values, axis=1)], axis=1)
    sums = np.broadcast_to(sums, (len(windows), sums.shape[1]))
    rows = np.arange(len(windows))
    return np.asarray((sums[rows, windows[:, 1]] - sums[rows, windows[:, 0] - 1]) / (windows[:, 1] - windows[:, 0] + 1))


def _compute(ask: Ask, parameters: Mapping[str, Any], _pool: Executor | None) -> Results:
    parts = [
        influence_intervals(preset, group, sums, **parameters) for (preset, group), sums in curve_sums(ask).items()
    ]
    return {"influence_interval": pl.concat([table([], INFLUENCE_INTERVAL), *parts])}


ANALYSIS = Analysis(
    "influence_interval",
    {"influence_interval": INFLUENCE_INTERVAL},
    ("agg_effect",),
    _compute,
    {"draws": 1_000, "seed": 0},
)
