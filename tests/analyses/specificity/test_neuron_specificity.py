"""`neuron_specificity` against own loops, against every permutation there is, and on draws with a known truth."""

import itertools

import numpy as np
import polars as pl
import pytest

from rare_tokens import warehouse
from rare_tokens.analyses.curve.power_law import power_law_line
from rare_tokens.analyses.specificity import neuron_specificity as module
from rare_tokens.analyses.specificity.contrasts import Contrasting, Contrasts
from rare_tokens.analyses.specificity.neuron_specificity import (
    NO_EFFECT,
    SINGLE_WINDOW,
    neuron_rows,
    neuron_specificity,
    permutation_tests,
    specific_to,
)
from rare_tokens.analyses.specificity.strata import NO_COMMON, NO_MIXED, NO_RARE, permuted_labels, strata
from rare_tokens.common.parts import parts_root
from rare_tokens.warehouse.publish import results
from studies.synthetic.runs import make_parts

RUN = "synthetic-main-00000000"
PARAMETERS = {"draws": 60, "permutations": 99, "seed": 0}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("specificity") / "w.duckdb"
    make_parts(parts_root(path) / RUN, positions=1_024, neurons=40)
    warehouse.publish(path, parts_root(path) / RUN, line=power_law_line, quiet=True)
    return path


def ask_of(path, run_id=RUN):
    def ask(source):
        if source.relation == "effects":
            return results.Magnitudes(path, run_id)
        return results.read(path, run_id, source.relation, columns=source.columns)

    return ask


@pytest.fixture(scope="module")
def rows(path):
    return neuron_specificity(ask_of(path), **PARAMETERS)


@pytest.fixture(scope="module")
def facts(path):
    """Every position with its loss, window, token and groups, and |Δ| of every neuron there, by plain SQL."""
    with warehouse.open(path) as opened:
        positions = opened.sql(
            "select position_id, window_id, loss, is_word and starts_word as starts from dim_position"
            " join dim_run using (run_id) join dim_token"
            " on dim_run.tokenizer_id = dim_token.tokenizer_id and target_token_id = token_id order by position_id"
        )
        groups = opened.sql("select preset, token_group, position_id from position_group")
        effects = opened.sql("select neuron, position_id, delta_loss from fct_effect")
    delta = np.zeros((40, 1_024))
    delta[effects["neuron"].to_numpy(), effects["position_id"].to_numpy()] = effects["delta_loss"].to_numpy()
    return positions, groups, np.abs(delta)


def sides(facts, preset, matching):
    positions, groups, _ = facts
    starts = set(positions.filter("starts")["position_id"].to_list())
    found = []
    for side in ("rare", "common"):
        ids = groups.filter(preset=preset, token_group=side)["position_id"].to_list()
        found.append([i for i in ids if matching == "loss" or i in starts])
    return found


def log_ratios(delta, loss, rare, common, edges):
    """C of every neuron, by the formula, a loop over the strata."""
    stratum = [sum(value >= edge for edge in edges) for value in loss]
    expected = np.zeros(len(delta))
    for k in range(10):
        of_rare, of_common = ([i for i in side if stratum[i] == k] for side in (rare, common))
        if of_rare:
            expected += len(of_rare) / len(rare) * delta[:, of_common].mean(axis=1)
    return np.log(delta[:, rare].mean(axis=1)) - np.log(expected)


@pytest.mark.parametrize("preset", ["es", "nc", "ds"])
@pytest.mark.parametrize("matching", ["loss", "loss+word"])
def test_ratios_are_those_of_the_formula(rows, facts, preset, matching):
    rare, common = sides(facts, preset, matching)
    loss, delta = facts[0]["loss"].to_numpy(), facts[2]
    edges = np.percentile(loss[rare], range(10, 100, 10))
    found = rows.filter(preset=preset, matching=matching).sort("neuron")
    assert set(found["rare_positions"]) == {len(rare)}
    assert set(found["common_positions"]) == {len(common)}
    own = log_ratios(delta, loss, rare, common, edges)
    assert np.exp(own - np.median(own)) == pytest.approx(found["ratio"].to_numpy(), rel=1e-6)


def test_intervals_are_those_of_resampled_windows(facts):
    """The same samples of windows, each position repeated as often as its window is drawn."""
    positions, _, delta = facts
    rare, common = sides(facts, "es", "loss")
    loss, window = positions["loss"].to_numpy(), positions["window_id"].to_numpy()
    is_rare, is_common = (np.isin(np.arange(1_024), side) for side in (rare, common))
    contrasting = Contrasting(strata(loss, window, is_rare, is_common), draws=5, permutations=1, seed=3)
    contrasting.add(delta)
    held = np.unique(window[[*rare, *common]])
    rng = np.random.default_rng(3)
    weights = rng.multinomial(len(held), np.full(len(held), 1 / len(held)), size=5)
    edges = np.percentile(loss[rare], range(10, 100, 10))
    for sample, counts in enumerate(weights):
        times = dict(zip(held.tolist(), counts.tolist(), strict=True))
        drawn = [[i for i in side for _ in range(times[window[i]])] for side in (rare, common)]
        own = log_ratios(delta, loss, *drawn, edges)
        assert contrasting.result().resampled[:, sample] == pytest.approx(own, rel=1e-9)


def test_p_values_are_the_shares_of_all_permutations():
    """Two cells of 6 and 5 positions have 150 labellings: all are looked at."""
    rng = np.random.default_rng(5)
    loss, window = np.full(11, 2.0), np.array([0] * 6 + [1] * 5)
    rare = np.isin(np.arange(11), [0, 1, 6, 7])
    delta = rng.lognormal(size=(7, 11))
    delta[2, rare] *= 20
    contrasting = Contrasting(strata(loss, window, rare, ~rare), draws=0, permutations=20_000, seed=0)
    contrasting.add(delta)
    found = permutation_tests(contrasting.result())
    every = []
    for first, second in itertools.product(
        itertools.combinations(range(6), 2), itertools.combinations(range(6, 11), 2)
    ):
        chosen = np.isin(np.arange(11), [*first, *second])
        c = np.log(delta[:, chosen].mean(axis=1)) - np.log(delta[:, ~chosen].mean(axis=1))
        every.append(c - np.median(c))
    every = np.array(every)
    own = np.log(delta[:, rare].mean(axis=1)) - np.log(delta[:, ~rare].mean(axis=1))
    t = np.abs(every) / every.std(axis=0)
    own_t = np.abs(own - np.median(own)) / every.std(axis=0)
    assert found.p_value == pytest.approx((t >= own_t - 1e-9).mean(axis=0), abs=0.015)
    assert found.adjusted == pytest.approx((t.max(axis=1)[:, None] >= own_t - 1e-9).mean(axis=0), abs=0.015)


def test_the_detectable_ratio_is_where_the_adjusted_p_falls_below_the_level():
    rng = np.random.default_rng(3)
    permuted = rng.normal(0, rng.uniform(0.02, 0.2, (30, 1)), (30, 199)).astype(np.float32)
    found = permutation_tests(Contrasts(np.zeros(30), np.zeros((30, 0)), permuted))
    for neuron in range(30):
        for factor, is_below in ((1.001, True), (0.999, False)):
            own = np.zeros(30)
            own[neuron] = factor * found.detectable[neuron]
            after = permutation_tests(Contrasts(own, np.zeros((30, 0)), permuted))
            assert (after.adjusted[neuron] < 0.05) == is_below
    few = permutation_tests(Contrasts(np.zeros(30), np.zeros((30, 0)), permuted[:, :15]))
    assert np.isnan(few.detectable).all()  # 15 permutations cannot reach the level


def test_labels_change_places_only_within_window_and_stratum():
    rng = np.random.default_rng(0)
    loss, window = rng.gamma(2, 2, 400), np.repeat(np.arange(8), 50)
    rare = rng.random(400) < 0.2
    found = strata(loss, window, rare, ~rare)
    places, labels = permuted_labels(found, 50, seed=1)
    assert set(labels.ravel().tolist()) == {0, 1}
    cells = list(zip(found.stratum.tolist(), found.window.tolist(), strict=True))
    own = found.is_rare[places]
    for cell in set(cells):
        chosen = [row for row, place in enumerate(places) if cells[place] == cell]
        assert (labels[chosen].sum(axis=0) == own[chosen].sum()).all()
    assert len({column.tobytes() for column in labels.T}) == 50


def test_blocks_of_neurons_change_nothing():
    rng = np.random.default_rng(0)
    loss, window, rare = rng.gamma(2, 2, 300), np.repeat(np.arange(6), 50), rng.random(300) < 0.3
    delta = rng.lognormal(size=(12, 300)).astype(np.float32)
    found = strata(loss, window, rare, ~rare)
    whole, parts = (Contrasting(found, draws=20, permutations=30, seed=0) for _ in range(2))
    whole.add(delta)
    for first in (0, 5, 9):
        parts.add(delta[first : {0: 5, 5: 9, 9: 12}[first]])
    for name in ("own", "resampled", "permuted"):
        assert getattr(whole.result(), name) == pytest.approx(getattr(parts.result(), name), abs=1e-6)


def drawn(seed, ratio=1.0, neurons=60, positions=2_048):
    """|Δ| that depends on the loss alone, rare labels that depend on the loss too; neuron 7 is planted."""
    rng = np.random.default_rng(seed)
    loss, window = rng.gamma(2, 1.5, positions), np.repeat(np.arange(positions // 128), 128)
    rare = rng.random(positions) < np.clip(loss / 12, 0.02, 0.9)
    delta = rng.lognormal(-5, 0.6, (neurons, positions)) * (0.1 + loss) * rng.lognormal(0, 1, (neurons, 1))
    delta[7, rare] *= ratio
    contrasting = Contrasting(strata(loss, window, rare, ~rare), draws=50, permutations=400, seed=seed)
    contrasting.add(delta.astype(np.float32))
    return pl.DataFrame(list(neuron_rows(np.arange(neurons), contrasting.result())), infer_schema_length=None)


def test_labels_that_mean_nothing_beyond_the_loss_are_rarely_rejected():
    found = [drawn(seed) for seed in range(20)]
    share = np.mean([(one["p_value"] < 0.05).mean() for one in found])
    assert 0.03 < share < 0.07
    assert sum((one["adjusted_p_value"] < 0.05).any() for one in found) <= 4


def test_a_planted_neuron_is_found_and_no_other():
    found = [drawn(seed, ratio=1.5) for seed in range(10)]
    planted = [one.row(7, named=True) for one in found]
    assert sum(row["specific_to"] == "rare" for row in planted) >= 9
    assert np.mean([row["ratio"] for row in planted]) == pytest.approx(1.5, rel=0.05)
    assert sum(row["ratio_low"] < 1.5 < row["ratio_high"] for row in planted) >= 8
    assert sum(one["specific_to"].is_not_null().sum() for one in found) <= 12


def test_without_the_strata_every_neuron_would_look_rare():
    """What the matching is for: rare targets are harder, and every |Δ| rises with the loss."""
    rng = np.random.default_rng(0)
    loss = rng.gamma(2, 1.5, 4_096)
    rare = rng.random(4_096) < np.clip(loss / 12, 0.02, 0.9)
    delta = rng.lognormal(-5, 1, (20, 4_096)) * (0.1 + loss)
    plain = np.log(delta[:, rare].mean(axis=1) / delta[:, ~rare].mean(axis=1))
    matched = Contrasting(strata(loss, np.repeat(np.arange(32), 128), rare, ~rare), draws=0, permutations=1, seed=0)
    matched.add(delta)
    assert plain.min() > 0.3
    assert np.abs(np.median(matched.result().own)) < 0.05


@pytest.mark.parametrize(
    ("ratio", "adjusted", "said"),
    [(1.26, 0.049, "rare"), (1.25, 0.01, None), (0.8, 0.01, None), (0.79, 0.01, "common"), (3.0, 0.05, None)],
)
def test_when_a_neuron_is_called_specific(ratio, adjusted, said):
    assert specific_to(ratio, adjusted) == said


def test_positions_that_cannot_be_compared_say_why():
    loss, window, none = np.arange(20.0), np.zeros(20, dtype=int), np.zeros(20, dtype=bool)
    some = np.arange(20) < 8
    assert strata(loss, window, none, some).reason == NO_RARE
    assert strata(loss, window, some, none).reason == NO_COMMON
    apart = strata(loss, window, some, ~some).reason  # common positions are all harder than the rare ones
    assert apart == "no common position has a loss below 0.70 nats, as rare ones have"
    above = strata(loss, window, ~some, some).reason
    assert above == "no common position has a loss from 9.10 to 10.20 nats, as rare ones have"
    each = np.arange(20)  # a window each: nothing can change places
    alternating = np.arange(20) % 2 == 0
    assert not strata(np.ones(20), each, alternating, ~alternating).mixed().any()


def test_a_run_whose_presets_cannot_be_compared_has_a_row_that_says_so(tmp_path):
    path = tmp_path / "w.duckdb"
    make_parts(parts_root(path) / RUN, positions=256, neurons=20, window=1)
    warehouse.publish(path, parts_root(path) / RUN, line=power_law_line, quiet=True)
    found = neuron_specificity(ask_of(path), **PARAMETERS)
    assert len(found) == 6
    assert found["neuron"].null_count() == 6
    assert NO_MIXED in found["reason"].to_list()
    assert found["reason"].null_count() == 0


def test_one_window_has_a_test_and_no_interval(tmp_path):
    path = tmp_path / "w.duckdb"
    make_parts(parts_root(path) / RUN, positions=512, neurons=20, window=512)
    warehouse.publish(path, parts_root(path) / RUN, line=power_law_line, quiet=True)
    found = neuron_specificity(ask_of(path), **PARAMETERS).filter(preset="nc", matching="loss")
    assert found["p_value"].null_count() == 0
    assert found["ratio_low"].null_count() == len(found) == 20
    assert set(found["reason"]) == {SINGLE_WINDOW}


def test_a_neuron_without_effects_has_no_ratio_and_changes_none_of_the_others():
    rng = np.random.default_rng(0)
    permuted = rng.normal(size=(5, 99)).astype(np.float32)
    own = rng.normal(size=5)
    dead = np.full((1, 99), -np.inf, dtype=np.float32)
    with_dead = permutation_tests(Contrasts(np.append(own, -np.inf), np.zeros((6, 0)), np.vstack([permuted, dead])))
    without = permutation_tests(Contrasts(own, np.zeros((5, 0)), permuted))
    assert with_dead.adjusted[:5] == pytest.approx(without.adjusted)
    assert with_dead.specificity[:5] == pytest.approx(without.specificity)
    contrasts = Contrasts(np.append(own, -np.inf), np.zeros((6, 0)), np.vstack([permuted, dead]))
    last = list(neuron_rows(np.arange(6), contrasts))[-1]
    assert NO_EFFECT in last["reason"]
    assert "ratio" not in last
    assert "p_value" not in last


def test_what_is_stored_is_what_the_schema_says(rows):
    assert rows.schema == pl.Schema(module.NEURON_SPECIFICITY)
    assert len(rows) == 6 * 40
    assert rows.filter(pl.col("reason").is_not_null())["ratio_low"].null_count() == len(
        rows.filter(pl.col("reason").is_not_null())
    )
