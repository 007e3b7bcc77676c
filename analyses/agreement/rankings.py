"""How far rankings of the same neurons agree: rank correlation, and the neurons that their heads share.

Each ranking is by influence over one token group. Its sums are by window of text, and the same windows are resampled
for all of them, so that what the text does to both rankings does not count as disagreement.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from scipy import stats

from rare_tokens.analyses.curve.effect_cells import SINGLE_WINDOW, WindowSums
from rare_tokens.analyses.curve.line_intervals import plain_interval
from rare_tokens.analyses.result_table import FloatArray, IntArray, joined

TOPS = {"10": 10, "50": 50}  # neurons compared, by the end of the column's name
BATCH = 2_000_000  # numbers resampled at once
EQUAL = "all influences are equal"


def with_interval(*names: str) -> dict[str, Any]:
    """The columns of numbers with a 95 % interval."""
    return {f"{name}{end}": pl.Float64 for name in names for end in ("", "_low", "_high")}


SHARED: dict[str, Any] = with_interval("rank_correlation", "shared_10", "shared_50") | {
    "shared_10": pl.Int64,
    "shared_50": pl.Int64,
}


@dataclass(frozen=True)
class Compared:
    """Two rankings to be compared.

    Attributes:
        first: place of one among the rankings.
        second: place of the other.
        tops: how many of the first neurons of each are compared, by the end of the column's name; None: the number is
            not known.
    """

    first: int
    second: int
    tops: Mapping[str, int | None]


def agreements(
    rankings: Sequence[WindowSums], compared: Sequence[Compared], *, draws: int, seed: int | Sequence[int]
) -> list[dict[str, Any]]:
    """Compare pairs of rankings.

    Args:
        rankings: sums of |Δ| over the same neurons and, unless each has a seed of its own, the same windows.
        compared: which of them.
        draws: bootstrap samples of windows, the same for all with the same seed.
        seed: of the resampling; or one per ranking, where their texts are different ones.

    Returns:
        For each pair `rank_correlation` (Spearman's, over all neurons) and `shared_…` (how many of the first neurons of
        one are among as many of the other; ties to the lower index), each with `_low` and `_high`, `windows`, `draws`
        and `reason`. NULL where the influences of one are all equal or too few are above 0; intervals with a single
        window too.
    """
    values = [sums.influence()[None, :] for sums in rankings]
    ranked = [_Ranked.of(one) for one in values]
    seeds = [seed] * len(rankings) if isinstance(seed, int) else list(seed)
    windows = [min(rankings[pair.first].windows, rankings[pair.second].windows) for pair in compared]
    samples = _resampled(rankings, compared, draws, seeds) if max(windows, default=0) > 1 else [{} for _ in compared]
    above = [int((one > 0).sum()) for one in values]
    rows = []
    for pair, count, drawn in zip(compared, windows, samples, strict=True):
        least = min(above[pair.first], above[pair.second])
        row = _row(_agreement(ranked, pair), drawn if count > 1 else {}, pair.tops, least)
        rows.append({"windows": count, "draws": draws} | row)
    return rows


def stability(sums: WindowSums, tops: Mapping[str, int | None], *, draws: int, seed: int) -> dict[str, Any]:
    """How far a ranking agrees with itself on resampled windows of text.

    Args:
        sums: sums of |Δ|.
        tops: as in `Compared`.
        draws: bootstrap samples of windows.
        seed: of the resampling.

    Returns:
        The columns of `agreements`: each number is the median over the samples, its interval their middle 95 %. NULL
        with the reason with a single window.
    """
    counted: dict[str, Any] = {"windows": sums.windows, "draws": draws}
    own = sums.influence()[None, :]
    if np.ptp(own) == 0 or sums.windows < 2:
        return counted | {"reason": joined(EQUAL if np.ptp(own) == 0 else None, SINGLE_WINDOW * (sums.windows < 2))}
    rng, size = np.random.default_rng(seed), max(1, BATCH // len(sums.neurons))
    parts = []
    for done in range(0, draws, size):
        ranked = [_Ranked.of(own), _Ranked.of(sums.resampled(min(size, draws - done), rng))]
        parts.append(_agreement(ranked, Compared(0, 1, tops)))
    samples = {name: np.concatenate([one[name] for one in parts]) for name in parts[0]}
    middle = {name: np.array([np.nanmedian(values)]) for name, values in samples.items()}
    return counted | _row(middle, samples, tops, int((own > 0).sum()))


@dataclass(frozen=True)
class _Ranked:
    """The rankings of N neurons in B samples.

    Attributes:
        places: of each neuron, from 0 for the largest influence, ties to the lower index, shape (B, N).
        ranks: from the smallest influence, ties share the mean, less the mean of all, shape (B, N).
    """

    places: IntArray
    ranks: FloatArray

    @classmethod
    def of(cls, influence: FloatArray) -> "_Ranked":
        order = np.argsort(-influence, axis=1, kind="stable")
        places = np.empty_like(order)
        np.put_along_axis(places, order, np.arange(influence.shape[1])[None, :], axis=1)
        return cls(places, stats.rankdata(influence, axis=1) - (influence.shape[1] + 1) / 2)


def _resampled(
    rankings: Sequence[WindowSums], compared: Sequence[Compared], draws: int, seeds: Sequence[int]
) -> list[dict[str, FloatArray]]:
    """Every quantity of every pair in every sample, shape (draws,)."""
    generators = [np.random.default_rng(seed) for seed in seeds]
    size = max(1, BATCH // len(rankings[0].neurons))
    parts: list[list[dict[str, FloatArray]]] = [[] for _ in compared]
    for done in range(0, draws, size):
        count = min(size, draws - done)
        ranked = [_Ranked.of(sums.resampled(count, rng)) for sums, rng in zip(rankings, generators, strict=True)]
        for part, pair in zip(parts, compared, strict=True):
            part.append(_agreement(ranked, pair))
    return [{name: np.concatenate([one[name] for one in part]) for name in part[0]} for part in parts]


def _agreement(ranked: Sequence[_Ranked], pair: Compared) -> dict[str, FloatArray]:
    """The quantities of a pair in B samples, shape (B,) each; NaN where the influences of a sample are all equal."""
    one, other = ranked[pair.first], ranked[pair.second]
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = np.sqrt((one.ranks**2).sum(axis=1) * (other.ranks**2).sum(axis=1))
        found = {"rank_correlation": np.asarray((one.ranks * other.ranks).sum(axis=1) / spread)}
    for name, count in pair.tops.items():
        if count is not None:
            found[f"shared_{name}"] = ((one.places < count) & (other.places < count)).sum(axis=1).astype(float)
    return found


def _row(
    own: Mapping[str, FloatArray], samples: Mapping[str, FloatArray], tops: Mapping[str, int | None], above: int
) -> dict[str, Any]:
    """The columns of a pair of which at least `above` neurons have an influence above 0 in both rankings."""
    nothing = None if samples else SINGLE_WINDOW
    if not np.isfinite(own["rank_correlation"][0]):
        return {"reason": joined(EQUAL, nothing)}
    few = {name: count for name, count in tops.items() if count is not None and count > above}
    row: dict[str, Any] = {}
    for name, (value,) in own.items():
        if name.removeprefix("shared_") not in few:
            row[name] = int(value) if name.startswith("shared_") else float(value)
            row |= interval_columns(name, float(value), samples.get(name))
    lacking = f"fewer than {min(few.values())} neurons with an influence above 0" if few else None
    return row | {"reason": joined(lacking, nothing)}


def interval_columns(name: str, value: float, samples: FloatArray | None) -> dict[str, float]:
    """The columns of a number's interval, the middle 95 % of its samples and the number itself; none without samples.

    There is no interval either where fewer than 9 in 10 samples have a value.
    """
    interval = None if samples is None else plain_interval(value, samples)
    return {} if interval is None else {f"{name}_low": interval.low, f"{name}_high": interval.high}
