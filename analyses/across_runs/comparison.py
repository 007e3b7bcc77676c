"""Do the influential neurons of several models act together on the same rare contexts (ES §6)?

Two runs on the same positions are compared by how active a group is in each at every rare position: the mean of its
neurons' standardised activations. Neurons of different models do not correspond; groups do.
"""

from itertools import combinations
from typing import Any

import numpy as np
import polars as pl

from rare_tokens.analyses.across_runs.emergence import series
from rare_tokens.analyses.coordination.of_groups import DISJOINT, of_pool
from rare_tokens.analyses.result_table import FloatArray, IntArray
from rare_tokens.analyses.statistics import control_p

GROUPS = ("boost", "suppress")
DRAWS = 500  # of windows
CHECKPOINTS = 4  # compared per series: the last, and some before it

SIZE = 50  # neurons per group

ACTIVITY: dict[str, Any] = {
    **dict.fromkeys(("run_id", "preset", "group_name"), pl.String),
    **dict.fromkeys(("draw", "position_id", "window_id"), pl.Int64),
    "activation": pl.Float64,
}
COACTIVATION: dict[str, Any] = {
    "run_id": pl.String,
    "other_run_id": pl.String,
    "preset": pl.String,
    "group_name": pl.String,
    "positions": pl.Int64,  # rare in both runs
    "correlation": pl.Float64,  # Pearson, of the two groups' activity over the positions
    "low": pl.Float64,  # 95 % interval, percentile bootstrap over windows
    "high": pl.Float64,
    "random_mean": pl.Float64,  # the same for random groups of one run with random groups of the other
    "random_sd": pl.Float64,
    "p_value": pl.Float64,  # two-sided: (1 + random pairs as extreme) / (1 + random pairs)
}


def compared_runs(runs: pl.DataFrame) -> list[str]:
    """The runs whose groups are compared: the last checkpoint of each series (`dim_run` rows) and a few before it."""
    chosen = []
    for part in series(runs):
        ids = part["run_id"].to_list()
        places = np.unique(np.rint(np.linspace(len(ids) - 1, 0, CHECKPOINTS)).astype(int)) if len(ids) > 1 else [0]
        chosen += [ids[place] for place in places]
    return chosen


def group_activity(
    run_id: str, preset: str, activations: FloatArray, positions: pl.DataFrame, groups: pl.DataFrame
) -> pl.DataFrame:
    """How active each group of a run is at each position: as `group_activation` in SQL, but for every random group.

    Args:
        run_id: the run.
        preset: whose rare positions, and whose groups.
        activations: at the rare positions, in order, shape (T, N).
        positions: position_id and window_id of each, T rows.
        groups: rows of `neuron_group`: group_name, k, draw, neuron, pool. Random groups of one pool count: those drawn
            outside the tested groups, if there are any.

    Returns:
        run_id, preset, group_name, draw, position_id, window_id, activation: the mean activation of a group's neurons,
        each first scaled to mean 0 and variance 1; constant neurons are left out.
    """
    if positions.is_empty():
        return pl.DataFrame(schema=ACTIVITY)
    values = activations.astype(np.float64)
    spread = values.std(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        scaled = (values - values.mean(axis=0)) / spread
    wanted = pl.col("group_name").is_in([*GROUPS, "control"])
    chosen = of_pool(groups, DISJOINT).filter(wanted, pl.col("neuron").is_not_null(), k=SIZE)
    parts = []
    for (name, draw), members in chosen.group_by("group_name", "draw", maintain_order=True):
        neurons = members["neuron"].to_numpy()
        neurons = neurons[spread[neurons] > 0]
        if len(neurons):
            keys = [pl.lit(run_id).alias("run_id"), pl.lit(preset).alias("preset"), pl.lit(name).alias("group_name")]
            active = pl.Series("activation", scaled[:, neurons].mean(axis=1))
            parts.append(positions.select(*keys, pl.lit(draw).alias("draw"), "position_id", "window_id", active))
    return pl.concat([pl.DataFrame(schema=ACTIVITY), *(part.cast(pl.Schema(ACTIVITY)) for part in parts)])


def coactivation(activity: pl.DataFrame, seed: int = 0) -> pl.DataFrame:
    """Correlate each group's activity between every two runs.

    Args:
        activity: `group_activity` for runs on the same positions.
        seed: of the bootstrap.

    Returns:
        `COACTIVATION`, one row per pair of runs and group; only positions that are rare in both count.
    """
    runs = activity["run_id"].unique(maintain_order=True).to_list()
    rows = []
    for one, other in combinations(runs, 2):
        both = _joined(activity.filter(run_id=one), activity.filter(run_id=other))
        controls = _controls(both)
        for group in GROUPS:
            found = both.filter(group_name=group, draw=0).sort("position_id")
            if found.height < 3:
                continue
            x, y = found["activation"].to_numpy(), found["other"].to_numpy()
            value = _pearson(x, y)
            low, high = _interval(x, y, found["window_id"].to_numpy(), seed)
            rows.append(
                {"run_id": one, "other_run_id": other, "preset": found["preset"][0], "group_name": group}
                | {"positions": found.height, "correlation": value, "low": low, "high": high}
                | {"random_mean": float(controls.mean()) if len(controls) else None}
                | {"random_sd": float(controls.std(ddof=1)) if len(controls) > 1 else None}
                | {"p_value": control_p(value, controls) if len(controls) else None}
            )
    return pl.DataFrame(rows, schema=COACTIVATION)


def _joined(one: pl.DataFrame, other: pl.DataFrame) -> pl.DataFrame:
    """A group's activity in each run at every position that both have; draws are paired by number."""
    key = ["preset", "group_name", "draw", "position_id"]
    return one.join(other.select(*key, other="activation"), on=key)


def _controls(both: pl.DataFrame) -> FloatArray:
    """The correlation of every random group of one run with the other run's random group of the same number."""
    draws = both.filter(group_name="control").sort("draw", "position_id").partition_by("draw", maintain_order=True)
    found = [_pearson(draw["activation"].to_numpy(), draw["other"].to_numpy()) for draw in draws]
    values = np.array(found, dtype=np.float64)
    return values[np.isfinite(values)]


def _interval(x: FloatArray, y: FloatArray, windows: IntArray, seed: int) -> tuple[float | None, float | None]:
    """The middle 95 % of the correlation over resampled windows, from each window's sums."""
    _, index = np.unique(windows, return_inverse=True)
    columns = np.stack([np.ones_like(x), x, y, x * x, y * y, x * y])
    sums = np.stack([np.bincount(index, column) for column in columns], axis=1)
    if len(sums) < 2:
        return None, None
    weights = np.random.default_rng(seed).multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=DRAWS)
    n, sx, sy, sxx, syy, sxy = (weights @ sums).T
    with np.errstate(invalid="ignore", divide="ignore"):
        drawn = (n * sxy - sx * sy) / np.sqrt((n * sxx - sx**2) * (n * syy - sy**2))
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def _pearson(x: FloatArray, y: FloatArray) -> float:
    return float(np.corrcoef(x, y)[0, 1])
