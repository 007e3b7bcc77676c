"""Does it matter what an activation is replaced by: relation `reference_agreement`.

The *references* of one measurement are runs that agree in everything but the ablation: one sees what the neurons do
when each is set to its mean, another when it is set to 0. How well two of them rank the neurons alike is computed from
their stored sums, with the same windows of text resampled for both.
"""

import json
from collections.abc import Mapping
from itertools import combinations
from typing import Any

import polars as pl

from rare_tokens.analyses.agreement.rankings import SHARED, TOPS, Compared, agreements, with_interval
from rare_tokens.analyses.analysis import GROUP_KEY, Ask, Results, SetAnalysis, Source, members
from rare_tokens.analyses.curve.effect_cells import NO_POSITION, GroupSums, WindowSums
from rare_tokens.analyses.curve.stored_cells import curve_sums
from rare_tokens.analyses.result_table import joined, table

# What two references have in common, besides all of `identity` except the ablation (edit scope, begin token …).
SAME = (
    "model", "revision", "model_hash", "layer", "neurons", "tokenizer_id", "frequency_source_id", "corpus_hash",
    "contexts", "positions", "window_length", "seed", "dtype", "quantisation",
)  # fmt: skip
ORDER = ("mean", "zero", "resample", "optimal")  # kinds of ablation; others come last
DRAWS, SEED = 1_000, 0

REFERENCE_AGREEMENT: dict[str, Any] = (
    {"run_id": pl.String, "other_run_id": pl.String, **GROUP_KEY}
    | SHARED
    | {"first": pl.Int64}  # b of the run, as in regime_decision
    | with_interval("shared_first")
    | {"shared_first": pl.Int64, "windows": pl.Int64, "draws": pl.Int64, "reason": pl.String}
)

Curves = Mapping[tuple[str, str], GroupSums | str]  # by preset and token group


def every_reference_set(runs: pl.DataFrame) -> list[pl.DataFrame]:
    """The published runs that agree in everything but the ablation, where there are at least two ablations.

    Args:
        runs: `dim_run`.

    Returns:
        The sets, each in the order mean, zero, resample, optimal.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for row in runs.filter(pl.col("status") == "published").iter_rows(named=True):
        identity = {name: value for name, value in json.loads(row["identity"] or "{}").items() if name != "ablation"}
        key = json.dumps([[row[name] for name in SAME], identity], sort_keys=True)
        found.setdefault(key, []).append(row)
    several = [rows for rows in found.values() if len({row["ablation"] for row in rows}) > 1]
    return [pl.DataFrame(sorted(rows, key=_order), schema=runs.schema) for rows in several]


def _order(run: Mapping[str, Any]) -> tuple[tuple[int, str], str]:
    return place(run["ablation"]), run["run_id"]


def place(ablation: str) -> tuple[int, str]:
    """Where an ablation stands among others: mean, zero, resample, optimal."""
    kind = ablation.partition(":")[0]
    return ORDER.index(kind) if kind in ORDER else len(ORDER), ablation


def reference_agreement(
    runs: pl.DataFrame,
    curves: Mapping[str, Curves],
    heads: Mapping[tuple[str, str, str], int | None],
    *,
    draws: int,
    seed: int,
) -> pl.DataFrame:
    """Compare the references of one measurement, two by two.

    Args:
        runs: one of `every_reference_set`.
        curves: sums of each run by window, by run_id.
        heads: b of each curve, by run_id, preset and token group; None, or absent, where there is no line.
        draws: bootstrap samples of windows.
        seed: of the resampling.

    Returns:
        `REFERENCE_AGREEMENT`: one row per pair of runs with different ablations, preset and token group, under the run
        that comes first in the set. NULL with the reason where the group has no position, a ranking is undefined, or
        a head is not known; intervals are NULL with a single window.
    """
    ordered = runs.select("run_id", "ablation").rows()
    pairs = [(i, j) for i, j in combinations(range(len(ordered)), 2) if ordered[i][1] != ordered[j][1]]
    rows = []
    for preset, token_group in curves[ordered[0][0]]:
        group = {"preset": preset, "token_group": token_group}
        rankings = _same_rankings([curves[run_id][preset, token_group] for run_id, _ in ordered])
        if isinstance(rankings, str):
            found: list[dict[str, Any]] = [{"draws": draws, "reason": rankings} for _ in pairs]
        else:
            first = [heads.get((run_id, preset, token_group)) for run_id, _ in ordered]
            compared = [Compared(i, j, TOPS | {"first": first[i]}) for i, j in pairs]
            found = agreements(rankings, compared, draws=draws, seed=seed)
            found = [_with_head(row, first[i]) for row, (i, _) in zip(found, pairs, strict=True)]
        for (i, j), row in zip(pairs, found, strict=True):
            rows.append({"run_id": ordered[i][0], "other_run_id": ordered[j][0]} | group | row)
    return table(rows, REFERENCE_AGREEMENT)


def _with_head(row: dict[str, Any], first: int | None) -> dict[str, Any]:
    return row | {"first": first, "reason": joined(row["reason"], "the run's curve has no line" if not first else None)}


def _same_rankings(found: list[GroupSums | str]) -> list[WindowSums] | str:
    """The sums of |Δ| of every run, or why they cannot be compared."""
    sums = [one.absolute for one in found if not isinstance(one, str)]
    if not sums:
        return NO_POSITION
    if len(sums) < len(found) or any(one.positions.tolist() != sums[0].positions.tolist() for one in sums):
        return "the token group has other positions in another of the runs"
    return sums


def parameters(runs: pl.DataFrame) -> dict[str, Any]:
    """What the stored rows depend on; if it changes, they are computed anew."""
    return {"draws": DRAWS, "seed": SEED, "tops": list(TOPS.values()), "runs": members(runs)}


def _compute(asks: Mapping[str, Ask], runs: pl.DataFrame) -> Results:
    curves = {run_id: curve_sums(ask) for run_id, ask in asks.items()}
    columns = ("preset", "token_group", "break_rank")
    heads = {
        (run_id, preset, group): rank
        for run_id, ask in asks.items()
        for preset, group, rank in ask(Source("regime_decision", columns=columns)).rows()
    }
    return {"reference_agreement": reference_agreement(runs, curves, heads, draws=DRAWS, seed=SEED)}


ANALYSIS = SetAnalysis(
    "reference_agreement",
    "Compare the references",
    {"reference_agreement": REFERENCE_AGREEMENT},
    ("agg_effect", "regime_decision"),
    every_reference_set,
    parameters,
    _compute,
)
