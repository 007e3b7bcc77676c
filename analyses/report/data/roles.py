"""How a neuron's role is shown: *mixed* where the 95 % interval of its mean Δ holds 0 (relation `neuron_sign`)."""

from collections.abc import Mapping
from typing import Any

import polars as pl

from rare_tokens.analyses.report.data.text import milli

MIXED = "mixed"
SIGN = ("role", "settled_role", "mean_delta_loss", "mean_delta_low", "mean_delta_high")


def shown_role() -> pl.Expr:
    """The settled role; only the sign if the run has no interval."""
    return pl.coalesce("settled_role", "role")


def role_group(row: Mapping[str, Any]) -> str:
    """The token group whose role a row of `tables.ranked_pairs` shows: rare, or common if rare has none."""
    return "rare" if row["shown_role_rare"] else "common"


def mean_with_interval(row: Mapping[str, Any], group: str) -> str | None:
    """A neuron's mean Δ on a token group with its interval, in words; None if there is no interval.

    Args:
        row: a row of `tables.ranked_pairs`.
        group: `rare` or `common`.
    """
    mean, low, high = (row[f"mean_delta_{name}_{group}"] for name in ("loss", "low", "high"))
    if low is None or high is None:
        return None
    return f"{_thousandths(mean)} [{_thousandths(low)}, {_thousandths(high)}] · 10⁻³ nats"


def why_mixed(row: Mapping[str, Any], group: str) -> str | None:
    """Why a role is `mixed`: the sign of the mean, and its interval. None if the sign is settled or unknown."""
    if row[f"settled_role_{group}"] != MIXED:
        return None
    return f"mean Δ on {group} tokens {mean_with_interval(row, group)}: {row[f'role_{group}']} by its sign alone"


def _thousandths(value: float) -> str:
    return f"+{milli(value)}" if value > 0 else milli(value)
