"""The neurons that matter more for rare tokens than for common ones as hard, as the report's table has them."""

from collections.abc import Mapping
from typing import Any

import polars as pl

from rare_tokens.analyses.report.data.inputs import ReportInputs
from rare_tokens.analyses.report.data.tables import neuron_tokens, ranked_pairs
from rare_tokens.analyses.report.data.text import shortened, visible_token

SPECIFIC = 20  # neurons a table shows
MATCHING, WITH_WORDS = "loss", "loss+word"
SHOWN = 40  # characters of a context

Row = dict[str, Any]


def specific_neurons(inputs: ReportInputs, count: int = SPECIFIC) -> pl.DataFrame:
    """The neurons specific to rare tokens of each run and preset, largest ratio first, at most `count`.

    Returns:
        The columns of `tables.top_neurons`, with `specific_ratio`, `ratio_low`, `ratio_high`, `adjusted_p_value`,
        `word_ratio` (matched by words too) and `helps`: where in the text ablating the neuron raises the loss most.
    """
    key = ["run_id", "preset", "neuron"]
    of_matching = inputs.specificity.filter(matching=MATCHING, specific_to="rare")
    first = of_matching.sort("ratio", descending=True).group_by("run_id", "preset", maintain_order=True).head(count)
    words = inputs.specificity.filter(matching=WITH_WORDS).select(*key, word_ratio="ratio")
    found = first.select(*key, "ratio_low", "ratio_high", "adjusted_p_value", specific_ratio="ratio")
    found = found.join(words, on=key, how="left", maintain_order="left")
    found = found.join(ranked_pairs(inputs), on=key, how="left", maintain_order="left")
    moved = neuron_tokens(inputs.tokens.join(found, on=["run_id", "neuron"], how="semi"))
    found = found.join(moved, on=["run_id", "neuron"], how="left", maintain_order="left")
    return found.join(_helped(inputs), on=["run_id", "neuron"], how="left", maintain_order="left")


def _helped(inputs: ReportInputs) -> pl.DataFrame:
    """The context that each neuron with a card helps most: its end and the target."""
    first = inputs.contexts.filter(direction="helps", place=1)
    rows = [
        {"run_id": row["run_id"], "neuron": row["neuron"]}
        | {"helps": f"…{shortened((row['context'] or '')[-SHOWN:], 10 * SHOWN)} ▸ {visible_token(row['target'])}"}
        for row in first.iter_rows(named=True)
    ]
    return pl.DataFrame(rows, schema={"run_id": pl.String, "neuron": pl.Int64, "helps": pl.String})


def specificity_counts(specificity: pl.DataFrame) -> Mapping[tuple[str, str], Row]:
    """By run and preset: how many neurons are specific to rare and to common tokens, of how many, or why none is known.

    Args:
        specificity: `neuron_specificity`.
    """
    of_matching = specificity.filter(matching=MATCHING)
    counted = of_matching.group_by("run_id", "preset").agg(
        neurons=pl.col("ratio").count(),
        rare=(pl.col("specific_to") == "rare").sum(),
        common=(pl.col("specific_to") == "common").sum(),
        rare_positions=pl.col("rare_positions").first(),
        common_positions=pl.col("common_positions").first(),
        reason=pl.col("reason").filter(pl.col("ratio").is_null()).first(),
    )
    return {(row["run_id"], row["preset"]): row for row in counted.iter_rows(named=True)}
