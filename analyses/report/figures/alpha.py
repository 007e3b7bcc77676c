"""Hill's α of each group's output weights over checkpoints, with random groups (ES fig. 5)."""

import altair as alt
import polars as pl

from rare_tokens.analyses.report.data.inputs import GROUP, Input
from rare_tokens.analyses.report.figures.charts import HEIGHT, MUTED, RARE, configured, rows_chart, step_axis
from rare_tokens.analyses.report.figures.figure import EVERY, Figure, Rows, Subject

EMERGENCE = Input(
    "emergence",
    "emergence",
    GROUP
    | {"training_step": pl.Int64, "group_name": pl.String, "chosen_at": pl.String, "quantity": pl.String}
    | {"rank": pl.Int64, "value": pl.Float64, "low": pl.Float64, "high": pl.Float64},
    beside=True,
)
RULES = {"alpha_fix_finger": "fix-finger", "alpha_mid": "half of the spectrum"}
GROUPS = ("boost", "suppress", "control")


def _rows(subject: Subject) -> Rows:
    found = subject.of_series(subject.inputs.of_figures["emergence"]).filter(
        pl.col("quantity").is_in(list(RULES)), pl.col("group_name").is_in(GROUPS), pl.col("value").is_not_null()
    )
    found = found.filter((pl.col("chosen_at") == "last") | pl.col("chosen_at").is_null())
    found = found.with_columns(group=pl.col("quantity").replace_strict(RULES), neurons="group_name")
    return {EVERY: found.select("step", "neurons", "value", "low", "high", "group")}


def alpha_figure(subject: Subject, _drawn: Rows) -> alt.LayerChart:
    """A line per group, with the middle 95 % of its random groups shaded; a panel per rule for the tail."""
    domain = list(GROUPS)
    colours = alt.Scale(domain=domain, range=["var(--step9)", RARE, MUTED])
    dashes = alt.Scale(domain=domain, range=[[1, 0], [6, 3], [1, 3]])
    shapes = alt.Scale(domain=domain, range=["circle", "triangle-up", "square"])
    base = rows_chart().encode(x=step_axis(subject.names))
    control = base.transform_filter("datum.neurons === 'control'")
    band = control.mark_area(color=MUTED, opacity=0.16).encode(y=alt.Y("low:Q", title="α"), y2="high:Q")
    lines = base.mark_line(strokeWidth=1.8).encode(
        y=alt.Y("value:Q", title="α", scale=alt.Scale(zero=False, nice=True)),
        color=alt.Color("neurons:N", scale=colours, legend=None),
        strokeDash=alt.StrokeDash("neurons:N", legend=None, scale=dashes),
    )
    dots = lines.mark_point(filled=True, size=60, opacity=1).encode(
        shape=alt.Shape("neurons:N", legend=None, scale=shapes),
        tooltip=["step:N", "neurons:N"] + [alt.Tooltip(f"{name}:Q", format=".2f") for name in ("value", "low", "high")],
    )
    return configured((band + lines + dots).properties(width="container", height=HEIGHT))


FIGURES = (Figure("alpha", alpha_figure, _rows, reads=(EMERGENCE,), panels=tuple(RULES.values()), over_training=True),)
