"""The analysis that reads all runs of a series at once: `emergence`.

Every other analysis is about one run. If a checkpoint joins the series or is published again, the whole series is
computed anew, because groups are those of the last checkpoint (docs/definitions.md, "Emergence").
"""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import polars as pl

from rare_tokens.analyses.across_runs.emergence import EMERGENCE, MISSING, emergence, group_alphas, series
from rare_tokens.analyses.analysis import Ask, Results, SetAnalysis, Source, members
from rare_tokens.analyses.coordination.of_groups import At
from rare_tokens.analyses.coordination.weight_spectra import Rule
from rare_tokens.analyses.curve.effect_cells import RARE
from rare_tokens.analyses.result_table import table

PRESET = "es"
PUBLISHED = "published"
GROUPS = ("boost", "suppress")
RULES: tuple[Rule, ...] = ("fix_finger", "mid")
CHOSEN: tuple[Literal["last", "each"], ...] = ("last", "each")
CURVES = ("neuron_influence", "power_law_fit", "regime_decision", "influence_interval")


def every_series(runs: pl.DataFrame) -> list[pl.DataFrame]:
    """The series with at least two checkpoints with effects, in order of training steps.

    Args:
        runs: `dim_run`; of those without effects only missing checkpoints have a place.
    """
    placed = series(runs.filter(pl.col("status").is_in([PUBLISHED, MISSING])))
    return [part for part in placed if (part["status"] == PUBLISHED).sum() > 1]


def parameters(runs: pl.DataFrame) -> dict[str, Any]:
    """What the stored rows depend on; if it changes, they are computed anew."""
    return {"k": 50, "rules": list(RULES), "chosen_at": list(CHOSEN), "runs": members(runs)}


def training(asks: Mapping[str, Ask], runs: pl.DataFrame) -> pl.DataFrame:
    """The relation `emergence` of one series.

    Args:
        asks: what each run with effects holds, by run_id.
        runs: one of `every_series`.

    Returns:
        `EMERGENCE`, for all its runs.
    """
    read = {name: pl.concat(_with_run_id(ask(Source(name)), run_id) for run_id, ask in asks.items()) for name in CURVES}
    curves = [
        emergence(
            runs, read["neuron_influence"], read["power_law_fit"],
            decisions=read["regime_decision"], intervals=read["influence_interval"], chosen_at=chosen_at,
        )
        for chosen_at in CHOSEN
    ]  # fmt: skip
    of_groups = curves[1].filter(pl.col("chosen_at").is_not_null())
    return pl.concat([curves[0], of_groups, table(list(_alphas(asks, runs)), EMERGENCE)])


def _alphas(asks: Mapping[str, Ask], runs: pl.DataFrame) -> Iterator[dict[str, Any]]:
    """Exponents in each checkpoint's weights, for the last checkpoint's groups and for its own."""
    with_effects = [run for run in runs.iter_rows(named=True) if run["run_id"] in asks]
    at = {run["run_id"]: At(asks[run["run_id"]], PRESET, RARE, GROUPS) for run in with_effects}
    last = at[with_effects[-1]["run_id"]].groups
    for run in with_effects:
        key = {"run_id": run["run_id"], "training_step": run["training_step"], "preset": PRESET, "token_group": RARE}
        own = at[run["run_id"]]
        weights = own.weights.get("w_out")
        for chosen_at, groups in zip(CHOSEN, (last, own.groups), strict=True):
            if weights is None:
                yield key | {"quantity": "alpha_mid", "chosen_at": chosen_at, "reason": "the run holds no weights"}
                continue
            yield from (key | row for row in group_alphas(weights, groups, chosen_at=chosen_at, rules=RULES))


def _with_run_id(frame: pl.DataFrame, run_id: str) -> pl.DataFrame:
    return frame.with_columns(run_id=pl.lit(run_id))


def _compute(asks: Mapping[str, Ask], runs: pl.DataFrame) -> Results:
    return {"emergence": training(asks, runs)}


ANALYSIS = SetAnalysis(
    "emergence",
    "Follow the series",
    {"emergence": EMERGENCE},
    (*CURVES, "neuron_group", "neuron_weight"),
    every_series,
    parameters,
    _compute,
)
