"""The marts against NumPy and SciPy, on curves and counts too large to write out."""

from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pytest
from scipy.stats import linregress

from rare_tokens import warehouse
from rare_tokens.analyses.curve.power_law import power_law, power_law_line
from rare_tokens.common import parts
from studies.synthetic.runs import make_parts
from tests.support.mart_rows import empty_warehouse, given_curve, given_run, publish, rows


@pytest.fixture
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    with empty_warehouse() as con:
        yield con


# --- frequencies ----------------------------------------------------------------------------------------------------


def frequencies(con: duckdb.DuckDBPyConnection, counts: np.ndarray) -> pl.DataFrame:
    """token_frequency of these counts, one a token id."""
    con.register("counted", pl.DataFrame({"token_id": np.arange(len(counts)), "count": counts}))
    con.execute("attach ':memory:' as staging")
    types = "token_id::uinteger as token_id, count::ubigint as count"
    con.execute(f"create table staging.token_frequency as select {types} from counted")
    publish(con, "token_frequency", source_key=1)
    return con.sql("from store.token_frequency order by token_id").pl()


def zipf_counts(types: int, seed: int) -> np.ndarray:
    """Counts of a Zipf–Mandelbrot law with Poisson noise: many ties, some zeros."""
    rng = np.random.default_rng(seed)
    return rng.poisson(3 * types / (np.arange(1, types + 1) + 5.0)) * (rng.random(types) > 0.05)


@pytest.mark.parametrize("seed", range(3))
def test_percentiles_by_brute_force(con: duckdb.DuckDBPyConnection, seed: int) -> None:
    counts = zipf_counts(400, seed)
    nonzero = counts[counts > 0]
    found = frequencies(con, counts)
    for count, row in zip(counts, found.iter_rows(named=True), strict=True):
        if count == 0:
            assert (row["percentile"], row["occurrence_percentile"], row["rank"]) == (None, None, None)
            continue
        assert row["percentile"] == pytest.approx(100 * np.sum(nonzero < count) / (len(nonzero) - 1))
        occurrences = nonzero[nonzero < count].sum()
        assert row["occurrence_percentile"] == pytest.approx(100 * occurrences / (counts.sum() - 1))
    assert found["frequency"].sum() == pytest.approx(1)
    ranked = found.filter(pl.col("rank").is_not_null()).sort("rank")
    assert ranked["token_id"].to_list() == sorted(np.flatnonzero(counts).tolist(), key=lambda i: (-counts[i], i))


@pytest.mark.parametrize("name", ["gpt2-openwebtext", "pythia-pile", "novella-training"])
def test_percentiles_of_real_counts(con: duckdb.DuckDBPyConnection, real_inputs: Path, name: str) -> None:
    counts = np.load(real_inputs / "frequencies" / f"{name}.npy")
    ascending = np.sort(counts[counts > 0])
    smaller = np.searchsorted(ascending, counts[counts > 0], "left")
    total = np.concatenate([[0], np.cumsum(ascending)])
    found = frequencies(con, counts).filter(pl.col("count") > 0)
    assert found["percentile"].to_numpy() == pytest.approx(100 * smaller / (len(ascending) - 1))
    assert found["occurrence_percentile"].to_numpy() == pytest.approx(100 * total[smaller] / (total[-1] - 1))
    assert found["frequency"].sum() == pytest.approx(1)
    near = found.filter(pl.col("is_elbow"))["percentile"].to_numpy()
    assert 0 < near.max() - near.min() <= 2


@pytest.mark.parametrize("seed", range(3))
def test_elbow_is_furthest_from_the_chord(con: duckdb.DuckDBPyConnection, seed: int) -> None:
    counts = zipf_counts(2_000, seed)
    found = frequencies(con, counts).filter(pl.col("count") > 0).sort("rank")
    x = np.log(found["rank"].to_numpy())
    y = np.log(found["count"].to_numpy().astype(float))
    x, y = (x - x[0]) / (x[-1] - x[0]), (y - y[-1]) / (y[0] - y[-1])  # Kneedle scales both axes to 0…1
    chord = np.array([1.0, -1.0]) / np.sqrt(2)
    distance = np.abs((x - x[0]) * chord[1] - (y - y[0]) * chord[0])  # at right angles to it
    percentile = found["percentile"].to_numpy()
    expected = np.abs(percentile - percentile[distance.argmax()]) <= 1
    assert found["is_elbow"].to_list() == expected.tolist()
    assert 0 < expected.sum() < len(expected)


@pytest.mark.parametrize("counts", [[0, 7, 0], [4, 4, 4]])
def test_a_source_without_a_curve_has_no_elbow(con: duckdb.DuckDBPyConnection, counts: list[int]) -> None:
    found = frequencies(con, np.array(counts)).filter(pl.col("count") > 0)
    assert found["percentile"].to_list() == [0.0] * len(found)
    assert not found["is_elbow"].any()


# --- the curve ------------------------------------------------------------------------------------------------------


def noisy_curve(neurons: int, seed: int, plateau: int = 30, decay: float = 5.5) -> np.ndarray:
    """Influence by rank: κ = 1, a raised head, a tail that falls from ln rank `decay` on, log-normal noise."""
    rng = np.random.default_rng(seed)
    x = np.log(np.arange(1, neurons + 1))
    y = -x + 0.8 * (np.arange(neurons) < plateau) - 2.5 * np.maximum(0, x - decay) + rng.normal(0, 0.1, neurons)
    return np.exp(np.sort(y)[::-1])


def raised_curve(neurons: int, seed: int) -> np.ndarray:
    """Influence by rank: κ = 0.8, thirty neurons raised by 0.8, a tail of strength 0.4, little noise."""
    rng = np.random.default_rng(seed)
    rank = np.arange(1, neurons + 1)
    y = -0.8 * np.log(rank) + 0.8 * (rank <= 30) + 0.4 * np.log1p(-rank / (neurons + 1))
    return np.exp(np.sort(y + rng.normal(0, 0.03, neurons))[::-1])


def line_at(y: np.ndarray, head: int) -> tuple[np.ndarray, float]:
    """Coefficients β, κ, τ, s, h with a head of `head` ranks, and the squared error, by `numpy.linalg.lstsq`."""
    n, r = len(y), np.arange(1, len(y) // 2 + 1)
    inside = r <= head
    columns = [np.ones(len(r)), -np.log(r), np.log((n + 1 - r) / (n + 1))]
    columns += [inside * 1.0, inside * (np.log(head + 0.5) - np.log(r))]
    for tailed in (True, False):
        design = np.stack([one for place, one in enumerate(columns) if tailed or place != 2], axis=1)
        found = np.linalg.lstsq(design, y[: len(r)])[0]
        error = float(np.sum((y[: len(r)] - design @ found) ** 2))
        found = found if tailed else np.insert(found, 2, 0.0)
        if found[2] >= 0:
            break
    return found, error


@pytest.mark.parametrize(("neurons", "seed"), [(400, 1), (1024, 2), (3072, 3)])
def test_power_law_fit_by_least_squares(con: duckdb.DuckDBPyConnection, neurons: int, seed: int) -> None:
    given_run(con)
    influence = raised_curve(neurons, seed)
    given_curve(con, [*influence.tolist(), 0.0, 0.0])  # neurons without influence are not in the curve
    publish(con, "power_law_fit", run_key=1)
    columns = "head_rank, beta, kappa, tail, step, head_slope, first_rank, last_rank, straight_share, ranks, reason"
    (found,) = rows(con, f"select {columns} from power_law_fit where preset = 'es' and token_group = 'rare'")
    y, head = np.log(influence), found[0]
    (beta, kappa, tail, step, hinge), error = line_at(y, head)
    assert found[1:6] == pytest.approx((beta, kappa, tail, step, kappa + hinge), rel=1e-8)
    least = min(line_at(y, other)[1] for other in range(5, min(65, int(0.15 * neurons))))
    assert error <= 1.15 * least, "another head costs less by more than what room for the power law is worth"
    end = neurons // 2 if tail == 0 else min(neurons // 2, int((neurons + 1) * (1 - np.exp(-0.1 / tail))))
    ranks = np.arange(head + 1, end + 1)
    near = np.abs(y[ranks - 1] - beta + kappa * np.log(ranks)) < 0.1
    assert found[6:] == (head + 1, end, pytest.approx(near.mean()), neurons, None)


def test_other_curves_have_their_own_power_law(con: duckdb.DuckDBPyConnection) -> None:
    given_run(con)
    influence = raised_curve(800, 5)
    given_curve(con, influence.tolist())
    con.execute(
        "update store.neuron_influence set role = if(rank % 2 = 0, 'boost', 'suppress'),"
        " abs_mean_delta_loss = influence * if(rank % 3 = 0, 0.5, 1)"
    )
    publish(con, "power_law_fit", run_key=1)
    given = dict(enumerate(influence, 1))
    mean = {rank: value * (0.5 if rank % 3 == 0 else 1) for rank, value in given.items()}
    for statistic, values in (("mean_abs", given), ("abs_mean", mean)):
        for role, kept in (("all", (0, 1)), ("boost", (0,)), ("suppress", (1,))):
            curve = np.sort([np.log(value) for rank, value in values.items() if rank % 2 in kept])[::-1]
            asked = f"from power_law_fit_of('{statistic}', '{role}') select kappa, head_rank, step, ranks, reason"
            (found,) = rows(con, f"{asked} where preset = 'es' and token_group = 'rare'")
            law = power_law(curve)
            assert found == (pytest.approx(law.kappa), law.head_rank, pytest.approx(law.step), len(curve), law.reason)
            deviation = rows(
                con,
                f"select rank, influence, deviation from neuron_deviation_of('{statistic}', '{role}') order by rank",
            )
            assert [row[0] for row in deviation] == list(range(1, len(curve) + 1))
            assert np.log([row[1] for row in deviation]) == pytest.approx(curve)
            delta = law.deviation(curve)
            expected = [None] * len(curve) if delta is None else delta
            assert [row[2] for row in deviation] == pytest.approx(expected)


def test_local_slope_and_deviation(con: duckdb.DuckDBPyConnection) -> None:
    neurons = 500
    given_run(con)
    influence = noisy_curve(neurons, 7)
    given_curve(con, influence.tolist())
    publish(con, "power_law_fit", run_key=1)
    publish(con, "neuron_deviation", run_key=1)
    ((kappa, beta),) = rows(con, "select kappa, beta from power_law_fit where preset = 'es' and token_group = 'rare'")
    x, y = np.log(np.arange(1, neurons + 1)), np.log(influence)
    found = rows(con, "select rank, deviation, local_slope from neuron_deviation order by rank")
    assert len(found) == neurons
    for rank, deviation, slope in found:
        assert deviation == pytest.approx(y[rank - 1] - (beta - kappa * x[rank - 1]), abs=1e-12)
        near = np.abs(x - x[rank - 1]) <= 0.25
        if near.sum() < 5:
            assert slope is None
        else:
            assert slope == pytest.approx(np.polyfit(x[near], y[near], 1)[0], rel=1e-8)
    assert [slope for *_, slope in found].count(None) == 9  # ranks 1 … 9 have fewer than 5 ranks near


# --- a whole run ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[warehouse.Warehouse, np.ndarray]]:
    """A published run of 600 positions × 70 neurons, and its delta_loss (N, T)."""
    path = tmp_path_factory.mktemp("marts") / "w.duckdb"
    folder = parts.parts_root(path) / "run"
    make_parts(folder, positions=600, neurons=70, window=50, position_block=150, run_id="run")
    blocks = [pl.read_parquet(parts.effect_path(folder, block)) for block in range(4)]
    facts = pl.concat(blocks).sort("neuron", "position_id")
    warehouse.publish(path, folder, line=power_law_line)
    with warehouse.open(path) as opened:
        yield opened, facts["delta_loss"].to_numpy().astype(float).reshape(70, 600)


def members(opened: warehouse.Warehouse, preset: str, group: str) -> np.ndarray:
    """Positions of a group, by the definition, from the dimensions."""
    run = opened.dim_run().row(0, named=True)
    position = opened.dim_position().join(opened.token_frequency(), left_on="target_token_id", right_on="token_id")
    position = position.join(opened.dim_token(), left_on="target_token_id", right_on="token_id")
    position = position.filter((pl.col("count") > 0) & (pl.col("target_token_id") != run["separator_token_id"]))
    by, limit = {"es": ("percentile", 50), "nc": ("occurrence_percentile", 50), "ds": ("percentile", 15)}[preset]
    if preset == "ds":
        position = position.filter(~pl.col("is_elbow"))
    rare = pl.col(by) < limit
    common = pl.col(by) > limit if preset == "ds" else pl.col(by) >= limit
    if preset == "es":
        rare &= pl.col("is_word")
    return position.filter(rare if group == "rare" else common)["position_id"].sort().to_numpy()


@pytest.mark.parametrize("preset", ["es", "nc", "ds"])
@pytest.mark.parametrize("group", ["rare", "common"])
def test_influence_of_a_run(published: tuple[warehouse.Warehouse, np.ndarray], preset: str, group: str) -> None:
    opened, delta = published
    where = members(opened, preset, group)
    assert len(where) > 0
    grouped = opened.position_group(preset=preset, token_group=group)
    assert grouped["position_id"].sort().to_list() == where.tolist()
    found = opened.neuron_influence(preset=preset, token_group=group).sort("neuron")
    influence = np.abs(delta[:, where]).mean(axis=1)
    assert found["influence"].to_numpy() == pytest.approx(influence, abs=1e-12)
    assert found["mean_delta_loss"].to_numpy() == pytest.approx(delta[:, where].mean(axis=1), abs=1e-12)
    assert found.sort("rank")["neuron"].to_list() == np.argsort(-influence, kind="stable").tolist()
    assert found["positions"].unique().to_list() == [len(where)]


@pytest.mark.parametrize("threshold", [0, 5, 15, 35, 50])
@pytest.mark.parametrize("column", ["percentile", "occurrence"])
def test_agg_effect_answers_every_threshold(
    published: tuple[warehouse.Warehouse, np.ndarray], threshold: int, column: str
) -> None:
    """Comparing a bucket with a threshold gives the sums that comparing the percentile gives, window by window."""
    opened, delta = published
    exact_column = column if column == "percentile" else "occurrence_percentile"
    for sign in ("<", "<=", "=", ">=", ">"):
        cells = opened.sql(
            "select neuron, window_id, sum(positions)::int as n, sum(abs_delta_sum) as a, sum(delta_sum) as d,"
            f" sum(square_sum) as q from agg_effect where {column}_bucket {sign} $threshold"
            " and is_word and not is_elbow group by all order by all",
            threshold=threshold,
        )
        chosen = opened.sql(
            f"select position_id from position_frequency where {exact_column} {sign} $threshold and is_word"
            " and not is_elbow order by 1",
            threshold=threshold,
        )["position_id"].to_numpy()
        for neuron in (0, 69):
            for window in np.unique(chosen // 50):
                values = delta[neuron, chosen[chosen // 50 == window]]
                row = cells.filter((pl.col("neuron") == neuron) & (pl.col("window_id") == window)).row(0)
                expected = (len(values), np.abs(values).sum(), values.sum(), (values**2).sum())
                assert row[2:] == pytest.approx(expected, rel=1e-6, abs=1e-11)
        assert len(cells) == 70 * len(np.unique(chosen // 50))


@pytest.mark.parametrize("words", [False, True])
@pytest.mark.parametrize("column", ["percentile", "occurrence_percentile"])
@pytest.mark.parametrize("percentile", [0, 3.3, 12.5, 15, 50, 50.1, 80, 99.9, 100])
def test_influence_at_any_percentile(
    published: tuple[warehouse.Warehouse, np.ndarray], percentile: float, column: str, words: bool
) -> None:
    opened, delta = published
    found = opened.influence_at("run", percentile, occurrences=column == "occurrence_percentile", words=words)
    for group, sign in (("rare", "< $percentile and (is_word or not $words)"), ("common", ">= $percentile")):
        query = f"select position_id from position_frequency where {column} {sign}"
        query += "" if group == "rare" else " and $words is not null"
        where = opened.sql(query, percentile=percentile, words=words)["position_id"].to_numpy()
        of_group = found.filter(pl.col("token_group") == group).sort("neuron")
        assert of_group["positions"].unique().to_list() == ([len(where)] if len(where) else [])
        if len(where):
            influence, mean = np.abs(delta[:, where]).mean(axis=1), delta[:, where].mean(axis=1)
            assert of_group["influence"].to_numpy() == pytest.approx(influence, abs=1e-12)
            assert of_group["mean_delta_loss"].to_numpy() == pytest.approx(mean, abs=1e-12)


def test_influence_at_gives_the_presets(published: tuple[warehouse.Warehouse, np.ndarray]) -> None:
    opened, _ = published
    columns = ["token_group", "neuron", "rank", "influence", "mean_delta_loss", "positions"]
    for preset, arguments in (("es", {"words": True}), ("nc", {"occurrences": True})):
        stored = opened.neuron_influence(preset=preset).select(columns).sort("token_group", "rank")
        assert opened.influence_at("run", 50, **arguments).select(columns).sort("token_group", "rank").equals(stored)


def test_power_law_on_any_window_of_ranks(published: tuple[warehouse.Warehouse, np.ndarray]) -> None:
    opened, _ = published
    found = opened.power_law_at("run", 5, 40)
    for row in found.iter_rows(named=True):
        group = opened.neuron_influence(preset=row["preset"], token_group=row["token_group"]).sort("rank")
        curve = np.log(group["influence"].to_numpy())
        x = np.log(np.arange(1, len(curve) + 1))
        line = linregress(x[4:40], curve[4:40])
        assert (row["kappa"], row["beta"], row["r2"]) == pytest.approx((-line.slope, line.intercept, line.rvalue**2))
        deviation = curve - (line.intercept + line.slope * x)
        assert row["share_within_0_1"] == pytest.approx(np.mean(np.abs(deviation) < 0.1))
        assert row["neurons_above_0_5"] == np.sum(deviation > 0.5)
        assert row["reason"] is None
    assert len(found) == len(opened.power_law_fit(run="run"))


@pytest.mark.parametrize(("first", "last"), [(0, 10), (10, 10), (20, 10), (60, 71), (500, 600)])
def test_a_window_past_the_ranks_is_null_with_its_reason(
    published: tuple[warehouse.Warehouse, np.ndarray], first: int, last: int
) -> None:
    opened, _ = published
    for row in opened.power_law_at("run", first, last).iter_rows(named=True):
        assert (row["kappa"], row["r2"], row["share_within_0_1"]) == (None, None, None)
        assert row["reason"] == f"ranks {first} to {last} are no window of 70 ranks"
