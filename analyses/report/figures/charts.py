"""The figures, as Vega-Lite specifications with named, empty data sets that the page's script fills.

Colours are after Okabe and Ito's, which people with any colour vision can tell apart; shapes and dashes repeat what a
colour says.
"""

from dataclasses import dataclass
from typing import Any

import altair as alt

from rare_tokens.analyses.report.data.summary import GROUPS, LARGE_DEVIATION, SMALL_DEVIATION

VEGA_LITE = "6.4"  # of the bundle, the one Altair 6 writes for
MAIN_HEIGHT, DEVIATION_HEIGHT = 360, 170
FONT = "system-ui, -apple-system, 'Segoe UI', 'Noto Sans', sans-serif"
AXIS_WIDTH = 52  # room left of a panel, the same in each so that ranks line up
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


# Colours: variables of the page's style sheet, which knows light, dark and paper.
INK, MUTED, GRID = "var(--ink)", "var(--muted)", "var(--grid)"
RARE, COMMON = "var(--rare)", "var(--common)"
STEPS = tuple(f"var(--step{i})" for i in range(10))
LIGHT = {  # what the variables are on paper, for a figure that is saved by itself
    "--paper": "#ffffff", "--ink": "#1b1b1a", "--muted": "#5d5b57", "--grid": "#e9e6de", "--rare": "#c24e00",
    "--common": "#0072b2", "--step0": "#cfc9a4", "--step1": "#b9bc9f", "--step2": "#a3ae9d", "--step3": "#8da09c",
    "--step4": "#77919b", "--step5": "#61819a", "--step6": "#4a7098", "--step7": "#335f94", "--step8": "#1c4b8c",
    "--step9": "#06327d",
}  # fmt: skip


@dataclass(frozen=True)
class Extent:
    """What the axes of a series span, over all of its runs and presets, so that its steps can be compared."""

    neurons: int
    influence: tuple[float, float]
    deviation: tuple[float, float]


def influence_figure(extent: Extent) -> alt.VConcatChart:
    """Influence and δ against rank, log-log above semi-log, one rank axis (ES fig. 2 and 4, NC fig. 1).

    Data sets: `points` (neuron, group, rank, influence, deviation, rare_rank, role, regime, up, down), `fits` (group,
    part, rank, influence) and `windows` (group, first, last). Parameters: `hover` (a neuron), `pinned` (a neuron's
    number, −1 for none), `brush` (a range of ranks on rare tokens), `zoom` (both panels' range of ranks).
    """
    pinned = alt.param(name="pinned", value=-1)
    upper = _influence_panel(extent)
    lower = _deviation_panel(extent)
    chart = alt.vconcat(upper, lower, spacing=14).add_params(pinned).resolve_scale(x="shared")
    return configured(chart)


def scatter_figure(extent: Extent) -> alt.LayerChart:
    """Influence on rare against influence on common tokens, a point a neuron; on the diagonal both are equal.

    Data set: `pairs` (neuron, rare, common, rare_rank, common_rank, leads, role, up, down); `leads` says in which
    group the neuron is among the most influential: `rare`, `common`, `both` or `neither`. Parameter `pinned`.
    """
    scale = alt.Scale(type="log", domain=extent.influence, nice=False)
    axis = alt.Axis(labelExpr=POWER_LABEL, tickCount=6, gridOpacity=major())
    leads = ["rare", "common", "both", "neither"]
    colours = alt.Scale(domain=leads, range=[RARE, COMMON, INK, MUTED])
    base = alt.Chart(alt.NamedData(name="pairs")).encode(
        x=alt.X("common:Q", title="influence on common tokens (nats)", scale=scale, axis=axis),
        y=alt.Y("rare:Q", title="influence on rare tokens (nats)", scale=scale, axis=axis),
    )
    ends = alt.Data(values=[{"common": value, "rare": value} for value in extent.influence])
    diagonal = alt.Chart(ends).mark_line(color=MUTED, strokeDash=[4, 4], strokeWidth=1)
    diagonal = diagonal.encode(x=alt.X("common:Q", scale=scale), y=alt.Y("rare:Q", scale=scale))
    dots = base.mark_point(filled=True, clip=True).encode(
        color=alt.Color("leads:N", scale=colours, legend=None),
        shape=alt.Shape("leads:N", legend=None, scale=_lead_shapes(leads)),
        size=alt.condition("datum.leads == 'neither'", alt.value(14), alt.value(46)),
        opacity=alt.condition("datum.leads == 'neither'", alt.value(0.4), alt.value(0.9)),
        tooltip=_tooltip("scatter"),
    )
    chart = alt.layer(dots.add_params(_hover()), diagonal, *_highlight(base))
    chart = chart.add_params(alt.param(name="pinned", value=-1))
    return configured(chart.properties(width="container", height=MAIN_HEIGHT))


def steps_figure(extent: Extent, names: list[str], quantity: str) -> alt.LayerChart:
    """One curve a checkpoint, of `quantity` (`influence` or `deviation`) against rank, later ones stronger (ES 2, 4).

    Data set: `curves` (step, rank, and the quantity).
    """
    colours = step_colours(len(names))
    base = alt.Chart(alt.NamedData(name="curves")).encode(
        x=rank_axis(extent, "rank"),
        y=_influence(extent) if quantity == "influence" else _deviation(extent),
        color=alt.Color("step:N", scale=alt.Scale(domain=names, range=colours), legend=None),
        order="rank:Q",
        tooltip=[alt.Tooltip("step:N"), alt.Tooltip("rank:Q"), alt.Tooltip(f"{quantity}:Q", format=".3~g")],
    )
    lines = base.mark_line(strokeWidth=1.8, clip=True, interpolate="linear")
    dots = base.mark_point(filled=True, size=40, opacity=0, clip=True)
    return configured((lines + dots).properties(width="container", height=230))


def kappa_figure(names: list[str], span: tuple[float, float]) -> alt.LayerChart:
    """κ of rare and common tokens over checkpoints, with 95 % intervals where there are any (ES fig. 6).

    The axis of κ covers `span`. Data set: `kappas` (step, group, kappa, low, high).
    """
    axis = alt.Axis(labelAngle=0, labelOverlap=True, grid=False)
    base = alt.Chart(alt.NamedData(name="kappas")).encode(
        x=alt.X("step:N", title="checkpoint", axis=axis, scale=alt.Scale(domain=names)),
        color=group_colour(),
    )
    scale = alt.Scale(domain=list(span), nice=True, zero=False)
    kappa = alt.Y("kappa:Q", title="κ", scale=scale)
    lines = base.mark_line(strokeWidth=1.8).encode(y=kappa)
    tooltip = [alt.Tooltip(name) for name in ("step:N", "group:N")]
    tooltip += [alt.Tooltip(f"{name}:Q", format=".3f") for name in ("kappa", "low", "high")]
    dots = base.mark_point(filled=True, size=70, opacity=1).encode(y=kappa, shape=group_shape(), tooltip=tooltip)
    bars = base.transform_filter("isValid(datum.low)").mark_rule(strokeWidth=1.5)
    bars = bars.encode(y=alt.Y("low:Q", title="κ", scale=scale), y2="high:Q")
    return configured((bars + lines + dots).properties(width="container", height=230))


def specification(chart: alt.TopLevelMixin) -> dict[str, Any]:
    """The Vega-Lite specification of a figure, without the address of its schema (a page names no address)."""
    spec: dict[str, Any] = chart.to_dict()
    spec.pop("$schema", None)
    return spec


def _influence_panel(extent: Extent) -> alt.LayerChart:
    """Upper panel: points, windows of the fits, fitted lines, and what is lit.

    The points are the first layer, for that is the one whose events Vega-Lite gives to the selections.
    """
    zoom = alt.selection_interval(
        name="zoom",
        bind="scales",
        encodings=["x"],
        translate="[pointerdown[event.shiftKey], window:pointerup] > window:pointermove!",
        zoom="wheel![event.ctrlKey]",
        on="[pointerdown[event.shiftKey], window:pointerup] > window:pointermove!",
    )
    brush = alt.selection_interval(
        name="brush",
        encodings=["x"],
        on="[pointerdown[!event.shiftKey], window:pointerup] > window:pointermove!",
        zoom=False,
        mark=alt.BrushConfig(fill=MUTED, fillOpacity=0.15, stroke=MUTED),
    )
    colour = group_colour()
    fits = alt.Chart(alt.NamedData(name="fits")).mark_line(clip=True)
    fits = fits.encode(
        x=rank_axis(extent, zoomed=True),
        y=_influence(extent),
        color=colour,
        detail="part:N",
        strokeDash=alt.condition("datum.part == 'window'", alt.value([1, 0]), alt.value([3, 4])),
        strokeWidth=alt.condition("datum.part == 'window'", alt.value(0), alt.value(1.4)),
    )
    inside = alt.Chart(alt.NamedData(name="fits")).transform_filter("datum.part == 'window'")
    inside = inside.mark_line(clip=True, color=INK, strokeWidth=1.2)
    inside = inside.encode(x=rank_axis(extent, zoomed=True), y=_influence(extent), detail="group:N")
    points = alt.Chart(alt.NamedData(name="points")).encode(
        x=rank_axis(extent, zoomed=True), y=_influence(extent), color=colour
    )
    dots = points.mark_point(filled=True, clip=True, opacity=0.8)
    dots = dots.encode(shape=group_shape(), size=_size(), opacity=_dimmed(), tooltip=_tooltip("points"))
    dots = dots.add_params(brush, zoom, _hover())
    layers = [dots, _windows(extent, colour), fits, inside, *_highlight(points)]
    return alt.layer(*layers).properties(width=600, height=MAIN_HEIGHT)


def _deviation_panel(extent: Extent) -> alt.LayerChart:
    """Lower panel: δ, with NC's thresholds as a band and a line."""
    rules = alt.Data(values=[{"low": -SMALL_DEVIATION, "high": SMALL_DEVIATION, "line": LARGE_DEVIATION, "zero": 0}])
    band = alt.Chart(rules).mark_rect(color=MUTED, opacity=0.18)
    band = band.encode(y=alt.Y("low:Q", scale=_deviation_scale(extent)), y2="high:Q")
    line = alt.Chart(rules).mark_rule(color=MUTED, strokeDash=[2, 3]).encode(y="line:Q")
    zero = alt.Chart(rules).mark_rule(color=MUTED, strokeWidth=1).encode(y="zero:Q")
    colour = group_colour()
    points = alt.Chart(alt.NamedData(name="points")).encode(
        x=rank_axis(extent, "rank of the neuron within its token group", zoomed=True),
        y=_deviation(extent),
        color=colour,
    )
    points = points.transform_filter("isValid(datum.deviation)")
    dots = points.mark_point(filled=True, clip=True).encode(shape=group_shape(), size=_size(), opacity=_dimmed())
    layers = [_windows(extent, colour), band, line, zero, dots, *_highlight(points)]
    return alt.layer(*layers).properties(width=600, height=DEVIATION_HEIGHT)


def _windows(extent: Extent, colour: alt.Color) -> alt.Chart:
    """The ranks each line was fitted to, shaded."""
    windows = alt.Chart(alt.NamedData(name="windows")).mark_rect(opacity=0.07, clip=True)
    return windows.encode(x=alt.X("first:Q", scale=_rank_scale(extent)), x2="last:Q", color=colour)


def _highlight(points: alt.Chart) -> list[alt.Chart]:
    """Rings and a number on the neuron that is hovered over or pinned, wherever it stands."""
    lit = points.transform_filter(_lit())
    rings = lit.mark_point(filled=False, size=150, strokeWidth=2.2, clip=True, opacity=1)
    numbers = lit.mark_text(dy=-14, fontSize=12, fontWeight="bold", clip=True)
    return [rings.encode(color=alt.value(INK)), numbers.encode(text="neuron:N", color=alt.value(INK))]


def _lit() -> str:
    return "datum.neuron === pinned || (isValid(hover.neuron) && indexof(hover.neuron, datum.neuron) >= 0)"


def _hover() -> alt.Parameter:
    return alt.selection_point(
        name="hover", fields=["neuron"], nearest=True, on="pointerover", clear="pointerout", toggle=False
    )


def _dimmed() -> Any:
    """Full where nothing is brushed, else only the neurons whose rank on rare tokens is inside the brush."""
    inside = "!isValid(brush.rank) || inrange(datum.rare_rank, brush.rank)"
    return alt.condition(inside, alt.value(0.85), alt.value(0.04))


def _size() -> Any:
    """The few neurons at the head are what is looked for: larger dots there."""
    return alt.condition("datum.rank <= 50", alt.value(34), alt.value(14))


def _tooltip(data: str) -> list[alt.Tooltip]:
    tokens = [alt.Tooltip("up:N", title="raises"), alt.Tooltip("down:N", title="lowers")]
    neuron, role = alt.Tooltip("neuron:N", title="neuron"), alt.Tooltip("role:N", title="role")
    if data == "scatter":
        names = {"rare": "on rare (nats)", "common": "on common (nats)"}
        shown = [alt.Tooltip(f"{name}:Q", title=title, format=".3~g") for name, title in names.items()]
        ranks = [alt.Tooltip(f"{name}_rank:Q", title=f"rank on {name}") for name in GROUPS]
        return [neuron, *shown, *ranks, role, *tokens]
    numbers = [alt.Tooltip("influence:Q", title="influence (nats)", format=".3~g")]
    numbers += [alt.Tooltip("deviation:Q", title="δ", format="+.2f")]
    group, rank = alt.Tooltip("group:N", title="tokens"), alt.Tooltip("rank:Q", title="rank")
    return [neuron, group, rank, *numbers, role, alt.Tooltip("regime:N", title="regime"), *tokens]


def _rank_scale(extent: Extent) -> alt.Scale:
    return alt.Scale(type="log", domain=[0.9, max(extent.neurons, 2) * 1.1], nice=False)


def _deviation_scale(extent: Extent) -> alt.Scale:
    return alt.Scale(domain=list(extent.deviation), nice=False)


def rank_axis(extent: Extent, title: str | None = None, *, zoomed: bool = False) -> alt.X:
    """Ranks, logarithmic."""
    label = _ZOOMED_RANK_LABEL if zoomed else _RANK_LABEL
    axis = alt.Axis(labelExpr=label, labelOverlap=True, gridOpacity=major())
    return alt.X("rank:Q", title=title, scale=_rank_scale(extent), axis=axis)


def _influence(extent: Extent) -> alt.Y:
    scale = alt.Scale(type="log", domain=list(extent.influence), nice=False)
    width = {"minExtent": AXIS_WIDTH, "maxExtent": AXIS_WIDTH}
    axis = alt.Axis(labelExpr=POWER_LABEL, tickCount=6, gridOpacity=major(), **width)
    return alt.Y("influence:Q", title="influence (nats)", scale=scale, axis=axis)


def _deviation(extent: Extent) -> alt.Y:
    axis = alt.Axis(minExtent=AXIS_WIDTH, maxExtent=AXIS_WIDTH, tickCount=5, labelExpr=SIGNED_LABEL)
    return alt.Y("deviation:Q", title="δ", scale=_deviation_scale(extent), axis=axis)


def major() -> Any:
    """Grid lines at powers of ten only: the ticks between show the logarithm well enough."""
    return {"condition": {"test": _IS_POWER, "value": 1}, "value": 0}


def group_colour() -> alt.Color:
    """The colour of a token group."""
    scale = alt.Scale(domain=list(GROUPS), range=[RARE, COMMON])
    return alt.Color("group:N", scale=scale, legend=None)


def group_shape() -> alt.Shape:
    """The shape that says the same as its colour."""
    return alt.Shape("group:N", scale=alt.Scale(domain=list(GROUPS), range=["circle", "diamond"]), legend=None)


def _lead_shapes(leads: list[str]) -> alt.Scale:
    return alt.Scale(domain=leads, range=["circle", "diamond", "square", "circle"])


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
