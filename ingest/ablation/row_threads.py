"""Rows of a block on several threads at once.

torch's own threads wait for each other after every operation; those here take rows of their own through all of them,
and meet only when a piece of the vocabulary is done.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import TypeVar

import torch

T = TypeVar("T")
STRIPES = 4  # threads with rows of their own, at most; what torch has more of works within them


class Stripes:
    """Threads that share the rows of a block; a context, within which torch's own threads are divided among them."""

    def __init__(self, device: torch.device) -> None:
        """As many as torch may use, up to `STRIPES`; on an accelerator the caller's own."""
        self._threads = torch.get_num_threads()
        self._on_processor = device.type == "cpu"
        self.count = min(STRIPES, self._threads) if self._on_processor else 1
        self._pool: ThreadPoolExecutor | None = None

    def __enter__(self) -> "Stripes":
        """Start the threads, if there are several."""
        if self.count > 1:
            own = self._threads // self.count
            self._pool = ThreadPoolExecutor(self.count, "stripe", lambda: torch.set_num_threads(own))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for the threads and give torch its own back."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            torch.set_num_threads(self._threads)

    def split(self, total: int, held: int) -> list[slice]:
        """`total` rows in slices of nearly one size for threads that together hold at most `held` of them at a time.

        On a processor they do not depend on how many threads there are, and so neither do the bits of a result.
        """
        shared = STRIPES if self._on_processor else 1
        slices = min(total, shared * -(-total // held))
        size = -(-total // max(1, slices))
        return [slice(start, min(start + size, total)) for start in range(0, total, max(1, size))]

    def map(self, work: Callable[[slice], T], slices: list[slice]) -> list[T]:
        """What `work` gives for every slice, in their order; done in any order, it may write to these rows alone."""
        if self._pool is None:
            return [work(rows) for rows in slices]
        inference, gradients = torch.is_inference_mode_enabled(), torch.is_grad_enabled()

        def as_the_caller(rows: slice) -> T:  # these modes are each thread's own
            with torch.inference_mode(inference), torch.set_grad_enabled(gradients):
                return work(rows)

        return list(self._pool.map(as_the_caller, slices))
