"""What ablating or patching attention heads does to a group of neurons and to the loss (NC eq. 3, table 2; SPEC 8).

A neuron's change is (mean with the edit − mean without) / |mean without| over the positions of a token group; a group's
the mean over its neurons. Units of windows are resampled. Whether a group has heads of its own is asked without that
ratio, which a mean near 0 blows up: a head's share of what all single heads change in a neuron lies between 0 and 1,
and the group's mean share is set against random groups'.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from rare_tokens.analyses.coordination.neuron_groups import Stack, stacks, with_controls
from rare_tokens.analyses.curve.effect_cells import COMMON, RARE, TOKEN_GROUPS
from rare_tokens.analyses.result_table import FloatArray, IntArray, joined, table
from rare_tokens.analyses.statistics import cohens_d, control_p, holm, permutation_p, window_interval

HEAD, LAYER, CONTROLS = "head", "layer", ("norm", "feed_forward")
LARGEST, RANDOM, CONTROL = "largest_head", "random_head", "control"
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
class Measured:
    """What one run has of attention under one ablation, for one preset.

    Attributes:
        layer: of the neurons.
        edits: `dim_attention_edit`.
        units: `attention_unit`, of these groups.
        impact: `attention_impact`: token_group, edit, neuron, mean_change.
        losses: token_group, edit, window_id, positions, delta_sum: `fct_attention_effect` summed over windows.
        groups: `GROUP`, draw 0.
        neurons: N.
    """

    layer: int
    edits: pl.DataFrame
    units: pl.DataFrame
    impact: pl.DataFrame
    losses: pl.DataFrame
    groups: pl.DataFrame
    neurons: int

    @cached_property
    def windows(self) -> IntArray:
        """The units, by their first window, ascending."""
        return self.units["window_id"].unique().sort().to_numpy()

    @cached_property
    def parts(self) -> dict[tuple[Any, ...], pl.DataFrame]:
        """`units` by token group, group name, k and edit."""
        return self.units.partition_by("token_group", "group_name", "k", "edit", as_dict=True)

    @cached_property
    def loss_parts(self) -> dict[tuple[Any, ...], pl.DataFrame]:
        """`losses` by token group and edit."""
        return self.losses.partition_by("token_group", "edit", as_dict=True)

    @cached_property
    def loss_rows(self) -> dict[tuple[Any, ...], dict[str, Any]]:
        """Columns about the loss that were computed: they are the same for every group of neurons."""
        return {}


@dataclass(frozen=True)
class Change:
    """A group's activations at one token group without an edit and their change: U units × k neurons, sums."""

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
        measured: of one run, ablation and preset.
        draws: random groups that a head's share is set against.
        level: that the test of shares must be able to reach.
        resamples: of each interval.
        seed: of everything drawn.

    Returns:
        `HEAD_ABLATION`. `largest_head` repeats the head of largest impact, with the test whether *any* head has a
        larger share of the group than it has of random groups; `random_head` and `control` are means over edits.
    """
    kinds = [HEAD, LAYER, *CONTROLS]
    rows = []
    compared = with_controls(measured.groups, measured.neurons, draws=draws, seed=seed)
    found = {(stack.group_name, stack.k): stack for stack in stacks(compared)}
    for token_group in TOKEN_GROUPS:
        shares = Shares.of(measured, token_group)
        for group in (stack for stack in found.values() if stack.tested):
            own = [_row(measured, group, token_group, *chosen, resamples, seed) for chosen in _targets(measured, kinds)]
            controls = found.get(("control", group.k))
            rows += _with_shares(own, group, controls, shares, level)
    return table(rows, HEAD_ABLATION)


def activation_patching(measured: Measured, *, resamples: int = 1_000, seed: int = 0) -> pl.DataFrame:
    """Every patch of a head or a layer by another context: relation `activation_patching`; see `head_ablation`."""
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
    """Why an edit cannot change an activation; None where it can."""
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
    """Sums by unit; of several edits the mean. None without a position."""
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
    """The loss effect, mean over the positions of the subsample; of several edits the mean."""
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


@dataclass(frozen=True)
class Shares:
    """Each head's share of what single heads change in a neuron, Σ_h |mean change|: H × N, and the heads' places."""

    heads: Mapping[tuple[int, int], int]
    values: FloatArray

    @staticmethod
    def of(measured: Measured, token_group: str) -> "Shares":
        """From `attention_impact`, over the heads that feed the neurons."""
        heads = measured.edits.filter(pl.col("kind") == HEAD, pl.col("feeds_neurons")).sort("edit")
        rows = {(row["attention_layer"], row["head"]): place for place, row in enumerate(heads.iter_rows(named=True))}
        chosen = measured.impact.filter(pl.col("token_group") == token_group).join(heads.select("edit"), on="edit")
        grid = np.zeros((len(heads), measured.neurons))
        places = np.searchsorted(heads["edit"].to_numpy(), chosen["edit"].to_numpy())
        grid[places, chosen["neuron"].to_numpy()] = np.abs(chosen["mean_change"].to_numpy())
        total = grid.sum(0)
        even = np.full_like(grid, 1 / max(1, len(heads)))  # a neuron that no head changes has no head of its own
        return Shares(rows, np.divide(grid, total, out=even, where=total > 0))

    def of_groups(self, members: IntArray) -> FloatArray:
        """Mean share of each head in D groups of k neurons, D × k: shape (H, D)."""
        return np.stack([row[members].mean(axis=1) for row in self.values])


def _with_shares(
    rows: list[dict[str, Any]], group: Stack, controls: Stack | None, shares: Shares, level: float
) -> list[dict[str, Any]]:
    """The rows with each head's share and its test, and the row of the largest head after them."""
    heads = [row for row in rows if row["target"] == HEAD and row.get("impact") is not None]
    if not heads:
        return rows
    own = shares.of_groups(group.members)[:, 0]
    formed = controls is not None and controls.reason is None
    random = shares.of_groups(controls.members) if formed and controls is not None else np.zeros((len(own), 0))
    for row in heads:
        place = shares.heads[row["attention_layer"], row["head"]]
        row |= _share(float(own[place]), random[place], level)
    for row, corrected in zip(heads, holm([row.get("share_p_value") for row in heads]), strict=True):
        row["share_p_holm"] = corrected
    largest = max(heads, key=lambda row: row["impact"])
    any_head = largest_share(own, random, level)
    reason = joined(any_head.pop("reason", None), "chosen as the largest of all, so its change is biased away from 0")
    return [*rows, largest | {"target": LARGEST, "share_p_holm": None} | any_head | {"reason": reason}]


def largest_share(own: FloatArray, random: FloatArray, level: float = 0.05) -> dict[str, Any]:
    """Whether any head has more of a group than of random groups: the largest share against their largest.

    Args:
        own: of the group, each head's share, shape (H,).
        random: of D random groups, shape (H, D).
        level: that the p must be able to reach.

    Returns:
        Columns of `HEAD_ABLATION`; one p for all heads, so it needs no correction over them.
    """
    return _share(float(own.max()), random.max(0) if random.size else np.zeros(0), level)


def _share(own: float, random: FloatArray, level: float) -> dict[str, Any]:
    row: dict[str, Any] = {"head_share": own, "random_groups": len(random)}
    if len(random) < 1 / level - 1:
        return row | {"reason": f"{len(random)} random groups cannot give a p of {level:g}"}
    row |= {"random_share": float(random.mean()), "random_share_sd": float(random.std(ddof=1))}
    return row | {"share_p_value": control_p(own, random, "greater")}
