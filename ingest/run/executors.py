"""How units of work are run. An executor does not know what a unit does, and a unit does not know who runs it.

A unit whose output is on disk is done. Running the same command again does the rest.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

from rare_tokens.common.progress import progress
from rare_tokens.ingest.run.shared_storage import Place
from rare_tokens.ingest.run.stages import Loaded, Stage


class Executor(Protocol):
    """Runs the units of a stage that are not done yet.

    Attributes:
        quiet: show no progress.
        least_units: how many units a stage should have where possible, so that every worker has enough to do.
    """

    quiet: bool
    least_units: int

    def ready(self, loaded: Loaded) -> None:
        """Start the workers that will compute the units of a run, before the first unit.

        Raises:
            UserError: a worker cannot load the model.
        """

    def run(self, title: str, units: Iterable[int], work: Callable[[int], None], done: Callable[[int], bool]) -> None:
        """Call `work` for each unit for which `done` is false, in this process."""

    def spread(self, stage: Stage, loaded: Loaded, place: Place, units: Sequence[int]) -> Iterator[int]:
        """Compute units of a stage into a place, from what is loaded or from its recipe; yields each unit that is done.

        Raises:
            UserError: a unit fails, or a worker is lost again and again.
        """


class LocalExecutor:
    """Runs one unit after the other in this process, each on all threads."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet, self.least_units = quiet, 1

    def ready(self, loaded: Loaded) -> None:
        """Do nothing: this process has everything loaded."""

    def run(self, title: str, units: Iterable[int], work: Callable[[int], None], done: Callable[[int], bool]) -> None:
        """Run the units that are left, with progress on stderr."""
        every = list(units)
        left = [unit for unit in every if not done(unit)]
        with progress(title, len(every), "units", quiet=self.quiet) as advance:
            advance(len(every) - len(left))
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
) -> None:
    """Compute the units of a stage that are not at their place yet, and take in each one as it arrives.

    Args:
        executor: computes them.
        stage: what to compute.
        loaded: the model as it is loaded here.
        place: where the units' files go.
        take: called in this process, once for each unit whose files are at the place.

    Raises:
        UserError: as `Executor.spread`, or the place cannot be used.
    """
    there = place.names()
    left = [unit for unit in range(stage.units) if not there.issuperset(stage.files(unit))]
    done = sorted(set(range(stage.units)) - set(left))
    with progress(stage.title, stage.units, "units", quiet=executor.quiet) as advance:
        for unit in itertools.chain(done, executor.spread(stage, loaded, place, left)):
            take(unit)
            advance()
