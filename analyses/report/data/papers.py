"""The papers' tables as a page shows them: a row per group, with what was measured and a column per printed model."""

from collections.abc import Mapping
from typing import Any

import polars as pl

from rare_tokens.analyses.report.data import verdicts

Row = dict[str, Any]

# Tables in the page's order: paper, place, quantity, what the table says.
TABLES = (
    ("ES", "table 1", "activation_correlation", "Correlation of activations, within and between groups"),
    ("ES", "table 2", "effective_dimension_percent", "Effective dimension, % of the group’s size"),
    ("ES", "table 3", "weight_cosine_similarity", "Cosine similarity of output weights"),
    ("ES", "table 4", "hill_alpha", "Hill’s α of the spectrum of output weights"),
    ("NC", "table 1", "signed_modularity", "Signed modularity of the correlation graph"),
    ("NC", "table 1", "communities", "Communities of the correlation graph"),
    ("NC", "table 2", "plateau_activation_change_percent", "Change of activation when attention is ablated, %"),
    ("NC", "table 2", "effect_size", "Effect size (Cohen’s d) of the same"),
)
_ORDER = (
    "boost", "suppress", "random", "boost_suppress", "boost_random", "suppress_random", "random_random",
    "plateau_excitatory", "plateau_inhibitory",
    "single_head_largest", "single_head_random", "all_heads", "non_attention_control",
)  # fmt: skip


_COUNTED = (verdicts.AGREES, verdicts.DIFFERS, verdicts.CANNOT_TELL)


def paper_tables(compared: pl.DataFrame, run_id: str) -> list[Row]:
    """The tables of one run: title, paper, place, preset, printed models, and rows.

    A row has what was measured (`measured`, `low`, `high`, `random_mean`, `random_sd`, `p_value` and the like,
    `reason`), `printed` (a row of `verdicts.comparisons` by model), and one verdict: against the same model if the
    paper has it, else against the range of its other models; `same_model` says which.
    """
    of_run = compared.filter(run_id=run_id)
    made = []
    for paper, place, quantity, title in TABLES:
        found = of_run.filter(pl.col("token_group") == "rare", paper=paper, place=place, quantity=quantity)
        presets = found["preset"].unique().sort(descending=paper == "NC").to_list()
        preset = next((name for name in (paper.lower(), *presets) if name in presets), None)
        found = found.filter(pl.col("preset").eq_missing(preset))
        models = found["printed_model"].unique(maintain_order=True).drop_nulls().to_list()
        groups = [rows.to_dicts() for _, rows in found.group_by("group_name", "definition", maintain_order=True)]
        rows = sorted((table_row(rows) for rows in groups), key=_place)
        made.append({"paper": paper, "place": place, "quantity": quantity, "title": title, "preset": preset}
                    | {"models": sorted(models), "rows": rows})  # fmt: skip
    return made


def in_the_text(compared: pl.DataFrame, run_id: str, preset: str) -> list[Row]:
    """What papers print outside their tables, next to what one run gives under one preset."""
    in_tables = pl.col("place").str.starts_with("table")
    return compared.filter(~in_tables, pl.col("run_id") == run_id, pl.col("preset") == preset).to_dicts()


def counts(tables: list[Row]) -> Row:
    """How many rows of one run's tables a paper measured on its model, and how many agree, differ or cannot be told."""
    rows = [row for table in tables for row in table["rows"] if row["same_model"]]
    rows = [row for row in rows if row["verdict"] != verdicts.NOT_MEASURED]
    return {"rows": len(rows), **{name: sum(row["verdict"] == name for row in rows) for name in _COUNTED}}


def table_row(rows: list[Row]) -> Row:
    """One row of a table from its comparisons with each printed model."""
    first = rows[0]
    same = [row for row in rows if row["same_model"]]
    found, why = (same[0]["verdict"], same[0]["why"]) if same else verdicts.verdict(*_range(rows))
    return first | {
        "printed": {row["printed_model"]: row for row in rows},
        "same_model": bool(same),
        "verdict": found,
        "why": why,
    }


def _range(rows: list[Row]) -> tuple[Row, float | None]:
    """The range of several models as one printed statement, and the median of their effects."""
    ends = [verdicts.printed_interval(row) for row in rows]
    effects = sorted(row["effect"] for row in rows if row["effect"])
    span = {"printed": min(low for low, _ in ends), "printed_to": max(high for _, high in ends)}
    row = rows[0] | span | {"plus_minus": None, "relation": "="}
    return row, effects[len(effects) // 2] if effects else None


def _place(row: Mapping[str, Any]) -> tuple[str, int]:
    order = _ORDER.index(row["group_name"]) if row["group_name"] in _ORDER else len(_ORDER)
    return row["definition"] or "", order
