"""The line at the slider: what it parts, from where to where it is the same one, and what crosses it next."""

import polars as pl
import pytest

from rare_tokens.analyses.explore_line import LINE, line_at
from rare_tokens.analyses.result_table import table

# As on a small corpus: 43 % of the types occur once, and are words or not.
TYPES = [(0.0, 1, 300, 40), (43.4, 2, 120, 30), (61.0, 3, 80, 25), (90.5, 20, 60, 900)]


def steps(percentile: int) -> pl.DataFrame:
    """Every type in a group of its side, but for 10 types counted once that are no words."""
    rows = [
        {"place": place, "count": count, "token_group": "rare" if place < percentile else "common"}
        | {"types": types, "positions": positions}
        for place, count, types, positions in TYPES
    ]
    return table([*rows, dict(rows[0], token_group=None, types=10, positions=3)], LINE)


@pytest.mark.parametrize(
    ("percentile", "first", "last", "rare"),
    [(1, 1, 43, 300), (43, 1, 43, 300), (44, 44, 61, 420), (61, 44, 61, 420), (62, 62, 90, 500), (99, 91, 99, 560)],
)
def test_percentiles_between_two_counts_draw_one_line(percentile, first, last, rare):
    line = line_at(steps(percentile), percentile)
    assert (line.first, line.last) == (first, last)
    assert line.groups["rare"].types == rare
    assert {line_at(steps(at), at).groups["rare"].types for at in (first, last)} == {rare}
    for beyond in {first - 1, last + 1} - {0, 100}:
        assert line_at(steps(beyond), beyond).groups["rare"].types != rare


def test_what_the_line_parts_is_said_in_words():
    assert line_at(steps(50), 50).in_words() == (
        "It parts tokens counted 2 times from those counted 3 times. Each percentile from 44 to 61 draws this line."
        " **Rare:** 420 types at 70 positions. **Common:** 140 types at 925 positions;"
        " in neither group: 10 types at 3 positions."
        " Moved further: at 43, 120 types at 30 positions (counted 2 times) no longer lie below it;"
        " at 62, 80 types at 25 positions (counted 3 times) lie below it too."
    )


def test_what_crosses_is_what_the_groups_gain_and_lose():
    line = line_at(steps(44), 44)
    assert line.down is not None
    assert line.up is not None
    rare = {at: line_at(steps(at), at).groups["rare"] for at in (43, 44, 62)}
    assert line.down.types == rare[44].types - rare[43].types
    assert line.up.positions == rare[62].positions - rare[44].positions


def test_at_the_ends_there_is_nothing_to_move_to():
    low, high = line_at(steps(1), 1), line_at(steps(99), 99)
    assert low.down is None
    assert high.up is None
    assert "(counted 20 times)" in low.in_words() or "counted once from those counted 2 times" in low.in_words()
    assert "No token type lies above it; the most frequent are counted 20 times." in high.in_words()


def test_a_fine_source_moves_by_several_counts_at_once():
    fine = table(
        [{"place": 10 + i / 10, "count": 50 + i, "token_group": "rare", "types": 1, "positions": 2} for i in range(40)],
        LINE,
    )
    line = line_at(fine, 12)
    assert (line.first, line.last) == (12, 12)
    assert line.down is not None
    assert line.up is not None
    assert (line.down.types, line.down.counted()) == (10, "counted 60 to 69 times")
    assert (line.up.types, line.up.counted()) == (10, "counted 70 to 79 times")
    assert "Each percentile" not in line.in_words()


def test_one_of_anything_is_singular():
    one = table([{"place": 0.0, "count": 1, "token_group": "rare", "types": 1, "positions": 1}], LINE)
    assert "**Rare:** 1 type at 1 position." in line_at(one, 5).in_words()
    assert line_at(one.clear(), 5).in_words().startswith("No token has a count.")
