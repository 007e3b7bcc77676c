"""What the analyses of attention read from a run, for each ablation that it was measured with."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import polars as pl

from rare_tokens.analyses.analysis import Ask, Source
from rare_tokens.analyses.result_table import IntArray

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


@dataclass(frozen=True)
class Measured:
    """One run's attention under one ablation, for one preset.

    Attributes:
        layer: the neurons' layer.
        edits: `dim_attention_edit`.
        units: `attention_unit`, for these groups.
        impact: `attention_impact`: token_group, edit, neuron, mean_change.
        losses: token_group, edit, window_id, positions, delta_sum: `fct_attention_effect` summed over windows.
        groups: `GROUP`, draw 0.
        neurons: N.
    """

    layer: int
    edits: pl.DataFrame
    units: pl.DataFrame
    impact: pl.DataFrame
    losses: pl.DataFrame
    groups: pl.DataFrame
    neurons: int

    @cached_property
    def windows(self) -> IntArray:
        """The units, by their first window, ascending."""
        return self.units["window_id"].unique().sort().to_numpy()

    @cached_property
    def parts(self) -> dict[tuple[Any, ...], pl.DataFrame]:
        """`units` by token group, group name, k and edit."""
        return self.units.partition_by("token_group", "group_name", "k", "edit", as_dict=True)

    @cached_property
    def loss_parts(self) -> dict[tuple[Any, ...], pl.DataFrame]:
        """`losses` by token group and edit."""
        return self.losses.partition_by("token_group", "edit", as_dict=True)

    @cached_property
    def loss_rows(self) -> dict[tuple[Any, ...], dict[str, Any]]:
        """Columns about the loss, once computed: they are the same for every group of neurons."""
        return {}


def measured_ablations(ask: Ask) -> list[str]:
    """The ablations that a run's attention was measured with, `zero` first."""
    there = set(ask(Source("dim_attention", columns=("head_ablation",)))["head_ablation"])
    return [name for name in ABLATIONS if name in there]


def read_measured(ask: Ask, preset: str, groups: pl.DataFrame, ablation: str) -> Measured:
    """A run's attention under one ablation, for a preset and its groups (`GROUP`, draw 0)."""
    of_this = pl.col("head_ablation") == ablation
    edits = ask(Source("dim_attention_edit")).filter(of_this).sort("edit")
    names = tuple(groups["group_name"].unique().sort())
    units = ask(Source("attention_unit", preset, group_names=names)).filter(of_this, pl.col("group_name").is_in(names))
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
    """Loss effects summed over each token group's positions per window, or per pair in matched contexts."""
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
