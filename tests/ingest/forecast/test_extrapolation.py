"""From a few timed blocks to a run: against costs that are known exactly, whatever the clock of this machine says."""

import pytest

from rare_tokens.ingest.forecast.blocks import LARGE, LEAST_SECONDS, MOST_SECONDS, SHARE, blocks_seconds
from rare_tokens.ingest.forecast.extrapolation import Forecast, Line, calls


@pytest.mark.parametrize(("total", "at_a_time", "found"), [(10, 4, [4, 4, 2]), (8, 4, [4, 4]), (3, 4, [3])])
def test_calls_take_all_units(total, at_a_time, found):
    assert calls(total, at_a_time) == found


def test_a_line_through_two_calls_gives_both_again_and_what_lies_beyond():
    line = Line.through((4, 3.0), (10, 6.0))
    assert (line.fixed, line.each) == (1.0, 0.5)
    assert line.of_calls([100, 100, 20]) == 3 * 1.0 + 220 * 0.5


@pytest.mark.parametrize(
    ("small", "large", "of_1000"),
    [
        ((10, 5.0), (40, 4.0), 4.0),  # the larger one took no longer: all is fixed
        ((10, 1.0), (40, 8.0), 200.0),  # longer than its units explain: nothing is fixed
        ((40, 8.0), (40, 8.0), 200.0),  # nothing to tell both apart
        ((40, 8.0), (10, 1.0), 200.0),  # in whatever order
    ],
)
def test_no_part_of_a_line_is_below_nothing(small, large, of_1000):
    line = Line.through(small, large)
    assert min(line.fixed, line.each) >= 0
    assert line.at(1_000) == pytest.approx(of_1000)


class Machine:
    """Blocks whose cost is `once` (in the first) + `fixed` + `each` a position; what it was asked for is kept."""

    def __init__(self, once: float, fixed: float, each: float) -> None:
        self.once, self.fixed, self.each = once, fixed, each
        self.asked: list[int] = []

    def __call__(self, positions: int) -> float:
        self.asked.append(positions)
        return self.once * (len(self.asked) == 1) + self.fixed + self.each * positions

    def of(self, blocks: list[int]) -> float:
        """What blocks cost, the first of them in a new process."""
        return self.once + len(blocks) * self.fixed + sum(blocks) * self.each


@pytest.mark.parametrize(
    ("once", "fixed", "each"),
    [(0.0, 2.0, 0.01), (15.0, 0.5, 0.001), (0.0, 0.0, 0.02), (3.0, 4.0, 0.0), (0.0, 30.0, 0.1)],
    ids=["folded head", "compiled on first use", "all by position", "all by block", "a large model"],
)
@pytest.mark.parametrize("blocks", [[4096], [8192, 8192, 8192, 512], [100], [7]])
def test_a_run_is_forecast_from_a_few_small_blocks(once, fixed, each, blocks):
    machine = Machine(once, fixed, each)
    assert blocks_seconds(machine, blocks, at_hand=2048) == pytest.approx(machine.of(blocks), rel=1e-6)
    assert max(machine.asked) <= min(LARGE, max(blocks))


def test_the_largest_try_is_as_long_as_the_run_excuses():
    for each, blocks in ((0.02, [8192] * 3), (0.1, [8192] * 100), (0.004, [600])):
        machine = Machine(0.0, 0.1, each)
        blocks_seconds(machine, blocks, at_hand=2048)
        longest = machine.fixed + machine.each * max(machine.asked)
        excused = min(MOST_SECONDS, max(LEAST_SECONDS, SHARE * machine.of(blocks)))
        assert longest <= max(excused, machine.fixed + machine.each * 256) + 1e-9


def test_positions_at_hand_bound_what_is_tried():
    machine = Machine(0.0, 1.0, 0.001)
    assert blocks_seconds(machine, [4096], at_hand=64) == pytest.approx(machine.of([4096]))
    assert max(machine.asked) == 64


def test_minutes_are_those_of_all_stages():
    assert Forecast({"find": 30.0, "effects": 90.0}).minutes == 2.0
