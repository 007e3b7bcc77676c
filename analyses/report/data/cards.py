"""Neuron cards: what a page says about each of the first neurons, for the run that a series shows first."""

import math
from collections import defaultdict
from typing import Any

import polars as pl

from rare_tokens.analyses.report.data.inputs import ReportInputs
from rare_tokens.analyses.report.data.roles import MIXED, mean_with_interval, role_group, shown_role
from rare_tokens.analyses.report.data.series import Series, group_runs
from rare_tokens.analyses.report.data.specificity import MATCHING, SPECIFIC
from rare_tokens.analyses.report.data.text import shortened, visible_token

CARDS = 8  # neurons per series
PRESET = "es"
CONTEXT_LENGTH = 90  # characters shown of a context: its end, just before the target

Row = dict[str, Any]


def card_neurons(
    runs: pl.DataFrame, influence: pl.DataFrame, specificity: pl.DataFrame, count: int = CARDS
) -> dict[str, list[int]]:
    """The neurons that get a card: the first on rare (else common) tokens, in the run that each series shows first.

    Then those that its table of specific neurons shows.

    Args:
        runs: `dim_run`.
        influence: `neuron_influence`.
        specificity: `neuron_specificity`.
        count: neurons by influence.
    """
    chosen: dict[str, list[int]] = {}
    for one in group_runs(runs, influence):
        if not one.measured:
            continue
        of_run = influence.filter(run_id=one.shown.run_id, preset=PRESET)
        of_run = of_run.filter(pl.col("influence").is_not_null() & (pl.col("positions") > 0))
        for group in ("rare", "common"):
            found = of_run.filter(token_group=group).sort("rank")["neuron"].head(count).to_list()
            if found:
                chosen[one.shown.run_id] = found
                break
        specific = specificity.filter(run_id=one.shown.run_id, preset=PRESET, matching=MATCHING, specific_to="rare")
        further = specific.sort("ratio", descending=True)["neuron"].head(SPECIFIC).to_list()
        if further:
            first = chosen.get(one.shown.run_id, [])
            chosen[one.shown.run_id] = [*first, *(neuron for neuron in further if neuron not in first)]
    return chosen


def cards(one: Series, inputs: ReportInputs, top: list[Row]) -> list[Row]:
    """The cards of a series, in order of the neurons' ranks; none if no context was read.

    Args:
        one: the series.
        inputs: the report's inputs.
        top: its rows in the tables of the first and of the specific neurons, which a card repeats.
    """
    run_id = one.shown.run_id
    described = {row["neuron"]: row for row in top}
    frames = {name: _by_neuron(getattr(inputs, name), run_id) for name in ("contexts", "targets", "activations")}
    regimes = _history(one, inputs, list(frames["contexts"]))
    made = []
    for neuron, contexts in frames["contexts"].items():
        targets, row = frames["targets"].get(neuron, []), described.get(neuron)
        group = role_group(row) if row else "rare"
        made.append(
            {
                "neuron": neuron,
                "row": row,
                "mean": mean_with_interval(row, group) if row else None,
                "mixed": row is not None and row[f"shown_role_{group}"] == MIXED,
                "sign": row[f"role_{group}"] if row else None,
                "contexts": {side: _contexts(contexts, side) for side in ("helps", "hurts")},
                "targets": _targets(targets),
                "bars": bars(frames["activations"].get(neuron, [])),
                "history": regimes.get(neuron, []),
            }
        )
    return sorted(made, key=lambda card: (card["row"] is None, card["row"]["place"] if card["row"] else card["neuron"]))


def bars(bins: list[Row]) -> Row | None:
    """What a histogram's picture needs: per bin the heights of all and of rare positions, between 0 and 1.

    Heights are logarithmic, log(1 + n) over the largest: most neurons are near 0 nearly everywhere.
    """
    counts = [row["positions"] for row in bins]
    if not counts or not max(counts):
        return None
    top = _log(max(counts))
    return {
        "low": bins[0]["low"],
        "high": bins[-1]["high"],
        "all": [_log(row["positions"]) / top for row in bins],
        "rare": [_log(row["rare"]) / top for row in bins],
        "positions": sum(counts),
        "zero": _share_below_zero(bins),
    }


def _share_below_zero(bins: list[Row]) -> float | None:
    """Where 0 lies between the ends, as a share of the width; None if it does not."""
    low, high = bins[0]["low"], bins[-1]["high"]
    return -low / (high - low) if low < 0 < high else None


def _log(count: int) -> float:
    return math.log1p(count)


def _contexts(rows: list[Row], side: str) -> list[Row]:
    found = sorted((row for row in rows if row["direction"] == side), key=lambda row: row["place"])
    return [
        {
            "text": _ending(row["context"] or ""),
            "target": visible_token(row["target"]),
            "delta_loss": row["delta_loss"],
            "loss": row["loss"],
            "activation": row["activation"],
            "group": row["token_group"],
        }
        for row in found
    ]


def _ending(context: str) -> str:
    """The last characters of a context, all made visible."""
    cut = context[-CONTEXT_LENGTH:]
    return ("…" if len(context) > CONTEXT_LENGTH else "") + shortened(cut, 10 * CONTEXT_LENGTH)


def _targets(rows: list[Row], count: int = 6) -> dict[str, list[Row]]:
    """The tokens whose mean loss rises most without the neuron (it helps them), and falls most (it hurts them)."""
    ordered = sorted(rows, key=lambda row: -row["mean_delta_loss"])
    helped = [row for row in ordered if row["mean_delta_loss"] > 0][:count]
    hurt = [row for row in ordered[::-1] if row["mean_delta_loss"] < 0][:count]
    return {side: [row | {"text": visible_token(row["text"])} for row in found] for side, found in
            (("helps", helped), ("hurts", hurt))}  # fmt: skip


def _history(one: Series, inputs: ReportInputs, neurons: list[int]) -> dict[int, list[Row]]:
    """Rank, δ and regime on rare tokens of each neuron at every checkpoint of its series."""
    ids = [run.run_id for run in one.measured]
    key = ["run_id", "preset", "token_group", "neuron"]
    of_cards = pl.col("run_id").is_in(ids) & pl.col("neuron").is_in(neurons)
    of_cards &= (pl.col("preset") == PRESET) & (pl.col("token_group") == "rare")
    found = inputs.influence.filter(of_cards).select(*key, "rank", "influence", role=shown_role())
    found = found.join(inputs.deviations.select(*key, "deviation", "regime"), on=key, how="left")
    history: dict[int, list[Row]] = defaultdict(list)
    names = {run.run_id: run.revision for run in one.measured}
    for row in sorted(found.iter_rows(named=True), key=lambda row: ids.index(row["run_id"])):
        history[row["neuron"]].append(row | {"revision": names[row["run_id"]]})
    return history


def _by_neuron(frame: pl.DataFrame, run_id: str) -> dict[int, list[Row]]:
    found: dict[int, list[Row]] = defaultdict(list)
    for row in frame.filter(run_id=run_id).iter_rows(named=True):
        found[row["neuron"]].append(row)
    return dict(found)
