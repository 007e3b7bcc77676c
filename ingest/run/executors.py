"""How units of work are run. An executor does not know what a unit does, and a unit does not know who runs it.

A unit whose output is on disk is done. Running the same command again does the rest.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from rare_tokens.common.progress import Advance, progress
from rare_tokens.ingest.run.shared_storage import Place
from rare_tokens.ingest.run.stages import Loaded, Stage


class Executor(Protocol):
    """Runs the units of a stage that are not done yet.

    Attributes:
        quiet: show no progress.
        least_units: how many units a stage should have where possible, so that every worker has enough to do.
        times: how many machines like this one its workers make up, by their threads.
    """

    quiet: bool
    least_units: int
    times: float

    def ready(self, loaded: Loaded) -> None:
        """Start the workers that will compute the units of a run, before the first unit.

        Raises:
            UserError: a worker cannot load the model.
        """

    def run(
        self,
        title: str,
        units: Iterable[int],
        work: Callable[[int], None],
        done: Callable[[int], bool],
        expected: float | None = None,
    ) -> None:
        """Call `work` for each unit for which `done` is false, in this process.

        `expected` is how many seconds all of the units are forecast to take.
        """

    def spread(self, stage: Stage, loaded: Loaded, place: Place, units: Sequence[int]) -> Iterator[int]:
        """Compute units of a stage into a place, from what is loaded or from its recipe; yields each unit that is done.

        Raises:
            UserError: a unit fails, or a worker is lost again and again.
        """


class LocalExecutor:
    """Runs one unit after the other in this process, each on all threads."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet, self.least_units, self.times = quiet, 1, 1.0

    def ready(self, loaded: Loaded) -> None:
        """Do nothing: this process has everything loaded."""

    def run(
        self,
        title: str,
        units: Iterable[int],
        work: Callable[[int], None],
        done: Callable[[int], bool],
        expected: float | None = None,
    ) -> None:
        """Run the units that are left, with progress on stderr."""
        every = list(units)
        left = [unit for unit in every if not done(unit)]
        with _counting(self, title, len(every), len(left), expected) as advance:
            for unit in left:
                work(unit)
                advance()

    def spread(self, stage: Stage, loaded: Loaded, place: Place, units: Sequence[int]) -> Iterator[int]:
        """Compute the units here, one after the other."""
        work = stage.build(loaded, place)
        for unit in units:
            work(unit)
            yield unit


def gather(
    executor: Executor,
    stage: Stage,
    loaded: Loaded,
    place: Place,
    take: Callable[[int], None],
    expected: float | None = None,
) -> None:
    """Compute the units of a stage that are not at their place yet, and take in each one as it arrives.

    Args:
        executor: computes them.
        stage: what to compute.
        loaded: the model as it is loaded here.
        place: where the units' files go.
        take: called in this process, once for each unit whose files are at the place.
        expected: seconds that all of the units are forecast to take on this machine.

    Raises:
        UserError: as `Executor.spread`, or the place cannot be used.
    """
    there = place.names()
    left = [unit for unit in range(stage.units) if not there.issuperset(stage.files(unit))]
    done = sorted(set(range(stage.units)) - set(left))
    with _counting(executor, stage.title, stage.units, len(left), expected) as advance:
        for unit in done:
            take(unit)
        for unit in executor.spread(stage, loaded, place, left):
            take(unit)
            advance()


def _counting(
    executor: Executor, title: str, units: int, left: int, expected: float | None
) -> AbstractContextManager[Advance]:
    """The progress of a stage of which so many units are left."""
    seconds = None if expected is None or not units else expected * left / units / executor.times
    return progress(title, units, "units", quiet=executor.quiet, expected=seconds, already=units - left)
