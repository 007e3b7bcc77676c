"""How units of work are run. An executor knows nothing of what a unit does, a unit nothing of who runs it.

A unit whose output is on disk is done; running the same command again does the rest.
"""

from collections.abc import Callable, Iterable
from typing import Protocol

from common.progress import progress


class Executor(Protocol):
    """Runs the units of one stage that are not done yet."""

    def run(self, title: str, units: Iterable[int], work: Callable[[int], None], done: Callable[[int], bool]) -> None:
        """Call `work` for each unit for which `done` is false."""


class LocalExecutor:
    """One unit after the other in this process; each uses every thread there is."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet

    def run(self, title: str, units: Iterable[int], work: Callable[[int], None], done: Callable[[int], bool]) -> None:
        """Run what is left, with progress on stderr."""
        every = list(units)
        left = [unit for unit in every if not done(unit)]
        with progress(title, len(every), "units", quiet=self.quiet) as advance:
            advance(len(every) - len(left))
            for unit in left:
                work(unit)
                advance()
