"""Effects summed over cells of like positions (`agg_effect`): which cells a threshold selects, and their sums.

What moves a percentile or resamples windows reads these sums instead of the facts. A bucket can stand for a percentile
only when that is compared with a multiple of 5 up to 50, so these are the possible thresholds.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from rare_tokens.analyses.result_table import BoolArray, FloatArray, IntArray
from rare_tokens.common import presets
from rare_tokens.common.errors import UserError

# Presets that draw a line, with its percentile; and the one that draws none, in runs of matched contexts.
PRESETS = {name: one.percentile for name, one in presets.PRESETS.items() if one.percentile is not None}
(MATCHED,) = presets.PRESETS.keys() - PRESETS.keys()
RARE, COMMON = "rare", "common"
TOKEN_GROUPS = (RARE, COMMON)
# A curve of influence is of one statistic over the neurons of one role; the first of each is the default.
MEAN_ABS, ABS_MEAN = "mean_abs", "abs_mean"
ALL_ROLES, BOOST, SUPPRESS = "all", "boost", "suppress"
STATISTICS, ROLES = (MEAN_ABS, ABS_MEAN), (ALL_ROLES, BOOST, SUPPRESS)
NO_POSITION = "no position in the group"
SINGLE_WINDOW = "a single window of text: nothing to resample"
STEP, LARGEST = 5, 50
CELL = ("percentile_bucket", "occurrence_bucket", "is_word", "is_elbow")


def check_percentile(percentile: float) -> None:
    """Refuse a threshold that cells cannot answer.

    Raises:
        UserError: it is not a percentile, or not a multiple of 5 up to 50.
    """
    if not 0 <= percentile <= 100:
        raise UserError(f"{percentile:g} is not a percentile. Give one between 0 and 100.")
    if percentile % STEP or percentile > LARGEST:
        raise UserError(
            f"Percentile {percentile:g} cannot be answered from sums. Give a multiple of {STEP} up to {LARGEST}, "
            f"or use influence_at, which reads every effect."
        )


def in_group(preset: str, token_group: str, percentile: float | None = None) -> pl.Expr:
    """Which cells a preset calls rare or common with its line at `percentile`.

    The rule is that of the SQL macro `token_group_of`, applied to cells in memory.

    Args:
        preset: a name in `common.presets.PRESETS`.
        token_group: `rare` or `common`.
        percentile: a multiple of 5 up to 50; None: the preset's own.

    Returns:
        A condition on the columns `CELL`, or for `nc-matched` on `matched_group`.

    Raises:
        UserError: the preset or group is unknown, or cells cannot answer the percentile.
    """
    rule = presets.PRESETS.get(preset)
    if rule is None or token_group not in TOKEN_GROUPS:
        raise UserError(
            f"No token group {preset} {token_group}. Presets are {', '.join(presets.PRESETS)}; groups are rare, common."
        )
    if rule.percentile is None:
        if percentile is not None:
            raise UserError(
                f"Preset {preset} has no percentile: its tokens are matched by ingest. Leave the percentile out."
            )
        return pl.col("matched_group") == token_group
    line = rule.percentile if percentile is None else percentile
    check_percentile(line)
    place = pl.col("occurrence_bucket" if rule.occurrences else "percentile_bucket")
    if token_group == RARE:
        side = place < line
        side = side & pl.col("is_word") if rule.words else side
    else:
        side = place > line if rule.strict else place >= line
    return side if rule.elbow else side & ~pl.col("is_elbow")


@dataclass(frozen=True)
class WindowSums:
    """Each neuron's effects on one token group, summed per window.

    Attributes:
        neurons: indices, ascending, shape (N,).
        positions: positions of the group in each window that has any, shape (W,).
        sums: nats, shape (N, W): Σ |Δ| where influence is the mean of |Δ| (`mean_abs`), Σ Δ where it is the absolute
            value of the mean (`abs_mean`).
    """

    neurons: IntArray
    positions: FloatArray
    sums: FloatArray

    @property
    def windows(self) -> int:
        """W."""
        return len(self.positions)

    def mean(self) -> FloatArray:
        """Mean of the summed quantity over the group's positions, with its sign, shape (N,)."""
        return np.asarray(self.sums.sum(axis=1) / self.positions.sum())

    def influence(self) -> FloatArray:
        """Mean |Δ|, or |mean Δ|, of each neuron over the group's positions, shape (N,)."""
        return np.abs(self.mean())

    def log_error(self) -> FloatArray | None:
        """Standard error of each neuron's log influence, shape (N,); None with a single window.

        The linearised error of a ratio of sums over windows, the independent units; 0 where influence is 0.
        """
        if self.windows < 2:
            return None
        mean = self.mean()
        rest = self.sums - mean[:, None] * self.positions
        error = np.sqrt((rest**2).sum(axis=1) * self.windows / (self.windows - 1)) / self.positions.sum()
        return np.divide(error, np.abs(mean), out=np.zeros_like(error), where=mean != 0)

    def resampled_mean(self, draws: int, rng: np.random.Generator) -> FloatArray:
        """`mean` in bootstrap samples of windows, shape (draws, N); NaN in a sample without a position."""
        counts = rng.multinomial(self.windows, np.full(self.windows, 1 / self.windows), size=draws).astype(float)
        with np.errstate(invalid="ignore"):
            return np.asarray(counts @ self.sums.T / (counts @ self.positions)[:, None])

    def resampled(self, draws: int, rng: np.random.Generator) -> FloatArray:
        """`influence` in bootstrap samples of windows, shape (draws, N); NaN in a sample without a position."""
        return np.abs(self.resampled_mean(draws, rng))

    def of(self, chosen: BoolArray) -> "WindowSums":
        """The same for the chosen neurons only, shape (N,)."""
        return WindowSums(self.neurons[chosen], self.positions, self.sums[chosen])


@dataclass(frozen=True)
class GroupSums:
    """Both sums of each neuron's effects on one token group, over the same windows.

    Attributes:
        absolute: sums of |Δ|.
        signed: sums of Δ.
    """

    absolute: WindowSums
    signed: WindowSums

    def curve(self, statistic: str = MEAN_ABS, role: str = ALL_ROLES) -> WindowSums:
        """The sums behind one curve of influence.

        Args:
            statistic: `mean_abs` or `abs_mean`.
            role: `all`; `boost`: only the neurons whose mean Δ is above 0; `suppress`: below 0.
        """
        sums = self.absolute if statistic == MEAN_ABS else self.signed
        if role == ALL_ROLES:
            return sums
        mean = self.signed.sums.sum(axis=1)
        return sums.of(mean > 0 if role == BOOST else mean < 0)


def group_sums(cells: pl.DataFrame, preset: str, token_group: str, percentile: float | None = None) -> GroupSums | str:
    """Sum a token group's cells per window.

    Args:
        cells: `agg_effect` of one run: neuron, window_id, `CELL`, positions, abs_delta_sum, delta_sum.
        preset: as in `in_group`.
        token_group: as in `in_group`.
        percentile: as in `in_group`.

    Returns:
        The sums, or why there are none.

    Raises:
        UserError: as `in_group`.
    """
    chosen = cells.lazy().filter(in_group(preset, token_group, percentile))
    found = (
        chosen.group_by("neuron", "window_id")
        .agg(pl.col("positions", "abs_delta_sum", "delta_sum").sum())
        .sort("neuron", "window_id")
        .collect()
    )
    if found.is_empty():
        return NO_POSITION
    neurons = found["neuron"].unique(maintain_order=True).to_numpy()
    positions = found["positions"].to_numpy().reshape(len(neurons), -1)
    assert (positions == positions[0]).all(), "every neuron is ablated at every position"
    absolute, signed = (
        WindowSums(neurons, positions[0].astype(float), found[name].to_numpy().reshape(len(neurons), -1).astype(float))
        for name in ("abs_delta_sum", "delta_sum")
    )
    return GroupSums(absolute, signed)


def window_sums(
    cells: pl.DataFrame, preset: str, token_group: str, percentile: float | None = None
) -> WindowSums | str:
    """The sums of |Δ| of `group_sums`, or why there are none."""
    found = group_sums(cells, preset, token_group, percentile)
    return found if isinstance(found, str) else found.absolute


def aligned_sums(
    cells: pl.DataFrame, groups: Sequence[tuple[str, str]], percentile: float | None = None
) -> dict[tuple[str, str], WindowSums]:
    """Sum several token groups' |Δ| over the same windows: those with positions of any of them.

    Args:
        cells: as for `group_sums`.
        groups: presets and token groups.
        percentile: as in `in_group`.

    Returns:
        The sums of each group that has a position, over the same neurons and windows (0 where a window has no such
        position).

    Raises:
        UserError: as `in_group`.
    """
    chosen = {f"{place}": in_group(preset, group, percentile) for place, (preset, group) in enumerate(groups)}
    sums = (
        cells.lazy()
        .group_by("neuron", "window_id")
        .agg(
            *(pl.col("positions").filter(rule).sum().alias(f"{name}_n") for name, rule in chosen.items()),
            *(pl.col("abs_delta_sum").filter(rule).sum().alias(name) for name, rule in chosen.items()),
        )
        .filter(pl.any_horizontal(pl.col(f"{name}_n") > 0 for name in chosen))
        .sort("neuron", "window_id")
        .collect()
    )
    neurons = sums["neuron"].unique(maintain_order=True).to_numpy()
    found = {}
    for name, key in zip(chosen, groups, strict=True):
        if sums[f"{name}_n"].sum():
            positions, totals = (
                sums[column].to_numpy().reshape(len(neurons), -1).astype(float) for column in (f"{name}_n", name)
            )
            found[key] = WindowSums(neurons, positions[0], totals)
    return found
