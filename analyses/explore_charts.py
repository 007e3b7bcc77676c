"""The curve of influence at any threshold, described and drawn: what the notebook of `explore` shows."""

from typing import Any

import altair as alt
import numpy as np
import polars as pl

from rare_tokens.analyses.curve.power_law import power_law
from rare_tokens.analyses.curve.ranked_curve import influence_curve
from rare_tokens.analyses.result_table import table

CURVE: dict[str, Any] = {
    "token_group": pl.String,
    "rank": pl.Int64,
    "neuron": pl.Int64,
    "influence": pl.Float64,
    "mean_delta_loss": pl.Float64,
    "fitted": pl.Float64,  # exp(−κ ln rank + β), nats; NULL if there is no fit
    "deviation": pl.Float64,  # δ
    "regime": pl.String,  # first label by the fit's window, as in neuron_deviation
}

FIT: dict[str, Any] = {
    "token_group": pl.String,
    "positions": pl.Int64,
    "kappa": pl.Float64,
    "beta": pl.Float64,
    "r2": pl.Float64,
    "first_rank": pl.Int64,
    "last_rank": pl.Int64,
    "head_rank": pl.Int64,
    "step": pl.Float64,
    "reason": pl.String,  # why there is no power law
}
RATIO: dict[str, Any] = {
    "neuron": pl.Int64,
    "ratio": pl.Float64,  # rare over common
    "specificity": pl.Float64,  # neuron_specificity.ratio: at targets of like loss, over the median neuron's
    "specificity_low": pl.Float64,
    "specificity_high": pl.Float64,
    "adjusted_p_value": pl.Float64,
    "specific_to": pl.String,
    "rare": pl.Float64,  # influence on rare tokens, nats
    "common": pl.Float64,  # influence on common tokens, nats
    "rare_rank": pl.Int64,
}
# Okabe and Ito's colours; shapes repeat what a colour says.
COLOURS = {"rare": "#c24e00", "common": "#0072b2"}
REGIMES = {"plateau": "#009e73", "head": "#c24e00", "power law": "#0072b2", "rapid decay": "#8c8c8c"}
INK, QUIET = "#1b1b1b", "#5d5b57"


def described(influence: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The power law of each token group, and where each neuron lies relative to it.

    Args:
        influence: for one run and threshold: token_group, neuron, rank, influence, mean_delta_loss, positions.

    Returns:
        `CURVE`, without neurons that have no influence, and `FIT`.
    """
    curves, fits = [table([], CURVE)], []
    for group in influence["token_group"].unique(maintain_order=True):
        part = influence.filter(pl.col("token_group") == group, pl.col("influence") > 0).sort("rank")
        fit: dict[str, Any] = {"token_group": group, "positions": part["positions"].max()}
        curve = influence_curve(part["influence"].to_numpy())
        line = power_law(curve)
        names = ("kappa", "beta", "r2", "first_rank", "last_rank", "head_rank", "step", "reason")
        fit |= {name: getattr(line, name) for name in names}
        deviation = line.deviation(curve)
        if deviation is None:
            part = part.with_columns(fitted=pl.lit(None), deviation=pl.lit(None), regime=pl.lit(None))
        else:
            part = part.with_columns(
                fitted=pl.Series(np.exp(curve - deviation)), deviation=pl.Series(deviation)
            ).with_columns(
                regime=pl.when(pl.col("rank") > line.last_rank).then(pl.lit("rapid decay"))
                .when(pl.col("rank") >= line.first_rank).then(pl.lit("power law"))
                .when(pl.col("deviation") > 0).then(pl.lit("plateau"))
                .otherwise(pl.lit("head"))
            )  # fmt: skip
        fits.append(fit)
        curves.append(part.select(pl.col(name).cast(kind) for name, kind in CURVE.items()))
    return pl.concat(curves), table(fits, FIT)


def ratios(curve: pl.DataFrame, specificity: pl.DataFrame) -> pl.DataFrame:
    """Influence on rare over influence on common tokens, and whether it is more than their difficulty explains.

    Args:
        curve: `CURVE` of one run and threshold.
        specificity: of `neuron_specificity`, one row per neuron or none: neuron, ratio, ratio_low, ratio_high,
            adjusted_p_value, specific_to.

    Returns:
        `RATIO`, one row per neuron with an influence on both groups: the smallest p first, then the largest ratio.
    """
    one = pl.col("token_group")
    rare = curve.filter(one == "rare").select("neuron", pl.col("rank").alias("rare_rank"), rare=pl.col("influence"))
    common = curve.filter(one == "common").select("neuron", common=pl.col("influence"))
    tested = specificity.select(
        pl.col("neuron").cast(pl.Int64),
        pl.col("ratio").alias("specificity"),
        pl.col("ratio_low").alias("specificity_low"),
        pl.col("ratio_high").alias("specificity_high"),
        "adjusted_p_value",
        "specific_to",
    )
    joined = rare.join(common, on="neuron").join(tested, on="neuron", how="left")
    joined = joined.with_columns(ratio=pl.col("rare") / pl.col("common"))
    ordered = joined.sort("adjusted_p_value", "ratio", descending=[False, True], nulls_last=True)
    return ordered.select(pl.col(name).cast(kind) for name, kind in RATIO.items())


def ranking_chart(curve: pl.DataFrame, marked: int | None = None) -> alt.LayerChart:
    """Influence against rank, both logarithmic, one point per neuron, with the power law (ES fig. 2).

    Args:
        marked: a neuron to ring and name.
    """
    y = alt.Y("influence:Q", title="influence (nats)", scale=_log(curve["influence"]))
    base = alt.Chart(curve).encode(
        x=_rank(curve),
        color=_by_group(),
        tooltip=["neuron", "token_group", "rank", *_numbers("influence", "deviation")],
    )
    points = base.mark_point(filled=True, size=22, opacity=0.7, clip=True).encode(
        y=y, shape=alt.Shape("token_group:N", title=None, scale=alt.Scale(domain=list(COLOURS)))
    )
    lines = base.mark_line(strokeDash=[5, 4], strokeWidth=1.5, clip=True).encode(
        y=alt.Y("fitted:Q", title="influence (nats)"), detail="token_group:N"
    )
    layers = alt.layer(points, lines, *_ringed(curve, marked, _rank(curve), y))
    return layers.properties(width="container", height=360, title="Influence by rank, and the power law (dashed)")


def deviation_chart(curve: pl.DataFrame, group: str, marked: int | None = None) -> alt.LayerChart:
    """δ against rank of one token group, coloured by the piece of the curve (ES fig. 4).

    Args:
        marked: a neuron to ring and name.
    """
    regimes = alt.Color("regime:N", title=None, scale=alt.Scale(domain=list(REGIMES), range=list(REGIMES.values())))
    shown = curve.filter(pl.col("token_group") == group)
    # Both groups have the axes of all, so that they can be compared.
    ends = _ends(curve["deviation"])
    span = alt.Scale() if ends is None else alt.Scale(domain=[min(0.0, ends[0]), max(0.0, ends[1])])
    y = alt.Y("deviation:Q", title="δ", scale=span)
    base = alt.Chart(shown).encode(x=_rank(curve), y=y)
    points = base.mark_point(filled=True, size=18, opacity=0.8).encode(
        color=regimes,
        shape=alt.Shape("regime:N", title=None, scale=alt.Scale(domain=list(REGIMES))),
        tooltip=["neuron", "rank", "regime", *_numbers("influence", "deviation")],
    )
    level = alt.Chart(shown).mark_rule(color=QUIET).encode(y=alt.datum(0))
    layers = alt.layer(level, points, *_ringed(shown, marked, _rank(curve), y))
    return layers.properties(width="container", height=240, title=f"Deviation from the power law, {group}")


def ratio_chart(ratio: pl.DataFrame, marked: int | None = None) -> alt.LayerChart:
    """Influence on rare against influence on common tokens, one point per neuron, with the median ratio (dashed).

    Args:
        ratio: `RATIO`.
        marked: a neuron to ring and name.
    """
    x = alt.X("common:Q", title="influence on common tokens (nats)", scale=_log(ratio["common"]))
    y = alt.Y("rare:Q", title="influence on rare tokens (nats)", scale=_log(ratio["rare"]))
    named = {"rare": "specific to rare", "common": "specific to common"}
    shown = ratio.with_columns(pl.col("specific_to").replace_strict(named, default="neither"))
    kinds = {"neither": "#8c8c8c", named["rare"]: COLOURS["rare"], named["common"]: COLOURS["common"]}
    points = (
        alt.Chart(shown)
        .mark_point(filled=True, size=24, opacity=0.75, clip=True)
        .encode(
            x=x,
            y=y,
            color=alt.Color(
                "specific_to:N", title=None, scale=alt.Scale(domain=list(kinds), range=list(kinds.values()))
            ),
            shape=alt.Shape("specific_to:N", title=None, scale=alt.Scale(domain=list(kinds))),
            tooltip=["neuron", *_numbers("ratio", "rare", "common", "specificity", "adjusted_p_value")],
        )
    )
    ends = pl.DataFrame({"common": [ratio["common"].min(), ratio["common"].max()]}, {"common": pl.Float64})
    lines = [
        alt.Chart(ends.with_columns(rare=pl.col("common") * factor)).mark_line(color=QUIET, strokeDash=dash, clip=True)
        for factor, dash in ((1.0, [1, 0]), (ratio["ratio"].median(), [5, 4]))
        if factor is not None
    ]
    layers = alt.layer(*(line.encode(x=x, y=y) for line in lines), points, *_ringed(shown, marked, x, y))
    return layers.properties(
        width="container",
        height=360,
        title="Influence on rare and on common tokens; equal (line), median ratio (dashed)",
    )


def _ringed(shown: pl.DataFrame, marked: int | None, x: alt.X, y: alt.Y) -> list[alt.Chart]:
    """A ring around one neuron, with its number; nothing if it is not among those shown."""
    if marked is None or shown.filter(pl.col("neuron") == marked).is_empty():
        return []
    # The same data with a filter, not data of its own: a brush reads what all layers share.
    base = alt.Chart(shown).transform_filter(alt.datum.neuron == marked).encode(x=x, y=y)
    ring = base.mark_point(size=220, strokeWidth=2.5, filled=False, color=INK)
    text = base.mark_text(dx=14, dy=-12, align="left", fontWeight="bold", color=INK).encode(text="neuron:N")
    return [ring, text]


def _rank(curve: pl.DataFrame) -> alt.X:
    ends = _ends(curve["rank"])
    domain = {} if ends is None else {"domain": [0.88, 1.12 * max(2.0, ends[1])]}  # room for a ring
    return alt.X("rank:Q", title="rank", scale=alt.Scale(type="log", nice=False, **domain))


def _log(values: pl.Series) -> alt.Scale:
    """A logarithmic axis as long as the values, which are above 0, with room for a ring at its ends."""
    ends = _ends(values)
    if ends is None:
        return alt.Scale(type="log")
    return alt.Scale(type="log", nice=False, domain=[ends[0] * 0.85, ends[1] * 1.35])


def _ends(values: pl.Series) -> tuple[float, float] | None:
    """Smallest and largest value; None if there is none."""
    there = values.drop_nulls().to_numpy()
    return (float(there.min()), float(there.max())) if len(there) else None


def _by_group() -> alt.Color:
    scale = alt.Scale(domain=list(COLOURS), range=list(COLOURS.values()))
    return alt.Color("token_group:N", title=None, scale=scale)


def _numbers(*names: str) -> list[alt.Tooltip]:
    return [alt.Tooltip(f"{name}:Q", format=".3~g") for name in names]
