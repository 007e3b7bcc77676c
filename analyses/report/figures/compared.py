"""The curves of the runs that several series show first, one over the other: seeds, sizes, texts, models.

They are shown once, with the first series. Checkpoints, references and layers of one model have figures of their own.
"""

import altair as alt
import numpy as np
import polars as pl

from rare_tokens.analyses.report.data.compared import compared_runs, labels
from rare_tokens.analyses.report.data.points import curve_ranks
from rare_tokens.analyses.report.data.series import group_runs
from rare_tokens.analyses.report.data.summary import GROUPS
from rare_tokens.analyses.report.figures.charts import HEIGHT, INK, configured, power_axis, rank_axis, rows_chart
from rare_tokens.analyses.report.figures.figure import Figure, Rows, Subject, by_preset
from rare_tokens.analyses.report.figures.references import COLOURS, DASHES


def _rows(subject: Subject) -> Rows:
    series = group_runs(subject.inputs.runs, subject.inputs.influence)
    runs = compared_runs(series)
    if not runs or next(one.index for one in series if one.measured) != subject.series.index:
        return {}
    names = pl.DataFrame({"run_id": [run.run_id for run in runs], "curve": labels([run.row for run in runs])})
    influence = subject.inputs.influence.filter(pl.col("influence") > 0).join(names, on="run_id")
    most = int(influence["rank"].max() or 1)  # type: ignore[arg-type]
    found = influence.filter(pl.col("rank").is_in(curve_ranks(most))).sort("curve", "rank")
    return by_preset(found, "curve", "rank", "influence", group="token_group")


def compared_figure(subject: Subject, rows: Rows) -> alt.Chart:
    """A curve per run; a panel per token group."""
    every = pl.concat(list(rows.values()))
    names = every["curve"].unique(maintain_order=True).to_list()
    low, high = np.quantile(every["influence"].to_numpy(), [0, 1])
    scale = alt.Scale(type="log", domain=[float(low) / 1.3, float(high) * 1.3], nice=False)
    legend = alt.Legend(title=None, orient="bottom-left", labelColor=INK, symbolType="stroke", symbolSize=400)
    colours = [COLOURS[place % len(COLOURS)] for place in range(len(names))]
    dashes = [DASHES[place // len(COLOURS) % len(DASHES)] for place in range(len(names))]
    chart = rows_chart().mark_line(strokeWidth=1.8, clip=True)
    chart = chart.encode(
        x=rank_axis(subject.extent, "rank"),
        y=alt.Y("influence:Q", title="influence (nats)", axis=power_axis(), scale=scale),
        color=alt.Color("curve:N", scale=alt.Scale(domain=names, range=colours), legend=legend),
        strokeDash=alt.StrokeDash("curve:N", scale=alt.Scale(domain=names, range=dashes), legend=legend),
        order="rank:Q",
    )
    return configured(chart.properties(width="container", height=HEIGHT))


FIGURES = (Figure("compared", compared_figure, _rows, panels=GROUPS),)
