"""Each mart: a few literal rows in, literal rows out."""

from collections.abc import Iterator

import duckdb
import pytest

from tests.support.mart_rows import empty_warehouse, given, given_curve, given_run, publish, rows

NAT = 2**40  # units in a nat


@pytest.fixture
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    with empty_warehouse() as con:
        yield con


def given_tokens(con: duckdb.DuckDBPyConnection) -> None:
    """Five tokens; 0 is the separator, 1 no word, 4 was never counted."""
    given(con, "tokenizer", "tokenizer_key, tokenizer_id", (1, "t"))
    given(
        con, "frequency_source", "source_key, tokenizer_key, frequency_source_id, description", (1, 1, "s", "in words")
    )
    tokens = [(1, i, f" word{i}", i != 1, True, i == 0) for i in range(5)]
    given(con, "dim_token", "tokenizer_key, token_id, text, is_word, starts_word, is_special", *tokens)
    graded = [
        (1, 0, 9, 0.1, 99.0, 99.0, False),
        (1, 1, 2, 0.1, 10.0, 10.0, False),
        (1, 2, 3, 0.1, 15.0, 40.0, False),
        (1, 3, 8, 0.1, 50.0, 50.0, True),
        (1, 4, 0, 0.0, None, None, False),
    ]
    columns = "source_key, token_id, count, frequency, percentile, occurrence_percentile, is_elbow"
    given(con, "token_frequency", columns, *graded)


def given_positions(con: duckdb.DuckDBPyConnection, targets: list[int], window: int = 2, run_key: int = 1) -> None:
    columns = "run_key, position_id, window_id, window_offset, input_token_id, target_token_id, loss, entropy"
    positions = [(run_key, t, t // window, t % window, 1, target, 1.0, 1.0) for t, target in enumerate(targets)]
    given(con, "dim_position", columns, *positions)


def test_token_frequency(con: duckdb.DuckDBPyConnection) -> None:
    given(con, "tokenizer", "tokenizer_key, tokenizer_id", (7, "t"))
    given(
        con, "frequency_source", "source_key, tokenizer_key, frequency_source_id, description", (3, 7, "s", "in words")
    )
    con.execute("attach ':memory:' as staging")
    con.execute("create table staging.token_frequency (token_id uinteger, count ubigint)")
    con.execute("insert into staging.token_frequency values (0, 0), (1, 1), (2, 5), (3, 1), (4, 14)")
    publish(con, "token_frequency", source_key=3)
    # 4 types, 21 occurrences: percentile 100·smaller/3, occurrence percentile 100·smaller/20. The chord falls from
    # ln 14 to 0 over ln 4; rank 2 lies 0.29 above it, rank 3 0.55 below, so the elbow is at count 1.
    assert rows(con, "from token_frequency order by token_id") == [
        ("t", "s", 0, 0, 0.0, None, None, None, False),
        ("t", "s", 1, 1, 1 / 21, 0.0, 0.0, 3, True),
        ("t", "s", 2, 5, 5 / 21, 200 / 3, 10.0, 2, False),
        ("t", "s", 3, 1, 1 / 21, 0.0, 0.0, 4, True),
        ("t", "s", 4, 14, 14 / 21, 100.0, 35.0, 1, False),
    ]


def test_position_frequency(con: duckdb.DuckDBPyConnection) -> None:
    given_run(con)
    given_tokens(con)
    given_positions(con, [2, 0, 4, 3])
    assert rows(con, "from position_frequency order by position_id") == [
        ("run", 0, 0, 2, 0.1, 15.0, 40.0, True, True, False),  # 1: separator; 2: no count
        ("run", 3, 1, 3, 0.1, 50.0, 50.0, True, True, True),
    ]


def test_position_group(con: duckdb.DuckDBPyConnection) -> None:
    given_run(con)
    given_tokens(con)
    given_positions(con, [0, 1, 2, 3, 4])
    publish(con, "position_group", run_key=1)
    assert rows(con, "from position_group order by all") == [
        ("run", "ds", "rare", 1),  # 2 lies exactly at 15, 3 at the elbow
        ("run", "es", "common", 3),
        ("run", "es", "rare", 2),  # 1 is no word
        ("run", "nc", "common", 3),
        ("run", "nc", "rare", 1),
        ("run", "nc", "rare", 2),
    ]


def test_ds_common_is_above_its_percentile(con: duckdb.DuckDBPyConnection) -> None:
    given_run(con)
    given_tokens(con)
    con.execute("update store.token_frequency set percentile = 15.5 where token_id = 2")
    given_positions(con, [2])
    publish(con, "position_group", run_key=1)
    assert rows(con, "from position_group where preset = 'ds'") == [("run", "ds", "common", 0)]


def test_agg_effect(con: duckdb.DuckDBPyConnection) -> None:
    given_run(con)
    given_tokens(con)
    given_positions(con, [2, 2, 3, 2, 0, 1])
    deltas = {0: [0.5, -0.25, 1.0, 2.0, 8.0, -4.0], 1: [1.0, 1.0, 1.0, 1.0, 1.0, 1.0]}
    facts = [(1, n, t, 0.0, delta) for n, effects in deltas.items() for t, delta in enumerate(effects)]
    given(con, "fct_effect", "run_key, neuron, position_id, activation, delta_loss", *facts)
    publish(con, "agg_effect", run_key=1, first_neuron=0, last_neuron=0)
    # Windows of 2: positions 0 and 1 are alike; 4, a separator, is in no cell.
    assert rows(con, "from agg_effect order by all") == [
        ("run", 2, 0, 0, 15.0, 40.0, True, False, None, 2, 0.75, 0.25, 0.3125),
        ("run", 2, 0, 1, 15.0, 40.0, True, False, None, 1, 2.0, 2.0, 4.0),
        ("run", 2, 0, 1, 50.0, 50.0, True, True, None, 1, 1.0, 1.0, 1.0),
        ("run", 2, 0, 2, 10.0, 10.0, False, False, None, 1, 4.0, -4.0, 16.0),
    ]


@pytest.mark.parametrize(
    ("percentile", "bucket"),
    [(0, 0), (0.01, 2.5), (4.99, 2.5), (5, 5), (5.01, 7.5), (49.9, 47.5), (50, 50), (50.01, 75), (100, 75)],
)
def test_percentile_bucket(con: duckdb.DuckDBPyConnection, percentile: float, bucket: float) -> None:
    assert rows(con, f"select percentile_bucket({percentile}::double)") == [(bucket,)]


def test_neuron_influence(con: duckdb.DuckDBPyConnection) -> None:
    given_run(con)
    groups = [(1, "es", "rare", 0), (1, "es", "rare", 1), (1, "nc", "rare", 1), (1, "es", "common", 2)]
    given(con, "position_group", "run_key, preset, token_group, position_id", *groups)
    deltas = {0: [0.5, -0.5, 0.0], 1: [1.0, 0.5, -1.0], 2: [-0.25, -0.75, 1.0]}
    facts = [(1, n, t, 0.0, delta) for n, effects in deltas.items() for t, delta in enumerate(effects)]
    given(con, "fct_effect", "run_key, neuron, position_id, activation, delta_loss", *facts)
    given(con, "fct_effect", "run_key, neuron, position_id, activation, delta_loss", (2, 0, 0, 0.0, 99.0))
    publish(con, "neuron_influence", run_key=1)
    expected = [
        # preset, group, layer, neuron, rank, influence, mean, |mean|, its rank, positions, role
        ("es", "common", 2, 1, 1, 1.0, -1.0, 1.0, 1, 1, "suppress"),
        ("es", "common", 2, 2, 2, 1.0, 1.0, 1.0, 2, 1, "boost"),
        ("es", "common", 2, 0, 3, 0.0, 0.0, 0.0, 3, 1, None),
        ("es", "rare", 2, 1, 1, 0.75, 0.75, 0.75, 1, 2, "boost"),
        ("es", "rare", 2, 0, 2, 0.5, 0.0, 0.0, 3, 2, None),  # a tie: the lower index first
        ("es", "rare", 2, 2, 3, 0.5, -0.5, 0.5, 2, 2, "suppress"),
        ("nc", "rare", 2, 2, 1, 0.75, -0.75, 0.75, 1, 1, "suppress"),
        ("nc", "rare", 2, 0, 2, 0.5, -0.5, 0.5, 2, 1, "suppress"),
        ("nc", "rare", 2, 1, 3, 0.5, 0.5, 0.5, 3, 1, "boost"),
    ]
    assert rows(con, "select * exclude (run_id) from neuron_influence order by preset, token_group, rank") == expected


def test_power_law_fit_says_why_there_is_none(con: duckdb.DuckDBPyConnection) -> None:
    given_run(con)
    given_curve(con, [1 / r for r in range(1, 150)] + [0.0] * 10)
    publish(con, "power_law_fit", run_key=1)
    few = "149 neurons with an influence above 0; a power law needs 150"
    nobody = "no position in the group"
    found = rows(con, "select * exclude (run_id) from power_law_fit order by all")
    keys = [(preset, group) for preset in ("ds", "es", "nc") for group in ("common", "rare")]
    assert found == [
        (*key, 2, "mean_abs", "all", "auto", *[None] * 10, *((149, few) if key == ("es", "rare") else (0, nobody)))
        for key in keys
    ]
    every = "select count(*) from power_law_fit_of($1, $2)"
    for statistic in ("mean_abs", "abs_mean"):
        for role in ("all", "boost", "suppress"):
            assert con.execute(every, [statistic, role]).fetchall() == [(6,)]


def test_a_flat_curve_has_no_power_law(con: duckdb.DuckDBPyConnection) -> None:
    given_run(con)
    given_curve(con, [1.0] * 200)
    publish(con, "power_law_fit", run_key=1)
    fits = rows(con, "select kappa, beta, r2, reason from power_law_fit where preset = 'es' and token_group = 'rare'")
    same = "the more influential half of the neurons all have the same influence"
    assert fits == [(None, None, None, same)]


def test_neuron_deviation(con: duckdb.DuckDBPyConnection) -> None:
    given_run(con)
    given_curve(con, [2.0, 0.5, 0.25, 0.0])
    given_curve(con, [1.0], preset="nc")
    fit = (1, "es", "rare", "mean_abs", "all", "auto", 1.0, 0.0, 1.0, 2, 2, 3, None)
    key = "run_key, preset, token_group, statistic, role"
    columns = f"{key}, rank_window, kappa, beta, r2, first_rank, last_rank, ranks, reason"
    given(con, "power_law_fit", columns, fit, (1, "nc", "rare", "mean_abs", "all", "auto", *[None] * 5, 1, "too few"))
    publish(con, "neuron_deviation", run_key=1)
    found = rows(con, "select * exclude (run_id) from neuron_deviation order by preset, rank")
    assert [(*row[:5], row[6], row[7]) for row in found] == [
        ("es", "rare", 2, 101, 1, None, "plateau"),
        ("es", "rare", 2, 102, 2, None, "power law"),
        ("es", "rare", 2, 103, 3, None, "rapid decay"),
        ("es", "rare", 2, 104, 4, None, None),
        ("nc", "rare", 2, 101, 1, None, None),
    ]
    # ln 2 − 0, ln ½ + ln 2, ln ¼ + ln 3
    assert [row[5] for row in found] == pytest.approx([0.6931471805599453, 0.0, -0.2876820724517809, None, None])


def test_a_head_below_the_power_law_is_no_plateau(con: duckdb.DuckDBPyConnection) -> None:
    given_run(con)
    given_curve(con, [0.9, 0.5, 0.25])
    key = "run_key, preset, token_group, statistic, role"
    columns = f"{key}, rank_window, kappa, beta, r2, first_rank, last_rank, ranks, reason"
    given(con, "power_law_fit", columns, (1, "es", "rare", "mean_abs", "all", "auto", 1.0, 0.0, 1.0, 2, 3, 3, None))
    publish(con, "neuron_deviation", run_key=1)
    found = rows(con, "select rank, regime, deviation > 0 from neuron_deviation order by rank")
    assert found[0] == (1, "head", False)
    assert found[1][1] == found[2][1] == "power law"


def test_influence_at(con: duckdb.DuckDBPyConnection) -> None:
    for key, run in ((1, "run"), (2, "other")):
        given_run(con, key, run)
        given_positions(con, [1, 2, 3, 0], run_key=key)
    given_tokens(con)
    facts = [(key, n, t, 0.0, (n + 1) * 0.5**t) for key in (1, 2) for n in range(2) for t in range(4)]
    given(con, "fct_effect", "run_key, neuron, position_id, activation, delta_loss", *facts)
    for key in (1, 2):
        publish(con, "agg_effect", run_key=key, first_neuron=0, last_neuron=1)
    for percentile in (15, 14.99):  # from the sums, from the facts
        assert rows(con, f"from influence_at('run', {percentile}) order by token_group, rank") == [
            ("run", "common", 2, 1, 1, 0.75, 0.75, 2),
            ("run", "common", 2, 0, 2, 0.375, 0.375, 2),
            ("run", "rare", 2, 1, 1, 2.0, 2.0, 1),
            ("run", "rare", 2, 0, 2, 1.0, 1.0, 1),
        ]
    positions = "select token_group, any_value(positions) from influence_at('run', 50{}) group by 1 order by 1"
    assert rows(con, positions.format("")) == [("common", 1), ("rare", 2)]
    assert rows(con, positions.format(", words := true")) == [("common", 1), ("rare", 1)]
    assert rows(con, positions.format(", occurrences := true")) == [("common", 1), ("rare", 2)]


def test_exact_avg(con: duckdb.DuckDBPyConnection) -> None:
    con.execute("create table v as select * from (values (0.5), (-0.25), (null)) as t (x)")
    assert rows(con, "select exact_avg(x), units(1.5), nats(units(1.5)) from v") == [(0.125, 1.5 * NAT, 1.5)]


def test_views_show_the_stored_rows_of_their_run(con: duckdb.DuckDBPyConnection) -> None:
    given_run(con)
    given_run(con, 2, "other")
    given_tokens(con)
    given(con, "dim_document", "run_key, document_id, document_hash, domain, tokens", (1, 0, "h", "news", 9))
    given(con, "dim_neuron", "run_key, neuron, mean_activation, w_out_norm", (1, 5, 0.5, 2.0), (2, 5, 0.25, 4.0))
    given(con, "neuron_weight", "run_key, neuron, w_out", (1, 5, [1.0, 2.0]))
    given(con, "neuron_token", "run_key, neuron, direction, rank, token_id, logit", (1, 5, "up", 1, 3, 0.5))
    given(con, "fct_effect", "run_key, neuron, position_id, activation, delta_loss", (1, 5, 7, 0.5, 0.25))
    given_positions(con, [3], run_key=2)
    assert rows(con, "from dim_document") == [("run", 0, "h", "news", 9, None)]
    assert rows(con, "from dim_token where token_id = 1") == [("t", 1, " word1", False, True, False, None)]
    assert rows(con, "from dim_neuron where run_id = 'other'") == [("other", 2, 5, 0.25, *[None] * 3, 4.0, *[None] * 3)]
    assert rows(con, "from neuron_weight") == [("run", 2, 5, [1.0, 2.0], None, None)]
    assert rows(con, "from neuron_token") == [("run", 2, 5, "up", 1, 3, 0.5)]
    assert rows(con, "from fct_effect") == [("run", 2, 5, 7, 0.5, 0.25, *[None] * 5)]
    assert rows(con, "from dim_position") == [("other", 0, 0, 0, None, 1, 3, 1.0, 1.0)]
    assert rows(con, "select run_id, run_key, status, layer from dim_run order by 2") == [
        ("run", 1, "published", 2),
        ("other", 2, "published", 2),
    ]
