"""All checkpoints at once: influence and δ against rank, later ones in stronger colours (ES fig. 2 and 4)."""

from functools import partial

import altair as alt

from rare_tokens.analyses.report.data.summary import GROUPS
from rare_tokens.analyses.report.figures.charts import (
    HEIGHT,
    configured,
    deviation_axis,
    influence_axis,
    rank_axis,
    step_colours,
)
from rare_tokens.analyses.report.figures.figure import Figure, Rows, Subject

QUANTITIES = ("influence", "deviation")


def steps_figure(quantity: str, subject: Subject, _rows: Rows) -> alt.LayerChart:
    """One curve per checkpoint, of `influence` or `deviation`. Data set: `curves` (step, rank, and the quantity)."""
    names = subject.names
    colours = step_colours(len(names))
    base = alt.Chart(alt.NamedData(name="curves")).encode(
        x=rank_axis(subject.extent, "rank"),
        y=influence_axis(subject.extent) if quantity == "influence" else deviation_axis(subject.extent),
        color=alt.Color("step:N", scale=alt.Scale(domain=names, range=colours), legend=None),
        order="rank:Q",
        tooltip=[alt.Tooltip("step:N"), alt.Tooltip("rank:Q"), alt.Tooltip(f"{quantity}:Q", format=".3~g")],
    )
    lines = base.mark_line(strokeWidth=1.8, clip=True, interpolate="linear")
    dots = base.mark_point(filled=True, size=40, opacity=0, clip=True)
    return configured((lines + dots).properties(width="container", height=HEIGHT))


FIGURES = tuple(
    Figure(f"steps-{quantity}", partial(steps_figure, quantity), panels=GROUPS, over_training=True)
    for quantity in QUANTITIES
)
