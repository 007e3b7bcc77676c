"""Local slope of the influence curve at the suppress neurons, a curve per checkpoint (ES fig. 6)."""

import altair as alt
import polars as pl

from rare_tokens.analyses.report.data.points import curve_ranks
from rare_tokens.analyses.report.figures.charts import (
    HEIGHT,
    SIGNED_LABEL,
    configured,
    rank_axis,
    rows_chart,
    step_colours,
)
from rare_tokens.analyses.report.figures.figure import Figure, Rows, Subject, by_preset


def _rows(subject: Subject) -> Rows:
    key = ["run_id", "preset", "token_group", "neuron"]
    of_series = subject.of_series(subject.inputs.influence)
    suppress = of_series.filter(pl.col("role") == "suppress", pl.col("token_group") == "rare")
    slopes = subject.inputs.deviations.select(*key, "local_slope").filter(pl.col("local_slope").is_not_null())
    found = suppress.join(slopes, on=key).sort("run", "preset", "rank")
    order = pl.col("rank").rank("ordinal").over("run_id", "preset").cast(pl.Int64)
    found = found.with_columns(place=order).filter(pl.col("place").is_in(curve_ranks(subject.extent.neurons)))
    return by_preset(found, "step", "rank", "local_slope", "neuron")


def suppress_figure(subject: Subject, _drawn: Rows) -> alt.LayerChart:
    """Slope against rank on rare tokens."""
    names = subject.names
    colours = alt.Scale(domain=names, range=step_colours(len(names)))
    base = rows_chart().encode(
        x=rank_axis(subject.extent, "rank on rare tokens"),
        y=alt.Y("local_slope:Q", title="slope", axis=alt.Axis(labelExpr=SIGNED_LABEL, tickCount=5)),
        color=alt.Color("step:N", scale=colours, legend=None),
        order="rank:Q",
    )
    tooltip = ["step:N", "neuron:Q", "rank:Q", alt.Tooltip("local_slope:Q", format="+.2f")]
    dots = base.mark_point(filled=True, size=40, opacity=0, clip=True).encode(tooltip=tooltip)
    return configured((dots + base.mark_line(strokeWidth=1.6, clip=True)).properties(width="container", height=HEIGHT))


FIGURES = (Figure("suppress", suppress_figure, _rows),)
