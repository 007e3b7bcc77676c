"""The command `compare`: what it computes once, stores both ways, prints, and refuses."""

import json

import pytest

from rare_tokens import warehouse
from rare_tokens.analyses.across_runs import neuron_match
from rare_tokens.analyses.curve.power_law import power_law_line
from rare_tokens.common.parts import parts_root
from studies.synthetic.runs import make_parts

RUNS = {
    "one-main-aaaa": {"seed": 0},
    "two-main-bbbb": {"seed": 0, "model_seed": 5, "model": "other", "model_hash": "5" * 64},
    "zero-main-cccc": {"seed": 0, "ablation": "zero"},
    "text-main-dddd": {"seed": 1},
}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("compare") / "w.duckdb"
    for run_id, given in RUNS.items():
        folder = parts_root(path) / run_id
        make_parts(folder, positions=512, neurons=160, run_id=run_id, **given)
        warehouse.publish(path, folder, line=power_law_line, quiet=True)
    return path


@pytest.fixture
def few_draws(monkeypatch):
    monkeypatch.setattr(neuron_match, "DRAWS", 20)


def compared(commands, path, *runs):
    ended = commands("compare", "--warehouse", path, "--json", *runs)
    assert ended.code == 0, ended.err
    return json.loads(ended.out)


def test_two_models_on_the_same_text_are_matched_both_ways(commands, path, few_draws):
    found = compared(commands, path, "one", "two")
    assert [row["run_id"] for row in found["runs"]] == ["one-main-aaaa"] * 2 + ["two-main-bbbb"] * 2
    assert [row["token_group"] for row in found["pairs"]] == ["rare", "common"]
    with warehouse.open(path) as opened:
        for run_id, other in (("one-main-aaaa", "two-main-bbbb"), ("two-main-bbbb", "one-main-aaaa")):
            stored = opened.neuron_match(run_id=run_id).filter(other_run_id=other)
            assert len(stored) == 160
            assert stored["correlation"].null_count() == 0
        fits = opened.power_law_fit(run_id="one-main-aaaa", preset="es", token_group="rare")
    assert found["runs"][0]["kappa"] == fits["kappa"][0]
    assert found["pairs"][0]["first"] == fits["head_rank"][0]


def test_what_is_stored_is_not_computed_again_and_others_are_kept(commands, path, few_draws, monkeypatch):
    compared(commands, path, "one", "two", "text")
    calls = []
    monkeypatch.setattr(neuron_match, "neuron_match", lambda *_: calls.append("computed"))
    again = compared(commands, path, "two", "one")
    assert calls == []
    assert again["pairs"][0]["head_correlation"] is not None
    with warehouse.open(path) as opened:
        others = opened.neuron_match(run_id="one-main-aaaa")["other_run_id"].unique().to_list()
    assert sorted(others) == ["text-main-dddd", "two-main-bbbb"]


def test_other_text_and_the_same_neurons_are_not_matched_and_say_why(commands, path, few_draws):
    found = compared(commands, path, "one", "text", "zero")
    reasons = {(row["run_id"], row["other_run_id"]): row["reason"] for row in found["pairs"]}
    assert reasons["one-main-aaaa", "text-main-dddd"] == neuron_match.OTHER_POSITIONS
    assert "its own partner" in reasons["one-main-aaaa", "zero-main-cccc"]


def test_a_person_sees_two_tables(commands, path, few_draws):
    ended = commands("compare", "--warehouse", path, "one", "two", "--preset", "nc")
    assert ended.code == 0
    runs, pairs = ended.out.split("Each two of them")
    assert "Runs, preset nc" in runs
    assert "kappa" in runs
    assert "other" in runs, "what tells the two apart: their models"
    assert "two-main-bbbb" not in runs
    assert "head_correlation" in pairs
    assert "analyze" in ended.err


@pytest.mark.parametrize(
    ("runs", "said"),
    [
        (["one"], "One run cannot be compared"),
        (["one", "one"], "given twice"),
        (["one", "one-main-aaaa"], "given twice"),
        (["one", "nowhere"], "no run 'nowhere'"),
        (["one", "two", "--preset", "nc-matched"], "nc-matched"),
    ],
)
def test_what_cannot_be_compared_is_refused(commands, path, few_draws, runs, said):
    ended = commands("compare", "--warehouse", path, *runs)
    assert ended.code == 2
    assert said in ended.err
    assert ended.out == ""
