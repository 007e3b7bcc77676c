"""Local slope and second derivative of log influence against ln rank, with a line at ln rank 5 (ES fig. 3)."""

import altair as alt
import polars as pl

from rare_tokens.analyses.report.data.inputs import GROUP, Input
from rare_tokens.analyses.report.data.points import curve_ranks
from rare_tokens.analyses.report.figures.charts import (
    AXIS_WIDTH,
    MUTED,
    SIGNED_LABEL,
    configured,
    group_colour,
    group_shape,
    rows_chart,
)
from rare_tokens.analyses.report.figures.figure import Figure, Rows, Subject, by_preset

SLOPES = Input(
    "slopes",
    "influence_slope",
    GROUP | {"rank": pl.Int64, "local_slope": pl.Float64, "second_derivative": pl.Float64},
    beside=True,
)
PANELS = (("local_slope", "slope", None), ("second_derivative", "second derivative", "ln rank"))


def _rows(subject: Subject) -> Rows:
    found = subject.of_series(subject.inputs.of_figures["slopes"])
    found = found.filter(pl.col("rank").is_in(curve_ranks(subject.extent.neurons)))
    found = found.with_columns(log_rank=pl.col("rank").cast(pl.Float64).log())
    found = found.filter(pl.col("local_slope").is_not_null())
    return by_preset(found, "run", "log_rank", "local_slope", "second_derivative", group="token_group")


def slopes_figure(subject: Subject, _drawn: Rows) -> alt.VConcatChart:
    """Two panels on one axis of ln rank."""
    top = float(pl.Series([float(max(subject.extent.neurons, 3))]).log()[0])
    scale = alt.Scale(domain=[0, top], nice=False)
    five = alt.Chart(alt.Data(values=[{"x": 5}])).mark_rule(color=MUTED, strokeDash=[2, 3]).encode(x="x:Q")
    panels = []
    for field, title, below in PANELS:
        axis = alt.Axis(labelExpr=SIGNED_LABEL, tickCount=5, minExtent=AXIS_WIDTH, maxExtent=AXIS_WIDTH)
        base = rows_chart().transform_filter(f"isValid(datum.{field})")
        base = base.encode(
            x=alt.X("log_rank:Q", title=below, scale=scale, axis=alt.Axis(tickCount=8, grid=False)),
            y=alt.Y(f"{field}:Q", title=title, axis=axis),
            color=group_colour(),
            order="log_rank:Q",
        )
        dots = base.mark_point(filled=True, size=14, clip=True).encode(
            shape=group_shape(),
            tooltip=["group:N", alt.Tooltip("log_rank:Q", format=".2f"), alt.Tooltip(f"{field}:Q", format="+.3f")],
        )
        layers = [dots, base.mark_line(strokeWidth=1.4, clip=True), *([five] if top > 5 else [])]
        panels.append(alt.layer(*layers).properties(width=600, height=150))
    return configured(alt.vconcat(*panels, spacing=12).resolve_scale(x="shared"))


FIGURES = (Figure("slopes", slopes_figure, _rows, reads=(SLOPES,), heights=((150, 130), (180, 150))),)
