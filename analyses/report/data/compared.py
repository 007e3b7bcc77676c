"""Runs of several series side by side: which runs, and what is known of each two of them."""

from typing import Any

import polars as pl

from rare_tokens.analyses.report.data.inputs import ReportInputs
from rare_tokens.analyses.report.data.series import Run, Series

MOST = 8  # runs
KNOWN = ("shared_50", "rank_correlation", "first", "matched", "expected", "p_value", "head_correlation")

Row = dict[str, Any]


def compared_runs(series: list[Series]) -> list[Run]:
    """The run that each series shows first, at most `MOST`; none if only one series has effects."""
    shown = [one.shown for one in series if one.measured]
    return shown[:MOST] if len(shown) > 1 else []


def labels(runs: list[Row]) -> list[str]:
    """A name for each run: what tells it from the others, of model, revision, layer, ablation, corpus and seed."""
    parts = ("model", "revision", "layer", "ablation", "corpus", "seed")
    telling = [name for name in parts if len({str(run.get(name)) for run in runs}) > 1] or ["run_id"]
    named = {"layer": "layer ", "seed": "seed "}
    found = [", ".join(f"{named.get(name, '')}{run.get(name)}" for name in telling) for run in runs]
    return found if len(set(found)) == len(found) else [str(run["run_id"]) for run in runs]


def pair_rows(inputs: ReportInputs, runs: list[Run], preset: str) -> list[Row]:
    """What is known of each two runs for a preset, token group by token group.

    A row has the two run_ids, `token_group`, the overlap of their rankings (runs of the same layer of a model) and the
    neurons of their heads that are partners (runs that `compare` matched); None for what is not known. Pairs of which
    neither is known are left out.
    """
    rows = []
    ids = [run.run_id for run in runs]
    for place, one in enumerate(ids):
        for other in ids[place + 1 :]:
            for group in ("rare", "common"):
                overlap = _pair(
                    inputs.overlaps, one, other, preset, group, other_preset=preset, other_token_group=group
                )
                overlap = overlap or _pair(
                    inputs.overlaps, other, one, preset, group, other_preset=preset, other_token_group=group
                )
                matched = _pair(inputs.matches, one, other, preset, group)
                if overlap or matched:
                    named = {"run_id": one, "other_run_id": other, "token_group": group}
                    rows.append(named | dict.fromkeys(KNOWN) | overlap | matched)
    return rows


def _pair(frame: pl.DataFrame, one: str, other: str, preset: str, group: str, **further: str) -> Row:
    found = frame.filter(run_id=one, other_run_id=other, preset=preset, token_group=group, **further).to_dicts()
    return {name: value for name, value in found[0].items() if name in KNOWN} if found else {}
