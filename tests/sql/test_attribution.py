"""Sums of first-order estimates and of their errors: a few literal rows in, literal rows out."""

import math
from collections.abc import Iterator

import duckdb
import pytest

from tests.support.mart_rows import empty_warehouse, given, given_run, publish, rows

EFFECTS = "run_key, neuron, position_id, activation, delta_loss, attributed_delta_loss"
CONTEXTS = "run_key, position_id, pair_id, context_id, token_group, part_of_speech, sentence_place, is_whole_word"


@pytest.fixture
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    """Two runs of matched contexts on tokens 1 (rare) and 2 (common): pair 7 in windows 0 and 1, pair 8 in window 1."""
    with empty_warehouse() as con:
        given(con, "tokenizer", "tokenizer_key, tokenizer_id", (1, "t"))
        columns = "source_key, tokenizer_key, frequency_source_id, description"
        given(con, "frequency_source", columns, (1, 1, "s", "in words"))
        tokens = [(1, i, f" word{i}", True, True, False) for i in (1, 2)]
        given(con, "dim_token", "tokenizer_key, token_id, text, is_word, starts_word, is_special", *tokens)
        columns = "source_key, token_id, count, frequency, percentile, occurrence_percentile, is_elbow"
        given(con, "token_frequency", columns, (1, 1, 1, 0.1, 0.0, 0.0, False), (1, 2, 9, 0.9, 100.0, 10.0, False))
        columns = "run_key, position_id, window_id, window_offset, input_token_id, target_token_id, loss, entropy"
        for key, run_id in ((1, "run"), (2, "without")):
            given_run(con, key, run_id)
            positions = [(key, t, t // 2, t % 2, 1, target, 1.0, 1.0) for t, target in enumerate([1, 2, 1, 1])]
            given(con, "dim_position", columns, *positions)
            pairs = [(7, 0, "rare"), (7, 0, "common"), (7, 1, "rare"), (8, 0, "rare")]
            given(
                con,
                "position_context",
                CONTEXTS,
                *((key, t, *pair, "NOUN", "middle", True) for t, pair in enumerate(pairs)),
            )
            publish(con, "position_group", run_key=key)
        con.execute(
            "update store.run set tolerance = 0.25, effects = if(run_key = 1, ['loss', 'attribution'], ['loss'])"
        )
        effects = [(0, 0.5, 0.25), (1, -2.0, -1.0), (2, 0.5, -0.5), (3, 0.25, 9.0)]
        given(con, "fct_effect", EFFECTS, *((1, 0, t, 0.0, delta, estimate) for t, delta, estimate in effects))
        given(con, "fct_effect", EFFECTS, *((2, 0, t, 0.0, delta, None) for t, delta, _ in effects))
        yield con


def test_estimates_are_summed_by_group_and_pair(con: duckdb.DuckDBPyConnection) -> None:
    sums = "select * exclude (run_id) from attribution_sum('run') where preset = 'nc-matched' order by all"
    assert rows(con, sums) == [
        ("nc-matched", "common", 2, 0, 7, 1, 2.0, 1.0),
        ("nc-matched", "rare", 2, 0, 7, 2, 1.0, 0.75),
        ("nc-matched", "rare", 2, 0, 8, 1, 0.25, 9.0),
    ]
    groups = "select distinct preset, token_group from attribution_sum('run') order by all"
    assert rows(con, groups) == rows(con, "select distinct preset, token_group from position_group order by all")


def test_errors_are_counted_by_group_decile_and_pair(con: duckdb.DuckDBPyConnection) -> None:
    half = math.floor(20 * math.log(0.5))
    found = "select * exclude (run_id) from attribution_error('run') where preset = 'nc-matched' order by all"
    # The effect of position 3 is within the tolerance. Two rare pairs share a class, whose middle is half of them.
    assert rows(con, found) == [
        ("nc-matched", "common", 6, 7, half, 1, 0, 2.0, 1.0, 2.0, 2.0),
        ("nc-matched", "rare", 6, 7, half, 1, 0, 0.5, 0.25, 0.5, 0.5),
        ("nc-matched", "rare", 6, 7, math.floor(20 * math.log(2)), 1, 1, 0.5, 1.0, 0.5, 0.5),
    ]


def test_an_exact_estimate_has_the_smallest_class_and_deciles_are_of_the_group(con: duckdb.DuckDBPyConnection) -> None:
    con.execute(
        "update store.fct_effect set attributed_delta_loss = delta_loss, delta_loss = delta_loss where run_key = 1"
    )
    con.execute("update store.run set tolerance = 0.1")
    found = "select token_group, decile, window_id, error_class, pairs from attribution_error('run')"
    exact = math.floor(20 * math.log(1e-9))
    assert rows(con, f"{found} where preset = 'nc-matched' order by all") == [
        ("common", 6, 7, exact, 1),
        ("rare", 2, 8, exact, 1),  # the smaller third of three, then the other two
        ("rare", 7, 7, exact, 2),
    ]


def test_a_run_without_estimates_has_no_rows(con: duckdb.DuckDBPyConnection) -> None:
    assert rows(con, "from attribution_sum('without')") == []
    assert rows(con, "from attribution_error('without')") == []
