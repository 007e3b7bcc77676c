"""Seconds and pairs by stage of the ablation, for whoever asks: the benchmark does, an ingest does not."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

FOLDING, MOMENTS, SERIES, VOCABULARY, FLOAT64 = STAGES = ("folding", "moments", "series", "vocabulary", "float64")


class StageClock:
    """Accumulates wall-clock seconds and pairs by stage; stages follow each other and are not nested."""

    def __init__(self, wait: Callable[[], object] | None = None) -> None:
        """`wait` returns when the device has done all it was given; needed where it computes on its own (CUDA)."""
        self.seconds: dict[str, float] = {}
        self.pairs: dict[str, int] = {}
        self._wait = wait

    @contextmanager
    def of(self, stage: str, pairs: int = 0) -> Iterator[None]:
        """Add what is spent within this context to a stage, and how many pairs (t, i) it is spent on."""
        self.pairs[stage] = self.pairs.get(stage, 0) + pairs
        start = self._now()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + self._now() - start

    def _now(self) -> float:
        if self._wait is not None:
            self._wait()
        return time.perf_counter()


class NoClock(StageClock):
    """Measures nothing: no device waits for it."""

    @contextmanager
    def of(self, stage: str, pairs: int = 0) -> Iterator[None]:  # noqa: ARG002
        """Do nothing."""
        yield
