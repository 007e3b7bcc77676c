"""Influence and δ against rank, log-log above semi-log, one rank axis (ES fig. 2 and 4, NC fig. 1)."""

from typing import Any

import altair as alt

from rare_tokens.analyses.report.data.extent import Extent
from rare_tokens.analyses.report.data.summary import LARGE_DEVIATION, SMALL_DEVIATION
from rare_tokens.analyses.report.figures.charts import (
    INK,
    MAIN_HEIGHT,
    MUTED,
    configured,
    deviation_axis,
    deviation_scale,
    group_colour,
    group_shape,
    influence_axis,
    rank_axis,
    rank_scale,
)
from rare_tokens.analyses.report.figures.figure import Figure, Rows, Subject
from rare_tokens.analyses.report.figures.neurons import highlighted, hover, pinned, tooltip

DEVIATION_HEIGHT = 170


def influence_figure(subject: Subject, _rows: Rows) -> alt.VConcatChart:
    """Both panels.

    Data sets: `points` (neuron, group, rank, influence, deviation, rare_rank, role, regime, up, down), `fits` (group,
    part, rank, influence) and `windows` (group, first, last). Parameters: `hover` (a neuron), `pinned` (a neuron's
    number, −1 for none), `brush` (a range of ranks on rare tokens), `zoom` (both panels' range of ranks).
    """
    chart = alt.vconcat(_influence_panel(subject.extent), _deviation_panel(subject.extent), spacing=14)
    return configured(chart.add_params(pinned()).resolve_scale(x="shared"))


def _influence_panel(extent: Extent) -> alt.LayerChart:
    """Upper panel: points, windows of the fits, fitted lines, and highlights.

    The points are the first layer, because Vega-Lite passes that layer's events to the selections.
    """
    colour = group_colour()
    points = alt.Chart(alt.NamedData(name="points")).encode(
        x=rank_axis(extent, zoomed=True), y=influence_axis(extent), color=colour
    )
    numbers = [
        alt.Tooltip("group:N", title="tokens"),
        alt.Tooltip("rank:Q", title="rank"),
        alt.Tooltip("influence:Q", title="influence (nats)", format=".3~g"),
        alt.Tooltip("deviation:Q", title="δ", format="+.2f"),
        alt.Tooltip("role:N", title="role"),
        alt.Tooltip("regime:N", title="regime"),
    ]
    dots = points.mark_point(filled=True, clip=True, opacity=0.8)
    dots = dots.encode(shape=group_shape(), size=_size(), opacity=_dimmed(), tooltip=tooltip(*numbers))
    dots = dots.add_params(_brush(), _zoom(), hover())
    layers = [dots, _windows(extent, colour), *_lines(extent, colour), *highlighted(points)]
    return alt.layer(*layers).properties(width=600, height=MAIN_HEIGHT)


def _brush() -> alt.Parameter:
    """Dragging selects a range of ranks."""
    return alt.selection_interval(
        name="brush",
        encodings=["x"],
        on="[pointerdown[!event.shiftKey], window:pointerup] > window:pointermove!",
        zoom=False,
        mark=alt.BrushConfig(fill=MUTED, fillOpacity=0.15, stroke=MUTED),
    )


def _zoom() -> alt.Parameter:
    """Shift-dragging moves, Ctrl-wheel zooms."""
    drag = "[pointerdown[event.shiftKey], window:pointerup] > window:pointermove!"
    return alt.selection_interval(
        name="zoom", bind="scales", encodings=["x"], translate=drag, zoom="wheel![event.ctrlKey]", on=drag
    )


def _lines(extent: Extent, colour: alt.Color) -> list[alt.Chart]:
    """The fitted lines: solid on the ranks they were fitted to, dotted elsewhere."""
    fits = alt.Chart(alt.NamedData(name="fits")).mark_line(clip=True)
    fits = fits.encode(
        x=rank_axis(extent, zoomed=True),
        y=influence_axis(extent),
        color=colour,
        detail="part:N",
        strokeDash=alt.condition("datum.part == 'window'", alt.value([1, 0]), alt.value([3, 4])),
        strokeWidth=alt.condition("datum.part == 'window'", alt.value(0), alt.value(1.4)),
    )
    inside = alt.Chart(alt.NamedData(name="fits")).transform_filter("datum.part == 'window'")
    inside = inside.mark_line(clip=True, color=INK, strokeWidth=1.2)
    return [fits, inside.encode(x=rank_axis(extent, zoomed=True), y=influence_axis(extent), detail="group:N")]


def _deviation_panel(extent: Extent) -> alt.LayerChart:
    """Lower panel: δ, with NC's thresholds as a band and a line."""
    rules = alt.Data(values=[{"low": -SMALL_DEVIATION, "high": SMALL_DEVIATION, "line": LARGE_DEVIATION, "zero": 0}])
    band = alt.Chart(rules).mark_rect(color=MUTED, opacity=0.18)
    band = band.encode(y=alt.Y("low:Q", scale=deviation_scale(extent)), y2="high:Q")
    line = alt.Chart(rules).mark_rule(color=MUTED, strokeDash=[2, 3]).encode(y="line:Q")
    zero = alt.Chart(rules).mark_rule(color=MUTED, strokeWidth=1).encode(y="zero:Q")
    colour = group_colour()
    points = alt.Chart(alt.NamedData(name="points")).encode(
        x=rank_axis(extent, "rank of the neuron within its token group", zoomed=True),
        y=deviation_axis(extent),
        color=colour,
    )
    points = points.transform_filter("isValid(datum.deviation)")
    dots = points.mark_point(filled=True, clip=True).encode(shape=group_shape(), size=_size(), opacity=_dimmed())
    layers = [_windows(extent, colour), band, line, zero, dots, *highlighted(points)]
    return alt.layer(*layers).properties(width=600, height=DEVIATION_HEIGHT)


def _windows(extent: Extent, colour: alt.Color) -> alt.Chart:
    """The ranks each line was fitted to, shaded."""
    windows = alt.Chart(alt.NamedData(name="windows")).mark_rect(opacity=0.07, clip=True)
    return windows.encode(x=alt.X("first:Q", scale=rank_scale(extent)), x2="last:Q", color=colour)


def _dimmed() -> Any:
    """Full opacity if nothing is brushed, else only for neurons whose rank on rare tokens is inside the brush."""
    inside = "!isValid(brush.rank) || inrange(datum.rare_rank, brush.rank)"
    return alt.condition(inside, alt.value(0.85), alt.value(0.04))


def _size() -> Any:
    """Larger dots at the head, whose few neurons are of most interest."""
    return alt.condition("datum.rank <= 50", alt.value(34), alt.value(14))


FIGURES = (Figure("influence", influence_figure, heights=((290, 130), (265, 105))),)
