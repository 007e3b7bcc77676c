"""The points that the figures draw, thinned so that a page stays small, and packed for the page's script.

Every figure says what was thinned; the tables next to the page hold every neuron. Each number that the page writes out
comes with its text, so the script formats none.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from rare_tokens.analyses.report.data.inputs import ReportInputs
from rare_tokens.analyses.report.data.roles import MIXED
from rare_tokens.analyses.report.data.series import Series
from rare_tokens.analyses.report.data.summary import GROUPS
from rare_tokens.analyses.report.data.text import milli, signed, visible_token

BYTES = 3_000_000  # packed points per page: the figures' library takes 0.9 MB of the 5 MB that a page may have
TOKENS_EACH_WAY = 5
BEYOND_HEAD = 150  # log-spaced ranks kept after the head
CURVE_POINTS = 90  # per curve in a figure of many curves
SAMPLE_POINTS = 16
_HEADS = (500, 300, 200, 100, 50, 25)
_IN_ORDER = ("rank", "log10", "deviation", "influence_text", "deviation_text")
_ROW_BYTES, _NEURON_BYTES = 28, 64  # measured, at most: a point with its share of the tables; a neuron's tokens


@dataclass(frozen=True)
class Points:
    """The packed points: `packed` is JSON-ready, `head` the rank up to which none is left out (None: none at all)."""

    packed: dict[str, Any]
    head: int | None


def pack_points(inputs: ReportInputs, series: list[Series], presets: list[str], limit: int = BYTES) -> Points:
    """Pack the points of every measured run, thinned beyond the largest head that fits in about `limit` bytes.

    A neuron kept for one token group is kept for the other, so one highlighted in one curve is in both.
    """
    kept, head = _thinned(_joined(inputs), limit)
    kept, influences = _with_texts(kept, "influence", milli)
    kept, deviations = _with_texts(kept, "deviation", signed)
    tokens, texts = _tokens(inputs.tokens, kept)
    regimes = kept["regime"].drop_nulls().unique().sort().to_list()
    curves = {key[0]: frame for key, frame in kept.group_by("run_id", maintain_order=True)}
    order = [run for one in series for run in one.runs]
    runs = [
        {"curves": _pack_run(curves.get(run.run_id), presets, regimes), "tokens": tokens.get(run.run_id)}
        for run in order
    ]
    numbers = {"influences": influences, "deviations": deviations}
    return Points({"texts": texts, **numbers, "regimes": regimes, "runs": runs}, head)


def curve_ranks(neurons: int) -> list[int]:
    """The ranks that represent a whole curve if many are drawn: all of the first few, then log-spaced."""
    return _log_ranks(1, max(neurons, 1), CURVE_POINTS)


def sample_ranks(neurons: int) -> list[int]:
    """The ranks at which a curve is written out as a table, for readers who cannot see it drawn."""
    return _log_ranks(1, max(neurons, 1), SAMPLE_POINTS)


def _log_ranks(first: int, last: int, count: int) -> list[int]:
    return sorted({int(rank) for rank in np.rint(np.geomspace(first, max(first, last), count))})


def _joined(inputs: ReportInputs) -> pl.DataFrame:
    """Influence with δ and regime: one row per run × preset × token group × neuron that has an influence."""
    key = ["run_id", "preset", "token_group", "neuron"]
    influence = inputs.influence.filter(pl.col("influence").is_not_null() & (pl.col("positions") > 0))
    deviations = inputs.deviations.select(*key, "deviation", "regime")
    joined = influence.join(deviations, on=key, how="left").filter(pl.col("token_group").is_in(GROUPS))
    return joined.sort("run_id", "preset", "token_group", "rank")


def _thinned(joined: pl.DataFrame, limit: int) -> tuple[pl.DataFrame, int | None]:
    """The rows to draw and the head kept whole: all (None) if that fits, else the first of `_HEADS` that does."""
    largest = int(joined["rank"].max() or 1)  # type: ignore[arg-type]
    kept, head = joined, None
    for smaller in (head for head in _HEADS if head < largest):
        if kept.height * _ROW_BYTES + kept.select("run_id", "neuron").n_unique() * _NEURON_BYTES <= limit:
            break
        head = smaller
        wanted = _log_ranks(head, largest, BEYOND_HEAD)
        ranks = {*range(1, head + 1), *wanted, *curve_ranks(largest), *sample_ranks(largest)}
        chosen = joined.filter(pl.col("rank").is_in(ranks)).select("run_id", "preset", "neuron").unique()
        kept = joined.join(chosen, on=["run_id", "preset", "neuron"], how="semi", maintain_order="left")
    return kept, head


def _with_texts(kept: pl.DataFrame, column: str, text: Callable[[float | None], str]) -> tuple[pl.DataFrame, list[str]]:
    """The frame with `<column>_text`, indices into the column's texts; and these texts, large values first.

    Along a curve such indices change little, so their differences pack small.
    """
    values = kept.select(pl.col(column).unique()).sort(column, descending=True, nulls_last=True)
    shown = values.with_columns(shown=pl.Series([text(value) for value in values[column]], dtype=pl.String))
    texts = shown.select(pl.col("shown").unique(maintain_order=True)).with_row_index("code")
    codes = shown.join(texts, on="shown").select(column, pl.col("code").cast(pl.Int64).alias(f"{column}_text"))
    return kept.join(codes, on=column, nulls_equal=True, maintain_order="left"), texts["shown"].to_list()


def _tokens(tokens: pl.DataFrame, kept: pl.DataFrame) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Per run its neurons and, aligned with them, indices into the shown token texts; and those texts."""
    used = tokens.filter(pl.col("rank") <= TOKENS_EACH_WAY).join(kept, on=["run_id", "neuron"], how="semi")
    codes = used.select(pl.col("text").unique(maintain_order=True)).with_row_index("code")
    texts = [visible_token(text) for text in codes["text"]]
    used = used.join(codes, on="text", nulls_equal=True).sort("run_id", "neuron", "direction", "rank")
    packed: dict[str, dict[str, Any]] = {}
    for (run_id,), frame in used.group_by("run_id", maintain_order=True):
        wide = frame.group_by("neuron", maintain_order=True).agg(
            pl.col("code").filter(pl.col("direction") == direction).alias(direction) for direction in ("up", "down")
        )
        packed[str(run_id)] = {name: wide[name].to_list() for name in ("neuron", "up", "down")}
    return packed, texts


def _pack_run(kept: pl.DataFrame | None, presets: list[str], regimes: list[str]) -> dict[str, dict[str, Any]]:
    curves: dict[str, dict[str, Any]] = {preset: {} for preset in presets}
    if kept is not None:
        for (preset, group), frame in kept.group_by("preset", "token_group", maintain_order=True):
            curves[str(preset)][str(group)] = _pack_curve(frame, regimes)
    return curves


def _pack_curve(frame: pl.DataFrame, regimes: list[str]) -> dict[str, Any]:
    """Columns of one curve by rank: log10 of influence in units of 1e-5 (0.002 %), NULL if it is not above zero; δ in
    units of 1e-5; the texts of both; role and regime as a letter each, for a mixed role B or S after the sign of its
    mean. All but neurons, whose numbers have no order, are differences from the row before (`_differences`).
    """
    letters = {"boost": "b", "suppress": "s"}
    letter = pl.col("role").replace_strict(letters, default="-", return_dtype=pl.String)
    digits = {name: str(code) for code, name in enumerate(regimes[:10])}
    packed = frame.select(
        "neuron",
        "rank",
        log10=pl.when(pl.col("influence") > 0).then((pl.col("influence").log10() * 1e5).round().cast(pl.Int64)),
        deviation=(pl.col("deviation") * 1e5).round().cast(pl.Int64),
        influence_text="influence_text",
        deviation_text="deviation_text",
        role=pl.when(pl.col("settled_role") == MIXED).then(letter.str.to_uppercase()).otherwise(letter),
        regime=pl.col("regime").replace_strict(digits, default="-", return_dtype=pl.String),
    )
    columns: dict[str, Any] = {"neuron": packed["neuron"].to_list()}
    columns |= {name: _differences(packed[name]) for name in _IN_ORDER}
    return columns | {name: "".join(packed[name]) for name in ("role", "regime")}


def _differences(column: pl.Series) -> list[int | None]:
    """Each value less the last one before it that is not NULL (the first as it is); NULL where it is NULL."""
    before = column.forward_fill().shift(1).fill_null(0)
    return (column - before).to_list()
