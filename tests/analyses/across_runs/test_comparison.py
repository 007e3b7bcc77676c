"""Groups of several runs on the same positions: whether they act together, and which runs are asked."""

import numpy as np
import polars as pl
import pytest

from rare_tokens.analyses.across_runs.comparison import coactivation, compared_runs, group_activity
from tests.support.mart_rows import empty_warehouse, given, given_run


def activity(run_id: str, signal: np.ndarray, rng: np.random.Generator, noise: float = 1.0) -> pl.DataFrame:
    """Groups whose activity follows a signal; random groups follow nothing."""
    count = len(signal)
    parts = []
    for group, draw, follows in [("boost", 0, 1.0), ("suppress", 0, 0.0)] + [("control", d, 0.0) for d in range(1, 21)]:
        values = follows * signal + noise * rng.normal(size=count)
        frame = {"run_id": [run_id] * count, "preset": ["es"] * count, "group_name": [group] * count}
        frame |= {"draw": [draw] * count, "position_id": np.arange(count), "window_id": np.arange(count) // 10}
        parts.append(pl.DataFrame(frame | {"activation": values}))
    return pl.concat(parts)


def test_groups_that_follow_the_same_contexts_are_found_and_others_are_not() -> None:
    rng = np.random.default_rng(3)
    signal = rng.normal(size=800)
    found = coactivation(pl.concat([activity("a", signal, rng), activity("b", signal, rng)]))
    boost, suppress = found.to_dicts()
    assert (boost["group_name"], boost["positions"]) == ("boost", 800)
    assert boost["correlation"] == pytest.approx(0.5, abs=0.1)
    assert boost["low"] < boost["correlation"] < boost["high"]
    assert 0.03 < boost["high"] - boost["low"] < 0.2
    assert boost["p_value"] == pytest.approx(1 / 21)
    assert abs(suppress["correlation"]) < 0.15


def test_groups_that_follow_nothing_are_called_so_as_often_as_they_should() -> None:
    small_p = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        nothing = np.zeros(50)
        found = coactivation(pl.concat([activity("a", nothing, rng), activity("b", nothing, rng)]), seed)
        small_p += int((found["p_value"] < 0.1).sum())  # of two groups, 1/21 or 2/21 each
    assert 3 <= small_p <= 22  # 11.4 of 120 expected


def test_coactivation_is_pearsons_over_the_positions_that_both_have() -> None:
    rng = np.random.default_rng(4)
    signal = rng.normal(size=100)
    one, other = activity("a", signal, rng), activity("b", signal, rng).filter(pl.col("position_id") >= 40)
    row = coactivation(pl.concat([one, other])).row(0, named=True)
    x = one.filter(group_name="boost", draw=0)["activation"].to_numpy()[40:]
    y = other.filter(group_name="boost", draw=0)["activation"].to_numpy()
    assert row["positions"] == 60
    assert row["correlation"] == pytest.approx(np.corrcoef(x, y)[0, 1])


def test_intervals_cover_the_truth_where_windows_move_together() -> None:
    """Positions of a window share their activity: the interval over windows still covers."""
    covered = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        windows = np.repeat(rng.normal(size=(60, 1)), 10, axis=1).ravel()
        frames = [activity(name, windows, rng, noise=1.0) for name in ("a", "b")]
        row = coactivation(pl.concat(frames), seed).row(0, named=True)
        covered += row["low"] <= 0.5 <= row["high"]
    assert covered >= 51  # of 60, at 95 %


def test_activity_is_what_the_macro_gives() -> None:
    rng = np.random.default_rng(5)
    values = rng.normal(size=(30, 60)).astype(np.float32)
    values[:, 7] = 1.0
    positions = pl.DataFrame({"position_id": np.arange(30) * 2, "window_id": np.arange(30) // 4})
    neurons = {
        ("boost", 0, ""): range(50),
        ("control", 1, "disjoint"): range(10, 60),
        ("control", 2, "disjoint"): range(5, 55),
        ("control", 1, "layer"): range(1, 51),  # of the other pool, so not compared with
    }
    groups = pl.concat(
        pl.DataFrame({"group_name": name, "k": 50, "draw": draw, "neuron": list(chosen), "pool": pool})
        for (name, draw, pool), chosen in neurons.items()
    )
    found = group_activity("run", "es", values, positions, groups.with_columns(pool=pl.col("pool").replace("", None)))
    with empty_warehouse() as con:
        given_run(con)
        con.register("positions", positions)
        con.register("chosen", groups)
        wide = [
            (1, i, int(t), float(v), 0.1)
            for t, row in zip(positions["position_id"], values, strict=True)
            for i, v in enumerate(row)
        ]
        given(con, "fct_effect", "run_key, neuron, position_id, activation, delta_loss", *wide)
        con.execute("insert into store.position_group select 1, 'es', 'rare', position_id from positions")
        con.execute(
            "insert into store.dim_position by name select 1 as run_key, position_id, window_id, 0 as window_offset,"
            " 0 as input_token_id, 0 as target_token_id, 0 as loss, 0 as entropy from positions"
        )
        con.execute(
            "insert into store.neuron_group by name select 1 as run_key, 'es' as preset, 'rare' as token_group,"
            " * replace (nullif(pool, '') as pool) from chosen"
        )
        stored = con.sql("from group_activation('run', 'es')").pl()
    key = ["group_name", "draw", "position_id"]
    both = found.join(stored.cast(found.schema), on=key, suffix="_sql")
    assert both.height == found.height == stored.height == 90
    assert both["activation"].to_numpy() == pytest.approx(both["activation_sql"].to_numpy(), abs=1e-9)
    assert both["window_id"].equals(both["window_id_sql"])


def test_activity_of_no_position_or_no_group_is_empty() -> None:
    positions = pl.DataFrame(schema={"position_id": pl.Int64, "window_id": pl.Int64})
    groups = pl.DataFrame(
        {"group_name": ["boost"], "k": [50], "draw": [0], "neuron": [None]}, schema_overrides={"neuron": pl.Int64}
    )
    assert group_activity("run", "es", np.zeros((0, 4), dtype=np.float32), positions, groups).is_empty()
    assert coactivation(group_activity("run", "es", np.zeros((0, 4), dtype=np.float32), positions, groups)).is_empty()


def test_of_a_series_the_last_and_a_few_checkpoints_before_it_are_compared() -> None:
    steps = [0, 1, 2, 4, 8, 16, 32]
    runs = pl.DataFrame({"run_id": [f"r{step}" for step in steps], "training_step": steps})
    runs = runs.with_columns(model=pl.lit("m"))
    assert compared_runs(runs) == ["r0", "r2", "r8", "r32"]
    assert compared_runs(runs.head(1)) == ["r0"]
