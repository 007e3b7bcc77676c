"""Which neurons of two runs do the same: computed for the runs that a command compares, and stored with both."""

import time
from itertools import combinations
from typing import TYPE_CHECKING, Any

import polars as pl

from rare_tokens import warehouse
from rare_tokens.commands.support.settings import Settings
from rare_tokens.common.progress import progress
from rare_tokens.common.version import VERSION

if TYPE_CHECKING:
    from rare_tokens.analyses.across_runs.neuron_match import Activations

NAME = "neuron_match"
SAME_NEURONS = "the same layer of the same model: each neuron is its own partner"
Pair = tuple[str, str]


def match_runs(runs: pl.DataFrame, settings: Settings) -> None:
    """Match the neurons of every two runs (rows of `dim_run`) that are not matched yet, and store both directions."""
    ids = runs["run_id"].to_list()
    due = _due(runs, settings)
    if not due:
        return
    same = warehouse.same_positions(settings.warehouse, ids, wait=settings.wait)
    started = time.perf_counter()
    found: dict[Pair, dict[str, pl.DataFrame]] = {}
    with progress("Match neurons", len(due), "pairs", quiet=settings.quiet) as advance:
        for pair in due:
            found |= _matched(pair, runs, same, settings)
            advance()
    seconds = round((time.perf_counter() - started) / len(ids), 2)
    for row in runs.iter_rows(named=True):
        new = {other: frames for (run_id, other), frames in found.items() if run_id == row["run_id"]}
        if new:
            _store(row, new, runs, seconds, settings)


def _due(runs: pl.DataFrame, settings: Settings) -> list[Pair]:
    """The pairs that one of the two lacks, was published again since, or has with other parameters."""
    published = dict(runs.select("run_id", pl.col("published_at").cast(pl.String)).rows())
    known = {run_id: _parameters(run_id, settings) for run_id in published}

    def has(one: str, other: str) -> bool:
        return known[one].get("runs", {}).get(other) == published[other] and _same(known[one])

    return [pair for pair in combinations(published, 2) if not (has(*pair) and has(*pair[::-1]))]


def _parameters(run_id: str, settings: Settings) -> dict[str, Any]:
    stored = warehouse.stored(settings.warehouse, run_id, wait=settings.wait).get(NAME)
    return stored.parameters if stored else {}


def _same(parameters: dict[str, Any]) -> bool:
    return {name: value for name, value in parameters.items() if name != "runs"} == _own_parameters()


def _own_parameters() -> dict[str, Any]:
    from rare_tokens.analyses.across_runs.neuron_match import DRAWS, ROTATIONS, SEED

    return {"draws": DRAWS, "rotations": ROTATIONS, "seed": SEED}


def _matched(
    pair: Pair, runs: pl.DataFrame, same: list[list[str]], settings: Settings
) -> dict[Pair, dict[str, pl.DataFrame]]:
    """The rows of both relations, for each direction."""
    from rare_tokens.analyses.across_runs.neuron_match import (
        OTHER_POSITIONS,
        neuron_match,
        plateau_match,
        unmatched,
    )

    rows = [runs.row(by_predicate=pl.col("run_id") == run_id, named=True) for run_id in pair]
    reason = None
    if not any(set(pair) <= set(members) for members in same):
        reason = OTHER_POSITIONS
    elif rows[0]["model_hash"] == rows[1]["model_hash"] and rows[0]["layer"] == rows[1]["layer"]:
        reason = SAME_NEURONS
    if reason:
        matches, plateaus = unmatched(reason)
        return {one: {"neuron_match": matches, "plateau_match": plateaus} for one in (pair, pair[::-1])}
    frames = neuron_match(*(_activations(run_id, settings) for run_id in pair), **_own_parameters())
    ranks = [_read(settings, run_id, "neuron_influence", "preset", "token_group", "neuron", "rank") for run_id in pair]
    fits = [_read(settings, run_id, "power_law_fit", "preset", "token_group", "head_rank") for run_id in pair]
    heads = [{(preset, group): b for preset, group, b in fit.rows() if b is not None} for fit in fits]
    return {
        one: {
            "neuron_match": matches,
            "plateau_match": plateau_match(matches, (ranks[way], ranks[1 - way]), (heads[way], heads[1 - way])),
        }
        for way, (one, matches) in enumerate(zip((pair, pair[::-1]), frames, strict=True))
    }


def _activations(run_id: str, settings: Settings) -> "Activations":
    from rare_tokens.analyses.across_runs.neuron_match import Activations

    return Activations(*warehouse.activations(settings.warehouse, run_id, wait=settings.wait))


def _read(settings: Settings, run_id: str, relation: str, *columns: str) -> pl.DataFrame:
    return warehouse.read(settings.warehouse, run_id, relation, columns=columns, wait=settings.wait)


def _store(
    run_row: dict[str, Any],
    new: dict[str, dict[str, pl.DataFrame]],
    runs: pl.DataFrame,
    seconds: float,
    settings: Settings,
) -> None:
    """Store a run's new matches beside those it has with other runs, unless these were made in another way."""
    from rare_tokens.analyses.across_runs.neuron_match import NEURON_MATCH, PLATEAU_MATCH

    run_id = run_row["run_id"]
    known = _parameters(run_id, settings)
    others = {other: at for other, at in known.get("runs", {}).items() if other not in new and _same(known)}
    published = dict(runs.select("run_id", pl.col("published_at").cast(pl.String)).rows())
    frames = {}
    for name, schema in {"neuron_match": NEURON_MATCH, "plateau_match": PLATEAU_MATCH}.items():
        kept = warehouse.read(settings.warehouse, run_id, name, columns=tuple(schema), wait=settings.wait)
        kept = kept.filter(pl.col("other_run_id").is_in(list(others))).cast(pl.Schema(schema))
        added = [
            frame[name].with_columns(other_run_id=pl.lit(other)).select(list(schema)) for other, frame in new.items()
        ]
        frames[name] = pl.concat([kept, *added])
    warehouse.store(
        settings.warehouse, run_id, NAME, frames,
        parameters=_own_parameters() | {"runs": others | {other: published[other] for other in new}},
        code_version=VERSION, seconds=seconds, published_at=run_row["published_at"], wait=settings.wait,
    )  # fmt: skip
