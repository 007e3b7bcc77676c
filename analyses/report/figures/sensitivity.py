"""κ against the percentile that divides rare from common, and the decision about a plateau there."""

import altair as alt
import polars as pl

from rare_tokens.analyses.report.data.inputs import GROUP, Input
from rare_tokens.analyses.report.figures.charts import HEIGHT, configured, group_colour, group_shape, rows_chart
from rare_tokens.analyses.report.figures.figure import Figure, Rows, Subject, by_preset

SENSITIVITY = Input(
    "sensitivity",
    "threshold_sensitivity",
    GROUP
    | {"percentile": pl.Float64, "positions": pl.Int64, "kappa": pl.Float64, "decision": pl.String}
    | {"p_value": pl.Float64, "top_overlap": pl.Float64, "rank_correlation": pl.Float64},
    {"power": pl.Float64, "distinct_threshold": pl.Boolean, "reason": pl.String}
    | dict.fromkeys(("kappa_low", "kappa_high", "step", "step_low", "step_high"), pl.Float64)
    | dict.fromkeys(("break_rank", "break_low", "break_high"), pl.Int64)
    | {"break_determined": pl.Boolean},
    beside=True,
)


def _rows(subject: Subject) -> Rows:
    found = subject.of_series(subject.inputs.of_figures["sensitivity"])
    found = found.filter(pl.col("kappa").is_not_null(), pl.col("distinct_threshold").fill_null(value=True))
    names = ("run", "percentile", "kappa", "decision", "p_value", "positions", "top_overlap")
    return by_preset(found, *names, group="token_group")


def sensitivity_figure(_subject: Subject, _drawn: Rows) -> alt.LayerChart:
    """A line per token group; filled points where a plateau is called present."""
    x = alt.X("percentile:Q", title="percentile where the line is drawn", scale=alt.Scale(domain=[0, 52], nice=False))
    y = alt.Y("kappa:Q", title="κ", scale=alt.Scale(zero=False, nice=True))
    base = rows_chart().encode(x=x, y=y, color=group_colour())
    tooltip = ["group:N", "percentile:Q", "positions:Q", alt.Tooltip("kappa:Q", format=".3f"), "decision:N"]
    tooltip += [alt.Tooltip("p_value:Q", format=".3f"), alt.Tooltip("top_overlap:Q", format=".2f")]
    dots = base.mark_point(size=80, opacity=1).encode(
        shape=group_shape(),
        fillOpacity=alt.condition("datum.decision === 'present'", alt.value(1), alt.value(0)),
        fill=group_colour(alt.Fill),
        tooltip=tooltip,
    )
    return configured((base.mark_line(strokeWidth=1.6) + dots).properties(width="container", height=HEIGHT))


FIGURES = (Figure("sensitivity", sensitivity_figure, _rows, reads=(SENSITIVITY,)),)
