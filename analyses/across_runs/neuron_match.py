"""Has a neuron of one model a partner in another: relations `neuron_match` and `plateau_match`.

Neurons of two training runs have no common numbering, so they are matched by what they do: the partner of a neuron is
the one of the other run whose activations, at the same positions of the same text, correlate most with its own (as in
Gurnee et al. 2024, "Universal neurons"). The sign does not count: a gated neuron and its mirror image compute the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from scipy import stats

from rare_tokens.analyses.curve.line_intervals import plain_interval
from rare_tokens.analyses.result_table import FloatArray, IntArray, joined, table

DRAWS, ROTATIONS, SEED = 1_000, 9, 0
SINGLE_WINDOW = "a single window of text: nothing to resample or to rotate"
CONSTANT = "its activations are all the same"
OTHER_POSITIONS = "the runs have other positions, or another tokenizer"
NO_HEAD = "the line of one of the runs has no head"
BATCH = 4_000_000  # numbers resampled at once

NEURON_MATCH: dict[str, Any] = {
    "other_run_id": pl.String,
    "neuron": pl.Int64,  # NULL in the single row of two runs that cannot be matched
    "other_neuron": pl.Int64,
    "correlation": pl.Float64,
    "correlation_low": pl.Float64,  # 95 % interval over windows, the partner held fixed
    "correlation_high": pl.Float64,
    "chance_correlation": pl.Float64,
    "is_mutual": pl.Boolean,
    "positions": pl.Int64,
    "windows": pl.Int64,
    "draws": pl.Int64,
    "reason": pl.String,
}
PLATEAU_MATCH: dict[str, Any] = {
    "other_run_id": pl.String,
    "preset": pl.String,
    "token_group": pl.String,
    "first": pl.Int64,  # b of the run
    "other_first": pl.Int64,  # b of the other
    "matched": pl.Int64,  # of the first b neurons, those whose partner is among the first b of the other
    "expected": pl.Float64,  # with partners at random
    "p_value": pl.Float64,
    "head_correlation": pl.Float64,  # mean |correlation| of the first b with their partners
    "layer_correlation": pl.Float64,  # the same of all neurons
    "chance_correlation": pl.Float64,  # of all neurons, on rotated text
    "reason": pl.String,
}


@dataclass(frozen=True)
class Activations:
    """A layer's activations at some positions.

    Attributes:
        values: shape (T, N).
        window: of each position, ascending, shape (T,).
    """

    values: FloatArray
    window: IntArray

    def standardised(self) -> FloatArray:
        """Mean 0 and length 1 over the positions, shape (T, N), float32; 0 for a neuron that does not vary."""
        centred = self.values - self.values.mean(axis=0, dtype=np.float64)
        length = np.sqrt((centred.astype(np.float64) ** 2).sum(axis=0))
        size = np.abs(self.values).max(axis=0) * np.sqrt(len(centred))
        varies = length > 1e-6 * size  # what is left of a constant is rounding
        return np.divide(centred, length, out=np.zeros_like(centred), where=varies).astype(np.float32)


def neuron_match(
    one: Activations, other: Activations, *, draws: int = DRAWS, rotations: int = ROTATIONS, seed: int = SEED
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Match the neurons of two runs on the same positions, both ways.

    Args:
        one: of the one run.
        other: of the other, at the same positions; it may have another number of neurons.
        draws: bootstrap samples of windows, for the interval of each correlation with its partner.
        rotations: how often the other's text is rotated by whole windows, which leaves only chance correlations.
        seed: of the resampling.

    Returns:
        `NEURON_MATCH` without `other_run_id`: the one's neurons with their partners in the other, and the reverse.
        Partners are those of largest |correlation|, ties to the lower index. NULL with the reason for a neuron that
        does not vary.
    """
    left, right = one.standardised(), other.standardised()
    matrix = left.T @ right
    chance = [np.zeros(matrix.shape[0]), np.zeros(matrix.shape[1])]
    starts = np.flatnonzero(np.diff(one.window, prepend=one.window[0] - 1))
    shifts = np.unique(np.linspace(0, len(starts), rotations + 2)[1:-1].astype(int))
    shifts = shifts[(shifts > 0) & (shifts < len(starts))]
    for shift in shifts:
        rotated = np.abs(left.T @ np.roll(right, -int(starts[shift]), axis=0))
        chance[0] += rotated.max(axis=1) / len(shifts)
        chance[1] += rotated.max(axis=0) / len(shifts)
    best = np.abs(matrix).argmax(axis=1), np.abs(matrix).argmax(axis=0)
    found = []
    for (own, its), partner, back, by_chance in zip(
        ((left, right), (right, left)), best, best[::-1], chance, strict=True
    ):
        rows = _rows(own, its[:, partner], one.window, draws, seed)
        for neuron, row in enumerate(rows):
            row |= {"neuron": neuron, "positions": len(one.window), "draws": draws, "windows": len(starts)}
            if row["reason"] != CONSTANT:
                mutual = bool(back[partner[neuron]] == neuron)
                row |= {"other_neuron": int(partner[neuron]), "is_mutual": mutual}
                row |= {"chance_correlation": float(by_chance[neuron]) if len(shifts) else None}
        found.append(table(rows, NEURON_MATCH))
    return found[0], found[1]


def _rows(own: FloatArray, partner: FloatArray, window: IntArray, draws: int, seed: int) -> list[dict[str, Any]]:
    """The correlation of each neuron with its partner and its interval over windows, from standardised activations."""
    starts = np.flatnonzero(np.diff(window, prepend=window[0] - 1))
    sums = [
        np.add.reduceat(values, starts, axis=0)
        for values in (own * partner, own, partner, own * own, partner * partner)
    ]
    sums = [values.astype(np.float64) for values in sums]  # (W, N)
    counts = np.diff(np.append(starts, len(window))).astype(float)
    whole = _correlation(np.ones((1, len(starts))), counts, sums)[0]
    samples = np.zeros((0, own.shape[1]))
    if len(starts) > 1:
        rng, size, parts = np.random.default_rng(seed), max(1, BATCH // own.shape[1]), []
        for done in range(0, draws, size):
            weights = rng.multinomial(len(starts), np.full(len(starts), 1 / len(starts)), size=min(size, draws - done))
            parts.append(_correlation(weights.astype(float), counts, sums))
        samples = np.concatenate(parts)
    rows = []
    for neuron, value in enumerate(whole.tolist()):
        if not np.isfinite(value):
            rows.append({"reason": CONSTANT})
            continue
        interval = plain_interval(value, samples[:, neuron]) if len(samples) else None
        ends = {} if interval is None else {"correlation_low": interval.low, "correlation_high": interval.high}
        rows.append({"correlation": value, "reason": None if len(samples) else SINGLE_WINDOW} | ends)
    return rows


def _correlation(weights: FloatArray, counts: FloatArray, sums: list[FloatArray]) -> FloatArray:
    """Pearson's correlation with windows weighted (B, W), shape (B, N); NaN where one does not vary."""
    n = (weights @ counts)[:, None]
    xy, x, y, xx, yy = (weights @ values / n for values in sums)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = (xy - x * y) / np.sqrt((xx - x * x) * (yy - y * y))
    return np.asarray(np.clip(found, -1.0, 1.0))


def plateau_match(
    matches: pl.DataFrame, ranks: tuple[pl.DataFrame, pl.DataFrame], heads: tuple[Mapping[Any, int], Mapping[Any, int]]
) -> pl.DataFrame:
    """Whether the neurons of one run's head have their partners in the other's, group by group.

    Args:
        matches: `NEURON_MATCH` of the run with one other.
        ranks: `neuron_influence` of the run and of the other: preset, token_group, neuron, rank.
        heads: b of each, by preset and token group.

    Returns:
        `PLATEAU_MATCH` without `other_run_id`. The p-value is the binomial tail with partners drawn at random from the
        other's layer. NULL with the reason where a run has no head.
    """
    known = matches.filter(pl.col("other_neuron").is_not_null())
    neurons = ranks[1]["neuron"].n_unique()
    rows = []
    for preset, group in ranks[0].select("preset", "token_group").unique(maintain_order=True).rows():
        row: dict[str, Any] = {"preset": preset, "token_group": group}
        first, other_first = (one.get((preset, group)) for one in heads)
        row |= {"first": first, "other_first": other_first}
        row |= {"layer_correlation": known["correlation"].abs().mean()}
        row |= {"chance_correlation": known["chance_correlation"].mean()}
        if first is None or other_first is None:
            rows.append(row | {"reason": NO_HEAD})
            continue
        own, its = (
            set(one.filter(pl.col("rank") <= last, preset=preset, token_group=group)["neuron"].to_list())
            for one, last in zip(ranks, (first, other_first), strict=True)
        )
        head = known.filter(pl.col("neuron").is_in(list(own)))
        matched = len(head.filter(pl.col("other_neuron").is_in(list(its))))
        share = len(its) / neurons
        row |= {"matched": matched, "expected": len(head) * share, "head_correlation": head["correlation"].abs().mean()}
        rows.append(row | {"p_value": float(stats.binom.sf(matched - 1, len(head), share))})
    return table(rows, PLATEAU_MATCH)


def unmatched(reason: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The rows of both relations, without `other_run_id`, of two runs that cannot be matched."""
    return table([{"reason": joined(reason)}], NEURON_MATCH), table([{"reason": joined(reason)}], PLATEAU_MATCH)
