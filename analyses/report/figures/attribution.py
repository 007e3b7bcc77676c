"""How far first-order estimates are off, by the size of the effect: what gradients would have said."""

import altair as alt
import polars as pl

from rare_tokens.analyses.report.data.inputs import GROUP, Input
from rare_tokens.analyses.report.figures.charts import (
    HEIGHT,
    MUTED,
    configured,
    group_colour,
    group_shape,
    major,
    rows_chart,
)
from rare_tokens.analyses.report.figures.figure import Figure, Rows, Subject, by_preset

ATTRIBUTION = Input(
    "attribution",
    "attribution_agreement",
    GROUP
    | dict.fromkeys(("decile", "shared_10", "shared_50", "pairs"), pl.Int64)
    | dict.fromkeys(("rank_correlation", "wrong_sign_share", "relative_error", "error_ratio"), pl.Float64)
    | dict.fromkeys(("smallest_delta", "largest_delta"), pl.Float64),
    {
        f"{name}{end}": pl.Float64
        for name in (
            "rank_correlation", "shared_10", "shared_50", "wrong_sign_share", "relative_error", "error_ratio",
        )
        for end in ("_low", "_high")
    }
    | {"pairs_left_out": pl.Int64, "reason": pl.String},
    beside=True,
)  # fmt: skip


def _rows(subject: Subject) -> Rows:
    found = subject.of_series(subject.inputs.of_figures["attribution"])
    found = found.filter(pl.col("decile").is_not_null(), pl.col("relative_error").is_not_null())
    names = ("run", "decile", "wrong_sign_share", "smallest_delta", "largest_delta", "pairs")
    return by_preset(
        found, *names, group="token_group", error="relative_error", low="relative_error_low", high="relative_error_high"
    )


def attribution_figure(_subject: Subject, _drawn: Rows) -> alt.LayerChart:
    """The median relative error in each tenth of the pairs by |Δ|, with intervals; dotted: as large as the effect."""
    scale = alt.Scale(type="log", nice=True)
    axis = alt.Axis(format="~g", tickCount=6, gridOpacity=major())
    x = alt.X("decile:O", title="tenth of the pairs by |Δ|, 10 has the largest", axis=alt.Axis(labelAngle=0))
    error = alt.Y("error:Q", title="relative error of the estimate", scale=scale, axis=axis)
    base = rows_chart().encode(x=x, color=group_colour())
    equal = alt.Chart(alt.Data(values=[{"error": 1}])).mark_rule(color=MUTED, strokeDash=[2, 3]).encode(y=error)
    tooltip = [
        alt.Tooltip("group:N", title="tokens"),
        alt.Tooltip("error:Q", title="median relative error", format=".3~g"),
        alt.Tooltip("low:Q", format=".3~g"),
        alt.Tooltip("high:Q", format=".3~g"),
        alt.Tooltip("wrong_sign_share:Q", title="wrong sign", format=".1%"),
        alt.Tooltip("smallest_delta:Q", title="|Δ| from", format=".2~g"),
        alt.Tooltip("largest_delta:Q", title="to", format=".2~g"),
    ]
    lines = base.mark_line(strokeWidth=1.6).encode(y=error)
    dots = base.mark_point(filled=True, size=60, opacity=1).encode(y=error, shape=group_shape(), tooltip=tooltip)
    bars = base.transform_filter("isValid(datum.low)").mark_rule(strokeWidth=1.5).encode(y=alt.Y("low:Q"), y2="high:Q")
    return configured((equal + bars + lines + dots).properties(width="container", height=HEIGHT))


FIGURES = (Figure("attribution", attribution_figure, _rows, reads=(ATTRIBUTION,)),)
