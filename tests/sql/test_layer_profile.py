"""Layers of one model side by side: which runs make a set, and what a row of it says."""

import json
from collections.abc import Iterator
from typing import Any

import duckdb
import pytest

from tests.support.mart_rows import empty_warehouse, given, rows

IDENTITY = {"model_hash": "h", "revision": "r", "tokens": 64, "seed": 0, "ablation": "mean"}
COLUMNS = "run_key, run_id, model, revision, layer, neurons, status, ablation, identity, facts"


@pytest.fixture
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    with empty_warehouse() as con:
        yield con


def given_layer(con: duckdb.DuckDBPyConnection, key: int, layer: int, scope: str, **changes: Any) -> None:
    """A run with four neurons and three token groups, of which one is empty, in a model of 3 layers."""
    name, status = changes.pop("model", "m"), changes.pop("status", "published")
    facts = changes.pop("facts", {"layers": 3})
    identity = IDENTITY | {"layer": layer, "edit_scope": scope} | changes
    texts = [json.dumps(one, sort_keys=True) for one in (identity, facts)]
    given(con, "run", COLUMNS, (key, f"run{key}", name, "r", layer, 4, status, identity["ablation"], *texts))
    fits = "run_key, preset, token_group, statistic, role, kappa, reason, rank_window, ranks"
    curve = (key, "es", "rare", "mean_abs")
    kinds = [
        (*curve, "all", 0.5, None), (*curve, "boost", 9.0, None), (key, "es", "rare", "abs_mean", "all", 9.0, None),
        (key, "es", "common", "mean_abs", "all", None, "no power law"),
        (key, "ds", "rare", "mean_abs", "all", None, "no position in the group"),
    ]  # fmt: skip
    given(con, "power_law_fit", fits, *((*kind, "auto", 4) for kind in kinds))
    columns = "run_key, preset, token_group, neuron, influence, mean_delta_loss, abs_mean_delta_loss, rank,"
    ranked = [(1, 0.5), (2, 0.25), (3, 0.25), (4, 0.0)]
    for group in ("rare", "common"):
        given(
            con, "neuron_influence", f"{columns} abs_mean_rank, positions",
            *((key, "es", group, 9 - rank, value, 0.0, 0.0, rank, rank, 7) for rank, value in ranked),
        )  # fmt: skip


def sets(con: duckdb.DuckDBPyConnection) -> list[tuple[Any, ...]]:
    query = "select distinct edit_scope, layer, run_id, layers from layer_profile where preset = 'es' order by all"
    return rows(con, query)


def test_layers_that_agree_in_all_else_are_a_set(con: duckdb.DuckDBPyConnection) -> None:
    given_layer(con, 1, 0, "window")
    assert sets(con) == [], "one layer is no profile"
    given_layer(con, 2, 1, "window")
    given_layer(con, 3, 2, "position")
    given_layer(con, 4, 2, "position", seed=1)
    given_layer(con, 5, 1, "window", seed=2)
    given_layer(con, 6, 1, "window", model="other")
    given_layer(con, 7, 0, "window", status="rejected")
    assert sets(con) == [("window", layer, f"run{layer + 1}", 3) for layer in range(3)]


def test_the_last_layer_is_in_the_set_of_either_scope(con: duckdb.DuckDBPyConnection) -> None:
    given_layer(con, 1, 0, "window")
    given_layer(con, 2, 0, "position")
    given_layer(con, 3, 1, "position")
    given_layer(con, 4, 2, "position")
    assert sets(con) == [
        ("position", 0, "run2", 3), ("position", 1, "run3", 3), ("position", 2, "run4", 3),
        ("window", 0, "run1", 2), ("window", 2, "run4", 2),
    ]  # fmt: skip


@pytest.mark.parametrize(("facts", "layers"), [({"path": "moments"}, 2), ({"path": "dense"}, 0), ({}, 0)])
def test_an_older_run_is_of_the_last_layer_if_it_took_the_moments(
    con: duckdb.DuckDBPyConnection, facts: dict[str, str], layers: int
) -> None:
    given_layer(con, 1, 0, "window")
    given_layer(con, 2, 2, "position", facts=facts)
    assert [row[3] for row in sets(con)] == [layers] * layers


def test_a_row_holds_the_curve_and_its_decision(con: duckdb.DuckDBPyConnection) -> None:
    given_layer(con, 1, 0, "window")
    given_layer(con, 2, 1, "window")
    decided = (
        "run_key, preset, token_group, statistic, role, decision, p_value, break_rank, break_low, break_high, step,"
        " step_low, step_high, kappa, kappa_low, kappa_high, reason"
    )
    numbers = (0.001, 2, 1, 3, 0.7, 0.6, 0.8, 0.5, 0.4, 0.6)
    given(
        con, "regime_decision", decided,
        (2, "es", "rare", "mean_abs", "all", "present", *numbers, None),
        (2, "es", "rare", "mean_abs", "boost", "absent", *(9 for _ in numbers), None),
        (2, "es", "common", "mean_abs", "all", None, *(None for _ in numbers), "no power law"),
    )  # fmt: skip
    place = (2, "run2", "window", "m", "r", "mean", 4)
    given(
        con, "neuron_specificity", "run_key, preset, matching, neuron, specific_to",
        *((2, "es", "loss", neuron, kind) for neuron, kind in enumerate(("rare", "rare", "common", None))),
        (2, "es", "loss+word", 3, "common"), (2, "ds", "loss", None, None),
    )  # fmt: skip
    nothing = (None,) * 11
    assert rows(con, "from layer_profile where run_id = 'run2' order by preset, token_group") == [
        ("run2", "ds", "rare", 1, *place, 0, None, None, None, *nothing, None, None, "the token group has no position"),
        ("run2", "es", "common", 1, *place, 7, 0.25, 0.5, None, *nothing, 2, 1, "no power law"),
        (
            "run2", "es", "rare", 1, *place, 7, 0.25, 0.5, 0.75, 0.5, 0.4, 0.6, 0.7, 0.6, 0.8, 2, 1, 3, "present",
            0.001, 2, 1, None,
        ),
    ]  # fmt: skip
    found = rows(con, "select token_group, kappa, decision, head_share, reason from layer_profile where layer = 0")
    assert sorted(found, key=str) == [
        ("common", None, None, None, "no power law; analyze has not made the decision"),
        ("rare", 0.5, None, None, "analyze has not made the decision"),
        ("rare", None, None, None, "the token group has no position"),
    ]
