"""Which neurons are for rare tokens, and not merely important: relation `neuron_specificity`.

Influence has a common factor: rare targets are predicted worse, and every neuron moves a badly predicted target more.
So each neuron's mean |Δ| at rare positions is divided by that at common positions of the same baseline loss, and by the
median of this ratio over the neurons of the layer. Whether a ratio is more than chance is tested by permuting the
labels rare and common within windows and strata of loss, for all neurons at once (maxT, Westfall & Young 1993).
"""

from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from rare_tokens.analyses.analysis import EFFECTS, Analysis, Ask, Results, Source
from rare_tokens.analyses.curve.effect_cells import COMMON, MATCHED, PRESETS, RARE, SINGLE_WINDOW
from rare_tokens.analyses.curve.line_intervals import plain_interval
from rare_tokens.analyses.result_table import FloatArray, IntArray, joined, table
from rare_tokens.analyses.specificity.contrasts import Contrasting, Contrasts
from rare_tokens.analyses.specificity.strata import NO_MIXED, Strata, strata

LOSS, LOSS_AND_WORD = "loss", "loss+word"
MATCHINGS = (LOSS, LOSS_AND_WORD)
LEVEL = 0.05
LARGE, SMALL = 1.25, 0.8  # ratios beyond which a neuron is called specific
ROUNDING = 1e-6  # of sums in float32: permutations as extreme as the labels in hand up to it are ties
FEW_SAMPLES = "too few samples of windows have a common position in every stratum of loss"
NO_EFFECT = "its effects are 0 at the rare or the common positions, or in a permutation of them"

NEURON_SPECIFICITY: dict[str, Any] = {
    "preset": pl.String,
    "matching": pl.String,  # `loss`, or `loss+word`: of words that start a word alone
    "neuron": pl.Int64,  # NULL in the single row of a preset that cannot be compared
    "ratio": pl.Float64,  # e^S
    "ratio_low": pl.Float64,  # 95 % interval over windows
    "ratio_high": pl.Float64,
    "p_value": pl.Float64,
    "adjusted_p_value": pl.Float64,  # over all neurons of the layer (maxT)
    "detectable_ratio": pl.Float64,  # the least ratio with an adjusted p-value below 0.05
    "specific_to": pl.String,  # `rare`, `common`, or NULL
    "rare_positions": pl.Int64,
    "common_positions": pl.Int64,
    "permuted_positions": pl.Int64,  # in cells with rare and common ones
    "windows": pl.Int64,
    "draws": pl.Int64,
    "permutations": pl.Int64,
    "reason": pl.String,
}


@dataclass(frozen=True)
class Tests:
    """S of N neurons and its permutation test; NaN where it is undefined.

    Attributes:
        specificity: S, shape (N,).
        p_value: of each neuron alone, shape (N,).
        adjusted: p of the largest |t| over all neurons, shape (N,).
        detectable: the least |S| whose adjusted p is below `LEVEL`, shape (N,).
    """

    specificity: FloatArray
    p_value: FloatArray
    adjusted: FloatArray
    detectable: FloatArray


def permutation_tests(contrasts: Contrasts) -> Tests:
    """S = C less the median over neurons, with t = S / sd over the permutations, in every one of them.

    p_i = (1 + #{|t*_i| ≥ |t_i|}) / (1 + B), and adjusted (1 + #{max_j |t*_j| ≥ |t_i|}) / (1 + B).
    """
    own, permuted = contrasts.own, contrasts.permuted
    known = np.isfinite(own) & np.isfinite(permuted).all(axis=1)
    found = Tests(*(np.full(len(own), np.nan) for _ in range(4)))
    found.specificity[np.isfinite(own)] = own[np.isfinite(own)] - np.median(own[np.isfinite(own)])
    if not known.any():
        return found
    null = permuted[known] - np.median(permuted[known], axis=0)
    spread = null.std(axis=1, ddof=1)
    moves = spread > 0
    known[known] = moves
    null = np.abs(null[moves] / spread[moves, None])
    t = np.abs(found.specificity[known]) / spread[moves] * (1 - ROUNDING)
    largest = np.sort(null.max(axis=0)) if len(null) else np.zeros(permuted.shape[1])
    count = permuted.shape[1] + 1
    found.p_value[known] = (1 + (null >= t[:, None]).sum(axis=1)) / count
    found.adjusted[known] = (1 + len(largest) - np.searchsorted(largest, t)) / count
    above = int(np.ceil(LEVEL * count - 1e-9)) - 2  # permutations that may reach t
    if 0 <= above < len(largest):
        found.detectable[known] = largest[len(largest) - 1 - above] * spread[moves]
    return found


def ratio_intervals(specificity: FloatArray, resampled: FloatArray) -> list[tuple[float, float] | None]:
    """The 95 % interval of each neuron's ratio e^S; None where too few samples of windows have a value.

    Args:
        specificity: S, shape (N,).
        resampled: C in samples of windows, shape (N, draws).
    """
    defined = np.isfinite(resampled).any(axis=0)  # a sample without a rare position, or a stratum, has no value
    if not defined.any():
        return [None] * len(specificity)
    centred = np.full_like(resampled, np.nan)
    of_defined = resampled[:, defined]
    centred[:, defined] = of_defined - np.nanmedian(np.where(np.isfinite(of_defined), of_defined, np.nan), axis=0)
    found = []
    for value, samples in zip(specificity.tolist(), centred, strict=True):
        interval = plain_interval(value, samples) if np.isfinite(value) else None
        found.append(None if interval is None else (float(np.exp(interval.low)), float(np.exp(interval.high))))
    return found


def specific_to(ratio: float, adjusted: float) -> str | None:
    """Whether a neuron is called specific to rare or to common tokens."""
    if adjusted < LEVEL and ratio > LARGE:
        return RARE
    if adjusted < LEVEL and ratio < SMALL:
        return COMMON
    return None


def neuron_rows(neurons: IntArray, contrasts: Contrasts) -> Iterator[dict[str, Any]]:
    """The columns of `NEURON_SPECIFICITY` that are a neuron's own.

    Args:
        neurons: indices, shape (N,).
        contrasts: of these neurons.
    """
    tests = permutation_tests(contrasts)
    intervals = ratio_intervals(tests.specificity, contrasts.resampled)
    lacking = FEW_SAMPLES if contrasts.resampled.shape[1] else SINGLE_WINDOW
    every = (neurons, tests.specificity, tests.p_value, tests.adjusted, tests.detectable)
    for neuron, value, p, adjusted, least, interval in zip(*(one.tolist() for one in every), intervals, strict=True):
        nothing = NO_EFFECT if np.isnan(p) else None
        row: dict[str, Any] = {"neuron": neuron, "reason": joined(nothing, None if interval else lacking)}
        if np.isfinite(value):
            row["ratio"] = float(np.exp(value))
        if not np.isnan(p):
            row |= {"p_value": p, "adjusted_p_value": adjusted, "specific_to": specific_to(row["ratio"], adjusted)}
            row |= {"detectable_ratio": float(np.exp(least)) if np.isfinite(least) else None}
        if interval is not None:
            row |= {"ratio_low": interval[0], "ratio_high": interval[1]}
        yield row


@dataclass(frozen=True)
class Wanted:
    """One preset and matching, with its positions.

    Attributes:
        preset: the preset.
        matching: one of `MATCHINGS`.
        rare: number of its rare positions.
        common: number of its common positions.
        found: the strata of both.
    """

    preset: str
    matching: str
    rare: int
    common: int
    found: Strata

    @property
    def reason(self) -> str | None:
        """Why there is nothing to measure; None: there is."""
        return self.found.reason or (None if self.found.mixed().any() else NO_MIXED)


def wanted(positions: pl.DataFrame) -> list[Wanted]:
    """The strata of every preset and matching.

    Args:
        positions: of a run in order of position_id: window_id, loss, is_start (the target is a word that starts a
            word), and for each preset a column with `rare`, `common` or NULL.
    """
    loss, window = positions["loss"].to_numpy(), positions["window_id"].to_numpy()
    starts = positions["is_start"].to_numpy()
    found = []
    for preset in [name for name in (*PRESETS, MATCHED) if name in positions.columns]:
        for matching in MATCHINGS:
            sides = [(positions[preset] == side).fill_null(value=False).to_numpy() for side in (RARE, COMMON)]
            rare, common = sides if matching == LOSS else [side & starts for side in sides]
            cut = strata(loss, window, rare, common)
            found.append(Wanted(preset, matching, int(rare.sum()), int(common.sum()), cut))
    return found


def _positions(ask: Ask) -> pl.DataFrame:
    """The positions of a run as `wanted` takes them; in matched contexts a window is a pair."""
    found = ask(Source("dim_position", columns=("position_id", "window_id", "loss")))
    pairs = ask(Source("position_context", columns=("position_id", "pair_id")))
    graded = ask(Source("position_frequency", columns=("position_id", "is_word", "starts_word")))
    groups = ask(Source("position_group", columns=("preset", "token_group", "position_id")))
    presets = [*PRESETS, *([MATCHED] if len(pairs) else [])]
    for preset in presets:
        of_preset = groups.filter(preset=preset).select("position_id", pl.col("token_group").alias(preset))
        found = found.join(of_preset, on="position_id", how="left")
    found = found.join(pairs, on="position_id", how="left").join(graded, on="position_id", how="left")
    return found.sort("position_id").with_columns(
        window_id=pl.coalesce("pair_id", "window_id"),
        is_start=(pl.col("is_word") & pl.col("starts_word")).fill_null(value=False),
    )


def neuron_specificity(ask: Ask, *, draws: int, permutations: int, seed: int) -> pl.DataFrame:
    """`NEURON_SPECIFICITY` of a run: one row per preset, matching and neuron, or one with the reason.

    Args:
        ask: for `EFFECTS`, `dim_position`, `position_group`, `position_frequency` and `position_context`.
        draws: bootstrap samples of windows.
        permutations: of the labels, B.
        seed: of both.
    """
    given = {"draws": draws, "permutations": permutations, "seed": seed}
    every = wanted(_positions(ask))
    measured = [None if one.reason else Contrasting(one.found, **given) for one in every]
    if contrastings := [one for one in measured if one is not None]:
        for magnitude in ask(Source(EFFECTS)):
            for each in contrastings:
                each.add(magnitude)
    rows: list[dict[str, Any]] = []
    for one, contrasting in zip(every, measured, strict=True):
        key = {"preset": one.preset, "matching": one.matching, "draws": draws, "permutations": permutations}
        key |= {"rare_positions": one.rare, "common_positions": one.common, "windows": one.found.windows}
        if contrasting is None:
            rows.append(key | {"reason": one.reason})
            continue
        key["permuted_positions"] = contrasting.permuted_positions
        contrasts = contrasting.result()
        rows += [key | row for row in neuron_rows(np.arange(len(contrasts.own)), contrasts)]
    return table(rows, NEURON_SPECIFICITY)


def _compute(ask: Ask, parameters: Mapping[str, Any], _pool: Executor | None) -> Results:
    return {"neuron_specificity": neuron_specificity(ask, **parameters)}


ANALYSIS = Analysis(
    "neuron_specificity",
    {"neuron_specificity": NEURON_SPECIFICITY},
    (EFFECTS, "dim_position", "position_group", "position_frequency", "position_context"),
    _compute,
    {"draws": 1_000, "permutations": 2_000, "seed": 0},
)
