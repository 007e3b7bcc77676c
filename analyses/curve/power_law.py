"""The line: the power law of a curve of influence, between a head and a tail (ES eq. 6 and 12, NC eq. 4).

Head, power law and tail are one least-squares fit over the first half of the ranks (`head_fits`), one point per
rank, with the head's end b, its step s and its slope κ + h free, and a tail of strength τ ≥ 0. The power law
holds from rank b + 1 to rank e, where the tail has taken 0.1 off. If that window is shorter than a factor of e, or
fewer than 80 % of its ranks lie within 0.1 of the line, there is no power law: κ is None, and the reason says why.

The head is the one with the smallest residual sum of squares. Many heads fit a curve without one equally well, and
often the best leaves the power law no room; so a head that does leave room is preferred if it costs no more than 15 %
of the residuals. (Without this, 32 % of fixed curves on an exact power law with τ = 0.8, N = 1,536, would seem to have
none; a head that is really there costs more to move.)
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl

from rare_tokens.analyses.curve.effect_cells import ALL_ROLES, MEAN_ABS, ROLES, STATISTICS
from rare_tokens.analyses.curve.head_fits import Coefficients, HeadFits, fitted_ranks
from rare_tokens.analyses.curve.ranked_curve import influence_curve, log_rank
from rare_tokens.analyses.result_table import BoolArray, FloatArray, IntArray, table

LEAST_NEURONS = 150
TAIL_TAKES = 0.1  # in log influence: from here on the curve is tail
NEAR, ABOVE = 0.1, 0.5  # distances from the line (NC §3): within is near it, beyond is above it
LEAST_LOG_WIDTH = 1.0  # of the window, in ln rank
LEAST_STRAIGHT = 0.8  # share of the window's ranks that lie near the line
SAME = 1e-9  # differences of log influence up to here are rounding errors
NEEDLESS = 1.15  # times the smallest residual sum of squares, at most, for a head that leaves the power law room
BATCH = 4_000_000  # numbers fitted at once

CURVE_KEY: dict[str, Any] = {  # identifies a curve of influence
    "preset": pl.String,
    "token_group": pl.String,
    "statistic": pl.String,  # mean_abs (mean |Δ|) or abs_mean (|mean Δ|)
    "role": pl.String,  # all neurons, or those of one sign: boost, suppress
}
POWER_LAW_FIT: dict[str, Any] = CURVE_KEY | {
    "rank_window": pl.String,
    "kappa": pl.Float64,
    "beta": pl.Float64,
    "r2": pl.Float64,
    "tail": pl.Float64,
    "head_rank": pl.Int64,
    "step": pl.Float64,
    "head_slope": pl.Float64,
    "first_rank": pl.Int64,
    "last_rank": pl.Int64,
    "straight_share": pl.Float64,
    "ranks": pl.Int64,  # neurons with an influence above 0
    "reason": pl.String,  # why there is no power law
}


@dataclass(frozen=True)
class PowerLaw:
    """The line of one curve. Without a power law, κ and β are None and the reason says why.

    Attributes:
        kappa: κ: log influence = β − κ ln rank on the window.
        beta: β.
        tail: τ, strength of the tail; 0 without one.
        head_rank: b, last rank of the head.
        step: s, by how much the head stands above the power law at its end, in log influence; either sign.
        head_slope: κ + h, minus the head's slope in ln rank.
        first_rank: first rank of the window, b + 1.
        last_rank: last rank of the window, included.
        straight_share: share of the window's ranks with |δ| < 0.1.
        r2: on the window: 1 − Σ δ² / Σ (y − mean y)². It can be below 0, since the line is not fitted to the window
            alone; None if the window holds fewer than two ranks or nothing varies on it.
        reason: why there is no power law, or no fit at all (then everything else is None); None if there is one.
    """

    kappa: float | None = None
    beta: float | None = None
    tail: float | None = None
    head_rank: int | None = None
    step: float | None = None
    head_slope: float | None = None
    first_rank: int | None = None
    last_rank: int | None = None
    straight_share: float | None = None
    r2: float | None = None
    reason: str | None = None

    def deviation(self, curve: FloatArray) -> FloatArray | None:
        """δ(rank) = log influence − (β − κ ln rank), shape (n,) (ES §4.1); None without a power law.

        In the head it is measured against an extrapolation.
        """
        if self.kappa is None or self.beta is None:
            return None
        return np.asarray(curve - (self.beta - self.kappa * log_rank(len(curve))))


@dataclass(frozen=True)
class PowerLaws:
    """The lines of B curves, shape (B,) each: the fit's coefficients, even where the power law does not hold.

    Attributes:
        fit: κ, β, τ, b, s, h and the residual sum of squares.
        last_rank: e.
        straight_share: as in `PowerLaw`; 0 if the window is empty.
        r2: as in `PowerLaw`; NaN if that is None.
        wide: whether ln(e/(b+1)) ≥ 1.
        straight: whether `straight_share` ≥ 0.8.
    """

    fit: Coefficients
    last_rank: IntArray
    straight_share: FloatArray
    r2: FloatArray
    wide: BoolArray
    straight: BoolArray

    @property
    def holds(self) -> BoolArray:
        """Whether there is a power law, shape (B,)."""
        return self.wide & self.straight

    @property
    def head_slope(self) -> FloatArray:
        """κ + h, shape (B,)."""
        return np.asarray(self.fit.kappa + self.fit.hinge)


def power_law_line(influence: pl.DataFrame) -> pl.DataFrame:
    """The line of every curve of a run; publishing calls this to fill `power_law_fit`.

    Args:
        influence: `neuron_influence` of one run: preset, token_group, influence, abs_mean_delta_loss, role; other
            columns are ignored.

    Returns:
        `POWER_LAW_FIT`, one row per preset × token_group × statistic × role.
    """
    rows: list[dict[str, Any]] = []
    for (preset, token_group), group in influence.group_by("preset", "token_group", maintain_order=True):
        for statistic in STATISTICS:
            for role in ROLES:
                curve = stored_curve(group, statistic, role)
                key = {"preset": preset, "token_group": token_group, "statistic": statistic, "role": role}
                rows.append(key | {"rank_window": "auto", "ranks": len(curve)} | asdict(power_law(curve)))
    return table(rows, POWER_LAW_FIT)


def stored_curve(influence: pl.DataFrame, statistic: str = MEAN_ABS, role: str = ALL_ROLES) -> FloatArray:
    """One curve of a token group, from its rows of `neuron_influence`, shape (n,).

    Args:
        influence: rows of one run, preset and token group: influence, abs_mean_delta_loss, role.
        statistic: `mean_abs` or `abs_mean`.
        role: `all`, `boost` or `suppress`.
    """
    chosen = influence if role == ALL_ROLES else influence.filter(pl.col("role") == role)
    return influence_curve(chosen["influence" if statistic == MEAN_ABS else "abs_mean_delta_loss"].to_numpy())


def why_no_line(curve: FloatArray) -> str | None:
    """Why a curve cannot be fitted at all; None if it can.

    Args:
        curve: log influence in descending order, without neurons that have none, shape (n,).
    """
    if len(curve) < LEAST_NEURONS:
        return f"{len(curve)} neurons with an influence above 0; a power law needs {LEAST_NEURONS}"
    if not np.isfinite(curve).all():
        return "an influence is not finite"
    if np.ptp(curve[: fitted_ranks(len(curve))]) <= SAME:
        return "the more influential half of the neurons all have the same influence"
    return None


def power_law(curve: FloatArray) -> PowerLaw:
    """The line of one curve.

    Args:
        curve: log influence in descending order, without neurons that have none, shape (n,).
    """
    reason = why_no_line(curve)
    if reason:
        return PowerLaw(reason=reason)
    found = power_laws(curve[None, :])
    fit = found.fit
    head, last = int(fit.head_rank[0]), int(found.last_rank[0])
    holds = bool(found.holds[0])
    return PowerLaw(
        kappa=float(fit.kappa[0]) if holds else None,
        beta=float(fit.beta[0]) if holds else None,
        tail=float(fit.tail[0]),
        head_rank=head,
        step=float(fit.step[0]),
        head_slope=float(found.head_slope[0]),
        first_rank=head + 1,
        last_rank=last,
        straight_share=float(found.straight_share[0]),
        r2=float(found.r2[0]) if np.isfinite(found.r2[0]) else None,
        reason=None if holds else _why_no_power_law(found),
    )


def _why_no_power_law(found: PowerLaws) -> str:
    first, last = int(found.fit.head_rank[0]) + 1, int(found.last_rank[0])
    if last <= first:
        return f"no power law: the tail begins at rank {last}, within the head of {first - 1}"
    if not found.wide[0]:
        return (
            f"no power law: ranks {first} to {last} between head and tail span {np.log(last / first):.2f} in ln rank, "
            f"less than {LEAST_LOG_WIDTH:g}"
        )
    return (
        f"no power law: {100 * found.straight_share[0]:.0f} % of the ranks {first} to {last} lie within {NEAR} of the "
        f"line, fewer than {100 * LEAST_STRAIGHT:.0f} %"
    )


def power_laws(curves: FloatArray) -> PowerLaws:
    """The lines of several curves of the same length.

    Args:
        curves: log influence in descending order, shape (B, n), n ≥ 150, finite.

    Raises:
        ValueError: the curves have fewer than 150 ranks.
    """
    n = curves.shape[1]
    if n < LEAST_NEURONS:
        raise ValueError(f"curves of {n} ranks; a power law needs {LEAST_NEURONS}")
    size = max(1, BATCH // n)
    parts = [_fit(curves[start : start + size]) for start in range(0, max(1, len(curves)), size)]
    return parts[0] if len(parts) == 1 else _concatenated(parts)


def window_end(tail: FloatArray, n: int) -> IntArray:
    """e: the last rank at which a tail of strength τ takes less than 0.1, at most R, shape (B,)."""
    ranks = fitted_ranks(n)
    takes = np.divide(TAIL_TAKES, tail, out=np.full(tail.shape, np.inf), where=tail > 0)
    return np.minimum(ranks, np.floor(-(n + 1) * np.expm1(-takes))).astype(np.int64)


def _fit(curves: FloatArray) -> PowerLaws:
    n = curves.shape[1]
    fits = HeadFits(curves)
    fit = fits.at(_heads(fits), step=True)
    last = window_end(fit.tail, n)
    ranks = np.arange(1, fitted_ranks(n) + 1)
    inside = (ranks > fit.head_rank[:, None]) & (ranks <= last[:, None])
    count = np.maximum(inside.sum(axis=1), 1)
    y = curves[:, : len(ranks)]
    deviation = y - (fit.beta[:, None] - fit.kappa[:, None] * log_rank(len(ranks)))
    share = (inside & (np.abs(deviation) < NEAR)).sum(axis=1) / count
    mean = (y * inside).sum(axis=1) / count
    spread = ((y - mean[:, None]) ** 2 * inside).sum(axis=1)
    rss = (deviation**2 * inside).sum(axis=1)
    r2 = 1 - np.divide(rss, spread, out=np.full(len(y), np.nan), where=spread > 0)
    wide = _log_width(fit.head_rank, last) >= LEAST_LOG_WIDTH
    return PowerLaws(fit, last, share, r2, wide, share >= LEAST_STRAIGHT)


def _heads(fits: HeadFits) -> IntArray:
    """Each line's head, as its place among the possible ends, shape (B,).

    The one with the smallest residual sum of squares. Any head fits a curve without one about as well, so the best may
    leave the power law no room; a head that does leave room is preferred if it costs little more.
    """
    rss = fits.rss(step=True)
    room = _log_width(fits.ends, window_end(fits.tails(step=True), fits.n)) >= LEAST_LOG_WIDTH
    roomy = np.argmin(np.where(room, rss, np.inf), axis=1)
    best, rows = np.argmin(rss, axis=1), np.arange(len(rss))
    cheap = room[rows, roomy] & (rss[rows, roomy] <= NEEDLESS * rss[rows, best])
    return np.where(cheap, roomy, best)


def _log_width(head_rank: IntArray, last_rank: IntArray) -> FloatArray:
    return np.asarray(np.log(np.maximum(last_rank, 1) / (head_rank + 1)))


def _concatenated(parts: list[PowerLaws]) -> PowerLaws:
    def all_of(name: str, of: list[Any]) -> Any:
        return np.concatenate([getattr(part, name) for part in of])

    fits = [part.fit for part in parts]
    fit = Coefficients(**{name: all_of(name, fits) for name in Coefficients.__dataclass_fields__})
    names = [name for name in PowerLaws.__dataclass_fields__ if name != "fit"]
    return PowerLaws(fit, **{name: all_of(name, parts) for name in names})
