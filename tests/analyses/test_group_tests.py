"""Every relation's statistic is tested, under the names that the relations have."""

import numpy as np
import polars as pl
import pytest

from rare_tokens.analyses.coordination.clusters import neuron_cluster
from rare_tokens.analyses.coordination.correlation import activation_correlation
from rare_tokens.analyses.coordination.cosine import cosine_similarity
from rare_tokens.analyses.coordination.dimension import effective_dimension
from rare_tokens.analyses.coordination.graph import GraphOptions, graph_modularity
from rare_tokens.analyses.coordination.mutual_information import mutual_information
from rare_tokens.analyses.coordination.neuron_groups import with_controls
from rare_tokens.analyses.coordination.weight_spectra import weight_spectrum
from rare_tokens.analyses.group_tests import group_test
from rare_tokens.analyses.registry import REGISTRY
from rare_tokens.analyses.statistics import GROUP_TEST
from tests.support.layers import drawn, group

TESTED = [(analysis.name, tested.statistic) for analysis in REGISTRY for tested in analysis.tested]


@pytest.fixture(scope="module")
def results():
    layer = drawn(positions=600, neurons=120, strength=0.3)
    groups = pl.concat([group(*range(20)), group(*range(20, 40), name="suppress")])
    groups = with_controls(groups, 120, draws=39, pool="layer")
    weights = {"w_out": np.random.default_rng(0).standard_normal((120, 60))}
    options = GraphOptions(louvain_runs=3, leiden_runs=2, spectral=(2,), spectral_runs=2, resamples=10)
    return {
        "activation_correlation": activation_correlation(layer, groups, resamples=50),
        "cosine_similarity": cosine_similarity(groups, activations=layer, weights=weights, resamples=50),
        "effective_dimension": effective_dimension(layer, groups, resamples=50),
        "neuron_cluster": neuron_cluster(layer, groups),
        "mutual_information": mutual_information(layer, groups, contexts=100),
        "graph_modularity": graph_modularity(layer, groups, options=options),
        "weight_spectrum": weight_spectrum(weights, groups),
    }


def test_every_statistic_of_every_relation_is_tested(results):
    tests = group_test(results, REGISTRY)
    assert tests.schema == pl.Schema(GROUP_TEST)
    assert {(row["analysis"], row["statistic"]) for row in tests.iter_rows(named=True)} == set(TESTED)
    assert len(TESTED) == 10
    assert set(tests["group_name"]) == {"boost", "suppress"}
    assert set(tests["pool"]) == {"layer"}
    undefined = tests.filter(pl.col("p_value").is_null())
    assert undefined["reason"].null_count() == 0
    assert tests["p_value"].count() > 30
    both = tests.filter(analysis="activation_correlation", setting="space=activation, comparison=within")
    assert both["tests"].to_list() == [2, 2]
    assert both["low"].null_count() == 0


def test_the_cross_group_value_is_tested_against_pairs_of_random_groups(results):
    tests = group_test(results, REGISTRY)
    row = tests.filter(analysis="activation_correlation", setting="space=activation, comparison=groups").row(
        0, named=True
    )
    assert (row["group_name"], row["other_group"], row["reference_size"]) == ("boost", "suppress", 39)


def test_groups_of_two_sizes_have_no_random_pairs_and_overlapping_groups_no_comparison():
    layer = drawn(positions=200, neurons=60)
    three = pl.concat([group(0, 1, 2), group(3, 4, name="suppress"), group(0, 1, 5, name="plateau")])
    frame = activation_correlation(layer, with_controls(three, 60, draws=20), resamples=50)
    pairs = frame.filter(pl.col("group_name") != "control", pl.col("comparison") == "groups")
    assert pairs.select("group_name", "other_group").rows() == [("boost", "suppress"), ("suppress", "plateau")]
    tests = group_test({"activation_correlation": frame}, REGISTRY).filter(
        setting="space=activation, comparison=groups"
    )
    assert tests["p_value"].null_count() == 2
    assert tests["reason"].str.starts_with("0 random groups have a value").all()


def test_relations_that_are_absent_are_left_out(results):
    assert group_test({}, REGISTRY).is_empty()
    only = group_test({"neuron_cluster": results["neuron_cluster"]}, REGISTRY)
    assert set(only["analysis"]) == {"neuron_cluster"}


def test_no_relation_holds_nan_or_a_null_without_a_reason(results):
    values = {name: [] for name, _ in TESTED}
    for name, statistic in TESTED:
        values[name].append(statistic)
    for name, frame in results.items():
        for column in frame.columns:
            if frame.schema[column].is_float():
                assert not frame[column].is_nan().any(), (name, column)
        for column in values[name]:
            assert frame.filter(pl.col(column).is_null(), pl.col("reason").is_null()).is_empty(), (name, column)
