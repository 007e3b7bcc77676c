"""What a gradient would have said: relation `attribution_agreement`, first-order estimates beside exact effects.

Attribution multiplies an edit by the gradient of the loss. That is the first term of the effect's series, so it is good
for small effects and wrong where the loss bends. Here both are known for every pair of neuron and position: do the
estimates rank the neurons alike, have they the right sign, and how far off are they?
"""

from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from typing import Any

import numpy as np
import polars as pl

from rare_tokens.analyses.agreement.rankings import (
    SHARED,
    TOPS,
    Compared,
    agreements,
    interval_columns,
    with_interval,
)
from rare_tokens.analyses.analysis import GROUP_KEY, Analysis, Ask, Results, Source
from rare_tokens.analyses.curve.effect_cells import (
    MATCHED,
    NO_POSITION,
    PRESETS,
    SINGLE_WINDOW,
    TOKEN_GROUPS,
    WindowSums,
)
from rare_tokens.analyses.result_table import FloatArray, IntArray, joined, table

ATTRIBUTION = "attribution"
NOT_ASKED_FOR = "not asked for with --effects: attribution"
DECILES = 10
CLASSES = 20  # of the relative error, in ln error = 1: those of `attribution_error`
PAIR = ("wrong_sign_share", "relative_error", "error_ratio")

ATTRIBUTION_AGREEMENT: dict[str, Any] = (
    GROUP_KEY
    | {"decile": pl.Int64}  # NULL: all pairs of the group
    | SHARED
    | with_interval(*PAIR)
    | {"smallest_delta": pl.Float64, "largest_delta": pl.Float64}
    | dict.fromkeys(("pairs", "pairs_left_out", "windows", "draws"), pl.Int64)
    | {"reason": pl.String}
)


def attribution_agreement(
    sums: pl.DataFrame, errors: pl.DataFrame, *, draws: int = 1_000, seed: int = 0
) -> Iterator[dict[str, Any]]:
    """Compare the first-order estimates of one token group with its effects.

    Args:
        sums: `attribution_sum` of the run and group.
        errors: `attribution_error` of the run and group.
        draws: bootstrap samples of windows.
        seed: of the resampling.

    Returns:
        Rows of `ATTRIBUTION_AGREEMENT` without their group: one for all pairs, then one per decile. If the group has no
        position, only the first, with the reason.
    """
    counted = {"draws": draws}
    if sums.is_empty():
        yield counted | {"reason": NO_POSITION}
        return
    ordered = sums.sort("neuron", "window_id")
    windows = ordered["window_id"].unique().sort().to_numpy()
    rankings = [_window_sums(ordered, name, len(windows)) for name in ("abs_delta_sum", "abs_attributed_sum")]
    (ranking,) = agreements(rankings, [Compared(0, 1, TOPS)], draws=draws, seed=seed)
    whole = pair_errors(errors, windows, "no effect exceeds the tolerance", draws=draws, seed=seed)
    left_out = int(sums["positions"].sum()) - whole["pairs"]
    reason = joined(ranking["reason"], whole["reason"])
    yield counted | ranking | whole | {"pairs_left_out": left_out, "reason": reason}
    for decile in range(1, DECILES + 1):
        found = pair_errors(errors.filter(decile=decile), windows, "no pair is in it", draws=draws, seed=seed)
        yield counted | {"decile": decile} | found


def _window_sums(ordered: pl.DataFrame, name: str, windows: int) -> WindowSums:
    """A column of `attribution_sum`, in order of neuron and window, as sums by window."""
    neurons = ordered["neuron"].unique(maintain_order=True).to_numpy()
    positions, sums = (ordered[one].to_numpy().reshape(-1, windows).astype(float) for one in ("positions", name))
    return WindowSums(neurons, positions[0], sums)


def pair_errors(errors: pl.DataFrame, windows: IntArray, none: str, *, draws: int, seed: int) -> dict[str, Any]:
    """How far the estimates of some pairs are off.

    Args:
        errors: rows of `attribution_error`: those of one token group, or of one decile of it.
        windows: window_id of each window with a position of the group, ascending, shape (W,).
        none: the reason if there is no pair.
        draws: bootstrap samples of windows.
        seed: of the resampling; the samples are those of `WindowSums.resampled`.

    Returns:
        The columns of `PAIR` with their intervals, `smallest_delta`, `largest_delta`, `pairs`, `windows`, `reason`.
    """
    counted: dict[str, Any] = {"windows": len(windows), "pairs": int(errors["pairs"].sum())}
    if not counted["pairs"]:
        return counted | {"reason": none}
    row = counted | {"smallest_delta": errors["smallest_delta"].min(), "largest_delta": errors["largest_delta"].max()}
    own = _measured(errors, windows, np.ones((1, len(windows))))
    samples: dict[str, FloatArray] = {}
    if len(windows) > 1:
        rng = np.random.default_rng(seed)
        weights = rng.multinomial(len(windows), np.full(len(windows), 1 / len(windows)), size=draws)
        samples = _measured(errors, windows, weights.astype(float))
    for name, (value,) in own.items():
        row |= {name: float(value)} | interval_columns(name, float(value), samples.get(name))
    return row | {"reason": None if samples else SINGLE_WINDOW}


def _measured(errors: pl.DataFrame, windows: IntArray, weights: FloatArray) -> dict[str, FloatArray]:
    """The columns of `PAIR`, shape (B,) each, with windows weighted (B, W); NaN where no pair is left."""
    place = np.searchsorted(windows, errors["window_id"].to_numpy())
    sums = {
        name: weights @ np.bincount(place, errors[name].to_numpy(), len(windows))
        for name in ("pairs", "wrong_signs", "abs_delta_sum", "abs_error_sum")
    }
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "wrong_sign_share": sums["wrong_signs"] / sums["pairs"],
            "relative_error": _median(errors, place, weights),
            "error_ratio": sums["abs_error_sum"] / sums["abs_delta_sum"],
        }


def _median(errors: pl.DataFrame, place: IntArray, weights: FloatArray) -> FloatArray:
    """The median relative error, shape (B,): where half of the pairs are reached, evenly within a class in ln error."""
    classes, column = np.unique(errors["error_class"].to_numpy(), return_inverse=True)
    counts = np.zeros((weights.shape[1], len(classes)))
    np.add.at(counts, (place, column), errors["pairs"].to_numpy())
    drawn = weights @ counts
    reached = np.cumsum(drawn, axis=1)
    half = reached[:, -1:] / 2
    middle = np.argmax(reached >= half, axis=1)[:, None]
    within, upto = (np.take_along_axis(one, middle, axis=1) for one in (drawn, reached))
    with np.errstate(invalid="ignore"):
        share = 1 - (upto - half) / within
    return np.asarray(np.exp((classes[middle] + share) / CLASSES)[:, 0])


def _compute(ask: Ask, parameters: Mapping[str, Any], _pool: Executor | None) -> Results:
    return {"attribution_agreement": table(list(_rows(ask, parameters)), ATTRIBUTION_AGREEMENT)}


def _rows(ask: Ask, parameters: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    (run,) = ask(Source("dim_run", columns=("effects", "contexts"))).rows(named=True)
    presets = [*PRESETS, *([MATCHED] if run["contexts"] == MATCHED else [])]
    groups = [(preset, group) for preset in presets for group in TOKEN_GROUPS]
    if ATTRIBUTION not in run["effects"]:  # nothing is read for a run without estimates
        yield from ({"preset": preset, "token_group": group, "reason": NOT_ASKED_FOR} for preset, group in groups)
        return
    sums, errors = (ask(Source(name)) for name in ("attribution_sum", "attribution_error"))
    for preset, group in groups:
        key = {"preset": preset, "token_group": group}
        found = attribution_agreement(sums.filter(**key), errors.filter(**key), **parameters)
        yield from (key | row for row in found)


ANALYSIS = Analysis(
    "attribution_agreement",
    {"attribution_agreement": ATTRIBUTION_AGREEMENT},
    ("dim_run", "attribution_sum", "attribution_error"),
    _compute,
    {"draws": 1_000, "seed": 0},
)
