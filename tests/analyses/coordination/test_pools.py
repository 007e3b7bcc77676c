"""Where random groups are drawn: outside the tested groups or in the whole layer, and which statistic needs which."""

import numpy as np
import polars as pl
import pytest

from rare_tokens.analyses import registry
from rare_tokens.analyses.coordination.activations import Activations
from rare_tokens.analyses.coordination.clusters import neuron_cluster
from rare_tokens.analyses.coordination.correlation import activation_correlation
from rare_tokens.analyses.coordination.cosine import cosine_similarity
from rare_tokens.analyses.coordination.dimension import effective_dimension
from rare_tokens.analyses.coordination.graph import GraphOptions, graph_modularity
from rare_tokens.analyses.coordination.mutual_information import mutual_information
from rare_tokens.analyses.coordination.neuron_groups import random_groups, stacks, with_controls
from rare_tokens.analyses.coordination.of_groups import of_pool
from rare_tokens.analyses.coordination.weight_spectra import weight_spectrum
from tests.support.layers import drawn, group, real_layer

NEURONS, K, DRAWS = 200, 8, 25
SMALLER = {"neuron_group": {"k": K, "draws": DRAWS}, "mutual_information": {"estimators": ["binned"], "bins": 4}}
SMALLER |= {"graph_modularity": {"louvain_runs": 2, "leiden_runs": 1, "spectral": [2], "resamples": 5}}
OF_THE_LAYER = {
    "effective_dimension",
    "neuron_cluster",
    "mutual_information",
    "graph_modularity",
    "cosine_similarity",
}  # the last: of activations


class Run:
    """What an analysis asks for, of a run whose first neurons have the largest influence and `mixed` signs."""

    def __init__(self, neurons=NEURONS, mixed=2):
        self.layer = drawn(positions=300, neurons=neurons)
        rng = np.random.default_rng(1)
        ranking = {
            "neuron": range(neurons),
            "rank": range(1, neurons + 1),
            "role": ["boost", "suppress"] * (neurons // 2),
        }
        vectors = {name: list(rng.standard_normal((neurons, 12))) for name in ("w_out", "w_in", "w_up")}
        self.tables = {
            "dim_neuron": pl.DataFrame({"neuron": range(neurons)}),
            "neuron_influence": pl.DataFrame(ranking),
            "neuron_sign": pl.DataFrame(
                {"neuron": range(neurons), "role": ranking["role"]}
                | {"settled_role": ["mixed"] * mixed + ranking["role"][mixed:], "reason": [None] * neurons}
            ),
            "neuron_deviation": pl.DataFrame({"neuron": range(neurons), "regime": ["power_law"] * neurons}),
            "neuron_weight": pl.DataFrame({"neuron": range(neurons)} | vectors),
        }

    def __call__(self, source):
        if source.relation == "activations":
            return self.layer.values, self.layer.windows
        frame = self.tables[source.relation]
        if source.preset == "nc-matched":
            return frame.clear()
        if "preset" in frame.columns:
            frame = frame.filter(preset=source.preset, token_group=source.token_group)
        return frame.select(source.columns or pl.all())

    def analysed(self, *names):
        """The relations that these analyses fill, as they are stored, by name."""
        for one in registry.REGISTRY:
            if one.name in names:
                parameters = {**one.parameters, **SMALLER.get(one.name, {})}
                if "resamples" in parameters:
                    parameters["resamples"] = 5
                for name, frame in one.compute(self, parameters, None).items():
                    self.tables[name] = frame.with_columns(run_id=pl.lit("run"), layer=pl.lit(1))
        return self.tables


@pytest.fixture(scope="module")
def stored():
    return Run().analysed("neuron_group", "activation_correlation", "weight_spectrum", "group_test", *OF_THE_LAYER)


def test_random_groups_of_both_pools_are_stored_and_tested_groups_have_none(stored):
    groups = stored["neuron_group"].filter(preset="es")
    tested, controls = (groups.filter((pl.col("draw") > 0) == drawn) for drawn in (False, True))
    assert tested["pool"].null_count() == len(tested) > 0
    sizes = controls.group_by("k", "pool", "draw").agg(pl.col("neuron").n_unique())
    assert (sizes["k"] == sizes["neuron"]).all()
    assert set(sizes["pool"]) == {"disjoint", "layer"}
    assert set(controls.group_by("k", "pool").agg(pl.col("draw").n_unique())["draw"]) == {DRAWS}
    taken = set(tested.filter(~pl.col("group_name").str.ends_with("_settled"))["neuron"].drop_nulls())
    assert not taken & set(controls.filter(pool="disjoint")["neuron"])
    assert taken & set(controls.filter(pool="layer")["neuron"])


def test_groups_of_settled_signs_change_no_random_group():
    """The draws are numpy's from the neurons outside the papers' groups, whatever signs are settled.

    With 16 mixed neurons of 200 the settled groups are 16 others: together more than a tenth of the layer, so that a
    pool that minded them would be smaller, or `layer` alone.
    """
    for mixed in (0, 2, 16):
        groups = Run(mixed=mixed).analysed("neuron_group")["neuron_group"].filter(preset="es")
        settled = groups.filter(pl.col("group_name").str.ends_with("_settled"))
        assert settled.group_by("group_name", maintain_order=True).agg("neuron").rows() == [
            (f"{role}_settled", list(range(mixed + i, mixed + i + 2 * K, 2)))
            for i, role in enumerate(("boost", "suppress"))
        ]
        drawn = groups.filter(group_name="control", k=K).sort("pool", "draw", "neuron")
        for pool, first in (("disjoint", 2 * K), ("layer", 0)):
            rng, candidates = np.random.default_rng([0, K]), np.arange(first, NEURONS)
            expected = [np.sort(rng.choice(candidates, K, replace=False)).tolist() for _ in range(DRAWS)]
            found = drawn.filter(pool=pool).group_by("draw", maintain_order=True).agg("neuron")
            assert found["neuron"].to_list() == expected, (mixed, pool)


def test_settled_signs_are_analysed_where_they_are_asked_for_and_nowhere_else(stored):
    names = ["boost_settled", "suppress_settled"]
    asked = [one for one in registry.REGISTRY if "group_names" in one.parameters]
    assert len(asked) > 5
    assert not [one.name for one in asked if set(names) & set(one.parameters["group_names"])]
    for name in ("activation_correlation", "effective_dimension", "weight_spectrum"):
        assert not set(names) & set(stored[name]["group_name"])
    run = Run(mixed=16)
    run.analysed("neuron_group")
    (one,) = (one for one in registry.REGISTRY if one.name == "effective_dimension")
    parameters = one.parameters | {"group_names": names, "resamples": 5}
    found = one.compute(run, parameters, None)["effective_dimension"]
    assert set(found["group_name"]) == {*names, "control"}
    value = found.filter(group_name="boost_settled")["participation_ratio"][0]
    members = list(range(16, 16 + 2 * K, 2))
    expected = participation(run.layer.values.astype(float), members)
    assert value == pytest.approx(expected, rel=1e-5)


def test_where_the_groups_hold_much_of_the_layer_there_is_only_the_layer():
    groups = Run(neurons=120).analysed("neuron_group")["neuron_group"]
    assert set(groups.filter(pl.col("draw") > 0)["pool"]) == {"layer"}
    chosen = of_pool(groups.filter(preset="es"), "disjoint")
    assert set(chosen["pool"]) == {"layer"}
    assert len(chosen) == len(groups.filter(preset="es"))


def test_every_statistic_is_compared_with_random_groups_of_one_pool(stored):
    for name in OF_THE_LAYER - {"cosine_similarity"}:
        assert set(stored[name]["pool"]) == {"layer"}, name
    assert set(stored["activation_correlation"]["pool"]) == {"disjoint"}
    spaces = stored["cosine_similarity"].select("space", "pool").unique().rows()
    assert sorted(spaces) == [("activation", "layer"), *((name, "disjoint") for name in ("w_in", "w_out", "w_up"))]
    spectra = stored["weight_spectrum"].filter(pl.col("group_name") != "layer")
    assert set(spectra["pool"]) == {"disjoint"}
    for name in (*OF_THE_LAYER, "activation_correlation", "weight_spectrum"):
        draws = stored[name].filter(group_name="control", preset=stored[name]["preset"][0])
        assert draws["draw"].n_unique() == DRAWS, name
    tests = stored["group_test"].filter(test="control")
    assert tests["reference_size"].max() == DRAWS, "never those of both"
    pools = dict(tests.filter(pl.col("statistic") != "mean_cosine").select("analysis", "pool").unique().rows())
    expected = {name: "layer" if name in OF_THE_LAYER else "disjoint" for name in pools}
    assert pools == expected


def test_a_dimension_is_that_of_the_stored_group_of_its_pool(stored):
    """The participation ratio of every draw from numpy's correlations of the neurons that `neuron_group` names."""
    values = Run().layer.values.astype(float)
    groups = stored["neuron_group"].filter(preset="es", group_name="control", pool="layer", k=K)
    found = stored["effective_dimension"].filter(preset="es", group_name="control", k=K).sort("draw")
    members = groups.sort("draw", "neuron")["neuron"].to_numpy().reshape(DRAWS, K)
    expected = [K**2 / (np.corrcoef(values[:, chosen].T) ** 2).sum() for chosen in members]
    np.testing.assert_allclose(found["participation_ratio"].to_numpy(), expected, rtol=1e-5)


def test_groups_are_read_with_one_pool(stored):
    groups = stored["neuron_group"].filter(preset="es")
    for pool in ("disjoint", "layer"):
        chosen = of_pool(groups, pool)
        assert set(chosen["pool"]) == {pool}, "a tested group says what it is compared with"
        controls = groups.filter(pool=pool)
        assert chosen.filter(group_name="control").select("draw", "neuron").equals(controls.select("draw", "neuron"))
    assert of_pool(groups.filter(pl.col("pool").is_null()), "disjoint")["draw"].unique().to_list() == [0]
    only = groups.filter(pl.col("pool").is_null() | (pl.col("pool") == "disjoint"))
    assert "control" not in set(of_pool(only, "layer")["group_name"]), "disjoint ones never stand in"


def test_random_groups_of_two_pools_are_refused():
    tested = group(0, 1, 2)
    both = [random_groups(tested, 40, draws=3, seed=0, pool=pool) for pool in ("disjoint", "layer")]
    with pytest.raises(ValueError, match=r"2 pools \(disjoint, layer\)"):
        stacks(pl.concat([tested, *both]))
    with pytest.raises(ValueError, match="2 pools"):
        effective_dimension(drawn(neurons=40), pl.concat([tested, *both]))


def participation(values, members):
    """(Σλ)²/Σλ² of the correlations: k² over the sum of their squares."""
    return len(members) ** 2 / (np.corrcoef(values[:, members].T) ** 2).sum()


def two_sided(value, controls):
    everything = np.append(controls, value)
    distance = np.abs(everything - np.median(everything))
    return np.mean(distance >= distance[-1] - 1e-12)


def test_random_groups_differ_in_dimension_from_disjoint_controls_and_not_from_the_layers():
    """Meaningless groups of 20, drawn by numpy, of a layer of noise in which 40 of 400 neurons are much alike.

    The tested groups are those 40. No disjoint control holds one of them; a random group holds two.
    """
    rng = np.random.default_rng(0)
    values = rng.standard_normal((300, 400))
    values[:, :40] += 2 * rng.standard_normal((300, 1))
    tested = pl.concat([group(*range(20)), group(*range(20, 40), name="suppress")])
    rejected = {}
    for pool in ("disjoint", "layer"):
        found = 0
        for seed in range(8):
            controls = with_controls(tested, 400, draws=99, seed=seed, pool=pool).filter(group_name="control")
            members = controls.sort("draw", "neuron")["neuron"].to_numpy().reshape(99, 20)
            known = np.array([participation(values, chosen) for chosen in members])
            null = [np.random.default_rng([seed, i]).choice(400, 20, replace=False) for i in range(50)]
            found += sum(two_sided(participation(values, chosen), known) <= 0.05 for chosen in null)
        rejected[pool] = found
    assert rejected["disjoint"] > 160  # of 400; measured 239
    assert 8 <= rejected["layer"] <= 36  # 20 expected; measured 14


def rejections(statistic, draws, repeats=5):
    """Share of 5 % tests that reject random groups, by the pool of their controls; see the test below."""
    null, *pools = (statistic(pl.concat(frame)).cast(pl.Float64).fill_null(np.nan).to_numpy() for frame in draws)
    shares = []
    for values in pools:
        known, rng = values[np.isfinite(values)], np.random.default_rng(0)
        samples = [rng.choice(known, 99, replace=False) for _ in range(repeats)]
        shares.append(np.mean([two_sided(v, chosen) <= 0.05 for chosen in samples for v in null[np.isfinite(null)]]))
    return shares


def random_group(pool, seed, draw):
    chosen = np.sort(np.random.default_rng(seed).choice(pool, 50, replace=False))
    return group(*chosen.tolist(), name="control", draw=draw)


@pytest.mark.slow
def test_what_needs_random_groups_from_the_whole_layer_of_a_real_model(real_inputs):
    """300 random groups of 50 of novella's last layer at step 1,024 against 99 controls, drawn from either pool.

    Taken as tested are the 100 of 1,024 neurons whose activations write most into the residual stream. Statistics in
    which the signs of correlations cannot cancel, and the uncentred cosine, reject random groups too often against
    disjoint controls; means of signed correlations and exponents of weights do not.
    """
    layer, weights = real_layer(real_inputs, windows=12, step="step1024")
    every = np.arange(layer.neurons)
    special = np.argsort(-layer.values.std(axis=0) * np.linalg.norm(weights, axis=1))[:100]
    pools = (every, np.setdiff1d(every, special), every)
    draws = [[random_group(pool, [21, i, draw], draw) for draw in range(1, 301)] for i, pool in enumerate(pools)]
    few, options = layer.sample(500, 0), GraphOptions(louvain_runs=10, leiden_runs=1, spectral=(), resamples=0)
    within = {"comparison": "within"}
    hurt = {
        "participation_ratio": lambda g: effective_dimension(layer, g)["participation_ratio"],
        "interpolated_dimension": lambda g: effective_dimension(layer, g)["interpolated_dimension"],
        "clusters": lambda g: neuron_cluster(layer, g, thresholds=[0.5])["clusters"],
        "cosine of activations": lambda g: cosine_similarity(g, activations=layer).filter(**within)["mean_cosine"],
        "modularity": lambda g: graph_modularity(layer, g, options=options).filter(method="louvain")["modularity"],
        "mutual information": lambda g: mutual_information(few, g, estimators=["binned"], bins=8).filter(**within)[
            "mean_information"
        ],
    }
    spared = {
        "correlation": lambda g: activation_correlation(layer, g).filter(**within)["mean_correlation"],
        "of magnitudes": lambda g: activation_correlation(layer.magnitudes, g).filter(**within)["mean_correlation"],
        "cosine of w_out": lambda g: cosine_similarity(g, weights={"w_out": weights}).filter(**within)["mean_cosine"],
        "alpha": lambda g: weight_spectrum({"w_out": weights}, g, rules=["mid"])["alpha"],
    }
    shares = {name: rejections(statistic, draws) for name, statistic in (hurt | spared).items()}
    assert all(shares[name][0] > 0.08 for name in hurt), shares  # measured 0.10 to 0.27
    assert all(shares[name][0] < 0.08 for name in spared), shares  # 0.02 to 0.06
    assert all(of_the_layer < 0.08 for _, of_the_layer in shares.values()), shares


def gated_layer(neurons=120, alike=30, positions=2_000, width=64, seed=0):
    """A gated MLP whose first gates look one way and whose up projections look anywhere: layer, gate and up vectors."""
    rng = np.random.default_rng(seed)
    gate, up = rng.standard_normal((2, neurons, width)) / np.sqrt(width)
    gate[:alike] += 1.5 * rng.standard_normal(width) / np.sqrt(width)
    inputs = rng.standard_normal((positions, width))
    opened = np.maximum(inputs @ gate.T, 0)
    values = (opened * (inputs @ up.T)).astype(np.float32)
    return Activations(values, np.arange(positions) // 100), gate, up


def test_gates_that_open_together_are_seen_in_magnitudes_and_gate_vectors_and_not_in_activations():
    layer, gate, up = gated_layer()
    groups = with_controls(group(*range(30)), 120, draws=39, seed=1, pool="layer")
    correlation = activation_correlation(layer, groups, spaces=("activation", "abs_activation"), resamples=20)
    cosine = cosine_similarity(groups, weights={"w_in": gate, "w_up": up})
    for column, frame, space, vectors in (
        ("mean_correlation", correlation, "activation", layer.values.T.astype(float)),
        ("mean_correlation", correlation, "abs_activation", np.abs(layer.values.T.astype(float))),
        ("mean_cosine", cosine, "w_in", gate),
        ("mean_cosine", cosine, "w_up", up),
    ):
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        matrix = np.corrcoef(vectors) if column == "mean_correlation" else unit @ unit.T
        rows = frame.filter(space=space, comparison="within")
        assert len(rows) == 40
        for row in rows.iter_rows(named=True):
            members = groups.filter(group_name=row["group_name"], draw=row["draw"])["neuron"].to_numpy()
            pairs = matrix[np.ix_(members, members)][np.triu_indices(30, 1)]
            assert row[column] == pytest.approx(pairs.mean(), abs=1e-6)
    value = {
        (frame["space"][0], row["group_name"]): row[column]
        for column, every in (("mean_correlation", correlation), ("mean_cosine", cosine))
        for frame in every.filter(comparison="within").partition_by("space", maintain_order=True)
        for row in frame.group_by("group_name").agg(pl.col(column).mean()).iter_rows(named=True)
    }
    assert abs(value["activation", "boost"]) < 0.05
    assert value["abs_activation", "boost"] > 3 * value["abs_activation", "control"]
    assert value["w_in", "boost"] > 0.5 > 5 * abs(value["w_up", "boost"])
    low_and_high = correlation.filter(space="abs_activation", group_name="boost", comparison="within").row(
        0, named=True
    )
    assert low_and_high["low"] < low_and_high["mean_correlation"] < low_and_high["high"]


def test_magnitudes_and_gates_are_measured_and_tested_by_default(stored):
    assert set(stored["activation_correlation"]["space"]) == {"activation", "abs_activation"}
    values = Run().layer.values.astype(float)
    groups = stored["neuron_group"].filter(preset="es", group_name="boost")["neuron"].to_numpy()
    for space, found in (("activation", values), ("abs_activation", np.abs(values))):
        row = stored["activation_correlation"].filter(space=space, group_name="boost", comparison="within")
        matrix = np.corrcoef(found[:, groups].T)
        assert row["mean_correlation"].item() == pytest.approx(matrix[np.triu_indices(K, 1)].mean(), abs=1e-6)
    tests = stored["group_test"].filter(group_name="boost", test="control", preset="es")
    settings = set(tests["setting"])
    for space in ("activation", "abs_activation", "w_out", "w_in", "w_up"):
        assert f"space={space}, comparison=within" in settings
    of_magnitudes = tests.filter(setting="space=abs_activation, comparison=within")
    assert of_magnitudes["p_value"].count() == 1
