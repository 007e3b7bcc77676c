"""κ of rare and common tokens over checkpoints, with 95 % intervals if there are any (ES fig. 6)."""

import altair as alt
import polars as pl

from rare_tokens.analyses.report.data.summary import KEY
from rare_tokens.analyses.report.figures.charts import (
    HEIGHT,
    configured,
    group_colour,
    group_shape,
    rows_chart,
    step_axis,
)
from rare_tokens.analyses.report.figures.figure import Figure, Rows, Subject, by_preset


def _rows(subject: Subject) -> Rows:
    numbers = subject.summaries.select(*KEY, "kappa", low="kappa_low", high="kappa_high")
    found = subject.of_series(numbers).filter(pl.col("kappa").is_not_null())
    found = found.sort("run", "token_group", descending=[False, True], maintain_order=True)  # rare first
    return by_preset(found, "step", "kappa", "low", "high", group="token_group")


def kappa_figure(subject: Subject, rows: Rows) -> alt.LayerChart:
    """One line per token group; the axis covers every κ and interval of the series, whatever the preset."""
    base = rows_chart().encode(x=step_axis(subject.names), color=group_colour())
    scale = alt.Scale(domain=_span(rows), nice=True, zero=False)
    kappa = alt.Y("kappa:Q", title="κ", scale=scale)
    lines = base.mark_line(strokeWidth=1.8).encode(y=kappa)
    tooltip = [alt.Tooltip(name) for name in ("step:N", "group:N")]
    tooltip += [alt.Tooltip(f"{name}:Q", format=".3f") for name in ("kappa", "low", "high")]
    dots = base.mark_point(filled=True, size=70, opacity=1).encode(y=kappa, shape=group_shape(), tooltip=tooltip)
    bars = base.transform_filter("isValid(datum.low)").mark_rule(strokeWidth=1.5)
    bars = bars.encode(y=alt.Y("low:Q", title="κ", scale=scale), y2="high:Q")
    return configured((bars + lines + dots).properties(width="container", height=HEIGHT))


def _span(rows: Rows) -> list[float]:
    values = pl.concat([frame[name] for frame in rows.values() for name in ("kappa", "low", "high")]).drop_nulls()
    return [values.min(), values.max()]  # type: ignore[list-item]


FIGURES = (Figure("kappa", kappa_figure, _rows, over_training=True),)
