"""The papers' values that a report reads: their p-values are corrected over all of its runs."""

from pathlib import Path

import duckdb
import polars as pl

from rare_tokens import warehouse
from tests.support.mart_rows import given
from tests.support.warehouses import published, stored

CORRELATION = "run_key, preset, token_group, group_name, k, draw, comparison, mean_correlation, space"
TEST = (
    "run_key, preset, token_group, analysis, statistic, setting, group_name, k, test, reference_size, p_value, tests,"
    " p_holm, reason"
)
OF = ("activation_correlation", "mean_correlation", "space=activation, comparison=within")


def test_several_runs_are_one_family_and_one_run_keeps_its_own(tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    stored(path, "one", seed=1)
    published(path, "two", seed=2)
    with duckdb.connect(path) as con:
        for key in (1, 2):
            row = (key, "es", "rare", "boost", 50, 0, "within", 0.3, "activation")
            given(con, "activation_correlation", CORRELATION, row)
            test = (key, "es", "rare", *OF, "boost", 50, "control", 1_000, 0.01 * key, 1, 0.01 * key, None)
            printed = (key, "es", "rare", *OF, "boost", 50, "mann_whitney", 100, 0.5, 1, 0.5, None)
            given(con, "group_test", TEST, test, printed)

    def found(*runs: str) -> list[tuple[object, ...]]:
        values = warehouse.report_frames(path, runs, {})["values"].filter(quantity="activation_correlation")
        return values.sort("run_id").select("run_id", "group_name", "p_value", "p_alone", "tests", "p_reason").rows()

    assert found("one") == [("one", "boost", 0.01, 0.01, 1, None)]
    assert found("one", "two") == [("one", "boost", 0.02, 0.01, 2, None), ("two", "boost", 0.02, 0.02, 2, None)]
    with warehouse.open(path) as opened:
        across = opened.group_test_across(["one", "two"]).filter(test="control")
        assert across["p_holm"].to_list() == [0.02, 0.02]
        assert opened.group_test_across(["o"]).filter(pl.col("test") == "control")["tests"].to_list() == [1]
