"""`attribution_agreement` and the sums that it is made from, against the facts; and what is said where they lack."""

import numpy as np
import polars as pl
import pytest
from scipy import stats

from rare_tokens import warehouse
from rare_tokens.analyses import registry
from rare_tokens.analyses.agreement.attribution import ANALYSIS, attribution_agreement, pair_errors
from rare_tokens.analyses.curve.power_law import power_law_line
from rare_tokens.common.parts import parts_root
from rare_tokens.warehouse.publish import results
from studies.synthetic.runs import make_parts

KEY = ["preset", "token_group"]
TOLERANCE = 2e-4  # so that pairs lie on both sides of it
DRAWS = 40


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A run with estimates and one without."""
    path = tmp_path_factory.mktemp("attribution") / "w.duckdb"
    for run_id, effects in (("with", ("loss", "attribution")), ("without", ("loss",))):
        folder = parts_root(path) / run_id
        make_parts(folder, positions=512, neurons=64, run_id=run_id, effects=effects, tolerance=TOLERANCE)
        warehouse.publish(path, folder, line=power_law_line, quiet=True)
    return path


@pytest.fixture(scope="module")
def facts(path):
    """Every pair of the run and group that it is in, in float64, with the group's window."""
    with warehouse.open(path) as opened:
        groups = opened.position_group(run_id="with").join(opened.dim_position(run_id="with"), on="position_id")
        found = opened.fct_effect(run_id="with").join(groups.select(*KEY, "position_id", "window_id"), on="position_id")
    found = found.with_columns(pl.col("delta_loss", "attributed_delta_loss").cast(pl.Float64))
    return found.with_columns(error=(pl.col("attributed_delta_loss") - pl.col("delta_loss")).abs())


def computed(path, run_id="with"):
    def ask(source):
        given = {"columns": source.columns, "preset": source.preset, "token_group": source.token_group}
        return results.read(path, run_id, source.relation, **given)

    return ANALYSIS.compute(ask, {"draws": DRAWS, "seed": 0}, None)["attribution_agreement"]


@pytest.fixture(scope="module")
def rows(path):
    return computed(path)


def deciles(delta):
    """The decile of each |Δ|: classes 1 % wide, each in the tenth that holds its middle; a loop over the classes."""
    classes = np.floor(100 * np.log(delta)).astype(int)
    found = np.zeros(len(delta), dtype=int)
    for one in np.unique(classes):
        middle = (classes < one).sum() + (classes == one).sum() / 2
        found[classes == one] = min(10, 1 + int(np.floor(10 * middle / len(delta))))
    return found


def pairs_of(facts, preset, token_group):
    chosen = facts.filter(pl.col("delta_loss").abs() > TOLERANCE, preset=preset, token_group=token_group)
    return chosen.with_columns(decile=pl.Series(deciles(chosen["delta_loss"].abs().to_numpy())))


def test_every_group_has_a_row_for_all_pairs_and_one_per_decile(rows):
    assert len(rows) == 6 * 11
    assert rows["reason"].drop_nulls().is_empty()
    of_deciles = rows.filter(pl.col("decile").is_not_null())
    assert of_deciles["decile"].to_list() == list(range(1, 11)) * 6
    assert (
        of_deciles.select("rank_correlation", "shared_10", "shared_50", "pairs_left_out").null_count().row(0)
        == (60,) * 4
    )


def test_rankings_are_those_of_the_facts(rows, facts):
    for row in rows.filter(pl.col("decile").is_null()).to_dicts():
        group = facts.filter(preset=row["preset"], token_group=row["token_group"])
        means = group.group_by("neuron").agg(pl.col("delta_loss", "attributed_delta_loss").abs().mean()).sort("neuron")
        both = [means[name].to_numpy() for name in ("delta_loss", "attributed_delta_loss")]
        assert row["rank_correlation"] == pytest.approx(stats.spearmanr(*both).statistic, abs=1e-9)
        heads = [[set(np.argsort(-one)[:count]) for count in (10, 50)] for one in both]
        assert [row["shared_10"], row["shared_50"]] == [len(a & b) for a, b in zip(*heads, strict=True)]
        assert row["rank_correlation_low"] <= row["rank_correlation"] <= row["rank_correlation_high"] < 1


def test_errors_of_pairs_are_those_of_the_facts(rows, facts):
    for (preset, token_group), of_group in rows.group_by(KEY):
        everything = pairs_of(facts, preset, token_group)
        total = len(facts.filter(preset=preset, token_group=token_group))
        for row in of_group.to_dicts():
            pairs = everything if row["decile"] is None else everything.filter(decile=row["decile"])
            size, error = pairs["delta_loss"].abs(), pairs["error"]
            assert row["pairs"] == len(pairs) > 0
            assert (row["smallest_delta"], row["largest_delta"]) == (size.min(), size.max())
            wrong = (pairs["delta_loss"] * pairs["attributed_delta_loss"] < 0).mean()
            assert row["wrong_sign_share"] == pytest.approx(wrong, abs=1e-12)
            assert row["error_ratio"] == pytest.approx(error.sum() / size.sum(), rel=1e-9)
            assert row["relative_error"] == pytest.approx((error / size).median(), rel=0.05)
            if row["decile"] is None:
                assert row["pairs_left_out"] == total - len(pairs) > 0
            else:
                assert abs(len(pairs) / len(everything) - 0.1) < 0.02


def test_intervals_are_those_of_a_loop_over_the_facts(rows, facts):
    chosen = facts.filter(preset="es", token_group="rare")
    windows = chosen["window_id"].unique().sort()
    pairs = pairs_of(facts, "es", "rare").filter(decile=3)
    (row,) = rows.filter(preset="es", token_group="rare", decile=3).to_dicts()
    counts = np.random.default_rng(0).multinomial(len(windows), np.full(len(windows), 1 / len(windows)), size=DRAWS)
    drawn = []
    for sample in counts:
        weights = pl.DataFrame({"window_id": windows, "times": sample})
        repeated = pairs.join(weights, on="window_id").select(pl.all().repeat_by("times")).explode(pl.all())
        size, error = repeated["delta_loss"].abs(), repeated["error"]
        wrong = (repeated["delta_loss"] * repeated["attributed_delta_loss"] < 0).mean()
        drawn.append((wrong, error.sum() / size.sum(), (error / size).median()))
    for name, values, near in zip(
        ("wrong_sign_share", "error_ratio", "relative_error"), np.array(drawn).T, (1e-9, 1e-9, 0.05), strict=True
    ):
        low, high = np.quantile(values, [0.025, 0.975])
        expected = min(low, row[name]), max(high, row[name])
        assert (row[f"{name}_low"], row[f"{name}_high"]) == pytest.approx(expected, rel=near)
        assert row[f"{name}_low"] < row[f"{name}_high"]
    assert (row["windows"], row["draws"]) == (len(windows), DRAWS)


def test_the_median_of_a_class_lies_evenly_within_it():
    errors = pl.DataFrame(
        {"window_id": [4, 4, 9], "error_class": [-20, 0, 0], "pairs": [1, 2, 1], "wrong_signs": [0, 1, 0]}
        | {"abs_delta_sum": [1.0, 1.0, 2.0], "abs_error_sum": [0.5, 1.0, 2.0]}
        | {"smallest_delta": [0.5, 0.25, 1.0], "largest_delta": [1.0, 0.75, 2.0]}
    )
    row = pair_errors(errors, np.array([4, 7, 9]), "none", draws=5, seed=0)
    assert row["relative_error"] == pytest.approx(np.exp((0 + (2 - 1) / 3) / 20)), "the second of four pairs"
    assert (row["wrong_sign_share"], row["error_ratio"]) == pytest.approx((1 / 4, 3.5 / 4))
    assert (row["smallest_delta"], row["largest_delta"], row["pairs"], row["windows"]) == (0.25, 2.0, 4, 3)


def test_a_single_window_has_no_intervals_and_no_pair_has_no_numbers():
    errors = pl.DataFrame(
        {"window_id": [4], "error_class": [0], "pairs": [2], "wrong_signs": [1], "abs_delta_sum": [1.0]}
        | {"abs_error_sum": [1.0], "smallest_delta": [0.5], "largest_delta": [0.5]}
    )
    row = pair_errors(errors, np.array([4]), "none", draws=5, seed=0)
    assert (row["wrong_sign_share"], row["reason"]) == (0.5, "a single window of text: nothing to resample")
    assert not [name for name in row if name.endswith(("_low", "_high"))]
    nothing = pair_errors(errors.clear(), np.array([4]), "no pair is in it", draws=5, seed=0)
    assert nothing == {"windows": 1, "pairs": 0, "reason": "no pair is in it"}


def test_a_group_without_positions_says_so(path):
    sums, errors = (results.read(path, "with", name).clear() for name in ("attribution_sum", "attribution_error"))
    assert list(attribution_agreement(sums, errors)) == [{"draws": 1_000, "reason": "no position in the group"}]


def test_a_run_without_estimates_says_so_and_reads_no_fact(path):
    asked = []

    def ask(source):
        asked.append(source.relation)
        return results.read(path, "without", source.relation, columns=source.columns)

    found = ANALYSIS.compute(ask, ANALYSIS.parameters, None)["attribution_agreement"]
    assert asked == ["dim_run"]
    assert found["reason"].to_list() == ["not asked for with --effects: attribution"] * 6
    assert found.select(pl.exclude(*KEY, "reason")).null_count().row(0) == (6,) * (len(found.columns) - 3)
    for name in ("attribution_sum", "attribution_error"):
        assert results.read(path, "without", name).is_empty()


def test_sums_by_window_are_those_of_the_facts(path, facts):
    key = [*KEY, "neuron", "window_id"]
    sums = results.read(path, "with", "attribution_sum").sort(key)
    expected = facts.group_by(key).agg(pl.len(), pl.col("delta_loss", "attributed_delta_loss").abs().sum()).sort(key)
    assert sums.select(key).equals(expected.select(key))
    assert sums["positions"].to_list() == expected["len"].to_list()
    for name, column in (("abs_delta_sum", "delta_loss"), ("abs_attributed_sum", "attributed_delta_loss")):
        assert sums[name].to_numpy() == pytest.approx(expected[column].to_numpy(), abs=1e-9)


def test_analyze_stores_them(path, rows, monkeypatch):
    assert "attribution_agreement" in [one.name for one in registry.REGISTRY]
    given = {"parameters": {}, "code_version": "1", "seconds": 1.0}
    warehouse.store(path, "with", "attribution_agreement", {"attribution_agreement": rows}, **given)
    with warehouse.open(path) as opened:
        stored = opened.attribution_agreement(run_id="with").sort(*KEY, "decile")
    assert stored.drop("run_id", "layer").select(rows.columns).equals(rows.sort(*KEY, "decile"))
