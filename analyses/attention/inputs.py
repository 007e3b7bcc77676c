"""The analyses of attention of one run: what they read, for each ablation that it was measured with (SPEC 8)."""

from typing import Any

import polars as pl

from rare_tokens.analyses.analysis import Ask, Source
from rare_tokens.analyses.attention.head_edits import (
    ACTIVATION_PATCHING,
    HEAD_ABLATION,
    Measured,
    activation_patching,
    head_ablation,
)
from rare_tokens.analyses.attention.routing import attention_routing
from rare_tokens.analyses.result_table import table

# Filled by `ingest --attention`; empty in runs without it
ATTENTION = (
    "dim_attention",
    "dim_attention_edit",
    "dim_attention_cell",
    "agg_attention_head",
    "agg_attention_distance",
    "attention_unit",
    "attention_impact",
    "fct_attention_effect",
)
ABLATIONS = ("zero", "mean", "uniform")


def routing(ask: Ask, preset: str, **parameters: Any) -> pl.DataFrame:
    """`attention_routing` of a run and preset; no rows without attention."""
    measured = _ablations(ask)[:1]  # attention is the same, whatever was ablated after
    cells = ask(
        Source("dim_attention_cell", preset, columns=("head_ablation", "cell", "token_group", "window_id", "positions"))
    )
    heads = ask(Source("agg_attention_head"))
    distances = ask(
        Source(
            "agg_attention_distance",
            columns=("head_ablation", "attention_layer", "head", "cell", "distance", "weight_sum"),
        )
    )
    chosen = pl.col("head_ablation").is_in(measured)
    return attention_routing(heads.filter(chosen), distances.filter(chosen), cells.filter(chosen), **parameters)


def ablations(
    ask: Ask, preset: str, groups: pl.DataFrame, *, draws: int, level: float, resamples: int, seed: int
) -> dict[str, pl.DataFrame]:
    """`head_ablation` and `activation_patching` of a run and preset, with the columns preset and token_group.

    Args:
        ask: reads of the run.
        preset: of the token groups and the groups of neurons.
        groups: `GROUP`, draw 0.
        draws: as `head_ablation`, as the other parameters.
    """
    found = _ablations(ask)
    key = {"preset": pl.lit(preset)}
    ablated = [table([], HEAD_ABLATION).with_columns(head_ablation=pl.lit(""))]
    patched = [table([], ACTIVATION_PATCHING)]
    for place, name in enumerate(found):
        measured = _measured(ask, preset, groups, name)
        rows = head_ablation(measured, draws=draws, level=level, resamples=resamples, seed=seed)
        ablated.append(rows.with_columns(head_ablation=pl.lit(name)))
        if place == 0:  # patches are the same, whatever was ablated beside them
            patched.append(activation_patching(measured, resamples=resamples, seed=seed))
    return {
        "head_ablation": pl.concat(ablated).with_columns(**key),
        "activation_patching": pl.concat(patched).with_columns(**key),
    }


def _ablations(ask: Ask) -> list[str]:
    """The ablations that a run's attention was measured with, `zero` first."""
    there = set(ask(Source("dim_attention", columns=("head_ablation",)))["head_ablation"])
    return [name for name in ABLATIONS if name in there]


def _measured(ask: Ask, preset: str, groups: pl.DataFrame, ablation: str) -> Measured:
    of_this = pl.col("head_ablation") == ablation
    edits = ask(Source("dim_attention_edit")).filter(of_this).sort("edit")
    units = ask(Source("attention_unit", preset)).filter(
        of_this, pl.col("group_name").is_in(groups["group_name"].unique().to_list())
    )
    neurons = ask(Source("dim_neuron", columns=("neuron", "layer")))
    return Measured(
        layer=int(neurons["layer"][0]),
        edits=edits,
        units=units,
        impact=ask(Source("attention_impact", preset)).filter(of_this),
        losses=_losses(ask, preset).filter(of_this),
        groups=groups,
        neurons=len(neurons),
    )


def _losses(ask: Ask, preset: str) -> pl.DataFrame:
    """Loss effects summed over the positions of each token group in each window; of matched contexts in each pair."""
    effects = ask(Source("fct_attention_effect", columns=("head_ablation", "edit", "position_id", "delta_loss")))
    grouped = ask(Source("position_group", preset, columns=("token_group", "position_id")))
    windows = ask(Source("dim_position", columns=("position_id", "window_id")))
    pairs = ask(Source("position_context", columns=("position_id", "pair_id")))
    if pairs.height:
        windows = pairs.rename({"pair_id": "window_id"})
    return (
        effects.join(grouped, on="position_id")
        .join(windows, on="position_id")
        .group_by("head_ablation", "token_group", "edit", "window_id")
        .agg(pl.col("delta_loss").cast(pl.Float64).sum().alias("delta_sum"), pl.len().alias("positions"))
        .sort("head_ablation", "token_group", "edit", "window_id")
    )
