"""What the figures of all neurons share: how they highlight a neuron, and what its tooltip says."""

import altair as alt

from rare_tokens.analyses.report.figures.charts import INK


def highlighted(points: alt.Chart) -> list[alt.Chart]:
    """Rings and a number on the neuron that is hovered over or pinned, wherever it is."""
    lit = points.transform_filter(_lit())
    rings = lit.mark_point(filled=False, size=150, strokeWidth=2.2, clip=True, opacity=1)
    numbers = lit.mark_text(dy=-14, fontSize=12, fontWeight="bold", clip=True)
    return [rings.encode(color=alt.value(INK)), numbers.encode(text="neuron:N", color=alt.value(INK))]


def _lit() -> str:
    return "datum.neuron === pinned || (isValid(hover.neuron) && indexof(hover.neuron, datum.neuron) >= 0)"


def hover() -> alt.Parameter:
    """The neuron nearest to the pointer."""
    return alt.selection_point(
        name="hover", fields=["neuron"], nearest=True, on="pointerover", clear="pointerout", toggle=False
    )


def pinned() -> alt.Parameter:
    """The number of the chosen neuron; −1 for none."""
    return alt.param(name="pinned", value=-1)


def tooltip(*numbers: alt.Tooltip) -> list[alt.Tooltip]:
    """The tooltip of a neuron's point: its number, these, and what it does."""
    tokens = [alt.Tooltip("up:N", title="raises"), alt.Tooltip("down:N", title="lowers")]
    return [alt.Tooltip("neuron:N", title="neuron"), *numbers, *tokens]
