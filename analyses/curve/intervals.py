"""Intervals of the curve of influence, by bootstrap over windows: relation `influence_interval`.

Tokens of one window are not independent, so windows are resampled. The intervals say how far a number moves with the
text that was sampled, not whether a step at the head is real (`analyses.curve.plateau` says that). A neuron whose
interval of mean Δ holds 0 is *mixed*: the text does not settle whether it is boost or suppress.
"""

from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from typing import Any

import numpy as np
import polars as pl

from rare_tokens.analyses.analysis import GROUP_KEY, Analysis, Ask, Results
from rare_tokens.analyses.curve.effect_cells import GroupSums, WindowSums
from rare_tokens.analyses.curve.head_fits import fitted_ranks
from rare_tokens.analyses.curve.line_intervals import (
    LEVELS,
    Interval,
    head_interval,
    plain_interval,
    same_head,
    spans_range,
    step_interval,
)
from rare_tokens.analyses.curve.power_law import ABOVE, LEAST_NEURONS, NEAR, SAME, power_law, power_laws, why_no_line
from rare_tokens.analyses.curve.ranked_curve import influence_curve, log_rank
from rare_tokens.analyses.curve.stored_cells import curve_sums
from rare_tokens.analyses.result_table import FloatArray, table

INFLUENCE_INTERVAL: dict[str, Any] = GROUP_KEY | {
    "quantity": pl.String,  # for the curve: `CURVE`; for a neuron: influence, mean_delta_loss, rank, deviation
    "neuron": pl.Int64,  # NULL: about the whole curve
    "estimate": pl.Float64,
    "low": pl.Float64,  # 95 %
    "high": pl.Float64,
    "determined": pl.Boolean,  # false: the interval spans (nearly) all possible values
    "windows": pl.Int64,
    "draws": pl.Int64,
    "reason": pl.String,
}
CURVE = (
    "kappa",
    "beta",
    "r2",
    "tail",
    "head_rank",
    "step",
    "head_slope",
    "first_rank",
    "last_rank",
    "straight_share",
    "share_within_0_1",
    "neurons_above_0_5",
)
NEURON = ("influence", "mean_delta_loss", "rank", "deviation")
OF_THE_LAW = ("kappa", "beta", "share_within_0_1", "neurons_above_0_5", "deviation")  # need a power law that holds
BIASED = ("step", "head_slope")  # by sorting (`line_intervals.step_interval`)
BATCH = 2_000_000  # numbers resampled at once


def influence_intervals(
    preset: str, token_group: str, sums: GroupSums | str, *, draws: int = 1_000, seed: int = 0
) -> pl.DataFrame:
    """Intervals for the line of one curve (mean |Δ| of all neurons), and for each neuron's effect and place on it.

    Args:
        preset: of the token group.
        token_group: `rare` or `common`.
        sums: effects by window, or why there are none.
        draws: bootstrap samples.
        seed: of the resampling.

    Returns:
        `INFLUENCE_INTERVAL`: one row per quantity, then one per neuron and quantity. NULL with the reason if the curve
        has no line (neurons still have theirs), and everywhere if there is a single window.
    """
    key = {"preset": preset, "token_group": token_group}
    if isinstance(sums, str):
        return table([key | {"quantity": name, "reason": sums} for name in CURVE], INFLUENCE_INTERVAL)
    counted = key | {"windows": sums.absolute.windows, "draws": draws}
    own = _measure(sums.absolute.influence()[None, :], sums.signed.mean()[None, :])
    if sums.absolute.windows < 2:
        alone = "a single window: nothing to resample"
        rows = [counted | {"quantity": name, "estimate": own[name][0], "reason": alone} for name in CURVE]
        return table(rows, INFLUENCE_INTERVAL)
    samples = _resampled(sums, draws, seed)
    curve = influence_curve(sums.absolute.influence())
    reason = power_law(curve).reason
    rows = [counted | row for row in _curve_rows(own, samples, curve)]
    rows += [counted | row for name in NEURON for row in _neuron_rows(name, sums.absolute, own, samples)]
    return table([_without_law(row, reason) if reason else row for row in rows], INFLUENCE_INTERVAL)


def _without_law(row: dict[str, Any], reason: str) -> dict[str, Any]:
    """A row for a curve without a power law: what is measured from the law is NULL, with the reason."""
    if row["quantity"] not in OF_THE_LAW:
        return row
    return row | {"estimate": None, "low": None, "high": None, "determined": None, "reason": reason}


def _resampled(sums: GroupSums, draws: int, seed: int) -> dict[str, FloatArray]:
    """Every quantity in every sample; both sums use the same resampling."""
    of_absolute, of_signed = np.random.default_rng(seed), np.random.default_rng(seed)
    size = max(1, BATCH // len(sums.absolute.neurons))
    parts = [
        _measure(sums.absolute.resampled(count, of_absolute), sums.signed.resampled_mean(count, of_signed))
        for count in (min(size, draws - done) for done in range(0, draws, size))
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _curve_rows(
    own: Mapping[str, FloatArray], samples: Mapping[str, FloatArray], curve: FloatArray
) -> Iterator[dict[str, Any]]:
    reason = why_no_line(curve)
    if reason:
        yield from ({"quantity": name, "reason": reason} for name in CURVE)
        return
    head = int(own["head_rank"][0])
    same = same_head(head, samples["head_rank"])
    of_head = head_interval(head, samples["head_rank"], len(curve))
    known = of_head is None or of_head.determined
    for name in CURVE:
        value = float(own[name][0])
        interval: Interval | None
        if name == "head_rank":
            interval = of_head
        elif name == "first_rank":
            interval = None if of_head is None else Interval(of_head.low + 1, of_head.high + 1, known)
        elif name in BIASED:
            interval = step_interval(value, samples[name], same, determined=known)
        else:
            interval = plain_interval(value, samples[name])
        yield _row(name, value, interval, len(curve))


def _row(name: str, value: float, interval: Interval | None, n: int) -> dict[str, Any]:
    row: dict[str, Any] = {"quantity": name, "estimate": value if np.isfinite(value) else None}
    if interval is None:
        return row | {"reason": "fewer than 9 in 10 samples have a value"}
    possible = {"last_rank": (1, fitted_ranks(n)), "neurons_above_0_5": (0, n)}
    possible |= dict.fromkeys(("straight_share", "share_within_0_1"), (0, 1))
    wide = name in possible and spans_range(interval.low, interval.high, *possible[name], log=name == "last_rank")
    return row | {"low": interval.low, "high": interval.high, "determined": interval.determined and not wide}


def _neuron_rows(
    name: str, sums: WindowSums, own: Mapping[str, FloatArray], samples: Mapping[str, FloatArray]
) -> list[dict[str, Any]]:
    low, high = np.quantile(samples[name], LEVELS, axis=0)
    wide = np.zeros(len(low), dtype=bool)
    if name == "rank":
        wide = np.array([spans_range(a, b, 1, len(low), log=True) for a, b in zip(low, high, strict=True)])
    missing = (~np.isfinite(samples[name])).sum(axis=0).tolist()
    columns = (sums.neurons, own[name][0], low, high, ~wide)
    return [
        {"quantity": name, "neuron": neuron, "estimate": value, "low": bottom, "high": top, "determined": determined}
        | {"reason": f"undefined in {missed} of {len(samples[name])} samples" if missed else None}
        for neuron, value, bottom, top, determined, missed in zip(*(c.tolist() for c in columns), missing, strict=True)
    ]  # fmt: skip


def _measure(influence: FloatArray, mean: FloatArray) -> dict[str, FloatArray]:
    """The quantities of `CURVE`, shape (B,) each, and of `NEURON`, shape (B, N) each; NaN if undefined.

    Args:
        influence: mean |Δ| of each neuron in each sample, shape (B, N).
        mean: mean Δ, likewise.
    """
    draws, n = influence.shape
    found = {name: np.full(draws, np.nan) for name in CURVE}
    place = np.zeros((draws, n))
    deviation = np.full((draws, n), np.nan)
    order = np.argsort(-influence, axis=1, kind="stable")
    np.put_along_axis(place, order, np.arange(1.0, n + 1)[None, :], axis=1)
    lengths = (influence > 0).sum(axis=1)
    for length in np.unique(lengths[lengths >= LEAST_NEURONS]).tolist():
        rows = np.flatnonzero(lengths == length)
        logs = np.log(np.take_along_axis(influence[rows], order[rows, :length], axis=1))
        varied = np.ptp(logs[:, : fitted_ranks(length)], axis=1) > SAME
        rows, logs = rows[varied], logs[varied]
        values = _lines(logs)
        deviation[rows[:, None], order[rows, :length]] = values.pop("deviation")
        for name, of_samples in values.items():
            found[name][rows] = of_samples
    return found | {"influence": influence, "mean_delta_loss": mean, "rank": place, "deviation": deviation}


def _lines(curves: FloatArray) -> dict[str, FloatArray]:
    """The lines of the curves (B, n), shape (B,) each, with the deviations from them, shape (B, n)."""
    found = power_laws(curves)
    fit = found.fit
    deviation = curves - (fit.beta[:, None] - fit.kappa[:, None] * log_rank(curves.shape[1]))
    return {
        "kappa": fit.kappa,
        "beta": fit.beta,
        "r2": found.r2,
        "tail": fit.tail,
        "head_rank": fit.head_rank.astype(float),
        "step": fit.step,
        "head_slope": found.head_slope,
        "first_rank": fit.head_rank + 1.0,
        "last_rank": found.last_rank.astype(float),
        "straight_share": found.straight_share,
        "share_within_0_1": np.mean(np.abs(deviation) < NEAR, axis=1),
        "neurons_above_0_5": np.sum(deviation > ABOVE, axis=1).astype(float),
        "deviation": deviation,
    }


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
