"""Rows, as texts, of the tables that follow the checkpoint a reader chooses; the page only draws them.

A cell is its text; for a number also `[text, value]` if the text does not tell what to sort by, and `[text, value,
note]` with a note shown on pointing at it; for tokens a list of texts. The column says how a cell looks.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rare_tokens.analyses.report.data.roles import role_group, why_mixed
from rare_tokens.analyses.report.data.text import integer, milli, number, p_value, signed

Row = Mapping[str, Any]
Cell = str | list[Any]

NOTHING = "–"


@dataclass(frozen=True)
class Column:
    """How the cells of a column are drawn.

    Attributes:
        label: what its cells are called where each row is a block of its own, on a narrow screen.
        kind: `text`, `number`, `tokens`, or `pin`: a neuron's number that can be chosen.
        heads: whether they are their rows' headings.
    """

    label: str = ""
    kind: str = "number"
    heads: bool = False


_INFLUENCE = (Column("rank"), Column("influence, 10⁻³ nats"), Column("δ"))
COLUMNS: dict[str, tuple[Column, ...]] = {
    "top": (
        Column("neuron", "pin", heads=True),
        Column("role", "text"),
        *_INFLUENCE,
        Column("rank (common)"),
        Column("influence (common)"),
        Column("rare ÷ common"),
        Column("regime", "text"),
        Column("raises", "tokens"),
        Column("lowers", "tokens"),
    ),
    "specific": (
        Column("neuron", "pin", heads=True),
        Column("ratio"),
        Column("words"),
        Column("p"),
        Column("rank (rare)"),
        Column("rank (common)"),
        Column("raises", "tokens"),
        Column("helps", "text"),
    ),
    "sample": (Column("rank", heads=True), *_INFLUENCE, *_INFLUENCE),
}


def top_row(row: Row) -> list[Cell]:
    """A neuron among the most influential (`tables.top_neurons`)."""
    return [
        str(row["neuron"]),
        _role(row),
        integer(row["rank_rare"]),
        _valued(milli(row["influence_rare"]), row["influence_rare"]),
        signed(row["deviation_rare"]),
        integer(row["rank_common"]),
        _valued(milli(row["influence_common"]), row["influence_common"]),
        _valued(number(row["ratio"], 2), row["ratio"]),
        row["regime_rare"] or row["regime_common"] or NOTHING,
        list(row["raises"] or []),
        list(row["lowers"] or []),
    ]


def specific_row(row: Row) -> list[Cell]:
    """A neuron specific to rare tokens (`specificity.specific_neurons`)."""
    ratio = number(row["specific_ratio"], 3)
    if row["ratio_low"] is not None:
        ratio += f" [{number(row['ratio_low'], 3)}, {number(row['ratio_high'], 3)}]"
    return [
        str(row["neuron"]),
        _valued(ratio, row["specific_ratio"]),
        _valued(number(row["word_ratio"], 3), row["word_ratio"]),
        _valued(p_value(row["adjusted_p_value"]), row["adjusted_p_value"]),
        integer(row["rank_rare"]),
        integer(row["rank_common"]),
        list(row["raises"] or []),
        row["helps"] or NOTHING,
    ]


def sample_row(row: Row) -> list[Cell]:
    """A rank on both curves (`tables.curve_sample`)."""
    cells: list[Cell] = [integer(row["rank"])]
    for group in ("rare", "common"):
        neuron = row[f"neuron_{group}"]
        cells += [
            NOTHING if neuron is None else str(neuron),
            milli(row[f"influence_{group}"]),
            signed(row[f"deviation_{group}"]),
        ]
    return cells


def _role(row: Row) -> Cell:
    """The role as shown; a mixed one comes with the mean and its interval."""
    group = role_group(row)
    shown, note = row[f"shown_role_{group}"] or NOTHING, why_mixed(row, group)
    return shown if note is None else [shown, shown, note]


def _valued(text: str, value: float | None) -> Cell:
    return text if value is None or not math.isfinite(value) else [text, float(f"{value:.6g}")]
