"""Text made visible: what hides or reorders is spelled out, once for the terminal and the report."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rare_tokens.common.text import fitted, inert, visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain words, 日本語", "plain words, 日本語"),
        ("\x1b[31mred\x00", "\\x1b[31mred\\x00"),
        ("a\nb\rc\td", "a\\nb\\rc\\td"),
        ("\u202eevil\u2028\ud800", "\\u202eevil\\u2028\\ud800"),
        ("\U000e0001tag", "\\U000e0001tag"),
        ("\u0301combining", "◌\u0301combining"),
        ("", ""),
    ],
)
def test_what_acts_or_hides_is_spelled_out(text: str, shown: str) -> None:
    assert visible(text) == shown


@settings(deadline=None)
@given(st.text(max_size=60))
def test_visible_text_stays_as_it_is(text: str) -> None:
    shown = visible(text)
    assert visible(shown) == shown
    shown.encode("utf-8")


def test_what_does_not_fit_is_cut_and_never_spelled_whole() -> None:
    assert fitted("a" * 80) == "a" * 80
    assert fitted("a" * 81) == "a" * 79 + "…"
    assert fitted("\x00" * 10_000_000, 5) == "\\x00…"


def test_line_ends_of_a_message_stay() -> None:
    assert inert("first\nsecond\x1b[2J\n") == "first\nsecond\\x1b[2J\n"
