"""The regimes of influence as relations: `regime_fit` and `regime_decision` of one run.

`regime_fit` holds the line of `power_law_fit` and, for comparison, other windows of ranks and other models of head and
tail. `regime_decision` says whether each curve has a plateau (`plateau`), and where the slope of each token group's
default curve breaks (docs/definitions.md, "Influence and the power law" and "Plateau decision").
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from typing import Any

import numpy as np
import polars as pl

from rare_tokens.analyses.analysis import GROUP_KEY, Analysis, Ask, Results, Source
from rare_tokens.analyses.curve.effect_cells import ALL_ROLES, MEAN_ABS, ROLES, STATISTICS, GroupSums
from rare_tokens.analyses.curve.middle_piece import middle_piece
from rare_tokens.analyses.curve.piecewise import PiecewiseFit, fit_regimes
from rare_tokens.analyses.curve.plateau import Plateau, plateau
from rare_tokens.analyses.curve.power_law import ABOVE, CURVE_KEY, NEAR, power_law, stored_curve
from rare_tokens.analyses.curve.ranked_curve import EARLY_WINDOW, LEAST_RANKS, PAPER_WINDOW, WindowLine, fit_line
from rare_tokens.analyses.curve.slope_break import SlopeBreak, slope_break
from rare_tokens.analyses.curve.stored_cells import curve_sums
from rare_tokens.analyses.result_table import FloatArray, joined, table

OTHER_DRAWS, OTHER_RESAMPLES = 499, 400  # at most, for curves of another statistic or one sign

REGIME_FIT: dict[str, Any] = GROUP_KEY | {
    "rank_window": pl.String,  # auto, middle piece, paper, paper early or explicit; NULL: a model of the whole curve
    "head": pl.String,  # none, hinge, level (equal slope, higher intercept) or free; NULL for a window
    "tail": pl.String,  # none, linear or loglog: a + s·ln(ln(N+1) − ln rank); NULL for a window
    "pieces": pl.Int64,  # NULL for auto, whose tail is curved
    "kappa": pl.Float64,  # log influence = −κ ln rank + β between first_rank and last_rank
    "beta": pl.Float64,
    "r2": pl.Float64,  # on the window; for a model, on the whole curve
    "first_rank": pl.Int64,  # of the power law: the head is all ranks before it
    "last_rank": pl.Int64,  # of the power law: the tail is all ranks after it
    "share_within_0_1": pl.Float64,  # of all ranks: |deviation from the power law| < 0.1
    "neurons_above_0_5": pl.Int64,  # deviation from the power law > 0.5
    "head_kappa": pl.Float64,
    "step": pl.Float64,  # how far the head stands above the power law where it ends, log influence
    "tail_slope": pl.Float64,  # slope of a linear tail, or s
    "bic": pl.Float64,  # for the reader; sorted values are not independent, and BIC finds breaks that are not there
    "parameters": pl.Int64,  # breaks included
    "ranks": pl.Int64,  # neurons with an influence above 0
    "reason": pl.String,
}

REGIME_DECISION: dict[str, Any] = CURVE_KEY | {
    "decision": pl.String,  # plateau present, absent or undecided; NULL where nothing can be decided
    "p_value": pl.Float64,  # for a step at the head: min(1, 2 min(scan_p_value, jump_p_value))
    "scan_p_value": pl.Float64,
    "jump_p_value": pl.Float64,
    "power": pl.Float64,  # probability that 1 % of the neurons, raised by 0.5, would be found at p < 0.01
    "break_rank": pl.Int64,  # b: the plateau's size where it is present
    "break_low": pl.Int64,  # 95 % interval over windows, as for step, head_slope and kappa
    "break_high": pl.Int64,
    "break_determined": pl.Boolean,  # false: the interval spans (nearly) all possible values
    "step": pl.Float64,
    "step_low": pl.Float64,
    "step_high": pl.Float64,
    "head": pl.String,  # raised, shelf or steep
    "head_slope": pl.Float64,  # κ + h
    "head_slope_low": pl.Float64,
    "head_slope_high": pl.Float64,
    "slope_ratio": pl.Float64,  # slope of the head over slope of the power law, by their spacings
    "slope_ratio_low": pl.Float64,
    "slope_ratio_high": pl.Float64,
    "equal_slope_p_value": pl.Float64,
    "kappa": pl.Float64,  # of power_law_fit
    "kappa_low": pl.Float64,
    "kappa_high": pl.Float64,
    "neurons_above_0_5": pl.Int64,
    "cliff_first": pl.Int64,  # last rank above the run of spacings that stands out most
    "cliff_last": pl.Int64,  # first rank below it
    "slope_break_log_rank": pl.Float64,  # where the slope itself breaks most (ES §4.1: near 5)
    "slope_break_low": pl.Float64,
    "slope_break_high": pl.Float64,
    "slope_break_form": pl.String,  # kink: the second derivative jumps; jump: the slope does
    "slope_break_change": pl.Float64,
    "slope_break_p_value": pl.Float64,  # against a slope that changes smoothly
    "slope_breaks_near_5": pl.Boolean,  # p < 0.01 and 5 in the interval
    "draws": pl.Int64,  # from the null distribution
    "resamples": pl.Int64,  # of windows, for the intervals
    "ranks": pl.Int64,  # neurons with an influence above 0
    "reason": pl.String,
}


def regimes(
    influence: pl.DataFrame,
    sums: Mapping[tuple[str, str], GroupSums | str],
    *,
    windows: Sequence[tuple[int, int]] = (),
    draws: int = 1_999,
    resamples: int = 1_000,
    seed: int = 0,
) -> dict[str, pl.DataFrame]:
    """The relations `regime_fit` and `regime_decision` of one run.

    Args:
        influence: `neuron_influence` of one run: preset, token_group, neuron, influence, abs_mean_delta_loss, role.
        sums: per (preset, token group) the effects by window (`effect_cells.group_sums`), or why there are none.
        windows: explicit windows, first and last rank.
        draws: from each decision's null distribution, at least 399; at most 499 for curves other than the default.
        resamples: bootstrap samples of windows; at most 400 for other curves.
        seed: of the bootstraps.

    Returns:
        `REGIME_FIT` and `REGIME_DECISION` by name, groups in order of appearance.
    """
    fits: list[dict[str, Any]] = []
    decisions: list[dict[str, Any]] = []
    for part in influence.partition_by("preset", "token_group", maintain_order=True):
        key = {"preset": part["preset"][0], "token_group": part["token_group"][0]}
        curve = stored_curve(part)
        fits += [key | row | {"ranks": len(curve)} for row in _fit_rows(curve, windows)]
        found = sums.get((key["preset"], key["token_group"]), "no sums over windows")
        decisions += [key | row for row in _decision_rows(part, found, (draws, resamples, seed))]
    return {"regime_fit": table(fits, REGIME_FIT), "regime_decision": table(decisions, REGIME_DECISION)}


def shares(deviation: FloatArray) -> dict[str, Any]:
    """Share of ranks near the power law, and number of neurons above it (NC §3)."""
    return {
        "share_within_0_1": float(np.mean(np.abs(deviation) < NEAR)),
        "neurons_above_0_5": int(np.sum(deviation > ABOVE)),
    }


def _fit_rows(curve: FloatArray, windows: Sequence[tuple[int, int]]) -> Iterator[dict[str, Any]]:
    yield {"rank_window": "auto"} | _line_row(curve)
    few = _too_few(curve)
    window = (0, 0) if few else tuple(middle_piece(curve).tolist())
    yield {"rank_window": "middle piece"} | ({"reason": few} if few else _window_row(curve, *window))
    named = [("paper", PAPER_WINDOW), ("paper early", EARLY_WINDOW)]
    for name, given in [*named, *(("explicit", window) for window in windows)]:
        yield {"rank_window": name} | _window_row(curve, *given)
    if few:
        yield {"head": "none", "tail": "none", "reason": few}
        return
    for fit in fit_regimes(curve):
        yield _model_row(curve, fit)


def _line_row(curve: FloatArray) -> dict[str, Any]:
    line = power_law(curve)
    deviation = line.deviation(curve)
    names = ("kappa", "beta", "r2", "first_rank", "last_rank", "step", "reason")
    row = {name: getattr(line, name) for name in names} | {"head_kappa": line.head_slope}
    return row | ({} if deviation is None else shares(deviation))


def _window_row(curve: FloatArray, first: int, last: int) -> dict[str, Any]:
    if not 1 <= first < last <= len(curve):
        limits = {"first_rank": first, "last_rank": last}
        return limits | {"reason": f"ranks {first} to {last} are no window of {len(curve)} ranks"}
    line = fit_line(curve, first, last)
    row = {"pieces": 1, "kappa": line.kappa, "beta": line.beta, "r2": line.r2, "first_rank": first, "last_rank": last}
    return row | shares(line.deviation(curve))


def _too_few(curve: FloatArray) -> str | None:
    if len(curve) < 3 * LEAST_RANKS:
        return f"fewer than {3 * LEAST_RANKS} neurons with an influence above 0 ({len(curve)})"
    return "all neurons have the same influence" if np.ptp(curve) == 0 else None


def _model_row(curve: FloatArray, fit: PiecewiseFit) -> dict[str, Any]:
    law = WindowLine(fit.kappa, fit.beta, fit.r2, (fit.head_rank or 0) + 1, fit.tail_rank or len(curve))
    names = ("head", "tail", "pieces", "kappa", "beta", "r2", "head_kappa", "step", "tail_slope", "bic", "parameters")
    row = {name: getattr(fit, name) for name in names}
    row |= {"first_rank": law.first_rank, "last_rank": law.last_rank}
    return row | shares(law.deviation(curve))


def _decision_rows(part: pl.DataFrame, sums: GroupSums | str, asked: tuple[int, int, int]) -> Iterator[dict[str, Any]]:
    """The decision on every curve of one token group."""
    draws, resamples, seed = asked
    for statistic in STATISTICS:
        for role in ROLES:
            default = (statistic, role) == (MEAN_ABS, ALL_ROLES)
            of = (draws, resamples) if default else (min(draws, OTHER_DRAWS), min(resamples, OTHER_RESAMPLES))
            given = sums if isinstance(sums, str) else sums.curve(statistic, role)
            found = plateau(given, draws=of[0], resamples=of[1], seed=seed)
            curve = stored_curve(part, statistic, role)
            row = {"statistic": statistic, "role": role, "draws": of[0], "resamples": of[1], "ranks": len(curve)}
            row |= decision_row(found)
            if default:
                bend = slope_break(curve, np.random.default_rng([seed, 2]), draws=min(draws, 1_000))
                row |= _slope_break_row(bend)
                row["reason"] = joined(found.reason, bend if isinstance(bend, str) else None)
            yield row


def decision_row(found: Plateau) -> dict[str, Any]:
    """A decision in the columns of `REGIME_DECISION`."""
    line, test, slopes = found.line, found.test, found.slopes
    row: dict[str, Any] = {
        "decision": found.verdict,
        "power": found.power,
        "break_rank": line.head_rank,
        "step": line.step,
        "head": found.head,
        "head_slope": line.head_slope,
        "kappa": line.kappa,
        "neurons_above_0_5": found.above,
        "reason": found.reason,
    }
    if test is not None:
        row |= {"p_value": test.p_value, "scan_p_value": test.p_scan, "jump_p_value": test.p_jump}
        row |= {"cliff_first": test.cliff_first, "cliff_last": test.cliff_last}
    for name, interval in [("step", found.step), ("head_slope", found.head_slope), ("kappa", found.kappa)]:
        if interval is not None:
            row |= {f"{name}_low": interval.low, f"{name}_high": interval.high}
    if found.size is not None:
        row |= {"break_low": int(found.size.low), "break_high": int(found.size.high)}
        row["break_determined"] = found.size.determined
    if slopes is not None:
        row |= {
            "slope_ratio": slopes.ratio,
            "slope_ratio_low": slopes.low,
            "slope_ratio_high": slopes.high,
            "equal_slope_p_value": slopes.p_value,
        }
    return row


def _slope_break_row(bend: SlopeBreak | str) -> dict[str, Any]:
    if isinstance(bend, str):
        return {}
    return {
        "slope_break_log_rank": bend.log_rank,
        "slope_break_low": bend.low,
        "slope_break_high": bend.high,
        "slope_break_form": bend.form,
        "slope_break_change": bend.change,
        "slope_break_p_value": bend.p_value,
        "slope_breaks_near_5": bend.near_five,
    }


def _compute(ask: Ask, parameters: Mapping[str, Any], _pool: Executor | None) -> Results:
    return regimes(ask(Source("neuron_influence")), curve_sums(ask), **parameters)


ANALYSIS = Analysis(
    "regimes",
    {"regime_fit": REGIME_FIT, "regime_decision": REGIME_DECISION},
    ("neuron_influence", "agg_effect"),
    _compute,
    {"draws": 1_999, "resamples": 1_000, "seed": 0},
)
