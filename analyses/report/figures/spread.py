"""How a few neurons separate from the rest over checkpoints (ES fig. 1)."""

import altair as alt
import polars as pl

from rare_tokens.analyses.report.data.summary import GROUPS
from rare_tokens.analyses.report.figures.charts import HEIGHT, INK, configured, power_axis, rows_chart, step_axis
from rare_tokens.analyses.report.figures.figure import Figure, Rows, Subject, by_preset

LEVELS = {"the first neuron": 0.0, "first 1 %": 0.01, "first 10 %": 0.1, "median": 0.5}


def _rows(subject: Subject) -> Rows:
    ranks = {label: max(1, round(share * subject.extent.neurons)) for label, share in LEVELS.items()}
    wanted = pl.DataFrame({"level": list(ranks), "rank": list(ranks.values())}, schema_overrides={"rank": pl.Int64})
    found = subject.of_series(subject.inputs.influence).filter(pl.col("influence") > 0).join(wanted, on="rank")
    return by_preset(found, "step", "level", "influence", "neuron", group="token_group")


def spread_figure(subject: Subject, _drawn: Rows) -> alt.LayerChart:
    """Influence at a few places of the ranking."""
    colours = alt.Scale(domain=list(LEVELS), range=[INK, "var(--step8)", "var(--step6)", "var(--step4)"])
    dashes = alt.Scale(domain=list(LEVELS), range=[[1, 0], [6, 2], [3, 3], [1, 3]])
    scale = alt.Scale(type="log", domain=list(subject.extent.influence), nice=False)
    base = rows_chart().encode(
        x=step_axis(subject.names),
        y=alt.Y("influence:Q", title="influence (nats)", scale=scale, axis=power_axis()),
        color=alt.Color("level:N", scale=colours, legend=None),
    )
    lines = base.mark_line(strokeWidth=1.8).encode(strokeDash=alt.StrokeDash("level:N", scale=dashes, legend=None))
    dots = base.mark_point(filled=True, size=50, opacity=1).encode(
        tooltip=["step:N", "level:N", "neuron:Q", alt.Tooltip("influence:Q", format=".3~g")]
    )
    return configured((lines + dots).properties(width="container", height=HEIGHT))


FIGURES = (Figure("spread", spread_figure, _rows, panels=GROUPS, over_training=True),)
