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
# Okabe and Ito's colours; shapes repeat what a colour says.
COLOURS = {"rare": "#c24e00", "common": "#0072b2"}
REGIMES = {"plateau": "#009e73", "head": "#c24e00", "power law": "#0072b2", "rapid decay": "#8c8c8c"}


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


def ranking_chart(curve: pl.DataFrame) -> alt.LayerChart:
    """Influence against rank, both logarithmic, one point per neuron, with the power law (ES fig. 2)."""
    base = alt.Chart(curve).encode(
        x=_rank(), color=_by_group(), tooltip=["neuron", "token_group", "rank", *_numbers("influence", "deviation")]
    )
    points = base.mark_point(filled=True, size=22, opacity=0.7).encode(
        y=alt.Y("influence:Q", title="influence (nats)", scale=alt.Scale(type="log")),
        shape=alt.Shape("token_group:N", title=None, scale=alt.Scale(domain=list(COLOURS))),
    )
    lines = base.mark_line(strokeDash=[5, 4], strokeWidth=1.5, clip=True).encode(
        y=alt.Y("fitted:Q", title="influence (nats)"), detail="token_group:N"
    )
    return (points + lines).properties(width=620, height=320, title="Influence by rank, and the power law (dashed)")


def deviation_chart(curve: pl.DataFrame) -> alt.FacetChart:
    """δ against rank of each token group, coloured by the piece of the curve (ES fig. 4)."""
    regimes = alt.Color(
        "regime:N", title=None, scale=alt.Scale(domain=list(REGIMES), range=list(REGIMES.values()))
    )  # fmt: skip
    points = alt.Chart().mark_point(filled=True, size=18, opacity=0.8)
    points = points.encode(
        x=_rank(), y=alt.Y("deviation:Q", title="δ"), color=regimes,
        shape=alt.Shape("regime:N", title=None, scale=alt.Scale(domain=list(REGIMES))),
        tooltip=["neuron", "rank", "regime", *_numbers("influence", "deviation")],
    )  # fmt: skip
    level = alt.Chart().mark_rule(color="#5d5b57").encode(y=alt.datum(0))
    layered = alt.layer(level, points, data=curve).properties(width=290, height=200)
    return layered.facet(alt.Column("token_group:N", title=None, sort=list(COLOURS))).properties(
        title="Deviation from the power law, by piece of the curve"
    )


def _rank() -> alt.X:
    return alt.X("rank:Q", title="rank", scale=alt.Scale(type="log"))


def _by_group() -> alt.Color:
    scale = alt.Scale(domain=list(COLOURS), range=list(COLOURS.values()))
    return alt.Color("token_group:N", title=None, scale=scale)


def _numbers(*names: str) -> list[alt.Tooltip]:
    return [alt.Tooltip(f"{name}:Q", format=".3~g") for name in names]
