"""The report's tables: those in the page, and those next to it as CSV and Parquet."""

import json

import polars as pl

from rare_tokens.analyses.report.data.inputs import ReportInputs
from rare_tokens.analyses.report.data.points import TOKENS_EACH_WAY, sample_ranks
from rare_tokens.analyses.report.data.roles import SIGN, shown_role
from rare_tokens.analyses.report.data.text import visible_token

TOP = 20  # neurons a table shows
_PAIR = ["run_id", "preset", "neuron"]
_MEASURES = ("rank", "influence", "shown_role", *SIGN, "deviation", "regime")


def ranked_pairs(inputs: ReportInputs) -> pl.DataFrame:
    """One row per run × preset × neuron: its rank, influence (nats), role, δ and regime for both token groups.

    `shown_role` says `mixed` where the sign is not settled; `role` is the sign. Columns are `<measure>_rare` and
    `<measure>_common`; NULL if the group holds no position. `place` orders the neurons: by rank on rare tokens, or on
    common ones if no position is rare.
    """
    key = [*_PAIR, "token_group"]
    used = inputs.influence.filter(pl.col("influence").is_not_null() & (pl.col("positions") > 0))
    deviations = inputs.deviations.select(*key, "deviation", "regime")
    joined = used.join(deviations, on=key, how="left").with_columns(shown_role=shown_role()).select(*key, *_MEASURES)
    sides = {}
    for group in ("rare", "common"):
        names = {measure: f"{measure}_{group}" for measure in _MEASURES}
        sides[group] = joined.filter(pl.col("token_group") == group).drop("token_group").rename(names)
    pairs = sides["rare"].join(sides["common"], on=_PAIR, how="full", coalesce=True)
    return pairs.with_columns(place=pl.coalesce("rank_rare", "rank_common")).sort("run_id", "preset", "place")


def neuron_tokens(tokens: pl.DataFrame) -> pl.DataFrame:
    """One row per run × neuron: `raises` and `lowers`, lists of the shown texts of the tokens it moves most."""
    few = tokens.filter(pl.col("rank") <= TOKENS_EACH_WAY).sort("run_id", "neuron", "rank")
    texts = few.select(pl.col("text").unique())
    shown = texts.with_columns(shown=pl.Series([visible_token(text) for text in texts["text"]], dtype=pl.String))
    few = few.join(shown, on="text", nulls_equal=True, maintain_order="left").drop("text")
    sides = {"raises": "up", "lowers": "down"}
    lists = [pl.col("shown").filter(pl.col("direction") == direction).alias(name) for name, direction in sides.items()]
    return few.group_by("run_id", "neuron", maintain_order=True).agg(lists)


def top_neurons(inputs: ReportInputs, count: int = TOP) -> pl.DataFrame:
    """The first `count` rows of `ranked_pairs` of each run and preset, with the tokens each neuron moves."""
    return _with_tokens(inputs, ranked_pairs(inputs).filter(pl.col("place") <= count))


def described(inputs: ReportInputs, neurons: pl.DataFrame) -> pl.DataFrame:
    """The rows of `ranked_pairs` of some neurons, with the tokens each moves.

    Args:
        inputs: the report's inputs.
        neurons: their `run_id` and `neuron`.
    """
    return _with_tokens(inputs, ranked_pairs(inputs).join(neurons, on=["run_id", "neuron"], how="semi"))


def _with_tokens(inputs: ReportInputs, pairs: pl.DataFrame) -> pl.DataFrame:
    """Rows of `ranked_pairs` with `raises`, `lowers` and the ratio of both influences."""
    moved = neuron_tokens(inputs.tokens.join(pairs, on=["run_id", "neuron"], how="semi"))
    top = pairs.join(moved, on=["run_id", "neuron"], how="left", maintain_order="left")
    return top.with_columns(ratio=pl.col("influence_rare") / pl.col("influence_common"))


def all_neurons(inputs: ReportInputs) -> pl.DataFrame:
    """Every row of `neuron_influence` with what is known about its sign, its δ, local slope and regime.

    The figures are thinned from this. `role` is the sign of the mean, and `settled_role` says `mixed`.
    """
    key = [*_PAIR, "token_group"]
    deviations = inputs.deviations.select(*key, "deviation", "local_slope", "regime")
    joined = inputs.influence.join(deviations, on=key, how="left")
    return joined.sort("run_id", "preset", "token_group", "rank", nulls_last=True)


def curve_sample(inputs: ReportInputs) -> pl.DataFrame:
    """Influence and δ of both groups at a few log-spaced ranks: a figure's data for readers who cannot see it.

    One row per run × preset × rank.
    """
    key = ["run_id", "preset", "token_group", "rank"]
    used = inputs.influence.filter(pl.col("influence").is_not_null() & (pl.col("positions") > 0))
    largest = dict(inputs.runs.select("run_id", "neurons").iter_rows())
    wanted = [{"run_id": run_id, "rank": rank} for run_id, last in largest.items() for rank in sample_ranks(last)]
    ranks = pl.DataFrame(wanted, schema={"run_id": pl.String, "rank": pl.Int64})
    joined = used.join(inputs.deviations.select(*key, "deviation"), on=key, how="left")
    sample = joined.join(ranks, on=["run_id", "rank"], how="semi").select(*key, "neuron", "influence", "deviation")
    sides = []
    for group in ("rare", "common"):
        names = {name: f"{name}_{group}" for name in ("neuron", "influence", "deviation")}
        sides.append(sample.filter(pl.col("token_group") == group).drop("token_group").rename(names))
    both = sides[0].join(sides[1], on=["run_id", "preset", "rank"], how="full", coalesce=True)
    return both.sort("run_id", "preset", "rank")


def for_csv(frame: pl.DataFrame) -> pl.DataFrame:
    """`frame` as CSV can hold it: a list of token texts becomes one JSON text, pure ASCII.

    A spreadsheet takes a cell that begins with ``=`` as a formula; a JSON list begins with a bracket.
    """
    lists = [name for name, kind in frame.schema.items() if isinstance(kind, pl.List)]
    return frame.with_columns(
        pl.col(name).map_elements(lambda texts: json.dumps(texts.to_list()), return_dtype=pl.String) for name in lists
    )
