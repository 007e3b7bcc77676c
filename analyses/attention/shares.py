"""Whether a group of neurons has attention heads of its own: a head's share of it, compared with random groups.

A head's share of a neuron lies between 0 and 1, so a mean activation near 0 cannot blow it up, as it does the ratio of
NC eq. 3.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from rare_tokens.analyses.attention.inputs import Measured
from rare_tokens.analyses.coordination.neuron_groups import Stack
from rare_tokens.analyses.result_table import FloatArray, IntArray, joined
from rare_tokens.analyses.statistics import control_p, holm

HEAD = "head"  # kind of an edit: one head's output
LARGEST = "largest_head"


@dataclass(frozen=True)
class Shares:
    """Each head's share of what single heads change in a neuron, Σ_h |mean change|: H × N; and the heads' places."""

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
        even = np.full_like(grid, 1 / max(1, len(heads)))  # shares are even for a neuron that no head changes
        return Shares(rows, np.divide(grid, total, out=even, where=total > 0))

    def of_groups(self, members: IntArray) -> FloatArray:
        """Each head's mean share in D groups of k neurons (D × k), shape (H, D)."""
        return np.stack([row[members].mean(axis=1) for row in self.values])


def with_shares(
    rows: list[dict[str, Any]], group: Stack, controls: Stack | None, shares: Shares, level: float
) -> list[dict[str, Any]]:
    """The rows with each head's share and its test, then the row of the largest head."""
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
    """Whether any head has more of a group than of random groups: its largest share against theirs.

    Args:
        own: each head's share of the group, shape (H,).
        random: the same for D random groups, shape (H, D).
        level: the level that p must be able to reach.

    Returns:
        Columns of `HEAD_ABLATION`; one p for all heads, so no correction over them is needed.
    """
    return _share(float(own.max()), random.max(0) if random.size else np.zeros(0), level)


def _share(own: float, random: FloatArray, level: float) -> dict[str, Any]:
    row: dict[str, Any] = {"head_share": own, "random_groups": len(random)}
    if len(random) < 1 / level - 1:
        return row | {"reason": f"{len(random)} random groups cannot give a p of {level:g}"}
    row |= {"random_share": float(random.mean()), "random_share_sd": float(random.std(ddof=1))}
    return row | {"share_p_value": control_p(own, random, "greater")}
