"""Tests and spectra that were stored before: the family can be said of them, the rest is computed anew."""

from pathlib import Path

import duckdb

from rare_tokens import warehouse
from rare_tokens.analyses import registry
from rare_tokens.analyses.curve.power_law import power_law_line
from rare_tokens.analyses.result_table import table
from rare_tokens.analyses.statistics import GROUP_TEST, corrected
from rare_tokens.warehouse.schema import migrations
from tests.support.mart_rows import given
from tests.support.old_schema import make_old
from tests.support.warehouses import stored

BEFORE = [name for _, name, _ in migrations.known()].index("families")  # schemas before that one
KEY = "run_key, preset, token_group, analysis, statistic, setting, test, p_value"


def test_stored_tests_say_their_family_as_new_ones_do(tmp_path: Path) -> None:
    new = tmp_path / "new.duckdb"
    stored(new, "run", seed=1)
    old = make_old(tmp_path / "old.duckdb", new, BEFORE)
    tests = [("alpha", "matrix=w_out, rule=mid", "control"), ("mean", "", "control"), ("mean", "", "mann_whitney")]
    with duckdb.connect(old) as con:
        given(con, "group_test", KEY, *((1, "es", "rare", "a", *test, 0.5) for test in tests))
        given(con, "group_test", KEY, (1, "es", "rare", "a", None, None, None, None))
        given(
            con, "weight_spectrum", "run_key, preset, token_group, group_name, alpha", (1, "es", "rare", "boost", 2.0)
        )
    warehouse.migrate(old, line=power_law_line)
    names = ("statistic", "setting", "test")
    rows = [{"analysis": "a", "p_value": 0.5} | dict(zip(names, test, strict=True)) for test in tests]
    with warehouse.open(old) as opened:
        families = opened.group_test().filter(analysis="a").sort("statistic", "setting", "test", nulls_last=True)
        query = "select alpha, equal_aspect_alpha, rows, columns from weight_spectrum"  # names that SQL knows itself
        (spectrum,) = opened.sql(query).rows(named=True)
    expected = corrected(table(rows, GROUP_TEST)).sort("statistic", "setting", "test")["family"].to_list()
    assert families["family"].to_list() == [*expected, None]
    assert spectrum["alpha"] == 2.0
    assert spectrum["equal_aspect_alpha"] is spectrum["rows"] is spectrum["columns"] is None


def test_stored_spectra_and_what_is_tested_in_them_are_computed_anew() -> None:
    stored_parameters = {one.name: dict(one.parameters) for one in registry.REGISTRY}
    assert registry.due(stored_parameters) == []
    del stored_parameters["weight_spectrum"]["equal_aspect_samples"]
    assert [one.name for one in registry.due(stored_parameters)] == ["weight_spectrum", "group_test"]
