"""The regimes of influence as relations: `regime_fit` and `regime_decision` of one run.

`power_law_fit`, written at publish, holds the window `auto` only and is never changed. Here is every other window,
every model of head and tail, and what is decided for each token group (docs/definitions.md, "Influence and the power
law" and "Plateau decision").
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from typing import Any

import numpy as np
import polars as pl

from rare_tokens.analyses.analysis import GROUP_KEY, Analysis, Ask, Results, Source
from rare_tokens.analyses.curve.effect_cells import WindowSums
from rare_tokens.analyses.curve.piecewise import PiecewiseFit, fit_regimes
from rare_tokens.analyses.curve.plateau_decision import Decision, decide
from rare_tokens.analyses.curve.power_law import (
    LEAST_RANKS,
    PAPER_WINDOW,
    Line,
    auto_window,
    fit_line,
    influence_curve,
)
from rare_tokens.analyses.curve.slope_break import SlopeBreak
from rare_tokens.analyses.curve.stored_cells import curve_sums
from rare_tokens.analyses.result_table import FloatArray, joined, table

NEAR, ABOVE = 0.1, 0.5  # NC §3: how much lies near the power law, and how much stands above it

REGIME_FIT: dict[str, Any] = GROUP_KEY | {
    "rank_window": pl.String,  # auto, paper or explicit: a line on a window of ranks; NULL: a model of the whole curve
    "head": pl.String,  # none, hinge, level (equal slope, higher intercept) or free; NULL for a window
    "tail": pl.String,  # none, linear or loglog: a + s·ln(ln(N+1) − ln rank); NULL for a window
    "pieces": pl.Int64,
    "kappa": pl.Float64,  # log influence = −κ ln rank + β between first_rank and last_rank
    "beta": pl.Float64,
    "r2": pl.Float64,  # on the window; of a model on the whole curve
    "first_rank": pl.Int64,  # of the power law: the head is all ranks before it
    "last_rank": pl.Int64,  # of the power law: the tail is all ranks after it
    "share_within_0_1": pl.Float64,  # of all ranks: |deviation from the power law| < 0.1
    "neurons_above_0_5": pl.Int64,  # deviation from the power law > 0.5
    "head_kappa": pl.Float64,
    "step": pl.Float64,  # how far the head stands above the power law where it ends, log influence
    "tail_slope": pl.Float64,  # slope of a linear tail, or s
    "bic": pl.Float64,  # for the reader; sorted values are not independent, and BIC finds breaks where there are none
    "parameters": pl.Int64,  # breaks included
    "p_value": pl.Float64,  # parametric bootstrap: of the head against none, or of the tail where there is no head
    "ranks": pl.Int64,  # neurons with an influence above 0
    "reason": pl.String,
}

REGIME_DECISION: dict[str, Any] = GROUP_KEY | {
    "decision": pl.String,  # plateau present, absent or undecided; NULL where nothing can be decided
    "p_value": pl.Float64,  # of a step in the head: parametric bootstrap of power law and tail without one
    "power": pl.Float64,  # probability that 1 % of the neurons, raised by 0.5, would be found at p < 0.01
    "break_rank": pl.Int64,  # last rank above the step: the plateau's size where it is present
    "break_low": pl.Int64,  # 95 % interval, parametric bootstrap of the curve with the step
    "break_high": pl.Int64,
    "step": pl.Float64,  # δ at the step, log influence
    "step_low": pl.Float64,
    "step_high": pl.Float64,
    "head": pl.String,  # level or free, where present: by the test of equal slopes at 5 %
    "slope_ratio": pl.Float64,  # slope of the head over slope of the power law
    "slope_ratio_low": pl.Float64,
    "slope_ratio_high": pl.Float64,
    "equal_slope_p_value": pl.Float64,
    "hinge_p_value": pl.Float64,  # of a head with another slope, against none
    "free_p_value": pl.Float64,  # of a head with another slope and a step, against none
    "kappa": pl.Float64,  # of the power law, by likelihood of the spacings, the step left out
    "bend_rank": pl.Int64,  # last rank of a head with another slope, where the curve needs one; NULL: none
    "bend_slope": pl.Float64,  # its −slope
    "tail": pl.String,
    "tail_rank": pl.Int64,  # last rank of the power law
    "tail_p_value": pl.Float64,  # of the tail, against a pure power law
    "slope_break_log_rank": pl.Float64,  # where the slope itself breaks most (ES §4.1: near 5)
    "slope_break_low": pl.Float64,
    "slope_break_high": pl.Float64,
    "slope_break_form": pl.String,  # kink: the second derivative jumps; jump: the slope does
    "slope_break_change": pl.Float64,
    "slope_break_p_value": pl.Float64,  # against a slope that changes smoothly
    "slope_breaks_near_5": pl.Boolean,  # p < 0.01 and 5 in the interval
    "errors_known": pl.Boolean,  # whether the neurons' standard errors entered the bootstrap
    "draws": pl.Int64,
    "ranks": pl.Int64,
    "reason": pl.String,
}


def regimes(
    influence: pl.DataFrame,
    sums: Mapping[tuple[str, str], WindowSums | str] | None = None,
    *,
    windows: Sequence[tuple[int, int]] = (),
    draws: int = 1_000,
    seed: int = 0,
) -> dict[str, pl.DataFrame]:
    """The relations `regime_fit` and `regime_decision` of one run.

    Args:
        influence: `neuron_influence` of one run: preset, token_group, neuron, influence.
        sums: per (preset, token group) the effects by window (`effect_cells.window_sums`), for the standard error of
            each neuron; without them, or with a single window, the errors count as 0, and the reason says so.
        windows: explicit windows, first and last rank.
        draws: of each bootstrap.
        seed: of the bootstraps.

    Returns:
        `REGIME_FIT` and `REGIME_DECISION` by name, groups in order of appearance.
    """
    fits: list[dict[str, Any]] = []
    decisions: list[dict[str, Any]] = []
    for part in influence.partition_by("preset", "token_group", maintain_order=True):
        key = {"preset": part["preset"][0], "token_group": part["token_group"][0]}
        part = part.sort("neuron")
        values = part["influence"].to_numpy()
        found = (sums or {}).get((key["preset"], key["token_group"]))
        error = found.log_error() if isinstance(found, WindowSums) else None
        curve = influence_curve(values)
        order = np.argsort(-values, kind="stable")[: len(curve)]
        decision = decide(curve, None if error is None else error[order], draws=draws, seed=seed)
        fits += [key | row | {"ranks": len(curve)} for row in _fit_rows(curve, decision, windows)]
        decisions.append(key | _decision_row(decision, draws, known=error is not None) | {"ranks": len(curve)})
    return {"regime_fit": table(fits, REGIME_FIT), "regime_decision": table(decisions, REGIME_DECISION)}


def shares(deviation: FloatArray) -> dict[str, Any]:
    """Share of ranks near the power law and number of neurons above it (NC §3)."""
    return {
        "share_within_0_1": float(np.mean(np.abs(deviation) < NEAR)),
        "neurons_above_0_5": int(np.sum(deviation > ABOVE)),
    }


def _fit_rows(
    curve: FloatArray, decision: Decision | str, windows: Sequence[tuple[int, int]]
) -> Iterator[dict[str, Any]]:
    asked: list[tuple[str, tuple[int, int] | None]] = [("auto", None), ("paper", PAPER_WINDOW)]
    for name, window in asked + [("explicit", window) for window in windows]:
        yield {"rank_window": name} | _window_row(curve, window)
    if len(curve) < 3 * LEAST_RANKS or np.ptp(curve) == 0:
        yield {"head": "none", "tail": "none", "reason": _no_curve(curve)}
        return
    for fit in fit_regimes(curve):
        yield _model_row(curve, fit, decision)


def _window_row(curve: FloatArray, window: tuple[int, int] | None) -> dict[str, Any]:
    if window is None:
        if len(curve) < 3 * LEAST_RANKS or np.ptp(curve) == 0:
            return {"reason": _no_curve(curve)}
        first, last = auto_window(curve).tolist()
    else:
        first, last = window
        if not 1 <= first < last <= len(curve):
            limits = {"first_rank": first, "last_rank": last}
            return limits | {"reason": f"ranks {first} to {last} are no window of {len(curve)} ranks"}
    line = fit_line(curve, first, last)
    row = {"pieces": 1, "kappa": line.kappa, "beta": line.beta, "r2": line.r2, "first_rank": first, "last_rank": last}
    return row | shares(line.deviation(curve))


def _no_curve(curve: FloatArray) -> str:
    if len(curve) < 3 * LEAST_RANKS:
        return f"fewer than {3 * LEAST_RANKS} neurons with an influence above 0 ({len(curve)})"
    return "all neurons have the same influence"


def _model_row(curve: FloatArray, fit: PiecewiseFit, decision: Decision | str) -> dict[str, Any]:
    law = Line(fit.kappa, fit.beta, fit.r2, (fit.head_rank or 0) + 1, fit.tail_rank or len(curve))
    row = {
        "head": fit.head,
        "tail": fit.tail,
        "pieces": fit.pieces,
        "kappa": fit.kappa,
        "beta": fit.beta,
        "r2": fit.r2,
        "first_rank": law.first_rank,
        "last_rank": law.last_rank,
        "head_kappa": fit.head_kappa,
        "step": fit.step,
        "tail_slope": fit.tail_slope,
        "bic": fit.bic,
        "parameters": fit.parameters,
    }
    row |= shares(law.deviation(curve))
    if isinstance(decision, str):
        return row | {"reason": f"no p: {decision}"}
    tail_p = decision.tail_p_value if fit.tail != "none" else None
    by_head = {"hinge": decision.hinge_p_value, "level": decision.p_value, "free": decision.free_p_value}
    return row | {"p_value": by_head.get(fit.head, tail_p)}


def _decision_row(decision: Decision | str, draws: int, *, known: bool) -> dict[str, Any]:
    errors = None if known else "the neurons' standard errors are not known (a single window, or none given)"
    row: dict[str, Any] = {"errors_known": known, "draws": draws}
    if isinstance(decision, str):
        return row | {"reason": joined(decision, errors)}
    law, slopes, bend = decision.law, decision.slopes, decision.bend
    row |= {
        "decision": decision.verdict,
        "p_value": decision.p_value,
        "power": decision.power,
        "break_rank": decision.rank,
        "break_low": decision.rank_low,
        "break_high": decision.rank_high,
        "step": decision.step,
        "step_low": decision.step_low,
        "step_high": decision.step_high,
        "hinge_p_value": decision.hinge_p_value,
        "free_p_value": decision.free_p_value,
        "kappa": law.kappa,
        "bend_rank": law.bend_rank,
        "bend_slope": law.bend_slope,
        "tail": law.tail,
        "tail_rank": law.tail_rank,
        "tail_p_value": decision.tail_p_value,
    }
    if slopes is not None:
        row |= {
            "slope_ratio": slopes.ratio,
            "slope_ratio_low": slopes.low,
            "slope_ratio_high": slopes.high,
            "equal_slope_p_value": slopes.p_value,
        }
        if decision.verdict == "present":
            row["head"] = "level" if slopes.p_value >= 0.05 else "free"
    if isinstance(bend, SlopeBreak):
        row |= {
            "slope_break_log_rank": bend.log_rank,
            "slope_break_low": bend.low,
            "slope_break_high": bend.high,
            "slope_break_form": bend.form,
            "slope_break_change": bend.change,
            "slope_break_p_value": bend.p_value,
            "slope_breaks_near_5": bend.near_five,
        }
    too_small = None if slopes else "the head or the power law is too small to compare slopes"
    return row | {"reason": joined(decision.reason, errors, too_small, bend if isinstance(bend, str) else None)}


def _compute(ask: Ask, parameters: Mapping[str, Any], _pool: Executor | None) -> Results:
    return regimes(ask(Source("neuron_influence")), curve_sums(ask), **parameters)


ANALYSIS = Analysis(
    "regimes",
    {"regime_fit": REGIME_FIT, "regime_decision": REGIME_DECISION},
    ("neuron_influence", "agg_effect"),
    _compute,
    {"draws": 1_000, "seed": 0},
)
