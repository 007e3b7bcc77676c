"""docs/findings.md: it says what the answers say, and every answer has a query that runs."""

import json

import pytest

from rare_tokens import warehouse
from studies.findings import page
from studies.findings.claims import CLAIMS, QUERIES
from studies.findings.measure import RESULTS
from tests.support.mart_rows import empty_warehouse, given, given_run

COLUMNS = ["run_id", "preset", "measured", "verdict"]
VERDICTS = {"holds", "partly", "contradicted", "not contradicted", "not found", "undecided", "measured"}


@pytest.fixture(scope="module")
def answers():
    return page.Answers(json.loads(RESULTS.read_text(encoding="utf-8")))


def test_the_page_is_what_the_template_makes_of_the_answers():
    assert page.PAGE.read_text(encoding="utf-8") == page.rendered()


def test_every_claim_has_a_query_and_every_query_a_claim():
    assert {claim.query for claim in CLAIMS} == set(QUERIES.glob("*.sql"))
    assert len({claim.name for claim in CLAIMS}) == len(CLAIMS)


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
def test_every_query_runs_and_gives_an_answer_per_run_and_preset(claim, tmp_path):
    with warehouse.open(tmp_path / "absent.duckdb") as opened:
        found = opened.sql(claim.query.read_text(encoding="utf-8"))
    assert found.columns in (COLUMNS, [*COLUMNS, "claim"])
    assert claim.answered(found).columns == COLUMNS
    assert claim.query.read_text(encoding="utf-8").startswith("-- ")


def test_every_claim_was_asked_of_the_real_model_and_of_the_series(answers):
    for claim in CLAIMS:
        rows = answers.claims[claim.name]
        assert {row["verdict"] for row in rows} <= VERDICTS, claim.name
        keys = [(row["run_id"], row["preset"]) for row in rows]
        assert len(set(keys)) == len(keys), claim.name
        assert {run_id for run_id, _ in keys} <= answers.runs.keys()
    assert {run["ablation"].partition(":")[0] for run in answers.runs.values() if "SmolLM2" in run["model"]} == {
        "mean", "zero", "resample", "optimal",
    }  # fmt: skip
    series = [run for run in answers.runs.values() if run["model"] == "novella"]
    assert len({run["training_step"] for run in series}) == 6
    assert {run["layer"] for run in series} == {0, 1, 2, 3}


def test_a_preset_or_run_that_is_not_there_is_an_error_and_no_number(answers):
    with pytest.raises(LookupError, match="0 answers"):
        answers.one("regimes", "SmolLM2", "no preset")


def test_verdicts_are_shortened_only_where_all_agree():
    rows = [{"preset": "es", "verdict": "holds"}, {"preset": "nc", "verdict": "holds"}]
    assert page.verdicts(rows) == "**holds**"
    assert page.verdicts([*rows, {"preset": "ds", "verdict": "undecided"}]).count("<br>") == 2
    assert page.counted([{"verdict": "holds"}, {"verdict": "undecided"}, {"verdict": "holds"}]) == (
        "holds 2, undecided 1 (of 3)"
    )
    assert page.counted([{"verdict": "measured"}]) == page.NOTHING


# ---- the rules of the verdicts, on made-up rows ----


def asked(con, name):
    """Verdicts by preset."""
    (claim,) = (claim for claim in CLAIMS if claim.name == name)
    found = claim.answered(con.sql(claim.query.read_text(encoding="utf-8")).pl())
    return dict(found.select("preset", "verdict").rows())


def given_tests(con, analysis, statistic, setting, *groups):
    columns = (
        "run_key, preset, token_group, analysis, statistic, setting, group_name, test, value, reference_mean, p_holm"
    )
    rows = [
        (1, preset, "rare", analysis, statistic, setting, group, "control", value, 0.01, p)
        for preset, group, value, p in groups
    ]
    given(con, "group_test", columns, *rows)


@pytest.fixture
def con():
    with empty_warehouse() as con:
        given_run(con)
        yield con


def test_a_claim_about_groups_holds_only_if_all_groups_are_so(con):
    given_tests(
        con, "activation_correlation", "mean_correlation", "space=activation, comparison=within",
        ("es", "boost", 0.05, 0.01), ("es", "suppress", 0.04, 0.02),
        ("nc", "boost", 0.05, 0.01), ("nc", "suppress", 0.04, 0.2),
        ("ds", "boost", -0.05, 0.01), ("ds", "suppress", 0.04, 0.2),
    )  # fmt: skip
    assert asked(con, "activation_correlation") == {"es": "holds", "nc": "partly", "ds": "contradicted"}
    assert asked(con, "magnitude_correlation") == {}


def test_a_claim_of_no_difference_is_never_said_to_hold(con):
    given_tests(
        con, "graph_modularity", "signed_modularity", "method=louvain",
        ("es", "boost", 0.3, 0.01), ("nc", "boost", 0.3, 0.4), ("ds", "boost", -0.3, 0.01),
    )  # fmt: skip
    assert asked(con, "modularity") == {"es": "contradicted", "nc": "not contradicted", "ds": "not contradicted"}


def test_a_group_without_a_corrected_p_decides_nothing(con):
    given_tests(con, "cosine_similarity", "mean_cosine", "space=w_out, comparison=within", ("es", "boost", 0.3, None))
    assert asked(con, "weight_cosine") == {"es": "undecided"}


def test_no_plateau_for_common_tokens_holds_only_where_it_is_called_absent(con):
    columns = "run_key, preset, token_group, statistic, role, decision, p_value, power, step, step_low, step_high"
    rows = [
        (1, preset, "common", "mean_abs", "all", decision, 0.2, 0.9, 0.4, 0.3, 0.5)
        for preset, decision in (("es", "absent"), ("nc", "present"), ("ds", "undecided"))
    ]
    given(con, "regime_decision", columns, *rows)
    assert asked(con, "no_common_plateau") == {"es": "holds", "nc": "contradicted", "ds": "undecided"}


def test_whether_rare_tokens_have_neurons_of_their_own_is_read_off_the_interval(con):
    columns = (
        "run_key, preset, token_group, ranking, other_preset, other_token_group, other_ranking, shared_50,"
        " shared_50_low, shared_50_high, expected_50, rank_correlation"
    )
    rows = [
        (1, preset, "rare", "influence", preset, "common", "influence", shared, shared - 4, shared + 4, 2.4, 0.9)
        for preset, shared in (("es", 46), ("nc", 27), ("ds", 12))
    ]
    given(con, "ranking_overlap", columns, *rows)
    assert asked(con, "same_neurons") == {"es": "contradicted", "nc": "undecided", "ds": "holds"}
