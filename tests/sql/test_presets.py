"""The one table of presets, and that everything that draws a line between rare and common draws the same."""

from collections.abc import Iterator

import duckdb
import polars as pl
import pytest

from rare_tokens import warehouse
from rare_tokens.analyses.curve.effect_cells import MATCHED, TOKEN_GROUPS, in_group
from rare_tokens.analyses.curve.effect_cells import PRESETS as WITH_A_LINE
from rare_tokens.common.presets import PRESETS
from rare_tokens.ingest.text import matched
from tests.support.mart_rows import empty_warehouse, rows
from tests.support.warehouses import published


@pytest.fixture
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    with empty_warehouse() as con:
        yield con


def test_preset(con: duckdb.DuckDBPyConnection) -> None:
    assert rows(con, "select * exclude (in_words) from preset") == [
        # percentile, occurrences, words, elbow, strict, rare_below, common_above, least_source, paper
        ("es", 50.0, False, True, True, False, None, None, None, "ES §3.1"),
        ("nc", 50.0, True, False, True, False, None, None, None, "NC §2"),
        ("ds", 15.0, False, False, False, True, None, None, None, "DS"),
        ("nc-matched", None, False, False, True, False, 1.776e-7, 1.776e-5, 10_000_000, "NC A.6"),
    ]
    assert rows(con, "select in_words from preset where preset = 'nc'") == [("the rarer half of occurrences",)]


def test_what_ingest_searches_for_is_the_matched_preset() -> None:
    (preset,) = (one for one in PRESETS.values() if one.percentile is None)
    assert preset.preset == matched.NC_MATCHED == MATCHED
    assert (preset.rare_below, preset.common_above) == (matched.RARE_BELOW, matched.COMMON_ABOVE)
    assert preset.least_source == matched.LEAST_SOURCE


@pytest.mark.parametrize(
    ("place", "is_word", "is_elbow", "es", "nc", "ds"),
    [
        (14.9, True, False, "rare", "rare", "rare"),
        (14.9, False, False, None, "rare", "rare"),
        (14.9, True, True, "rare", "rare", None),
        (15.0, True, False, "rare", "rare", None),
        (15.1, True, False, "rare", "rare", "common"),
        (49.9, True, True, "rare", "rare", None),
        (50.0, False, False, "common", "common", "common"),
        (100.0, True, True, "common", "common", None),
    ],
)
def test_token_group_of(
    con: duckdb.DuckDBPyConnection,
    place: float,
    is_word: bool,
    is_elbow: bool,
    es: str | None,
    nc: str | None,
    ds: str | None,
) -> None:
    query = (
        f"select token_group_of({place}, {is_word}, {is_elbow}, percentile, words, elbow, strict)"
        " from preset where percentile is not null"
    )
    assert rows(con, query) == [(es,), (nc,), (ds,)]


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[warehouse.Warehouse]:
    path = tmp_path_factory.mktemp("presets") / "w.duckdb"
    published(path, positions=1024, vocabulary=200)
    with warehouse.open(path) as opened:
        yield opened


@pytest.mark.parametrize("percentile", [0, 5, 15, 30, 50])
def test_cells_in_memory_are_grouped_as_positions_are_in_sql(opened: warehouse.Warehouse, percentile: int) -> None:
    cells = opened.agg_effect(neuron=0)
    for name in WITH_A_LINE:
        flags = {flag: getattr(PRESETS[name], flag) for flag in ("occurrences", "words", "elbow", "strict")}
        grouped = opened.group_where("run", percentile, **flags)
        for token_group in TOKEN_GROUPS:
            chosen = cells.filter(in_group(name, token_group, percentile))
            assert chosen["positions"].sum() == grouped.filter(pl.col("token_group") == token_group).height
