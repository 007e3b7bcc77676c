"""The time left: as forecast at first, as what is done shows later."""

import io
import sys

import pytest

from rare_tokens.common.progress import progress, seconds_left, working


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


class Terminal(io.StringIO):
    """A terminal's side of stderr."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("already", "told"), [(0, "0:01:40"), (3, "0:01:40")])
def test_a_bar_begins_with_the_forecast_of_what_is_left(monkeypatch, already, told):
    stderr = Terminal()
    monkeypatch.setattr(sys, "stderr", stderr)
    with progress("ablation", 4, "units", expected=100.0, already=already) as advance:
        pass
    assert told in stderr.getvalue()
    with progress("ablation", 4, "units", expected=100.0, already=already) as advance:
        advance(4 - already)
    assert "100 %" in stderr.getvalue()


def test_a_step_that_is_not_counted_shows_its_forecast(monkeypatch):
    stderr = Terminal()
    monkeypatch.setattr(sys, "stderr", stderr)
    with working("neurons", expected=65.0):
        pass
    assert "0:01:05" in stderr.getvalue()


def test_nothing_is_shown_where_there_is_no_terminal_or_all_is_quiet(monkeypatch, capsys):
    with progress("ablation", 4, "units", expected=100.0) as advance:
        advance()
    assert capsys.readouterr().err == ""
    stderr = Terminal()
    monkeypatch.setattr(sys, "stderr", stderr)
    with working("neurons", quiet=True, expected=65.0):
        pass
    assert stderr.getvalue() == ""
