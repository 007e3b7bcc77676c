"""What the relations say of a run, beside what was planted in its model."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

import rare_tokens
from rare_tokens.analyses.curve.effect_cells import RARE, TOKEN_GROUPS
from rare_tokens.analyses.curve.power_law import power_law
from rare_tokens.analyses.result_table import IntArray
from studies.controls.pipeline import read
from studies.controls.planting import Planted

Row = dict[str, Any]
_DECIDED = (
    "decision", "p_value", "power", "break_rank", "break_low", "break_high", "break_determined", "step", "step_low",
    "step_high", "head", "kappa", "kappa_low", "kappa_high", "reason",
)  # fmt: skip

# The analyses that `module_found` reads; a slow test takes all of them, as the command does.
OF_MODULES = ("neuron_group", "activation_correlation", "neuron_cluster", "graph_modularity", "group_test")


def plateau_found(
    warehouse: Path, run_id: str, preset: str, planted: Planted | None = None, token_group: str = RARE
) -> Row:
    """`regime_decision`, and how many of the planted neurons are the most influential ones.

    `planted_line` is the line through the neurons as they were planted, on the text that they were planted with: what
    the method reads where nothing but the curve's own form can mislead it. `moved` is the standard deviation, over
    neurons, of log influence on the text in hand minus that on the text of planting.
    """
    (row,) = read(warehouse, "regime_decision", run=run_id, preset=preset, token_group=token_group).to_dicts()
    found = {name: _short(row[name]) for name in _DECIDED}
    if planted is None:
        return found
    ranked = read(warehouse, "neuron_influence", run=run_id, preset=preset, token_group=token_group).sort("rank")
    first = ranked["neuron"][: len(planted.first)].to_numpy()
    line = power_law(-np.sort(-planted.measured))
    moved = np.log(ranked.sort("neuron")["influence"].to_numpy()) - planted.measured
    return found | {
        "moved": _short(float(np.std(moved))),
        "planted_among_first": int(np.isin(first, planted.first).sum()),
        "planted_line": {"size": line.head_rank, "step": _short(line.step), "kappa": _short(line.kappa)},
    }


def difference_found(warehouse: Path, run_id: str, preset: str) -> Row:
    """`plateau_difference`, and both decisions."""
    (row,) = read(warehouse, "plateau_difference", run=run_id, preset=preset).to_dicts()
    names = [f"{name}{end}" for name in ("step", "size", "kappa") for end in ("", "_low", "_high")]
    return {name: _short(row[name]) for name in (*names, "determined", "reason")} | {
        group: plateau_found(warehouse, run_id, preset, token_group=group)["decision"] for group in TOKEN_GROUPS
    }


def module_found(warehouse: Path, run_id: str, members: IntArray) -> Row:
    """Correlation, clusters and communities of a group, beside how many members of a planted module they hold.

    The group is the one of `boost` and `suppress` that holds more of the members.
    """
    both = read(warehouse, "neuron_group", run=run_id, preset="es", group_name=["boost", "suppress"], draw=0)
    held = both.filter(pl.col("neuron").is_in(members.tolist()))["group_name"].value_counts(sort=True)
    group = held["group_name"][0] if len(held) else "boost"
    where = {"run": run_id, "token_group": RARE, "group_name": group}
    (test,) = read(
        warehouse, "group_test", **where, test="control", preset="es", analysis="activation_correlation",
        setting="space=activation, comparison=within",
    ).to_dicts()  # fmt: skip
    own = {**where, "draw": 0}
    (ward,) = read(warehouse, "neuron_cluster", **own, preset="es", threshold=0.5).to_dicts()
    (louvain,) = read(warehouse, "graph_modularity", **own, preset="nc", method="louvain").to_dicts()
    (leiden,) = read(warehouse, "graph_modularity", **own, preset="nc", method="leiden").to_dicts()
    (modularity,) = read(
        warehouse, "group_test", **where, test="control", preset="nc", analysis="graph_modularity",
        setting="method=louvain", statistic="signed_modularity",
    ).to_dicts()  # fmt: skip
    return {
        "group": group, "members": dict(held.iter_rows()),
        "members_correlation": _short(_correlation(warehouse, run_id, members)),
        "correlation": _short(test["value"]), "low": _short(test["low"]), "high": _short(test["high"]),
        "random_correlation": _short(test["reference_mean"]), "random_sd": _short(test["reference_sd"]),
        "p_value": _short(test["p_value"]),
        "ward": _part(ward, members), "louvain": _part(louvain, members), "leiden": _part(leiden, members),
        "signed_modularity": _short(modularity["value"]), "modularity_p": _short(modularity["p_value"]),
    }  # fmt: skip


def _correlation(warehouse: Path, run_id: str, members: IntArray) -> float:
    """Mean correlation of the activations of all members over the rare positions of `es`, from the facts."""
    with rare_tokens.open(warehouse) as opened:
        rows = opened.sql(
            "select activation from fct_effect where run_id = $run and list_contains($members, neuron) "
            "and position_id in (select position_id from position_group where run_id = $run and preset = 'es' "
            "and token_group = 'rare') order by neuron, position_id",
            run=run_id,
            members=members.tolist(),
        )
    correlations = np.corrcoef(rows["activation"].to_numpy().reshape(len(members), -1))
    return float(correlations[np.triu_indices(len(members), 1)].mean())


def _part(row: Row, members: IntArray) -> Row:
    """The part of a partition that holds most of the planted neurons: its size, and how many of them."""
    neurons, labels = np.array(row["neurons"]), np.array(row["labels"])
    planted = np.isin(neurons, members)
    best = np.bincount(labels[planted], minlength=1).argmax() if planted.any() else np.bincount(labels).argmax()
    return {
        "parts": len(set(labels.tolist())), "of": len(neurons), "planted": int(planted.sum()),
        "size": int((labels == best).sum()), "planted_in_it": int(planted[labels == best].sum()),
    }  # fmt: skip


def _short(value: Any) -> Any:
    """A float to four places; anything else as it is."""
    return round(value, 4) if isinstance(value, float) else value
