"""Which rankings of a layer's neurons are the same: relation `ranking_overlap`.

The neurons that matter for rare tokens may be those that matter for common ones, those that hold a large share of the
unembedding's null space, or those that write along token frequency. Each pair of rankings is compared by the neurons
that their heads share, beside what two unrelated rankings would share, and by rank correlation; and each ranking of
influence with itself over resampled text, which says how stable it is.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import polars as pl
from scipy import stats

from rare_tokens.analyses.agreement.rankings import (
    SHARED,
    TOPS,
    Compared,
    agreements,
    stability,
)
from rare_tokens.analyses.analysis import Analysis, Ask, Results, SetAnalysis, Source, members
from rare_tokens.analyses.curve.effect_cells import (
    MATCHED,
    NO_POSITION,
    PRESETS,
    TOKEN_GROUPS,
    WindowSums,
    aligned_sums,
)
from rare_tokens.analyses.curve.stored_cells import stored_cells
from rare_tokens.analyses.result_table import table

INFLUENCE, RESAMPLED = "influence", "influence on resampled text"
NULL_SPACE, FREQUENCY = "null_space_share", "frequency_correlation"  # columns of dim_neuron; the latter by its size
DRAWS, SEED = 1_000, 0
MOST = 12  # runs of one layer that are compared two by two; of more, evenly spaced ones and the last

RANKING_OVERLAP: dict[str, Any] = (
    dict.fromkeys(("preset", "token_group", "ranking"), pl.String)
    | dict.fromkeys(("other_run_id", "other_preset", "other_token_group", "other_ranking"), pl.String)
    | SHARED
    | dict.fromkeys(("expected_10", "p_10", "expected_50", "p_50"), pl.Float64)
    | {"neurons": pl.Int64, "windows": pl.Int64, "draws": pl.Int64, "reason": pl.String}
)


@dataclass(frozen=True)
class Ranking:
    """A ranking of a layer's neurons.

    Attributes:
        ranking: by what.
        preset: of the token group; None: it is of no token group.
        token_group: rare or common.
        sums: Σ |Δ| by window, or for a property of the neurons the same value in every window; None: it has no
            position, or the property is not known.
    """

    ranking: str
    preset: str | None
    token_group: str | None
    sums: WindowSums | None

    def columns(self, other: str = "") -> dict[str, Any]:
        """The columns that name it, with the prefix `other`."""
        return {f"{other}{name}": getattr(self, name) for name in ("preset", "token_group", "ranking")}


def influence_rankings(cells: pl.DataFrame) -> list[Ranking]:
    """The rankings by influence of every preset and token group, over the same windows.

    Args:
        cells: `agg_effect` of a run.
    """
    presets = [*PRESETS, *([MATCHED] if cells["matched_group"].count() else [])]
    groups = [(preset, group) for preset in presets for group in TOKEN_GROUPS]
    found = aligned_sums(cells, groups)
    return [Ranking(INFLUENCE, *group, found.get(group)) for group in groups]


def property_rankings(neurons: pl.DataFrame, windows: int) -> list[Ranking]:
    """The rankings by the neurons' own properties: text does not move them.

    Args:
        neurons: `dim_neuron` of a run.
        windows: number of windows of the rankings by influence.
    """
    found = []
    for name in (NULL_SPACE, FREQUENCY):
        values = neurons.sort("neuron")[name].cast(pl.Float64).abs().fill_null(0.0).to_numpy()
        every = np.repeat(values[:, None], windows, axis=1)
        is_known = neurons[name].count() > 0
        index = neurons.sort("neuron")["neuron"].to_numpy()
        found.append(Ranking(name, None, None, WindowSums(index, np.ones(windows), every) if is_known else None))
    return found


def ranking_overlap(cells: pl.DataFrame, neurons: pl.DataFrame, *, draws: int, seed: int) -> pl.DataFrame:
    """Compare the rankings of one run.

    Args:
        cells: `agg_effect` of the run.
        neurons: `dim_neuron` of the run.
        draws: bootstrap samples of windows.
        seed: of the resampling.

    Returns:
        `RANKING_OVERLAP`: every pair of token groups, each with the two properties, the properties with each other, and
        each token group with itself on resampled text. NULL with the reason where a ranking is undefined.
    """
    influences = influence_rankings(cells)
    windows = next((one.sums.windows for one in influences if one.sums is not None), 1)
    rankings = [*influences, *property_rankings(neurons, windows)]
    pairs = list(combinations(range(len(rankings)), 2))
    rows = _compared(rankings, pairs, draws=draws, seed=seed)
    for one in influences:
        found = {"reason": NO_POSITION} if one.sums is None else stability(one.sums, TOPS, draws=draws, seed=seed)
        again = Ranking(RESAMPLED, one.preset, one.token_group, one.sums)
        rows.append(one.columns() | again.columns("other_") | {"draws": draws} | found)
    return table([row | by_chance(row, len(neurons)) for row in rows], RANKING_OVERLAP)


def _compared(
    rankings: Sequence[Ranking], pairs: Sequence[tuple[int, int]], *, draws: int, seed: int
) -> list[dict[str, Any]]:
    """The rows of pairs of rankings over the same windows."""
    known = [place for place, one in enumerate(rankings) if one.sums is not None]
    sums = [one.sums for one in rankings if one.sums is not None]
    whole = [pair for pair in pairs if set(pair) <= set(known)]
    compared = [Compared(known.index(one), known.index(other), TOPS) for one, other in whole]
    found = dict(zip(whole, agreements(sums, compared, draws=draws, seed=seed) if whole else [], strict=True))
    rows = []
    for one, other in pairs:
        lacking = [rankings[place] for place in (one, other) if rankings[place].sums is None]
        reason = {"reason": NO_POSITION if lacking and lacking[0].preset else "not known for the layer's neurons"}
        named = rankings[one].columns() | rankings[other].columns("other_") | {"draws": draws}
        rows.append(named | found.get((one, other), reason))
    return rows


def by_chance(row: Mapping[str, Any], neurons: int) -> dict[str, Any]:
    """What two unrelated rankings of so many neurons share: k²/N, and the probability that they share as many.

    Not for a ranking beside itself, nor where too few neurons are ranked.
    """
    found: dict[str, Any] = {"neurons": neurons}
    if row.get("other_ranking") == RESAMPLED:
        return found
    for name, count in TOPS.items():
        shared = row.get(f"shared_{name}")
        if shared is not None:
            found[f"expected_{name}"] = count * count / neurons
            found[f"p_{name}"] = float(stats.hypergeom.sf(shared - 1, neurons, count, count))
    return found


def every_layer_set(runs: pl.DataFrame) -> list[pl.DataFrame]:
    """The published runs of the same layer of the same model, at any checkpoint, on any text, with any ablation.

    Args:
        runs: `dim_run`.

    Returns:
        The sets of two runs or more, each in order of training, then of publication; of more than `MOST`, evenly
        spaced ones.
    """
    ordered = runs.filter(pl.col("status") == "published").sort(
        "training_stage", "training_step", "created_at", "run_id"
    )
    found = []
    for rows in ordered.partition_by("model", "layer", "neurons", "quantisation", maintain_order=True):
        places = np.unique(np.rint(np.linspace(0, len(rows) - 1, MOST)).astype(int))
        if len(rows) > 1:
            found.append(rows if len(rows) <= MOST else rows[places])
    return found


def overlap_across(runs: pl.DataFrame, cells: Mapping[str, pl.DataFrame], *, draws: int, seed: int) -> pl.DataFrame:
    """Compare the rankings of several runs of one layer, token group by token group.

    Args:
        runs: one of `every_layer_set`.
        cells: `agg_effect` of each run, by run_id.
        draws: bootstrap samples of windows: the same ones where the runs have the same positions, else of each text.
        seed: of the resampling.

    Returns:
        `RANKING_OVERLAP` with `run_id`; a pair of runs once, under the first.
    """
    ids = runs["run_id"].to_list()
    neurons = int(runs["neurons"][0])
    of_runs = [{(one.preset, one.token_group): one for one in influence_rankings(cells[run_id])} for run_id in ids]
    rows: list[dict[str, Any]] = []
    for group in dict.fromkeys(group for of_run in of_runs for group in of_run):
        having = [place for place, of_run in enumerate(of_runs) if group in of_run]
        rankings = [of_runs[place][group] for place in having]
        for (one, other), row in _pairs_of_runs(rankings, draws, seed):
            named = {"run_id": ids[having[one]], "other_run_id": ids[having[other]]}
            named |= rankings[one].columns() | rankings[other].columns("other_") | {"draws": draws} | row
            rows.append(named | by_chance(named, neurons))
    return table(rows, {"run_id": pl.String} | RANKING_OVERLAP)


def _pairs_of_runs(
    rankings: Sequence[Ranking], draws: int, seed: int
) -> Iterator[tuple[tuple[int, int], dict[str, Any]]]:
    """Every two of several runs' rankings of the same token group, and how far they agree; every text has its seed."""
    known = [place for place, one in enumerate(rankings) if one.sums is not None]
    sums = [one.sums for one in rankings if one.sums is not None]
    texts = [one.positions.tobytes() for one in sums]
    seeds = [seed + list(dict.fromkeys(texts)).index(text) for text in texts]
    compared = [Compared(one, other, TOPS) for one, other in combinations(range(len(sums)), 2)]
    found = agreements(sums, compared, draws=draws, seed=seeds) if compared else []
    rows = {(known[pair.first], known[pair.second]): row for pair, row in zip(compared, found, strict=True)}
    for pair in combinations(range(len(rankings)), 2):
        yield pair, rows.get(pair, {"reason": NO_POSITION})


def _compute(ask: Ask, parameters: Mapping[str, Any], _pool: Executor | None) -> Results:
    neurons = ask(Source("dim_neuron", columns=("neuron", NULL_SPACE, FREQUENCY)))
    return {"ranking_overlap": ranking_overlap(stored_cells(ask), neurons, **parameters)}


def _parameters(runs: pl.DataFrame) -> dict[str, Any]:
    return {"draws": DRAWS, "seed": SEED, "tops": list(TOPS.values()), "runs": members(runs)}


def _compute_across(asks: Mapping[str, Ask], runs: pl.DataFrame) -> Results:
    cells = {run_id: stored_cells(ask) for run_id, ask in asks.items()}
    return {"ranking_overlap_across": overlap_across(runs, cells, draws=DRAWS, seed=SEED)}


ANALYSIS = Analysis(
    "ranking_overlap",
    {"ranking_overlap": RANKING_OVERLAP},
    ("agg_effect", "dim_neuron"),
    _compute,
    {"draws": DRAWS, "seed": SEED},
)
ACROSS = SetAnalysis(
    "ranking_overlap_across",
    "Compare the rankings of runs",
    {"ranking_overlap_across": {"run_id": pl.String} | RANKING_OVERLAP},
    ("agg_effect",),
    every_layer_set,
    _parameters,
    _compute_across,
)
