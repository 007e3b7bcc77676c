"""How long blocks of positions take, from a few small ones: pure arithmetic around a function that times a block."""

from collections.abc import Callable, Sequence

from rare_tokens.ingest.forecast.extrapolation import Line

FIRST, SMALL, LARGE = 8, 256, 1_024  # positions of the blocks that are tried
SHARE = 0.15  # of what all blocks will take, that the largest try may
LEAST_SECONDS, MOST_SECONDS = 2.0, 20.0  # that the largest try may take in any case, and at most


def blocks_seconds(seconds_of: Callable[[int], float], blocks: Sequence[int], at_hand: int) -> float:
    """Seconds of all blocks of a run.

    The first block tried also pays for what is made only once in a process, so the two that follow tell what a block
    and what a position cost. Small blocks take more than their share of a position's cost, so the larger of these is
    as large as the length of the run excuses.

    Args:
        seconds_of: computes a block of so many positions and returns the seconds that it took.
        blocks: positions of each block of the run.
        at_hand: how many positions there are to try.
    """
    most = min(at_hand, max(blocks))
    first, small = min(FIRST, most), min(SMALL, most)
    cold, short = seconds_of(first), seconds_of(small)
    line = Line.through((first, cold), (small, short))
    allowed = min(MOST_SECONDS, max(LEAST_SECONDS, SHARE * line.of_calls(blocks)))
    large = min(LARGE, most, int((allowed - line.fixed) / line.each) if line.each > 0 else most)
    if large >= 2 * small:
        line = Line.through((small, short), (large, seconds_of(large)))
    else:
        line = Line.through((first, seconds_of(first)), (small, short))
    return max(0.0, cold - line.at(first)) + line.of_calls(blocks)
