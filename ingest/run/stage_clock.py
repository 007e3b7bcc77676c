"""How long the stages of a run take."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from rare_tokens.common.progress import working


@dataclass
class StageClock:
    """Times the stages of a run, and shows those whose work is not counted in units.

    Attributes:
        expected: seconds that stages are forecast to take, by name.
        quiet: show nothing.
        seconds: what they took.
    """

    expected: Mapping[str, float]
    quiet: bool
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage."""
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 3)

    @contextmanager
    def shown(self, name: str) -> Iterator[None]:
        """Time a stage and show that it is running."""
        with self.stage(name), working(name, quiet=self.quiet, expected=self.expected.get(name)):
            yield
