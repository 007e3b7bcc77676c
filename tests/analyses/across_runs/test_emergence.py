"""Curves over training steps."""

from typing import Any

import numpy as np
import polars as pl
import polars.selectors as cs
import pytest

from rare_tokens.analyses.across_runs.emergence import EMERGENCE, emergence, series
from rare_tokens.analyses.curve.ranked_curve import fit_line, influence_curve


def test_runs_part_into_series_in_order_of_steps() -> None:
    runs = pl.DataFrame(
        [
            {"run_id": "a-10", "model": "a", "seed": 0, "training_step": 10},
            {"run_id": "a-2", "model": "a", "seed": 0, "training_step": 2},
            {"run_id": "a-main", "model": "a", "seed": 0, "training_step": None},
            {"run_id": "b-2", "model": "b", "seed": 0, "training_step": 2},
            {"run_id": "a-2-again", "model": "a", "seed": 1, "training_step": 2},
        ]
    )
    found = {tuple(part["run_id"]) for part in series(runs)}
    assert found == {("a-2", "a-10", "a-main"), ("b-2",), ("a-2-again",)}


def test_stages_come_one_after_the_other_and_each_branch_is_a_series() -> None:
    places = [
        ("s2-1", 2, 1, None), ("s1-9", 1, 9, None), ("s1-2", 1, 2, None), ("main", None, None, None),
        ("s2-5-seed2", 2, 5, "seed2"), ("s2-1-seed2", 2, 1, "seed2"),
    ]  # fmt: skip
    names = ["run_id", "training_stage", "training_step", "training_branch"]
    runs = pl.DataFrame(places, names, orient="row").with_columns(model=pl.lit("a"))
    found = {tuple(part["run_id"]) for part in series(runs)}
    assert found == {("s1-2", "s1-9", "s2-1", "main"), ("s2-1-seed2", "s2-5-seed2")}


def test_a_gap_of_the_plain_series_is_not_taken_for_one_of_a_branch() -> None:
    places = [("a", 1, None, "published"), ("gap", 2, None, "missing"), ("b", 1, "seed2", "published")]
    runs = pl.DataFrame(places, ["run_id", "training_step", "training_branch", "status"], orient="row")
    assert {tuple(part["run_id"]) for part in series(runs)} == {("a", "gap"), ("b",)}


def gap(**known: object) -> pl.DataFrame:
    """Two series of a model, of two layers, and a missing checkpoint of which so much is known."""
    shared = {"model": "a", "corpus": "c4", "seed": 0, "status": "published"}
    rows: list[dict[str, object]] = [
        {"run_id": f"{layer}-{step}", "training_step": step, "layer": layer} | shared
        for layer in (2, 3)
        for step in (1, 9)
    ]
    lost = {"run_id": "lost", "model": "a", "training_step": 4, "status": "missing"}
    return pl.DataFrame([*rows, dict.fromkeys(rows[0]) | lost | known])


@pytest.mark.parametrize(
    ("known", "members"),
    [
        ({"layer": 3, "corpus": "c4", "seed": 0}, ("3-1", "lost", "3-9")),
        ({"layer": 3}, ("3-1", "lost", "3-9")),
        ({"corpus": "c4"}, ("lost",)),  # of either layer: nobody can say
        ({"layer": 3, "seed": 1}, ("lost",)),
        ({"layer": 3, "model": "b"}, ("lost",)),
    ],
)
def test_a_gap_is_in_the_one_series_that_agrees_with_what_is_known(known: dict[str, object], members: tuple) -> None:
    parts = series(gap(**known))
    assert [tuple(part["run_id"]) for part in parts if "lost" in part["run_id"].to_list()] == [members]
    assert sum(len(part) for part in parts) == 5


def checkpoint(run: str, spread: float, talent: np.ndarray) -> tuple[pl.DataFrame, dict[str, Any]]:
    """A checkpoint whose influence spreads over neurons by `spread`; ranks follow talent."""
    n = len(talent)
    influence = np.exp(spread * talent)
    frame = pl.DataFrame(
        {
            "run_id": run,
            "preset": "es",
            "token_group": "rare",
            "neuron": np.arange(n),
            "influence": influence,
            "rank": np.argsort(np.argsort(-influence, kind="stable")) + 1,
            "role": np.where(np.arange(n) % 2 == 0, "boost", "suppress"),
        }
    )
    curve = influence_curve(influence)
    line = fit_line(curve, 10, 120)
    return frame, {
        "run_id": run, "preset": "es", "token_group": "rare", "kappa": line.kappa, "beta": line.beta, "r2": line.r2,
        "first_rank": line.first_rank, "last_rank": line.last_rank, "reason": None,
    }  # fmt: skip


@pytest.fixture(scope="module")
def inputs() -> dict[str, pl.DataFrame]:
    rng = np.random.default_rng(0)
    talent, noise = rng.normal(size=(2, 400))
    made = [checkpoint("s0", 0.2, noise), checkpoint("s8", 1.0, talent), checkpoint("s64", 2.0, talent)]
    runs = pl.DataFrame(
        {
            "run_id": ["s0", "s1", "s8", "s64"],
            "training_step": [0, 1, 8, 64],
            "status": ["published", "missing", "published", "published"],
        }
    )
    return {
        "runs": runs,
        "influence": pl.concat([one[0] for one in made]),
        "fits": pl.DataFrame([one[1] for one in made]),
    }


def test_the_curve_is_followed(inputs: dict[str, pl.DataFrame]) -> None:
    result = emergence(**inputs, k=20)  # type: ignore[arg-type]
    assert dict(result.schema) == EMERGENCE
    assert result.select(pl.all_horizontal(cs.float().is_finite().fill_null(value=True).all())).item()
    kappa = result.filter(pl.col("quantity") == "kappa")
    assert kappa["training_step"].to_list() == [0, 1, 8, 64]
    assert kappa["value"].to_list()[2] == pytest.approx(kappa["value"].to_list()[3] / 2)
    assert kappa["reason"].to_list() == [None, "no effects: the run is missing", None, None]
    share = result.filter(pl.col("quantity") == "top_share")["value"].to_list()
    assert share[0] < share[1] < share[2]
    for quantity in ("log_influence", "deviation", "local_slope"):
        points = result.filter(pl.col("quantity") == quantity, pl.col("run_id") == "s64")
        assert points["rank"].is_unique().all()
        assert points["rank"].max() == 400
    deviation = result.filter(pl.col("quantity") == "deviation", pl.col("rank") == 1)["value"]
    assert deviation.len() == 3


@pytest.mark.parametrize("chosen_at", ["last", "each"])
def test_groups_are_followed_back(inputs: dict[str, pl.DataFrame], chosen_at: str) -> None:
    result = emergence(**inputs, k=20, chosen_at=chosen_at)  # type: ignore[arg-type]
    overlap = result.filter(pl.col("quantity") == "group_overlap_with_last", pl.col("group_name") == "boost")
    assert overlap["value"].to_list()[1:] == [1.0, 1.0], "the same talent orders both"
    assert overlap["value"].to_list()[0] < 0.5
    rank = result.filter(pl.col("quantity") == "group_median_rank", pl.col("group_name") == "top")["value"].to_list()
    assert (rank[0] > 20) == (chosen_at == "last")
    assert rank[2] == 2.5
    assert emergence(**inputs, k=300).filter(pl.col("reason") == "too few neurons of this sign").height == 6  # type: ignore[arg-type]


def test_decisions_and_intervals_come_along(inputs: dict[str, pl.DataFrame]) -> None:
    key = {"preset": "es", "token_group": "rare"}
    decision = {"p_value": 0.001, "break_rank": 9, "break_low": 8, "break_high": 10, "step": 0.6, "step_low": 0.5}
    decisions = pl.DataFrame(
        [
            key | decision | {"run_id": "s0", "decision": "absent", "step_high": 0.7, "reason": None},
            key | decision | {"run_id": "s8", "decision": "undecided", "step_high": 0.7, "reason": "little power"},
            key | decision | {"run_id": "s64", "decision": "present", "step_high": 0.7, "reason": None},
        ]
    )
    intervals = pl.DataFrame(
        [key | {"run_id": "s64", "quantity": "kappa", "neuron": None, "low": 0.9, "high": 1.1}],
        schema_overrides={"neuron": pl.Int64},
    )
    result = emergence(**inputs, decisions=decisions, intervals=intervals)  # type: ignore[arg-type]
    plateau = result.filter(pl.col("quantity") == "plateau_neurons")
    assert plateau["value"].to_list() == [0, None, 9]
    assert plateau["low"].to_list() == [None, None, 8]
    assert plateau["reason"].to_list() == [None, "undecided: little power", None]
    kappa = result.filter(pl.col("quantity") == "kappa", pl.col("run_id") == "s64").row(0, named=True)
    assert (kappa["low"], kappa["high"]) == (0.9, 1.1)


def test_a_checkpoint_without_influence_is_null_with_reasons(inputs: dict[str, pl.DataFrame]) -> None:
    silent = inputs["influence"].with_columns(
        influence=pl.when(pl.col("run_id") == "s0").then(0.0).otherwise("influence")
    )
    fits = inputs["fits"].filter(pl.col("run_id") != "s0")
    result = emergence(inputs["runs"], silent, fits).filter(pl.col("run_id") == "s0")
    missing = result.filter(pl.col("value").is_null())
    assert set(missing["quantity"]) == {"kappa", "r2", "top_share", "group_log_influence"}
    assert missing["reason"].null_count() == 0
