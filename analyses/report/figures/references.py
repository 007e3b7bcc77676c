"""The curves of all references of a measurement, one over the other: does it matter what replaces an activation?

They are shown once, with the run that comes first among its references, if others of them are in the report.
"""

import altair as alt
import numpy as np
import polars as pl

from rare_tokens.analyses.report.data.inputs import GROUP, Input
from rare_tokens.analyses.report.data.points import curve_ranks
from rare_tokens.analyses.report.data.references import first_references
from rare_tokens.analyses.report.data.summary import GROUPS
from rare_tokens.analyses.report.figures.charts import (
    HEIGHT,
    INK,
    MUTED,
    RARE,
    configured,
    power_axis,
    rank_axis,
    rows_chart,
)
from rare_tokens.analyses.report.figures.figure import Figure, Rows, Subject, by_preset

REFERENCES = Input(
    "references",
    "reference_agreement",
    GROUP
    | dict.fromkeys(("other_run_id", "ablation", "other_ablation"), pl.String)
    | dict.fromkeys(("first", "shared_10", "shared_50", "shared_first", "break_rank", "other_break_rank"), pl.Int64)
    | dict.fromkeys(("rank_correlation", "kappa", "step", "other_kappa", "other_step"), pl.Float64)
    | dict.fromkeys(("decision", "other_decision"), pl.String),
    {
        f"{name}{end}": pl.Float64
        for name in (
            "rank_correlation", "shared_10", "shared_50", "shared_first", "kappa", "other_kappa", "step", "other_step",
            "break", "other_break",
        )
        for end in ("_low", "_high")
    }
    | dict.fromkeys(("break_determined", "other_break_determined"), pl.Boolean)
    | {"p_value": pl.Float64, "other_p_value": pl.Float64, "reason": pl.String},
    beside=True,
)  # fmt: skip
COLOURS = ("var(--step9)", RARE, "var(--step5)", MUTED)
DASHES = ([1, 0], [6, 3], [2, 2], [9, 3, 2, 3])


def _rows(subject: Subject) -> Rows:
    first = first_references(subject.inputs.of_figures["references"])
    key = ["run_id", "preset", "token_group"]
    own = first.select(*key, curve="run_id", reference="ablation", head="break_rank")
    others = first.select(*key, curve="other_run_id", reference="other_ablation", head="other_break_rank")
    curves = subject.of_series(pl.concat([own.unique(maintain_order=True), others]))
    influence = subject.inputs.influence.filter(pl.col("influence") > 0)
    found = curves.join(
        influence.select("rank", "influence", "preset", "token_group", curve="run_id"),
        on=["curve", "preset", "token_group"],
        maintain_order="left_right",
    )
    is_head = (pl.col("rank") == pl.col("head")).fill_null(value=False)
    found = found.filter(is_head | pl.col("rank").is_in(curve_ranks(subject.extent.neurons)))
    found = found.with_columns(head=is_head).filter(pl.col("curve").n_unique().over(key) > 1)
    return by_preset(found, "run", "reference", "rank", "influence", "head", group="token_group")


def references_figure(subject: Subject, rows: Rows) -> alt.LayerChart:
    """A curve per reference, a dot where its head ends; a panel per token group."""
    every = pl.concat(list(rows.values()))
    names = every["reference"].unique(maintain_order=True).to_list()
    colours = [COLOURS[place % len(COLOURS)] for place in range(len(names))]
    dashes = [DASHES[place % len(DASHES)] for place in range(len(names))]
    low, high = np.quantile(every["influence"].to_numpy(), [0, 1])
    influence = alt.Y(
        "influence:Q",
        title="influence (nats)",
        axis=power_axis(),
        scale=alt.Scale(type="log", domain=[float(low) / 1.3, float(high) * 1.3], nice=False),
    )
    legend = alt.Legend(title=None, orient="bottom-left", labelColor=INK, symbolType="stroke", symbolSize=400)
    colour = alt.Color("reference:N", scale=alt.Scale(domain=names, range=colours), legend=legend)
    base = rows_chart().encode(x=rank_axis(subject.extent, "rank"), y=influence, color=colour)
    dash = alt.StrokeDash("reference:N", scale=alt.Scale(domain=names, range=dashes), legend=legend)
    tooltip = ["reference:N", "rank:Q", alt.Tooltip("influence:Q", format=".3~g")]
    lines = base.mark_line(strokeWidth=1.8, clip=True).encode(strokeDash=dash, order="rank:Q")
    dots = base.transform_filter("datum.head").mark_point(filled=True, size=70, opacity=1).encode(tooltip=tooltip)
    return configured((lines + dots).properties(width="container", height=HEIGHT))


FIGURES = (Figure("references", references_figure, _rows, reads=(REFERENCES,), panels=GROUPS),)
