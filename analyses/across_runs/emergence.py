"""How the curve of influence comes about over training: relation `emergence` (ES fig. 1, 2, 4 and 6).

A *series* is the runs of one model and branch on the same positions, one run per checkpoint. Each number of the curve
is put beside its training step: κ, R² and the step of the head (δ) with their intervals, the curve itself, its
deviation from the power law and its local slope at log-spaced ranks, and what becomes of the neurons that end up on
top.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import polars as pl

from rare_tokens.analyses.analysis import GROUP_KEY
from rare_tokens.analyses.coordination.weight_spectra import Rule, weight_spectrum
from rare_tokens.analyses.curve.ranked_curve import WindowLine, influence_curve, local_slope
from rare_tokens.analyses.result_table import FloatArray, IntArray, table
from rare_tokens.analyses.statistics import CONTROL

SERIES = (
    "model", "training_branch", "layer", "corpus", "contexts", "frequency_source_id", "positions", "window_length",
    "seed", "ablation", "dtype",
)  # fmt: skip
MISSING = "missing"  # status of a checkpoint that is absent or has no weights
POINTS = 30  # ranks at which curves are kept
TOP_SHARE = 0.01  # DS: about 1 % of the neurons

EMERGENCE: dict[str, Any] = {
    "run_id": pl.String,
    "training_step": pl.Int64,  # of the checkpoint; NULL if its revision names none
    **GROUP_KEY,
    "group_name": pl.String,  # neurons of the row: boost, suppress, top (1 %), control; NULL: the whole curve
    "chosen_at": pl.String,  # whose group it is: the last checkpoint's, or each one's; NULL: the whole curve
    "quantity": pl.String,
    "rank": pl.Int64,  # of a point on the curve; NULL: about the whole curve or group
    "value": pl.Float64,
    "low": pl.Float64,  # 95 % interval, if influence_interval, regime_decision or weight_spectrum has one; for
    # control, the middle 95 % of the random groups
    "high": pl.Float64,
    "reason": pl.String,
}


def with_gaps_placed(runs: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
    """The runs (`dim_run`), with keys that a missing checkpoint's row lacks filled in from its model's series.

    For a checkpoint without weights only what was asked for is known, perhaps not the layer's number. If exactly one
    series agrees with what is known, the gap belongs to it; if none or several do, it is left as it is.
    """
    if "status" not in runs.columns:
        return runs
    measured = runs.filter(pl.col("status") != MISSING).select(keys).unique(maintain_order=True).rows()
    rows = []
    for row in runs.iter_rows(named=True):
        if row["status"] == MISSING:
            agreeing = [
                found
                for found in measured
                if all(row[key] in (None, value) for key, value in zip(keys, found, strict=True))
            ]
            if len(agreeing) == 1:
                row |= dict(zip(keys, agreeing[0], strict=True))
        rows.append(row)
    return pl.DataFrame(rows, schema=runs.schema)


def with_branch(runs: pl.DataFrame) -> pl.DataFrame:
    """The runs (`dim_run`) with an empty branch where none is named: NULL would mean that it is not known."""
    if "training_branch" not in runs.columns:
        return runs
    return runs.with_columns(pl.col("training_branch").fill_null(""))


def series(runs: pl.DataFrame) -> list[pl.DataFrame]:
    """The runs (`dim_run`) divided into series, each in order of stages and steps; runs without a step come last.

    A missing checkpoint is in the series it would have belonged to, if that is known.
    """
    keys = [column for column in SERIES if column in runs.columns]
    placed = with_gaps_placed(with_branch(runs), keys)
    stage = pl.col("training_stage").fill_null(0) if "training_stage" in runs.columns else pl.lit(0)
    place = pl.when(pl.col("training_step").is_not_null()).then(stage), pl.col("training_step")
    ordered = placed.sort(*place, nulls_last=True, maintain_order=True)
    return ordered.partition_by(keys, maintain_order=True) if keys else [ordered]


def emergence(
    runs: pl.DataFrame,
    influence: pl.DataFrame,
    fits: pl.DataFrame,
    *,
    decisions: pl.DataFrame | None = None,
    intervals: pl.DataFrame | None = None,
    k: int = 50,
    chosen_at: Literal["last", "each"] = "last",
) -> pl.DataFrame:
    """Follow one series of checkpoints.

    Args:
        runs: one of `series`: run_id, training_step, status.
        influence: `neuron_influence` of these runs: run_id, preset, token_group, neuron, influence, rank, role.
        fits: `power_law_fit` of these runs: run_id, preset, token_group, kappa, beta, r2, first_rank, last_rank.
        decisions: `regime_decision` of these runs, with run_id.
        intervals: `influence_interval` of these runs, with run_id, for κ and R².
        k: neurons in the groups boost and suppress.
        chosen_at: whether the groups are those of the `last` checkpoint or of `each`.

    Returns:
        `EMERGENCE`. A checkpoint without effects (of status `missing`, for example) is one row with the reason.
    """
    rows: list[dict[str, Any]] = []
    curves = influence.partition_by("run_id", "preset", "token_group", as_dict=True)
    with_effects = set(influence["run_id"])
    present = [run for run in runs["run_id"].to_list() if run in with_effects]
    for run in runs.iter_rows(named=True):
        key = {"run_id": run["run_id"], "training_step": run["training_step"]}
        if run["run_id"] not in with_effects:
            rows.append(key | {"quantity": "kappa", "reason": f"no effects: the run is {run['status']}"})
            continue
        for (run_id, preset, token_group), part in curves.items():
            if run_id != run["run_id"]:
                continue
            group = {"preset": preset, "token_group": token_group}
            last = curves.get((present[-1], preset, token_group), part)
            own = {"run_id": run_id} | group
            fit = _only(fits, own)
            found = [*_of_fit(fit, _several(intervals, own)), *_of_decision(_only(decisions, own))]
            found += [*_of_curve(part, fit), *_of_groups(part, last, k, chosen_at)]
            rows += [key | group | row for row in found]
    return table(rows, EMERGENCE)


def _several(frame: pl.DataFrame | None, key: dict[str, Any]) -> pl.DataFrame | None:
    if frame is None:
        return None
    return frame.filter(*(pl.col(column) == value for column, value in key.items()))


def _only(frame: pl.DataFrame | None, key: dict[str, Any]) -> dict[str, Any] | None:
    found = _several(frame, key)
    return None if found is None or found.is_empty() else found.row(0, named=True)


def _of_fit(fit: dict[str, Any] | None, intervals: pl.DataFrame | None) -> Iterator[dict[str, Any]]:
    for quantity in ("kappa", "r2"):
        row: dict[str, Any] = {"quantity": quantity}
        if fit is None or fit[quantity] is None:
            yield row | {"reason": (fit or {}).get("reason") or "no power law was fitted"}
            continue
        whole = None if intervals is None else intervals.filter(pl.col("neuron").is_null())
        ends = _only(whole, {"quantity": quantity}) or {}
        yield row | {"value": fit[quantity], "low": ends.get("low"), "high": ends.get("high")}


def _of_decision(decision: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
    if decision is None:
        return
    said = decision["decision"]
    counted = {"present": decision["break_rank"], "absent": 0}.get(said)
    reason = None if counted is not None else f"{said or 'not decided'}: {decision['reason']}"
    ends = {"low": decision["break_low"], "high": decision["break_high"]} if said == "present" else {}
    yield {"quantity": "plateau_neurons", "value": counted, "reason": reason} | ends
    yield {"quantity": "plateau_p_value", "value": decision["p_value"], "reason": decision["reason"]}
    yield {
        "quantity": "plateau_step",
        "value": decision["step"],
        "low": decision["step_low"],
        "high": decision["step_high"],
        "reason": decision["reason"] if decision["step"] is None else None,
    }


def _of_curve(part: pl.DataFrame, fit: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
    """Points of the curve, of δ and of the slope; and the top 1 %'s share of all influence."""
    values = part["influence"].to_numpy()
    total = float(values.sum())
    top = max(1, round(TOP_SHARE * len(values)))
    yield {
        "quantity": "top_share",
        "value": float(np.sort(values)[-top:].sum()) / total if total else None,
        "reason": None if total else "no neuron has an influence",
    }
    curve = influence_curve(values)
    drawn: dict[str, FloatArray] = {"log_influence": curve, "local_slope": local_slope(curve)}
    if fit is not None and fit["kappa"] is not None:
        line = WindowLine(fit["kappa"], fit["beta"], fit["r2"], fit["first_rank"], fit["last_rank"])
        drawn["deviation"] = line.deviation(curve)
    for quantity, points in drawn.items():
        for rank in _points(len(curve)).tolist():
            value = float(points[rank - 1])
            if np.isfinite(value):
                yield {"quantity": quantity, "rank": rank, "value": value}


def _points(n: int) -> IntArray:
    if n == 0:
        return np.zeros(0, dtype=np.int64)
    return np.unique(np.rint(np.exp(np.linspace(0, np.log(n), POINTS))).astype(np.int64))


def _of_groups(
    part: pl.DataFrame, last: pl.DataFrame, k: int, chosen_at: Literal["last", "each"]
) -> Iterator[dict[str, Any]]:
    """The groups' mean log influence and median rank, and how much of each is in the last checkpoint's group."""
    chosen = _groups(last if chosen_at == "last" else part, k)
    finally_ = _groups(last, k)
    now = _groups(part, k)
    for name, neurons in chosen.items():
        row: dict[str, Any] = {"group_name": name, "chosen_at": chosen_at}
        if not neurons:
            yield row | {"quantity": "group_log_influence", "reason": "too few neurons of this sign"}
            continue
        members = part.filter(pl.col("neuron").is_in(list(neurons)))
        active = members.filter(pl.col("influence") > 0)["influence"].log()
        yield row | {
            "quantity": "group_log_influence",
            "value": active.mean(),
            "reason": None if len(active) else "no influence yet",
        }
        yield row | {"quantity": "group_median_rank", "value": members["rank"].median()}
        if now[name] and finally_[name]:
            shared = len(now[name] & finally_[name]) / len(finally_[name])
            yield row | {"quantity": "group_overlap_with_last", "value": shared}


def _groups(part: pl.DataFrame, k: int) -> dict[str, set[int]]:
    """Boost and suppress (the k most influential of each sign) and the top 1 %; empty if there are too few."""
    ranked = part.sort("rank")
    groups = {}
    for role in ("boost", "suppress"):
        of_sign = ranked.filter(pl.col("role") == role)["neuron"].head(k).to_list()
        groups[role] = set(of_sign) if len(of_sign) == k else set()
    groups["top"] = set(ranked["neuron"].head(max(1, round(TOP_SHARE * ranked.height))).to_list())
    return groups


def group_alphas(
    weights: FloatArray, groups: pl.DataFrame, *, chosen_at: Literal["last", "each"], rules: tuple[Rule, ...]
) -> Iterator[dict[str, Any]]:
    """Hill's α for a checkpoint's groups and their random groups (ES fig. 5): rows of `EMERGENCE` without its keys.

    Args:
        weights: output weights of the checkpoint, N × d.
        groups: `GROUP`: tested groups and controls, of this checkpoint or the last one.
        chosen_at: which of the two.
        rules: for the number of eigenvalues in the tail; the quantity is `alpha_` plus the rule.
    """
    spectrum = weight_spectrum({"w_out": weights}, groups, rules=rules, equal_aspect_samples=0)
    for (name, rule), part in spectrum.partition_by("group_name", "rule", as_dict=True, maintain_order=True).items():
        row = {"group_name": name, "chosen_at": chosen_at, "quantity": f"alpha_{rule}"}
        if name == CONTROL:
            values = part["alpha"].drop_nulls()
            ends = {"low": values.quantile(0.025), "high": values.quantile(0.975)} if len(values) else {}
            yield row | {"value": values.mean(), "reason": None if len(values) else part["reason"][0]} | ends
            continue
        found = part.row(0, named=True)
        yield (
            row
            | {"value": found["alpha"], "low": found["alpha_low"], "high": found["alpha_high"]}
            | {"reason": found["reason"]}
        )
