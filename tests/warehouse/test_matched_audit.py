"""What must hold of matched contexts before they are published, each expectation by a run that breaks it."""

from collections.abc import Iterator

import duckdb
import pytest

from rare_tokens.warehouse.publish import audit
from tests.sql.test_marts import given_positions, given_tokens
from tests.support.mart_rows import empty_warehouse, given, given_run, rows

POSITIONS = 4
# Position: pair, context, group, part of speech. Targets: 2, 3, 2, 3; 2 is rare, 3 common.
CONTEXTS = [(0, 0, "rare", "NOUN"), (0, 0, "common", "NOUN"), (0, 1, "rare", "NOUN"), (0, 1, "common", "NOUN")]
WHOLE = "has every position once"
COUPLE = "has a rare and a common position in each context"
FREQUENCY = "targets are as rare and as common as their group says"
ALIKE = "the two of a context are used alike"
PAIR = "a pair is of two tokens that are in no other"


@pytest.fixture
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    """Two sound runs of one source, of which the first is looked at."""
    with empty_warehouse() as con:
        given_tokens(con)
        con.execute("update store.token_frequency set count = 20000000 where token_id = 0")
        con.execute("update store.token_frequency set count = 400 where token_id = 3")
        given(con, "dim_document", "run_key, document_id, document_hash, domain, tokens", (1, 0, "h", "news", 9))
        given(con, "dim_document", "run_key, document_id, document_hash, domain, tokens", (1, 1, "g", "novel", 9))
        for key, run in ((1, "run"), (2, "other")):
            given_run(con, key, run)
            given_positions(con, [2, 3, 2, 3], window=1, run_key=key)
            columns = "run_key, position_id, pair_id, context_id, token_group, part_of_speech, sentence_place"
            matched = [(key, position, *context, "end", True) for position, context in enumerate(CONTEXTS)]
            given(con, "position_context", f"{columns}, is_whole_word", *matched)
        con.execute("update store.dim_position set document_id = 0")
        con.execute(
            "update store.run set contexts = 'nc-matched', positions = 4, tokenizer_id = 't', frequency_source_id = 's'"
        )
        yield con


def broken(con: duckdb.DuckDBPyConnection) -> dict[str, float]:
    """Expectations that the first run does not keep to, and how much of it does not."""
    found = rows(con, "select expectation, observed from audit_context where run_id = 'run' and observed <> 0")
    assert {expectation for _, expectation in rows(con, "select distinct 1, expectation from audit_context")} == {
        WHOLE, COUPLE, FREQUENCY, ALIKE, PAIR,
    }  # fmt: skip
    return dict(found)


def test_a_sound_run_keeps_to_all(con):
    assert broken(con) == {}
    con.execute("update store.run set contexts = 'sample' where run_id = 'other'")
    assert rows(con, "select distinct run_id from audit_context") == [("run",)], "a sample has no contexts"


BREAKS = {
    "a position of no context": ("delete from store.position_context where position_id in (2, 3)", {WHOLE: 2}),
    "no context at all": (
        "delete from store.position_context",
        {WHOLE: 1, COUPLE: 1, FREQUENCY: 1, ALIKE: 1},
    ),
    "one of a context missing": (
        "delete from store.position_context where position_id = 3",
        {WHOLE: 1, COUPLE: 1},
    ),
    "two rare ones": (
        "update store.position_context set token_group = 'rare' where position_id = 1",
        {COUPLE: 1, FREQUENCY: 1},
    ),
    "another group": (
        "update store.position_context set token_group = 'odd' where position_id = 1",
        {FREQUENCY: 1},
    ),
    "rare and common turned round": (
        "update store.position_context set token_group = case token_group when 'rare' then 'common' else 'rare' end",
        {FREQUENCY: 4},
    ),
    "a token that is not rare": ("update store.token_frequency set count = 5 where token_id = 2", {FREQUENCY: 2}),
    "a token that is not common": ("update store.token_frequency set count = 300 where token_id = 3", {FREQUENCY: 2}),
    "another part of speech": (
        "update store.position_context set part_of_speech = 'VERB' where position_id = 1",
        {ALIKE: 1},
    ),
    "another domain": ("update store.dim_position set document_id = 1 where position_id = 3", {ALIKE: 1}),
    "a token in two pairs": ("update store.position_context set pair_id = 1 where context_id = 1", {PAIR: 2}),
    "a pair of three tokens": (
        "update store.dim_position set target_token_id = 1 where position_id = 2",
        {PAIR: 1},
    ),
}


@pytest.mark.quick_cases(5)
@pytest.mark.parametrize("case", BREAKS)
def test_what_does_not_hold_is_counted(con, case):
    statement, expected = BREAKS[case]
    con.execute(statement + (" and run_key = 1" if "where" in statement and "frequency set" not in statement else ""))
    assert broken(con) == expected


def test_it_is_part_of_the_first_audit(con):
    con.execute("update store.position_context set token_group = 'rare' where position_id = 1 and run_key = 1")
    failing = {item.expectation: item for item in audit.part_verdicts(con, "run") if item.failures}
    assert failing[COUPLE].is_integrity
    assert failing[FREQUENCY].suite == "parts"
