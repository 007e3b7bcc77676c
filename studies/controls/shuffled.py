"""Rare and common drawn by chance, over the stored effects of one run: how often do they seem to differ?

A whole ingest for every shuffle would take hours, and the effects of a run do not depend on the labels. So they are
read once, and each shuffle sums them anew, as the relations do. Three kinds of chance are told apart:

* `positions`: labels permuted over the positions of each window of text. Nothing then differs but by chance.
* `coins`: a coin for every token type. All occurrences of a type are on one side, and both sides are alike in how many
  types they have.
* `counts`: counts permuted over token types, as `permuted_counts` does for a whole run. The common side then is the few
  types that were dealt the largest counts.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import rare_tokens
from rare_tokens.analyses.curve.effect_cells import WindowSums
from rare_tokens.analyses.curve.plateau_difference import plateau_difference
from rare_tokens.analyses.result_table import BoolArray, FloatArray, IntArray

Labels = tuple[BoolArray, BoolArray]


@dataclass(frozen=True)
class StoredEffects:
    """Effects of a run.

    Attributes:
        size: |Δ| in nats, shape (windows, positions of a window, N).
        target: token id of each position's target, shape (windows, positions of a window).
        grouped: whether a position is in a token group: its target has a count and is no separator; the same shape.
    """

    size: FloatArray
    target: IntArray
    grouped: BoolArray

    def sums(self, chosen: BoolArray) -> WindowSums:
        """Sums by window over the chosen positions, shape of `target`."""
        totals = np.einsum("wpn,wp->nw", self.size, chosen.astype(self.size.dtype), optimize=True)
        return WindowSums(np.arange(self.size.shape[2]), chosen.sum(axis=1).astype(float), totals.astype(float))


def stored_effects(warehouse: Path, run_id: str, window: int) -> StoredEffects:
    """Read them from a warehouse."""
    with rare_tokens.open(warehouse) as opened:
        targets = opened.sql(
            "select target_token_id, position_id in (select position_id from position_group where run_id = $run "
            "and preset = 'nc') as grouped from dim_position where run_id = $run order by position_id",
            run=run_id,
        )
        sizes = opened.sql(
            "select abs(delta_loss)::float as size from fct_effect where run_id = $run order by position_id, neuron",
            run=run_id,
        )
    target, grouped = (targets[name].to_numpy().reshape(-1, window) for name in targets.columns)
    return StoredEffects(sizes["size"].to_numpy().reshape(*target.shape, -1), target, grouped)


def by_coins(effects: StoredEffects, types: int, rng: np.random.Generator) -> Labels:
    """A coin for every one of the tokenizer's types."""
    rare = (rng.random(types) < 0.5)[effects.target]
    return effects.grouped & rare, effects.grouped & ~rare


def by_counts(effects: StoredEffects, counts: IntArray, rng: np.random.Generator) -> Labels:
    """The halves of occurrences (preset `nc`) under counts permuted over the types that have one."""
    counts = counts.copy()
    counted = np.flatnonzero(counts > 0)
    counts[counted] = rng.permutation(counts[counted])
    return halves_of_occurrences(effects, counts)


def halves_of_occurrences(effects: StoredEffects, counts: IntArray) -> Labels:
    """Rare and common positions of preset `nc`, the rarer half of all occurrences and the rest; shape of `target`."""
    ordered = np.sort(counts)
    below = np.concatenate([[0], np.cumsum(ordered)])[np.searchsorted(ordered, counts, side="left")]
    is_rare = 100 * below / (counts.sum() - 1) < 50
    rare = is_rare[effects.target]
    return effects.grouped & rare, effects.grouped & ~rare


def by_positions(labels: Labels, rng: np.random.Generator) -> Labels:
    """The same labels permuted over the positions of each window."""
    order = np.argsort(rng.random(labels[0].shape), axis=1)
    rare, common = (np.take_along_axis(one, order, axis=1) for one in labels)
    return rare, common


def rejections(
    effects: StoredEffects, draw: Callable[[np.random.Generator], Labels], shuffles: int, resamples: int = 400
) -> dict[str, Any]:
    """How often an interval of `plateau_difference` leaves 0 out, over shuffles of the labels."""
    found: dict[str, list[tuple[float, float, float]]] = {"step": [], "size": [], "kappa": []}
    undetermined, sizes = 0, []
    for seed in range(shuffles):
        rare, common = draw(np.random.default_rng([seed, 15]))
        sizes.append([rare.sum(), common.sum()] + [len(np.unique(effects.target[side])) for side in (rare, common)])
        difference = plateau_difference((effects.sums(rare), effects.sums(common)), resamples=resamples, seed=seed)
        undetermined += difference.size_interval is not None and not difference.size_interval.determined
        for name, values in found.items():
            interval = getattr(difference, f"{name}_interval")
            if interval is not None and interval.determined:
                values.append((getattr(difference, name), interval.low, interval.high))
    names = ("rare_positions", "common_positions", "rare_types", "common_types")
    medians = dict(zip(names, np.median(sizes, axis=0).astype(int).tolist(), strict=True))
    return {"shuffles": shuffles, "head_not_determined": undetermined, **medians} | {
        name: {
            "tested": len(values),
            "rejected": sum(low > 0 or high < 0 for _, low, high in values),
            "above": sum(low > 0 for _, low, _ in values),
            "mean": round(float(np.mean([value for value, *_ in values])), 4) if values else None,
            "spread": round(float(np.std([value for value, *_ in values])), 4) if values else None,
            "half_width": round(float(np.mean([high - low for _, low, high in values])) / 2, 4) if values else None,
        }
        for name, values in found.items()
    }
