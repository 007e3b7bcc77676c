"""Influence on rare against influence on common tokens, a point per neuron; on the diagonal both are equal."""

import altair as alt

from rare_tokens.analyses.report.data.summary import GROUPS
from rare_tokens.analyses.report.figures.charts import (
    COMMON,
    INK,
    MAIN_HEIGHT,
    MUTED,
    RARE,
    configured,
    power_axis,
)
from rare_tokens.analyses.report.figures.figure import Figure, Rows, Subject
from rare_tokens.analyses.report.figures.neurons import highlighted, hover, pinned, tooltip

LEADS = ("rare", "common", "both", "neither")  # where a neuron is among the most influential


def scatter_figure(subject: Subject, _rows: Rows) -> alt.LayerChart:
    """One panel.

    Data set: `pairs` (neuron, rare, common, rare_rank, common_rank, leads, role, up, down); `leads` says in which
    group the neuron is among the most influential. Parameters: `hover` and `pinned`.
    """
    scale = alt.Scale(type="log", domain=subject.extent.influence, nice=False)
    axis = power_axis()
    base = alt.Chart(alt.NamedData(name="pairs")).encode(
        x=alt.X("common:Q", title="influence on common tokens (nats)", scale=scale, axis=axis),
        y=alt.Y("rare:Q", title="influence on rare tokens (nats)", scale=scale, axis=axis),
    )
    ends = alt.Data(values=[{"common": value, "rare": value} for value in subject.extent.influence])
    diagonal = alt.Chart(ends).mark_line(color=MUTED, strokeDash=[4, 4], strokeWidth=1)
    diagonal = diagonal.encode(x=alt.X("common:Q", scale=scale), y=alt.Y("rare:Q", scale=scale))
    colours = alt.Scale(domain=list(LEADS), range=[RARE, COMMON, INK, MUTED])
    shapes = alt.Scale(domain=list(LEADS), range=["circle", "diamond", "square", "circle"])
    names = {"rare": "on rare (nats)", "common": "on common (nats)"}
    numbers = [alt.Tooltip(f"{name}:Q", title=title, format=".3~g") for name, title in names.items()]
    numbers += [alt.Tooltip(f"{name}_rank:Q", title=f"rank on {name}") for name in GROUPS]
    dots = base.mark_point(filled=True, clip=True).encode(
        color=alt.Color("leads:N", scale=colours, legend=None),
        shape=alt.Shape("leads:N", legend=None, scale=shapes),
        size=alt.condition("datum.leads == 'neither'", alt.value(14), alt.value(46)),
        opacity=alt.condition("datum.leads == 'neither'", alt.value(0.4), alt.value(0.9)),
        tooltip=tooltip(*numbers, alt.Tooltip("role:N", title="role")),
    )
    chart = alt.layer(dots.add_params(hover()), diagonal, *highlighted(base)).add_params(pinned())
    return configured(chart.properties(width="container", height=MAIN_HEIGHT))


FIGURES = (Figure("scatter", scatter_figure),)
