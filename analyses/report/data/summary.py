"""What was found, in numbers: one row per run, preset and token group."""

import polars as pl

from rare_tokens.analyses.report.data.inputs import ReportInputs
from rare_tokens.analyses.report.data.roles import MIXED

GROUPS = ("rare", "common")
KEY = ["run_id", "preset", "token_group"]
SMALL_DEVIATION = 0.1  # NC: |δ| below this counts as on the line
LARGE_DEVIATION = 0.5  # NC: δ above this counts as above the line

INTERVALS = ("kappa", "beta", "r2", "share_within_0_1", "neurons_above_0_5")  # spelled as in influence_interval
DECISION = (
    "decision",
    "p_value",
    "power",
    "break_rank",
    "break_low",
    "break_high",
    "break_determined",
    "step",
    "step_low",
    "step_high",
    "head",
    "head_slope",
    "head_slope_low",
    "head_slope_high",
    "decision_reason",
    "slope_break_log_rank",
    "slope_break_low",
    "slope_break_high",
    "slope_break_p_value",
)


def top_count(neurons: int) -> int:
    """How many neurons count as the most influential: 50, or a tenth of a layer under 500 neurons."""
    return 50 if neurons >= 500 else max(1, neurons // 10)


def group_summaries(inputs: ReportInputs) -> pl.DataFrame:
    """One row per run with effects × preset × token group, whether or not the group holds a position.

    Influence in nats; shares between 0 and 1; `top_percent_share` is the most influential 1 % of
    neurons' share of all influence; `boost_in_top` and `suppress_in_top` go by the sign of the mean, and `mixed_in_top`
    of these are mixed (NULL without intervals); `top_deviation` is the most influential neuron's δ;
    `empty_reason` says why a group has no numbers. Definitions: docs/definitions.md, "Influence and the power law".
    """
    influence = inputs.influence.filter(pl.col("influence").is_not_null() & (pl.col("positions") > 0))
    sizes = inputs.runs.select("run_id", "neurons")
    top = influence.join(sizes, on="run_id").with_columns(
        k=pl.when(pl.col("neurons") >= 500).then(50).otherwise(pl.max_horizontal(1, pl.col("neurons") // 10)),
        percent=pl.max_horizontal(1, (pl.col("neurons") * 0.01).round().cast(pl.Int64)),
    )
    settled = pl.col("settled_role").is_not_null()
    in_top, in_percent = pl.col("rank") <= pl.col("k"), pl.col("rank") <= pl.col("percent")
    measured = top.group_by(KEY).agg(
        pl.col("positions").first(),
        top_neuron=pl.col("neuron").sort_by("rank").first(),
        top_influence=pl.col("influence").max(),
        median_influence=pl.col("influence").median(),
        top_percent_share=pl.col("influence").filter(in_percent).sum() / pl.col("influence").sum(),
        boost_in_top=(in_top & (pl.col("role") == "boost")).sum(),
        suppress_in_top=(in_top & (pl.col("role") == "suppress")).sum(),
        mixed_in_top=pl.when(settled.any()).then((in_top & (pl.col("settled_role") == MIXED)).sum()),
    )
    deviations = inputs.deviations.filter(pl.col("deviation").is_not_null())
    shares = deviations.group_by(KEY).agg(
        share_within_0_1=(pl.col("deviation").abs() < SMALL_DEVIATION).mean(),
        neurons_above_0_5=(pl.col("deviation") > LARGE_DEVIATION).sum(),
        largest_deviation=pl.col("deviation").max(),
        top_deviation=pl.col("deviation").sort_by("rank").first(),
    )
    fits = inputs.fits.unique(KEY, keep="first", maintain_order=True)
    frame = _all_groups(inputs).join(measured, on=KEY, how="left").join(shares, on=KEY, how="left")
    frame = frame.join(fits, on=KEY, how="left").join(_intervals(inputs), on=KEY, how="left")
    decisions = inputs.decisions.rename({"reason": "decision_reason"}).select(*KEY, *DECISION)
    frame = frame.join(decisions.unique(KEY, keep="first"), on=KEY, how="left")
    reason = pl.coalesce("reason", pl.lit("no position of this run falls into the group"))
    return frame.with_columns(
        empty_reason=pl.when(pl.col("top_influence").is_null()).then(reason),
        fit_reason=pl.when(pl.col("kappa").is_null()).then(pl.coalesce("reason", pl.lit("no fit is stored"))),
    ).drop("reason")


def pair_summaries(inputs: ReportInputs) -> pl.DataFrame:
    """How far the two rankings agree: one row per run × preset if both groups hold positions.

    `shared` of the `k` most influential neurons for rare tokens are among the k for common ones; `by_chance` is what
    two independent rankings would share (k²/N); `rank_correlation` is Spearman's, over all neurons.
    """
    used = inputs.influence.filter(pl.col("influence").is_not_null() & (pl.col("positions") > 0))
    columns = ["run_id", "preset", "neuron", "rank"]
    sides = [used.filter(pl.col("token_group") == group).select(columns) for group in GROUPS]
    both = sides[0].join(sides[1], on=["run_id", "preset", "neuron"], suffix="_common")
    both = both.join(inputs.runs.select("run_id", "neurons"), on="run_id")
    both = both.with_columns(k=pl.col("neurons").map_elements(top_count, return_dtype=pl.Int64))
    in_both = (pl.col("rank") <= pl.col("k")) & (pl.col("rank_common") <= pl.col("k"))
    return both.group_by("run_id", "preset", maintain_order=True).agg(
        pl.col("k").first(),
        shared=in_both.sum(),
        by_chance=(pl.col("k") ** 2 / pl.col("neurons")).first(),
        rank_correlation=pl.corr("rank", "rank_common", method="spearman"),
    )


def _all_groups(inputs: ReportInputs) -> pl.DataFrame:
    """Every run with effects × preset × token group of the report: what is missing must show as missing."""
    found = pl.concat([inputs.influence.select(KEY), inputs.fits.select(KEY)]).unique()
    runs = inputs.influence.select("run_id").unique()
    pairs = runs.join(found.select("preset").unique(), how="cross")
    return pairs.join(pl.DataFrame({"token_group": GROUPS}), how="cross").sort(KEY)


def _intervals(inputs: ReportInputs) -> pl.DataFrame:
    """The intervals of `inputs`, one row per group, as columns `<quantity>_low`, `_high` and `_determined`."""
    frame = _all_groups(inputs).select(KEY)
    for quantity in INTERVALS:
        found = inputs.intervals.filter(pl.col("quantity") == quantity, pl.col("neuron").is_null())
        ends = {name: f"{quantity}_{name}" for name in ("low", "high", "determined")}
        found = found.unique(KEY, keep="first").select(*KEY, *ends).rename(ends)
        frame = frame.join(found, on=KEY, how="left")
    return frame
