"""What ablating or patching attention heads does to a group of neurons and to the loss (NC eq. 3, table 2).

A neuron's change is (mean with the edit − mean without) / |mean without| over the positions of a token group; a group's
change is the mean over its neurons. Units of windows are resampled. Whether a group has heads of its own is tested
without that ratio, which a mean near 0 blows up: see `shares`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from rare_tokens.analyses.analysis import Analysis, Ask, Results
from rare_tokens.analyses.attention.inputs import ATTENTION, Measured, measured_ablations, read_measured
from rare_tokens.analyses.attention.shares import HEAD, Shares, with_shares
from rare_tokens.analyses.coordination.neuron_groups import Stack, stacks, with_controls
from rare_tokens.analyses.coordination.of_groups import GROUPED, At, standing
from rare_tokens.analyses.curve.effect_cells import COMMON, RARE, TOKEN_GROUPS
from rare_tokens.analyses.result_table import FloatArray, joined, table
from rare_tokens.analyses.statistics import CONTROL as CONTROL_GROUP
from rare_tokens.analyses.statistics import cohens_d, permutation_p, window_interval

LAYER, CONTROLS = "layer", ("norm", "feed_forward")
RANDOM, CONTROL = "random_head", "control"
_CHANGES: dict[str, Any] = {
    "positions": pl.Int64,
    "units": pl.Int64,
    "activation_change": pl.Float64,
    "change_low": pl.Float64,
    "change_high": pl.Float64,
    "impact": pl.Float64,
    "pooled_change": pl.Float64,
    "effect_size": pl.Float64,
    "p_value": pl.Float64,
    "versus_common": pl.Float64,
    "versus_common_low": pl.Float64,
    "versus_common_high": pl.Float64,
}
_LOSSES: dict[str, Any] = {
    "loss_positions": pl.Int64,
    "delta_loss": pl.Float64,
    "delta_loss_low": pl.Float64,
    "delta_loss_high": pl.Float64,
    "reason": pl.String,
}
_GROUP = {"group_name": pl.String, "k": pl.Int64, "target": pl.String}
_PLACE = {"attention_layer": pl.Int64, "head": pl.Int64}
HEAD_ABLATION: dict[str, Any] = (
    {"token_group": pl.String}
    | _GROUP
    | _PLACE
    | {"draw": pl.Int64}
    | _CHANGES
    | {
        "head_share": pl.Float64,
        "random_share": pl.Float64,
        "random_share_sd": pl.Float64,
        "random_groups": pl.Int64,
        "share_p_value": pl.Float64,
        "share_p_holm": pl.Float64,
    }
    | _LOSSES
)
ACTIVATION_PATCHING: dict[str, Any] = {"token_group": pl.String} | _GROUP | _PLACE | _CHANGES | _LOSSES


@dataclass(frozen=True)
class Change:
    """Sums of a group's unedited activations and of their change at one token group, U units × k neurons."""

    positions: FloatArray  # U
    clean: FloatArray  # U × k
    change: FloatArray  # U × k

    def of(self, counts: FloatArray) -> FloatArray:
        """Mean relative change over the neurons, for B ways of counting the units, B × U: shape (B,)."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(((counts @ self.change) / np.abs(counts @ self.clean)).mean(axis=1))


def head_ablation(
    measured: Measured, *, draws: int = 10_000, level: float = 0.05, resamples: int = 1_000, seed: int = 0
) -> pl.DataFrame:
    """Every ablation of heads, layers and controls: relation `head_ablation`.

    Args:
        measured: one run, ablation and preset.
        draws: random groups that a head's share is compared with.
        level: the level that the test of shares must be able to reach.
        resamples: per interval.
        seed: for everything drawn.

    Returns:
        `HEAD_ABLATION`. `largest_head` repeats the head with the largest impact, with the test whether *any* head has a
        larger share of the group than of random groups; `random_head` and `control` are means over edits.
    """
    kinds = [HEAD, LAYER, *CONTROLS]
    rows = []
    compared = with_controls(measured.groups, measured.neurons, draws=draws, seed=seed)
    found = {(stack.group_name, stack.k): stack for stack in stacks(compared)}
    for token_group in TOKEN_GROUPS:
        shares = Shares.of(measured, token_group)
        for group in (stack for stack in found.values() if stack.tested):
            own = [_row(measured, group, token_group, *chosen, resamples, seed) for chosen in _targets(measured, kinds)]
            controls = found.get((CONTROL_GROUP, group.k))
            rows += with_shares(own, group, controls, shares, level)
    return table(rows, HEAD_ABLATION)


def activation_patching(measured: Measured, *, resamples: int = 1_000, seed: int = 0) -> pl.DataFrame:
    """Every patch of a head or a layer from another context: relation `activation_patching`; see `head_ablation`."""
    rows = [
        _row(measured, group, token_group, target.removeprefix("patch_"), edits, resamples, seed)
        for token_group in TOKEN_GROUPS
        for group in stacks(measured.groups)
        for target, edits in _each(measured, ["patch_head", "patch_layer"])
    ]
    return table(rows, ACTIVATION_PATCHING)


def _each(measured: Measured, kinds: Sequence[str]) -> Iterator[tuple[str, pl.DataFrame]]:
    for place in range(len(measured.edits)):
        one = measured.edits[place : place + 1]
        if one["kind"].item() in kinds:
            yield one["kind"].item(), one


def _targets(measured: Measured, kinds: Sequence[str]) -> Iterator[tuple[str, pl.DataFrame]]:
    """Each edit by itself, then the means over heads and over controls."""
    yield from _each(measured, kinds)
    feeding = measured.edits.filter(pl.col("feeds_neurons"))
    yield RANDOM, feeding.filter(pl.col("kind") == HEAD)
    yield CONTROL, feeding.filter(pl.col("kind").is_in(CONTROLS))


def _row(
    measured: Measured, group: Stack, token_group: str, target: str, edits: pl.DataFrame, resamples: int, seed: int
) -> dict[str, Any]:
    """One edit, or the mean of several, on one group of neurons at one token group."""
    single = edits.row(0, named=True) if len(edits) == 1 and target not in (RANDOM, CONTROL) else {}
    row: dict[str, Any] = {
        "token_group": token_group, "group_name": group.group_name, "k": group.k, "target": target,
        **{name: single.get(name) for name in ("attention_layer", "head", "draw")},
    }  # fmt: skip
    row |= _loss(measured, token_group, edits, resamples, seed)
    why = group.reason or _no_path(measured, target, edits)
    changes = {} if why else {name: _change(measured, group, name, edits) for name in TOKEN_GROUPS}
    if why is None and changes[token_group] is None:
        why = "no position in the group"
    own = changes.get(token_group)
    if own is None:
        return row | {"reason": joined(why, row["reason"])}
    return row | _changed(own, changes[COMMON] if token_group == RARE else None, row["reason"], resamples, seed)


def _no_path(measured: Measured, target: str, edits: pl.DataFrame) -> str | None:
    """Why an edit cannot change an activation; None if it can."""
    if edits.is_empty():
        return f"no edit of the kind {target} has a path to the neurons of layer {measured.layer}"
    if edits["feeds_neurons"].all():
        return None
    piece = {HEAD: "attention", LAYER: "attention", "feed_forward": "feed-forward"}.get(target, "norm")
    layer = edits["attention_layer"].item()
    return (
        f"no path: the {piece} of layer {layer} does not feed the neurons of layer {measured.layer}, "
        "whose activations change by exactly 0"
    )


def _change(measured: Measured, group: Stack, token_group: str, edits: pl.DataFrame) -> Change | None:
    """Sums per unit, averaged over several edits; None without a position."""
    numbers = edits["edit"].to_list()
    key = (token_group, group.group_name, group.k)
    clean, changed = measured.parts.get((*key, 0)), [measured.parts.get((*key, number)) for number in numbers]
    if clean is None or any(part is None for part in changed):
        return None
    if edits["kind"].str.starts_with("patch").any():
        clean = clean.filter(pl.col("has_loss"))
    windows = measured.windows

    def gathered(part: pl.DataFrame) -> FloatArray:
        grid = np.zeros((len(windows), group.k))
        rows = np.searchsorted(windows, part["window_id"].to_numpy())
        np.add.at(
            grid,
            (rows, np.searchsorted(group.members[0], part["neuron"].to_numpy())),
            part["activation_sum"].to_numpy(),
        )
        return grid

    positions = np.zeros(len(windows))
    positions[np.searchsorted(windows, clean["window_id"].to_numpy())] = clean["positions"].to_numpy()
    every = pl.concat(part for part in changed if part is not None)
    return Change(positions, gathered(clean), gathered(every) / len(numbers))


def _changed(own: Change, common: Change | None, said: str | None, resamples: int, seed: int) -> dict[str, Any]:
    everything = np.ones((1, len(own.positions)))
    mean, change = np.abs(own.clean.sum(0)), own.change.sum(0)
    if not (mean > 0).all():
        return {"reason": joined("a neuron's mean activation is exactly 0, so its relative change is undefined", said)}
    inside = own.positions > 0
    scale = own.positions[inside, None] * (mean / own.positions.sum())
    before = (own.clean[inside] / scale).mean(1)
    after = before + (own.change[inside] / scale).mean(1)
    low, high = _interval(own.of, len(own.positions), resamples, seed, own.clean.shape[1])
    row: dict[str, Any] = {
        "positions": int(own.positions.sum()),
        "units": int(inside.sum()),
        "activation_change": float(own.of(everything)[0]),
        "change_low": low,
        "change_high": high,
        "impact": float((np.abs(change) / mean).mean()),
        "pooled_change": float(change.sum() / mean.sum()),
        "effect_size": cohens_d(after, before),
        "p_value": permutation_p(after, before, paired=True, seed=seed),
    }
    if common is not None:

        def versus(counts: FloatArray) -> FloatArray:
            return np.asarray(own.of(counts) - common.of(counts))

        low, high = _interval(versus, len(own.positions), resamples, seed, 2 * own.clean.shape[1])
        row |= {"versus_common": float(versus(everything)[0]), "versus_common_low": low, "versus_common_high": high}
    reason = None if row["p_value"] is not None else f"{row['units']} units, or none changes: no test"
    return row | {"reason": joined(reason, said)}


def _interval(
    statistic: Callable[[FloatArray], FloatArray], units: int, resamples: int, seed: int, size: int
) -> tuple[float | None, float | None]:
    return window_interval(statistic, units, resamples=resamples, seed=seed, size=size) or (None, None)


def _loss(measured: Measured, token_group: str, edits: pl.DataFrame, resamples: int, seed: int) -> dict[str, Any]:
    """The loss effect averaged over the subsample's positions, and over several edits."""
    numbers = edits["edit"].to_list()
    key = (token_group, *numbers)
    if key not in measured.loss_rows:
        measured.loss_rows[key] = _measured_loss(measured, token_group, numbers, resamples, seed)
    return measured.loss_rows[key]


def _measured_loss(
    measured: Measured, token_group: str, numbers: Sequence[int], resamples: int, seed: int
) -> dict[str, Any]:
    parts = [part for number in numbers if (part := measured.loss_parts.get((token_group, number))) is not None]
    if not parts:
        return {"reason": "no position of the group in the subsample whose loss was measured" if numbers else None}
    every = pl.concat(parts)
    sums = every.group_by("window_id").agg(pl.col("delta_sum").sum(), pl.col("positions").sum()).sort("window_id")
    delta, positions = sums["delta_sum"].to_numpy(), sums["positions"].to_numpy().astype(float)

    def mean(counts: FloatArray) -> FloatArray:
        return np.asarray((counts @ delta) / (counts @ positions))

    low, high = _interval(mean, len(delta), resamples, seed, 1)
    return {
        "loss_positions": int(positions.sum()) // len(numbers),
        "delta_loss": float(delta.sum() / positions.sum()),
        "delta_loss_low": low,
        "delta_loss_high": high,
        "reason": None,
    }


def _compute(ask: Ask, parameters: Mapping[str, Any], _pool: Executor | None) -> Results:
    """Both relations of a run, for each preset and every ablation that its attention was measured with."""
    own = {name: value for name, value in parameters.items() if name not in ("presets", "group_names")}
    parts = []
    for preset in standing(ask, parameters["presets"]):
        groups = At(ask, preset, RARE, parameters["group_names"]).groups
        parts.append(_of_preset(ask, preset, groups.filter(pl.col("group_name") != CONTROL_GROUP), **own))
    return {name: pl.concat(part[name] for part in parts) for name in ("head_ablation", "activation_patching")}


def _of_preset(
    ask: Ask, preset: str, groups: pl.DataFrame, *, draws: int, level: float, resamples: int, seed: int
) -> Results:
    """`groups` is `GROUP`, draw 0; the other parameters are those of `head_ablation`."""
    key = {"preset": pl.lit(preset)}
    ablated = [table([], HEAD_ABLATION).with_columns(head_ablation=pl.lit(""))]
    patched = [table([], ACTIVATION_PATCHING)]
    for place, name in enumerate(measured_ablations(ask)):
        found = read_measured(ask, preset, groups, name)
        rows = head_ablation(found, draws=draws, level=level, resamples=resamples, seed=seed)
        ablated.append(rows.with_columns(head_ablation=pl.lit(name)))
        if place == 0:  # patches do not depend on the ablation
            patched.append(activation_patching(found, resamples=resamples, seed=seed))
    return {
        "head_ablation": pl.concat(ablated).with_columns(**key),
        "activation_patching": pl.concat(patched).with_columns(**key),
    }


ANALYSIS = Analysis(
    "head_ablation",
    {
        "head_ablation": {**HEAD_ABLATION, "head_ablation": pl.String, "preset": pl.String},
        "activation_patching": {**ACTIVATION_PATCHING, "preset": pl.String},
    },
    (*GROUPED, *ATTENTION, "position_group", "dim_position", "dim_neuron"),
    _compute,
    {
        "presets": ["nc"],
        "group_names": ["plateau", "excitatory", "inhibitory"],
        "draws": 10_000,
        "level": 0.05,
        "resamples": 1_000,
        "seed": 0,
    },
)
