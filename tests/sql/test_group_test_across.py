"""Tests of several runs corrected together in SQL, against `statistics.corrected` and statsmodels."""

from collections.abc import Iterator
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pytest
from statsmodels.stats.multitest import multipletests

from rare_tokens.analyses.result_table import table
from rare_tokens.analyses.statistics import GROUP_TEST, corrected
from tests.support.mart_rows import empty_warehouse, given, given_run

KEY = ["analysis", "statistic", "setting", "test"]
COLUMNS = (
    "run_key, preset, token_group, analysis, statistic, setting, group_name, k, test, reference_size, value, p_value,"
    " tests, p_bonferroni, p_holm, reason"
)
RUNS = {1: "run", 2: "other", 3: "left out"}
ACROSS = "from group_test_across(['run', 'other'])"


@pytest.fixture
def con(monkeypatch: pytest.MonkeyPatch) -> Iterator[duckdb.DuckDBPyConnection]:
    monkeypatch.setattr("gc.collect", lambda: 0)  # which statsmodels calls each time
    with empty_warehouse() as con:
        for key, name in RUNS.items():
            given_run(con, key, name)
        yield con


def within_runs(controls: int = 10_000) -> pl.DataFrame:
    """Tests of three runs, two presets and two sets of positions, with ties and gaps, each family corrected alone."""
    rng = np.random.default_rng(3)
    rows: list[dict[str, Any]] = []
    for key in RUNS:
        for preset in ("es", "nc"):
            for positions in ("rare", "all"):
                made: list[dict[str, Any]] = []
                for statistic, test in (("alpha", "control"), ("alpha", "mann_whitney"), ("mean", "control")):
                    for setting in ("rule=mid", "rule=tenth") if statistic == "alpha" else ("",):
                        for group in ("boost", "suppress", "plateau"):
                            p = None if rng.random() < 0.2 else round(float(rng.random()) ** 3, 2) + 0.0001
                            row = {"analysis": "a", "statistic": statistic, "setting": setting, "test": test}
                            row |= {"group_name": group, "k": 50, "reference_size": controls, "p_value": p}
                            made.append(row | {"value": 1.0, "reason": None if p else "no value; none at all"})
                frame = corrected(table(made, GROUP_TEST))
                rows += [row | {"run_key": key, "preset": preset, "token_group": positions} for row in frame.to_dicts()]
    return pl.DataFrame(rows, infer_schema_length=None)


def store(con: duckdb.DuckDBPyConnection, tests: pl.DataFrame) -> None:
    given(con, "group_test", COLUMNS, *tests.select(COLUMNS.split(", ")).rows())


def order(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.sort("run_id", "preset", "token_group", *KEY, "group_name")


@pytest.mark.parametrize("controls", [10_000, 239, 100])
def test_it_is_the_correction_of_the_analysis_over_a_larger_family(
    con: duckdb.DuckDBPyConnection, controls: int
) -> None:
    """239 random groups reach 5 % over 12 tests and no more; 100 fail even so, and fail within a run already."""
    tests = within_runs(controls)
    store(con, tests)
    found = order(con.sql(ACROSS).pl())
    raw = tests.filter(pl.col("run_key") < 3).with_columns(
        run_id=pl.col("run_key").replace_strict(RUNS),
        reason=pl.when(pl.col("p_value").is_null()).then("reason"),
    )
    again = corrected(raw.select([name for name in raw.columns if name in GROUP_TEST]))
    keys = raw.select("run_id", "preset", "token_group")
    expected = order(pl.concat([keys, again], how="horizontal"))
    for column in ("tests", "p_value", "p_bonferroni", "p_holm", "reason"):
        assert found[column].to_list() == expected[column].to_list(), column
    if controls == 100:
        assert found.filter(test="control")["p_holm"].null_count() == found.filter(test="control").height
    assert found.filter(test="mann_whitney")["p_holm"].drop_nulls().len() > 20


def test_it_is_the_correction_of_statsmodels(con: duckdb.DuckDBPyConnection) -> None:
    store(con, within_runs())
    found = con.sql(ACROSS).pl().filter(pl.col("p_value").is_not_null())
    families = found.partition_by(KEY)
    assert len(families) == 5
    for family in families:
        assert family["tests"].unique().to_list() == [family.height]
        for method in ("bonferroni", "holm"):
            expected = multipletests(family["p_value"].to_numpy(), method=method)[1]
            np.testing.assert_allclose(family[f"p_{method}"].to_numpy(), expected, rtol=1e-12)


def test_a_family_says_what_it_is_of(con: duckdb.DuckDBPyConnection) -> None:
    store(con, within_runs())
    names = con.sql(f"select distinct family {ACROSS} order by 1").fetchall()
    end = ": all groups, presets and token groups of 2 runs"
    assert [name for (name,) in names] == [
        f"control tests of a.alpha, rule=mid{end}",
        f"control tests of a.alpha, rule=tenth{end}",
        f"control tests of a.mean{end}",
        f"mann_whitney tests of a.alpha, rule=mid{end}",
        f"mann_whitney tests of a.alpha, rule=tenth{end}",
    ]
    one = "from group_test_across(['run', 'run'])"
    ((alone,),) = con.sql(f"select distinct family {one} where statistic = 'mean'").fetchall()
    assert alone.endswith(" of 1 run")
    assert con.sql(one).pl().height == 4 * 15, "a run named twice counts once"


def test_by_hand(con: duckdb.DuckDBPyConnection) -> None:
    """Two runs with 0.01 and 0.03, 0.04: three tests, so 3 · 0.01, 2 · 0.03, and not less than that for 0.04."""
    one = ("es", "rare", "a", "s", "", "boost", 50, "control", 1000, 1.0)
    two = ("es", "rare", "a", "s", "", "suppress", 50, "control", 1000, 1.0)
    within = (1, 0.01, 0.01, None)
    given(con, "group_test", COLUMNS, (1, *one, 0.01, *within), (2, *one, 0.04, *within), (2, *two, 0.03, *within))
    found = con.sql(f"select tests, round(p_bonferroni, 9), round(p_holm, 9) {ACROSS} order by p_value").fetchall()
    assert found == [(3, 0.03, 0.03), (3, 0.09, 0.06), (3, 0.12, 0.06)]


@pytest.mark.parametrize("runs", ["['run', 'gone']", "['gone']", "['run', NULL]"])
def test_an_unknown_run_is_an_error(con: duckdb.DuckDBPyConnection, runs: str) -> None:
    store(con, within_runs())
    with pytest.raises(duckdb.Error, match=r"There is no run '(gone|NULL)'"):
        con.sql(f"from group_test_across({runs})").fetchall()
    with pytest.raises(duckdb.Error, match=r"There is no run '(gone|NULL)'"):
        con.sql(f"select count(*) from group_test_across({runs}) where preset = 'es'").fetchall()


def test_another_level_takes_other_numbers_of_random_groups(con: duckdb.DuckDBPyConnection) -> None:
    store(con, within_runs(239))
    found = con.sql("from group_test_across(['run', 'other'], level := 0.01)").pl()
    short = found.filter(pl.col("p_value").is_not_null(), test="control")
    assert short["p_holm"].null_count() == short.height
    assert short["reason"].str.contains("239 random groups cannot reach 0.01 over").all()
