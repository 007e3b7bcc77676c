"""What figures share: colours, axes, and the Vega-Lite specification, whose named data sets the page fills.

Colours are after Okabe and Ito's, which people with any colour vision can tell apart; shapes and dashes repeat what a
colour says.
"""

from typing import Any

import altair as alt

from rare_tokens.analyses.report.data.extent import Extent
from rare_tokens.analyses.report.data.summary import GROUPS

VEGA_LITE = "6.4"  # version of the bundle, the one that Altair 6 targets
HEIGHT = 230  # pixels of a small figure
MAIN_HEIGHT = 360
FONT = "system-ui, -apple-system, 'Segoe UI', 'Noto Sans', sans-serif"
AXIS_WIDTH = 52  # room left of each panel, equal so that ranks line up
_IS_POWER = "abs(log(datum.value) / LN10 - round(log(datum.value) / LN10)) < 0.001"
POWER_LABEL = (
    f"!({_IS_POWER}) ? '' : '10' + (datum.value < 0.999 ? '⁻' : '') + "
    "(abs(round(log(datum.value) / LN10)) > 9 ? '¹' : '') + "
    "['⁰','¹','²','³','⁴','⁵','⁶','⁷','⁸','⁹'][abs(round(log(datum.value) / LN10)) % 10]"
)
SIGNED_LABEL = "(datum.value > 0 ? '+' : datum.value < 0 ? '−' : '') + format(abs(datum.value), '.2~f')"
_RANK_LABEL = f"{_IS_POWER} ? format(datum.value, ',d') : ''"
_ZOOMED_RANK_LABEL = (
    f"isValid(zoom.rank) && zoom.rank[1] < 40 * zoom.rank[0] ? format(datum.value, ',d') : {_RANK_LABEL}"
)


# Colours: variables of the page's style sheet, which defines them for light, dark and paper.
INK, MUTED, GRID = "var(--ink)", "var(--muted)", "var(--grid)"
RARE, COMMON = "var(--rare)", "var(--common)"
STEPS = tuple(f"var(--step{i})" for i in range(10))
LIGHT = {  # the variables' values on paper, for a figure saved by itself
    "--paper": "#ffffff", "--ink": "#1b1b1a", "--muted": "#5d5b57", "--grid": "#e9e6de", "--rare": "#c24e00",
    "--common": "#0072b2", "--step0": "#cfc9a4", "--step1": "#b9bc9f", "--step2": "#a3ae9d", "--step3": "#8da09c",
    "--step4": "#77919b", "--step5": "#61819a", "--step6": "#4a7098", "--step7": "#335f94", "--step8": "#1c4b8c",
    "--step9": "#06327d",
}  # fmt: skip


def specification(chart: alt.TopLevelMixin) -> dict[str, Any]:
    """A figure's Vega-Lite specification, without its schema's address (a page names no address)."""
    spec: dict[str, Any] = chart.to_dict()
    spec.pop("$schema", None)
    return spec


def rows_chart() -> alt.Chart:
    """A chart of the data set `rows`."""
    return alt.Chart(alt.NamedData(name="rows"))


def rank_axis(extent: Extent, title: str | None = None, *, zoomed: bool = False) -> alt.X:
    """Ranks, logarithmic."""
    label = _ZOOMED_RANK_LABEL if zoomed else _RANK_LABEL
    axis = alt.Axis(labelExpr=label, labelOverlap=True, gridOpacity=major())
    return alt.X("rank:Q", title=title, scale=rank_scale(extent), axis=axis)


def rank_scale(extent: Extent) -> alt.Scale:
    """The scale of ranks, logarithmic."""
    return alt.Scale(type="log", domain=[0.9, max(extent.neurons, 2) * 1.1], nice=False)


def step_axis(names: list[str]) -> alt.X:
    """Checkpoints, in the order of their training steps."""
    axis = alt.Axis(labelAngle=0, labelOverlap=True, grid=False)
    return alt.X("step:N", title="checkpoint", axis=axis, scale=alt.Scale(domain=names))


def power_axis(**width: int) -> alt.Axis:
    """An axis of nats that labels powers of ten."""
    return alt.Axis(labelExpr=POWER_LABEL, tickCount=6, gridOpacity=major(), **width)


def influence_axis(extent: Extent) -> alt.Y:
    """Influence, logarithmic."""
    scale = alt.Scale(type="log", domain=list(extent.influence), nice=False)
    axis = power_axis(minExtent=AXIS_WIDTH, maxExtent=AXIS_WIDTH)
    return alt.Y("influence:Q", title="influence (nats)", scale=scale, axis=axis)


def deviation_axis(extent: Extent) -> alt.Y:
    """The axis of δ."""
    axis = alt.Axis(minExtent=AXIS_WIDTH, maxExtent=AXIS_WIDTH, tickCount=5, labelExpr=SIGNED_LABEL)
    return alt.Y("deviation:Q", title="δ", scale=deviation_scale(extent), axis=axis)


def deviation_scale(extent: Extent) -> alt.Scale:
    """The scale of δ."""
    return alt.Scale(domain=list(extent.deviation), nice=False)


def major() -> Any:
    """Grid lines at powers of ten only: the ticks between show the logarithm well enough."""
    return {"condition": {"test": _IS_POWER, "value": 1}, "value": 0}


def group_colour(channel: type[alt.Color] | type[alt.Fill] = alt.Color) -> Any:
    """The colour of a token group."""
    return channel("group:N", scale=alt.Scale(domain=list(GROUPS), range=[RARE, COMMON]), legend=None)


def group_shape() -> alt.Shape:
    """The shape of a token group, which says the same as its colour."""
    return alt.Shape("group:N", scale=alt.Scale(domain=list(GROUPS), range=["circle", "diamond"]), legend=None)


def step_colours(count: int) -> list[str]:
    """`count` colours of the palette's sequence, from its faint to its strong end."""
    last = len(STEPS) - 1
    return [STEPS[round(i * last / max(count - 1, 1)) if count > 1 else last] for i in range(count)]


def configured(chart: Any) -> Any:
    """A chart with the page's fonts and colours."""
    text = {"labelColor": MUTED, "titleColor": INK, "labelFontSize": 12, "titleFontSize": 12}
    lines = {"gridColor": GRID, "domainColor": MUTED, "tickColor": MUTED}
    chart = chart.configure(
        background="transparent", font=FONT, padding={"left": 2, "right": 10, "top": 6, "bottom": 2}
    )
    chart = chart.configure_axis(**text, **lines, titleFontWeight="normal", labelFlush=False)
    chart = chart.configure_mark(aria=False)
    return chart.configure_view(stroke=None)
