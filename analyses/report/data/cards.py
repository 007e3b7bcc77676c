"""Neuron cards: all that is known of a neuron, for the run that a series shows first."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from rare_tokens.analyses.coordination.neighbours import BY_ACTIVATION, BY_WEIGHT
from rare_tokens.analyses.report.data.histogram import densities
from rare_tokens.analyses.report.data.inputs import ReportInputs
from rare_tokens.analyses.report.data.roles import MIXED, shown_role
from rare_tokens.analyses.report.data.series import PRESET_ORDER, Series, group_runs
from rare_tokens.analyses.report.data.specificity import MATCHING, SPECIFIC
from rare_tokens.analyses.report.data.text import shortened, visible_token

CARDS = 120  # on a page
FIRST = 50  # neurons by influence, at least
PRESET = "es"
CONTEXT_LENGTH = 90  # characters shown of a context: its end, just before the target

Row = dict[str, Any]


@dataclass(frozen=True)
class Card:
    """What is known of one neuron.

    Attributes:
        address: the fragment under which the page shows it.
        row: ranks, shown roles and tokens raised and lowered (`tables.described`, preset es); None: nothing is known.
        facts: one row per preset and token group: rank, influence, mean Δ with its interval, δ, regime, role.
        specificity: `neuron_specificity` by loss, one row per preset.
        moments: spread of activations and of Δ, by quantity and token group (`neuron_moments`).
        histogram: densities of its activations (`histogram.densities`).
        contexts: where it helps and hurts most.
        targets: the tokens it helps and hurts most.
        neighbours: the nearest neurons, by `weight` and by `activation`.
        history: rank, δ, regime and role at every checkpoint of the series.
        passages: `neuron_top_activation`, as rows.
    """

    neuron: int
    run_id: str
    address: str
    row: Row | None
    facts: list[Row]
    specificity: list[Row]
    moments: Mapping[tuple[str, str], Row]
    histogram: Row | None
    contexts: Mapping[str, list[Row]]
    targets: Mapping[str, list[Row]]
    neighbours: Mapping[str, list[Row]]
    history: list[Row]
    passages: list[Row]

    @property
    def words(self) -> str:
        """Every token that its card names, with a space between them, for a search."""
        sides = (self.row or {}).get("raises") or [], (self.row or {}).get("lowers") or []
        found = [*sides[0], *sides[1], *(row["text"] for rows in self.targets.values() for row in rows)]
        return " ".join(dict.fromkeys(found))


def address(series: int, neuron: int) -> str:
    """The fragment of a page's address under which a neuron's card opens: `n1042`, of a further series `s1-n1042`."""
    return f"n{neuron}" if series == 0 else f"s{series}-n{neuron}"


def card_neurons(
    runs: pl.DataFrame,
    influence: pl.DataFrame,
    specificity: pl.DataFrame,
    decisions: pl.DataFrame | None = None,
    total: int = CARDS,
) -> dict[str, list[int]]:
    """The neurons that get a card in the run that each series shows first.

    Those of its plateau, and at least the first 50, on rare (else common) tokens; then those that its table of specific
    neurons shows. Where the page would have more than `total` cards, each series has an equal share of them.

    Args:
        runs: `dim_run`.
        influence: `neuron_influence`.
        specificity: `neuron_specificity`.
        decisions: `regime_decision`; None: no plateau is known.
        total: most cards of the page.
    """
    measured = [one for one in group_runs(runs, influence) if one.measured]
    share = max(1, total // max(1, len(measured)))
    chosen: dict[str, list[int]] = {}
    for one in measured:
        run_id = one.shown.run_id
        first = _first_neurons(influence, decisions, run_id)
        specific = specificity.filter(run_id=run_id, preset=PRESET, matching=MATCHING, specific_to="rare")
        ordered = specific.sort("ratio", descending=True)["neuron"].head(SPECIFIC).to_list()
        further = [neuron for neuron in ordered if neuron not in first]
        if len(first) + len(further) > share:
            further = [neuron for neuron in ordered[: share // 4] if neuron not in first[: share - share // 4]]
        if found := [*first[: share - len(further)], *further]:
            chosen[run_id] = found
    return chosen


def _first_neurons(influence: pl.DataFrame, decisions: pl.DataFrame | None, run_id: str) -> list[int]:
    """The plateau of a run, and at least the first `FIRST`, in order of rank."""
    of_run = influence.filter(run_id=run_id, preset=PRESET)
    of_run = of_run.filter(pl.col("influence").is_not_null() & (pl.col("positions") > 0))
    for group in ("rare", "common"):
        ranked = of_run.filter(token_group=group).sort("rank")["neuron"].to_list()
        if ranked:
            key = {"run_id": run_id, "preset": PRESET, "token_group": group, "decision": "present"}
            plateau = [] if decisions is None else decisions.filter(**key)["break_rank"].drop_nulls().to_list()
            return ranked[: max([FIRST, *plateau])]
    return []


def cards(one: Series, inputs: ReportInputs, described: pl.DataFrame) -> list[Card]:
    """The cards of a series, in order of the neurons' ranks; none if no neuron was read.

    Args:
        one: the series.
        inputs: the report's inputs.
        described: `tables.described` of the neurons with cards.
    """
    run_id = one.shown.run_id
    names = ("contexts", "targets", "activations", "passages", "moments", "neighbours")
    frames = {name: _by_neuron(getattr(inputs, name), run_id) for name in names}
    neurons = list(frames["moments"])
    facts = _by_neuron(_facts(inputs, run_id, neurons), run_id)
    specific = _by_neuron(
        inputs.specificity.filter(pl.col("neuron").is_in(neurons), matching=MATCHING).sort(_place_of_preset()), run_id
    )
    rows = {row["neuron"]: row for row in described.filter(run_id=run_id, preset=PRESET).iter_rows(named=True)}
    history = _history(one, inputs, neurons)
    made = [
        Card(
            neuron=neuron,
            run_id=run_id,
            address=address(one.index, neuron),
            row=rows.get(neuron),
            facts=facts.get(neuron, []),
            specificity=specific.get(neuron, []),
            moments={(row["quantity"], row["token_group"]): row for row in frames["moments"][neuron]},
            histogram=densities(frames["activations"].get(neuron, [])),
            contexts={side: _contexts(frames["contexts"].get(neuron, []), side) for side in ("helps", "hurts")},
            targets=_targets(frames["targets"].get(neuron, [])),
            neighbours=_neighbours(frames["neighbours"].get(neuron, []), one.index, neurons),
            history=history.get(neuron, []),
            passages=frames["passages"].get(neuron, []),
        )
        for neuron in neurons
    ]
    return sorted(made, key=lambda card: (card.row is None, card.row["place"] if card.row else card.neuron))


def _facts(inputs: ReportInputs, run_id: str, neurons: list[int]) -> pl.DataFrame:
    """Rank, influence, mean Δ with interval, δ and regime of some neurons, by preset and token group."""
    key = ["run_id", "preset", "token_group", "neuron"]
    found = inputs.influence.filter(pl.col("neuron").is_in(neurons), pl.col("influence").is_not_null(), run_id=run_id)
    found = found.with_columns(shown_role=shown_role(), mixed=(pl.col("settled_role") == MIXED).fill_null(value=False))
    found = found.join(inputs.deviations.select(*key, "deviation", "regime"), on=key, how="left")
    return found.sort("neuron", _place_of_preset(), pl.col("token_group") == "common")


def _place_of_preset() -> pl.Expr:
    """Sorts presets as the page does."""
    return pl.col("preset").replace_strict(
        {name: str(i) for i, name in enumerate(PRESET_ORDER)}, default=pl.col("preset")
    )


def _neighbours(rows: list[Row], series: int, neurons: list[int]) -> dict[str, list[Row]]:
    """By kind, the neighbours in order, each with the address of its card; None where it has no card."""
    found: dict[str, list[Row]] = {BY_WEIGHT: [], BY_ACTIVATION: []}
    for row in sorted(rows, key=lambda row: row["place"]):
        other = row["other_neuron"]
        found[row["kind"]].append(row | {"address": address(series, other) if other in neurons else None})
    return found


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
