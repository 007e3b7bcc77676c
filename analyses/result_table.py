"""One way to build every result table: typed columns, NULL for what is undefined, never NaN, always with its reason."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
import polars.selectors as cs

FloatArray = np.ndarray[Any, np.dtype[np.floating[Any]]]
IntArray = np.ndarray[Any, np.dtype[np.integer[Any]]]
BoolArray = np.ndarray[Any, np.dtype[np.bool_]]


def table(rows: Sequence[Mapping[str, Any]], schema: Mapping[str, Any]) -> pl.DataFrame:
    """Rows as a frame with exactly the columns of `schema` (column absent from a row: NULL).

    A value that is not finite becomes NULL, and the reason says so where its row gave none. So a reader never meets
    NaN, and a NULL that nobody foresaw is still visible.
    """
    frame = pl.DataFrame(rows, schema=pl.Schema(schema), strict=False)
    if "reason" in frame.columns:
        broken = pl.any_horizontal(pl.lit(value=False), ~cs.float().is_finite()).fill_null(value=False)
        said = pl.coalesce("reason", pl.lit("the value is not finite"))
        frame = frame.with_columns(reason=pl.when(broken).then(said).otherwise("reason"))
    return frame.with_columns(pl.when(cs.float().is_finite()).then(cs.float()))


def joined(*reasons: str | None) -> str | None:
    """Several reasons as one; None if there are none."""
    given = [reason for reason in dict.fromkeys(reasons) if reason]
    return "; ".join(given) or None
