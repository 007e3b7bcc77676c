"""The figures whose data is small: ES fig. 1, 3, 5 and 6, and sensitivity; each with the rows that it draws.

Every figure has one data set, `rows`; what it holds is given by preset (`*`: whatever the preset), with `run` where a
row belongs to one checkpoint and `group` where it belongs to one panel.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import altair as alt
import polars as pl

from rare_tokens.analyses.report.data.inputs import ReportInputs
from rare_tokens.analyses.report.data.points import curve_ranks
from rare_tokens.analyses.report.data.series import Series
from rare_tokens.analyses.report.data.summary import GROUPS
from rare_tokens.analyses.report.figures import charts
from rare_tokens.analyses.report.figures.charts import AXIS_WIDTH, COMMON, INK, MUTED, RARE, SIGNED_LABEL, Extent

Rows = dict[str, pl.DataFrame]  # by preset

LEVELS = {"the first neuron": 0.0, "first 1 %": 0.01, "first 10 %": 0.1, "median": 0.5}
RULES = {"alpha_fix_finger": "fix-finger", "alpha_mid": "half of the spectrum"}
ALPHA_GROUPS = ("boost", "suppress", "control")
_ALPHA_COLOURS = ("var(--step9)", RARE, MUTED)
HEIGHT = 230


def small_sets(one: Series, inputs: ReportInputs, extent: Extent) -> dict[str, Rows]:
    """The rows of every small figure of a series that has any."""
    made = {"slopes": _slopes(one, inputs, extent), "sensitivity": _sensitivity(one, inputs)}
    made["suppress"] = _suppress(one, inputs, extent)
    if len(one.measured) > 1:
        made |= {"spread": _spread(one, inputs, extent), "alpha": _alpha(one, inputs)}
    return {name: kept for name, rows in made.items() if (kept := {key: row for key, row in rows.items() if len(row)})}


def small_figures(names: list[str], extent: Extent) -> dict[str, Callable[[], alt.TopLevelMixin]]:
    """What draws every small figure of a series whose checkpoints have these names."""
    return {
        "spread": partial(spread_figure, names, extent),
        "slopes": partial(slopes_figure, extent),
        "alpha": partial(alpha_figure, names),
        "suppress": partial(suppress_figure, names, extent),
        "sensitivity": sensitivity_figure,
    }


def columns(frame: pl.DataFrame) -> dict[str, list[Any]]:
    """A frame as columns of few digits: what a page carries."""
    rounded = frame.with_columns(pl.selectors.float().round_sig_figs(4))
    return {name: rounded[name].to_list() for name in rounded.columns}


# --- ES fig. 1 ------------------------------------------------------------------------------------------------------


def _spread(one: Series, inputs: ReportInputs, extent: Extent) -> Rows:
    ranks = {label: max(1, round(share * extent.neurons)) for label, share in LEVELS.items()}
    wanted = pl.DataFrame({"level": list(ranks), "rank": list(ranks.values())}, schema_overrides={"rank": pl.Int64})
    found = _of(one, inputs.influence).filter(pl.col("influence") > 0).join(wanted, on="rank")
    return _by_preset(found, "step", "level", "influence", "neuron", group="token_group")


def spread_figure(names: list[str], extent: Extent) -> alt.LayerChart:
    """Influence at a few places of the ranking over checkpoints: how a few neurons part from the rest (ES fig. 1)."""
    colours = alt.Scale(domain=list(LEVELS), range=[INK, "var(--step8)", "var(--step6)", "var(--step4)"])
    dashes = alt.Scale(domain=list(LEVELS), range=[[1, 0], [6, 2], [3, 3], [1, 3]])
    base = _rows().encode(
        x=_step(names),
        y=alt.Y(
            "influence:Q",
            title="influence (nats)",
            scale=alt.Scale(type="log", domain=list(extent.influence), nice=False),
            axis=alt.Axis(labelExpr=charts.POWER_LABEL, tickCount=6, gridOpacity=charts.major()),
        ),
        color=alt.Color("level:N", scale=colours, legend=None),
    )
    lines = base.mark_line(strokeWidth=1.8).encode(strokeDash=alt.StrokeDash("level:N", scale=dashes, legend=None))
    dots = base.mark_point(filled=True, size=50, opacity=1).encode(
        tooltip=["step:N", "level:N", "neuron:Q", alt.Tooltip("influence:Q", format=".3~g")]
    )
    return charts.configured((lines + dots).properties(width="container", height=HEIGHT))


# --- ES fig. 3 ------------------------------------------------------------------------------------------------------


def _slopes(one: Series, inputs: ReportInputs, extent: Extent) -> Rows:
    found = _of(one, inputs.slopes).filter(pl.col("rank").is_in(curve_ranks(extent.neurons)))
    found = found.with_columns(log_rank=pl.col("rank").cast(pl.Float64).log())
    found = found.filter(pl.col("local_slope").is_not_null())
    return _by_preset(found, "run", "log_rank", "local_slope", "second_derivative", group="token_group")


def slopes_figure(extent: Extent) -> alt.VConcatChart:
    """Local slope and second derivative of log influence against ln rank (ES fig. 3); a line at ln rank 5."""
    top = float(pl.Series([float(max(extent.neurons, 3))]).log()[0])
    scale = alt.Scale(domain=[0, top], nice=False)
    five = alt.Chart(alt.Data(values=[{"x": 5}])).mark_rule(color=MUTED, strokeDash=[2, 3]).encode(x="x:Q")
    panels = []
    for field, title, below in (("local_slope", "slope", None), ("second_derivative", "second derivative", "ln rank")):
        x = alt.X("log_rank:Q", title=below, scale=scale, axis=alt.Axis(tickCount=8, grid=False))
        y = alt.Y(
            f"{field}:Q",
            title=title,
            axis=alt.Axis(labelExpr=SIGNED_LABEL, tickCount=5, minExtent=AXIS_WIDTH, maxExtent=AXIS_WIDTH),
        )
        base = (
            _rows()
            .transform_filter(f"isValid(datum.{field})")
            .encode(x=x, y=y, color=_token_group(), order="log_rank:Q")
        )
        dots = base.mark_point(filled=True, size=14, clip=True).encode(
            shape=_token_group_shape(),
            tooltip=["group:N", alt.Tooltip("log_rank:Q", format=".2f"), alt.Tooltip(f"{field}:Q", format="+.3f")],
        )
        layers = [dots, base.mark_line(strokeWidth=1.4, clip=True), *([five] if top > 5 else [])]
        panels.append(alt.layer(*layers).properties(width=600, height=150))
    return charts.configured(alt.vconcat(*panels, spacing=12).resolve_scale(x="shared"))


# --- ES fig. 5 ------------------------------------------------------------------------------------------------------


def _alpha(one: Series, inputs: ReportInputs) -> Rows:
    found = _of(one, inputs.emergence).filter(
        pl.col("quantity").is_in(list(RULES)), pl.col("group_name").is_in(ALPHA_GROUPS), pl.col("value").is_not_null()
    )
    found = found.filter((pl.col("chosen_at") == "last") | pl.col("chosen_at").is_null())
    found = found.with_columns(group=pl.col("quantity").replace_strict(RULES), neurons="group_name")
    return {"*": found.select("step", "neurons", "value", "low", "high", "group")}


def alpha_figure(names: list[str]) -> alt.LayerChart:
    """Hill's α of the output weights of each group over checkpoints, beside random groups (ES fig. 5)."""
    domain = list(ALPHA_GROUPS)
    base = _rows().encode(x=_step(names))
    y = alt.Y("value:Q", title="α", scale=alt.Scale(zero=False, nice=True))
    control = base.transform_filter("datum.neurons === 'control'")
    band = control.mark_area(color=MUTED, opacity=0.16).encode(y=alt.Y("low:Q", title="α"), y2="high:Q")
    lines = base.mark_line(strokeWidth=1.8).encode(
        y=y,
        color=alt.Color("neurons:N", scale=alt.Scale(domain=domain, range=list(_ALPHA_COLOURS)), legend=None),
        strokeDash=alt.StrokeDash(
            "neurons:N", legend=None, scale=alt.Scale(domain=domain, range=[[1, 0], [6, 3], [1, 3]])
        ),
    )
    dots = lines.mark_point(filled=True, size=60, opacity=1).encode(
        shape=alt.Shape(
            "neurons:N", legend=None, scale=alt.Scale(domain=domain, range=["circle", "triangle-up", "square"])
        ),
        tooltip=["step:N", "neurons:N"] + [alt.Tooltip(f"{name}:Q", format=".2f") for name in ("value", "low", "high")],
    )
    return charts.configured((band + lines + dots).properties(width="container", height=HEIGHT))


# --- ES fig. 6 ------------------------------------------------------------------------------------------------------


def _suppress(one: Series, inputs: ReportInputs, extent: Extent) -> Rows:
    key = ["run_id", "preset", "token_group", "neuron"]
    suppress = _of(one, inputs.influence).filter(pl.col("role") == "suppress", pl.col("token_group") == "rare")
    slopes = inputs.deviations.select(*key, "local_slope").filter(pl.col("local_slope").is_not_null())
    found = suppress.join(slopes, on=key).sort("run", "preset", "rank")
    order = pl.col("rank").rank("ordinal").over("run_id", "preset").cast(pl.Int64)
    found = found.with_columns(place=order).filter(pl.col("place").is_in(curve_ranks(extent.neurons)))
    return _by_preset(found, "step", "rank", "local_slope", "neuron")


def suppress_figure(names: list[str], extent: Extent) -> alt.LayerChart:
    """Local slope of the influence curve at the suppress neurons, a curve a checkpoint (ES fig. 6)."""
    colours = alt.Scale(domain=names, range=charts.step_colours(len(names)))
    base = _rows().encode(
        x=charts.rank_axis(extent, "rank on rare tokens"),
        y=alt.Y("local_slope:Q", title="slope", axis=alt.Axis(labelExpr=SIGNED_LABEL, tickCount=5)),
        color=alt.Color("step:N", scale=colours, legend=None),
        order="rank:Q",
    )
    tooltip = ["step:N", "neuron:Q", "rank:Q", alt.Tooltip("local_slope:Q", format="+.2f")]
    dots = base.mark_point(filled=True, size=40, opacity=0, clip=True).encode(tooltip=tooltip)
    return charts.configured(
        (dots + base.mark_line(strokeWidth=1.6, clip=True)).properties(width="container", height=HEIGHT)
    )


# --- sensitivity ----------------------------------------------------------------------------------------------------


def _sensitivity(one: Series, inputs: ReportInputs) -> Rows:
    found = _of(one, inputs.sensitivity).filter(pl.col("kappa").is_not_null())
    names = ("run", "percentile", "kappa", "decision", "p_value", "positions", "top_overlap")
    return _by_preset(found, *names, group="token_group")


def sensitivity_figure() -> alt.LayerChart:
    """κ against the percentile at which rare and common part, and what is decided of a plateau there."""
    base = _rows().encode(
        x=alt.X(
            "percentile:Q", title="percentile where the line is drawn", scale=alt.Scale(domain=[0, 52], nice=False)
        ),
        y=alt.Y("kappa:Q", title="κ", scale=alt.Scale(zero=False, nice=True)),
        color=_token_group(),
    )
    tooltip = ["group:N", "percentile:Q", "positions:Q", alt.Tooltip("kappa:Q", format=".3f"), "decision:N"]
    tooltip += [alt.Tooltip("p_value:Q", format=".3f"), alt.Tooltip("top_overlap:Q", format=".2f")]
    dots = base.mark_point(size=80, opacity=1).encode(
        shape=_token_group_shape(),
        fillOpacity=alt.condition("datum.decision === 'present'", alt.value(1), alt.value(0)),
        fill=_token_group("fill"),
        tooltip=tooltip,
    )
    return charts.configured((base.mark_line(strokeWidth=1.6) + dots).properties(width="container", height=HEIGHT))


def _rows() -> alt.Chart:
    return alt.Chart(alt.NamedData(name="rows"))


def _token_group(channel: str = "color") -> Any:
    scale = alt.Scale(domain=list(GROUPS), range=[RARE, COMMON])
    return (alt.Color if channel == "color" else alt.Fill)("group:N", scale=scale, legend=None)


def _token_group_shape() -> alt.Shape:
    return charts.group_shape()


def _step(names: list[str]) -> alt.X:
    axis = alt.Axis(labelAngle=0, labelOverlap=True, grid=False)
    return alt.X("step:N", title="checkpoint", axis=axis, scale=alt.Scale(domain=names))


def _of(one: Series, frame: pl.DataFrame) -> pl.DataFrame:
    """The rows of a series' runs, with `step` (the checkpoint's name) and `run` (its number in the report)."""
    runs = pl.DataFrame(
        [{"run_id": run.run_id, "step": run.label, "run": run.index} for run in one.measured],
        schema={"run_id": pl.String, "step": pl.String, "run": pl.Int64},
    )
    return frame.join(runs, on="run_id").sort("run", maintain_order=True)


def _by_preset(found: pl.DataFrame, *names: str, **renamed: str) -> Rows:
    kept = [*names, *(pl.col(source).alias(name) for name, source in renamed.items())]
    return {str(preset): rows.select(kept) for (preset,), rows in found.group_by("preset", maintain_order=True)}


def shown_rows(sets: Mapping[str, Rows], name: str, preset: str, run: int) -> pl.DataFrame:
    """The rows that a figure shows first: of `preset`, and of the checkpoint `run` where a row belongs to one."""
    found = sets[name].get(preset, sets[name].get("*", pl.DataFrame()))
    return found.filter(pl.col("run") == run) if "run" in found.columns else found
