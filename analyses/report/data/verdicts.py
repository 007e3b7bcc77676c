"""Measured values next to printed ones, each with a verdict that says so if the models differ."""

import re
from collections.abc import Mapping
from typing import Any

import polars as pl

from rare_tokens.analyses.report.data.inputs import ReportInputs

AGREES, DIFFERS, CANNOT_TELL, NOT_MEASURED = "agrees", "differs", "cannot tell", "not measured"
NORMAL = 1.96  # standard deviations each way that hold 95 % of random groups

ROUNDING = 1e-12  # a statistic of correlations this near to 0 is 0

# A published quantity -> the column of `group_summaries` that measures the same, and a factor.
MEASURES = {
    "kappa": ("kappa", 1.0),
    "r2": ("r2", 1.0),
    "share_within_0.1_percent": ("share_within_0_1", 100.0),
    "plateau_neurons": ("neurons_above_0_5", 1.0),
}
SCHEMA: dict[str, Any] = {
    **dict.fromkeys(("run_id", "preset", "token_group", "group_name", "quantity"), pl.String),
    **dict.fromkeys(("definition", "measured_group"), pl.String),
    "k": pl.Int64,
    **dict.fromkeys(("measured", "low", "high", "spread", "random_mean", "random_sd", "p_value"), pl.Float64),
    "p_alone": pl.Float64,
    "tests": pl.Int64,
    **dict.fromkeys(("p_reason", "reason"), pl.String),
    **dict.fromkeys(("paper", "place", "printed_model", "relation"), pl.String),
    **dict.fromkeys(("printed", "printed_to", "plus_minus", "effect"), pl.Float64),
    "same_model": pl.Boolean,
    "verdict": pl.String,
    "why": pl.String,
}


def comparisons(inputs: ReportInputs, summaries: pl.DataFrame) -> pl.DataFrame:
    """One row per run × preset × measured value × published value of the same quantity.

    `same_model` says whether the paper states the value for the run's model; if not, the two numbers are about
    different models, and the verdict only says whether they lie together. `relation`, `printed`, `printed_to` and
    `plus_minus` are the paper's; a measured value is in the printed value's unit. `effect` is the distance that the
    paper prints between the group and its random groups, or else 0.
    """
    models = dict(inputs.runs.select("run_id", "model").iter_rows())
    printed = inputs.published.filter(pl.col("group_name").is_not_null(), ~pl.col("quantity").str.ends_with("p_value"))
    printed = _with_effects(printed).rename({"value": "printed", "value_to": "printed_to", "model": "printed_model"})
    both = _measured(inputs, summaries).join(printed, on=["group_name", "quantity"], how="inner")
    # A table's number is compared with what was measured for that table, if both say which.
    both = both.filter(pl.col("measured_place").is_null() | _same_kind())
    rows = []
    for row in both.sort("run_id", "preset", "paper", "place", "quantity", "group_name", "definition").to_dicts():
        same = same_model(models[row["run_id"]], row["printed_model"])
        found, why = verdict(row, row["effect"])
        rows.append({name: row.get(name) for name in SCHEMA} | {"same_model": same, "verdict": found, "why": why})
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def verdict(row: Mapping[str, Any], effect: float | None) -> tuple[str, str]:
    """What one measured value (`measured`, `low`, `high`) says about a printed one, and why.

    Agrees: the printed value is in our 95 % interval, or the intervals overlap if the paper prints ±. Cannot tell: we
    have no interval, or it is wider than `effect`, what the paper finds.
    """
    if row["measured"] is None:
        return NOT_MEASURED, row.get("reason") or "no value is stored"
    if row["low"] is None or row["high"] is None:
        return CANNOT_TELL, "the measured value has no interval"
    bottom, top = printed_interval(row)
    if effect and row["high"] - row["low"] > effect:
        return CANNOT_TELL, "the measured interval is wider than what the paper finds"
    if row["low"] <= top and row["high"] >= bottom:
        return AGREES, "the intervals overlap" if row["plus_minus"] else "printed inside the measured interval"
    return DIFFERS, "the measured interval lies outside what is printed"


def printed_interval(row: Mapping[str, Any]) -> tuple[float, float]:
    """The values that a paper's statement allows."""
    value, to, margin = row["printed"], row["printed_to"], row["plus_minus"] or 0.0
    if row["relation"] in ("<", "≤"):
        return float("-inf"), value
    if row["relation"] in (">", "≥"):
        return value, float("inf")
    return value - margin, (value if to is None else to) + margin


def same_model(model: str, printed: str | None) -> bool:
    """Whether a paper's model (`GPT-2 XL`, `Pythia-410M`) is the run's (`gpt2-xl`, `EleutherAI/pythia-410m`)."""
    plain = [re.sub(r"[^a-z0-9]", "", name.rsplit("/", 1)[-1].lower()) for name in (model, printed or "")]
    return plain[0].removesuffix("small") == plain[1].removesuffix("small")


def _measured(inputs: ReportInputs, summaries: pl.DataFrame) -> pl.DataFrame:
    """Every measured value that a paper may print: `measured_value`, and the curves' numbers."""
    stored = inputs.values.filter(pl.col("token_group").is_in(["rare", "common"])).rename(
        {"value": "measured", "place": "measured_place"}
    )
    random = pl.col("spread").is_not_null() & pl.col("group_name").str.starts_with("random")
    stored = stored.with_columns(
        low=pl.when(random).then(pl.col("measured") - NORMAL * pl.col("spread")).otherwise("low"),
        high=pl.when(random).then(pl.col("measured") + NORMAL * pl.col("spread")).otherwise("high"),
    ).drop("paper")
    numbers = pl.col("measured", "low", "high", "spread", "random_mean", "random_sd")
    stored = stored.with_columns(pl.when(numbers.abs() >= ROUNDING).then(numbers).when(numbers.is_not_null()).then(0.0))
    rows = [
        {name: found[name] for name in ("run_id", "preset", "token_group")}
        | {"group_name": found["token_group"], "quantity": quantity, "definition": ""}
        | {"measured": _scaled(found[column], factor)}
        | {end: _scaled(found.get(f"{column}_{end}"), factor) for end in ("low", "high")}
        | {"reason": found["empty_reason"] or found["fit_reason"]}
        for found in summaries.iter_rows(named=True)
        for quantity, (column, factor) in MEASURES.items()
    ]
    columns = {name: kind for name, kind in SCHEMA.items() if name in stored.columns} | {"measured_place": pl.String}
    return pl.concat([stored.select(*columns), pl.DataFrame(rows, schema=columns, orient="row")])


def _same_kind() -> pl.Expr:
    """Rows whose measured and printed places match: a table with that table, the text with anything."""
    table = pl.col("place").str.starts_with("table")
    return ~table | (pl.col("place") == pl.col("measured_place"))


def _with_effects(printed: pl.DataFrame) -> pl.DataFrame:
    """`printed` with the `effect` of each value: its distance from the random groups of its model, or from 0."""
    key = ["paper", "place", "model", "quantity"]
    random = printed.filter(group_name="random").select(*key, random="value").unique(key)
    known = printed.join(random, on=key, how="left", nulls_equal=True)
    tested = ~pl.col("group_name").str.contains("random") & pl.col("random").is_not_null()
    effect = pl.when(tested).then((pl.col("value") - pl.col("random")).abs()).otherwise(pl.col("value").abs())
    return known.with_columns(effect=pl.when(effect > 0).then(effect)).drop("random")


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else factor * value
