"""Tests of a group's pairs against those of a random group, as the papers print them (ES §4.2)."""

from typing import Any

import polars as pl

from rare_tokens.analyses.coordination.activations import Activations
from rare_tokens.analyses.coordination.cosine import weight_cosine
from rare_tokens.analyses.coordination.neuron_groups import stacks, used_neurons
from rare_tokens.analyses.coordination.similarity import ACTIVATION, Similarity
from rare_tokens.analyses.result_table import FloatArray, table
from rare_tokens.analyses.statistics import (
    CONTROL,
    GROUP_TEST,
    corrected,
    mann_whitney,
)


def pair_tests(
    groups: pl.DataFrame, *, activations: Activations | None = None, weights: dict[str, FloatArray] | None = None
) -> pl.DataFrame:
    """Mann–Whitney of the pairs within a group against those within one random group, as in ES §4.2: `group_test`.

    p is what such a paper prints. Pairs share neurons, so they are not exchangeable (the column says so), and random
    groups differ from random groups far more often than the level says.

    Args:
        groups: `GROUP`, tested groups and controls; the first control of the group's size is the random one.
        activations: T × N at the chosen positions: their correlations.
        weights: name of a space and its vectors, N × d: their cosines.

    Returns:
        `GROUP_TEST`, corrected over the groups of each similarity.
    """
    found = stacks(groups)
    spaces: list[tuple[str, str, str, Similarity]] = []
    if activations is not None:
        moments = activations.moments(used_neurons(found, activations.neurons))
        similarity = Similarity(moments.neurons, moments.correlation, moments.defined)
        setting = f"space={ACTIVATION}, comparison=within"
        spaces.append(("activation_correlation", "mean_correlation", setting, similarity))
    for space, vectors in (weights or {}).items():
        setting = f"space={space}, comparison=within"
        spaces.append(("cosine_similarity", "mean_cosine", setting, weight_cosine(vectors, found)))
    controls = {stack.k: stack for stack in found if not stack.tested and stack.reason is None}
    rows = []
    for analysis, statistic, setting, similarity in spaces:
        for stack in (stack for stack in found if stack.tested):
            row: dict[str, Any] = {"analysis": analysis, "statistic": statistic, "setting": setting}
            row |= {"group_name": stack.group_name, "k": stack.k, "pool": stack.pool}
            row |= {"test": "mann_whitney", "exchangeable": False}
            if stack.reason is not None or stack.k not in controls:
                rows.append({**row, "reason": stack.reason or f"there is no random group of {stack.k}"})
                continue
            names = (f"pairs within {stack.group_name}", f"pairs within {CONTROL} {controls[stack.k].draws[0]}")
            samples = (similarity.pairs(stack.members[0]), similarity.pairs(controls[stack.k].members[0]))
            rows.append(row | mann_whitney(*samples, names, exchangeable=False))
    return corrected(table(rows, GROUP_TEST))
