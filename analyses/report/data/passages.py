"""Passages of text around places of a neuron's activation, packed for the page's script, which colours their tokens."""

import base64
from collections.abc import Callable
from typing import Any

import numpy as np

from rare_tokens.analyses.report.data.text import milli, number, shortened

Row = dict[str, Any]
MISSING = -32768  # a value that was not measured
_LARGEST = 32767


def pack_passages(rows: list[Row], code: Callable[[str], int]) -> Row | None:
    """The passages of one neuron: texts as numbers, and both values of each token as 16-bit shares of the largest.

    Args:
        rows: `neuron_top_activation` of one neuron.
        code: the number under which the page holds a token's text.

    Returns:
        `activation` and `delta_loss`, the largest absolute values, by which the colours go; `places`, as columns: of
        each row its sample, what is said of it, the tokens' codes (`_coded`), both values (base64 of little-endian
        int16; `MISSING`: not measured), and which token is the place itself, from 0. None without rows.
    """
    if not rows:
        return None
    scales = {name: _largest(rows, column) for name, column in _COLUMNS.items()}
    places = [
        {
            "sample": row["sample"],
            "said": _said(row),
            "group": row["token_group"],
            "at": row["at"] - 1,
            "tokens": _coded([code(shortened(text)) for text in row["tokens"]]),
            **{name: _packed(row[column], scales[name]) for name, column in _COLUMNS.items()},
        }
        for row in rows
    ]
    return {**scales, "places": {name: [place[name] for place in places] for name in places[0]}}


_COLUMNS = {"activation": "activations", "delta_loss": "delta_losses"}


def _said(row: Row) -> str:
    """What stands before a passage: the activation, where that lies among all, and the change of the loss."""
    share = {0.0: "the smallest", 1.0: "the largest"}.get(row["quantile"])
    share = share or f"above {number(100 * row['quantile'], _digits(row['quantile']))}\u00a0%"
    return f"{number(row['activation'])} ({share}), Δ {milli(row['delta_loss'])}"


def _digits(quantile: float) -> int:
    """As many digits of a quantile in per cent as tell it from 100."""
    return 2 if quantile < 0.99 else 5


def _coded(codes: list[int]) -> str:
    """The bytes that a code takes, 2 or 4, and then all codes."""
    kind = "<u2" if max(codes) < 65_536 else "<u4"
    return kind[-1] + base64.b64encode(np.array(codes, dtype=kind).tobytes()).decode()


def _largest(rows: list[Row], column: str) -> float:
    values = [abs(value) for row in rows for value in row[column] if value is not None]
    return float(f"{max(values, default=0.0):.6g}")


def _packed(values: list[float | None], scale: float) -> str:
    found = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    shares = np.clip(np.rint(found / scale * _LARGEST), -_LARGEST, _LARGEST) if scale else np.zeros_like(found)
    whole = np.where(np.isnan(found), MISSING, shares).astype("<i2")
    return base64.b64encode(whole.tobytes()).decode()
