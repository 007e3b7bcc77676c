"""docs/findings.md: it says what the answers say, and every answer has a query that runs."""

import json

import pytest

from rare_tokens import warehouse
from studies.findings import page
from studies.findings.claims import CLAIMS, QUERIES
from studies.findings.measure import RESULTS

VERDICTS = {"holds", "partly", "contradicted", "not contradicted", "not found", "undecided", "measured"}
BEYOND = {"holds: even more alike"}


@pytest.fixture(scope="module")
def answers():
    return page.Answers(json.loads(RESULTS.read_text(encoding="utf-8")))


def test_the_page_is_what_the_template_makes_of_the_answers():
    assert page.PAGE.read_text(encoding="utf-8") == page.rendered()


def test_every_claim_has_a_query_and_every_query_a_claim():
    assert {claim.name for claim in CLAIMS} == {path.stem for path in QUERIES.glob("*.sql")}
    assert len({claim.name for claim in CLAIMS}) == len(CLAIMS)


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
def test_every_query_runs_and_gives_an_answer_per_run_and_preset(claim, tmp_path):
    with warehouse.open(tmp_path / "absent.duckdb") as opened:
        found = opened.sql(claim.query.read_text(encoding="utf-8"))
    assert found.columns == ["run_id", "preset", "measured", "verdict"]
    assert claim.query.read_text(encoding="utf-8").startswith("-- ")


def test_every_claim_was_asked_of_the_real_model_and_of_the_series(answers):
    for claim in CLAIMS:
        rows = answers.claims[claim.name]
        assert {row["verdict"] for row in rows} <= VERDICTS | BEYOND, claim.name
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
