"""docs/controls.md says what the committed results say."""

import pytest

from studies.controls import page
from studies.controls.study import PLANTED, RESULTS, stored


@pytest.fixture(scope="module")
def results():
    assert RESULTS.is_file(), "studies/results/controls.json is not committed"
    return stored()


def test_the_tables_are_those_of_the_committed_results(results):
    assert page.page(results) == page.PAGE.read_text(encoding="utf-8")


def test_what_is_planted_at_the_head_is_found_wherever_the_page_says_so(results):
    planted = [row for row in results["curves"].values() if row["planted"]["size"]]
    high = [row for row in planted if row["planted"]["step"] == 0.7 and row["preset"] == "nc"]
    assert len(high) >= 2
    for row in planted:
        assert row["planted_line"]["step"] == pytest.approx(row["planted"]["step"], abs=0.05) or row["kind"] != "fixed"
    for row in high:
        assert row["decision"] == "present"
        assert row["break_low"] <= PLANTED <= row["break_high"]
        assert row["planted_among_first"] == PLANTED


def test_a_planted_module_is_a_community_wherever_the_page_says_so(results):
    planted = [row for row in results["together"].values() if row["planted"]]
    assert len(planted) >= 6
    for row in planted:
        assert row["louvain"]["planted_in_it"] == row["louvain"]["planted"] >= row["louvain"]["size"] - 1
        if row["members_correlation"] >= 0.8:
            assert row["ward"]["planted_in_it"] == row["ward"]["planted"] == row["ward"]["size"]


def test_nothing_is_found_where_nothing_is_planted(results):
    smooth = [row for row in results["curves"].values() if not row["planted"]["size"]]
    untrained = [row[preset] for row in results["untrained"].values() for preset in page.PRESETS]
    shuffled = [row[preset] for row in results["shuffled"].values() if "seed" in row for preset in page.PRESETS]
    assert len(smooth) >= 2
    assert len(untrained) >= 6
    assert shuffled
    assert all(row["decision"] != "present" for row in (*smooth, *untrained))
    assert all("present" not in (row["rare"], row["common"]) for row in shuffled)


def test_a_row_is_shown_with_its_interval_or_why_there_is_none():
    row = {
        "step": 0.5,
        "step_low": 0.25,
        "step_high": None,
        "kappa": None,
        "size": 3,
        "size_low": 1.0,
        "size_high": 4.0,
    }
    assert page.interval(row, "kappa") == "–"
    assert page.interval(row, "size", digits=0) == "3 [1, 4]"
    assert page.interval(row | {"step_low": None}, "step") == "0.50"
    part = {"size": 12, "of": 50, "planted": 11, "planted_in_it": 10}
    assert page.part(part, planted=True) == "12 of 50, with 10 of 11 planted"
    assert page.part(part, planted=False) == "12 of 50"
