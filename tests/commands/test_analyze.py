"""`analyze`: what it fills, that it does so once, and what becomes of it when its run is replaced or removed."""

import json
import shutil
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from rare_tokens import warehouse
from rare_tokens.analyses import registry
from rare_tokens.analyses.coordination.of_groups import STAND_IN
from rare_tokens.analyses.curve.power_law import power_law_line
from rare_tokens.analyses.reference import published_values
from rare_tokens.commands import analyze
from rare_tokens.common.errors import UserError
from rare_tokens.common.parts import parts_root
from rare_tokens.warehouse import sandbox
from rare_tokens.warehouse.publish import results
from studies.synthetic.runs import make_parts
from tests.conftest import REPOSITORY
from tests.support.commands import exit_code

RUN = "synthetic-main-00000001"
OTHER = "synthetic-main-00000002"
RESULTS = [name for analysis in registry.REGISTRY for name in analysis.relations]
WITH_ATTENTION = {  # empty here: `ingest --attention`
    name for analysis in registry.REGISTRY if "dim_attention" in analysis.reads for name in analysis.relations
}
SMALLER = {
    "regimes": {"draws": 399, "resamples": 50},
    "influence_interval": {"draws": 50},
    "plateau_difference": {"draws": 50},
    "neuron_specificity": {"draws": 50, "permutations": 99},
    "ranking_overlap": {"draws": 50},
    "threshold_sensitivity": {"draws": 399, "resamples": 50},
    "neuron_group": {"k": 8, "draws": 25},
    "activation_correlation": {"resamples": 50},
    "cosine_similarity": {"resamples": 50},
    "effective_dimension": {"resamples": 50},
    "mutual_information": {"contexts": 100},
    "graph_modularity": {"louvain_runs": 3, "leiden_runs": 1, "threshold": 0.02, "spectral": [2], "resamples": 20},
}

LARGE_GROUP = {"neuron_group": SMALLER["neuron_group"] | {"k": 140}}


@pytest.fixture
def smaller(monkeypatch):
    """The same analyses with small groups and few draws."""
    monkeypatch.setattr(registry, "REGISTRY", smaller_registry())


def smaller_registry():
    return tuple(replace(one, parameters=one.parameters | SMALLER.get(one.name, {})) for one in registry.REGISTRY)


@pytest.fixture(scope="module")
def analysed(tmp_path_factory):
    """A warehouse of two runs, the first of them analysed."""
    path = tmp_path_factory.mktemp("analysed") / "rare_tokens.duckdb"
    for run_id, seed in ((RUN, 1), (OTHER, 2)):
        publish(path, run_id, seed)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(registry, "REGISTRY", smaller_registry())
        assert exit_code("analyze", RUN, "--warehouse", path, "--quiet") == 0
    return path


@pytest.fixture
def path(commands, analysed):
    """A copy of that warehouse where commands run."""
    return shutil.copy(analysed, commands.folder / "rare_tokens.duckdb")


def publish(path, run_id=RUN, seed=1):
    folder = parts_root(path) / run_id
    make_parts(folder, positions=768, neurons=200, seed=seed, run_id=run_id, zipf_share=0.8)
    warehouse.publish(path, folder, line=power_law_line, quiet=True)


def every_row(path, run_id=RUN):
    with warehouse.open(path) as opened:
        found = {name: opened.read(name) for name in [*RESULTS, "published_value"]}
    return {
        name: frame.filter(pl.col("run_id") == run_id) if name in RESULTS else frame for name, frame in found.items()
    }


def test_analyze_fills_every_relation(path):
    found = every_row(path)
    assert {name for name, frame in found.items() if frame.is_empty()} == WITH_ATTENTION
    assert found["published_value"].equals(published_values())
    boost = found["graph_modularity"].filter(pl.col("group_name") == "boost")
    assert boost["signed_modularity"].count() > 0, "the groups were formed and measured"
    tested = found["group_test"].filter(pl.col("p_value").is_not_null())
    assert {"activation_correlation", "graph_modularity", "weight_spectrum"} <= set(tested["analysis"])
    stored = warehouse.stored(path, RUN)
    assert stored.pop("ranking_overlap_across").parameters["runs"][0][0] == RUN  # with the other run of the layer
    assert {name: one.parameters for name, one in stored.items()} == {
        one.name: dict(one.parameters) for one in smaller_registry()
    }


def test_a_second_time_does_nothing(commands, path, smaller):
    before = path.read_bytes()
    second = commands("analyze", RUN)
    assert second.code == 0, second.err
    assert (second.out, "stored already" in second.err) == ("", True)
    assert json.loads(commands("analyze", RUN, "--json").out) == []
    assert path.read_bytes() == before


def test_no_number_that_is_stored_is_nan_and_a_null_has_its_reason(path):
    for name, frame in every_row(path).items():
        for column, kind in frame.schema.items():
            values = frame[column].explode() if isinstance(kind, pl.List) else frame[column]
            if values.dtype.is_float():
                assert values.drop_nulls().is_finite().all(), (name, column)
    dimension = every_row(path)["effective_dimension"]
    assert dimension.filter(pl.col("dimension").is_null() & pl.col("reason").is_null()).is_empty()


@pytest.mark.slow
def test_groups_larger_than_the_layer_are_null_with_a_reason(commands, path, monkeypatch):
    needed = {"regimes", "neuron_group", "activation_correlation", "effective_dimension", "group_test"}
    chosen = [one for one in smaller_registry() if one.name in needed]
    large = [replace(one, parameters=one.parameters | LARGE_GROUP.get(one.name, {})) for one in chosen]
    monkeypatch.setattr(registry, "REGISTRY", large)
    ended = commands("analyze", OTHER, "--quiet")
    assert ended.code == 0, ended.err
    found = every_row(path, OTHER)
    tested = found["effective_dimension"].filter(pl.col("group_name") == "boost")
    assert tested["dimension"].to_list() == [None]
    assert "140 are needed" in tested["reason"].item()
    of_pairs = found["group_test"].filter(
        pl.col("analysis") == "activation_correlation", pl.col("group_name").is_in(["boost", "suppress"])
    )
    assert len(of_pairs) > 0
    assert of_pairs["p_value"].drop_nulls().is_empty()
    assert found["regime_decision"]["ranks"].to_list() == [200] * 6


@pytest.mark.slow
def test_another_run_adds_its_rows_and_delete_and_publish_clear_them(commands, path, smaller):
    before = every_row(path)["influence_interval"]
    other = commands("analyze", "--json")
    assert {row["run_id"] for row in json.loads(other.out)} == {OTHER}
    assert [row["analysis"] for row in json.loads(other.out)] == [one.name for one in registry.REGISTRY]
    assert every_row(path)["influence_interval"].equals(before)
    assert commands("delete", RUN).code == 0
    assert not [name for name in RESULTS if len(every_row(path)[name])]
    assert all(len(every_row(path, OTHER)[name]) for name in set(RESULTS) - WITH_ATTENTION)
    publish(path, OTHER, seed=3)
    assert warehouse.stored(path, OTHER) == {}
    assert not [name for name in RESULTS if len(every_row(path, OTHER)[name])]


def test_only_what_changed_and_what_reads_it_is_computed_again(smaller):
    stored = {one.name: dict(one.parameters) for one in registry.REGISTRY}
    assert registry.due(stored) == []
    assert [one.name for one in registry.due(stored, again=True)] == list(stored)
    stored["graph_modularity"]["seed"] = 7
    assert [one.name for one in registry.due(stored)] == ["graph_modularity", "group_test"]
    del stored["neuron_group"]
    due = {one.name for one in registry.due(stored)}
    without_groups = {"regimes", "influence_slope", "influence_interval", "plateau_difference"}
    without_groups |= {"threshold_sensitivity", "attribution_agreement", "attention_routing"}
    without_groups |= {"neuron_specificity", "ranking_overlap"}
    assert due == set(stored) - without_groups | {"neuron_group"}


@pytest.mark.slow
def test_positions_asked_for_are_added_to_what_is_stored(commands, path, smaller):
    before = every_row(path)
    ended = commands("analyze", RUN, "--positions", "all", "--json")
    assert ended.code == 0, ended.err
    analysed = {row["analysis"] for row in json.loads(ended.out)}
    assert analysed == {one.name for one in registry.REGISTRY if "token_groups" in one.parameters}
    after = every_row(path)
    correlation = after["activation_correlation"]
    rare = correlation.filter(pl.col("token_group") == "rare")
    assert rare.equals(before["activation_correlation"])
    everywhere = correlation.filter(token_group="all", group_name="boost", space="activation")
    assert everywhere["positions"].unique().to_list() == [768]
    values, _ = warehouse.activations(path, RUN)
    boost = after["neuron_group"].filter(pl.col("preset") == "es", pl.col("group_name") == "boost")["neuron"].to_list()
    matrix = np.corrcoef(values[:, boost].astype(np.float64).T)
    within = everywhere.filter(pl.col("comparison") == "within")["mean_correlation"].item()
    assert within == pytest.approx(matrix[np.triu_indices(len(boost), 1)].mean(), abs=1e-6)
    assert set(after["group_test"]["token_group"]) == {"rare", "all"}
    assert json.loads(commands("analyze", RUN, "--json").out) == [], "what is stored is not lost by asking for less"
    refused = commands("analyze", RUN, "--positions", "nowhere")
    assert refused.code == 2
    assert "nowhere" in refused.err


def test_without_a_plateau_the_top_percent_stands_in(path):
    chosen = every_row(path)["neuron_group"]
    for preset in ("es", "nc"):
        formed = set(chosen.filter(pl.col("preset") == preset, pl.col("neuron").is_not_null())["group_name"])
        relation = {"es": "effective_dimension", "nc": "graph_modularity"}[preset]
        measured = every_row(path)[relation].filter(pl.col("preset") == preset)
        asked = next(one for one in registry.REGISTRY if one.name == relation).parameters["group_names"]
        for name in asked:
            rows = measured.filter(pl.col("group_name") == name)
            assert len(rows), f"{name} is a row even where it is not formed"
            if name in STAND_IN:
                stand_in = measured.filter(pl.col("group_name") == STAND_IN[name])
                assert stand_in.is_empty() == (name in formed)


@pytest.mark.slow
def test_again_computes_the_same_rows(commands, path, smaller):
    before = every_row(path)
    again = commands("analyze", RUN, "--again", "--json")
    done = [(row["run_id"], row["analysis"]) for row in json.loads(again.out)]
    of_runs = ["ranking_overlap_across"]  # of both runs of this warehouse together
    assert [name for run_id, name in done if run_id == RUN] == [one.name for one in registry.REGISTRY] + of_runs
    assert [name for run_id, name in done if run_id != RUN] == of_runs
    after = every_row(path)
    assert {name: after[name].equals(before[name]) for name in RESULTS} == dict.fromkeys(RESULTS, True)


def test_what_an_older_version_computed_is_said(commands, path, smaller, monkeypatch):
    monkeypatch.setattr(analyze, "VERSION", "99.0.0")
    ended = commands("analyze", RUN)
    assert ended.code == 0
    assert "--again computes it with 99.0.0" in ended.err


@pytest.mark.parametrize(("arguments", "said"), [(["nothing"], "There is no run 'nothing'"), ([], "no published run")])
def test_nothing_to_analyse_is_the_user_s_error(commands, arguments, said):
    ended = commands("analyze", *arguments)
    assert ended.code == 2
    assert said in ended.err
    assert not any(commands.folder.iterdir()), "an absent warehouse is not made"


def test_a_result_of_a_run_that_changed_meanwhile_is_not_stored(path):
    frame = every_row(path)["regime_fit"].drop(["run_id", "layer"])
    given = {"parameters": {}, "code_version": "1", "seconds": 1.0}
    with pytest.raises(UserError, match="published again"):
        warehouse.store(path, RUN, "regimes", {"regime_fit": frame}, published_at="another time", **given)
    with pytest.raises(UserError, match="was removed"):
        warehouse.store(path, "gone", "regimes", {"regime_fit": frame}, **given)


def test_not_a_number_is_stored_as_null(path):
    row = {"preset": ["es"], "token_group": ["rare"], "quantity": ["kappa"], "estimate": [float("nan")]}
    frame = pl.DataFrame(row | {"low": [float("-inf")], "high": [1.5]})
    given = {"parameters": {}, "code_version": "1", "seconds": 1.0}
    assert warehouse.store(path, RUN, "influence_interval", {"influence_interval": frame}, **given) == 1
    (stored,) = every_row(path)["influence_interval"].rows(named=True)
    assert (stored["estimate"], stored["low"], stored["high"]) == (None, None, 1.5)


def test_activations_are_those_of_the_positions_in_their_order(path, monkeypatch):
    monkeypatch.setattr(results, "FACTS_PER_READ", 5_000)  # several blocks of neurons
    values, windows = warehouse.activations(path, RUN, preset="es", token_group="rare")
    with warehouse.open(path) as opened:
        chosen = opened.position_group(run=RUN, preset="es", token_group="rare")["position_id"].sort().to_list()
        facts = opened.fct_effect(run=RUN, neuron=41).sort("position_id")
        position = opened.dim_position(run=RUN).sort("position_id")
    assert values.shape == (len(chosen), 200)
    assert values[:, 41].tolist() == facts["activation"].gather(chosen).to_list()
    assert windows.tolist() == position["window_id"].gather(chosen).to_list()
    everything, _ = warehouse.activations(path, RUN)
    assert everything.shape == (768, 200)
    none, _ = warehouse.activations(path, RUN, preset="es", token_group="nothing")
    assert none.shape == (0, 200)


@pytest.mark.slow
def test_the_report_shows_what_was_decided_and_says_what_lacks_it(commands, path):
    ended = commands("report", "--no-analyze", "--out", "page", "--json")
    assert ended.code == 0, ended.err
    assert json.loads(ended.out) == [{"report": "page/index.html"}]
    assert f"Without intervals and decisions for {OTHER}: `rare-tokens analyze` computes them" in ended.err
    shown = json.loads((commands.folder / "page" / "report.json").read_text(encoding="utf-8"))
    assert {row["run_id"] for row in shown["runs"]} == {RUN, OTHER}


def test_the_slopes_stored_are_those_of_the_mart(path):
    with warehouse.open(path) as opened:
        mart = opened.neuron_deviation(run=RUN).sort("preset", "token_group", "rank")
    stored = every_row(path)["influence_slope"].sort("preset", "token_group", "rank")
    both = mart.join(stored, on=["preset", "token_group", "rank"], suffix="_stored")
    assert len(both) == len(stored) > 0
    assert both["local_slope"].is_null().equals(both["local_slope_stored"].is_null())
    known = both.drop_nulls("local_slope")
    assert known["local_slope"].to_numpy() == pytest.approx(known["local_slope_stored"].to_numpy(), rel=1e-9)


OF_MORE_THAN_HERE = {"training", "heads", "nc_patching"}  # what these runs have nothing of: a series, attention
QUERIES = sorted((REPOSITORY / "docs" / "queries").glob("*.sql"))


@pytest.mark.parametrize("query", QUERIES, ids=[query.stem for query in QUERIES])
def test_the_queries_of_the_documents_run(analysed, query):
    found = sandbox.answer(analysed, query.read_text(encoding="utf-8"))  # as the command `sql`, without its process
    assert bool(found.num_rows) == (query.stem not in OF_MORE_THAN_HERE)
