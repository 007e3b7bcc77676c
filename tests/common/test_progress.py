"""The time left: as forecast at first, as what is done shows later."""

import pytest

from rare_tokens.common.progress import seconds_left


def test_it_begins_as_forecast_and_counts_down():
    assert seconds_left(100.0, 0.0, 0.0, 0.0) == 100.0
    assert seconds_left(100.0, 0.0, 0.0, 30.0) == 70.0, "while the first unit runs"
    assert seconds_left(100.0, 0.0, 0.0, 130.0) == 0.0, "never below 0"


def test_without_a_forecast_only_what_is_done_tells():
    assert seconds_left(None, 0.0, 0.0, 5.0) is None
    assert seconds_left(None, 0.25, 10.0, 10.0) == 30.0
    assert seconds_left(None, 0.25, 10.0, 14.0) == 26.0


def test_what_is_done_corrects_the_forecast():
    """A step that takes 200 s where 100 were forecast: the end that it tells comes ever closer to 200."""
    told = [seconds_left(100.0, share, 200.0 * share, 200.0 * share) + 200.0 * share for share in (0.0, 0.1, 0.5, 0.9)]
    assert told[0] == 100.0
    assert told == sorted(told)
    assert told[2] == pytest.approx(200.0, rel=0.1)
    assert seconds_left(100.0, 1.0, 200.0, 200.0) == 0.0


def test_a_right_forecast_stays():
    for share in (0.0, 0.2, 0.7):
        assert seconds_left(80.0, share, 80.0 * share, 80.0 * share) == pytest.approx(80.0 * (1 - share))
