"""Clusters of a group's neurons by the correlation of their activations (ES eq. 9)."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from typing import Any

import numpy as np
import polars as pl
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from rare_tokens.analyses.analysis import ACTIVATIONS, Tested
from rare_tokens.analyses.coordination.activations import Activations
from rare_tokens.analyses.coordination.neuron_groups import stacks, used_neurons
from rare_tokens.analyses.coordination.of_groups import ES, WHOLE_LAYER, At, of_groups
from rare_tokens.analyses.result_table import table

NEURON_CLUSTER: dict[str, Any] = {
    "group_name": pl.String,
    "k": pl.Int64,
    "draw": pl.Int64,
    "pool": pl.String,  # of the random groups: `disjoint` or `layer`
    "threshold": pl.Float64,  # distance at which the tree is cut
    "positions": pl.Int64,
    "undefined_neurons": pl.Int64,  # constant: in no cluster
    "clusters": pl.Int64,
    "largest_cluster": pl.Int64,  # neurons in it
    "neurons": pl.List(pl.Int64),  # those that have a correlation
    "labels": pl.List(pl.Int64),  # the cluster of each, from 1
    "reason": pl.String,
}


def neuron_cluster(
    activations: Activations, groups: pl.DataFrame, *, thresholds: Sequence[float] = (0.5, 5.0)
) -> pl.DataFrame:
    """Ward clusters of each group by D = 1 − |ρ| (ES eq. 9), the tree cut at each threshold: `neuron_cluster`.

    D is not a Euclidean distance (it can break the triangle inequality), so Ward's criterion on it is not a variance:
    the heights are those of the Lance–Williams recursion, as scipy and the authors' code compute them. Uncorrelated
    neurons are 1 apart, so a cut at 0.5 (the paper) leaves nearly every neuron of a weakly correlated group alone, and
    a cut at 5 (the code) can join a whole group of 50.

    Args:
        activations: T × N at the chosen positions.
        groups: `GROUP`, tested groups and controls.
        thresholds: heights at which to cut.

    Returns:
        `NEURON_CLUSTER`, one row per group, draw and threshold.
    """
    found = stacks(groups)
    moments = activations.moments(used_neurons(found, activations.neurons))
    rows: list[dict[str, Any]] = []
    for stack in found:
        for keys, members in stack.each():
            at = moments.rows(members)
            at = at[moments.defined[at]]
            shared = {**keys, "positions": activations.positions}
            if stack.reason is not None or len(at) < 2:
                reason = stack.reason or "fewer than two neurons of the group vary over these positions"
                rows += [{**shared, "threshold": cut, "reason": reason} for cut in thresholds]
                continue
            tree = linkage(squareform(1 - np.abs(moments.correlation[np.ix_(at, at)]), checks=False), "ward")
            for cut in thresholds:
                labels = fcluster(tree, cut, criterion="distance")
                rows.append(
                    {
                        **shared,
                        "threshold": cut,
                        "undefined_neurons": len(members) - len(at),
                        "clusters": int(labels.max()),
                        "largest_cluster": int(np.bincount(labels).max()),
                        "neurons": moments.neurons[at].tolist(),
                        "labels": labels.tolist(),
                    }
                )
    return table(rows, NEURON_CLUSTER)


def _compute(at: At, own: Mapping[str, Any], _pool: Executor | None) -> pl.DataFrame:
    return neuron_cluster(at.activations, at.groups, **own)


ANALYSIS = of_groups(
    "neuron_cluster",
    NEURON_CLUSTER,
    _compute,
    reads=(ACTIVATIONS,),
    parameters=ES | {"pool": WHOLE_LAYER, "thresholds": [0.5, 5.0]},
    tested=[Tested("clusters", ("threshold",))],
)
