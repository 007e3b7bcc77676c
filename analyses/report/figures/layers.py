"""κ and the step of the head by layer, with 95 % intervals and the decision: in which layers is there a plateau?

The layers of a set are shown once, with the deepest of them, if at least two are in the report.
"""

import altair as alt
import polars as pl

from rare_tokens.analyses.report.data.inputs import GROUP, Input
from rare_tokens.analyses.report.data.layers import shown_layers
from rare_tokens.analyses.report.data.summary import GROUPS
from rare_tokens.analyses.report.figures.charts import COMMON, HEIGHT, INK, RARE, configured, rows_chart
from rare_tokens.analyses.report.figures.figure import Figure, Rows, Subject, by_preset

LAYERS = Input(
    "layers",
    "layer_profile",
    GROUP
    | dict.fromkeys(("layer", "layers", "neurons", "positions", "break_rank"), pl.Int64)
    | dict.fromkeys(("edit_scope", "last_run_id", "decision"), pl.String)
    | dict.fromkeys(("kappa", "step", "mean_influence", "largest_influence"), pl.Float64),
    {f"{name}_{end}": pl.Float64 for name in ("kappa", "step") for end in ("low", "high")}
    | dict.fromkeys(("break_low", "break_high"), pl.Int64)
    | {"head_share": pl.Float64, "p_value": pl.Float64, "reason": pl.String},
    beside=True,
)
PANELS = ("kappa", "step")
DECISIONS = ("present", "absent", "undecided")
UNKNOWN = "not decided yet"


def _rows(subject: Subject) -> Rows:
    every = shown_layers(subject.inputs.of_figures["layers"], subject.inputs.runs)
    found = subject.of_series(every.drop("run_id").rename({"shown": "run_id"}))
    found = found.with_columns(pl.col("decision").fill_null(UNKNOWN), tokens="token_group")
    panels = [
        found.select(
            "preset", "run", "layer", "tokens", "decision", value=name, low=f"{name}_low", high=f"{name}_high",
            panel=pl.lit(name),
        )
        for name in PANELS
    ]  # fmt: skip
    drawn = pl.concat(panels).filter(pl.col("value").is_not_null())
    return by_preset(drawn, "run", "layer", "tokens", "decision", "value", "low", "high", group="panel")


def layers_figure(_subject: Subject, rows: Rows) -> alt.LayerChart:
    """A line per token group over the layers; a dot's shape is the decision. A panel for κ and one for s."""
    layers = sorted({layer for frame in rows.values() for layer in frame["layer"]})
    axis = alt.Axis(values=layers, format="d", grid=False, labelOverlap=True)
    span = alt.Scale(domain=[layers[0] - 0.3, layers[-1] + 0.3], nice=False)
    base = rows_chart().encode(
        x=alt.X("layer:Q", title="layer", axis=axis, scale=span),
        color=alt.Color("tokens:N", scale=alt.Scale(domain=list(GROUPS), range=[RARE, COMMON]), legend=None),
    )
    value = alt.Y("value:Q", title=None, scale=alt.Scale(zero=False, nice=True))
    shape = alt.Shape(
        "decision:N",
        scale=alt.Scale(domain=[*DECISIONS, UNKNOWN], range=["circle", "cross", "triangle-up", "diamond"]),
        legend=alt.Legend(title="plateau", orient="bottom", labelColor=INK, titleColor=INK),
    )
    tooltip = ["layer:Q", "tokens:N", "decision:N"]
    tooltip += [alt.Tooltip(f"{name}:Q", format=".3f") for name in ("value", "low", "high")]
    bars = base.transform_filter("isValid(datum.low)").mark_rule(strokeWidth=1.5)
    bars = bars.encode(y=alt.Y("low:Q", title=None, scale=alt.Scale(zero=False, nice=True)), y2="high:Q")
    lines = base.mark_line(strokeWidth=1.8).encode(y=value)
    dots = base.mark_point(filled=True, size=80, opacity=1).encode(y=value, shape=shape, tooltip=tooltip)
    return configured((bars + lines + dots).properties(width="container", height=HEIGHT))


FIGURES = (Figure("layers", layers_figure, _rows, reads=(LAYERS,), panels=PANELS),)
