"""Where attention heads look at rare and at common tokens, and whether that differs (NC §2–3).

Units are resampled: a window each, or a few (`dim_attention_cell`).
"""

from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from rare_tokens.analyses.analysis import GROUP_KEY, Analysis, Ask, Results, Source, keyed
from rare_tokens.analyses.attention.inputs import ATTENTION, measured_ablations
from rare_tokens.analyses.coordination.of_groups import standing
from rare_tokens.analyses.curve.effect_cells import COMMON, RARE
from rare_tokens.analyses.result_table import FloatArray, table
from rare_tokens.analyses.statistics import holm, permutation_p, window_interval

ATTENTION_ROUTING: dict[str, Any] = {
    "attention_layer": pl.Int64,
    "head": pl.Int64,
    "positions": pl.Int64,
    "common_positions": pl.Int64,
    "units": pl.Int64,
    "correlation": pl.Float64,
    "correlation_low": pl.Float64,
    "correlation_high": pl.Float64,
    "correlation_sd": pl.Float64,
    "self_correlation": pl.Float64,
    "gini": pl.Float64,
    "common_gini": pl.Float64,
    "gini_sd": pl.Float64,
    "common_gini_sd": pl.Float64,
    "gini_difference": pl.Float64,
    "gini_low": pl.Float64,
    "gini_high": pl.Float64,
    "gini_p_value": pl.Float64,
    "gini_p_holm": pl.Float64,
    "profile_gini": pl.Float64,
    "common_profile_gini": pl.Float64,
    "entropy": pl.Float64,
    "common_entropy": pl.Float64,
    "first_share": pl.Float64,
    "common_first_share": pl.Float64,
    "mean_distance": pl.Float64,
    "common_mean_distance": pl.Float64,
    "reason": pl.String,
}
_SUMS = ("gini_sum", "entropy_sum", "first_sum")


@dataclass(frozen=True)
class HeadUnits:
    """What one head does at one token group's positions, per unit.

    Attributes:
        positions: the group's positions, shape (U,); 0 where a unit has none.
        sums: sums of Gini coefficient, entropy (nats) and weight on the first token, shape (U,) each.
        weights: attention on the token r back, summed over the positions, shape (U, R).
    """

    positions: FloatArray
    sums: dict[str, FloatArray]
    weights: FloatArray

    def mean(self, name: str) -> float:
        """Mean of one of `sums` over the positions."""
        return float(self.sums[name].sum() / self.positions.sum())

    def profile(self) -> FloatArray:
        """The mean distribution over relative position, shape (R,)."""
        return np.asarray(self.weights.sum(axis=0) / self.positions.sum())


def attention_routing(
    heads: pl.DataFrame, distances: pl.DataFrame, cells: pl.DataFrame, *, resamples: int = 1_000, seed: int = 0
) -> pl.DataFrame:
    """Attention at rare and at common targets, per head and over all heads: relation `attention_routing`.

    Args:
        heads: `agg_attention_head` of one run and ablation.
        distances: `agg_attention_distance` of the same.
        cells: `dim_attention_cell` of the same, for one preset.
        resamples: per interval.
        seed: for intervals and permutations.

    Returns:
        `ATTENTION_ROUTING`: one row per head, and one over all heads, whose test has heads as units, like NC's t-test.
    """
    if heads.is_empty():
        return table([], ATTENTION_ROUTING)
    found = head_units(heads, distances, cells)
    rows = [
        {"attention_layer": layer, "head": head, **_compared(groups.get(RARE), groups.get(COMMON), resamples, seed)}
        for (layer, head), groups in found.items()
    ]
    for row, corrected in zip(rows, holm([row.get("gini_p_value") for row in rows]), strict=True):
        row["gini_p_holm"] = corrected
    return table([*rows, _over_heads(rows, seed)], ATTENTION_ROUTING)


def head_units(
    heads: pl.DataFrame, distances: pl.DataFrame, cells: pl.DataFrame
) -> dict[tuple[int, int], dict[str, HeadUnits]]:
    """Sums per unit, for each (layer, head) and token group that has a position; arguments as `attention_routing`."""
    units = cells["window_id"].unique().sort().to_numpy()
    span = int(distances["distance"].max() or 0) + 1  # type: ignore[arg-type]
    key = ["attention_layer", "head"]
    found: dict[tuple[int, int], dict[str, HeadUnits]] = {}
    sums = heads.join(cells, on="cell").group_by(*key, "token_group", "window_id")
    by_head = sums.agg(pl.col(*_SUMS).sum(), pl.col("positions").sum()).sort(*key, "token_group", "window_id")
    members = cells.select("cell", "token_group", "window_id")
    weights = distances.join(members, on="cell").group_by(*key, "token_group", "window_id", "distance")
    looked = weights.agg(pl.col("weight_sum").cast(pl.Float64).sum()).sort(*key, "token_group", "window_id", "distance")
    parts = looked.partition_by(*key, "token_group", as_dict=True)
    for (layer, head, group), part in by_head.partition_by(*key, "token_group", as_dict=True).items():
        rows = np.searchsorted(units, part["window_id"].to_numpy())
        seen = parts[layer, head, group]
        grid = np.zeros((len(units), span))
        grid[np.searchsorted(units, seen["window_id"].to_numpy()), seen["distance"].to_numpy()] = seen["weight_sum"]
        one = HeadUnits(
            _placed(part["positions"], rows, len(units)),
            {name: _placed(part[name], rows, len(units)) for name in _SUMS},
            grid,
        )
        found.setdefault((int(layer), int(head)), {})[str(group)] = one
    return found


def profile_correlation(one: FloatArray, other: FloatArray) -> FloatArray:
    """Pearson correlation of distributions over relative position, shapes (…, R); NaN if one does not vary."""
    a, b = one - one.mean(axis=-1, keepdims=True), other - other.mean(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((a * b).sum(-1) / np.sqrt((a * a).sum(-1) * (b * b).sum(-1)))


def gini(values: FloatArray) -> float:
    """Gini coefficient of non-negative values, shape (n,): Σ (2i − n − 1) v_(i) / (n Σ v), v ascending."""
    ordered, n = np.sort(values), len(values)
    return float((2 * np.arange(1, n + 1) - n - 1) @ ordered / (n * ordered.sum()))


def _compared(rare: HeadUnits | None, common: HeadUnits | None, resamples: int, seed: int) -> dict[str, Any]:
    if rare is None or common is None:
        return {"reason": f"no {'rare' if rare is None else 'common'} position"}
    units = len(rare.positions)

    def correlation(counts: FloatArray) -> FloatArray:
        return profile_correlation(counts @ rare.weights, counts @ common.weights)

    def difference(counts: FloatArray) -> FloatArray:
        with np.errstate(invalid="ignore", divide="ignore"):
            means = [(counts @ one.sums["gini_sum"]) / (counts @ one.positions) for one in (rare, common)]
        return np.asarray(means[0] - means[1])

    span = rare.weights.shape[1]
    # A resample repeats units, so its profiles are noisier and correlate less: the interval is reflected, on the
    # Fisher transform's scale, which keeps it below 1
    found = window_interval(
        lambda counts: np.arctanh(correlation(counts)), units, method="basic", resamples=resamples, seed=seed,
        size=2 * span,
    )  # fmt: skip
    low, high = (None, None) if found is None else np.tanh(found).tolist()
    gini_low, gini_high = window_interval(difference, units, resamples=resamples, seed=seed) or (None, None)
    both = (rare.positions > 0) & (common.positions > 0)
    of_units = [one.sums["gini_sum"][both] / one.positions[both] for one in (rare, common)]
    row: dict[str, Any] = {
        "positions": int(rare.positions.sum()),
        "common_positions": int(common.positions.sum()),
        "units": int(both.sum()),
        "correlation": float(profile_correlation(rare.profile(), common.profile())),
        "correlation_low": low,
        "correlation_high": high,
        "self_correlation": _self_correlation(rare),
        "gini_difference": rare.mean("gini_sum") - common.mean("gini_sum"),
        "gini_low": gini_low,
        "gini_high": gini_high,
        "gini_p_value": permutation_p(*of_units, paired=True, seed=seed),
    }
    for prefix, one in (("", rare), ("common_", common)):
        profile = one.profile()
        row |= {
            f"{prefix}gini": one.mean("gini_sum"),
            f"{prefix}entropy": one.mean("entropy_sum"),
            f"{prefix}first_share": one.mean("first_sum"),
            f"{prefix}profile_gini": gini(profile),
            f"{prefix}mean_distance": float(profile @ np.arange(span)),
        }
    if low is None or row["gini_p_value"] is None:
        row["reason"] = (
            f"{row['units']} units hold both groups, or what they have does not differ: no interval, no test"
        )
    return row


def _self_correlation(rare: HeadUnits) -> float | None:
    """Correlation of the profiles of every other unit that has a position with the rest's; None with fewer than two."""
    chosen = np.flatnonzero(rare.positions)
    if len(chosen) < 2:
        return None
    return float(profile_correlation(rare.weights[chosen[::2]].sum(0), rare.weights[chosen[1::2]].sum(0)))


def _over_heads(rows: list[dict[str, Any]], seed: int) -> dict[str, Any]:
    """The means over heads; the test of the Gini difference pairs the two values of each head."""
    known = [row for row in rows if row.get("correlation") is not None]
    if not known:
        return {"reason": rows[0].get("reason")}
    averaged = [name for name, value in known[0].items() if isinstance(value, float) and not name.endswith(_ENDS)]
    columns = {name: np.array([row[name] for row in known if row[name] is not None], dtype=float) for name in averaged}
    over: dict[str, Any] = {name: float(values.mean()) for name, values in columns.items() if len(values)}
    over |= {name: known[0][name] for name in ("positions", "common_positions", "units")}
    if len(known) > 1:
        over |= {f"{name}_sd": float(columns[name].std(ddof=1)) for name in ("correlation", "gini", "common_gini")}
    over["gini_p_value"] = permutation_p(columns["gini"], columns["common_gini"], paired=True, seed=seed)
    return over | {"reason": "the test is over heads; of means over heads there is no interval"}


_ENDS = ("_low", "_high", "_p_value", "_p_holm")


def _placed(values: pl.Series, rows: Any, units: int) -> FloatArray:
    placed = np.zeros(units)
    placed[rows] = values.to_numpy()
    return placed


def _compute(ask: Ask, parameters: Mapping[str, Any], _pool: Executor | None) -> Results:
    own = {name: value for name, value in parameters.items() if name != "presets"}
    parts = [keyed(_of_preset(ask, preset, **own), preset, RARE) for preset in standing(ask, parameters["presets"])]
    return {"attention_routing": pl.concat(parts)}


def _of_preset(ask: Ask, preset: str, **parameters: Any) -> pl.DataFrame:
    """`ATTENTION_ROUTING` of a run and preset; no rows without attention."""
    measured = measured_ablations(ask)[:1]  # attention does not depend on the ablation
    cells = ask(
        Source("dim_attention_cell", preset, columns=("head_ablation", "cell", "token_group", "window_id", "positions"))
    )
    heads = ask(Source("agg_attention_head"))
    distances = ask(
        Source(
            "agg_attention_distance",
            columns=("head_ablation", "attention_layer", "head", "cell", "distance", "weight_sum"),
        )
    )
    chosen = pl.col("head_ablation").is_in(measured)
    return attention_routing(heads.filter(chosen), distances.filter(chosen), cells.filter(chosen), **parameters)


ANALYSIS = Analysis(
    "attention_routing",
    {"attention_routing": {**ATTENTION_ROUTING, **GROUP_KEY}},
    (*ATTENTION, "neuron_influence"),
    _compute,
    {"presets": ["nc"], "resamples": 1_000, "seed": 0},
)
