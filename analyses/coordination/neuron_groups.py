"""Neuron groups and the random groups that they are compared with (docs/definitions.md, "Neuron groups").

A group frame has one row per `group_name` × `k` × `draw` × `neuron`. k is the number of neurons in the group. Draw 0
is a group chosen by what its neurons do; draws 1 … C of the group `control` are random, drawn from a `pool`:
`disjoint`, the neurons in no tested group, or `layer`, all of them. A tested group is not drawn: its stored pool is
NULL, and in an analysis its pool is that of the controls it is compared with. A group that cannot be formed is one row
with neuron NULL and the reason.

The groups follow the papers, which read the sign of a mean. `boost_settled` and `suppress_settled` are a variant for
analyses that ask for it by `group_names`; none does by default. Random groups are drawn as if the variant did not
exist, so it changes no result of the other groups: the pool `disjoint` leaves out only the neurons of the others, and a
random group may hold a neuron that only the variant has.
"""

from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import polars as pl

from rare_tokens.analyses.analysis import GROUP_KEY, Analysis, Ask, Results, Source, keyed
from rare_tokens.analyses.coordination.of_groups import DISJOINT, SIGN_GROUPS, WHOLE_LAYER, Pool, is_matched
from rare_tokens.analyses.curve.effect_cells import MATCHED, RARE
from rare_tokens.analyses.result_table import IntArray, table
from rare_tokens.analyses.statistics import CONTROL

GROUP: dict[str, Any] = {
    "group_name": pl.String,
    "k": pl.Int64,
    "draw": pl.Int64,
    "neuron": pl.Int64,
    "pool": pl.String,
    "reason": pl.String,
}
SETTLED = {name: f"{name}_settled" for name in SIGN_GROUPS}  # the groups of settled signs, by sign


@dataclass(frozen=True)
class Stack:
    """All draws of one group name and size.

    Attributes:
        group_name: `boost`, `suppress` … or `control`.
        k: neurons in each draw.
        draws: shape (D,).
        members: neuron indices, ascending in each row, shape (D, k); (D, 0) where the group could not be formed.
        reason: why it could not.
        pool: where a control was drawn; for a tested group, the pool of the controls it is compared with.
    """

    group_name: str
    k: int
    draws: IntArray
    members: IntArray
    reason: str | None = None
    pool: str | None = None

    @property
    def tested(self) -> bool:
        """Whether this is a group chosen by what its neurons do."""
        return self.group_name != CONTROL

    def each(self) -> Iterator[tuple[dict[str, Any], IntArray]]:
        """Key columns and members of each draw."""
        for draw, members in zip(self.draws.tolist(), self.members, strict=True):
            yield {"group_name": self.group_name, "k": self.k, "draw": draw, "pool": self.pool}, members


def sign_groups(ranking: pl.DataFrame, k: int = 50) -> pl.DataFrame:
    """`boost` and `suppress`: the k most influential neurons of each sign (ES table 1).

    Args:
        ranking: `neuron_influence` of one run, preset and token group: `neuron`, `rank` (1 = largest influence) and
            `role` (`boost` where ablation raises the group's loss, `suppress` where it lowers it, NULL at 0).
        k: neurons per group. A sign with fewer than k neurons gets no group.

    Returns:
        `GROUP`, draw 0.
    """
    return pl.concat([_top(ranking.filter(pl.col("role") == role), role, k) for role in SIGN_GROUPS])


def settled_groups(ranking: pl.DataFrame, signs: pl.DataFrame, k: int = 50) -> pl.DataFrame:
    """`boost_settled` and `suppress_settled`: the k most influential neurons whose sign the text settles.

    Args:
        ranking: as in `sign_groups`.
        signs: `neuron_sign` of the same run, preset and token group: `neuron`, `settled_role` and `reason`.
        k: neurons per group. A sign with fewer than k settled neurons, or without intervals, gets no group.

    Returns:
        `GROUP`, draw 0.
    """
    if len(signs) and signs["settled_role"].null_count() == len(signs):
        why = signs.filter(pl.col("role").is_not_null())["reason"]
        reason = why[0] if len(why) else "no neuron has a sign"
        return pl.concat(_undefined(name, k, reason) for name in SETTLED.values())
    parts = []
    for role, name in SETTLED.items():
        settled = signs.filter(pl.col("settled_role") == role).select("neuron")
        parts.append(_top(ranking.join(settled, on="neuron", how="semi"), name, k))
    return pl.concat(parts)


def plateau_groups(ranking: pl.DataFrame, regimes: pl.DataFrame) -> pl.DataFrame:
    """`plateau`, and its `excitatory` and `inhibitory` halves: plateau ∩ boost and plateau ∩ suppress (NC table 1).

    Args:
        ranking: as in `sign_groups`.
        regimes: `neuron_deviation` of the same run, preset and token group: `neuron` and `regime`.
    """
    plateau = regimes.filter(pl.col("regime") == "plateau").select("neuron")
    return _halves(ranking.join(plateau, on="neuron", how="semi"), ("plateau", "excitatory", "inhibitory"))


def top_groups(ranking: pl.DataFrame, share: float = 0.01) -> pl.DataFrame:
    """`top`: the share of the layer with the largest influence (DS: 1 %), and its halves `top_boost`, `top_suppress`.

    Args:
        ranking: as in `sign_groups`.
        share: of the ranked neurons; at least one.
    """
    known = ranking.filter(pl.col("rank").is_not_null())
    count = max(1, round(share * len(known)))
    return _halves(known.filter(pl.col("rank") <= count), ("top", "top_boost", "top_suppress"))


def with_controls(
    groups: pl.DataFrame,
    neurons: int,
    *,
    draws: int = 100,
    seed: int = 0,
    pool: Pool | None = None,
) -> pl.DataFrame:
    """The groups, plus `draws` random groups, named `control`, of each of their sizes.

    Args:
        groups: `GROUP`.
        neurons: N of the layer.
        draws: C, random groups per size. The first 100 of 10,000 are the same as 100 drawn with the same seed.
        seed: of the draws.
        pool: as in `random_groups`; None: that of `suited_pool`.

    Returns:
        `GROUP`, with the pool in every row.
    """
    pool = pool or suited_pool(groups, neurons)
    drawn = random_groups(groups, neurons, draws=draws, seed=seed, pool=pool)
    return pl.concat([groups.with_columns(pool=pl.lit(pool)).select(list(GROUP)), drawn])


def random_groups(groups: pl.DataFrame, neurons: int, *, draws: int, seed: int, pool: Pool) -> pl.DataFrame:
    """`draws` random groups, named `control`, for each size of the groups that were formed.

    Args:
        groups: `GROUP`, draw 0.
        neurons: N of the layer.
        draws: C, random groups per size.
        seed: of the draws.
        pool: `disjoint` draws from the neurons in none of the groups, `layer` from all N (NC A.4).

    Returns:
        `GROUP`. A size for which the pool holds too few neurons is one row with the reason.
    """
    taken = groups["neuron"].drop_nulls().unique().to_numpy()
    candidates = np.arange(neurons) if pool == WHOLE_LAYER else np.setdiff1d(np.arange(neurons), taken)
    where = "in the layer" if pool == WHOLE_LAYER else "outside the tested groups"
    parts = [table([], GROUP)]
    for k in groups.filter(pl.col("neuron").is_not_null())["k"].unique().sort().to_list():
        if k > len(candidates):
            reason = f"{len(candidates)} neurons are {where}; a random group needs {k}"
            parts.append(_undefined(CONTROL, k, reason, draw=1).with_columns(pool=pl.lit(pool)))
            continue
        rng = np.random.default_rng([seed, k])
        members = np.array([np.sort(rng.choice(candidates, k, replace=False)) for _ in range(draws)])
        parts.append(
            pl.DataFrame(
                {
                    "group_name": [CONTROL] * members.size,
                    "k": np.full(members.size, k),
                    "draw": np.repeat(np.arange(1, draws + 1), k),
                    "neuron": members.ravel(),
                    "pool": [pool] * members.size,
                    "reason": [None] * members.size,
                },
                schema=GROUP,
            )
        )
    return pl.concat(parts)


def suited_pool(groups: pl.DataFrame, neurons: int) -> Pool:
    """Where to draw controls from: `disjoint`, unless the groups hold more than a tenth of the layer; then `layer`.

    The rest of the layer lacks what the tested groups have, so disjoint controls lie on the other side of the layer's
    mean, and a random group looks too extreme. Measured on 400 random groups of 50, two at a time, mean correlation at
    5 %: with 1,024 neurons 7 % are rejected (whole layer: 6 %), with 172 neurons 36 % (whole layer: 5 %).
    """
    return DISJOINT if groups["neuron"].drop_nulls().n_unique() <= neurons / 10 else WHOLE_LAYER


def stacks(groups: pl.DataFrame) -> list[Stack]:
    """The groups as arrays, one `Stack` per group name and size, in order of appearance.

    Raises:
        ValueError: a draw does not hold k distinct neurons, or random groups come from two pools, where a statistic is
            compared with those of one.
    """
    if (pools := groups.filter(pl.col("group_name") == CONTROL)["pool"].unique()).len() > 1:
        raise ValueError(f"random groups of {pools.len()} pools ({', '.join(map(str, pools.sort()))}): choose one")
    found = []
    for part in groups.select(list(GROUP)).partition_by(["group_name", "k"], maintain_order=True):
        name, k, draw, neuron, pool, reason = part.row(0)
        if neuron is None:
            found.append(Stack(name, k, np.array([draw]), np.zeros((1, 0), dtype=np.int64), reason, pool))
            continue
        part = part.sort("draw", "neuron")
        sizes = part.group_by("draw", maintain_order=True).agg(pl.col("neuron").n_unique(), rows=pl.len())
        if not ((sizes["neuron"] == k) & (sizes["rows"] == k)).all():
            raise ValueError(f"group {name} says k = {k}, but a draw of it does not hold {k} distinct neurons")
        found.append(Stack(name, k, sizes["draw"].to_numpy(), part["neuron"].to_numpy().reshape(-1, k), pool=pool))
    return found


def comparisons(found: list[Stack]) -> Iterator[tuple[str, Stack, Stack]]:
    """The pairs of neurons in tables 1 and 3 of ES, as (comparison, stack, other), aligned draw by draw.

    `within` each group (B, S, R); `groups`, between any two tested groups that share no neuron (B–S) and between each
    control and the next (R1–R2; the last with the first).
    """
    formed = [stack for stack in found if stack.reason is None]
    tested = [stack for stack in formed if stack.tested]
    yield from (("within", stack, stack) for stack in formed)
    for one, other in combinations(tested, 2):
        if not np.isin(one.members, other.members).any():
            yield "groups", one, other
    for stack in formed:
        if not stack.tested and len(stack.members) > 1:
            shifted = replace(stack, draws=np.roll(stack.draws, -1), members=np.roll(stack.members, -1, axis=0))
            yield "groups", stack, shifted


def used_neurons(found: list[Stack], neurons: int) -> IntArray:
    """All neurons of the groups, ascending.

    Raises:
        ValueError: an index is outside the layer's `neurons`.
    """
    used = np.unique(np.concatenate([stack.members.ravel() for stack in found] or [np.zeros(0, dtype=np.int64)]))
    if len(used) and not (used[0] >= 0 and used[-1] < neurons):
        raise ValueError(f"neuron {used[-1] if used[-1] >= neurons else used[0]} is outside the layer of {neurons}")
    return used.astype(np.int64)


def _halves(chosen: pl.DataFrame, names: tuple[str, str, str]) -> pl.DataFrame:
    roles = (None, *SIGN_GROUPS)
    parts = [chosen if role is None else chosen.filter(pl.col("role") == role) for role in roles]
    return pl.concat([_top(part, name, len(part)) for name, part in zip(names, parts, strict=True)])


def _top(candidates: pl.DataFrame, name: str, k: int) -> pl.DataFrame:
    ranked = candidates.filter(pl.col("rank").is_not_null()).sort("rank")
    if len(ranked) < k or k == 0:
        reason = f"{len(ranked)} neurons are of this kind; {k} are needed" if k else "no neuron is of this kind"
        return _undefined(name, k, reason)
    neurons = ranked.head(k)["neuron"].sort().to_list()
    return table([{"group_name": name, "k": k, "draw": 0, "neuron": neuron} for neuron in neurons], GROUP)


def _undefined(name: str, k: int, reason: str, draw: int = 0) -> pl.DataFrame:
    return table([{"group_name": name, "k": k, "draw": draw, "neuron": None, "reason": reason}], GROUP)


def _compute(ask: Ask, parameters: Mapping[str, Any], _pool: Executor | None) -> Results:
    neurons = len(ask(Source("dim_neuron", columns=("neuron",))))

    def formed(preset: str) -> pl.DataFrame:
        ranking = ask(Source("neuron_influence", preset, RARE))
        deviation = ask(Source("neuron_deviation", preset, RARE))
        chosen = [
            sign_groups(ranking, parameters["k"]),
            plateau_groups(ranking, deviation),
            top_groups(ranking, parameters["top_share"]),
        ]
        tested = pl.concat(chosen)
        settled = settled_groups(ranking, ask(Source("neuron_sign", preset, RARE)), parameters["k"])
        suited = {suited_pool(tested, neurons), WHOLE_LAYER}
        options = {"draws": parameters["draws"], "seed": parameters["seed"]}
        drawn = [random_groups(tested, neurons, pool=pool, **options) for pool in parameters["pools"] if pool in suited]
        return pl.concat([tested, settled, *drawn])

    presets = [*parameters["presets"], *([MATCHED] if is_matched(ask) else [])]
    return {"neuron_group": pl.concat(keyed(formed(preset), preset, RARE) for preset in presets)}


ANALYSIS = Analysis(
    "neuron_group",
    {"neuron_group": GROUP | GROUP_KEY},
    ("dim_neuron", "neuron_influence", "neuron_deviation", "influence_interval", "neuron_sign"),  # the last shows it
    _compute,
    {"presets": ["es", "nc"], "k": 50, "top_share": 0.01, "draws": 100, "pools": [DISJOINT, WHOLE_LAYER], "seed": 0},
)
