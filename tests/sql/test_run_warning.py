"""What a run warns of: literal curves, drawn ones against Python, and warehouses that lack what is read."""

from collections.abc import Iterator
from fractions import Fraction
from math import log

import duckdb
import numpy as np
import pytest

from rare_tokens.common.run_warnings import LARGE_ELBOW, RULES, SMALL_SOURCE
from tests.support.mart_rows import empty_warehouse, given, given_run, publish, rows

SEPARATOR = 0  # of `given_run`; its count is 0 everywhere here


@pytest.fixture(scope="module")
def empty() -> Iterator[duckdb.DuckDBPyConnection]:
    with empty_warehouse() as con:
        con.execute("create schema staging")
        con.execute("create table staging.token_frequency (token_id uinteger, count ubigint)")
        yield con


@pytest.fixture
def con(empty: duckdb.DuckDBPyConnection) -> Iterator[duckdb.DuckDBPyConnection]:
    """The empty warehouse; what a test writes is undone."""
    empty.execute("begin")
    yield empty
    empty.execute("rollback")


def given_source(con: duckdb.DuckDBPyConnection, counts: list[int], description: str = "counted over a text") -> None:
    """The frequency source of run 1, graded as publishing grades it; token 0 is the separator."""
    given(con, "tokenizer", "tokenizer_key, tokenizer_id", (1, "t"))
    columns = "source_key, tokenizer_key, frequency_source_id, description"
    given(con, "frequency_source", columns, (1, 1, "s", description))
    tokens = [(1, token, f" w{token}", True, True, token == SEPARATOR) for token in range(len(counts))]
    given(con, "dim_token", "tokenizer_key, token_id, text, is_word, starts_word, is_special", *tokens)
    con.executemany("insert into staging.token_frequency values (?, ?)", list(enumerate(counts)))
    publish(con, "token_frequency", source_key=1)


def given_targets(con: duckdb.DuckDBPyConnection, targets: list[int], run_key: int = 1) -> None:
    columns = "run_key, position_id, window_id, window_offset, input_token_id, target_token_id, loss, entropy"
    given(con, "dim_position", columns, *((run_key, t, 0, t, 1, target, 1.0, 1.0) for t, target in enumerate(targets)))


def warned(con: duckdb.DuckDBPyConnection, kind: str) -> list[tuple[str | None, str, float, float]]:
    chosen = "select preset, message, observed, threshold from run_warning where run_id = 'run' and kind = ?"
    return con.execute(f"{chosen} order by preset", [kind]).fetchall()


# Rank 2 is the elbow: the curve falls steeply once and then hardly. A percentile point is two of the 201 types, so
# ranks 1 to 4 are at the elbow. Every type has a count of its own; token and rank are the same.
EARLY = [0, 6_000_000, 1_000, 999, *range(500, 302, -1)]
# The knee lies far down, at rank 151: before it the curve is nearly flat, after it steep.
LATE = [0, *range(100_000, 99_850, -1), *(10_000 - 190 * place for place in range(51))]


def test_an_elbow_among_the_most_frequent_tokens_is_warned_of(con: duckdb.DuckDBPyConnection) -> None:
    given_run(con)
    given_source(con, EARLY)
    assert rows(con, "select rank, count from store.elbow") == [(2, 1000)]
    # 53 positions at those ranks; 7 below percentile 15, which is beyond rank 171; 40 above it
    given_targets(con, [1] * 50 + [2, 3, 3] + [201] * 7 + [100] * 40)
    ((preset, message, observed, threshold),) = warned(con, "large_elbow")
    assert (preset, observed, threshold) == ("ds", 0.53, 0.05)
    assert message == (
        "The elbow of the frequency curve falls on rank 2, among the most frequent tokens. Preset ds leaves out the "
        "types at the elbow, ranks 1 to 4, and with them 53 of 100 positions (53 %). It compares only the others: "
        "7 rare and 40 common positions."
    )
    assert warned(con, "few_tokens") == []


def test_one_that_leaves_out_little_is_not(con: duckdb.DuckDBPyConnection) -> None:
    given_run(con)
    given_source(con, LATE)
    ((rank,),) = rows(con, "select rank from store.elbow")
    assert rank > 140
    given_targets(con, [rank] * 5 + [1] * 95)
    assert warned(con, "large_elbow") == [], "a share of 5 % exactly is within the limit"
    con.execute("update store.dim_position set target_token_id = ? where position_id = 5", [rank])
    ((preset, message, observed, _),) = warned(con, "large_elbow")
    assert (preset, observed) == ("ds", 0.06)
    assert "at type percentile" in message
    con.execute("update store.token_frequency set is_elbow = false where rank <> ?", [rank])
    assert f"the types at the elbow, rank {rank}, and" in warned(con, "large_elbow")[0][1]


def test_an_elbow_among_the_rarest_is_said_to_be_there(con: duckdb.DuckDBPyConnection) -> None:
    given_run(con)
    given_source(con, [0, 100, *[1] * 9])  # the curve falls at once, to the tie of the rarest
    given_targets(con, [1, 1, 9, 10])
    ((_, message, observed, _),) = warned(con, "large_elbow")
    assert observed == 0.5
    assert "among the rarest types" in message
    assert "0 rare and 2 common positions" in message


def test_few_tokens_are_warned_of_with_what_rests_on_one_or_two(con: duckdb.DuckDBPyConnection) -> None:
    given_run(con)
    # 10 types: 4 occur once and 2 twice. Rare by types (es): those 4, percentile 0, and the two at 400/9 = 44.4; by
    # occurrences (nc): also all below the two largest.
    given_source(con, [0, 1, 1, 1, 1, 2, 2, 5, 6, 40, 50], "counted over {odd} names")
    given_targets(con, [1, 2, 5, 7, 8, 9, 10, 10])
    ((preset, message, observed, threshold),) = warned(con, "few_tokens")
    assert (preset, observed, threshold) == (None, 109.0, 5_000_000.0)
    assert message.startswith(
        "Token frequencies rest on 109 tokens (counted over {odd} names), fewer than 5,000,000, so chance has a part "
        "in which tokens are rare. Types that occur once and tie as the rarest: 40 %. "
    )
    # nc: rare targets are 1, 2, 5, 7, 8 (occurrence percentiles up to 12) and 9 (18): 3 of 6 rest on one or two
    assert "counted once or twice: ds 100 %, es 100 %, nc 50 %. " in message


def test_a_source_that_is_large_enough_is_not(con: duckdb.DuckDBPyConnection) -> None:
    given_run(con)
    given_source(con, [0, SMALL_SOURCE - 1, 1])
    given_targets(con, [1, 2])
    assert warned(con, "few_tokens") == []
    con.execute("update store.token_frequency set count = 0, rank = null where token_id = 2")
    assert len(warned(con, "few_tokens")) == 1


def test_what_is_missing_gives_no_warning_and_no_error(con: duckdb.DuckDBPyConnection) -> None:
    assert rows(con, "from run_warning") == []
    given_run(con)  # neither source nor positions
    assert rows(con, "from run_warning") == []
    given_source(con, [0, 9, 5, 1])  # a source without positions
    ((_, message, observed, _),) = warned(con, "few_tokens")
    assert observed == 15
    assert "once or twice" not in message
    assert warned(con, "large_elbow") == []
    con.execute("delete from store.token_frequency")  # positions without a source
    given_targets(con, [1, 2])
    assert rows(con, "from run_warning") == []
    con.execute("insert into store.token_frequency values (1, 1, 0, 0.0, null, null, null, false)")  # nothing counted
    assert rows(con, "from run_warning") == []


def test_a_curve_without_a_bend_has_no_elbow(con: duckdb.DuckDBPyConnection) -> None:
    given_run(con)
    given_source(con, [0, 3, 3, 3])
    given_targets(con, [1, 2, 3])
    assert rows(con, "from store.elbow") == []
    assert warned(con, "large_elbow") == []


def test_only_published_runs_warn(con: duckdb.DuckDBPyConnection) -> None:
    given_run(con)
    given_source(con, EARLY)
    given_targets(con, [1, 1])
    assert rows(con, "select kind from run_warning") == [("large_elbow",)]
    con.execute("update store.run set status = 'rejected'")
    assert rows(con, "from run_warning") == []


def elbow_of(counts: list[int]) -> tuple[int, list[float], set[int]]:
    """The elbow's rank, each type's percentile in order of rank, and the ranks within one point of the elbow's."""
    ordered = sorted((count for count in counts if count), reverse=True)
    types = len(ordered)
    percentiles = [100 * sum(other < count for other in ordered) / (types - 1) for count in ordered]
    fall = log(ordered[-1]) - log(ordered[0])
    away = [abs(log(c) - log(ordered[0]) - fall * log(r) / log(types)) for r, c in enumerate(ordered, 1)]
    rank = 1 + max(range(types), key=lambda place: (away[place], -place))
    near = {r for r in range(1, types + 1) if abs(percentiles[r - 1] - percentiles[rank - 1]) <= 1}
    return rank, percentiles, near


@pytest.mark.parametrize("seed", range(3))
def test_drawn_sources_against_python(con: duckdb.DuckDBPyConnection, seed: int) -> None:
    rng = np.random.default_rng(seed)
    chances = 1 / np.arange(1, 301) ** (0.7 + 0.4 * seed)
    text = rng.choice(np.arange(1, 301), size=2_000, p=chances / chances.sum())
    counts = [int((text == token).sum()) for token in range(301)]
    targets = [int(token) for token in text[:400]]
    given_run(con)
    given_source(con, counts)
    given_targets(con, targets)
    rank, percentiles, near = elbow_of(counts)
    assert rows(con, "select rank from store.elbow") == [(rank,)]
    order = sorted((token for token in range(301) if counts[token]), key=lambda token: (-counts[token], token))
    place = {token: number for number, token in enumerate(order, 1)}
    removed = sum(place[target] in near for target in targets if percentiles[place[target] - 1] != 15)
    share = Fraction(removed, len(targets))
    found = warned(con, "large_elbow")
    assert bool(found) == (share > Fraction(5, 100))
    if found:
        ((_, message, observed, _),) = found
        assert observed == pytest.approx(float(share))
        assert f"falls on rank {rank:,}" in message
        assert f"ranks {min(near):,} to {max(near):,}, and with them {removed:,} of 400 positions" in message
    (few,) = warned(con, "few_tokens")
    rare = [counts[target] for target in targets if percentiles[place[target] - 1] < 50]  # es; every token is a word
    assert f"es {round(100 * sum(count <= 2 for count in rare) / len(rare))} %" in few[1]
    once = sum(count == 1 for count in counts) / sum(count > 0 for count in counts)
    assert f"tie as the rarest: {round(100 * once)} %. " in few[1]


def test_the_rules_are_those_of_the_table(con: duckdb.DuckDBPyConnection) -> None:
    assert rows(con, "from store.warning_rule") == [(rule.kind, rule.threshold) for rule in RULES]
    assert (SMALL_SOURCE, LARGE_ELBOW) == (5_000_000, 0.05)
