"""Attention of tiny models, measured into parts and read as an analysis reads it."""

from pathlib import Path

import polars as pl
from transformers import PreTrainedModel

from rare_tokens.analyses.attention.inputs import Measured
from rare_tokens.common.parts import relation_path
from rare_tokens.ingest.attention.measure import AttentionRequest, measure_attention
from rare_tokens.ingest.run.executors import LocalExecutor
from rare_tokens.ingest.run.pipeline import Prepared, Workbench
from rare_tokens.ingest.run.request import Options, identify
from tests.support.tiny import tiny_corpus, tiny_tokenizer

WINDOW, POSITIONS = 16, 96


def prepared_model(folder: Path, model: PreTrainedModel, tokens: int = POSITIONS) -> Prepared:
    """A run of a tiny model that can begin."""
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    corpus = tiny_corpus(folder.parent / "corpus.jsonl")
    options = Options(str(folder), corpus=(str(corpus),), tokens=tokens, window=WINDOW, device="cpu")
    return Workbench().prepare(identify(options)[0])


def halves(positions: int) -> pl.DataFrame:
    """Token groups of a preset `nc`: every other position rare."""
    groups = ["rare" if position % 2 else "common" for position in range(positions)]
    return pl.DataFrame({"preset": ["nc"] * positions, "token_group": groups, "position_id": range(positions)})


def measured_parts(
    prepared: Prepared, folder: Path, request: AttentionRequest | None = None
) -> dict[str, pl.DataFrame]:
    """The parts of attention, by relation."""
    groups = halves(prepared.manifest.positions)
    measure_attention(prepared, groups, folder, request or AttentionRequest(), LocalExecutor(quiet=True))
    return {path.stem: pl.read_parquet(path) for path in folder.glob("*.parquet")}


def as_analysed(prepared: Prepared, parts: dict[str, pl.DataFrame], groups: pl.DataFrame) -> Measured:
    """What the warehouse's views make of the parts, for groups of neurons."""
    cells = parts["dim_attention_cell"]
    sums = parts["agg_attention_activation"].join(cells, on="cell").with_columns(pl.col("neuron").cast(pl.Int64))
    by_unit = ["token_group", "group_name", "k", "edit", "window_id", "neuron"]
    units = sums.join(groups.select("group_name", "k", "neuron"), on="neuron").group_by(by_unit)
    position_groups = halves(prepared.manifest.positions).with_columns(pl.col("position_id").cast(pl.UInt32))
    losses = (
        parts["fct_attention_effect"].join(position_groups, on="position_id")
        .with_columns(window_id=pl.col("position_id") // prepared.manifest.window_length)
        .group_by("token_group", "edit", "window_id")
        .agg(pl.col("delta_loss").sum().alias("delta_sum"), pl.len().alias("positions"))
    )  # fmt: skip
    return Measured(
        layer=prepared.manifest.layer,
        edits=parts["dim_attention_edit"],
        units=units.agg(
            pl.col("positions").sum(), pl.col("activation_sum").cast(pl.Float64).sum(), pl.col("has_loss").first()
        ).sort(by_unit),
        impact=sums.group_by("token_group", "edit", "neuron")
        .agg((pl.col("activation_sum").cast(pl.Float64).sum() / pl.col("positions").sum()).alias("mean_change"))
        .sort("token_group", "edit", "neuron"),
        losses=losses,
        groups=groups,
        neurons=prepared.manifest.neurons,
    )


def part_path(folder: Path, relation: str) -> Path:
    return relation_path(folder, relation)
