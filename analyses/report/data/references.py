"""The references of a measurement, as the page's tables and figure show them: each by itself, and two by two."""

from typing import Any

import polars as pl

from rare_tokens.analyses.agreement.references import place
from rare_tokens.analyses.curve.effect_cells import RARE

Row = dict[str, Any]

OTHER = "other_"  # begins the columns about the other run of a pair


def first_references(pairs: pl.DataFrame) -> pl.DataFrame:
    """The pairs (`reference_agreement`) of the runs that come first among their references, in the house's order."""
    ordered = in_order(pairs)
    return ordered.filter(~pl.col("run_id").is_in(ordered["other_run_id"].unique().to_list()))


def in_order(pairs: pl.DataFrame) -> pl.DataFrame:
    """The pairs in the order mean, zero, resample, optimal of both references, rare tokens before common ones."""
    rows = pairs.to_dicts()
    rows.sort(key=lambda row: (place(row["ablation"]), place(row["other_ablation"]), row["token_group"] != RARE))
    return pl.DataFrame(rows, schema=pairs.schema)


def reference_tables(pairs: pl.DataFrame, run_id: str, preset: str) -> dict[str, list[Row]]:
    """What a page tells of a run that comes first among its references.

    Args:
        pairs: `reference_agreement` of the report's runs.
        run_id: the run.
        preset: whose token groups.

    Returns:
        `each`: ablation, token_group, κ, decision, p-value, head and step of every reference; `pairs`: the rows of
        every two. Empty where the run is not the first of its references.
    """
    ordered = in_order(pairs.filter(preset=preset))
    first = first_references(ordered).filter(run_id=run_id).to_dicts()
    if not first:
        return {}
    known = {run_id, *(row["other_run_id"] for row in first)}
    opposite = first[0]["other_run_id"]
    each = [_own(row, "") for row in first if row["other_run_id"] == opposite] + [_own(row, OTHER) for row in first]
    return {"each": each, "pairs": ordered.filter(pl.col("run_id").is_in(list(known))).to_dicts()}


def _own(row: Row, of: str) -> Row:
    """The columns about one run of a pair, without the prefix."""
    names = [name.removeprefix(OTHER) for name in row if name.startswith(OTHER) and name != "other_run_id"]
    return {"token_group": row["token_group"]} | {name: row[of + name] for name in names}
