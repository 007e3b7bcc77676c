"""Layouts with a norm after the MLP are timed by each path that `ingest` has for them."""

import pytest

from benchmarks.speed.post_norm import LAYOUTS, measured, said

SIZE = {"vocab_size": 6000, "hidden_size": 72, "intermediate_size": 40}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_path_is_timed_or_the_reason_is_said(layout: str) -> None:
    row = measured(layout, SIZE, 32, window=16)
    assert 0 < row["dense_seconds_per_position"] < 60
    assert (row["fast_seconds_per_position"] is None) == ("no_fast_path" in row)
    if layout == "llama":  # no norm follows its MLP
        assert row["fast_seconds_per_position"] > 0
    if row["fast_seconds_per_position"] is not None:
        assert row["self_check"] <= 1


def test_a_row_in_words() -> None:
    row = {"layout": "a", "dense_seconds_per_position": 4.0, "fast_seconds_per_position": None, "no_fast_path": "why"}
    assert said(row) == "a: dense path 4,000.0 ms a position; `ingest` takes only this one: why"
    row |= {"fast_seconds_per_position": 0.02, "dense_over_fast": 200.0}
    assert said(row) == "a: dense path 4,000.0 ms a position, by moments 20.0 ms: 200 times as fast"
